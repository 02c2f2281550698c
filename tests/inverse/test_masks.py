"""A mask is a tensor of bools, and nothing else."""

import jaxtyping
import numpy as np
import pytest
import torch

from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.inverse.masks import boolean
from ebbtide.inverse.posterior import masked
from ebbtide.inverse.repaint import repaint
from ebbtide.samplers import walk
from problems import float64, last, oracle


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_a_mask_of_anything_but_bools_is_refused(dtype, monkeypatch):
    """[0, 0, 1, 1] as indices would take the first two values; as bools it is the last two."""
    known, mask = float64(10, 20, 30, 40)[None], torch.tensor([0, 0, 1, 1])
    assert masked(known, mask.bool()).y.tolist() == [[30, 40]]
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses them first
    with pytest.raises(InputError, match="bools"):
        masked(known, mask.to(dtype))
    times, draws = float64(1, 0.5, 0), Draws.first(1, 0)
    with pytest.raises(InputError, match="bools"):
        last(walk(repaint, oracle(Linear(), 4), known, times, draws=draws, known=known, mask=mask.to(dtype)))


@pytest.mark.parametrize("mask", [[True], np.ones(1, bool), None, 1, "known"], ids=lambda mask: type(mask).__name__)
def test_what_is_no_tensor_is_no_mask(mask):
    with pytest.raises(InputError, match=rf"^here: a mask must be a tensor of bools, .*; got {type(mask).__name__}\.$"):
        boolean(mask, "here")
