"""EDM's stochastic sampler against Karras et al.'s Algorithm 2, written out here."""

import functools
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import VE, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments
from ebbtide.samplers import Walk, walk
from ebbtide.samplers.edm import edm, heun_step, renoise
from problems import MEAN, PATHS, STD, exact, float64, last, noise_like, oracle

RATIOS = (4.0, 2.2, 1.1, 0.5, 0.12, 0.03)  # of noise to signal; a sampler appends 0
MOST = math.sqrt(2) - 1
DRAWS = Draws.first(4, 3)


def times_of(path, ratios=RATIOS):
    return torch.cat([path.time_of(float64(*ratios)), float64(0)])


def start(path, ratios=RATIOS):
    """x, and the x/α that Karras et al. walk."""
    c = path.along(times_of(path, ratios)[:1])[0]
    scaled = MEAN + 3 * noise_like(4, 2)
    return c.alpha * scaled, scaled


def scales(path, ratios=RATIOS):
    return [c.alpha for c in path.along(times_of(path, ratios))]


def slope(x, r):
    """(x - D(x; r)) / r with D = E[x₀ | x₀ + r ε = x] for N(0.7, 0.25)."""
    return (x - (STD**2 * x + r**2 * MEAN) / (STD**2 + r**2)) / r


def karras_step(x, r, s):
    """Algorithm 2, lines 6 to 11: from r to s."""
    d = slope(x, r)
    end = x + (s - r) * d
    return x + (s - r) * (d + slope(end, s)) / 2 if s else end


def algorithm_2(x, ratios, churn=0.0, low=0.0, high=math.inf, noise=1.0):
    """Karras et al. 2022, Algorithm 2; its ε_i is our i-th draw times S_noise."""
    ratios, found = (*ratios, 0.0), []
    for i, (r, s) in enumerate(pairwise(ratios)):
        gamma = min(churn / (len(ratios) - 1), MOST) if low <= r <= high else 0.0
        raised = r * (1 + gamma)
        x = x + math.sqrt(raised**2 - r**2) * noise * DRAWS(i, x)
        x = karras_step(x, raised, s)
        found.append(x)
    return found


