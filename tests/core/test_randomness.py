"""Numbers are functions of their address: reproducible, independent of the batch, and normal.

Each statistical assertion has a false-positive rate of at most 1e-8 (6 standard errors, or KS at 3e-9).
"""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from ebbtide.core.randomness import Draws, far_apart, generator, key, keyed
from ebbtide.errors import InputError
from problems import FALSE_POSITIVE, SIGMAS

N = 1_000_000


def numbers(seed=0, step=0, n=1000, shape=(1,), start=0, dtype=torch.float64):
    return Draws.first(n, seed, start)(step, torch.empty(n, *shape, dtype=dtype))


def correlation(a, b):
    a, b = a.flatten(), b.flatten()
    return float((a * b).mean()) * math.sqrt(len(a))  # in standard errors, as both are standard normal


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (2, 3, 5)])
def test_a_sample_is_the_same_alone_in_a_batch_and_in_any_order(shape):
    together = numbers(seed=3, step=7, n=20, shape=shape)
    for i in (0, 1, 13, 19):
        alone = Draws(3, torch.tensor([i]))(7, torch.empty(1, *shape, dtype=torch.float64))
        assert torch.equal(alone[0], together[i])
    order = torch.tensor([19, 4, 4, 0])
    assert torch.equal(Draws(3, order)(7, torch.empty(4, *shape, dtype=torch.float64)), together[order])
    assert torch.equal(numbers(seed=3, step=7, n=5, shape=shape, start=8), together[8:13])


def test_odd_sizes_are_prefixes_of_even_ones():
    assert torch.equal(numbers(shape=(5,)), numbers(shape=(6,))[:, :5])


def test_single_precision_is_the_rounded_double():
    assert torch.equal(numbers(dtype=torch.float32), numbers().float())
    assert numbers(dtype=torch.float32).dtype == torch.float32


def test_small_ids_of_any_integer_type_are_the_same_address():
    x = torch.empty(3, 2)
    assert torch.equal(Draws(1, torch.arange(3, dtype=torch.int32))(0, x), Draws.first(3, 1)(0, x))


def test_the_same_address_twice_is_the_same_number():
    assert torch.equal(numbers(5, 2), numbers(5, 2))
    state = torch.random.get_rng_state()
    numbers(5, 2)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(1,), (4,)])
