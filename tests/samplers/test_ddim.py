"""DDPM and DDIM against the papers' algorithms, written out with β_i, α_i, ᾱ_i; moments on every path."""

import math
from itertools import pairwise

import pytest
import torch

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, VE, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import Estimate
from ebbtide.core.times import trailing
from ebbtide.errors import InputError
from ebbtide.samplers import walk
from ebbtide.samplers.ddim import transition_variance
from problems import PATHS, exact, float64, last, noise_like, oracle

N = 30
TABLE = tuple(torch.linspace(0.005, 0.5, N, dtype=torch.float64).tolist())


def test_transition_variance_is_beta():
    path = DDPM(table=TABLE)
    times = torch.arange(N + 1, dtype=torch.float64) / N
    grid = path.along(times)
    found = [transition_variance(grid[i], grid[i - 1]) for i in range(1, N + 1)]
    assert found == pytest.approx(list(TABLE), rel=1e-10)


def test_transition_variance_by_hand():
    """VE: σ_t² - σ_s², here 8² - 2²; linear ½ → ¼: ¼ - (½ · ¼ / ¾)² = ¼ - 1/36."""
    ve, linear = VE(10.0), Linear()
    assert transition_variance(*ve.along([0.8, 0.2])) == pytest.approx(60)
    assert transition_variance(*linear.along([0.5, 0.25])) == pytest.approx(1 / 4 - 1 / 36)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_is_algorithm_2(variance):
    """x_{i-1} = 1/√α_i (x_i - β_i/√(1-ᾱ_i) ε(x_i, i)) + σ_i z, on the table's own times, step by step."""
    path, n = DDPM(table=TABLE), 6
    network = exact(path, "noise").network
    draws, x = Draws.first(n, seed=4), noise_like(n, 2)
    expected, theirs = [], x
    bars = [1.0]
    for beta in TABLE:
        bars.append(bars[-1] * (1 - beta))
    for step, i in enumerate(range(N, 0, -1)):
        beta, bar, bar_before = TABLE[i - 1], bars[i], bars[i - 1]
        noise = network(theirs, float64(i / N))
        mean = (theirs - beta / math.sqrt(1 - bar) * noise) / math.sqrt(1 - beta)
        sigma2 = beta if variance == "beta" else (1 - bar_before) / (1 - bar) * beta
        theirs = mean + (math.sqrt(sigma2) * draws(step, x) if i > 1 else 0)
        expected.append(theirs)
    times = trailing(N, path, table=N)
    found = walk("ddpm", Denoiser(network, path, "noise"), x, times, draws=draws, variance=variance)
    for ours, papers in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, papers, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_equation_12(eta):
    """x_τ' = √ᾱ' x̂₀ + √(1 - ᾱ' - σ²) ε + σ z,  σ = η √((1 - ᾱ')/(1 - ᾱ)) √(1 - ᾱ/ᾱ'), on a sub-sequence."""
    path, n = DDPM(table=TABLE), 6
    network = exact(path, "noise").network
    draws, x = Draws.first(n, seed=4), noise_like(n, 2)
    bars = [math.prod(1 - beta for beta in TABLE[:i]) for i in range(N + 1)]
    sequence, theirs, expected = [30, 22, 13, 12, 3, 0], x, []
    for step, (i, j) in enumerate(pairwise(sequence)):
        bar, then = bars[i], bars[j]
        noise = network(theirs, float64(i / N))
        x0 = (theirs - math.sqrt(1 - bar) * noise) / math.sqrt(bar)
        sigma = eta * math.sqrt((1 - then) / (1 - bar)) * math.sqrt(1 - bar / then)
        theirs = math.sqrt(then) * x0 + math.sqrt(1 - then - sigma**2) * noise + sigma * draws(step, x)
        expected.append(theirs)
    times = float64(*sequence) / N
    found = walk("ddim", Denoiser(network, path, "noise"), x, times, draws=draws, eta=eta)
    for ours, papers in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, papers, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_ddim_with_eta_1_is_ddpm(name):
    """On every path and an uneven grid, with the same noise."""
    path, x, draws = PATHS[name], noise_like(5, 3), Draws.first(5, seed=1)
    times = float64(1, 0.8, 0.75, 0.3, 0.05, 0)
    walks = (
        walk("ddim", oracle(path, 3), x, times, draws=draws, eta=1.0),
        walk("ddpm", oracle(path, 3), x, times, draws=draws),
    )
    for one, other in zip(*walks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PATHS)
