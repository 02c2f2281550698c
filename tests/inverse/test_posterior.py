"""Posterior estimates against Bayes' rule for Gaussians, where it is a matter of linear algebra; biases as measured."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cells import each
from ebbtide.codecs.patches import fit_patches
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import Bounded, ClassifierFree
from ebbtide.core.paths import DDPM, Cosine, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.exact.oracle import finite, gaussian, mixture
from ebbtide.inverse.posterior import (
    DPS,
    TMPD,
    NoisyMeasurement,
    PiGDM,
    conjugate_gradients,
    masked,
    resampled,
    through,
)
from ebbtide.samplers import sample, walk
from problems import PATHS, exact, float64, last, noise_like

pytestmark = pytest.mark.unchecked

N, M = 4, 2
MEAN = noise_like(N, seed=1)
FACTOR = noise_like(N, N, seed=2) / 2
COVARIANCE = FACTOR @ FACTOR.T + 0.1 * torch.eye(N, dtype=torch.float64)
A = noise_like(M, N, seed=3)
Y = noise_like(1, M, seed=4)
X = noise_like(3, N, seed=5)
TIMES = [1e-3, 0.3, 0.9, 1.0, float64(0.4), float64(1e-3, 0.5, 1.0)]


def measure(std=0.3, y=Y):
    return NoisyMeasurement(lambda x: x @ A.to(x).T, y, std)


def prior(path):
    return gaussian(path, MEAN, COVARIANCE)


def regression(given, seen, noise):
    """E[x₀ | H x₀ + noise = seen] for x₀ ~ N(MEAN, COVARIANCE): the gain matrix of `given` = H, and its Cov."""
    gain = COVARIANCE @ given.T @ torch.linalg.inv(given @ COVARIANCE @ given.T + noise)
    return MEAN + (seen - MEAN @ given.T) @ gain.T, COVARIANCE - gain @ given @ COVARIANCE


def bayes(path, x, t, std, y=Y):
    """E[x₀ | x_t, y], by regressing on x_t and y at once, sample by sample."""
    rows = []
    for i, time in enumerate(t.expand(len(x)) if isinstance(t, torch.Tensor) else [t] * len(x)):
        c = path.along([float(time)])[0]
        given = torch.cat([c.alpha * torch.eye(N, dtype=torch.float64), A])
        noise = torch.diag(torch.tensor([c.sigma**2] * N + [std**2] * M, dtype=torch.float64))
        rows.append(regression(given, torch.cat([x[i], y[min(i, len(y) - 1)]]), noise)[0])
    return torch.stack(rows)


def affine(walk_of):
    """Mean and covariance that a deterministic sampler, affine in its start, makes of x₁ ~ N(0, I)."""
    start = torch.cat([torch.zeros(1, N), torch.eye(N)]).double()
    end = last(walk_of(start))
    moved = end[1:] - end[:1]
    return end[0], moved.T @ moved


UNIFORM = torch.linspace(1, 0, 101, dtype=torch.float64)


# TMPD: exact on Gaussians


@each("std", [0.0, 0.3])
@each("t", TIMES)
@each("path", PATHS)
def test_tmpd_is_bayes_on_gaussians(path, t, std):
    """To rounding; where α = 0, V is Cov(x₀) only to (α/σ)² = 1/40 000 of it."""
    path = PATHS[path]
    found = TMPD(prior(path), measure(std))(X, t).x0
    late = float(torch.as_tensor(t).max()) == 1 and path.along([1.0])[0].alpha < 1 / 200
    tolerance = 1e-4 if late else 1e-8
    torch.testing.assert_close(found, bayes(path, X, t, std), rtol=tolerance, atol=tolerance)


def test_one_measurement_for_each_sample():
    y = noise_like(3, M, seed=6)
    found = TMPD(prior(Linear()), measure(0.3, y))(X, 0.4).x0
    torch.testing.assert_close(found, bayes(Linear(), X, 0.4, 0.3, y), rtol=1e-9, atol=1e-9)


def test_fewer_steps_than_numbers_in_y_are_not_exact():
    rough = TMPD(prior(Linear()), measure(), steps=1)(X, 0.4).x0
    assert float((rough - bayes(Linear(), X, 0.4, 0.3)).abs().max()) > 1e-3


METHODS = {
    "dps": lambda d, m: DPS(d, m),
    "dps normalised": lambda d, m: DPS(d, m, normalise=True),
    "pigdm": lambda d, m: PiGDM(d, m),
    "pigdm without gradients": lambda d, m: PiGDM(d, m, gradients=False),
    "tmpd": lambda d, m: TMPD(d, m),
}


@each("t", [1e-6, *TIMES])
@each("method", METHODS)
@each("path", PATHS)
def test_estimates_still_add_up_to_x_t(path, method, t):
    path = PATHS[path]
    c, estimate = path.at(t, X), METHODS[method](prior(path), measure())(X, t)
    torch.testing.assert_close(estimate.mix(c.alpha, c.sigma), X, rtol=1e-9, atol=1e-9)


@each("t", [0.0, float64(0.0, 0.5, 1.0)])
@each(("method", "std"), [(method, std) for method in METHODS for std in (0.0, 0.3) if (method, std) != ("dps", 0.0)])
def test_at_t_0_nothing_is_left_to_learn(method, std, t):
    """x₀ is known, so y adds nothing, and nothing is 0/0; DPS refuses s = 0."""
    estimate = METHODS[method](prior(Linear()), measure(std))(X, t)
    torch.testing.assert_close(estimate.x0[0], X[0])
    assert all(bool(part.isfinite().all()) for part in estimate)


@pytest.mark.parametrize("std", [0.0, 0.3])
@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_samples_with_tmpd_follow_the_posterior(path, std):
    """Heun with 100 steps: exactly the walk with the posterior's own denoiser, and its mean and covariance to 1e-3."""
    path = PATHS[path]
    mean, covariance = regression(A, Y[0], std**2 * torch.eye(M, dtype=torch.float64))
    found = affine(lambda x: walk("heun", TMPD(prior(path), measure(std)), x, UNIFORM))
    torch.testing.assert_close(found[0], mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[1], covariance, rtol=0, atol=1e-3)
    assert float((found[1] - COVARIANCE).abs().max()) > 0.3  # the prior's is another


