"""The denoiser: one network read through every target, the loss and its weights, where targets are lost."""

import math

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser, loss_weight
from ebbtide.core.paths import DDPM, VE, VP, Bridge, Cosine, Linear
from ebbtide.core.targets import TARGETS
from ebbtide.errors import InputError
from problems import PATHS, TABLES, GaussianNetwork, exact, float64, noise_like, oracle

paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
targets = pytest.mark.parametrize("target", TARGETS)


class Fixed(nn.Module):
    """Says the same whatever it sees, and remembers what it saw."""

    def __init__(self, says):
        super().__init__()
        self.says, self.seen = says, None

    def forward(self, x, t, **cond):
        self.seen = (x, t, cond)
        return self.says.expand_as(x)


@paths
@targets
@pytest.mark.parametrize("t", [0.01, 0.3, 0.99])
def test_the_exact_network_gives_the_exact_estimate(path, target, t):
    x = 3 * noise_like(6, 1)
    found, truth = exact(path, target)(x, float64(t)), oracle(path)(x, float64(t))
    torch.testing.assert_close(found.x0, truth.x0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.noise, truth.noise, rtol=1e-7, atol=1e-7)


@paths
@targets
def test_one_time_for_all_is_that_time_for_each(path, target):
    denoiser, x = exact(path, target), noise_like(4, 2)
    for one, each in zip(denoiser(x, float64(0.4)), denoiser(x, float64(0.4).expand(4)), strict=True):
        torch.testing.assert_close(one, each)


@pytest.mark.parametrize("target", ["noise", "score"])
@pytest.mark.parametrize("path", [Linear(), Cosine(), Bridge()], ids=["linear", "cosine", "bridge"])
def test_a_noise_says_nothing_of_x0_where_alpha_is_zero(path, target):
    """At t = 1 the network is asked at σ/α = 200; the estimate is within a few 1/200 of the truth, and finite."""
    x = float64(-2, 0, 1.5)[:, None]
    denoiser = exact(path, target)
    c = path.scales(float64(denoiser.t_max))
    assert float(c.sigma / c.alpha) == pytest.approx(200, rel=1e-9)
    found, truth = denoiser(x, float64(1)), oracle(path)(x, float64(1))
    torch.testing.assert_close(found.x0, truth.x0, rtol=0, atol=0.02)
    torch.testing.assert_close(found.noise, truth.noise, rtol=0, atol=0.02)


