"""Rows that are still in a recording's files: read into memory, or prepared on the disk, once for all processes."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import torch
from jaxtyping import Num
from torch import Tensor
from tqdm import tqdm

from ..cache import fingerprint
from ..errors import InputError
from ..files import remove, state_of
from ..memory import COPIES, SHARE, available, room
from ..progress import progress_bar
from .levels import Levels
from .shards import (
    ATTEMPTS,
    LARGE,
    Damaged,
    OnDisk,
    Shards,
    file_of,
    holding,
    pieces,
    shards_in,
    space,
    write_shard,
)  # fmt: skip

__all__ = ["Reader", "Unread", "read"]

Reader = Callable[[Sequence[range], Levels | None, tqdm], Iterator[tuple[Tensor, Levels | None]]]
Name = TypeVar("Name", bound=Hashable)
_FORMAT = 1  # of the cache; to be raised with whatever changes the rows


@dataclass(frozen=True, eq=False)
class Unread:
    """n rows of bytes or float32 that are still in files.

    reader: (ranges of rows, which rise; the levels used so far; a bar, moved a step a row) → the rows of each range,
    and the levels used if they are images of more than 8 bits.
    where: what errors call them. files: the data set, as `state_of` takes it. how: which of its rows, and
    whatever else they depend on.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    reader: Reader
    where: str
    files: str
    how: tuple[Any, ...]

    @property
    def each(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of its rows."""
        return self.each * len(self)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


def read(
    parts: Mapping[Name, Unread | OnDisk],
    *,
    cache: bool = False,
    on_disk: bool = False,
    most: int = 0,
    progress: bool = True,
) -> tuple[dict[Name, Tensor | OnDisk], dict[Name, Levels]]:
    """The rows of each part, and the levels of those that are images of more than 8 bits.

    parts: by name. cache: prepare them in the cache if they have more than LARGE bytes. There they stay where memory
    is too small, or if they have more than `most` bytes, unless that is 0. on_disk: in any case.
    """
    need = sum(part.nbytes for part in parts.values())
    must = cache and (on_disk or COPIES * need > SHARE * available())
    stay, cached = must or (cache and 0 < most < need), must or (cache and need > min(LARGE, most or LARGE))
    rows: dict[Name, Tensor | OnDisk] = {}
    used: dict[Name, Levels] = {}
    with progress_bar(sum(map(len, parts.values())), "reading", " rows", delay=2, leave=False, show=progress) as bar:
        for name, part in parts.items():
            if isinstance(part, OnDisk):
                rows[name] = part if stay else part.tensor()
                continue
            rows[name], levels = _read(part, bar, cached, stay, must)
            used |= {name: levels} if levels else {}
    return rows, used


def _read(part: Unread, bar: tqdm, cached: bool, stay: bool, must: bool) -> tuple[Tensor | OnDisk, Levels | None]:
    """Its rows, through the cache or not; left there if `stay`; `must`: there or not at all."""
    for _ in range(ATTEMPTS if cached else 0):
        try:
            shards, levels = _prepared(part, bar)
            return shards if stay else shards.tensor(), levels
        except Damaged:  # and removed
            continue
        except OSError:
            if must:
                raise
            break
    return _in_memory(part, bar)


def _in_memory(part: Unread, bar: tqdm) -> tuple[Num[Tensor, "n *d"], Levels | None]:
    room(COPIES * part.nbytes, f"{part.where}: {len(part)} rows")
    x, levels = torch.empty(part.shape, dtype=part.dtype), None
    every = pieces(len(part), part.each)
    for piece, (rows, used) in zip(every, part.reader(every, None, bar)):
        x[piece.start : piece.stop], levels = rows, used or levels
    return x, levels


def _prepared(part: Unread, bar: tqdm) -> tuple[Shards, Levels | None]:
    """The rows in the cache, where what is missing is made. What one process makes the others wait for."""
    before = state_of(part.files)
    name, state = (fingerprint(*words)[:32] for words in (part.how, (_FORMAT, before)))
    with holding(f"episodes-{name}", state, part.where) as folder:
        every, made = pieces(len(part), part.each), shards_in(folder)
        whole = {piece.start for piece in every if piece.start in made and made[piece.start].shape[0] == len(piece)}
        missing = [piece for piece in every if piece.start not in whole]
        kept = [made[start].notes["levels"] for start in whole]
        levels = next((Levels(*found) for found in kept if found), None)
        bar.update(len(part) - sum(map(len, missing)))
        space(folder, part.each * sum(map(len, missing)), part.where)
        for piece, (x, used) in zip(missing, part.reader(missing, levels, bar)):
            if x.is_floating_point() and not bool(x.isfinite().all()):
                raise InputError(f"{part.where} holds numbers that are not finite.")
            levels = used or levels
            notes = {"rows": (piece.start, piece.stop), "levels": levels}
            made[piece.start] = write_shard(file_of(folder, piece), x, notes)
        if state_of(part.files) != before:
            with suppress(OSError):
                for piece in missing:
                    remove(file_of(folder, piece))
            raise InputError(f"{part.where}: its files changed while they were read; start again.")
    return Shards([made[piece.start] for piece in every], part.where), levels
