"""Times for training and sampling: training laws turn uniform numbers into times, grids list sampling times.

A law is a quantile function u ∈ (0, 1) → t, so low-discrepancy u serve every law. A grid is n + 1 times from 1 to 0,
for n steps, in float64 and independent of the sampler. Both are plain functions and a row of TIMES or GRIDS.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..specs import bind, expect, require
from .mixtures import stored_tables
from .paths import DDPM, Path
from .randomness import share_of, uniform

__all__ = [
    "GRIDS", "TIMES", "GridTimes", "beta", "flow_power", "from_flow", "grid_times", "karras", "log_normal", "log_snr",
    "logit_normal", "of_mixtures", "power", "quadratic", "shifted", "shifted_power", "stratified_draws", "trailing",
    "uniform_draws", "uniform_grid", "uniform_law",
]  # fmt: skip

GridTimes = Float[Tensor, " n_plus_1"]  # falling times, in float64


def uniform_draws(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    """n independent uniform numbers in the open interval (0, 1)."""
    return uniform(generator, n).clamp(2**-24, 1 - 2**-24)


def stratified_draws(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    """u_i = (i + w) / n mod 1 with one shared w: each uniform, together evenly spread, so the loss varies less.

    Kingma et al. 2021 (VDM), arXiv:2107.00630, Appendix I.1. The examples come in random order, so u need not.
    """
    n, rows = share_of(generator, n)
    w = torch.rand(1, generator=generator, device=generator.device)
    u = torch.arange(n, device=generator.device)[rows] + w
    return u.div_(n).clamp_(2**-24, 1 - 2**-24)


def uniform_law(u: Tensor, path: Path) -> Tensor:
    """t = u (Ho et al. 2020, Algorithm 1; Lipman et al. 2023)."""
    return u


def logit_normal(u: Tensor, path: Path, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """t = 1 / (1 + e^{-(m + s Φ⁻¹(u))}): more training in the middle (Esser et al. 2024, arXiv:2403.03206, Eq. 19)."""
    require("logit_normal: std", std, above=0)
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


def beta(u: Tensor, path: Path, a: float = 1.5, b: float = 1.0, scale: float = 0.999) -> Tensor:
    """t = 1 - s (1 - τ), τ ~ Beta(a, b): more training near the noise (π0, arXiv:2410.24164, Appendix B).

    In π0's clock, where 1 is data, it is τ' = s (1 - z), z ~ Beta(1.5, 1), which is this in ours, where 1 is noise.
    """
    require("beta: a", a, above=0)
    require("beta: b", b, above=0)
    require("beta: scale", scale, high=1, above=0)
    if b == 1:
        draw = u ** (1 / a)
    else:
        from scipy.special import betaincinv  # here: 0.2 s that only this law needs

        draw = torch.as_tensor(betaincinv(a, b, u.double().cpu().numpy())).to(u)
    return 1 - scale * (1 - draw)


def log_normal(u: Tensor, path: Path, mean: float = -1.2, std: float = 1.2) -> Tensor:
    """log(σ/α) ~ N(m, s²), as EDM trains (Karras et al. 2022, arXiv:2206.00364, Table 1: m = -1.2, s = 1.2)."""
    require("log_normal: std", std, above=0)
    return path.time_of((mean + std * torch.special.ndtri(u)).exp())


TIMES: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform_law, "logit_normal": logit_normal, "beta": beta, "log_normal": log_normal,
}  # fmt: skip


def stretches(
    u: Tensor,
    w: Tensor,
    done: float = 1.0,
    *,
    whole: float = 0.2,
    first: float = 0.3,
    last: float = 0.3,
    same: float = 0.1,
    alone: float = 0.0,
    wide: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Any two times, with separate shares for what samplers ask, 1 → 0, 1 → s and t → 0, and for s = t (`same`).

    The rest of the batch is uniform over t > s. Few steps begin at the noise and end at the data.
    alone: the first share of the training, in which s = t = u. wide: the share at which spans reach their full length;
    they grow in between, so that a map that is its own teacher learns short jumps before those that build on them
    (Boffi et al. 2025, arXiv:2505.18825; Geng et al. 2024, arXiv:2406.14548).
    """
    shares = [whole, first, last, same]
    for name, share in zip(("whole", "first", "last", "same"), shares):
        require(f"stretches: {name}", share, 0, 1)
    require("stretches: the sum of its shares", sum(shares), 0, 1)
    require("stretches: alone", alone, 0, 1)
    require("stretches: wide", wide, 0, 1)
    if done < alone:
        return u, u
    b = torch.tensor(shares).cumsum(0).tolist()
    begin = torch.sqrt(((u - b[3]) / max(1 - sum(shares), 1e-9)).clamp(0, 1))  # t of a uniform pair t > s
    start = torch.where(u < b[1], 1.0, torch.where(u < b[3], w, begin))
    end = torch.where(u < b[3], w, begin * w).masked_fill((u < b[0]) | ((u >= b[1]) & (u < b[2])), 0.0)
    return start, start.lerp(end, (done - alone) / (wide - alone)) if done < wide else end


