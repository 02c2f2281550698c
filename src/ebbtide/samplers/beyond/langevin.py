"""Predictor-corrector sampling (Song et al. 2021, arXiv:2011.13456, Algorithm 1): Langevin steps at every time."""

import math
from collections.abc import Iterator

from torch import Tensor

from ...specs import require
from ..ddim import ancestral
from ..dpm_solver import shrinkage
from ..walks import Walk

__all__ = ["predictor_corrector"]


def predictor_corrector(walk: Walk, *, corrections: int = 1, strength: float = 1.0) -> Iterator[Tensor]:
    """DDPM's step to s, then Langevin steps x ← α_s x̂₀ + σ_s (c ε̂ + √(1 - c²) z) at s, c = e^{-strength · h}.

    For c → 1 the correction is their x + ε ∇log p + √(2ε) z with ε = (1 - c) σ², in a form that is exact where x₀ is
    known. Their ε has an independent size, whose bias stays however many steps one takes; ours shrinks with the
    predictor's step. corrections + 1 evaluations a step. Weak order 1.
    """
    require("predictor_corrector: corrections", corrections, 0, 10**6, whole=True)
    require("predictor_corrector: strength", strength, above=0)
    x = walk.x
    for i, (now, then) in enumerate(walk.steps):
        first = i * (corrections + 1)
        x = ancestral(walk, x, now, then, first)
        c = shrinkage(now, then) ** strength
        for again in range(corrections if then.sigma else 0):
            x = walk.estimate(x, then).mix(then.alpha, c * then.sigma)
            x = walk.noised(x, then.sigma * math.sqrt(1 - c**2), first + 1 + again)
        yield x
