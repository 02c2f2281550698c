"""Examples on the disk: rows of bytes or float32 in files of the cache, read by their places, checked as they are read.

A file is a shard: its rows, a check sum of each, and what was found while they were made. It appears whole or not at
all, so whoever makes the next one may be killed; what is missing or damaged is made again.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from shutil import disk_usage
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int, Num
from safetensors import SafetensorError
from torch import Tensor

from ..cache import NOTE, cache_folder, fingerprint, put, unshared
from ..errors import InputError, StorageError
from ..files import LOCK, remove
from ..memory import in_bytes, room

__all__ = [
    "ATTEMPTS",
    "LARGE",
    "MOST",
    "SIZE",
    "Damaged",
    "Derived",
    "OnDisk",
    "Shard",
    "Shards",
    "chosen_of",
    "file_of",
    "found_on",
    "holding",
    "pieces",
    "read_shard",
    "shards_in",
    "space",
    "write_shard",
]  # fmt: skip

ATTEMPTS = 3  # at reading shards, of which a damaged one is made again
LARGE = 2**28  # bytes of a set beyond which it is read as it is needed, where nothing is trained
SIZE = 2**26  # bytes of a shard, which are in memory while it is made
MOST = 512  # shards of a set; of a larger set, they are larger
_READ = 2**30  # bytes that are read at once; the system reads no more than twice as many
_KINDS = {"U8": np.uint8, "F32": np.float32}  # of rows, as safetensors calls them


@dataclass(frozen=True, eq=False)
class Shard:
    """A file: where its rows begin in it, their type and shape, the check sum of each, notes on their making."""

    file: Path
    begin: int
    kind: str
    shape: tuple[int, ...]
    sums: Int[np.ndarray, " k"]
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
            f"{what}: it takes {in_bytes(need)}, and {in_bytes(left)} are left for the cache, {folder.parent}; "
            "EBBTIDE_CACHE names another folder."
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
        with suppress(OSError, ValueError, RecursionError):
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


def file_of(folder: Path, piece: range) -> Path:
    """The file of rows in a set's folder. piece: the rows."""
    return folder / f"{piece.start:012d}.safetensors"


def shards_in(folder: Path) -> dict[int, Shard]:
    """The intact shards in a set's folder, by the first of their rows."""
    found = map(read_shard, sorted(folder.glob("*.safetensors")))
    return {one.notes["rows"][0]: one for one in found if one is not None}


