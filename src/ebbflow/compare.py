"""Diffusion and flow matching side by side: same network, same data, same steps, same noise."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .errors import InputError
from .evaluation import evaluate, point_set, real_points
from .metrics import Measurement
from .recipes import RECIPES, Recipe
from .samplers import slope
from .trained import Trained
from .training import checkpoint
from .training.rehearsal import rehearse, room
from .training.run import Interrupted, fit, read_metrics

# Every row is drawn from the same noise. The grid is quadratic wherever a solver may choose, for both methods alike:
# it follows σ, which is small near the data; DDPM's own 1000 steps are those of its table.
SAMPLINGS: dict[str, list[tuple[str, str, str, int]]] = {
    "diffusion": [
        ("DDPM, 1000 steps", "ddpm:variance=beta", "trailing", 1000),
        ("DDIM, 50 steps", "ddim", "quadratic", 50),
        ("Euler, 100 steps", "euler", "quadratic", 100),
        ("Heun, 50 steps", "heun", "quadratic", 50),
        ("Heun, 10 steps", "heun", "quadratic", 10),
    ],
    "flow": [
        ("Euler, 100 steps", "euler", "quadratic", 100),
        ("Heun, 50 steps", "heun", "quadratic", 50),
        ("Heun, 10 steps", "heun", "quadratic", 10),
    ],
}
METHODS = {"diffusion": ("DDPM", "ddpm"), "flow": ("Flow matching", "flow")}
CURVE = {"Euler": ("euler", (5, 10, 20, 50, 100)), "Heun": ("heun", (3, 5, 10, 25, 50))}
CURVE_METRICS = ("within-mode sliced W2", "energy distance")  # the first that applies is drawn
SUMMARY = ("within-mode sliced W2", "outliers beyond 4 σ", "mean log-density", "MMD²", "energy distance", "sliced W2")
CURVE_POINTS = 2000
WALK_POINTS = 1500
FEWEST = 20  # rows of a file: two halves of fewer say nothing of each other
FIELD_TIMES = (0.9, 0.7, 0.5, 0.3, 0.1)


@dataclass(frozen=True)
class Method:
    """One trained network. Everything is in data units; at t = 1 the noise then has the data's mean and spread."""

    key: str  # "diffusion" or "flow": fixes its colour
    name: str  # "DDPM", "Flow matching"
    steps: np.ndarray  # training history: steps and
    losses: np.ndarray  # mean loss since the entry before
    seconds: float  # CPU seconds of training
    evolution: list[tuple[int, np.ndarray]]  # (training step, samples (m, d)), from the same noise
    walk_times: np.ndarray  # (k,) from 1 to 0
    walk: np.ndarray  # (k, m, d): a deterministic run from the noise both methods share
    fields: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]  # (t, places, velocities there, samples of x_t)


@dataclass(frozen=True)
class Sampling:
    """One way of sampling one network, and how good the samples are."""

    method: str  # Method.key
    label: str
    sampler: str
    steps: int
    evaluations: int  # of the network, per sample
    seconds: float
    samples: np.ndarray
    labels: np.ndarray | None
    measurements: list[Measurement]


@dataclass(frozen=True)
class Comparison:
    """What `ebbflow compare` found, ready to be drawn."""

    title: str
    command: str
    real: np.ndarray
    real_labels: np.ndarray | None
    limits: tuple[float, float] | np.ndarray  # the frame of every picture: for all columns, or (d, 2)
    methods: list[Method]
    samplings: list[Sampling]
    quality: dict[str, list[tuple[int, float]]]  # "Method.name · sampler" → (evaluations, metric)
    quality_metric: str
    floor: tuple[float, float]
    settings: dict[str, str]
    classes: tuple[str, ...] = ()  # names of the labels
    columns: tuple[str, ...] = ()  # names of the columns


