"""Training laws have the distributions they name; grids go from 1 to 0 where the papers put them."""

import math
from fractions import Fraction

import pytest
import scipy.stats
import torch

from cells import each
from ebbtide.core.paths import VE, VP, Linear
from ebbtide.core.times import GRIDS, TIMES, grid_times, stratified_draws, trailing, uniform_draws
from ebbtide.errors import InputError
from ebbtide.specs import bind
from problems import FALSE_POSITIVE, PATHS, SIGMAS, float64

N = 100_000
PATH = Linear()


def draws(kind=uniform_draws, n=N, seed=0):
    return kind(n, torch.Generator().manual_seed(seed))


def law(spec, path=PATH, u=None):
    return bind(TIMES, spec, "times")(draws() if u is None else u, path)


def grid(spec, steps, path=PATH):
    return bind(GRIDS, spec, "grid")(steps, path)


def log_ratio(t, path):
    c = path.scales(t.double())
    return (c.sigma / c.alpha).log()


def has_distribution(values, cdf):
    """Kolmogorov-Smirnov at FALSE_POSITIVE: with 1e5 draws it sees a cdf that is off by 0.011 or more."""
    return scipy.stats.kstest(values.double().numpy(), cdf).pvalue > FALSE_POSITIVE


@pytest.mark.parametrize(
    ("spec", "cdf"),
    [
        ("uniform", scipy.stats.uniform.cdf),
        ("logit_normal", lambda t: scipy.stats.norm.cdf(scipy.special.logit(t))),
        ("logit_normal:mean=-0.5,std=0.7", lambda t: scipy.stats.norm.cdf(scipy.special.logit(t), -0.5, 0.7)),
        ("beta", lambda t: scipy.stats.beta.cdf((t - 0.001) / 0.999, 1.5, 1)),
        ("beta:a=2.0,b=3.0,scale=1.0", scipy.stats.beta(2, 3).cdf),
        ("beta:a=3.0,scale=0.9", lambda t: scipy.stats.beta.cdf((t - 0.1) / 0.9, 3, 1)),
    ],
)
def test_laws_have_their_distribution(spec, cdf):
    assert has_distribution(law(spec), cdf)


@pytest.mark.parametrize("name", PATHS)
def test_log_normal_is_of_the_ratio_on_every_path(name):
    """EDM: ln σ ~ N(-1.2, 1.2²); VE(10) cuts off 1e-3 of it at its end, less than the test can see."""
    path = PATHS[name]
    assert has_distribution(log_ratio(law("log_normal", path), path), scipy.stats.norm(-1.2, 1.2).cdf)
    assert has_distribution(log_ratio(law("log_normal:mean=-2.0,std=0.8", path), path), scipy.stats.norm(-2, 0.8).cdf)


def test_the_test_of_laws_has_power():
    """It tells the neighbours apart: a wrong clock, a wrong mean, a forgotten scale."""
    assert not has_distribution(1 - law("beta"), lambda t: scipy.stats.beta.cdf((t - 0.001) / 0.999, 1.5, 1))
    assert not has_distribution(law("logit_normal:mean=0.1"), lambda t: scipy.stats.norm.cdf(scipy.special.logit(t)))
    assert not has_distribution(law("beta:scale=0.95"), lambda t: scipy.stats.beta.cdf((t - 0.001) / 0.999, 1.5, 1))


def test_beta_is_pi0s_with_more_training_near_the_noise():
    """Mean 0.001 + 0.999 · 3/5, variance 0.999² · 1.5/(2.5² · 3.5); 6 standard errors, false-positive rate 2e-9."""
    t = law("beta").double()
    variance = 0.999**2 * 1.5 / (2.5**2 * 3.5)
    assert abs(float(t.mean()) - 0.6004) < SIGMAS * math.sqrt(variance / N)
    assert float(t.var()) == pytest.approx(variance, rel=0.03)
    assert 0.001 <= float(t.min()) < 0.01
    assert float(t.max()) > 0.9999
    assert float((t > 0.5).float().mean()) > 0.6  # 1 - (0.4995/0.999)^1.5 = 0.65


