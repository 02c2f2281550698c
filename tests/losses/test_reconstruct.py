"""The loss of an autoencoder: worked out by hand, and 0 where nothing is lost."""

from types import SimpleNamespace

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.losses import LOSSES, loss_row
from ebbtide.losses.reconstruct import reconstruct


class Halves:
    """z is the first channel; x̂ is z twice."""

    def encode(self, x):
        return x[:, :1]

    def decode(self, z):
        return torch.cat([z, z], 1)


DENOISER = SimpleNamespace(network=Halves())


def test_it_is_the_error_of_what_went_through_the_latent():
    x0 = torch.tensor([[[[1.0]], [[3.0]]], [[[2.0]], [[2.0]]]])  # the second example is as the decoder makes it
    loss = reconstruct(DENOISER, x0, torch.zeros(2, 2, 1, 1), noise_std=0.0)
    assert loss.tolist() == [(0 + 4) / 2 + (0 + 2) / 2, 0.0]
    assert reconstruct(DENOISER, x0, torch.zeros(2, 2, 1, 1), noise_std=0.0, absolute=0.0).tolist() == [2.0, 0.0]


def test_the_noise_is_in_z_and_not_in_the_image():
    x0, noise = torch.ones(1, 2, 1, 1), torch.tensor([[[[2.0]], [[7.0]]]])  # of which one number fits z
    loss = reconstruct(DENOISER, x0, noise, noise_std=0.5, absolute=0.0)
    assert loss.tolist() == [1.0]


@pytest.mark.parametrize("option", ["noise_std", "absolute"])
def test_ranges(option):
    with pytest.raises(InputError, match=rf"reconstruct: {option} must be at least 0"):
        reconstruct(DENOISER, torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1), **{option: -1.0})


def test_its_row_says_that_a_codec_learns_it():
    assert LOSSES["reconstruct"].codec
    assert not LOSSES["reconstruct"].spans
    assert [name for name, row in LOSSES.items() if row.codec] == ["reconstruct", "sharpen"]
    assert loss_row("reconstruct:noise_std=0.2").codec
