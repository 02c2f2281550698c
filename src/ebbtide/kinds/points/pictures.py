"""The figures of a table: worst columns, all columns, correlations and pairs, and the page of its evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ...metrics.tables import Part, Rows, Units, column_distances
from ...metrics.tables.margins import correlation, moves
from ...plots import style, tables
from ...plots.report import Picture, still, write_table_page
from ...plots.study import key_of
from ...plots.ticks import MOST_LEVELS
from ...recipes import Recipe

__all__ = ["draw_table", "table_pictures"]

SHOWN, WORST, FEW = 20_000, 3, 8  # samples drawn; columns named the worst, of more than a few


def draw_table(
    recipe: Recipe, report: Sequence[Part], samples: Rows, train: Rows, held: Rows, folder: Path
) -> Iterator[Path]:
    """The figures of a table's evaluation and evaluation.html, which holds them and the report."""
    what, real = ("held-out rows", held) if len(held) >= 2 else ("training rows", train)
    figures = table_pictures(real, samples, train, style.colour(key_of(recipe)), what)
    lead, *parts = report
    title = f"Samples beside {what} of {Path(recipe.shared().data).name}"
    yield from write_table_page(
        folder / "evaluation.html", title, lead.words, [replace(lead, words=()), *parts], figures
    )


def table_pictures(real: Rows, samples: Rows, train: Rows, colour: str, what: str) -> Iterator[Picture]:
    """Worst columns, all columns, correlations and pairs."""
    few = samples.take(slice(SHOWN))
    apart = column_distances(real, few)
    order = [int(k) for k in np.argsort(-apart, kind="stable")]
    notes = {k: f"{'TV' if real.levels[k] else 'KS'} {apart[k]:.2f}" for k in order}
    draw = partial(tables.marginals, real, few, colour=colour, notes=notes)
    apart_by = (
        "KS and TV are 0 for equal distributions and at most 1; these are of all rows that are drawn, and those of the "
        "report of draws as large as the rows beside them, which lie farther apart by chance."
    )
    if len(order) > FEW:
        yield Picture(
            "worst.png",
            "The columns that are farthest off",
            f"Grey: {what}; lines and marks: samples. {apart_by}",
            still(lambda: draw(order=order[:WORST], large=True)),
        )
    yield Picture(
        "columns.png",
        "Every column",
        f"Grey: {what}; lines and marks: samples. The columns that are farthest off come first. {apart_by}",
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
    few = [0 < len(levels) <= MOST_LEVELS or not levels for levels in real.levels]
    best = np.argsort(-np.where(few, depends.max(0), -1), kind="stable")[:4]
    return sorted(int(k) for k in best)