@each("spec", TIMES)
@each("name", PATHS)
def test_laws_stay_within_the_path_and_keep_order(name, spec):
    u = torch.tensor([2**-24, 0.01, 0.5, 0.99, 1 - 2**-24])
    t = law(spec, PATHS[name], u)
    assert t.dtype == torch.float32
    assert bool(((t > 0) & (t <= 1)).all())
    assert bool((t.diff() > 0).all()) or (name == "ve" and spec == "log_normal")  # which ends at σ = 10
    assert bool((t.diff() >= 0).all())


@pytest.mark.parametrize("kind", [uniform_draws, stratified_draws])
def test_draws_are_uniform_in_the_open_interval(kind):
    u = draws(kind)
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    if kind is uniform_draws:
        assert has_distribution(u, scipy.stats.uniform.cdf)
    single = torch.cat([draws(kind, 1, seed) for seed in range(2000)])
    assert has_distribution(single, scipy.stats.uniform.cdf)
    first = torch.stack([draws(kind, 8, seed)[3] for seed in range(2000)])
    cdf = scipy.stats.uniform(3 / 8, 1 / 8).cdf if kind is stratified_draws else scipy.stats.uniform.cdf
    assert has_distribution(first, cdf)


def test_stratified_draws_put_one_in_each_stratum():
    for seed in range(20):
        u = draws(stratified_draws, 64, seed)
        assert sorted((u * 64).long().tolist()) == list(range(64))


def test_stratified_draws_vary_less():
    """The mean of u² over n = 64: variance (1/5 - 1/9)/n if independent; about Var(w)/n² = 1/12n² if stratified.

    Measured over 300 batches; the variances of these variances are a few percent, so 0.5 is beyond 6 sigma.
    """
    f = lambda kind: torch.stack([draws(kind, 64, seed).square().mean() for seed in range(300)])
    assert float(f(uniform_draws).var()) == pytest.approx((1 / 5 - 1 / 9) / 64, rel=0.5)
    assert float(f(stratified_draws).var()) == pytest.approx(1 / 12 / 64**2, rel=0.5)
    assert float(f(stratified_draws).mean()) == pytest.approx(1 / 3, abs=0.002)


@each("name", PATHS)
@each("spec", GRIDS)
@each("steps", [1, 2, 3, 10, 64, 200, 1000])
def test_grids_fall_from_one_to_zero(spec, name, steps):
    times = grid(spec, steps, PATHS[name])
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == 0
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("uniform", [1, 0.75, 0.5, 0.25, 0]),
        ("quadratic", [1, 0.5625, 0.25, 0.0625, 0]),
        # 3u / (1 + 2u): 2.25/2.5, 1.5/2, 0.75/1.5.
        ("shifted", [1, 0.9, 0.75, 0.5, 0]),
        ("shifted:shift=1.0", [1, 0.75, 0.5, 0.25, 0]),
        # Ratios 100, 100^(1/3) 0.01^(…), 0.01 are evenly spaced in log: 100, 4.6416, 0.21544, 0.01; t = r/(1 + r).
        ("log_snr", [1, 0.8227449, 0.1772551, 0.00990099, 0]),
        ("trailing:table=10", [1, 0.8, 0.5, 0.2, 0]),  # 10, 7.5, 5, 2.5, halves to even
    ],
)
def test_grids_by_hand(spec, expected):
    torch.testing.assert_close(grid(spec, 4), float64(*expected), rtol=1e-6, atol=0)


def test_karras_is_the_published_formula():
    """σ_i = (σ_max^{1/ρ} + i/(n-1) (σ_min^{1/ρ} - σ_max^{1/ρ}))^ρ, σ_n = 0, on their own path."""
    n, rho, low, high = 18, 7, 0.002, 80
    sigma = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)] + [0]
    assert sigma[:3] == pytest.approx([80, 57.586, 40.786], rel=1e-4)  # the paper's first three
    torch.testing.assert_close(80 * grid("karras", n, VE(80.0)), float64(*sigma), rtol=1e-9, atol=1e-12)


