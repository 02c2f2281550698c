"""Animations of images: samples on their way from noise to data, and the same noises' samples as training goes on."""

from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from . import animation, images as sheets, style
from .images import as_pixels
from .strips import WalkFrames, as_frames, paired
from .style import Array

__all__ = ["sampling_gif", "training_gif"]

_INKS = 16  # shades of grey for the text of a GIF of coloured images
_WIDTH = 440  # pixels across an animation, where whole factors allow
_VALUES = 3_000_000  # in an animation of noise
_BORDER = 12


def training_gif(path: str | Path, steps: Sequence[int], grids: UInt8[Array, "k n c h w"], *, columns: int = 0) -> Path:
    """The grid of fixed-noise samples as training goes on, resting on the last.

    grids: n samples at each of these steps.
    """
    grids = as_pixels(grids, "grids", ndim=5)
    paired("grids", "steps", len(grids), len(steps))
    chosen = style.evenly(len(steps), animation.MOST_FRAMES)
    last = max(steps[-1], 1)
    labels = [(f"step {steps[i]:,}", steps[i] / last) for i in chosen]
    return _film(path, grids[chosen], labels, columns, seconds=max(3.0, 0.15 * len(chosen)))


def sampling_gif(path: str | Path, times: Sequence[style.Number], walk: WalkFrames, *, columns: int = 0) -> Path:
    """A grid of samples on their way from noise to data, resting on the last; floats are clipped for display."""
    paired("walk", "times", len(walk), len(times))
    # Noise can't be compressed: fewer frames of many images keep the file to a few megabytes.
    most = int(np.clip(_VALUES // np.prod(walk.shape[1:]), 16, animation.MOST_FRAMES))
    chosen = style.evenly(len(times), most)
    labels = [(style.time_label(round(float(times[i]), 2)), 1 - float(times[i])) for i in chosen]
    return _film(path, as_frames(walk[chosen], "walk"), labels, columns, seconds=max(3.0, 0.09 * len(chosen)))


def _film(
    path: str | Path,
    frames: UInt8[Array, "k n c h w"],
    labels: Sequence[tuple[str, float]],
    columns: int,
    *,
    seconds: style.Number,
) -> Path:
    """Frames of one grid with a bar that fills and a text beneath, in one palette."""
    n, _, h, w = frames.shape[1:]
    columns = min(columns or sheets.columns_for(n), n)
    factor = max(1, min(_WIDTH // (columns * w), 256 // max(h, w)))
    places = sheets.corners(n, columns, w * factor, h * factor) + _BORDER
    width = int(places[:, 0].max()) + w * factor + _BORDER
    width, foot = max(width, 180), int(places[:, 1].max()) + h * factor + _BORDER
    font = ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 20)
    palette, inks = _palette(frames)

    def picture(frame: Array, label: str, progress: float) -> UInt8[Array, "height width"]:
        canvas = np.full((foot + 40, width), inks[-1], np.uint8)
        for tile, (left, top) in zip(_indices(frame, palette), places.tolist(), strict=True):
            canvas[top : top + h * factor, left : left + w * factor] = tile.repeat(factor, 0).repeat(factor, 1)
        left, right = _BORDER, width - _BORDER
        canvas[foot : foot + 4, left:right] = inks[len(inks) * 13 // 16]
        canvas[foot : foot + 4, left : left + round((right - left) * min(max(progress, 0.0), 1.0))] = inks[0]
        text = Image.new("L", (width, 32), 255)
        ImageDraw.Draw(text).text((width / 2, 6), label, fill=0, font=font, anchor="ma")
        canvas[foot + 8 :] = inks[np.asarray(text).astype(int) * (len(inks) - 1) // 255]
        return canvas

    drawn = (picture(frame, *label) for frame, label in zip(frames, labels, strict=True))
    return animation.write_gif(path, drawn, palette, seconds=seconds, count=len(frames))


def _palette(frames: UInt8[Array, "k n c h w"]) -> tuple[UInt8[Array, "256 3"], UInt8[Array, " inks"]]:
    """256 colours for all frames, and which of them are the greys of text, dark to white.

    Grey images have all of their 256 values. Colours come from the data end as much as from all the frames: noise
    would otherwise take most of them.
    """
    if frames.shape[2] == 1:
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1), np.arange(256, dtype=np.uint8)
    pixels = frames.transpose(0, 1, 3, 4, 2).reshape(len(frames), -1, 1, 3)
    few = animation.shared_palette(chain(pixels, repeat(pixels[-1], len(pixels))), 256 - _INKS)
    greys = np.linspace(0, 255, _INKS).round().astype(np.uint8)
    return np.concatenate([few, greys[:, None].repeat(3, 1)]), np.arange(256 - _INKS, 256, dtype=np.uint8)


def _indices(frame: UInt8[Array, "n c h w"], palette: UInt8[Array, "256 3"]) -> UInt8[Array, "n h w"]:
    """The palette's nearest colour of each pixel, without dithering: enlarged, it would look like noise."""
    n, c, h, w = frame.shape
    if c == 1:
        return frame[:, 0]
    holder = Image.new("P", (1, 1))
    holder.putpalette(palette.tobytes())
    flat = Image.fromarray(frame.transpose(0, 2, 3, 1).reshape(n * h, w, 3))
    return np.asarray(flat.quantize(palette=holder, dither=Image.Dither.NONE)).reshape(n, h, w)
