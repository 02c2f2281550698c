"""The recipe's loss as a module: what a step of training minimises."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ..core.denoiser import Denoiser
from ..losses import LOSSES, loss_row
from ..losses.denoise import WEIGHTS
from ..losses.flow_map import Fresh, Leap, mean_slope
from ..recipes import Recipe
from ..specs import bind

__all__ = ["Objective", "draws"]


class Objective(torch.nn.Module):
    """The recipe's loss as a forward pass, which is what the accelerator wraps for autocast.

    helps: what the loss may need by name: average, teacher and judges; None for what the run doesn't have.
    """

    def __init__(self, denoiser: Denoiser, recipe: Recipe, helps: dict[str, Any]) -> None:
        super().__init__()
        self.denoiser, self.weight = denoiser, bind(WEIGHTS, recipe.weight, "weight")
        self.row, self.function = loss_row(recipe.loss), bind(LOSSES, recipe.loss, "loss")
        self.helps = {name: helps[name] for name in self.row.helps}
        self.teacher = helps["teacher"]

    def forward(self, **batch: Tensor) -> Tensor:
        if not self.row.spans:
            loss: Tensor = self.function(self.denoiser, **batch, weight=self.weight, **self.helps)
        else:
            loss = self.function(self.denoiser, self.leap(**batch), **self.helps)
        return loss

    def leap(
        self, *, t: Tensor, to: Tensor, x_t: Tensor | None = None, x_to: Tensor | None = None, **rest: Any
    ) -> Leap:
        """Examples for a flow map: of a teacher's trajectories, or of pairs of data and noise.

        x_to: the trajectory at the time `to`, (b, *d); as x_t, None for pairs. rest: x0 and noise of pairs, or the
        slope of trajectories; the times and points of `Fresh`, if any; and the network's conditions.
        """
        path, known = self.denoiser.path, None
        fresh = Fresh(**{name: rest.pop(name) for name in Fresh.__annotations__}) if "start" in rest else None
        if x_t is None:
            x0, noise = rest.pop("x0"), rest.pop("noise")
            now, then = path.at(t, x0), path.at(to, x0)
            x_t, x_to, known = now.alpha * x0 + now.sigma * noise, then.alpha * x0 + then.sigma * noise, noise - x0
        else:
            now, then, known = path.at(t, x_t), path.at(to, x_t), rest.pop("slope")
            if self.row.slope:  # at every point, and not only where s = t
                with torch.no_grad():
                    known = mean_slope(self.teacher, x_t, now, None, rest)
        return Leap(x_t, now, then, known, x_to, rest, fresh)


def draws(part: torch.nn.Module) -> bool:
    """True if a part of a network draws random numbers in training: dropout, or a part that declares it."""
    return (isinstance(part, _DropoutNd) and part.p > 0) or bool(getattr(part, "draws", False))
