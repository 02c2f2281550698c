"""The forward process, x_t = α x₀ + σ ε, drawn from its formulas: what `ebbtide show path` shows."""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from ..core.paths import DDPM, PATHS, Bridge, Linear, Path
from ..samplers.ddim import transition_variance
from . import style
from .points import filmstrip
from .style import Array

__all__ = ["START", "ddpm_tables", "dissolving", "path_moments", "point_mass", "point_mass_plane", "schedules"]

START = 4.0
_T = np.linspace(0, 1, 401)
# One colour and one dash for each path: α of Linear and Bridge coincide.
_STROKES = [
    ("#0072B2", "-"),
    ("#009E73", "-"),
    ("#D55E00", "-"),
    ("#CC79A7", (0, (4, 1.5))),
    ("#000000", (0, (1.2, 1.2))),
    ("#E69F00", (0, (5, 2))),
]


def point_mass(
    path: Path, name: str = "", *, start: style.Number = START, seed: int = 0, title: str = "", note: str = ""
) -> Figure:
    """All mass at `start` turns into N(0, σ(1)²): densities N(α start, σ²), and sample paths in ribbons of ±1σ, ±2σ.

    The sample paths of a diffusion are its Markov chain, x_t = (α_t/α_s) x_s + √β z; of a Linear or Bridge path they
    are the straight or bridged routes x_t = α x₀ + σ ε with one ε each. Both have the same densities at every t.

    name: the path's, for the title.
    """
    grid = style.axes_grid(
        1,
        2,
        panel=(2.95, 2.6),
        gap=(0.42, 0),
        margin=(0.14, 0.14, 0.34, 0.46),
        title=title or f"{name or type(path).__name__} path: a point mass at {start:g} becomes noise",
        note=note
        or (
            "Left: the exact density at four times. Right: 14 sample paths, their mean (black), "
            "and the bands that hold 68 % and 95 % of all paths."
        ),
    )
    alpha, sigma = _scales(path, _T)
    reach = max(3.2 * sigma[-1], 1e-9)
    low, high = min(-reach, start - reach * 0.05), max(reach, start + 0.35 * reach)
    _densities(grid.axes[0, 0], alpha, sigma, start, (low, high))
    ax = grid.axes[0, 1]
    mean = start * alpha
    for k, shade in ((2, "#E9E9E9"), (1, "#D2D2D2")):
        ax.fill_between(_T, mean - k * sigma, mean + k * sigma, color=shade, lw=0)
    ax.plot(_T, _routes(path, start, 14, seed).T, lw=0.7, color="#4B2A7B", alpha=0.65)
    ax.plot(_T, mean, color=style.INK, lw=1.8)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    _over_time(ax, "sample paths, mean, ±1σ, ±2σ", (low, high))
    return grid.figure


def point_mass_plane(
    path: Path,
    name: str = "",
    *,
    start: style.Pair = (START, 0.0),
    count: int = 700,
    seed: int = 0,
    title: str = "",
    note: str = "",
) -> Figure:
    """The same in the plane: samples of x_t and the circle of one σ around the mean α·start, at five times.

    name: the path's, for the title. count: of samples.
    """
    alpha, sigma = _scales(path, _T)
    indices = _times_by_spread(sigma, (0.15, 0.4, 0.65, 0.85, 1.0))
    reach = 2.6 * sigma[-1]
    x = (min(-reach, start[0] - reach * 0.2), max(reach, start[0] + reach * 0.55))
    y = (min(-reach, start[1] - reach), max(reach, start[1] + reach))
    width = 6.2
    grid = style.axes_grid(
        1,
        1,
        panel=(width, width * (y[1] - y[0]) / (x[1] - x[0])),
        margin=(0.44, 0.2, 0.1, 0.3),
        title=title or f"{name or type(path).__name__} path in the plane, with circles of radius σ",
        note=note or "39 % of each cloud lie inside its circle. The cross marks where all of the data was.",
    )
    ax = grid.axes[0, 0]
    noise = np.random.default_rng(seed).standard_normal((count, 2))
    angle = np.linspace(0, 2 * np.pi, 120)
    for i in reversed(indices):
        centre = alpha[i] * np.array(start)
        tint = style.TIME(_T[i])
        style.dots(ax, centre + sigma[i] * noise, tint, count=3 * count)
        ax.plot(*(centre[:, None] + sigma[i] * np.stack([np.cos(angle), np.sin(angle)])), color=tint, lw=2)
    # The labels stand at the circles' right or top, whichever has room as the circles grow around the origin.
    for i in indices:
        place = alpha[i] * np.array(start) + [0, sigma[i]]
        style.halo(ax.text(*place, style.time_label(_T[i]), size=style.SMALL, ha="center", va="bottom", zorder=9))
    ax.plot(*start, marker="+", ms=11, mew=2, color=style.INK, zorder=8)
    style.scattered(ax, np.array([x, y]))
    ax.set_aspect("equal")
    return grid.figure


