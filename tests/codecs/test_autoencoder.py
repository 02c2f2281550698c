"""The codec of a trained autoencoder: one scale for all channels, each image by itself, and nothing but its weights."""

import json

import pytest
import torch

from ebbtide.codecs.autoencoder import Learned, fit_autoencoder, read_autoencoder, with_decoder
from ebbtide.codecs.codec import Chain, encoder_hash
from ebbtide.codecs.columns import IDENTITY
from ebbtide.errors import InputError
from ebbtide.networks.autoencoder import Autoencoder

SPEC, SHAPE = "autoencoder:size=4,keep=3,widths=16-32", (2, 8, 12)


def images(n=40, seed=0):
    """Smooth images of unequal channels."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 2, 2, 3, generator=draw) * torch.tensor([1.0, 0.3])[:, None, None]
    return torch.nn.functional.interpolate(coarse, (8, 12), mode="bilinear") + 0.05


def run(seed=0, network=SPEC):
    """Config and weights of a run of an autoencoder, none of whose layers is zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Autoencoder(*SHAPE, size=4, keep=3, widths="16-32")
    made.begin(torch.linalg.qr(torch.randn(32, 32, generator=draw))[0][:3], torch.zeros(32), torch.ones(3))
    with torch.no_grad():
        for part in made.parameters():
            part += 0.05 * torch.randn(part.shape, generator=draw)
    return {"recipe": {"network": network}, "shape": list(SHAPE)}, {
        f"network.{name}": part for name, part in made.state_dict().items()
    }


def codec(whiten=0.5, n=400, **options):
    x = images(n)
    return fit_autoencoder(lambda: x.split(64), run="AE", whiten=whiten, opened=lambda name: run(**options))


def test_each_channel_has_mean_0_and_variance_1_on_held_out_data():
    z = codec(n=2000).encode(images(1000, seed=1)).transpose(0, 1).flatten(1)
    assert z.mean(1).abs().max() < 0.1
    assert (z.std(1) - 1).abs().max() < 0.1


def test_whiten_is_the_power_of_the_variance():
    half, white, none = codec(0.25), codec(0.5), codec(0.0)
    torch.testing.assert_close(half.spread**2, white.spread)
    assert torch.equal(none.spread, torch.ones(3))
    assert torch.equal(none.centre, white.centre)


def test_it_decodes_what_it_encodes_as_the_network_does():
    made, x = codec(), images(5, seed=2)
    expected = torch.cat([made.autoencoder(one, torch.zeros(1)) for one in x.split(1)])
    torch.testing.assert_close(made.decode(made.encode(x)), expected, rtol=1e-5, atol=1e-5)


def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    made, x = codec(), images(33, seed=3)
    z = made.encode(x)
    assert torch.equal(made.encode(x[7:8]), z[7:8])
    assert torch.equal(made.decode(z[7:8]), made.decode(z)[7:8])
    assert torch.equal(made.encode(x[7]), z[7]), "an image without a batch"


def test_config_and_weights_go_there_and_back():
    made, x = codec(), images(3, seed=4)
    config = json.loads(json.dumps(made.to_config()))
    again = read_autoencoder(config, made.weights())
    assert isinstance(again, Learned)
    assert again.to_config() == made.to_config()
    assert torch.equal(again.encode(x), made.encode(x))
    assert torch.equal(again.decode(made.encode(x)), made.decode(made.encode(x)))


def test_a_flow_is_tied_to_the_encoder_alone():
    made = codec()
    other = {name: part + 1.0 for name, part in made.weights().items() if name.startswith("decoder.")}
    assert other
    assert all(not name.startswith("decoder") for name in made.weights() if name not in other)
    sharper = read_autoencoder(made.to_config(), made.weights() | other)
    assert encoder_hash(sharper) == encoder_hash(made)
    assert not torch.equal(sharper.decode(made.encode(images(1))), made.decode(made.encode(images(1))))
    for name in made.weights().keys() - other.keys():
        changed = read_autoencoder(made.to_config(), made.weights() | {name: made.weights()[name] + 0.5})
        assert encoder_hash(changed) != encoder_hash(made), name