def compare(
    recipe: Recipe,
    out: Path,
    *,
    n: int = 4_000,
    workers: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    command: str = "ebbflow compare",
) -> Comparison:
    """Train DDPM and flow matching with a recipe's data, network and steps; sample and measure both; see METHODS.

    The two run in two processes where there are two cores (a script that calls this then needs
    `if __name__ == "__main__":`, as ever with processes). Each is an ordinary run in a folder of its own, so an
    interrupted comparison continues with resume=True.
    """
    room(8000 * n, f"n {n}")
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, and a comparison needs a folder.")
    jobs = []
    for position, (key, (name, base)) in enumerate(METHODS.items()):
        row = RECIPES[base]()
        own = {field: getattr(row, field) for field in ("path", "target", "sampler", "grid", "sample_steps")}
        begun = _begun(out / key)
        options = {"resume": resume and begun, "overwrite": overwrite, "progress": progress, "position": position}
        jobs.append((key, name, replace(recipe, **own), out / key, n, options))
    if not (resume or overwrite) and any((out / key).exists() for key in METHODS):
        raise InputError(f"{out} already holds a comparison; resume it, overwrite it, or choose another folder.")
    if resume and not any(_begun(out / key) for key in METHODS):
        raise InputError(f"{out} holds no comparison to resume.")
    for job in jobs:  # what is wrong with the data or the recipe is said before anything is written
        rehearse(job[2])
    if point_set(recipe) is None and len(real_points(recipe, FEWEST, 0).x) < FEWEST:
        raise InputError(f"{recipe.data} must have at least {FEWEST} rows, to hold samples against.")
    try:
        studies = _in_processes(jobs) if workers > 1 and _cores() > 1 else [_study(*job) for job in jobs]
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.exit_code - 128 if isinstance(stop, Interrupted) else signal.SIGINT
        name = signal.Signals(number).name
        raise Interrupted(f"Stopped by {name}; saved. Continue with: {command} --resume", number) from None
    return _assemble(recipe, studies, n, command)


