"""Held-out rows: their number, their classes, and none of a class's last."""

import pytest
import torch

from ebbflow.data.split import held_out
from ebbflow.errors import InputError


def test_no_class_is_swallowed():
    for counts in ([1] * 20, [1, 1, 98], [2] * 10, [50, 50], [3, 0, 1]):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        for share in (0.1, 0.5, 0.9):
            for seed in range(5):
                held = held_out(len(labels), share, labels, seed, keep_classes=True)
                left = torch.bincount(labels[~held], minlength=len(counts))
                assert ((left > 0) == (torch.tensor(counts) > 0)).all(), (counts, share, seed)
                free = held_out(len(labels), share, labels, seed)
                assert int(free.sum()) == min(max(1, round(share * len(labels))), len(labels) - 1)
                assert not bool((held & ~free).any())


def test_shares_out_of_range():
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="share must be at least 0 and below 1"):
            held_out(5, share)
    assert not held_out(5, 0.0).any()
    assert not held_out(1, 0.5).any()
