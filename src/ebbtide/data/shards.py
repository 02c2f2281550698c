"""Images on the disk: rows of uint8 in files of the cache, read by their places and checked as they are read.

A file is a shard: its rows, a check sum of each, and what was found while they were made. It appears whole or not at
all, so whoever makes the next one may be killed; what is missing or damaged is made again.
"""

import hashlib
import json
import math
import os
import zlib
from bisect import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from shutil import disk_usage
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int, UInt8
from safetensors import SafetensorError
from torch import Tensor

from ..cache import NOTE, cache_folder, fingerprint, put, unshared
from ..errors import InputError, StorageError
from ..files import LOCK, remove
from ..memory import room

__all__ = [
    "MOST", "SIZE", "Damaged", "Shard", "Shards", "chosen_of", "holding", "pieces", "read_shard", "space",
    "write_shard",
]  # fmt: skip

SIZE = 2**26  # bytes of a shard, which are in memory while it is made
MOST = 512  # shards of a set; of a larger set, they are larger


@dataclass(frozen=True, eq=False)
class Shard:
    """A file: where its rows begin in it, their shape, the check sum of each, and notes on how they were made."""

    file: Path
    begin: int
    shape: tuple[int, ...]
    sums: Int[Tensor, " k"]
    notes: dict[str, Any]


def pieces(n: int, bytes_each: int) -> list[range]:
    """The rows of each shard of n rows."""
    many = max(1, SIZE // bytes_each, -(-n // MOST))
    return [range(first, min(first + many, n)) for first in range(0, n, many)]


class Damaged(InputError):
    """A shard isn't what it was when it was made."""


def space(folder: Path, need: int, what: str) -> None:
    """Refuse to write more bytes than the disk has left, before it is full."""
    left = disk_usage(folder).free
    if need > left:
        raise StorageError(
            f"{what}: its images take {need / 1e9:.3g} GB, and {left / 1e9:.3g} GB are left for the cache, "
            f"{folder.parent}; EBBTIDE_CACHE names another folder."
        )


@contextmanager
def holding(name: str, state: str, of: str) -> Iterator[Path]:
    """The folder of a set in the cache, for this process alone while it lasts: others wait.

    state, of: a fingerprint and the name of what the rows are made from; shards of another state are removed. A folder
    in which nothing was made goes.
    """
    folder = cache_folder() / name
    for one in (folder.parent, folder):
        one.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(folder / LOCK):
        note, now = folder / NOTE, {"state": state, "of": of}
        known = None
        with suppress(OSError, ValueError):
            known = json.loads(note.read_bytes()) if unshared(note) else None
        if known != now:
            for old in folder.iterdir():
                if old.name != LOCK:
                    remove(old)
        try:
            if known != now:
                put(note, lambda file: file.write_text(json.dumps(now)))
            os.utime(note)
            yield folder
        finally:
            if not any(folder.glob("*.safetensors")):
                remove(folder)


def write_shard(file: Path, x: UInt8[Tensor, "k *d"], notes: dict[str, Any]) -> Shard:
    """A shard of these rows; StorageError where the disk refuses, and then no file."""
    from safetensors.torch import save_file

    sums = torch.tensor([zlib.crc32(row.data) for row in x.contiguous().numpy()], dtype=torch.int64)
    text = json.dumps(notes)
    tensors, about = {"x": x.contiguous(), "sums": sums}, {"notes": text, "sum": _sum(text, x.shape, sums)}
    try:
        put(file, lambda made: save_file(tensors, made, about))
    except Exception as error:
        if not isinstance(error, OSError | SafetensorError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"The cache, {file.parent}, refuses more images: {reason}; those in it are kept, and EBBTIDE_CACHE names "
            "another folder."
        ) from error
    found = read_shard(file)
    if found is None:
        raise StorageError(f"{file} does not stay as it is written.")
    return found


def read_shard(file: Path) -> Shard | None:
    """An intact shard, as far as can be seen without reading its rows; None for one that is damaged or not there.

    StorageError where the system refuses to read it, which may pass: it is kept.
    """
    try:
        with open(file, "rb") as opened:
            if not unshared(file):
                return None
            size = int.from_bytes(opened.read(8), "little")
            if not 0 < size < 2**24:
                return None
            header = json.loads(opened.read(size))
            (begin, end), shape = header["x"]["data_offsets"], tuple(header["x"]["shape"])
            first, last = header["sums"]["data_offsets"]
            whole = max(end, last) + 8 + size == file.stat().st_size
            opened.seek(8 + size + first)
            sums = torch.frombuffer(bytearray(opened.read(last - first)), dtype=torch.int64) if last > first else None
            sums = torch.empty(0, dtype=torch.int64) if sums is None else sums
            about = header["__metadata__"]
            fits = whole and end - begin == math.prod(shape) and len(sums) == shape[0] and len(shape) == 4
            fits = fits and header["x"]["dtype"] == "U8" and about["sum"] == _sum(about["notes"], shape, sums)
            return Shard(file, 8 + size + begin, shape, sums, json.loads(about["notes"])) if fits else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{file} can't be read ({error.strerror or error}); it is kept, since that may pass; without the file it "
            "is made again."
        ) from error
    except Exception:  # open to others, damaged
        return None


