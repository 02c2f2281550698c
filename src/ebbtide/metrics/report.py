"""The report: every metric beside its floor and with an interval, so that no number is read alone.

**Floor.** A distance between finite samples is never 0. Its floor is the same metric, at the same sizes, with real data
in place of samples: fresh real samples against other real samples, a few independent repeats.

**At the floor.** Each row has the difference to the mean floor, with the standard error of both together, and p: the
probability that real data score as far off, on the worse side (on both where neither is); see floor.py. Shares are
counted exactly. "At the floor" means p ≥ 0.01: this many samples show no fault.

**Memorisation.** If the generator's training rows are known, the reference are the held-out rows, and the floor is
that of training rows against them. The last rows measure how near samples come to training rows; their floor is that of
held-out rows.

**Interval.** 95 %, for the value the metric has *on average over samples of this size*, the number to hold against
the floor. Means (log-density) are bootstrapped; distances are bootstrapped through each sample's influence on them
(the linearised bootstrap: Efron 1982, doi:10.1137/1.9781611970319, chapter 6), because resampling whole sets makes
ties, and a tie is as good as a wrong sample to a distance. At the floor the linear term vanishes: an interval of W2 is
wider than it need be there, and MMD², energy distance and KID, which are unbiased, get the second term from the
kernel's spectrum. Fractions get the exact binomial interval: no outlier in 10 000 bootstraps to 0 ± 0, and may be
0.04 %.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import bdtr, betaincinv
from torch import Tensor

from ..errors import InputError, printable
from ..specs import pick
from .floor import LEVEL, TINY, Better, draws_behind, means_beside, medians, sets_beside, share_beside
from .inputs import Array
from .memorisation import copied_share, nearest
from .mmd import energy_distance, energy_influence, energy_spectrum, mmd2, mmd2_influence, mmd2_spectrum
from .modes import (
    expected_outliers,
    label_agreement,
    log_densities,
    mean_log_density,
    mode_fractions,
    outlier_fraction,
)
from .wasserstein import (
    exact_w2,
    exact_w2_influence,
    sliced_w2,
    sliced_w2_influence,
    within_mode_influence,
    within_mode_sliced_w2,
)

Sampled = Tensor | tuple[Tensor, Tensor]  # real points, alone or with their labels

COUNT_NOISE = (
    "On a mixture, plain SW2 and W2 measure mode-count noise (floor 0.10–0.19 for 10 000 samples of three"
    " Gaussians): compare with the floor, don't rank by it."
)
REPLICATES = 500
MOST_NEAR = 2000  # samples, and held-out rows, whose nearest training row is looked for
MOST_ROWS = 16  # modes or labels beyond this get no row each


@dataclass(frozen=True)
class Measurement:
    """One row: the value, its 95 % interval, the floor (mean and range over the repeats), the standard error of
    value − floor, and p: the probability that real data score as far off. NaN: there is no such number."""

    name: str
    value: float
    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float
    better: Better
    note: str = ""
    error: float = math.nan
    p: float = math.nan
    in_summary: bool = field(default=False, repr=False)
    in_curve: bool = field(default=False, repr=False)

    @property
    def difference(self) -> float:
        """value − floor."""
        return self.value - self.floor

    @property
    def at_floor(self) -> bool:
        """p ≥ LEVEL: this many samples show no fault."""
        return self.p >= LEVEL

    def record(self) -> dict[str, Any]:
        """Every number of the row, for files."""
        numbers = {name: part for name, part in asdict(self).items() if not name.startswith("in_")}
        return numbers | {"difference": self.difference, "at_floor": self.at_floor}


@dataclass(frozen=True)
class Case:
    """The inputs of a metric: samples x, real points y, and whatever else is known about the data."""

    x: Tensor
    y: Tensor
    means: Any = None  # Any, not Optional: a metric sees only what it `needs`
    std: Any = None
    log_density: Any = None
    asked: Any = None  # the label each sample was asked to have
    labels: Any = None  # the label each real point has
    which: int = 0  # this mode or label, for metrics with one row for each
    distance: Any = None  # of some samples to the nearest training row
    held_distance: Any = None  # the same of real points that were held out

    def only(self) -> tuple[Tensor, Tensor]:
        """Samples and real points of this label."""
        return self.x[self.asked == self.which], self.y[self.labels == self.which]


@dataclass(frozen=True)
class Metric:
    """A row of METRICS. Without an `influence` or `interval` the value is a share of the samples, a count.

    in_summary, in_curve: whether `compare` prints it, and draws it against cost (the first such row that applies).
    truth: a share's own in truth and the draws it was found on (∞: known), where that is more than the floors' counts;
    None where it isn't. p: that of another number, where it is known exactly.
    """

    value: Callable[[Case], float]
    influence: Callable[[Case], tuple[Array, ...]] | None = None
    spectrum: Callable[[Case], Array] | None = None  # of its kernel, of an unbiased distance through pairs
    better: Better = "lower"
    root: bool = False  # the influence is on the square of the value
    needs: Sequence[str] = ()  # the fields of Case it can't do without
    each: Literal["", "mode", "label"] = ""
    at_most: int | None = None  # how many points it takes in the report
    even: bool = False  # whether it takes as many samples as real points
    interval: Callable[[Case, float], tuple[float, float]] | None = None  # instead of the influence's
    truth: Callable[[Case], tuple[float, float] | None] | None = None
    p: Callable[[Case], float] | None = None
    note: str = ""
    in_summary: bool = False
    in_curve: bool = False

    @property
    def share(self) -> bool:
        """True for a count of samples."""
        return self.influence is None and self.interval is None

    @property
    def of_sets(self) -> bool:
        """True for a distance of two sets, whose linear term vanishes at the floor."""
        return self.root or self.spectrum is not None

    def count(self, case: Case) -> int:
        """The number of samples it uses."""
        return len(case.distance if "distance" in self.needs else case.x)


METRICS: dict[str, Metric] = {
    "within-mode sliced W2": Metric(
        lambda c: within_mode_sliced_w2(c.x, c.means, c.std),
        lambda c: (within_mode_influence(c.x, c.means, c.std),),
        root=True,
        needs=("means", "std"),
        in_summary=True,
        in_curve=True,
    ),
    "outliers beyond 4 σ": Metric(
        lambda c: outlier_fraction(c.x, c.means, c.std),
        needs=("means", "std"),
        truth=lambda c: None if (share := expected_outliers(c.means, c.std)) is None else (share, math.inf),
        in_summary=True,
    ),
    "mean log-density": Metric(
        lambda c: mean_log_density(c.x, c.log_density),
        lambda c: (log_densities(c.x, c.log_density),),
        better="equal",
        needs=("log_density",),
        in_summary=True,
    ),
    "fraction in mode": Metric(
        lambda c: float(mode_fractions(c.x, c.means)[c.which]), better="equal", needs=("means",), each="mode"
    ),
    "asked label nearest": Metric(
        lambda c: label_agreement(c.x, c.asked, c.y, c.labels), better="higher", needs=("asked", "labels")
    ),
    "sliced W2 of label": Metric(
        lambda c: sliced_w2(*c.only()),
        lambda c: sliced_w2_influence(*c.only()),
        root=True,
        needs=("asked", "labels"),
        each="label",
    ),
    "MMD²": Metric(
        lambda c: mmd2(c.x, c.y),
        lambda c: mmd2_influence(c.x, c.y),
        lambda c: mmd2_spectrum(c.y),
        at_most=4096,
        in_summary=True,
    ),
    "energy distance": Metric(
        lambda c: energy_distance(c.x, c.y),
        lambda c: energy_influence(c.x, c.y),
        lambda c: energy_spectrum(c.y),
        at_most=4096,
        in_summary=True,
        in_curve=True,
    ),
    "sliced W2": Metric(
        lambda c: sliced_w2(c.x, c.y),
        lambda c: sliced_w2_influence(c.x, c.y),
        root=True,
        note=COUNT_NOISE,
        in_summary=True,
    ),
    "exact W2": Metric(
        lambda c: exact_w2(c.x, c.y),
        lambda c: exact_w2_influence(c.x, c.y),
        root=True,
        at_most=1000,
        even=True,
        note=COUNT_NOISE,
    ),
    "nearest training row": Metric(
        lambda c: _ratio(float(c.distance.median()), float(c.held_distance.median())),
        better="equal",
        needs=("distance",),
        interval=lambda c, value: _ratio_interval(c),
        p=lambda c: medians(c.distance, c.held_distance),
        note="the median distance to the nearest training row, over that of held-out rows; below its floor: memorised",
    ),
    "copies": Metric(
        lambda c: copied_share(c.distance, c.held_distance),
        needs=("distance",),
        truth=lambda c: (copied_share(c.held_distance, c.held_distance), float(len(c.held_distance))),
        note="no farther from a training row than the nearest 1 % of held-out rows",
    ),
    "exact copies": Metric(
        lambda c: float((c.distance == 0).double().mean()),
        needs=("distance",),
        truth=lambda c: (float((c.held_distance == 0).double().mean()), float(len(c.held_distance))),
        note="samples that are a training row, number for number",
    ),
}


def measure(
    samples: Float[Tensor, " n *d"],
    reference: Callable[[int, int], Sampled] | Sampled,
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
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1; got {repeats}.")
    for name in only or ():
        pick(METRICS, name, "A metric")
    if labels is not None and len(labels) != len(samples):
        raise InputError(f"Every sample needs one label; got {len(labels)} for {len(samples)}.")
    known: dict[str, Any] = {"means": means, "std": std, "log_density": log_density}
    samples = samples.detach().cpu()
    finite = torch.isfinite(samples.flatten(1)).all(1)
    rows = [_non_finite(int((~finite).sum()), len(samples))]
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(len(samples), generator=generator)  # so that a metric on a part sees a random one
    kept = kept[finite[kept]]
    if len(kept) < 2:
        return rows

    def truth(repeat: int) -> Case:
        """Fresh real points in place of samples, and the real points to compare them with."""
        (x, asked), (y, real_labels) = _two_sets(reference, train, len(kept), seed, repeat)
        own: dict[str, Any] = known | ({} if near is None else near.floor(repeat))
        if labels is None:
            return Case(x, y, **own)
        if asked is None or real_labels is None:
            raise InputError("With labels, the reference must give (points, labels); it gives points only.")
        return Case(x, y, asked=asked, labels=real_labels, **own)

    near, wanted = None, (METRICS[name].needs for name in only or METRICS)
    if train is not None and not callable(reference) and any("distance" in needs for needs in wanted):
        near = _Near.of(samples[kept], reference, train, seed)
    floor_cases = (truth(repeat) for repeat in range(repeats))
    first = next(floor_cases)
    kept = kept[: len(first.x)]
    asked = None if labels is None else labels.cpu()[kept]
    if asked is not None and (absent := set(asked.tolist()) - _real_labels(reference, train, first)):
        raise InputError(f"The reference has no point with label {min(absent)}, which samples were asked for.")
    case = replace(first, x=samples[kept], asked=asked)
    if near is not None:
        case = replace(case, distance=near.samples, held_distance=near.held)

    chosen = {key: metric for key, metric in METRICS.items() if only is None or key in only}
    todo = {
        name: task
        for key, metric in (chosen | {name: _own(function) for name, function in own.items()}).items()
        for name, task in _expand(key, metric, case, first)
    }
    at_hand = math.inf if callable(reference) else float(len(_labelled(reference if train is None else train)[0]))
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
        lambda c: plain_number(function(c.x, c.y)), better="equal", interval=lambda c, value: (math.nan, math.nan)
    )


def plain_number(value: Any) -> float:
    """The number that a user's metric returned; InputError for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"A metric must return a number; got {type(value).__name__}.") from None