def test_the_posterior_is_bayes(name):
    """q(x_s | x_t, x₀) ∝ q(x_t | x_s) q(x_s | x₀), multiplied out: one step of ddpm with x̂₀ = x₀ has its moments.

    400 000 draws; mean and variance within 6 standard errors, false-positive rate 4e-9 a path.
    """
    path, n, x0, noise = PATHS[name], 400_000, 1.3, -0.4
    t, s = float64(0.7), float64(0.4)
    now, then = ([float(value) for value in path.scales(time)[1:3]] for time in (t, s))
    seen = now[0] * x0 + now[1] * noise
    gain = now[0] / then[0]
    step_variance = now[1] ** 2 - (gain * then[1]) ** 2
    precision = 1 / then[1] ** 2 + gain**2 / step_variance
    mean = (then[0] * x0 / then[1] ** 2 + gain * seen / step_variance) / precision

    class Knows:
        gaussian_end = True

        def __init__(self):
            self.path = path

        def __call__(self, x, t, /, **cond):
            return Estimate(torch.full_like(x, x0), torch.full_like(x, noise))

    x = torch.full((n, 1), seen, dtype=torch.float64)
    z = last(walk("ddpm", Knows(), x, torch.cat([t, s]), draws=Draws.first(n, seed=2)))
    assert abs(float(z.mean()) - mean) < 6 / math.sqrt(n * precision)
    assert abs(float(z.var()) * precision - 1) < 6 * math.sqrt(2 / n)


def test_variance_beta_is_wider_and_both_end_without_noise():
    path, x, draws = DDPM(), noise_like(20_000, 1), Draws.first(20_000, seed=1)
    times = trailing(20, path)
    narrow, wide = (list(walk("ddpm", oracle(path), x, times, draws=draws, variance=v)) for v in ("posterior", "beta"))
    assert float(wide[-2].std()) > 1.02 * float(narrow[-2].std())
    estimate = oracle(path)(wide[-2], times[-2:-1])
    torch.testing.assert_close(wide[-1], estimate.x0)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_bad_eta_is_one_sentence(eta):
    with pytest.raises(InputError, match=r"^ddim: eta must be at least 0 and at most 1; got .*\.$"):
        next(walk("ddim", oracle(Linear()), noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0), eta=eta))


def test_bad_variance_is_one_sentence():
    walked = walk("ddpm", oracle(Linear()), noise_like(1, 1), float64(1, 0), draws=Draws.first(1, 0), variance="both")
    with pytest.raises(InputError, match=r"^ddpm: variance must be one of posterior, beta; got 'both'\.$"):
        next(walked)


@pytest.mark.parametrize(("sampler", "options"), [("ddpm", {}), ("ddim", {"eta": 0.5})])
def test_stochastic_samplers_need_draws_and_a_gaussian_end(sampler, options):
    x, times = noise_like(2, 1), float64(1, 0.5, 0)
    with pytest.raises(InputError, match=r"is stochastic and needs draws=Draws\.first\(n, seed\)\.$"):
        next(walk(sampler, oracle(Linear()), x, times, **options))
    between = Denoiser(torch.nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(
        InputError, match=r"needs a path from Gaussian noise: .* use an ODE sampler such as euler or heun\.$"
    ):
        next(walk(sampler, between, x, times, draws=Draws.first(2, 0), **options))


def test_deterministic_ddim_needs_no_draws_and_ignores_them():
    x, times = noise_like(2, 1), float64(1, 0.5, 0)
    ends = [last(walk("ddim", oracle(Linear()), x, times, draws=draws)) for draws in (None, Draws.first(2, 0))]
    assert torch.equal(*ends)
