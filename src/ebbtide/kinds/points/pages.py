"""The figures of one run: `ebbtide sample` and `ebbtide plot`."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...files import storage
from ...metrics.tables import Rows, Units, column_distances
from ...metrics.tables.margins import correlation, moves
from ...plots import animation, columns, curves, fields, points, style, tables
from ...plots.report import Picture, still, write_table_page
from ...plots.study import Method, key_of
from ...recipes import PointRecipe
from ...specs import listed
from ...training.trained import Trained
from .data import limits, point_set, real_points
from .judged import Judgement, rows_of_table
from .study import study

__all__ = ["draw_run", "draw_samples", "draw_table"]

SHOWN, WORST, FEW = 20_000, 3, 8  # samples drawn; columns named the worst, of more than a few


def draw_samples(trained: Trained, x: Tensor, labels: Tensor | None, path: Path) -> Path:
    """Samples beside as many real points, where the data is at hand."""
    recipe = cast(PointRecipe, trained.recipe)
    panels = [points.Panel("samples", x.numpy(), style.colour(key_of(recipe)), "", _array(labels))]
    try:
        real = real_points(cast(PointRecipe, trained.reading()), len(x), recipe.seed)
        if real.x.shape[1:] == x.shape[1:]:
            real_labels = None if labels is None else _array(real.labels)
            panels.insert(0, points.Panel("real", real.x.numpy(), style.REAL, "", real_labels))
    except InputError as error:
        warnings.warn(f"{error} The samples are drawn without it.", stacklevel=2)
    reference = panels[0].x
    frame = limits(recipe, reference)
    return style.save(_beside(trained, panels, frame, reference), path)


def _beside(trained: Trained, panels: list[points.Panel], frame: np.ndarray, real: np.ndarray | None) -> style.Figure:
    """Panels side by side, or the pairs of more than two columns."""
    if len(frame) <= 2:
        return points.scatter_panels(panels, frame, real=real, classes=trained.classes)
    return columns.pairs(panels, frame, real=panels[0].x if real is None else real, names=trained.columns)


def draw_run(trained: Trained, folder: Path, out: Path) -> Iterator[Path]:
    """Draw all that a run folder can show, yielding each figure as it is written."""
    recipe = cast(PointRecipe, trained.recipe)
    method = study("run", recipe.path.partition(":")[0], style.colour(key_of(recipe)), trained, folder)
    try:
        real = real_points(cast(PointRecipe, trained.reading()), 10_000, recipe.seed).x.numpy()
    except InputError as error:
        warnings.warn(f"{error} The figures are drawn without it.", stacklevel=2)
        real = None
    frame = limits(recipe, method.walk[-1] if real is None else real)
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
    note = ""
    if (d := len(frame)) > 2:
        note = f"The first 2 of {d} columns" + (f": {listed(trained.columns[:2])}." if trained.columns else ".")
    figures = {
        "samples": lambda: _final(trained, method, real, frame),
        "trajectories": lambda: points.trajectories([method], frame, real=real, note=note),
        "intermediate": lambda: points.intermediate([method], frame, real=real, note=note),
    }
    if len(method.losses):
        figures["losses"] = lambda: curves.losses([method])
    if method.fields:
        figures["vector_field"] = lambda: fields.vector_field([method], frame)
    for name, draw in figures.items():
        yield style.save(draw(), out / f"{name}.png")
    if d > 2 and real is not None and point_set(recipe) is None:
        rows, drawn = (rows_of_table(trained, torch.from_numpy(x)) for x in (real, method.walk[-1]))
        for picture in _table_pictures(rows, drawn, rows, method.colour, "real rows"):
            picture.draw(out / picture.file)
            yield out / picture.file
    yield animation.sampling_gif(out / "sampling.gif", [method], frame, real=real)
    if method.evolution:
        yield animation.training_gif(out / "training.gif", [method], frame, real=real)


def draw_table(trained: Trained, judgement: Judgement, folder: Path) -> Iterator[Path]:
    """The figures of a table's evaluation and evaluation.html, which holds them and the report."""
    recipe = cast(PointRecipe, trained.recipe)
    what = "held-out rows" if len(judgement.held) >= 2 else "training rows"
    figures = _table_pictures(judgement.real, judgement.samples, judgement.train, style.colour(key_of(recipe)), what)
    lead, *parts = judgement.parts
    title = f"Samples beside {what} of {Path(recipe.shared().data).name}"
    yield from write_table_page(
        folder / "evaluation.html", title, lead.words, [replace(lead, words=()), *parts], figures
    )


def _table_pictures(real: Rows, samples: Rows, train: Rows, colour: str, what: str) -> Iterator[Picture]:
    """Worst columns, all columns, correlations and pairs."""
    few = samples.take(slice(SHOWN))
    apart = column_distances(real, few)
    order = [int(k) for k in np.argsort(-apart, kind="stable")]
    notes = {k: f"{'TV' if real.levels[k] else 'KS'} {apart[k]:.2f}" for k in order}
    draw = partial(tables.marginals, real, few, colour=colour, notes=notes)
    if len(order) > FEW:
        yield Picture(
            "worst.png",
            "The columns that are farthest off",
            f"Grey: {what}; lines and marks: samples. KS and TV are 0 for equal distributions and at most 1.",
            still(lambda: draw(order=order[:WORST], large=True)),
        )
    yield Picture(
        "columns.png",
        "Every column",
        f"Grey: {what}; lines and marks: samples. The columns that are farthest off come first.",
        still(lambda: draw(order=order)),
    )
    units = Units(train)
    moving, names = moves(units, real)
    if len(names) > 1:
        matrices = [correlation(units.numbers(rows)[0][:, moving]) for rows in (real, few)]
        yield Picture(
            "correlations.png",
            "Correlations of every pair",
            "A pattern that is the same on both sides of the diagonal is right; on the right, white is.",
            still(lambda: tables.correlation_maps(names, *matrices)),
        )
    if len(order) > 1:
        yield Picture(
            "pairs.png",
            "Pairs of columns",
            "Each pair of columns has samples below the diagonal and, mirrored, real rows above it.",
            still(lambda: tables.pairs(real, few, _interesting(real, few), colour=colour)),
        )


def _interesting(real: Rows, samples: Rows) -> list[int]:
    """At most four columns to draw in pairs: those that depend most on another, in their own order."""
    ranks = [np.argsort(np.argsort(np.nan_to_num(real.x[:, k]), kind="stable")) for k in range(len(real.names))]
    depends = np.abs(correlation(np.stack(ranks, 1).astype(float)))
    np.fill_diagonal(depends, 0)
    few = [0 < len(levels) <= tables.MOST_LEVELS or not levels for levels in real.levels]
    best = np.argsort(-np.where(few, depends.max(0), -1), kind="stable")[:4]
    return sorted(int(k) for k in best)


def _final(trained: Trained, method: Method, real: np.ndarray | None, frame: np.ndarray) -> "style.Figure":
    panels = [points.Panel("samples", method.walk[-1], method.colour)]
    if real is not None:
        panels.insert(0, points.Panel("real", real[: len(method.walk[-1])], style.REAL))
    return _beside(trained, panels, frame, real)


def _array(labels: Tensor | None) -> np.ndarray | None:
    return None if labels is None else labels.numpy()
