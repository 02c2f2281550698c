"""DPM-Solver++ 2M, 2S and SDE: two steps worked out with λ and h, infinite steps, refusals."""

import math

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.samplers import walk
from ebbtide.samplers.dpm_solver import shrinkage
from problems import PATHS, exact, float64, last, noise_like, oracle

LAMBDAS = (-1.5, -0.9, 0.2)  # h' = 0.6, h = 1.1


class Script:
    """Says x̂₀ = the next of a list, and the ε̂ that belongs to it; remembers where it was asked."""

    gaussian_end = True

    def __init__(self, path, *says):
        self.path, self.says, self.seen = path, list(says), []

    def __call__(self, x, t, /, **cond):
        c = self.path.at(t, x)
        self.seen.append((float(x), c.alpha, c.sigma))
        x0 = torch.full_like(x, self.says.pop(0))
        return Estimate(x0, (x - c.alpha * x0) / c.sigma)


class Ones(Draws):
    """z = step + 1."""

    def __call__(self, step, x):
        return torch.full_like(x, step + 1.0)


ONES = Ones(0, torch.arange(1))


def places(path):
    times = path.time_of((-float64(*LAMBDAS)).exp())
    return times, [(c.alpha, c.sigma) for c in path.along(times)]


@pytest.mark.parametrize("name", PATHS)
def test_shrinkage_is_e_to_the_minus_h(name):
    path = PATHS[name]
    grid = path.along(path.time_of((-float64(*LAMBDAS)).exp()))
    assert shrinkage(grid[0], grid[1]) == pytest.approx(math.exp(-0.6), rel=1e-9)
    assert shrinkage(grid[1], grid[2]) == pytest.approx(math.exp(-1.1), rel=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_2m_by_hand(name):
    """Algorithm 2: x₁ = (σ₁/σ₀) x + α₁ (1 - e^{-0.6}) 3; then D = (1 + h/2h') 5 - h/2h' 3 with h/2h' = 1.1/1.2."""
    path = PATHS[name]
    times, ((_, s0), (a1, s1), (a2, s2)) = places(path)
    one, two = map(float, walk("dpmpp_2m", Script(path, 3, 5), float64(2)[None], times))
    x1 = s1 / s0 * 2 + a1 * (1 - math.exp(-0.6)) * 3
    extrapolated = 5 + 1.1 / 1.2 * (5 - 3)
    assert one == pytest.approx(x1, rel=1e-9)
    assert two == pytest.approx(s2 / s1 * x1 + a2 * (1 - math.exp(-1.1)) * extrapolated, rel=1e-9)


@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("name", PATHS)
def test_2m_sde_by_hand(name, eta):
    """Eq. 18 for η = 1: (σ_s/σ_t) e^{-h} x + α_s (1 - e^{-2h}) D + σ_s √(1 - e^{-2h}) z; e^{-η²h} in general."""
    path = PATHS[name]
    times, ((_, s0), (a1, s1), (a2, s2)) = places(path)
    one, two = map(float, walk("dpmpp_2m", Script(path, 3, 5), float64(2)[None], times, draws=ONES, eta=eta))

    def stepped(x, before, alpha, sigma, h, x0, z):
        kept = sigma / before * math.exp(-(eta**2) * h) * x
        return (
            kept + alpha * (1 - math.exp(-(1 + eta**2) * h)) * x0 + sigma * math.sqrt(1 - math.exp(-2 * eta**2 * h)) * z
        )

    x1 = stepped(2, s0, a1, s1, 0.6, 3, 1)
    assert one == pytest.approx(x1, rel=1e-9)
    assert two == pytest.approx(stepped(x1, s1, a2, s2, 1.1, 5 + 1.1 / 1.2 * (5 - 3), 2), rel=1e-9)
    held = list(map(float, walk("exponential_sde", Script(path, 3, 5), float64(2)[None], times, draws=ONES, eta=eta)))
    assert held == pytest.approx([x1, stepped(x1, s1, a2, s2, 1.1, 5, 2)], rel=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_2s_by_hand(name):
    """Algorithm 1 with r = ½: u at λ_t + h/2 by DDIM from x̂₀ = 3, then the step with x̂₀(u) = 5 alone."""
    path = PATHS[name]
    (ratio,) = path.along(path.time_of(float64(math.exp(1.2))))
    times, ((a0, s0), (a1, s1), _) = places(path)
    script = Script(path, 3, 5)
    found = float(next(walk("dpmpp_2s", script, float64(2)[None], times)))
    middle = ratio.sigma / s0 * 2 + ratio.alpha * (1 - math.exp(-0.3)) * 3
    assert script.seen[0] == pytest.approx((2, a0, s0))
    assert script.seen[1] == pytest.approx((middle, ratio.alpha, ratio.sigma), rel=1e-8)
    assert found == pytest.approx(s1 / s0 * 2 + a1 * (1 - math.exp(-0.6)) * 5, rel=1e-8)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2s", "dpmpp_2m_sde", "exponential_sde"])
def test_infinite_steps(sampler):
    """From α = 0 on the linear path, to σ = 0: the first step is 0.4 x̂₀ + 0.6 z with z = x or, for the SDEs, fresh; the
    last is x̂₀. The step after the first knows no h', so it is of order 1.
    """
    script = Script(Linear(), 3, 5, *([7] if sampler != "dpmpp_2s" else [6, 7]))
    draws = ONES if "sde" in sampler else None
    walked = [float(x) for x in walk(sampler, script, float64(2)[None], float64(1, 0.6, 0.2, 0), draws=draws)]
    first = 0.4 * 3 + 0.6 * (1 if draws else 2)
    assert walked[0] == pytest.approx(first)
    fall = 0.4 * 0.2 / (0.8 * 0.6)
    if draws:
        second = 0.2 / 0.6 * fall * first + 0.8 * (1 - fall**2) * 5 + 0.2 * math.sqrt(1 - fall**2) * 2
    else:
        second = 0.2 / 0.6 * first + 0.8 * (1 - fall) * (6 if sampler == "dpmpp_2s" else 5)
    assert walked[1] == pytest.approx(second)
    assert walked[2] == pytest.approx(7)


@pytest.mark.parametrize(("sampler", "evaluations"), [("dpmpp_2m", 10), ("exponential_sde", 10), ("dpmpp_2s", 18)])
def test_evaluations(sampler, evaluations):
    """2S takes two a step, but one from α = 0 and one to σ = 0."""
    denoiser = exact(Linear())
    last(walk(sampler, denoiser, noise_like(2, 1), torch.linspace(1, 0, 11).double(), draws=Draws.first(2, 0)))
    assert denoiser.network.calls == evaluations


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "exponential_sde"])
@pytest.mark.parametrize("eta", [-0.1, math.nan, math.inf])
def test_bad_eta_is_one_sentence(sampler, eta):
    with pytest.raises(InputError, match=r"eta must be at least 0 and finite; got [^.]+(\.\d+)?\.$"):
        next(walk(sampler, oracle(Linear()), noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0), eta=eta))


def test_noise_needs_draws_and_no_noise_needs_none():
    x, times = noise_like(2, 1), float64(1, 0.5, 0)
    for sampler, options in (("dpmpp_2m", {"eta": 0.5}), ("exponential_sde", {}), ("dpmpp_2m_sde", {})):
        with pytest.raises(InputError, match=r"is stochastic and needs draws="):
            next(walk(sampler, oracle(Linear()), x, times, **options))
    ends = [last(walk("dpmpp_2m", oracle(Linear()), x, times, draws=draws)) for draws in (None, Draws.first(2, 0))]
    assert torch.equal(*ends)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2s", "exponential_sde"])
def test_two_sample_sets_are_refused(sampler):
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r" needs a path from Gaussian noise: "):
        next(walk(sampler, between, noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0)))
