"""One image: from the bytes of a file, whatever its format and mode, to uint8 in grey, RGB or RGBA.

What a file holds decides, not how it is called. Of several frames or pages the first is read; colour profiles are
ignored. What has more than 8 bits is scaled by `Levels`, which are those of the whole set; what is transparent is laid
on white, unless four channels are asked for.
"""

import functools
import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import InputError
from ..files import POINTER, is_pointer
from ..memory import room
from .levels import Decoded, Levels

__all__ = ["MOST_PIXELS", "BadImage", "quiet", "read_image", "shape", "transparent"]

# Where pillow, too, takes an image for a decompression bomb; any other library may have switched that off.
MOST_PIXELS = 2 * (2**30 // 12)

# Formats whose header holds their size and whose pixels pillow decodes itself. Not what wraps an image of another
# format and size (ICO, ICNS, IPTC, BLP), what is unpacked without a limit (FITS), or what starts Ghostscript (EPS).
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"),
    *("AVIF", "DDS", "DIB", "JPEG2000", "PCX", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "XBM"),
)
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_TWO_BYTES = re.compile("(RGBA?|LA);16([BLN])")
# Images with more pixels are decoded one at a time, if there is memory for this many bytes per pixel.
_LARGE, _DECODING, _ALONE = 2**24, 16, threading.Lock()

