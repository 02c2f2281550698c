import itertools
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.errors import InputError
from ebbtide.metrics import exact_w2, sliced_w2, within_mode_sliced_w2
from ebbtide.metrics.wasserstein import directions, sliced_w2_influence, transport, within_mode_influence
from problems import SIGMAS

MEANS = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [0.0, -2.0]])


def normal(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def three_gaussians(n, seed, std=0.3):
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (n,), generator=generator)
    return MEANS[which] + std * torch.randn(n, 2, generator=generator)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


# One dimension, by hand


def test_equal_sizes_match_in_order():
    """{3, 0} against {1, 2}: 0 → 1 and 3 → 2, both move by 1."""
    assert sliced_w2(column(3, 0), column(1, 2)) == pytest.approx(1.0)


def test_unequal_sizes_share_quantiles():
    """{0, 1} against {0, 0, 3}: 1/6 of the mass goes 1 → 0, 1/3 goes 1 → 3: W₂² = 1/6 + 4/3 = 3/2."""
    assert sliced_w2(column(0, 1), column(0, 0, 3)) == pytest.approx(1.5**0.5)
    assert sliced_w2(column(0, 0, 3), column(0, 1)) == pytest.approx(1.5**0.5)


def test_one_point_against_many_is_their_spread():
    """{0} against {−3, 0, 3}: W₂² = 18/3."""
    assert sliced_w2(column(0), column(-3, 0, 3)) == pytest.approx(6**0.5)


@pytest.mark.parametrize("copies", [2, 7])
def test_repeating_every_point_changes_nothing(copies):
    x, y = normal(20, 2, 0), normal(33, 2, 1)
    assert sliced_w2(x.repeat(copies, 1), y) == pytest.approx(sliced_w2(x, y))


# Sliced


def test_a_shift_in_the_plane():
    """W₂²(θ) = (θ·c)², whose mean over the circle is |c|²/2; c = (3, 4), so SW₂ = 5/√2."""
    x = normal(50, 2, 0, torch.float32)
    assert sliced_w2(x, x + torch.tensor([3.0, 4.0])) == pytest.approx(5 / 2**0.5, rel=1e-5)


def test_a_shift_in_ten_dimensions():
    """For |c| = 1, (θ·c)² has mean 1/10 and variance 3/(10·12) − 1/100 = 0.1225²; 6 standard errors: 2e-9."""
    x = normal(5, 10, 0)
    squared = sliced_w2(x, x + 0.1**0.5, projections=20_000) ** 2
    assert abs(squared - 0.1) < SIGMAS * 0.1225 / 20_000**0.5


def test_a_scaled_gaussian_in_the_plane():
    """Every projection of 2x is twice that of x: W₂²(θ) = mean (θ·x)², and its mean over θ is mean |x|²/2."""
    x = normal(400, 2, 3)
    assert sliced_w2(x, 2 * x) == pytest.approx((x.square().sum(1).mean().item() / 2) ** 0.5)


def test_directions():
    assert directions(1, 50).tolist() == [[1.0]]
    np.testing.assert_allclose(directions(2, 4)[2], [0, 1], atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(directions(7, 30, seed=1), axis=1), 1)
    assert (directions(7, 30, seed=1) == directions(7, 30, seed=1)).all()
    assert (directions(7, 30, seed=1) != directions(7, 30, seed=2)).any()


def test_images_are_flattened():
    x, y = normal(6, 12, 0), normal(6, 12, 1)
    assert sliced_w2(x.reshape(6, 3, 2, 2), y.reshape(6, 3, 2, 2)) == sliced_w2(x, y)


# Within modes


def test_exact_quantiles_have_no_distance():
    """The quartiles of N(0, 1) are ±0.67449; two samples stand for the quantiles ¼ and ¾."""
    q = 0.5 * 0.6744897501960817
    x = column(-q, q, 10 - q, 10 + q)
    assert within_mode_sliced_w2(x, column(0, 10), 0.5) == pytest.approx(0, abs=1e-12)
    shifted = x + column(0.1, 0.1, 0, 0)  # half of the samples are 0.1 off
    assert within_mode_sliced_w2(shifted, column(0, 10), 0.5) == pytest.approx(0.005**0.5)


def test_opposite_shifts_cancel_only_when_pooled():
    q = 0.5 * 0.6744897501960817
    x = column(-q, q, 10 - q, 10 + q) + column(0.1, 0.1, -0.1, -0.1)
    assert within_mode_sliced_w2(x, column(0, 10), 0.5) == pytest.approx(0.1)
    # Pooled, −q ± 0.1 and q ± 0.1 stand against the quantiles at 1/8, 3/8, 5/8, 7/8: 0.5 · (∓1.15035, ∓0.31864).
    inner, outer = 0.237245 - 0.159320, 0.575175 - 0.437245
    assert within_mode_sliced_w2(x, column(0, 10), 0.5, pooled=True) == pytest.approx(
        ((inner**2 + outer**2) / 2) ** 0.5, abs=1e-5
    )


def test_a_mode_weighs_as_much_as_it_has_samples():
    """Two of six lie right, four 0.1 off: 4/6 · 0.1². Influence of modes 5 and 2 off: 25 and 4 less their mean, 11."""
    q, p = 0.5 * 0.6744897501960817, 0.5 * np.array([-1.1503493803760079, -0.31863936396437515])
    x = column(-q, q, *(10.1 + p), *(10.1 - p))
    assert within_mode_sliced_w2(x, column(0, 10), 0.5) == pytest.approx((4 / 6 * 0.01) ** 0.5)
    moved = within_mode_influence(column(5, 5, 98, 98, 98, 98), column(0, 100), 1e-9)
    np.testing.assert_allclose(moved[[0, 2]], [14, -7], atol=1e-6)