def test_karras_options():
    times = 10 * grid("karras:rho=3.0,ratio_min=0.1,ratio_max=10.0", 3, VE(10.0))
    middle = ((10 ** (1 / 3) + 0.1 ** (1 / 3)) / 2) ** 3
    torch.testing.assert_close(times, float64(10, middle, 0.1, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_log_snr_is_even_in_the_log_ratio(name):
    path = PATHS[name]
    logs = log_ratio(grid("log_snr", 12, path)[1:-1], path)
    top = min(math.log(100), float(log_ratio(float64(1), path)))  # VE(10) ends at 10
    assert float(logs[-1]) == pytest.approx(math.log(0.01), abs=1e-9)
    torch.testing.assert_close(logs.diff(), torch.full((10,), (math.log(0.01) - top) / 11).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("spec", ["log_snr", "karras"])
def test_a_path_that_ends_below_the_ratio_is_used_in_full(spec):
    """VE(10) has σ ≤ 10 < ratio_max: the first step starts there, none is spent where the path doesn't go."""
    full = grid(f"{spec}:ratio_max=10.0", 20, VE(10.0))
    torch.testing.assert_close(grid(spec, 20, VE(10.0)), full, rtol=1e-12, atol=0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.3, 3.0])
def test_power_is_the_even_grid_to_a_power(exponent):
    expected = [((7 - i) / 7) ** exponent for i in range(8)]
    for path in PATHS.values():
        torch.testing.assert_close(grid(f"power:exponent={exponent}", 7, path), float64(*expected), rtol=1e-14, atol=0)
    assert torch.equal(grid("power", 7), grid("power:exponent=1.3", 7))


@each(("exponent", "shift"), [(1.3, 1.0), (2.0, 3.0), (0.7, 0.4)])
@each("name", PATHS)
def test_flow_power_is_the_same_fraction_of_noise_on_every_path(name, exponent, shift):
    """σ/(α + σ) = k v / (1 + (k - 1) v) with v = (1 - i/n)^p, times what it is at the path's own end: 1, but for VE(10)
    10/11 and for the discrete and continuous VP a little less than 1.
    """
    path = PATHS[name]
    times = grid(f"flow_power:exponent={exponent},shift={shift}", 9, path)
    c = path.scales(times)
    v = float64(*[((9 - i) / 9) ** exponent for i in range(10)])
    end = {"linear": 1, "cosine": 1, "bridge": 1, "ve": 10 / 11}.get(name, float((c.sigma / (c.alpha + c.sigma))[0]))
    expected = end * shift * v / (1 + (shift - 1) * v)
    torch.testing.assert_close(c.sigma / (c.alpha + c.sigma), expected, rtol=1e-9, atol=1e-12)
    assert 0.9 < end <= 1
    assert (float(times[0]), float(times[-1])) == (1, 0)


def test_flow_power_on_the_linear_path_is_power_then_shifted():
    torch.testing.assert_close(grid("flow_power:exponent=2.0", 5), grid("power:exponent=2.0", 5), rtol=1e-14, atol=0)
    torch.testing.assert_close(grid("flow_power:exponent=1.0,shift=3.0", 5), grid("shifted", 5), rtol=1e-14, atol=0)


@pytest.mark.parametrize("given", ["1,0.7,0.3,0", " 1.0, 0.7 ,3e-1, 0", [1.0, 0.7, 0.3, 0.0], (1.0, 0.7, 0.3, 0.0)])
def test_times_of_ones_own(given):
    """A list says how many steps there are, whatever number was asked for."""
    for steps in (1, 3, 50):
        times = grid_times(given, steps, PATH)
        assert torch.equal(times, float64(1, 0.7, 0.3, 0))


def test_a_grids_name_is_its_row():
    for spec in GRIDS:
        assert torch.equal(grid_times(spec, 6, VP()), grid(spec, 6, VP()))
    assert torch.equal(grid_times("karras:rho=5", 6, PATH), grid("karras:rho=5.0", 6))
    assert not torch.equal(grid_times("karras:rho=5", 6, PATH), grid("karras", 6))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1,0.5", "The times of a grid must fall from 1 to 0; got 1,0.5."),
        ("0.9,0.5,0", "must fall from 1 to 0; got 0.9,0.5,0."),
        ("1,0.5,0.5,0", "must fall from 1 to 0"),
        ("1,0.3,0.7,0", "must fall from 1 to 0"),
        ("0,0.5,1", "must fall from 1 to 0"),
        ("1", "must fall from 1 to 0; got 1."),
        ("1,nan,0", "must fall from 1 to 0"),
        ("1,0.5,-0.1,0", "must fall from 1 to 0"),
        ([1.0], "must fall from 1 to 0; got [1.0]."),
        ([], "must fall from 1 to 0; got []."),
        ([1.0, math.nan, 0.0], "must fall from 1 to 0"),
        ("1,half,0", "A grid is a name, or times such as 1,0.7,0.3,0; got '1,half,0'."),
        ("1,,0", "A grid is a name, or times such as 1,0.7,0.3,0; got '1,,0'."),
        ("even", "grid must be one of uniform, power, flow_power"),
        ("", "grid must be one of uniform"),
        ("power:exponent=x", "grid 'power': exponent must be float; got 'x'."),
        ("power:shift=2.0", "grid 'power' has no option 'shift'"),
    ],
)
def test_grids_that_are_none_are_one_sentence(given, words):
    with pytest.raises(InputError) as caught:
        grid_times(given, 3, PATH)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_trailing_is_the_published_one():
    """diffusers' trailing indices at N = 1000, n = 50 are 999, 979, …, 19; index i is our time (i + 1)/N."""
    indices = list(range(999, 0, -20))
    expected = float64(*[(i + 1) / 1000 for i in indices], 0)
    torch.testing.assert_close(trailing(50, PATH), expected, rtol=0, atol=1e-15)


