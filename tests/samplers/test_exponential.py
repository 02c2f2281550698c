"""Exponential Adams: weights by hand and by quadrature, textbook limits, both infinite ends, evaluations, refusals."""

import functools
import math

import numpy as np
import pytest
import scipy.integrate
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import VE, VP, Linear
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.samplers import walk
from ebbtide.samplers.exponential import CLOCKS, FORMS, adams
from problems import PATHS, exact, float64, last, noise_like, oracle

SMOOTH = ["linear", "cosine", "vp", "ve", "bridge"]  # a β table has corners, where quadrature is less than exact


def rows(path, times, order, form="x0", clock="flow", corrector=False):
    return adams(path, path.along(times), order, form, clock, corrector)


def reading(path, t, clock):
    """A clock as the module's docstring names it; sign and scale are free."""
    c = path.along([t])[0]
    return {
        "flow": c.sigma / (c.alpha + c.sigma),
        "log_snr": math.log(c.sigma / c.alpha) if c.sigma and c.alpha else math.inf,
        "ratio": c.ratio,
        "time": t,
    }[clock]


def integral(path, form, t, s, function):
    """σ_s ∫ x̂₀ d(α/σ) or α_s ∫ ε̂ d(σ/α) from t to s of an estimate that is a function of time, by quadrature."""
    scales = lambda u: path.along([u])[0]

    def rate(u):
        c = scales(u)
        if form == "x0":
            return (c.alpha_dot * c.sigma - c.alpha * c.sigma_dot) / c.sigma**2
        return (c.sigma_dot * c.alpha - c.sigma * c.alpha_dot) / c.alpha**2

    value, _ = scipy.integrate.quad(lambda u: function(u) * rate(u), t, s, epsabs=1e-13, epsrel=1e-12, limit=200)
    return value * (scales(s).sigma if form == "x0" else scales(s).alpha)


@functools.cache
def integral_of_power(name, form, clock, t, s, p):
    """That of u^p, which rows of every order are compared with."""
    return integral(PATHS[name], form, t, s, lambda time: reading(PATHS[name], time, clock) ** p)


@pytest.mark.parametrize("name", PATHS)
def test_order_2_by_hand(name):
    """D(λ) = D₀ + (λ - λ₀)/h' (D₀ - D₁): σ_s ∫ e^λ D dλ gives D₁ the weight -α_s (h - 1 + e^{-h})/h', with
    λ = -2, -1.3, -0.8, so h' = 0.7 and h = 0.5.
    """
    path = PATHS[name]
    times = path.time_of((-float64(-2, -1.3, -0.8)).exp())
    _, now, then = path.along(times)
    row = rows(path, times, 2, clock="log_snr").predict[1]
    second = then.alpha * (0.5 - 1 + math.exp(-0.5)) / 0.7
    assert row.keep == pytest.approx(then.sigma / now.sigma, rel=1e-9)
    assert row.weights == pytest.approx([then.alpha * (1 - math.exp(-0.5)) + second, -second], rel=1e-7)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_the_textbook_integral(order):
    """k-diffusion's linear multistep coefficients: ∫ Π (τ - σ_k)/(σ_j - σ_k) dτ from σ_i to σ_{i+1}, α = 1."""
    path, times = VE(10.0), float64(1, 0.55, 0.4, 0.2, 0.11, 0.07)
    sigmas = (10 * times).tolist()
    found = rows(path, times, order, "noise", "ratio").predict
    for i in range(5):
        nodes = sigmas[max(i - order + 1, 0) : i + 1][::-1]
        for j, weight in enumerate(found[i].weights):
            product = lambda tau, j=j, nodes=nodes: math.prod(
                (tau - other) / (nodes[j] - other) for k, other in enumerate(nodes) if k != j
            )
            expected, _ = scipy.integrate.quad(product, sigmas[i], sigmas[i + 1], epsabs=1e-13)
            assert weight == pytest.approx(expected, rel=1e-9, abs=1e-11)
        assert found[i].keep == pytest.approx(1)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("form", FORMS)