def write_shard(file: Path, x: Num[Tensor, "k *d"], notes: dict[str, Any]) -> Shard:
    """A shard of these rows; StorageError where the disk refuses, and then no file."""
    from safetensors.torch import save_file

    x = x.contiguous()
    sums = np.array(_sums(_bytes(x.numpy()), math.prod(x.shape[1:]) * x.itemsize), np.int64)
    text = json.dumps(notes)
    tensors, about = {"x": x, "sums": torch.from_numpy(sums)}, {"notes": text, "sum": _sum(text, x.shape, sums)}
    try:
        put(file, lambda made: save_file(tensors, made, about))
    except Exception as error:
        if not isinstance(error, OSError | SafetensorError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"The cache, {file.parent}, refuses more: {reason}; what is in it is kept, and EBBTIDE_CACHE names another "
            "folder."
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
        if not unshared(file):  # before it is opened: a pipe would be waited for
            return None
        with open(file, "rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if not 0 < size < 2**24:
                return None
            header = json.loads(opened.read(size))
            (begin, end), shape = header["x"]["data_offsets"], tuple(header["x"]["shape"])
            first, last = header["sums"]["data_offsets"]
            whole = max(end, last) + 8 + size == file.stat().st_size
            opened.seek(8 + size + first)
            sums = np.frombuffer(opened.read(last - first), np.int64)
            about = header["__metadata__"]
            kind = header["x"]["dtype"]
            fits = whole and end - begin == math.prod(shape) * np.dtype(_KINDS[kind]).itemsize
            fits = fits and len(sums) == shape[0] and about["sum"] == _sum(about["notes"], shape, sums)
            return Shard(file, 8 + size + begin, kind, shape, sums, json.loads(about["notes"])) if fits else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{file} can't be read ({error.strerror or error}); it is kept, since that may pass; without the file it "
            "is made again."
        ) from error
    except Exception:  # open to others, damaged
        return None


def _sum(notes: str, shape: Sequence[int], sums: Int[np.ndarray, " k"]) -> str:
    return fingerprint(notes, tuple(shape), tensors=[torch.from_numpy(sums.copy())])


def _sums(rows: memoryview, size: int) -> list[int]:
    """The check sums of rows of this size."""
    return [zlib.crc32(rows[begin : begin + size]) for begin in range(0, len(rows), size or 1)]


def _bytes(x: np.ndarray) -> memoryview:
    return x.reshape(-1).view(np.uint8).data


def _runs(x: Int[np.ndarray, " k"], step: int) -> Iterator[tuple[int, int]]:
    """The begin and end of each stretch of numbers that rise by the step."""
    cuts = np.flatnonzero(np.diff(x) != step) + 1
    return pairwise([0, *cuts.tolist(), len(x)] if len(x) else [])


class OnDisk:
    """Rows on the disk, of which those that are asked for are read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    where: str
    shards: Sequence[Shard]

    def index_select(self, dim: int, places: Int[Tensor, " k"]) -> Num[Tensor, " k *d"]:
        """The rows at these places, in memory; InputError names a damaged file."""
        raise NotImplementedError

    def part(self, chosen: Tensor) -> "OnDisk":
        """The rows at these places, or where a mask is true, as a set, not read."""
        raise NotImplementedError

    def marks(self) -> bytes:
        """The check sums of its rows, and which these are."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of its rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def whole(self) -> bool:
        """True if its files are all there: one that is found to be damaged is removed."""
        return all(one.file.exists() for one in self.shards)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Tensor | slice) -> Num[Tensor, " k *d"]:
        """The rows at these places, or where a mask is true, in memory."""
        if isinstance(chosen, slice):
            return self.index_select(0, torch.arange(*chosen.indices(len(self))))
        return self.index_select(0, torch.arange(len(self))[chosen])

    def split(self, size: int) -> Iterator[Num[Tensor, " k *d"]]:
        """All rows, a number at a time."""
        return (self[slice(first, first + size)] for first in range(0, len(self), size))

    def tensor(self) -> Num[Tensor, " n *d"]:
        """All rows in memory; InputError where they don't fit."""
        room(self.nbytes, f"{self.where}: {len(self)} examples", "leave them on the disk")
        return self[slice(None)]

    def content(self) -> str:
        """The sha256 of all rows, of bytes, found once and kept beside them."""
        about = hashlib.sha256(self.marks()).hexdigest()
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


def found_on(data_on: str, read: Any, own: tuple[Any, ...], stored: Callable[[Any], Iterable[Any]]) -> Any:
    """The set that `read`, a cached function, finds: on the disk, or in memory, as it is asked for.

    data_on: as in training. read: called with `own`, whether all stays on the disk, and the bytes beyond which it does
    in any case. stored: the arrays of what it finds.
    """
    found = read(*own, data_on == "disk", LARGE)
    on_disk = [x for x in stored(found) if isinstance(x, OnDisk)]
    if not all(x.whole for x in on_disk):  # damaged since, and so made again
        read.cache_clear()
        return found_on(data_on, read, own, stored)
    return read(*own, False, 0) if on_disk and data_on not in ("", "disk") else found


class _Opened(dict[int, BinaryIO]):
    """Files that are open, as long as a set needs them."""

    def __del__(self) -> None:
        for file in self.values():
            file.close()


