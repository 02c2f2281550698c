"""The figures of a comparison on points, each with what to see in it."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...errors import InputError
from ...metrics.floor import LEVEL
from ...plots import animation, columns, curves, fields, points, style
from ...plots.points import Panel
from ...plots.report import Picture, every, in_words, losses, merit, still
from ...plots.study import Comparison, Method

__all__ = ["figures", "sample_panels"]

_SCALE_NOTE = (
    "Each panel has its own arrow scale, with the fastest tenth cut to its longest arrow; "
    "speed is the mean |dx/dt| over the arrows that samples cover."
)


def figures(comparison: Comparison) -> Iterator[Picture]:
    """The report's figures in order, those that this comparison has the material for."""
    _check(comparison)
    c, d = comparison, comparison.real.shape[1]
    limits = style.as_limits(c.limits, d)
    walked = all(len(method.walk) > 1 for method in c.methods)
    grown = [method for method in c.methods if len(method.evolution) > 1]
    moving = [method for method in c.methods if method.fields]
    panels = sample_panels(c)
    truth: dict[str, Any] = {"real": c.real, "log_density": c.log_density}
    best = [panels[1 + _best(c, method)] for method in _sampled(c)]

    yield Picture(
        "samples.png",
        "Samples beside real data",
        _samples_sentence(c, d),
        still(lambda: points.scatter_panels(panels, limits, classes=c.classes, names=c.columns, form=c.form, **truth)),
    )
    if d > 2:
        for k in range(0, len(best), 2):  # one above the diagonal, one below it
            yield Picture(
                f"pairs{f'-{k // 2 + 1}' if k else ''}.png",
                "Pairs of columns",
                "Good samples fill the grey outline, which holds 95 % of the real points, in every pair of columns; "
                f"shown are the columns of {_best_names(c, slice(k, k + 2))}.",
                still(partial(columns.pairs, best[k : k + 2], limits, real=c.real, names=c.columns, form=c.form)),
            )
        yield Picture(
            "columns.png",
            "Each column alone",
            "Lines that follow the edge of the grey area have that column's distribution right; how columns depend "
            "on each other shows only in pairs.",
            still(lambda: columns.histograms(best, limits, real=c.real, names=c.columns, form=c.form)),
        )
    if walked:
        yield Picture(
            "sampling.gif",
            "From noise to data",
            (
                f"{every(c).capitalize()} start from the same noise and run on the same clock t, without further "
                "randomness; "
                if len(c.methods) > 1
                else "Samples start from noise and run on the clock t, without further randomness; "
            )
            + _halfway(c.methods),
            lambda path: animation.sampling_gif(path, c.methods, limits, **truth),
            moving=True,
        )
        yield Picture(
            "steps.png",
            "Steps on the way",
            f"The same run at five times, all in one frame, {_truth(c, d)} drawn in each: watch at which t the data's "
            f"shape appears{ {1: '', 2: ' in either row'}.get(len(c.methods), ' in each row') }.",
            still(lambda: points.intermediate(c.methods, limits, **truth)),
        )
        yield Picture(
            "trajectories.png",
            "Routes of single points",
            "Rings are noise at t = 1, dots the samples they become at t = 0"
            f"{', and matching rings are the same noise' if len(c.methods) > 1 else ''}; " + _straightness(c.methods),
            still(lambda: points.trajectories(c.methods, limits, real=c.real, names=c.columns, form=c.form)),
        )
    if moving:
        yield Picture(
            "velocities.png",
            "Where samples move next" if d > 1 else "The velocity at each place",
            (
                "Arrows point where the network sends a sample next (against dx/dt, for sampling runs t from 1 to 0), "
                "grey dots are x_t, and arrows fade where there are none. " + _SCALE_NOTE
            )
            if d > 1
            else "dx/dt against x at four times, over the distribution of x_t in grey: sampling moves against it.",
            still(lambda: fields.vector_field(moving, limits)),
        )
    if c.quality:
        yield Picture(
            "quality.png",
            "Quality against cost",
            _quality_sentence(c),
            still(lambda: curves.quality_against_evaluations(c.quality, c.methods, c.quality_metric, c.floor)),
        )
    if grown:
        yield Picture(
            "training.gif",
            "Samples over training",
            "Samples from the same noise, drawn again as training goes on: watch where the mass gathers first, and "
            "whether the last steps still change anything.",
            lambda path: animation.training_gif(path, grown, limits, **truth),
            moving=True,
        )
        yield Picture(
            "training.png",
            "Training, step by step",
            f"The same samples at a few training steps, with {_truth(c, d)} for comparison.",
            still(lambda: points.progress(grown, limits, **truth)),
        )
    yield from losses(c)


