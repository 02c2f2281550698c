"""A run folder: training with everything around it that must survive a crash.

run/checkpoints/step-00003000/   see checkpoint.py; `last` names the newest
run/metrics.jsonl                one line every few steps
run/tuned.json                   solvers of its own, fitted at the end or by `ebbtide tune`
run/evolution/step-00003000.npy  the same samples as training goes on, in data units (and a picture of images)
run/.lock                        held while a process trains here
"""

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from ..core.randomness import generator, key
from ..data import IDENTITY
from ..errors import DivergedError, InputError, StorageError, printable
from ..exact import fit as solver, tune
from ..files import LOCK, append_to, locked, no_link, own_folder, remove, storage, write_file
from ..kinds import Prepared, domain
from ..networks.fused import fast_bf16
from ..recipes import Recipe
from ..signals import Interrupted, noted
from ..specs import pick
from . import checkpoint, seal, settings
from .processes import follow_launcher
from .trained import Trained, build_denoiser
from .trainer import Data, Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

TRACKED = "ebbtide"  # the project that trackers write of, and tensorboard's folder in the run's


def fit(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_nonfinite: str = "stop",
    precision: str = "auto",
    compile: bool = False,
    track: tuple[str, ...] = (),
    checkpoints: int = 5,
    keep: int = 2,
    snapshots: int = 24,
    threads: int = 0,
    accumulate: int = 1,
    solvers: bool = True,
    progress: bool = True,
    position: int = 0,
) -> Trained:
    """Train a recipe in the folder `out` and return the result; an interrupted run continues with resume=True.

    checkpoints, snapshots: how many over the run. track: tensorboard, wandb or trackio. precision: no, bf16, or auto,
    which is bf16 for convolutions where the device is faster at them. compile: run the network through torch.compile.
    accumulate: in how many parts a batch goes through the network. solvers: fit the run solvers of its own at the end,
    for at most 5 % of training's network evaluations (see solver.py).
    All of these are stored with the run; one that is resumed keeps its precision, and "auto" is settled once.
    threads: what `ebbtide resume` is to set again; not set here. position: line of the progress bar, where several runs
    share a screen.
    """
    pick(("stop", "skip"), on_nonfinite, "on_nonfinite")
    if keep < 1:
        raise InputError(f"keep must be at least 1; got {keep}.")
    start, data = prepare(recipe)
    if compile:
        start.denoiser.network.compile()
    precision = _settled(precision, stored(Path(out)) if resume else {}, start.denoiser, Path(out))
    accelerator = accelerate(precision, track, Path(out))
    follow_launcher()
    how = {
        "on_nonfinite": on_nonfinite, "precision": precision, "compile": compile, "track": list(track),
        "checkpoints": checkpoints, "keep": keep, "snapshots": snapshots, "threads": threads,
        "accumulate": accumulate, "solvers": solvers,
    }  # fmt: skip
    running = {"how": how, "data": settings.fingerprint(data)}
    run = _Run(Path(out), start, Trainer(start.denoiser, data, recipe, accelerator, accumulate), running)
    with locked(run.folder) if run.main else nullcontext():
        accelerator.wait_for_everyone()
        run.begin(resume, overwrite)
        accelerator.wait_for_everyone()
        log = _Log(run.folder, run.trainer, accelerator, track) if run.main else None
        bar = tqdm(
            total=recipe.steps, initial=run.trainer.step, desc=printable(run.folder.name), unit="step",
            position=position, disable=not (progress and run.main), dynamic_ncols=True, mininterval=0.2,
            file=sys.stderr,
        )  # fmt: skip
        with log or nullcontext(), bar:
            _loop(run, log, bar, on_nonfinite, checkpoints, snapshots)
        return run.solved(progress) if solvers and run.main else run.trained()


def stored(folder: Path) -> dict[str, Any]:
    """How the run in a folder is trained, as `fit` takes it; {} for one that doesn't hold it, or no checkpoint."""
    no_link(folder / "checkpoints")
    found = checkpoint.newest_valid(folder / "checkpoints", lambda text: None)
    if found is None or settings.FILE not in found[1]:
        return {}
    where, files = found
    return settings.how(checkpoint.parse_json(files[settings.FILE], where / settings.FILE), str(where))


