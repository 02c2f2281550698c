"""A run folder: training with everything around it that must survive a crash.

run/checkpoints/step-00003000/   see checkpoint.py; `last` names the newest
run/metrics.jsonl                one line every few steps
run/tuned.json                   its solvers, fitted at the end or by `ebbtide tune`
run/evolution/step-00003000.npy  the same samples as training goes on, in data units (and a figure of images)
run/.lock                        held while a process trains here
"""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..codecs import latent_shape
from ..core.randomness import generator, key
from ..data.place import said, settled_on
from ..data.prepared import Data, Prepared
from ..errors import DivergedError, InputError, StorageError, printable
from ..exact.jumps import JUMPS
from ..exact.plans import COUNTS, allowance, counts_of
from ..exact.start import Start
from ..exact.tuned import TUNED, write_tuned
from ..files import LOCK, dump_json, locked, no_link, own_folder, parse_json, read_file, remove, write_file
from ..losses import loss_row
from ..networks.autoencoder import Autoencoder
from ..networks.observation import conditions
from ..progress import progress_bar
from ..recipes import Recipe
from ..samplers import facts
from ..signals import Interrupted, noted
from ..specs import pick, require
from . import checkpoint, seal, settings
from .begun import stored
from .build import begin_base, begin_codec, build_denoiser
from .devices import Deserted, accelerate, agreed, all_there, placed, suited
from .history import TRACKED, Log
from .processes import follow_launcher
from .rehearsal import rehearse
from .same import same_run
from .schedule import due
from .solver import for_run, for_student
from .stopping import Stopping
from .teacher import Trajectories
from .trained import Trained
from .trainer import Record, Trainer

__all__ = ["clear", "occupied", "train", "untrained"]


def train(
    start: Trained,
    data: Data,
    out: str | Path,
    *,
    draw: Callable[[Trained, Path], Mapping[Path, bytes]] = lambda start, target: {},
    started: Callable[[nn.Module], object] = lambda denoiser: None,
    watch: Callable[[Trainer, Record], object] = lambda trainer, record: None,
    judging: Data | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_nonfinite: str = "stop",
    precision: str = "auto",
    device: str = "auto",
    compile: bool = False,
    track: tuple[str, ...] = (),
    checkpoints: int = 5,
    keep: int = 2,
    snapshots: int = 24,
    threads: int = 0,
    accumulate: int = 1,
    data_on: str = "auto",
    solvers: bool = True,
    evaluations: str = "",
    command: str = "",
    progress: bool = True,
    position: int = 0,
) -> Trained:
    """Train `start` in the folder `out` and return the result; an interrupted run continues with resume=True.

    draw: makes the files of a snapshot, named from the given one. started: called with the untrained denoiser once
    everything has been checked, before anything is written. judging: data by whose loss training stops; the result then
    has the step and the weights at which that was least.
    checkpoints, snapshots: how many over the run. track: tensorboard, wandb or trackio. precision: no, bf16, or auto,
    which is bf16 for convolutions where the device is faster at them. device: cpu, cuda, cuda:1, mps, or auto for the
    first accelerator, else the CPU; under torchrun each process takes its own. compile: use torch.compile.
    accumulate: the number of parts of a batch, processed one by one. data_on: device, host (memory), disk, or auto for
    the first of them that holds the data. solvers: fit solvers to the run at the end,
    for at most 5 % of training's network evaluations (see exact/plans.py). evaluations: of these solvers, as in
    "1,2,4"; 5, 10 and 20 unless given, or 1, 2 and 4 for a student.
    All of these are stored with the run; one that is resumed keeps its precision, and "auto" is settled once.
    command: as the user typed it, which config.json stores. threads: what `ebbtide resume` is to set again; not set
    here. position: line of the progress bar, where several runs share a screen.
    """
    pick(("stop", "skip"), on_nonfinite, "on_nonfinite")
    pick(("auto", "no", "bf16"), precision, "precision")
    require("keep", keep, 1, whole=True)
    counts_of(evaluations)
    recipe, folder = start.recipe, Path(out)
    precision = _settled(precision, stored(folder) if resume else {}, start.denoiser, folder, device)
    accelerator = accelerate(precision, track, folder, device)
    fingerprint = settings.data_fingerprint(data)
    data = settled_on(data, accelerator.device, data_on)
    trainer = Trainer(start.denoiser, data, recipe, accelerator, accumulate, len(start.classes))
    how = {
        "on_nonfinite": on_nonfinite, "precision": precision, "device": device, "compile": compile,
        "track": list(track), "checkpoints": checkpoints, "keep": keep, "snapshots": snapshots, "threads": threads,
        "accumulate": accumulate, "data_on": data_on, "solvers": solvers, "evaluations": evaluations,
    }  # fmt: skip
    start = replace(start, made=settings.made_by(command, accelerator.device, precision, fingerprint))
    stopping = None if judging is None else Stopping(trainer, judging)
    run = _Run(folder, start, trainer, {"how": how, "data": fingerprint}, draw, stopping)
    rehearse(start, trainer)
    started(start.denoiser)
    if compile:
        start.denoiser.network.compile()
    follow_launcher()
    with locked(run.folder) if run.main else nullcontext():
        accelerator.wait_for_everyone()
        run.begin(resume, overwrite)
        accelerator.wait_for_everyone()
        log = Log(run.folder, run.trainer, accelerator, track, how) if run.main else None
        bar = progress_bar(
            recipe.steps, run.folder.name, "step", initial=run.trainer.step, show=progress and run.main,
            position=position, dynamic_ncols=True, mininterval=0.2,
        )  # fmt: skip
        if progress and run.main and (place := said(data, data_on)):
            print(f"{recipe.data_named}: {place}", file=sys.stderr)
        with log or nullcontext(), bar:
            _loop(run, log, bar, watch, on_nonfinite, checkpoints, snapshots)
        if stopping is not None and progress and run.main:
            print(stopping.said(len(data) + len(judging or ()), start.begins), file=sys.stderr)
        fits = solvers and run.main and not start.reconstructs and stopping is None
        return run.solved(progress) if fits else run.trained()


