"""One look for every figure: Okabe–Ito colours that colour-blind readers can tell apart, direct labels, no chart junk.

Diffusion is vermilion, flow is blue, further methods have INKS, real data is grey, and time runs from yellow (t = 1,
noise) to violet (t = 0, data). Sizes are in inches and set by hand: matplotlib's automatic layouts draw everything
several times. Nothing here touches pyplot or rcParams, so figures can be made in any thread.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, NullLocator

from ..errors import InputError
from ..files import located, write_file
from .colours import DIFFUSION, FLOW, INKS, METHOD_COLOURS

__all__ = [
    "CLASSES", "DIFFUSION", "DPI", "EM", "FLOW", "INK", "INKS", "LABEL", "METHOD_COLOURS", "QUIET", "REAL", "RULE",
    "SMALL", "TIME", "TITLE", "Array", "Grid", "Limits", "Number", "Pair", "as_curves", "as_limits", "axes_grid",
    "checked_numbers", "checked_points", "class_style", "colour", "columns_of", "corner", "dots", "end_labels",
    "evenly", "finite_rows", "halo", "limits_around", "nearest_to", "outside", "plural", "require_any", "row_label",
    "save", "saving", "scattered", "spread", "text_row", "tick", "time_bar", "time_label", "union", "wrap",
]  # fmt: skip

Array = np.ndarray
Limits = Float[Array, "d 2"]
Number = float | int  # beartype, which checks the tests, takes no int for a float
Pair = tuple[Number, Number]

REAL = "#6F6F6F"
INK, QUIET, RULE = "#1F1F1F", "#5C5C5C", "#CFCFCF"
# The rest of Okabe & Ito's palette, with a marker each: no class is told by colour alone.
CLASSES = [("#009E73", "o"), ("#CC79A7", "s"), ("#E69F00", "^"), ("#56B4E9", "D"), ("#000000", "v")]
# Viridis without its palest yellow, which vanishes on white.
TIME: Colormap = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256)), name="time")
DPI = 144
EM = 0.6 / 72  # inches per character and point of DejaVu Sans, on the safe side
TITLE, LABEL, SMALL = 12.0, 10.0, 8.5


def colour(key: str) -> str:
    """The colour of a method's key."""
    if key not in METHOD_COLOURS:
        raise InputError(f"A method's key must be one of {', '.join(METHOD_COLOURS)}; got {key!r}.")
    return METHOD_COLOURS[key]


def columns_of(count: int) -> tuple[int, float]:
    """The number of panels in a row, of a method each, and their width. count: of methods."""
    columns = count if count <= 3 else 2 if count == 4 else 3
    return columns, 3.1 if columns <= 2 else 2.1


