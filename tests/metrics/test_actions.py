import math

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics import best_of, mean_absolute_error


def test_the_error_is_the_mean_over_what_is_real():
    truth = torch.tensor([[[0.0, 0.0], [1.0, 2.0]], [[4.0, 4.0], [4.0, 4.0]]])
    said = truth + torch.tensor([[[1.0, -1.0], [3.0, 3.0]], [[0.0, 0.0], [100.0, 100.0]]])
    real = torch.tensor([[[True], [True]], [[True], [False]]])
    row = mean_absolute_error(said, truth, real)
    assert row.value == pytest.approx(8 / 6)
    assert "holds its first action errs by 0.5;" in row.note  # (1 + 2) / 6
    assert mean_absolute_error(said, truth).value == pytest.approx(208 / 8)
    assert mean_absolute_error(said.double(), truth.double(), real).value == pytest.approx(8 / 6)
    assert mean_absolute_error(truth, truth).value == 0


def coverage(k, per, clustered):
    """How often of 200 times the interval covers the error's true mean, 1, where each episode has one level of it."""
    g = torch.Generator().manual_seed(0)
    episode = torch.arange(k).repeat_interleave(per) * 3 + 7  # any numbers will do
    covered = 0
    for _ in range(200):
        level = -torch.rand(k, generator=g).log()  # exponential
        gap = level.repeat_interleave(per)[:, None, None] * (0.5 + torch.rand(k * per, 3, 1, generator=g))
        truth = torch.zeros(k * per, 3, 1)
        row = mean_absolute_error(gap, truth, episode=episode if clustered else None)
        covered += row.low <= 1 <= row.high
    return covered / 200


@pytest.mark.parametrize(("k", "least"), [(40, 0.89), (10, 0.83)])
def test_the_interval_covers_what_it_should(k, least):
    """Levels as skewed as these leave 93 % for 40 episodes and 89 % for 10 (from 1000 times); three deviations less."""
    assert coverage(k, 8, clustered=True) >= least


def test_chunks_of_one_episode_are_no_repeats_of_each_other():
    """Taken for so many episodes, 25 chunks of one error level give an interval a fifth as wide."""
    assert coverage(20, 25, clustered=False) < 0.5
    assert coverage(40, 1, clustered=False) >= 0.89  # where each chunk is of its own


def test_the_interval_of_two_episodes_by_hand():
    """Draws of episodes with errors 1 and 3 give 1, 3 or, weighed by their 3 and 1 chunks, 6 / 4; the ends are those
    of all draws, for Student's t with one degree of freedom is 12.7."""
    said = torch.tensor([1.0, 1.0, 1.0, 3.0])[:, None, None].expand(4, 2, 1)
    row = mean_absolute_error(said, torch.zeros(4, 2, 1), episode=torch.tensor([5, 5, 5, 2]))
    assert (row.value, row.low, row.high) == (1.5, 1, 3)
    assert row.note.endswith("on 4 chunks of 2 episodes, too few for an interval to rely on")
    alone = mean_absolute_error(said, torch.zeros(4, 2, 1), episode=torch.zeros(4, dtype=torch.int64))
    assert alone.value == 1.5
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    assert alone.note.endswith("on 4 chunks of 1 episode, too few for an interval to rely on")
    many = mean_absolute_error(said.repeat(2, 1, 1), torch.zeros(8, 2, 1), episode=torch.arange(8) % 5)
    assert many.note.endswith("on 8 chunks of 5 episodes")


def test_the_best_of_some_draws_by_hand():
    """Beyond an episode's end nothing counts, so of the second chunk the first draw is best."""
    truth = torch.zeros(2, 2, 1)
    draws = torch.tensor([[[5.0, 5.0], [2.0, -2.0], [3.0, 3.0]], [[1.0, 100.0], [2.0, 2.0], [3.0, 0.0]]])[..., None]
    real = torch.tensor([[True, True], [True, False]])[..., None]
    row = best_of(draws, truth, real, torch.tensor([4, 9]))
    assert (row.name, row.value) == ("best of 3", pytest.approx((2 + 2 + 1) / 3))
    assert (row.low, row.high) == (1, 2)
    assert row.note.startswith("of 3 chunks for the same step, that nearest to what was done; ")
    assert "on 2 chunks of 2 episodes" in row.note
    assert best_of(draws, truth).value == pytest.approx((2 + 2 + 3 + 0) / 4)
    assert best_of(draws[:, :1], truth).value == mean_absolute_error(draws[:, 0], truth).value
    for shape in ((2, 2, 1), (2, 3, 3, 1), (3, 3, 2, 1), (2, 0, 2, 1)):
        with pytest.raises(InputError, match=r"draws \(n, k, h, a\) for carried_out, \(2, 2, 1\); got"):
            best_of.__wrapped__(torch.zeros(shape), truth)


def test_a_policy_of_two_ways_is_best_where_their_mean_is_not():
    """Ways at -1 and 1: half of its draws are off by 2, on average by 1 as the mean is; all of 8 in 1 of 256 steps."""
    g = torch.Generator().manual_seed(0)
    way = lambda *shape: 2.0 * torch.randint(2, shape, generator=g) - 1
    truth, draws = way(2000, 1, 1), way(2000, 8, 1, 1)
    assert mean_absolute_error(draws[:, 0], truth).value == pytest.approx(1, abs=0.135)  # 6 standard errors
    assert best_of(draws, truth).value < 0.02
    assert best_of(0 * draws, truth).value == 1


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"shape of carried_out, \(2, 3, 1\); got \(2, 4, 1\)"):
        mean_absolute_error.__wrapped__(torch.zeros(2, 4, 1), torch.zeros(2, 3, 1))
    with pytest.raises(InputError, match="shape of carried_out"):
        mean_absolute_error(torch.zeros(0, 4, 1), torch.zeros(0, 4, 1))
