"""Pictures of points: samples beside real data, routes from noise to data, steps on the way, velocity fields, data.

All panels of a picture share their limits. One column of data is drawn as histograms; of more than two, the first
two columns are drawn, and `histograms` and `pairs` show the others.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..errors import InputError
from ..specs import listed
from . import style
from .study import Method
from .style import Array, Limits

SHOWN = 20_000  # dots a panel; more add time, not information
TIMES = (1.0, 0.5, 0.25, 0.1, 0.0)  # a diffusion does most of its work late


class Panel(NamedTuple):
    """One set of points and what is written above it."""

    title: str
    x: Array
    colour: str
    subtitle: str = ""
    labels: Array | None = None


def scatter_panels(
    panels: Sequence[Panel],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    classes: Sequence[str] = (),
    title: str = "",
    note: str = "",
) -> Figure:
    """Every set of points in the same frame; `real` adds the outline that holds 95 % of the real points."""
    _some(panels, "panels")
    shown = [panel._replace(x=style.checked_points(panel.x, panel.title or "points")) for panel in panels]
    limits = style.as_limits(limits, shown[0].x.shape[1])
    columns = len(panels) if len(panels) <= 2 else 4 if len(panels) in (4, 8) else 3
    rows = -(-len(panels) // columns)
    width = {1: 4.4, 2: 3.1, 3: 2.1, 4: 1.6}[columns]
    height = _height(width, limits)
    grid = style.axes_grid(
        rows,
        columns,
        panel=(width, height),
        gap=(0.12, 0.46),
        margin=(0.36, 0.1, 0.42, 0.26),
        title=title,
        note=note,
        used=len(panels),
    )
    drawing = _Drawing(limits, real, [panel.x for panel in shown])
    for index, panel in enumerate(shown):
        ax = grid.axes.flat[index]
        drawing.draw(ax, panel.x, panel.colour, panel.labels, names=classes if index == 0 else ())
        style.scattered(
            ax, drawing.frame, labels=(index >= len(panels) - columns, drawing.flat and index % columns == 0)
        )
        size = style.LABEL if width > 2 else style.LABEL - 0.5
        head = ax.text(0, 1 + 0.19 / height, panel.title, transform=ax.transAxes, size=size, weight="bold")
        head.set(color=panel.colour, va="baseline")
        ax.text(0, 1 + 0.05 / height, panel.subtitle, transform=ax.transAxes, size=style.SMALL, color=style.QUIET)
        if missing := style.outside(panel.x, limits):
            style.corner(ax, f"{missing:,} outside")
    return grid.figure


def trajectories(
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    count: int = 40,
    title: str = "",
    note: str = "",
) -> Figure:
    """Routes of single points from noise (ring) to data (dot), coloured by time; the noise is the same for all."""
    walks = [
        (method, style.nearest_to(method.walk_times, np.linspace(1, 0, 80).tolist())) for method in _walked(methods)
    ]
    d = walks[0][0].walk.shape[2]
    limits = style.as_limits(limits, d)
    frame = style.union(limits, np.concatenate([method.walk[0, :count] for method, _ in walks]), tail=0)
    if d == 1:
        frame = np.stack([[1.02, -0.02], frame[0]])
    height = _height(3.1, frame) if d > 1 else 2.4
    grid = style.axes_grid(
        1,
        len(walks),
        panel=(3.1, height),
        gap=(0.16, 0),
        margin=(0.36, 0.1, 0.3, 0.62),
        title=title,
        note=note,
    )
    for (method, steps), ax in zip(walks, grid.axes[0], strict=True):
        walk, times = method.walk[steps][:, :count], method.walk_times[steps]
        if d == 1:
            walk = np.concatenate([np.broadcast_to(times[:, None, None], walk.shape), walk], 2)
        elif real is not None:
            style.dots(ax, style.finite_rows(real)[:3000, :2], "#B8B8B8", count=3000)
        lines = walk[..., :2].transpose(1, 0, 2)
        pieces = np.stack([lines[:, :-1], lines[:, 1:]], 2).reshape(-1, 2, 2)
        middle = np.tile((times[:-1] + times[1:]) / 2, lines.shape[0])
        ax.add_collection(LineCollection(list(pieces), colors=style.TIME(middle), linewidths=1.1), autolim=False)
        ax.plot(*lines[:, 0].T, ls="none", marker="o", ms=4, mew=1, mfc="white", mec=style.TIME(0.97), zorder=4)
        ax.plot(*lines[:, -1].T, ls="none", marker="o", ms=3.6, mew=0, color=style.TIME(0.0), zorder=5)
        ax.set_title(
            method.name, loc="left", size=style.LABEL + 0.5, weight="bold", color=style.colour(method.key), pad=4
        )
        style.scattered(ax, frame, labels=(d > 1, ax is grid.axes[0, 0]))
    foot = grid.axes[0, 0].get_position().y0 * grid.figure.get_size_inches()[1]
    width = grid.figure.get_size_inches()[0]
    bar = min(2.4, width - 1.9)  # its ends are named beside it
    style.time_bar(grid.figure, (width - bar) / 2, foot - 0.42, bar)
    return grid.figure


def intermediate(
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    times: Sequence[style.Number] = TIMES,
    title: str = "",
    note: str = "",
) -> Figure:
    """Steps on the way: a row for each method, a column for each time."""
    _walked(methods)
    rows = []
    for method in methods:
        steps = style.nearest_to(method.walk_times, times)
        rows.append((method.name, style.colour(method.key), [method.walk[i] for i in steps]))
        heads = [style.time_label(method.walk_times[i]) for i in steps]
    if len({len(row[2]) for row in rows}) > 1:
        raise InputError("Every method's walk must have the same times.")
    return filmstrip(rows, heads, limits, real=real, hold_noise=True, title=title, note=note)


def progress(
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    columns: int = 5,
    title: str = "",
    note: str = "",
) -> Figure:
    """Samples over training: a row for each method, a column for each of a few training steps, evenly far apart."""
    _some(methods, "methods")
    count = min(len(method.evolution) for method in methods)
    if count == 0:
        raise InputError("No samples were kept during training, so there is no progress to draw.")
    chosen = np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(int))
    rows = [(m.name, style.colour(m.key), [m.evolution[i][1] for i in chosen]) for m in methods]
    heads = [f"step {methods[0].evolution[i][0]:,}" for i in chosen]
    return filmstrip(rows, heads, limits, real=real, title=title, note=note)


def filmstrip(
    rows: Sequence[tuple[str, str, Sequence[Array]]],
    heads: Sequence[str],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    hold_noise: bool = False,
    labels: Array | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Rows (name, colour, one set of points a column) under the columns' heads.

    hold_noise: widen the frame to hold the first column too.
    """
    _some(rows, "rows")
    d = style.checked_points(rows[0][2][0]).shape[1]
    frame = style.as_limits(limits, d)
    if hold_noise:
        frame = style.union(frame, np.concatenate([style.checked_points(row[2][0]) for row in rows]))
    n = len(heads)
    width = min(2.4, (6.5 - 0.06 * (n - 1)) / n)
    height = _height(width, frame)
    grid = style.axes_grid(
        len(rows),
        n,
        panel=(width, height),
        gap=(0.06, 0.08),
        margin=(0.32, 0.06, 0.26, 0.08),
        title=title,
        note=note,
    )
    drawings = [_Drawing(frame, real, [row[2][k] for row in rows]) for k in range(n)]
    for (i, (name, tint, clouds)), k in product(enumerate(rows), range(n)):
        ax = grid.axes[i, k]
        drawings[k].draw(ax, style.checked_points(clouds[k]), tint, labels)
        style.scattered(ax, drawings[k].frame, labels=(False, False))
        if i == 0:
            ax.set_title(heads[k], size=style.LABEL - 0.5, color=style.INK, pad=4)
        if k == 0:
            style.row_label(ax, name, tint)
    return grid.figure


