"""UniPC: predictor and corrector of any order from one linear system (Zhao et al. 2023, arXiv:2302.04867)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Scales
from ..core.randomness import Draws
from ..errors import InputError
from ..specs import pick
from .dpm_solver import shrinkage
from .multistep import Plan, Row, multistep, orders
from .needs import gaussian_end


def unipc(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    order: int = 2,
    variant: str = "bh2",
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) x_t + α_s (1 - e^{-h}) x̂₀ - α_s B(h) Σ_m ρ_m D_m / r_m (Eq. 9 in the x0 form), D_m = x̂₀ᵐ - x̂₀.

    ρ solves Σ_m ρ_m r_m^{n-1} = -h n! φ_{n+1}(-h) / B(h), n = 1, 2, … (Eq. 7), r_m = (λ_m - λ_t) / h; two
    unknowns or one are not solved for but set to ½ (Section 3.3). variant: B(h) is -h ("bh1") or e^{-h} - 1 ("bh2").
    Order k + 1 with the corrector, one evaluation a step; the ramp of the first steps holds it to 3. Towards σ = 0 the
    order falls (see multistep.orders). Once three estimates or more are at hand its steps are those of `exponential`
    with clock log_snr and the corrector.
    """
    gaussian_end(denoiser, "unipc")
    if not 1 <= order <= 4:
        raise InputError(f"unipc: order must be in 1..4; got {order}.")
    pick(("bh1", "bh2"), variant, "unipc: variant")
    grid = denoiser.path.along(times)
    predict, correct = [], []
    for i, own in enumerate(orders(grid, order)):
        past = [grid[j] for j in range(i, max(i - own, -1), -1)]
        predict.append(_row(grid[i], grid[i + 1], past, variant))
        if i < len(grid) - 2:
            correct.append(_row(grid[i], grid[i + 1], [grid[i + 1], *past], variant))
    return multistep(denoiser, x, grid, Plan("x0", predict, correct), draws, cond)


def _row(now: Scales, then: Scales, nodes: Sequence[Scales], variant: str) -> Row:
    """The step from `now` to `then` through the estimates at `nodes`; `now` is one of them."""
    keep, fall = then.sigma / now.sigma, shrinkage(now, then)
    here = nodes.index(now)
    weights = [0.0] * len(nodes)
    weights[here] = then.alpha * (1 - fall)
    others = [j for j, c in enumerate(nodes) if j != here and c.alpha] if fall else []
    if others:
        h = -math.log(fall)
        r = [(math.log(now.ratio) - math.log(nodes[j].ratio)) / h for j in others]
        scale = -h if variant == "bh1" else math.expm1(-h)
        for j, rho, own in zip(others, _solve(r, h, scale, corrects=here == 1), r, strict=True):
            share = -then.alpha * scale * rho / own
            weights[j] += share
            weights[here] -= share
    return Row(keep, tuple(weights))


def _solve(r: Sequence[float], h: float, scale: float, *, corrects: bool) -> list[float]:
    """ρ of Eq. 7."""
    n = len(r)
    if n == 1:
        return [0.5]
    phi, target = math.expm1(-h) / -h - 1, []
    for power in range(1, n + 1):
        target.append(phi * math.factorial(power) / scale)
        phi = phi / -h - 1 / math.factorial(power + 1)
    rho: list[float] = np.linalg.solve(np.array(r)[None] ** np.arange(n)[:, None], np.array(target)).tolist()
    return rho
