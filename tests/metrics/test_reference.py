import pytest
import torch

from ebbtide.metrics import measure
from ebbtide.metrics.reference import Near, real_labels, two_sets
from metrics.clouds import three_gaussians

pytestmark = pytest.mark.unchecked


def rows(n, first=0):
    """n different points, each labelled by its number."""
    number = torch.arange(first, first + n)
    return number.double()[:, None], number


def test_no_set_is_held_against_itself():
    """Each floor is of two sets that share nothing: no row stands at the same 0, 0.01 or 1 as a set beside itself."""
    samples, train, held = (three_gaussians(n, seed) for n, seed in ((300, 1), (600, 2), (400, 3)))
    itself = {"nearest training row": 1.0, "copies": 0.01}
    for found in (measure(samples, three_gaussians), measure(samples, held), measure(samples, held, train=train)):
        for row in found:
            if row.name not in ("non-finite", "exact copies"):
                assert row.floor_low < row.floor_high, row.name
                assert itself.get(row.name, 0.0) not in (row.floor_low, row.floor_high), row.name


def test_two_sets_share_no_row_and_each_label_stays_with_its_point():
    drawn = lambda n, seed: rows(n, seed)
    for reference, train, sizes in (
        (rows(21), None, (10, 10)),
        (rows(21), rows(9, 100), (4, 21)),  # at most half of the training rows, and all that was held out
        (drawn, None, (12, 12)),
    ):
        (x, of_x), (y, of_y) = two_sets(reference, train, 12, seed=0, repeat=3)
        assert (len(x), len(y)) == sizes
        assert x[:, 0].tolist() == of_x.tolist()
        assert y[:, 0].tolist() == of_y.tolist()
        assert not {*of_x.tolist()} & {*of_y.tolist()}
        assert two_sets(reference, train, 12, seed=0, repeat=4)[0][1].tolist() != of_x.tolist()


def test_near_floors_hold_one_half_of_the_held_out_rows_against_the_other():
    near = Near(torch.zeros(3), torch.arange(7.0), seed=0)
    floor = near.floor(0)
    assert (len(floor["distance"]), len(floor["held_distance"])) == (4, 3)
    assert sorted([*floor["distance"].tolist(), *floor["held_distance"].tolist()]) == list(range(7))


def test_distances_to_training_rows_are_in_units_of_each_column_s_spread():
    """Columns of spread √(32/3)·10ᵏ: one step of 1 in the first, or of 1000 in the last, is equally far."""
    train = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8000.0], [8.0, 8000.0]])
    near = Near.of(torch.tensor([[1.0, 0.0], [0.0, 1000.0]]), train, train, seed=0)
    assert near.samples[0] == pytest.approx(float(near.samples[1]))
    assert near.held.tolist() == [0] * 4


def test_labels_of_arrays_are_known_beforehand_and_a_function_s_by_a_draw():
    assert real_labels(rows(3), rows(2, 7), torch.tensor([50]), None) == {0, 1, 2, 7, 8, 50}
    assert real_labels(lambda n, seed: rows(n), None, torch.tensor([4, 5])) == {4, 5}
