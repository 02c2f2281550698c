"""Figures of policies' scores and of the time a chunk takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..errors import InputError
from ..metrics.success import score_interval
from . import style
from .style import Array, Number

__all__ = ["DASHES", "LEGEND", "latency_bars", "scores", "tint_of"]

LEGEND: dict[str, Any] = {"fontsize": style.SMALL, "frameon": False, "labelcolor": "linecolor", "handlelength": 2.4}
DASHES = [("-", "o"), ((0, (4, 1.6)), "s"), ((0, (1.2, 1.2)), "^"), ((0, (5, 1.5, 1, 1.5)), "D")]


def scores(
    results: Mapping[str, Float[Array, " n"]],
    *,
    intervals: Mapping[str, tuple[Number, Number]] | None = None,
    captions: Mapping[str, str] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Each episode's score in [0, 1]: a histogram of each policy with the mean and its interval; all shares beside.

    intervals: 95 % of the mean; where not given, `metrics.success.score_interval`. captions: a text for each histogram,
    such as the success rate.
    results: each policy's scores.
    """
    style.require_any(results, "scores")
    for name, x in results.items():
        x = style.checked_numbers(f"The scores of {name!r}", x, 1)
        if x.min() < 0 or x.max() > 1:
            raise InputError(f"The scores of {name!r} must lie in [0, 1]; got {x.min():.3g} … {x.max():.3g}.")
    k = len(results)
    panel, across, between = (2.9, 1.9 if k == 1 else 0.95), 0.75, 0.42
    grid = style.axes_grid(
        k,
        2,
        panel=panel,
        gap=(across, between),
        margin=(0.5, 0.28, 0.3, 0.42),
        title=title or "Scores of the episodes",
        note=note or "Line and band: the mean and its 95 % interval. A score of 1 is a solved episode.",
    )
    bins = np.linspace(0, 1, 21)
    most = max(np.histogram(x, bins)[0].max() / len(x) for x in results.values())
    whole = _merged(grid.figure, list(grid.axes[:, 1]))
    for index, (name, x) in enumerate(results.items()):
        ax, tint = grid.axes[index, 0], tint_of(name, index)
        mean = float(x.mean())
        low, high = (intervals or {}).get(name) or score_interval(x.tolist())
        ax.hist(x, bins, weights=np.full(len(x), 1 / len(x)), color=tint, alpha=0.45, lw=0)
        ax.axvspan(low, high, color=tint, alpha=0.25, lw=0)
        ax.axvline(mean, color=tint, lw=1.6)
        ax.set(xlim=(0, 1), ylim=(0, 1.08 * most))
        ax.yaxis.set_major_locator(MaxNLocator(2 if k > 1 else 4))
        _percent(ax)
        ax.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        ax.tick_params(labelbottom=index == k - 1)
        style.as_curves(ax, "score" if index == k - 1 else "")
        ax.set_title(name, size=style.SMALL, color=tint, weight="bold", loc="left", pad=4)
        lines = [
            f"mean {mean:.3f}, {low:.3f} – {high:.3f}",
            style.plural(len(x), "episode"),
            (captions or {}).get(name, ""),
        ]
        where = "upper left" if mean > 0.5 else "upper right"
        style.corner(ax, "\n".join(line for line in lines if line), where, style.INK)
        # The share of episodes with at least each score: a stair from (0, 1) down.
        values, counts = np.unique(x, return_counts=True)
        reach = counts[::-1].cumsum()[::-1] / len(x)
        whole.step(
            np.concatenate([[0.0], values, [1.0]]),
            np.concatenate([[1.0], reach, [(x >= 1).mean()]]),
            where="pre",
            color=tint,
            lw=1.6,
            ls=DASHES[index % len(DASHES)][0],
            label=name,
        )
    whole.set(xlim=(0, 1), ylim=(0, 1.02))
    whole.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    _percent(whole)
    style.as_curves(whole, "score", "episodes that reach at least this score")
    if k > 1:
        whole.legend(loc="best", **LEGEND)
    return grid.figure


