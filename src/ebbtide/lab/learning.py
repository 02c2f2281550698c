"""Methods that learn while somebody watches: each trains in a separate process, and leaves its weights on a board.

A board is a file that two processes map. Copying the averaged weights there takes 10 µs, 20 times a second; samples are
drawn from that copy in the process of the page, so that training is slowed by no more than the core they need.
"""

import _thread
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.files import save_points
from ..errors import InputError
from ..files import writing_folder
from ..kinds import kind_of
from ..kinds.runs import begin, from_pretrained, train_recipe
from ..recipes import RECIPES, Recipe
from ..specs import require
from ..training import checkpoint
from ..training.flat import FlatParameters
from ..training.history import read_losses
from ..training.processes import in_processes
from ..training.replicated import Replicated
from ..training.trained import Trained
from ..training.trainer import Record, Trainer

__all__ = ["FEWEST", "LIVE", "PAINTED", "Board", "Learner", "Look", "begun_with", "learn"]

GO, PAUSE, STOP = range(3)  # what a worker is asked to do
ORDER = 5  # numbers that a board has beside the weights
EVERY = 0.05  # seconds between two posts
FEWEST = 20  # points that can be learned from
PAINTED = "painted.csv"  # in a kept run's folder, the points it was trained on
# Samples for each look at a method in training: few steps, since they are drawn ten times a second.
LIVE: dict[str, dict[str, Any]] = {
    "points": {"n": 256, "sampler": "dpmpp_2m", "grid": "quadratic", "steps": 5},
    "images": {"n": 16, "sampler": "dpmpp_2m", "grid": "uniform", "steps": 6, "bound": 1.0},
}


class Board:
    """Two mapped files in a folder: weights.f32, which a worker writes, and order.i64, which it reads.

    size: numbers of the network's weights.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        for path, count, kind in ((self._weights, size, np.float32), (self._order, ORDER, np.int64)):
            if not path.exists():
                np.zeros(count, kind).tofile(path)
        self.weights = np.memmap(self._weights, np.float32, "r+", shape=(size,))
        # What is asked, saves asked for, the weights' step, saves done, the worker's process id.
        self.order = np.memmap(self._order, np.int64, "r+", shape=(ORDER,))

    @property
    def _weights(self) -> Path:
        return self.folder / "weights.f32"

    @property
    def _order(self) -> Path:
        return self.folder / "order.i64"

    @property
    def step(self) -> int:
        """The step that the weights are of."""
        return int(self.order[2])

    def post(self, trainer: Trainer) -> None:
        """Write the averaged weights and their step. trainer: in which they are."""
        assert isinstance(trainer.engine, Replicated)
        self.weights[:] = trainer.engine.ema.cpu().numpy()
        self.order[2] = trainer.step


@dataclass
class _Watch:
    """The worker's side: called after every step of its training."""

    board: Board
    posted: float = 0.0

    def __call__(self, trainer: Trainer, record: Record) -> bool:
        """Post the weights now and then, wait while paused, stop where asked; true where a checkpoint is wanted."""
        if (now := time.monotonic()) - self.posted > EVERY or trainer.step == trainer.recipe.steps:
            self.board.post(trainer)
            self.posted = now
        order = self.board.order
        if order[0] == PAUSE:
            self.board.post(trainer)
        while order[0] == PAUSE and order[1] == order[3]:
            time.sleep(0.02)
        if order[0] == STOP:
            _thread.interrupt_main(signal.SIGTERM)  # noted by the loop, which saves and ends
        if wanted := bool(order[1] != order[3]):
            order[3] = order[1]
        return wanted


