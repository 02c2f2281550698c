"""Euler and Heun: their declared order on even and uneven grids, exact last steps, any target."""

import math

import pytest
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, Bridge, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import TARGETS
from ebbtide.samplers import slope, walk
from problems import PATHS, exact, exact_flow, float64, last, noise_like, oracle

ORDER = {"euler": 1, "heun": 2, "ddim": 1}
HIGH, LOW = 0.98, 0.02
# Where a table's β jumps a solver loses its order, unless a step ends there, so DDPM is walked inside one entry of
# four, from 0.98 to 0.76.
SMOOTH = {name: path for name, path in PATHS.items() if name != "ddpm"} | {"ddpm": DDPM(table=(0.2, 0.3, 0.4, 0.99))}


def even(n, high, low):
    return torch.linspace(high, low, n + 1, dtype=torch.float64)


def uneven(n, high, low):
    """Steps alternate long and short, 3 : 1."""
    steps = float64(3, 1).repeat(n // 2)
    return torch.cat([float64(high), high - (high - low) * steps.cumsum(0) / steps.sum()])


@pytest.mark.parametrize("spacing", [even, uneven])
@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("sampler", ORDER)
def test_deterministic_samplers_converge_at_their_order(sampler, name, spacing):
    """The error against the exact flow of one Gaussian from 0.98 to 0.02 falls by 2^order as the steps halve."""
    path, (high, low) = SMOOTH[name], (HIGH, LOW) if name != "ddpm" else (HIGH, 0.76)
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    truth, errors = exact_flow(path, x, high, low), []
    for n in (64, 128):
        with torch.no_grad():
            found = last(walk(sampler, oracle(path), x, spacing(n, high, low)))
        errors.append(float((found - truth).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDER[sampler], abs=0.25)


@each("target", TARGETS)
@each("name", PATHS)
@each("sampler", ["euler", "heun", "ddim"])
def test_one_network_through_every_target_gives_one_trajectory(sampler, name, target):
    path, x, times = PATHS[name], noise_like(4, 2), torch.linspace(0.9, 0, 6, dtype=torch.float64)
    reference = walk(sampler, oracle(path, dim=2), x, times)
    for found, expected in zip(walk(sampler, exact(path, target), x, times), reference, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_euler_and_heun_by_hand():
    """u = t x from x = 2. Euler: 2 - ½ · 2 = 1, then 1 - ½ · ½ = ¾.

    Heun: u is ½ at (½, 1), so 2 - ¼ (2 + ½) = 1.375; the last step is Euler's: 1.375 - ½ · 0.6875 = 1.03125.
    """

    class Says(nn.Module):
        def forward(self, x, t):
            return x * t[:, None]

    denoiser, times = Denoiser(Says(), Linear()), float64(1, 0.5, 0)
    assert [float(x) for x in walk("euler", denoiser, float64(2)[None], times)] == pytest.approx([1, 0.75])
    assert [float(x) for x in walk("heun", denoiser, float64(2)[None], times)] == pytest.approx([1.375, 1.03125])


def test_slope_of_a_velocity_network_is_its_output():
    class Says(nn.Module):
        def forward(self, x, t):
            return 3 * x + t[:, None]

    x, t = noise_like(4, 2), 0.3
    for path in PATHS.values():
        torch.testing.assert_close(slope(Denoiser(Says(), path), x, t), 3 * x + 0.3, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 10), ("ddim", 10), ("ddpm", 10), ("heun", 19)])
def test_evaluations(sampler, evaluations):
    """Heun takes two a step, but one for the last, to t = 0."""
    denoiser = exact(Linear())
    last(walk(sampler, denoiser, noise_like(2, 1), even(10, 1, 0), draws=Draws.first(2, 0)))
    assert denoiser.network.calls == evaluations


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_two_sample_sets_need_only_a_velocity(sampler):
    """A straight line from x₁ to a point: x₀ = 5, u = (x - 5)/t, exact on any grid."""

    class ToFive(nn.Module):
        def forward(self, x, t):
            return (x - 5) / t[:, None]

    for path in (Linear(), Bridge(0.5)):
        denoiser = Denoiser(ToFive(), path, gaussian_end=False)
        end = last(walk(sampler, denoiser, noise_like(3, 2), float64(1, 0.7, 0.3, 0)))
        torch.testing.assert_close(end, torch.full((3, 2), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("name", ["linear", "ve"])
def test_euler_is_ddim_where_the_path_is_straight(name):
    path, x = PATHS[name], 2 * noise_like(5, 2)
    times = float64(1, 0.8, 0.7, 0.31, 0.05, 0)
    pairs = zip(*(walk(name, oracle(path, dim=2), x, times) for name in ("euler", "ddim")), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_euler_is_not_ddim_elsewhere():
    x, times = 2 * noise_like(5, 2), float64(0.9, 0.5, 0.1)
    ends = [last(walk(name, oracle(PATHS["cosine"], dim=2), x, times)) for name in ("euler", "ddim")]
    assert float((ends[0] - ends[1]).abs().max()) > 0.01


def euler_step(f, y, at, h):
    return y + h * f(y, at)


def midpoint_step(f, y, at, h):
    return y + h * f(y + h / 2 * f(y, at), at + h / 2)


def heun_step(f, y, at, h):
    first = f(y, at)
    return y + h * (first + f(y + h * first, at + h)) / 2


def ralston_step(f, y, at, h):
    first = f(y, at)
    second = f(y + h / 2 * first, at + h / 2)
    return y + h * (2 * first + 3 * second + 4 * f(y + 3 / 4 * h * second, at + 3 / 4 * h)) / 9


def rk4_step(f, y, at, h):
    first = f(y, at)
    second = f(y + h / 2 * first, at + h / 2)
    third = f(y + h / 2 * second, at + h / 2)
    return y + h * (first + 2 * second + 2 * third + f(y + h * third, at + h)) / 6


# (an inner step, the last one, to t = 0)
TEXTBOOK = {
    "heun": (heun_step, euler_step),
    "midpoint": (midpoint_step, midpoint_step),
    "rk4": (rk4_step, ralston_step),
}


def in_clock(path, clock, t):
    """The clock at a time and what x is divided by there."""
    c = path.along([t])[0]
    return (t, 1.0) if clock == "time" else (c.sigma / (c.alpha + c.sigma), c.alpha + c.sigma)


@each("clock", ["time", "flow"])
@each("name", PATHS)
@each("sampler", TEXTBOOK)
def test_each_step_is_the_textbooks(sampler, name, clock):
    """Of dx/dt = u_t(x), or of dy/dτ = ε̂ - x̂₀ with y = x/(α + σ) and τ = σ/(α + σ), in the textbook's letters."""
    path = PATHS[name]

    def field(y, at):
        if clock == "time":
            return slope(oracle(path), y, float(at))
        c = path.along(path.time_of(float64(at / (1 - at))))[0]
        x0, noise = oracle(path)(y * (c.alpha + c.sigma), c)
        return noise - x0

    times, x = [0.9, 0.5, 0.0], float64(-1, 0.2, 2)[:, None]
    walked = walk(sampler, oracle(path), x, float64(*times), clock=clock)
    for method, t, s, found in zip(TEXTBOOK[sampler], times[:-1], times[1:], walked, strict=True):
        (at, size), (end, final) = in_clock(path, clock, t), in_clock(path, clock, s)
        expected = final * method(field, x / size, at, end - at)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        x = found
