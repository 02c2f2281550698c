"""Figures that only benchmarks draw."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ebbtide.errors import InputError
from ebbtide.plots import style
from ebbtide.plots.scores import DASHES, LEGEND, tint_of


def score_against_evaluations(
    lines: Mapping[str, Sequence[tuple[int, float, float, float]]],
    *,
    metric: str = "score",
    references: Mapping[str, float] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """(evaluations, score, low, high) of each head or method, with intervals. More is better, unlike in `curves`.

    A label with "diffusion" or "flow" in it has that method's colour. references: named horizontal lines.
    """
    if not lines or not all(len(line) for line in lines.values()):
        raise InputError("There is no quality to draw: every line needs at least one (evaluations, score, low, high).")
    for label, line in lines.items():
        for count, value, low, high in line:
            if count < 1 or not low <= value <= high:
                raise InputError(
                    f"{label!r} must have evaluations ≥ 1 and low ≤ score ≤ high; got {(count, value, low, high)}."
                )
    references = dict(references or {})
    grid = style.axes_grid(
        1,
        1,
        panel=(5.2, 3.0),
        margin=(0.55, 0.25, 0.24, 0.48),
        title=title or f"{metric[:1].upper()}{metric[1:]} against network evaluations",
        note=note or "Bars: 95 % intervals. Points of different lines are set apart a little.",
    )
    ax = grid.axes[0, 0]
    ax.set_xscale("log")
    counts = sorted({row[0] for line in lines.values() for row in line})
    ax.set_xlim(counts[0] / 1.25, counts[-1] * 1.25)
    for name, level in references.items():
        ax.axhline(float(level), color=style.REAL, lw=0.9, ls=(0, (1, 1.5)), zorder=1)
        text = ax.annotate(name, (counts[0] / 1.2, float(level)), (0, 2), textcoords="offset points", va="bottom")
        text.set(size=style.SMALL, color=style.QUIET)
    for index, (label, line) in enumerate(lines.items()):
        tint = tint_of(label, index)
        dash, marker = DASHES[index % len(DASHES)]
        x, y, low, high = np.array(sorted(line), float).T
        x = x * 1.03 ** (index - (len(lines) - 1) / 2)  # side by side
        ax.vlines(x, low, high, color=tint, lw=1.1, alpha=0.6)
        ax.plot(x, y, ls=dash, marker=marker, ms=4.5, lw=1.5, color=tint, mec="white", mew=0.5, label=label)
    values = np.array(
        [value for line in lines.values() for row in line for value in row[1:]] + list(references.values())
    )
    room = 0.05 * max(float(np.ptp(values)), 1e-3)
    ax.set_ylim(values.min() - room, values.max() + (2 if references else 1) * room)
    # Every count that was tried has its tick, where they don't crowd.
    few = len(counts) <= 8 and all(b / a > 1.4 for a, b in pairwise(counts))
    ax.xaxis.set_major_locator(FixedLocator(counts) if few else LogLocator(base=10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(6))
    style.as_curves(ax, "network evaluations a chunk", f"{metric}: higher is better")
    ax.legend(loc="best", **LEGEND)
    return grid.figure
