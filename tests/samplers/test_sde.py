"""Euler-Maruyama and predictor-corrector: their formulas by hand, a Gaussian's moments without sampling, refusals."""

import functools
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import VE, VP, Bridge, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import Estimate
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments
from ebbtide.samplers.ddim import ddpm
from ebbtide.samplers.ode import euler
from ebbtide.samplers.sde import DIFFUSIONS, euler_maruyama, predictor_corrector
from problems import MEAN, PATHS, STD, exact, float64, last, noise_like, oracle, std_at

TIMES = (0.8, 0.5, 0.2)


class Script:
    """Says x̂₀ = the next of a list, and the ε̂ that belongs to it; remembers where it was asked."""

    gaussian_end = True

    def __init__(self, path, *says):
        self.path, self.says, self.seen = path, list(says), []

    def __call__(self, x, t, /, **cond):
        c = self.path.at(t, x)
        self.seen.append((float(x), float(c.t)))
        x0 = torch.full_like(x, self.says.pop(0))
        return Estimate(x0, (x - c.alpha * x0) / c.sigma)


class Ones(Draws):
    """z = step + 1."""

    def __call__(self, step, x):
        return torch.full_like(x, step + 1.0)


ONES = Ones(0, torch.arange(1))


def rates(path, t):
    """d(σ²)/dt and d(log σ/α)/dt by central differences, which know nothing of written derivatives."""
    h = 1e-6
    c = path.scales(float64(t - h, t + h))
    squares, logs = c.sigma**2, (c.sigma / c.alpha).log()
    return [float(part[1] - part[0]) / (2 * h) for part in (squares, logs)]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("t", [0.1234, 0.5678, 0.9012])
def test_diffusions_are_what_they_say(name, t):
    """variance: d(σ²)/dt. own: 2 σ² d(log σ/α)/dt, the g² that no choice of ours enters. constant: 1."""
    path = PATHS[name]
    c = path.along([t])[0]
    variance, log_ratio = rates(path, t)
    assert DIFFUSIONS["variance"](c) == pytest.approx(variance, rel=1e-6)
    assert DIFFUSIONS["own"](c) == pytest.approx(2 * c.sigma**2 * log_ratio, rel=1e-6)
    assert DIFFUSIONS["constant"](c) == 1


@pytest.mark.parametrize("t", [0.2, 0.7])
def test_diffusions_on_song_s_own_paths(t):
    """VP's own is β(t) = 0.1 + 19.9 t, VE's is d(σ²)/dt = 2 σ_max² t, the linear path's 2 t/(1 - t)."""
    assert DIFFUSIONS["own"](VP().along([t])[0]) == pytest.approx(0.1 + 19.9 * t)
    assert DIFFUSIONS["own"](VE(10.0).along([t])[0]) == pytest.approx(200 * t)
    assert DIFFUSIONS["own"](Linear().along([t])[0]) == pytest.approx(2 * t / (1 - t))
    assert DIFFUSIONS["variance"](Linear().along([t])[0]) == pytest.approx(2 * t)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("diffusion", DIFFUSIONS)
@pytest.mark.parametrize("name", PATHS)
def test_euler_maruyama_by_hand(name, diffusion, scale):
    """x - h (u - ½ g² ∇log p) + g √h z with u = α̇ x̂₀ + σ̇ ε̂ and ∇log p = -ε̂/σ, all taken at t; z = 1, then 2."""
    path = PATHS[name]
    script = Script(path, 3, 5)
    found = [
        float(x)
        for x in euler_maruyama(script, float64(2)[None], float64(*TIMES), draws=ONES, diffusion=diffusion, scale=scale)
    ]
    x, expected = 2.0, []
    for i, x0 in enumerate((3, 5)):
        c, h = path.along([TIMES[i]])[0], TIMES[i] - TIMES[i + 1]
        g2 = scale * DIFFUSIONS[diffusion](c)
        noise = (x - c.alpha * x0) / c.sigma
        drift = c.alpha_dot * x0 + c.sigma_dot * noise + g2 / 2 * noise / c.sigma
        x = x - h * drift + math.sqrt(g2 * h) * (i + 1)
        expected.append(x)
    assert found == pytest.approx(expected, rel=1e-9)
    assert [t for _, t in script.seen] == list(TIMES[:2])
    assert [x for x, _ in script.seen] == pytest.approx([2, expected[0]])


@pytest.mark.parametrize("name", PATHS)
def test_the_last_step_of_euler_maruyama_is_the_estimate(name):
    """Nothing is left of x, and no noise is added."""
    found = [
        float(x) for x in euler_maruyama(Script(PATHS[name], 3, 5), float64(2)[None], float64(1, 0.4, 0), draws=ONES)
    ]
    assert found[1] == pytest.approx(5, abs=1e-12)


def test_a_bridge_wider_than_its_end_has_no_negative_diffusion():
    """Bridge(2) has σ² = t² + 4 t (1 - t), which falls from t = 2/3 on."""
    path = Bridge(2.0)
    assert DIFFUSIONS["variance"](path.along([0.9])[0]) == 0
    x = noise_like(5, 1)
    for end in euler_maruyama(oracle(path), x, float64(1, 0.8, 0.4, 0), draws=Draws.first(5, 0)):
        assert bool(end.isfinite().all())


