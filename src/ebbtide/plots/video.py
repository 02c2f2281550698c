"""Films of a simulator: frames to MP4 or GIF, and the chunk that a policy predicts drawn into them."""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import KDTree

from ..errors import InputError
from ..files import located, write_file
from ..specs import require
from . import animation, style
from .pusht import AHEAD
from .style import Array, Number

__all__ = ["Frame", "ToPixels", "overlay", "write_video"]

Frame = UInt8[Array, "_h _w 3"]
ToPixels = Callable[[Float[Array, "*n 2"]], Float[Array, "*n 2"]]

_FINE = 3  # pixels drawn for one, along each side: pillow doesn't smooth lines
_GIF_FASTEST = 50  # frames a second: viewers slow anything faster down


def write_video(path: str | Path, frames: Iterable[Frame], *, fps: Number = 10, hold: Number = 1.0) -> Path:
    """Frames of one size as a film, whole or not at all: `.mp4` is H.264, which every player supports, `.gif` loops.

    An odd side gets one more row or column of its last pixels, for H.264 halves the colours' resolution. A GIF has 256
    colours, shows at most 50 frames a second and rests `hold` seconds on its last; it is the larger file by far.
    """
    path = located("path", path)
    require("fps", fps, 1e-3)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise InputError(f"A film's name must end in {' or '.join(_WRITERS)}; got {path.name!r}.")
    if not path.parent.is_dir():  # said before an episode is played for it
        raise InputError(f"Can't write {path}: there is no folder {path.parent}.")
    with TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        write(file, _alike(frames), float(fps), float(hold))
        write_file(path, file.read_bytes())
    return path


def overlay(
    frame: Frame,
    chunk: Float[Array, "*k steps 2"] | None,
    to_pixels: ToPixels,
    *,
    step: int | None = None,
    score: Number | None = None,
    text: str = "",
    least: int = 360,
) -> UInt8[Array, "height width 3"]:
    """A frame with the chunk drawn into it, from violet, now, to orange, its end; several chunks make a fan.

    to_pixels: actions (…, 2) → (x to the right, y down) in the frame's own pixels. Step, score and text stand in a
    strip beneath. Frames narrower than `least` pixels are enlarged by a whole factor.
    step: its number.
    """
    _frame(frame, "The frame")
    factor = max(1, ceil(least / frame.shape[1]))
    picture = Image.fromarray(frame.repeat(factor, 0).repeat(factor, 1))
    if chunk is not None:
        if chunk.ndim < 2 or chunk.shape[-1] != 2 or 0 in chunk.shape or not np.isfinite(chunk).all():
            raise InputError(f"A chunk to draw must be finite numbers (…, steps, 2); got shape {chunk.shape}.")
        places = (np.asarray(to_pixels(chunk), float) + 0.5) * factor - 0.5
        _draw_chunks(picture, places.reshape(-1, *chunk.shape[-2:]))
    words = [f"step {step:,}" if step is not None else "", text, f"score {score:.2f}" if score is not None else ""]
    return np.concatenate([np.asarray(picture), _strip(picture.width, words)]) if any(words) else np.asarray(picture)


def _draw_chunks(picture: Image.Image, places: Float[Array, "k steps 2"]) -> None:
    """Lines and dots in white rims, drawn larger in their own corner of the frame and shrunk into it."""
    k, h, _ = places.shape
    width = max(1.5, picture.width / 200) * (1 if k == 1 else 0.6)
    dot, rim = 1.25 * width, 0.6 * width
    size = np.array(picture.size)
    places = places.clip(-size, 2 * size)
    pad = dot + rim + 2
    low = np.floor(places.min((0, 1)) - pad).clip(0, size).astype(int)
    high = np.ceil(places.max((0, 1)) + pad).clip(0, size).astype(int)
    if (high <= low).any():  # all of it is outside
        return
    box = (*low.tolist(), *high.tolist())
    under = picture.crop(box)
    canvas = under.resize([int(side) * _FINE for side in high - low], Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    tints = [tuple(round(255 * v) for v in AHEAD(i / max(h - 1, 1))[:3]) for i in range(h)]
    points = ((places - low + 0.5) * _FINE).tolist()

    def stroke(extra: float, fills: list[tuple[int, ...]]) -> None:
        """Lines step by step, so that no chunk lies above another from end to end; a fan has dots at its ends only."""
        for i in range(1, h):
            for line in points:
                draw.line((*line[i - 1], *line[i]), fill=fills[i], width=round((width + 2 * extra) * _FINE))
        r = (dot + extra) * _FINE
        for i in range(h) if k == 1 else (h - 1,):
            for x, y in (line[i] for line in points):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=fills[i])

    if k == 1:
        stroke(rim, [(255, 255, 255)] * h)
    stroke(0.0, tints)
    picture.paste(canvas.resize(under.size, Image.Resampling.BOX), box)


