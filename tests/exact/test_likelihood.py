"""Log-densities against closed forms; estimators' bias with a stated rate; warnings and bars that can be believed."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import VE, Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.exact.likelihood import (
    DIVERGENCES,
    bits_per_dimension,
    dequantise,
    exact,
    hutch_plus_plus,
    hutchinson,
    likelihood,
    log_density,
)
from ebbtide.exact.oracle import gaussian, mixture
from ebbtide.networks.mlp import MLP
from problems import PATHS, SIGMAS, Told, exact as exact_network, float64, noise_like

pytestmark = pytest.mark.unchecked

paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
MEANS, STD = float64(1, 0.5, -1, 0.3, 0, -1.2).reshape(3, 2), 0.3
COVARIANCE = float64(1, 0.6, -0.3, 0.6, 0.8, 0.1, -0.3, 0.1, 0.5).reshape(3, 3)


def three_modes(path, n=40):
    """A mixture, and points of it with a few far from every mode."""
    x = MEANS[torch.arange(n) % 3] + STD * noise_like(n, 2)
    return mixture(path, MEANS, STD, float64(1, 2, 3)), torch.cat([x, float64(0, 0, 2.5, 2.5).reshape(2, 2)])


def no_warning(**given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return likelihood(**given)


def from_the_truth(truth, x, **options):
    """With the data's own p₁ in place of the prior, so that what α(1) leaves of the data is no part of the error."""
    return log_density(truth, x, prior=partial(truth.log_density, t=1.0), **options)


@paths
def test_a_mixture(path):
    truth, x = three_modes(path)
    torch.testing.assert_close(from_the_truth(truth, x, steps=60), truth.log_density(x), rtol=0, atol=1e-3)


def test_the_network_is_told_the_label_at_every_evaluation():
    told, label = Told(three_modes(Linear())[0]), torch.tensor([2, 0, 1])
    likelihood(told, noise_like(3, 2), steps=4, tolerance=math.inf, label=label)
    assert told.always(label)


