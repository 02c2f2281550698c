"""A run's folder while it is trained in: what is restored from it, and what is saved to it.

Only the first process writes, unless the engine is sharded: then each process writes its piece of the training state.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.randomness import generator, key
from ..errors import DivergedError, InputError, StorageError, printable
from ..exact.jumps import JUMPS
from ..exact.plans import COUNTS, allowance, counts_of
from ..exact.tuned import TUNED, write_tuned
from ..files import LOCK, dump_json, no_link, own_folder, parse_json, read_file, remove, write_file
from ..networks.observation import conditions
from ..networks.outline import fill
from ..samplers import facts
from ..signals import Interrupted
from ..tensors import unpack
from . import checkpoint, pieces, seal, settings
from .build import build_denoiser
from .devices import Gathered, all_there
from .history import TRACKED, Log
from .same import same_run
from .solver import for_run, for_student
from .stopping import Stopping
from .teacher import Trajectories
from .trained import Trained
from .trainer import Trainer

__all__ = ["RunFolder", "clear", "occupied"]


def occupied(folder: Path) -> InputError:
    """The error for a folder that has a run already."""
    return InputError(f"{folder} already holds a run; resume it, overwrite it, or choose another folder.")


def clear(folder: Path) -> None:
    """Remove the run in a folder, which is locked."""
    for name in ("checkpoints", "evolution"):
        remove(folder / name)
    for name in ("metrics.jsonl", TUNED):
        (folder / name).unlink(missing_ok=True)


class RunFolder:
    """A folder and the trainer whose progress it holds.

    start: the untrained run, which shares its denoiser with the trainer. running: running.json, the options of training
    and the fingerprint of the data. draw: see `train`. stopping: the held-out losses; None for a fixed number of steps.
    """

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
        self.sharded = trainer.engine.sharded
        self.saved: int | None = None  # the step of the newest checkpoint, if it is this run's

    def begin(self, resume: bool, overwrite: bool) -> None:
        """Restore what is there, clear it, or refuse to touch it.

        resume: continue a run that is there.
        """
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
            if stream := getattr(self.trainer.data, "stream", None):
                stream.restore(known.get("stream"))
        name, state = self._training(where, files)
        try:
            self.trainer.load_state(stored.denoiser.state_dict(), state)
            if self.stopping is not None:
                self.stopping.load_state(state)
        except InputError as error:
            raise InputError(f"{where}/{name} doesn't fit this run: {error}") from error
        self.saved = self.trainer.step
        made = settings.resumed_by(dict(stored.made), dict(self.start.made), self.saved) if stored.made else {}
        self.start = replace(self.start, made=made)
        if self.main:
            checkpoint.point_last(where)  # a kill may have fallen between a checkpoint and its link

    def _training(self, where: Path, files: Mapping[str, bytes]) -> tuple[str, dict[str, Tensor]]:
        """The state for resuming that a checkpoint holds, in one file or in pieces, and the name of these."""
        if (where / checkpoint.PIECES).is_dir():
            return checkpoint.PIECES, pieces.read_pieces(where / checkpoint.PIECES, self.trainer.state())
        if checkpoint.TRAINING not in files:
            raise InputError(f"{where} has no {checkpoint.TRAINING}, so it can be sampled but not resumed.")
        return checkpoint.TRAINING, unpack(files[checkpoint.TRAINING], f"{where}/{checkpoint.TRAINING}")

    def heard(self, received: list[int]) -> int:
        """The signal that this process received, or any other, so that all stop after the same step; 0 for none."""
        number, accelerator = received[0] if received else 0, self.trainer.accelerator
        if accelerator.num_processes == 1:
            return number
        with all_there(accelerator.num_processes):
            return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())

    def trained(self) -> Trained:
        """The result: the denoiser with its averaged weights, which every process has whole, on the CPU if sharded."""
        start, denoiser = self.start, self.start.denoiser
        if self.sharded:
            recipe = start.recipe.naming(start.named)
            denoiser = build_denoiser(recipe, start.latent_shape, len(start.classes), start.observation, outline=True)
            fill(denoiser, Gathered(self.trainer.averaged()))
        else:
            denoiser.load_state_dict(self.trainer.averaged())
        step = self.trainer.step if self.stopping is None else self.stopping.best
        return replace(start, denoiser=denoiser.eval(), step=step)

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
        if self.saved == self.trainer.step or not (self.main or self.sharded):
            return
        if self.main and not (self.folder / LOCK).exists():
            raise StorageError(f"{self.folder} was removed or moved while it was trained in; nothing more is saved.")
        target = checkpoint.step_folder(self.saves, self.trainer.step)
        files = replace(self.start, step=self.trainer.step).files(self.trainer.averaged())
        stream = getattr(self.trainer.data, "stream", None)  # and where its next batch begins
        place = {} if stream is None else {"stream": stream.state(self.trainer.step * self.trainer.recipe.batch)}
        files |= {seal.FILE: seal.seal(self.start.recipe), settings.FILE: dump_json(self.running | place)}
        state = self.trainer.state() | ({} if self.stopping is None else self.stopping.state())
        if self.sharded:
            pieces.write_pieces(target, files, state, self.trainer.accelerator)
        else:
            checkpoint.write_folder(target, files | {checkpoint.TRAINING: state})
        if self.main:
            checkpoint.point_last(target)
            checkpoint.prune(target, self.running["how"]["keep"])
        self.saved = self.trainer.step

    def snapshot(self, log: Log | None) -> None:
        """The result of `draw` with the averaged weights; trackers are shown it too.

        A sharded network needs all processes for that, which draw the same. log: shows the trackers; None in all
        processes but the first.
        """
        if not (self.main or self.sharded):
            return
        start, target = self.start, self.folder / "evolution" / f"step-{self.trainer.step:08d}.npy"
        try:
            with self.trainer.engine.averaging():
                files = self.draw(start, target)
        finally:
            start.denoiser.train()
        if not self.main:
            return
        own_folder(target.parent)
        for name, data in files.items():
            write_file(name, data)
        if log:
            log.images(files, self.trainer.step)
