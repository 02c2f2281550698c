"""Small multiples of a table: each column of real and generated rows, their correlations, and pairs of columns."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..errors import InputError
from ..metrics.tables import Rows
from ..specs import listed
from . import style
from .points import SHOWN
from .style import Array
from .ticks import MOST_LEVELS, TINY, days, level_names, shortened

__all__ = ["correlation_maps", "marginals", "pairs"]

ACROSS, MOST = 4, 32  # panels
MOST_PAIRS, MOST_NUMBERS = 5, 40  # columns of pairs, and numbers of maps
MOST_VALUES = 25  # bars of numbers that are whole
BINS = 24
FILL = "#D4D4D4"


def marginals(
    real: Rows,
    samples: Rows,
    *,
    colour: str,
    order: Sequence[int] = (),
    notes: Mapping[int, str] = {},
    large: bool = False,
    title: str = "",
) -> Figure:
    """Each column's distribution: real rows in grey, samples as lines; of levels, bars and marks.

    order: the columns to draw, by default all in their own. notes: by column, written beside its name.
    large: fewer and larger panels.
    """
    _same(real, samples)
    every = [*order] or [*range(len(real.names))]
    shown = every[:MOST]
    left = [real.names[k] for k in every[MOST:]]
    across = min(3 if large else ACROSS, len(shown))
    size = (2.5, 1.5) if large else (1.78, 1.0)
    grid = style.axes_grid(
        -(-len(shown) // across), across, panel=size, gap=(0.2, 0.5), margin=(0.12, 0.12, 0.56, 0.3),
        title=title, note=f"Not shown: {listed(left)}." if left else "", used=len(shown),
    )  # fmt: skip
    for ax, k in zip(grid.axes.flat, shown):
        (_levels if real.levels[k] else _numbers)(ax, real, samples, k, colour, size[0])
        ax.yaxis.set_major_locator(NullLocator())
        ax.spines[["top", "right", "left"]].set_visible(False)
        note = notes.get(k, "")
        room = size[0] - style.EM * style.SMALL * len(note) - 0.05
        name = style.halo(ax.text(0, 1.05, shortened(real.names[k], room), transform=ax.transAxes, size=style.SMALL))
        name.set(weight="bold", va="bottom")
        ax.text(1, 1.05, note, transform=ax.transAxes, size=style.SMALL, color=style.QUIET, ha="right", va="bottom")
    style.text_row(grid.figure, [("real rows", style.REAL), ("samples", colour)], 0.5 if title else 0.16)
    return grid.figure


def _numbers(ax: Axes, real: Rows, samples: Rows, k: int, colour: str, width: float) -> None:
    """Histograms over the middle 99 % of both; whole numbers of a small range have a bar each."""
    x, y = (rows.x[~np.isnan(rows.x[:, k]), k] for rows in (real, samples))
    both = np.concatenate([x, y])
    if not len(both):
        style.corner(ax, "no cell", "upper left")
        ax.xaxis.set_major_locator(NullLocator())
        return
    low, high = np.quantile(x if len(x) else y, [0.005, 0.995])
    if len(both) and np.equal(both, np.round(both)).all() and high - low < MOST_VALUES:
        edges = np.arange(round(low), round(high) + 2) - 0.5
    else:
        pad = 0.04 * (high - low) or 0.5 * max(abs(low), 1.0)
        edges = np.linspace(low - pad, high + pad, 1 + int(np.clip(math.sqrt(len(x)) * 1.2, 8, BINS)))
    heights = [np.histogram(own, edges)[0] / max(len(own), 1) for own in (x, y)]
    ax.stairs(heights[0], edges, fill=True, color=FILL)
    ax.stairs(heights[1], edges, color=colour, lw=1.3, baseline=None)
    gaps = [float(np.isnan(rows.x[:, k]).mean()) for rows in (real, samples)]
    room = 1.4 if any(gaps) else 1.12
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, room * max(1e-12, *(float(own.max()) for own in heights))))
    if real.names[k] in real.dates:
        days(ax.xaxis)
    else:
        whole = bool(edges[0] % 1 == 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(3 if width < 2 else 4, prune="both", integer=whole))
        ax.xaxis.set_major_formatter(style.tick)
    if any(gaps):
        style.corner(ax, f"missing {_percent(gaps[0])}, samples {_percent(gaps[1])}", "upper right", size=TINY)


def _levels(ax: Axes, real: Rows, samples: Rows, k: int, colour: str, width: float) -> None:
    """A bar for each of the commonest levels, marked where that of samples ends; what is left together."""
    shares = [np.append(rows.level(k).mean(0), np.isnan(rows.x[:, k]).mean()) for rows in (real, samples)]
    names = [*real.levels[k], "(missing)"]
    order = [int(i) for i in np.argsort(-shares[0], kind="stable") if shares[0][i] or shares[1][i]]
    kept = order if len(order) <= MOST_LEVELS else order[: MOST_LEVELS - 1]
    bars = [(names[i], shares[0][i], shares[1][i]) for i in kept]
    if rest := order[len(kept) :]:
        bars.append((f"{len(rest)} others", shares[0][rest].sum(), shares[1][rest].sum()))
    top = 1.1 * max(0.02, *(max(bar[1:]) for bar in bars))
    size = float(np.clip(5.2 * ax.get_position().height * ax.figure.get_size_inches()[1] * 10 / len(bars), 5, 7.5))  # type: ignore[union-attr]
    for place, (name, own, other) in enumerate(bars):
        ax.barh(-place, own, height=0.82, color=FILL)
        ax.plot([other, other], [-place - 0.44, -place + 0.44], color=colour, lw=2, solid_capstyle="butt")
        text = ax.text(0.012 * top, -place, shortened(name, 0.95 * width, size), size=size, va="center", zorder=5)
        style.halo(text)
    ax.set(xlim=(0, top), ylim=(-len(bars) + 0.4, 0.6))
    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both", min_n_ticks=2))
    ax.xaxis.set_major_formatter(lambda value, _: _percent(value))


def correlation_maps(
    names: Sequence[str],
    real: Float[Array, "k k"],
    samples: Float[Array, "k k"],
    *,
    title: str = "",
) -> Figure:
    """Correlations of real rows below the diagonal and of samples above it, and beside them how far they are apart."""
    k = len(names)
    if k < 2 or real.shape != (k, k) or samples.shape != (k, k):
        raise InputError(f"Correlations of {k} numbers must be two {k} × {k} matrices, k at least 2.")
    note = ""
    if k > MOST_NUMBERS:  # those that depend most on another
        off = [np.abs(np.where(np.eye(k, dtype=bool), 0, one)).max(0) for one in (real, samples)]
        kept = np.sort(np.argsort(-np.maximum(*off), kind="stable")[:MOST_NUMBERS])
        note = f"The {MOST_NUMBERS} of {k} numbers that depend most on another."
        names, k = [names[i] for i in kept], MOST_NUMBERS
        real, samples = real[np.ix_(kept, kept)], samples[np.ix_(kept, kept)]
    size = float(np.clip(0.24 * k, 1.9, 4.6))
    letters = float(np.clip(size * 72 / k * 0.72, 3.5, style.SMALL))
    longest = min(max(map(len, names)), 22)
    side = max(0.35, longest * letters * style.EM + 0.1)
    grid = style.axes_grid(
        1, 2, panel=(size, size), gap=(0.7, 0.1), margin=(side, 0.75, 0.3, side), title=title, note=note
    )
    below = np.tril_indices(k, -1)
    both = np.asarray(samples, float).copy()
    both[below] = np.asarray(real, float)[below]
    for ax, values, most, tint, heading in (
        (grid.axes[0, 0], both, 1.0, "PuOr", "▙ real rows   ▜ samples"),
        (grid.axes[0, 1], samples - real, max(0.2, float(np.abs(samples - real).max())), "RdBu_r", "samples − real"),
    ):
        np.fill_diagonal(values, 0)
        image = ax.imshow(values, cmap=tint, vmin=-most, vmax=most, interpolation="nearest")
        ax.set_title(heading, size=style.SMALL, color=style.INK, loc="left", pad=4)
        ticks = range(k)
        texts = [shortened(name, side - 0.1, letters) for name in names]
        ax.set_xticks(ticks, texts, rotation=90, size=letters)
        ax.set_yticks(ticks, texts if ax is grid.axes[0, 0] else [""] * k, size=letters)
        ax.tick_params(length=0)
        box = ax.get_position()
        bar = grid.figure.add_axes((box.x1 + 0.008, box.y0, 0.012, box.height))
        grid.figure.colorbar(image, cax=bar).ax.tick_params(labelsize=6.5, length=2, color=style.RULE)
        bar.yaxis.set_major_locator(MaxNLocator(5))
        for spine in bar.spines.values():
            spine.set_visible(False)
    return grid.figure


def pairs(real: Rows, samples: Rows, columns: Sequence[int], *, colour: str, title: str = "") -> Figure:
    """Scatter plots of some columns: samples below the diagonal, real rows above; levels are spread about a place."""
    _same(real, samples)
    if not 2 <= len(columns) <= MOST_PAIRS:
        raise InputError(f"Pairs need 2 to {MOST_PAIRS} columns; got {len(columns)}.")
    few = min(len(real), len(samples), SHOWN)
    shown = [_spread(rows.take(slice(few)), columns) for rows in (real, samples)]
    k = len(columns)
    side = 6.0 / k - 0.06
    grid = style.axes_grid(k, k, panel=(side, side), gap=(0.06, 0.06), margin=(0.85, 0.1, 0.3, 0.7), title=title)
    frames = [_frame(real, place, shown[0][:, i]) for i, place in enumerate(columns)]
    for i, j in product(range(k), range(k)):
        ax = grid.axes[i, j]
        ax.set(xlim=frames[j], ylim=frames[i])
        if i == j:
            name = real.names[columns[i]]
            size = float(np.clip(0.9 * side / (1.12 * style.EM * len(name)), 6.0, style.LABEL))
            name = shortened(name, 0.9 * side, 1.12 * size)  # bold is wider
            ax.text(0.5, 0.5, name, transform=ax.transAxes, size=size, weight="bold", ha="center", va="center")
        else:
            style.dots(ax, shown[int(i > j)][:, [j, i]], colour if i > j else style.REAL)
        for axis, one, shown_here, room in (
            (ax.xaxis, columns[j], i == k - 1, side),
            (ax.yaxis, columns[i], j == 0, 0.78),
        ):
            if shown_here and real.names[one] in real.dates:
                days(axis)
            else:
                _places(axis, real.levels[one], shown_here, room, across=axis is ax.xaxis)
    style.text_row(grid.figure, [("▙ samples", colour), ("▜ real rows", style.REAL)], 0.5 if title else 0.16)
    return grid.figure


def _frame(rows: Rows, k: int, x: Array) -> tuple[float, float]:
    """The limits of a column's axis."""
    if rows.levels[k]:
        return -0.6, len(rows.levels[k]) - 0.4
    low, high = (float(v) for v in np.nanquantile(x, [0.003, 0.997])) if (~np.isnan(x)).any() else (0.0, 1.0)
    pad = 0.08 * (high - low) or 0.5 * max(abs(low), 1.0)
    return low - pad, high + pad


def _places(axis: Axis, levels: Sequence[str], shown: bool, room: float, across: bool = False) -> None:
    """Ticks of an axis, of one that runs across with turned names: numbers, or the names of few levels."""
    if not shown or len(levels) > MOST_LEVELS:
        axis.set_major_locator(NullLocator())
    elif levels:
        level_names(axis, levels, room, across)
    else:
        axis.set_major_locator(MaxNLocator(4, prune="both"))
        axis.set_major_formatter(style.tick)


def _spread(rows: Rows, columns: Sequence[int]) -> Array:
    """The columns' numbers; levels' places with noise, the same for rows of the same number."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (len(rows), len(columns)))
    return np.stack([rows.x[:, k] + (noise[:, i] if rows.levels[k] else 0) for i, k in enumerate(columns)], 1)


def _same(real: Rows, samples: Rows) -> None:
    if real.names != samples.names or real.levels != samples.levels or not len(real) or not len(samples):
        raise InputError("real and samples must be rows of the same columns, at least one each.")


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if 0 < share < 0.0095 else 0}f} %"
