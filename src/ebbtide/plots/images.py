"""Figures of images: pixels enlarged by whole numbers and never interpolated, a thin white gap, quiet labels.

Everything takes uint8 images (n, c, h, w), c = 1 grey, 3 RGB or 4 RGBA; `to_uint8` makes them from a network's
floats. Figures show RGBA on white; `png` keeps it. One mosaic is one array, drawn at its own size: matplotlib rounds
its place to whole pixels, so nothing is resampled.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from ..data.levels import on_white
from ..errors import InputError
from ..files import write_file
from . import curves, style
from .style import Array

__all__ = [
    "HEAD",
    "ROOM",
    "TILE",
    "Sheet",
    "as_pixels",
    "by_class",
    "clipped_share",
    "codec_sheet",
    "columns_for",
    "corners",
    "enlarge",
    "fitting_factor",
    "gap",
    "grid",
    "loss_and_speed",
    "mosaic",
    "png",
    "save_png",
    "sheet",
    "to_uint8",
]

ROOM = 980  # pixels across that a figure's tiles fill, where whole factors allow
TILE = 150  # pixels across a tile at most, unless one pixel of the image is one of the tile
HEAD = 56  # pixels across a tile at least, for a time or a short name above it
ROWS = 20  # classes that have a row each, at most
WIDE = 20  # images in a row of a class, at most
_CAPTION = 22  # pixels under a row of tiles for their captions


def to_uint8(x: Float[Array, "*s"]) -> UInt8[Array, "*s"]:
    """Float pixels in 0..255 → uint8, rounded (ties to even) and clipped. `clipped_share` counts the clipped ones.

    Raises InputError for NaN or infinity, which have no nearest pixel value.
    """
    if not np.isfinite(x).all():
        raise InputError(f"Pixels must be finite numbers; {int((~np.isfinite(x)).sum())} of {x.size} are not.")
    return np.rint(x).clip(0, 255).astype(np.uint8)


def clipped_share(x: Float[Array, "*s"]) -> float:
    """The share of values that round to less than 0 or more than 255, in [0, 1]; 0 for no values."""
    rounded = np.rint(x)
    return float(((rounded < 0) | (rounded > 255)).mean()) if x.size else 0.0


def as_pixels(x: Any, what: str = "images", ndim: int = 4) -> UInt8[Array, "*n c h w"]:
    """x as uint8 images whose last axes are (c, h, w), RGBA on white; InputError otherwise.

    ndim: the number of axes, as 4 for (n, c, h, w).
    """
    array = _pixels(x, what, ndim)
    return array if array.shape[-3] != 4 else np.rint(on_white(array)).astype(np.uint8)


def _pixels(x: Any, what: str, ndim: int) -> UInt8[Array, "*n c h w"]:
    array = np.asarray(x)
    axes = ", ".join(("k", "n", "c", "h", "w")[-ndim:])
    if array.dtype != np.uint8:
        raise InputError(f"{what} must be uint8 pixels, 0..255; got {array.dtype} (to_uint8 rounds and clips floats).")
    if array.ndim != ndim or 0 in array.shape or array.shape[-3] not in (1, 3, 4):
        raise InputError(f"{what} must have the shape ({axes}), none of them 0, and c = 1, 3 or 4; got {array.shape}.")
    return array


def enlarge(images: UInt8[Array, "n c h w"], factor: int) -> UInt8[Array, "n c fh fw"]:
    """Each pixel as a square of factor × factor."""
    return images.repeat(factor, axis=2).repeat(factor, axis=3)


def fitting_factor(width: int, height: int, columns: int, least: int = 0) -> int:
    """The largest whole factor that fits ROOM and TILE, at least 1, and large enough for tiles `least` pixels wide.

    width, height: of an image in pixels.
    """
    for factor in range(TILE // max(width, height), 1, -1):
        if columns * (factor * width + gap(factor * width, factor * height)) <= ROOM:
            return max(factor, -(-least // width))
    return max(1, -(-least // width))


def gap(width: int, height: int) -> int:
    """Pixels between tiles of this size: wide enough that strokes up to the edge don't run into the next image.

    width, height: of a tile in pixels.
    """
    return max(3, max(width, height) // 16)


def columns_for(n: int) -> int:
    """Columns of a grid a little wider than high, with as few places left empty as can be."""
    root = n**0.5
    return min(range(int(np.ceil(root)), max(int(2 * root), 1) + 1), key=lambda k: (-n % k, k))


def corners(n: int, columns: int, width: int, height: int, under: Mapping[int, int] | None = None) -> Int[Array, "n 2"]:
    """Left and upper edge of n tiles in rows; `under` gives the extra pixels beneath a row.

    width, height: of a tile in pixels.
    """
    extra = np.zeros(-(-n // columns) + 1, int)
    for row, pixels in (under or {}).items():
        extra[row + 1] = pixels
    rows, across = np.divmod(np.arange(n), columns)
    between = gap(width, height)
    return np.stack([across * (width + between), rows * (height + between) + np.cumsum(extra)[rows]], 1)


def mosaic(
    tiles: UInt8[Array, "n c h w"], columns: int, under: Mapping[int, int] | None = None
) -> UInt8[Array, "height width _"]:
    """Tiles in rows on white, as RGB or, where they are, RGBA. under: extra pixels beneath a row, by its number.

    tiles: images of one size.
    """
    n, c, h, w = tiles.shape
    places = corners(n, columns, w, h, under)
    canvas = np.full((int(places[-1, 1]) + h, int(places[:, 0].max()) + w, max(c, 3)), 255, np.uint8)
    for tile, (left, top) in zip(tiles, places.tolist(), strict=True):
        canvas[top : top + h, left : left + w] = tile.transpose(1, 2, 0)  # one grey channel broadcasts to three
    return canvas


@dataclass(frozen=True, eq=False)
class Sheet:
    """A mosaic in a figure. The axes' units are pixels from its upper left corner, y downwards."""

    figure: Figure
    ax: Axes
    corners: Int[Array, "n 2"]
    size: tuple[int, int]  # a tile's width and height


