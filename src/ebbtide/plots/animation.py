"""Animations as GIF: the axes are drawn once, the points of each frame are counted into pixels.

matplotlib would redraw every dot of every frame; a histogram of pixels and a shared palette take a tenth of that.
"""

import io
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8, UInt32
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..files import write_file
from . import style
from .density import LogDensity, draw_outline, outline
from .study import Method, training_stages
from .style import Array, Limits

__all__ = [
    "FRAME_DPI",
    "LEVELS",
    "MOST_FRAMES",
    "MOST_POINTS",
    "codes",
    "colours",
    "sampling_gif",
    "shared_palette",
    "training_gif",
    "write_gif",
]

LEVELS = 20  # shades of a colour
MOST_FRAMES = 48
MOST_POINTS = 2000
FRAME_DPI = 132


def sampling_gif(
    path: str | Path,
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    log_density: LogDensity | None = None,
    frames: int = MOST_FRAMES,
) -> Path:
    """Every method carries the same noise to data, side by side, on one clock t. frames: at most."""
    if not methods or any(0 in method.walk.shape or len(method.walk_times) != len(method.walk) for method in methods):
        raise InputError("The animation needs a walk of every method, one row for each of its walk_times.")
    times = _clock(methods, count := max(2, min(frames, MOST_FRAMES)))
    frame = style.as_limits(limits, methods[0].walk.shape[2])
    frame = style.union(frame, np.concatenate([method.walk[0] for method in methods]))
    stage = _Stage(methods, frame, real, log_density)
    clouds = [_at_times(method, times) for method in methods]
    pictures = (
        stage.picture([cloud[k] for cloud in clouds], style.time_label(round(t, 2)), 1 - t)
        for k, t in enumerate(times.tolist())
    )
    return write_gif(path, pictures, stage.palette, seconds=4.5, count=count)


def training_gif(
    path: str | Path,
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    log_density: LogDensity | None = None,
) -> Path:
    """Samples from the same noise as training goes on, on one clock."""
    kept = training_stages(methods)
    if not kept:
        raise InputError("The animation needs samples kept during training, of every method.")
    chosen = style.evenly(len(kept), MOST_FRAMES)
    d = style.checked_points(methods[0].evolution[0][1]).shape[1]
    stage = _Stage(methods, style.as_limits(limits, d), real, log_density)
    pictures = (stage.picture(clouds, name, done) for name, done, clouds in (kept[k] for k in chosen))
    return write_gif(path, pictures, stage.palette, seconds=max(3.0, 0.15 * len(chosen)), count=len(chosen))


def write_gif(
    path: str | Path,
    frames: Iterator[UInt8[Array, "height width"]],
    palette: UInt8[Array, "256 3"],
    *,
    seconds: style.Number,
    count: int,
    hold: style.Number = 2.0,
) -> Path:
    """Write palette frames as a GIF that loops, resting `hold` seconds on its last frame; whole or not at all.

    GIF counts in hundredths of a second: what rounding takes from one delay, it gives to the next.

    count: of frames.
    """
    images = []
    for pixels in frames:
        image = Image.fromarray(pixels)
        image.putpalette(palette.tobytes())
        images.append(image)
    each = max(2, 100 * seconds / max(count, 1))  # browsers slow anything under 20 ms down
    ends = [round(each * k) for k in range(len(images))]
    durations = [10 * (end - begin) for begin, end in pairwise(ends)] + [round(hold * 1000)]
    film = io.BytesIO()
    try:
        images[0].save(
            film,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            optimize=False,
            disposal=1,
        )
    except struct.error:  # pillow makes one frame of those that are the same
        raise InputError(
            "A GIF shows no frame for longer than 655 s; write an .mp4, or more frames a second."
        ) from None
    write_file(Path(path), film.getvalue())
    return Path(path)


def shared_palette(frames: Iterable[UInt8[Array, "h w 3"]], size: int = 256) -> UInt8[Array, "{size} 3"]:
    """`size` colours for all of these frames: theirs, if there are no more.

    Else a quarter are the commonest as they are; the others are chosen by area, and, for what is small or seldom seen,
    by difference. The memory it takes does not grow with the frames.
    """
    counts = np.zeros(2**24, np.int64)
    for frame in frames:
        found, times = np.unique(codes(frame), return_counts=True)
        counts[found] += times
    values = np.flatnonzero(counts).astype(np.uint32)
    counts = counts[values]
    parts = [colours(values)]
    if len(values) > size:
        common = values[counts.argsort()[::-1][: size // 4]]
        if len(values) > _DISTINCT:  # six bits of eight
            values, place = np.unique(values & 0xFCFCFC, return_inverse=True)
            counts = np.bincount(place, counts).astype(np.int64)
        area = np.repeat(values, np.ceil(counts * (_DISTINCT / counts.sum())).astype(int))
        few = 3 * size // 8
        parts = [
            colours(common),
            _quantised(area, few, Image.Quantize.MEDIANCUT),
            _quantised(values, few, Image.Quantize.MAXCOVERAGE),
        ]
    found = np.concatenate(parts)
    return np.concatenate([found, np.zeros((size - len(found), 3), np.uint8)])


_DISTINCT = 2**18  # colours that pillow chooses from


def _quantised(values: UInt32[Array, " n"], size: int, method: Image.Quantize) -> UInt8[Array, "_ 3"]:
    palette = Image.fromarray(colours(values)[None]).quantize(size, method).getpalette()
    return np.array(palette, np.uint8).reshape(-1, 3)[:size]


def codes(pixels: UInt8[Array, "*s 3"]) -> UInt32[Array, " n"]:
    """Each pixel's colour as one number. pixels: RGB."""
    return pixels.reshape(-1, 3).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)


def colours(values: UInt32[Array, " n"]) -> UInt8[Array, "n 3"]:
    """The inverse of `codes`. values: as `codes` gives them."""
    return np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.uint8)