def latency_bars(
    times: Mapping[str, Mapping[str, tuple[Number, Number]]],
    *,
    reference: tuple[str, Number] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Milliseconds a chunk, {group: {variant: (median, p95)}}: bars to the median, whiskers to the 95th percentile.

    A variant's label states how many times faster it is than the first of its group. reference: a named time, such as a
    paper's.
    """
    rows = [(group, name, *pair) for group, variants in times.items() for name, pair in variants.items()]
    style.require_any(rows, "times")
    for group, name, median, p95 in rows:
        if not 0 < median <= p95 < float("inf"):
            raise InputError(f"{group}, {name}: times must be 0 < median ≤ p95; got {median:g} and {p95:g}.")
    variants = list(dict.fromkeys(name for _, name, _, _ in rows))
    inks = [style.REAL, style.FLOW, *(tint for tint, _ in style.CLASSES)]
    alone = all(len(own) == 1 for own in times.values())  # nothing to compare: one colour
    tints = {name: style.FLOW if alone else inks[i % len(inks)] for i, name in enumerate(variants)}
    step, apart = 1.0, 1.15  # between bars and, more, between groups
    left = 0.25 + style.SMALL * style.EM * max(len(text) for row in rows for text in row[:2])
    y, places, heads = 0.0, [], []
    for group, own in times.items():
        heads.append((y, group))
        y += 0.95
        places += [y + step * k for k in range(len(own))]
        y = places[-1] + apart
    grid = style.axes_grid(
        1,
        1,
        panel=(4.3, 0.27 * (places[-1] + 0.7)),
        margin=(left, 0.25, 0.26 if reference else 0.04, 0.42),
        title=title or "Time for a chunk",
        note=note or "Bars: median. Whiskers: 95th percentile.",
    )
    ax = grid.axes[0, 0]
    longest = max([*(p95 for *_, p95 in rows), *([reference[1]] if reference else [])])
    ax.set(xlim=(0, 1.32 * longest), ylim=(places[-1] + 0.7, -0.6))
    for (group, name, median, p95), place in zip(rows, places, strict=True):
        first = next(iter(times[group].values()))[0]
        ax.barh(place, median, height=0.74, color=tints[name], alpha=0.8, lw=0)
        ax.plot([median, p95], [place, place], color=style.INK, lw=1.0)
        ax.plot([p95], [place], color=style.INK, marker="|", ms=5, mew=1.0)
        faster = "" if median == first else f"  ({_times(first / median)})"
        style.halo(
            ax.text(p95 + 0.015 * longest, place, f"{median:.3g} ms{faster}", size=style.SMALL, va="center", zorder=6)
        )
        ax.annotate(name, (0, place), (-5, 0), textcoords="offset points", size=style.SMALL, ha="right").set(
            color=tints[name], va="center", annotation_clip=False
        )
    for place, group in heads:
        ax.annotate(group, (0, place), (2, 0), textcoords="offset points", size=style.SMALL, weight="bold").set(
            color=style.INK, va="center", annotation_clip=False
        )
    if reference:
        ax.axvline(float(reference[1]), color=style.DIFFUSION, lw=1.1, ls=(0, (3, 1.5)), zorder=0)
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        ax.annotate(reference[0], (float(reference[1]), 1), (0, 3), size=style.SMALL, color=style.DIFFUSION, **where)
    ax.yaxis.set_major_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(6))
    style.as_curves(ax, "milliseconds")
    return grid.figure


def tint_of(label: str, index: int) -> str:
    """A method's colour where its key is in the label, else one of the others, in turn.

    index: its place among the others.
    """
    found = [tint for key, tint in style.METHOD_COLOURS.items() if key in label.lower()]
    return found[0] if len(found) == 1 else style.class_style(index)[0]


def _merged(figure: Figure, panels: Sequence[Axes]) -> Axes:
    """One panel in the place of several."""
    boxes = [ax.get_position() for ax in panels]
    for ax in panels[1:]:
        ax.remove()
    x0, y0 = min(box.x0 for box in boxes), min(box.y0 for box in boxes)
    panels[0].set_position((x0, y0, max(box.x1 for box in boxes) - x0, max(box.y1 for box in boxes) - y0))
    return panels[0]


def _percent(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _times(ratio: float) -> str:
    return f"{ratio:.2g} × faster" if ratio >= 1 else f"{1 / ratio:.2g} × slower"
