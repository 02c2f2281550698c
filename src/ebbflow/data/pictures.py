"""One picture: from the bytes of a file, whatever its format and mode, to uint8 in grey or RGB.

What a file holds decides, not how it is called. Of several frames or pages the first is read; colour profiles are
ignored; transparency is laid on white.
"""

import functools
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import InputError
from ..memory import room

# Where pillow, too, takes a picture for a decompression bomb; any other library may have switched that off.
MOST_PIXELS = 2 * (2**30 // 12)

# Pictures with more pixels are decoded one at a time, if there is room for so many bytes for each pixel.
_LARGE, _DECODING, _ALONE = 2**24, 16, threading.Lock()

_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_UPRIGHT = {  # Exif 2.32, tag 0x0112: how a picture was stored → what turns it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPicture(Exception):
    """Why a picture can't be used, to be read after its name, as in "is empty".

    passing: the system refused, so another attempt may succeed.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


def read(source: Path | bytes, size: int = 0, channels: int = 0) -> UInt8[np.ndarray, "h w c"]:
    """A file or its bytes as an array; BadPicture says why not. For `size` and `channels` see `shape`."""
    try:
        with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            return shape(_open(file, size), size, channels)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("is not a picture of a known format, or its beginning is damaged") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"has more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # pillow's readers raise a dozen kinds for a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise BadPicture(f"can't be read: {error.strerror}", passing=True) from error
        text = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadPicture(f"can't be decoded: {text}") from error


def shape(picture: Image.Image, size: int = 0, channels: int = 0) -> UInt8[np.ndarray, "h w c"]:
    """A grey or RGB picture as an array.

    size: 0 keeps the picture; else the largest square in its middle is resized to size × size, which is resizing
    the shorter side and cropping the longer one. Lanczos' filter, widened when it shrinks, leaves no aliasing.
    channels: 0 keeps those of the picture; from RGB to 1 by Rec. 601's luma.
    """
    w, h = picture.size
    if size and (w, h) != (size, size):
        side = min(w, h)
        left, top = (w - side) / 2, (h - side) / 2
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS, box)
    if channels:
        picture = picture.convert("L" if channels == 1 else "RGB")
    array = np.asarray(picture)
    return array[:, :, None] if array.ndim == 2 else array


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow neither warns nor logs: what is wrong with a picture is said once, by its name."""
    logger = logging.getLogger("PIL")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def _open(file: io.BytesIO | io.BufferedReader, size: int) -> Image.Image:
    """A file's picture, upright, in mode L or RGB."""
    if not file.read(1):
        raise BadPicture("is empty")
    file.seek(0)
    picture = Image.open(file, formats=_formats())
    if picture.format == "PNG":  # the one format with check sums, which decoding passes over
        picture.verify()
        file.seek(0)
        picture = Image.open(file, formats=("PNG",))
    if picture.width * picture.height > MOST_PIXELS:
        raise BadPicture(f"has {picture.width:,} × {picture.height:,} pixels, more than {MOST_PIXELS:,}")
    if size:  # a JPEG is then decoded at a half, a quarter or an eighth, never below twice the size
        picture.draft(None, (2 * size, 2 * size))
    pixels = picture.width * picture.height
    with _ALONE if pixels > _LARGE else nullcontext():
        try:
            room(_DECODING * pixels * (pixels > _LARGE), "it")
        except InputError as error:
            raise BadPicture(f"can't be decoded: {str(error).rstrip('.')}", passing=True) from None
        picture.load()
    try:
        stored = 1 if picture.format == "TIFF" else picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged Exif says nothing about the pixels
        stored = 1
    flat = _flat(picture)
    return flat.transpose(_UPRIGHT[stored]) if stored in _UPRIGHT else flat  # pillow itself turns a TIFF


@functools.cache
def _formats() -> tuple[str, ...]:
    """What pillow reads, the usual ones first; not EPS, which starts Ghostscript, nor WMF, which only Windows knows."""
    Image.init()
    usual = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
    return (*usual, *(name for name in Image.ID if name not in (*usual, "EPS", "WMF")))


def _flat(picture: Image.Image) -> Image.Image:
    """Mode L or RGB from any mode."""
    if picture.mode in _SIXTEEN_BITS:
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise BadPicture(f"has grey levels from {low} to {high}; 16 bits go from 0 to 65535")
        return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    if picture.mode == "F":
        grey = np.asarray(picture)
        darkest, lightest = float(grey.min()), float(grey.max())
        if not 0 <= darkest <= lightest <= 255:
            raise BadPicture(f"has grey levels from {darkest:g} to {lightest:g}; real numbers go from 0 to 1 or to 255")
        return Image.fromarray(np.rint(grey * (255 if lightest <= 1 else 1)).astype(np.uint8))
    is_grey = picture.mode in _GREY
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        plain = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)  # La, RGBa: multiplied by alpha
        rgba = picture.convert(plain).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        flat = picture.convert("L" if is_grey else "RGB")
    if picture.mode in ("P", "PA"):
        colours = np.asarray(flat)
        is_grey = bool((colours == colours[..., :1]).all())
    return flat.convert("L") if is_grey else flat
