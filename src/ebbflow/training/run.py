"""A run folder: training with everything around it that must survive a crash.

run/checkpoints/step-00003000/   see checkpoint.py; `last` names the newest
run/metrics.jsonl                one line every few steps
run/evolution/step-00003000.npy  the same samples as training goes on, in data units
run/.lock                        held while a process trains here
"""

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..data import Points, Standardise, load
from ..errors import DivergedError, EbbflowError, InputError
from ..recipes import Recipe
from ..trained import Trained, build_denoiser
from . import checkpoint
from .trainer import TensorData, Trainer

SNAPSHOT_POINTS = 1000
SNAPSHOT_STEPS = 12


class Interrupted(EbbflowError):
    """Ctrl-C or SIGTERM: the run was saved first. Exit code 128 + signal."""

    def __init__(self, text: str, number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[Any, ...]:  # it crosses from worker processes
        return type(self), (str(self), self.exit_code - 128)


def fit(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_nonfinite: str = "stop",
    precision: str = "no",
    track: tuple[str, ...] = (),
    checkpoints: int = 5,
    keep: int = 2,
    snapshots: int = 24,
    progress: bool = True,
    position: int = 0,
) -> Trained:
    """Train a recipe in the folder `out` and return the result; an interrupted run continues with resume=True.

    checkpoints, snapshots: how many, evenly over the run. track: tensorboard, wandb or trackio. precision: no or bf16.
    position: line of the progress bar, where several runs share a screen.
    """
    folder = Path(out)
    recipe_data = prepare(recipe)
    accelerator = _accelerator(folder, precision, track)
    with checkpoint.locked(folder) if accelerator.is_main_process else _nothing():
        accelerator.wait_for_everyone()
        return _fit(
            recipe, folder, recipe_data, accelerator, resume, overwrite, on_nonfinite, track, checkpoints, keep,
            snapshots, progress, position,
        )  # fmt: skip


def prepare(recipe: Recipe) -> tuple[Trained, TensorData]:
    """The untrained start of a recipe and its data in the network's units."""
    points = load(recipe.data, recipe.points, recipe.seed, recipe.label or None)
    if recipe.conditional and points.labels is None:
        raise InputError(f"{recipe.data} has no labels, which a conditional network needs; name their column.")
    transform = Standardise.fit(points.x) if recipe.standardise else None
    ends = [points.x] if recipe.source == "noise" else [points.x, _source(recipe, points)]
    x, *x1 = ends if transform is None else [transform.apply(end) for end in ends]
    classes = points.classes
    if points.labels is not None and not classes:
        classes = tuple(str(i) for i in range(int(points.labels.max()) + 1))
    shape = tuple(x.shape[1:])
    start = Trained(build_denoiser(recipe, shape, len(classes)), recipe, shape, transform, points.columns, classes)
    return start, TensorData(x, points.labels if recipe.conditional else None, x1[0] if x1 else None)


def _source(recipe: Recipe, points: Points) -> torch.Tensor:
    x1 = load(recipe.source, recipe.points, recipe.seed + 1).x
    if x1.shape[1:] != points.x.shape[1:]:
        raise InputError(
            f"source {recipe.source} has {x1.shape[1]} columns, but {recipe.data} has {points.x.shape[1]}."
        )
    return x1


def _fit(
    recipe: Recipe, folder: Path, start: tuple[Trained, TensorData], accelerator: Accelerator, resume: bool,
    overwrite: bool, on_nonfinite: str, track: tuple[str, ...], checkpoints: int, keep: int, snapshots: int,
    progress: bool, position: int,
) -> Trained:  # fmt: skip
    trained, data = start
    trainer = Trainer(trained.denoiser, data, recipe, accelerator)
    saves = folder / "checkpoints"
    main = accelerator.is_main_process
    if any(saves.glob("step-*")):
        if resume:
            _restore(trainer, trained, saves)
        elif overwrite:
            if main:
                _clear(folder)
        else:
            raise InputError(f"{folder} already holds a run; resume it, overwrite it, or choose another folder.")
    accelerator.wait_for_everyone()

    def save() -> None:
        if main:
            target = saves / f"step-{trainer.step:08d}"
            files = replace(trained, step=trainer.step).files(trainer.averaged())
            checkpoint.write_folder(target, files | {"training.safetensors": checkpoint.pack(trainer.state())})
            checkpoint.point_last(target)
            checkpoint.prune(saves, keep)

    def snapshot() -> None:
        if main and snapshots:
            _snapshot(replace(trained, step=trainer.step), trainer, folder)

    if trainer.step == 0:
        save()
        snapshot()
    log = _Log(folder, trainer, accelerator, track) if main else None
    bar = tqdm(
        total=recipe.steps, initial=trainer.step, desc=folder.name, unit="step", disable=not (progress and main),
        dynamic_ncols=True, mininterval=0.2, file=sys.stderr, position=position,
    )  # fmt: skip
    with _signals() as received, bar:
        try:
            for record in trainer.steps(on_nonfinite):
                if log:
                    log(record)
                bar.update()
                if record.step % 50 == 0:
                    bar.set_postfix_str(f"loss {record.loss:.3f}", refresh=False)
                if snapshots and _due(record.step, recipe.steps, snapshots):
                    snapshot()
                if _due(record.step, recipe.steps, checkpoints):
                    save()
                if received:
                    save()
                    name = signal.Signals(received[0]).name
                    raise Interrupted(
                        f"Stopped by {name} at step {record.step} of {recipe.steps}; saved. "
                        f"Continue with: ebbflow resume {folder}",
                        received[0],
                    )
        except DivergedError:
            save()
            raise
        finally:
            if log:
                log.close()
    trained.denoiser.load_state_dict(trainer.averaged())
    return replace(trained, denoiser=trained.denoiser.eval(), step=trainer.step)


def _due(step: int, steps: int, times: int) -> bool:
    """Whether this step is one of `times` spread evenly over the run, the last step always among them."""
    return step == steps or step * times // steps != (step - 1) * times // steps


def _restore(trainer: Trainer, trained: Trained, saves: Path) -> None:
    found = checkpoint.newest_valid(saves, lambda text: print(text, file=sys.stderr))
    assert found is not None
    where, files = found
    stored = Trained.from_files(files, str(where))
    if stored.recipe != trained.recipe:
        old, new = stored.recipe.to_config(), trained.recipe.to_config()
        name = next(name for name in old if old[name] != new[name])
        raise InputError(f"{where} was trained with {name}={old[name]!r}, not {new[name]!r}; resume it as it was.")
    if "training.safetensors" not in files:
        raise InputError(f"{where} has no training.safetensors, so it can be sampled but not resumed.")
    state = checkpoint.unpack(files["training.safetensors"], f"{where}/training.safetensors")
    try:
        trainer.load_state(stored.denoiser.state_dict(), state)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{where}/training.safetensors doesn't fit this network: {error}.") from error


def _clear(folder: Path) -> None:
    """Remove what a run wrote, and nothing else."""
    for name in ("checkpoints", "evolution"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)


def _snapshot(trained: Trained, trainer: Trainer, folder: Path) -> None:
    """The same 1000 samples at this stage of training, from the averaged weights; few steps: they are for looking."""
    network = trained.denoiser
    current = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(trainer.averaged())
    labels = None
    if trained.recipe.conditional:
        labels = torch.arange(SNAPSHOT_POINTS) % len(trained.classes)
    x = trained.sample(SNAPSHOT_POINTS, seed=trained.recipe.seed, label=labels, sampler="heun", steps=SNAPSHOT_STEPS)
    network.load_state_dict(current)
    network.train()
    with checkpoint.storage(folder):
        (folder / "evolution").mkdir(exist_ok=True)
        target = folder / "evolution" / f"step-{trainer.step:08d}.npy"
        temporary = target.with_suffix(".writing")
        with open(temporary, "wb") as file:
            np.save(file, x.cpu().numpy())
        temporary.replace(target)


class _Log:
    """metrics.jsonl, one line for the mean of a few steps, and any trackers beside it."""

    def __init__(self, folder: Path, trainer: Trainer, accelerator: Accelerator, track: tuple[str, ...]) -> None:
        self.every = max(1, trainer.recipe.steps // 500)
        self.batch, self.accelerator, self.track = trainer.recipe.batch, accelerator, track
        self.path = folder / "metrics.jsonl"
        self.losses: list[float] = []
        self.mark = (time.perf_counter(), trainer.step)
        with checkpoint.storage(self.path):
            kept = [line for line in read_metrics(folder) if line["step"] <= trainer.step]
            temporary = self.path.with_suffix(".writing")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            temporary.replace(self.path)
            self.file = open(self.path, "a", buffering=1)  # noqa: SIM115 - held for the whole run

    def __call__(self, record: Any) -> None:
        if not record.skipped:
            self.losses.append(record.loss)
        if record.step % self.every:
            return
        now = time.perf_counter()
        line = {
            "step": record.step,
            "loss": math.fsum(self.losses) / len(self.losses) if self.losses else None,
            "grad_norm": record.grad_norm if math.isfinite(record.grad_norm) else None,
            "lr": record.lr,
            "examples_per_second": round((record.step - self.mark[1]) * self.batch / (now - self.mark[0]), 1),
            "cpu_seconds": round(time.process_time(), 3),
        }
        self.losses, self.mark = [], (now, record.step)
        with checkpoint.storage(self.path):
            self.file.write(json.dumps(line) + "\n")
        if self.track:
            self.accelerator.log({k: v for k, v in line.items() if v is not None and k != "step"}, step=record.step)

    def close(self) -> None:
        self.file.close()
        if self.track:
            self.accelerator.end_training()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
    path = folder / "metrics.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _accelerator(folder: Path, precision: str, track: tuple[str, ...]) -> Accelerator:
    from accelerate.utils import LoggerType

    if precision not in ("no", "bf16"):
        raise InputError(f"precision must be no or bf16; got {precision!r}.")
    known = {"tensorboard", "wandb", "trackio"}
    for name in track:
        if name not in known & {str(kind) for kind in LoggerType}:
            raise InputError(f"track must be one of tensorboard, wandb, trackio; got {name!r}.")
    accelerator = Accelerator(mixed_precision=precision, log_with=list(track) or None, project_dir=folder)
    if track:
        try:
            accelerator.init_trackers("ebbflow")
        except (ImportError, ValueError) as error:
            raise InputError(f"{', '.join(track)} can't be used: {error}.") from error
    return accelerator


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one ends the process as usual."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(number)

    previous: dict[int, Callable[..., Any] | int | None] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals stay as they are
        pass
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