def test_mode_counts_do_not_matter():
    x = three_gaussians(6000, 0)
    near_first = (x - MEANS[0]).norm(dim=1) < 1.5
    alone = within_mode_sliced_w2(x[near_first], MEANS[:1], 0.3)
    assert within_mode_sliced_w2(x[near_first], MEANS, 0.3) == pytest.approx(alone)


def test_truth_floor_and_a_std_five_percent_off():
    """Truth scores 0.0094 ± 0.0009 at 10 000 samples (mean ± sd of 1500), std 0.315 scores 0.0178 ± 0.0014.

    The means of 10 lie 14 and 9 standard errors from the threshold: both error rates are below 1e-6.
    """
    score = lambda std: np.mean(
        [within_mode_sliced_w2(three_gaussians(10_000, seed, std), MEANS, 0.3, 16) for seed in range(10)]
    )
    assert 0.0078 < score(0.3) < 0.0135 < score(0.315)


# Exact


def test_exact_is_the_best_of_all_permutations():
    x, y = normal(6, 3, 0), normal(6, 3, 1)
    best = min(
        sum(float((x[i] - y[j]).square().sum()) for i, j in enumerate(order)) / 6
        for order in itertools.permutations(range(6))
    )
    assert exact_w2(x, y) == pytest.approx(best**0.5)


@pytest.mark.parametrize("n", [50, 300])
def test_assignment_agrees_with_pot(n):
    ot = pytest.importorskip("ot")
    x, y = three_gaussians(n, 0).double(), three_gaussians(n, 1).double()
    expected = ot.emd2([], [], ot.dist(x.numpy(), y.numpy()), numItermax=10_000_000)
    assert exact_w2(x, y) == pytest.approx(expected**0.5, rel=1e-9)


def test_unequal_sizes_agree_with_sorting_and_with_repeated_points():
    pytest.importorskip("ot")
    assert exact_w2(column(0, 1), column(0, 0, 3)) == pytest.approx(1.5**0.5)
    x, y = normal(20, 2, 0), normal(60, 2, 1)
    assert exact_w2(x, y) == pytest.approx(exact_w2(x.repeat(3, 1), y))


def test_unequal_sizes_without_pot_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(InputError, match="needs POT"):
        exact_w2(normal(3, 2, 0), normal(4, 2, 1))


def test_a_translation_costs_its_length():
    x = normal(80, 2, 0)
    assert exact_w2(x, x + torch.tensor([3.0, -4.0])) == pytest.approx(5)


def test_exact_is_capped():
    with pytest.raises(InputError, match="at most 5000"):
        exact_w2(torch.zeros(5001, 1), torch.zeros(2, 1))


# Influence: for y = x + c, the potential of x is −2 c·x, up to a constant


@pytest.mark.parametrize("m", [600, 400])
def test_influence_of_a_shift(m):
    """T(x) − x = 3, so the potential has slope −6; all mass 2.5 + x above its mode adds (x + 2.5)² less its mean."""
    u = lambda n: torch.linspace(0.5 / n, 1 - 0.5 / n, n, dtype=torch.float64)[:, None]
    x, y = u(600), u(m) + 3
    of_x, of_y = sliced_w2_influence(x, y)
    np.testing.assert_allclose(of_x, -6 * (x[:, 0] - 0.5), atol=0.02)
    np.testing.assert_allclose(of_y, 6 * (y[:, 0] - 3.5), atol=0.02)
    np.testing.assert_allclose(
        within_mode_influence(x + 3, column(0.5), 1e-9), (x[:, 0] + 2.5) ** 2 - 9.0833, atol=0.02
    )


@pytest.mark.parametrize("m", [300, 200])
def test_influence_of_an_exact_shift(m):
    """Duals are certificates: f + g ≤ cost, and their means add up to W₂²; they follow −2 c·x."""
    if m != 300:
        pytest.importorskip("ot")
    x, c = normal(300, 2, 0), torch.tensor([4.0, 0.0])
    y = (x + c)[:m]
    of_x, of_y = transport(x, y).influence
    slack = torch.cdist(x, y).square().numpy() - of_x[:, None] - of_y[None]
    assert slack.min() == pytest.approx(exact_w2(x, y) ** 2, rel=1e-6)
    assert np.corrcoef(of_x, -8 * x[:, 0])[0, 1] > 0.99


# What they refuse


@given(n=st.integers(0, 3), d=st.integers(0, 3), m=st.integers(0, 3), e=st.integers(0, 3), fault=st.booleans())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("distance", [sliced_w2, exact_w2, lambda x, y: within_mode_sliced_w2(x, y, 1.0)])
def test_shapes(distance, n, d, m, e, fault):
    x, y = torch.zeros(n, d), torch.zeros(m, e)
    if fault and x.numel():
        x[0, 0] = float("nan")
    good = n and m and d and d == e and not fault
    if good:
        assert distance(x, y) == 0 or distance(x, y) > 0
    else:
        with pytest.raises(InputError) as error:
            distance(x, y)
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_std_must_be_positive(std):
    with pytest.raises(InputError, match="std"):
        within_mode_sliced_w2(torch.zeros(3, 1), torch.zeros(1, 1), std)


def test_projections_must_be_positive():
    with pytest.raises(InputError, match="projections"):
        sliced_w2(torch.zeros(3, 2), torch.zeros(3, 2), projections=0)


def test_ten_thousand_points_take_well_under_a_second():
    x, y = normal(10_000, 2, 0), normal(10_000, 2, 1)
    start = time.process_time()
    sliced_w2(x, y)
    assert time.process_time() - start < 1  # 0.04 s alone
