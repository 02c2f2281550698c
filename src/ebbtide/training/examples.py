"""The examples of a training step: data with noise, times and labels, or parts of a teacher's trajectories."""

from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from ..core.couplings import COUPLINGS, as_given
from ..core.denoiser import Denoiser
from ..core.randomness import Share, generator, normal, uniform
from ..core.times import SPANS, TIMES, stratified_draws, uniform_draws
from ..data.prepared import Data
from ..errors import InputError
from ..losses import loss_row
from ..losses.stable import TOGETHER, posterior_mean
from ..recipes import Recipe
from ..specs import bind, require
from .teacher import Trajectories

if TYPE_CHECKING:  # half a second that only training needs
    from accelerate import Accelerator

__all__ = ["Examples", "batch_indices"]


def batch_indices(seed: int, step: int, batch: int, n: int) -> Int[Tensor, " batch"]:
    """Places step·batch … in the endless row of shuffled epochs; a function of (seed, step), so nothing to save.

    n: the number of examples; 0 for a stream, which is such a row itself.
    """
    first, end = step * batch, (step + 1) * batch
    if not n:
        return torch.arange(first, end)
    orders = [
        _order(seed, epoch, n)[max(0, first - epoch * n) : end - epoch * n]
        for epoch in range(first // n, (end - 1) // n + 1)
    ]
    return orders[0] if len(orders) == 1 else torch.cat(orders)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, "order", epoch))


