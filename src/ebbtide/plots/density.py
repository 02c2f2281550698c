"""Figures of densities: log p on a grid of a plane, a model's beside the true one; and outlines of 95 %."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from ..errors import InputError
from . import style
from .style import Array, Limits

__all__ = [
    "SHARE",
    "SPAN",
    "LogDensity",
    "density_map",
    "draw_outline",
    "empirical_outline",
    "exact_outline",
    "lattice",
    "outline",
]

LogDensity = Callable[[torch.Tensor], torch.Tensor]

SHARE = 0.95  # of the points or the mass inside an outline
SPAN = 10.0  # nats below the peak that are shown; what is rarer is all one colour


def lattice(limits: Limits, size: int) -> Float[torch.Tensor, "size_squared 2"]:
    """The centres of size × size cells of the frame, row by row from low y to high y, in float64."""
    cells = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    places = [float(low) + (float(high) - float(low)) * cells for low, high in limits[:2]]
    x, y = torch.meshgrid(*places, indexing="xy")
    return torch.stack([x, y], -1).reshape(-1, 2)


def exact_outline(log_density: LogDensity, limits: Limits, size: int = 300) -> list[Array]:
    """Curves around the smallest region of a frame that holds 95 % of an exact density; [] if the frame doesn't."""
    p = log_density(lattice(limits, size)).exp().reshape(size, size).numpy()
    edges = [np.linspace(float(low), float(high), size + 1) for low, high in limits[:2]]
    cell = float(np.prod([edge[1] - edge[0] for edge in edges]))
    falling = np.sort(p.ravel())[::-1]
    last = int(np.searchsorted(np.cumsum(falling) * cell, SHARE))
    if last >= falling.size:
        return []
    return _curves(edges, p, float(falling[last]))


def empirical_outline(real: Float[Array, "n d"], limits: Limits, bins: int = 90) -> list[Array]:
    """Curves around the densest 95 % of the real points, from a lightly smoothed histogram. bins: of each axis."""
    x = style.finite_rows(real)[:, :2]
    counts, x_edges, y_edges = np.histogram2d(x[:, 0], x[:, 1], bins=bins, range=limits[:2].tolist())
    if counts.sum() < 50:
        return []
    # Wide enough for the number of points, no wider: a spiral's gaps must stay open.
    smooth = gaussian_filter(counts, float(np.clip(bins * 0.04 * (1000 / len(x)) ** 0.25, 1.2, 4)))
    # The level that 95 % of the points themselves exceed: the smoothing widens the density, but not the outline.
    places = (np.searchsorted(edges, column).clip(1, bins) - 1 for edges, column in zip((x_edges, y_edges), x.T))
    level = np.quantile(smooth[tuple(places)], 1 - SHARE)
    return _curves((x_edges, y_edges), smooth.T, float(level))


def _curves(edges: Sequence[Array], z: Float[Array, "y x"], level: float) -> list[Array]:
    """The curves on which a function of cells with these edges has this level."""
    import contourpy

    x, y = ((edge[1:] + edge[:-1]) / 2 for edge in edges)
    lines: list[Array] = contourpy.contour_generator(x=x, y=y, z=z).lines(level)  # type: ignore[assignment]
    return lines


def outline(real: Array | None, limits: Limits, log_density: LogDensity | None = None) -> list[Array]:
    """Curves around 95 % of the exact density of two columns, where it is known, else of real points; [] for neither.

    real: (n, d), of which the first two columns are drawn.
    """
    found = [] if log_density is None or len(limits) != 2 else exact_outline(log_density, limits)
    return found if found or real is None else empirical_outline(real, limits)


def draw_outline(ax: Axes, outline: Sequence[Array], width: float = 0.9) -> None:
    """Draw curves around data. outline: curves in data units."""
    ax.add_collection(LineCollection(list(outline), colors=style.REAL, linewidths=width), autolim=False)


def density_map(
    model: Array,
    limits: Limits,
    *,
    log_density: Callable[[torch.Tensor], torch.Tensor] | None = None,
    colour: str = style.INK,
    span: style.Number = SPAN,
    title: str = "",
    note: str = "",
) -> Figure:
    """log p of a model on the cells of a frame, beside the true one where `log_density` has it.

    model: nats, (size, size), rows from low y to high y, at the points of `lattice(limits, size)`.
    Both panels share one scale: from the peak of the truth (of the model, where there is none) down by `span` nats;
    below that, and where p = 0, it is the darkest. The mass that a panel's cells add up to stands in its corner, so
    that a density that is no density shows. Raises InputError for a model that isn't a square of numbers in 2-D.
    """
    frame = style.as_limits(limits, 2)
    if model.ndim != 2 or model.shape[0] != model.shape[1] or not np.isfinite(model).any():
        raise InputError(f"model must be a square of log-densities; got an array of shape {model.shape}.")
    panels = [("model", colour, model)]
    if log_density is not None:
        true = log_density(lattice(frame, len(model))).reshape(model.shape).numpy()
        panels.insert(0, ("truth", style.REAL, true))
    peak = float(np.nanmax(np.where(np.isfinite(panels[0][2]), panels[0][2], np.nan)))
    width = 3.1 if len(panels) == 2 else 4.2
    grid = style.axes_grid(
        1,
        len(panels),
        panel=(width, width),
        gap=(0.16, 0),
        margin=(0.36, 0.62, 0.3, 0.3),
        title=title,
        note=note,
    )
    cell = float(np.prod((frame[:, 1] - frame[:, 0]) / len(model)))
    for ax, (name, tint, values) in zip(grid.axes[0], panels, strict=True):
        image = ax.imshow(
            np.maximum(np.nan_to_num(values, nan=-np.inf), peak - span),
            extent=(*frame[0], *frame[1]),
            origin="lower",
            cmap="cividis",
            aspect="auto",
            interpolation="nearest",
            vmin=peak - span,
            vmax=peak,
        )
        style.scattered(ax, frame, labels=(True, ax is grid.axes[0, 0]))
        ax.set_title(name, loc="left", size=style.LABEL, weight="bold", color=tint, pad=4)
        mass = float(np.exp(values[np.isfinite(values)]).sum() * cell)
        style.corner(ax, f"adds up to {mass:.3f}")
    _scale(grid.figure, image, grid.axes[0, -1].get_position(), span)
    return grid.figure


def _scale(figure: Figure, image: Any, place: Any, span: style.Number) -> None:
    """The colours' scale at the right of the last panel, in nats."""
    inches = figure.get_size_inches()[0]
    ax = figure.add_axes((place.x1 + 0.1 / inches, place.y0, 0.12 / inches, place.height))
    bar = figure.colorbar(image, cax=ax, extend="min", extendfrac=0.03)
    bar.outline.set_visible(False)
    ax.tick_params(length=2.5, width=0.8, color=style.RULE, labelcolor=style.QUIET, labelsize=style.SMALL, pad=2)
    ax.set_title("log p", size=style.SMALL, color=style.QUIET, pad=4)