def class_style(index: int) -> tuple[str, str]:
    """Colour and marker of a class; beyond 25 classes they repeat. index: of the class."""
    return CLASSES[index % len(CLASSES)][0], CLASSES[(index + index // len(CLASSES)) % len(CLASSES)][1]


def time_label(t: Number) -> str:
    """t = 1 noise, …, t = 0.25, …, t = 0 data."""
    end = {1.0: " noise", 0.0: " data"}.get(round(float(t), 6), "")
    return f"t = {t:.2g}{end}" if t < 0.1 or end else f"t = {t:.2f}".removesuffix("0")


@dataclass(frozen=True, eq=False)
class Grid:
    """A figure and its panels, rows × columns; panels beyond the last used one are left out by `axes_grid`."""

    figure: Figure
    axes: Any  # an object array (rows, columns)


def axes_grid(
    rows: int,
    columns: int,
    *,
    panel: Pair,
    gap: Pair = (0.1, 0.1),
    margin: tuple[Number, Number, Number, Number] = (0.4, 0.1, 0.1, 0.3),
    title: str = "",
    note: str = "",
    used: int | None = None,
) -> Grid:
    """Panels of one size. Inches: panel (width, height), gap (across, down), margin (left, right, top, bottom).

    used: panels that aren't left empty; all without it.
    """
    left, right, top, bottom = margin
    width = left + columns * panel[0] + (columns - 1) * gap[0] + right
    lines = wrap(note, width - 0.2)
    head = 0.34 if title else 0.0
    foot = 0.16 * len(lines) + 0.1 if lines else 0.0
    height = head + top + rows * panel[1] + (rows - 1) * gap[1] + bottom + foot
    figure = Figure((width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        # DejaVu Sans is some 0.61 em wide in bold; shrink a long title rather than cut it off.
        size = min(TITLE, (width - 0.2) * 72 / (0.66 * max(len(title), 1)))
        figure.text(0.1 / width, 1 - 0.1 / height, title, size=size, weight="bold", color=INK, va="top")
    for index, line in enumerate(lines):
        y = (foot - 0.02 - 0.16 * index) / height
        figure.text(0.1 / width, y, line, size=SMALL, color=QUIET, va="top")
    axes = np.empty((rows, columns), dtype=object)
    for index in range(rows * columns if used is None else used):
        row, column = divmod(index, columns)
        x = left + column * (panel[0] + gap[0])
        y = height - head - top - (row + 1) * panel[1] - row * gap[1]
        axes[row, column] = _clean(figure.add_axes((x / width, y / height, panel[0] / width, panel[1] / height)))
    return Grid(figure, axes)


def wrap(text: str, width: float, size: float = SMALL) -> list[str]:
    """Lines of at most `width` inches. text: may have lines already."""
    return textwrap.wrap(text, max(20, int(width * 72 / (0.535 * size)))) if text else []


def _clean(ax: Axes) -> Axes:
    for spine in ax.spines.values():
        spine.set(color=RULE, linewidth=0.8)
    ax.tick_params(length=2.5, width=0.8, color=RULE, labelcolor=QUIET, labelsize=SMALL, pad=2)
    return ax


def scattered(ax: Axes, limits: Limits, *, labels: tuple[bool, bool] = (True, True)) -> None:
    """Frame a panel with the limits of its first two columns, and a few ticks where `labels` (x, y) wants them."""
    for axis, (low, high), shown in zip((ax.xaxis, ax.yaxis), limits[:2], labels, strict=True):
        axis.set_major_locator(MaxNLocator(4, prune="both") if shown else NullLocator())
        axis.set_major_formatter(tick)
        (ax.set_xlim if axis is ax.xaxis else ax.set_ylim)(float(low), float(high))


def tick(value: Number, _: Any = None) -> str:
    """A tick's number in full: what several ticks share isn't written apart, where it would lie on an axis's name.

    value: its place.
    """
    whole = 10_000 <= abs(value) < 1_000_000 and value == round(value)
    return (f"{value:,.0f}" if whole else f"{value:.4g}").replace("-", "−")


def as_curves(ax: Axes, x: str = "", y: str = "") -> None:
    """Open the frame of a panel of curves and name its axes: y at the top left, read without turning one's head."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(x, size=SMALL, color=QUIET, labelpad=2)
    if y:
        ax.set_title(y, size=SMALL, color=QUIET, loc="left", pad=4)


def limits_around(x: Float[Array, "n d"], tail: Number = 0.1, room: Number = 0.08) -> Limits:
    """A frame around points: all but `tail` percent at either end, and some room on either side."""
    x = checked_points(x)
    if len(rows := finite_rows(x)):
        low, high = np.percentile(rows, [tail, 100 - tail], axis=0)
    else:  # of a table whose every row has a gap
        columns = [column[np.isfinite(column)] for column in x.T]
        low, high = np.array([np.percentile(c, [tail, 100 - tail]) if len(c) else [0.0, 0.0] for c in columns]).T
    pad = np.where(high > low, room * (high - low), np.maximum(np.abs(low), 1) * 0.5)
    return np.stack([low - pad, high + pad], 1).astype(float)


def as_limits(limits: Any, d: int) -> Limits:
    """One (low, high) for all columns, or one row each, as (d, 2)."""
    frame = np.asarray(limits, dtype=float)
    frame = np.tile(frame, (d, 1)) if frame.shape == (2,) else frame
    if frame.shape != (d, 2) or not np.isfinite(frame).all() or not (frame[:, 0] < frame[:, 1]).all():
        raise InputError(f"limits must be low < high, one pair or one for each of {d} columns; got {limits!r}.")
    return frame


def union(first: Limits, x: Float[Array, "n d"], tail: Number = 0.5) -> Limits:
    """`first`, widened where needed to hold points x as well, except for their tails.

    tail: percent that may lie outside at either side.
    """
    other = limits_around(x, tail, room=0.04)
    return np.stack([np.minimum(first[:, 0], other[:, 0]), np.maximum(first[:, 1], other[:, 1])], 1)


def checked_points(x: Any, what: str = "points") -> Array:
    """x as (n, d) floats, or an error."""
    array = np.asarray(x, dtype=float)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{what} must be an array (n, d) with at least one point; got shape {np.shape(x)}.")
    if not np.isfinite(array).any():
        raise InputError(f"{what} has no finite number.")
    return array


def checked_numbers(what: str, x: Any, ndim: int | None = None) -> Array:
    """x as an array of finite numbers, of `ndim` axes if given; or an error."""
    array = np.asarray(x)
    if (
        array.size == 0
        or array.dtype.kind not in "buif"
        or (ndim is not None and array.ndim != ndim)
        or not np.isfinite(array).all()
    ):
        axes = f"{ndim} axes of " if ndim else ""
        raise InputError(f"{what} must be {axes}finite numbers, at least one; got shape {array.shape}.")
    return array


def require_any(items: Any, what: str) -> None:
    """Raise InputError where there is nothing to draw. items: what would be drawn."""
    if not len(items):
        raise InputError(f"There are no {what} to draw.")


def finite_rows(x: Float[Array, "n d"]) -> Float[Array, "k d"]:
    """The rows without NaN or infinity."""
    return x[np.isfinite(x).all(1)]


def outside(x: Float[Array, "n d"], limits: Limits) -> int:
    """The number of points outside a frame (in the first two columns), for a note in the figure."""
    k = min(x.shape[1], 2)
    inside = (x[:, :k] >= limits[:k, 0]) & (x[:, :k] <= limits[:k, 1])
    return int((~inside.all(1)).sum())


def dots(ax: Axes, x: Float[Array, "n 2"], colour: Any, marker: str = "o", count: int | None = None) -> None:
    """Points as dots that shrink and fade with their number (`count` where they are one class of many).

    marker: matplotlib's.
    """
    n = max(count or len(x), 1)
    size = float(np.clip(11 * n**-0.22, 1.1, 5))
    alpha = float(np.clip(3.0 * n**-0.29, 0.1, 0.85))
    # `plot` stamps one marker image everywhere; `scatter` draws each path, ten times slower.
    ax.plot(x[:, 0], x[:, 1], ls="none", marker=marker, ms=size, mew=0, color=colour, alpha=alpha)


def corner(ax: Axes, text: str, where: str = "lower left", colour: str = QUIET, size: float = SMALL) -> None:
    """A short text in a corner of a panel."""
    right, top = "right" in where, "upper" in where
    ax.text(
        0.97 if right else 0.03,
        0.97 if top else 0.03,
        text,
        transform=ax.transAxes,
        size=size,
        color=colour,
        ha="right" if right else "left",
        va="top" if top else "bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        zorder=9,
    )


def halo(text: Text) -> Text:
    """A white rim, so that text over curves or dots stays readable."""
    text.set(color=INK, path_effects=[withStroke(linewidth=2.5, foreground="white")])
    return text


def spread(positions: Sequence[float], distance: float) -> Float[Array, " n"]:
    """The positions moved apart to at least `distance`, as little as a greedy pass can."""
    order = np.argsort(positions)
    placed = np.asarray(positions, dtype=float)[order]
    for _ in range(1000):
        overlap = distance - np.diff(placed)
        if not (overlap > 1e-3 * distance).any():
            break
        shift = np.clip(overlap, 0, None) / 2
        placed[:-1] -= shift
        placed[1:] += shift
    result = np.empty(len(placed))
    result[order] = placed
    return result


def end_labels(ax: Axes, ends: Sequence[tuple[float, float, str, str]], size: float = SMALL) -> None:
    """(x, y, text, colour) beside the ends of curves, moved apart where they would overlap, with a thin leader."""
    if not ends:
        return
    height = ax.get_position().height * ax.figure.get_size_inches()[1] * 72  # type: ignore[union-attr]
    # Data → points on the page, which log axes don't make a matter of arithmetic on y.
    y_of = [float(ax.transAxes.inverted().transform(ax.transData.transform((x, y)))[1]) for x, y, _, _ in ends]
    places = spread(y_of, size * 1.25 / height)
    places += max(0.0, -0.1 - places.min())  # many that end low would leave the page
    for (x, y, text, tint), place in zip(ends, places, strict=True):
        ax.annotate(
            text,
            (x, y),
            xytext=(1.06, place),
            textcoords="axes fraction",
            size=size,
            color=tint,
            va="center",
            annotation_clip=False,
            # To the text's left end: a line to its middle would cross its neighbours.
            arrowprops={
                "arrowstyle": "-",
                "color": tint,
                "lw": 0.6,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def time_bar(figure: Figure, x: float, y: float, width: float) -> Axes:
    """A strip of the time colours, t = 1 noise at its left; x, y, width in inches from the lower left.

    figure: to draw on.
    """
    w, h = figure.get_size_inches()
    ax = figure.add_axes((x / w, y / h, width / w, 0.09 / h))
    ax.imshow(np.linspace(1, 0, 128)[None], cmap=TIME, aspect="auto", vmin=0, vmax=1)
    ax.set_axis_off()
    for place, text, side in ((-0.03, time_label(1), "right"), (1.03, time_label(0), "left")):
        ax.text(place, 0.5, text, transform=ax.transAxes, size=SMALL, color=QUIET, ha=side, va="center")
    return ax


def nearest_to(times: Float[Array, " k"], wanted: Sequence[float]) -> list[int]:
    """Indices of the times closest to the wanted ones, each once, in the order of time."""
    found = sorted({int(np.abs(times - t).argmin()) for t in wanted}, key=lambda i: -times[i])
    if not found:
        raise InputError("No times to draw.")
    return found


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly far apart, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


_SAVED: ContextVar[tuple[str, Number | None]] = ContextVar("saved", default=("", None))


@contextmanager
def saving(ending: str = "", dpi: Number | None = None) -> Iterator[None]:
    """Have `save` write every .png with another ending, such as .svg, or with this many pixels an inch."""
    token = _SAVED.set(("" if ending == ".png" else ending, dpi))
    try:
        yield
    finally:
        _SAVED.reset(token)


def saved_otherwise() -> bool:
    """True where `saving` asks for another form than usual."""
    return _SAVED.get() != ("", None)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, or in the format of the file's ending; whole or not at all; returns its file."""
    path, drawn = located("path", path), io.BytesIO()
    ending, dpi = _SAVED.get()
    path = path.with_suffix(ending) if ending and path.suffix.lower() == ".png" else path
    kind, known = path.suffix.lower().removeprefix(".") or "png", figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"A figure's name must end in one of {', '.join(sorted(known))}; got {path.name!r}.")
    figure.savefig(drawn, format=kind, dpi=dpi or "figure")
    write_file(path, drawn.getvalue())
    return path


def row_label(ax: Axes, name: str, tint: str) -> None:
    """A row's name beside its first panel, turned, and small enough for the panel's height. tint: its colour."""
    height = ax.get_position().height * ax.figure.get_size_inches()[1] * 72  # type: ignore[union-attr]
    size = min(LABEL, height / (0.68 * max(len(name), 1)))
    ax.text(-0.06, 0.5, name, transform=ax.transAxes, size=size, weight="bold").set(
        color=tint, rotation=90, ha="right", va="center"
    )


def text_row(figure: Figure, texts: Sequence[tuple[str, str]], top: float, *, gap: float = 0.3) -> list[float]:
    """Coloured texts in a row, `top` inches under the upper edge, in place of a legend; their left ends in inches.

    gap: inches between two texts.
    figure: to write on.
    """
    width, height = figure.get_size_inches()
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    x, starts = 0.12, []
    for text, tint in texts:
        starts.append(x)
        drawn = figure.text(x / width, 1 - top / height, text, size=LABEL, color=tint, weight="bold", va="center")
        x += drawn.get_window_extent(canvas.get_renderer()).width / figure.dpi + gap
    return starts


def plural(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
