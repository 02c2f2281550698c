"""Many pictures into one uint8 tensor: decoded in threads, bad ones named, the result kept in a cache.

Pillow lets go of Python's lock while it decodes, so threads do what processes would, without their start and copies.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from ..cache import fetch, fingerprint, store
from ..errors import InputError
from ..memory import room
from .pictures import BadPicture, quiet

COPIES = 3  # that there are of pictures for a moment, before they are split into those to train on and others
MOST_BAD = 0.05  # of the pictures; more than that is no accident
_FORMAT = 1  # of the cache; to be raised with whatever changes the pixels


@dataclass(frozen=True, eq=False)
class Source:
    """n pictures still to be decoded.

    picture(i, size, channels): picture i as (h, w, c), or BadPicture. name(i): what an error calls it.
    where, state: the set's address and a fingerprint of what lies there now; no state, no cache.
    unusable: what was found bad before decoding.
    """

    n: int
    picture: Callable[[int, int, int], UInt8[np.ndarray, "h w c"]]
    name: Callable[[int], str]
    where: str
    state: str = ""
    unusable: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """What one kind of data holds: pictures, as an array (n, h, w, c) or still to be decoded, and a label for each.

    classes: their names where the labels are their numbers. test: so many of the last are the set's own test part.
    """

    pictures: Source | UInt8[np.ndarray, "n h w c"]
    labels: np.ndarray | Sequence[Any] | None = None
    classes: tuple[str, ...] = ()
    test: int = 0


def gather(
    source: Source,
    *,
    size: int = 0,
    channels: int = 0,
    on_bad: str = "skip",
    workers: int = 0,
    cache: bool = True,
    progress: bool = True,
) -> tuple[UInt8[Tensor, "k c h w"], list[int], tuple[str, ...]]:
    """The good pictures, their numbers among the source's n, and a line for each bad one.

    on_bad: "skip" refuses only if more than MOST_BAD of all are bad, "fail" at the first. workers: 0 is one a core.
    """
    if on_bad == "fail" and source.unusable:
        raise InputError(f"{source.where}: {source.unusable[0]}.")
    name = _name(source, size, channels) if cache and source.state else ""
    found = _kept(name, source) if name else None
    if found is None:
        x, bad, lasting = _decode(source, size, channels, on_bad == "fail", workers, progress)
        if name and lasting:
            store(name, {"x": x}, state=_state(source), bad=json.dumps(list(bad.items())))
    else:
        x, bad = found
    lines = (*source.unusable, *(f"{source.name(i)} {reason}" for i, reason in sorted(bad.items())))
    if lines and on_bad == "fail":
        raise InputError(f"{source.where}: {lines[0]}.")
    total = source.n + len(source.unusable)
    if len(lines) > MOST_BAD * total:
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise InputError(
            f"{source.where}: {len(lines)} of {total} pictures can't be used, more than {MOST_BAD:.0%}: "
            f"{'; '.join(lines[:3])}{more}."
        )
    return x, [i for i in range(source.n) if i not in bad], lines


def _decode(
    source: Source, size: int, channels: int, strict: bool, workers: int, progress: bool
) -> tuple[Tensor, dict[int, str], bool]:
    """The good pictures, number → reason of the bad ones, and whether those reasons will last."""
    bad: dict[int, BadPicture] = {}

    def note(i: int, error: BadPicture) -> None:
        if strict:
            raise InputError(f"{source.where}: {source.name(i)} {error}.")
        bad[i] = error

    with quiet(), _bar(source.n, progress) as bar:
        for model in range(source.n):  # the first good picture tells the shape of all
            first = _try(source, model, size, channels)
            if isinstance(first, np.ndarray):
                break
            note(model, first)
            bar.update()
        else:
            none = torch.empty(0, channels or 1, size, size, dtype=torch.uint8)
            return none, {i: str(error) for i, error in bad.items()}, False
        h, w = first.shape[:2]
        rows = (source.n, channels or 3, h, w)
        room(
            COPIES * math.prod(rows),
            f"{source.where}: {source.n} pictures of {w} × {h} pixels",
            "give a smaller --size",
        )
        x = np.empty(rows, np.uint8)
        colours = np.zeros(source.n, np.uint8)

        def several(numbers: range) -> list[tuple[int, BadPicture]]:
            failed = []
            for i in numbers:
                picture = _try(source, i, size, channels)
                if isinstance(picture, BadPicture):
                    failed.append((i, picture))
                    continue
                if picture.shape[:2] != (h, w):
                    other_h, other_w = picture.shape[:2]
                    raise InputError(
                        f"{source.where}: {source.name(model)} is {w} × {h} pixels and {source.name(i)} "
                        f"{other_w} × {other_h}; give --size to make all alike."
                    )
                colours[i] = picture.shape[2]
                x[i, : colours[i]] = picture.transpose(2, 0, 1)
            return failed

        chunks = [range(start, min(start + 16, source.n)) for start in range(model, source.n, 16)]
        for chunk, failed in zip(chunks, _in_threads(several, chunks, workers)):
            for i, error in failed:
                note(i, error)
            bar.update(len(chunk))

    reasons = {i: str(error) for i, error in bad.items()}
    return _packed(x, colours), reasons, not any(error.passing for error in bad.values())


def _try(source: Source, i: int, size: int, channels: int) -> np.ndarray | BadPicture:
    try:
        return source.picture(i, size, channels)
    except BadPicture as error:
        return error


def _packed(x: np.ndarray, colours: np.ndarray) -> Tensor:
    """The rows whose number of channels isn't 0, in place; three channels as soon as one picture has them."""
    good = np.flatnonzero(colours)
    for row, i in enumerate(good.tolist()):
        if row != i:
            x[row] = x[i]
    x, colours = x[: len(good)], colours[good]
    if colours.max() == 1:
        return torch.from_numpy(x[:, :1].copy() if x.shape[1] == 3 else x)
    for row in np.flatnonzero(colours == 1).tolist():
        x[row, 1:] = x[row, :1]
    return torch.from_numpy(x)


def _in_threads(work: Callable, items: Sequence, workers: int) -> Iterator:
    """work(item) in the items' order; what hasn't begun when the caller stops never will."""
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 16))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _bar(total: int, progress: bool) -> tqdm:
    """Shown from two seconds on."""
    return tqdm(
        total=total, desc="reading", unit=" pictures", delay=2, leave=False, file=sys.stderr, disable=not progress
    )


# --- cache --------------------------------------------------------------------------------------------------


def _name(source: Source, size: int, channels: int) -> str:
    """One for each set, size and channels: a set that changed replaces what was kept of it."""
    return f"pictures-{fingerprint(source.where, size, channels)[:32]}"


def _state(source: Source) -> str:
    return fingerprint(_FORMAT, PIL.__version__, source.state)


def _kept(name: str, source: Source) -> tuple[Tensor, dict[int, str]] | None:
    """None where nothing is kept, the set has changed since, or the file is damaged."""
    found = fetch(name)
    if found is None or found[1].get("state") != _state(source):
        return None
    return found[0]["x"], dict(json.loads(found[1]["bad"]))