def vector_field(methods: Sequence[Method], limits: Limits, *, title: str = "", note: str = "") -> Figure:
    """Directions of motion: −dx/dt at a grid of points, over samples of x_t; rows are methods, columns are times.

    Each panel has its own scale, and states its speed: the longest arrow is the 90th percentile of the speeds met by
    samples, and faster ones are cut to it, for near t = 0 a diffusion's velocity grows without bound where no
    sample is, and at t = 0.9 it hardly moves. Arrows fade where there are no samples. One column: dx/dt against x.
    """
    _some(methods, "methods")
    times = [[field[0] for field in method.fields] for method in methods]
    if not times[0] or any(len(t) != len(times[0]) or not np.allclose(t, times[0]) for t in times):
        raise InputError("Every method needs velocity fields at the same times.")
    d = style.checked_points(methods[0].fields[0][1]).shape[1]
    frame = style.as_limits(limits, d)
    frame = style.union(frame, np.concatenate([style.checked_points(method.fields[0][3]) for method in methods]))
    n = len(times[0])
    width = min(2.4, (6.5 - 0.06 * (n - 1)) / n)
    grid = style.axes_grid(
        len(methods),
        n,
        panel=(width, _height(width, frame)),
        gap=(0.06, 0.08),
        margin=(0.32, 0.06, 0.26, 0.1),
        title=title,
        note=note,
    )
    for k in range(n):
        columns = [[style.checked_points(part) for part in method.fields[k][1:]] for method in methods]
        draw = _velocity_curves if d == 1 else _arrows
        draw(grid.axes[:, k], columns, frame, [style.colour(method.key) for method in methods])
        grid.axes[0, k].set_title(style.time_label(times[0][k]), size=style.LABEL - 0.5, color=style.INK, pad=4)
    for method, ax in zip(methods, grid.axes[:, 0], strict=True):
        style.row_label(ax, method.name, style.colour(method.key))
    return grid.figure


