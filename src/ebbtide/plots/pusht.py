"""Figures of Push-T: chunks sampled over the scene, drawn as its simulator does, 512 × 512, y downwards."""

from collections.abc import Sequence
from math import ceil, cos, pi, sin

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import NullLocator

from ..errors import InputError
from ..specs import require
from . import style
from .style import Array, Number

__all__ = ["AHEAD", "PUSHT_AGENT", "PUSHT_GOAL", "PUSHT_SIDE", "pusht_fan", "pusht_scene", "tee"]

# Plasma without its palest yellow: from violet, now, to orange, the chunk's last step.
AHEAD: Colormap = ListedColormap(mpl.colormaps["plasma"](np.linspace(0.05, 0.83, 256)), name="ahead")
PUSHT_SIDE, PUSHT_AGENT = 512, 15  # the scene's side, the agent's radius
PUSHT_GOAL = (256.0, 256.0, pi / 4)
# Push-T's block about its body's origin, the middle of its flat top: a bar 120 × 30 and a stem 30 × 90 below.
_TEE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
_BLOCK, _GOAL, _AGENT = "#8D99A6", "#A9DDB1", "#4C6FD1"


def pusht_fan(
    state: Float[Array, "*k 5"],
    chunks: Float[Array, "*k n h 2"],
    *,
    recorded: Float[Array, "*k h 2"] | None = None,
    names: Sequence[str] = (),
    fps: Number = 10,
    title: str = "",
    note: str = "",
) -> Figure:
    """Chunks sampled in one or k scenes of Push-T, coloured by the time along them; `recorded` is what was done.

    state: agent x, y, block x, y, angle. chunks: where the agent is sent, in the scene's own units.
    """
    require("fps", fps, above=0)
    state = np.atleast_2d(style.checked_numbers("state", state))
    chunks = style.checked_numbers("chunks", chunks)
    chunks = chunks[None] if chunks.ndim == 3 else chunks
    k, n, h, _ = chunks.shape
    done = None if recorded is None else style.checked_numbers("recorded", recorded).reshape(-1, *recorded.shape[-2:])
    if names and len(names) != k:
        raise InputError(f"names must be one for each of {k} scenes; got {len(names)}.")
    columns = min(k, 3)
    side = 4.2 if k == 1 else 3.1 if k == 2 else 2.5
    grid = style.axes_grid(
        ceil(k / columns),
        columns,
        panel=(side, side),
        gap=(0.14, 0.3 if names else 0.14),
        margin=(0.12, 0.12, 0.3 if names else 0.08, 0.42),
        title=title or f"{style.plural(n, 'chunk')} sampled for {'one observation' if k == 1 else 'each observation'}",
        note=note
        or "Lines: where the agent is sent. Green: the block's goal."
        + ("" if done is None else " White dots: what was recorded."),
        used=k,
    )
    for i, ax in enumerate(panel for panel in grid.axes.flat if panel is not None):
        pusht_scene(ax, state[i])
        _coloured(ax, chunks[i])
        if done is not None:
            ax.plot(
                *done[i].T, color=style.INK, lw=1.0, marker="o", ms=3, mfc="white", mec=style.INK, mew=0.7, zorder=6
            )
        if names:
            ax.set_title(names[i], size=style.SMALL, color=style.INK, loc="left", pad=4)
    # The bar stands right above the note.
    foot = grid.figure.get_size_inches()[1] * min(ax.get_position().y0 for ax in grid.axes.flat if ax is not None)
    _ahead_bar(grid.figure, foot - 0.3, (h - 1) / fps)
    return grid.figure


def pusht_scene(ax: Axes, state: Float[Array, "5"], goal: tuple[Number, Number, Number] = PUSHT_GOAL) -> None:
    """The agent, the block and its goal, as Push-T's own renderer places them.

    state: as Push-T gives it, in pixels and radians.
    """
    x, y = state[:2].tolist()
    ax.add_patch(Polygon(tee(goal), facecolor=_GOAL, edgecolor="none", zorder=1))
    ax.add_patch(Polygon(tee(state[2:]), facecolor=_BLOCK, edgecolor="white", lw=0.8, alpha=0.9, zorder=2))
    ax.add_patch(Circle((x, y), PUSHT_AGENT, facecolor=_AGENT, edgecolor="white", lw=0.8, zorder=3))
    ax.set(xlim=(0, PUSHT_SIDE), ylim=(PUSHT_SIDE, 0), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(NullLocator())


def tee(pose: Sequence[Number] | Float[Array, "3"]) -> Float[Array, "8 2"]:
    """The outline of Push-T's block at (x, y, angle): its corners turned by the angle and moved to (x, y).

    pose: this place and angle, in pixels and radians.
    """
    x, y, angle = pose
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    return _TEE @ turn.T + [x, y]


def _coloured(ax: Axes, chunks: Float[Array, "n h 2"]) -> None:
    """Chunks as lines whose segments are coloured by the step they lead to, and a dot at each last step."""
    n, h, _ = chunks.shape
    pieces = np.stack([chunks[:, :-1], chunks[:, 1:]], 2)  # (n, h - 1, ends, 2)
    tints = AHEAD(np.linspace(0, 1, max(h - 1, 2))[: h - 1])
    alpha = float(np.clip(5 * n**-0.5, 0.35, 0.95))
    # Step by step, so that no sample lies above another from end to end.
    lines = pieces.swapaxes(0, 1).reshape(-1, 2, 2)
    ax.add_collection(
        LineCollection(list(lines), colors=tints.repeat(n, 0), alpha=alpha, linewidths=1.3, zorder=4),
        autolim=False,
    )
    size = float(np.clip(9 * n**-0.3, 1.8, 4.5))
    ax.plot(*chunks[:, -1].T, ls="none", marker="o", ms=size, mec="white", mew=0.3, color=AHEAD(1.0), zorder=5)


def _ahead_bar(figure: Figure, y: float, seconds: float) -> None:
    """A strip of the colours along a chunk, y inches from the bottom."""
    w, h = figure.get_size_inches()
    ax = figure.add_axes((0.55 / w, y / h, 1.3 / w, 0.09 / h))
    ax.imshow(np.linspace(0, 1, 128)[None], cmap=AHEAD, aspect="auto", vmin=0, vmax=1)
    ax.set_axis_off()
    for place, text, side in ((-0.04, "now", "right"), (1.04, f"{seconds:.2g} s ahead", "left")):
        ax.text(place, 0.5, text, transform=ax.transAxes, size=style.SMALL, color=style.QUIET, ha=side, va="center")