def sheet(
    images: UInt8[Array, "n c h w"],
    columns: int,
    *,
    factor: int = 0,
    least: int = 0,
    title: str = "",
    note: str = "",
    heads: Sequence[str] = (),
    names: Sequence[str] = (),
    ends: Sequence[str] = (),
    captions: Sequence[str] = (),
    under: Mapping[int, int] | None = None,
) -> Sheet:
    """Enlarged images with labels: heads over columns, names left and ends right of rows, captions under tiles.

    factor: 0 chooses it, for tiles `least` pixels wide. under: extra pixels beneath rows.
    """
    tiles = enlarge(images, factor or fitting_factor(images.shape[3], images.shape[2], columns, least))
    n, _, h, w = tiles.shape
    rows = -(-n // columns)
    under = dict(under or {})
    for row in range(rows):
        if any(captions[row * columns : (row + 1) * columns]):
            under[row] = under.get(row, 0) + _CAPTION
    picture = mosaic(tiles, columns, under)
    height, width = picture.shape[:2]
    size, turned = _head_size(heads, w)
    longest = max((len(line) for head in heads for line in head.splitlines()), default=0)
    lines = max((head.count("\n") + 1 for head in heads), default=0)
    top = (0.1 + 0.6 * longest * size * style.EM if turned else 0.06 + 0.17 * lines) if heads else 0.06
    left = 0.12 + _text_width(names, style.LABEL)
    right = max(0.12 + _text_width(ends, style.SMALL), 4.2 - left - width / style.DPI)
    if turned:  # the last name leans out of its column
        right = max(right, 0.75 * longest * size * style.EM)
    grid = style.axes_grid(
        1,
        1,
        panel=(width / style.DPI, height / style.DPI),
        margin=(left, right, top, under.get(rows - 1, 0) / style.DPI + 0.1),
        title=title,
        note=note,
    )
    ax = grid.axes[0, 0]
    ax.imshow(picture, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    places = corners(n, columns, w, h, under)
    for text, x in zip(heads, places[:columns, 0].tolist()):
        lean = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if turned else {"ha": "center"}
        ax.text(x + w / 2, -9, text, size=size, color=style.INK, va="baseline", linespacing=1.1, **lean)
    for text, y in zip(names, places[::columns, 1].tolist()):
        ax.text(-10, y + h / 2, text, size=style.LABEL, color=style.INK, ha="right", va="center")
    for text, y in zip(ends, places[::columns, 1].tolist()):
        ax.text(width + 10, y + h / 2, text, size=style.SMALL, color=style.QUIET, va="center")
    small = _fitting_size(captions, w)
    for text, (x, y) in zip(captions, places.tolist()):
        ax.text(x + w / 2, y + h + 4, text, size=small, color=style.QUIET, ha="center", va="top")
    return Sheet(grid.figure, ax, places, (w, h))


def grid(
    images: UInt8[Array, "n c h w"],
    *,
    columns: int = 0,
    labels: Int[Array, " m"] | None = None,
    classes: Sequence[str] = (),
    title: str = "",
    note: str = "",
) -> Figure:
    """Images in a grid; with labels, a row for each class with its first images, at most `columns` or 10.

    labels: the class of each image by number; classes: the classes' names, which stand beside the rows.
    """
    images = as_pixels(images)
    _not_negative("columns", columns)
    n, c, h, w = images.shape
    title = title or style.plural(n, "image")
    if labels is None:
        columns = min(columns or columns_for(n), n)
        return sheet(images, columns, title=title, note=note).figure
    if len(labels) != n:
        raise InputError(f"labels must be one for each of {n} images; got {len(labels)}.")
    kinds, counts = np.unique(labels, return_counts=True)
    columns = min(columns or 10, int(counts.max()))
    rows = np.full((len(kinds), columns, c, h, w), 255, np.uint8)
    for row, kind in zip(rows, kinds, strict=True):
        own = images[labels == kind][:columns]
        row[: len(own)] = own
    names = [classes[k] if 0 <= k < len(classes) else str(k) for k in kinds.tolist()]
    return sheet(rows.reshape(-1, c, h, w), columns, title=title, note=note, names=names).figure


def codec_sheet(
    originals: UInt8[Array, "n c h w"],
    decoded: UInt8[Array, "n c h w"],
    latents: Float[Array, "n k i j"],
    *,
    most: int = 4,
    title: str = "",
    note: str = "",
) -> Figure:
    """Rows of originals, of what a codec makes of them, of 4 × the error on grey, and of its first channels.

    latents: 0 is grey, ±3 black and white; a channel's numbers are squares of the image's size.
    decoded: one for each original. most: channels that are shown.
    """
    originals, decoded = as_pixels(originals, "originals"), as_pixels(decoded, "decoded")
    if decoded.shape != originals.shape or len(latents) != len(originals):
        raise InputError(f"decoded and latents must be of the {len(originals)} originals; got {decoded.shape}.")
    n, c, h, w = originals.shape
    error = 128 + 4 * (decoded.astype(int) - originals)
    rows, columns = (np.arange(side) * of // side for side, of in zip((h, w), latents.shape[2:], strict=True))
    channels = (127.5 + 42.5 * latents[:, :most, rows][..., columns]).swapaxes(0, 1)[:, :, None].repeat(c, 2)
    tiles = [originals, decoded, *(part.clip(0, 255).astype(np.uint8) for part in (error, *channels))]
    names = ["original", "decoded", "4 × error", *(f"channel {k + 1}" for k in range(len(channels)))]
    return sheet(np.concatenate(tiles), n, names=names, title=title or "The codec", note=note).figure


def by_class(
    images: UInt8[Array, "n c h w"], labels: Int[Array, " n"], classes: Sequence[str], *, title: str = ""
) -> Figure:
    """All images with their classes' names: rows of one class each, or its name under each image of many classes.

    labels: the class of each image by number. A single class is named in the title. A class of more than WIDE images
    has several rows.
    """
    names = [classes[k] for k in labels.tolist()]
    kinds, counts = np.unique(labels, return_counts=True)
    if len(kinds) == 1:
        return grid(images, title=f"{names[0]} · {title}" if title else names[0])
    if len(kinds) <= ROWS and counts.max() > 1:
        wide = min(int(counts.max()), WIDE)
        rows = np.empty(len(labels), int)  # the row of each image
        heads: list[str] = []
        for kind, count in zip(kinds, counts, strict=True):
            rows[labels == kind] = len(heads) + np.arange(count) // wide
            heads += [classes[kind], *[""] * (-(-count // wide) - 1)]
        return grid(images, columns=wide, labels=rows, classes=heads, title=title)
    return sheet(as_pixels(images), columns_for(len(images)), least=HEAD, title=title, captions=names).figure


def save_png(images: UInt8[Array, "n c h w"], path: str | Path, *, columns: int = 0, factor: int = 0) -> Path:
    """Write a plain grid of images; `factor` 1 keeps their pixels as they are, 0 enlarges them to be looked at."""
    write_file(Path(path), png(images, columns=columns, factor=factor))
    return Path(path)


def png(images: UInt8[Array, "n c h w"], *, columns: int = 0, factor: int = 0) -> bytes:
    """The bytes that `save_png` writes. factor: as in `save_png`."""
    images = _pixels(images, "images", 4)
    _not_negative("columns", columns)
    _not_negative("factor", factor)
    n, c, h, w = images.shape
    columns = min(columns or columns_for(n), n)
    picture, file = mosaic(enlarge(images, factor or fitting_factor(w, h, columns)), columns), io.BytesIO()
    Image.fromarray(picture[..., 0] if c == 1 else picture).save(file, format="PNG")
    return file.getvalue()


def loss_and_speed(
    history: Sequence[Mapping[str, Any]], *, key: str = "flow", unit: str = "images", title: str = "", note: str = ""
) -> Figure:
    """The lines of metrics.jsonl: the loss, raw and smoothed, on a log axis, and images learned from a second.

    key: whose colour the curves wear, "flow" or "diffusion". unit: what is learned from, in the plural.
    history: these lines, as dicts.
    """
    step, loss, speed = (
        np.array([np.nan if line.get(name) is None else line[name] for line in history], float)
        for name in ("step", "loss", "examples_per_second")
    )
    if not (np.isfinite(step).all() and np.isfinite(loss).any()):
        raise InputError("history must be lines of metrics.jsonl, each with its step, and some with a loss.")
    known = bool(np.isfinite(speed).any())
    panels = style.axes_grid(
        1,
        1 + known,
        panel=(2.9 if known else 5.2, 2.0),
        gap=(0.5, 0),
        margin=(0.5, 0.26, 0.34, 0.44),
        title=title or "Training",
        note=note
        or "Thin: mean of the steps since the line before. Thick: smoothed. The loss never reaches 0: what "
        "matters is that it still falls.",
    )
    tint = style.colour(key)
    smooth = curves.smoothed(loss)
    views = [("loss", loss, smooth, f"loss, {smooth[-1]:.3g} at the end")]
    if known:
        views.append(
            ("speed", speed, curves.smoothed(speed), f"{unit} a second, {np.nanmedian(speed):,.0f} in the median")
        )
    for (what, raw, thick, text), ax in zip(views, panels.axes[0], strict=True):
        ax.plot(step, raw, color=tint, lw=0.6, alpha=0.35)
        ax.plot(step, thick, color=tint, lw=1.8)
        ax.set_xlim(min(0, step[0]), max(step[-1], step[0] + 1))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        style.as_curves(ax, "training step", text)
        if what == "speed":
            ax.set_ylim(0, 1.15 * np.nanpercentile(raw, 99))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        elif np.nanmin(raw) > 0:
            _log_axis(ax, float(np.nanmin(raw)), float(np.nanmax(raw)))
    return panels.figure


def _log_axis(ax: Axes, low: float, high: float) -> None:
    ax.set_yscale("log")
    ax.set_ylim(low / 1.15, high * 1.15)
    ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high / low < 100 else (1,)))
    ax.yaxis.set_major_formatter(style.tick)
    ax.yaxis.set_minor_locator(NullLocator())


def _head_size(heads: Sequence[str], width: int) -> tuple[float, bool]:
    """The heads' size in points, and whether they have to lean to fit their columns."""
    size = _fitting_size(heads, width)
    return (size, False) if size >= 6.5 else (style.SMALL, True)


def _fitting_size(texts: Sequence[str], width: int) -> float:
    """SMALL, or less where the longest text would be wider than `width` pixels."""
    longest = max((len(line) for text in texts for line in text.splitlines()), default=1)
    return min(style.SMALL, width / style.DPI / (style.EM * longest))


def _text_width(texts: Sequence[str], size: float) -> float:
    longest = max((len(line) for text in texts for line in text.splitlines()), default=0)
    return longest * size * style.EM + 0.08 if longest else 0.0


def _not_negative(what: str, value: int) -> None:
    if value < 0:
        raise InputError(f"{what} must be at least 1, or 0 to choose it; got {value}.")
