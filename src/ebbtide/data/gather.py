"""Many images into one uint8 tensor: decoded in threads, bad ones named, the result kept in a cache.

Pillow lets go of Python's lock while it decodes, so threads do what processes would, without their start and copies.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import PIL
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from ..cache import fetch, fingerprint, store
from ..errors import InputError
from ..memory import COPIES, room
from ..progress import progress_bar
from ..specs import pick, require
from .decoding import BadImage, quiet
from .levels import Decoded, Levels, Tally

__all__ = ["LARGEST", "MOST_BAD", "Found", "Source", "check_decoding", "gather", "joined"]

LARGEST = 8192  # pixels a side
MOST_BAD = 0.05  # of the images; more than that is no accident
_FORMAT = 2  # of the cache; to be raised with whatever changes the pixels


@dataclass(frozen=True, eq=False)
class Source:
    """n images still to be decoded.

    image(i, size, channels, levels): image i as `decoding.read_image` gives it, or BadImage. name(i): what an error
    calls it.
    where, state: the set's address and a fingerprint of what lies there now; no state, no cache.
    unusable: what was found bad before decoding.
    """

    n: int
    image: Callable[[int, int, int, Levels | None], Decoded]
    name: Callable[[int], str]
    where: str
    state: str = ""
    unusable: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """The contents of a data set: images, as an array (n, h, w, c) or still to be decoded, and a label for each.

    classes: their names if the labels are their numbers. test: the number of images, at the end, in held-out parts.
    numbers, names: further numbers for each, and their names (see `attributes`).
    A label None is a missing one, and so is -1 where there are classes.
    """

    images: Source | UInt8[np.ndarray, "n h w c"]
    labels: np.ndarray | Sequence[Any] | None = None
    classes: tuple[str, ...] = ()
    test: int = 0
    numbers: Float[np.ndarray, "n k"] | None = None
    names: tuple[str, ...] = ()


def joined(train: Sequence[Found], held: Sequence[Found], where: str) -> Found:
    """Arrays of a set's parts end to end, the held-out ones last; a part without labels has None for each."""
    every = [*train, *held]
    arrays = [np.asarray(part.images) for part in every]
    if len({array.shape[1:] for array in arrays}) > 1:
        sizes = ", ".join(" × ".join(map(str, array.shape[1:])) for array in arrays)
        raise InputError(f"{where}: its parts must hold images of one size; got {sizes}.")
    labels = [[None] * len(array) if part.labels is None else part.labels for part, array in zip(every, arrays)]
    known = any(part.labels is not None for part in every)
    test = sum(len(array) for array in arrays[len(train) :])
    return Found(np.concatenate(arrays), [*chain(*labels)] if known else None, train[0].classes, test)


def check_decoding(*, size: int = 0, channels: int = 0, on_bad: str = "skip", workers: int = 0) -> None:
    """InputError for an option of `gather` that is out of its range."""
    require("size", size, 0, LARGEST, whole=True)
    require("channels", channels, whole=True)
    if channels not in (0, 1, 3, 4):
        raise InputError(f"channels must be 0 (as found), 1, 3 or 4; got {channels!r}.")
    pick(("skip", "fail"), on_bad, "on_bad")
    require("workers", workers, 0, 256, whole=True)


def gather(
    source: Source,
    *,
    size: int = 0,
    channels: int = 0,
    levels: Levels | None = None,
    on_bad: str = "skip",
    workers: int = 0,
    cache: bool = True,
    progress: bool = True,
) -> tuple[UInt8[Tensor, "k c h w"], list[int], tuple[str, ...], Levels | None]:
    """The good images, their numbers among the source's n, a line for each bad one, and the levels used, if any.

    A warning counts the bad ones, and describes the conversions of the others.

    levels: of images of more than 8 bits; unless given, from the lowest to the highest value of all of them.
    on_bad: "skip" refuses only if more than MOST_BAD of all are bad, "fail" at the first. workers: 0 is one a core.
    """
    if on_bad == "fail" and source.unusable:
        raise InputError(f"{source.where}: {source.unusable[0]}.")
    name = _name(source, size, channels) if cache and source.state else ""
    found = _kept(name, source, levels) if name else None
    if found is None:
        x, bad, tally, lasting = _decode(source, size, channels, levels, on_bad == "fail", workers, progress)
        if name and lasting:
            about = {"bad": list(bad.items()), "tally": astuple(tally), "given": levels}
            store(name, {"x": x}, state=_state(source), about=json.dumps(about))
    else:
        x, bad, tally = found
    lines = (*source.unusable, *(f"{source.name(i)} {reason}" for i, reason in sorted(bad.items())))
    if lines and on_bad == "fail":
        raise InputError(f"{source.where}: {lines[0]}.")
    if lines:
        total = source.n + len(source.unusable)
        many = len(lines) > MOST_BAD * total
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        said = (
            f"{source.where}: {len(lines)} of {total} images can't be used"
            f"{f', more than {MOST_BAD:.0%}' if many else ' and are left out'}: {'; '.join(lines[:3])}{more}."
        )
        if many:
            raise InputError(said)
        warnings.warn(said, stacklevel=2)
    for text in tally.lines(levels, channels):
        warnings.warn(f"{source.where}: {text}", stacklevel=2)
    return x, [i for i in range(source.n) if i not in bad], lines, (levels or tally.levels) if tally.deep else None