def _strip(width: int, words: list[str]) -> UInt8[Array, "height width 3"]:
    """Texts at the left, the middle and the right of a white strip, in figures of equal width, so that none jumps."""
    height = 2 * max(12, round(width / 30))
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw, room, size = ImageDraw.Draw(image), 0.4 * height, 0.52 * height
    # The middle text stands in the middle: as much room at its left as at its right.
    left, middle, right = (draw.textlength(word, font=_font(round(size))) for word in words)
    needed = max(left + right, middle + 2 * max(left, right) if middle else 0.0)
    font = _font(max(6, int(size * min(1.0, (width - 4 * room) / max(needed, 1.0)))))
    for word, x, anchor in zip(words, (room, width / 2, width - room), ("lm", "mm", "rm"), strict=True):
        draw.text((x, height / 2), word, fill=style.INK, font=font, anchor=anchor)
    return np.asarray(image)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _alike(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, each checked to be an image of the first one's size."""
    shape = None
    for index, frame in enumerate(frames):
        _frame(frame, f"Frame {index}")
        shape = shape or frame.shape
        if frame.shape != shape:
            raise InputError(f"Frame {index} must have the first one's shape {shape}; got {frame.shape}.")
        yield frame
    if shape is None:
        raise InputError("A film needs at least one frame; got none.")


def _frame(frame: Any, what: str) -> None:
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"{what} must be uint8 pixels (h, w, 3); got {array.dtype} {array.shape}.")


def _mp4(file: Path, frames: Iterator[Frame], fps: float, hold: float) -> None:
    """H.264 in MP4, its index at the front, so that a browser can start before it has all."""
    try:
        import av
    except ImportError as missing:
        raise InputError("Writing MP4 needs PyAV: pip install 'ebbtide[robots]' (GIF needs nothing).") from missing
    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])
    with av.open(str(file), "w", format="mp4", options={"movflags": "faststart"}) as film:
        stream = film.add_stream("h264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        for frame in chain([first], frames):
            h, w = frame.shape[:2]
            even = np.pad(frame, ((0, height - h), (0, width - w), (0, 0)), mode="edge")
            film.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        film.mux(stream.encode())


def _gif(file: Path, frames: Iterator[Frame], fps: float, hold: float) -> None:
    """In one palette and without dithering, which would flicker from frame to frame and treble the file."""
    thin = ceil(fps / _GIF_FASTEST)
    every = [np.array(frame) for frame in frames]
    # The last frame stays, whichever are left out.
    every = every[(len(every) - 1) % thin :: thin]
    palette = animation.shared_palette(every)
    # Pillow's own search is off by a few shades, and white turns grey. The 1 is for scipy, whose tree has no end where
    # equal colours are 0 and the processor flushes denormal numbers.
    nearest = KDTree(palette + 1.0)

    def indices(frame: Frame) -> UInt8[Array, "_h _w"]:
        values, where = np.unique(animation.codes(frame), return_inverse=True)
        return nearest.query(animation.colours(values) + 1.0)[1].astype(np.uint8)[where].reshape(frame.shape[:2])

    drawn = (indices(frame) for frame in every)
    seconds = len(every) * thin / fps
    animation.write_gif(file, drawn, palette, seconds=seconds, count=len(every), hold=hold)


_WRITERS: dict[str, Callable[[Path, Iterator[Frame], float, float], None]] = {".mp4": _mp4, ".gif": _gif}