def test_trailing_rounds_exactly_at_every_number_of_steps():
    for steps in range(1, 1001):
        exact = [round(Fraction(1000 * (steps - i), steps)) for i in range(steps + 1)]
        assert (trailing(steps, PATH) * 1000).round().long().tolist() == exact


def test_trailing_of_all_steps_is_the_table():
    torch.testing.assert_close(trailing(1000, PATH), torch.arange(1000, -1, -1).double() / 1000, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "steps", "path", "words"),
    [
        ("trailing", 1001, PATH, "each an entry of its table, must be at least 1 and at most 1000; got 1001."),
        ("trailing:table=10", 11, PATH, "each an entry of its table, must be at least 1 and at most 10; got 11."),
        ("trailing", 0, PATH, "got 0."),
        ("shifted:shift=0.0", 4, PATH, "a grid's shift must be above 0 and finite; got 0.0."),
        ("power:exponent=0.0", 4, PATH, "a grid's exponent must be above 0 and finite; got 0.0."),
        ("power:exponent=nan", 4, PATH, "a grid's exponent must be above 0 and finite; got nan."),
        ("flow_power:exponent=-1.0", 4, PATH, "a grid's exponent must be above 0 and finite; got -1.0."),
        ("flow_power:shift=inf", 4, PATH, "a grid's shift must be above 0 and finite; got inf."),
        ("karras:rho=-1.0", 4, PATH, "karras: rho must be above 0 and finite; got -1.0."),
        ("karras:ratio_min=90.0", 4, PATH, "ratio_min must be above 0 and below 80; got 90.0."),
        ("log_snr:ratio_min=0.0", 4, PATH, "ratio_min must be above 0 and below 100; got 0.0."),
        ("log_snr:ratio_max=1e18", 400, VP(), "got 0.01 and"),
    ],
)
def test_bad_grids_are_one_sentence(spec, steps, path, words):
    if "1e18" in spec:  # beyond what the path has: cut to the path's end instead of refused
        assert bool((grid(spec, steps, path).diff() < 0).all())
        return
    with pytest.raises(InputError) as caught:
        grid(spec, steps, path)
    assert str(caught.value).endswith(words)
    assert len(str(caught.value).splitlines()) == 1


def test_a_range_too_fine_for_the_clock_is_refused():
    """On the linear path 1 - t = 1e-18 can't be told from 0 in float64."""
    with pytest.raises(InputError, match="goes beyond the path's"):
        grid("log_snr:ratio_max=1e18", 50)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("logit_normal:std=0.0", "logit_normal: std must be above 0 and finite; got 0.0."),
        ("beta:a=-1.0", "beta: a must be above 0 and finite; got -1.0."),
        ("beta:b=0.0", "beta: b must be above 0 and finite; got 0.0."),
        ("beta:scale=1.5", "beta: scale must be above 0 and at most 1; got 1.5."),
        ("beta:scale=nan", "got nan."),
        ("log_normal:std=inf", "log_normal: std must be above 0 and finite; got inf."),
    ],
)
def test_bad_laws_are_one_sentence(spec, words):
    with pytest.raises(InputError) as caught:
        law(spec)
    assert str(caught.value).endswith(words)