def adjacent(u: Tensor, w: Tensor, steps: int = 16) -> tuple[Tensor, Tensor]:
    """The ends of one of `steps` equal steps from 1 to 0, as consistency training compares them (2303.01469, Eq. 7)."""
    require("adjacent: steps", steps, 1, whole=True)
    i = (u * steps).floor().clamp(max=steps - 1)
    return (i + 1) / steps, i / steps


# Of uniform u, w: from where, u' ∈ (0, 1], and to where, w' ≤ u', an estimate is to lead; training's law makes times of
# both, and places of a stored trajectory are counted so. A law may take `done`, the share of the training that
# is over.
SPANS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"stretches": stretches, "adjacent": adjacent}


def uniform_grid(steps: int, path: Path) -> GridTimes:
    """t_i = 1 - i/n."""
    return 1 - torch.arange(steps + 1, dtype=torch.float64) / steps


def trailing(steps: int, path: Path, table: int = 0) -> GridTimes:
    """Times that a discrete DDPM has, t = round(N - i N/n) / N, from t = 1.

    Lin et al. 2024, arXiv:2305.08891, Table 2. Halves are rounded to even. table: N; 0 is the path's own, or 1000.
    """
    require("trailing: table", table, 0, whole=True)
    table = table or (len(path.log_alpha_bar) - 1 if isinstance(path, DDPM) else 1000)
    require("steps of the trailing grid, each an entry of its table,", steps, 1, table, whole=True)
    passed = torch.arange(steps + 1, dtype=torch.float64) * table / steps
    return (table - passed).round() / table


def quadratic(steps: int, path: Path) -> GridTimes:
    """t_i = (1 - i/n)²: more steps near the data (DDIM's τ, Song et al. 2021, arXiv:2010.02502, Appendix D.2)."""
    return uniform_grid(steps, path) ** 2


def shifted(steps: int, path: Path, shift: float = 3.0) -> GridTimes:
    """t = k u / (1 + (k - 1) u), u uniform: k > 1 puts more steps near the noise (Esser et al. 2024, Eq. 23)."""
    return shifted_power(steps, 1.0, shift)


def power(steps: int, path: Path, exponent: float = 1.3) -> GridTimes:
    """t_i = (1 - i/n)^p: p > 1 puts more steps near the data."""
    return shifted_power(steps, exponent)


def flow_power(steps: int, path: Path, exponent: float = 1.3, shift: float = 1.0) -> GridTimes:
    """σ/(α + σ), the linear path's time, is k v / (1 + (k - 1) v), v = (1 - i/n)^p: the same on every path."""
    return from_flow(shifted_power(steps, exponent, shift), path)


def shifted_power(steps: int, exponent: float, shift: float = 1.0) -> GridTimes:
    """k v / (1 + (k - 1) v), v = (1 - i/n)^p, falling from 1 to 0."""
    require("a grid's exponent", exponent, above=0)
    require("a grid's shift", shift, above=0)
    v = (1 - torch.arange(steps + 1, dtype=torch.float64) / steps) ** exponent
    return shift * v / (1 + (shift - 1) * v)