def occupied(folder: Path) -> InputError:
    """The error for a folder that has a run already."""
    return InputError(f"{folder} already holds a run; resume it, overwrite it, or choose another folder.")


def _settled(precision: str, known: dict[str, Any], denoiser: nn.Module, folder: Path, device: str) -> str:
    """The meaning of "auto": the run's precision so far, or the best for this machine."""
    before = known.get("precision")
    if before is None:
        return str(
            agreed(suited(precision, denoiser, placed(device).device), device)
        )  # a trial may end otherwise in each
    if precision not in ("auto", before):
        raise InputError(f"{folder} was trained with precision {before!r}, not {precision!r}; resume it as it was.")
    return str(before)


def untrained(recipe: Recipe, prepared: Prepared) -> Trained:
    """The untrained start of a recipe on its data, with what that has settled of it."""
    if torch.get_default_dtype() != torch.float32:
        raise InputError(f"Training needs torch's default dtype to be float32; got {torch.get_default_dtype()}.")
    recipe = replace(recipe, **prepared.settled)
    shape = latent_shape(prepared.codec, prepared.shape)
    denoiser = build_denoiser(recipe, shape, len(prepared.classes), prepared.observation)
    if loss_row(recipe.loss).codec and isinstance(denoiser.network, Autoencoder):
        begin_codec(denoiser.network, prepared.data)
    if isinstance(denoiser.base, Start):
        begin_base(denoiser.base, prepared.data)
    return Trained(
        denoiser, recipe, prepared.shape, prepared.codec, prepared.columns, prepared.classes,
        observation=prepared.observation, frequencies=prepared.frequencies, named=recipe.outside(), form=prepared.form,
    )  # fmt: skip


