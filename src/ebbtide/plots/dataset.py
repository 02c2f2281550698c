"""The figure of a data set: its points, and beside them the exact density where there is one."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from ..data.forms import Column
from . import style
from .columns import pairs
from .points import MOST_CLASSES, Drawing, Panel, class_panels, panel_height
from .style import Array, Limits
from .ticks import name_axes, named_margin

__all__ = ["data_set", "density_image"]


def data_set(
    x: Float[Array, "n d"],
    limits: Limits,
    *,
    labels: Int[Array, " n"] | None = None,
    classes: Sequence[str] = (),
    names: Sequence[str] = (),
    form: Sequence[Column] = (),
    log_density: Callable[[torch.Tensor], torch.Tensor] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """A data set: its points (by class), and beside them its exact density where there is one.

    form: the forms of a table's columns.
    """
    x = style.checked_points(x)
    limits = style.as_limits(limits, x.shape[1])
    if x.shape[1] > 2:
        panel = Panel("data", x, style.REAL)
        return pairs([panel], limits, real=x, names=names, form=form, title=title, note=note)
    if x.shape[1] == 2 and labels is not None and len(np.unique(labels)) > MOST_CLASSES:
        panel = Panel("data", x, style.REAL, labels=np.asarray(labels))
        return class_panels([panel], limits, classes, names=names, form=form, title=title, note=note)
    two = log_density is not None and x.shape[1] == 2
    width = 3.1 if two else 4.4
    grid = style.axes_grid(
        1,
        1 + two,
        panel=(width, panel_height(width, limits)),
        gap=(0.16, 0),
        margin=named_margin((0.36, 0.1, 0.3, 0.28), names, form),
        title=title,
        note=note,
    )
    ax = grid.axes[0, 0]
    drawing = Drawing(limits, None, [x])
    drawing.draw(ax, x, style.REAL, labels, names=classes)
    style.scattered(ax, drawing.frame, labels=(True, x.shape[1] > 1))
    name_axes(ax, names, (True, x.shape[1] > 1), form, width)
    ax.set_title(style.plural(len(x), "point"), size=style.LABEL, color=style.INK, loc="left", pad=4)
    if log_density is not None and x.shape[1] == 1:
        places = torch.linspace(float(limits[0, 0]), float(limits[0, 1]), 400, dtype=torch.float64)
        ax.plot(places, log_density(places[:, None]).exp(), color=style.INK, lw=1.4)
    elif log_density is not None:
        ax = grid.axes[0, 1]
        ax.imshow(
            density_image(log_density, limits),
            extent=(*limits[0], *limits[1]),
            origin="lower",
            cmap="cividis",
            aspect="auto",
            interpolation="bilinear",
        )
        style.scattered(ax, limits, labels=(True, False))
        ax.set_title("exact density", size=style.LABEL, color=style.INK, loc="left", pad=4)
    return grid.figure


def density_image(
    log_density: Callable[[torch.Tensor], torch.Tensor], limits: Limits, size: int = 220
) -> Float[Array, "size size"]:
    """p(x) on a grid of the frame, rows from low y to high y."""
    places = [torch.linspace(float(low), float(high), size, dtype=torch.float64) for low, high in limits]
    x, y = torch.meshgrid(*places, indexing="xy")
    return log_density(torch.stack([x, y], -1).reshape(-1, 2)).exp().reshape(size, size).numpy()
