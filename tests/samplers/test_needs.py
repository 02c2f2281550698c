"""What samplers can't do without is said in one sentence."""

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.inverse.posterior import masked
from ebbtide.inverse.repaint import repaint
from ebbtide.samplers.needs import boolean, gaussian_end, needed
from problems import float64, last, oracle

BETWEEN = Denoiser(nn.Identity(), Linear(), gaussian_end=False)


def test_a_gaussian_end_is_enough():
    draws = Draws.first(2, 0)
    gaussian_end(oracle(Linear()), "this")
    assert needed(oracle(Linear()), draws, "this") is draws


@pytest.mark.parametrize(
    "ask", [lambda: gaussian_end(BETWEEN, "this"), lambda: needed(BETWEEN, Draws.first(1, 0), "this")]
)
def test_two_sample_sets_are_refused(ask):
    says = (
        r"^this needs a path from Gaussian noise: between two sample sets there is only a velocity; "
        r"use an ODE sampler such as euler or heun\.$"
    )
    with pytest.raises(InputError, match=says):
        ask()


def test_no_draws_are_refused():
    with pytest.raises(InputError, match=r"^this is stochastic and needs draws=Draws\.first\(n, seed\)\.$"):
        needed(oracle(Linear()), None, "this")


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
        last(repaint(oracle(Linear(), 4), known, times, draws=draws, known=known, mask=mask.to(dtype)))


@pytest.mark.parametrize("mask", [[True], np.ones(1, bool), None, 1, "known"], ids=lambda mask: type(mask).__name__)
def test_what_is_no_tensor_is_no_mask(mask):
    with pytest.raises(InputError, match=rf"^here: a mask must be a tensor of bools, .*; got {type(mask).__name__}\.$"):
        boolean(mask, "here")