def test_numbers_are_standard_normal(shape):
    """Kolmogorov-Smirnov on 1e6 (sees a cdf off by 0.0033), moments to the 4th, and a tail count at 3σ."""
    z = numbers(n=N // shape[0], shape=shape).flatten()
    assert scipy.stats.kstest(z.numpy(), scipy.stats.norm.cdf).pvalue > FALSE_POSITIVE
    # The variances of z, z², z³, z⁴ are 1, 2, 15 and 96.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < SIGMAS * math.sqrt(variance / N)
    tail = 2 * scipy.stats.norm.sf(3)
    assert abs(float((z.abs() > 3).double().mean()) - tail) < SIGMAS * math.sqrt(tail / N)
    assert float(z.abs().max()) > 4


def test_neighbouring_addresses_are_uncorrelated():
    """Seeds, steps, samples and elements next to each other: products of z, and of z² - 1, average to 0."""
    base = numbers(n=N // 4, shape=(4,))
    others = {
        "seed": numbers(seed=1, n=N // 4, shape=(4,)),
        "step": numbers(step=1, n=N // 4, shape=(4,)),
        "prior": numbers(step=-1, n=N // 4, shape=(4,)),
        "sample": base.roll(1, 0),
        "element": base.roll(1, 1),
        "pair": base[:, [1, 0, 3, 2]],
        "id and element": base.roll((1, 1), (0, 1)),
    }
    for name, other in others.items():
        assert abs(correlation(base, other)) < 1.5 * SIGMAS, name  # twice the terms where pairs repeat
        squares = ((base**2 - 1) / math.sqrt(2), (other**2 - 1) / math.sqrt(2))
        assert abs(correlation(*squares)) < 2 * SIGMAS, name


def test_no_two_samples_share_a_number():
    """1e6 doubles from 2 × 32 bits: no exact duplicates across ids, steps or seeds (chance 1e-6)."""
    z = torch.cat([numbers(seed, step, n=5000, shape=(2,)).flatten() for seed in range(5) for step in range(-1, 9)])
    assert len(z.unique()) == len(z)


@pytest.mark.unchecked
def test_a_numpy_integer_is_a_seed():
    x = torch.empty(3, 2)
    for draws in (Draws.first(3, np.int64(7)), Draws(np.int64(7), torch.arange(3))):
        assert torch.equal(draws(1, x), Draws.first(3, 7)(1, x))


def test_first_counts_from_start():
    assert Draws.first(3, 0).ids.tolist() == [0, 1, 2]
    assert Draws.first(3, 0, 5).ids.tolist() == [5, 6, 7]


@pytest.mark.unchecked
def test_wrong_arguments_are_one_sentence():
    for make, says in [
        (lambda: Draws.first("4", 0), "n must be a whole number, at least 0 and at most 1000000000; got '4'."),
        (lambda: Draws.first(10**15, 0), "n must be at least 0 and at most 1000000000; got 1000000000000000."),
        (lambda: Draws.first(4, 0, start=0.5), "start must be a whole number, at least 0 and at most "),
        (lambda: Draws.first(4, -1), "seed must be at least 0 and at most "),
        (lambda: Draws(True, torch.arange(4)), "seed must be a whole number, at least 0 and at most "),
        (lambda: Draws(0, [1, 2]), "ids must be a tensor; got [1, 2]."),
    ]:
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value).startswith(says)


def test_keys_tell_addresses_apart():
    addresses = [
        (),
        (0,),
        (0, 0),
        (1,),
        (-1,),
        (1, 2),
        (2, 1),
        (1, "order", 2),
        (2, "order", 1),
        (1, 2, "order"),
        ("order", 1, 2),
        ("ab",),
        ("a", "b"),
        ("ba",),
        ("", "ab"),
        (97, 98),
        ("1",),
        (2**63,),
        (2**64 - 2,),
    ]
    keys = [key(*address) for address in addresses]
    assert len(set(keys)) == len(keys)
    assert all(0 <= k < 2**64 for k in keys)
    assert keys == [key(*address) for address in addresses]


def test_keys_avalanche():
    """One bit of the address flips half of the key's bits: mean of 64 · 2000 bits within 6 standard errors."""
    flips = [bin(key(i, "x") ^ key(i ^ 1 << i % 64, "x")).count("1") for i in range(2000)]
    assert abs(sum(flips) / 2000 - 32) < SIGMAS * 4 / math.sqrt(2000)


def test_generators_are_their_address():
    first, again, other = (torch.rand(4, generator=generator(*a)) for a in ((7, "t", 1), (7, "t", 1), (7, "t", 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert generator(0).initial_seed() == key(0)


def test_keys_are_pinned():
    """Checkpoints resume and samples repeat across versions only while these stay as they are.

    SplitMix64's published first output from state 0 is 0xE220A8397B1DCDAF: the hash of the one-word address (0,).
    """
    assert key(0) == 0xE220A8397B1DCDAF


def test_a_keyed_generator_is_lent_and_given_back():
    """Torch's own generator draws by the address inside, and goes on outside as if nothing had been."""
    cpu = torch.device("cpu")
    torch.manual_seed(5)
    expected = torch.rand(3), torch.rand(3)
    torch.manual_seed(5)
    first = torch.rand(3)
    with keyed(cpu, 1, "dropout", 7):
        inside = torch.rand(4)
    assert torch.equal(first, expected[0])
    assert torch.equal(torch.rand(3), expected[1])
    with keyed(cpu, 1, "dropout", 7):
        assert torch.equal(torch.rand(4), inside)
    with keyed(cpu, 1, "dropout", 8):
        assert not torch.equal(torch.rand(4), inside)


def test_rows_far_apart_are_of_every_cluster_and_equal_rows_are_no_error():
    x = torch.arange(4.0).repeat_interleave(25)[:, None] * 100 + torch.rand(100, 1, generator=generator(1))
    for seed in range(20):
        chosen = far_apart(x, 4, generator(seed))
        assert sorted(place // 25 for place in chosen) == [0, 1, 2, 3]
        assert chosen == far_apart(x, 4, generator(seed))
    assert len(far_apart(torch.ones(5, 2), 3, generator(0))) == 3