def agree(path, found, expected, ratios=RATIOS):
    found = list(found)
    assert len(found) == len(expected)
    for one, other, alpha in zip(found, expected, scales(path, ratios)[1:], strict=True):
        torch.testing.assert_close(one, alpha * other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"churn": 1.2},  # γ = 0.2
        {"churn": 100.0},  # γ = √2 - 1
        {"churn": 1.2, "noise": 1.05},
        {"churn": 1.2, "low": 0.2, "high": 2.0},  # only at 1.1 and 0.5
        {"churn": 1.2, "low": 0.4},
        {"churn": 1.2, "high": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", PATHS)
def test_edm_is_algorithm_2_on_every_path(name, options):
    """x/α is Karras et al.'s x, σ/α their σ."""
    path = PATHS[name]
    x, scaled = start(path)
    ours = {"low": "churn_min", "high": "churn_max"}
    given = {ours.get(key, key): value for key, value in options.items()}
    agree(
        path,
        walk("edm", oracle(path, 2), x, times_of(path), draws=DRAWS, **given),
        algorithm_2(scaled, RATIOS, **options),
    )


def test_the_window_holds_its_ends():
    """churn_min ≤ r ≤ churn_max, both included, on a path whose σ/α is its time exactly."""
    path = VE(8.0)
    ratios, options = (4.0, 2.0, 1.0, 0.5), {"churn": 1.0}
    x, scaled = start(path, ratios)
    found = walk(
        "edm", oracle(path, 2), x, times_of(path, ratios), draws=DRAWS, churn_min=1.0, churn_max=2.0, **options
    )
    agree(path, found, algorithm_2(scaled, ratios, low=0.9, high=2.1, **options), ratios)


def test_noise_is_never_raised_beyond_the_paths_end():
    """VE(10) has no σ of 10 · 1.4: its first step stays at 10, the next, at 8, is raised to 10 and no further."""
    path, seen = VE(10.0), []
    truth = oracle(path, 2)

    class Watched:
        gaussian_end = True

        def __init__(self):
            self.path = path

        def __call__(self, x, t, /, **cond):
            seen.append(path.at(t, x).ratio)
            return truth(x, t)

    last(walk("edm", Watched(), path.prior(noise_like(4, 2)), float64(1, 0.8, 0.4, 0), draws=DRAWS, churn=100.0))
    assert seen == pytest.approx([10, 8, 10, 4, 4 * math.sqrt(2)])


@pytest.mark.parametrize("name", ["linear", "cosine", "bridge"])
def test_from_pure_noise_the_first_step_is_ddims(name):
    """There r = ∞ and x/α is nothing: x_s = α_s x̂₀ + σ_s ε̂ = α_s μ + σ_s x, and no noise is added."""
    path = PATHS[name]
    x = noise_like(4, 2)
    c = path.along([0.6])[0]
    found = next(walk("edm", oracle(path, 2), x, float64(1, 0.6, 0), draws=DRAWS, churn=1.0))
    torch.testing.assert_close(found, c.alpha * MEAN + c.sigma * x)


def test_without_churn_on_karras_own_path_it_is_heun():
    x, times = VE(10.0).prior(noise_like(4, 2)), float64(1, 0.6, 0.2, 0.05, 0)
    walks = (walk("edm", oracle(VE(10.0), 2), x, times), walk("heun", oracle(VE(10.0), 2), x, times))
    for one, other in zip(*walks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PATHS)
def test_renoising_goes_up_the_path(name):
    """α̂/α x + α̂ √(r̂² - r²) z: the mean and the variance of p at r become those of p at r̂."""
    path = PATHS[name]
    now, up = path.along(path.time_of(float64(0.3, 1.7)))
    x, z = noise_like(2, 5, 3).unbind()

    class Given(Draws):
        def __call__(self, step, x):
            return torch.full_like(x, float("nan")) if step else z_of[0]

    z_of = []

    def renoised(x, z):
        z_of[:] = [z]
        return renoise(Walk(oracle(path), x, [now, up], Given(0, torch.arange(1))), x, now, up, 0)

    torch.testing.assert_close(
        renoised(x, z), up.alpha * (x / now.alpha + math.sqrt(1.7**2 - 0.3**2) * z), rtol=1e-7, atol=1e-7
    )
    gain, fresh = float(renoised(float64(1), float64(0))), float(renoised(float64(0), float64(1)))
    assert gain * now.alpha == pytest.approx(up.alpha)
    variance = (now.alpha * STD) ** 2 + now.sigma**2
    assert gain**2 * variance + fresh**2 == pytest.approx((up.alpha * STD) ** 2 + up.sigma**2)


@pytest.mark.parametrize("name", PATHS)
def test_heun_steps_by_hand(name):
    path = PATHS[name]
    now, then, end = path.along([*path.time_of(float64(1.7, 0.3)).tolist(), 0.0])
    x = noise_like(5, 2)
    for to, s in ((then, 0.3), (end, 0.0)):
        found = heun_step(Walk(oracle(path, 2), x, [now, to]), now.alpha * x, now, to)
        torch.testing.assert_close(found, to.alpha * karras_step(x, 1.7, s), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("q", "two"), [(1.8, True), (3.2, False), (200.0, False)])
def test_a_step_from_afar_is_the_nearer_of_heun_s_and_ddim_s(q, two):
    """To r = 50, where x/α goes with √(s² + r²) about the mean; the other of the two errs more."""
    path = VE(20_000.0)
    now, then = path.along(path.time_of(float64(50 * q, 50)))
    denoiser = exact(path, "noise")
    x = MEAN + float64(-1.3, 0.2, 0.9)[:, None] * now.ratio
    whole = MEAN + (x - MEAN) * math.sqrt((STD**2 + then.ratio**2) / (STD**2 + now.ratio**2))
    heun, ddim = karras_step(x, now.ratio, then.ratio), denoiser(x, now).mix(then.alpha, then.sigma)
    chosen, other = (heun, ddim) if two else (ddim, heun)
    denoiser.network.calls = 0
    torch.testing.assert_close(heun_step(Walk(denoiser, x, [now, then]), x, now, then), chosen, rtol=1e-9, atol=0)
    assert denoiser.network.calls == 1 + two
    assert float((chosen - whole).abs().max()) < float((other - whole).abs().max())


@pytest.mark.parametrize(
    ("options", "evaluations"), [({}, 18), ({"churn": 5.0}, 17), ({"churn": 5.0, "churn_max": 1.0}, 18)]
)
def test_edm_takes_two_evaluations_a_step(options, evaluations):
    """But one from α = 0, one to σ = 0, and one that churn makes long: from 9 √2 to 4."""
    denoiser = exact(Linear())
    last(walk("edm", denoiser, noise_like(4, 1), torch.linspace(1, 0, 11).double(), draws=DRAWS, **options))
    assert denoiser.network.calls == evaluations


@pytest.mark.parametrize("churn", [4.0, 20.0])
@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_churn_keeps_the_marginals(name, churn):
    """Moments without sampling, from the exact marginal at t = 1; the bias falls with the steps. noise=1.1 is wider."""
    path, bias = PATHS[name], []
    times = [grid_times("flow_power:exponent=1.3", steps, path) for steps in (30, 60)]
    for grid in times:
        mean, std = exact_moments(functools.partial(edm, churn=churn), oracle(path), grid)
        assert mean == pytest.approx(MEAN, abs=1e-6)
        bias.append(abs(std - STD))
    assert bias[1] < 0.004
    assert bias[1] < bias[0] / 1.5
    wide = functools.partial(edm, churn=churn, noise=1.1)
    assert exact_moments(wide, oracle(path), times[1])[1] > STD + 0.005


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"churn": -1.0}, r"^edm: churn must be at least 0 and finite; got -1\.0\.$"),
        ({"churn": math.nan}, r"^edm: churn must be .*; got nan\.$"),
        ({"churn": 1.0, "churn_min": -0.5}, r"^edm: churn_min must be .*; got -0\.5\.$"),
        ({"churn": 1.0, "churn_min": math.nan}, r"^edm: churn_min must be .*; got nan\.$"),
        ({"noise": 0.0}, r"^edm: noise must be above 0 and finite; got 0\.0\.$"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(InputError, match=says) as caught:
        next(walk("edm", oracle(Linear()), noise_like(4, 1), float64(1, 0.5, 0), draws=DRAWS, **options))
    assert len(str(caught.value).splitlines()) == 1


def test_noise_needs_draws_and_no_noise_needs_none():
    x, times = noise_like(4, 1), float64(1, 0.5, 0)
    with pytest.raises(InputError, match=r" is stochastic and needs draws="):
        next(walk("edm", oracle(Linear()), x, times, churn=1.0))
    assert torch.equal(*(last(walk("edm", oracle(Linear()), x, times, draws=draws)) for draws in (None, DRAWS)))


def test_two_sample_sets_are_refused():
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r" needs a path from Gaussian noise: "):
        next(walk("edm", between, noise_like(4, 1), float64(1, 0), draws=DRAWS))
