"""Targets: every conversion and its inverse, determinants, and the papers' formulas written out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from cells import each
from ebbtide.core.paths import VP, Scales
from ebbtide.core.targets import TARGETS, Estimate, edm_inputs, from_target, score, to_target, velocity
from ebbtide.specs import bind
from problems import PATHS, float64, noise_like

# α = 0.6, σ = 0.8, α̇ = -2, σ̇ = 3.
BY_HAND = Scales(*(torch.tensor(value, dtype=torch.float64) for value in (0.5, 0.6, 0.8, -2.0, 3.0)))


def close(a, b, tolerance=1e-9):
    scale = float(b.abs().max().clamp(min=1))
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * scale)


def test_all_targets_are_here():
    assert list(TARGETS) == ["noise", "x0", "velocity", "v", "score", "edm"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("via", TARGETS)
@pytest.mark.parametrize("source", TARGETS)
@given(t=st.floats(0.02, 0.98), seed=st.integers(0, 2**16))
@settings(max_examples=3, deadline=None)
def test_round_trips(name, source, via, t, seed):
    """Read in one target, written and read again in another: the same x₀ and ε."""
    x0, noise = noise_like(2, 3, 5, seed=seed).unbind()
    c = PATHS[name].at(float64(t), x0)
    x_t = c.alpha * x0 + c.sigma * noise
    first = from_target(TARGETS[source], c, x_t, to_target(TARGETS[source], c, x0, noise))
    close(first.x0, x0)
    close(first.noise, noise)
    second = from_target(TARGETS[via], c, x_t, to_target(TARGETS[via], c, *first))
    close(second.x0, x0)
    close(second.noise, noise)


@each("name", PATHS)
@each("target", TARGETS)
def test_decoding_keeps_what_was_seen(name, target):
    """Whatever the network says, α x̂₀ + σ ε̂ = x_t."""
    x_t, y = noise_like(2, 3, 5).unbind()
    c = PATHS[name].at(float64(0.2, 0.5, 0.9), x_t)
    estimate = from_target(TARGETS[target], c, x_t, y)
    close(c.alpha * estimate.x0 + c.sigma * estimate.noise, x_t)


@pytest.mark.parametrize(
    ("target", "determinant"),
    [
        ("noise", 0.6),
        ("x0", -0.8),
        ("velocity", 0.6 * 3 + 0.8 * 2),
        ("v", 1.0),  # α² + σ²
        ("score", -0.6 / 0.8),
        ("edm", -1.0),  # -√(σ² + α²)
        ("edm:data_std=0.5", -math.sqrt(0.73) / 0.5),  # -√(0.64 + 0.36/4) / σ_d
    ],
)
def test_determinant_and_what_it_weighs(target, determinant):
    """An error δ of x̂₀ at fixed x_t is an error of -α/σ δ in ε̂, hence of (a - b α/σ) δ = -d/σ δ in the target."""
    row = bind(TARGETS, target, "target")
    a, b = row(BY_HAND)
    assert float(BY_HAND.alpha * b - BY_HAND.sigma * a) == pytest.approx(determinant, rel=1e-12)
    x_t, y = float64(0.3), float64(1.1)
    moved = from_target(row, BY_HAND, x_t, y + 1).x0 - from_target(row, BY_HAND, x_t, y).x0
    assert float(moved) == pytest.approx(-0.8 / determinant, rel=1e-12)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("noise", -1.0),
        ("x0", 2.0),
        ("velocity", -2 * 2 + 3 * -1),
        ("v", 0.6 * -1 - 0.8 * 2),
        ("score", 1 / 0.8),
        ("edm", 0.8 * 2 - 0.6 * -1),  # n = 1, σ_d = 1
        # n² = 0.64 + 0.36/4 = 0.73: (0.8 / (0.5 n)) 2 - (0.6 · 0.5 / n) (-1) = 3.5 / √0.73
        ("edm:data_std=0.5", 3.5 / math.sqrt(0.73)),
    ],
)
def test_targets_by_hand(target, value):
    """α = 0.6, σ = 0.8, x₀ = 2, ε = -1, so x_t = 0.4."""
    row = bind(TARGETS, target, "target")
    assert float(to_target(row, BY_HAND, float64(2), float64(-1))) == pytest.approx(value, rel=1e-12)
    estimate = from_target(row, BY_HAND, float64(0.4), float64(value))
    assert float(estimate.x0) == pytest.approx(2, rel=1e-12)
    assert float(estimate.noise) == pytest.approx(-1, rel=1e-12)


@pytest.mark.parametrize("data_std", [0.5, 1.0, 2.0])
def test_edm_is_karras_preconditioning(data_std):
    """D(x; σ) = c_skip x + c_out F(c_in x; ¼ ln σ), each as Table 1 prints it, at σ from 0.002 to 80."""
    sigma = float64(0.002, 0.1, 1, 7, 80)
    one = torch.ones_like(sigma)
    c = Scales(one, one, sigma, 0 * one, one)
    x, output = noise_like(2, 5).unbind()
    c_skip = data_std**2 / (sigma**2 + data_std**2)
    c_out = sigma * data_std / (sigma**2 + data_std**2) ** 0.5
    c_in = 1 / (sigma**2 + data_std**2) ** 0.5
    found = from_target(bind(TARGETS, f"edm:data_std={data_std}", "target"), c, x, output)
    torch.testing.assert_close(found.x0, c_skip * x + c_out * output)
    inputs, clock = edm_inputs(c, x, data_std)
    torch.testing.assert_close(inputs, c_in * x)
    torch.testing.assert_close(clock, sigma.log() / 4)


def test_edm_on_any_path_is_karras_on_the_scaled_path():
    """x_t/α = x₀ + (σ/α) ε is Karras's own setting, so target, inputs and clock must be those at σ/α."""
    x0, noise = noise_like(2, 4, 3).unbind()
    row = bind(TARGETS, "edm:data_std=0.5", "target")
    for path in PATHS.values():
        c = path.at(float64(0.1, 0.4, 0.7, 0.95), x0)
        one = torch.ones_like(c.alpha)
        theirs = Scales(one, one, c.sigma / c.alpha, one, one)
        close(to_target(row, c, x0, noise), to_target(row, theirs, x0, noise))
        x_t = c.alpha * x0 + c.sigma * noise
        for mine, karras in zip(edm_inputs(c, x_t, 0.5), edm_inputs(theirs, x_t / c.alpha, 0.5), strict=True):
            close(mine, karras)