def path_moments(paths: Mapping[str, Path], *, start: style.Number = START, title: str = "", note: str = "") -> Figure:
    """Mean α(t)·start and variance σ²(t) of x_t. paths: by name."""
    strokes = _strokes(paths)
    grid = style.axes_grid(
        1,
        2,
        panel=(2.95, 2.0),
        gap=(0.5, 0),
        margin=(0.36, 0.14, 0.62, 0.46),
        title=title or f"Mean and variance of x_t that started at {start:g}",
        note=note,
    )
    for name, path in paths.items():
        alpha, sigma = _scales(path, _T)
        tint, dash = strokes[name]
        grid.axes[0, 0].plot(_T, start * alpha, color=tint, ls=dash, lw=1.7)
        grid.axes[0, 1].plot(_T, sigma**2, color=tint, ls=dash, lw=1.7)
    for ax, what, top in zip(grid.axes[0], (f"mean  {start:g} α(t)", "variance  σ²(t)"), (start, 1.0), strict=True):
        _over_time(ax, what, (-0.03 * top, 1.08 * top))
    _names(grid.figure, strokes)
    return grid.figure


def schedules(paths: Mapping[str, Path] | None = None, *, title: str = "", note: str = "") -> Figure:
    """α, σ and the log signal-to-noise ratio log α²/σ² of every path of PATHS, or of those given. paths: by name."""
    paths = {name: kind() for name, kind in PATHS.items()} if paths is None else paths
    strokes = _strokes(paths)
    grid = style.axes_grid(
        1,
        3,
        panel=(1.95, 1.9),
        gap=(0.34, 0),
        margin=(0.36, 0.1, 0.62, 0.46),
        title=title or "Paths compared",
        note=note
        or (
            "Lines that coincide: α of linear and bridge; all of ddpm and vp, its continuous limit. "
            "σ of ve leaves its panel and reaches its σ_max at t = 1."
        ),
    )
    for name, path in paths.items():
        alpha, sigma = _scales(path, _T)
        tint, dash = strokes[name]
        inside = (alpha > 1e-6) & (sigma > 1e-6)
        snr = 2 * np.log(np.where(inside, alpha, np.nan) / np.where(inside, sigma, np.nan))
        for ax, y in zip(grid.axes[0], (alpha, sigma, snr), strict=True):
            ax.plot(_T, y, color=tint, ls=dash, lw=1.6)
    views = (("α(t): data", (-0.03, 1.08)), ("σ(t): noise", (-0.03, 1.08)), ("log-SNR  log α²/σ²", (-12, 12)))
    for ax, (what, view) in zip(grid.axes[0], views, strict=True):
        _over_time(ax, what, view, sparse=True)
    grid.axes[0, 2].axhline(0, color=style.RULE, lw=0.8, zorder=0)
    _names(grid.figure, strokes)
    return grid.figure


