"""Many images judged a block at a time: what is kept of them are features, and never more images than are measured.

Any number of processes share the work. Each judges its own samples, and its part of the real images; what it kept is
handed to one of them, which reports. The numbers are those of one process, up to rounding.

**All samples.** The report holds as many samples as the floor has held-out images, `at_most` of them. Of a larger set
two rows are added: the Fréchet distance of all samples, from running moments, and KID, the mean over blocks. Both are
held against as many training images as there are samples, or all there are, as published numbers are.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..core.randomness import generator
from ..data.shards import Shards, chosen_of
from ..errors import InputError
from ..specs import expect, pick, require
from .extractors import (
    EXTRACTORS,
    JUDGE_SEED,
    SMALL_SIDE,
    Extractor,
    RealImages,
    suited_extractor,
    train_classifier,
)
from .floor import NORMAL, draws_behind, means_beside, sets_beside, share_beside
from .frechet import Moments, frechet_influence, frechet_of_moments
from .images import IMAGE_METRICS, NEIGHBOURS, ImageMetric, Shown
from .inputs import plain_number
from .intervals import influence_interval
from .kid import kid_pairs
from .measurement import Measurement
from .memorisation import Nearest, nearest

__all__ = ["CLOSEST", "ImageJudge", "ImageReport", "Seen", "measure_images"]

CLOSEST = 16  # samples that are kept to be shown beside a training image
_BLOCK = 512  # images read from the disk together
Own = Mapping[str, Callable[[Tensor, Tensor], float]]
_NONE: Own = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class ImageReport:
    """The rows; of the samples measured the numbers, and the nearest training images; and what a figure shows of them.

    closest: of the samples that were looked at (`looked`), those nearest to a training image; beside: that image, and
    apart: its distance. typical: the median distance of held-out images.
    """

    rows: list[Measurement]
    kept: Int[Tensor, " n"]
    nearest: Nearest
    closest: UInt8[Tensor, "k c h w"]
    beside: UInt8[Tensor, "k c h w"]
    apart: Float[Tensor, " k"]
    looked: int
    typical: float


@dataclass(frozen=True, eq=False)
class Seen:
    """All that a process keeps of its samples, and of its part of the real images: tensors by name, and moments."""

    parts: Mapping[str, Tensor]
    samples: Moments | None
    train: Moments | None
    held: Moments | None


class ImageJudge:
    """Judges n samples, numbered 0 to n − 1; arguments as those of `measure_images`."""

    def __init__(
        self,
        n: int,
        train: UInt8[Tensor, "_ ..."] | Shards,
        held: UInt8[Tensor, "_ ..."] | Shards,
        *,
        asked: Int[Tensor, " _"] | None = None,
        train_labels: Int[Tensor, " _"] | None = None,
        held_labels: Int[Tensor, " _"] | None = None,
        classes: int = 0,
        extractor: str = "",
        repeats: int = 6,
        seed: int = 0,
        at_most: int = 5000,
        own: Own = _NONE,
    ) -> None:
        for what, given in (("train", train), ("held", held)):
            expect(what, given, Tensor, Shards)
        require("repeats", repeats, 1, whole=True)
        require("at_most", at_most, NEIGHBOURS + 1, whole=True)
        every = train, held, train_labels, held_labels
        if asked is not None:
            _check_asked(asked, n, classes)
            train, held = _of(train, train_labels, asked), _of(held, held_labels, asked)
        self.n, self.train, self.held, self.asked, self.own = n, train, held, asked, own
        self.measured = min(n, len(held) // 2, at_most)
        _check(n, train, held, self.measured)
        real = RealImages(*every, classes)
        name = pick(EXTRACTORS, extractor, "extractor") if extractor else suited_extractor(real)
        self.extract: Extractor = EXTRACTORS[name](real)
        self.seed, self.repeats, self.whole = seed, repeats, n > at_most
        samples, pool, shelf = (
            torch.randperm(size, generator=generator(seed, which))
            for which, size in (("samples", n), ("held", len(held)), ("train", len(train)))
        )
        self.kept, self.looked = samples[: self.measured], samples[:at_most]
        self.pool, self.shelf = pool[: 2 * self.measured], shelf[:at_most]
        # Of all training and held-out images, as many as there are samples; those on the disk in its order.
        self.more = (shelf[:n].sort().values, pool[:n].sort().values) if self.whole else (shelf[:0], pool[:0])
        self.block = at_most
        self.judge = self.truth = None
        known, other = real.train_labels, real.held_labels
        if asked is not None and known is not None and other is not None and max(train.shape[2:]) <= SMALL_SIDE:
            self.judge = train_classifier(real.train, known, classes, real.held, other, seed=JUDGE_SEED)
            self.truth = other[torch.isin(other, asked.to(other))]
        self._looks: list[dict[str, Tensor]] = []
        self._moments: Moments | None = None

    def look(self, first: int, samples: UInt8[Tensor, "b c h w"]) -> None:
        """Judge the samples `first`, first + 1, …"""
        _alike("samples", samples, self.train)
        ids = torch.arange(first, first + len(samples))
        looked, kept = (torch.isin(ids, chosen) for chosen in (self.looked, self.kept))
        seen = {"looked": ids[looked], "images": samples[looked]}
        described = torch.ones_like(kept) if self.whole else kept
        if bool(described.any()):
            seen |= {"ids": ids[described], "features": self.extract(samples[described])}
            if self.whole:
                self._moments = _sum(self._moments, Moments.of(seen["features"]))
        if self.judge is not None and self.asked is not None:  # a share of all samples can be held against any number
            seen["right"] = _hits(self.judge.predict(samples), self.asked[first : first + len(samples)])
        self._looks.append(seen)

    def seen(self, rank: int = 0, count: int = 1) -> Seen:
        """All that was kept of the samples, and of this process's part of the real images, `rank` of `count`."""
        names = {name: None for look in self._looks for name in look}
        parts = {name: torch.cat([look[name] for look in self._looks if name in look]) for name in names}
        images = parts.pop("images", self.train[:0])
        if len(images):
            found = nearest(images, self.train)
            best = found.distance.argsort(stable=True)[:CLOSEST]
            parts |= {"index": found.index, "distance": found.distance}
            parts |= {"closest": images[best], "closest index": found.index[best], "closest at": found.distance[best]}
        if self.own and len(images):
            parts["images"] = images
        pool, shelf = (_share(of, rank, count) for of in (self.pool, self.shelf))
        if len(pool):
            real = self.held[pool]
            parts |= {"held": self.extract(real), "held at": nearest(real, self.train).distance}
            if self.judge is not None and self.truth is not None:
                parts["held right"] = _hits(self.judge.predict(real), self.truth[pool])
        if len(shelf):
            parts["train"] = self.extract.real(chosen_of(self.train, shelf))
        more = (_moments(self.extract, x, _share(of, rank, count)) for x, of in zip((self.train, self.held), self.more))
        return Seen(parts, self._moments, *more)

    def report(self, every: Sequence[Seen]) -> ImageReport:
        """The report on what all processes saw, in their order."""
        n = self.measured
        names = {name: None for one in every for name in one.parts}
        parts = {name: torch.cat([one.parts[name] for one in every if name in one.parts]) for name in names}
        reference, held = parts["train"], parts["held"]
        features = _in_order(parts["features"], parts["ids"], self.kept)
        found = Nearest(*(_in_order(parts[part], parts["looked"], self.kept) for part in ("index", "distance")))
        right, held_right, held_at = parts.get("right"), parts.get("held right"), parts["held at"]
        images = pool = shelf = None
        if self.own:
            images, pool = _in_order(parts["images"], parts["looked"], self.kept), self.held[self.pool]
            shelf = self.train[self.shelf]
        shown = Shown(features, reference, found.distance, held_at, right, images, shelf)
        halves = [
            torch.randperm(2 * n, generator=generator(self.seed, "floor", i)).split(n) for i in range(self.repeats)
        ]
        floors = [
            Shown(
                held[half],
                reference,
                held_at[half],
                held_at[other],
                None if held_right is None else held_right[half],
                None if pool is None else pool[half],
                shelf,
            )
            for half, other in halves
        ]
        rows = self._rows(shown, floors)
        if self.whole:
            rows += self._of_all(parts, every, shown, rows)
        best = parts["closest at"].argsort(stable=True)[:CLOSEST]
        beside, apart = self.train[parts["closest index"][best]], parts["closest at"][best]
        shown_in = parts["closest"][best], beside, apart, len(self.looked), float(held_at.median())
        return ImageReport(rows, self.kept, found, *shown_in)

    def _rows(self, shown: Shown, floors: Sequence[Shown]) -> list[Measurement]:
        n, extract, reference = self.measured, self.extract, shown.reference
        said = (
            f"{n} of {self.n} samples, as many of {len(self.held)} held-out images for the floor,"
            f" against {len(reference)} of {len(self.train)} training images"
        )
        few = min(n, len(reference)) <= reference.shape[1]
        rows = []
        for key, metric in (IMAGE_METRICS | {name: _own(function) for name, function in self.own.items()}).items():
            if (key == "FD" and few) or (key == "asked class recognised" and shown.right is None):
                continue
            ours = key in ("FD", "KID")
            title, notes = extract.score(key) if ours else key, [said, extract.note if ours else "", metric.note]
            if key == "asked class recognised":
                notes = [f"all {self.n} samples; the floor is that of {n} held-out images at a time"]
            if key == "KID" and few:
                notes.append(f"{extract.score('FD')} needs more than {reference.shape[1]} images and is left out")
            rows.append(_row(title, metric, shown, floors, "\n".join(filter(None, notes)), self.seed))
        return rows

    def _of_all(
        self, parts: Mapping[str, Tensor], every: Sequence[Seen], shown: Shown, rows: Sequence[Measurement]
    ) -> list[Measurement]:
        """FD and KID of all samples: without p, since the floor can't have their number."""
        totals = [_total([getattr(one, part) for one in every]) for part in ("samples", "train", "held")]
        samples, train, held = totals
        least, d = min(one.n for one in totals), shown.reference.shape[1]
        found, known = [], {row.name: row for row in rows}
        if (name := self.extract.score("FD")) in known and least > d:
            value, floor = frechet_of_moments(samples, train), frechet_of_moments(held, train)
            influences = frechet_influence(shown.features, shown.reference)
            spread = NORMAL * math.hypot(
                *(part.std() / math.sqrt(one.n) for part, one in zip(influences, (samples, train)))
            )
            note = (
                f"all {samples.n} samples against {train.n} training images; the floor is that of {held.n} held-out "
                "images, and FD is biased upwards at few"
            )
            bounds = (value, max(0.0, value - spread), value + spread)
            found.append(Measurement(f"{name} of all", *bounds, floor, floor, floor, "lower", note))
        features = _in_order(parts["features"], parts["ids"], torch.arange(self.n))
        blocks = features.tensor_split(-(-self.n // self.block))
        pairs = [kid_pairs(one, shown.reference) for one in blocks]
        value = sum(len(one) * pair.value for one, pair in zip(blocks, pairs)) / self.n
        of_x, of_y = zip(*(pair.influence for pair in pairs), strict=True)
        influences = np.concatenate(of_x), np.mean(of_y, 0)
        usual = known[self.extract.score("KID")]
        interval = influence_interval(value, influences, self.seed)
        note = f"all {self.n} samples in {len(blocks)} blocks, each against {len(shown.reference)} training images"
        floors = usual.floor, usual.floor_low, usual.floor_high
        return [*found, Measurement(f"{usual.name} of all", value, *interval, *floors, "lower", note)]


def measure_images(
    samples: UInt8[Tensor, "_ ..."],
    train: UInt8[Tensor, "_ ..."] | Shards,
    held: UInt8[Tensor, "_ ..."] | Shards,
    *,
    asked: Int[Tensor, " _"] | None = None,
    train_labels: Int[Tensor, " _"] | None = None,
    held_labels: Int[Tensor, " _"] | None = None,
    classes: int = 0,
    extractor: str = "",
    repeats: int = 6,
    seed: int = 0,
    at_most: int = 5000,
    own: Own = _NONE,
) -> ImageReport:
    """Every metric of IMAGE_METRICS that applies, one row each; of samples that come in blocks, see `ImageJudge`.

    asked: the class each sample was asked for: where the real images have labels, only those of these classes count.
    Up to 32 pixels, a separate classifier measures how often the class is recognised.
    extractor: a row of EXTRACTORS; "" chooses by the images' size and labels.
    at_most: images of each set whose features are taken, random ones; every training image is looked at for copies. Of
    more samples, all are measured by FD and KID, in two rows more.
    own: more metrics, functions of (samples, training images), both uint8.
    At most half as many samples as held-out images are measured, since the floor must have their number; but the share
    that is recognised is that of all.
    """
    expect("samples", samples, Tensor)
    judge = ImageJudge(
        len(samples), train, held, asked=asked, train_labels=train_labels, held_labels=held_labels, classes=classes,
        extractor=extractor, repeats=repeats, seed=seed, at_most=at_most, own=own,
    )  # fmt: skip
    judge.look(0, samples)
    return judge.report([judge.seen()])


def _row(title: str, metric: ImageMetric, shown: Shown, halves: Sequence[Shown], note: str, seed: int) -> Measurement:
    """Beside halves of the held-out images."""
    value, floors = metric.value(shown), [metric.value(real) for real in halves]
    bounds, floor = (value, *metric.interval(shown, value, seed)), float(np.mean(floors))
    if metric.spectrum is not None or metric.of_sets:
        spectrum = None if metric.spectrum is None else metric.spectrum(shown)
        error, p = sets_beside(bounds, floors, metric.better, 0.5, spectrum)
    elif metric.count is None:
        error, p = means_beside(bounds, floors, metric.better, 0.5)
        p = p if metric.p is None else metric.p(shown)
    else:
        half = metric.count(halves[0])
        known = (floor, draws_behind(half, len(halves), 2.0 * half)) if metric.truth is None else metric.truth(shown)
        error, p = share_beside(bounds, metric.count(shown), *known, metric.better)
        floor = known[0]
    spread = min(*floors, floor), max(*floors, floor)
    shown_in = metric.in_summary, metric.in_curve
    return Measurement(title, *bounds, floor, *spread, metric.better, note, error, p, *shown_in)


def _own(function: Callable[[Tensor, Tensor], float]) -> ImageMetric:
    """A metric of the user's, of which nothing else is known: no interval, and so no p."""
    return ImageMetric(
        lambda s: plain_number(function, s.images, s.others), lambda s, value, seed: (math.nan, math.nan), "equal"
    )


def _share(chosen: Int[Tensor, " n"], rank: int, count: int) -> Int[Tensor, " k"]:
    """The places of which a process looks at the images."""
    return chosen.tensor_split(count)[rank]


def _in_order(values: Tensor, ids: Int[Tensor, " m"], wanted: Int[Tensor, " n"]) -> Tensor:
    """The values of these samples, among those of `ids`, each of which has one."""
    order = ids.argsort()
    return values[order[torch.searchsorted(ids[order], wanted)]]


def _moments(extract: Extractor, x: UInt8[Tensor, "n c h w"] | Shards, places: Tensor) -> Moments | None:
    """The moments of the features of these images, of which a block is in memory at a time."""
    total = None
    for block in places.split(_BLOCK):
        if len(block):
            total = _sum(total, Moments.of(extract(x[block])))
    return total


def _sum(total: Moments | None, part: Moments) -> Moments:
    return part if total is None else total + part


def _total(parts: Sequence[Moments | None]) -> Moments:
    """The moments of all processes' parts, of which some may be empty."""
    first, *others = (part for part in parts if part is not None)
    for other in others:
        first += other
    return first


def _of(images: Any, labels: Tensor | None, asked: Tensor) -> Any:
    """The images of the classes that were asked for; all, where they have no labels."""
    if labels is None or bool((own := torch.isin(labels, asked.to(labels))).all()):
        return images
    return chosen_of(images, own)


def _hits(found: Tensor, wanted: Tensor) -> Float[Tensor, " n"]:
    return (found == wanted.to(found)).double()


def _alike(name: str, images: Any, train: Any) -> None:
    if images.shape[1:] != train.shape[1:] or images.ndim != 4:
        shapes = f"{tuple(images.shape)}, where train is {tuple(train.shape)}"
        raise InputError(f"{name} must be images (n, c, h, w) of the training images' shape; got {shapes}.")


def _check(samples: int, train: Any, held: Any, n: int) -> None:
    _alike("train", train, train)
    _alike("held", held, train)
    if n <= NEIGHBOURS or len(train) <= NEIGHBOURS:
        least = f"{NEIGHBOURS + 1} samples, {2 * NEIGHBOURS + 2} held-out and {NEIGHBOURS + 1} training images"
        few = f"{samples}, {len(held)} and {len(train)}"
        raise InputError(f"A report takes at least {least}; got {few}. More are held out with held_out.")


def _check_asked(asked: Tensor, n: int, classes: int) -> None:
    if len(asked) != n:
        raise InputError(f"asked must have one class for each of the {n} samples; got {len(asked)}.")
    if classes and not 0 <= int(asked.min()) <= int(asked.max()) < classes:
        found = f"{int(asked.min())} to {int(asked.max())}"
        raise InputError(f"asked must be classes in 0..{classes - 1}; got {found}.")
