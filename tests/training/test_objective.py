"""The recipe's loss as a module."""

import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.networks import MLP
from ebbtide.training.objective import Objective, draws
from training.runs import tiny

NONE = {"average": None, "teacher": None, "judges": None}


def test_it_is_the_denoisers_loss_by_default():
    torch.manual_seed(0)
    denoiser = Denoiser(MLP(2, width=8, depth=1), Linear())
    batch = {"x0": torch.randn(5, 2), "noise": torch.randn(5, 2), "t": torch.rand(5)}
    assert torch.equal(Objective(denoiser, tiny(), NONE)(**batch), denoiser.loss(**batch))


def test_a_leap_of_a_pair_by_hand():
    """On the linear path x_t = (1 - t) x₀ + t ε, whose slope is ε - x₀ everywhere."""
    denoiser = Denoiser(MLP(1, width=8, depth=1, spans=True), Linear())
    objective = Objective(denoiser, tiny(loss="trajectory", network="mlp:spans=true"), NONE)
    x0, noise = torch.tensor([[2.0]]), torch.tensor([[6.0]])
    leap = objective.leap(t=torch.tensor([0.75]), to=torch.tensor([0.25]), x0=x0, noise=noise)
    assert (leap.x_t.item(), leap.x_to.item(), leap.slope.item()) == (5.0, 3.0, 4.0)


def test_a_part_that_draws_is_dropout_or_says_so():
    class Shift(nn.Module):
        draws = True

    parts = [nn.Dropout(0.1), nn.Dropout2d(0.1), Shift(), nn.Dropout(0.0), nn.Linear(1, 1)]
    assert [draws(part) for part in parts] == [True, True, True, False, False]