def learn(recipe: Recipe, out: Path, given: Any, board: tuple[Path, int], resume: bool) -> None:
    """Train in this process, watched over a board; an ordinary run in the folder `out`.

    given: data in memory, or none. resume: go on with the run there.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    own = Board(*board)
    own.order[4] = os.getpid()
    if own.order[0] != STOP:
        train_recipe(recipe, out, given=given, watch=_Watch(own), resume=resume, progress=False)


@dataclass(frozen=True)
class Look:
    """A method in training, as it is now."""

    step: int
    samples: Tensor
    """In data units."""
    seconds: float
    """CPU time that the samples took."""


class Learner:
    """One method in training, and its run afterwards.

    key: by which the page calls it. name: of the recipe. painted: points, or none.
    """

    def __init__(self, key: str, name: str, recipe: Recipe, painted: Tensor | None) -> None:
        self.key, self.name, self.recipe, self.painted = key, name, recipe, painted
        self.given = None if painted is None else (painted.numpy(), None)
        self.trained, _ = begin(recipe, given=self.given)
        self.home = Path(tempfile.mkdtemp(prefix="ebbtide-lab-"))
        self.flat = FlatParameters(self.trained.denoiser)
        self.board = Board(self.home, len(self.flat.vector))
        self.kept: Path | None = None
        self.error = ""
        self._state = "starting"
        self._thread: threading.Thread | None = None
        self._marks = [(time.monotonic(), 0)]

    @property
    def folder(self) -> Path:
        """The run's folder, until it is kept elsewhere."""
        return self.home / "run"

    @property
    def state(self) -> str:
        """starting, training, fitting (its solvers, after the last step), paused, stopped, done or failed."""
        step, working = self.board.step, self.board.order[4] != 0
        if self._state == "starting" and step > 0 and working:
            return "fitting" if step == self.recipe.steps else "training"
        return self._state

    @property
    def step(self) -> int:
        """The step of the weights that are there."""
        return self.board.step

    def go(self) -> None:
        """Begin, go on after a pause, or continue a run that was stopped."""
        self.board.order[0] = GO
        self._marks = [(time.monotonic(), self.step)]
        if self._state == "done":
            return
        self._state, self.error = "starting", ""
        if self._thread is None or not self._thread.is_alive():
            self.board.order[4] = 0
            self._thread = threading.Thread(target=self._run, args=(self.step > 0,), daemon=True)
            self._thread.start()

    def _run(self, resume: bool) -> None:
        job = (self.recipe, self.folder, self.given, (self.home, self.board.size), resume)
        try:
            in_processes(learn, [job])
            if self.board.order[0] == STOP and self.step < self.recipe.steps:
                self._state = "stopped"  # before it began
                return
            self.trained = from_pretrained(self.folder)
            self._state = "done"
        except KeyboardInterrupt:  # which the worker's own signal comes to
            self._state = "stopped"
        except BaseException as error:
            self._state, self.error = "failed", str(error) or type(error).__name__

    def pause(self) -> None:
        """Let the worker wait after its step."""
        if self.state in ("starting", "training"):
            self.board.order[0], self._state = PAUSE, "paused"

    def stop(self, wait: float | int = 0) -> None:
        """Let the worker save and end. wait: seconds at most."""
        self.board.order[0] = STOP
        if self._thread is not None and wait:
            self._thread.join(wait)

    def close(self) -> None:
        """Stop, and remove what wasn't kept elsewhere: so a worker that is busy needn't be waited for."""
        self.stop(wait=2)
        if self._thread is not None and self._thread.is_alive():
            if (worker := int(self.board.order[4])) not in (0, os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(worker, getattr(signal, "SIGKILL", signal.SIGTERM))
            self._thread.join(60)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def left(self) -> float | None:
        """Seconds that the rest of the steps take, as fast as the last ones; None while that isn't known."""
        now, step = time.monotonic(), self.step
        if step != self._marks[-1][1]:
            self._marks = [*self._marks[-40:], (now, step)]
        (then, before), rest = self._marks[0], self.recipe.steps - step
        return None if self.state != "training" or step == before else rest * (now - then) / (step - before)

    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) as metrics.jsonl has them."""
        return [(line["step"], line["loss"]) for line in read_losses(self.folder)]

    def now(self) -> Trained:
        """The run with the weights of this moment, as a copy."""
        if self._state == "done":
            return self.trained
        self._update()
        return replace(self.trained, denoiser=deepcopy(self.trained.denoiser).eval(), step=self.step)

    def _update(self) -> None:
        if self._state != "done" and self.step:
            self.flat.vector.copy_(torch.from_numpy(np.array(self.board.weights)))

    def look(self) -> Look:
        """Samples with the weights of this moment."""
        begun, step = time.thread_time(), self.step
        self._update()
        how, labels = LIVE[self.recipe.kind], None
        if self.recipe.kind == "images" and (every := kind_of(self.recipe).all_classes) is not None:
            labels = every(self.trained, how["n"])
        x = self.trained.sample(seed=self.recipe.seed, label=labels, **how)
        return Look(step, x, time.thread_time() - begun)

    def keep(self, folder: Path) -> Path:
        """Copy the run to a folder that doesn't exist yet; InputError unless it is paused or done."""
        if self._state not in ("paused", "done", "stopped"):
            raise InputError("Pause the training first, or wait until it is done; then the run can be kept.")
        if not self.step:
            raise InputError("There is no run to keep before the first step.")
        if folder.exists():
            raise InputError(f"{folder} exists; keep the run in another folder.")
        if self._state == "paused":
            self._saved()
        with writing_folder(folder, replace=False) as whole:
            shutil.copytree(
                self.folder, whole, ignore=shutil.ignore_patterns(".lock"), symlinks=True, dirs_exist_ok=True
            )
            if self.painted is not None:
                save_points(whole / PAINTED, self.painted, ("x", "y"))
        self.kept = folder
        return folder

    def _saved(self, wait: float | int = 20) -> None:
        """Let the paused worker save where it stands, unless it was done before it could pause."""
        order, until, folder = self.board.order, time.monotonic() + wait, self.folder / "checkpoints"
        least = checkpoint.step_folder(folder, self.step)  # when it has saved, the worker takes another step
        order[1] += 1
        saved = lambda: any(one >= least for one in checkpoint.saved(folder) if one.exists())
        while self._state == "paused" and (order[1] != order[3] or not saved()):
            if time.monotonic() > until:
                raise InputError("The training doesn't answer; try again in a moment.")
            time.sleep(0.02)


def begun_with(
    names: Sequence[str], data: str, painted: Tensor | None, steps: int, conditional: bool, first: int = 0
) -> list[Learner]:
    """Learners of these recipes, on data or painted points; InputError if one can't be, and then there is none.

    conditional: by class.
    """
    require("steps", steps, 1, 10**6, whole=True)
    if painted is not None and (count := len(painted.unique(dim=0))) < FEWEST:
        raise InputError(f"Paint at least {FEWEST} different points, so that there is something to learn; got {count}.")
    made: list[Learner] = []
    try:
        for number, name in enumerate(names, first):
            fields: dict[str, Any] = {"steps": steps, "conditional": conditional}
            fields |= {"codec": "standardise"} if painted is not None else {"data": data}
            recipe = RECIPES[name]().having(fields)
            made.append(Learner(f"learner-{number}", name, recipe, painted))
    except BaseException:
        for learner in made:
            learner.close()
        raise
    return made
