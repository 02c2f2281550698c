"""A critic's loss and that of what it judges, by hand."""

import math

import pytest
import torch
from torch import nn

from ebbtide.losses.critic import NUDGE, discern, misled


class Sums(nn.Module):
    """A critic that returns w Σx, w = 3."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.weight * x.sum(1)


REAL, MADE, NUDGED = (torch.tensor([row]) for row in ([1.0, 0.0], [1.0, 1.0], [1.0, 0.0]))


def test_a_critics_loss_by_hand():
    """Scores 3 and 6: log(1 + e³), and the difference of 3 h over h, squared: 9."""
    critic = Sums()
    assert float(discern(critic, REAL, MADE, 0.0, NUDGED)) == pytest.approx(math.log(1 + math.exp(3)))
    assert float(discern(critic, REAL, MADE, 0.5, NUDGED)) == pytest.approx(math.log(1 + math.exp(3)) + 4.5, rel=1e-4)
    assert NUDGE < 0.1


def test_what_is_made_misleads_a_critic_that_stands_still():
    """Scores 3 for what is real and 6: log(1 + e⁻³), of slope -3 / (1 + e³) in each number of what is made."""
    critic, made = Sums(), MADE.clone().requires_grad_(True)
    loss = misled(critic, critic, REAL, made)
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)
    loss.sum().backward()
    torch.testing.assert_close(made.grad, torch.full((1, 2), -3 / (1 + math.exp(3))))
    assert critic.weight.grad is None
    assert critic.weight.requires_grad
