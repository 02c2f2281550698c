"""Arrays in .npy and .npz files: what each is by its header, before any of it is read. Nothing is ever unpickled."""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from numpy.lib import format as npy_format

from .errors import InputError
from .memory import room

__all__ = ["Stored", "damage", "npy", "npz"]

_MAGIC = b"\x93NUMPY"
_TOGETHER = 2**24  # bytes that are read at once
_LONGEST = 10_000  # bytes of a header: numpy's own limit, which it knows only once it has read them all


@dataclass(frozen=True, eq=False)
class Stored:
    """An array that is still in its file. `where` is what errors call it."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: Path
    opened: Callable[[], Any]
    fortran: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def images(self) -> bool:
        """True for the shape and type of (n, h, w) or (n, h, w, c) images."""
        return self.dtype == np.uint8 and self.ndim in (3, 4)

    @property
    def kind(self) -> str:
        """A description of its numbers, for a message after "got"."""
        return "pickled objects, which are never loaded" if self.dtype.hasobject else f"dtype {str(self.dtype)[:40]}"

    def read(self, each: int) -> np.ndarray:
        """The array, if there is room for it and for `each` bytes more for each of its numbers."""
        if self.dtype.hasobject:
            raise InputError(f"{self.where} can't be used: got {self.kind}.")
        room(math.prod(self.shape) * (self.dtype.itemsize + each), self.where)
        with damage(self.path), self.opened() as file:
            array: np.ndarray = npy_format.read_array(file, allow_pickle=False)
        return array

    def parts(self, pieces: Iterable[range]) -> Iterator[np.ndarray]:
        """The rows of each of these ranges, which rise, one after the other; the file is read once, from its beginning.

        pieces: the ranges. An array in Fortran's order is read as a whole.
        """
        if self.fortran:
            whole = self.read(0)
            yield from (whole[piece.start : piece.stop] for piece in pieces)
            return
        each, at = math.prod(self.shape[1:]) * self.dtype.itemsize, 0
        with damage(self.path), self.opened() as file:
            _header(file, 2**63)
            for piece in pieces:
                room(len(piece) * each, self.where)
                for first in range(at * each, piece.start * each, _TOGETHER):  # not passed over: its sum is checked
                    file.read(min(_TOGETHER, piece.start * each - first))
                part, at = bytearray(len(piece) * each), piece.stop
                for first in range(0, len(part), _TOGETHER):
                    read = file.read(min(_TOGETHER, len(part) - first))
                    part[first : first + _TOGETHER] = read
                if len(part) < len(piece) * each:
                    raise ValueError("the file ends before its array")
                yield np.frombuffer(part, self.dtype).reshape(len(piece), *self.shape[1:])


def npy(path: Path) -> Stored:
    """The array of a .npy file."""
    _begins(path, _MAGIC)
    with damage(path), open(path, "rb") as file:
        shape, fortran, dtype = _header(file, path.stat().st_size)
    return Stored(str(path), shape, dtype, path, lambda: open(path, "rb"), fortran)


def npz(path: Path) -> dict[str, Stored]:
    """The arrays of a .npz file by name; what else lies in it is passed over."""
    _begins(path, b"PK")
    found = {}
    with damage(path), ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # one byte of others may be millions unpacked
                raise InputError(f"{path} is packed by another method than numpy's.")
            with archive.open(info) as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    continue
            with archive.open(info) as file:
                shape, fortran, dtype = _header(file, info.file_size)
            name = info.filename.removesuffix(".npy")
            where, opened = f"{path}, array {name!r}", _member(path, info.filename)
            found[name] = Stored(where, shape, dtype, path, opened, fortran)
    return found


def _member(path: Path, name: str) -> Callable[[], Any]:
    return lambda: ZipFile(path).open(name)  # which holds the archive open as long as it is


def _header(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of an array that takes `size` bytes with its header; ValueError where they can't be true.

    Order: True for Fortran's.
    """
    version = npy_format.read_magic(file)
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    if (count := int.from_bytes(length, "little")) > _LONGEST:
        raise ValueError("the header is too long")
    head = io.BytesIO(length + file.read(count))
    read = npy_format.read_array_header_1_0 if width == 2 else npy_format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    begin = len(_MAGIC) + 2 + width + count
    fits = dtype.hasobject or begin + math.prod(shape) * dtype.itemsize <= size
    if min(shape, default=0) < 0 or not fits:
        raise ValueError("the header says more than there is")
    return shape, fortran, dtype


def _begins(path: Path, magic: bytes) -> None:
    with open(path, "rb") as file:
        if (start := file.read(len(magic))) != magic:
            raise InputError(f"{path} is {f'not a {path.suffix} file' if start else 'empty'}.")


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Say of whatever numpy, zipfile and zlib raise, a dozen kinds, that the file is damaged."""
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except Exception as error:
        raise InputError(f"{path} is damaged or cut short ({type(error).__name__}).") from error
