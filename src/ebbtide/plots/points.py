"""Figures of points: samples beside real data, routes from noise to data, steps on the way, samples over training.

All panels of a figure share their limits. One column of data is drawn as histograms; of more than two, the first two
columns are drawn, and `plots.columns` shows the others.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ..data.forms import Column
from ..errors import InputError
from . import style
from .density import LogDensity, draw_outline, outline
from .study import Method, training_stages
from .style import Array, Limits
from .ticks import form_room, name_axes, named_margin

__all__ = [
    "MOST_CLASSES",
    "SHOWN",
    "STAGES",
    "Drawing",
    "Panel",
    "class_panels",
    "filmstrip",
    "histogram",
    "intermediate",
    "panel_height",
    "progress",
    "scatter_panels",
    "trajectories",
]

SHOWN = 20_000  # dots a panel; more add time, not information
MOST_CLASSES = 8  # that one panel tells apart; more have a panel each
STAGES = (1.0, 0.5, 0.25, 0.1, 0.0)  # a diffusion does most of its work late


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
    log_density: LogDensity | None = None,
    classes: Sequence[str] = (),
    names: Sequence[str] = (),
    form: Sequence[Column] = (),
    title: str = "",
    note: str = "",
) -> Figure:
    """Every set of points in the same frame; `real` adds the outline that holds 95 % of the real points.

    log_density: the exact one, whose outline is drawn instead. names, form: the columns', along the axes. Points of
    more than MOST_CLASSES classes are drawn by `class_panels`.
    """
    style.require_any(panels, "panels")
    if len(limits) > 1 and any(p.labels is not None and len(np.unique(p.labels)) > MOST_CLASSES for p in panels):
        return class_panels(panels, limits, classes, names=names, form=form, title=title, note=note)
    shown = [panel._replace(x=style.checked_points(panel.x, panel.title or "points")) for panel in panels]
    limits = style.as_limits(limits, shown[0].x.shape[1])
    columns = len(panels) if len(panels) <= 2 else 4 if len(panels) in (4, 8) else 3
    rows = -(-len(panels) // columns)
    width = {1: 4.4, 2: 3.1, 3: 2.1, 4: 1.6}[columns]
    height = panel_height(width, limits)
    grid = style.axes_grid(
        rows,
        columns,
        panel=(width, height),
        gap=(0.12, 0.46),
        margin=named_margin((0.36, 0.1, 0.42, 0.26), names, form),
        title=title,
        note=note,
        used=len(panels),
    )
    drawing = Drawing(limits, real, [panel.x for panel in shown], log_density)
    for index, panel in enumerate(shown):
        ax = grid.axes.flat[index]
        drawing.draw(ax, panel.x, panel.colour, panel.labels, names=classes if index == 0 else ())
        outer = index >= len(panels) - columns, drawing.flat and index % columns == 0
        style.scattered(ax, drawing.frame, labels=outer)
        name_axes(ax, names, outer, form, width)
        size = style.LABEL if width > 2 else style.LABEL - 0.5
        head = ax.text(0, 1 + 0.19 / height, panel.title, transform=ax.transAxes, size=size, weight="bold")
        head.set(color=panel.colour, va="baseline")
        ax.text(0, 1 + 0.05 / height, panel.subtitle, transform=ax.transAxes, size=style.SMALL, color=style.QUIET)
        if missing := style.outside(panel.x, limits):
            style.corner(ax, f"{missing:,} outside")
    return grid.figure


def class_panels(
    panels: Sequence[Panel],
    limits: Limits,
    classes: Sequence[str],
    *,
    names: Sequence[str] = (),
    form: Sequence[Column] = (),
    most: int = 25,
    title: str = "",
    note: str = "",
) -> Figure:
    """A panel for each class: of one set of points its own among all, of real points and samples one over the other.

    The first set is drawn in grey. At most `most` classes are shown, the most frequent, and the note counts the others.

    form: the columns', whose dates and levels are written along the axes.
    """
    style.require_any(panels, "panels")
    back, front = panels[0], panels[-1]
    kinds, counts = np.unique(np.asarray(front.labels), return_counts=True)
    shown = np.sort(kinds[np.argsort(-counts, kind="stable")[:most]])
    if len(shown) < len(kinds):
        note = f"{note} {len(shown)} of {len(kinds)} classes are shown, the most frequent.".strip()
    columns = min(5, len(shown))
    width = min(1.5, 6.4 / columns - 0.08)
    grid = style.axes_grid(
        -(-len(shown) // columns), columns, panel=(width, width), gap=(0.08, 0.28),
        margin=named_margin((0.36, 0.1, 0.3 + 0.22 * (len(panels) > 1), 0.26), names, form), title=title, note=note,
        used=len(shown),
    )  # fmt: skip
    for index, kind in enumerate(shown.tolist()):
        ax = grid.axes.flat[index]
        behind = back.x if front is back or back.labels is None else back.x[np.asarray(back.labels) == kind]
        style.dots(
            ax,
            behind[:SHOWN, :2],
            "#CDCDCD" if front is back else style.REAL,
            count=len(behind) * (1 if front is back else 4),
        )
        own = front.x[np.asarray(front.labels) == kind]
        style.dots(ax, own[:SHOWN, :2], style.FLOW if front is back else front.colour, count=4 * len(own))
        outer = index >= len(shown) - columns, index % columns == 0
        style.scattered(ax, limits[:2], labels=outer)
        name_axes(ax, names, outer, form, width)
        name = classes[kind] if kind < len(classes) else str(kind)
        size = min(style.LABEL, width / (style.EM * max(len(name), 1)))
        ax.set_title(name, size=size, color=style.INK, loc="left", pad=3)
    if len(panels) > 1:
        style.text_row(grid.figure, [(p.title, p.colour) for p in (back, front)], 0.5 if title else 0.16)
    return grid.figure


def trajectories(
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    count: int = 40,
    names: Sequence[str] = (),
    form: Sequence[Column] = (),
    title: str = "",
    note: str = "",
) -> Figure:
    """Routes of single points from noise (ring) to data (dot), coloured by time; the noise is the same for all.

    count: of routes. form: of a table's columns, whose dates and levels are written along the axes.
    """
    walks = [
        (method, style.nearest_to(method.walk_times, np.linspace(1, 0, 80).tolist())) for method in _walked(methods)
    ]
    d = walks[0][0].walk.shape[2]
    limits = style.as_limits(limits, d)
    frame = style.union(limits, np.concatenate([method.walk[0, :count] for method, _ in walks]), tail=0)
    if d == 1:
        frame = np.stack([[1.02, -0.02], frame[0]])
    columns, width = style.columns_of(len(walks))
    height = panel_height(width, frame) if d > 1 else 2.4
    grid = style.axes_grid(
        -(-len(walks) // columns),
        columns,
        panel=(width, height),
        gap=(0.16, 0.4),
        margin=named_margin((0.36, 0.1, 0.3, 0.62), names, form if d > 1 else ()),
        title=title,
        note=note,
        used=len(walks),
    )
    for index, ((method, steps), ax) in enumerate(zip(walks, grid.axes.flat, strict=False)):
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
        ax.set_title(method.name, loc="left", size=style.LABEL + 0.5, weight="bold", color=method.colour, pad=4)
        outer = d > 1 and index >= len(walks) - columns, index % columns == 0
        style.scattered(ax, frame, labels=outer)
        name_axes(ax, names if d > 1 else ("", *names[:1]), outer, form if d > 1 else (), width)
    foot = grid.axes[-1, 0].get_position().y0 * grid.figure.get_size_inches()[1]
    foot -= 0.18 * bool(names) + form_room(form if d > 1 else ())[1]
    width = grid.figure.get_size_inches()[0]
    bar = min(2.4, width - 1.9)  # its ends are named beside it
    style.time_bar(grid.figure, (width - bar) / 2, foot - 0.42, bar)
    return grid.figure


def intermediate(
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    log_density: LogDensity | None = None,
    times: Sequence[style.Number] = STAGES,
    title: str = "",
    note: str = "",
) -> Figure:
    """Steps on the way: a row for each method, a column for each time."""
    _walked(methods)
    rows = []
    for method in methods:
        steps = style.nearest_to(method.walk_times, times)
        rows.append((method.name, method.colour, [method.walk[i] for i in steps]))
        heads = [style.time_label(method.walk_times[i]) for i in steps]
    if len({len(row[2]) for row in rows}) > 1:
        raise InputError("Every method's walk must have the same times.")
    return filmstrip(rows, heads, limits, real=real, hold_noise=True, log_density=log_density, title=title, note=note)


def progress(
    methods: Sequence[Method],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    log_density: LogDensity | None = None,
    columns: int = 5,
    title: str = "",
    note: str = "",
) -> Figure:
    """Samples over training: a row for each method, a column for each of a few stages, evenly far apart."""
    style.require_any(methods, "methods")
    kept = training_stages(methods)
    if not kept:
        raise InputError("No samples were kept during training, so there is no progress to draw.")
    chosen = style.evenly(len(kept), columns)
    rows = [(method.name, method.colour, [kept[i][2][k] for i in chosen]) for k, method in enumerate(methods)]
    return filmstrip(
        rows, [kept[i][0] for i in chosen], limits, real=real, log_density=log_density, title=title, note=note
    )


def filmstrip(
    rows: Sequence[tuple[str, str, Sequence[Array]]],
    heads: Sequence[str],
    limits: Limits,
    *,
    real: Float[Array, "n d"] | None = None,
    log_density: LogDensity | None = None,
    hold_noise: bool = False,
    labels: Array | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Rows (name, colour, one set of points a column) under the columns' heads.

    hold_noise: widen the frame to hold the first column too.
    """
    style.require_any(rows, "rows")
    d = style.checked_points(rows[0][2][0]).shape[1]
    frame = style.as_limits(limits, d)
    if hold_noise:
        frame = style.union(frame, np.concatenate([style.checked_points(row[2][0]) for row in rows]))
    n = len(heads)
    width = min(2.4, (6.5 - 0.06 * (n - 1)) / n)
    height = panel_height(width, frame)
    grid = style.axes_grid(
        len(rows),
        n,
        panel=(width, height),
        gap=(0.06, 0.08),
        margin=(0.32, 0.06, 0.26, 0.08),
        title=title,
        note=note,
    )
    drawings = [Drawing(frame, real, [row[2][k] for row in rows], log_density) for k in range(n)]
    for (i, (name, tint, clouds)), k in product(enumerate(rows), range(n)):
        ax = grid.axes[i, k]
        drawings[k].draw(ax, style.checked_points(clouds[k]), tint, labels)
        style.scattered(ax, drawings[k].frame, labels=(False, False))
        if i == 0:
            ax.set_title(heads[k], size=style.LABEL - 0.5, color=style.INK, pad=4)
        if k == 0:
            style.row_label(ax, name, tint)
    return grid.figure


