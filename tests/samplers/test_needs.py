"""What samplers can't do without is said in one sentence."""

import pytest
from torch import nn

from ebbflow.denoiser import Denoiser
from ebbflow.errors import InputError
from ebbflow.paths import Linear
from ebbflow.randomness import Draws
from ebbflow.samplers.needs import gaussian_end, needed
from problems import oracle

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