def test_any_sampler_walks_as_with_the_posteriors_denoiser():
    path, cut = Cosine(), torch.linspace(1, 0, 13, dtype=torch.float64)
    mean, covariance = regression(A, Y[0], 0.09 * torch.eye(M, dtype=torch.float64))
    truth, wrapped = gaussian(path, mean, (covariance + covariance.T) / 2), TMPD(prior(path), measure(0.3))
    for name in ("euler", "ddim", "dpmpp_2m", "unipc", "ddpm", "edm", "dopri5"):
        walks = (walk(name, d, X, cut, draws=Draws.first(3, 0)) for d in (truth, wrapped))
        for one, other in zip(*walks, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-4)


# PiGDM


@each("gradients", [True, False])
@each("t", TIMES)
@each("path", PATHS)
def test_pigdm_is_bayes_for_isotropic_data(path, t, gradients):
    """N(m, d² I): then r² is the covariance itself. Against TMPD, which needs no d."""
    path, m = PATHS[path], measure()
    isotropic = gaussian(path, MEAN, 0.6)
    found = PiGDM(isotropic, m, data_std=0.6, gradients=gradients)(X, t)
    tolerance = 1e-4 if gradients or not isinstance(t, float) else 1e-8
    for one, other in zip(found, TMPD(isotropic, m)(X, t), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=tolerance * 10)


def test_pigdm_by_hand():
    """Linear, t = ½, N(0, 1), x = 1: x̂₀ = 1, r² = V = ½; y = 3, s² = ½: δ = ½ / (½ + ½) · 2 = 1, ε̂ = 1 - 1 = 0."""
    m = NoisyMeasurement(lambda x: x, float64(3.0)[:, None], math.sqrt(0.5))
    for gradients in (True, False):
        wrapped = PiGDM(gaussian(Linear(), float64(0.0), 1.0), m, gradients=gradients)
        estimate = wrapped(torch.ones(1, 1, dtype=torch.float64), 0.5)
        assert float(estimate.x0) == pytest.approx(2)
        assert float(estimate.noise) == pytest.approx(0, abs=1e-12)