class Drawing:
    """The style of one set of points, the same in all panels: dots, or a histogram of one column.

    clouds: all sets of points, which share a histogram's top.
    """

    def __init__(
        self, limits: Limits, real: Array | None, clouds: Sequence[Array], log_density: LogDensity | None = None
    ) -> None:
        d = style.checked_points(clouds[0]).shape[1]
        self.flat, self.limits = d > 1, limits
        if self.flat:
            self.frame = limits[:2]
            self.outline = outline(real, limits, log_density)
        else:
            tops = [histogram(style.checked_points(x)[:, 0], limits[0])[0].max() for x in clouds]
            self.truth = None if real is None else histogram(style.checked_points(real)[:, 0], limits[0])
            top = max([*tops, 0 if self.truth is None else min(self.truth[0].max(), 2 * max(tops))])
            self.frame = np.stack([limits[0], [0.0, 1.08 * max(top, 1e-12)]])

    def draw(self, ax: Axes, x: Array, colour: str, labels: Array | None = None, names: Sequence[str] = ()) -> None:
        if not self.flat:
            heights, edges = histogram(x[:, 0], self.limits[0])
            ax.stairs(heights, edges, fill=True, color=colour, alpha=0.65)
            if self.truth is not None:
                ax.stairs(*self.truth, color=style.INK, lw=0.9, baseline=None)
            return
        x = x[:SHOWN, :2]
        if labels is None:
            style.dots(ax, x, colour)
        else:
            _draw_classes(ax, x, np.asarray(labels)[:SHOWN], names, self.frame)
        draw_outline(ax, self.outline)


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


def histogram(x: Array, limits: Array, bins: int = 60) -> tuple[Float[Array, " bins"], Float[Array, " edges"]]:
    """Density per bin, over all of x: what lies outside the frame counts, so panels stay comparable. bins: how many."""
    counts, edges = np.histogram(x[np.isfinite(x)], bins=bins, range=(float(limits[0]), float(limits[1])))
    return counts / (max(len(x), 1) * (edges[1] - edges[0])), edges


def panel_height(width: float, limits: Limits) -> float:
    """Square, unless the data's two axes have one unit and unequal ranges; one column of data gets a low panel."""
    return width if len(limits) > 1 else 0.7 * width


def _walked(methods: Sequence[Method]) -> Sequence[Method]:
    style.require_any(methods, "methods")
    for method in methods:
        if method.walk.ndim != 3 or 0 in method.walk.shape or len(method.walk_times) != len(method.walk):
            raise InputError(
                f"{method.name} needs a walk of shape (times, points, columns), one row for each of its "
                f"{len(method.walk_times)} times; got shape {method.walk.shape}."
            )
    return methods