class Examples:
    """The batches of a run, each a function of (seed, step) alone.

    Every process takes and draws its own `share` of a batch, and the rows on which that depends. A recipe that these
    data, the target or the number of processes can't serve is an InputError.

    data: the run's; others of the same kind can be measured. classes: the number of labels, and the null label, which
    takes the place of hidden ones.
    """

    def __init__(
        self, denoiser: Denoiser, data: Data, recipe: Recipe, accelerator: "Accelerator", classes: int = 0
    ) -> None:
        self.denoiser, self.recipe, self.device, self.classes = denoiser, recipe, accelerator.device, classes
        self.row, taught = loss_row(recipe.loss), isinstance(data, Trajectories)
        self.span = bind(SPANS, recipe.spans, "spans") if self.row.spans else None
        self._phases = self.span is not None and "done" in signature(self.span.func).parameters
        self.law = bind(TIMES, recipe.times, "times")
        self.couple = bind(COUPLINGS, recipe.coupling, "coupling")
        self._couples_by_draw = "draw" in signature(self.couple.func).parameters
        # A third noise is needed where both ends of a path are given (see Path.between).
        self.coupled = recipe.coupling != "independent" or data.x1 is not None
        if self.couple.func is as_given and not taught:
            raise InputError(
                "coupling 'given' is that of a teacher's pairs, which `ebbtide distill --method reflow` learns from."
            )
        if self.coupled and self.row.spans and not taught:
            raise InputError(f"loss {recipe.loss!r} needs independent pairs of data and noise.")
        if self.coupled and not denoiser.predicts_velocity:
            raise InputError(
                f"Coupled ends need the velocity target, the only one they leave meaningful; got {recipe.target!r}."
            )
        if recipe.batch % accelerator.num_processes:
            raise InputError(
                f"batch must be a multiple of the {accelerator.num_processes} processes, so that each has an equal "
                f"share; got {recipe.batch}."
            )
        self.share, rank = recipe.batch // accelerator.num_processes, accelerator.process_index
        self._own = slice(rank * self.share, (rank + 1) * self.share)
        self._drawn = self._together(self._own)

    def batch(self, data: Data, step: int) -> dict[str, Tensor]:
        """This process's share of the step's batch, as the loss takes it: x0, noise, t, and what else is needed."""
        rows, own = self._drawn, self._own
        batch = self._rows(data, step, self.recipe.stable_targets, rows)
        if rows == own:
            return batch
        return {name: part[own.start - rows.start : own.stop - rows.start] for name, part in batch.items()}

    def measuring(self, data: Data, number: int) -> dict[str, Tensor]:
        """A whole batch of data to measure the loss on, the same at every call; with plain targets.

        number: of the batch, from 0.
        """
        return self._rows(data, number, False, slice(0, self.recipe.batch), "measuring")

    def _together(self, own: slice) -> slice:
        """The rows of a batch on which its rows `own` depend: all that are coupled or averaged with one of them."""
        batch = self.recipe.batch
        if self.coupled or self.row.judges is not None:
            return slice(0, batch)
        if self.recipe.stable_targets:
            return slice(own.start // TOGETHER * TOGETHER, min(batch, -(-own.stop // TOGETHER) * TOGETHER))
        return own

    def _rows(self, data: Data, step: int, stable: bool, rows: slice, stream: str = "step") -> dict[str, Tensor]:
        """Rows of a step's batch of these data: x0, noise, t, and what else is needed."""
        recipe, device = self.recipe, self.device
        draw = Share(recipe.seed, stream, step, n=recipe.batch, rows=rows, device=device)
        many = 0 if getattr(data, "streamed", False) else len(data)
        indices = batch_indices(recipe.seed, step, recipe.batch, many)[rows]
        indices = indices if getattr(data, "ahead", False) else indices.to(device)
        if isinstance(data, Trajectories):
            return self._taught(data, indices, draw)
        batch = data.take(indices, draw)
        x0, label = batch["x0"], batch.pop("label", None)
        u = (stratified_draws if recipe.stratified else uniform_draws)(len(x0), draw)
        if (stable or self.coupled) and batch.keys() - {"x0"}:
            what = "stable_targets" if stable else f"coupling {recipe.coupling!r}"
            raise InputError(f"{what} can't be: what the network is told differs from example to example.")
        # A law may round to the very ends, where some targets and a bridge's velocity are infinite.
        if self.span is not None:
            phase = {"done": step / recipe.steps} if self._phases else {}
            u, end = self.span(u, uniform(draw, len(u)), **phase)
            batch["to"] = self.law(end, self.denoiser.path).clamp(2**-24, 1 - 2**-24)
        batch["t"] = self.law(u, self.denoiser.path).clamp(2**-24, 1 - 2**-24)
        if data.x1 is None:
            batch["noise"] = normal(draw, *x0.shape)
        else:
            batch["noise"] = data.x1[torch.randint(len(data.x1), (len(x0),), generator=draw, device=device)]
        allowed = None
        if self.coupled:
            by = {"draw": draw} if self._couples_by_draw else {}
            batch["noise"] = self.couple(x0, batch["noise"], label, **by)
            batch["z"] = normal(draw, *x0.shape)
        if label is not None:
            require("classes", self.classes, 1, whole=True)
            hidden = uniform(draw, len(label)) < recipe.label_dropout
            batch["label"] = label.masked_fill(hidden, self.classes)
        if stable and not self.coupled:
            if label is not None:
                allowed = hidden[:, None] | (label[:, None] == label)  # a hidden label may have been any
            batch["x0"], batch["noise"] = posterior_mean(self.denoiser.path, x0, batch["noise"], batch["t"], allowed)
        return batch

    def _taught(self, data: Trajectories, indices: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """Parts of a teacher's trajectories, with further draws for judges; or their ends, as coupled pairs."""
        path, device = self.denoiser.path, indices.device
        if not self.row.spans:
            start, end = data.ends(indices)
            t = self.law(stratified_draws(len(indices), draw), path).clamp(2**-24, 1 - 2**-24)
            z = normal(draw, *end.shape)
            return {"x0": end, "noise": start, "t": t, "z": z} | data.conditions(indices, draw)
        judged = self.row.judges is not None
        batch = data.take(indices, draw, ends=judged)
        if judged:
            z, batch["noise"], batch["nudge"] = torch.randn(3, *batch["end"].shape, generator=draw, device=device)
            batch["u"] = stratified_draws(len(indices), draw)
            if self.denoiser.gaussian_end:
                batch["start"] = path.prior(z)
        return batch