def test_pigdm_is_not_bayes_for_correlated_data():
    for gradients in (True, False):
        found = PiGDM(prior(Linear()), measure(), gradients=gradients)(X, 0.5).x0
        assert float((found - bayes(Linear(), X, 0.5, 0.3)).abs().max()) > 0.05


@pytest.mark.parametrize("t", [1e-3, 0.5, 1.0])
def test_without_noise_and_gradients_pigdm_projects_onto_the_data(t):
    found = PiGDM(prior(Linear()), measure(0.0), gradients=False)(X, t).x0
    torch.testing.assert_close(found @ A.T, Y.expand(3, M), rtol=1e-8, atol=1e-8)
    shift = found - prior(Linear())(X, t).x0
    torch.testing.assert_close(shift @ torch.linalg.pinv(A) @ A, shift, rtol=1e-8, atol=1e-8)  # within A's rows


def test_pigdm_uses_the_true_jacobian_outside():
    """δ = V Aᵀ (r² A Aᵀ + s²)⁻¹ (y - A x̂₀), V = σ² C (α² C + σ²)⁻¹ written out."""
    estimate, eye = prior(Linear())(X, 0.4), torch.eye(N, dtype=torch.float64)
    covariance = 0.16 * COVARIANCE @ torch.linalg.inv(0.36 * COVARIANCE + 0.16 * eye)
    r2 = 0.16 / (0.16 + 0.36)
    inner = torch.linalg.inv(r2 * A @ A.T + 0.09 * torch.eye(M, dtype=torch.float64))
    expected = estimate.x0 + (Y - estimate.x0 @ A.T) @ inner @ A @ covariance
    torch.testing.assert_close(PiGDM(prior(Linear()), measure())(X, 0.4).x0, expected, rtol=1e-9, atol=1e-9)


# DPS


def test_dps_is_algorithm_1():
    """x_{i-1} = x'_{i-1} - ζ'/|y - A x̂₀| ∇|y - A x̂₀|², with the paper's β_i, on the table's own times."""
    table = tuple(torch.linspace(0.01, 0.8, 8, dtype=torch.float64).tolist())
    path, zeta, draws, theirs = DDPM(table=table), 0.3, Draws.first(3, 7), X
    for i in range(8, 0, -1):
        beta = table[i - 1]
        x = theirs.detach().requires_grad_()
        norm = (Y - prior(path)(x, i / 8).x0 @ A.T).norm(dim=1)
        (gradient,) = torch.autograd.grad(norm.square().sum(), x)
        now = torch.tensor([i, i - 1], dtype=torch.float64) / 8
        unguided = next(walk("ddpm", prior(path), theirs, now, draws=draws))
        other = unguided - zeta / norm.detach()[:, None] * gradient
        wrapped = DPS(prior(path), measure(), strength=2 * zeta * math.sqrt(1 - beta) / beta, normalise=True)
        torch.testing.assert_close(next(walk("ddpm", wrapped, theirs, now, draws=draws)), other, rtol=1e-8, atol=1e-8)
        theirs = other


def test_dps_score_is_equation_16():
    """-ε̂/σ gains -∇|y - A x̂₀|² ζ / (2 s²)."""
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((Y - prior(Linear())(x, 0.4).x0 @ A.T).square().sum(), x)
    gained = DPS(prior(Linear()), measure(0.7), strength=1.5)(X, 0.4).noise - prior(Linear())(X, 0.4).noise
    torch.testing.assert_close(-gained / 0.4, -gradient * 1.5 / (2 * 0.49), rtol=1e-9, atol=1e-9)


def test_dps_takes_a_nonlinear_operator():
    """|x|² of each sample is measured."""
    x, y = X.clone().requires_grad_(), float64(2.0)[:, None]
    squares = lambda x: x.square().sum(1, keepdim=True)
    (gradient,) = torch.autograd.grad((y - squares(prior(Linear())(x, 0.4).x0)).square().sum(), x)
    gained = DPS(prior(Linear()), NoisyMeasurement(squares, y, 0.7))(X, 0.4).noise - prior(Linear())(X, 0.4).noise
    torch.testing.assert_close(-gained / 0.4, -gradient / (2 * 0.49), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"normalise": True, "strength": 4.0}])
