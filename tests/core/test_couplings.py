"""Couplings permute the noise: nothing dropped, the best pairs, and each class's own noise left to it."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.core.couplings import (
    COUPLINGS,
    class_aware_ot,
    entropic_ot,
    independent,
    minibatch_ot,
    partial_ot,
)
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


@pytest.mark.unchecked
def test_wrong_shapes_are_one_sentence():
    x0, x1 = noise_like(2, 4, 2).unbind()
    for couple, says in [
        (lambda: minibatch_ot([1, 2], x1), "x0 must be a tensor; got [1, 2]."),
        (
            lambda: minibatch_ot(x0, x1[:2]),
            "x1 must be a tensor or array of shape (4, 2); got a tensor of shape (2, 2).",
        ),
        (
            lambda: class_aware_ot(x0, x1, [0, 1, 0, 1]),
            "labels must be a tensor or array of shape (4,); got [0, 1, 0, 1].",
        ),
    ]:
        with pytest.raises(InputError) as caught:
            couple()
        assert str(caught.value) == says


def test_gradients_and_devices_are_left_alone():
    x0, x1 = noise_like(2, 4, 2).float().unbind()
    before = x1.clone()
    assert class_aware_ot(x0, x1, torch.tensor([0, 0, 1, 1])).dtype == torch.float32
    assert torch.equal(x1, before)


# --- Sinkhorn's and partial transport -------------------------------------------------------------------------------


def plan_of(x0, x1, epsilon):
    """POT's plan, in which each row sums to 1, and the costs."""
    import ot

    cost = torch.cdist(x0, x1).square()
    even = torch.full((len(x0),), 1 / len(x0), dtype=torch.float64).numpy()
    reg = epsilon * float(cost.mean())
    plan = ot.bregman.sinkhorn_log(even, even, cost.numpy(), reg, numItermax=20000, stopThr=1e-9)
    return len(x0) * torch.from_numpy(plan), cost


def test_sinkhorn_towards_0_is_ot_and_with_a_large_epsilon_any_permutation():
    x0, x1 = noise_like(2, 40, 2).double().unbind()
    assert torch.equal(entropic_ot(x0, x1, epsilon=1e-9, draw=torch.Generator().manual_seed(1)), minibatch_ot(x0, x1))
    draw = torch.Generator().manual_seed(0)
    first = torch.stack([(entropic_ot(x0, x1, epsilon=1e6, draw=draw)[0] == x1).all(1).int() for _ in range(4000)])
    # Each of 40 places has a share of 1/40: χ² with 39 degrees of freedom, below 130 but for 1e-11.
    assert float(((first.sum(0) - 100.0) ** 2 / 100).sum()) < 130


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.5])
def test_sinkhorns_permutations_have_the_plans_pairs_and_its_cost(epsilon):
    """Of 2000 permutations the share of each pair is the plan's, 10 % of a row's probability apart at most.

    The noise of 2000 draws is 2 % of that; the rest is what drawing without replacement changes. Their mean cost is
    the plan's within 2 %, where exact and independent pairs are 40 % apart.
    """
    x0, x1 = noise_like(2, 16, 2, seed=3).double().unbind()
    x1 = x1 + torch.tensor([2.0, 0.0])
    plan, cost = plan_of(x0, x1, epsilon)
    torch.testing.assert_close(plan.sum(1), torch.ones(16, dtype=torch.float64), atol=1e-6, rtol=0)
    draw = torch.Generator().manual_seed(0)
    shares = torch.zeros(16, 16, dtype=torch.float64)
    for _ in range(2000):
        coupled = entropic_ot(x0, x1, epsilon=epsilon, draw=draw)
        shares[torch.arange(16), torch.cdist(coupled, x1).argmin(1)] += 1 / 2000
    assert float((shares - plan).abs().sum(1).mean()) / 2 < 0.1
    assert float((shares * cost).sum()) == pytest.approx(float((plan * cost).sum()), rel=0.02)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_partial_transport_pairs_its_share_as_pots_does(share, seed):
    import ot

    n = 20
    x0, x1 = noise_like(2, n, 2, seed=seed).double().unbind()
    cost, even = torch.cdist(x0, x1).square(), torch.full((n,), 1 / n, dtype=torch.float64).numpy()
    plan = n * torch.from_numpy(ot.partial.partial_wasserstein(even, even, cost.numpy(), m=share))
    paired = (partial_ot(x0, x1, share=share)[:, None] == x1).all(2)
    chosen = plan > 0.5
    assert int(chosen.sum()) == round(share * n)
    assert bool(paired[chosen].all())


def test_partial_transport_of_all_is_ot_and_of_none_leaves_the_noise_alone():
    x0, x1 = noise_like(2, 30, 3).unbind()
    assert torch.equal(partial_ot(x0, x1, share=1.0), minibatch_ot(x0, x1))
    assert torch.equal(partial_ot(x0, x1, share=0.0), x1)


def test_an_outlier_takes_no_pair_from_others_in_partial_transport():
    """Of 50 points near 0 and one at 1000, the cheapest 50 pairs are those without it."""
    x0, x1 = noise_like(51, 1, seed=1).double(), noise_like(51, 1, seed=2).double()
    x0[7] = 1000
    coupled = partial_ot(x0, x1, share=50 / 51)
    assert float((coupled - x0)[torch.arange(51) != 7].square().sum()) <= float(
        (minibatch_ot(x0, x1) - x0)[torch.arange(51) != 7].square().sum()
    )


@pytest.mark.unchecked
def test_an_option_out_of_its_range_is_one_sentence():
    x = noise_like(4, 2)
    with pytest.raises(InputError, match=r"^epsilon must be above 0 and finite; got 0\.$"):
        entropic_ot(x, x, epsilon=0)
    with pytest.raises(InputError, match=r"^share must be at least 0 and at most 1; got 1\.1\.$"):
        partial_ot(x, x, share=1.1)
