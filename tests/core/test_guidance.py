"""Guidance: off at 1, the other estimate at 0, linear between and beyond; on Gaussians, the tilt p^w q^{1-w}."""

import math

import pytest
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import Autoguidance, Bounded, ClassifierFree, Known
from ebbtide.core.paths import Cosine, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import Estimate, score
from ebbtide.errors import InputError
from ebbtide.exact.oracle import gaussian
from ebbtide.samplers import sample, walk
from problems import PATHS, exact, float64, last, noise_like

NULL = 3


class Labelled(nn.Module):
    """Says label + ½ x + t: depends on everything, differently on each."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x, t, label, extra=None):
        self.batches.append(len(x))
        says = label.to(x)[:, None] + x / 2 + t[:, None]
        return says if extra is None else says + extra


def guided(weight, path=None, **options):
    network = Labelled()
    denoiser = Denoiser(network, path or Cosine())
    return ClassifierFree(denoiser, weight, NULL, **options), denoiser, network


X, T, LABEL = noise_like(4, 2), float64(0.3), torch.tensor([0, 1, 2, 1])


def by_hand(denoiser, weight, t=T):
    """x̂_∅ + w (x̂_label - x̂_∅), by two evaluations."""
    conditional, unconditional = denoiser(X, t, label=LABEL), denoiser(X, t, label=torch.full_like(LABEL, NULL))
    return [free + weight * (told - free) for told, free in zip(conditional, unconditional, strict=True)]


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_weight_one_is_the_conditional_denoiser_at_its_cost():
    wrapped, denoiser, network = guided(1.0)
    found = wrapped(X, T, label=LABEL)
    assert network.batches == [4]
    for one, other in zip(found, denoiser(X, T, label=LABEL), strict=True):
        assert torch.equal(one, other)


def test_weight_zero_is_unconditional():
    wrapped, denoiser, _ = guided(0.0)
    close(wrapped(X, T, label=LABEL), denoiser(X, T, label=torch.full_like(LABEL, NULL)))


@pytest.mark.parametrize("weight", [-1.0, 0.4, 1.5, 3.0, 7.5])
@pytest.mark.parametrize("t", [float64(0.3), float64(0.1, 0.4, 0.7, 0.9)], ids=["one time", "a time each"])
def test_both_estimates_are_one_batch_and_extrapolated(weight, t):
    wrapped, denoiser, network = guided(weight)
    found = wrapped(X, t, label=LABEL)
    assert network.batches == [8]
    close(found, by_hand(denoiser, weight, t))


def test_estimates_are_linear_in_the_weight():
    zero, one, three = (guided(weight)[0](X, T, label=LABEL) for weight in (0.0, 1.0, 3.0))
    close(three, [free + 3 * (told - free) for told, free in zip(one, zero, strict=True)])


def test_guidance_by_hand():
    """Linear, x_t = 0, t = ½, velocity = label: x̂₀ = -label/2; label 1, null 3, w = 2: -3/2 + 2 (-1/2 + 3/2) = ½."""

    class Says(nn.Module):
        def forward(self, x, t, label):
            return label.to(x)[:, None].expand_as(x)

    wrapped = ClassifierFree(Denoiser(Says(), Linear()), 2.0, NULL)
    estimate = wrapped(torch.zeros(1, 1), float64(0.5), label=torch.tensor([1]))
    assert float(estimate.x0) == pytest.approx(0.5)
    assert float(estimate.noise) == pytest.approx(-0.5)


@pytest.mark.parametrize(("t", "acts"), [(0.2, False), (0.2001, True), (0.5, True), (0.8, True), (0.8001, False)])
def test_interval_is_open_below_and_closed_above(t, acts):
    wrapped, denoiser, network = guided(3.0, interval=(0.2, 0.8))
    found = wrapped(X, float64(t), label=LABEL)
    assert network.batches == ([8] if acts else [4])
    close(found, by_hand(denoiser, 3.0 if acts else 1.0, float64(t)))


def test_interval_holds_sample_by_sample():
    wrapped, denoiser, _ = guided(3.0, interval=(0.2, 0.8))
    t = float64(0.1, 0.5, 0.8, 0.9)
    weight = float64(1, 3, 3, 1)[:, None]
    close(wrapped(X, t, label=LABEL), by_hand(denoiser, weight, t))


def test_guidance_acts_at_pure_noise():
    wrapped, denoiser, _ = guided(3.0)
    close(wrapped(X, float64(1), label=LABEL), by_hand(denoiser, 3.0, float64(1)))


def test_it_passes_for_a_denoiser():
    wrapped, denoiser, _ = guided(2.0)
    assert wrapped.path is denoiser.path
    assert wrapped.gaussian_end is True
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    assert ClassifierFree(between, 2.0, NULL).gaussian_end is False
    walked = walk("euler", wrapped, X, float64(1, 0.5, 0), cond={"label": LABEL})
    assert bool(last(walked).isfinite().all())


def test_other_conditions_are_passed_on():
    wrapped, _, _ = guided(1.0)
    plain, moved = (wrapped(X, T, label=LABEL, extra=extra) for extra in (None, 1.0))
    assert not torch.allclose(plain.x0, moved.x0)


@pytest.mark.unchecked
@each(
    ("interval", "says"),
    [
        ((0.5, 0.5), "the interval's high must be above 0.5 and at most 1; got 0.5."),
        ((0.8, 0.2), "the interval's high must be above 0.8 and at most 1; got 0.2."),
        ((-0.1, 1.0), "the interval's low must be at least 0 and finite; got -0.1."),
        ((0.0, 1.1), "the interval's high must be above 0 and at most 1; got 1.1."),
        ((math.nan, 1.0), "the interval's low must be at least 0 and finite; got nan."),
        (("a", 1.0), "the interval's low must be a number, at least 0 and finite; got 'a'."),
        (0.5, "interval must be two times (low, high); got 0.5."),
        ((0.0, 0.5, 1.0), "interval must be two times (low, high); got (0.0, 0.5, 1.0)."),
    ],
)
def test_bad_intervals_are_one_sentence(interval, says):
    with pytest.raises(InputError) as caught:
        guided(2.0, interval=interval)
    assert str(caught.value) == f"guidance: {says}"


@pytest.mark.unchecked
@each(
    ("make", "says"),
    [
        (lambda d: ClassifierFree(3, 2.0, NULL), "guidance: denoiser must be a denoiser; got 3."),
        (lambda d: ClassifierFree(d, "2", NULL), "guidance: weight must be a finite number; got '2'."),
        (lambda d: ClassifierFree(d, 2.0, 3.5), "guidance: null_label must be a whole number, at least 0; got 3.5."),
        (lambda d: Autoguidance(d, None, 2.0), "guidance: weak must be a denoiser; got None."),
        (lambda d: Bounded("d"), "Bounded: denoiser must be a denoiser; got 'd'."),
        (lambda d: Bounded(d, "1"), "Bounded: bound must be a number, above 0 and finite; got '1'."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_types_are_one_sentence(make, says):
    with pytest.raises(InputError) as caught:
        make(Denoiser(Labelled(), Cosine()))
    assert str(caught.value) == says


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_one_sentence(weight):
    with pytest.raises(InputError, match=r"^guidance: weight must be finite; got (nan|inf)\.$"):
        guided(weight)


def test_scales_with_a_time_each_do_as_the_times():
    wrapped, denoiser, _ = guided(3.0, interval=(0.2, 0.8))
    t = float64(0.1, 0.5, 0.8, 0.9)
    close(wrapped(X, denoiser.path.at(t, X), label=LABEL), wrapped(X, t, label=LABEL))


def test_float32_stays():
    wrapped, _, _ = guided(3.0, interval=(0.2, 0.8))
    for t in (0.3, torch.tensor([0.1, 0.5, 0.8, 0.9])):
        assert all(part.dtype == torch.float32 for part in wrapped(X.float(), t, label=LABEL))


def test_a_missing_label_is_one_sentence():
    with pytest.raises(InputError, match=r"^Classifier-free guidance needs a label for each sample\.$"):
        ClassifierFree(exact(Linear()), 2.0, NULL)(X, T)


# Autoguidance

STRONG, WEAK = (float64(1.0, -0.5), 0.6), (float64(0.4, 0.3), 1.1)
TIMES = [0.02, 0.3, 0.7, 1.0, float64(0.4), float64(0.1, 0.4, 0.7, 1.0)]


def pair(path):
    return gaussian(path, *STRONG), gaussian(path, *WEAK)


def sharper(weight, path=None, **options):
    strong, weak = pair(path or Linear())
    return Autoguidance(strong, weak, weight, **options), strong, weak


@each("t", TIMES)
@each("weight", [-1.0, 0.0, 0.4, 1.0, 2.5])
@each("path", PATHS)
def test_autoguidance_is_w_strong_plus_the_rest_weak(path, weight, t):
    wrapped, strong, weak = sharper(weight, PATHS[path])
    parts = zip(strong(X, t), weak(X, t), strict=True)
    close(wrapped(X, t), [weight * one + (1 - weight) * other for one, other in parts])


@each("t", [0.1, 0.5, 0.9])
@each("weight", [0.5, 1.5, 2.0])
@each("path", PATHS)
def test_the_guided_score_is_that_of_the_tilted_density(path, weight, t):
    """p^w q^{1-w} of N(a, A) and N(b, B) is N(μ, 1/Λ), Λ = w/A + (1-w)/B, Λ μ = w a/A + (1-w) b/B."""
    path = PATHS[path]
    c = path.along([t])[0]
    (a, one), (b, other) = ((c.alpha * m, (c.alpha * s) ** 2 + c.sigma**2) for m, s in (STRONG, WEAK))
    precision = weight / one + (1 - weight) / other
    mean = (weight * a / one + (1 - weight) * b / other) / precision
    wrapped = Autoguidance(*pair(path), weight)
    torch.testing.assert_close(score(c, wrapped(X, t)), -precision * (X - mean), rtol=1e-10, atol=1e-10)


def test_autoguidance_by_hand():
    """Linear, t = ½, x = 1: N(0, 1) says x̂₀ = ½ / ½ = 1, N(0, 3) says 3/2 / 1 = 3/2; w = 3: 3 - 3 = 0, ε̂ = 2."""
    path = Linear()
    strong, weak = gaussian(path, float64(0), 1.0), gaussian(path, float64(0), math.sqrt(3))
    estimate = Autoguidance(strong, weak, 3.0)(torch.ones(1, 1, dtype=torch.float64), 0.5)
    assert float(estimate.x0) == pytest.approx(0, abs=1e-12)
    assert float(estimate.noise) == pytest.approx(2)


def ends(weight, strong, weak):
    """Mean and standard deviation of the samples in one dimension: ddim of linear estimates is an affine map."""
    path = Cosine()
    wrapped = Autoguidance(
        gaussian(path, float64(strong[0]), strong[1]), gaussian(path, float64(weak[0]), weak[1]), weight
    )
    x = last(walk("ddim", wrapped, float64(0, 1)[:, None], torch.linspace(1, 0, 2001, dtype=torch.float64)))
    return float(x[0]), float(x[1] - x[0])


def test_samples_follow_the_tilt_where_covariances_are_equal():
    """N(1, ½²) against N(0, ½²) with w = 2: the tilt is N(2, ½²)."""
    mean, std = ends(2.0, (1.0, 0.5), (0.0, 0.5))
    assert mean == pytest.approx(2, abs=2e-3)
    assert std == pytest.approx(0.5, abs=2e-3)


def test_samples_are_not_the_tilt_elsewhere():
    """N(0, ½²) against N(0, 1), w = 2: the tilt's variance is 1/(2/¼ - 1) = 1/7.

    On Cosine (φ the angle: α = cos φ, σ = sin φ), d log x/dφ = w (s² - 1) sin φ cos φ / V for each part, so
    x₀/x₁ = Π (s_i)^{w_i} = (½)² · 1: the samples' standard deviation is ¼, not √(1/7) = 0.378.
    """
    _, std = ends(2.0, (0.0, 0.5), (0.0, 1.0))
    assert std == pytest.approx(0.25, abs=2e-3)
    assert abs(std - math.sqrt(1 / 7)) > 0.1


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, t, label=None):
        self.calls += 1
        return x / 2 if label is None else x / 2 + label.to(x)[:, None]


@pytest.mark.parametrize(("t", "acts"), [(0.2, False), (0.2001, True), (0.8, True), (0.8001, False)])
def test_autoguidance_has_an_interval_and_asks_the_weak_one_only_there(t, acts):
    strong, weak = Denoiser(Labelled(), Linear()), Denoiser(Counting(), Linear())
    wrapped = Autoguidance(strong, weak, 2.0, interval=(0.2, 0.8))
    found, expected = wrapped(X, t, label=LABEL), strong(X, t, label=LABEL)
    assert weak.network.calls == int(acts)
    assert torch.equal(found.x0, expected.x0) is not acts


def test_autoguidance_holds_sample_by_sample():
    wrapped, strong, weak = sharper(3.0, interval=(0.2, 0.8))
    t, w = float64(0.1, 0.5, 0.8, 0.9), float64(1, 3, 3, 1)[:, None]
    parts = zip(strong(X, t), weak(X, t), strict=True)
    close(wrapped(X, t), [w * one + (1 - w) * other for one, other in parts])
    assert torch.equal(wrapped(X, t).x0[0], strong(X, t).x0[0])


def test_labels_reach_both_and_guidances_nest():
    """Guided twice: w (strong label free) - (w - 1) (weak label free), by four evaluations."""
    strong, weak = Denoiser(Labelled(), Cosine()), Denoiser(Counting(), Cosine())
    nested = Autoguidance(ClassifierFree(strong, 2.0, NULL), ClassifierFree(weak, 2.0, NULL), 3.0)
    parts = zip(by_hand(strong, 2.0), by_hand(weak, 2.0), strict=True)
    close(nested(X, T, label=LABEL), [3 * one - 2 * other for one, other in parts])


def test_autoguidance_samples_in_float32():
    wrapped, _, _ = sharper(1.5)
    x = sample(wrapped, (2,), draws=Draws.first(3, 0), steps=4, sampler="dpmpp_2m")
    assert x.dtype == torch.float32
    assert bool(x.isfinite().all())


def test_different_paths_are_one_sentence():
    strong, weak = gaussian(Linear(), *STRONG), gaussian(Cosine(), *WEAK)
    with pytest.raises(
        InputError, match=r"^Autoguidance needs two denoisers on the same path; got Linear\(\) and Cosine"
    ):
        Autoguidance(strong, weak, 2.0)


def test_autoguidance_checks_its_interval():
    with pytest.raises(
        InputError, match=r"^guidance: the interval's high must be above 0\.5 and at most 1; got 0\.5\.$"
    ):
        sharper(2.0, interval=(0.5, 0.5))


# --- bounded estimates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("t", [0.3, torch.tensor([0.5]), torch.tensor([0.1, 0.4, 0.9])])
def test_a_bound_keeps_x0_in_range_and_the_noise_with_it(path, t):
    """x_t is still α x̂₀ + σ ε̂, and what lay within the bound is as it was."""
    t = t if isinstance(t, float) else t.double()
    x = torch.tensor([[3.0, -4.0], [0.1, 0.2], [-9.0, 0.0]], dtype=torch.float64)
    free = gaussian(PATHS[path], torch.zeros(2, dtype=torch.float64), 2.0 * torch.eye(2, dtype=torch.float64))
    found, plain = Bounded(free, 0.5)(x, t), free(x, t)
    c = PATHS[path].at(t, x)
    assert found.x0.abs().max() <= 0.5
    assert torch.allclose(c.alpha * found.x0 + c.sigma * found.noise, x, atol=1e-12)
    inside = plain.x0.abs() < 0.5
    assert inside.any()
    assert torch.allclose(found.x0[inside], plain.x0[inside])
    assert torch.allclose(found.noise[inside], plain.noise[inside])


def test_a_bound_by_hand():
    """Linear path at t = ½: x_t = 1.5, x̂₀ = 2 and ε̂ = 1 become x̂₀ = 1 and ε̂ = 2."""

    class Two(nn.Module):
        def forward(self, x, t):
            return torch.full_like(x, 2.0)

    estimate = Bounded(Denoiser(Two(), Linear(), "x0"))(torch.tensor([[1.5]]), 0.5)
    assert estimate.x0.item() == 1
    assert estimate.noise.item() == pytest.approx(2)
    kept = Bounded(Denoiser(Two(), Linear(), "x0"), keep_noise=True)(torch.tensor([[1.5]]), 0.5)
    assert kept.x0.item() == 1
    assert kept.noise.item() == pytest.approx(1)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_has_to_be_one(bound):
    with pytest.raises(InputError, match="Bounded: bound must be above 0 and finite"):
        Bounded(Denoiser(nn.Identity(), Linear()), bound)


# --- what is known --------------------------------------------------------------------------------------------


class Echo:
    """x̂₀ is what it is given, 9 where that is nothing."""

    gaussian_end, path, needs_label = True, Linear(), False

    def __init__(self):
        self.given = []

    def __call__(self, x_t, t, /, *, given=None, label=None):
        self.given.append(given)
        x0 = torch.full_like(x_t, 9.0) if given is None else given.nan_to_num(9.0)
        c = self.path.at(t, x_t)
        return Estimate(x0, (x_t - c.alpha * x0) / c.sigma)


GIVEN = torch.tensor([[0.5, math.nan], [math.nan, -2.0]], dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_what_is_known_leads_to_itself_and_the_rest_is_the_denoisers_own(path):
    x_t, t = noise_like(2, 2), float64(0.3, 0.8)
    plain, known = exact(path)(x_t, t), Known(exact(path))
    estimate, c, own = known(x_t, t, given=GIVEN), path.at(t, x_t), ~GIVEN.isnan()
    assert torch.equal(estimate.x0[own], GIVEN[own])
    assert torch.allclose(c.alpha * estimate.x0 + c.sigma * estimate.noise, x_t)
    assert torch.equal(estimate.x0[~own], plain.x0[~own])
    assert torch.equal(estimate.noise[~own], plain.noise[~own])
    assert torch.equal(known(x_t, t).x0, plain.x0)
    (still,) = path.along([0.0])
    assert bool(known(x_t, still, given=GIVEN).noise.isfinite().all())


def test_both_halves_of_a_guided_batch_are_given_the_same():
    echo = Echo()
    guided = Known(ClassifierFree(echo, 3.0, 2))
    estimate = guided(noise_like(2, 2), 0.5, given=GIVEN, label=torch.tensor([0, 1]))
    (told,) = echo.given
    assert torch.allclose(told, GIVEN.repeat(2, 1), equal_nan=True)
    assert torch.equal(estimate.x0, GIVEN.nan_to_num(9.0))
    guided(noise_like(2, 2), 0.5, given=GIVEN[:1], label=torch.tensor([0, 1]))  # one row for all
    assert len(echo.given[-1]) == 1


def test_each_number_may_have_ends_of_its_own():
    exact_one = gaussian(Linear(), torch.zeros(2), 1.0)
    estimate = Bounded(exact_one, (torch.tensor([-0.1, 0.2]), torch.tensor([0.1, 9.0])))
    x, t = torch.tensor([[4.0, -3.0], [-4.0, 3.0]]), 0.5
    found, free = estimate(x, t), exact_one(x, t)
    assert found.x0[:, 0].tolist() == pytest.approx([0.1, -0.1])
    assert float(found.x0[0, 1]) == pytest.approx(0.2)
    assert found.x0[1, 1] == free.x0[1, 1]
    torch.testing.assert_close(0.5 * found.x0 + 0.5 * found.noise, x)