def test_dps_reduces_the_residual(options):
    """To less than half of what samples of the prior have, on average."""
    start = noise_like(64, N, seed=8)
    plain, guided = (
        (Y - last(walk("heun", d, start, UNIFORM)) @ A.T).norm(dim=1)
        for d in (prior(Linear()), DPS(prior(Linear()), measure(0.5), **options))
    )
    assert float(guided.mean()) < 0.5 * float(plain.mean())


def test_the_bias_of_dps_is_as_its_docstring_says():
    """N(0, 1), y = 1, s = ½: the flow ends in N(1.28, 0.018), the posterior is N(0.8, 0.2).

    On any path with α(1) = 0, with u = α/√(α² + σ²): dx̃/du = (y - u x̃)/s² for x̃ = x/√(α² + σ²), so
    x₀ = e^{-1/2s²} (x̃₁ + y/s² ∫₀¹ e^{u²/2s²} du).
    """
    m = NoisyMeasurement(lambda x: x, torch.ones(1, 1, dtype=torch.float64), 0.5)
    end = last(walk("heun", DPS(gaussian(Linear(), float64(0.0), 1.0), m), float64(0, 1)[:, None], UNIFORM))
    u = (np.arange(10_000) + 0.5) / 10_000
    assert float(end[0]) == pytest.approx(4 * math.exp(-2) * np.exp(2 * u**2).mean(), abs=1e-3)
    assert float(end[1] - end[0]) == pytest.approx(math.exp(-2), abs=1e-3)
    assert float(end[0]) == pytest.approx(1.28, abs=5e-3)
    assert float(end[1] - end[0]) ** 2 == pytest.approx(0.018, abs=1e-3)


# Data seen through a codec


def of_images(whiten, keep=0):
    """A codec, Gaussian images, and what those are in its latents: z = encode(mean) + (x - mean) turn."""
    codec = fit_patches(lambda: [noise_like(50, 1, 4, 4, seed=6).cumsum(3)], size=2, keep=keep, whiten=whiten)
    factor, mean = noise_like(16, 16, seed=7) / 4, noise_like(1, 4, 4, seed=8)
    rows = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
    turn = (codec.encode(rows) - codec.encode(0 * rows)).flatten(1)
    return codec, mean, factor @ factor.T, turn


@each("whiten", [0.0, 0.5])
@each("std", [0.0, 0.2])
def test_a_mask_of_images_is_a_measurement_of_their_latents(whiten, std):
    """TMPD stays exact: without whitening at any time it is that of pixels, and at t = 1 the posterior mean always."""
    codec, mean, covariance, turn = of_images(whiten)
    pixel = gaussian(Linear(), mean, covariance)
    latent = gaussian(Linear(), codec.encode(mean), turn.T @ covariance @ turn)
    mask = (torch.arange(16) % 3 > 0).reshape(1, 4, 4)
    known = noise_like(2, 1, 4, 4, seed=9)
    seen = masked(known, mask, std)
    inside = through(seen, codec, (1, 4, 4))
    for t in [1.0, *([0.3, 0.9] if not whiten else [])]:
        x = noise_like(2, 1, 4, 4, seed=10)
        z = (x.flatten(1) @ turn).reshape(2, *codec.shape((1, 4, 4))) + (1 - t) * codec.encode(0 * x)
        found = codec.decode(TMPD(latent, inside)(z, t).x0)
        torch.testing.assert_close(found, TMPD(pixel, seen)(x, t).x0, rtol=0, atol=1e-4 if whiten else 1e-8)
        if not std:
            torch.testing.assert_close(found[:, mask], known[:, mask], rtol=0, atol=1e-8)


