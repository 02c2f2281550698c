"""Data to noise and back along the probability-flow ODE, which is a bijection: each sample corresponds to one noise.

Song et al. 2021, arXiv:2010.02502, Section 5.4 (DDIM's reconstruction); here with the classical Runge-Kutta method in
the flow clock (see samplers/ode.py), whose equation is smooth on every path except at its start, σ = 0.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Path, Scales
from ..errors import InputError
from ..samplers import walk
from ..samplers.ode import RK4, stages, step
from ..specs import expect, require

__all__ = ["bijective", "decode", "depart", "departure", "encode", "interpolate", "require_batch", "slerp", "upwards"]


def upwards(path: Path, steps: int) -> Float[Tensor, " n_plus_1"]:
    """Times from 0 to 1 at which σ/α = (w/(1 - w))^{3/2} for evenly spaced w.

    In the flow clock the steps are finer towards both ends: the data's detail is at one, and at the other x̂₀ multiplies
    the error of a network that predicts the noise by σ/α.
    """
    require("steps", steps, 2, whole=True)
    largest = path.along([1.0])[0].ratio ** (2 / 3)
    w = torch.linspace(0, 1 if math.isinf(largest) else largest / (1 + largest), steps + 1, dtype=torch.float64)
    times = path.time_of((w / (1 - w)) ** 1.5)
    return torch.cat([times.new_zeros(1), times[1:-1], times.new_ones(1)])


def departure(path: Path, t: float) -> tuple[Scales, Scales]:
    """The scales of the first step from 0 to t: where σ/α is half of what it is at t, and those at t."""
    (end,) = path.along([t])
    middle = path.time_of(torch.tensor([end.ratio / 2], dtype=torch.float64))
    return path.along(middle)[0], end


def depart(
    denoiser: DenoiserLike, x0: Float[Tensor, " b *d"], middle: Scales, end: Scales, **cond: Any
) -> Float[Tensor, " b *d"]:
    """The first step, from t = 0: x = α (x₀ + r ε̂) with r = σ/α at its end, and ε̂ at α x₀ in its middle, r/2.

    In z = x/α the ODE is dz/dr = ε̂ = -r ∇log p_r(z), odd in r. So the midpoint rule is right up to r⁴, and σ = 0, where
    a velocity may not exist and a network was never trained, needs no visit. On the grid of `upwards` r is about
    n^{-3/2} here, well below the error of the other steps.
    """
    return end.alpha * torch.add(x0, denoiser(middle.alpha * x0, middle, **cond).noise, alpha=end.ratio)


@torch.no_grad()
def encode(
    denoiser: DenoiserLike, x: Float[Tensor, " b *d"], *, steps: int = 100, **cond: Any
) -> Float[Tensor, " b *d"]:
    """x₁, the end at t = 1 of the ODE dx/dt = α̇ x̂₀ + σ̇ ε̂ that starts from x at t = 0 (arXiv:2011.13456, Eq. 13).

    It has the prior's scale, σ(1) ε, so it is also what `trajectory` takes as `start`. Order 4, four evaluations a
    step; a sample's noise does not depend on its batch. Raises InputError for steps below 2 and for a denoiser between
    two sample sets.
    """
    bijective(denoiser, "encode")
    require_batch("x", x)
    path = denoiser.path
    _, *grid = path.along(upwards(path, steps))
    x = depart(denoiser, x, *departure(path, grid[0].t), **cond)
    for places in stages(path, grid, [RK4] * (steps - 1), "flow"):
        x = step(denoiser, x, places, RK4, **cond)
    return x


@torch.no_grad()
def decode(
    denoiser: DenoiserLike, x1: Float[Tensor, " b *d"], *, steps: int = 100, **cond: Any
) -> Float[Tensor, " b *d"]:
    """The inverse of `encode`: from x₁ at t = 1 down the same grid to data. Errors as there."""
    bijective(denoiser, "decode")
    require_batch("x1", x1)
    *_, x = walk("rk4:clock=flow", denoiser, x1, upwards(denoiser.path, steps).flip(0), cond=cond)
    return x


def interpolate(
    denoiser: DenoiserLike,
    a: Float[Tensor, " b *d"],
    b: Float[Tensor, "..."],
    *,
    n: int = 8,
    steps: int = 100,
    **cond: Any,
) -> Float[Tensor, " b n *d"]:
    """n points from each a to its b, evenly spaced along the great circle between their noises; both ends included.

    Song et al. 2021, arXiv:2010.02502, Section 5.3. Raises InputError for n below 2, for shapes that differ, and where
    `encode` does.
    """
    require("n, the number of points of an interpolation,", n, 2, whole=True)
    require_batch("a", a)
    require_batch("b", b)
    if a.shape != b.shape:
        raise InputError(f"Both ends must have one shape; got {tuple(a.shape)} and {tuple(b.shape)}.")
    first, second = (encode(denoiser, end, steps=steps, **cond) for end in (a, b))
    rows = [decode(denoiser, slerp(first, second, k / (n - 1)), steps=steps, **cond) for k in range(n)]
    return torch.stack(rows, 1)


def slerp(x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"], share: float) -> Float[Tensor, " b *d"]:
    """(sin((1 - λ)θ) x + sin(λθ) y) / sin θ, cos θ = x·y / |x||y| (arXiv:2010.02502, Section 5.3; Shoemake 1985).

    Noise of many dimensions has length √d nearly surely, and so have the points on the arc, but not those on the chord.
    Where x and y are parallel (always in one dimension) there is no single arc, and the chord is taken.

    share: λ, from 0 (x) to 1 (y).
    """
    flat = x.flatten(1).double(), y.flatten(1).double()
    cos = torch.nn.functional.cosine_similarity(*flat, dim=1).clamp(-1, 1)
    theta, sin = cos.acos(), (1 - cos**2).sqrt()
    chord = sin < 1e-6
    weights = [
        torch.where(chord, part, (part * theta).sin() / torch.where(chord, 1.0, sin)) for part in (1 - share, share)
    ]
    p, q = (weight.reshape(-1, *[1] * (x.ndim - 1)).to(x) for weight in weights)
    return p * x + q * y


def require_batch(what: str, x: Any) -> None:
    """Raise InputError unless x is a batch of floats (b, *d)."""
    expect(what, x, Tensor)
    if x.ndim < 2 or not x.is_floating_point():
        raise InputError(f"{what} must be a batch of floats (b, *d); got {x.dtype} of shape {tuple(x.shape)}.")


def bijective(denoiser: DenoiserLike, who: str) -> None:
    """Refuse what is no denoiser, and one whose x̂₀ and ε̂ are only a velocity's coordinates."""
    if not hasattr(denoiser, "gaussian_end"):
        raise InputError(f"{who} needs a denoiser; got {type(denoiser).__name__}.")
    if not denoiser.gaussian_end:
        raise InputError(
            f"{who} needs independent Gaussian noise at t = 1; this path's end is coupled, or data itself."
        )
