"""Paths: derivatives against autograd, ends, inverses, the papers' numbers, and the bridge's velocity."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.core.paths import DDPM, PATHS, VE, VP, Bridge, Cosine, Linear
from ebbtide.errors import InputError
from problems import SIGMAS, float64, noise_like

TABLE = (0.3, 0.1, 0.5, 0.9, 0.7)
MANY = {
    "linear": Linear(),
    "cosine": Cosine(),
    "cosine s=0": Cosine(0.0),
    "cosine s=0.2": Cosine(0.2),
    "ddpm": DDPM(),
    "ddpm scaled": DDPM("scaled_linear", beta_min=0.00085, beta_max=0.012),
    "ddpm cosine": DDPM("squared_cosine"),
    "ddpm N=40": DDPM(steps=40, beta_min=0.01, beta_max=0.4),
    "ddpm table": DDPM(table=TABLE),
    "vp": VP(),
    "vp short": VP(beta_min=0.5, beta_max=12.0),
    "ve": VE(),
    "ve small": VE(3.0),
    "bridge": Bridge(),
    "bridge s=0": Bridge(0.0),
    "bridge s=2": Bridge(2.0),
}
many = pytest.mark.parametrize("path", MANY.values(), ids=MANY.keys())


def values(path, t):
    return [float(value) for value in path.scales(float64(t))[1:]]


@many
def test_written_derivatives_match_autograd(path):
    t = torch.linspace(0.013, 0.993, 41, dtype=torch.float64)  # at no i/N of a table, where β jumps
    c = path.scales(t)
    for name, dot in (("alpha", c.alpha_dot), ("sigma", c.sigma_dot)):
        _, expected = torch.func.jvp(lambda u, name=name: getattr(path.scales(u), name), (t,), (torch.ones_like(t),))
        torch.testing.assert_close(dot, expected, rtol=1e-9, atol=1e-11)


@many
def test_ends_are_data_and_noise(path):
    x0, noise = noise_like(2, 4, 3).unbind()
    torch.testing.assert_close(path.interpolate(x0, noise, float64(0)), x0, rtol=0, atol=1e-12)
    end = path.interpolate(x0, noise, float64(1))
    leftover = float(path.scales(float64(1)).alpha) if not isinstance(path, VE) else 1.0
    torch.testing.assert_close(end, path.prior(noise) + leftover * x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("path", "sigma", "alpha"),
    [
        (Linear(), 1, 0),
        (Cosine(), 1, 0),
        (Cosine(0.0), 1, 0),
        (Bridge(), 1, 0),
        (VP(), math.sqrt(1 - math.exp(-10.05)), math.exp(-5.025)),
        (VE(), 80, 1),
        (DDPM(table=TABLE), math.sqrt(1 - 0.7 * 0.9 * 0.5 * 0.1 * 0.3), math.sqrt(0.7 * 0.9 * 0.5 * 0.1 * 0.3)),
    ],
)
def test_the_noise_end_by_hand(path, sigma, alpha):
    found = values(path, 1.0)
    assert found[0] == pytest.approx(alpha, abs=1e-12)
    assert found[1] == pytest.approx(sigma, rel=1e-12)
    assert float(path.prior(float64(1))) == pytest.approx(sigma, rel=1e-12)


@pytest.mark.parametrize(
    ("path", "t", "alpha", "sigma", "alpha_dot", "sigma_dot"),
    [
        (Linear(), 0.25, 0.75, 0.25, -1, 1),
        # φ = π/2 · 0.508/1.008: cos φ / cos(π/2 · 0.008/1.008) = 0.7026857 / 0.9999223, so ᾱ = 0.4938436.
        (Cosine(), 0.5, 0.70274006, 0.71144670, -1.10883873, 1.09526883),
        # φ = π/4: α = σ = 1/√2, rates ∓ π/2 · 1/√2.
        (Cosine(0.0), 0.5, 0.70710678, 0.70710678, -1.11072073, 1.11072073),
        # log α = -0.25 · 0.25 · 19.9 - 0.5 · 0.5 · 0.1 = -1.26875; β(0.5) = 10.05, α̇ = -α β/2.
        (VP(), 0.5, 0.28118288, 0.95965420, -1.41294398, 0.41399877),
        (VE(), 0.025, 1, 2, 0, 80),
        # σ² = 1/16 + 1/4 · 3/16 = 7/64; σ σ̇ = 1/4 + 1/4 · 1/2 / 2 = 5/16.
        (Bridge(0.5), 0.25, 0.75, 0.33071891, -1, 0.94491118),
    ],
)
def test_values_worked_by_hand(path, t, alpha, sigma, alpha_dot, sigma_dot):
    assert values(path, t) == pytest.approx([alpha, sigma, alpha_dot, sigma_dot], rel=2e-7)


@pytest.mark.parametrize("name", [name for name in MANY if name.split()[0] in ("cosine", "ddpm", "vp")])
def test_variance_preserving_paths_preserve_variance(name):
    c = MANY[name].scales(torch.linspace(0, 1, 301, dtype=torch.float64))
    torch.testing.assert_close(c.alpha**2 + c.sigma**2, torch.ones_like(c.alpha), rtol=1e-13, atol=0)


@many
def test_noise_to_signal_rises(path):
    t = torch.linspace(0, 1, 2003, dtype=torch.float64)
    c = path.scales(t)
    ratio = (c.sigma / c.alpha)[:-1]
    assert bool((ratio.diff() > 0).all())
    assert ratio[0] == 0


@many
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_time_of_inverts_the_ratio(path, dtype):
    t = torch.cat([torch.logspace(-4, -1, 20, dtype=dtype), torch.linspace(0.1, 0.999, 30, dtype=dtype)])
    c = path.scales(t)
    torch.testing.assert_close(
        path.time_of(c.sigma / c.alpha), t, rtol=1e-9 if dtype == torch.float64 else 2e-3, atol=0
    )


@many
def test_time_of_stays_within_the_path(path):
    found = path.time_of(float64(0, 1e-300, 1e12, math.inf))
    assert float(found[0]) == pytest.approx(0, abs=1e-15)
    assert bool((found[:2] < 1e-6).all())
    torch.testing.assert_close(found[2:], torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-9)


def ho_product(beta):
    """ᾱ_i = Π (1 - β_j), one factor after another in long double."""
    bar = [np.longdouble(1)]
    for value in beta:
        bar.append(bar[-1] * (1 - np.longdouble(value)))
    return np.array(bar)


def squared_cosine(n):
    f = lambda i: math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2
    return [min(1 - f(i + 1) / f(i), 0.999) for i in range(n)]


@pytest.mark.parametrize(
    ("path", "beta"),
    [
        (DDPM(), np.linspace(1e-4, 0.02, 1000)),
        (DDPM(steps=40, beta_min=0.01, beta_max=0.4), np.linspace(0.01, 0.4, 40)),
        (MANY["ddpm scaled"], np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        (DDPM("squared_cosine"), squared_cosine(1000)),
        (DDPM("squared_cosine", steps=50), squared_cosine(50)),
        (DDPM(table=TABLE), TABLE),
        (DDPM(table=TABLE, steps=17), TABLE),
        (DDPM(steps=1, beta_min=0.98, beta_max=0.99), [0.98]),
    ],
)
def test_ddpm_is_its_table_at_every_step(path, beta):
    n = len(beta)
    bar = torch.from_numpy(ho_product(beta).astype(np.float64))
    c = path.scales(torch.arange(n + 1, dtype=torch.float64) / n)
    torch.testing.assert_close(c.alpha**2, bar, rtol=1e-11, atol=0)
    rest = torch.from_numpy((1 - ho_product(beta)).astype(np.float64))
    torch.testing.assert_close(c.sigma**2, rest, rtol=1e-11, atol=0)


def test_ddpm_defaults_by_hand():
    """Ho et al.: ᾱ_1 = 0.9999, ᾱ_2 = 0.9999 (1 - 1e-4 - 0.0199/999), and ᾱ_1000 = 4.0358e-5."""
    c = DDPM().scales(float64(0.001, 0.002, 1.0))
    expected = float64(0.9999, 0.9999 * (1 - 1e-4 - 0.0199 / 999), 4.0358e-5)
    torch.testing.assert_close(c.alpha**2, expected, rtol=1e-5, atol=0)
    assert float(c.alpha[0] ** 2) == pytest.approx(0.9999, rel=1e-14)


def test_ddpm_is_continuous_and_geometric_between_steps():
    path, n = DDPM(table=TABLE), 5
    for i in range(1, n):
        before, after = path.scales(float64(i / n - 1e-12, i / n + 1e-12)).alpha
        assert float(before - after) == pytest.approx(0, abs=1e-10)
    middle = path.scales(float64(*[(i + 0.5) / n for i in range(n)])).alpha ** 2
    bar = torch.from_numpy(ho_product(TABLE).astype(np.float64))
    torch.testing.assert_close(middle, (bar[1:] * bar[:-1]).sqrt(), rtol=1e-12, atol=0)


def test_ddpm_tends_to_the_continuous_path():
    """β_i = β(t)/N: Ho's table is Song's VP with β from 0.1 to 20, up to log(1 - β) + β."""
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    table = DDPM(steps=100_000, beta_min=0.1e-5, beta_max=20e-5)
    torch.testing.assert_close(table.scales(t).alpha, VP().scales(t).alpha, rtol=1e-3, atol=0)


@many
def test_single_precision_is_precise_near_both_ends(path):
    """Without cancellation, float32 has 7 digits of σ near t = 0 and of α near t = 1."""
    near = torch.logspace(-6, -2.1, 40)  # not at an i/N of a table, where β jumps
    t = torch.cat([near, 1 - near])
    single, double = path.scales(t), path.scales(t.double())
    rounding = 2e-6 if not isinstance(path, DDPM) else 2e-4  # DDPM interpolates its table, where t - i/N cancels
    for name in ("alpha", "sigma", "alpha_dot"):
        torch.testing.assert_close(getattr(single, name).double(), getattr(double, name), rtol=rounding, atol=0)
        assert getattr(single, name).dtype == torch.float32


def test_a_bridge_too_wide_is_refused():
    with pytest.raises(InputError, match=r"spread must be at least 0 and at most 1e\+18; got 1e\+308"):
        Bridge(1e308)


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.5, 2.0])
def test_bridge_velocity_is_the_derivative_of_one_sampled_path(spread):
    path, h = Bridge(spread), 1e-6
    x0, x1, z = noise_like(3, 7, 2).unbind()
    for t in (0.03, 0.25, 0.5, 0.9):
        (ahead, _), (behind, _) = (path.between(x0, x1, float64(s), z) for s in (t + h, t - h))
        _, velocity = path.between(x0, x1, float64(t), z)
        torch.testing.assert_close(velocity, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7)


def test_bridge_between_by_hand():
    """t = ¼, s = ½, x₀ = 4, x₁ = 8, z = 1: γ = ½ √(3/16), γ̇ = ½ · ½ / (2 √(3/16))."""
    x, velocity = Bridge(0.5).between(float64(4), float64(8), float64(0.25), float64(1))
    assert float(x) == pytest.approx(5.2165064, rel=1e-7)
    assert float(velocity) == pytest.approx(4.2886751, rel=1e-7)


@pytest.mark.parametrize("spread", [0.5, 1.5])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_bridge_is_one_gaussian_path_when_its_end_is_gaussian(spread, t):
    """From N(0, I) the three terms have the scales' marginal, and E[ẋ_t | x_t] is its marginal velocity.

    False-positive rate 2e-9 a comparison (6 standard errors of 400 000 pairs). Without γ̇ z the slope is off by
    more than 100 standard errors.
    """
    path, n = Bridge(spread), 400_000
    x0, x1, z = noise_like(3, n, 1, seed=5).unbind()
    x0 = 0.7 + 0.5 * x0
    x, velocity = (part[:, 0] for part in path.between(x0, x1, float64(t), z))
    c = path.scales(float64(t))
    mean, variance = float(c.alpha * 0.7), float((0.5 * c.alpha) ** 2 + c.sigma**2)
    assert abs(float(x.mean()) - mean) < SIGMAS * math.sqrt(variance / n)
    assert abs(float(x.var()) - variance) < SIGMAS * variance * math.sqrt(2 / n)
    slope = float(c.alpha * c.alpha_dot * 0.25 + c.sigma * c.sigma_dot) / variance
    centred = x - x.mean()
    fitted = float((centred * velocity).sum() / centred.square().sum())
    residual = float((velocity - velocity.mean() - fitted * centred).std())
    assert abs(fitted - slope) < SIGMAS * residual / math.sqrt(n * variance)
    assert abs(float(velocity.mean()) - float(c.alpha_dot * 0.7)) < SIGMAS * float(velocity.std()) / math.sqrt(n)


@pytest.mark.parametrize("name", ["linear", "cosine", "ddpm", "vp", "ve"])
def test_between_given_ends_other_paths_interpolate(name):
    path, t, h = PATHS[name](), 0.31415, 1e-6
    x0, x1, z = noise_like(3, 5, 2).unbind()
    x, velocity = path.between(x0, x1, float64(t), z)
    torch.testing.assert_close(x, path.interpolate(x0, x1, float64(t)))
    torch.testing.assert_close(x, path.between(x0, x1, float64(t), 2 * z)[0])
    ahead, behind = (path.interpolate(x0, x1, float64(s)) for s in (t + h, t - h))
    torch.testing.assert_close(velocity, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7)


@many
@given(b=st.integers(1, 4), shape=st.lists(st.integers(1, 3), max_size=3), one=st.booleans())
@settings(max_examples=10, deadline=None)
def test_times_meet_data_of_any_shape(path, b, shape, one):
    """One time for all, or one each: always example by example, also when b equals a data dimension."""
    x0, noise = noise_like(2, b, *shape).unbind()
    t = torch.linspace(0.2, 0.9, b, dtype=torch.float64)[: 1 if one else b]
    x = path.interpolate(x0, noise, t)
    assert x.shape == x0.shape
    for i in range(b):
        c = path.scales(t[0 if one else i])
        torch.testing.assert_close(x[i], c.alpha * x0[i] + c.sigma * noise[i])


@many
def test_scales_along_a_grid_are_floats_of_double_precision(path):
    """From a list, a tuple, a generator or a tensor of any precision; ends and kinks included."""
    times = [1.0, 0.73, 0.5, 0.2, 1e-4]
    expected = torch.stack([torch.as_tensor(value) for value in path.scales(float64(*times))], 1).tolist()
    for kind in (times, tuple(times), (t for t in times), float64(*times)):
        grid = path.along(kind)
        assert all(type(value) is float for c in grid for value in c)
        assert [list(c) for c in grid] == expected
    single = path.along(torch.tensor([0.75, 0.5]))
    assert [list(c) for c in single] == [list(c) for c in path.along([0.75, 0.5])]
    last, first = path.along([1.0, 0.0])
    assert first.alpha == pytest.approx(1, abs=1e-15)
    assert first.sigma == 0
    assert first.ratio == 0
    assert last.ratio == (math.inf if last.alpha == 0 else pytest.approx(last.sigma / last.alpha))
    assert path.along([]) == []


@many
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_way_to_say_when_is_the_same(path, dtype):
    """A float, a tensor of no dimension, of one time, of a time each, and the Scales of any of them."""
    x0, noise = noise_like(2, 3, 2, 4).to(dtype).unbind()
    t = 0.3125  # a float32 too
    expected = [float(value) for value in path.scales(float64(t))]
    mixed = expected[1] * x0.double() + expected[2] * noise.double()
    number = path.at(t, x0)
    assert list(number) == pytest.approx(expected, rel=1e-15)
    assert all(type(value) is float for value in number)
    assert path.at(number, x0) is number
    same = lambda value: torch.full((3, 2, 4), value, dtype=torch.float64)
    for shape in ((), (1,), (3,)):
        c = path.at(torch.full(shape, t, dtype=torch.float64), x0)
        again = path.at(c, x0)
        for found in (c, again):
            assert found.t.shape == (shape or (1,))
            for value, wanted in zip(found[1:], expected[1:], strict=True):
                assert value.dtype == dtype
                assert value.shape == (*(shape or (1,)), 1, 1)
                torch.testing.assert_close(value.double().expand(3, 2, 4), same(wanted), rtol=1e-6, atol=1e-12)
        torch.testing.assert_close((c.alpha * x0 + c.sigma * noise).double(), mixed, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((number.alpha * x0 + number.sigma * noise).double(), mixed, rtol=1e-5, atol=1e-6)


@many
def test_a_time_each_is_each_ones_own(path):
    x, t = noise_like(3, 2), float64(0.1, 0.45, 0.8)
    c = path.at(t, x)
    rows = path.along(t)
    for i, row in enumerate(rows):
        assert [float(value[i]) for value in c[1:]] == pytest.approx(list(row)[1:], rel=1e-14)
    # Scales made for another number of dimensions are shaped for this one.
    images = path.at(c, noise_like(3, 1, 2, 2))
    assert images.alpha.shape == (3, 1, 1, 1)
    assert torch.equal(images.sigma.flatten(), c.sigma.flatten())
    assert torch.equal(images.t, t)


def test_a_time_of_the_wrong_shape_is_caught():
    x = torch.zeros(4, 4)
    for t in (torch.rand(3), torch.rand(4, 1), torch.rand(()), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(Exception, match=r"(?i)type-check"):
            Linear().interpolate(x, x, t)


def test_data_keeps_its_dtype_and_time_its_precision():
    x = torch.zeros(2, 1, dtype=torch.float32)
    c = Cosine().at(float64(1 - 1e-9), x)
    assert c.t.dtype == torch.float64
    assert all(value.dtype == torch.float32 and value.shape == (1, 1) for value in c[1:])
    assert float(c.alpha) == pytest.approx(math.pi / 2 / 1.008 * 1e-9, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cosine(-0.1), "cosine path: offset must be at least 0 and below 1; got -0.1."),
        (lambda: Cosine(math.nan), "got nan."),
        (lambda: DDPM("cubic"), "ddpm path: betas must be one of linear, scaled_linear, squared_cosine; got 'cubic'."),
        (lambda: DDPM(steps=0), "ddpm path: steps must be at least 1"),
        (lambda: DDPM(beta_min=0.0), "ddpm path: beta_min must be above 0 and below 1; got 0.0."),
        (lambda: DDPM(beta_max=1.0), "ddpm path: beta_max must be at least 0.0001 and below 1; got 1.0."),
        (lambda: DDPM(beta_min=0.5), "ddpm path: beta_max must be at least 0.5 and below 1; got 0.02."),
        (lambda: DDPM(table=(0.5, 1.0)), "ddpm path: a β of the table must be above 0 and below 1; got 1.0."),
        (lambda: VP(beta_min=0.0), "vp path: beta_min must be above 0 and finite; got 0.0."),
        (lambda: VP(beta_max=0.01), "vp path: beta_max must be at least 0.1 and finite; got 0.01."),
        (lambda: VP(beta_max=math.inf), "got inf."),
        (lambda: VE(0.0), "ve path: sigma_max must be above 0 and finite; got 0.0."),
        (lambda: VE(math.inf), "got inf."),
        (lambda: Bridge(-1.0), "bridge path: spread must be at least 0 and at most 1e+18; got -1.0."),
        (lambda: Bridge(math.nan), "got nan."),
    ],
)
def test_bad_options_are_one_sentence(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("make", [lambda: DDPM(steps=100), lambda: DDPM(table=(0.1, 0.1)), lambda: VP(beta_max=3.0)])
def test_a_path_that_ends_with_the_data_still_in_it_warns(make):
    with pytest.warns(UserWarning, match=r"still holds much of the data"):
        make()


def test_usual_paths_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in PATHS.values():
            make()


def test_a_path_is_its_options():
    assert DDPM() == DDPM()
    assert hash(DDPM(table=TABLE)) == hash(DDPM(table=TABLE))
    assert VP() != VP(beta_max=19.0)
    used = DDPM()
    used.scales(torch.zeros(1))
    assert used == DDPM()


@pytest.mark.parametrize("path", [make() for make in PATHS.values()], ids=list(PATHS))
def test_noise_begins_at_0_and_grows(path):
    """Not at -0, from which the derivative would be -∞."""
    c = path.scales(torch.zeros((), dtype=torch.float64))
    assert str(float(c.sigma)) == "0.0"
    assert c.sigma_dot > 0
