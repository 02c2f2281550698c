"""Predictor-corrector: its formula by hand, a Gaussian's moments without sampling, refusals."""

import functools
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments
from ebbtide.samplers import walk
from ebbtide.samplers.beyond.langevin import predictor_corrector
from problems import MEAN, PATHS, STD, exact, float64, last, noise_like, oracle, std_at
from samplers.test_sde import ONES, TIMES, Script


@pytest.mark.parametrize("name", PATHS)
def test_predictor_corrector_by_hand(name):
    """DDPM's step with the posterior variance, then α x̂₀ + σ (c ε̂ + √(1 - c²) z) twice at s; six draws in order."""
    path = PATHS[name]
    script = Script(path, 3, 5, 4, 2, 6, 7)
    sampler = functools.partial(predictor_corrector, corrections=2, strength=0.7)
    found = [float(x) for x in walk(sampler, script, float64(2)[None], float64(*TIMES), draws=ONES)]
    says, z, x, expected = iter((3, 5, 4, 2, 6, 7)), iter(range(1, 7)), 2.0, []
    grid = path.along(TIMES)
    for now, then in pairwise(grid):
        noise = lambda c, x, x0: (x - c.alpha * x0) / c.sigma
        # The posterior of x_s given x₀ and x_t, with x_t = a x_s + √β z.
        a = now.alpha / then.alpha
        beta = now.sigma**2 - a**2 * then.sigma**2
        x0 = next(says)
        mean = (a * then.sigma**2 * x + then.alpha * beta * x0) / now.sigma**2
        x = mean + math.sqrt(beta) * then.sigma / now.sigma * next(z)
        c = (then.ratio / now.ratio) ** 0.7
        for _ in range(2):
            x0 = next(says)
            kept = c * noise(then, x, x0) + math.sqrt(1 - c**2) * next(z)
            x = then.alpha * x0 + then.sigma * kept
        expected.append(x)
    assert found == pytest.approx(expected, rel=1e-7)
    assert [t for _, t in script.seen] == [0.8, 0.5, 0.5, 0.5, 0.2, 0.2]


@pytest.mark.parametrize("strength", [1.0, 0.1])
@pytest.mark.parametrize("name", PATHS)
def test_a_correction_keeps_the_marginal_to_second_order_in_1_minus_c(name, strength):
    """x ← α x̂₀ + σ (c ε̂ + √(1 - c²) z) on N(μ, s²): with V = α² s² + σ² it is, about the mean, x times
    g = 1 - (1 - c) σ²/V and fresh variance σ² (1 - c²); from V that gives V - (1 - c)² σ² α² s²/V: the mean is kept
    exactly, the variance but for (1 - c)². Held against one correction more at the end of one step.
    """
    path, (t, s) = PATHS[name], (0.6, 0.45)
    now, then = path.along([t, s])
    c, truth = (then.ratio / now.ratio) ** strength, std_at(path, s) ** 2
    moments = []
    for corrections in range(3):
        sampler = functools.partial(predictor_corrector, corrections=corrections, strength=strength)
        moments.append(exact_moments(sampler, oracle(path), float64(t, s)))
    gain = 1 - (1 - c) * then.sigma**2 / truth
    fresh = then.sigma**2 * (1 - c**2)
    for (mean, std), (mean_after, std_after) in pairwise(moments):
        assert mean_after == pytest.approx(mean, abs=1e-9)
        assert mean == pytest.approx(then.alpha * MEAN, abs=1e-9)
        assert std_after**2 == pytest.approx(gain**2 * std**2 + fresh, rel=1e-7)
    lost = (1 - c) ** 2 * then.sigma**2 * (then.alpha * STD) ** 2 / truth
    assert gain**2 * truth + fresh == pytest.approx(truth - lost, rel=1e-12)
    # What the predictor left wrong shrinks towards the marginal that corrections keep.
    fixed = fresh / (1 - gain**2)
    assert abs(moments[2][1] ** 2 - fixed) < gain**2 * 1.001 * abs(moments[1][1] ** 2 - fixed) + 1e-12


@pytest.mark.parametrize("corrections", [1, 3])
@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_predictor_corrector_keeps_the_marginals(name, corrections):
    """From the exact marginal at t = 1, without sampling: the bias of the std at least halves as the step does."""
    path, bias = PATHS[name], []
    sampler = functools.partial(predictor_corrector, corrections=corrections)
    for steps in (50, 100):
        mean, std = exact_moments(sampler, oracle(path), grid_times("flow_power:exponent=1.3", steps, path))
        assert abs(mean - MEAN) < 0.02
        bias.append(abs(std - STD))
    assert bias[1] < 0.02
    assert bias[1] < bias[0] / 1.7 or bias[1] < 1e-5


@pytest.mark.parametrize("name", PATHS)
def test_without_corrections_it_is_ddpm(name):
    x, times = PATHS[name].prior(noise_like(5, 2)), float64(1, 0.7, 0.4, 0.1, 0)
    walks = (
        walk("ddpm", oracle(PATHS[name], 2), x, times, draws=Draws.first(5, 0)),
        walk("predictor_corrector", oracle(PATHS[name], 2), x, times, draws=Draws.first(5, 0), corrections=0),
    )
    for one, other in zip(*walks, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", PATHS)
def test_the_last_step_of_predictor_corrector_is_the_estimate(name):
    walked = walk("predictor_corrector", Script(PATHS[name], 3, 5, 7), float64(2)[None], float64(1, 0.4, 0), draws=ONES)
    assert float(last(walked)) == pytest.approx(7, abs=1e-12)


def test_from_pure_noise_a_correction_draws_all_noise_anew():
    """e^{-h} = 0 from α = 0: x = 0.4 · 5 + 0.6 · z with the second z = 2, whatever the predictor did."""
    found = float(
        next(walk("predictor_corrector", Script(Linear(), 3, 5), float64(9)[None], float64(1, 0.6), draws=ONES))
    )
    assert found == pytest.approx(0.4 * 5 + 0.6 * 2)


@pytest.mark.parametrize(("options", "evaluations"), [({}, 19), ({"corrections": 3}, 37), ({"corrections": 0}, 10)])
def test_evaluations(options, evaluations):
    """One a step, and each correction one; the last step, to t = 0, has none to correct."""
    denoiser, times = exact(Linear()), torch.linspace(1, 0, 11).double()
    last(walk("predictor_corrector", denoiser, noise_like(2, 1), times, draws=Draws.first(2, 0), **options))
    assert denoiser.network.calls == evaluations


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"corrections": -1}, r"^predictor_corrector: corrections must be at least 0 and at most 1000000; got -1\.$"),
        ({"strength": 0.0}, r"^predictor_corrector: strength must be above 0 and finite; got 0\.0\.$"),
        ({"strength": math.nan}, r"strength must be above 0 and finite; got nan\.$"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    draws, times = Draws.first(1, 0), float64(1, 0.5, 0)
    with pytest.raises(InputError, match=says) as caught:
        next(walk("predictor_corrector", oracle(Linear()), noise_like(1, 1), times, draws=draws, **options))
    assert len(str(caught.value).splitlines()) == 1


def test_noise_must_be_given_and_two_sample_sets_are_refused():
    with pytest.raises(InputError, match=r"^predictor_corrector is stochastic and needs draws="):
        next(walk("predictor_corrector", oracle(Linear()), noise_like(1, 1), float64(1, 0)))
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^predictor_corrector needs a path from Gaussian noise: "):
        next(walk("predictor_corrector", between, noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0)))
