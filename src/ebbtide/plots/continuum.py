"""The forward process of a single point at all times: its densities as a continuum, and as an animation."""

import math
from collections.abc import Iterator
from pathlib import Path as File

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageDraw

from ..core.paths import Path
from ..specs import require
from . import style
from .animation import FRAME_DPI
from .forward import START
from .style import Array
from .video import Frame, write_video

__all__ = ["continuum", "continuum_film"]

_T = np.linspace(0, 1, 241)
_ROWS = 300
_SHOWN = (0.1, 0.25, 0.5, 1.0)
_NARROWEST = 0.02  # of the view's height: the density at t = 0, a point, would be narrower than a pixel
_BANDS = LinearSegmentedColormap.from_list("bands", ["#FFFFFF", style.DIFFUSION])


def continuum(
    path: Path, name: str = "", *, start: style.Number = START, title: str = "", note: str = ""
) -> style.Figure:
    """The density of x_t = α start + σ ε at every t, as columns of colour, its mean and ±σ; beside it four of them.

    Each column is scaled to its peak, so that a density as wide as the noise is seen beside one as narrow as the data.

    name: the path's, for the title.
    """
    figure, slice_, (low, high) = _drawn(path, name, start, title, note)
    x = np.linspace(low, high, _ROWS)
    for t, alpha, sigma in zip(_SHOWN, *_scales(path, np.array(_SHOWN)), strict=True):
        density = _density(x, alpha * start, max(sigma, _NARROWEST * (high - low)))
        slice_.plot(density / density.max(), x, color=style.TIME(t), lw=1.7)
        place = (0.94, float(np.clip(alpha * start, low, high)))
        style.halo(slice_.text(*place, style.time_label(t), size=style.SMALL, ha="right", va="center"))
    return figure


def continuum_film(
    file: str | File, path: Path, name: str = "", *, start: style.Number = START, frames: int = 32, title: str = ""
) -> File:
    """An animation, .gif or .mp4: a cursor moves over `continuum` from data to noise, beside it the density there.

    file: to write. name: the path's, for the title. start: where all data is. frames: of the film, 2 to 500.
    """
    require("frames", frames, 2, 500, whole=True)
    figure, slice_, view = _drawn(path, name, start, title, "")
    figure.set_dpi(FRAME_DPI)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    under = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    boxes = [_pixels(ax, under.height) for ax in (figure.axes[0], slice_)]
    return write_video(file, _frames(path, start, view, under, boxes, frames), fps=8, hold=2.0)


def _frames(
    path: Path, start: style.Number, view: style.Pair, under: Image.Image, boxes: list[tuple[float, ...]], count: int
) -> Iterator[Frame]:
    """The figure with a cursor at each of `count` times, and the density there as a filled curve."""
    (left, top, right, bottom), (base, _, end, _) = boxes
    times = np.linspace(0, 1, count)
    alpha, sigma = _scales(path, times)
    x = np.linspace(*view, bottom_rows := round(bottom - top))
    rows = bottom - np.arange(bottom_rows)
    for t, a, s in zip(times, alpha, sigma, strict=True):
        frame = under.copy()
        draw = ImageDraw.Draw(frame, "RGBA")
        tint = tuple(round(255 * part) for part in style.TIME(float(t))[:3])
        across = left + t * (right - left)
        draw.line([(across, top), (across, bottom)], fill=(31, 31, 31), width=2)
        own = _density(x, a * start, max(s, _NARROWEST * (view[1] - view[0])))
        edge = list(zip((base + own / own.max() * 0.94 * (end - base)).tolist(), rows.tolist(), strict=True))
        draw.polygon([(base, bottom), *edge, (base, top)], fill=(*tint, 110))
        draw.line(edge, fill=(*tint, 255), width=3, joint="curve")
        yield np.asarray(frame)


def _drawn(
    path: Path, name: str, start: style.Number, title: str, note: str
) -> tuple[style.Figure, style.Axes, style.Pair]:
    """The figure without the curve in its right panel, that panel, and the view of x."""
    require("start", start)
    alpha, sigma = _scales(path)
    reach = 3.0 * sigma[-1]
    low, high = min(-reach, start - 0.35 * reach), max(reach, start + 0.35 * reach)
    grid = style.axes_grid(
        1, 2, panel=(2.95, 2.6), gap=(0.3, 0), margin=(0.4, 0.14, 0.34, 0.46),
        title=title or f"{name or type(path).__name__} path: every density of a point that started at {start:g}",
        note=note,
    )  # fmt: skip
    ax, slice_ = grid.axes[0]
    x = np.linspace(low, high, _ROWS)
    columns = [_density(x, a * start, max(s, _NARROWEST * (high - low))) for a, s in zip(alpha, sigma, strict=True)]
    image = np.stack([column / column.max() for column in columns], 1)
    ax.imshow(image, origin="lower", extent=(0, 1, low, high), aspect="auto", cmap=_BANDS, interpolation="bilinear")
    ax.plot(_T, start * alpha, color=style.INK, lw=1.7)
    for side in (-1, 1):
        ax.plot(_T, start * alpha + side * sigma, color=style.INK, lw=0.9, ls=(0, (4, 3)))
    ax.set(xlim=(0, 1), ylim=(low, high))
    style.as_curves(ax, "", "x: mean, ±1σ, density")
    ax.set_xticks([0, 0.5, 1], ["0\ndata", "t = 0.5", "1\nnoise"])
    ax.get_xticklabels()[0].set_horizontalalignment("left")
    ax.get_xticklabels()[-1].set_horizontalalignment("right")
    slice_.set(xlim=(0, 1.06), ylim=(low, high), xticks=[], yticks=[])
    style.as_curves(slice_, "", "density of x_t, to its peak")
    return grid.figure, slice_, (float(low), float(high))


def _scales(path: Path, t: Array = _T) -> tuple[Array, Array]:
    c = path.scales(torch.as_tensor(t, dtype=torch.float64))
    return c.alpha.numpy(), c.sigma.numpy()


def _density(x: Array, mean: float, std: float) -> Array:
    return np.asarray(np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi)))


def _pixels(ax: style.Axes, height: int) -> tuple[float, ...]:
    """A panel's left, top, right and bottom in pixels from the upper left corner."""
    box = ax.get_window_extent()
    return box.x0, height - box.y1, box.x1, height - box.y0
