"""The format of a file, by its first bytes and not by its name; nothing is decoded, nor imported without need."""

import io
import math
from pathlib import Path
from typing import Any

Header = tuple[tuple[int, ...], Any]  # an array's shape and numpy.dtype
NPY = b"\x93NUMPY"
_LONGEST = 10_000  # bytes of a header: numpy's own limit, which it knows only once it has read them all


def is_idx(path: Path) -> bool:
    """Whether a file starts as idx files of uint8 do, itself or under gzip: two zero bytes and the type's code, 8."""
    start = _start(path, 3)
    if start[:2] == b"\x1f\x8b":
        import gzip
        import zlib

        try:
            with gzip.open(path) as unzipped:
                start = unzipped.read(3)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
    return start == b"\0\0\x08"


def arrays(path: Path) -> dict[str, Header]:
    """The arrays of a .npz file, whatever it is called; none of another or a damaged file."""
    if _start(path, 2) != b"PK":
        return {}
    from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

    found = {}
    try:
        with ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy") and info.compress_type in (ZIP_STORED, ZIP_DEFLATED):
                    with archive.open(info) as file:
                        found[info.filename.removesuffix(".npy")] = npy_header(file, info.file_size)
    except Exception:  # zipfile, zlib and numpy raise a dozen kinds for a damaged file
        return {}
    return found


def are_pictures(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether an array looks like (n, h, w) or (n, h, w, c) pictures."""
    return str(dtype) == "uint8" and len(shape) in (3, 4)


def npy_header(file: Any, size: int) -> Header:
    """The header of an array that takes `size` bytes with it; ValueError where it can't be true."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    if (count := int.from_bytes(length, "little")) > _LONGEST:
        raise ValueError("the header is too long")
    head = io.BytesIO(length + file.read(count))
    read = npy.read_array_header_1_0 if width == 2 else npy.read_array_header_2_0
    shape, _, dtype = read(head)
    begin = len(NPY) + 2 + width + count
    fits = dtype.hasobject or begin + math.prod(shape) * dtype.itemsize <= size
    if min(shape, default=0) < 0 or not fits:
        raise ValueError("the header says more than there is")
    return shape, dtype


def _start(path: Path, count: int) -> bytes:
    """The first bytes of a file, of anything else none."""
    if not path.is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(count)