@pytest.mark.parametrize("name", ["cosine", "ddpm", "vp"])
def test_edm_is_minus_v_where_variance_is_preserved(name):
    x0, noise = noise_like(2, 3, 2).unbind()
    c = PATHS[name].at(float64(0.1, 0.5, 0.9), x0)
    close(to_target(TARGETS["edm"], c, x0, noise), -to_target(TARGETS["v"], c, x0, noise))


def test_edm_inputs_have_unit_variance_and_a_finite_clock():
    """n = 400 000: |var - 1| < 6 √(2/n), false-positive rate 2e-9."""
    n = 400_000
    x0, noise = noise_like(2, n, 1, seed=2).unbind()
    for path in PATHS.values():
        c = path.at(float64(0.3), x0)
        inputs, _ = edm_inputs(c, c.alpha * 0.5 * x0 + c.sigma * noise, 0.5)
        assert abs(float(inputs.var()) - 1) < 6 * math.sqrt(2 / n)
    for path in PATHS.values():
        _, clock = edm_inputs(path.at(float64(0, 1), x0[:2]), x0[:2], 1.0)
        assert bool(clock.isfinite().all())
        assert float(clock[0]) == -3.0


@each("kind", ["floats", "one each"])
@each("target", [*TARGETS, "edm:data_std=0.5"])
@each("name", PATHS)
def test_an_estimate_is_the_solution_of_its_two_equations(name, target, kind):
    """α x̂₀ + σ ε̂ = x_t and a x̂₀ + b ε̂ = y, solved by torch as a 2 × 2 system; x0, noise, mix, in order, mapped."""
    path, row = PATHS[name], bind(TARGETS, target, "target")
    x_t, y = noise_like(2, 3, 5, seed=7).unbind()
    t = float64(0.2, 0.5, 0.9)
    c = path.at(t, x_t) if kind == "one each" else path.at(0.37, x_t)
    a, b = row(c)
    each = lambda value: torch.as_tensor(value, dtype=torch.float64).expand_as(x_t)
    matrix = torch.stack([torch.stack([each(c.alpha), each(c.sigma)], -1), torch.stack([each(a), each(b)], -1)], -2)
    x0, noise = torch.linalg.solve(matrix, torch.stack([x_t, y], -1)).unbind(-1)
    estimate = from_target(row, c, x_t, y)
    close(estimate.x0, x0)
    close(estimate.noise, noise)
    first, second = estimate
    assert torch.equal(first, estimate.x0)
    assert torch.equal(second, estimate.noise)
    for p, q in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (-0.3, 2.0), (c.alpha, c.sigma), (c.alpha_dot, c.sigma_dot)):
        close(estimate.mix(p, q), p * x0 + q * noise)
    half = estimate.map(lambda value: value[1:, ::2])
    close(half.x0, x0[1:, ::2])
    close(half.noise, noise[1:, ::2])
    close(half.mix(-0.3, 2.0), (-0.3 * x0 + 2 * noise)[1:, ::2])
    mixed = estimate.map(lambda value: value[:1] - 3 * value[1:2])
    close(mixed.mix(0.5, 0.25), 0.5 * (x0[:1] - 3 * x0[1:2]) + 0.25 * (noise[:1] - 3 * noise[1:2]))