def _loop(
    run: "_Run",
    log: "Log | None",
    bar: tqdm,
    watch: Callable[[Trainer, Record], object],
    on_nonfinite: str,
    checkpoints: int,
    snapshots: int,
) -> None:
    """Step to the end, writing down what is due after each; leave nothing unsaved when asked to stop."""
    trainer, steps = run.trainer, run.trainer.recipe.steps
    snapshots = 0 if run.stopping is not None else snapshots
    if trainer.step == 0:
        run.save()
        if snapshots:
            run.snapshot(log)
    number, stopping, held = 0, run.stopping, None
    if stopping is not None and stopping.look() is not None and log:
        log.start(stopping.losses[0])
    with noted() as received:
        try:
            for record in () if stopping is not None and stopping.done else trainer.steps(on_nonfinite):
                held = None if stopping is None else stopping.look()
                if log:
                    log(record, held)
                bar.update()
                if record.step % 50 == 0:
                    rate = (bar.format_dict["rate"] or 0) * trainer.recipe.batch
                    said = "" if held is None else f" (held out {held:.3f})"
                    bar.set_postfix_str(f"loss {record.loss:.3f}{said}, {rate:,.0f} examples/s", refresh=False)
                if snapshots and due(record.step, steps, snapshots, early=True):
                    run.snapshot(log)
                wanted = watch(trainer, record)
                if (number := run.heard(received)) or (stopping is not None and stopping.done):
                    break
                if wanted or due(record.step, steps, checkpoints):
                    run.save()
        except DivergedError:
            run.save()
            raise
        except (InputError, Deserted) as error:  # a shard is damaged, a process was killed
            run.save()
            saved = f" Saved at step {trainer.step} of {steps}; continue with: {_again(run)}" if run.main else ""
            raise type(error)(f"{error}{saved}") from error
        if number := number or run.heard(received):  # perhaps in the middle of a save, or after the last step's
            run.save()
            trainer.accelerator.wait_for_everyone()  # the end of one process is the end of all
            raise Interrupted(number, f" at step {trainer.step} of {steps}; saved. Continue with: {_again(run)}")
    if stopping is not None:
        stopping.settle()
        run.saved = None
        run.save()


def _again(run: "_Run") -> str:
    """The command that continues a run."""
    return shlex.join(["ebbtide", "resume", str(run.folder if run.stopping is None else run.folder.parent)])


def clear(folder: Path) -> None:
    """Remove the run in a folder, which is locked."""
    for name in ("checkpoints", "evolution"):
        remove(folder / name)
    for name in ("metrics.jsonl", TUNED):
        (folder / name).unlink(missing_ok=True)


