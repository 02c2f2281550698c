"""Restart against Xu et al.'s Algorithm 1, written out here."""

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
from ebbtide.samplers.beyond.restart import restart
from problems import MEAN, PATHS, STD, exact, float64, last, noise_like, oracle
from samplers.test_edm import DRAWS, RATIOS, agree, karras_step, start, times_of


def algorithm_1(x, ratios, top, bottom, repeats):
    """Xu et al. 2023, Algorithm 1: having reached `bottom`, jump to `top` and walk down, `repeats` times."""
    ratios, found = (*ratios, 0.0), []
    for i, (r, s) in enumerate(pairwise(ratios)):
        x = karras_step(x, r, s)
        if i + 1 == bottom:
            for again in range(repeats):
                x = x + math.sqrt(ratios[top] ** 2 - ratios[bottom] ** 2) * DRAWS(again, x)
                for j in range(top, bottom):
                    x = karras_step(x, ratios[j], ratios[j + 1])
        found.append(x)
    return found


@pytest.mark.parametrize(
    ("options", "top", "bottom"),
    [
        ({}, 2, 4),  # nearest to r = 1 and 0.1 are 1.1 and 0.12
        ({"repeats": 1}, 2, 4),
        ({"repeats": 4, "low": 0.45, "high": 5.0}, 0, 3),
        ({"low": 0.001, "high": 0.6}, 3, 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", PATHS)
def test_restart_is_algorithm_1_on_every_path(name, options, top, bottom):
    path = PATHS[name]
    x, scaled = start(path)
    expected = algorithm_1(scaled, RATIOS, top, bottom, options.get("repeats", 2))
    agree(path, walk("restart", oracle(path, 2), x, times_of(path), draws=DRAWS, **options), expected)


@pytest.mark.parametrize("name", PATHS)
def test_without_repeats_restart_is_edm(name):
    x, times = PATHS[name].prior(noise_like(4, 2)), float64(1, 0.8, 0.5, 0.2, 0.05, 0)
    walks = (
        walk("restart", oracle(PATHS[name], 2), x, times, draws=DRAWS, repeats=0),
        walk("edm", oracle(PATHS[name], 2), x, times),
    )
    for one, other in zip(*walks, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"low": 0.11, "high": 0.14}, {"low": 1e-9, "high": 1e-8}])
def test_a_jump_that_no_two_times_make_is_not_made(options):
    """Both ends are nearest to the same time."""
    x, times = noise_like(4, 2), times_of(Linear())
    walks = (
        walk("restart", oracle(Linear(), 2), x, times, draws=DRAWS, **options),
        walk("edm", oracle(Linear(), 2), x, times),
    )
    for one, other in zip(*walks, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_have_nowhere_to_jump(steps):
    """One or no time in between has noise and signal both."""
    x = noise_like(4, 2)
    times = grid_times("uniform", steps, Linear())
    ends = [last(walk(sampler, oracle(Linear(), 2), x, times, draws=DRAWS)) for sampler in ("restart", "edm")]
    assert torch.equal(*ends)


@pytest.mark.parametrize(("repeats", "evaluations"), [(0, 18), (1, 26), (3, 42)])
def test_restart_takes_two_evaluations_a_step_of_every_pass(repeats, evaluations):
    """Ten steps of t = 1, 0.9, …: r = 1 is t = 0.5, r = 0.1 nearest to t = 0.1, so a pass is four steps more."""
    denoiser = exact(Linear())
    times = torch.linspace(1, 0, 11).double()
    last(walk("restart", denoiser, noise_like(4, 1), times, draws=DRAWS, repeats=repeats))
    assert denoiser.network.calls == evaluations


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_restart_keeps_the_marginals_and_forgets_errors(name):
    """From the exact marginal, without sampling: the bias falls as h² does. An error in the start's mean is forgotten
    the more the oftener it restarts: a jump leaves it as it is, but the way back down shrinks it with the std.
    """
    path, bias = PATHS[name], []
    for steps in (30, 60):
        mean, std = exact_moments(restart, oracle(path), grid_times("flow_power:exponent=1.3", steps, path))
        assert mean == pytest.approx(MEAN, abs=1e-6)
        bias.append(abs(std - STD))
    assert bias[1] < 0.002
    assert bias[1] < bias[0] / 2.5
    off, times = float64(0.5, 0)[:, None], grid_times("flow_power:exponent=1.3", 40, path)
    errors = []
    for repeats in (0, 1, 4):
        both = Draws(0, torch.zeros(2, dtype=torch.int64))  # the same noise for both
        one, other = last(walk("restart", oracle(path), off, times, draws=both, repeats=repeats))[:, 0]
        errors.append(float(one - other))
    assert errors[0] > 2 * errors[1] > 16 * errors[2] > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"low": 0.0}, r"^restart: low must be above 0 and finite; got 0\.0\.$"),
        ({"low": 1.0}, r"^restart: high must be above 1 and finite; got 1\.0\.$"),
        ({"high": math.inf}, r"^restart: high must be above 0\.1 and finite; got inf\.$"),
        ({"low": math.nan}, r"^restart: low must be .*; got nan\.$"),
        ({"repeats": -1}, r"^restart: repeats must be at least 0 and at most 1000000; got -1\.$"),
        ({"repeats": 10**7}, r"got 10000000\.$"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(InputError, match=says) as caught:
        next(walk("restart", oracle(Linear()), noise_like(4, 1), float64(1, 0.5, 0), draws=DRAWS, **options))
    assert len(str(caught.value).splitlines()) == 1


def test_noise_must_be_given_and_two_sample_sets_are_refused():
    with pytest.raises(InputError, match=r"^restart is stochastic and needs draws="):
        next(walk("restart", oracle(Linear()), noise_like(4, 1), float64(1, 0.5, 0)))
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^restart needs a path from Gaussian noise: "):
        next(walk("restart", between, noise_like(4, 1), float64(1, 0), draws=DRAWS))
