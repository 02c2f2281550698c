from dataclasses import dataclass

import pytest
import torch

from cells import each
from ebbtide.codecs import (
    CODECS,
    IDENTITY,
    Chain,
    Codec,
    CodecRow,
    Pixels,
    Quantiles,
    Standardise,
    codec_from_config,
    encoder_hash,
    fit_codec,
    links,
)
from ebbtide.errors import InputError

X = torch.randint(0, 256, (40, 1, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SPEC = "pixels+patches:size=2,keep=3"


def fitted(spec=SPEC):
    return fit_codec(spec, lambda: X.split(16))


@each("codec", [IDENTITY, Standardise((1.0,), (2.0,)), Pixels(), Quantiles((0.0,), (1.0,)), fitted(), fitted("pixels")])
def test_every_codec_is_one(codec):
    assert isinstance(codec, Codec)
    assert isinstance(codec.about, str)
    assert codec.linear
    again = codec_from_config(codec.to_config(), codec.weights())
    assert again.to_config() == codec.to_config()
    assert encoder_hash(again) == encoder_hash(codec)


@each(
    ("spec", "parts"),
    [
        ("pixels", ["pixels"]),
        (SPEC, ["pixels", "patches:size=2,keep=3"]),
        ("pixels+patches", ["pixels", "patches"]),
        ("pixels+patches:basis=a+b", ["pixels", "patches:basis=a+b"]),
        ("pixels+patches:basis=a+pixelsque", ["pixels", "patches:basis=a+pixelsque"]),
    ],
)
def test_a_plus_in_a_name_is_no_link(spec, parts):
    assert links(spec) == parts


def test_a_chain_is_its_codecs_one_after_the_other():
    chain = fitted()
    pixels, patches = chain.codecs
    z = patches.encode(pixels.encode(X))
    assert torch.equal(chain.encode(X), z)
    assert torch.equal(chain.decode(z), pixels.decode(patches.decode(z)))
    assert chain.shape((1, 4, 6)) == (3, 2, 3)
    assert torch.equal(chain.mirror(z), patches.mirror(z))
    assert Chain((pixels, patches, patches)).mirror(z) is None  # of latents, whose mirror image is not theirs reversed
    assert "then" in chain.about
    assert set(chain.weights()) == {"1.basis", "1.mean", "1.scale"}


def test_each_link_is_fitted_to_what_those_before_it_encode():
    codec = fit_codec("standardise+quantiles:low=0,high=1", lambda: torch.tensor([[0.0], [2.0], [4.0]]).split(2))
    assert codec.encode(torch.tensor([[0.0], [2.0], [4.0]])).flatten().tolist() == pytest.approx([-1, 0, 1])
    assert fit_codec("none", lambda: iter(())) is IDENTITY


@dataclass(frozen=True)
class Scaled:
    """A stand-in for a learned codec: encoder and decoder have weights of their own."""

    encoder: float
    decoder: float
    about = "scaled"
    linear = False

    def shape(self, data):
        return data

    def encode(self, x):
        return x * self.encoder

    def decode(self, z):
        return z * self.decoder

    def log_volume(self, data):
        return None

    def mirror(self, z):
        return None

    def to_config(self):
        return {"name": "scaled", "decoder_width": self.decoder}

    def weights(self):
        return {"w": torch.tensor(self.encoder), "decoder.w": torch.tensor(self.decoder)}


def test_only_the_encoder_is_hashed():
    assert encoder_hash(Scaled(1, 2)) == encoder_hash(Scaled(1, 3)) != encoder_hash(Scaled(2, 2))
    first, other = (Chain((Pixels(), Scaled(1, d))) for d in (2.0, 3.0))
    assert encoder_hash(first) == encoder_hash(other) != encoder_hash(Chain((Pixels(), Scaled(2, 2))))
    assert not first.linear
    assert first.mirror(torch.zeros(1, 1, 1, 1)) is None
    assert first.log_volume((1, 2, 2)) is None


def test_a_row_may_be_made_of_another_run(monkeypatch):
    """It is handed a function that opens the folder."""

    def made(batches, *, run: str = "", opened=None):
        return Scaled(*opened(run))

    monkeypatch.setitem(CODECS, "scaled", CodecRow(made, lambda config, weights: Scaled(1, 1)))
    codec = fit_codec("pixels+scaled:run=runs/ae", lambda: iter(()), {"runs/ae": (5, 6)}.get)
    assert codec.codecs[1] == Scaled(5, 6)


@each(
    ("config", "weights", "words"),
    [
        ([], {}, "table with a name"),
        ({"name": "patch"}, {}, "did you mean 'patches'"),
        ({"name": "chain"}, {}, "a list"),
        ({"name": "chain", "codecs": []}, {}, "a list"),
        ({"name": "chain", "codecs": [{"name": "pixels"}] * 17}, {}, "a list"),
        ({"name": "chain", "codecs": [{"name": "chain", "codecs": []}]}, {}, "another chain"),
        ({"name": "chain", "codecs": [{"name": "pixels"}]}, {"1.basis": torch.zeros(1)}, "no codec for the tensor"),
        ({"name": "chain", "codecs": [{"name": "pixels"}]}, {"basis": torch.zeros(1)}, "no codec for the tensor"),
        ({"name": "chain", "codecs": [{"name": "pixels"}]}, {"0.basis": torch.zeros(1)}, "'pixels' has no tensors"),
        ({"name": "pixels"}, {"basis": torch.zeros(1)}, "'pixels' has no tensors"),
    ],
)
def test_a_damaged_codec_is_one_sentence(config, weights, words):
    with pytest.raises(InputError) as caught:
        codec_from_config(config, weights)
    assert words in str(caught.value)


def test_an_unknown_codec_is_one_sentence():
    with pytest.raises(InputError, match="codec must be one of none, standardise, quantiles, pixels, patches"):
        fitted("pixel")
    with pytest.raises(InputError, match="codec 'patches' has no option 'kept'"):
        fitted("pixels+patches:kept=3")
