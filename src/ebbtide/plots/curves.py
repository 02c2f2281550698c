"""Curves: quality against cost, and losses over training."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.ndimage import median_filter

from ..errors import InputError
from . import style
from .study import Method
from .style import Array

__all__ = ["losses", "method_of", "quality_against_evaluations", "smoothed", "stopping"]

# Samplers of one method share its colour; the dash and the marker tell them apart.
_STROKES = [("-", "o"), ((0, (4, 1.6)), "s"), ((0, (1.2, 1.2)), "^"), ((0, (5, 1.5, 1, 1.5)), "D"), ("-", "v")]
_SIGNS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}


def quality_against_evaluations(
    quality: Mapping[str, Sequence[tuple[int, float]]],
    methods: Sequence[Method],
    metric: str,
    floor: style.Pair,
    *,
    title: str = "",
    note: str = "",
) -> Figure:
    """The metric against network evaluations a sample; the band is the truth's own range.

    A key of `quality` begins with its method's name, which gives the colour: "DDPM · Heun".

    floor: that range.
    """
    if not quality or not all(len(line) for line in quality.values()):
        raise InputError("There is no quality to draw: every sampler needs at least one (evaluations, metric).")
    size, most = style.LABEL - 0.5, max(n for line in quality.values() for n, _ in line)
    ends = {label: _end(line) for label, line in quality.items()}
    named = {label: end for label, end in ends.items() if end and end[0] > most / 2}  # the others end too early
    tall = max(2.9, 0.17 * len(quality))
    room = 0.4 + size * style.EM * max(map(len, named), default=0)
    grid = style.axes_grid(1, 1, panel=(3.5, tall), margin=(0.62, room, 0.3, 0.48), title=title, note=note)
    ax = grid.axes[0, 0]
    values = np.array([value for line in quality.values() for _, value in line], float)
    shown = values[np.isfinite(values)]
    logarithmic = bool(len(shown) and shown.min() > 0 and floor[0] > 0)
    ax.set_xscale("log")
    if logarithmic:
        ax.set_yscale("log")
    counts = sorted({n for line in quality.values() for n, _ in line})
    ax.set_xlim(counts[0] / 1.15, counts[-1] * 1.15)
    low, high = min([*shown, *floor]), max([*shown, *floor])
    pad = 1.25 if logarithmic else 0.06 * max(high - low, 1e-12)
    ax.set_ylim((low / pad, high * pad) if logarithmic else (low - pad, high + pad))
    ax.axhspan(*floor, color="#DDDDDD", lw=0, zorder=0)
    text = ax.text(counts[0] * 0.9, _middle(floor, logarithmic), "real data (floor)", size=style.SMALL - 0.5)
    style.halo(text).set(color=style.QUIET, va="center", zorder=5)
    seen: dict[str, int] = {}
    early: dict[tuple[str, str], list[str]] = {}
    for label, line in quality.items():
        method = method_of(label, methods)
        dash, marker = _STROKES[seen.get(method.key, 0) % len(_STROKES)]
        seen[method.key] = seen.get(method.key, 0) + 1
        x, y = np.array(sorted(line), float).T
        ax.plot(x, y, ls=dash, marker=marker, ms=4, lw=1.5, color=method.colour, mec="white", mew=0.5)
        if ends[label] and label not in named:
            early.setdefault((_SIGNS[marker], label.rpartition(" · ")[2]), []).append(label)
    if early:  # a line from where they end to the others' names would cross these
        words = "  ".join(f"{sign} {name if labels[1:] else labels[0]}" for (sign, name), labels in early.items())
        alone = [label for labels in early.values() for label in labels]
        tint = method_of(alone[0], methods).colour if len(alone) == 1 else style.QUIET
        ax.annotate(words, (1, 1), (-2, -2), "axes fraction", "offset points", ha="right", va="top").set(
            size=style.SMALL - 0.5, color=tint
        )
    style.as_curves(ax, "network evaluations a sample", f"{metric}: lower is better" if logarithmic else metric)
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(style.tick)
    ax.xaxis.set_minor_locator(NullLocator())
    if logarithmic:
        ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high / low < 300 else (1,)))
        ax.yaxis.set_major_formatter(style.tick)
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(style.tick)
    style.end_labels(
        ax, [(x, y, label, method_of(label, methods).colour) for label, (x, y) in named.items()], size=size
    )
    return grid.figure


def losses(methods: Sequence[Method], *, title: str = "", note: str = "") -> Figure:
    """Training losses, one panel a method, for their levels can't be compared: the targets differ."""
    if not methods or not all(len(method.losses) and len(method.losses) == len(method.steps) for method in methods):
        raise InputError("There are no losses to draw: every method needs steps and losses, equally many.")
    n = len(methods)
    columns, width = style.columns_of(n)
    grid = style.axes_grid(
        -(-n // columns),
        columns,
        panel=(5.2 if n == 1 else width - 0.2, 1.9),
        gap=(0.5, 0.9),
        margin=(0.5, 0.22, 0.48, 0.42),
        title=title,
        note=note,
        used=n,
    )
    for method, ax in zip(methods, grid.axes.flat, strict=False):
        tint = method.colour
        ax.plot(method.steps, method.losses, color=tint, lw=0.6, alpha=0.3)
        smooth = smoothed(np.asarray(method.losses, float))
        ax.plot(method.steps, smooth, color=tint, lw=1.8)
        known = method.losses[np.isfinite(method.losses)]
        if len(known):
            # A first loss far above the rest would flatten everything that happens later.
            top = max(np.percentile(known, 98), float(known[len(known) // 4 :].max(initial=0)))
            low = float(known.min())
            ax.set_ylim(low - 0.06 * (top - low) - 1e-9, top + 0.06 * (top - low) + 1e-9)
        ax.set_xlim(0, method.steps[-1])
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        style.as_curves(ax, "training step")
        ax.text(0, 1.16, method.name, transform=ax.transAxes, size=style.LABEL + 0.5, weight="bold", color=tint)
        end = f"loss, {smooth[-1]:.3g} at the end"
        ax.text(0, 1.04, end, transform=ax.transAxes, size=style.SMALL, color=style.QUIET)
    return grid.figure


def stopping(
    steps: Sequence[int], trained: Sequence[float], held: Mapping[int, float], *, title: str = "", note: str = ""
) -> Figure:
    """Running median of training losses, and held-out losses, over a search's steps, with that of the least."""
    if not held or len(steps) != len(trained):
        raise InputError("There is no held-out loss to draw: it takes steps and losses, equally many.")
    grid = style.axes_grid(1, 1, panel=(5.2, 2.2), margin=(0.6, 0.9, 0.3, 0.45), title=title, note=note)
    ax, (where, least) = grid.axes[0, 0], min(held.items(), key=lambda item: item[1])
    smooth = np.asarray(trained, float)
    if len(steps):  # by the median: a single step's loss may be a thousand times the others'
        smooth = median_filter(smooth, 2 * max(len(steps) // 40, 1) + 1)
    ax.plot(steps, smooth, color=style.QUIET, lw=1.2)
    ax.plot(list(held), list(held.values()), color=style.FLOW, lw=1.6, marker="o", ms=2.5)
    ax.axvline(where, color=style.QUIET, lw=0.8, ls=(0, (4, 2)))
    ax.set_xlim(0, max([*steps, *held, 1]))
    values = [*held.values(), *smooth[np.isfinite(smooth)]]
    low, top = min(values), max([*held.values(), *smooth[len(smooth) // 4 :]])
    ax.set_ylim(low - 0.06 * (top - low) - 1e-9, top + 0.06 * (top - low) + 1e-9)
    style.as_curves(ax, "training step")
    ax.text(0, 1.04, f"held-out loss, least at step {where:,}: {least:.4g}", transform=ax.transAxes, size=style.SMALL)
    ends = [(float(max(held)), list(held.values())[-1], "held out", style.FLOW)]
    if len(steps):
        ends.append((float(steps[-1]), float(smooth[-1]), "training", style.QUIET))
    style.end_labels(ax, ends, size=style.LABEL - 0.5)
    return grid.figure


def smoothed(losses: Float[Array, " n"]) -> Float[Array, " n"]:
    """The mean over a centred window of a twentieth of the run; what isn't finite is left out.

    losses: of each step that was logged.
    """
    half = max(len(losses) // 40, 1)
    known = np.isfinite(losses)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, losses, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(losses))
    # As wide to the left as to the right, so that the fall at the start isn't delayed; the flat end takes what it has.
    reach = np.minimum(half, index)
    low, high = np.minimum(index - reach, len(losses) - half - 1).clip(0), np.minimum(index + reach + 1, len(losses))
    number = count[high] - count[low]
    return np.where(number > 0, (total[high] - total[low]) / np.maximum(number, 1), np.nan)


def method_of(label: str, methods: Sequence[Method]) -> Method:
    """The method whose name a label begins with."""
    found = [method for method in methods if label.startswith(method.name)]
    if not found:
        names = ", ".join(method.name for method in methods)
        raise InputError(f"A quality label must begin with a method's name ({names}); got {label!r}.")
    return max(found, key=lambda method: len(method.name))


def _end(line: Sequence[tuple[int, float]]) -> tuple[float, float] | None:
    """The last (evaluations, metric) of a line whose metric is finite."""
    return max(((float(n), float(value)) for n, value in line if np.isfinite(value)), default=None)


def _middle(floor: style.Pair, logarithmic: bool) -> float:
    return float(np.sqrt(floor[0] * floor[1]) if logarithmic else (floor[0] + floor[1]) / 2)
