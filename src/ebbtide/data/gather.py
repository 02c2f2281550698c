"""Many images into one uint8 tensor: decoded in threads, bad ones named, the result kept in a cache.

The cache holds them in shards, each made in memory and written whole. They are read from there into memory, or stay on
the disk where they don't fit or are wanted there (`Shards`).

Pillow lets go of Python's lock while it decodes, so threads do what processes would, without their start and copies.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from ..cache import fingerprint
from ..errors import InputError, StorageError
from ..memory import COPIES, SHARE, available, room
from ..progress import progress_bar
from ..specs import pick, require
from .decoding import BadImage, quiet
from .levels import Decoded, Levels, Tally
from .shards import ATTEMPTS, Damaged, Shard, Shards, file_of, holding, pieces, shards_in, space, write_shard

__all__ = ["LARGEST", "MOST_BAD", "Found", "Source", "check_decoding", "gather", "in_threads", "joined"]

LARGEST = 8192  # pixels a side
MOST_BAD = 0.05  # of the images; more than that is no accident
_FORMAT = 3  # of the cache; to be raised with whatever changes the pixels


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
    on_disk: bool = False,
    most: int = 0,
    progress: bool = True,
) -> tuple[UInt8[Tensor, "k c h w"] | Shards, list[int], tuple[str, ...], Levels | None]:
    """The good images, their numbers among the source's n, a line for each bad one, and the levels used, if any.

    A warning counts the bad ones, and describes the conversions of the others.

    levels: of images of more than 8 bits; unless given, from the lowest to the highest value of all of them.
    on_bad: "skip" refuses only if more than MOST_BAD of all are bad, "fail" at the first. workers: 0 is one a core.
    on_disk: leave them in the cache, as they are left where memory is too small, or if they have more than `most`
    bytes, unless that is 0.
    """
    if on_bad == "fail" and source.unusable:
        raise InputError(f"{source.where}: {source.unusable[0]}.")
    name = _name(source, size, channels) if cache and source.state else ""
    if on_disk and not name:
        raise InputError(f"{source.where} is read into memory, so data_on can't be 'disk' (--data-on).")
    how: dict[str, Any] = {"size": size, "channels": channels, "strict": on_bad == "fail", "workers": workers}
    with _bar(source.n, progress) as bar:
        x, bad, tally = _through_cache(source, name, levels, how, bar, on_disk, most)
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
    source: Source, levels: Levels | None, bar: tqdm, *, size: int, channels: int, strict: bool, workers: int
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

    with quiet():
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
            for chunk, done in zip(chunks, in_threads(partial(several, levels), chunks, workers)):
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


def in_threads(work: Callable, items: Sequence, workers: int) -> Iterator:
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


def _through_cache(
    source: Source, name: str, levels: Levels | None, how: dict[str, Any], bar: tqdm, on_disk: bool, most: int
) -> tuple[Tensor | Shards, dict[int, str], Tally]:
    """The good images, number → reason of the bad ones, and what was done to them; from the cache if there is one."""
    for _ in range(ATTEMPTS if name else 0):
        try:
            shards, bad, tally = _in_shards(source, name, levels, how, bar)
            stay = on_disk or 0 < most < shards.nbytes or COPIES * shards.nbytes > SHARE * available()
            return shards if stay else shards.tensor(), bad, tally
        except Damaged:  # and removed
            continue
        except OSError as error:
            if on_disk:
                raise
            if isinstance(error, StorageError) and COPIES * source.n * _each(source, how) > SHARE * available():
                raise
            break
    x, bad, tally, _ = _decode(source, levels, bar, **how)
    return x, bad, tally


def _in_shards(
    source: Source, name: str, levels: Levels | None, how: dict[str, Any], bar: tqdm
) -> tuple[Shards, dict[int, str], Tally]:
    """The same in the cache, where what is missing is made. What one process makes the others wait for."""
    made: dict[int, Shard] = {}

    def make(piece: range, levels: Levels | None) -> None:
        own = replace(
            source, n=len(piece), image=partial(_at, source.image, piece), name=partial(_at, source.name, piece)
        )
        x, bad, tally, lasting = _decode(own, levels, bar, **how)
        notes = {
            "bad": [(piece[i], reason) for i, reason in bad.items()], "tally": astuple(tally), "lasting": lasting,
            "levels": (levels or tally.levels) if tally.deep else None, "rows": (piece.start, piece.stop),
        }  # fmt: skip
        made[piece.start] = write_shard(file_of(folder, piece), x, notes)
        model = next((one for one in made.values() if one.shape[0]), made[piece.start])
        if len(x) and model.shape[2:] != tuple(x.shape[2:]):
            (a, one), (b, other) = ((_first(source, shard), shard.shape) for shard in (model, made[piece.start]))
            raise InputError(
                f"{source.where}: {a} is {one[3]} × {one[2]} pixels and {b} {other[3]} × {other[2]}; give --size to "
                "make all alike."
            )

    with holding(name, _state(source), source.where) as folder:
        kept = shards_in(folder)
        first = kept.get(0)
        each = (
            _each(source, how)
            if first is None or not first.shape[0]
            else math.prod((how["channels"] or 3, *first.shape[2:]))
        )
        every = pieces(source.n, each)
        for piece in every:
            one = kept.get(piece.start)
            if one is not None and one.notes["lasting"] and one.notes["rows"] == [piece.start, piece.stop]:
                made[piece.start] = one
                bar.update(len(piece))
        missing = [piece for piece in every if piece.start not in made]
        space(folder, each * sum(map(len, missing)), source.where)
        for piece in missing:
            make(piece, levels)
        tally = _total(made.values())
        wanted = levels or tally.levels
        for piece in every:
            notes = made[piece.start].notes
            if notes["levels"] and Levels(*notes["levels"]) != wanted:
                bar.total += len(piece)
                make(piece, wanted)
    shards = [made[piece.start] for piece in every]
    bad = {i: reason for one in shards for i, reason in one.notes["bad"]}
    return Shards(shards, source.where), bad, tally


def _at(what: Callable[..., Any], piece: range, i: int, *how: Any) -> Any:
    return what(piece[i], *how)


def _each(source: Source, how: dict[str, Any]) -> int:
    """Bytes of an image, at most: of the first that is good, unless all have one size."""
    h = w = how["size"]
    if not h:
        with quiet():
            found = (_try(source, i, h, how["channels"], None) for i in range(source.n))
            h, w = next((one.pixels.shape[:2] for one in found if isinstance(one, Decoded)), (1, 1))
    return int(h * w * (how["channels"] or 3))


def _first(source: Source, one: Shard) -> str:
    """The name of a shard's first good image."""
    bad = {i for i, _ in one.notes["bad"]}
    return source.name(next(i for i in range(*one.notes["rows"]) if i not in bad))


def _total(shards: Iterable[Shard]) -> Tally:
    """Counts of the conversions in all shards."""
    whole = Tally()
    for own, *counts in (one.notes["tally"] for one in shards):
        n, deep, transparent = counts
        low, high = own or (math.inf, -math.inf)
        before = whole.levels or (math.inf, -math.inf)
        levels = Levels(min(low, before[0]), max(high, before[1]))
        whole = Tally(
            levels if deep or whole.deep else None, whole.n + n, whole.deep + deep, whole.transparent + transparent
        )
    return whole