def recipe_of(folder: Path) -> Recipe:
    """The recipe of the run in a folder; nothing that it names is opened."""
    found = checkpoint.newest_valid(folder / "checkpoints", lambda text: None)
    if found is None:
        raise InputError(f"{folder} holds no checkpoint yet.")
    where, files = found
    config = checkpoint.parse_json(files["config.json"], where / "config.json")
    try:
        return Recipe.from_config(config.get("recipe") if isinstance(config, dict) else None)
    except InputError as error:
        raise InputError(f"{where / 'config.json'}: {error}") from error


def _settled(precision: str, known: dict[str, Any], denoiser: nn.Module, folder: Path) -> str:
    """What "auto" means: what the run has been trained in, or what suits this machine."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    before = known.get("precision")
    if before is None:
        found = [suited(precision, denoiser)]
        PartialState(cpu=not torch.accelerator.is_available())
        broadcast_object_list(found)  # the first process decides for all: a trial may end otherwise in each
        return found[0]
    if precision not in ("auto", before):
        raise InputError(f"{folder} was trained with precision {before!r}, not {precision!r}; resume it as it was.")
    return str(before)


def prepare(recipe: Recipe) -> tuple[Trained, Data]:
    """The untrained start of a recipe and its data in the network's units."""
    prepared = domain(recipe).prepare(recipe)
    return begin(recipe, prepared), prepared.data


def begin(recipe: Recipe, prepared: Prepared) -> Trained:
    """The untrained start of a recipe on its data, with what that has settled of it."""
    if torch.get_default_dtype() != torch.float32:
        raise InputError(f"Training needs torch's default dtype to be float32; got {torch.get_default_dtype()}.")
    recipe = replace(recipe, **prepared.settled)
    denoiser = build_denoiser(recipe, prepared.shape, len(prepared.classes), prepared.observation)
    return Trained(
        denoiser, recipe, prepared.shape, prepared.transform, prepared.columns, prepared.classes,
        observation=prepared.observation, frequencies=prepared.frequencies, named=recipe.outside(),
    )  # fmt: skip


def _loop(run: "_Run", log: "_Log | None", bar: tqdm, on_nonfinite: str, checkpoints: int, snapshots: int) -> None:
    """Step to the end, writing down what is due after each; leave nothing unsaved when asked to stop."""
    trainer, steps = run.trainer, run.trainer.recipe.steps
    if trainer.step == 0:
        run.save()
        if snapshots:
            run.snapshot()
    number = 0
    with noted() as received:
        try:
            for record in trainer.steps(on_nonfinite):
                if log:
                    log(record)
                bar.update()
                if record.step % 50 == 0:
                    rate = (bar.format_dict["rate"] or 0) * trainer.recipe.batch
                    bar.set_postfix_str(f"loss {record.loss:.3f}, {rate:,.0f} examples/s", refresh=False)
                if snapshots and _due(record.step, steps, snapshots, early=True):
                    run.snapshot()
                if number := run.heard(received):
                    break
                if _due(record.step, steps, checkpoints):
                    run.save()
        except DivergedError:
            run.save()
            raise
        if number := number or run.heard(received):  # perhaps in the middle of a save, or after the last step's
            run.save()
            trainer.accelerator.wait_for_everyone()  # the end of one process is the end of all
            command = shlex.join(["ebbtide", "resume", str(run.folder)])
            raise Interrupted(number, f" at step {trainer.step} of {steps}; saved. Continue with: {command}")