def log_snr(steps: int, path: Path, ratio_min: float = 0.01, ratio_max: float = 100.0) -> GridTimes:
    """Uniform in log(σ/α) from t = 1, then 0 (Lu et al. 2022, arXiv:2206.00927, Section 3.4).

    t = 1 may have α = 0, an infinite σ/α, and is taken for ratio_max, unless the path ends below that; the last
    step goes from ratio_min to 0.
    """
    return _from_ratios(steps, path, ratio_max, ratio_min, math.log, torch.exp)


def karras(steps: int, path: Path, rho: float = 7.0, ratio_min: float = 0.002, ratio_max: float = 80.0) -> GridTimes:
    """(σ/α)^{1/ρ} evenly spaced from t = 1, then 0 (Karras et al. 2022, arXiv:2206.00364, Eq. 5); ends as log_snr's."""
    require("karras: rho", rho, above=0)
    return _from_ratios(steps, path, ratio_max, ratio_min, lambda r: r ** (1 / rho), lambda r: r**rho)


def _from_ratios(
    steps: int, path: Path, high: float, low: float, to: Callable[[float], float], back: Callable[[Tensor], Tensor]
) -> GridTimes:
    """Noise-to-signal ratios evenly spaced in to(ratio), the first put exactly at t = 1, and an exact 0 after them."""
    high = min(high, path.along([1.0])[0].ratio)
    require("ratio_max", high, above=0)
    require("ratio_min", low, above=0, below=high)
    u = torch.linspace(0, 1, max(steps, 2), dtype=torch.float64)
    times = path.time_of(back(to(high) + (to(low) - to(high)) * u))[:steps]
    times = torch.cat([times.new_ones(1), times[1:], times.new_zeros(1)])
    if not bool((times.diff() < 0).all()):
        raise InputError("The grid's range of σ/α goes beyond the path's; lower ratio_max or raise ratio_min.")
    return times


def of_mixtures(steps: int, path: Path) -> GridTimes:
    """Nodes in σ/(α + σ) of the table that `bespoke:weights=mixtures` has for this number of steps (mixtures.py).

    Beyond the largest table, which has no weights then, its nodes interpolated.
    """
    known = stored_tables()
    nodes = known[min(steps, max(known))].nodes
    places = torch.arange(steps + 1, dtype=torch.float64) / steps * (len(nodes) - 1)
    before = places.floor().clamp(max=len(nodes) - 2).long()
    share = torch.tensor(nodes, dtype=torch.float64)
    return from_flow(torch.lerp(share[before], share[before + 1], places - before), path)


def from_flow(share: GridTimes, path: Path) -> GridTimes:
    """The times at which σ/(α + σ) is a share, falling from 1 to 0, of what it is at t = 1."""
    times = path.time_at(share * path.along([1.0])[0].tau)
    return torch.cat([times.new_ones(1), times[1:-1], times.new_zeros(1)])


GRIDS: dict[str, Callable[..., GridTimes]] = {
    "uniform": uniform_grid, "power": power, "flow_power": flow_power, "log_snr": log_snr, "karras": karras,
    "quadratic": quadratic, "shifted": shifted, "trailing": trailing, "mixtures": of_mixtures,
}  # fmt: skip


def grid_times(grid: str | Sequence[float], steps: int, path: Path) -> GridTimes:
    """The times of a grid's spec such as "karras:rho=5", or a list of times, "1, 0.7, 0.3, 0" in a command."""
    require("steps", steps, 1, 10**6, whole=True)
    expect("path", path, Path)
    if isinstance(grid, str) and not grid.strip()[:1].isdigit():
        return bind(GRIDS, grid, "grid")(steps, path)
    try:
        values = [float(t) for t in (grid.split(",") if isinstance(grid, str) else grid)]
    except (TypeError, ValueError):
        raise InputError(f"A grid is a name, or times such as 1,0.7,0.3,0; got {grid!r}.") from None
    falling = all(t > s for t, s in pairwise(values))
    if len(values) < 2 or values[0] != 1 or values[-1] != 0 or not falling:
        raise InputError(f"The times of a grid must fall from 1 to 0; got {' '.join(str(grid).split())[:80]}.")
    return torch.tensor(values, dtype=torch.float64)
