import math

import pytest
import torch
from safetensors.torch import save
from torch.nn import functional as F

from cells import each
from ebbtide.codecs import Chain, Pixels, codec_from_config, encoder_hash, fit_codec, volume
from ebbtide.codecs.patches import BASES, Patches, fit_patches
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.data.images import load_images
from ebbtide.errors import InputError
from ebbtide.exact.likelihood import log_density
from ebbtide.exact.oracle import gaussian
from ebbtide.samplers import sample
from ebbtide.tensors import unpack
from problems import noise_like


def images(n=60, c=3, h=8, w=12, seed=0):
    """Smooth images with more on the left, so that mirroring matters."""
    x = noise_like(n, c, h + 2, w + 2, seed=seed)
    x = (x[:, :, 1:-1, 1:-1] + x[:, :, :-2, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 2:, 2:]) / 4 + x[:, :1, 1:-1, 1:-1] / 3
    return x * torch.linspace(2, 0.5, w, dtype=torch.float64) + torch.linspace(-1, 1, w, dtype=torch.float64)


def fitted(x, **options):
    return fit_patches(lambda: x.split(25), **options)


@each("basis", BASES)
@each("whiten", [0.0, 0.25, 0.5])
@each("size", [1, 2, 4])
def test_all_coefficients_lose_nothing(basis, whiten, size):
    x = images().float()
    codec = fitted(x, size=size, keep=0, basis=basis, whiten=whiten)
    z = codec.encode(x)
    assert z.shape[1:] == codec.shape((3, 8, 12)) == (3 * size**2, 8 // size, 12 // size)
    assert float((codec.decode(z) - x).abs().max()) <= 1e-5
    if not whiten:
        near = lambda y: (y[1:] - y[:-1]).flatten(1).norm(dim=1)
        torch.testing.assert_close(near(z), near(x), rtol=1e-5, atol=0)


@each("basis", BASES)
@each("keep", [0, 2])
@each("size", [1, 2, 4])
def test_mirroring_is_exact_where_it_is_promised(basis, keep, size):
    x = images()
    codec = fitted(x, size=size, keep=keep, basis=basis)
    turned = codec.mirror(codec.encode(x))
    if turned is not None:
        torch.testing.assert_close(turned, codec.encode(x.flip(-1)), rtol=0, atol=1e-12)
    assert turned is not None or (basis, keep) == ("haar", 2)


def test_half_of_a_mirrored_pair_has_no_mirror():
    """Of Haar's wavelets on the left and on the right of a patch, only one is kept."""
    rows = torch.tensor([[1.0, 1, 1, 1], [1, -1, 0, 0], [0, 0, 1, -1]], dtype=torch.float64).repeat_interleave(4, 1)
    rows = torch.stack([row.reshape(4, 4).T.flatten() for row in rows])
    rows, mean = rows / rows.norm(dim=1, keepdim=True), torch.zeros(16, dtype=torch.float64)
    pair = Patches(4, rows, mean, torch.tensor([1.0, 2, 2], dtype=torch.float64))
    z = noise_like(2, 3, 5, 6)
    assert torch.equal(pair.mirror(z), z.flip(-1)[:, [0, 2, 1]] * torch.tensor([1.0, -1, -1])[:, None, None])
    assert Patches(4, rows[:2], mean, pair.scale[:2]).mirror(z[:, :2]) is None
    assert Patches(4, rows, mean, torch.tensor([1.0, 2, 3], dtype=torch.float64)).mirror(z) is None


@each("size", [2, 4])
@each("keep", [1, 5, 11])
def test_the_error_is_the_variance_left_out(size, keep):
    """MSE(k) = Σ_{i>k} λ_i / (c p²), of all patches and their mirror images; λ by F.unfold and NumPy's order."""
    x = images()
    both = torch.cat([x, x.flip(-1)])
    rows = F.unfold(both, size, stride=size).transpose(1, 2).flatten(0, 1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
    codec = fitted(x, size=size, keep=keep)
    error = (codec.decode(codec.encode(both)) - both).square().mean()
    torch.testing.assert_close(error, eigenvalues[keep:].sum() / (3 * size**2), rtol=1e-9, atol=0)
    variance = codec.encode(both).transpose(0, 1).flatten(1).var(1, correction=0)
    torch.testing.assert_close(variance, torch.ones(keep, dtype=torch.float64), rtol=1e-9, atol=0)
    quarter = fitted(x, size=size, keep=keep, whiten=0.25).encode(both).transpose(0, 1).flatten(1).var(1, correction=0)
    torch.testing.assert_close(quarter, eigenvalues[:keep].sqrt(), rtol=1e-9, atol=0)


def test_haar_by_hand():
    """A step from 1 to 3 half-way across a patch of 4 × 4: mean 2 · 4, difference -1 · 4 of unit vectors."""
    codec = fitted(images(c=1), size=4, keep=0, basis="haar", whiten=0.0)
    step = torch.tensor([1.0, 1, 3, 3], dtype=torch.float64).expand(1, 4, 4)
    found = (codec.encode(step)[:, 0, 0] + codec.basis @ codec.mean).abs()
    assert sorted(found.round(decimals=9).tolist())[-2:] == [4, 8]
    assert found.sum() == pytest.approx(12)


@each("basis", BASES)
def test_on_gaussian_images_pixels_and_latents_sample_alike(basis):
    """An orthogonal change of coordinates: the latent oracle from the turned noise ends where the pixel oracle does."""
    c, h, w = 1, 4, 4
    factor = noise_like(16, 16, seed=3) / 4
    mean, covariance = noise_like(c, h, w, seed=4), factor @ factor.T
    codec = fitted(images(c=1, h=h, w=w), size=2, keep=0, basis=basis, whiten=0.0)
    turn = (codec.encode(torch.eye(16, dtype=torch.float64).reshape(16, c, h, w)) - codec.encode(0 * mean)).flatten(1)
    shape = codec.shape((c, h, w))
    pixel = gaussian(Linear(), mean, covariance)
    latent = gaussian(Linear(), codec.encode(mean), turn.T @ covariance @ turn)
    start = noise_like(5, c, h, w)
    how = {"draws": Draws.first(5, 0), "steps": 4, "sampler": "heun", "grid": "quadratic"}
    x = sample(pixel, (c, h, w), start=start, **how)
    z = sample(latent, shape, start=(start.flatten(1) @ turn).reshape(5, *shape), **how)
    torch.testing.assert_close(codec.decode(z), x, rtol=0, atol=1e-9)
    clipped = [sample(gaussian(Linear(), one.mean, 0.0), s, start=start.reshape(5, *s), **how) for one, s in
               ((pixel, (c, h, w)), (latent, shape))]  # fmt: skip
    torch.testing.assert_close(codec.decode(clipped[1]), clipped[0], rtol=0, atol=1e-9)


def test_a_density_in_latents_is_one_of_pixels():
    """log p(x) = log p(z) - log|dx/dz|: whitened, by the closed form and by the ODE; of fewer numbers there is none."""
    x = images(c=1, h=4, w=4)
    codec = fitted(x, size=2, keep=0)
    assert codec.log_volume((1, 4, 4)) == pytest.approx(4 * float(codec.scale.log().sum()))
    factor = noise_like(16, 16, seed=3) / 4
    mean, covariance = noise_like(1, 4, 4, seed=4), factor @ factor.T
    turn = (codec.encode(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)) - codec.encode(0 * mean)).flatten(1)
    pixel = gaussian(Linear(), mean, covariance)
    latent = gaussian(Linear(), codec.encode(mean), turn.T @ covariance @ turn)
    z, own = codec.encode(x[:5]), volume(codec, (1, 4, 4))
    torch.testing.assert_close(latent.log_density(z) - own, pixel.log_density(x[:5]))
    torch.testing.assert_close(log_density(latent, z, steps=60) - own, pixel.log_density(x[:5]), rtol=0, atol=0.02)
    chain = Chain((Pixels(), codec))
    assert volume(chain, (1, 4, 4)) == pytest.approx(own + 16 * math.log(127.5))
    few = Chain((Pixels(), fitted(x, size=2, keep=3)))
    assert few.log_volume((1, 4, 4)) is None
    with pytest.raises(InputError, match="keeps fewer numbers than the data has"):
        volume(few, (1, 4, 4))


def test_held_out_channels_have_unit_variance():
    x = load_images("digits", size=0, channels=0).x
    codec = fit_codec("pixels+patches:size=2,keep=3", lambda: x[:1400].split(500))
    for part in (x[:1400], x[1400:]):
        variance = codec.encode(part).transpose(0, 1).flatten(1).var(1)
        torch.testing.assert_close(variance, torch.ones(3), rtol=0, atol=0.1)


@each("keep", [0, 5])
def test_an_example_does_not_depend_on_its_batch(keep):
    x = images(n=33, h=16, w=24).float()
    codec = fitted(x, size=8, keep=keep)
    z = codec.encode(x)
    y = codec.decode(z)
    for i in (0, 17, 32):
        assert torch.equal(codec.encode(x[i : i + 1])[0], z[i])
        assert torch.equal(codec.decode(z[i : i + 1])[0], y[i])
        assert torch.equal(codec.decode(z[i]), y[i])
    assert torch.equal(codec.decode(z[:32].reshape(4, 8, *z.shape[1:])).flatten(0, 1), y[:32])


def test_half_precision_around_it_changes_nothing():
    x = images().float()
    codec = fitted(x, size=4, keep=5)
    with torch.autocast("cpu", torch.bfloat16):
        z = codec.encode(x)
        y = codec.decode(z)
    assert torch.equal(z, codec.encode(x))
    assert torch.equal(y, codec.decode(z))


def test_batches_of_any_size_fit_the_same():
    x = images()
    one, other = fitted(x, size=4, keep=5), fit_patches(lambda: x.split(7), size=4, keep=5)
    torch.testing.assert_close(one.scale, other.scale)
    torch.testing.assert_close(one.encode(x).abs(), other.encode(x).abs())


def test_config_and_weights_round_trip():
    x = images()
    codec = fitted(x, size=4, keep=5)
    weights = unpack(save(codec.weights()), "codec")
    again = codec_from_config(codec.to_config(), weights)
    assert torch.equal(again.decode(again.encode(x)), codec.decode(codec.encode(x)))
    assert encoder_hash(again) == encoder_hash(codec) != encoder_hash(fitted(x, size=4, keep=6))


def test_images_without_variance_stay_finite():
    codec = fitted(torch.full((4, 1, 4, 4), 0.5), size=2, keep=0)
    assert float((codec.decode(codec.encode(torch.full((2, 1, 4, 4), 0.5))) - 0.5).abs().max()) < 1e-6
    assert math.isfinite(codec.log_volume((1, 4, 4)))


@each(
    ("options", "words"),
    [
        ({"size": 5}, "multiples of size, 5; got 8 × 12"),
        ({"size": 0}, "patches: size must be at least 1"),
        ({"size": 4, "keep": 49}, "patches: keep must be at most 48; got 49"),
        ({"size": 4, "keep": -1}, "patches: keep must be at least 0"),
        ({"size": 4, "whiten": 2.0}, "patches: whiten must be at least 0 and at most 1; got 2.0"),
        ({"size": 4, "basis": "pcs"}, "patches: basis must be one of pca, dct, haar; got 'pcs' (did you mean 'pca'?)"),
    ],
)
def test_what_it_cannot_be_is_one_sentence(options, words):
    with pytest.raises(InputError) as caught:
        fitted(images(), **options)
    assert words in str(caught.value)


def test_haar_needs_a_power_of_two():
    with pytest.raises(InputError, match="size must be a power of 2 for basis haar; got 6"):
        fitted(images(h=6), size=6, basis="haar")


def damage(weights, **changes):
    return {name: part for name, part in (weights | changes).items() if part is not None}


def test_a_damaged_codec_is_named():
    codec = fitted(images(), size=4, keep=5)
    own, config = codec.weights(), codec.to_config()
    for weights in (
        {}, damage(own, basis=None), damage(own, more=own["mean"]), damage(own, scale=-own["scale"]),
        damage(own, mean=own["mean"][1:]), damage(own, basis=own["basis"].float()),
        damage(own, scale=own["scale"] * math.nan), damage(own, basis=own["basis"].T), damage(own, basis=own["mean"]),
        damage(own, basis=2 * own["basis"]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="patches"):
            codec_from_config(config, weights)
    for changed in ({"size": "4"}, {"size": 5}, {"size": 10**9}, {"code": 1}):
        with pytest.raises(InputError, match="patches"):
            codec_from_config(config | changed, own)
    for x in (torch.zeros(2, 3, 9, 12), torch.zeros(2, 1, 8, 12)):
        with pytest.raises(InputError, match="sides that are multiples of size, 4"):
            codec.encode(x)
    with pytest.raises(InputError, match="z must have 5 channels; got 4"):
        codec.decode(torch.zeros(1, 4, 2, 3))
