"""The report: every metric beside its floor and with an interval, so that no number is read alone.

**Floor.** A distance between finite samples is never 0. Its floor is the same metric, at the same sizes, with real data
in place of samples: fresh real samples against other real samples, a few independent repeats.

**At the floor.** Each row has the difference to the mean floor, with the standard error of both together, and p: the
probability that real data score as far off, on the worse side (on both where neither is); see floor.py. Shares are
counted exactly. "At the floor" means p ≥ 0.01: this many samples show no fault.

**Memorisation.** If the generator's training rows are known, the reference are the held-out rows, and the floor is
that of training rows against them. The last rows measure how near samples come to training rows; their floor is that of
held-out rows.

**Interval.** 95 %; see intervals.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..specs import expect, pick, require, shaped
from .floor import draws_behind, means_beside, sets_beside, share_beside
from .inputs import flat, plain_number
from .intervals import binomial_interval
from .measurement import Measurement
from .points import METRICS, Case, Metric, interval
from .reference import Near, Reference, Sampled, points_and_labels, real_labels, two_sets

__all__ = ["MOST_ROWS", "measure"]

MOST_ROWS = 16  # modes or labels beyond this get no row each


def measure(
    samples: Float[Tensor, " n *d"],
    reference: Reference,
    *,
    train: Sampled | None = None,
    means: Float[Tensor, " k ..."] | None = None,
    std: float | None = None,
    log_density: Callable[[Tensor], Tensor] | None = None,
    labels: Int[Tensor, " _"] | None = None,
    repeats: int = 6,
    seed: int = 0,
    floors: dict[tuple[str, int], list[float]] | None = None,
    only: Sequence[str] | None = None,
    own: Mapping[str, Callable[[Tensor, Tensor], float]] = MappingProxyType({}),
    classes: Sequence[str] = (),
) -> list[Measurement]:
    """Every metric of METRICS that applies, one row each.

    `reference(n, seed)` draws n real points, or is an array of them: that is split into random halves, and at most
    half as many samples are measured, since a floor must have the sizes of what stands beside it. With `labels`
    (asked of the samples) the reference gives (points, labels). Non-finite samples have a separate row; the
    other rows are over the finite ones.

    train: the rows that the generator learned from, where `reference` is an array of those held out from it. Then no
    row of either stands in for the other: at most half as many samples as training rows are measured against all that
    was held out, halves of the training rows are the floor, and rows on memorisation are added.
    only: names of METRICS, instead of all. own: more metrics, functions of (samples, real points).
    floors: one dict, empty at first, for several sets of samples that are held against the same reference; floors are
    most of the work and are then computed once for each (name, size).
    classes: the labels' names, for the rows of each; their numbers unless given.
    """
    require("repeats", repeats, 1, whole=True)
    expect("samples", samples, Tensor)
    shaped("samples", samples, "n", ...)
    expect("labels", labels, Tensor, None)
    for name in only or ():
        pick(METRICS, name, "A metric")
    if labels is not None and len(labels) != len(samples):
        raise InputError(f"Every sample needs one label; got {len(labels)} for {len(samples)}.")
    known: dict[str, Any] = {"means": means, "std": std, "log_density": log_density}
    samples = samples.detach().cpu()
    finite = torch.isfinite(flat(samples)).all(1)
    rows = [_non_finite(int((~finite).sum()), len(samples))]
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(len(samples), generator=generator)  # so that a metric on a part sees a random one
    kept = kept[finite[kept]]
    if len(kept) < 2:
        return rows

    def truth(repeat: int) -> Case:
        """Fresh real points in place of samples, and the real points to compare them with."""
        (x, asked), (y, real_labels) = two_sets(reference, train, len(kept), seed, repeat)
        own: dict[str, Any] = known | ({} if near is None else near.floor(repeat))
        if labels is None:
            return Case(x, y, **own)
        if asked is None or real_labels is None:
            raise InputError("With labels, the reference must give (points, labels); it gives points only.")
        return Case(x, y, asked=asked, labels=real_labels, **own)

    near, wanted = None, (METRICS[name].needs for name in only or METRICS)
    if train is not None and not callable(reference) and any("distance" in needs for needs in wanted):
        near = Near.of(samples[kept], reference, train, seed)
    floor_cases = (truth(repeat) for repeat in range(repeats))
    first = next(floor_cases)
    kept = kept[: len(first.x)]
    asked = None if labels is None else labels.cpu()[kept]
    if asked is not None and (absent := set(asked.tolist()) - real_labels(reference, train, first.asked, first.labels)):
        raise InputError(f"The reference has no point with label {min(absent)}, which samples were asked for.")
    case = replace(first, x=samples[kept], asked=asked)
    if near is not None:
        case = replace(case, distance=near.samples, held_distance=near.held)

    chosen = {key: metric for key, metric in METRICS.items() if only is None or key in only}
    todo = {
        name: task
        for key, metric in (chosen | {name: _own(function) for name, function in own.items()}).items()
        for name, task in _expand(key, metric, case, first, classes)
    }
    at_hand = (
        math.inf if callable(reference) else float(len(points_and_labels(reference if train is None else train)[0]))
    )
    floors = {} if floors is None else floors
    missing = {name: floors.setdefault((name, len(kept)), []) for name in todo if (name, len(kept)) not in floors}
    for floor_case in (first, *floor_cases) if missing else ():
        for name, values in missing.items():
            metric, which = todo[name]
            part = _part(floor_case, metric, which)
            if metric.each != "label" or all(map(len, part.only())):  # a rare class may be in none of these points
                values.append(metric.value(part))
    for name, (metric, which) in todo.items():
        part = _part(case, metric, which)
        value = metric.value(part)
        bounds, count = (value, *interval(metric, part, value, seed)), metric.count(part)
        seen = f"On {count} of the {len(samples)} samples." if count < int(finite.sum()) else ""
        note = "\n".join(filter(None, (seen, metric.note)))
        # Two halves of one set are as far apart as two sets are, though a number of one half is not.
        pool = math.inf if metric.of_sets and train is None else at_hand
        rows.append(_beside(name, metric, part, bounds, floors[name, len(kept)], pool, note))
    return rows


def _beside(
    name: str,
    metric: Metric,
    case: Case,
    bounds: tuple[float, float, float],
    floors: Sequence[float],
    pool: float,
    note: str,
) -> Measurement:
    """The row of a value and its interval beside floors as large as the case, each drawn from a pool of real points."""
    n, floor = metric.count(case), float(np.mean(floors))
    if metric.share:
        known = metric.truth and metric.truth(case)
        floor, of = known or (floor, draws_behind(n, len(floors), pool))
        error, p = share_beside(bounds, n, floor, of, metric.better)
    elif metric.of_sets:
        spectrum = None if metric.spectrum is None else metric.spectrum(case) * (1 / len(case.x) + 1 / len(case.y))
        error, p = sets_beside(bounds, floors, metric.better, n / pool, spectrum)
    else:
        taken = 0.5 if "distance" in metric.needs else n / pool  # halves of the held-out rows
        error, p = means_beside(bounds, floors, metric.better, taken)
        p = p if metric.p is None else metric.p(case)
    spread = min(*floors, floor), max(*floors, floor)
    shown = metric.in_summary, metric.in_curve
    return Measurement(name, *bounds, floor, *spread, metric.better, note, error, p, *shown)


def _own(function: Callable[[Tensor, Tensor], float]) -> Metric:
    """A metric of the user's, of which nothing else is known: no interval, and so no p."""
    return Metric(
        lambda c: plain_number(function, c.x, c.y), better="equal", interval=lambda c, value: (math.nan, math.nan)
    )


