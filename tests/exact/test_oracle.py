"""The oracle against brute-force integration, autograd and a finely integrated flow."""

import math

import numpy as np
import pytest
import torch

from ebbtide.core.paths import DDPM, Linear
from ebbtide.errors import InputError
from ebbtide.exact.oracle import Gaussians, finite, gaussian, mixture
from ebbtide.samplers import walk
from problems import MEAN, PATHS, STD, exact_flow, float64, last, noise_like, oracle

paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
MEANS, STDS, WEIGHTS = float64(-2, 0.5, 3)[:, None], float64(0.3, 0.6, 0.2), float64(1, 2, 5)


def integrate(path, t, x):
    """E[x₀ | x_t = x], E[ε | x_t = x] and p_t(x), summed over a fine line of x₀ with ε = (x - α x₀)/σ."""
    c = [float(value) for value in path.scales(float64(t))[1:3]]
    alpha, sigma = c
    x0 = np.linspace(-6, 6, 400_001)
    bell = lambda z: np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    weights = WEIGHTS.numpy() / 8
    prior = sum(w * bell((x0 - m) / s) / s for w, m, s in zip(weights, MEANS[:, 0].numpy(), STDS.numpy(), strict=True))
    noise = (x - alpha * x0) / sigma
    joint = prior * bell(noise) / sigma
    mass = joint.sum()
    return (x0 * joint).sum() / mass, (noise * joint).sum() / mass, mass * (x0[1] - x0[0])


@paths
@pytest.mark.parametrize("t", [0.05, 0.5, 0.97])
def test_a_mixture_matches_brute_force_integration(path, t):
    truth = mixture(path, MEANS, STDS, WEIGHTS)
    spread = float(path.scales(float64(t)).sigma)
    for x in (-1.9, 0.2, 1.3 + spread):
        found = truth(float64(x)[:, None], float64(t))
        x0, noise, density = integrate(path, t, x)
        assert float(found.x0) == pytest.approx(x0, rel=1e-6, abs=1e-7)
        assert float(found.noise) == pytest.approx(noise, rel=1e-6, abs=1e-6)
        assert float(truth.log_density(float64(x)[:, None], float64(t))) == pytest.approx(math.log(density), abs=1e-6)


@paths
def test_the_estimate_adds_up_to_what_was_seen(path):
    x_t, t = 2 * noise_like(7, 2), torch.linspace(0.01, 0.99, 7).double()
    estimate = mixture(path, noise_like(5, 2, seed=1), 0.3)(x_t, t)
    c = path.at(t, x_t)
    torch.testing.assert_close(c.alpha * estimate.x0 + c.sigma * estimate.noise, x_t, rtol=1e-9, atol=1e-9)


