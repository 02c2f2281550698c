"""Autoencoders of diffusers as codecs: the latents that its own classes and pipelines' formulas give."""

import json

import pytest
import torch

from ebbtide.codecs.codec import encoder_hash
from ebbtide.codecs.diffusers import fit_diffusers, read_diffusers
from ebbtide.errors import InputError


def theirs(name, **options):
    return getattr(pytest.importorskip("diffusers"), name)(**options)  # seconds, so not on collecting


def kl(**options):
    return theirs(
        "AutoencoderKL", block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4, **options,
    )  # fmt: skip


def tiny(**options):
    return theirs(
        "AutoencoderTiny", encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **options,
    )  # fmt: skip


def dc():
    return theirs(
        "AutoencoderDC", latent_channels=8, encoder_block_out_channels=(8, 16), decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()), scaling_factor=0.4,
    )  # fmt: skip


def mode(module, x):
    return module.encode(x).latent_dist.mode()


MEAN, STD = torch.tensor([0.0, 0.1, 0.2, 0.3])[:, None, None], torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]

# By name: the module, its latent as diffusers has it, and what pipelines make of that and back, written out.
ROWS = {
    "KL": (lambda: kl(scaling_factor=0.2), mode, lambda z: z * 0.2, lambda z: z / 0.2),
    "KL, shifted": (
        lambda: kl(scaling_factor=0.36, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        mode, lambda z: (z - 0.1) * 0.36, lambda z: z / 0.36 + 0.1,
    ),
    "KL, by channel": (
        lambda: kl(scaling_factor=0.5, latents_mean=(0.0, 0.1, 0.2, 0.3), latents_std=(1.0, 2.0, 3.0, 4.0)), mode,
        lambda z: (z - MEAN) * 0.5 / STD, lambda z: z * STD / 0.5 + MEAN,
    ),
    "Tiny": (lambda: tiny(), lambda module, x: module.encode(x).latents, lambda z: z, lambda z: z),
    "DC": (dc, lambda module, x: module.encode(x).latent, lambda z: z * 0.4, lambda z: z / 0.4),
}  # fmt: skip


@pytest.fixture(scope="module", params=ROWS)
def row(request, tmp_path_factory):
    build, latent, scaled, unscaled = ROWS[request.param]
    torch.manual_seed(0)
    module, folder = build().eval(), tmp_path_factory.mktemp("diffusers")
    module.save_pretrained(folder / "vae")
    return module, folder, latent, scaled, unscaled


def images(n=3):
    return torch.randn(n, 3, 16, 24, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@torch.no_grad()
def test_latents_and_images_are_those_of_diffusers(row):
    module, folder, latent, scaled, unscaled = row
    codec, x = fit_diffusers(lambda: [], folder=str(folder)), images()
    z = scaled(latent(module, x))
    torch.testing.assert_close(codec.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(codec.decode(z), module.decode(unscaled(z)).sample, rtol=1e-5, atol=1e-5)
    assert codec.shape((3, 16, 24)) == tuple(z.shape[1:])


def test_it_is_stored_whole_and_its_decoder_may_be_replaced(row):
    _, folder, *_ = row
    codec, x = fit_diffusers(lambda: [], folder=str(folder / "vae")), images(2)
    weights = codec.weights()
    again = read_diffusers(json.loads(json.dumps(codec.to_config())), weights)
    z = codec.encode(x)
    assert torch.equal(again.encode(x), z)
    assert torch.equal(again.decode(z), codec.decode(z))
    assert torch.equal(codec.encode(x[1:]), z[1:])
    assert torch.equal(codec.decode(z[1]), codec.decode(z)[1])
    other = {name: 2 * part for name, part in weights.items() if name.startswith("decoder")}
    replaced = read_diffusers(codec.to_config(), weights | other)
    assert encoder_hash(replaced) == encoder_hash(codec)
    assert torch.equal(replaced.encode(x), z)
    assert not torch.equal(replaced.decode(z), codec.decode(z))


def test_what_it_is_for_the_rest_of_the_library(row):
    codec = fit_diffusers(lambda: [], folder=str(row[1]))
    assert not codec.linear
    assert codec.log_volume((3, 16, 24)) is None
    assert codec.mirror(torch.zeros(1, 4, 8, 12)) is None
    for shape in ((1, 16, 24), (3, 15, 24)):
        with pytest.raises(InputError, match="images must have 3 channels and sides that are multiples of 2"):
            codec.shape(shape)


def test_what_cannot_be_a_codec_is_named(tmp_path):
    for folder in ("", str(tmp_path / "none")):
        with pytest.raises(InputError, match="folder must hold an autoencoder of diffusers"):
            fit_diffusers(lambda: [], folder=folder)
    tiny().save_pretrained(tmp_path / "good")
    codec = fit_diffusers(lambda: [], folder=str(tmp_path / "good"))
    config, weights = codec.to_config(), codec.weights()
    with pytest.raises(InputError, match="_class_name must be one of AutoencoderKL, AutoencoderTiny, AutoencoderDC"):
        read_diffusers({"name": "diffusers", "config": {"_class_name": "UNet2DModel"}}, weights)
    with pytest.raises(InputError, match="doesn't fit its weights"):
        read_diffusers(config, dict(list(weights.items())[1:]))
    with pytest.raises(InputError, match="not finite"):
        read_diffusers(config, weights | {name: part * float("nan") for name, part in list(weights.items())[:1]})
    with pytest.raises(InputError, match="takes a config"):
        read_diffusers({"name": "diffusers"}, weights)
    (tmp_path / "good" / "diffusion_pytorch_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        fit_diffusers(lambda: [], folder=str(tmp_path / "good"))