def _sum(notes: str, shape: Sequence[int], sums: Tensor) -> str:
    return fingerprint(notes, tuple(shape), tensors=[sums])


class _Opened(dict[int, BinaryIO]):
    """Files that are open, as long as a set needs them."""

    def __del__(self) -> None:
        for file in self.values():
            file.close()


@dataclass(eq=False)
class Shards:
    """The rows of shards as one set of images, (n, c, h, w), of which those that are asked for are read.

    places: of the rows that belong to it; all unless given. Grey rows of a set in colour are read as colour.
    """

    shards: Sequence[Shard]
    where: str
    places: Int[Tensor, " n"] | None = None
    _opened: "_Opened" = field(default_factory=lambda: _Opened())
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.ends = [*accumulate(one.shape[0] for one in self.shards)]
        known = [one.shape for one in self.shards if one.shape[0]]
        self.sides = (max((shape[1] for shape in known), default=1), *(known[0][2:] if known else (0, 0)))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.sides)

    @property
    def nbytes(self) -> int:
        """Bytes of its rows."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    @property
    def ndim(self) -> int:
        return 1 + len(self.sides)

    def __len__(self) -> int:
        return self.ends[-1] if self.places is None else len(self.places)

    def __getitem__(self, chosen: Tensor | slice) -> UInt8[Tensor, " k c h w"]:
        """The rows at these places, or where a mask is true, in memory."""
        everything = torch.arange(len(self))
        return self.index_select(0, everything[chosen])

    def part(self, chosen: Tensor) -> "Shards":
        """These rows as a set, not read."""
        places = torch.arange(len(self)) if self.places is None else self.places
        return replace(self, places=places[chosen])

    def split(self, size: int) -> Iterator[UInt8[Tensor, " k c h w"]]:
        """All rows, a number at a time."""
        return (self[slice(first, first + size)] for first in range(0, len(self), size))

    def tensor(self) -> UInt8[Tensor, " n c h w"]:
        """All rows in memory; InputError where they don't fit."""
        room(self.nbytes, f"{self.where}: {len(self)} images", "leave them on the disk")
        return self[slice(None)]

    def index_select(self, dim: int, places: Int[Tensor, " k"]) -> UInt8[Tensor, " k c h w"]:
        """The rows at these places, in the order of the disk as they are read; InputError names a damaged file."""
        rows = (places.cpu() if self.places is None else self.places[places.cpu()]).tolist()
        x = np.empty((len(rows), *self.sides), np.uint8)
        with self._lock:
            for k in sorted(range(len(rows)), key=rows.__getitem__):
                i = bisect(self.ends, rows[k])
                one = self.shards[i]
                row = rows[k] - self.ends[i] + one.shape[0]
                to = x[k, : one.shape[1]]
                self._read(i, one, row, to)
                x[k, one.shape[1] :] = to[:1]
        return torch.from_numpy(x)

    def _read(self, i: int, one: Shard, row: int, to: np.ndarray) -> None:
        size = math.prod(one.shape[1:])
        try:
            file = self._opened.get(i) or self._opened.setdefault(i, open(one.file, "rb", buffering=0))  # noqa: SIM115
            file.seek(one.begin + row * size)
            if file.readinto(to.reshape(-1).data) == size and zlib.crc32(to.data) == int(one.sums[row]):  # type: ignore[attr-defined]
                return
            reason = "is damaged"
        except FileNotFoundError:
            reason = "is gone"
        except OSError as error:  # which may pass
            refusal = error.strerror or error
            raise InputError(f"{self.where}: {one.file} can't be read ({refusal}), and is kept.") from error
        with suppress(OSError):
            one.file.unlink()
        raise Damaged(f"{self.where}: {one.file} {reason}; only that file is made again when the run goes on.")

    def content(self) -> str:
        """The sha256 of all rows, found once and kept beside them."""
        places = b"" if self.places is None else self.places.numpy().tobytes()
        about = hashlib.sha256(places + b"".join(one.sums.numpy().tobytes() for one in self.shards)).hexdigest()
        note = self.shards[0].file.with_name(f"content-{about[:32]}.txt")
        with suppress(OSError):
            if unshared(note):
                return note.read_text()
        digest = hashlib.sha256()
        for part in self.split(256):
            digest.update(part.numpy().data)
        with suppress(OSError):
            put(note, lambda file: file.write_text(digest.hexdigest()))
        return digest.hexdigest()


def chosen_of(x: UInt8[Tensor, "n c h w"] | Shards, chosen: Tensor) -> UInt8[Tensor, "k c h w"] | Shards:
    """The images at these places, or where a mask is true; those on the disk stay there."""
    return x.part(chosen) if isinstance(x, Shards) else x[chosen]
