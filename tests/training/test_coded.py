"""Between the data's units and the network's: shapes, the way there and back, and what has no samples."""

from dataclasses import replace

import pytest
import torch

from ebbtide.codecs import Chain, Pixels, fit_codec
from ebbtide.errors import InputError
from ebbtide.recipes import autoencoder, flow_images
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained


@pytest.fixture
def images():
    return torch.randint(256, (70, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def trained(codec, **fields):
    recipe = flow_images(network="unet-tiny:width=8", **fields)
    shape = (1, 8, 8) if codec is None else codec.shape((1, 8, 8))
    return Trained(build_denoiser(recipe, shape, 0), recipe, (1, 8, 8), codec)


def test_data_comes_back_through_a_codec_that_loses_nothing(images):
    for codec, shape in (
        (None, (1, 8, 8)),
        (Pixels(), (1, 8, 8)),
        (fit_codec("pixels+patches:size=2,keep=4", lambda: [images]), (4, 4, 4)),
    ):
        one = trained(codec)
        assert one.latent_shape == shape
        z = one.to_network(images.float())
        assert z.shape == (70, *shape)
        for back in (one.to_data(z), one.reconstruct(images.float())):  # the second in two parts
            torch.testing.assert_close(back, images.float(), rtol=0, atol=2e-3)


def test_what_a_codec_leaves_out_is_lost_as_it_decodes(images):
    codec = fit_codec("pixels+patches:size=2,keep=1", lambda: [images])
    one = trained(codec)
    assert isinstance(codec, Chain)
    assert torch.equal(one.reconstruct(images), codec.decode(codec.encode(images)))
    assert (one.reconstruct(images) - images).abs().max() > 10


def test_an_autoencoder_has_reconstructions_and_no_samples(images):
    recipe = autoencoder(network="autoencoder:size=4,keep=16,widths=8-8")
    one = Trained(build_denoiser(recipe, (1, 8, 8), 0), recipe, (1, 8, 8), Pixels())
    assert one.reconstructs
    assert one.latent(images).shape == (70, 16, 2, 2)
    torch.testing.assert_close(one.reconstruct(images), images.float(), rtol=0, atol=2e-3)  # all components, f = g = 0
    with pytest.raises(InputError, match="it has no samples"):
        one.sampling()
    ordinary = replace(one, recipe=flow_images(), denoiser=trained(Pixels()).denoiser)
    assert not ordinary.reconstructs
    ordinary.sampling()