@pytest.mark.parametrize("target", ["noise", "score"])
@pytest.mark.parametrize("path", [DDPM(), VP(), VE(80.0), VE(1000.0)], ids=str)
def test_the_time_is_left_alone_where_alpha_is_not_zero(path, target):
    """VE keeps all of x₀ however large its σ: at σ = 1000 the network must not be asked at σ = 200."""
    assert Denoiser(nn.Identity(), path, target).t_max == 1
    x = float(path.prior(float64(1))) * float64(-1, 0.3, 2)[:, None]
    torch.testing.assert_close(
        exact(path, target)(x, float64(1)).x0, oracle(path)(x, float64(1)).x0, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("target", ["noise", "score"])
@pytest.mark.parametrize("path", TABLES.values(), ids=TABLES.keys())
def test_a_noise_is_taken_at_its_word_unless_told_otherwise(path, target):
    """From an alpha_min on, x̂₀ is what the network makes of x_t where α is that, and α x̂₀ + σ ε̂ is still x_t."""
    x, c = float64(-2, 0.3, 1.5)[:, None], path.along([1.0])[0]
    network, truth = GaussianNetwork(path, target), oracle(path)(x, 1.0)
    for found in (Denoiser(network, path, target)(x, t) for t in (1.0, float64(1, 1, 1))):
        torch.testing.assert_close(found.x0, truth.x0, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.noise, truth.noise, rtol=0, atol=1e-6)
    held = Denoiser(network, path, target, alpha_min=1 / 20)
    assert path.along([held.t_max])[0].ratio == pytest.approx(20)
    x0 = oracle(path)(x, held.t_max).x0
    for found in (held(x, 1.0), held(x, float64(1, 1, 1)), held(x, path.along([1.0])[0])):
        torch.testing.assert_close(found.x0, x0, rtol=0, atol=1e-9)
        torch.testing.assert_close(c.alpha * found.x0 + c.sigma * found.noise, x, rtol=0, atol=1e-12)
    mixed = held(x, float64(1, 0.5, held.t_max / 2))
    torch.testing.assert_close(mixed.x0[1:], oracle(path)(x, float64(1, 0.5, held.t_max / 2)).x0[1:])
    torch.testing.assert_close(mixed.x0[:1], x0[:1])


@pytest.mark.parametrize("alpha_min", [-0.1, 1.0, math.nan, math.inf])
def test_an_alpha_min_that_is_no_alpha_is_refused(alpha_min):
    with pytest.raises(InputError, match="alpha_min"):
        Denoiser(nn.Identity(), Linear(), "noise", alpha_min=alpha_min)


@pytest.mark.parametrize("target", ["x0", "velocity", "v", "edm"])
def test_other_targets_are_asked_at_t_itself(target):
    assert all(Denoiser(nn.Identity(), path, target).t_max == 1 for path in PATHS.values())


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
    torch.testing.assert_close(denoiser.loss(x0, noise, t, weight=loss_weight(spec)), expected, rtol=1e-8, atol=0)


@paths
def test_the_edm_weight_leaves_the_edm_error_as_it_is(path):
    x0, noise = noise_like(2, 5, 3).unbind()
    denoiser = Denoiser(Fixed(float64(0.3)), path, "edm:data_std=0.5")
    t = float64(0.05, 0.2, 0.5, 0.8, 0.97)
    weighed = denoiser.loss(x0, noise, t, weight=loss_weight("edm:data_std=0.5"))
    torch.testing.assert_close(weighed, denoiser.loss(x0, noise, t))


def test_weights_are_finite_at_all_times_that_are_drawn():
    """In single precision the last time before 1 has α = 6e-8; min-SNR times noise is 0 · ∞ if that rounds to 0."""
    x = torch.ones(4, 1)
    t = torch.tensor([2**-24, 0.5, 1 - 2**-23, 1 - 2**-24])
    for path in PATHS.values():
        for target in ("noise", "x0", "v", "edm"):
            for spec in ("min_snr", "edm"):
                loss = Denoiser(Fixed(torch.zeros(1)), path, target).loss(x, x, t, weight=loss_weight(spec))
                assert bool(loss.isfinite().all()), (path, target, spec)


def test_unit_weight_is_none():
    assert loss_weight("unit") is None


@pytest.mark.parametrize("spec", ["min_snt", "min_snr:gamma=high", "edm:gamma=2"])
def test_unknown_weights_are_one_sentence(spec):
    with pytest.raises(InputError) as caught:
        loss_weight(spec)
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


@pytest.mark.parametrize("std", ["0", "-1", "nan", "inf"])
def test_edm_needs_a_data_std(std):
    with pytest.raises(InputError, match=r"data_std must be above 0 and finite; got"):
        Denoiser(nn.Identity(), VE(), f"edm:data_std={std}")


def test_unknown_targets_are_one_sentence():
    with pytest.raises(InputError, match=r"^target must be one of noise, x0, .* \(did you mean 'noise'\?\)\.$"):
        Denoiser(nn.Identity(), Linear(), "noize")


def test_the_network_sees_x_t_the_time_and_the_conditions():
    network = Fixed(torch.zeros(1))
    x, label = torch.ones(2, 3), torch.tensor([0, 1])
    Denoiser(network, Linear())(x, float64(0.25), label=label)
    seen, t, cond = network.seen
    assert seen is x
    assert t.dtype == torch.float32
    assert t.tolist() == [0.25]
    assert cond == {"label": label}


def test_edm_shows_its_network_scaled_inputs_and_a_log_clock():
    """σ = 80 · 0.025 = 2, σ_d = 0.5: c_in = 1/√4.25, c_noise = ¼ ln 2."""
    network = Fixed(float64(0))
    Denoiser(network, VE(), "edm:data_std=0.5")(float64(3)[None], float64(0.025))
    assert float(network.seen[0]) == pytest.approx(3 / math.sqrt(4.25), rel=1e-12)
    assert float(network.seen[1]) == pytest.approx(math.log(2) / 4, rel=1e-12)


@targets
def test_precision_follows_the_data(target):
    denoiser = Denoiser(Fixed(torch.zeros(1)), Cosine(), target)
    estimate = denoiser(torch.ones(2, 1), float64(0.5))
    assert estimate.x0.dtype == estimate.noise.dtype == torch.float32


@targets
def test_one_time_may_be_given_in_any_form(target):
    """As a float, a tensor with or without an axis, one per example, or as its Scales."""
    path = Cosine()
    denoiser, x = Denoiser(GaussianNetwork(path, target), path, target), float64([0.3], [-1.2])
    expected = denoiser(x, 0.25)
    for t in (torch.tensor(0.25).double(), float64(0.25), float64(0.25, 0.25), path.along([0.25])[0]):
        for found, value in zip(denoiser(x, t), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12)


def test_a_time_of_the_wrong_shape_is_caught():
    denoiser = Denoiser(GaussianNetwork(Linear(), "velocity"), Linear())
    for t in (torch.rand(3), torch.rand(4, 1)):
        with pytest.raises(Exception, match=r"(?i)type-check"):
            denoiser(torch.zeros(4, 4), t)


def test_masked_numbers_are_without_error_and_count_as_much_as_ever():
    denoiser = Denoiser(Fixed(torch.zeros(())), Linear(), "velocity")
    x0, noise = torch.zeros(2, 3, 2), torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, False, False]])[..., None]
    found = denoiser.loss(x0, noise, torch.full((2,), 0.5), mask=mask)
    assert found.tolist() == pytest.approx([(0 + 1 + 4 + 9) / 6, (36 + 49) / 6])
    everything = denoiser.loss(x0, noise, torch.full((2,), 0.5), mask=torch.ones(2, 3, 1, dtype=torch.bool))
    assert everything.equal(denoiser.loss(x0, noise, torch.full((2,), 0.5)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_no_time_is_rounded_to_bfloat16(dtype):
    """Of the network or of x_t: what it is told is the time, and what it sees is of its weights' type."""
    asked = []

    class Told(torch.nn.Linear):
        def forward(self, x, t):
            assert t.dtype == torch.promote_types(dtype, torch.float32)
            asked.append((x.dtype, float(t[0])))
            return super().forward(x)

    denoiser = Denoiser(Told(2, 2).to(dtype), Linear())
    for x in (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bfloat16)):
        for t in (0.999, torch.tensor([0.999])):
            assert denoiser(x, t).x0.dtype == x.dtype
    assert [x for x, _ in asked] == [dtype] * 4
    assert [t for _, t in asked] == pytest.approx([0.999] * 4, abs=1e-7)
