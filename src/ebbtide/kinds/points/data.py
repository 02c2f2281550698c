"""The points that a recipe names: to train on, held out, fresh, and to start from."""

import os
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...codecs import CODECS, Cells, Codec, Mixed, Ranks, fit_codec, fit_table, groups
from ...core.randomness import generator, key, uniform
from ...data import DATASETS, Points, PointSet, Standardise, load, within_float32
from ...data.files import is_text
from ...data.forms import Column, Reading
from ...data.frames import sheet_of
from ...data.given import given_points
from ...data.partly import PartlyKnown
from ...data.prepared import Prepared, TensorData, class_names, frequencies
from ...data.split import held_out
from ...errors import InputError
from ...exact.start import chosen
from ...losses import loss_row
from ...memory import room
from ...recipes import IN_MEMORY, PointRecipe
from ...training.storage import unnamed
from .nearness import nearness_to

__all__ = [
    "BLOCK", "ENOUGH", "FEWEST_ROWS", "NOTHING_HELD", "at_hand", "codec_for", "describe", "described", "fits",
    "given", "judges", "label_column", "limits", "part", "parts", "point_set", "prepare", "read_rows", "reading",
    "real", "real_points", "split", "start", "unseen",
]  # fmt: skip

NOTHING_HELD = (
    "Nothing was held out, so truth is the rows that were trained on, and copies of them look right. The run in its "
    "folder search, if it has one, never learned some of the rows; --held-out 0.2 keeps some from a run for good."
)
FEWEST_ROWS = 40  # of a table of which some are held out
ENOUGH = 1000  # rows, of which a network learns more without Gaussians to start from
BLOCK = 4096  # starting points drawn together from a second sample set


def label_column(recipe: PointRecipe) -> str:
    """The labels' column in a text file of a recipe's samples: its own where that has a name, not a number."""
    return recipe.label if is_text(recipe.data) and recipe.label and not recipe.label.isdecimal() else "label"


def fits(recipe: PointRecipe) -> None:
    """Refuse more points than there is memory for."""
    if recipe.data in DATASETS or recipe.source in DATASETS:
        room(200 * recipe.points, f"points {recipe.points}")
    of_columns = [name for name, row in CODECS.items() if row.of == "columns"]
    if recipe.codec not in ("", *of_columns):
        raise InputError(f"codec must be one of columns, {', '.join(of_columns)}; got {recipe.codec!r}.")
    if recipe.codec and not recipe.standardise:
        raise InputError("codec and standardise both say how the network sees columns; give one of them.")


def prepare(recipe: PointRecipe, codec: Codec | None = None, data_on: str = "auto") -> Prepared:
    """The points of a recipe to train on, and of its second set, in the network's units.

    codec: of a run that goes on; it is fitted again, exactly, so that other data is noticed.
    """
    if recipe.in_memory:
        raise InputError(unnamed("data", recipe.data))
    return _prepared(recipe, read_rows(recipe, recipe.points, recipe.seed))


def given(recipe: PointRecipe, x: Any, y: Any, codec: Codec | None = None) -> tuple[PointRecipe, Prepared]:
    """The recipe for rows in memory, learned with their labels where there are any, and these rows."""
    recipe = replace(recipe, data=IN_MEMORY, label="", conditional=recipe.conditional or y is not None)
    return recipe, _prepared(recipe, given_points(x, y, reading(recipe)))


