"""Dormand-Prince: against torchdiffeq and exact flows; tolerance, dense output, every sample on its own, refusals."""

import math

import pytest
import scipy.integrate
import torch
import torchdiffeq
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Bridge, Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import DivergedError, InputError
from ebbtide.exact.oracle import mixture
from ebbtide.networks import MLP
from ebbtide.samplers import slope, walk
from ebbtide.samplers.beyond.dopri5 import _ERROR, DOPRI5
from problems import PATHS, exact, exact_flow, float64, last, noise_like, oracle

MODES = float64(0.8, -0.6, 0.1)[:, None] * float64(1, -0.5)


# A table's velocity jumps at each of 1000 entries, and no estimate of the error sees all jumps (SciPy's neither).
SMOOTH = [name for name in PATHS if name != "ddpm"]


class Says(nn.Module):
    """A velocity network that says function(x, t), and counts the samples it is asked about."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls = function, 0

    def forward(self, x, t):
        self.calls += len(x)
        return self.function(x, t.reshape(-1, *[1] * (x.ndim - 1)))


def velocity(function, path=None, **options):
    return Denoiser(Says(function), path or Linear(), **options)


@pytest.mark.unchecked
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, pytest.param(1e-8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["linear", "cosine", "ve"])
def test_agrees_with_torchdiffeq_and_scipy(name, tolerance):
    """One sample of a mixture from t = 0.98 to 0.02: the same end to a few tolerances.

    SciPy integrates in the flow's clock, τ = σ/(α + σ), as ours does, torchdiffeq in t. As many evaluations too: a step
    or two (of six) and a sixth more or less than SciPy, whose error estimate is ours (Shampine's); torchdiffeq's, on
    the path where the clocks are the same, is two thirds of it, and it reads its first step's norm in another way.
    """
    truth = mixture(PATHS[name], MODES, 0.3)
    for seed in range(3 if name == "linear" else 1):
        x, calls = PATHS[name].prior(noise_like(1, 2, seed=seed)), [0, 0]

        class Counted:
            path, gaussian_end = truth.path, True

            def __call__(self, x, t, /, calls=calls, **cond):
                calls[0] += 1
                return truth(x, t)

        def field(t, x, calls=calls):
            calls[1] += 1
            return slope(truth, x, t.reshape(1))

        def size(t):
            c = truth.path.scales(float64(t))
            return float(c.alpha + c.sigma), float(c.sigma / (c.alpha + c.sigma))

        def numbers(tau, y):
            t = truth.path.time_of(float64(tau / (1 - tau)))
            estimate = truth(torch.from_numpy(y)[None] * size(float(t))[0], t)
            return (estimate.noise - estimate.x0)[0].numpy()

        times, options = float64(0.98, 0.02), {"rtol": tolerance, "atol": tolerance}
        found = last(walk("dopri5", Counted(), x, times, **options))
        stop = {"step_t": times[1:]}  # or it steps beyond the end, and interpolates
        theirs = torchdiffeq.odeint(field, x, times, method="dopri5", options=stop, **options)[-1]
        (before, first), (after, final) = size(0.98), size(0.02)
        scipys = scipy.integrate.solve_ivp(numbers, (first, final), x[0].numpy() / before, **options)
        scale = 30 * tolerance * (1 + float(theirs.abs().max()))
        torch.testing.assert_close(found, theirs, rtol=0, atol=scale)
        torch.testing.assert_close(found[0], torch.from_numpy(after * scipys.y[:, -1]), rtol=0, atol=scale)
        assert abs(calls[0] - scipys.nfev) <= 12 + scipys.nfev / 6
        if name == "linear":
            assert abs(calls[0] - calls[1]) <= 24 + calls[1] / 3
        assert calls[0] >= 20


def test_the_error_follows_the_tolerance():
    """From 1e-3 to 1e-9 on a mixture: always below 30 tolerances; a thousandth of the tolerance is a gain of 100."""
    denoiser, x, times = mixture(Linear(), MODES, 0.3), noise_like(6, 2), float64(1, 0.05)
    truth = last(walk("dopri5", denoiser, x, times, rtol=1e-12, atol=1e-12))
    errors = {}
    for digits in (3, 5, 6, 7, 9):
        end = last(walk("dopri5", denoiser, x, times, rtol=10.0**-digits, atol=10.0**-digits))
        errors[digits] = float((end - truth).abs().max())
        assert errors[digits] < 30 * 10.0**-digits
    assert errors[6] < errors[3] / 100
    assert errors[9] < errors[6] / 100
    assert errors[3] > 1e-7  # or there was nothing to see


@pytest.mark.parametrize("name", SMOOTH)
def test_dense_output_is_as_good_as_the_tolerance(name):
    """Read off at 60 times on the way, between steps, against the exact flow of a Gaussian."""
    path, x = PATHS[name], float64(-2, -0.4, 0.3, 2.5)[:, None]
    times = torch.linspace(0.98, 0.02, 61, dtype=torch.float64)
    for t, found in zip(times[1:], walk("dopri5", oracle(path), x, times, rtol=1e-7, atol=1e-7), strict=True):
        truth = exact_flow(path, x, 0.98, float(t))
        torch.testing.assert_close(found, truth, rtol=0, atol=5e-6 * (1 + float(truth.abs().max())))


@pytest.mark.parametrize("read", [1, 3, 50])
def test_where_it_is_read_costs_nothing_and_changes_nothing(read):
    few, many = (velocity(lambda x, t: (5 * t).sin() * x) for _ in range(2))
    x = noise_like(3, 2)
    once = last(walk("dopri5", few, x, float64(1, 0)))
    assert torch.equal(once, last(walk("dopri5", many, x, torch.linspace(1, 0, read + 1, dtype=torch.float64))))
    assert few.network.calls == many.network.calls


def test_a_cubic_velocity_is_exact_between_steps_and_at_the_end():
    """u = 4 t³ - 2 t, so x(t) = x₁ + t⁴ - t²: a quartic, which the dense output holds whatever the tolerance."""
    denoiser, x = velocity(lambda x, t: 4 * t**3 - 2 * t + 0 * x), noise_like(3, 2)
    times = torch.linspace(1, 0, 24, dtype=torch.float64)
    for t, found in zip(
        times[1:].tolist(), walk("dopri5", denoiser, x, times, rtol=1e-2, atol=1e-2, end=1e-9), strict=True
    ):
        torch.testing.assert_close(found, x + t**4 - t**2, rtol=0, atol=1e-12)


def test_the_tableau():
    """Σ b c^k = 1/(k+1) to k = 4; rows sum to c; the embedded method has order 4: its difference sees only k = 4."""
    for c, row in zip(DOPRI5.c, DOPRI5.a, strict=True):
        assert sum(row) == pytest.approx(c, abs=1e-14)
    for k in range(5):
        assert sum(b * c**k for b, c in zip(DOPRI5.b, DOPRI5.c, strict=True)) == pytest.approx(1 / (k + 1), abs=1e-14)
        difference = sum(e * c**k for e, c in zip(_ERROR, DOPRI5.c, strict=True))
        assert (abs(difference) < 1e-14) == (k < 4)


def test_a_sample_is_its_own():
    """Alone or in a batch of easy and hard ones, to the last few bits, though each takes its own number of steps."""
    denoiser = mixture(Linear(), MODES, 0.05)
    x = torch.cat([noise_like(5, 2), 30 * noise_like(1, 2, seed=9)])
    times = torch.linspace(1, 0, 7, dtype=torch.float64)
    together = torch.stack(list(walk("dopri5", denoiser, x, times)))
    for i in range(len(x)):
        alone = torch.stack(list(walk("dopri5", denoiser, x[i : i + 1], times)))
        torch.testing.assert_close(alone[:, 0], together[:, i], rtol=1e-12, atol=1e-12)


def test_conditions_follow_their_samples():
    """Steps are refused for some samples only, so labels must be taken along: each as if it were alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(2, 3, width=16, depth=2)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    denoiser, x, label = Denoiser(network.double(), Linear()), noise_like(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        together = last(walk("dopri5", denoiser, x, float64(1, 0.4, 0), cond={"label": label}))
        for i in range(6):
            alone = last(walk("dopri5", denoiser, x[i : i + 1], float64(1, 0.4, 0), cond={"label": label[i : i + 1]}))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-10)
        other = last(walk("dopri5", denoiser, x, float64(1, 0.4, 0), cond={"label": label.flip(0)}))
    assert float((together - other).abs().max()) > 1e-3


@pytest.mark.parametrize("path", [Linear(), Bridge(0.5)], ids=["linear", "bridge"])
def test_two_sample_sets_need_only_a_velocity(path):
    denoiser = velocity(lambda x, t: (x - 5) / t, path, gaussian_end=False)
    end = last(walk("dopri5", denoiser, noise_like(3, 2), float64(1, 0.7, 0)))
    torch.testing.assert_close(end, torch.full((3, 2), 5.0, dtype=torch.float64), rtol=0, atol=1e-3)


def test_images_in_single_precision():
    x = noise_like(3, 2, 4, 4)
    single, double = (
        list(walk("dopri5", oracle_of(x), x.to(kind), float64(1, 0.5, 0))) for kind in (torch.float32, torch.float64)
    )
    for one, other in zip(single, double, strict=True):
        assert one.dtype == torch.float32
        assert one.shape == x.shape
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)


