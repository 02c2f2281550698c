"""The format of a file, by its first bytes and not by its name; nothing is decoded, nor imported without need."""

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from .arrays import Stored

__all__ = ["arrays", "is_idx"]


def is_idx(path: Path) -> bool:
    """True if a file, plain or gzipped, starts like idx files of uint8: two zero bytes and the type's code, 8."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(3)
    if start[:2] == b"\x1f\x8b":
        import gzip
        import zlib

        try:
            with gzip.open(path) as unzipped:
                start = unzipped.read(3)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
    return start == b"\0\0\x08"


def arrays(path: Path) -> "dict[str, Stored]":
    """The arrays of a .npz file, whatever it is called; none where it is another kind of file, or damaged."""
    if not path.is_file():
        return {}
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return {}
    from .arrays import npz

    try:
        return npz(path)
    except InputError:
        return {}
