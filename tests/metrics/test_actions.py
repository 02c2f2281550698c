import pytest
import torch

from ebbflow.errors import InputError
from ebbflow.metrics import mean_absolute_error


def test_the_error_is_the_mean_over_what_is_real():
    truth = torch.tensor([[[0.0, 0.0], [1.0, 2.0]], [[4.0, 4.0], [4.0, 4.0]]])
    said = truth + torch.tensor([[[1.0, -1.0], [3.0, 3.0]], [[0.0, 0.0], [100.0, 100.0]]])
    real = torch.tensor([[[True], [True]], [[True], [False]]])
    row = mean_absolute_error(said, truth, real)
    assert row.value == pytest.approx(8 / 6)
    assert "holds its first action errs by 0.5;" in row.note  # (1 + 2) / 6
    assert mean_absolute_error(said, truth).value == pytest.approx(208 / 8)
    assert mean_absolute_error(truth, truth).value == 0


def test_the_interval_covers_what_it_should():
    """Of 200 sets of 40 chunks with error 1 on average, 95 % should cover 1: at least 88 % do, but for 1 in 10^4."""
    g = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        gap = -torch.rand(40, 1, 1, generator=g).log()  # exponential, one for the whole chunk
        row = mean_absolute_error(gap.expand(40, 3, 2), torch.zeros(40, 3, 2))
        covered += row.low <= 1 <= row.high
    assert covered >= 176


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"shape of carried_out, \(2, 3, 1\); got \(2, 4, 1\)"):
        mean_absolute_error.__wrapped__(torch.zeros(2, 4, 1), torch.zeros(2, 3, 1))
    with pytest.raises(InputError, match="shape of carried_out"):
        mean_absolute_error(torch.zeros(0, 4, 1), torch.zeros(0, 4, 1))
