"""The denoiser: one network read through every target, where targets are lost, what the network sees."""

import math

import pytest
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, VE, VP, Bridge, Cosine, Linear
from ebbtide.core.targets import TARGETS, Target
from ebbtide.errors import InputError
from problems import PATHS, TABLES, GaussianNetwork, exact, float64, noise_like, oracle

paths = each("path", PATHS.values(), ids=PATHS.keys())
targets = each("target", TARGETS)


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
    for one, own in zip(denoiser(x, float64(0.4)), denoiser(x, float64(0.4).expand(4)), strict=True):
        torch.testing.assert_close(one, own)


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


@pytest.mark.parametrize("std", ["0", "-1", "nan", "inf"])
def test_edm_needs_a_data_std(std):
    with pytest.raises(InputError, match=r"data_std must be above 0 and finite; got"):
        Denoiser(nn.Identity(), VE(), f"edm:data_std={std}")


@pytest.mark.unchecked
@each(
    ("given", "says"),
    [
        ((3, Linear()), "network must be a torch module; got 3."),
        ((Fixed, Linear()), "network must be a torch module; got <class "),
        ((lambda x, t: x, Linear()), "network must be a torch module; got <function "),
        ((Fixed(torch.zeros(2)), "linear"), "path must be a Path; got 'linear'."),
        ((Fixed(torch.zeros(2)), Linear), "path must be a Path; got <class "),
        ((Fixed(torch.zeros(2)), Linear(), None), "target must be a text; got None."),
        ((Fixed(torch.zeros(2)), Linear(), TARGETS["v"]), "target must be a text; got "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_types_are_one_sentence(given, says):
    with pytest.raises(InputError) as caught:
        Denoiser(*given)
    assert str(caught.value).startswith(says)


@pytest.mark.unchecked
@each(
    ("t", "says"),
    [("0.5", "a finite number; got '0.5'"), (None, "a finite number; got None"), (math.nan, "finite; got nan")],
)
def test_a_time_that_is_no_number_is_one_sentence(t, says):
    with pytest.raises(InputError, match=rf"^a time must be {says}\.$"):
        exact(Linear())(noise_like(4, 1), t)


@pytest.mark.unchecked
def test_a_whole_number_is_a_time():
    x = noise_like(4, 1)
    assert torch.equal(exact(Linear())(x, 1).x0, exact(Linear())(x, 1.0).x0)


def halved(c, *, share: float = 0.5):
    """y = share ε - x₀."""
    return -1.0, share


def test_a_plain_function_of_the_scales_is_a_target(monkeypatch):
    """Its network sees x_t and t, whatever options the target has."""
    x0, noise = noise_like(2, 4, 2).unbind()
    for row in (halved, Target(halved)):
        monkeypatch.setitem(TARGETS, "new", row)
        network = Fixed(2 * noise - x0)
        found = Denoiser(network, VP(), "new:share=2.0")(VP().interpolate(x0, noise, float64(0.3)), 0.3)
        torch.testing.assert_close(found.x0, x0)
        torch.testing.assert_close(found.noise, noise)
        assert network.seen[1] == 0.3


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


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "velocity"])
def test_between_two_sample_sets_only_the_velocity_has_a_meaning(target):
    with pytest.raises(InputError, match=f"only the velocity has a meaning, .*; got target '{target}'"):
        Denoiser(nn.Identity(), Linear(), target, gaussian_end=False)
    assert Denoiser(nn.Identity(), Linear(), "velocity", gaussian_end=False).predicts_velocity


@paths
def test_a_network_is_told_how_far_to_lead_in_the_flow_clock(path):
    """span = τ_t - τ_s with τ = σ/(α + σ): for the batch or for each example, and nothing without `to`."""
    network = Fixed(float64(0.3))
    network.spans = True
    denoiser, x = Denoiser(network, path), noise_like(2, 1)
    now, then = path.along([0.7, 0.2])
    denoiser(x, 0.7, to=0.2)
    expected = now.sigma / (now.alpha + now.sigma) - then.sigma / (then.alpha + then.sigma)
    torch.testing.assert_close(network.seen[2]["span"], float64(expected))
    denoiser(x, float64(0.7, 0.2), to=float64(0.2, 0.2))
    torch.testing.assert_close(network.seen[2]["span"], float64(expected, 0))
    denoiser(x, 0.7)
    assert "span" not in network.seen[2]


def test_a_network_that_is_asked_earlier_leads_from_there():
    """At t = 1 a noise is asked where σ/α = 200, and never to lead back."""
    network = Fixed(float64(0.3))
    network.spans = True
    denoiser, x = Denoiser(network, Linear(), "noise"), noise_like(2, 1)
    for to, expected in ((0.5, 200 / 201 - 0.5), (0.999, 0.0)):
        denoiser(x, 1.0, to=to)
        torch.testing.assert_close(network.seen[2]["span"], float64(expected), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="spans a single time"):
        Denoiser(Fixed(float64(0.3)), Linear())(x, 0.5, to=0.2)
