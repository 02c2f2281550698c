"""RePaint: inpainting by putting the known elements in at every step, and going back to let the others adapt."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws
from ..errors import InputError
from ..samplers.ddim import transition_variance
from ..samplers.needs import boolean, needed
from ..specs import pick


def repaint(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    known: Float[Tensor, "..."] | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    resamplings: int = 10,
    jump: int = 1,
    variance: str = "beta",
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = m (α_s y + σ_s ε) + (1 - m) (ddpm's step from x_t), then back to x_t = α_t/α_s x_s + √β z, and again.

    Lugmayr et al. 2022, arXiv:2201.09865, Algorithm 1 (U = resamplings; j = jump, Section 4.2), on any grid and path.
    known: y, one for all or one a sample; only the elements where mask is true (known) matter. Without a mask there is
    nothing to put in. jump: how many steps are walked before going back over them; only the last pass is yielded. The
    last block, to t = 0, is walked once, so a jump as long as the grid means no resampling at all.

    variance: ddpm's V, here "beta" by default: at small σ the data look flat and V = β is the exact one, while what
    "posterior" lacks in each step adds up over the resamplings.

    resamplings evaluations a step. The known elements are put in without regard to the others, so with resamplings = 1
    the others follow them too weakly, and no finer grid changes that. Measured for a pair of unit variance and
    correlation 0.9 with 1 known (truth N(0.9, 0.19)), linear path, 10 steps of log_snr: 1, 4, 16, 64 resamplings give
    mean 0.46, 0.75, 0.86, 0.89 and variance 0.52, 0.26, 0.20, 0.19; "posterior" ends at variance 0.11.
    Raises InputError for resamplings or jump below 1, and known and mask that don't fit each other or x.
    """
    draws = needed(denoiser, draws, "repaint")
    if not 1 <= resamplings <= 10**6 or not 1 <= jump <= 10**6:
        raise InputError(f"repaint: resamplings and jump must be in 1..1000000; got {resamplings!r} and {jump!r}.")
    pick(("beta", "posterior"), variance, "repaint: variance")
    if (known is None) != (mask is None):
        raise InputError("repaint: known and mask go together; give both or none.")
    if known is not None and mask is not None:
        if not known.shape[1:] == boolean(mask, "repaint").shape == x.shape[1:] or len(known) not in (1, len(x)):
            shapes = f"known {tuple(known.shape)} and mask {tuple(mask.shape)}"
            raise InputError(f"repaint: {shapes} must fit samples {tuple(x.shape)}.")
        known = known.to(x).expand_as(x)
    steps = list(pairwise(denoiser.path.along(times)))
    for first in range(0, len(steps), jump):
        block = steps[first : first + jump]
        start, end = block[0][0], block[-1][1]
        passes = resamplings if first + jump < len(steps) else 1
        for again in range(passes):
            walked = []
            for i, (now, then) in enumerate(block, first):
                address = 3 * (i * resamplings + again)
                beta = transition_variance(now, then)
                posterior = beta * (then.sigma / now.sigma) ** 2
                x = denoiser(x, now, **cond).mix(then.alpha, math.sqrt(max(then.sigma**2 - posterior, 0)))
                if then.sigma:
                    x = torch.add(x, draws(address, x), alpha=math.sqrt(beta if variance == "beta" else posterior))
                if known is not None and mask is not None:
                    put = then.alpha * known
                    if then.sigma:
                        put = torch.add(put, draws(address + 1, x), alpha=then.sigma)
                    x = torch.where(mask, put, x)
                walked.append(x)
            if again < passes - 1:
                beta = transition_variance(start, end)
                z = draws(3 * (first * resamplings + again) + 2, x)
                x = torch.add(x * (start.alpha / end.alpha), z, alpha=math.sqrt(beta))
        yield from walked
