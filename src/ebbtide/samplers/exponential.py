"""Exponential Adams methods: the linear part of the ODE is solved exactly, the estimate's part by a polynomial.

Between two times the probability-flow ODE is, exactly (Lu et al. 2022, arXiv:2206.00927, Prop. 3.1, and
arXiv:2211.01095, Prop. 4.1),

    x_s = (σ_s/σ_t) x_t + σ_s ∫ x̂₀ dρ,   ρ = α/σ      (the x0 form)
    x_s = (α_s/α_t) x_t + α_s ∫ ε̂ dr,    r = σ/α      (the noise form)

Put the polynomial through the estimates at the last k times in place of x̂₀ or ε̂, and integrate: that is the
Adams-Bashforth method of order k. Which of them it is depends on the form and on the clock u in which the
estimate is taken for a polynomial:

    noise, u = log(σ/α)       DEIS (Zhang & Chen 2023, arXiv:2204.13902), as diffusers has it
    noise, u = σ/α            LMS (Katherine Crowson, k-diffusion), DEIS's ρAB
    x0,    u = log(σ/α)       the multistep solvers of DPM-Solver++, with their integrals in full
    x0,    u = σ/(α + σ)      ours: the linear path's own time, so it is finite from pure noise to data

With a corrector (UniPC, Zhao et al. 2023, arXiv:2302.04867, Algorithm 1) the step is taken again once the estimate at
its end is known, by a polynomial through that one too: one order more for no evaluation more. UniPC itself is the x0
form in u = log(σ/α) with the corrector and its own weights where two estimates are known (see unipc.py).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.paths import Path, Scales
from ..errors import InputError
from ..specs import pick, require
from .dpm_solver import shrinkage
from .multistep import Scheme, Update, multistep, orders
from .ode import MIDPOINT, RALSTON3, RK4
from .unipc import unipc_row
from .walks import Walk

__all__ = ["CLOCKS", "FORMS", "adams", "exponential"]

FORMS = ("x0", "noise")
CLOCKS = ("flow", "log_snr", "ratio", "time")
_FIRST = {2: MIDPOINT, 3: RALSTON3, 4: RK4}
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


def exponential(
    walk: Walk,
    *,
    order: int = 3,
    form: str = "x0",
    clock: str = "flow",
    corrector: bool = False,
    start: str = "ramp",
    variant: str = "adams",
) -> Iterator[Tensor]:
    """x_s = A x_t + Σ_j w_j D_j with the last k = `order` estimates D: one evaluation a step.

    order: 1 to 4; order 1 is DDIM in either form.
    start: the first steps have fewer estimates. "ramp" lets the order grow from 1, at no extra evaluation; but the
    first step's error is then of order 2 (3 with the corrector), and so is the walk's. "runge_kutta" takes the first
    steps by such a method, at 1 to 3 extra evaluations each, and the walk has order k (k + 1).
    variant: "bh1" or "bh2" for UniPC's weights, of the x0 form and the clock log_snr.
    Where α = 0 makes a clock infinite the order is lowered by what it must; towards t = 0, infinite for log_snr, it
    falls to 1 (see multistep.orders).
    """
    require("exponential: order", order, 1, 4, whole=True)
    pick(FORMS, form, "exponential: form")
    pick(CLOCKS, clock, "exponential: clock")
    pick(("ramp", "runge_kutta"), start, "exponential: start")
    pick(("adams", "bh1", "bh2"), variant, "exponential: variant")
    if variant != "adams" and (form, clock) != ("x0", "log_snr"):
        raise InputError(f"exponential: variant {variant} is of form=x0 and clock=log_snr; got {form} and {clock}.")
    scheme = adams(walk.path, walk.grid, order, form, clock, corrector, variant)
    if start == "runge_kutta" and order > 2:
        method, count = (_FIRST[order], order - 2) if corrector else (_FIRST[order - 1], order - 1)
        scheme = scheme._replace(first=(method, min(count, len(walk.grid) - 2)))
    return multistep(walk, scheme)


def adams(
    path: Path, grid: Sequence[Scales], order: int, form: str, clock: str, corrector: bool, variant: str = "adams"
) -> Scheme:
    """The rows of the exponential Adams-Bashforth (and, with the corrector, Adams-Moulton) method on a grid.

    order: estimates that a step uses. form: what is held constant, `x0` or `noise`. variant: "adams", or UniPC's B(h).
    """
    clocks = _clock(path, np.array([c.ratio for c in grid]), clock)
    integrals = list(_integrals(path, grid, form, clock))
    own = orders(grid, order) if clock == "log_snr" else [order] * len(integrals)

    def row(i: int, nodes: Sequence[int]) -> Update:
        if variant == "adams":
            return _row(*integrals[i], clocks, nodes, i)
        return unipc_row(grid[i], grid[i + 1], [grid[j] for j in nodes], variant)

    predict: list[Update | None] = []
    correct: list[Update | None] = []
    for i, (keep, *_) in enumerate(integrals):
        past = list(range(i, max(i - own[i], -1), -1))
        predict.append(row(i, past) if math.isfinite(keep) else None)
        if corrector and i < len(grid) - 2:
            usable = math.isfinite(keep) and math.isfinite(clocks[i])
            correct.append(row(i, [i + 1, *past]) if usable else None)
    return Scheme(form, predict, correct)


def _integrals(path: Path, grid: Sequence[Scales], form: str, clock: str) -> Iterator[tuple[float, float, np.ndarray]]:
    """For each step A, ∫ 1, and the clock at the points whose mean the integral takes of the polynomial.

    The integration variable is w = ρ/ρ_s (x0 form) or r/r_t (noise form). It runs from or to e^{-h}, and so covers
    both ends: h = ∞ from α = 0 and to σ = 0, where all the weight is at the end.
    """
    now, then = grid[:-1], grid[1:]
    fall = np.array([shrinkage(a, b) for a, b in zip(now, then, strict=True)])  # e^{-h}
    w = fall[:, None] + (1 - fall[:, None]) * (_NODES + 1) / 2
    if form == "x0":
        ratios = np.array([c.ratio for c in then])[:, None] / w
        keeps = [b.sigma / a.sigma for a, b in zip(now, then, strict=True)]
        scales = [b.alpha * (1 - f) for b, f in zip(then, fall, strict=True)]
    else:
        ratios = np.array([c.ratio for c in now])[:, None] * w
        keeps = [b.alpha / a.alpha if a.alpha else math.inf for a, b in zip(now, then, strict=True)]
        scales = [b.alpha * a.ratio * (f - 1) for a, b, f in zip(now, then, fall, strict=True)]
    return zip(keeps, scales, _clock(path, ratios, clock), strict=True)


def _row(keep: float, scale: float, inside: np.ndarray, clocks: np.ndarray, nodes: Sequence[int], now: int) -> Update:
    """The exact step of an estimate that is a polynomial in the clock through its values at `nodes`."""
    usable = [j for j in nodes if math.isfinite(clocks[j])]
    if not usable or not np.isfinite(inside).all():  # order 1: a constant is one in any clock
        usable = [now]
    shares = (_lagrange(clocks[usable], inside) @ _WEIGHTS / 2 * scale).tolist()
    own = dict(zip(usable, shares, strict=True))
    return Update(keep, tuple(own.get(j, 0.0) for j in nodes))


def _clock(path: Path, ratio: np.ndarray, clock: str) -> np.ndarray:
    """The clock at noise-to-signal ratios σ/α, 0 and ∞ included."""
    if clock == "flow":
        return 1 - 1 / (1 + ratio)
    if clock == "log_snr":
        with np.errstate(divide="ignore"):
            return -np.log(ratio)
    if clock == "time":
        return path.time_of(torch.from_numpy(ratio)).numpy()
    return ratio


def _lagrange(nodes: np.ndarray, u: np.ndarray) -> np.ndarray:
    """L_j(u) as (nodes, points)."""
    rows = []
    for j, own in enumerate(nodes):
        others = np.delete(nodes, j)[:, None]
        rows.append(((u - others) / (own - others)).prod(0))
    return np.stack(rows)
