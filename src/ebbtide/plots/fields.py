"""The figure of velocity fields: where samples move next, a row for each method and a column for each time."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from ..errors import InputError
from . import style
from .points import histogram, panel_height
from .study import Method
from .style import Array, Limits

__all__ = ["speed_met", "vector_field"]


def vector_field(methods: Sequence[Method], limits: Limits, *, title: str = "", note: str = "") -> Figure:
    """Directions of motion: −dx/dt at a grid of points, over samples of x_t; rows are methods, columns are times.

    Each panel has its own scale, and states its speed: the longest arrow is the 90th percentile of the speeds met by
    samples, and faster ones are cut to it, for near t = 0 a diffusion's velocity grows without bound where no
    sample is, and at t = 0.9 it hardly moves. Arrows fade where there are no samples. One column: dx/dt against x.
    """
    style.require_any(methods, "methods")
    times = [[field[0] for field in method.fields] for method in methods]
    if not times[0] or any(len(t) != len(times[0]) or not np.allclose(t, times[0]) for t in times):
        raise InputError("Every method needs velocity fields at the same times.")
    d = style.checked_points(methods[0].fields[0][1]).shape[1]
    frame = style.as_limits(limits, d)
    frame = style.union(frame, np.concatenate([style.checked_points(method.fields[0][3]) for method in methods]))
    n = len(times[0])
    width = min(2.4, (6.5 - 0.06 * (n - 1)) / n)
    grid = style.axes_grid(
        len(methods),
        n,
        panel=(width, panel_height(width, frame)),
        gap=(0.06, 0.08),
        margin=(0.32, 0.06, 0.26, 0.1),
        title=title,
        note=note,
    )
    for k in range(n):
        columns = [[style.checked_points(part) for part in method.fields[k][1:]] for method in methods]
        draw = _velocity_curves if d == 1 else _arrows
        draw(grid.axes[:, k], columns, frame, [method.colour for method in methods])
        grid.axes[0, k].set_title(style.time_label(times[0][k]), size=style.LABEL - 0.5, color=style.INK, pad=4)
    for method, ax in zip(methods, grid.axes[:, 0], strict=True):
        style.row_label(ax, method.name, method.colour)
    return grid.figure


def _arrows(axes: Array, columns: Sequence[Sequence[Array]], frame: Limits, colours: Sequence[str]) -> None:
    """One column of quiver panels, in fractions of the frame so that unequal axes do no harm."""
    size = frame[:2, 1] - frame[:2, 0]
    steps = [-velocity[:, :2] / size for _, velocity, _ in columns]
    crowds = [_crowd(grid[:, :2], samples[:, :2], frame[:2]) for grid, _, samples in columns]
    for ax, (grid, velocity, samples), step, crowd, tint in zip(axes, columns, steps, crowds, colours, strict=True):
        style.dots(ax, samples[:2000, :2], "#A8A8A8")
        speed = np.linalg.norm(step, axis=1, keepdims=True)
        met = np.append(speed[crowd > 0.15], 1e-9)
        longest = max(float(np.percentile(met[np.isfinite(met)], 90)), 1e-9)
        arrow = step / np.maximum(speed, longest) * 1.05 / np.sqrt(len(grid)) * size
        ax.quiver(
            *grid[:, :2].T,
            *arrow.T,
            color=tint,
            alpha=0.18 + 0.82 * np.minimum(crowd * 2, 1),
            angles="xy",
            scale_units="xy",
            scale=1,
            units="width",
            width=0.009,
            headwidth=3.4,
            headlength=3.6,
            headaxislength=3.3,
            minlength=0.2,
            pivot="mid",
        )
        style.scattered(ax, frame[:2], labels=(False, False))
        style.corner(ax, f"speed {speed_met(velocity, crowd):.2g}", size=style.SMALL - 0.5)


def speed_met(velocity: Array, crowd: Array) -> float:
    """The mean |dx/dt| where samples are, in data units per unit of t.

    velocity: at places of a grid. crowd: the density of samples there, 0 to 1.
    """
    speed = np.linalg.norm(np.asarray(velocity[:, :2], float), axis=1)
    known = np.isfinite(speed)
    return float((speed[known] * crowd[known] ** 2).sum() / max((crowd[known] ** 2).sum(), 1e-12))


def _crowd(places: Array, samples: Array, frame: Limits) -> Float[Array, " g"]:
    """The density of samples near each place, from 0 to 1."""
    counts, *edges = np.histogram2d(samples[:, 0], samples[:, 1], bins=24, range=frame.tolist())
    smooth = gaussian_filter(counts, 1.0)
    index = tuple(np.clip(np.searchsorted(e, p) - 1, 0, 23) for e, p in zip(edges, places.T, strict=True))
    return np.asarray(smooth[index] / max(smooth.max(), 1e-12)) ** 0.5


def _velocity_curves(axes: Array, columns: Sequence[Sequence[Array]], frame: Limits, colours: Sequence[str]) -> None:
    """dx/dt against x where samples are, over their histogram."""
    top = 1e-9
    for grid, velocity, samples in columns:
        low, high = np.percentile(samples[:, 0], [0.5, 99.5])
        near = velocity[(grid[:, 0] >= low) & (grid[:, 0] <= high), 0]
        top = max(top, float(np.abs(near[np.isfinite(near)]).max(initial=0.0)))
    for ax, (grid, velocity, samples), tint in zip(axes, columns, colours, strict=True):
        heights, edges = histogram(samples[:, 0], frame[0])
        ax.stairs(
            heights / max(heights.max(), 1e-12) * 1.6 * top - 1.15 * top,
            edges,
            baseline=-1.15 * top,
            fill=True,
            color="#E2E2E2",
        )
        order = np.argsort(grid[:, 0])
        ax.axhline(0, color=style.RULE, lw=0.8)
        ax.plot(grid[order, 0], velocity[order, 0], color=tint, lw=1.6)
        style.scattered(ax, np.stack([frame[0], [-1.15 * top, 1.15 * top]]), labels=(False, False))
