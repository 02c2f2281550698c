"""Euler-Maruyama: its formula by hand, a Gaussian's moments without sampling, refusals."""

import functools
import math

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
from ebbtide.samplers import walk
from ebbtide.samplers.sde import DIFFUSIONS, euler_maruyama
from problems import MEAN, PATHS, STD, exact, float64, last, noise_like, oracle

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
        for x in walk(
            "euler_maruyama", script, float64(2)[None], float64(*TIMES), draws=ONES, diffusion=diffusion, scale=scale
        )
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
        float(x)
        for x in walk("euler_maruyama", Script(PATHS[name], 3, 5), float64(2)[None], float64(1, 0.4, 0), draws=ONES)
    ]
    assert found[1] == pytest.approx(5, abs=1e-12)


def test_a_bridge_wider_than_its_end_has_no_negative_diffusion():
    """Bridge(2) has σ² = t² + 4 t (1 - t), which falls from t = 2/3 on."""
    path = Bridge(2.0)
    assert DIFFUSIONS["variance"](path.along([0.9])[0]) == 0
    x = noise_like(5, 1)
    for end in walk("euler_maruyama", oracle(path), x, float64(1, 0.8, 0.4, 0), draws=Draws.first(5, 0)):
        assert bool(end.isfinite().all())


@pytest.mark.parametrize("diffusion", ["variance", "constant", "own"])
@pytest.mark.parametrize("name", PATHS)
def test_without_diffusion_it_is_euler(name, diffusion):
    x, times = PATHS[name].prior(noise_like(5, 2)), float64(1, 0.7, 0.4, 0.1)
    found = walk(
        "euler_maruyama", oracle(PATHS[name], 2), x, times, draws=Draws.first(5, 0), diffusion=diffusion, scale=0.0
    )
    for one, other in zip(found, walk("euler", oracle(PATHS[name], 2), x, times), strict=True):
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


def test_one_evaluation_a_step():
    denoiser = exact(Linear())
    last(walk("euler_maruyama", denoiser, noise_like(2, 1), torch.linspace(1, 0, 11).double(), draws=Draws.first(2, 0)))
    assert denoiser.network.calls == 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"diffusion": "own"}, r"^euler_maruyama: the path's own diffusion is infinite at t = 1"),
        ({"diffusion": "g"}, r"^euler_maruyama: diffusion must be one of variance, own, constant;"),
        ({"scale": -1.0}, r"^euler_maruyama: scale must be at least 0 and finite; got -1\.0\.$"),
        ({"scale": math.nan}, r"scale must be at least 0 and finite; got nan\.$"),
        ({"scale": math.inf}, r"scale must be at least 0 and finite; got inf\.$"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    draws, times = Draws.first(1, 0), float64(1, 0.5, 0)
    with pytest.raises(InputError, match=says) as caught:
        next(walk("euler_maruyama", oracle(Linear()), noise_like(1, 1), times, draws=draws, **options))
    assert len(str(caught.value).splitlines()) == 1


def test_noise_must_be_given_and_two_sample_sets_are_refused():
    with pytest.raises(InputError, match=r"^euler_maruyama is stochastic and needs draws="):
        next(walk("euler_maruyama", oracle(Linear()), noise_like(1, 1), float64(1, 0)))
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^euler_maruyama needs a path from Gaussian noise: "):
        next(walk("euler_maruyama", between, noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0)))
