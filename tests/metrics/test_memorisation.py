import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics import copied_share, nearest
from ebbtide.metrics.memorisation import copy_distance, nearness, nearness_interval


def pictures(n, seed, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def test_three_pictures_by_hand():
    """From (0, 0): (30, 40) is √((900 + 1600)/2) = 35.36 grey levels off, (255, 0) 180. From (250, 0) the latter is
    √(25/2); uint8 differences would wrap to 251."""
    train = torch.tensor([[[[30, 40]]], [[[255, 0]]]], dtype=torch.uint8)
    samples = torch.tensor([[[[0, 0]]], [[[250, 0]]]], dtype=torch.uint8)
    found = nearest(samples, train)
    assert found.index.tolist() == [0, 1]
    assert found.distance.tolist() == pytest.approx([1250**0.5, 12.5**0.5])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 9000), (300, 4097), (257, 50)])
def test_strips_agree_with_all_pairs(n, m):
    x, y = pictures(n, 0), pictures(m, 1)
    found = nearest(x, y)
    away = torch.cdist(x.flatten(1).double(), y.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected, _ = away.min(1)
    torch.testing.assert_close(found.distance, expected / 4)  # 16 values: √16
    torch.testing.assert_close(away.gather(1, found.index[:, None])[:, 0], expected)


def test_a_copy_is_at_zero_and_the_first_of_equals_is_named():
    train = pictures(5000, 0)
    train[4500] = train[17]
    found = nearest(train[[17, 4500, 4999]], train)
    assert found.distance.tolist() == [0, 0, 0]
    assert found.index.tolist() == [17, 17, 4999]


def test_floats_far_from_the_origin():
    y = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e7
    found = nearest(y[:50] + 1e-6, y)
    assert found.index.tolist() == list(range(50))
    np.testing.assert_allclose(found.distance, 1e-6, rtol=0.01)


def test_copies_are_nearer_than_one_held_out_image_in_a_hundred():
    """Held-out distances 1, 2, …, 1000: the nearest 1 % are those up to 10."""
    held = torch.arange(1, 1001, dtype=torch.float64)
    assert copy_distance(held) == 10
    assert copied_share(held, held) == 0.01
    assert copied_share(torch.tensor([0.0, 10.0, 11.0, 500.0], dtype=torch.float64), held) == 0.5
    assert copied_share(held, held, share=0.1) == 0.1
    assert copied_share(torch.zeros(7), held) == 1


def test_where_held_out_images_are_copies_too():
    """5 % of the held-out images are in the training set: so many copies are no surprise, but more are."""
    held = torch.cat([torch.zeros(5), torch.arange(1.0, 96.0)])
    assert copied_share(held, held) == pytest.approx(0.05)
    assert copied_share(torch.tensor([0.0, 0.0, 0.0, 3.0]), held) == 0.75


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearest(torch.zeros(0, 1, 2, 2), torch.zeros(3, 1, 2, 2)),
        lambda: nearest(torch.zeros(3, 1, 2, 2), torch.zeros(0, 1, 2, 2)),
        lambda: nearest(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 4, 1)),
        lambda: nearest(torch.full((3, 2), float("nan")), torch.zeros(3, 2)),
        lambda: copied_share(torch.zeros(0), torch.zeros(3)),
        lambda: copied_share(torch.zeros(3), torch.zeros(0)),
    ],
)
def test_unusable_images_are_one_sentence(call):
    with pytest.raises(InputError, match=r"^[^\n]*\.$"):
        call()


def test_where_most_rows_are_equal_means_are_compared():
    """Medians of 0 say nothing; the held-out rows' mean is 1, the samples' 1.5."""
    held, samples = torch.tensor([0.0, 0.0, 0.0, 4.0]), torch.tensor([0.0, 0.0, 0.0, 6.0])
    assert nearness(samples, held) == 1.5
    low, high = nearness_interval(samples, held)
    assert low < 1.5 < high
    assert nearness(torch.zeros(3), torch.zeros(4)) == 1