def test_small_even_steps_have_the_classical_coefficients(form, clock):
    """Adams-Bashforth 3/2 -1/2, 23/12 -16/12 5/12, 55/24 -59/24 37/24 -9/24; Adams-Moulton ½ ½, 5/12 8/12 -1/12, …"""
    path = Linear()
    ratios = {
        "flow": (lambda u: u / (1 - u))(0.5 - 1e-5 * torch.arange(6).double()),
        "log_snr": (-1e-5 * torch.arange(6).double()).exp(),
        "ratio": 1 - 1e-5 * torch.arange(6).double(),
        "time": (lambda u: u / (1 - u))(0.5 - 1e-5 * torch.arange(6).double()),
    }[clock]
    bashforth = {2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    moulton = {1: [1 / 2, 1 / 2], 2: [5 / 12, 8 / 12, -1 / 12], 3: [9 / 24, 19 / 24, -5 / 24, 1 / 24]}
    for order in (1, 2, 3, 4):
        plan = rows(path, path.time_of(ratios), order, form, clock, corrector=True)
        for found, table in ((plan.predict[-1], bashforth), (plan.correct[-1], moulton)):
            if order in table:
                shares = np.array(found.weights) / sum(found.weights)
                np.testing.assert_allclose(shares, table[order], rtol=0, atol=1e-3)


@pytest.mark.unchecked
@each("corrector", [False, True])
@each("clock", CLOCKS)
@each("form", FORMS)
@each("name", SMOOTH)
def test_exact_for_polynomials_in_the_clock(name, form, clock, corrector):
    """Σ w D = the integral of the estimate, for D = u^p, p below the number of nodes; p = 0 is the sum of weights."""
    path = PATHS[name]
    times = float64(0.9, 0.82, 0.6, 0.45, 0.4).tolist()
    for order in (1, 2, 3, 4):
        plan = rows(path, float64(*times), order, form, clock, corrector)
        for i, row in enumerate(plan.correct if corrector else plan.predict):
            nodes = list(range(i, max(i - order, -1), -1))
            nodes = [i + 1, *nodes] if corrector else nodes
            assert len(row.weights) == len(nodes)
            for p in range(len(nodes)):
                u = lambda t, p=p: reading(path, t, clock) ** p
                found = sum(w * u(times[j]) for w, j in zip(row.weights, nodes, strict=True))
                size = sum(abs(w * u(times[j])) for w, j in zip(row.weights, nodes, strict=True))
                expected = integral_of_power(name, form, clock, times[i], times[i + 1], p)
                assert found == pytest.approx(expected, rel=1e-7, abs=1e-9 * size)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SMOOTH)
def test_the_kept_part_is_the_linear_solution(name, form):
    path, times = PATHS[name], float64(0.8, 0.5, 0.3)
    c = path.along(times)
    for i, row in enumerate(rows(path, times, 2, form).predict):
        ratio = c[i + 1].sigma / c[i].sigma if form == "x0" else c[i + 1].alpha / c[i].alpha
        assert row.keep == pytest.approx(ratio, rel=1e-12)


def test_a_step_to_no_noise_extrapolates_to_it():
    """To σ = 0 all the weight of the x0 form is at the end: Σ w D = D(0) for D quadratic in the linear path's time."""
    plan = rows(Linear(), float64(0.5, 0.3, 0.1, 0), 3)
    quadratic = lambda t: 2 - 3 * t + 5 * t**2
    row = plan.predict[-1]
    assert row.keep == 0
    assert sum(w * quadratic(t) for w, t in zip(row.weights, (0.1, 0.3, 0.5), strict=True)) == pytest.approx(
        2, rel=1e-9
    )


