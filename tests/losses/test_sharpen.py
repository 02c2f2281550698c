"""A decoder with a critic: who learns from what, and when; and a run of it, whose encoder stays what it was."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ebbtide.codecs import encoder_hash
from ebbtide.codecs.autoencoder import fit_autoencoder, with_decoder
from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.losses.critic import discern, misled
from ebbtide.losses.reconstruct import reconstruct, restored
from ebbtide.losses.sharpen import Critic, sharpen
from ebbtide.networks.critic import PatchCritic
from ebbtide.recipes import autoencoder
from ebbtide.training.storage import opened

NETWORK = "autoencoder:size=4,keep=4,widths=8-8,groups=4"


class Scaled(nn.Module):
    """z = a x, x̂ = b z."""

    shape = 3, 8, 8

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(1.5))

    def encode(self, x):
        return self.a * x

    def decode(self, z):
        return self.b * z

    def critic(self, widths):
        return PatchCritic(3, widths=widths)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    denoiser = SimpleNamespace(network=Scaled())
    judges = Critic(denoiser, 10, widths="4-4")
    judges.step = 5
    return denoiser, judges, *torch.randn(2, 3, 3, 8, 8)


def by(loss, *parameters):
    return torch.autograd.grad(loss.sum(), parameters, retain_graph=True, allow_unused=True)


def test_the_decoder_learns_from_the_error_and_from_being_misled(parts):
    denoiser, judges, x0, noise = parts
    loss = sharpen(denoiser, x0, noise, judges=judges, critic=0.7)
    made = restored(denoiser, x0, noise, 0.1)
    own = reconstruct(denoiser, x0, noise) + 0.7 * misled(judges, judges.score, x0, made)
    torch.testing.assert_close(by(loss, denoiser.network.b), by(own, denoiser.network.b))


def test_the_critic_learns_to_tell_both_apart_and_nothing_else(parts):
    denoiser, judges, x0, noise = parts
    every = list(judges.parameters())
    loss = sharpen(denoiser, x0, noise, judges=judges, critic=0.7, smooth=0.3)
    own = discern(judges.score, x0, restored(denoiser, x0, noise, 0.1).detach(), 0.3, noise)
    for mine, theirs in zip(by(loss, *every), by(own, *every), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_critic_begins_alone(parts):
    denoiser, judges, x0, noise = parts
    plain = by(reconstruct(denoiser, x0, noise), denoiser.network.b)
    for step, same in {4: True, 5: False}.items():
        judges.step = step
        loss = sharpen(denoiser, x0, noise, judges=judges, after=0.5)
        assert torch.equal(*by(loss, denoiser.network.b), *plain) == same
        assert any(part is not None for part in by(loss, *judges.parameters()))


@pytest.mark.parametrize(("option", "value"), [("critic", -1.0), ("after", 1.5), ("smooth", -0.1)])
def test_ranges(parts, option, value):
    denoiser, judges, x0, noise = parts
    with pytest.raises(InputError, match=f"sharpen: {option} must be"):
        sharpen(denoiser, x0, noise, judges=judges, **{option: value})


def test_a_run_sharpens_its_decoder_and_leaves_its_encoder(tmp_path):
    """It resumes bit by bit, the critic too; and a flow in the latent takes its decoder, and no other encoder's."""
    how = {"snapshots": 0, "progress": False}
    first = autoencoder(data="digits", network=NETWORK, steps=3, batch=16, weight_decay=0.1)
    before = train_recipe(first, tmp_path / "AE", **how)
    recipe = first.having({"loss": "sharpen:after=0", "init": str(tmp_path / "AE"), "steps": 4, "data": "digits"})
    after = train_recipe(recipe, tmp_path / "SHARP", checkpoints=2, **how)
    for name, part in before.denoiser.network.state_dict().items():
        same = torch.equal(part, after.denoiser.network.state_dict()[name])
        assert same == (not name.startswith("decoder")), name

    def stopped(trainer, record):
        if record.step == 2:
            raise KeyboardInterrupt

    whole = after.denoiser.state_dict()
    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe, tmp_path / "AGAIN", watch=stopped, **how)
    train_recipe(recipe, tmp_path / "AGAIN", resume=True, **how)
    again = from_pretrained(tmp_path / "AGAIN").denoiser.state_dict()
    assert all(torch.equal(part, again[name]) for name, part in whole.items())

    x = before.to_network(torch.full((4, 1, 8, 8), 9.0)) + torch.randn(4, 1, 8, 8)
    codec = fit_autoencoder(lambda: [x], run=str(tmp_path / "AE"), opened=opened)
    sharp = with_decoder(codec, str(tmp_path / "SHARP"), opened=opened)
    assert encoder_hash(sharp) == encoder_hash(codec)
    assert not torch.equal(sharp.decode(codec.encode(x)), codec.decode(codec.encode(x)))