def oracle_of(x):
    return mixture(Linear(), noise_like(3, *x.shape[1:], seed=4), 0.5)


@pytest.mark.parametrize("name", PATHS)
def test_whole_walks_arrive(name):
    """From t = 1, where α may be 0, to t = 0, where σ̇ may be infinite: the last step is DDIM's, of an error of end²."""
    path, x = PATHS[name], float64(-1.5, 0.2, 2)[:, None]
    x = path.prior(x)
    tolerance, error = (1e-8, 1e-6) if name in SMOOTH else (1e-5, 2e-3)
    end = last(walk("dopri5", exact(path, "v"), x, float64(1, 0.3, 0), rtol=tolerance, atol=tolerance))
    torch.testing.assert_close(end, exact_flow(path, x, 1.0, 0.0), rtol=0, atol=error)


def test_the_start_is_not_written_into_and_walks_are_kept():
    x = noise_like(4, 2)
    copy, kept = x.clone(), []
    for found in walk("dopri5", oracle(Linear(), 2), x, float64(1, 0.9, 0.5, 0)):
        kept.append((found, found.clone()))
    assert torch.equal(x, copy)
    assert all(torch.equal(found, then) for found, then in kept)


def test_draws_are_ignored():
    x = noise_like(4, 2)
    ends = [last(walk("dopri5", oracle(Linear(), 2), x, float64(1, 0), draws=d)) for d in (None, Draws.first(4, 1))]
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    "function",
    [lambda x, t: 1e7 * (x - t.cos()), lambda x, t: torch.where(t > 1 / math.pi, 1e9, -1e9) * torch.ones_like(x)],
    ids=["stiff", "torn"],
)
def test_what_takes_too_many_steps_is_given_up(function):
    with pytest.raises(DivergedError, match=r"^dopri5 needs more than 25 steps; loosen rtol and atol\.$"):
        last(walk("dopri5", velocity(function), noise_like(2, 1), float64(1, 0.1), max_steps=25, rtol=1e-9, atol=1e-9))