def _non_finite(bad: int, n: int) -> Measurement:
    if n == 0:
        raise InputError("There are no samples to measure.")
    note = f"{bad} of {n} samples; every other row is over the finite ones." if bad else ""
    bounds = bad / n, *binomial_interval(bad, n)
    return Measurement(
        "non-finite", *bounds, 0.0, 0.0, 0.0, "lower", note, *share_beside(bounds, n, 0.0, math.inf, "lower")
    )


def _expand(
    name: str, metric: Metric, case: Case, floor: Case, classes: Sequence[str]
) -> list[tuple[str, tuple[Metric, int]]]:
    """The rows a metric has here: none, one, or one for each mode, or label that samples and real points have."""
    if any(getattr(case, name) is None for name in metric.needs):
        return []
    if not metric.each:
        return [(name, (metric, 0))]
    if metric.each == "mode":
        each: Sequence[int] = range(len(case.means))
        classes = ()
    else:
        each = sorted(set.intersection(*(set(of.tolist()) for of in (case.asked, case.labels, floor.asked))))
    named = dict(enumerate(classes))
    return [(f"{name} {named.get(which, which)}", (metric, which)) for which in each] if len(each) <= MOST_ROWS else []


def _part(case: Case, metric: Metric, which: int) -> Case:
    few = slice(min(len(case.x), len(case.y), metric.at_most or len(case.x)) if metric.even else metric.at_most)
    asked, labels = (None if of is None else of[few] for of in (case.asked, case.labels))
    return replace(case, x=case.x[few], y=case.y[few], asked=asked, labels=labels, which=which)