class _Run:
    """A folder and the trainer whose progress it holds; only the main process writes."""

    def __init__(
        self,
        folder: Path,
        start: Trained,
        trainer: Trainer,
        running: dict[str, Any],
        draw: Callable[[Trained, Path], Mapping[Path, bytes]],
        stopping: Stopping | None = None,
    ) -> None:
        self.folder, self.start, self.trainer, self.running, self.draw = folder, start, trainer, running, draw
        self.stopping = stopping
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
            raise occupied(self.folder)
        elif self.main:
            clear(self.folder)

    def _restore(self) -> None:
        found = checkpoint.newest_valid(self.saves, lambda text: print("ebbtide:", printable(text), file=sys.stderr))
        assert found is not None
        where, files = found
        stored = Trained.from_files(files, str(where), self.start.named)
        same_run(stored, self.start, where)
        if settings.FILE in files:
            known = parse_json(files[settings.FILE], where / settings.FILE)
            if not isinstance(known, dict) or not settings.same(known.get("data"), self.running["data"]):
                raise InputError(
                    f"{self.start.recipe.data_named} is not what it was when {where} was trained, so the run can't "
                    "continue."
                )
        if "training.safetensors" not in files:
            raise InputError(f"{where} has no training.safetensors, so it can be sampled but not resumed.")
        state = checkpoint.unpack(files["training.safetensors"], f"{where}/training.safetensors")
        try:
            self.trainer.load_state(stored.denoiser.state_dict(), state)
            if self.stopping is not None:
                self.stopping.load_state(state)
        except InputError as error:
            raise InputError(f"{where}/training.safetensors doesn't fit this run: {error}") from error
        self.saved = self.trainer.step
        made = settings.resumed_by(dict(stored.made), dict(self.start.made), self.saved) if stored.made else {}
        self.start = replace(self.start, made=made)
        if self.main:
            checkpoint.point_last(where)  # a kill may have fallen between a checkpoint and its link

    def heard(self, received: list[int]) -> int:
        """The signal that this process received, or any other, so that all stop after the same step; 0 for none."""
        number, accelerator = received[0] if received else 0, self.trainer.accelerator
        if accelerator.num_processes == 1:
            return number
        with all_there(accelerator.num_processes):
            return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())

    def trained(self) -> Trained:
        """The result: the denoiser with its averaged weights."""
        self.start.denoiser.load_state_dict(self.trainer.averaged())
        step = self.trainer.step if self.stopping is None else self.stopping.best
        return replace(self.start, denoiser=self.start.denoiser.eval(), step=step)

    def solved(self, progress: bool) -> Trained:
        """The result with solvers fitted to it: those in the folder, or as many as training's cost allows."""
        trained, file = self.trained(), self.folder / TUNED
        if file.exists():
            trained = trained.with_tuned(read_file(file), str(file))
        jumps = facts(self.start.recipe.sampler).spans and not isinstance(self.trainer.data, Trajectories)
        if trained.tuned or (jumps and not self.running["how"]["evaluations"]):  # its jumps are better than its flow
            return trained
        recipe, before = self.start.recipe, time.process_time()
        counts, budget = counts_of(self.running["how"]["evaluations"]), allowance(recipe.steps, recipe.batch)
        try:
            if isinstance(self.trainer.data, Trajectories):
                tuned = for_student(trained, self.trainer.data, counts or JUMPS, progress=progress)
            else:
                how: dict[str, Any] = {"budget": budget, "cond": self.conditions, "progress": progress}
                tuned = for_run(trained, counts or COUNTS, **how)
        except KeyboardInterrupt as stopped:
            rest = " while a solver was fitted, after the last step; the run is whole without."
            raise Interrupted.by(stopped, rest) from None
        except DivergedError as error:
            print(f"ebbtide: {error}", file=sys.stderr)
            return trained
        if tuned:
            write_file(file, write_tuned(tuned))
        if tuned and progress:
            seconds = time.process_time() - before
            found = ", ".join(f"{one.median:.2g} with {one.evaluations}" for one in tuned)
            said = f"Solvers fitted in {seconds:.1f} CPU s; median distance from the flow's end:"
            print(said, found, "evaluations", file=sys.stderr)
        return replace(trained, tuned=tuned)

    def conditions(self, n: int) -> dict[str, Any]:
        """The network's conditions for n examples of the data."""
        data, seed = self.trainer.data, key(self.start.recipe.seed, "solver")
        draw = generator(seed, "examples", device=self.trainer.accelerator.device)
        chosen = torch.randint(len(data), (n,), generator=draw, device=draw.device)
        told = {k: v for k, v in data.take(chosen, draw).items() if k not in ("x0", "mask")}
        if self.start.observation is None:
            return told
        return conditions(self.start.denoiser.network, told)

    def save(self) -> None:
        """Write a checkpoint, unless this step's is already there."""
        if not self.main or self.saved == self.trainer.step:
            return
        if not (self.folder / LOCK).exists():
            raise StorageError(f"{self.folder} was removed or moved while it was trained in; nothing more is saved.")
        target = checkpoint.step_folder(self.saves, self.trainer.step)
        files = replace(self.start, step=self.trainer.step).files(self.trainer.averaged())
        stopping = {} if self.stopping is None else self.stopping.state()
        files |= {
            "training.safetensors": self.trainer.state() | stopping,
            seal.FILE: seal.seal(self.start.recipe),
        }
        checkpoint.write_folder(target, files | {settings.FILE: dump_json(self.running)})
        checkpoint.point_last(target)
        checkpoint.prune(target, self.running["how"]["keep"])
        self.saved = self.trainer.step

    def snapshot(self, log: Log | None) -> None:
        """The result of `draw` with the averaged weights; trackers are shown it too."""
        if not self.main:
            return
        start, flat = self.start, self.trainer.flat
        weights = flat.vector.clone()
        flat.vector.copy_(self.trainer.ema)
        target = self.folder / "evolution" / f"step-{self.trainer.step:08d}.npy"
        try:
            files = self.draw(start, target)
        finally:
            flat.vector.copy_(weights)
            start.denoiser.train()
        own_folder(target.parent)
        for name, data in files.items():
            write_file(name, data)
        if log:
            log.images(files, self.trainer.step)