def test_of_a_codec_that_loses_numbers_the_decoder_is_part_of_the_measurement():
    """z ~ N(m, C), y = A (D(z) - D(0)) + s n: the posterior mean of z by regression, with D's matrix by hand."""
    codec, mean, covariance, turn = of_images(0.5, keep=2)
    m, cov = codec.encode(mean).flatten(), turn.T @ covariance @ turn
    mask = (torch.arange(16) % 2 > 0).reshape(1, 4, 4)
    known = noise_like(1, 1, 4, 4, seed=9)
    inside = through(masked(known, mask, 0.3), codec, (1, 4, 4))
    shape = codec.shape((1, 4, 4))
    unit = torch.eye(8, dtype=torch.float64).reshape(8, *shape)
    matrix = (codec.decode(unit) - codec.decode(0 * unit)).flatten(1)[:, mask.flatten()].T
    origin = codec.decode(0 * unit[:1])[:, mask][0]
    gain = cov @ matrix.T @ torch.linalg.inv(matrix @ cov @ matrix.T + 0.09 * torch.eye(8, dtype=torch.float64))
    expected = m + gain @ (known[:, mask][0] - origin - matrix @ m)
    found = TMPD(gaussian(Linear(), m.reshape(shape), cov), inside)(noise_like(1, *shape), 1.0).x0
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-5)


def test_a_measurement_through_a_codec_that_is_not_linear_is_refused():
    codec = SimpleNamespace(linear=False)
    with pytest.raises(InputError, match="linear in their latents only if the codec is"):
        through(measure(), codec, (1, 4, 4))


# What isn't Gaussian


def test_two_points_by_hand():
    """±1 seen at x_t = 0: x̂₀ = 0, V = 1. y = ½, s = 1: DPS says ½, TMPD ½/(1 + 1) = ¼; the truth is tanh ½ = 0.46."""
    two = finite(Linear(), float64(-1, 1)[:, None])
    m = NoisyMeasurement(lambda x: x, float64(0.5)[:, None], 1.0)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert float(DPS(two, m)(zero, 0.5).x0) == pytest.approx(0.5)
    assert float(TMPD(two, m)(zero, 0.5).x0) == pytest.approx(0.25)


# Operators


