"""Stopping by held-out loss, which falls while a network learns and rises once it copies its data.

The averaged weights are measured every EVERY steps, step 0 included, on the same draws of data, noise and times.
Training stops PATIENCE steps after the least loss, whose weights are kept. The loss is one number for all times and
all columns, and may fall while samples already crowd about the rows that were learned; so at each least loss samples
are drawn, too, and once they lie nearer to those rows than NEAR times as far as real rows do, that is the end.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..data.prepared import Data
from ..errors import InputError
from .replicated import Replicated
from .trainer import Trainer

__all__ = ["DRAWS", "EVERY", "NEAR", "SEARCH", "Stopping"]

EVERY, PATIENCE = 50, 400  # steps
DRAWS = 4096
NEAR = 0.8
SEARCH = "search"  # folder of the run that finds how many steps to train for, in the folder of the run that does


class Stopping:
    """The held-out losses of a run so far, and the averaged weights at the least of them.

    data: rows that are held out. near: the distance of samples to the rows that are learned, in units of that of these
    rows from one another.
    """

    def __init__(self, trainer: Trainer, data: Data, near: Callable[[], float] | None = None) -> None:
        if not isinstance(trainer.engine, Replicated):
            raise InputError(
                "engine 'fsdp' can't stop by held-out loss, whose best weights a process would keep; give the steps "
                "(--steps), or take engine='replicated' (--engine replicated)."
            )
        self.trainer, self.batches, self.engine = trainer, trainer.measuring(data, DRAWS), trainer.engine
        self.losses: list[float] = []
        self.weights = self.engine.ema.clone()
        self.near, self.least, self.copies = near, NEAR, False

    @property
    def best(self) -> int:
        """The step of the least loss, of those before samples came too near."""
        losses = self.losses[:-1] if self.copies else self.losses
        return EVERY * losses.index(min(losses))

    @property
    def done(self) -> bool:
        """True if samples have come too near, or the loss has not been less for PATIENCE steps."""
        return self.copies or (bool(self.losses) and EVERY * (len(self.losses) - 1) >= self.best + PATIENCE)

    def look(self) -> float | None:
        """The loss, if it is to be measured after this step and wasn't yet."""
        if self.trainer.step % EVERY or self.trainer.step // EVERY != len(self.losses):
            return None
        loss = self.trainer.measured(self.batches)
        if not self.losses or loss < min(self.losses):
            self._look_near()
            if not self.copies:
                self.weights.copy_(self.engine.ema)
        self.losses.append(loss)
        return loss

    def _look_near(self) -> None:
        """See if samples lie too near: nearer than those of step 0, too, which knows no row by itself."""
        if self.near is None:
            return
        try:
            with self.engine.averaging():
                distance = self.near()
        finally:
            self.trainer.denoiser.train()
        if not self.losses:
            self.least = min(NEAR, distance)
        self.copies = distance < self.least

    def settle(self) -> None:
        """Make the best weights the result."""
        self.engine.ema.copy_(self.weights)

    def said(self, rows: int, name: str) -> str:
        """The outcome in a sentence; rows: how many are learned in the end; name: what training starts from."""
        if not self.best:
            return f"The {name} was not improved upon with {rows:,} rows."
        found = f"{self.losses[self.best // EVERY]:.4g}, at step 0 {self.losses[0]:.4g}"
        until = f", before samples crowd about rows that were learned after {EVERY * (len(self.losses) - 1):,}"
        return (
            f"The held-out loss is least after {self.best:,} steps{until if self.copies else ''}: {found}. "
            "All rows are now learned for as many."
        )

    def state(self) -> dict[str, Tensor]:
        """The state for resuming."""
        weights = {f"stopping.{name}": part for name, part in self.engine.flat.split(self.weights).items()}
        found = {"losses": self.losses, "distance": [self.least, float(self.copies)]}
        return {f"stopping {name}": torch.tensor(one, dtype=torch.float64) for name, one in found.items()} | weights

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken."""
        losses = tensors.get("stopping losses")
        if losses is None or losses.ndim != 1 or not bool(losses.isfinite().all()):
            raise InputError("its tensor stopping losses is missing or damaged.")
        distance = tensors.get("stopping distance", torch.tensor([NEAR, 0.0]))
        if distance.shape != (2,) or not bool(distance.isfinite().all()):
            raise InputError("its tensor stopping distance is damaged.")
        self.losses, self.least, self.copies = losses.tolist(), float(distance[0]), bool(distance[1])
        for name, part in self.engine.flat.split(self.weights).items():
            own = tensors.get(f"stopping.{name}")
            if own is None or own.shape != part.shape or not bool(own.isfinite().all()):
                raise InputError(f"its tensor stopping.{name} is missing, of another shape, or not finite.")
            part.copy_(own)
