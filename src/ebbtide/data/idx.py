"""idx files, the format of MNIST: images in one file, their labels in one beside it, plain or under gzip."""

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import is_idx
from ..memory import COPIES, room
from ..specs import listed
from .gather import Found, joined
from .split import named_parts, part_of

__all__ = ["find", "find_idx", "matches", "read_idx"]

_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
_NAME = re.compile(r"(.*)images([.-])idx3-ubyte(?:\.gz)?")


def read_idx(path: Path, label: str) -> Found:
    """One file of images and, if it is there, that of their labels."""
    if label:
        raise InputError(f"label names an array or column; {path} has its labels in a file beside it. Got {label!r}.")
    images = _array(path, 3)
    if 0 in images.shape:
        raise InputError(f"{path} must hold images (n, h, w); it holds {images.shape}.")
    found = _NAME.fullmatch(path.name)
    beside = [path.with_name(f"{found[1]}labels{found[2]}idx1-ubyte{end}") for end in ("", ".gz")] if found else []
    for file in filter(Path.exists, beside):
        labels = _array(file, 1)
        if labels.shape != images.shape[:1]:
            raise InputError(f"{file} must hold {len(images)} labels; it holds {labels.shape}.")
        return Found(images[..., None], labels)
    return Found(images[..., None])


def find_idx(folder: Path, label: str) -> Found:
    """The training part and, if there are such, the held-out parts behind it."""
    files = find(folder)
    if len(files) == 1:
        return read_idx(next(iter(files.values())), label)
    found = None
    if len({part_of(name)[0] for name in files}) == len(files):
        every = {name: read_idx(file, label) for name, file in files.items()}
        found = named_parts({name: len(np.asarray(part.images)) for name, part in every.items()}, str(folder))
    if not found:
        raise InputError(f"{folder} holds several sets, {listed(sorted(files))}; name one of its files.")
    train, held = ([every[name] for name in names] for names in found)
    return joined(train, held, str(folder))


def find(folder: Path) -> dict[str, Path]:
    """Prefix before "images" in their names → the files of images, unzipped ones first."""
    found = [(match[1], file) for file in sorted(folder.iterdir()) if (match := _NAME.fullmatch(file.name))]
    return {name.rstrip("-._"): file for name, file in reversed(found)}


def matches(path: Path) -> bool:
    """True for an idx file, or one named like MNIST's, so that a damaged one is reported as such."""
    return is_idx(path) or bool(_NAME.fullmatch(path.name))


def _array(path: Path, dimensions: int) -> np.ndarray:
    """Magic 0, 0, type, dimensions; each dimension as a big-endian uint32; the numbers (LeCun, Cortes & Burges)."""
    try:
        with open(path, "rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            most = path.stat().st_size * (1032 if zipped else 1)  # the largest factor of deflate
            plain.seek(0)
            with gzip.open(plain) if zipped else plain as file:
                return _numbers(path, file, dimensions, most)
    except _DAMAGED as error:
        raise InputError(f"{path} is damaged or cut short ({type(error).__name__}).") from error


def _numbers(path: Path, file: io.BufferedIOBase, dimensions: int, most: int) -> np.ndarray:
    """As many as the head says, for which there must be room, and no more: a small gzip may go on for ever."""
    head = file.read(4)
    if head[:2] != b"\0\0" or len(head) < 4:
        raise InputError(f"{path} is {'not an idx file' if head else 'empty'}.")
    if head[2] != 8:
        raise InputError(f"{path} must hold uint8 (type 8 in its third byte); got {head[2]}.")
    if head[3] != dimensions:
        raise InputError(f"{path} must hold {_HOLDS[dimensions]}; it has {head[3]} dimensions.")
    start, rest = 4 + 4 * dimensions, file.read(4 * dimensions)
    if len(rest) < 4 * dimensions:
        raise InputError(f"{path} is cut short: its head takes {start} bytes and it has {4 + len(rest)}.")
    sizes = np.frombuffer(rest, ">u4").tolist()
    count, data = math.prod(sizes), bytearray()
    room(COPIES * min(count, most), str(path))
    while part := file.read(min(count - len(data), 2**20)):
        data += part
    if len(data) < count or file.read(1):
        held = start + len(data) if len(data) < count else "more"
        raise InputError(f"{path} is damaged or cut short: {sizes} takes {start + count} bytes and it has {held}.")
    return np.frombuffer(data, np.uint8).reshape(sizes)


_HOLDS = {1: "labels (n,)", 3: "images (n, h, w)"}