def _decode(
    source: Source, size: int, channels: int, levels: Levels | None, strict: bool, workers: int, progress: bool
) -> tuple[Tensor, dict[int, str], Tally, bool]:
    """The good images, number → reason of the bad ones, what was done to them, and whether the reasons will last.

    Images of more than 8 bits are decoded twice, unless their levels are given: only then are those of all known.
    """
    bad: dict[int, BadImage] = {}
    tally = Tally()

    def note(i: int, error: BadImage) -> None:
        if strict:
            raise InputError(f"{source.where}: {source.name(i)} {error}.")
        bad[i] = error

    with quiet(), _bar(source.n, progress) as bar:
        for model in range(source.n):  # the first good image tells the shape of all
            first = _try(source, model, size, channels, levels)
            if isinstance(first, Decoded):
                break
            note(model, first)
            bar.update()
        else:
            none = torch.empty(0, channels or 1, size, size, dtype=torch.uint8)
            return none, {i: str(error) for i, error in bad.items()}, tally, False
        h, w = first.pixels.shape[:2]
        rows = (source.n, channels or 3, h, w)
        room(
            COPIES * math.prod(rows),
            f"{source.where}: {source.n} images of {w} × {h} pixels",
            "give a smaller --size",
        )
        x = np.empty(rows, np.uint8)
        colours = np.zeros(source.n, np.uint8)

        def several(levels: Levels | None, numbers: Sequence[int]) -> list[tuple[int, Decoded | BadImage]]:
            done: list[tuple[int, Decoded | BadImage]] = []
            for i in numbers:
                image = _try(source, i, size, channels, levels)
                if isinstance(image, BadImage):
                    colours[i] = 0
                    done.append((i, image))
                    continue
                if image.pixels.shape[:2] != (h, w):
                    other_h, other_w = image.pixels.shape[:2]
                    raise InputError(
                        f"{source.where}: {source.name(model)} is {w} × {h} pixels and {source.name(i)} "
                        f"{other_w} × {other_h}; give --size to make all alike."
                    )
                colours[i] = image.pixels.shape[2]
                x[i, : colours[i]] = image.pixels.transpose(2, 0, 1)
                done.append((i, replace(image, pixels=np.empty((0, 0, 0), np.uint8))))
            return done

        def scan(numbers: Sequence[int], levels: Levels | None) -> Iterator[tuple[int, Decoded]]:
            chunks = [numbers[start : start + 16] for start in range(0, len(numbers), 16)]
            for chunk, done in zip(chunks, _in_threads(partial(several, levels), chunks, workers)):
                for i, found in done:
                    if isinstance(found, Decoded):
                        yield i, found
                    else:
                        note(i, found)
                bar.update(len(chunk))

        deep = []
        for i, found in scan(range(model, source.n), levels):
            tally.add(found)
            if found.levels and levels is None:
                deep.append(i)
        bar.total += len(deep)
        for _ in scan(deep, tally.levels):
            pass

    reasons = {i: str(error) for i, error in bad.items()}
    return _packed(x, colours), reasons, tally, not any(error.passing for error in bad.values())


def _try(source: Source, i: int, size: int, channels: int, levels: Levels | None) -> Decoded | BadImage:
    try:
        return source.image(i, size, channels, levels)
    except BadImage as error:
        return error


def _packed(x: np.ndarray, colours: np.ndarray) -> Tensor:
    """The rows whose number of channels isn't 0, in place; three channels as soon as one image has them."""
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
    return progress_bar(total, "reading", " images", delay=2, leave=False, show=progress)


# --- cache --------------------------------------------------------------------------------------------------


def _name(source: Source, size: int, channels: int) -> str:
    """One for each set, size and channels: a set that changed replaces what was kept of it."""
    return f"pictures-{fingerprint(source.where, size, channels)[:32]}"


def _state(source: Source) -> str:
    return fingerprint(_FORMAT, PIL.__version__, source.state)


def _kept(name: str, source: Source, levels: Levels | None) -> tuple[Tensor, dict[int, str], Tally] | None:
    """None where nothing is kept, the set has changed since, other levels are asked for, or the file is damaged."""
    found = fetch(name)
    if found is None or found[1].get("state") != _state(source):
        return None
    about = json.loads(found[1]["about"])
    own, *counts = about["tally"]
    tally = Tally(own and Levels(*own), *counts)
    if tally.deep and (about["given"] or own) != list(levels or own):
        return None
    return found[0]["x"], dict(about["bad"]), tally