def ddpm_tables(
    steps: Sequence[int] = (50, 250, 1000),
    ranges: Sequence[style.Pair] = ((1e-4, 0.005), (1e-4, 0.02), (1e-4, 0.05)),
    *,
    title: str = "",
    note: str = "",
) -> Figure:
    """ᾱ(t), the share of the data's variance that is left, for DDPM tables of several lengths T and β ranges."""
    low, high = 1e-4, 0.02
    cases = [
        (f"β from {low:g} to {high:g}", [(f"T = {n:,}", _table(n, low, high)) for n in steps]),
        ("T = 1,000", [(f"β to {b:g}", _table(1000, a, b)) for a, b in ranges]),
    ]
    grid = style.axes_grid(
        1,
        2,
        panel=(1.72, 2.1),
        gap=(1.72, 0),
        margin=(0.36, 1.4, 0.34, 0.46),
        title=title or "DDPM tables: what is left of the data, ᾱ(t)",
        note=note
        or (
            "Sampling starts from pure noise, so ᾱ at t = 1 must be next to 0. A table made for 1,000 steps and "
            "cut to 50 leaves most of the data in x₁, and every sample is then biased towards 0."
        ),
    )
    for ax, (what, tables) in zip(grid.axes[0], cases, strict=True):
        ends = []
        for k, (label, path) in enumerate(tables):
            alpha, _ = _scales(path, _T)
            tint = style.TIME(0.95 - 0.95 * k / max(len(tables) - 1, 1)) if len(tables) > 1 else style.DIFFUSION
            left = float(alpha[-1] ** 2)
            ax.plot(_T, alpha**2, color=tint, lw=1.8)
            ends.append((1.0, left, f"{label}: ᾱ = {_short(left)}", style.INK))
        _over_time(ax, what, (-0.03, 1.05), sparse=True)
        style.end_labels(ax, ends)
    return grid.figure


def dissolving(
    paths: Mapping[str, Path],
    x: Float[Array, "n d"],
    *,
    limits: style.Pair | Float[Array, "d 2"] | None = None,
    labels: Int[Array, " n"] | None = None,
    times: Sequence[style.Number] = (0.0, 0.1, 0.25, 0.5, 1.0),
    seed: int = 0,
    title: str = "",
    note: str = "",
) -> Figure:
    """A point set dissolving into noise: a row for each path, a column for each time, the same ε everywhere.

    The set is standardised for the path and shown in its own units, as in training; NaN is a missing cell.

    paths: by name.
    """
    x = style.checked_points(x)
    frame = style.limits_around(x) if limits is None else style.as_limits(limits, x.shape[1])
    filled = np.where(np.isnan(x).all(0), 0.0, x)  # a column without any cell
    mean, std = np.nanmean(filled, 0), np.nanstd(filled, 0)
    std = np.where(std > 0, std, 1.0)
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    rows = []
    for (name, path), tint in zip(paths.items(), _tints(paths), strict=True):
        alpha, sigma = _scales(path, np.asarray(times, float))
        rows.append((name, tint, [mean + std * (a * (x - mean) / std + s * noise) for a, s in zip(alpha, sigma)]))
    frame = style.union(frame, mean + std * noise)
    heads = [style.time_label(t) for t in times]
    return filmstrip(rows, heads, frame, labels=labels, title=title or "Data dissolving into noise", note=note)