def _begun(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step-*"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(jobs: list[tuple[Any, ...]]) -> "list[_Study]":
    """Each job in a process of its own. Whatever stops one stops the others, which save first."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with _forwarded_signals(before) as (received, start), ProcessPoolExecutor(len(jobs), context, _worker) as pool:
        futures = start(lambda: [pool.submit(_study, *job) for job in jobs])
        try:
            failed = any(future.exception() for future in wait(futures, return_when=FIRST_EXCEPTION).done)
            if failed and not received:  # a second signal would end what the first still saves
                _terminate(before)
            return [future.result() for future in futures]
        except (Interrupted, BrokenProcessPool):
            if not received:
                raise
            raise Interrupted("", received[0]) from None


@dataclass(frozen=True)
class _Study:
    """What one process brings home."""

    method: Method
    samplings: list[Sampling]
    quality: dict[str, list[tuple[int, Measurement]]]


def _study(key: str, name: str, recipe: Recipe, folder: Path, n: int, options: dict[str, Any]) -> _Study:
    with _busy:
        return _measured(key, name, recipe, folder, n, options)


def _measured(key: str, name: str, recipe: Recipe, folder: Path, n: int, options: dict[str, Any]) -> _Study:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    trained = fit(recipe, folder, **options)
    work = sum(steps * n for *_, steps in SAMPLINGS[key])
    floors: dict[tuple[str, int], list[float]] = {}
    bar = tqdm(
        total=work, desc=f"{folder.name}: sampling", position=options["position"], disable=not options["progress"],
        unit="pt", unit_scale=True, dynamic_ncols=True, file=sys.stderr,
    )  # fmt: skip
    samplings = []
    with bar:
        for label, sampler, grid, steps in SAMPLINGS[key]:
            start = time.process_time()
            x, evaluations = _draw(trained, n, sampler, grid, steps, bar)
            seconds = time.process_time() - start
            rows = evaluate(recipe, x, seed=recipe.seed, floors=floors)
            samplings.append(Sampling(key, label, sampler, steps, evaluations, seconds, x.numpy(), None, rows))
        quality = {}
        for solver, (sampler, counts) in CURVE.items():
            points = []
            for steps in counts:
                x, evaluations = _draw(trained, min(n, CURVE_POINTS), sampler, "quadratic", steps)
                rows = evaluate(recipe, x, seed=recipe.seed, floors=floors, only=CURVE_METRICS)
                points.append((evaluations, next(row for row in rows if row.name in CURVE_METRICS)))
            quality[f"{name} · {solver}"] = points
    return _Study(study(key, name, trained, folder), samplings, quality)


def _draw(trained: Trained, n: int, sampler: str, grid: str, steps: int, bar: tqdm | None = None) -> tuple[Tensor, int]:
    """n samples, and how often the network was evaluated for each."""
    seen: list[int] = []
    hook = trained.denoiser.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    x = trained.sample(n, seed=trained.recipe.seed, sampler=sampler, grid=grid, steps=steps, bar=bar)
    hook.remove()
    return x, sum(seen) // n


def study(key: str, name: str, trained: Trained, folder: Path) -> Method:
    """What is drawn of a trained network."""
    recipe = trained.recipe
    history = read_metrics(folder)
    walk = list(trained.trajectory(WALK_POINTS, seed=recipe.seed, sampler="heun", grid="uniform", steps=50))
    evolution = [
        (int(file.stem.removeprefix("step-")), _array(file))
        for file in sorted((folder / "evolution").glob("step-*.npy"))
    ]
    return Method(
        key,
        name,
        np.array([line["step"] for line in history if line["loss"] is not None]),
        np.array([line["loss"] for line in history if line["loss"] is not None]),
        history[-1]["cpu_seconds"] if history else 0.0,
        evolution,
        np.array([t for t, _ in walk]),
        torch.stack([x for _, x in walk]).numpy(),
        _fields(trained) if trained.shape == (2,) else [],
    )


def _array(file: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file} is damaged.") from error
    return array


@torch.no_grad()
def _fields(trained: Trained) -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
    """The marginal velocity on a lattice over the frame at FIELD_TIMES, among real points noised to that time."""
    denoiser, recipe = trained.denoiser, trained.recipe
    real = real_points(recipe, WALK_POINTS, recipe.seed).x
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(recipe.seed))
    frame = limits(recipe, real)
    noise_end = trained.to_data(torch.tensor([[-3.0] * len(frame), [3.0] * len(frame)])).numpy()
    low, high = np.minimum(frame[:, 0], noise_end[0]), np.maximum(frame[:, 1], noise_end[1])
    axes = [torch.linspace(float(a), float(b), 17) for a, b in zip(low, high, strict=True)]
    places = torch.cartesian_prod(*axes)
    zero = trained.to_data(torch.zeros_like(places))
    x0, x1 = trained.to_network(real), trained.to_network(next(trained.trajectory(len(real), seed=recipe.seed))[1])
    fields = []
    for time_ in FIELD_TIMES:
        speed = trained.to_data(slope(denoiser, trained.to_network(places), time_)) - zero
        t = torch.tensor([time_], dtype=torch.float64)
        if denoiser.gaussian_end:
            x_t = denoiser.path.interpolate(x0, noise, t)
        else:
            x_t, _ = denoiser.path.between(x0, x1[: len(x0)], t, noise)
        x_t = trained.to_data(x_t)
        fields.append((time_, places.numpy(), speed.numpy(), x_t.numpy()))
    return fields


def limits(recipe: Recipe, real: Tensor | np.ndarray) -> np.ndarray:
    """The frame of every picture, (d, 2): the point set's own, or the middle 99.8 % of each column and a margin."""
    known = point_set(recipe)
    if known is not None:
        return np.array([known.limits] * real.shape[1])
    low, high = np.quantile(np.asarray(real), [0.001, 0.999], axis=0)
    margin = 0.15 * np.maximum(high - low, 1e-6)
    return np.stack([low - margin, high + margin], 1)


def _assemble(recipe: Recipe, studies: list[_Study], n: int, command: str) -> Comparison:
    real = real_points(recipe, n, recipe.seed)
    quality = {name: points for study in studies for name, points in study.quality.items()}
    first = next(iter(quality.values()))[0][1]
    known = point_set(recipe)
    return Comparison(
        title=f"DDPM and flow matching on {recipe.data.replace('_', ' ') if known else Path(recipe.data).name}",
        command=command,
        real=real.x.numpy(),
        real_labels=None if real.labels is None else real.labels.numpy(),
        limits=limits(recipe, real.x),
        methods=[study.method for study in studies],
        samplings=[sampling for study in studies for sampling in study.samplings],
        quality={name: [(evaluations, row.value) for evaluations, row in points] for name, points in quality.items()},
        quality_metric=first.name,
        floor=(first.floor_low, first.floor_high),
        settings={
            "network": recipe.network,
            "training": f"{recipe.steps} steps of {recipe.batch}, learning rate {recipe.lr:g}, EMA {recipe.ema:g}",
            "data": f"{recipe.data}, {recipe.points} points" if known else recipe.data,
            "samples": f"{n} from the same noise for both",
            "seed": str(recipe.seed),
        },
        classes=real.classes,
        columns=real.columns,
    )


def summary(comparison: Comparison) -> str:
    """The table of the comparison: a row per way of sampling, the metrics that rank, and truth's own range below."""
    names = [row.name for row in comparison.samplings[0].measurements if row.name in SUMMARY]
    cells = [("", "sampler", "evaluations", "CPU s", *names)]
    for s in comparison.samplings:
        method = next(m.name for m in comparison.methods if m.key == s.method)
        rows = {row.name: row for row in s.measurements}
        values = (f"{rows[name].value:.4g}" if name in rows else "-" for name in names)
        cells.append((method, s.label, str(s.evaluations), f"{s.seconds:.1f}", *values))
    rows = {row.name: row for row in comparison.samplings[0].measurements}
    floors = (f"{rows[name].floor_low:.4g} to {rows[name].floor_high:.4g}" for name in names)
    cells.append(("truth", "against truth", "", "", *floors))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)
    trained = ", ".join(f"{m.name} {m.seconds:.1f} CPU s" for m in comparison.methods)
    return "\n".join([f"{comparison.title}; trained in {trained}", "", lines[0], rule, *lines[1:-1], rule, lines[-1]])


