"""UniPC's weights (Zhao et al. 2023, arXiv:2302.04867), for the rows of `exponential` that take them.

x_s = (σ_s/σ_t) x_t + α_s (1 - e^{-h}) x̂₀ - α_s B(h) Σ_m ρ_m D_m / r_m (Eq. 9 in the x0 form), D_m = x̂₀ᵐ - x̂₀, where
ρ solves Σ_m ρ_m r_m^{n-1} = -h n! φ_{n+1}(-h) / B(h), n = 1, 2, … (Eq. 7), r_m = (λ_m - λ_t) / h. From three
estimates on that is the exact integral of `exponential` in log_snr, whatever B(h) is. With two, ρ is not solved for
but set to ½ (Section 3.3).
"""

import math
from collections.abc import Sequence

import numpy as np

from ..core.paths import Scales
from .dpm_solver import shrinkage
from .multistep import Update

__all__ = ["unipc_row"]


def unipc_row(now: Scales, then: Scales, nodes: Sequence[Scales], variant: str) -> Update:
    """The step from `now` to `then` through the estimates at `nodes`; `now` is one of them.

    variant: of B(h), "bh1" or "bh2".
    """
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
    return Update(keep, tuple(weights))


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
