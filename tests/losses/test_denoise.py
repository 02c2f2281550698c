"""The denoising loss: the target's squared error by hand, its weights, given ends, masks."""

import math

import pytest
import torch
from torch import nn

from core.test_denoiser import Fixed, paths, targets
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Bridge, Cosine, Linear
from ebbtide.errors import InputError
from ebbtide.losses.denoise import WEIGHTS, reflow
from ebbtide.specs import bind
from problems import MEAN, PATHS, STD, exact, exact_flow, float64, noise_like


@paths
@targets
def test_the_exact_network_is_the_least_loss(path, target):
    """The regression of the target on x_t: its loss is below that of the same network moved by a tenth."""
    n = 4000
    x0, noise = 0.7 + 0.5 * noise_like(n, 1, seed=1), noise_like(n, 1, seed=2)
    t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
    denoiser = exact(path, target)
    least = denoiser.loss(x0, noise, t)
    assert least.shape == (n,)
    y = denoiser.network

    class Moved(nn.Module):
        def forward(self, x, time):
            return 1.1 * y(x, time) + 0.1

    moved = Denoiser(Moved(), path, target).loss(x0, noise, t)
    assert float(moved.mean()) > float(least.mean())


@targets
def test_loss_is_the_mean_square_error_of_the_target(target):
    """Cosine s = 0 at t = ½: α = σ = 1/√2, α̇ = -σ̇ = -1.1107; x₀ = (2, 0), ε = (-1, 1), and the network says 0."""
    half = math.sqrt(0.5)
    rate = math.pi / 2 * half
    expected = {
        "noise": [-1, 1],
        "x0": [2, 0],
        "velocity": [-3 * rate, rate],
        "v": [-3 * half, half],
        "score": [1 / half, -1 / half],
        "edm": [3 * half, -half],
    }[target]
    denoiser = Denoiser(Fixed(float64(0)), Cosine(0.0), target)
    found = denoiser.loss(float64(2, 0)[None], float64(-1, 1)[None], float64(0.5))
    assert float(found) == pytest.approx((expected[0] ** 2 + expected[1] ** 2) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("spec", "weight"),
    [
        ("min_snr", lambda alpha, sigma: torch.minimum((alpha / sigma) ** 2, torch.tensor(5.0).double())),
        ("min_snr:gamma=1.0", lambda alpha, sigma: torch.minimum((alpha / sigma) ** 2, torch.tensor(1.0).double())),
        ("edm", lambda alpha, sigma: (1 + (sigma / alpha) ** 2) / (sigma / alpha) ** 2),
        ("edm:data_std=0.5", lambda alpha, sigma: (0.25 + (sigma / alpha) ** 2) / (0.5 * sigma / alpha) ** 2),
    ],
)
@paths
@targets
def test_weights_weigh_the_error_of_x0_whatever_the_target(path, target, spec, weight):
    """weight(t) |x₀ - x̂₀|² / dim, computed from the denoiser's own x̂₀."""
    x0, noise = noise_like(2, 5, 3).unbind()
    t = float64(0.05, 0.2, 0.5, 0.8, 0.97)
    denoiser = Denoiser(Fixed(float64(0.3, -0.2, 0.9)), path, target)
    c = path.scales(t)
    estimate = denoiser(path.interpolate(x0, noise, t), t)
    expected = weight(c.alpha, c.sigma) * (x0 - estimate.x0).square().mean(1)
    torch.testing.assert_close(
        denoiser.loss(x0, noise, t, weight=bind(WEIGHTS, spec, "weight")), expected, rtol=1e-8, atol=0
    )


@paths
def test_the_edm_weight_leaves_the_edm_error_as_it_is(path):
    x0, noise = noise_like(2, 5, 3).unbind()
    denoiser = Denoiser(Fixed(float64(0.3)), path, "edm:data_std=0.5")
    t = float64(0.05, 0.2, 0.5, 0.8, 0.97)
    weighed = denoiser.loss(x0, noise, t, weight=bind(WEIGHTS, "edm:data_std=0.5", "weight"))
    torch.testing.assert_close(weighed, denoiser.loss(x0, noise, t))


def test_weights_are_finite_at_all_times_that_are_drawn():
    """In single precision the last time before 1 has α = 6e-8; min-SNR times noise is 0 · ∞ if that rounds to 0."""
    x = torch.ones(4, 1)
    t = torch.tensor([2**-24, 0.5, 1 - 2**-23, 1 - 2**-24])
    for path in PATHS.values():
        for target in ("noise", "x0", "v", "edm"):
            for spec in ("min_snr", "edm"):
                loss = Denoiser(Fixed(torch.zeros(1)), path, target).loss(x, x, t, weight=bind(WEIGHTS, spec, "weight"))
                assert bool(loss.isfinite().all()), (path, target, spec)


