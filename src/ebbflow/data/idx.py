"""idx files, the format of MNIST: pictures in one file, their labels in one beside it, plain or under gzip."""

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import is_idx
from .files import listed
from .gather import Found, joined
from .split import part_of, parts

_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
_NAME = re.compile(r"(.*)images([.-])idx3-ubyte(?:\.gz)?")


def read(path: Path, label: str) -> Found:
    """One file of pictures and, if it is there, that of their labels."""
    if label:
        raise InputError(f"label names an array or column; {path} has its labels in a file beside it. Got {label!r}.")
    images = _array(path)
    if images.ndim != 3 or 0 in images.shape:
        raise InputError(f"{path} must hold pictures (n, h, w); it holds {images.shape}.")
    found = _NAME.fullmatch(path.name)
    beside = [path.with_name(f"{found[1]}labels{found[2]}idx1-ubyte{end}") for end in ("", ".gz")] if found else []
    for file in filter(Path.exists, beside):
        labels = _array(file)
        if labels.shape != images.shape[:1]:
            raise InputError(f"{file} must hold {len(images)} labels; it holds {labels.shape}.")
        return Found(images[..., None], labels)
    return Found(images[..., None])


def read_folder(folder: Path, label: str) -> Found:
    """The training part and, if there are such, the held-out parts behind it."""
    files = find(folder)
    if len(files) == 1:
        return read(next(iter(files.values())), label)
    found = None
    if len({part_of(name)[0] for name in files}) == len(files):
        every = {name: read(file, label) for name, file in files.items()}
        found = parts({name: len(np.asarray(part.pictures)) for name, part in every.items()}, str(folder))
    if not found:
        raise InputError(f"{folder} holds several sets, {listed(sorted(files))}; name one of its files.")
    train, held = ([every[name] for name in names] for names in found)
    return joined(train, held, str(folder))


def find(folder: Path) -> dict[str, Path]:
    """What comes before "images" in their names → the files of pictures, unzipped ones first."""
    found = [(match[1], file) for file in sorted(folder.iterdir()) if (match := _NAME.fullmatch(file.name))]
    return {name.rstrip("-._"): file for name, file in reversed(found)}


def matches(path: Path) -> bool:
    """Whether it is an idx file, or called as those of MNIST are, so that a damaged one is refused as such."""
    return is_idx(path) or bool(_NAME.fullmatch(path.name))


def _array(path: Path) -> np.ndarray:
    """Magic 0, 0, type, dimensions; each dimension as a big-endian uint32; the numbers (LeCun, Cortes & Burges)."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    opened: Callable[..., Any] = gzip.open if zipped else open
    try:
        with opened(path, "rb") as file:
            data = file.read()
    except _DAMAGED as error:
        raise InputError(f"{path} is damaged or cut short ({type(error).__name__}).") from error
    if data[:2] != b"\0\0" or len(data) < 4:
        raise InputError(f"{path} is {'not an idx file' if data else 'empty'}.")
    code, dimensions = data[2], data[3]
    if code != 8:
        raise InputError(f"{path} must hold uint8 (type 8 in its third byte); got {code}.")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise InputError(f"{path} is cut short: its head takes {start} bytes and it has {len(data)}.")
    sizes = np.frombuffer(data, ">u4", dimensions, offset=4).tolist()
    expected = start + int(np.prod(sizes, dtype=object))
    if len(data) != expected:
        raise InputError(f"{path} is damaged or cut short: {sizes} takes {expected} bytes and it has {len(data)}.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)