def test_masked_images_keep_what_is_known():
    """(2, 2) images, one row known: TMPD at s = 0 puts it in and moves the unknown with it, as regression does."""
    path, mask = Linear(), torch.tensor([[True, True], [False, False]])
    image = gaussian(path, MEAN.reshape(2, 2), COVARIANCE)
    known = torch.full((1, 2, 2), math.nan, dtype=torch.float64)
    known[:, 0] = float64(1.0, -1.0)
    m = masked(known, mask)
    found = TMPD(image, m)(X.reshape(3, 2, 2), 0.5).x0
    torch.testing.assert_close(found[:, 0], known[:, 0].expand(3, 2), rtol=1e-9, atol=1e-9)
    picks = torch.eye(N, dtype=torch.float64)[:2]
    start = torch.cat([X, torch.zeros(1, N, dtype=torch.float64)]).reshape(4, 2, 2)
    end = last(walk("heun", TMPD(image, m), start, UNIFORM))
    torch.testing.assert_close(end[:, 0], known[:, 0].expand(4, 2), rtol=1e-6, atol=1e-6)
    mean, _ = regression(picks, known[0, 0], 0.0 * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(end[-1].flatten(), mean, rtol=0, atol=1e-3)


def test_y_of_any_shape():
    """Mean over columns of (2, 2) images, kept as (2, 1): as with the matrix it is."""
    path, x = Linear(), X.reshape(3, 2, 2)
    image = gaussian(path, MEAN.reshape(2, 2), COVARIANCE)
    matrix = float64(0.5, 0.5, 0, 0, 0, 0, 0.5, 0.5).reshape(2, 4)
    y = float64(0.3, -0.2)
    for method in METHODS.values():
        one = method(image, NoisyMeasurement(lambda x: x.mean(2, keepdim=True), y.reshape(1, 2, 1), 0.2))(x, 0.5).x0
        other = method(prior(path), NoisyMeasurement(lambda x: x @ matrix.T, y[None], 0.2))(X, 0.5).x0
        torch.testing.assert_close(one.flatten(1), other, rtol=1e-9, atol=1e-9)


def test_the_transpose_is_the_transpose():
    u = noise_like(3, M, seed=9)
    torch.testing.assert_close(measure().transpose(u, X), u @ A)


def test_conjugate_gradients_by_hand():
    """[[4, 1], [1, 3]] u = (1, 2): u = (1, 7)/11; the first step is |r|²/rᵀMr = 5/20 of r."""
    matrix, right = float64(4, 1, 1, 3).reshape(2, 2), float64(1, 2)[None]
    steps = [conjugate_gradients(lambda v: v @ matrix, right, steps=n) for n in (1, 2, 9)]
    torch.testing.assert_close(steps[0], float64(0.25, 0.5)[None])
    for u in steps[1:]:
        torch.testing.assert_close(u, float64(1 / 11, 7 / 11)[None])


def test_conjugate_gradients_stop_sample_by_sample():
    """One sample is indefinite, one zero, one fine."""
    scales = float64(-1, 1, 2)[:, None]
    right = float64(1, 1, 0, 0, 1, 3).reshape(3, 2)
    u = conjugate_gradients(lambda v: scales * v, right, steps=5)
    torch.testing.assert_close(u, float64(0, 0, 0, 0, 0.5, 1.5).reshape(3, 2))


# Networks


class Network(nn.Module):
    """A small smooth network with labels, float32."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(N + 1, 8), nn.Linear(8, N)
        self.times = []

    def forward(self, x, t, label):
        self.times.append(t.dtype)
        hidden = self.first(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1)) + label.to(x)[:, None]
        return self.second(torch.tanh(hidden))


LABEL = torch.tensor([0, 1, 2])


@each("t", [0.5, 1.0, torch.tensor([0.1, 0.6, 1.0])], ids=["float", "end", "a time each"])
@each("method", METHODS)
@each("target", ["velocity", "noise", "x0"])
def test_a_network_is_guided_and_no_graph_is_left(target, method, t):
    denoiser, x = Denoiser(Network(), Cosine(), target), X.float()
    wrapped = METHODS[method](denoiser, measure())
    found = [wrapped(x, t, label=LABEL)]
    assert not x.requires_grad
    with torch.no_grad():
        found.append(wrapped(X.float(), t, label=LABEL))
    for estimate in found:
        for part in estimate:
            assert part.dtype == torch.float32
            assert part.grad_fn is None
            assert not part.requires_grad
            assert bool(part.isfinite().all())
    assert torch.equal(found[0].x0, found[1].x0)
    assert all(p.grad is None for p in denoiser.parameters())
    other = wrapped(X.float(), t, label=LABEL.flip(0))
    assert not torch.allclose(other.x0[0], found[0].x0[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_its_batch(method):
    wrapped = METHODS[method](Denoiser(Network(), Linear()), measure())
    t = torch.tensor([0.2, 0.6, 0.9])
    whole = wrapped(X.float(), t, label=LABEL).x0
    for i in range(3):
        alone = wrapped(X[i : i + 1].float(), t[i : i + 1], label=LABEL[i : i + 1]).x0
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_scales_do_as_their_times():
    wrapped, path = TMPD(prior(Linear()), measure()), Linear()
    for t in (0.4, 1.0):
        assert torch.equal(wrapped(X, path.along([t])[0]).x0, wrapped(X, t).x0)
    t = float64(0.1, 0.6, 1.0)
    torch.testing.assert_close(wrapped(X, path.at(t, X)).x0, wrapped(X, t).x0)


@pytest.mark.parametrize("path", PATHS)
def test_the_targets_all_give_the_exact_answer(path):
    """N(0.7, ½²) by a Denoiser of each target, at ordinary times: TMPD and PiGDM with d = ½ agree with the oracle's."""
    path, m = PATHS[path], measure()
    expected = TMPD(gaussian(path, torch.full((N,), 0.7, dtype=torch.float64), 0.5), m)(X, 0.6).x0
    for target in ("noise", "x0", "velocity", "v", "score", "edm"):
        for wrapped in (TMPD(exact(path, target), m), PiGDM(exact(path, target), m, data_std=0.5)):
            torch.testing.assert_close(wrapped(X, 0.6).x0, expected, rtol=1e-6, atol=1e-6)


def test_guided_first_and_measured_then():
    free = ClassifierFree(Denoiser(Network(), Cosine()), 2.0, 3)
    wrapped = TMPD(free, measure())
    assert wrapped.path is free.path
    assert wrapped.gaussian_end is True
    x = sample(wrapped, (N,), draws=Draws.first(3, 0), steps=5, sampler="ddim", label=LABEL)
    assert x.shape == (3, N)
    assert bool(x.isfinite().all())


def test_sampling_in_float32_puts_known_elements_in():
    mask = torch.tensor([True, False, True, False])
    wrapped = TMPD(prior(Linear()), masked(torch.ones(1, N), mask))
    x = sample(wrapped, (N,), draws=Draws.first(3, 0), steps=10, sampler="ddim")
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, mask], torch.ones(3, 2), rtol=1e-3, atol=1e-3)


