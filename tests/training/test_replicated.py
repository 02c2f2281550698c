"""The replicated engine: all weights on every process, as one vector."""

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.networks.mlp import MLP
from ebbtide.training.ema import ema_decay
from ebbtide.training.schedule import learning_rate
from training.runs import tiny, trainer


def test_a_step_is_clip_adamw_and_average():
    """Against autograd and torch's AdamW on the network's own tensors, for three steps, clipping in force."""
    recipe = tiny(clip=0.05, weight_decay=0.2, lr=0.01, steps=8, warmup=0.25)
    run, plain = trainer(recipe), trainer(recipe)
    network = Denoiser(MLP(2, width=8, depth=2), Linear())
    network.load_state_dict(plain.denoiser.state_dict())
    parameters = dict(network.named_parameters())
    groups = [
        {"params": [p for p in parameters.values() if p.ndim == 2], "weight_decay": 0.2},
        {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    average = {name: p.detach().clone() for name, p in parameters.items()}
    clipped = 0
    for step, record in zip(range(3), run.steps()):
        loss = network.loss(**plain.batch(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters.values(), 0.05)
        clipped += norm > 0.05
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 8, 0.01, 2)
        optimizer.step()
        for name, p in parameters.items():
            average[name].mul_(ema_decay(step, recipe.ema)).add_(p.detach(), alpha=1 - ema_decay(step, recipe.ema))
        assert record.step == step + 1
        assert record.loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert record.grad_norm == pytest.approx(float(norm), rel=1e-4)
        assert record.lr == pytest.approx(optimizer.param_groups[0]["lr"])
    assert clipped
    for name, p in run.denoiser.named_parameters():
        torch.testing.assert_close(p, parameters[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(run.averaged()[name], average[name], rtol=1e-4, atol=1e-6)


def test_clipping_scales_the_gradient_it_does_not_cut_it():
    run = trainer(tiny(clip=0.1))
    run.engine.flat.gradient.copy_(torch.linspace(-3, 3, len(run.engine.flat.gradient)))
    before = run.engine.flat.gradient.clone()
    run.engine.update(0.0, float(before.norm()))
    torch.testing.assert_close(run.engine.flat.gradient, before * (0.1 / before.norm()))
    run.engine.update(0.0, float(run.engine.flat.gradient.norm()) * 0.5)
    torch.testing.assert_close(run.engine.flat.gradient, before * (0.1 / before.norm()))


def test_the_average_is_lent_to_the_network_and_taken_back():
    run = trainer(tiny(steps=3))
    for _ in run.steps():
        pass
    weights, average = run.denoiser.network.out.weight.clone(), run.averaged()["network.out.weight"]
    with pytest.raises(KeyError), run.engine.averaging():
        assert torch.equal(run.denoiser.network.out.weight, average)
        raise KeyError
    assert torch.equal(run.denoiser.network.out.weight, weights)
    assert not torch.equal(weights, average)