def sharpened(name):
    """The run of the codec with another decoder, or, named so, with another encoder as well."""
    config, weights = run()
    moved = ("network.decoder", "network.encoder") if name == "OTHER" else ("network.decoder",)
    return config, {name: part + 0.5 if name.startswith(moved) else part for name, part in weights.items()}


def test_a_decoder_takes_the_place_of_another_of_the_same_encoder():
    made, x = codec(), images(3)
    sharper = with_decoder(made, "SHARP", opened=sharpened)
    theirs = fit_autoencoder(lambda: images(400).split(64), run="SHARP", opened=sharpened)
    assert encoder_hash(sharper) == encoder_hash(made)
    torch.testing.assert_close(sharper.decode(made.encode(x)), theirs.decode(theirs.encode(x)))
    chained = with_decoder(Chain((IDENTITY, made)), "SHARP", opened=sharpened)
    assert torch.equal(chained.decode(chained.encode(x)), sharper.decode(made.encode(x)))


def test_a_decoder_of_another_encoder_or_for_no_autoencoder_is_refused():
    with pytest.raises(InputError, match="OTHER has another encoder than the one"):
        with_decoder(codec(), "OTHER", opened=sharpened)
    for wrong in (None, IDENTITY, Chain((IDENTITY,))):
        with pytest.raises(InputError, match="whose codec is an autoencoder"):
            with_decoder(wrong, "SHARP", opened=sharpened)


def test_what_it_is_for_the_rest_of_the_library():
    made = codec()
    assert not made.linear
    assert made.shape((2, 16, 4)) == (3, 4, 1)
    assert made.log_volume(SHAPE) is None
    assert made.mirror(torch.zeros(1, 3, 2, 3)) is None
    z = torch.zeros(1, 3, 2, 3, requires_grad=True)
    made.decode(z).sum().backward()
    assert z.grad.any(), "posterior samplers differentiate the decoder"
    for shape in ((3, 8, 12), (2, 8, 10), (2, 8)):
        with pytest.raises(InputError, match="images must have 2 channels and sides that are multiples of 4"):
            made.shape(shape)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda config, weights: weights.pop("scale"), "tensor scale is missing"),
        (lambda config, weights: weights.update(scale=torch.ones(4)), "tensor scale is missing, of another shape"),
        (lambda config, weights: weights["basis"].fill_(float("nan")), "tensor basis .* not finite"),
        (lambda config, weights: weights.update(spread=torch.zeros(3)), "spread must be above 0"),
        (lambda config, weights: weights.pop("centre"), "centre must be 3 finite numbers"),
        (lambda config, weights: config.update(network="unet"), "network or data can't be that"),
        (lambda config, weights: config.update(data=[2, 8]), "network or data can't be that"),
        (lambda config, weights: config.update(data=[2, 8, -4]), "data must be"),
        (lambda config, weights: config.update(more=1), "takes network and data"),
    ],
)
def test_a_damaged_codec_is_named(change, named):
    made = codec()
    config, weights = made.to_config(), {name: part.clone() for name, part in made.weights().items()}
    change(config, weights)
    with pytest.raises(InputError, match=named):
        read_autoencoder(config, weights)


def test_a_run_of_another_recipe_and_none_at_all():
    with pytest.raises(InputError, match="must be a run of the recipe autoencoder"):
        codec(network="unet-tiny")
    with pytest.raises(InputError, match="name a run of the recipe autoencoder"):
        fit_autoencoder(lambda: [images()], opened=lambda name: run())
    with pytest.raises(InputError, match="no images to measure"):
        fit_autoencoder(lambda: [], run="AE", opened=lambda name: run())