def _prepared(recipe: PointRecipe, whole: Points) -> Prepared:
    points, judging, _ = _shares(recipe, whole)
    if recipe.conditional and points.labels is None:
        raise InputError(f"{recipe.data_named} has no labels, which a conditional network needs; name their column.")
    codec = codec_for(recipe, points)
    within_float32(codec, recipe.data_named, points.columns)
    x1 = None if recipe.source == "noise" else codec.encode(_source(recipe, points))
    if recipe.any_columns:
        _any_columns(recipe, points)

    def data_of(points: Points) -> TensorData:
        labels = points.labels if recipe.conditional else None
        if isinstance(codec, Cells):
            data = TensorData(codec.cells(points.x).float(), labels, x1, partial(_drawn, codec))
        else:
            data = TensorData(codec.encode(points.x), labels, x1)
        return PartlyKnown(**vars(data), groups=groups(codec, points.x.shape[1])) if recipe.any_columns else data

    data, unseen_data = data_of(points), None if judging is None else data_of(judging)
    classes = class_names(points.classes, points.labels)
    shares: tuple[float, ...] = ()
    if data.labels is not None:  # the classes of a named set are equally likely, however many of each were drawn
        count = len(classes)
        shares = (1 / count,) * count if point_set(recipe) else frequencies(data.labels, count)
    settled: dict[str, Any] = {}
    # Where a stable target is that of a memory, and where each example's own columns are known.
    if recipe.any_columns or (point_set(recipe) is None and len(data) <= recipe.batch):
        settled["stable_targets"] = False
    if recipe.any_columns:  # Gaussians would go by the noised numbers of columns that are known without noise
        settled["gaussians"] = 0
    elif recipe.gaussians < 0 and isinstance(codec, Cells):
        settled["gaussians"] = _gaussians(recipe, data, unseen_data) if len(whole.x) < ENOUGH else 0
    return Prepared(
        data, tuple(points.x.shape[1:]), codec, points.columns, classes, frequencies=shares, form=points.form,
        settled=settled, judging=unseen_data, near=None if judging is None else partial(nearness_to, points, judging),
    )  # fmt: skip


def _gaussians(recipe: PointRecipe, data: TensorData, judging: TensorData | None) -> int:
    """Number of Gaussians for few rows: by the loss of held-out ones, where there are any and no label splits them."""
    return 1 if judging is None or recipe.conditional else chosen(data, judging)


def _any_columns(recipe: PointRecipe, points: Points) -> None:
    """Refuse to learn columns given others where there are none, or with a loss or noise that doesn't allow it."""
    if points.x.shape[1] < 2:
        raise InputError(f"any_columns needs two columns or more; {recipe.data_named} has one.")
    if recipe.gaussians > 0:
        raise InputError(
            f"any_columns needs gaussians 0 or -1, as Gaussians aren't told columns; got {recipe.gaussians}."
        )
    if recipe.loss != "denoise" or not recipe.independent:
        raise InputError(
            "any_columns needs loss 'denoise', coupling 'independent' and noise as source; got loss "
            f"{recipe.loss!r}, coupling {recipe.coupling!r} and source {recipe.source!r}."
        )


def codec_for(recipe: PointRecipe, points: Points) -> Codec:
    """The recipe's codec, fitted to the points to train on; by default one that suits their columns."""
    if not points.plain:
        if recipe.codec not in ("", "mixed"):
            raise InputError(
                f"{recipe.data_named} has texts or missing cells, which codec mixed is for; got {recipe.codec!r}."
            )
        columns = () if points.form is None else points.form.learned
        levels, ordered = [len(one.levels) for one in columns], [one.ordered for one in columns]
        return fit_table(points.x, levels, ordered, points.missing)
    if recipe.codec:
        return fit_codec(recipe.codec, lambda: [points.x])
    if point_set(recipe) is None and recipe.standardise and recipe.source == "noise":
        return Ranks.fit(points.x)
    codec = Standardise.fit(points.x)
    return codec if recipe.standardise else codec.of_constants()


def described(recipe: PointRecipe, points: Points) -> list[str]:
    """A line per column: its name and kind, its missing cells, and how the network sees it."""
    codec = codec_for(recipe, points)
    seen = codec.seen if isinstance(codec, Mixed) else (codec.about.partition(";")[0],) * points.x.shape[1]
    columns = (Column(),) * len(seen) if points.form is None else points.form.learned
    names = points.columns or tuple(map(str, range(1, len(seen) + 1)))
    kinds = [f"{len(one.levels)} levels" if one.levels else one.kind for one in columns]
    gaps = [f"{int(gap)} missing" if gap else "" for gap in points.x.isnan().sum(0)]
    cells = [names, kinds, gaps]
    widths = [max(map(len, column)) for column in cells]
    rows = zip(*[[text.ljust(width) for text in column] for column, width in zip(cells, widths)], seen)
    return ["  ".join(row).rstrip() for row in rows]