@pytest.mark.parametrize("diffusion", ["variance", "constant", "own"])
@pytest.mark.parametrize("name", PATHS)
def test_without_diffusion_it_is_euler(name, diffusion):
    x, times = PATHS[name].prior(noise_like(5, 2)), float64(1, 0.7, 0.4, 0.1)
    found = euler_maruyama(oracle(PATHS[name], 2), x, times, draws=Draws.first(5, 0), diffusion=diffusion, scale=0.0)
    for one, other in zip(found, euler(oracle(PATHS[name], 2), x, times), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "diffusion", "scale"),
    [
        *((name, diffusion, 1.0) for name in ("linear", "vp", "ve") for diffusion in ("variance", "constant")),
        ("vp", "own", 1.0),
        ("ve", "own", 1.0),
        ("linear", "variance", 3.0),
        ("vp", "variance", 0.3),
    ],
)
def test_euler_maruyama_keeps_the_marginals(name, diffusion, scale):
    """Moments without sampling, from the exact marginal at t = 1 to t = 0: for any g² the bias halves as h does.

    A g² that the drift doesn't make up for, or makes up for twice, leaves a std off by a number that stays.
    """
    path = PATHS[name]
    sampler = functools.partial(euler_maruyama, diffusion=diffusion, scale=scale)
    bias = {}
    for steps in (100, 200):
        mean, std = exact_moments(sampler, oracle(path), grid_times("flow_power:exponent=1.3", steps, path))
        bias[steps] = (abs(mean - MEAN), abs(std - STD))
    assert max(bias[200]) < 0.02
    for coarse, fine in zip(bias[100], bias[200], strict=True):
        assert fine < 1e-5 or 1.6 < coarse / fine < 2.6


@pytest.mark.parametrize("name", PATHS)
def test_predictor_corrector_by_hand(name):
    """DDPM's step with the posterior variance, then α x̂₀ + σ (c ε̂ + √(1 - c²) z) twice at s; six draws in order."""
    path = PATHS[name]
    script = Script(path, 3, 5, 4, 2, 6, 7)
    sampler = functools.partial(predictor_corrector, corrections=2, strength=0.7)
    found = [float(x) for x in sampler(script, float64(2)[None], float64(*TIMES), draws=ONES)]
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
        ddpm(oracle(PATHS[name], 2), x, times, draws=Draws.first(5, 0)),
        predictor_corrector(oracle(PATHS[name], 2), x, times, draws=Draws.first(5, 0), corrections=0),
    )
    for one, other in zip(*walks, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", PATHS)
def test_the_last_step_of_predictor_corrector_is_the_estimate(name):
    walk = predictor_corrector(Script(PATHS[name], 3, 5, 7), float64(2)[None], float64(1, 0.4, 0), draws=ONES)
    assert float(last(walk)) == pytest.approx(7, abs=1e-12)


def test_from_pure_noise_a_correction_draws_all_noise_anew():
    """e^{-h} = 0 from α = 0: x = 0.4 · 5 + 0.6 · z with the second z = 2, whatever the predictor did."""
    found = float(next(predictor_corrector(Script(Linear(), 3, 5), float64(9)[None], float64(1, 0.6), draws=ONES)))
    assert found == pytest.approx(0.4 * 5 + 0.6 * 2)


@pytest.mark.parametrize(
    ("sampler", "options", "evaluations"),
    [
        (euler_maruyama, {}, 10),
        (predictor_corrector, {}, 19),
        (predictor_corrector, {"corrections": 3}, 37),
        (predictor_corrector, {"corrections": 0}, 10),
    ],
)
def test_evaluations(sampler, options, evaluations):
    """One a step, and each correction one; the last step, to t = 0, has none to correct."""
    denoiser = exact(Linear())
    last(sampler(denoiser, noise_like(2, 1), torch.linspace(1, 0, 11).double(), draws=Draws.first(2, 0), **options))
    assert denoiser.network.calls == evaluations


@pytest.mark.parametrize(
    ("sampler", "options", "says"),
    [
        (euler_maruyama, {"diffusion": "own"}, r"^euler_maruyama: the path's own diffusion is infinite at t = 1"),
        (euler_maruyama, {"diffusion": "g"}, r"^euler_maruyama: diffusion must be one of variance, own, constant;"),
        (euler_maruyama, {"scale": -1.0}, r"^euler_maruyama: scale must be at least 0 and finite; got -1\.0\.$"),
        (euler_maruyama, {"scale": math.nan}, r"scale must be at least 0 and finite; got nan\.$"),
        (euler_maruyama, {"scale": math.inf}, r"scale must be at least 0 and finite; got inf\.$"),
        (predictor_corrector, {"corrections": -1}, r"corrections must be in 0\.\.1000000 .* got -1 and 1\.0\.$"),
        (predictor_corrector, {"strength": 0.0}, r"strength above 0; got 1 and 0\.0\.$"),
        (predictor_corrector, {"strength": math.nan}, r"strength above 0; got 1 and nan\.$"),
    ],
)
def test_bad_options_are_one_sentence(sampler, options, says):
    with pytest.raises(InputError, match=says) as caught:
        next(sampler(oracle(Linear()), noise_like(1, 1), float64(1, 0.5, 0), draws=Draws.first(1, 0), **options))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("sampler", [euler_maruyama, predictor_corrector])
def test_noise_must_be_given_and_two_sample_sets_are_refused(sampler):
    with pytest.raises(InputError, match=r" is stochastic and needs draws="):
        next(sampler(oracle(Linear()), noise_like(1, 1), float64(1, 0)))
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r" needs a path from Gaussian noise: "):
        next(sampler(between, noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0)))