def test_a_step_from_no_signal_keeps_nothing_but_noise():
    """From α = 0 to t = 0.6 on the linear path: (σ_s/σ_t) x + α_s x̂₀ = 0.6 x + 0.4 x̂₀; with the corrector, D linear
    in τ over ρ = α/σ from 0 to 2/3: σ_s ∫ τ dρ, τ = 1/(1 + ρ), is 0.6 log(5/3).
    """
    plan = rows(Linear(), float64(1, 0.6, 0.3, 0), 1, corrector=True)
    assert plan.predict[0].keep == pytest.approx(0.6)
    assert plan.predict[0].weights == pytest.approx([0.4])
    assert sum(w * t for w, t in zip(plan.correct[0].weights, (0.6, 1), strict=True)) == pytest.approx(
        0.6 * math.log(5 / 3), rel=1e-9
    )


class Knows:
    """Knows the data, in double precision."""

    gaussian_end = True

    def __init__(self, path, x0):
        self.path, self.x0 = path, x0

    def __call__(self, x, t, /, **cond):
        c = self.path.at(t, x)
        return Estimate(self.x0.expand_as(x), (x - c.alpha * self.x0) / c.sigma)


@pytest.mark.unchecked
@each("clock", CLOCKS)
@each("form", FORMS)
@each("name", PATHS)
def test_whole_walks_are_exact_where_x0_is_known(name, form, clock):
    """From t = 1, α = 0 included, to t = 0, in 1 and 6 steps, of every order, by either start, corrected or not."""
    path, x0 = PATHS[name], float64(3, -2)
    x, grid = path.prior(noise_like(4, 2)), float64(1, 0.85, 0.6, 0.3, 0.2, 0.05, 0)
    for times in (grid[[0, -1]], grid):
        for order in (1, 2, 3, 4):
            for corrector in (False, True):
                for start in ("ramp", "runge_kutta"):
                    options = {"order": order, "form": form, "clock": clock, "corrector": corrector, "start": start}
                    for found in walk("exponential", Knows(path, x0), x, times, **options):
                        assert bool(found.isfinite().all())
                    torch.testing.assert_close(found, x0.expand(4, 2), rtol=1e-7, atol=1e-7)


def known(plan):
    """How many estimates each step uses."""
    return [None if row is None else sum(w != 0 for w in row.weights) for row in plan]


@pytest.mark.parametrize("form", ["x0", "noise"])
def test_the_order_falls_towards_an_infinite_clock_where_steps_grow_in_it(form):
    """Steps in λ by hand: on VE's sixths log 6/5, 5/4, 4/3, 3/2, 2, and on its halves log 2 each; none is lowered where
    the walk doesn't end at t = 0.
    """
    grown, even = [1 - i / 6 for i in range(7)], [2.0**-i for i in range(7)]
    orders = lambda times, order: known(rows(VE(10.0), float64(*times), order, form, "log_snr").predict)
    assert orders(grown, 3) == [1, 2, 3, 3, 2, 1]
    assert orders(grown, 4) == [1, 2, 3, 3, 2, 1]
    assert orders(grown, 2) == [1, 2, 2, 2, 2, 1]
    assert orders([*even[:6], 0], 3) == [1, 2, 3, 3, 3, 1]
    assert orders(even, 3) == [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("path", "form", "clock", "expected"),
    [
        (Linear(), "x0", "flow", [1, 2, 3, 3, 3]),
        (Linear(), "x0", "time", [1, 2, 3, 3, 3]),
        (Linear(), "x0", "log_snr", [1, 1, 2, 3, 1]),  # λ(1) = -∞ is no node, and to λ = ∞ nothing extrapolates
        (VP(), "x0", "log_snr", [1, 2, 3, 3, 1]),
        (Linear(), "x0", "ratio", [1, 1, 2, 3, 3]),
        (Linear(), "noise", "flow", [None, 2, 3, 3, 3]),  # from α = 0 the noise form has no step; DDIM's is taken
        (Linear(), "noise", "ratio", [None, 1, 2, 3, 3]),
        (Linear(), "noise", "log_snr", [None, 1, 2, 3, 1]),  # log r is infinite at the end, but not inside the step
        (VE(10.0), "noise", "ratio", [1, 2, 3, 3, 3]),
    ],
)
def test_the_order_is_lowered_only_where_the_clock_is_infinite(path, form, clock, expected):
    assert known(rows(path, float64(1, 0.7, 0.4, 0.2, 0.1, 0), 3, form, clock).predict) == expected