def test_the_unit_weight_is_the_loss_without_any():
    x0, noise = noise_like(2, 5, 3).unbind()
    denoiser, t = Denoiser(Fixed(float64(0.3)), Linear()), float64(0.05, 0.2, 0.5, 0.8, 0.97)
    assert WEIGHTS["unit"](Linear().scales(t)) is None
    assert torch.equal(denoiser.loss(x0, noise, t, weight=WEIGHTS["unit"]), denoiser.loss(x0, noise, t))


@pytest.mark.parametrize("spec", ["min_snt", "min_snr:gamma=high", "edm:gamma=2"])
def test_unknown_weights_are_one_sentence(spec):
    with pytest.raises(InputError) as caught:
        bind(WEIGHTS, spec, "weight")
    assert len(str(caught.value).splitlines()) == 1
    if spec == "min_snt":
        assert str(caught.value) == "weight must be one of unit, min_snr, edm; got 'min_snt' (did you mean 'min_snr'?)."


def test_given_ends_regress_on_their_own_velocity():
    """A Bridge between coupled ends: the target is x₁ - x₀ + γ̇ z at (1 - t) x₀ + t x₁ + γ z (t = ¼, s = ½)."""
    network = Fixed(float64(0))
    denoiser = Denoiser(network, Bridge(0.5), gaussian_end=False)
    loss = denoiser.loss(*(float64(value)[None] for value in (4, 8)), float64(0.25), z=float64(1)[None])
    assert float(network.seen[0]) == pytest.approx(5.2165064, rel=1e-7)
    assert float(loss) == pytest.approx(4.2886751**2, rel=1e-6)


@pytest.mark.parametrize("target", ["noise", "x0", "v", "score", "edm"])
def test_given_ends_leave_only_the_velocity(target):
    with pytest.raises(InputError, match="only the velocity"):
        Denoiser(nn.Identity(), Linear(), target, gaussian_end=False)
    denoiser = Denoiser(Fixed(float64(0)), Linear(), target)
    x = noise_like(2, 1)
    with pytest.raises(InputError, match="only the velocity"):
        denoiser.loss(x, x, float64(0.5), z=x)


def test_masked_numbers_are_without_error_and_count_as_much_as_ever():
    denoiser = Denoiser(Fixed(torch.zeros(())), Linear(), "velocity")
    x0, noise = torch.zeros(2, 3, 2), torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, False, False]])[..., None]
    found = denoiser.loss(x0, noise, torch.full((2,), 0.5), mask=mask)
    assert found.tolist() == pytest.approx([(0 + 1 + 4 + 9) / 6, (36 + 49) / 6])
    everything = denoiser.loss(x0, noise, torch.full((2,), 0.5), mask=torch.ones(2, 3, 1, dtype=torch.bool))
    assert everything.equal(denoiser.loss(x0, noise, torch.full((2,), 0.5)))


class Straight(nn.Module):
    """The velocity of pairs x₀ = μ + s x₁, the linear map of N(μ, s²): x_t = (1 - t) x₀ + t x₁ tells x₁."""

    def forward(self, x, t):
        t = t[:, None]
        x1 = (x - (1 - t) * MEAN) / ((1 - t) * STD + t)
        return x1 - (MEAN + STD * x1)


def test_reflow_learns_the_straight_lines_of_the_teachers_pairs():
    """Of a Gaussian exactly; the flow's own velocity, the least loss of independent pairs, differs from it."""
    x1, t, z = noise_like(50, 1, seed=3), torch.linspace(0.02, 0.98, 50).double(), noise_like(50, 1, seed=4)
    x0 = torch.cat([exact_flow(Linear(), row[None], 1.0, 0.0) for row in x1])
    straight = Denoiser(Straight(), Linear(), gaussian_end=False)
    assert float(reflow(straight, x0, x1, t, z=z).max()) < 1e-25
    assert float(reflow(exact(Linear()), x0, x1, t, z=z).mean()) > 1e-2
    one_step = x1 - straight.network(x1, torch.ones(50).double())
    torch.testing.assert_close(one_step, x0)


def test_reflow_on_a_bridge_leaves_its_noise_in():
    """As of any given ends: γ z is in the points, and γ̇ z in the velocity."""
    x0, x1, z = noise_like(3, 5, 2).unbind()
    t, seen = float64(0.1, 0.3, 0.5, 0.7, 0.9), []

    class Seeing(nn.Module):
        def forward(self, x, time):
            seen.append(x)
            return 0 * x

    loss = reflow(Denoiser(Seeing(), Bridge(), gaussian_end=False), x0, x1, t, z=z)
    x_t, velocity = Bridge().between(x0, x1, t, z)
    torch.testing.assert_close(seen[0], x_t)
    torch.testing.assert_close(loss, velocity.square().mean(1))
