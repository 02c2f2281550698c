"""Stopping by held-out loss, which falls while a network learns and rises once it copies its data.

The averaged weights are measured every EVERY steps, step 0 included, on the same draws of data, noise and times.
Training stops PATIENCE steps after the least loss, whose weights are kept.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.prepared import Data
from ..errors import InputError
from .replicated import Replicated
from .trainer import Trainer

__all__ = ["DRAWS", "EVERY", "SEARCH", "Stopping"]

EVERY, PATIENCE = 50, 400  # steps
DRAWS = 4096
SEARCH = "search"  # folder of the run that finds how many steps to train for, in the folder of the run that does


class Stopping:
    """The held-out losses of a run so far, and the averaged weights at the least of them."""

    def __init__(self, trainer: Trainer, data: Data) -> None:
        if not isinstance(trainer.engine, Replicated):
            raise InputError(
                "engine 'fsdp' can't stop by held-out loss, whose best weights a process would keep; give the steps "
                "(--steps), or take engine='replicated' (--engine replicated)."
            )
        self.trainer, self.batches, self.engine = trainer, trainer.measuring(data, DRAWS), trainer.engine
        self.losses: list[float] = []
        self.weights = self.engine.ema.clone()

    @property
    def best(self) -> int:
        """The step of the least loss."""
        return EVERY * self.losses.index(min(self.losses))

    @property
    def done(self) -> bool:
        """True if the loss has not been less for PATIENCE steps."""
        return bool(self.losses) and EVERY * (len(self.losses) - 1) >= self.best + PATIENCE

    def look(self) -> float | None:
        """The loss, if it is to be measured after this step and wasn't yet."""
        if self.trainer.step % EVERY or self.trainer.step // EVERY != len(self.losses):
            return None
        loss = self.trainer.measured(self.batches)
        if not self.losses or loss < min(self.losses):
            self.weights.copy_(self.engine.ema)
        self.losses.append(loss)
        return loss

    def settle(self) -> None:
        """Make the best weights the result."""
        self.engine.ema.copy_(self.weights)

    def said(self, rows: int, name: str) -> str:
        """The outcome in a sentence; name: what training starts from."""
        if not self.best:
            return f"The {name} was not improved upon with {rows:,} rows."
        return (
            f"The held-out loss is least after {self.best:,} steps: {min(self.losses):.4g}, at step 0 "
            f"{self.losses[0]:.4g}. All rows are now learned for as many."
        )

    def state(self) -> dict[str, Tensor]:
        """The state for resuming."""
        weights = {f"stopping.{name}": part for name, part in self.engine.flat.split(self.weights).items()}
        return {"stopping losses": torch.tensor(self.losses, dtype=torch.float64)} | weights

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken."""
        losses = tensors.get("stopping losses")
        if losses is None or losses.ndim != 1 or not bool(losses.isfinite().all()):
            raise InputError("its tensor stopping losses is missing or damaged.")
        self.losses = losses.tolist()
        for name, part in self.engine.flat.split(self.weights).items():
            own = tensors.get(f"stopping.{name}")
            if own is None or own.shape != part.shape or not bool(own.isfinite().all()):
                raise InputError(f"its tensor stopping.{name} is missing, of another shape, or not finite.")
            part.copy_(own)
