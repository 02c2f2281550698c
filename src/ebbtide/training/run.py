"""A run folder: training with everything around it that must survive a crash.

run/checkpoints/step-00003000/   see checkpoint.py; `last` names the newest
run/metrics.jsonl                one line every few steps
run/tuned.json                   its solvers, fitted at the end or by `ebbtide tune`
run/evolution/step-00003000.npy  the same samples as training goes on, in data units (and a figure of images)
run/.lock                        held while a process trains here
"""

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..codecs import latent_shape
from ..data.place import said, settled_on
from ..data.prepared import Data, Prepared
from ..errors import DivergedError, InputError
from ..exact.plans import counts_of
from ..exact.start import Start
from ..files import locked
from ..losses import loss_row
from ..networks.autoencoder import Autoencoder
from ..progress import progress_bar, rate_of
from ..recipes import Recipe
from ..signals import Interrupted, noted
from ..specs import pick, require
from . import settings
from .begun import stored
from .build import begin_base, begin_codec, build_denoiser
from .devices import Deserted, accelerate, agreed, placed, suited, together
from .folder import RunFolder
from .history import Log, line_every
from .processes import follow_launcher
from .rehearsal import rehearse
from .schedule import due
from .stopping import EVERY, Stopping
from .trained import Trained
from .trainer import Record, Trainer

__all__ = ["train", "untrained"]


def train(
    start: Trained,
    data: Data,
    out: str | Path,
    *,
    draw: Callable[[Trained, Path], Mapping[Path, bytes]] = lambda start, target: {},
    started: Callable[[nn.Module], object] = lambda denoiser: None,
    watch: Callable[[Trainer, Record], object] = lambda trainer, record: None,
    judging: Data | None = None,
    near: Callable[[Trained], float] | None = None,
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
    engine: str = "replicated",
    solvers: bool = True,
    evaluations: str = "",
    command: str = "",
    progress: bool = True,
    position: int = 0,
) -> Trained:
    """Train `start` in the folder `out` and return the result; an interrupted run continues with resume=True.

    draw: makes the files of a snapshot, named from the given one. started: called with the untrained denoiser once
    everything has been checked, before anything is written. judging: data by whose loss training stops; the result then
    has the step and the weights at which that was least. near: the distance of a run's samples to the rows it learns,
    in units of real rows'; training stops, too, where that is too small (see stopping.py). watch: called with the
    trainer and the record of each step.
    checkpoints, snapshots: how many over the run. keep: how many checkpoints stay, the newest. track: tensorboard,
    wandb or trackio. precision: no, bf16, or auto, which is bf16 for convolutions where the device is faster at them.
    device: cpu, cuda, cuda:1, mps, or auto for the first accelerator, else the CPU; under torchrun each process takes
    its own. compile: use torch.compile. accumulate: the number of parts of a batch, processed one by one. data_on:
    device, host (memory), disk, or auto for the first of them that holds the data. engine: replicated, or fsdp, with
    which the processes share one network; see engines.py. solvers: fit solvers to the run at the end, for at most 5 %
    of training's network evaluations (see exact/plans.py), unless the engine is fsdp, after which `ebbtide tune` does.
    evaluations: of these solvers, as in "1,2,4"; 5, 10 and 20 unless given, or 1, 2 and 4 for a student.
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
    trainer = Trainer(start.denoiser, data, recipe, accelerator, accumulate, len(start.classes), engine)
    how = {
        "on_nonfinite": on_nonfinite, "precision": precision, "device": device, "compile": compile,
        "track": list(track), "checkpoints": checkpoints, "keep": keep, "snapshots": snapshots, "threads": threads,
        "accumulate": accumulate, "data_on": data_on, "engine": engine, "solvers": solvers, "evaluations": evaluations,
    }  # fmt: skip
    start = replace(start, made=settings.made_by(command, accelerator.device, precision, fingerprint))
    stopping = None if judging is None else Stopping(trainer, judging, None if near is None else partial(near, start))
    run = RunFolder(folder, start, trainer, {"how": how, "data": fingerprint}, draw, stopping)
    rehearse(start, trainer)
    started(start.denoiser)
    if compile:
        trainer.engine.compile()
    follow_launcher()
    with locked(run.folder) if run.main else nullcontext():
        accelerator.wait_for_everyone()
        together(lambda: run.begin(resume, overwrite), accelerator.num_processes)
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
        fits = solvers and run.main and not start.reconstructs and stopping is None and not run.sharded
        return run.solved(progress) if fits else run.trained()


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
    run: RunFolder,
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

    def wanted_at(step: int) -> bool:
        """True if anything is to be done after this step besides learning."""
        drawn = bool(snapshots) and due(step, steps, snapshots, early=True)
        looked_at = stopping is not None and step % EVERY == 0
        return step % line_every(steps) == 0 or due(step, steps, checkpoints) or drawn or looked_at

    if stopping is not None and stopping.look() is not None and log:
        log.start(stopping.losses[0])
    with noted() as received:
        try:
            for record in () if stopping is not None and stopping.done else trainer.steps(on_nonfinite, wanted_at):
                held = None if stopping is None else stopping.look()
                if log:
                    log(record, held)
                bar.update()
                if record.step % 50 == 0:
                    rate = rate_of(bar) * trainer.recipe.batch
                    said = "" if held is None else f" (held out {held:.3f})"
                    bar.set_postfix_str(f"loss {record.loss:.3f}{said}, {rate:,.0f} examples/s", refresh=False)
                if snapshots and due(record.step, steps, snapshots, early=True):
                    run.snapshot(log)
                wanted = watch(trainer, record)
                if record.step < trainer.step:
                    continue  # it was read late, with those after it
                if (number := run.heard(received)) or (stopping is not None and stopping.done):
                    break
                if wanted or due(record.step, steps, checkpoints):
                    run.save()
        except DivergedError:
            run.save()
            raise
        except (InputError, Deserted) as error:  # a shard is damaged, a process was killed
            if not run.sharded:  # which takes all processes
                run.save()
            saved = f" Saved at step {run.saved} of {steps}; continue with: {_again(run)}" if run.main else ""
            raise type(error)(f"{error}{saved}") from error
        if number := number or run.heard(received):  # perhaps in the middle of a save, or after the last step's
            run.save()
            trainer.accelerator.wait_for_everyone()  # the end of one process is the end of all
            raise Interrupted(number, f" at step {trainer.step} of {steps}; saved. Continue with: {_again(run)}")
    if stopping is not None:
        stopping.settle()
        run.saved = None
        run.save()


def _again(run: RunFolder) -> str:
    """The command that continues a run."""
    return shlex.join(["ebbtide", "resume", str(run.folder if run.stopping is None else run.folder.parent)])