def test_where_alpha_is_0_one_more_evaluation_is_made():
    network = exact(Linear()).network
    wrapped = TMPD(Denoiser(network, Linear()), measure())
    counts = []
    for t in (0.99, 1.0):
        before = network.calls
        wrapped(X, t)
        counts.append(network.calls - before)
    assert counts == [1, 2]


# Refusals


@pytest.mark.parametrize("std", [-0.1, math.nan, math.inf])
def test_bad_stds_are_one_sentence(std):
    with pytest.raises(InputError, match=r"^A measurement's std must be at least 0 and finite; got .*\.$"):
        measure(std)


@pytest.mark.parametrize("y", [noise_like(1, 3), noise_like(2, M)])
def test_a_y_that_does_not_fit_is_one_sentence(y):
    for method in METHODS.values():
        with pytest.raises(InputError, match=r"^The operator measures \(3, 2\), but y has shape \(\d, \d\); its first"):
            method(prior(Linear()), measure(0.3, y))(X, 0.5)


@pytest.mark.parametrize("mask", [torch.tensor([True, False]), torch.zeros(N, dtype=torch.bool)])
def test_bad_masks_are_one_sentence(mask):
    with pytest.raises(InputError, match=r"^A mask needs the shape of one sample, \(4,\), and something known; got"):
        masked(torch.ones(1, N), mask)


def test_bad_options_are_one_sentence():
    d = prior(Linear())
    with pytest.raises(InputError, match=r"^DPS divides by the measurement's std, which is 0; use normalise=True"):
        DPS(d, measure(0.0))
    with pytest.raises(InputError, match=r"^DPS: strength must be above 0 and finite; got -1\.0\.$"):
        DPS(d, measure(), strength=-1.0)
    with pytest.raises(InputError, match=r"^PiGDM: data_std must be above 0 and finite; got 0\.0\.$"):
        PiGDM(d, measure(), data_std=0.0)
    for method in (PiGDM, TMPD):
        with pytest.raises(InputError, match=r"^\w+: steps must be at least 1; got 0\.$"):
            method(d, measure(), steps=0)
    with pytest.raises(InputError, match=r"^TMPD: measurement must be a NoisyMeasurement; got a tensor of shape"):
        TMPD(d, torch.zeros(1, 4))
    with pytest.raises(InputError, match=r"^A measurement's y must be a tensor; got 0\.5\.$"):
        NoisyMeasurement(lambda x: x, 0.5)
    with pytest.raises(InputError, match=r"^A measurement's operator must be a function; got a tensor of shape"):
        NoisyMeasurement(torch.eye(2), torch.zeros(1, 2))
    with pytest.raises(InputError, match=r"^masked: known must be a tensor; got \[\[1\.0\]\]\.$"):
        masked([[1.0]], torch.tensor([True]))


@pytest.mark.parametrize("method", [DPS, PiGDM, TMPD])
def test_two_sample_sets_are_refused(method):
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^\w+ needs a path from Gaussian noise: .* there is no x̂₀\.$"):
        method(between, measure())


@pytest.mark.parametrize("method", [PiGDM, TMPD])
def test_a_bound_goes_around_a_measurement(method):
    """Data N(0, I) beside known elements that the prior's x̂₀ overshoots: they are met, wherever the bound lies."""
    y = masked(torch.tensor([[0.3, -0.4]]), torch.tensor([True, False]))
    prior = gaussian(Linear(), torch.tensor([3.0, 0.0]), torch.eye(2))
    x = sample(Bounded(method(prior, y), 1.0), (2,), sampler="ddim", steps=50, draws=Draws.first(50, seed=0))
    assert (x[:, 0] - 0.3).abs().max() < 1e-3
    with pytest.raises(InputError, match=rf"write Bounded\({method.__name__}\(…\)\) instead\.$"):
        method(Bounded(prior, 1.0), y)(x, 0.5)