def interval(metric: Metric, case: Case, value: float, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of `value`, the metric of `case`; see the top of this file."""
    if metric.interval is not None:
        return metric.interval(case, value)
    if metric.influence is None:
        n = metric.count(case)
        return binomial_interval(round(value * n), n)
    if not math.isfinite(value):  # a log-density of −∞ has no spread
        return math.nan, math.nan
    if metric.root:
        low, high = influence_interval(value**2, metric.influence(case), seed)
        return math.sqrt(max(0.0, low)), math.sqrt(max(0.0, high))
    spectrum = None if metric.spectrum is None else metric.spectrum(case)
    return influence_interval(value, metric.influence(case), seed, spectrum)


def influence_interval(
    value: float, influences: Sequence[Array], seed: int = 0, spectrum: Array | None = None
) -> tuple[float, float]:
    """The 95 % interval of a value from each sample's contribution to it, one array for each set of samples.

    spectrum: of the kernel, where the value is a U-statistic of pairs. Its second term, (1/n + 1/m) Σ λ (z² − 1), is
    then drawn as well: it is all there is between equal laws, where small influences come with a small value.
    """
    rng = np.random.default_rng(seed)
    shift = sum(_resampled_means(influence, rng) for influence in influences)
    if spectrum is not None:
        rate = sum(1 / len(influence) for influence in influences)
        shift = shift + rate * (np.square(rng.standard_normal((REPLICATES, len(spectrum)))) - 1) @ spectrum
    low, high = np.percentile(shift, [2.5, 97.5]).tolist()
    return value + low, value + high


def _resampled_means(influence: Array, rng: np.random.Generator) -> Array:
    """The bootstrap: REPLICATES means of as many draws with replacement, about the mean of the sample."""
    n, centred = len(influence), influence - influence.mean()
    block = max(1, 1_000_000 // n)  # replicates at a time, 8 MB
    sizes = [min(block, REPLICATES - done) for done in range(0, REPLICATES, block)]
    return np.concatenate([centred[rng.integers(n, size=(size, n))].mean(1) for size in sizes])


def binomial_interval(count: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a fraction count/n (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    low = float(betaincinv(count, n - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 0.975)) if count < n else 1.0
    return low, high


def median_interval(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """95 % of a median: between order statistics r and n + 1 − r, r the 2.5 % quantile of Binomial(n, ½)."""
    ordered = values.sort().values
    n = len(ordered)
    r = max(int(np.searchsorted(bdtr(np.arange(n + 1), n, 0.5), 0.025)), 1)
    return float(ordered[r - 1]), float(ordered[n - r])


def table(rows: Sequence[Measurement]) -> str:
    """The rows as aligned text, each beside its floor, with the notes underneath.

    value − floor has the standard error of both; the last line defines p.
    """
    span = lambda low, high: "-" if math.isnan(low) else f"{low:.4g} to {high:.4g}"
    cells = [("metric", "value", "95 % interval", "floor", "value − floor", "p", "better", "")]
    for row in rows:
        verdict = "at the floor" if row.at_floor else ""
        floor = "-" if math.isnan(row.floor) else f"{row.floor:.4g}"
        apart = "-" if math.isnan(row.error) else f"{row.difference:+.2g} ± {row.error:.1g}"
        cells.append(
            (row.name, f"{row.value:.4g}", span(row.low, row.high), floor, apart, _chance(row.p), row.better, verdict)
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, "─" * (sum(widths) + 2 * len(widths) - 2))
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in row.note.splitlines():
            notes.setdefault(note, []).append(row.name)
    for note, names in notes.items():
        others = [row.name for row in rows if row.name not in names]
        most = f"every row{f' but {others[0]}' if others else ''}"
        of = most if len(others) < 2 < len(names) else ", ".join(names)
        lines.append(f"{of}: {note}")
    if not all(math.isnan(row.p) for row in rows):
        lines.append(f"p: the probability that real data score as far off, or worse; at the floor: p ≥ {LEVEL}")
    return "\n".join(printable(line.rstrip()) for line in lines)


def _chance(p: float) -> str:
    return "-" if math.isnan(p) else f"< {TINY:.0e}" if p < TINY else f"{p:.2g}"


def to_json(rows: Sequence[Measurement]) -> str:
    """The rows as a JSON list; a number that is not finite becomes null."""
    plain = lambda value: None if isinstance(value, float) and not math.isfinite(value) else value
    records = [{key: plain(value) for key, value in row.record().items()} for row in rows]
    return json.dumps(records, indent=2, ensure_ascii=False)


def _non_finite(bad: int, n: int) -> Measurement:
    if n == 0:
        raise InputError("There are no samples to measure.")
    note = f"{bad} of {n} samples; every other row is over the finite ones." if bad else ""
    bounds = bad / n, *binomial_interval(bad, n)
    return Measurement(
        "non-finite", *bounds, 0.0, 0.0, 0.0, "lower", note, *share_beside(bounds, n, 0.0, math.inf, "lower")
    )


@dataclass(frozen=True)
class _Near:
    """Distances to the nearest training row, each column in units of its spread: of samples and of held-out rows."""

    samples: Float[Tensor, " n"]
    held: Float[Tensor, " m"]
    seed: int

    @classmethod
    def of(cls, samples: Tensor, held: Sampled, train: Sampled, seed: int) -> "_Near":
        (real, _), (rows, _) = _labelled(held), _labelled(train)
        rows = rows.double()
        spread = rows.std(0)
        unit = torch.where(spread > 0, spread, 1.0)
        some = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:MOST_NEAR]
        of_samples, of_held = (
            nearest(z.double() / unit, rows / unit).distance for z in (samples[:MOST_NEAR], real[some])
        )
        return cls(of_samples, of_held, seed)

    def floor(self, repeat: int) -> dict[str, Tensor]:
        """One random half of the held-out rows in place of samples, against the other."""
        order = torch.randperm(len(self.held), generator=torch.Generator().manual_seed(self.seed + repeat))
        half = (len(order) + 1) // 2
        return {"distance": self.held[order[:half]], "held_distance": self.held[order[half:]]}


def _ratio(a: float, b: float) -> float:
    """a / b, 1 where both are 0: rows that repeat are no farther from one another than samples are."""
    return a / b if b else (1.0 if not a else math.inf)


def _ratio_interval(case: Case) -> tuple[float, float]:
    """Interval of the samples' median alone, with the held-out rows as a fixed reference."""
    typical = float(case.held_distance.median())
    low, high = (_ratio(end, typical) for end in median_interval(case.distance))
    return low, high


def _two_sets(
    reference: Callable[[int, int], Sampled] | Sampled, train: Sampled | None, n: int, seed: int, repeat: int
) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Two independent sets of real points (and labels): fresh ones, training rows and held-out ones, or two halves."""
    one, two = (int(word) for word in np.random.SeedSequence([seed, repeat]).generate_state(2))
    if callable(reference):
        return _labelled(reference(n, one)), _labelled(reference(n, two))
    points, labels = _labelled(reference)
    if train is not None:
        rows, own = _labelled(train)
        if len(points) < 2 or len(rows) < 4:
            raise InputError(f"At least 2 held-out and 4 training rows are needed; got {len(points)} and {len(rows)}.")
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(one))[: min(n, len(rows) // 2)]
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        return (
            (rows[chosen], None if own is None else own[chosen]),
            (points[order], None if labels is None else labels[order]),
        )
    n = min(n, len(points) // 2)
    if n < 2:
        raise InputError(f"The reference needs at least 4 points, to be split into halves; got {len(points)}.")
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(one))
    halves = order[:n], order[n : 2 * n]
    x, y = ((points[half], None if labels is None else labels[half]) for half in halves)
    return x, y


def _real_labels(reference: Callable[[int, int], Sampled] | Sampled, train: Sampled | None, drawn: Case) -> set[Any]:
    """The labels that real points have: all of an array's, or of a first draw."""
    arrays = [real for real in (reference, train) if real is not None and not callable(real)]
    sets = [drawn.asked, drawn.labels, *(_labelled(real)[1] for real in arrays)]
    return {label for labels in sets if labels is not None for label in labels.tolist()}


def _labelled(real: Sampled) -> tuple[Tensor, Tensor | None]:
    points, labels = real if isinstance(real, tuple) else (real, None)
    return points.detach().cpu(), None if labels is None else labels.cpu()


def _expand(name: str, metric: Metric, case: Case, floor: Case) -> list[tuple[str, tuple[Metric, int]]]:
    """The rows a metric has here: none, one, or one for each mode, or label that samples and real points have."""
    if any(getattr(case, field) is None for field in metric.needs):
        return []
    if not metric.each:
        return [(name, (metric, 0))]
    if metric.each == "mode":
        each: Sequence[int] = range(len(case.means))
    else:
        each = sorted(set.intersection(*(set(of.tolist()) for of in (case.asked, case.labels, floor.asked))))
    return [(f"{name} {which}", (metric, which)) for which in each] if len(each) <= MOST_ROWS else []


def _part(case: Case, metric: Metric, which: int) -> Case:
    few = slice(min(len(case.x), len(case.y), metric.at_most or len(case.x)) if metric.even else metric.at_most)
    asked, labels = (None if of is None else of[few] for of in (case.asked, case.labels))
    return replace(case, x=case.x[few], y=case.y[few], asked=asked, labels=labels, which=which)