@dataclass(frozen=True)
class _Box:
    """A panel's pixels, from its upper left corner."""

    left: int
    top: int
    width: int
    height: int


class _Stage:
    """The background with its palette, and where the points go in it."""

    def __init__(
        self, methods: Sequence[Method], limits: Limits, real: Array | None, log_density: LogDensity | None
    ) -> None:
        self.limits = limits
        n, d = len(methods), len(limits)
        columns, width = style.columns_of(n)
        side = 4.0 if n == 1 else width - 0.35 if columns == 2 else width
        grid = style.axes_grid(
            -(-n // columns),
            columns,
            panel=(side, side if d > 1 else 0.7 * side),
            gap=(0.12, 0.36),
            margin=(0.12, 0.12, 0.36, 0.52),
            used=n,
        )
        figure = grid.figure
        figure.set_dpi(FRAME_DPI)
        around = outline(real, limits, log_density) if d > 1 else []
        for method, ax in zip(methods, grid.axes.flat, strict=False):
            style.scattered(ax, limits[:2] if d > 1 else np.array([limits[0], [0, 1]]), labels=(False, False))
            draw_outline(ax, around, 1.0)
            ax.set_title(method.name, loc="left", size=style.LABEL + 1, weight="bold", color=method.colour)
        canvas = figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        canvas.draw()
        picture = np.asarray(canvas.buffer_rgba())[..., :3]
        self.height, self.width = picture.shape[:2]
        self.boxes = []
        for ax in grid.axes.flat[:n]:
            box = ax.get_window_extent()
            self.boxes.append(
                _Box(round(box.x0) + 1, round(self.height - box.y1) + 1, round(box.width) - 2, round(box.height) - 2)
            )
        # Ramps from white: one for each method (grey for a lone one's spare), and ink for text.
        inks = list(dict.fromkeys(method.colour for method in methods))
        ramps = [_ramp(ink) for ink in [*inks, *[style.REAL] * (2 - len(inks)), style.INK]]
        shared = 256 - len(ramps) * LEVELS  # palette entries for the drawn background
        few = Image.fromarray(picture).quantize(shared, dither=Image.Dither.NONE)
        colours = np.zeros((shared, 3), np.uint8)
        given = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:shared]
        colours[: len(given)] = given
        self.background = np.asarray(few).astype(np.uint8)
        self.starts = [shared + inks.index(method.colour) * LEVELS for method in methods]
        self.ink = 256 - LEVELS
        self.palette = np.concatenate([colours, *ramps]).astype(np.uint8)
        self.truth = None
        if real is not None and d == 1:
            self.truth = _bars(style.checked_points(real)[:, 0], limits[0], self.boxes[0])
        self.peak = 0.0 if self.truth is None else float(self.truth.max())
        file = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        self.font = ImageFont.truetype(str(file), round(style.LABEL * 1.15 * FRAME_DPI / 72))

    def picture(self, clouds: Sequence[Array], label: str, progress: style.Number) -> UInt8[Array, "height width"]:
        """One frame: each method's points, a label, and how far the clock has run."""
        pixels = self.background.copy()
        for cloud, box, start in zip(clouds, self.boxes, self.starts, strict=True):
            x = style.finite_rows(style.checked_points(cloud))
            view = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
            level = self._bar_levels(x, box) if len(self.limits) == 1 else self._dot_levels(x[:MOST_POINTS, :2], box)
            np.copyto(view, (start + level - 1).astype(np.uint8), where=level > 0)
            if self.truth is not None:
                # A stair: each pixel column is filled from its neighbour's height to its own.
                tops = (box.height - 1 - self.truth / self.peak * 0.92 * box.height).astype(int).clip(0)
                before = np.concatenate([tops[:1], tops[:-1]])
                rows = np.arange(box.height)[:, None]
                view[(rows >= np.minimum(tops, before)) & (rows <= np.maximum(tops, before))] = self.ink + LEVELS - 6
        self._clock(pixels, label, progress)
        return pixels

    def _dot_levels(self, x: Array, box: _Box) -> Array:
        """Shade of each pixel: dots of 3 × 3 pixels with soft corners, which add up where they overlap."""
        (x0, x1), (y0, y1) = self.limits[:2]
        column = np.floor((x[:, 0] - x0) / (x1 - x0) * box.width).clip(-9, box.width + 9).astype(int)
        row = np.floor((y1 - x[:, 1]) / (y1 - y0) * box.height).clip(-9, box.height + 9).astype(int)
        inside = (column >= 1) & (column < box.width - 1) & (row >= 1) & (row < box.height - 1)
        flat = row[inside] * box.width + column[inside]
        counts = np.bincount(flat, minlength=box.height * box.width)
        total = counts.astype(float)
        for shift in (1, box.width):
            total = 0.72 * np.roll(total, -shift) + total + 0.72 * np.roll(total, shift)
        opacity = float(np.clip(14 / math.sqrt(max(len(x), 1)), 0.3, 0.8))
        shade = 1 - (1 - opacity) ** total
        return np.ceil(shade * (LEVELS - 1)).astype(int).reshape(box.height, box.width)

    def _bar_levels(self, x: Array, box: _Box) -> Array:
        heights = _bars(x[:, 0], self.limits[0], box)
        self.peak = max(self.peak, 1e-12) if self.truth is not None else max(self.peak, float(heights.max()), 1e-12)
        tops = (heights / self.peak * 0.92 * box.height).clip(max=box.height)
        filled = np.arange(box.height)[::-1, None] < tops[None]
        return np.where(filled, LEVELS * 2 // 3, 0)

    def _clock(self, pixels: Array, label: str, progress: style.Number) -> None:
        """A thin bar under the panels that fills, and what it stands at."""
        last = self.boxes[-1]
        top = last.top + last.height + round(0.12 * FRAME_DPI)
        left, right = self.boxes[0].left, max(box.left + box.width for box in self.boxes)
        pixels[top : top + 4, left:right] = self.ink + 2
        pixels[top : top + 4, left : left + round((right - left) * min(max(progress, 0.0), 1.0))] = (
            self.ink + LEVELS - 4
        )
        mask = Image.new("L", (self.width, self.height - top - 6))
        middle = (left + right) / 2
        ImageDraw.Draw(mask).text((middle, round(0.03 * FRAME_DPI)), label, fill=255, font=self.font, anchor="ma")
        shade = np.asarray(mask).astype(int) * (LEVELS - 1) // 255
        np.copyto(pixels[top + 6 :], (self.ink + shade).astype(np.uint8), where=shade > 0)


def _ramp(ink: str) -> Array:
    """LEVELS colours from nearly white to the ink."""
    share = np.linspace(0.08, 1, LEVELS)[:, None]
    return np.round(255 * (1 - share * (1 - np.array(to_rgb(ink))))).astype(np.uint8)


def _bars(x: Array, limits: Array, box: _Box) -> Float[Array, " width"]:
    """The density of x in each of the panel's pixel columns, in bars of equal width."""
    bins = 60
    counts, _ = np.histogram(x, bins=bins, range=(float(limits[0]), float(limits[1])))
    return np.asarray(counts[np.arange(box.width) * bins // box.width] / max(len(x), 1))


def _clock(methods: Sequence[Method], count: int) -> Float[Array, " count"]:
    """`count` times from 1 to 0, half by the clock and half by distance travelled: no method's busy part is rushed."""
    t = np.linspace(1, 0, 201)
    gone = 1 - t
    for method in methods:
        walk = np.asarray(method.walk[:, :300], float)  # whose squares float32 may not hold
        step = np.linalg.norm(np.diff(walk, axis=0), axis=2).mean(1)
        far = np.concatenate([[0.0], np.cumsum(np.nan_to_num(step))])
        far = far / max(far[-1], 1e-12)
        gone = gone + np.interp(1 - t, 1 - method.walk_times, far) / len(methods)
    return np.asarray(np.interp(np.linspace(0, gone[-1], count), gone, t))


def _at_times(method: Method, times: Float[Array, " k"]) -> list[Array]:
    """The walk at other times, linear between its own."""
    own = 1 - np.asarray(method.walk_times, float)
    clouds = []
    for t in times:
        i = int(np.clip(np.searchsorted(own, 1 - t, side="right") - 1, 0, max(len(own) - 2, 0)))
        j = min(i + 1, len(own) - 1)
        share = 0.0 if own[j] == own[i] else float(np.clip((1 - t - own[i]) / (own[j] - own[i]), 0, 1))
        clouds.append((1 - share) * method.walk[i, :MOST_POINTS] + share * method.walk[j, :MOST_POINTS])
    return clouds
