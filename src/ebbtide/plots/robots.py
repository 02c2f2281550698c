"""Pictures of policies: chunks beside recordings, fans of sampled chunks, scores, quality against cost, masks, latency.

Robot time runs forward, in seconds; along a chunk it has special colours (AHEAD), for a chunk's times are not the
t of noise and data. Push-T is drawn as its simulator draws it: 512 × 512, y downwards.
"""

from collections.abc import Mapping, Sequence
from math import ceil, cos, pi, sin
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..errors import InputError
from ..metrics.success import score_interval
from . import style
from .style import Array, Number

# Plasma without its palest yellow: from violet, now, to orange, the chunk's last step.
AHEAD: Colormap = ListedColormap(mpl.colormaps["plasma"](np.linspace(0.05, 0.83, 256)), name="ahead")
# From mode to mode, dark enough in the middle to be seen.
_MODES = LinearSegmentedColormap.from_list("modes", ["#009E73", "#7A7A7A", "#C2569A"])
PUSHT_SIDE, PUSHT_AGENT = 512, 15  # the scene's side, the agent's radius
PUSHT_GOAL = (256.0, 256.0, pi / 4)
# Push-T's block about its body's origin, the middle of its flat top: a bar 120 × 30 and a stem 30 × 90 below.
_TEE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
_BLOCK, _GOAL, _AGENT = "#8D99A6", "#A9DDB1", "#4C6FD1"
_EM = 0.6 / 72  # inches per character and point of DejaVu Sans, on the safe side
LEGEND: dict[str, Any] = {"fontsize": style.SMALL, "frameon": False, "labelcolor": "linecolor", "handlelength": 2.4}
DASHES = [("-", "o"), ((0, (4, 1.6)), "s"), ((0, (1.2, 1.2)), "^"), ((0, (5, 1.5, 1, 1.5)), "D")]

Chunks = Sequence[tuple[int, Float[Array, "_steps _joints"]]]


# ── Chunks beside recordings ──────────────────────────────────────────────────────────────────────────────────────────


def trajectories(
    truth: Float[Array, "n a"],
    chunks: Chunks,
    names: Sequence[str] = (),
    fps: Number = 10,
    *,
    unit: str | Sequence[str] = "",
    key: str = "flow",
    title: str = "",
    note: str = "",
) -> Figure:
    """Predicted chunks, dashed, over what was recorded, solid: a panel for each joint with its mean absolute error.

    chunks: (start, chunk (h, a)), where chunk[0] is for step `start`; steps beyond the recording are drawn, not judged.
    unit: of all joints, or one for each.
    """
    error = absolute_error(truth, chunks)
    a = truth.shape[1]
    names = _named(names, a)
    fps = _positive("fps", fps)
    tint = style.colour(key)
    units = [f" {text}".rstrip() for text in ([unit] * a if isinstance(unit, str) else unit)]
    if len(units) != a:
        raise InputError(f"unit must be one for all, or one for each of {a} joints; got {len(units)}.")
    average = f", {_short(float(error.mean()))}{units[0]} apart on average" if len(set(units)) == 1 else ""
    columns = 1 if a <= 3 else 2 if a <= 16 else 3
    rows = ceil(a / columns)
    panel = (6.2, 1.35) if columns == 1 else (3.5, 0.72) if columns == 2 else (2.5, 0.72)
    grid = style.axes_grid(
        rows,
        columns,
        panel=panel,
        gap=(0.5, 0.34),
        margin=(0.5, 0.15, 0.46, 0.4),
        title=title or f"Predicted and recorded actions{average}",
        note=note,
    )
    last = max([len(truth), *(start + len(chunk) for start, chunk in chunks)]) - 1
    seconds = np.arange(last + 1) / fps
    # Down the columns: of two arms, the left one stands on the left.
    panels = list(grid.axes.T.flat)
    for joint, ax in enumerate(panels[:a]):
        ax.plot(seconds[: len(truth)], truth[:, joint], color=style.REAL, lw=1.8, alpha=0.75, solid_capstyle="round")
        for start, chunk in chunks:
            x = seconds[start : start + len(chunk)]
            ax.plot(x, chunk[:, joint], color=tint, lw=1.4, ls=(0, (3, 1.5)))
            first: dict[str, Any] = {"marker": "o", "ms": 3.2, "mec": "white", "mew": 0.5, "clip_on": False}
            ax.plot(x[:1], chunk[:1, joint], color=tint, ls="none", zorder=4, **first)
        ax.set_xlim(0, max(seconds[-1], 1 / fps))
        ax.margins(y=0.12)
        if len(set(units)) == 1:
            _widen(ax, float(np.ptp(truth, axis=0).max()))
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(3 if columns > 1 else 4))
        bottom = joint % rows == rows - 1 or joint == a - 1
        ax.tick_params(labelbottom=bottom)
        style.as_curves(ax, "seconds" if bottom else "")
        ax.set_title(names[joint], size=style.SMALL, color=style.INK, loc="left", pad=4)
        ax.set_title(
            f"error {_short(float(error[joint]))}{units[joint]}", size=style.SMALL, color=tint, loc="right", pad=4
        )
    for ax in panels[a:]:
        ax.remove()
    _legend(
        grid.figure,
        [
            Line2D([], [], color=style.REAL, lw=1.8, alpha=0.75, label="recorded"),
            Line2D([], [], color=tint, lw=1.4, ls=(0, (3, 1.5)), label="predicted"),
            Line2D([], [], color=tint, ls="none", marker="o", ms=3.2, label="a chunk's first step"),
        ],
    )
    return grid.figure