@paths
def test_a_full_covariance(path):
    truth = gaussian(path, float64(1, -0.5, 0.2), COVARIANCE)
    x = float64(1, -0.5, 0.2) + noise_like(20, 3)
    torch.testing.assert_close(from_the_truth(truth, x, steps=25), truth.log_density(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("path", [PATHS["linear"], PATHS["vp"]], ids=["linear", "vp"])  # which has no say in it
def test_any_shape_of_data(path):
    truth = gaussian(path, noise_like(3, 4, 4, seed=1), 0.4)
    x = truth.mean + 0.4 * noise_like(5, 3, 4, 4)
    found = from_the_truth(truth, x, steps=16)
    assert found.shape == (5,)
    torch.testing.assert_close(found, truth.log_density(x), rtol=0, atol=1e-3 * 48)


@paths
def test_the_prior_is_the_samplers(path):
    """log p(x) = log p₀(x) + log N(x₁; 0, σ(1)² I) - log p₁(x₁), with x₁ by the Gaussian's exact flow.

    Where α(1) = 0 the last two are the same. On VE they differ by some 0.1, so it is known which of them was taken.
    """
    truth, x = gaussian(path, float64(1.5, -1), 0.5), float64(1.5, -1) + 0.5 * noise_like(30, 2)
    x1, sigma = truth.flow(x, 0.0, 1.0), path.along([1.0])[0].sigma
    prior = torch.distributions.Normal(0, sigma).log_prob(x1).sum(1)
    leftover = prior - truth.log_density(x1, 1.0)
    torch.testing.assert_close(log_density(truth, x, steps=30), truth.log_density(x) + leftover, rtol=0, atol=1e-4)
    if isinstance(path, VE):
        assert float(leftover.abs().max()) > 0.1
    elif path.along([1.0])[0].alpha == 0:
        assert float(leftover.abs().max()) < 1e-9


@pytest.mark.parametrize("target", ["noise", "x0", "velocity", "v", "edm"])
@pytest.mark.parametrize("name", ["linear", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpm", "ve"))])
def test_a_network_of_any_target(name, target):
    """N(0.7, ¼) through a network that predicts `target`; t_max holds noise at α/σ = 1/200 on the linear path."""
    denoiser, x = exact_network(PATHS[name], target), float64(0.1, 0.7, 1.9)[:, None]
    truth = gaussian(PATHS[name], float64(0.7), 0.5)
    prior = partial(truth.log_density, t=1.0)
    loose = 1e-2 if (name, target) == ("linear", "noise") else 1e-3
    torch.testing.assert_close(
        log_density(denoiser, x, prior=prior, steps=40), truth.log_density(x), rtol=0, atol=loose
    )


def test_a_number_by_hand():
    """N(0, 1) on the linear path at 2: -log √(2π) - 2."""
    found = log_density(gaussian(Linear(), float64(0), 1.0), float64(2)[:, None])
    assert float(found) == pytest.approx(-0.918938533 - 2, abs=1e-6)


def test_it_is_of_order_4():
    truth, x = three_modes(Linear())
    errors = [float((log_density(truth, x, steps=n) - truth.log_density(x)).abs().mean()) for n in (60, 120)]
    assert math.log2(errors[0] / errors[1]) > 3.5


# --- error bars ---------------------------------------------------------------------------------------------


@paths
def test_eight_steps_are_warned_of(path):
    truth, x = three_modes(path)
    with pytest.warns(UserWarning, match=r"of 42 log-densities change .* from 4 to 8 steps"):
        found = likelihood(truth, x, steps=8, prior=partial(truth.log_density, t=1.0))
    assert float((found.log_density - truth.log_density(x)).abs().max()) > 0.03


@pytest.mark.parametrize(
    "steps", [8, 16, pytest.param(50, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
@paths
def test_the_bar_covers_the_error(path, steps):
    """For four in five points (a difference may vanish where the error does not) and for the worst of them."""
    truth, x = three_modes(path)
    prior = partial(truth.log_density, t=1.0)
    found = likelihood(truth, x, steps=steps, prior=prior, tolerance=math.inf)
    error = (found.log_density - truth.log_density(x)).abs()
    assert float((error <= found.step_error).double().mean()) >= 0.8
    assert float(error.max()) <= float(found.step_error.max())


def test_a_hundred_steps_are_not_warned_of():
    truth, x = three_modes(Linear())
    found = no_warning(denoiser=truth, x=x)
    assert float(found.step_error.max()) < 0.02
    assert (found.probe_error == 0).all()
    torch.testing.assert_close(found.log_density, log_density(truth, x))


def test_what_is_not_finite_is_warned_of():
    truth, x = three_modes(Linear())
    with pytest.warns(UserWarning, match="1 of 42"):
        likelihood(truth, x.index_fill(0, torch.tensor([3]), math.nan))


@pytest.mark.parametrize("name", ["hutchinson", "hutch++"])
def test_the_probes_spread_is_the_standard_error(name):
    """(estimate - exact)/bar over 400 samples of 30 probes: mean square 1 ± 0.35.

    Its standard deviation is about √(2/400) = 0.07, widened to 0.08 by the bars' own noise: 4 σ, and a fixed seed.
    """
    truth = gaussian(Linear(), float64(0, 0, 0), COVARIANCE)
    x, spec = noise_like(400, 3), f"{name}:probes={30 if name == 'hutchinson' else 3}"
    found = likelihood(truth, x, steps=12, divergence=spec, draws=Draws.first(400, 0), tolerance=math.inf)
    if name == "hutch++":  # one probe of the rest says nothing of its spread
        assert found.probe_error.isnan().all()
        return
    z = (found.log_density - log_density(truth, x, steps=12)) / found.probe_error
    assert float(z.square().mean()) == pytest.approx(1, abs=0.35)


# --- estimators ---------------------------------------------------------------------------------------------


def product_of(a, n):
    return lambda v: v @ a, noise_like(n, len(a))


def rademacher(n, d, seed=0):
    return lambda k: torch.where(
        Draws.first(n, seed)(k, torch.empty(n, d, dtype=torch.float64)) < 0, -1.0, 1.0
    ).double()


@pytest.mark.parametrize("spec", [(hutchinson, 1), (hutchinson, 4), (hutch_plus_plus, 3), (hutch_plus_plus, 9)])
def test_estimators_are_unbiased(spec):
    """The mean of 20 000 samples is within 6 standard errors of the trace: a false alarm has probability 2e-9."""
    row, probes = spec
    n, a = 20_000, noise_like(8, 8, seed=2)  # not symmetric
    product, x = product_of(a, n)
    found = row(product, x, rademacher(n, 8), probes=probes).mean(1)
    assert float(found.std()) > 0.1
    assert abs(float(found.mean() - a.trace())) < SIGMAS * float(found.std()) / math.sqrt(n)


def test_a_probes_variance_by_hand():
    """½ Σ_{i≠j} (A_ij + A_ji)² = 9 for [[5, 1], [2, 7]]: zᵀ A z = 12 ± 3."""
    product, x = product_of(float64(5, 1, 2, 7).reshape(2, 2), 64)
    assert sorted(set(hutchinson(product, x, rademacher(64, 2)).flatten().tolist())) == [9.0, 15.0]
    assert (exact(product, x, rademacher(64, 2)) == 12).all()


def test_hutch_plus_plus_is_exact_for_few_directions():
    """A of rank 3 lies in Q, with 3 columns: no probe is left with anything; Hutchinson's 9 are off by some 1."""
    factor = noise_like(20, 3, seed=5)
    a = factor @ factor.T
    product, x = product_of(a, 50)
    error = lambda row: float(
        (row(product, x, rademacher(50, 20), probes=9).mean(1) - a.trace()).square().mean().sqrt()
    )
    assert error(hutch_plus_plus) < 1e-9
    assert error(hutchinson) > 1


def test_a_sample_does_not_depend_on_its_batch():
    truth, x = three_modes(Linear())
    whole = log_density(truth, x, steps=10, divergence="hutchinson:probes=2", draws=Draws.first(42, 7))
    part = log_density(truth, x[30:], steps=10, divergence="hutchinson:probes=2", draws=Draws.first(12, 7, 30))
    torch.testing.assert_close(whole[30:], part, rtol=1e-12, atol=1e-12)
    other = log_density(truth, x, steps=10, divergence="hutchinson:probes=2", draws=Draws.first(42, 8))
    assert float((whole - other).abs().max()) > 1e-3


@pytest.mark.parametrize("divergence", ["hutchinson:probes=60", "hutch++:probes=6"])
def test_a_density_by_probes(divergence):
    truth, x = three_modes(Linear(), n=10)
    found = log_density(truth, x, steps=20, divergence=divergence, draws=Draws.first(12, 0))
    loose = 1e-9 if divergence.startswith("hutch+") else 1.0
    torch.testing.assert_close(found, log_density(truth, x, steps=20), rtol=0, atol=loose)


# --- gradients ----------------------------------------------------------------------------------------------


def test_by_default_no_graph_is_kept():
    x = noise_like(3, 1).requires_grad_()
    assert not log_density(exact_network(Linear()), x, steps=4).requires_grad


def test_the_gradient_in_x_is_the_score():
    truth, x = three_modes(Linear())
    x.requires_grad_()
    (found,) = torch.autograd.grad(log_density(truth, x, graph=True).sum(), x)
    (score,) = torch.autograd.grad(truth.log_density(x).sum(), x)
    torch.testing.assert_close(found, score, rtol=0, atol=2e-2)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson:probes=3", "hutch++:probes=3"])
def test_the_gradient_in_the_parameters_is_the_difference_quotient(divergence):
    torch.manual_seed(0)
    network = MLP(3, width=8, depth=1).double()
    nn.init.normal_(network.out.weight, std=0.3)
    denoiser, x, weight = Denoiser(network, Linear()), noise_like(4, 3), network.from_x.weight
    value = lambda graph=False: log_density(
        denoiser, x, steps=6, divergence=divergence, draws=Draws.first(4, 0), graph=graph
    ).sum()
    (gradient,) = torch.autograd.grad(value(True), weight)
    direction, ends = noise_like(*weight.shape, seed=3), []
    for sign in (1, -2):
        with torch.no_grad():
            weight += sign * 1e-5 * direction
        ends.append(float(value()))
    quotient = (ends[0] - ends[1]) / 2e-5
    if divergence.startswith("hutch+"):  # Q is held fixed in the gradient, which only its mean over probes allows
        assert gradient.isfinite().all()
    else:
        assert float((gradient * direction).sum()) == pytest.approx(quotient, rel=1e-5)


# --- bits ---------------------------------------------------------------------------------------------------


def test_bits_by_hand():
    """A uniform density on [-1, 1)^d, log p = -d log 2, is 8 bits a pixel, and so is one on [0, 1)^d, log p = 0."""
    assert float(bits_per_dimension(float64(-12 * math.log(2)), 12)) == pytest.approx(8)
    assert float(bits_per_dimension(float64(0), 12, low=0.0, high=1.0)) == pytest.approx(8)
    assert float(bits_per_dimension(float64(-12 * math.log(2)), 12, levels=2)) == pytest.approx(1)
    assert float(bits_per_dimension(float64(-math.log(2) * 4), 2)) == pytest.approx(2 + 7)


def test_dequantised_pixels_fill_their_own_level():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(40, 1)
    x = dequantise(pixels, Draws.first(40, 0))
    share = (x + 1) * 128 - pixels
    assert ((share >= 0) & (share < 1)).all()
    # U(0, 1) has the mean ½ and the variance 1/12: 6 standard errors over 10 240 numbers.
    assert abs(float(share.mean()) - 0.5) < SIGMAS * math.sqrt(1 / 12 / share.numel())
    assert abs(float(share.var()) - 1 / 12) < SIGMAS * math.sqrt(1 / 180 / share.numel())
    torch.testing.assert_close(x[5:], dequantise(pixels[5:], Draws.first(35, 0, 5)))


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 3}, "steps must be at least 4"),
        ({"divergence": "hutchinson"}, "needs draws"),
        ({"divergence": "hutchinson:probes=0", "draws": Draws.first(4, 0)}, "probes must be at least 1; got 0"),
        ({"divergence": "hutch++:probes=2", "draws": Draws.first(4, 0)}, "probes must be at least 3; got 2"),
        ({"divergence": "hutchinsen"}, "did you mean 'hutchinson'"),
        ({"divergence": "exact:probes=3"}, "has no option 'probes'"),
        ({"draws": Draws.first(3, 0)}, "one id for each of 4"),
        ({"x": torch.zeros(4)}, "batch of floats"),
        ({"x": [[0.0, 1.0]]}, "x must be a tensor; got"),
        ({"x": torch.zeros(4, 2, dtype=torch.long)}, "got torch.int64 of shape"),
        ({"steps": 10.0}, "steps must be a whole number"),
        ({"steps": "10"}, "steps must be a whole number"),
        ({"denoiser": Linear()}, "needs a denoiser; got Linear"),
    ],
)
def test_bad_input(options, says):
    given = {"denoiser": mixture(Linear(), MEANS, STD), "x": noise_like(4, 2)} | options
    with pytest.raises(InputError, match=says):
        likelihood(**given)


def test_more_bad_input():
    between = Denoiser(nn.Linear(2, 2), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match="independent Gaussian noise"):
        log_density(between, noise_like(4, 2))
    with pytest.raises(InputError, match="steps must be at least 2"):
        log_density(mixture(Linear(), MEANS, STD), noise_like(4, 2), steps=1)
    with pytest.raises(InputError, match="dims"):
        bits_per_dimension(float64(0), 0)
    with pytest.raises(InputError, match="high must be above 1"):
        bits_per_dimension(float64(0), 1, low=1.0, high=0.0)
    for wrong in (torch.full((2, 3), 256), torch.full((2, 3), -1), torch.zeros(2, 3)):
        with pytest.raises(InputError, match="integers from 0 to 255"):
            dequantise(wrong, Draws.first(2, 0))


def test_every_divergence_is_tested():
    assert set(DIVERGENCES) == {"exact", "hutchinson", "hutch++"}
