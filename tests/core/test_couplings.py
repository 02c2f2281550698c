"""Couplings permute the noise: nothing dropped, the best pairs, and each class's own noise left to it."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.core.couplings import COUPLINGS, class_aware_ot, independent, minibatch_ot
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