def absolute_error(truth: Float[Array, "n a"], chunks: Chunks) -> Float[Array, " a"]:
    """mean |chunk − truth| of each joint over all chunks' steps inside the recording, in the actions' own units."""
    n, a = _numbers("truth", truth, 2).shape
    if not chunks:
        raise InputError("chunks must hold at least one (start, chunk); got none.")
    gaps = []
    for start, chunk in chunks:
        if _numbers("A chunk", chunk, 2).shape[1] != a:
            raise InputError(f"A chunk must have the recording's {a} joints; got shape {chunk.shape}.")
        if not 0 <= start < n:
            raise InputError(f"A chunk must start at a step of the recording, 0 … {n - 1}; got {start}.")
        inside = chunk[: n - start]
        gaps.append(np.abs(inside - truth[start : start + len(inside)]))
    return np.concatenate(gaps).mean(0)


# ── Fans of sampled chunks ────────────────────────────────────────────────────────────────────────────────────────────


def fan(
    chunks: Float[Array, "n h a"],
    names: Sequence[str] = (),
    fps: Number = 10,
    *,
    recorded: Float[Array, "_steps _joints"] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Chunks sampled for one observation: each joint's value over the horizon.

    A sample has one colour in all panels, by its place on the samples' first principal axis: two modes, two colours.
    """
    n, h, a = _numbers("chunks", chunks, 3).shape
    if recorded is not None and _numbers("recorded", recorded, 2).shape != (h, a):
        raise InputError(f"recorded must have the chunks' shape ({h}, {a}); got {recorded.shape}.")
    names = _named(names, a)
    seconds = np.arange(h) / _positive("fps", fps)
    columns = min(a, 2 if a <= 2 else 3 if a <= 6 else 4)
    rows = ceil(a / columns)
    grid = style.axes_grid(
        rows,
        columns,
        panel=(7.3 / columns - 0.6, 1.9 if columns <= 2 else 1.15),
        gap=(0.6, 0.34),
        margin=(0.58, 0.15, 0.46 if recorded is not None else 0.22, 0.4),
        title=title or f"{style.plural(n, 'chunk')} sampled for one observation",
        note=note
        or ("A sample has the same colour in every panel, by where it lies on their main axis." if n > 1 else ""),
        used=a,
    )
    place = principal(chunks)
    tints = _MODES(place)
    alpha = float(np.clip(4 * n**-0.5, 0.18, 0.9))
    for joint, ax in enumerate(panel for panel in grid.axes.flat if panel is not None):
        lines = np.stack([np.broadcast_to(seconds, (n, h)), chunks[:, :, joint]], 2)
        ax.add_collection(LineCollection(list(lines), colors=tints, alpha=alpha, linewidths=1.0))
        if recorded is not None:
            ax.plot(seconds, recorded[:, joint], color=style.INK, lw=1.4, ls=(0, (1, 1)))
        ax.autoscale_view()
        ax.set_xlim(0, max(seconds[-1], 1e-9))
        ax.margins(y=0.08)
        _widen(ax, float(np.ptp(chunks, axis=(0, 1)).max()))
        ax.xaxis.set_major_locator(MaxNLocator(6 if columns <= 2 else 3, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(5 if columns <= 2 else 3))
        bottom = joint + columns >= a
        ax.tick_params(labelbottom=bottom)
        style.as_curves(ax, "seconds ahead" if bottom else "")
        ax.set_title(names[joint], size=style.SMALL, color=style.INK, loc="left", pad=4)
    if recorded is not None:
        _legend(grid.figure, [Line2D([], [], color=style.INK, lw=1.4, ls=(0, (1, 1)), label="recorded")])
    return grid.figure


def principal(chunks: Float[Array, "n h a"]) -> Float[Array, " n"]:
    """Each sample's place on the first principal axis of all, in [0, 1]; every joint counts by its own spread."""
    n = len(chunks)
    x = chunks.reshape(n, -1) - chunks.reshape(n, -1).mean(0)
    spread = chunks.std((0, 1)) if n > 1 else np.zeros(chunks.shape[2])
    x = x / np.tile(np.where(spread > 0, spread, 1.0), chunks.shape[1])
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    place = x @ axes[0]
    place = place * np.sign(axes[0][np.abs(axes[0]).argmax()] or 1.0)  # the sign of an axis is arbitrary
    reach = np.ptp(place)
    return (place - place.min()) / reach if reach > 1e-9 else np.full(n, 0.5)


def pusht_fan(
    state: Float[Array, "*k 5"],
    chunks: Float[Array, "*k n h 2"],
    *,
    recorded: Float[Array, "*k h 2"] | None = None,
    names: Sequence[str] = (),
    fps: Number = 10,
    title: str = "",
    note: str = "",
) -> Figure:
    """Chunks sampled in one or k scenes of Push-T, coloured by the time along them; `recorded` is what was done.

    state: agent x, y, block x, y, angle. chunks: where the agent is sent, in the scene's own units.
    """
    state = np.atleast_2d(_numbers("state", state))
    chunks = _numbers("chunks", chunks)
    chunks = chunks[None] if chunks.ndim == 3 else chunks
    k, n, h, _ = chunks.shape
    done = None if recorded is None else _numbers("recorded", recorded).reshape(-1, *recorded.shape[-2:])
    if names and len(names) != k:
        raise InputError(f"names must be one for each of {k} scenes; got {len(names)}.")
    columns = min(k, 3)
    side = 4.2 if k == 1 else 3.1 if k == 2 else 2.5
    grid = style.axes_grid(
        ceil(k / columns),
        columns,
        panel=(side, side),
        gap=(0.14, 0.3 if names else 0.14),
        margin=(0.12, 0.12, 0.3 if names else 0.08, 0.42),
        title=title or f"{style.plural(n, 'chunk')} sampled for {'one observation' if k == 1 else 'each observation'}",
        note=note
        or "Lines: where the agent is sent. Green: the block's goal."
        + ("" if done is None else " White dots: what was recorded."),
        used=k,
    )
    for i, ax in enumerate(panel for panel in grid.axes.flat if panel is not None):
        pusht_scene(ax, state[i])
        _coloured(ax, chunks[i])
        if done is not None:
            ax.plot(
                *done[i].T, color=style.INK, lw=1.0, marker="o", ms=3, mfc="white", mec=style.INK, mew=0.7, zorder=6
            )
        if names:
            ax.set_title(names[i], size=style.SMALL, color=style.INK, loc="left", pad=4)
    # The bar stands right above the note.
    foot = grid.figure.get_size_inches()[1] * min(ax.get_position().y0 for ax in grid.axes.flat if ax is not None)
    _ahead_bar(grid.figure, foot - 0.3, (h - 1) / _positive("fps", fps))
    return grid.figure


def pusht_scene(ax: Axes, state: Float[Array, "5"], goal: tuple[Number, Number, Number] = PUSHT_GOAL) -> None:
    """The agent, the block and its goal, as Push-T's own renderer places them."""
    x, y = state[:2].tolist()
    ax.add_patch(Polygon(tee(goal), facecolor=_GOAL, edgecolor="none", zorder=1))
    ax.add_patch(Polygon(tee(state[2:]), facecolor=_BLOCK, edgecolor="white", lw=0.8, alpha=0.9, zorder=2))
    ax.add_patch(Circle((x, y), PUSHT_AGENT, facecolor=_AGENT, edgecolor="white", lw=0.8, zorder=3))
    ax.set(xlim=(0, PUSHT_SIDE), ylim=(PUSHT_SIDE, 0), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(NullLocator())


def tee(pose: Sequence[Number] | Float[Array, "3"]) -> Float[Array, "8 2"]:
    """The outline of Push-T's block at (x, y, angle): its corners turned by the angle and moved to (x, y)."""
    x, y, angle = pose
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    return _TEE @ turn.T + [x, y]


def _coloured(ax: Axes, chunks: Float[Array, "n h 2"]) -> None:
    """Chunks as lines whose segments are coloured by the step they lead to, and a dot at each last step."""
    n, h, _ = chunks.shape
    pieces = np.stack([chunks[:, :-1], chunks[:, 1:]], 2)  # (n, h - 1, ends, 2)
    tints = AHEAD(np.linspace(0, 1, max(h - 1, 2))[: h - 1])
    alpha = float(np.clip(5 * n**-0.5, 0.35, 0.95))
    # Step by step, so that no sample lies above another from end to end.
    lines = pieces.swapaxes(0, 1).reshape(-1, 2, 2)
    ax.add_collection(
        LineCollection(list(lines), colors=tints.repeat(n, 0), alpha=alpha, linewidths=1.3, zorder=4),
        autolim=False,
    )
    size = float(np.clip(9 * n**-0.3, 1.8, 4.5))
    ax.plot(*chunks[:, -1].T, ls="none", marker="o", ms=size, mec="white", mew=0.3, color=AHEAD(1.0), zorder=5)


def _ahead_bar(figure: Figure, y: float, seconds: float) -> None:
    """A strip of the colours along a chunk, y inches from the bottom."""
    w, h = figure.get_size_inches()
    ax = figure.add_axes((0.55 / w, y / h, 1.3 / w, 0.09 / h))
    ax.imshow(np.linspace(0, 1, 128)[None], cmap=AHEAD, aspect="auto", vmin=0, vmax=1)
    ax.set_axis_off()
    for place, text, side in ((-0.04, "now", "right"), (1.04, f"{seconds:.2g} s ahead", "left")):
        ax.text(place, 0.5, text, transform=ax.transAxes, size=style.SMALL, color=style.QUIET, ha=side, va="center")


# ── Scores, quality, latency ──────────────────────────────────────────────────────────────────────────────────────────


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
    """
    if not results:
        raise InputError("There are no scores to draw.")
    for name, x in results.items():
        x = _numbers(f"The scores of {name!r}", x, 1)
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
    if not rows:
        raise InputError("There are no times to draw.")
    for group, name, median, p95 in rows:
        if not 0 < median <= p95 < float("inf"):
            raise InputError(f"{group}, {name}: times must be 0 < median ≤ p95; got {median:g} and {p95:g}.")
    variants = list(dict.fromkeys(name for _, name, _, _ in rows))
    inks = [style.REAL, style.FLOW, *(tint for tint, _ in style.CLASSES)]
    alone = all(len(own) == 1 for own in times.values())  # nothing to compare: one colour
    tints = {name: style.FLOW if alone else inks[i % len(inks)] for i, name in enumerate(variants)}
    step, apart = 1.0, 1.15  # between bars and, more, between groups
    left = 0.25 + style.SMALL * _EM * max(len(text) for row in rows for text in row[:2])
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
    """A method's colour where its key is in the label, else one of the others, in turn."""
    found = [tint for key, tint in style.METHOD_COLOURS.items() if key in label.lower()]
    return found[0] if len(found) == 1 else style.class_style(index)[0]


# ── Attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def attention(
    mask: Bool[Array, "n n"],
    blocks: Sequence[tuple[str, int]],
    *,
    padded: Bool[Array, " n"] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Attention: row i, column j is coloured where token i attends to token j. blocks: (name, tokens), in order.

    padded: tokens that stand for nothing, whose rows and columns are drawn grey.
    """
    n = len(mask)
    if mask.shape != (n, n) or sum(size for _, size in blocks) != n or any(size < 1 for _, size in blocks):
        raise InputError(f"blocks must have at least one token each and {n} of the mask in all; got {list(blocks)}.")
    padded = np.zeros(n, bool) if padded is None else padded
    if padded.shape != (n,):
        raise InputError(f"padded must have one value for each of {n} tokens; got shape {padded.shape}.")
    cell = float(np.clip(3.6 / n, 0.012, 0.32))
    names = [name for name, _ in blocks]
    edges = np.cumsum([0, *(size for _, size in blocks)])
    middles = (edges[1:] + edges[:-1]) / 2
    lean = any(len(name) * style.SMALL * _EM > size * cell for name, size in blocks)
    longest = max(map(len, names)) * style.SMALL * _EM
    grid = style.axes_grid(
        1,
        1,
        panel=(n * cell, n * cell),
        margin=(0.4 + longest, 0.25 + (0.7 * longest if lean else 0), 0.12 + (0.75 * longest if lean else 0.14), 0.12),
        title=title or "Who sees whom",
        note=note
        or "A row is a token that looks, a column one that is looked at; white is hidden."
        + (" Grey tokens are padding." if padded.any() else ""),
    )
    ax = grid.axes[0, 0]
    owner = np.repeat(np.arange(len(blocks)), np.diff(edges))
    tints = np.array([to_rgb(_block_colour(k)) for k in range(len(blocks))])
    picture = np.where(mask[..., None], tints[owner][None], 1.0)
    picture[padded] = picture[:, padded] = to_rgb("#DADADA")
    ax.imshow(picture, extent=(0, n, n, 0), interpolation="nearest", aspect="auto")
    if cell > 0.09:
        ax.hlines(range(1, n), 0, n, color="#E6E6E6", lw=0.6)
        ax.vlines(range(1, n), 0, n, color="#E6E6E6", lw=0.6)
    # A line would hide a block that is hardly wider.
    wide = np.diff(edges) * cell > 0.06
    between = edges[1:-1][wide[1:] & wide[:-1]]
    ax.hlines(between, 0, n, color=style.INK, lw=0.9)
    ax.vlines(between, 0, n, color=style.INK, lw=0.9)
    ax.set(xlim=(0, n), ylim=(n, 0))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(NullLocator())
    for spine in ax.spines.values():
        spine.set(color=style.INK, linewidth=0.9)
    gap = {"textcoords": "offset points", "size": style.SMALL, "color": style.INK, "annotation_clip": False}
    angle: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if lean else {"ha": "center"}
    for name, middle in zip(names, middles.tolist(), strict=True):
        ax.annotate(name, (0, middle), (-5, 0), ha="right", va="center", **gap)
        ax.annotate(name, (middle, 0), (0, 4), va="bottom", **angle, **gap)
    return grid.figure


def _block_colour(index: int) -> str:
    """Sky blue, green, orange, pink: the classes' colours without black, no method's own."""
    return ["#56B4E9", "#009E73", "#E69F00", "#CC79A7"][index % 4]


# ── Parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A row of line samples under the title."""
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(0.02, 1 - 0.32 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=style.SMALL,
        labelcolor=style.QUIET,
        borderaxespad=0,
        handlelength=2.4,
    )


def _widen(ax: Axes, most: float) -> None:
    """At least a tenth of what the liveliest joint does, so that a joint at rest looks at rest."""
    low, high = ax.get_ylim()
    missing = max(0.1 * most - (high - low), 0.0) / 2
    ax.set_ylim(low - missing, high + missing)


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


def _short(value: Number) -> str:
    """Three figures: 0.0280, 5.34, 120."""
    return f"{value:#.3g}".rstrip(".")


def _times(ratio: float) -> str:
    return f"{ratio:.2g} × faster" if ratio >= 1 else f"{1 / ratio:.2g} × slower"


def _named(names: Sequence[str], a: int) -> list[str]:
    if names and len(names) != a:
        raise InputError(f"names must be one for each of {a} joints; got {len(names)}.")
    return list(names) or [f"joint {i + 1}" for i in range(a)]


def _numbers(what: str, x: Any, ndim: int | None = None) -> Array:
    array = np.asarray(x)
    if array.size == 0 or (ndim is not None and array.ndim != ndim) or not np.isfinite(array).all():
        axes = f"{ndim} axes of " if ndim else ""
        raise InputError(f"{what} must be {axes}finite numbers, at least one; got shape {array.shape}.")
    return array


def _positive(what: str, value: Number) -> float:
    if not 0 < value < float("inf"):
        raise InputError(f"{what} must be a number above 0; got {value:g}.")
    return float(value)