_GREY = ("1", "L", "LA", "La")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_UPRIGHT = {  # Exif 2.32, tag 0x0112: how an image was stored → what turns it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """The reason why an image can't be used, for a message after its name, as in "is empty".

    passing: the system refused, so another attempt may succeed.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


def read_image(source: Path | bytes, size: int = 0, channels: int = 0, levels: Levels | None = None) -> Decoded:
    """A file or its bytes as an array; BadImage gives the reason why not. For `size` and `channels` see `shape`.

    levels: those of the set, for an image of more than 8 bits; without them it is scaled by its own.
    """
    try:
        with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            image, own = _open(file, size, levels)
            return Decoded(shape(image, size, channels), own, transparent(image))
    except BadImage:
        raise
    except UnidentifiedImageError:
        if is_pointer(source):
            raise BadImage(POINTER) from None
        raise BadImage("is not an image of a known format, or its beginning is damaged") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # pillow's readers raise a dozen kinds for a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise BadImage(f"can't be read: {error.strerror}", passing=True) from error
        text = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadImage(f"can't be decoded: {text}") from error


def shape(image: Image.Image, size: int = 0, channels: int = 0) -> UInt8[np.ndarray, "h w c"]:
    """An image in mode L, LA, RGB or RGBA as an array.

    size: 0 keeps the image; else the largest square in its middle is resized to size × size, which is resizing
    the shorter side and cropping the longer one. Lanczos' filter, widened when it shrinks, leaves no aliasing.
    channels: 0 is grey or RGB as it is, on white; from RGB to 1 by Rec. 601's luma; 4 keeps what is transparent.
    """
    image = image.convert("RGBA") if channels == 4 else _on_white(image)
    w, h = image.size
    if size and (w, h) != (size, size):
        side = min(w, h)
        left, top = (w - side) / 2, (h - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box)
    if channels in (1, 3):
        image = image.convert("L" if channels == 1 else "RGB")
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def transparent(image: Image.Image) -> bool:
    """True if any part of an image in mode L, LA, RGB or RGBA is transparent."""
    return image.mode in ("LA", "RGBA") and image.getextrema()[-1][0] < 255  # type: ignore[index]


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow neither warns nor logs: what is wrong with an image is said once, by its name."""
    logger = logging.getLogger("PIL")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def _open(file: io.BytesIO | io.BufferedReader, size: int, levels: Levels | None) -> tuple[Image.Image, Levels | None]:
    """A file's image, upright, in mode L, LA, RGB or RGBA; and the levels of one of more than 8 bits."""
    if not file.read(1):
        raise BadImage("is empty")
    file.seek(0)
    image = Image.open(file, formats=_formats())
    kind = image.format or ""
    if kind == "PNG":  # the one format with check sums, which decoding passes over
        image.verify()
        file.seek(0)
        image = Image.open(file, formats=(kind,))
    if image.width * image.height > MOST_PIXELS:
        raise BadImage(f"has {image.width:,} × {image.height:,} pixels, more than {MOST_PIXELS:,}")
    if size:  # a JPEG is then decoded at a half, a quarter or an eighth, never below twice the size
        image.draft(None, (2 * size, 2 * size))
    pixels = image.width * image.height
    with _ALONE if pixels > _LARGE else nullcontext():
        try:
            room(_DECODING * pixels * (pixels > _LARGE), "it")
        except InputError as error:
            raise BadImage(f"can't be decoded: {str(error).rstrip('.')}", passing=True) from None
        values = _two_bytes(image, file)
        image.load()
    try:
        stored = 1 if kind == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged Exif says nothing about the pixels
        stored = 1
    if values is None and image.mode in _DEEP:
        values = np.asarray(image)[:, :, None]
    plain, own = (_plain(image), None) if values is None else _scaled(values, image.info, levels)
    return plain.transpose(_UPRIGHT[stored]) if stored in _UPRIGHT else plain, own  # pillow itself turns a TIFF


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of _FORMATS that this pillow reads, the usual ones first."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.ID)


def _two_bytes(image: Image.Image, file: io.BytesIO | io.BufferedReader) -> np.ndarray | None:
    """The values (h, w, c) of an image in colours of 16 bits, of which pillow keeps the upper byte; else None.

    "RGB;16B" takes the first byte of each number and "RGB;16L" the second, whichever is the upper one.
    """
    tiles: list[Any] = [
        ("raw", box, offset, ("RGB;16B", 0, 1))
        if (codec, args) == ("ppm", ("RGB", 65535))
        else (codec, box, offset, args)
        for codec, box, offset, args in getattr(image, "tile", ())
    ]
    raw = {str(args if isinstance(args, str) else args[0]) for *_, args in tiles if args}
    found = _TWO_BYTES.fullmatch(raw.pop()) if len(raw) == 1 else None
    if not found:
        return None

    def taken(mode: str, raw: str) -> np.ndarray:
        file.seek(0)
        again: Any = Image.open(file, formats=(image.format or "",))
        again._mode = mode
        again.tile = [(*place, raw if isinstance(args, str) else (raw, *args[1:])) for *place, args in tiles]
        return np.asarray(again).astype(np.uint16)

    if found[1] == "LA":  # in one piece: four bytes
        both = taken("RGBA", "RGBA")
        first, second = both[..., 0::2], both[..., 1::2]
    else:
        first, second = (taken(found[1], f"{found[1]};16{order}") for order in "BL")
    little = found[2] == "L" or (found[2] == "N" and sys.byteorder == "little")
    return first + 256 * second if little else 256 * first + second


def _scaled(values: np.ndarray, info: dict[Any, Any], levels: Levels | None) -> tuple[Image.Image, Levels]:
    """Values (h, w, c) of more than 8 bits as an image of 8, and the levels of what can be seen of them."""
    if wrong := int((~np.isfinite(values)).sum()):
        raise BadImage(f"holds {wrong} of {values.size} values that are not finite")
    alpha = None
    if values.shape[2] in (2, 4):
        values, alpha = values[:, :, :-1], Levels(0, 65535).scaled(values[:, :, -1:])
    elif "transparency" in info:  # the one value that is clear
        alpha = np.where((values == info["transparency"]).all(2, keepdims=True), 0, 255).astype(np.uint8)
    seen = values if alpha is None or not alpha.any() else values[alpha[:, :, 0] > 0]
    own = Levels(float(seen.min()), float(seen.max()))
    bands = (levels or own).scaled(values)
    array = bands if alpha is None else np.concatenate([bands, alpha], 2)
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array), own


def _plain(image: Image.Image) -> Image.Image:
    """Mode L, LA, RGB or RGBA from any mode of 8 bits."""
    is_grey = image.mode in _GREY
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)  # La, RGBa: multiplied by alpha
        found = image.convert(plain).convert("RGBA")
    else:
        found = image.convert("L" if is_grey else "RGB")
    if image.mode in ("P", "PA"):
        colours = np.asarray(_on_white(found))
        is_grey = bool((colours == colours[..., :1]).all())
    return found.convert("LA" if found.mode == "RGBA" else "L") if is_grey else found


def _on_white(image: Image.Image) -> Image.Image:
    """Mode L or RGB from L, LA, RGB or RGBA."""
    if image.mode not in ("LA", "RGBA"):
        return image
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return flat.convert("L" if image.mode == "LA" else "RGB")