def _due(step: int, steps: int, times: int, early: bool = False) -> bool:
    """Whether this step is one of `times` over the run, the last always among them: evenly spread, or, as most
    happens early, evenly in √step. In integers, for rounding would leave some out.
    """
    now, before = (math.isqrt(times**2 * k // steps) if early else times * k // steps for k in (step, step - 1))
    return step == steps or now != before


def clear(folder: Path) -> None:
    """Remove the run in a folder, which is locked."""
    for name in ("checkpoints", "evolution"):
        remove(folder / name)
    for name in ("metrics.jsonl", tune.FILE):
        (folder / name).unlink(missing_ok=True)


class _Run:
    """A folder and the trainer whose progress it holds; only the main process writes."""

    def __init__(self, folder: Path, start: Trained, trainer: Trainer, running: dict[str, Any]) -> None:
        self.folder, self.start, self.trainer, self.running = folder, start, trainer, running
        self.saves, self.main = folder / "checkpoints", trainer.accelerator.is_main_process
        self.saved: int | None = None  # the step of the newest checkpoint, if it is this run's

    def begin(self, resume: bool, overwrite: bool) -> None:
        """Restore what is there, clear it, or refuse to touch it."""
        for name in ("checkpoints", "evolution", TRACKED):
            no_link(self.folder / name)
        if not checkpoint.saved(self.saves):
            return
        if resume:
            self._restore()
        elif not overwrite:
            raise InputError(f"{self.folder} already holds a run; resume it, overwrite it, or choose another folder.")
        elif self.main:
            clear(self.folder)

    def _restore(self) -> None:
        found = checkpoint.newest_valid(self.saves, lambda text: print("ebbtide:", printable(text), file=sys.stderr))
        assert found is not None
        where, files = found
        stored = Trained.from_files(files, str(where), self.start.named)
        _same_run(stored, self.start, where)
        if settings.FILE in files:
            known = checkpoint.parse_json(files[settings.FILE], where / settings.FILE)
            if not isinstance(known, dict) or not settings.same(known.get("data"), self.running["data"]):
                raise InputError(
                    f"{self.start.recipe.data} is not what it was when {where} was trained, so the run can't continue."
                )
        if "training.safetensors" not in files:
            raise InputError(f"{where} has no training.safetensors, so it can be sampled but not resumed.")
        state = checkpoint.unpack(files["training.safetensors"], f"{where}/training.safetensors")
        try:
            self.trainer.load_state(stored.denoiser.state_dict(), state)
        except InputError as error:
            raise InputError(f"{where}/training.safetensors doesn't fit this run: {error}") from error
        self.saved = self.trainer.step
        if self.main:
            checkpoint.point_last(where)  # a kill may have fallen between a checkpoint and its link

    def heard(self, received: list[int]) -> int:
        """The signal that this process received, or any other, so that all stop after the same step; 0 for none."""
        number, accelerator = received[0] if received else 0, self.trainer.accelerator
        if accelerator.num_processes == 1:
            return number
        return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())

    def trained(self) -> Trained:
        """The result: the denoiser with its averaged weights."""
        self.start.denoiser.load_state_dict(self.trainer.averaged())
        return replace(self.start, denoiser=self.start.denoiser.eval(), step=self.trainer.step)

    def solved(self, progress: bool) -> Trained:
        """The result with solvers of its own: those that the folder holds for it, or as training's cost allows."""
        trained, file = self.trained(), self.folder / tune.FILE
        if file.exists():
            trained = trained.with_tuned(checkpoint.read_file(file), str(file))
        if trained.tuned:
            return trained
        recipe, before = self.start.recipe, time.process_time()
        budget = int(solver.SHARE * solver.BACKWARD * recipe.steps * recipe.batch)
        try:
            tuned = solver.for_run(trained, budget=budget, cond=self.conditions, progress=progress)
        except KeyboardInterrupt as stopped:
            rest = " while a solver was fitted, after the last step; the run is whole without."
            raise Interrupted.by(stopped, rest) from None
        except DivergedError as error:
            print(f"ebbtide: {error}", file=sys.stderr)
            return trained
        if tuned:
            write_file(file, tune.write(tuned))
        if tuned and progress:
            seconds = time.process_time() - before
            found = ", ".join(f"{one.median:.2g} with {one.evaluations}" for one in tuned)
            said = f"Solvers of its own, fitted in {seconds:.1f} CPU s; median distance from its flow's end:"
            print(said, found, "evaluations", file=sys.stderr)
        return replace(trained, tuned=tuned)

    def conditions(self, n: int) -> dict[str, Any]:
        """What the network is told of n examples of the data."""
        data, seed = self.trainer.data, key(self.start.recipe.seed, "solver")
        draw = generator(seed, "examples", device=self.trainer.accelerator.device)
        chosen = torch.randint(len(data), (n,), generator=draw, device=draw.device)
        told = {k: v for k, v in data.take(chosen, draw).items() if k not in ("x0", "mask")}
        if self.start.observation is None:
            return told
        network: Any = self.start.denoiser.network
        with torch.no_grad():
            return {"context": network.context(**told)}

    def save(self) -> None:
        """Write a checkpoint, unless this step's is already there."""
        if not self.main or self.saved == self.trainer.step:
            return
        if not (self.folder / LOCK).exists():
            raise StorageError(f"{self.folder} was removed or moved while it was trained in; nothing more is saved.")
        target = checkpoint.step_folder(self.saves, self.trainer.step)
        files = replace(self.start, step=self.trainer.step).files(self.trainer.averaged())
        files |= {
            "training.safetensors": checkpoint.pack(self.trainer.state()),
            seal.FILE: seal.seal(self.start.recipe),
        }
        checkpoint.write_folder(target, files | {settings.FILE: checkpoint.dump_json(self.running)})
        checkpoint.point_last(target)
        checkpoint.prune(target, self.running["how"]["keep"])
        self.saved = self.trainer.step

    def snapshot(self) -> None:
        """The same samples at every stage, from the averaged weights; few steps: they are for looking."""
        if not self.main:
            return
        start, flat, own = self.start, self.trainer.flat, domain(self.start.recipe)
        labels = own.all_classes(start, own.SNAPSHOT["n"])
        weights = flat.vector.clone()
        flat.vector.copy_(self.trainer.ema)
        try:
            x = start.sample(seed=start.recipe.seed, label=labels, **own.SNAPSHOT)
        finally:
            flat.vector.copy_(weights)
            start.denoiser.train()
        target = self.folder / "evolution" / f"step-{self.trainer.step:08d}.npy"
        own_folder(target.parent)
        for name, data in own.snapshot_files(x.cpu(), target).items():
            write_file(name, data)


def _same_run(stored: Trained, now: Trained, where: Path) -> None:
    """Refuse to go on from another recipe, or from other data under the same name."""
    old, new = stored.recipe.to_config(), now.recipe.to_config()
    for name in old:
        if old[name] != new[name]:
            option = name.replace("_", "-")
            if not isinstance(old[name], bool):
                option += f" {shlex.quote(str(old[name]))}"
            elif not old[name]:
                option = f"no-{option}"
            raise InputError(
                f"{where} was trained with {name}={old[name]!r}, not {new[name]!r}; to resume it, give --{option}."
            )
    if stored.observation is not None and now.observation is not None:
        domain(now.recipe).robot_of(stored).check(domain(now.recipe).robot_of(now), now.recipe.data)
    if not same_data(stored, now):
        raise InputError(f"{now.recipe.data} is not what it was when {where} was trained, so the run can't continue.")


def same_data(stored: Trained, now: Trained | Prepared) -> bool:
    """Whether two have the same shape, names and all that is fitted to data, up to rounding."""
    held, fitted = (_transforms(t) for t in (stored, now))
    same = (stored.shape, stored.columns, stored.classes) == (now.shape, now.columns, now.classes)
    return same and held.keys() == fitted.keys() and all(_close(held[name], fitted[name]) for name in held)


def _transforms(trained: Trained | Prepared) -> dict[str, Any]:
    """What is fitted to the data, by name."""
    own = (trained.transform or IDENTITY).to_config()
    seen = {} if trained.observation is None else trained.observation.transform.to_config()
    return own | {f"state's {name}": value for name, value in seen.items()}


def _close(a: Any, b: Any) -> bool:
    """Equal but for the order in which another machine adds."""
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return a == b if isinstance(a, str) else math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


class _Log:
    """metrics.jsonl, one line for the mean of a few steps, and any trackers beside it."""

    def __init__(self, folder: Path, trainer: Trainer, accelerator: "Accelerator", track: tuple[str, ...]) -> None:
        self.every = max(1, trainer.recipe.steps // 500)
        self.batch, self.accelerator, self.track = trainer.recipe.batch, accelerator, track
        self.path = folder / "metrics.jsonl"
        self.losses: list[float] = []
        self.mark = (time.perf_counter(), trainer.step)
        with storage(self.path):
            kept = [line for line in read_metrics(folder) if line["step"] <= trainer.step]
            write_file(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = append_to(self.path)  # held for the whole run
        self.spent = (kept[-1].get("cpu_seconds", 0.0) if kept else 0.0) - time.process_time()
        if track:
            try:
                accelerator.init_trackers(TRACKED)
            except Exception as error:  # each tracker has its own
                raise InputError(f"{', '.join(track)} can't be used: {' '.join(str(error).split())}") from error

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
            "cpu_seconds": round(self.spent + time.process_time(), 3),
        }
        self.losses, self.mark = [], (now, record.step)
        with storage(self.path):
            self.file.write((json.dumps(line) + "\n").encode())
        if self.track:
            self.accelerator.log({k: v for k, v in line.items() if v is not None and k != "step"}, step=record.step)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.track:
            self.accelerator.end_training()


# What a line of metrics.jsonl holds, and as what.
_LINE: dict[str, tuple[type, ...]] = {
    "step": (int,), "loss": (int, float, type(None)), "grad_norm": (int, float, type(None)), "lr": (int, float),
    "examples_per_second": (int, float), "cpu_seconds": (int, float),
}  # fmt: skip


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and (value is None or abs(value) < 2**63)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to one that is damaged or foreign: a kill cuts the last one short."""
    path = folder / "metrics.jsonl"
    lines: list[dict[str, Any]] = []
    for text in checkpoint.read_file(path).splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not all(_fits(line.get(name, ""), kinds) for name, kinds in _LINE.items()):
            break
        lines.append(line)
    return lines


@contextmanager
def leaving_group() -> Iterator[None]:
    """Leave torchrun's process group at the end, whose threads now and then abort a process that ends in it."""
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def suited(precision: str, network: nn.Module) -> str:
    """What "auto" means for a network on this machine: bf16 for convolutions where that is faster, else no."""
    if precision != "auto":
        return precision
    convolves = any(p.ndim == 4 for p in network.parameters())
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "bf16" if convolves and fast_bf16(device or torch.device("cpu")) else "no"


# What accelerate's launcher can ask for and we don't do as it means it: the value that leaves it out, and what to do.
REFUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "Use --accumulate instead."),
    "ACCELERATE_USE_DEEPSPEED": ("false", "Several processes share a batch without it."),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "Several processes share a batch without it."),
}


def accelerate(precision: str = "no", track: tuple[str, ...] = (), folder: Path | None = None) -> "Accelerator":
    """The Accelerator of a run; under torchrun, the same in each process but for its rank, on a CPU as well."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.tracking import get_available_trackers

    if precision not in ("no", "bf16"):
        raise InputError(f"precision must be no or bf16; got {precision!r}.")
    for name in track:
        if pick(("tensorboard", "wandb", "trackio"), name, "track") not in map(str, get_available_trackers()):
            raise InputError(f"track can't be {name}: it is not installed; try: pip install {name}")
    AcceleratorState._reset_state()  # else the first precision used in this process would hold for all its runs
    for name, (usual, instead) in REFUSED.items():
        if os.environ.get(name, usual) != usual:
            raise InputError(f"{name} must be {usual}; got {os.environ[name]!r}. {instead}")
    cpu = not torch.accelerator.is_available()  # unless told, accelerate takes processes on CPUs for single ones
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=list(track) or None, project_dir=folder)