def histograms(
    panels: Sequence[Panel],
    limits: Limits,
    *,
    real: Float[Array, "n d"],
    names: Sequence[str] = (),
    most: int = 6,
    title: str = "",
    note: str = "",
) -> Figure:
    """Each column's distribution: real data filled in grey, every panel's points as a line; at most `most` columns."""
    _some(panels, "panels")
    real = style.checked_points(real, "real")
    d = real.shape[1]
    limits = style.as_limits(limits, d)
    shown = min(d, most)
    columns = min(shown, 3)
    rows = -(-shown // columns)
    width = {1: 5.6, 2: 3.1, 3: 2.1}[columns]
    grid = style.axes_grid(
        rows,
        columns,
        panel=(width, min(1.5, width * 0.7)),
        gap=(0.12, 0.5),
        margin=(0.1, 0.1, 0.5, 0.3),
        title=title,
        note=note,
        used=shown,
    )
    for k in range(shown):
        ax = grid.axes.flat[k]
        heights, edges = _histogram(real[:, k], limits[k])
        ax.stairs(heights, edges, fill=True, color="#D4D4D4")
        top = heights.max()
        for panel, dash in zip(panels, ["-", (0, (4, 1.5))] * len(panels)):
            heights, _ = _histogram(style.checked_points(panel.x)[:, k], limits[k])
            top = max(top, heights.max())
            ax.stairs(heights, edges, color=panel.colour, lw=1.3, ls=dash, baseline=None)
        ax.set(xlim=limits[k], ylim=(0, 1.08 * top))
        ax.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        ax.yaxis.set_major_locator(NullLocator())
        ax.spines[["top", "right", "left"]].set_visible(False)
        if d > 1:
            ax.set_title(_name(names, k), size=style.SMALL, color=style.INK, loc="left", pad=3)
    texts = [("real data", style.REAL), *((panel.title, panel.colour) for panel in panels)]
    style.text_row(grid.figure, texts, 0.5 if title else 0.16)
    return grid.figure


def pairs(
    panels: Sequence[Panel],
    limits: Limits,
    *,
    real: Float[Array, "n d"],
    names: Sequence[str] = (),
    most: int = 4,
    title: str = "",
    note: str = "",
) -> Figure:
    """Every pair of the first columns: the first panel's points below the diagonal, the second's above it.

    The diagonal shows each column's distribution; the grey outline holds 95 % of the real points. Columns beyond
    `most` are named under the figure.
    """
    _some(panels, "panels")
    real = style.checked_points(real, "real")
    limits = style.as_limits(limits, real.shape[1])
    k = min(real.shape[1], most)
    if k < 2:
        raise InputError("Pairs need data of at least two columns.")
    if left := [_name(names, i) for i in range(k, real.shape[1])]:
        note = f"{note} Not shown: {listed(left)}.".strip()
    side = 6.2 / k - 0.06
    grid = style.axes_grid(
        k, k, panel=(side, side), gap=(0.06, 0.06), margin=(0.5, 0.08, 0.3, 0.32), title=title, note=note
    )
    lower, upper = panels[0], panels[min(1, len(panels) - 1)]
    for i, j in product(range(k), range(k)):
        ax = grid.axes[i, j]
        if i == j:
            heights, edges = _histogram(real[:, i], limits[i])
            ax.stairs(heights, edges, fill=True, color="#D4D4D4")
            top = max(heights.max(), 1e-12)
            for panel in (lower, upper):
                heights, _ = _histogram(style.checked_points(panel.x)[:, i], limits[i])
                top = max(top, heights.max())
                ax.stairs(heights, edges, color=panel.colour, lw=1.2, baseline=None)
            frame = np.stack([limits[i], [0, 1.1 * top]])
        else:
            panel = lower if i > j else upper
            frame = limits[[j, i]]
            style.dots(ax, style.checked_points(panel.x)[:SHOWN, [j, i]], panel.colour)
            style.draw_outline(ax, style.outline_of(real[:, [j, i]], frame))
        style.scattered(ax, frame, labels=(i == k - 1, j == 0 and i > 0))
        if j == 0:
            ax.set_ylabel(_name(names, i), size=style.SMALL, color=style.INK)
        if i == k - 1:
            ax.set_xlabel(_name(names, j), size=style.SMALL, color=style.INK, labelpad=2)
    two = [(f"▙ {lower.title}", lower.colour), (f"▜ {upper.title}", upper.colour)] if len(panels) > 1 else []
    share = f"○ {style.OUTLINE_SHARE:.0%} of the real points".replace("%", " %")
    style.text_row(grid.figure, [*two, (share, style.REAL)], 0.5 if title else 0.16)
    return grid.figure


def data_set(
    x: Float[Array, "n d"],
    limits: Limits,
    *,
    labels: Int[Array, " n"] | None = None,
    classes: Sequence[str] = (),
    names: Sequence[str] = (),
    log_density: Callable[[torch.Tensor], torch.Tensor] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """A data set: its points (by class), and beside them its exact density where there is one."""
    x = style.checked_points(x)
    limits = style.as_limits(limits, x.shape[1])
    if x.shape[1] > 2:
        panel = Panel("data", x, style.REAL)
        return pairs([panel], limits, real=x, names=names, title=title, note=note)
    two = log_density is not None and x.shape[1] == 2
    width = 3.1 if two else 4.4
    grid = style.axes_grid(
        1,
        1 + two,
        panel=(width, _height(width, limits)),
        gap=(0.16, 0),
        margin=(0.36, 0.1, 0.3, 0.3),
        title=title,
        note=note,
    )
    ax = grid.axes[0, 0]
    drawing = _Drawing(limits, None, [x])
    drawing.draw(ax, x, style.REAL, labels, names=classes)
    style.scattered(ax, drawing.frame, labels=(True, x.shape[1] > 1))
    ax.set_title(style.plural(len(x), "point"), size=style.LABEL, color=style.INK, loc="left", pad=4)
    if log_density is not None and x.shape[1] == 1:
        places = torch.linspace(float(limits[0, 0]), float(limits[0, 1]), 400, dtype=torch.float64)
        ax.plot(places, log_density(places[:, None]).exp(), color=style.INK, lw=1.4)
    elif log_density is not None:
        ax = grid.axes[0, 1]
        ax.imshow(
            density_image(log_density, limits),
            extent=(*limits[0], *limits[1]),
            origin="lower",
            cmap="cividis",
            aspect="auto",
            interpolation="bilinear",
        )
        style.scattered(ax, limits, labels=(True, False))
        ax.set_title("exact density", size=style.LABEL, color=style.INK, loc="left", pad=4)
    return grid.figure


def density_image(
    log_density: Callable[[torch.Tensor], torch.Tensor], limits: Limits, size: int = 220
) -> Float[Array, "size size"]:
    """p(x) on a grid of the frame, rows from low y to high y."""
    places = [torch.linspace(float(low), float(high), size, dtype=torch.float64) for low, high in limits]
    x, y = torch.meshgrid(*places, indexing="xy")
    return log_density(torch.stack([x, y], -1).reshape(-1, 2)).exp().reshape(size, size).numpy()


class _Drawing:
    """The style of one set of points, the same in all panels: dots, or a histogram of one column."""

    def __init__(self, limits: Limits, real: Array | None, clouds: Sequence[Array]) -> None:
        d = style.checked_points(clouds[0]).shape[1]
        self.flat, self.limits = d > 1, limits
        if self.flat:
            self.frame = limits[:2]
            self.outline = [] if real is None else style.outline_of(real, limits)
        else:
            tops = [_histogram(style.checked_points(x)[:, 0], limits[0])[0].max() for x in clouds]
            self.truth = None if real is None else _histogram(style.checked_points(real)[:, 0], limits[0])
            top = max([*tops, 0 if self.truth is None else min(self.truth[0].max(), 2 * max(tops))])
            self.frame = np.stack([limits[0], [0.0, 1.08 * max(top, 1e-12)]])

    def draw(self, ax: Axes, x: Array, colour: str, labels: Array | None = None, names: Sequence[str] = ()) -> None:
        if not self.flat:
            heights, edges = _histogram(x[:, 0], self.limits[0])
            ax.stairs(heights, edges, fill=True, color=colour, alpha=0.65)
            if self.truth is not None:
                ax.stairs(*self.truth, color=style.INK, lw=0.9, baseline=None)
            return
        x = x[:SHOWN, :2]
        if labels is None:
            style.dots(ax, x, colour)
        else:
            _draw_classes(ax, x, np.asarray(labels)[:SHOWN], names, self.frame)
        style.draw_outline(ax, self.outline)


def _draw_classes(ax: Axes, x: Array, labels: Array, names: Sequence[str], frame: Limits) -> None:
    """Each class in its colour and marker, its name at its centre if that is far from the other names."""
    kinds = np.unique(labels)
    for kind in kinds:
        tint, marker = style.class_style(int(kind))
        style.dots(ax, x[labels == kind], tint, marker, count=len(x))
    if not names or len(kinds) > 10:
        return
    size = frame[:, 1] - frame[:, 0]
    placed: list[Array] = []
    for kind in kinds:
        own = x[labels == kind]
        inside = own[(np.abs((own - frame.mean(1)) / size) < 0.38).all(1)]
        own = (inside if len(inside) else own)[:200]
        # Where the class is among itself, near its middle, and away from the other names.
        score = -0.2 * np.abs((own - np.median(own, 0)) / size).sum(1)
        for others, most in ((x[labels != kind][:300], 0.1), (np.array(placed), 0.35)):
            if len(others):
                apart = np.linalg.norm((own[:, None] - others[None]) / size, axis=2).min(1)
                score += np.minimum(apart, most)
        spot = own[score.argmax()]
        placed.append(spot)
        name = names[int(kind)] if int(kind) < len(names) else str(kind)
        box = {"facecolor": "white", "edgecolor": style.class_style(int(kind))[0], "alpha": 0.9, "pad": 1.6}
        ax.text(spot[0], spot[1], name, size=style.SMALL, color=style.INK, ha="center", va="center", zorder=8, bbox=box)


def _arrows(axes: Array, columns: Sequence[Sequence[Array]], frame: Limits, colours: Sequence[str]) -> None:
    """One column of quiver panels, in fractions of the frame so that unequal axes do no harm."""
    size = frame[:2, 1] - frame[:2, 0]
    steps = [-velocity[:, :2] / size for _, velocity, _ in columns]
    crowds = [_crowd(grid[:, :2], samples[:, :2], frame[:2]) for grid, _, samples in columns]
    for ax, (grid, velocity, samples), step, crowd, tint in zip(axes, columns, steps, crowds, colours, strict=True):
        style.dots(ax, samples[:2000, :2], "#A8A8A8")
        speed = np.linalg.norm(step, axis=1, keepdims=True)
        met = np.append(speed[crowd > 0.15], 1e-9)
        longest = max(float(np.percentile(met[np.isfinite(met)], 90)), 1e-9)
        arrow = step / np.maximum(speed, longest) * 1.05 / np.sqrt(len(grid)) * size
        ax.quiver(
            *grid[:, :2].T,
            *arrow.T,
            color=tint,
            alpha=0.18 + 0.82 * np.minimum(crowd * 2, 1),
            angles="xy",
            scale_units="xy",
            scale=1,
            units="width",
            width=0.009,
            headwidth=3.4,
            headlength=3.6,
            headaxislength=3.3,
            minlength=0.2,
            pivot="mid",
        )
        style.scattered(ax, frame[:2], labels=(False, False))
        style.corner(ax, f"speed {speed_met(velocity, crowd):.2g}", size=style.SMALL - 0.5)


def speed_met(velocity: Array, crowd: Array) -> float:
    """The mean |dx/dt| where samples are, in data units per unit of t."""
    speed = np.linalg.norm(velocity[:, :2], axis=1)
    known = np.isfinite(speed)
    return float((speed[known] * crowd[known] ** 2).sum() / max((crowd[known] ** 2).sum(), 1e-12))


def _crowd(places: Array, samples: Array, frame: Limits) -> Float[Array, " g"]:
    """The density of samples near each place, from 0 to 1."""
    counts, *edges = np.histogram2d(samples[:, 0], samples[:, 1], bins=24, range=frame.tolist())
    smooth = style.gaussian_filter(counts, 1.0)
    index = tuple(np.clip(np.searchsorted(e, p) - 1, 0, 23) for e, p in zip(edges, places.T, strict=True))
    return np.asarray(smooth[index] / max(smooth.max(), 1e-12)) ** 0.5


def _velocity_curves(axes: Array, columns: Sequence[Sequence[Array]], frame: Limits, colours: Sequence[str]) -> None:
    """dx/dt against x where samples are, over their histogram."""
    top = 1e-9
    for grid, velocity, samples in columns:
        low, high = np.percentile(samples[:, 0], [0.5, 99.5])
        near = velocity[(grid[:, 0] >= low) & (grid[:, 0] <= high), 0]
        top = max(top, float(np.abs(near[np.isfinite(near)]).max(initial=0.0)))
    for ax, (grid, velocity, samples), tint in zip(axes, columns, colours, strict=True):
        heights, edges = _histogram(samples[:, 0], frame[0])
        ax.stairs(
            heights / max(heights.max(), 1e-12) * 1.6 * top - 1.15 * top,
            edges,
            baseline=-1.15 * top,
            fill=True,
            color="#E2E2E2",
        )
        order = np.argsort(grid[:, 0])
        ax.axhline(0, color=style.RULE, lw=0.8)
        ax.plot(grid[order, 0], velocity[order, 0], color=tint, lw=1.6)
        style.scattered(ax, np.stack([frame[0], [-1.15 * top, 1.15 * top]]), labels=(False, False))


def _histogram(x: Array, limits: Array, bins: int = 60) -> tuple[Float[Array, " bins"], Float[Array, " edges"]]:
    """Density per bin, over all of x: what lies outside the frame counts, so panels stay comparable."""
    counts, edges = np.histogram(x[np.isfinite(x)], bins=bins, range=(float(limits[0]), float(limits[1])))
    return counts / (max(len(x), 1) * (edges[1] - edges[0])), edges


def _height(width: float, limits: Limits) -> float:
    """Square, unless the data's two axes have one unit and unequal ranges; one column of data gets a low panel."""
    return width if len(limits) > 1 else 0.7 * width


def _name(names: Sequence[str], k: int) -> str:
    return names[k] if k < len(names) else f"column {k + 1}"


def _some(items: Sequence[object], what: str) -> None:
    if not items:
        raise InputError(f"There are no {what} to draw.")


def _walked(methods: Sequence[Method]) -> Sequence[Method]:
    _some(methods, "methods")
    for method in methods:
        if method.walk.ndim != 3 or 0 in method.walk.shape or len(method.walk_times) != len(method.walk):
            raise InputError(
                f"{method.name} needs a walk of shape (times, points, columns), one row for each of its "
                f"{len(method.walk_times)} times; got shape {method.walk.shape}."
            )
    return methods