def save_metrics(comparison: Comparison, folder: Path) -> Path:
    """Write metrics.json: every number of the comparison, none of its points."""
    whole = asdict(replace(comparison, methods=[], samplings=[]))
    numbers = {name: whole[name] for name in ("title", "command", "settings", "quality_metric", "quality", "floor")}
    numbers["training"] = [
        {"method": m.name, "cpu_seconds": m.seconds, "last_loss": m.losses[-1].item() if len(m.losses) else None}
        for m in comparison.methods
    ]
    numbers["samplings"] = [
        {
            **{name: getattr(s, name) for name in ("method", "label", "sampler", "steps", "evaluations", "seconds")},
            "measurements": [asdict(row) | {"at_floor": row.at_floor} for row in s.measurements],
        }
        for s in comparison.samplings
    ]
    path = folder / "metrics.json"
    with checkpoint.storage(path):
        path.write_bytes(checkpoint.dump_json(_finite(numbers)))
    return path


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


# --- processes ----------------------------------------------------------------------------------------------


class _Busy:
    """Whether this process is at work. SIGTERM ends the work; a worker without any leaves it to the pool to end."""

    at_work = False

    def __enter__(self) -> None:
        self.at_work = True

    def __exit__(self, *_: object) -> None:
        self.at_work = False


_busy = _Busy()


def _worker() -> None:
    """A worker leaves Ctrl-C to its parent, which passes it on as SIGTERM once, and doesn't outlive it."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _busy.at_work:
            raise Interrupted("", number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait_for([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    while _busy.at_work:
        time.sleep(0.05)
    os._exit(1)


def _terminate(before: set[BaseProcess]) -> None:
    """SIGTERM to the processes begun since."""
    for child in set(multiprocessing.active_children()) - before:
        child.terminate()


Start = Callable[[Callable[[], Any]], Any]


@contextmanager
def _forwarded_signals(before: set[BaseProcess]) -> Iterator[tuple[list[int], Start]]:
    """Pass SIGINT and SIGTERM on to the workers, which save and stop; workers are to be begun by what is yielded.

    A process begins with the signals its parent ignores ignored: so Ctrl-C can't fall into the workers' imports.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _terminate(before)

    def start(make: Callable[[], Any]) -> Any:
        if signal.SIGINT in previous:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return make()
        finally:
            if signal.SIGINT in previous:
                signal.signal(signal.SIGINT, forward)

    with suppress(ValueError):  # not the main thread: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, forward)
    try:
        yield received, start
    finally:
        for changed, handler in previous.items():
            signal.signal(changed, handler)