def _drawn(codec: Cells, cells: Tensor, draw: torch.Generator) -> Tensor:
    """A batch as the network sees it: each number anywhere in its cell."""
    return codec.drawn(cells, uniform(draw, *cells.shape[:-1]))


def read_rows(recipe: PointRecipe, n: int, seed: int) -> Points:
    """The points that a recipe names, all of a file's or n of a named set's."""
    return load(recipe.data, n, seed, recipe.label or None, reading(recipe))


def reading(recipe: PointRecipe) -> Reading:
    """The options by which a recipe's table is read."""
    return Reading.of(recipe.label, recipe.columns, recipe.drop, recipe.missing, recipe.categorical, recipe.ordered)


def parts(recipe: PointRecipe) -> tuple[Points, Points]:
    """The points to train on, and those held out: a file's own parts, or drawn; of an endless set or few rows none."""
    if recipe.in_memory:
        raise InputError(unnamed("data", recipe.data))
    return split(recipe, read_rows(recipe, recipe.points, recipe.seed))


def split(recipe: PointRecipe, points: Points) -> tuple[Points, Points]:
    """The same of points at hand. Those by whose loss training stops are held out where no others are."""
    learned, judging, held = _shares(recipe, points)
    return learned, held if judging is None or len(held.x) else judging


def judges(recipe: PointRecipe, rows: int) -> bool:
    """True if training on a number of rows is to stop by the loss of some of them."""
    stops = recipe.validation > 0 and not recipe.teacher and recipe.source == "noise"
    return stops and point_set(recipe) is None and rows >= FEWEST_ROWS and loss_row(recipe.loss).stops


def _shares(recipe: PointRecipe, points: Points) -> tuple[Points, Points | None, Points]:
    """The rows to learn, those by whose loss training stops, None if it doesn't, and those held out."""
    train, held = _parted(recipe, points, recipe.held_out, points.test)
    return (*_parted(recipe, train, recipe.validation), held) if judges(recipe, len(train.x)) else (train, None, held)


def _parted(recipe: PointRecipe, points: Points, share: float, test: int = 0) -> tuple[Points, Points]:
    """Points without a share of them, and these: the last `test` if there are any."""
    n = len(points.x)
    share = 0.0 if point_set(recipe) or n < FEWEST_ROWS else share
    held = held_out(n, share, points.labels, keep_classes=True)  # the seed is not asked, as for images
    if test:
        held = torch.arange(n) >= n - test
    return part(points, ~held), part(points, held)


def part(points: Points, rows: Tensor) -> Points:
    labels = None if points.labels is None else points.labels[rows]
    return replace(points, x=points.x[rows], labels=labels, test=0, gaps=points.missing)


def _source(recipe: PointRecipe, points: Points) -> Tensor:
    source = load(recipe.source, recipe.points, recipe.seed + 1)
    if not points.plain or not source.plain:
        raise InputError("source is for tables of numbers without missing cells.")
    x1 = source.x
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
    points = read_rows(recipe, n, seed)
    return part(points, torch.randperm(len(points.x), generator=generator("real", seed))[:n])


def at_hand(recipe: PointRecipe) -> None:
    if recipe.in_memory:
        raise InputError(unnamed("data", recipe.data))
    if not os.path.exists(sheet_of(Path(recipe.data))[0]):  # a name that no file can have is no error there
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
    rows = np.asarray(real)
    rows = np.where(np.isnan(rows).all(0), 0, rows)  # columns without any cell
    low, high = np.nanquantile(rows, [0.001, 0.999], axis=0)
    margin = np.where(high > low, 0.15 * (high - low), 0.5 * np.maximum(np.abs(low), 1))
    return np.stack([low - margin, high + margin], 1)