@dataclass(eq=False)
class Shards(OnDisk):
    """The rows of shards as one set, (n, *d).

    places: of the rows that belong to it; all unless given. Grey rows of a set of images in colour, (n, c, h, w), are
    read as colour.
    """

    shards: Sequence[Shard]
    where: str
    places: Int[Tensor, " n"] | None = None
    _opened: "_Opened" = field(default_factory=lambda: _Opened())
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.ends = [*accumulate(one.shape[0] for one in self.shards)]
        known = [one for one in self.shards if one.shape[0]]
        self.type = _KINDS[known[0].kind if known else "U8"]
        self.dtype = torch.from_numpy(np.empty(0, self.type)).dtype
        sides = (max((one.shape[1] for one in known), default=1), *(known[0].shape[2:] if known else (0, 0)))
        self.shape = (self.ends[-1] if self.places is None else len(self.places), *sides)

    def part(self, chosen: Tensor) -> "Shards":
        if self.places is None and chosen.dtype == torch.int64:  # one tensor for all sets of which the same is chosen
            return replace(self, places=chosen)
        places = torch.arange(len(self)) if self.places is None else self.places
        return replace(self, places=places[chosen])

    def marks(self) -> bytes:
        places = b"" if self.places is None else self.places.numpy().tobytes()
        return places + b"".join(one.sums.tobytes() for one in self.shards)

    def index_select(self, dim: int, places: Int[Tensor, " k"]) -> Num[Tensor, " k *d"]:
        rows = places.cpu() if self.places is None else self.places[places.cpu()]
        wanted, back = (part.numpy() for part in rows.unique(return_inverse=True))  # in the order of the disk
        x = np.empty((len(wanted), *self.shape[1:]), self.type)
        within = np.searchsorted(self.ends, wanted, side="right")
        with self._lock:
            for first, last in _runs(within, 0):
                i, to = int(within[first]), x[first:last]
                one = self.shards[i]
                grey = one.shape[1] < to.shape[1]
                read = np.empty((len(to), *one.shape[1:]), self.type) if grey else to
                self._read(i, one, wanted[first:last] - self.ends[i] + one.shape[0], read)
                if grey:
                    to[:] = read[:, :1]
        return torch.from_numpy(x if np.array_equal(wanted, rows.numpy()) else x[back])

    def _read(self, i: int, one: Shard, rows: Int[np.ndarray, " k"], to: Num[np.ndarray, "k *d"]) -> None:
        """Read rows of a file, rising; those that stand together at once."""
        raw, size, count = _bytes(to), to.nbytes // len(to), 0
        try:
            file = self._opened.get(i) or self._opened.setdefault(i, open(one.file, "rb", buffering=0))  # noqa: SIM115
            for first, last in _runs(rows, 1):
                file.seek(one.begin + int(rows[first]) * size)
                for begin in range(first * size, last * size, _READ):
                    count += file.readinto(raw[begin : min(begin + _READ, last * size)])  # type: ignore[attr-defined]
            if count == len(raw) and _sums(raw, size) == one.sums[rows].tolist():
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


@dataclass(eq=False)
class Derived(OnDisk):
    """Rows of one or more sets of equal length, as a function makes them of what is read: row by row.

    see: (rows of the first, of the second, …) → the rows of this one. Bytes may only be put side by side, since `marks`
    stands for their content.
    """

    sets: tuple[OnDisk, ...]
    see: Callable[..., Tensor]

    def __post_init__(self) -> None:
        one = self.see(*(torch.zeros(1, *x.shape[1:], dtype=x.dtype) for x in self.sets))
        self.shape, self.dtype = (len(self.sets[0]), *one.shape[1:]), one.dtype
        self.where, self.shards = self.sets[0].where, [one for x in self.sets for one in x.shards]

    def part(self, chosen: Tensor) -> "Derived":
        return replace(self, sets=tuple(x.part(chosen) for x in self.sets))

    def marks(self) -> bytes:
        return b"".join(x.marks() for x in self.sets)

    def index_select(self, dim: int, places: Int[Tensor, " k"]) -> Num[Tensor, " k *d"]:
        return self.see(*(x.index_select(dim, places) for x in self.sets))


def chosen_of(x: Any, chosen: Tensor) -> Any:
    """The rows at these places, or where a mask is true; those on the disk stay there."""
    return x.part(chosen) if isinstance(x, OnDisk) else x[chosen]
