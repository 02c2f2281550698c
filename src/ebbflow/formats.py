"""The format of a file, by its first bytes and not by its name; nothing is decoded, nor imported without need."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Header(NamedTuple):
    """The type and shape of an array in a .npz file."""

    dtype: "np.dtype"
    shape: tuple[int, ...]

    @property
    def pictures(self) -> bool:
        """Whether it looks like (n, h, w) or (n, h, w, c) pictures."""
        return str(self.dtype) == "uint8" and len(self.shape) in (3, 4)


def is_idx(path: Path) -> bool:
    """Whether a file starts as idx files of uint8 do, itself or under gzip: two zero bytes and the type's code, 8."""
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


def arrays(path: Path) -> dict[str, Header]:
    """The arrays of a .npz file, whatever it is called; none where it is another kind of file, or damaged."""
    if not path.is_file():
        return {}
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return {}
    from zipfile import ZipFile

    from numpy.lib import format as npy

    found = {}
    try:
        with ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as member:
                        read = (
                            npy.read_array_header_1_0 if npy.read_magic(member) == (1, 0) else npy.read_array_header_2_0
                        )
                        shape, _, dtype = read(member)
                    found[name.removesuffix(".npy")] = Header(dtype, shape)
    except Exception:  # zipfile, zlib and numpy raise a dozen kinds for a damaged file
        return {}
    return found
