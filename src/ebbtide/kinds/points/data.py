"""The points that a recipe names: to train on, held out, fresh, and to start from."""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.randomness import generator, key
from ...data import DATASETS, Points, PointSet, Standardise, load, within_float32
from ...data.given import given_points
from ...data.prepared import Prepared, TensorData, class_names, frequencies
from ...data.split import held_out
from ...errors import InputError
from ...memory import room
from ...recipes import IN_MEMORY, PointRecipe

__all__ = [
    "BLOCK", "FEWEST_ROWS", "NOTHING_HELD", "at_hand", "describe", "fits", "given", "label_column", "limits", "part",
    "parts", "point_set", "prepare", "real", "real_points", "split", "start", "unseen",
]  # fmt: skip

NOTHING_HELD = "Nothing was held out, so truth is the rows that were trained on, and copies of them look right."
FEWEST_ROWS = 100  # of a table of which some are held out
BLOCK = 4096  # starting points drawn together from a second sample set


def label_column(recipe: PointRecipe) -> str:
    """The labels' column in a text file of a recipe's samples: its own where that has a name, not a number."""
    text = Path(recipe.data).suffix.lower() in (".csv", ".tsv")
    return recipe.label if text and recipe.label and not recipe.label.isdecimal() else "label"


def fits(recipe: PointRecipe) -> None:
    """Refuse more points than there is memory for."""
    if recipe.data in DATASETS or recipe.source in DATASETS:
        room(200 * recipe.points, f"points {recipe.points}")


def prepare(recipe: PointRecipe) -> Prepared:
    """The points of a recipe to train on, and of its second set, in the network's units."""
    return _prepared(recipe, parts(recipe)[0])


def given(recipe: PointRecipe, x: Any, y: Any) -> tuple[PointRecipe, Prepared]:
    """The recipe for rows in memory, learned with their labels where there are any, and these rows."""
    recipe = replace(recipe, data=IN_MEMORY, label="", conditional=recipe.conditional or y is not None)
    return recipe, _prepared(recipe, split(recipe, given_points(x, y))[0])


def _prepared(recipe: PointRecipe, points: Points) -> Prepared:
    if recipe.conditional and points.labels is None:
        raise InputError(f"{recipe.data_named} has no labels, which a conditional network needs; name their column.")
    fitted = Standardise.fit(points.x)
    codec = fitted if recipe.standardise else fitted.of_constants()
    within_float32(codec, recipe.data_named, points.columns)
    ends = [points.x] if recipe.source == "noise" else [points.x, _source(recipe, points)]
    x, *x1 = map(codec.encode, ends)
    data = TensorData(x, points.labels if recipe.conditional else None, x1[0] if x1 else None)
    classes = class_names(points.classes, points.labels)
    shares: tuple[float, ...] = ()
    if data.labels is not None:  # the classes of a named set are equally likely, however many of each were drawn
        count = len(classes)
        shares = (1 / count,) * count if point_set(recipe) else frequencies(data.labels, count)
    return Prepared(data, tuple(x.shape[1:]), codec, points.columns, classes, frequencies=shares)


def parts(recipe: PointRecipe) -> tuple[Points, Points]:
    """The points to train on, and those held out: a file's own parts, or drawn; of an endless set or few rows none."""
    return split(recipe, load(recipe.data, recipe.points, recipe.seed, recipe.label or None))


def split(recipe: PointRecipe, points: Points) -> tuple[Points, Points]:
    """The same of points at hand."""
    n = len(points.x)
    share = 0.0 if point_set(recipe) or n < FEWEST_ROWS else recipe.held_out
    held = held_out(n, share, points.labels, keep_classes=True)  # the seed is not asked, as for images
    if points.test:
        held = torch.arange(n) >= n - points.test
    return part(points, ~held), part(points, held)


def part(points: Points, rows: Tensor) -> Points:
    labels = None if points.labels is None else points.labels[rows]
    return replace(points, x=points.x[rows], labels=labels, test=0)


def _source(recipe: PointRecipe, points: Points) -> Tensor:
    x1 = load(recipe.source, recipe.points, recipe.seed + 1).x
    if x1.shape[1:] != points.x.shape[1:]:
        raise InputError(
            f"source {recipe.source} has {x1.shape[1]} columns, but {recipe.data_named} has {points.x.shape[1]}."
        )
    return x1


def start(recipe: PointRecipe, n: int, seed: int, first: int) -> Tensor | None:
    """Points first, first + 1, … of the second sample set, the same whatever n; None where sampling starts from noise.

    Of a named set fresh points in blocks, each with its own seed; of a file its rows, shuffled by the seed.
    """
    if recipe.source == "noise":
        return None
    if recipe.source in DATASETS:
        blocks = range(first // BLOCK, (first + n - 1) // BLOCK + 1)
        parts = [load(recipe.source, BLOCK, key(seed, "source", block) >> 1).x for block in blocks]
        return torch.cat(parts)[first % BLOCK :][:n]
    rows = load(recipe.source, recipe.points, seed).x
    order = torch.randperm(len(rows), generator=generator(seed, "source"))
    return rows[order[torch.arange(first, first + n) % len(rows)]]


def describe(recipe: PointRecipe) -> str:
    """One line on the data a recipe names."""
    if recipe.in_memory:
        return "data in memory"
    return DATASETS[recipe.data].about if recipe.data in DATASETS else f"the file {recipe.shared().data}"


def point_set(recipe: PointRecipe) -> PointSet | None:
    """The named distribution a recipe learns; None for a file."""
    return DATASETS.get(recipe.data)


def real_points(recipe: PointRecipe, n: int, seed: int) -> Points:
    """n real points, fresh where the distribution is known, else (at most n) rows of the file in random order."""
    known = point_set(recipe)
    if known is not None:
        x, labels = known.sample(n, generator("real", seed))
        return Points(x, labels, classes=known.classes)
    at_hand(recipe)
    points = load(recipe.data, n, seed, recipe.label or None)
    return part(points, torch.randperm(len(points.x), generator=generator("real", seed))[:n])


def at_hand(recipe: PointRecipe) -> None:
    if not os.path.exists(recipe.data):  # a name that no file can have is no error there
        raise InputError(f"The run's data, {recipe.data}, is not here, so there is nothing to compare with.")


def unseen(recipe: PointRecipe, n: int, seed: int) -> Points:
    """At most n real points never trained on; warns where a file has none, and gives points that were."""
    if point_set(recipe) is not None:
        return real_points(recipe, n, seed)
    at_hand(recipe)
    train, held = parts(recipe)
    if not len(held.x):
        warnings.warn(f"{Path(recipe.data).name}: {NOTHING_HELD}", stacklevel=2)
    points = held if len(held.x) else train
    return part(points, torch.randperm(len(points.x), generator=generator("real", seed))[:n])


def real(recipe: PointRecipe, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """`real_points` and their labels."""
    points = real_points(recipe, n, seed)
    return points.x, points.labels


def limits(recipe: PointRecipe, real: Tensor | np.ndarray) -> np.ndarray:
    """The frame of every figure, (d, 2): the point set's own, or the middle 99.8 % of each column and a margin."""
    known = point_set(recipe)
    if known is not None:
        return np.array([known.limits] * real.shape[1])
    low, high = np.quantile(np.asarray(real), [0.001, 0.999], axis=0)
    margin = np.where(high > low, 0.15 * (high - low), 0.5 * np.maximum(np.abs(low), 1))
    return np.stack([low - margin, high + margin], 1)