def _table(steps: int, beta_min: style.Number, beta_max: style.Number) -> DDPM:
    """A DDPM table without the warning that its ᾱ_T is too large, which is what the figure is there to show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DDPM(steps=steps, beta_min=beta_min, beta_max=beta_max)


def _scales(path: Path, t: Array) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    c = path.scales(torch.as_tensor(t, dtype=torch.float64))
    return c.alpha.numpy(), c.sigma.numpy()


def _densities(ax: Axes, alpha: Array, sigma: Array, start: style.Number, view: style.Pair) -> None:
    x = np.linspace(*view, 500)
    indices = _times_by_spread(sigma, (0.2, 0.35, 0.6, 1.0))
    top = 0.0
    for i in indices:
        y = np.exp(-0.5 * ((x - start * alpha[i]) / sigma[i]) ** 2) / (sigma[i] * math.sqrt(2 * math.pi))
        tint = style.TIME(_T[i])
        ax.fill_between(x, y, color=tint, alpha=0.15, lw=0)
        ax.plot(x, y, color=tint, lw=1.7)
        style.halo(
            ax.text(start * alpha[i], y.max(), style.time_label(_T[i]), size=style.SMALL, ha="center", va="bottom")
        )
        top = max(top, y.max())
    ax.plot([start, start], [0, 1.16 * top], color=style.TIME(0.0), lw=1.7)
    ax.plot(start, 1.16 * top, marker="^", ms=5, color=style.TIME(0.0), clip_on=False)
    ax.set(xlim=view, ylim=(0, 1.2 * top))
    ax.yaxis.set_major_locator(NullLocator())
    style.as_curves(ax, "x", "density of x_t")
    ax.spines["left"].set_visible(False)


def _times_by_spread(sigma: Array, shares: Sequence[float]) -> list[int]:
    """The first times at which σ is each share of its last: evenly different clouds on every path."""
    return [int(np.argmax(sigma >= share * sigma[-1] - 1e-9)) for share in shares[:-1]] + [len(sigma) - 1]


def _routes(path: Path, start: style.Number, count: int, seed: int) -> Float[Array, "count n"]:
    rng = np.random.default_rng(seed)
    alpha, sigma = _scales(path, _T)
    if isinstance(path, Linear):
        return start * alpha + sigma * rng.standard_normal((count, 1))
    if isinstance(path, Bridge):
        wander = np.cumsum(rng.standard_normal((count, len(_T))), 1) / math.sqrt(len(_T))
        wander = wander - wander[:, :1]
        bridge = wander - _T * wander[:, -1:]  # a Brownian bridge: variance t (1 - t)
        return start * alpha + _T * rng.standard_normal((count, 1)) + path.spread * bridge
    x = np.full((count, len(_T)), start)
    c = path.along(_T)
    for i in range(1, len(_T)):
        step = transition_variance(c[i], c[i - 1]) ** 0.5
        x[:, i] = alpha[i] / alpha[i - 1] * x[:, i - 1] + step * rng.standard_normal(count)
    return x


def _strokes(paths: Mapping[str, Path]) -> dict[str, tuple[str, object]]:
    style.require_any(paths, "paths")
    order = list(PATHS)
    known = {name: _STROKES[order.index(name) % len(_STROKES)] for name in paths if name in order}
    spare = [stroke for stroke in _STROKES if stroke not in known.values()] or _STROKES
    others = [name for name in paths if name not in known]
    return {name: known.get(name) or spare[others.index(name) % len(spare)] for name in paths}


def _tints(paths: Mapping[str, Path]) -> list[str]:
    return [tint for tint, _ in _strokes(paths).values()]


def _names(figure: Figure, strokes: Mapping[str, tuple[str, object]]) -> None:
    """One row of names, each after a piece of its line, for curves too close for separate labels."""
    width, height = figure.get_size_inches()
    starts = style.text_row(figure, [(f"      {name}", style.INK) for name in strokes], 0.5)
    for x, (tint, dash) in zip(starts, strokes.values(), strict=True):
        y = 1 - 0.5 / height
        figure.add_artist(_line([x / width, (x + 0.26) / width], [y, y], tint, dash))


def _line(x: list[float], y: list[float], tint: str, dash: object) -> Line2D:
    return Line2D(x, y, color=tint, ls=dash, lw=2)


def _over_time(ax: Axes, what: str, view: style.Pair, sparse: bool = False) -> None:
    """Frame a panel of curves over t from 0 to 1, its ends named."""
    ax.set(xlim=(0, 1), ylim=view)
    style.as_curves(ax, "", what)
    ax.set_xticks([0, 0.5, 1] if sparse else [0, 0.25, 0.5, 0.75, 1])
    ax.set_xticklabels(
        ["0\ndata", "t = 0.5", "1\nnoise"] if sparse else ["0\ndata", "0.25", "t = 0.5", "0.75", "1\nnoise"]
    )
    ax.get_xticklabels()[0].set_horizontalalignment("left")
    ax.get_xticklabels()[-1].set_horizontalalignment("right")


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")
