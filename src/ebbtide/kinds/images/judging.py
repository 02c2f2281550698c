"""Samples of images judged as they come: by their features, and after super-resolution pixel by pixel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data.prepared import class_names
from ...metrics import ImageJudge, ImageReport, Measurement
from ...recipes import ImageRecipe
from .data import kept, parts
from .super_resolution import AgainstHeld

__all__ = ["Judging", "given_to_judge"]


class Judging:
    """The judge of n samples of a recipe; labels: the classes they were asked for."""

    def __init__(
        self,
        recipe: ImageRecipe,
        n: int,
        labels: Int[Tensor, " n"] | None,
        seed: int,
        own: Mapping[str, Callable[[Tensor, Tensor], float]],
    ) -> None:
        self.features = ImageJudge(n, **given_to_judge(recipe), asked=labels, seed=seed, own=own)
        self.pixels = AgainstHeld(recipe, n, seed) if recipe.factor else None

    def look(self, first: int, x: Float[Tensor, "b c h w"]) -> None:
        """Judge the samples `first`, first + 1, …"""
        made = torch.from_numpy(kept(x))
        self.features.look(first, made)
        if self.pixels is not None:
            self.pixels.look(first, made)

    def seen(self, rank: int = 0, count: int = 1) -> Any:
        """All that is kept of them, and of this process's part of the real images, `rank` of `count`."""
        return self.features.seen(rank, count), None if self.pixels is None else self.pixels.seen()

    def judged(self, every: Sequence[Any]) -> tuple[list[Measurement], ImageReport]:
        """The metrics of what all processes saw, in their order, and the report with what its figure shows."""
        report = self.features.report([features for features, _ in every])
        return report.rows + ([] if self.pixels is None else self.pixels.rows([part for _, part in every])), report


def given_to_judge(recipe: ImageRecipe) -> dict[str, Any]:
    """The images of a recipe, as `ImageJudge` takes them."""
    train, held = parts(recipe)
    return {
        "train": train.x, "held": held.x, "train_labels": train.labels, "held_labels": held.labels,
        "classes": len(class_names(train.classes, train.labels)),
    }  # fmt: skip
