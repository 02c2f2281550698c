"""METRICS: the metrics of points, a row each with what it needs, how sure it is, and where it is shown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from .floor import Better, medians
from .inputs import Doubles
from .intervals import binomial_interval, influence_interval
from .memorisation import copied_share, nearness, nearness_interval
from .mmd import PairMeans, energy_pairs, energy_spectrum, mmd2_pairs, mmd2_spectrum
from .modes import (
    expected_outliers,
    label_agreement,
    log_densities,
    mean_log_density,
    mode_fractions,
    outlier_fraction,
)
from .wasserstein import (
    Transport,
    sliced_w2,
    sliced_w2_influence,
    transport,
    within_mode_influence,
    within_mode_sliced_w2,
)

__all__ = ["COUNT_NOISE", "METRICS", "Case", "Metric", "interval"]

COUNT_NOISE = "On a mixture, plain SW2 and W2 measure mode-count noise: compare with the floor, don't rank by it."


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

    @cached_property
    def mmd2(self) -> PairMeans:
        """Found once, for value and interval; so are those below, the spectra for interval and p."""
        return mmd2_pairs(self.x, self.y)

    @cached_property
    def mmd2_spectrum(self) -> Doubles:
        return mmd2_spectrum(self.y)

    @cached_property
    def energy(self) -> PairMeans:
        return energy_pairs(self.x, self.y)

    @cached_property
    def energy_spectrum(self) -> Doubles:
        return energy_spectrum(self.y)

    @cached_property
    def transport(self) -> Transport:
        return transport(self.x, self.y)

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
    influence: Callable[[Case], tuple[Doubles, ...]] | None = None
    spectrum: Callable[[Case], Doubles] | None = None  # of its kernel, of an unbiased distance through pairs
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
        lambda c: c.mmd2.value,
        lambda c: c.mmd2.influence,
        lambda c: c.mmd2_spectrum,
        at_most=4096,
        in_summary=True,
    ),
    "energy distance": Metric(
        lambda c: c.energy.value,
        lambda c: c.energy.influence,
        lambda c: c.energy_spectrum,
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
        lambda c: c.transport.value,
        lambda c: c.transport.influence,
        root=True,
        at_most=1000,
        even=True,
        note=COUNT_NOISE,
    ),
    "nearest training row": Metric(
        lambda c: nearness(c.distance, c.held_distance),
        better="equal",
        needs=("distance",),
        interval=lambda c, value: nearness_interval(c.distance, c.held_distance),
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


def interval(metric: Metric, case: Case, value: float, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of `value`, the metric of `case`; see the top of intervals.py."""
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