def test_an_estimate_does_not_write_into_what_it_keeps():
    x_t, y = noise_like(2, 3, 5).unbind()
    kept = x_t.clone(), y.clone()
    for target in TARGETS:
        for c in (PATHS["vp"].at(0.4, x_t), PATHS["vp"].at(float64(0.1, 0.4, 0.8), x_t)):
            estimate = from_target(TARGETS[target], c, x_t, y)
            for value in (*estimate, estimate.mix(1.0, 0.0), estimate.mix(0.0, 1.0), estimate.mix(2.0, 3.0)):
                value = value.clone() if value is x_t or value is y else value
                value.mul_(0)
    assert torch.equal(x_t, kept[0])
    assert torch.equal(y, kept[1])


@pytest.mark.parametrize(("target", "a", "b"), [("velocity", -1.0, 1.0), ("x0", 1.0, 0.0), ("noise", 0.0, 1.0)])
def test_what_the_network_says_is_given_back_to_the_last_bit(target, a, b):
    """On the linear path the velocity of a velocity, the x̂₀ of an x̂₀ and the ε̂ of an ε̂ are the output itself."""
    x_t, y = noise_like(2, 3, 5).float().unbind()
    for t in (0.1, 0.3, 0.77):
        estimate = from_target(TARGETS[target], PATHS["linear"].at(t, x_t), x_t, y)
        assert torch.equal(estimate.mix(a, b), y)


def test_v_at_45_degrees_is_the_papers():
    """Salimans & Ho: v = cos φ ε - sin φ x, and x̂ = α z - σ v."""
    c = VP().scales(float64(0.37))
    x0, noise = float64(1.3), float64(-0.4)
    v = to_target(TARGETS["v"], c, x0, noise)
    torch.testing.assert_close(c.alpha * (c.alpha * x0 + c.sigma * noise) - c.sigma * v, x0)


def test_velocity_and_score_of_an_estimate():
    estimate = Estimate(float64(2), float64(-1))
    assert float(velocity(BY_HAND, estimate)) == pytest.approx(-7)
    assert float(score(BY_HAND, estimate)) == pytest.approx(1.25)


@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_time_derivative_of_the_path(name):
    path, h = PATHS[name], 1e-6
    x0, noise = noise_like(2, 3, 2).unbind()
    t = float64(0.1234, 0.5678, 0.8765)
    ahead, behind = (path.interpolate(x0, noise, t + step) for step in (h, -h))
    close(velocity(path.at(t, x0), Estimate(x0, noise)), (ahead - behind) / (2 * h), 1e-7)
