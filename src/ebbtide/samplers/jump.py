"""Jumps of a flow map: one evaluation a step, whatever its length, from a denoiser that spans two times."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..specs import require
from .walks import Walk


def jump(walk: Walk, *, renew: float = 0.0) -> Iterator[Tensor]:
    """x_s = α_s x̂₀ + σ_s ε̂ of the pair that leads from t to s: exact on any grid if the denoiser is.

    renew: γ, the part of the noise that is drawn anew: the jump ends where σ/α is √(1 - γ²) of s's, and γ of it is
    added (Kim et al. 2024, arXiv:2310.02279, Algorithm 4). 1 jumps to the data and noises it again, the multistep
    consistency sampler (Song et al. 2023, arXiv:2303.01469, Algorithm 1); 0 is deterministic.
    """
    require("jump: renew", renew, 0, 1)
    x, ends = walk.x, walk.grid[1:]
    if renew:
        kept = torch.tensor([math.sqrt(1 - renew**2) * then.ratio for then in ends], dtype=torch.float64)
        ends = walk.path.along(walk.path.time_of(kept))
    for i, ((now, then), end) in enumerate(zip(walk.steps, ends, strict=True)):
        x = walk.estimate(x, now, to=end).mix(end.alpha, end.sigma)
        if renew and then.sigma:
            x = walk.noised(x * (then.alpha / end.alpha), renew * then.sigma, i)
        yield x