def sample_panels(comparison: Comparison) -> list[Panel]:
    """Real data, then every sampling, as panels for `scatter_panels`."""
    methods = {method.key: method for method in comparison.methods}
    real = style.plural(len(comparison.real), "point")
    panels = [Panel("Real data", comparison.real, style.REAL, real, comparison.real_labels)]
    for s in comparison.samplings:
        method = methods[s.method]
        panels.append(Panel(method.name, s.samples, method.colour, s.label, s.labels))
    if all(s.labels is None for s in comparison.samplings):
        # Classes in the real panel alone would look like a difference between it and the samples.
        panels[0] = panels[0]._replace(labels=None)
    return panels


def _check(c: Comparison) -> None:
    d = style.checked_points(c.real, "real").shape[1]
    if not c.methods or not c.samplings:
        raise InputError("A report needs at least one method and one sampling of it.")
    keys = {method.key for method in c.methods}
    for s in c.samplings:
        if s.method not in keys:
            raise InputError(f"Sampling {s.label!r} belongs to method {s.method!r}, which is not among the methods.")
        if style.checked_points(s.samples, f"the samples of {s.label!r}").shape[1] != d:
            raise InputError(f"The samples of {s.label!r} have {s.samples.shape[1]} columns, the real data {d}.")


def _held(c: Comparison, d: int) -> str:
    return "exact density" if c.log_density is not None and d == 2 else "real points"


def _truth(c: Comparison, d: int) -> str:
    return f"the outline around 95 % of the {_held(c, d)}" if d > 1 else "the real data's histogram"


def _samples_sentence(c: Comparison, d: int) -> str:
    missing = [(style.outside(s.samples, style.as_limits(c.limits, d)), s) for s in c.samplings]
    worst, sampling = max(missing, key=lambda pair: pair[0])
    lead = "Every panel has the same frame; " + (
        f"good samples fill the grey outline, which holds 95 % of the {_held(c, d)}, and leave the space between empty."
        if d > 1
        else "good samples fill the black line, the real data's histogram, and no more."
    )
    lead += " Shown are the first two columns." if d > 2 else ""
    if worst == 0:
        return lead + " No sample falls outside the frame."
    name = next(method.name for method in c.methods if method.key == sampling.method)
    return (
        lead + f" Most samples outside the frame: {worst:,} of {len(sampling.samples):,}, {name} by {sampling.label}."
    )


def _straightness(methods: Sequence[Method]) -> str:
    """Length of the routes over the straight distance between their ends."""
    parts = []
    for method in methods:
        length = np.linalg.norm(np.diff(method.walk, axis=0), axis=2).sum(0).mean()
        direct = np.linalg.norm(method.walk[-1] - method.walk[0], axis=1).mean()
        if not (np.isfinite(length) and direct > 0):
            return "straighter routes can be followed in fewer steps."
        parts.append(f"{length / direct:.2f} times ({method.name})")
    return f"a route is on average {in_words(parts)} as long as the straight line between its ends."


def _halfway(methods: Sequence[Method]) -> str:
    """The time at which points are, on average, half as far from their end as they were at the start."""
    parts = []
    for method in methods:
        left = np.linalg.norm(method.walk - method.walk[-1], axis=2).mean(1)
        if not (np.isfinite(left).all() and left[0] > 0):
            return "watch which of them moves early and which late."
        t = method.walk_times[int(np.argmax(left <= left[0] / 2))]
        parts.append(f"t = {t:.2f} ({method.name})")
    return f"half of the distance to where points end is left at {in_words(parts)}."


def _quality_sentence(c: Comparison) -> str:
    better = next((m.better for s in c.samplings for m in s.measurements if m.name == c.quality_metric), "lower")
    lead = f"The grey band is the score of real points in {c.quality_metric} at this sample size."
    if better != "lower":
        return lead
    if not c.at_floor:
        return lead + " All of the samplers can be told from it with the evaluations tried."
    parts = [f"{label} with {n:,}" for label, n in sorted(c.at_floor.items(), key=lambda item: item[1])]
    rest = [label for label in c.quality if label not in c.at_floor]
    others = f"; {rest[0] if len(rest) == 1 else f'the other {len(rest)}'} did not" if rest else ""
    return lead + f" Fewest evaluations tried that reached it (p ≥ {LEVEL}): {', '.join(parts)}{others}."


def _best(c: Comparison, method: Method) -> int:
    """The index of a method's best sampling by the first metric, for figures that have room for one only."""
    own = [i for i, s in enumerate(c.samplings) if s.method == method.key]

    def score(i: int) -> float:
        rows = [m for m in c.samplings[i].measurements if m.name == c.quality_metric]
        return -merit(rows[0]) if rows else 0.0

    return min(own, key=score)


def _best_names(c: Comparison, of: slice) -> str:
    return in_words([f"{method.name} ({c.samplings[_best(c, method)].label})" for method in _sampled(c)[of]])


def _sampled(c: Comparison) -> list[Method]:
    """The methods that have samples."""
    return [method for method in c.methods if any(s.method == method.key for s in c.samplings)]
