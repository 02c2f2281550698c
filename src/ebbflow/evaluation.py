"""Samples of a run against its data: which truth there is to hold them against, and every metric that applies."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .data import DATASETS, Points, PointSet, load
from .errors import InputError
from .metrics import Measurement, measure
from .randomness import generator
from .recipes import Recipe


def point_set(recipe: Recipe) -> PointSet | None:
    """The named distribution a recipe learns; None for a file."""
    return DATASETS.get(recipe.data)


def real_points(recipe: Recipe, n: int, seed: int) -> Points:
    """n real points, fresh where the distribution is known, else (at most n) rows of the file in random order."""
    known = point_set(recipe)
    if known is not None:
        x, labels = known.sample(n, generator("real", seed))
        return Points(x, labels, classes=known.classes)
    if not Path(recipe.data).exists():
        raise InputError(f"The run's data, {recipe.data}, is not here, so there is nothing to compare with.")
    points = load(recipe.data, n, seed, recipe.label or None)
    kept = torch.randperm(len(points.x), generator=generator("real", seed))[:n]
    labels = None if points.labels is None else points.labels[kept]
    return Points(points.x[kept], labels, points.columns, points.classes)


def evaluate(
    recipe: Recipe,
    samples: Float[Tensor, " n d"],
    labels: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    floors: dict[tuple[str, int], list[float]] | None = None,
    only: Sequence[str] | None = None,
) -> list[Measurement]:
    """Every metric that applies, beside its floor. Labels, where given, are what the samples were asked for.

    floors: one dict for several evaluations against the same data, which then share their floors.
    only: names of the metrics wanted, instead of all.
    """

    def real(n: int, repeat: int) -> Tensor | tuple[Tensor, Tensor]:
        points = real_points(recipe, n, repeat)
        return points.x if labels is None or points.labels is None else (points.x, points.labels)

    known = point_set(recipe)
    if known is None:
        return measure(samples, real(10**9, seed), labels=labels, seed=seed, floors=floors, only=only)
    modes = known.modes
    return measure(
        samples,
        real,
        means=None if modes is None else modes.means,
        std=None if modes is None else modes.std,
        log_density=known.log_density,
        labels=labels,
        seed=seed,
        floors=floors,
        only=only,
    )