def test_a_denoiser_without_gradients_is_refused():
    class Silent:
        path, gaussian_end = Linear(), True

        def __call__(self, x, t, /, **cond):
            return Estimate(x.detach(), x.detach())

    with pytest.raises(InputError, match=r"^TMPD needs x̂₀'s gradient, and this denoiser gives none\.$"):
        TMPD(Silent(), measure())(X, 0.5)
    with pytest.raises(InputError, match=r"gives none\.$"):
        TMPD(TMPD(prior(Linear()), measure()), measure())(X, 0.5)
    assert bool(last(walk("ddim", PiGDM(Silent(), measure(), gradients=False), X, float64(1, 0.5, 0))).isfinite().all())


# --- several modes ----------------------------------------------------------------------------------------------------


def two_modes(path):
    return mixture(path, torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64), 0.1)


QUANTILES = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)


def test_tmpd_reaches_the_mode_that_is_ruled_out_even_with_an_exact_denoiser():
    """x = 0.05 known of modes at ±(1, 1), std 0.1: y is N(1, 0.01) but for e^{-10}. It is what the docstring says."""
    seen = masked(torch.tensor([[0.05, 0.0]], dtype=torch.float64), torch.tensor([True, False]))
    drawn = sample(
        TMPD(two_modes(Linear()), seen), (2,), sampler="ddim", grid="log_snr", steps=100, draws=Draws.first(400, 0)
    )
    assert float(drawn[:, 1].double().quantile(0.05)) < -0.8


def test_resampled_has_the_posterior_of_two_modes():
    """Exact samples of the prior, x seen as 0 and 0.3, ± 0.5: it is N(∓1, 0.01 + 0.25) in each mode, so the upper has
    1/(1 + e^{-2·0.3/0.26}); y keeps ±1 ± 0.1. More than 30 000 are effective: a share's standard error is below 0.003.
    """
    draws = torch.Generator().manual_seed(0)
    sign = 2.0 * torch.randint(2, (200_000, 1), generator=draws) - 1
    x0 = sign + 0.1 * torch.randn(200_000, 2, generator=draws, dtype=torch.float64)
    for seen, share in ((0.0, 0.5), (0.3, 1 / (1 + math.exp(-2 * 0.3 / 0.26)))):
        measurement = masked(torch.tensor([[seen, 0.0]], dtype=torch.float64), torch.tensor([True, False]), 0.5)
        found = resampled(x0, measurement, 50_000)
        upper = found[found[:, 1] > 0]
        assert len(upper) / len(found) == pytest.approx(share, abs=0.02)
        # x in the upper mode: precision 1/0.01 + 1/0.25, mean between 1 and what was seen
        assert float(upper[:, 0].mean()) == pytest.approx((1 / 0.01 + seen / 0.25) / 104, abs=0.004)
        assert float(upper[:, 0].std()) == pytest.approx(104**-0.5, rel=0.03)
        expected = 1 + 0.1 * torch.special.ndtri(QUANTILES)
        assert torch.allclose(upper[:, 1].quantile(QUANTILES), expected, atol=0.005)


def test_resampled_refuses_what_it_can_not_do():
    x0, mask = noise_like(200, 2), torch.tensor([True, False])
    known = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="the measurement's std must be above 0"):
        resampled(x0, masked(known, mask), 10)
    for count in (0, 1.5):
        with pytest.raises(InputError, match=rf"^resampled: count must be .*at least 1; got {count}\.$"):
            resampled(x0, masked(known, mask, 1.0), count)
    with pytest.raises(InputError, match=r"the measurement's y must be .* of shape \(1, …\); got .* \(2, 1\)"):
        resampled(x0, masked(known.expand(2, 2), mask, 1.0), 10)
    with pytest.raises(InputError, match=r"only \d+\.\d of 200 samples count"):
        resampled(x0, masked(known, mask, 0.001), 10)
