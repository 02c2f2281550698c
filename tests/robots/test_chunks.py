"""Chunks of a denoiser: the robot's units and the network's, its context once, and nothing dropped out."""

import math

import pytest
import torch
from torch import nn

from ebbtide.codecs.columns import Standardise
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.inverse.chunking import Previous
from ebbtide.robots.chunks import DenoiserChunks


class Dropping(nn.Linear):
    """A network that drops half of what it says in training."""

    def forward(self, x, t, *, state):
        return nn.functional.dropout(torch.ones_like(x), 0.5, self.training)


def test_a_policy_drops_nothing_out():
    """Whatever its network was left in. A velocity of 1 leads from t = 1 to 1 less."""
    denoiser, draws = Denoiser(Dropping(1, 1), Linear()).train(), Draws.first(1, 0)
    chunks = DenoiserChunks(denoiser, (8, 4), {"state": (1, 1)}, steps=1)
    x = chunks.sample_chunks({"state": torch.zeros(1, 1, 1)}, draws=draws)
    torch.testing.assert_close(x, draws(-1, torch.empty(1, 8, 4)) - 1)


def test_chunks_begin_with_the_noise_that_is_given():
    """A velocity of 1 leads from it to 1 less, whatever the draws."""
    denoiser, noise = Denoiser(Dropping(1, 1), Linear()), torch.randn(2, 8, 4)
    chunks = DenoiserChunks(denoiser, (8, 4), {"state": (1, 1)}, steps=1)
    for seed in (0, 1):
        x = chunks.sample_chunks({"state": torch.zeros(2, 1, 1)}, draws=Draws.first(2, seed), noise=noise)
        torch.testing.assert_close(x, noise - 1)


class Conditioned(nn.Module):
    """The exact velocity for chunks N(2 state, 1), with what depends on the state alone kept aside."""

    def __init__(self):
        super().__init__()
        self.encoded, self.scale = 0, nn.Parameter(torch.tensor(2.0))

    def context(self, **observation):
        self.encoded += 1
        return {"mean": self.scale * observation["state"][:, -1:, :1]}

    def forward(self, x, t, *, label=None, context=None, **observation):
        mean = (context or self.context(**observation))["mean"]
        t = t[:, None, None]
        noise = t * (x - (1 - t) * mean) / ((1 - t) ** 2 + t**2)
        return noise - (mean + (1 - t) * (x - (1 - t) * mean) / ((1 - t) ** 2 + t**2))


def chunks_of(network, **options):
    return DenoiserChunks(
        Denoiser(network, Linear()),
        (4, 1),
        {"state": (2, 1)},
        n_obs_steps=2,
        codec=Standardise((10.0,), (3.0,)),
        inputs={"state": Standardise((1.0,), (2.0,))},
        **options,
    )


def test_units_and_context():
    """State 5 is 2 for the network, whose mean chunk 4 is 22 for the robot, ± 3."""
    network = Conditioned()
    source = chunks_of(network, steps=20, sampler="heun")
    n = 400
    observation = {"state": torch.tensor([1.0, 5.0])[None, :, None].expand(n, -1, -1)}
    chunks = source.sample_chunks(observation, draws=Draws.first(n, 0))
    assert network.encoded == 1
    assert float(chunks.mean()) == pytest.approx(22, abs=6 * 3 / math.sqrt(4 * n))
    assert float(chunks.std()) == pytest.approx(3, abs=0.4)
    assert not network.training


def test_real_time_chunks_in_the_robots_units():
    """Committed to 25, then free: the chunk's numbers are independent, so the others stay around 22."""
    source, n = chunks_of(Conditioned(), steps=10, solve=2), 400
    observation = {"state": torch.full((n, 2, 1), 5.0)}
    weights = torch.tensor([1.0, 0, 0, 0]).expand(n, 4)
    chunks = source.sample_chunks(
        observation, draws=Draws.first(n, 0), previous=Previous(torch.full((n, 4, 1), 25.0), weights)
    )
    torch.testing.assert_close(chunks[:, 0], torch.full((n, 1), 25.0), rtol=0, atol=0.02)
    assert float(chunks[:, 1:].mean()) == pytest.approx(22, abs=0.6)


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoiser": None}, "denoiser must be a function; got None."),
        ({"shape": [8, 1]}, "shape must be a tuple; got [8, 1]."),
        ({"observation": "state"}, "observation must be a Mapping; got 'state'."),
        ({"codec": "none"}, "codec must be a Codec or None; got 'none'."),
        ({"inputs": []}, "inputs must be a Mapping; got []."),
        ({"robot": "arm"}, "robot must be a Robot; got 'arm'."),
        ({"n_obs_steps": 1.5}, "n_obs_steps must be a whole number, at least 1; got 1.5."),
        ({"n_action_steps": 0}, "n_action_steps must be at least 1; got 0."),
        ({"bound": -1.0}, "bound must be at least 0 and finite; got -1.0."),
        ({"bound": math.nan}, "bound must be at least 0 and finite; got nan."),
    ],
)
def test_wrong_options_are_one_sentence(options, message):
    given = {"denoiser": Denoiser(Dropping(1, 1), Linear()), "shape": (8, 1), "observation": {"state": (1, 1)}}
    with pytest.raises(InputError) as caught:
        DenoiserChunks(**given | options)
    assert str(caught.value) == message