@pytest.mark.parametrize("since", [2.0, 0.5])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_velocity_that_is_not_finite_is_an_error(since, value):
    denoiser = velocity(lambda x, t: torch.where(t < since, value, 0.1) + 0 * x)
    with pytest.raises(DivergedError, match=r"^dopri5: a velocity is not finite\.$"):
        last(walk("dopri5", denoiser, noise_like(2, 1), float64(1, 0)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rtol": 0.0}, r"^dopri5: rtol must be above 0 and finite; got 0\.0\.$"),
        ({"atol": -1e-3}, r"^dopri5: atol must be above 0 and finite; got -0\.001\.$"),
        ({"end": math.nan}, r"^dopri5: end must be above 0 and finite; got nan\.$"),
        ({"max_steps": 0}, r"^dopri5: max_steps must be at least 1; got 0\.$"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(InputError, match=says):
        next(walk("dopri5", oracle(Linear()), noise_like(1, 1), float64(1, 0), **options))


def test_errors_are_averaged_over_elements():
    """Sixteen elements alike take the steps of one; an error summed over them would take shorter steps."""
    path, x = PATHS["linear"], float64(-1, 0.2, 2)[:, None]
    one, many = (
        last(walk("dopri5", oracle(path, dim=n), x.expand(3, n), float64(1, 0), rtol=1e-3, atol=1e-3)) for n in (1, 16)
    )
    torch.testing.assert_close(many, one.expand(3, 16), rtol=1e-12, atol=1e-12)
