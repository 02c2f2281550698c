"""Figures of every column of a table: each one's distribution, and each pair of them."""

from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..data.forms import Column
from ..errors import InputError
from ..specs import listed
from . import style
from .density import SHARE, draw_outline, outline
from .points import SHOWN, Panel, histogram
from .style import Array, Limits
from .ticks import form_ticks, has_turned

__all__ = ["histograms", "pairs"]


def histograms(
    panels: Sequence[Panel],
    limits: Limits,
    *,
    real: Float[Array, "n d"],
    names: Sequence[str] = (),
    form: Sequence[Column] = (),
    most: int = 6,
    title: str = "",
    note: str = "",
) -> Figure:
    """Each column's distribution: real data filled in grey, every panel's points as a line; at most `most` columns.

    form: the columns' forms, whose dates and names of levels are then written on the axes.
    """
    style.require_any(panels, "panels")
    real = style.checked_points(real, "real")
    d = real.shape[1]
    limits = style.as_limits(limits, d)
    shown = min(d, most)
    columns = min(shown, 3)
    rows = -(-shown // columns)
    width = {1: 5.6, 2: 3.1, 3: 2.1}[columns]
    texts = [("real data", style.REAL), *((panel.title, panel.colour) for panel in panels)]
    lines = [texts[i : i + 3] for i in range(0, len(texts), 3)]
    turned = 0.4 * has_turned(form[:shown])
    grid = style.axes_grid(
        rows,
        columns,
        panel=(width, min(1.5, width * 0.7)),
        gap=(0.12, 0.5 + turned),
        margin=(0.1, 0.1, 0.5 + 0.2 * (len(lines) - 1), 0.3 + turned),
        title=title,
        note=note,
        used=shown,
    )
    for k in range(shown):
        ax = grid.axes.flat[k]
        top = _distributions(ax, k, real, panels, limits, ["-", (0, (4, 1.5))], lw=1.3)
        ax.set(xlim=limits[k], ylim=(0, 1.08 * top))
        ax.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        form_ticks(ax.xaxis, form, k, width, across=True)
        ax.yaxis.set_major_locator(NullLocator())
        ax.spines[["top", "right", "left"]].set_visible(False)
        if d > 1:
            ax.set_title(_name(names, k), size=style.SMALL, color=style.INK, loc="left", pad=3)
    for i, line in enumerate(lines):
        style.text_row(grid.figure, line, (0.5 if title else 0.16) + 0.2 * i)
    return grid.figure


def pairs(
    panels: Sequence[Panel],
    limits: Limits,
    *,
    real: Float[Array, "n d"],
    names: Sequence[str] = (),
    form: Sequence[Column] = (),
    most: int = 4,
    title: str = "",
    note: str = "",
) -> Figure:
    """Every pair of the first columns: the first panel's points below the diagonal, the second's above it.

    The diagonal shows each column's distribution; the grey outline holds 95 % of the real points. Columns beyond
    `most` are named under the figure.

    form: the columns' forms, whose dates and names of levels are then written on the axes.
    """
    style.require_any(panels, "panels")
    real = style.checked_points(real, "real")
    limits = style.as_limits(limits, real.shape[1])
    k = min(real.shape[1], most)
    if k < 2:
        raise InputError("Pairs need data of at least two columns.")
    if left := [_name(names, i) for i in range(k, real.shape[1])]:
        note = f"{note} {k} of {real.shape[1]} columns are shown; not shown: {listed(left)}.".strip()
    side = 6.0 / k - 0.06
    foot = 0.8 if has_turned(form[:k]) else 0.42
    grid = style.axes_grid(
        k, k, panel=(side, side), gap=(0.06, 0.06), margin=(0.7, 0.08, 0.3, foot), title=title, note=note
    )
    lower, upper = panels[0], panels[min(1, len(panels) - 1)]
    for i, j in product(range(k), range(k)):
        ax = grid.axes[i, j]
        if i == j:
            top = max(_distributions(ax, i, real, (lower, upper), limits, ["-"], lw=1.2), 1e-12)
            frame = np.stack([limits[i], [0, 1.1 * top]])
        else:
            panel = lower if i > j else upper
            frame = limits[[j, i]]
            style.dots(ax, style.checked_points(panel.x)[:SHOWN, [j, i]], panel.colour)
            draw_outline(ax, outline(real[:, [j, i]], frame))
        style.scattered(ax, frame, labels=(i == k - 1, j == 0 and i > 0))
        for axis, place, seen, room in ((ax.xaxis, j, i == k - 1, side), (ax.yaxis, i, j == 0 and i > 0, 0.42)):
            if seen:
                form_ticks(axis, form, place, room, across=axis is ax.xaxis)
        if j == 0:
            ax.set_ylabel(_name(names, i), size=style.SMALL, color=style.INK)
            ax.yaxis.set_label_coords(-0.54 / side, 0.5)  # one line, however wide the ticks are
        if i == k - 1:
            ax.set_xlabel(_name(names, j), size=style.SMALL, color=style.INK, labelpad=2)
    two = [(f"▙ {lower.title}", lower.colour), (f"▜ {upper.title}", upper.colour)] if len(panels) > 1 else []
    share = f"○ {SHARE:.0%} of the real points".replace("%", " %")
    style.text_row(grid.figure, [*two, (share, style.REAL)], 0.5 if title else 0.16)
    return grid.figure


def _distributions(
    ax: Axes, k: int, real: Array, panels: Sequence[Panel], limits: Limits, dashes: Sequence[Any], lw: float
) -> float:
    """Column k of real data filled in grey, of every panel's points as a line, the dashes in turn; the top."""
    heights, edges = histogram(real[:, k], limits[k])
    ax.stairs(heights, edges, fill=True, color="#D4D4D4")
    top = float(heights.max())
    for panel, dash in zip(panels, cycle(dashes)):
        heights, _ = histogram(style.checked_points(panel.x)[:, k], limits[k])
        top = max(top, float(heights.max()))
        ax.stairs(heights, edges, color=panel.colour, lw=lw, ls=dash, baseline=None)
    return top


def _name(names: Sequence[str], k: int) -> str:
    return names[k] if k < len(names) else f"column {k + 1}"