def test_order_1_is_a_constant_in_every_form():
    """DDIM: α_s x̂₀ + σ_s ε̂, by hand with x = 2, x̂₀ = 1 at t = ½, so ε̂ = 3; to ¼: ¾ + ¾ = 1.5."""
    for form in FORMS:
        for clock in CLOCKS:
            walked = walk(
                "exponential",
                Knows(Linear(), float64(1)),
                float64(2)[None],
                float64(0.5, 0.25),
                order=1,
                form=form,
                clock=clock,
            )
            assert float(next(walked)) == pytest.approx(1.5)


@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize(
    ("order", "start", "extra"),
    [
        (1, "ramp", 0),
        (3, "ramp", 0),
        (4, "ramp", 0),
        (2, "runge_kutta", 0),
        (3, "runge_kutta", None),
        (4, "runge_kutta", None),
    ],
)
def test_evaluations(order, start, extra, corrector):
    """One a step, and none for the corrector. A Runge-Kutta start adds: midpoint 1, Ralston's 2 a step.

    For order 3: 2 steps of midpoint, or 1 with the corrector of Ralston's... see the numbers below.
    """
    denoiser = exact(Linear())
    last(
        walk(
            "exponential",
            denoiser,
            noise_like(2, 1),
            torch.linspace(1, 0, 11).double(),
            order=order,
            start=start,
            corrector=corrector,
        )
    )
    # (order, corrector) → steps × extra evaluations each: a local error of order k (k + 1) needs a method of order
    # k - 1 (k), for the k - 1 (k - 2, as the corrector looks ahead) steps until enough estimates are known.
    started = {(3, False): 2 * 1, (4, False): 3 * 2, (3, True): 1 * 2, (4, True): 2 * 3}
    assert denoiser.network.calls == 10 + (started[order, corrector] if extra is None else extra)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("corrector", [False, True])
def test_fewer_steps_than_the_order(steps, corrector):
    for start in ("ramp", "runge_kutta"):
        walked = list(
            walk(
                "exponential",
                exact(Linear()),
                noise_like(2, 1),
                torch.linspace(1, 0, steps + 1).double(),
                order=4,
                start=start,
                corrector=corrector,
            )
        )
        assert len(walked) == steps
        assert all(bool(x.isfinite().all()) for x in walked)


def test_the_corrector_changes_the_walk_from_the_second_step_on():
    x, times = noise_like(3, 2), float64(1, 0.7, 0.4, 0.1)
    plain, corrected = (list(walk("exponential", oracle(Linear(), 2), x, times, corrector=c)) for c in (False, True))
    assert torch.equal(plain[0], corrected[0])
    assert float((plain[1] - corrected[1]).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": 0}, r"^exponential: order must be at least 1 and at most 4; got 0\.$"),
        ({"order": 5}, r"^exponential: order must be at least 1 and at most 4; got 5\.$"),
        ({"form": "v"}, r"^exponential: form must be one of x0, noise; got 'v'\.$"),
        ({"clock": "logsnr"}, r"^exponential: clock must be one of flow, log_snr, .* \(did you mean 'log_snr'\?\)\.$"),
        ({"start": "rk"}, r"^exponential: start must be one of ramp, runge_kutta; got 'rk'\.$"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(InputError, match=says):
        next(walk("exponential", oracle(Linear()), noise_like(1, 1), float64(1, 0), **options))


def test_two_sample_sets_are_refused():
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^exponential needs a path from Gaussian noise: "):
        next(walk("exponential", between, noise_like(1, 1), float64(1, 0)))
