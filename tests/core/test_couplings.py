"""Couplings permute the noise: nothing dropped, the best pairs, and each class's own noise left to it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.core.couplings import BLOCK, COUPLINGS, class_aware_ot, independent, minibatch_ot, posterior_mean
from ebbtide.core.paths import PATHS
from ebbtide.errors import InputError
from problems import SIGMAS, noise_like


def sorted_rows(x):
    return sorted(map(tuple, x.flatten(1).tolist()))


@given(b=st.integers(1, 9), shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_coupling_is_a_permutation(b, shape, seed):
    x0, x1 = noise_like(2, b, *shape, seed=seed).unbind()
    labels = torch.arange(b) % 3
    for couple in COUPLINGS.values():
        coupled = couple(x0, x1, labels)
        assert coupled.shape == x1.shape
        assert sorted_rows(coupled) == sorted_rows(x1)


def test_independent_leaves_the_noise_alone():
    x0, x1 = noise_like(2, 5, 2).unbind()
    assert independent(x0, x1) is x1


@pytest.mark.parametrize("seed", range(20))
def test_ot_is_the_best_of_all_permutations(seed):
    x0, x1 = noise_like(2, 6, 2, seed=seed).unbind()
    cost = lambda permuted: float((x0 - permuted).square().sum())
    best = min(cost(x1[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(minibatch_ot(x0, x1)) == pytest.approx(best, rel=1e-12)
    assert cost(x1) >= best


def test_ot_in_one_dimension_sorts():
    x0, x1 = noise_like(2, 500, 1).unbind()
    coupled = minibatch_ot(x0, x1)
    torch.testing.assert_close(coupled[x0[:, 0].argsort()], x1.sort(0).values)


def test_ot_takes_images():
    x0, x1 = noise_like(2, 6, 1, 3, 3).unbind()
    torch.testing.assert_close(minibatch_ot(x0, x1).flatten(1), minibatch_ot(x0.flatten(1), x1.flatten(1)))


@pytest.mark.parametrize("seed", range(5))
def test_class_ot_keeps_each_class_its_own_noise_and_pairs_it_best(seed):
    x0, x1 = noise_like(2, 12, 2, seed=seed).unbind()
    labels = torch.tensor([0, 1, 0, 2, 1, 1, 0, 0, 1, 2, 0, 1])
    coupled = class_aware_ot(x0, x1, labels)
    for label in range(3):
        mine = labels == label
        assert sorted_rows(coupled[mine]) == sorted_rows(x1[mine])
        torch.testing.assert_close(coupled[mine], minibatch_ot(x0[mine], x1[mine]))


def test_plain_ot_skews_the_noise_of_a_class_and_class_ot_does_not():
    """Two classes at ±3: of 600 noises each class of plain OT gets the nearer half, whose mean is ±√(2/π).

    class_ot: each class's mean is that of 300 standard normals; 6 standard errors, false-positive rate 4e-9.
    """
    n = 600
    labels = torch.arange(n) % 2
    x0 = 6.0 * labels[:, None] - 3 + 0.1 * noise_like(n, 1, seed=1)
    x1 = noise_like(n, 1, seed=2)
    means = lambda x: [float(x[labels == label].mean()) for label in (0, 1)]
    assert means(minibatch_ot(x0, x1)) == pytest.approx([-0.798, 0.798], abs=0.3)
    assert all(abs(mean) < SIGMAS / (n / 2) ** 0.5 for mean in means(class_aware_ot(x0, x1, labels)))


def test_ot_is_deterministic():
    x0, x1 = noise_like(2, 50, 2).unbind()
    assert torch.equal(minibatch_ot(x0, x1), minibatch_ot(x0, x1))


def test_class_ot_without_labels_is_refused():
    x = noise_like(4, 2)
    with pytest.raises(InputError, match=r"^The class_ot coupling needs labelled data and a conditional network\.$"):
        class_aware_ot(x, x)


def test_gradients_and_devices_are_left_alone():
    x0, x1 = noise_like(2, 4, 2).float().unbind()
    before = x1.clone()
    assert class_aware_ot(x0, x1, torch.tensor([0, 0, 1, 1])).dtype == torch.float32
    assert torch.equal(x1, before)


# --- stable targets: pairs averaged over what could have made x_t ---------------------------------------------------


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", PATHS)
def test_the_averaged_pair_makes_the_same_x_t(name):
    path = PATHS[name]()
    x0, noise, t = normal((300, 3), 1), normal((300, 3), 2), torch.linspace(1e-3, 1, 300, dtype=torch.float64)
    mean, rest = posterior_mean(path, x0, noise, t)
    there, here = path.interpolate(x0, noise, t), path.interpolate(mean, rest, t)
    # α = 0 at t = 1 is taken for 1e-6, hence the tolerance there.
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


def test_the_average_is_bayes_rule_by_hand():
    """α = σ = ½; x₀ = 0, 2; x_t = ½ for the first: likelihoods of ½ under N(0, ¼) and N(1, ¼) are equal, so ½ each."""
    x0, t = torch.tensor([[0.0], [2.0]], dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    noise = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    mean, rest = posterior_mean(PATHS["linear"](), x0, noise, t)
    assert mean[0].item() == pytest.approx(1.0)
    assert rest[0].item() == pytest.approx(0.0)  # ½ = ½ · 1 + ½ · 0
    # The second: x_t = 1, likelihoods e^{-1/(2·¼)} = e^{-2} and 1.
    assert mean[1].item() == pytest.approx(2 / (1 + math.exp(-2)))


def test_the_average_keeps_the_expected_target_and_takes_most_of_its_variance():
    """Against x₀ ~ N(0, 1): E[x̄₀ f(x_t)] = E[x₀ f(x_t)] for any f, and x̄₀ is near E[x₀ | x_t] = α x_t / (α² + σ²).

    Batches of 64, 1000 of them; six z-tests of 6 standard errors, false-positive rate 2e-9 each.
    """
    path, batches, n = PATHS["linear"](), 1000, 64
    gaps = []
    spread, left = 0.0, 0.0
    for seed in range(batches):
        x0, noise = normal((2, n, 1), seed)
        t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
        x_t = path.interpolate(x0, noise, t)
        mean, _ = posterior_mean(path, x0, noise, t)
        gap, u = (mean - x0)[:, 0], x_t[:, 0]
        gaps.append([(gap * f).mean() for f in (torch.ones(n), u, u**2, u.sin(), t * u, (u > 1).double())])
        exact = (1 - t) * u / ((1 - t) ** 2 + t**2)
        spread, left = spread + (x0[:, 0] - exact).square().mean(), left + (mean[:, 0] - exact).square().mean()
    gaps = torch.tensor(gaps)
    assert ((gaps.mean(0) / gaps.std(0) * batches**0.5).abs() < SIGMAS).all()
    assert left < 0.1 * spread


def test_a_label_shares_with_its_own_class_and_a_hidden_one_with_all():
    x0 = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]], dtype=torch.float64)
    label, hidden = torch.tensor([0, 0, 1, 1]), torch.tensor([False, True, False, False])
    allowed = hidden[:, None] | (label[:, None] == label)
    mean, _ = posterior_mean(PATHS["linear"](), x0, normal((4, 1), 0), torch.ones(4, dtype=torch.float64), allowed)
    # At t = 1 nothing is known of x₀ but its class.
    torch.testing.assert_close(mean[:, 0], torch.tensor([-1.5, 0.0, 1.5, 1.5], dtype=torch.float64), atol=1e-4, rtol=0)


def test_large_batches_share_in_blocks():
    x0, noise = normal((2, 3 * BLOCK + 5, 2), 3)
    t = torch.full((len(x0),), 0.3, dtype=torch.float64)
    mean, rest = posterior_mean(PATHS["linear"](), x0, noise, t)
    some = slice(BLOCK, 2 * BLOCK)
    alone = posterior_mean(PATHS["linear"](), x0[some], noise[some], t[some])
    torch.testing.assert_close((mean[some], rest[some]), alone)
