"""Figures of chunks of actions: predicted beside what was recorded, and fans of those sampled for one observation.

Robot time runs forward, in seconds.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..specs import require
from . import style
from .style import Array, Number

__all__ = ["Chunks", "absolute_error", "fan", "principal", "trajectories"]

# From mode to mode, dark enough in the middle to be seen.
_MODES = LinearSegmentedColormap.from_list("modes", ["#009E73", "#7A7A7A", "#C2569A"])

Chunks = Sequence[tuple[int, Float[Array, "_steps _joints"]]]


def trajectories(
    truth: Float[Array, "n a"],
    chunks: Chunks,
    names: Sequence[str] = (),
    fps: Number = 10,
    *,
    unit: str | Sequence[str] = "",
    key: str = "flow",
    title: str = "",
    note: str = "",
) -> Figure:
    """Predicted chunks, dashed, over what was recorded, solid: a panel for each joint with its mean absolute error.

    chunks: (start, chunk (h, a)), where chunk[0] is for step `start`; steps beyond the recording are drawn, not judged.
    unit: of all joints, or one for each.
    truth: what was recorded. key: of the colour.
    """
    error = absolute_error(truth, chunks)
    a = truth.shape[1]
    names = _named(names, a)
    require("fps", fps, above=0)
    tint = style.colour(key)
    units = [f" {text}".rstrip() for text in ([unit] * a if isinstance(unit, str) else unit)]
    if len(units) != a:
        raise InputError(f"unit must be one for all, or one for each of {a} joints; got {len(units)}.")
    average = f", {_short(float(error.mean()))}{units[0]} apart on average" if len(set(units)) == 1 else ""
    columns = 1 if a <= 3 else 2 if a <= 16 else 3
    rows = ceil(a / columns)
    panel = (6.2, 1.35) if columns == 1 else (3.5, 0.72) if columns == 2 else (2.5, 0.72)
    grid = style.axes_grid(
        rows,
        columns,
        panel=panel,
        gap=(0.5, 0.34),
        margin=(0.5, 0.15, 0.46, 0.4),
        title=title or f"Predicted and recorded actions{average}",
        note=note,
    )
    last = max([len(truth), *(start + len(chunk) for start, chunk in chunks)]) - 1
    seconds = np.arange(last + 1) / fps
    # Down the columns: of two arms, the left one stands on the left.
    panels = list(grid.axes.T.flat)
    for joint, ax in enumerate(panels[:a]):
        ax.plot(seconds[: len(truth)], truth[:, joint], color=style.REAL, lw=1.8, alpha=0.75, solid_capstyle="round")
        for start, chunk in chunks:
            x = seconds[start : start + len(chunk)]
            ax.plot(x, chunk[:, joint], color=tint, lw=1.4, ls=(0, (3, 1.5)))
            first: dict[str, Any] = {"marker": "o", "ms": 3.2, "mec": "white", "mew": 0.5, "clip_on": False}
            ax.plot(x[:1], chunk[:1, joint], color=tint, ls="none", zorder=4, **first)
        ax.set_xlim(0, max(seconds[-1], 1 / fps))
        ax.margins(y=0.12)
        if len(set(units)) == 1:
            _widen(ax, float(np.ptp(truth, axis=0).max()))
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(3 if columns > 1 else 4))
        bottom = joint % rows == rows - 1 or joint == a - 1
        ax.tick_params(labelbottom=bottom)
        style.as_curves(ax, "seconds" if bottom else "")
        ax.set_title(names[joint], size=style.SMALL, color=style.INK, loc="left", pad=4)
        ax.set_title(
            f"error {_short(float(error[joint]))}{units[joint]}", size=style.SMALL, color=tint, loc="right", pad=4
        )
    for ax in panels[a:]:
        ax.remove()
    _legend(
        grid.figure,
        [
            Line2D([], [], color=style.REAL, lw=1.8, alpha=0.75, label="recorded"),
            Line2D([], [], color=tint, lw=1.4, ls=(0, (3, 1.5)), label="predicted"),
            Line2D([], [], color=tint, ls="none", marker="o", ms=3.2, label="a chunk's first step"),
        ],
    )
    return grid.figure


def absolute_error(truth: Float[Array, "n a"], chunks: Chunks) -> Float[Array, " a"]:
    """mean |chunk − truth| of each joint over all chunks' steps inside the recording, in the actions' own units."""
    n, a = style.checked_numbers("truth", truth, 2).shape
    if not chunks:
        raise InputError("chunks must hold at least one (start, chunk); got none.")
    gaps = []
    for start, chunk in chunks:
        if style.checked_numbers("A chunk", chunk, 2).shape[1] != a:
            raise InputError(f"A chunk must have the recording's {a} joints; got shape {chunk.shape}.")
        if not 0 <= start < n:
            raise InputError(f"A chunk must start at a step of the recording, 0 … {n - 1}; got {start}.")
        inside = chunk[: n - start]
        gaps.append(np.abs(inside - truth[start : start + len(inside)]))
    return np.concatenate(gaps).mean(0)


def fan(
    chunks: Float[Array, "n h a"],
    names: Sequence[str] = (),
    fps: Number = 10,
    *,
    recorded: Float[Array, "_steps _joints"] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Chunks sampled for one observation: each joint's value over the horizon.

    A sample has one colour in all panels, by its place on the samples' first principal axis: two modes, two colours.

    chunks: n samples of h actions. recorded: what was done then.
    """
    n, h, a = style.checked_numbers("chunks", chunks, 3).shape
    if recorded is not None and style.checked_numbers("recorded", recorded, 2).shape != (h, a):
        raise InputError(f"recorded must have the chunks' shape ({h}, {a}); got {recorded.shape}.")
    names = _named(names, a)
    require("fps", fps, above=0)
    seconds = np.arange(h) / fps
    columns = min(a, 2 if a <= 2 else 3 if a <= 6 else 4)
    rows = ceil(a / columns)
    grid = style.axes_grid(
        rows,
        columns,
        panel=(7.3 / columns - 0.6, 1.9 if columns <= 2 else 1.15),
        gap=(0.6, 0.34),
        margin=(0.58, 0.15, 0.46 if recorded is not None else 0.22, 0.4),
        title=title or f"{style.plural(n, 'chunk')} sampled for one observation",
        note=note
        or ("A sample has the same colour in every panel, by where it lies on their main axis." if n > 1 else ""),
        used=a,
    )
    place = principal(chunks)
    tints = _MODES(place)
    alpha = float(np.clip(4 * n**-0.5, 0.18, 0.9))
    for joint, ax in enumerate(panel for panel in grid.axes.flat if panel is not None):
        lines = np.stack([np.broadcast_to(seconds, (n, h)), chunks[:, :, joint]], 2)
        ax.add_collection(LineCollection(list(lines), colors=tints, alpha=alpha, linewidths=1.0))
        if recorded is not None:
            ax.plot(seconds, recorded[:, joint], color=style.INK, lw=1.4, ls=(0, (1, 1)))
        ax.autoscale_view()
        ax.set_xlim(0, max(seconds[-1], 1e-9))
        ax.margins(y=0.08)
        _widen(ax, float(np.ptp(chunks, axis=(0, 1)).max()))
        ax.xaxis.set_major_locator(MaxNLocator(6 if columns <= 2 else 3, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(5 if columns <= 2 else 3))
        bottom = joint + columns >= a
        ax.tick_params(labelbottom=bottom)
        style.as_curves(ax, "seconds ahead" if bottom else "")
        ax.set_title(names[joint], size=style.SMALL, color=style.INK, loc="left", pad=4)
    if recorded is not None:
        _legend(grid.figure, [Line2D([], [], color=style.INK, lw=1.4, ls=(0, (1, 1)), label="recorded")])
    return grid.figure


def principal(chunks: Float[Array, "n h a"]) -> Float[Array, " n"]:
    """Each sample's place on the first principal axis of all, in [0, 1]; every joint counts by its own spread.

    chunks: n samples of h actions.
    """
    n = len(chunks)
    x = chunks.reshape(n, -1) - chunks.reshape(n, -1).mean(0)
    spread = chunks.std((0, 1)) if n > 1 else np.zeros(chunks.shape[2])
    x = x / np.tile(np.where(spread > 0, spread, 1.0), chunks.shape[1])
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    place = x @ axes[0]
    place = place * np.sign(axes[0][np.abs(axes[0]).argmax()] or 1.0)  # the sign of an axis is arbitrary
    reach = np.ptp(place)
    return (place - place.min()) / reach if reach > 1e-9 else np.full(n, 0.5)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A row of line samples under the title."""
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(0.02, 1 - 0.32 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=style.SMALL,
        labelcolor=style.QUIET,
        borderaxespad=0,
        handlelength=2.4,
    )


def _widen(ax: Axes, most: float) -> None:
    """At least a tenth of what the liveliest joint does, so that a joint at rest looks at rest."""
    low, high = ax.get_ylim()
    missing = max(0.1 * most - (high - low), 0.0) / 2
    ax.set_ylim(low - missing, high + missing)


def _short(value: Number) -> str:
    """Three figures: 0.0280, 5.34, 120."""
    return f"{value:#.3g}".rstrip(".")


def _named(names: Sequence[str], a: int) -> list[str]:
    if names and len(names) != a:
        raise InputError(f"names must be one for each of {a} joints; got {len(names)}.")
    return list(names) or [f"joint {i + 1}" for i in range(a)]