@paths
def test_the_score_is_the_gradient_of_the_log_density(path):
    truth, t = mixture(path, noise_like(5, 2, seed=1), 0.3, float64(1, 2, 3, 4, 5)), float64(0.4)
    x = noise_like(6, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(truth.log_density(x, t).sum(), x)
    sigma = path.scales(t).sigma
    torch.testing.assert_close(gradient, -truth(x, t).noise / sigma, rtol=1e-8, atol=1e-8)


def test_log_density_by_hand():
    """Linear at t = ½, N(0.7, ¼): N(0.35, 1/16 + 1/4); at its mean in 2-D: -log(2π · 5/16)."""
    value = oracle(Linear(), dim=2).log_density(float64(0.35, 0.35)[None], float64(0.5))
    assert float(value) == pytest.approx(-math.log(2 * math.pi * 5 / 16), rel=1e-12)


@paths
def test_a_finite_set_is_a_mixture_of_points(path):
    points = noise_like(6, 2, seed=3)
    x = noise_like(5, 2)
    sharp, narrow = finite(path, points), mixture(path, points, 1e-5)
    for found, expected in zip(sharp(x, float64(0.3)), narrow(x, float64(0.3)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_finite_set_by_hand():
    """Points ±1 on the linear path at t = ½: x̂₀ = tanh(α x / σ²) = tanh(2 x)."""
    x = float64(-0.4, 0, 0.9)[:, None]
    estimate = finite(Linear(), float64(-1, 1)[:, None])(x, float64(0.5))
    torch.testing.assert_close(estimate.x0, (2 * x).tanh())


def test_weights_weigh():
    """At t = 1 on the linear path nothing is known, so x̂₀ is the weighted mean: (1 · -2 + 2 · 0.5 + 5 · 3)/8."""
    estimate = mixture(Linear(), MEANS, STDS, WEIGHTS)(noise_like(3, 1), float64(1))
    torch.testing.assert_close(estimate.x0, torch.full((3, 1), 1.75, dtype=torch.float64))
    even = mixture(Linear(), MEANS, STDS)(noise_like(3, 1), float64(1))
    torch.testing.assert_close(even.x0, torch.full((3, 1), 0.5, dtype=torch.float64))


@paths
def test_at_the_data_end_what_is_seen_is_the_data(path):
    x = noise_like(4, 2)
    torch.testing.assert_close(mixture(path, noise_like(5, 2, seed=1), 0.3)(x, float64(0)).x0, x)


def test_one_time_each_is_one_time_for_all():
    truth, x = mixture(Linear(), noise_like(5, 2, seed=1), 0.3), noise_like(4, 2)
    each = truth(x, float64(0.1, 0.4, 0.6, 0.9))
    for i, t in enumerate((0.1, 0.4, 0.6, 0.9)):
        torch.testing.assert_close(each.x0[i : i + 1], truth(x[i : i + 1], float64(t)).x0)


@paths
def test_gaussian_flow_matches_a_fine_runge_kutta(path):
    """u = α̇ x̂₀ + σ̇ ε̂ of the Gaussian's regression, in 600 classic Runge-Kutta steps."""
    t, s = 0.98, 0.05

    def u(time, x):
        c = path.scales(float64(time))
        variance = (c.alpha * STD) ** 2 + c.sigma**2
        slope = (c.alpha * c.alpha_dot * STD**2 + c.sigma * c.sigma_dot) / variance
        return c.alpha_dot * MEAN + slope * (x - c.alpha * MEAN)

    x, n = float64(-1.5, 0.2, 2.0), 600
    start, h = x, (s - t) / n
    for i in range(n):
        time = t + i * h
        k1 = u(time, x)
        k2 = u(time + h / 2, x + h / 2 * k1)
        k3 = u(time + h / 2, x + h / 2 * k2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + u(time + h, x + h * k3))
    found = gaussian(path, float64(MEAN), STD).flow(start[:, None], t, s)[:, 0]
    tolerance = 1e-3 if isinstance(path, DDPM) else 1e-7  # its β jumps 1000 times
    torch.testing.assert_close(found, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found, exact_flow(path, start, t, s), rtol=1e-12, atol=1e-12)
    back = gaussian(path, float64(MEAN), STD).flow(found[:, None], s, t)[:, 0]
    torch.testing.assert_close(back, start, rtol=1e-12, atol=1e-12)


COVARIANCE = float64(1.3, 0.7, -0.2, 0.7, 0.9, 0.1, -0.2, 0.1, 0.4).reshape(3, 3)


@paths
def test_a_gaussian_is_a_mixture_of_one_mode(path):
    one, other = gaussian(path, float64(1, 2), 0.5), mixture(path, float64(1, 2)[None], 0.5)
    x, t = noise_like(7, 2), torch.linspace(0.02, 0.98, 7).double()
    for found, expected in zip(one(x, t), other(x, t), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(one.log_density(x, t), other.log_density(x, t))


@paths
@pytest.mark.parametrize("t", [0.0, 0.3, 0.9])
def test_a_full_covariance_is_regression_on_what_is_seen(path, t):
    """x̂₀ = m + α C (α² C + σ² I)⁻¹ (x - α m), and the density N(α m, α² C + σ² I), by torch's own linear algebra."""
    mean, x = float64(1, 2, -1), noise_like(5, 3)
    truth, c = gaussian(path, mean, COVARIANCE), path.along([t])[0]
    seen = c.alpha**2 * COVARIANCE + c.sigma**2 * torch.eye(3).double()
    offset = torch.linalg.solve(seen, (x - c.alpha * mean).T).T
    torch.testing.assert_close(truth(x, t).x0, mean + c.alpha * offset @ COVARIANCE)
    torch.testing.assert_close(truth(x, t).noise, c.sigma * offset)
    expected = torch.distributions.MultivariateNormal(c.alpha * mean, seen).log_prob(x)
    torch.testing.assert_close(truth.log_density(x, t), expected)


@paths
def test_the_flow_of_a_full_covariance_matches_fine_runge_kutta(path):
    truth, x = gaussian(path, float64(1, 2, -1), COVARIANCE), 0.9 * noise_like(5, 3)
    times = torch.linspace(0.9, 0.1, 401).double()
    found = last(walk("rk4:clock=flow", truth, x, times))
    torch.testing.assert_close(truth.flow(x, 0.9, 0.1), found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(truth.flow(truth.flow(x, 0.9, 0.1), 0.1, 0.9), x)


@pytest.mark.parametrize("make", [lambda p, m: mixture(p, m, 0.4), lambda p, m: gaussian(p, m[0], 0.4)])
def test_data_may_have_any_shape(make):
    means, x, t = noise_like(3, 2, 2, 2), noise_like(5, 2, 2, 2, seed=1), torch.linspace(0.1, 0.9, 5).double()
    shaped, flat = make(DDPM(), means), make(DDPM(), means.flatten(1))
    torch.testing.assert_close(shaped(x, t).x0.flatten(1), flat(x.flatten(1), t).x0)
    torch.testing.assert_close(shaped(x, t).noise.flatten(1), flat(x.flatten(1), t).noise)
    torch.testing.assert_close(shaped.log_density(x, t), flat.log_density(x.flatten(1), t))
    for i in range(5):  # a float is a time for the whole batch
        torch.testing.assert_close(shaped(x[i : i + 1], float(t[i])).x0[0], shaped(x, t).x0[i])


def test_bad_covariances_are_one_sentence():
    for bad, words in ((COVARIANCE[:2], "symmetric 3 × 3"), (-COVARIANCE, "negative eigenvalues")):
        with pytest.raises(InputError, match=words):
            gaussian(Linear(), float64(1, 2, 3), bad)


def test_bad_mixtures_are_one_sentence():
    for stds, weights in ((-0.1, None), (0.1, float64(1, 0, 1)), (0.1, float64(1, -1, 2))):
        with pytest.raises(InputError, match=r"^A mixture needs standard deviations of at least 0 and weights above 0"):
            mixture(Linear(), MEANS, stds, weights)


@paths
def test_a_gaussian_pair_leads_to_the_end_of_the_flow(path):
    """x_t = α_t x̂₀ + σ_t ε̂ and x_s = α_s x̂₀ + σ_s ε̂, x_s by an RK4 of 400 steps; in two jumps as in one."""
    spread = torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double()
    truth, x = gaussian(path, float64(1, -2), spread), noise_like(8, 2) + 0.5
    first, middle, last_time = 0.9, 0.4, 0.02
    pair = truth(x, first, to=last_time)
    c, end = path.along([first, last_time])
    torch.testing.assert_close(pair.mix(c.alpha, c.sigma), x, rtol=1e-12, atol=1e-12)
    fine = torch.linspace(path.along([first])[0].tau, end.tau, 401, dtype=torch.float64)
    theirs = last(walk("rk4:clock=flow", truth, x, path.time_at(fine)))
    torch.testing.assert_close(pair.mix(end.alpha, end.sigma), theirs, rtol=1e-7, atol=1e-7)
    half = path.along([middle])[0]
    there = truth(x, first, to=middle).mix(half.alpha, half.sigma)
    twice = truth(there, middle, to=last_time).mix(end.alpha, end.sigma)
    torch.testing.assert_close(twice, pair.mix(end.alpha, end.sigma), rtol=1e-12, atol=1e-12)


@paths
def test_a_gaussian_pair_that_leads_nowhere_is_the_estimate(path):
    """s = t, for a time each and with some of the data's variances 0; and s beyond t leads back."""
    truth, x, t = (
        gaussian(path, float64(1, -2), float64(0.5, 0).diag()),
        noise_like(6, 2),
        float64(*[0.1, 0.4, 0.9] * 2),
    )
    for one, other in zip(truth(x, t, to=t), truth(x, t), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    way, back = path.along([0.3])[0], path.along([0.8])[0]
    there = truth(x, 0.8, to=0.3).mix(way.alpha, way.sigma)
    torch.testing.assert_close(truth(there, 0.3, to=0.8).mix(back.alpha, back.sigma), x, rtol=1e-9, atol=1e-9)


def test_several_gaussians_are_one_where_all_are_alike_and_a_mixture_where_they_are_round():
    """On every path, in float64: with equal parts as `gaussian`, with spherical ones as `mixture`; densities too."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=g, dtype=torch.float64)
    means, root = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((2, 3), (3, 3)))
    spread = root @ root.T + torch.eye(3, dtype=torch.float64)
    weights = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    for name, path in PATHS.items():
        one = gaussian(path, means[0], spread)
        twice = [part[None].expand(2, *part.shape) for part in (one.mean, one.basis, one.stds)]
        alike = Gaussians(path, *twice, weights)
        round_ = mixture(path, means, torch.tensor([0.5, 2.0], dtype=torch.float64), weights[0])
        eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
        other = Gaussians(path, means, eye, round_.stds[:, None].expand(2, 3), weights)
        for t in (0.3, torch.linspace(0.2, 0.9, 6, dtype=torch.float64)):
            for want, got in ((one, alike), (round_, other)):
                for a, b in zip(want(x, t), got(x, t), strict=True):
                    torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=f"{name}, t = {t}")
                torch.testing.assert_close(got.log_density(x, t), want.log_density(x, t), rtol=1e-9, atol=1e-9)
