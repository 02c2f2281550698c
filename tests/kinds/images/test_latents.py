"""Images as latents, end to end: fitted, encoded once, mirrored, trained on, sampled, bounded, stored, refused."""

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebbtide.codecs import CODECS, Chain, CodecRow, Pixels, encoder_hash
from ebbtide.core.guidance import Bounded
from ebbtide.core.paths import Linear
from ebbtide.data.prepared import TensorData
from ebbtide.errors import InputError
from ebbtide.exact.oracle import gaussian
from ebbtide.kinds import runs
from ebbtide.kinds.images import data as images_data, kind as images, latents, pages, study
from ebbtide.kinds.runs import begin, from_pretrained, train_recipe
from ebbtide.metrics import peak_signal
from ebbtide.recipes import RECIPES, recipe_from_config
from ebbtide.training import checkpoint, storage, trained as trained_module
from ebbtide.training.teacher import student_recipe

SPEC = "pixels+patches:size=2,keep=3"
SMALL = {"network": "unet-tiny:width=8", "batch": 16, "steps": 4, "codec": SPEC}
BRIEF = {"snapshots": 0, "checkpoints": 1, "progress": False, "solvers": False}


def recipe(name="flow-latents", **fields):
    return replace(RECIPES[name](), **SMALL | fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train_recipe(recipe(conditional=True, flip=True), folder, **BRIEF | {"snapshots": 1}), folder


def test_a_run_holds_its_codec_and_draws_images(run):
    trained, folder = run
    assert (trained.shape, trained.latent_shape) == ((1, 8, 8), (3, 4, 4))
    again = from_pretrained(folder)
    x = again.sample(3, seed=5, steps=3)
    assert x.shape == (3, 1, 8, 8)
    assert torch.equal(x, trained.sample(3, seed=5, steps=3))
    *_, (_, z) = again.latents(3, seed=5, steps=3)
    assert z.shape == (3, 3, 4, 4)
    assert torch.equal(again.codec.decode(z), x)
    assert np.load(next((folder / "evolution").glob("*.npy"))).shape == (20, 1, 8, 8)
    manifest = json.loads(next(folder.glob("checkpoints/step-*/manifest.json")).read_text())
    assert "codec.safetensors" in manifest
    assert "patches" in repr(trained.recipe)


def test_an_export_works_alone(run, tmp_path):
    trained, _ = run
    trained.save_pretrained(tmp_path / "model")
    trained.save_pretrained(tmp_path / "model", overwrite=True)
    (tmp_path / "model").rename(tmp_path / "moved")
    assert torch.equal(from_pretrained(tmp_path / "moved").sample(2, steps=2), trained.sample(2, steps=2))
    assert "then patches by their first coefficients" in (tmp_path / "moved" / "README.md").read_text()


def test_another_encoder_is_refused_and_a_damaged_one_named(run, tmp_path):
    trained, folder = run
    files = trained.files()
    other = begin(recipe(codec="pixels+patches:size=2,keep=3,basis=haar"))[0].codec
    swapped = files | {storage.CODEC: other.weights()}
    part = {name: value for name, value in trained.codec.weights().items() if name != "1.scale"}
    endless = trained.codec.weights() | {"1.mean": torch.full((4,), math.nan, dtype=torch.float64)}
    cases = {
        "another encoder than the one that this run was trained with": swapped,
        "codec patches takes a size, and the tensors": files | {storage.CODEC: part},
        "patches takes a size, and the tensors basis, mean and scale; got ": without(files, storage.CODEC),
        "codec.safetensors holds numbers that are not finite": files | {storage.CODEC: endless},
    }
    for k, (words, content) in enumerate(cases.items()):
        checkpoint.write_folder(tmp_path / str(k), content)
        with pytest.raises(InputError, match=words):
            from_pretrained(tmp_path / str(k))
    shutil.copytree(next(folder.glob("checkpoints/step-0*4")), tmp_path / "bitten")
    codec = tmp_path / "bitten" / storage.CODEC
    codec.write_bytes(codec.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"codec\.safetensors is damaged"):
        from_pretrained(tmp_path / "bitten")
    assert encoder_hash(other) != encoder_hash(trained.codec)


def without(files, name):
    return {key: part for key, part in files.items() if key != name}


def test_a_run_of_the_first_format_still_loads(tmp_path):
    trained = begin(recipe("flow-images", codec="pixels"))[0]
    config = json.loads(trained.files()["config.json"])
    assert (config["format"], config["codec"], config["encoder"]) == (2, {"name": "pixels"}, "")
    config["transform"] = config.pop("codec")
    del config["encoder"], config["recipe"]["codec"]
    checkpoint.write_folder(
        tmp_path / "old", trained.files() | {"config.json": json.dumps(config | {"format": 1}).encode()}
    )
    old = from_pretrained(tmp_path / "old")
    assert (old.codec, old.recipe.codec) == (Pixels(), "pixels")
    assert torch.equal(old.sample(2, steps=2), trained.sample(2, steps=2))


def test_resuming_is_bit_exact_and_fits_no_codec_again(tmp_path, monkeypatch):
    long = recipe(steps=6, flip=True)
    whole = train_recipe(long, tmp_path / "whole", **BRIEF | {"checkpoints": 3, "keep": 9})
    half = next((tmp_path / "whole" / "checkpoints").glob("step-*2"))
    shutil.copytree(half, tmp_path / "half" / "checkpoints" / half.name)
    monkeypatch.setattr(images_data, "fit_codec", None)
    again = train_recipe(long, tmp_path / "half", resume=True, **BRIEF)
    for one, other in zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_goes_on_with_its_own_encoder_only(run):
    trained, folder = run
    other = begin(replace(trained.recipe, codec="pixels+patches:size=2,keep=3,basis=haar"))[0].codec
    prepared = images_data.prepare(trained.recipe, other)
    with pytest.raises(InputError, match="trained on the latents of another encoder"):
        train_recipe(trained.recipe, folder, given=prepared, resume=True, **BRIEF)


@pytest.mark.parametrize("mirrors", [True, False])
def test_half_of_the_latents_are_those_of_mirrored_images(mirrors, monkeypatch):
    if not mirrors:
        monkeypatch.setattr("ebbtide.codecs.patches.Patches.mirror", lambda self, z: None)
    prepared = images_data.prepare(recipe(flip=True))
    train, _ = images_data.parts(recipe())
    z = prepared.data.take(torch.arange(400), torch.Generator().manual_seed(0))["x0"]
    straight, turned = (prepared.codec.encode(x[:400]) for x in (train.x, train.x.flip(3)))
    near, far = ((z - own).flatten(1).abs().amax(1) for own in (straight, turned))
    assert float(torch.minimum(near, far).max()) < 1e-5
    assert 140 < int((far < 1e-5).sum()) < 260  # 6 standard deviations of 200
    plain = images_data.prepare(recipe()).data.take(torch.arange(9), torch.Generator())["x0"]
    assert torch.equal(plain, straight[:9])


@dataclass(frozen=True)
class Cubed:
    """A stand-in for a learned codec, far from linear."""

    scale: float = 2.0
    about = "cubed"
    linear = False

    def shape(self, data):
        return data

    def encode(self, x):
        return x.sign() * x.abs() ** (1 / 3) * self.scale

    def decode(self, z):
        return (z / self.scale) ** 3

    def log_volume(self, data):
        return None

    def mirror(self, z):
        return None

    def to_config(self):
        return {"name": "autoencoder"}

    def weights(self):
        return {"scale": torch.tensor(self.scale)}


@pytest.fixture
def learned(monkeypatch, tmp_path, run):
    """An autoencoder whose only weight comes from another run."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))

    def made(batches, *, run: str = "", opened=None):
        config, weights = opened(run)
        assert config["shape"] == [1, 8, 8]
        return Cubed(2.0 + 0 * float(next(iter(weights.values())).sum()))

    row = CodecRow(made, lambda config, weights: Cubed(float(weights["scale"])))
    monkeypatch.setitem(CODECS, "autoencoder", row)
    shutil.copytree(run[1], tmp_path / "ae")
    return f"pixels+autoencoder:run={tmp_path / 'ae'}"


def test_a_learned_codec_is_copied_into_the_run(learned, tmp_path):
    folder = tmp_path / "learned"
    trained = train_recipe(recipe(codec=learned, flip=True), folder, **BRIEF | {"snapshots": 1})
    assert trained.recipe.outside() == {"codec": str(tmp_path / "ae")}
    shutil.rmtree(tmp_path / "ae")
    again = from_pretrained(folder)
    torch.testing.assert_close(again.sample(2, steps=2), trained.sample(2, steps=2), rtol=0, atol=1e-2)
    train_recipe(trained.recipe, folder, resume=True, **BRIEF)
    trained.save_pretrained(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    assert from_pretrained(tmp_path / "model").recipe.codec == "pixels+autoencoder:run=ae"
    figure = pages._inpainting
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(pages, "STEPS", 2)
        assert "approximate" in words(figure(again, rows=2, ways=1))
        assert "channel 1" in words(pages._codec(again, n=2))


def words(figure):
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts) + " ".join(
        text.get_text() for text in figure.texts
    )


def test_latents_of_a_learned_codec_are_encoded_once(learned, monkeypatch):
    counted = []
    encode = Cubed.encode
    monkeypatch.setattr(Cubed, "encode", lambda self, x: counted.append(len(x)) or encode(self, x))
    first = images_data.prepare(recipe(codec=learned))
    n = sum(counted)
    assert n == len(first.data)
    again = images_data.prepare(recipe(codec=learned))
    assert sum(counted) == n
    assert torch.equal(again.data.x, first.data.x)
    images_data.prepare(recipe(codec=learned, held_out=0.2))  # other images
    images_data.prepare(recipe(codec=learned), Chain((Pixels(), Cubed(3.0))))  # another encoder
    assert sum(counted) > n + 2 * 1400


def test_a_bound_is_for_images_not_for_latents(run, learned):
    trained, _ = run
    x, t = torch.randn(6, 3, 4, 4), 0.3
    plain = trained.denoiser.eval()(x, t)
    near = lambda estimate: trained.bounding(1.0).decode(estimate.x0).abs().max()
    wide, tight = trained.steered(bound=50.0)(x, t), trained.steered(bound=0.2)(x, t)
    assert torch.equal(wide.x0, plain.x0)
    assert torch.equal(wide.noise, plain.noise)
    assert float(plain.x0.detach().abs().max()) > 1  # would be cut in latents
    assert near(tight) < near(plain)
    c = trained.denoiser.path.at(t, x)
    torch.testing.assert_close(c.alpha * tight.x0 + c.sigma * tight.noise, x, rtol=0, atol=1e-5)
    exact = replace(trained, codec=begin(recipe(codec="pixels+patches:size=2,keep=0"))[0].codec)
    whole = exact.bounding(1.0)
    z = whole.encode(torch.linspace(-3, 3, 64).reshape(1, 1, 8, 8))
    bounded = Bounded(gaussian(Linear(), z[0], 0.0), 1.0, codec=whole)
    torch.testing.assert_close(
        whole.decode(bounded(z, t).x0), torch.linspace(-3, 3, 64).clamp(-1, 1).reshape(1, 1, 8, 8)
    )
    with pytest.raises(InputError, match="this run's codec isn't linear, so it must be 0"):
        replace(trained, codec=Chain((Pixels(), Cubed()))).sample(1, steps=1, bound=1.0)
    with pytest.raises(
        InputError, match=r"bound 1 is for pixels, and codec .* isn't linear, so it must be 0 \(--bound 0"
    ):
        begin(recipe("ddpm-images", codec=learned, bound=1.0))


def test_edms_scale_is_that_of_the_latents():
    with pytest.raises(InputError) as caught:
        begin(recipe("edm-images", codec=SPEC))
    said = str(caught.value)
    assert "target edm:data_std=0.5 is for data of standard deviation 0.5, and these latents have 1" in said
    assert "edm:data_std=1 and times such as log_normal:mean=-0.5" in said
    begin(recipe("edm-images", codec=SPEC, target="edm:data_std=1", times="log_normal:mean=-0.5"))


def test_samples_are_decoded_in_pieces_of_their_own_size(run, monkeypatch):
    trained, _ = run
    whole, lengths, decode = trained.sample(40, steps=1), [], Chain.decode
    monkeypatch.setattr(Chain, "decode", lambda self, z: lengths.append(len(z)) or decode(self, z))
    monkeypatch.setattr(trained_module, "NUMBERS", 20 * 48)
    torch.testing.assert_close(trained.sample(40, steps=1), whole, rtol=0, atol=0.05)
    assert lengths == [16, 4, 16, 4]  # of 20 latents of 48 numbers each time, images of 64 at most 16 together


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ("patches:size=2", "codec must be pixels, or pixels+ a latent"),
        ("pixels+standardise", "codec must be pixels, or pixels+ a latent"),
        ("pixels+pixels", "codec must be pixels, or pixels+ a latent"),
        ("pixel", "did you mean 'pixels'"),
        ("pixels+patches:size=3", "multiples of size, 3; got 8 × 8"),
        ("pixels+patches:size=2,kept=3", "has no option 'kept'; it takes size, keep, basis, whiten"),
    ],
)
def test_what_no_image_codec_can_be_is_one_sentence(codec, words):
    with pytest.raises(InputError) as caught:
        begin(recipe(codec=codec))
    assert words in str(caught.value)


def test_data_in_memory_is_encoded_too():
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    start, data = begin(recipe(codec="pixels+patches:size=4,keep=5", held_out=0.0), given=(x, None))
    assert (start.shape, start.latent_shape, tuple(data.x.shape)) == ((3, 8, 8), (5, 2, 2), (30, 5, 2, 2))


def test_figures_of_a_latent_run(run, monkeypatch):
    trained, folder = run
    monkeypatch.setattr(pages, "STEPS", 2)
    walk = pages._walk(trained, 6)
    assert walk[0][1].shape == (6, 3, 4, 4)
    for figure in (
        pages._denoising(trained, walk), pages._interpolation(trained, rows=1, n=3), pages._inpainting(trained, 2, 2)
    ):  # fmt: skip
        assert figure.axes
    sheet = words(pages._codec(trained, n=4))
    assert all(name in sheet for name in ("original", "decoded", "4 × error", "channel 3"))
    assert study.study("flow", "Flow", "#000000", trained, folder).walk.shape == (21, 8, 1, 8, 8)


def test_known_pixels_decide_what_is_filled_in(run, monkeypatch):
    """Of the codec that loses nothing the given half stays to the rounding of an exact measurement."""
    trained, _ = run
    monkeypatch.setattr(pages, "STEPS", 4)
    whole = replace(trained, codec=begin(recipe(codec="pixels+patches:size=2,keep=0"))[0].codec)
    known, mask = torch.full((2, 1, 8, 8), 200.0), torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, :4] = True
    measured = pages._measured(whole, known, mask)
    z = whole.codec.encode(known)
    assert float(measured.residual(z).abs().max()) < 1e-5
    assert float(measured.residual(z + 1).abs().max()) > 0.1
    rough = pages._measured(replace(trained, codec=Chain((Pixels(), Cubed()))), known, mask)
    assert rough.y.shape == (2, 32)  # the latents of the half that is known


def test_a_codec_is_measured_on_held_out_images(run, monkeypatch):
    trained, _ = run
    seen = {}

    class Judge:
        def __init__(self, n, train, held, **options):
            seen.update(x=[], held=held, n=n)

        def look(self, first, x):
            assert first == sum(map(len, seen["x"]))
            seen["x"].append(x)

        def seen(self):
            return torch.cat(seen["x"])

        def report(self, every):
            (x,) = every
            assert len(x) == seen["n"]
            return SimpleNamespace(rows=[replace(peak_signal(x, seen["held"]), name="KID-x")])

    monkeypatch.setattr("ebbtide.kinds.images.judging.ImageJudge", Judge)
    monkeypatch.setattr(images, "BATCH", 100)
    psnr, distance = images.lost(trained)
    assert (psnr.name, distance.name) == ("codec PSNR", "codec KID-x")
    by_hand = trained.codec.decode(trained.codec.encode(seen["held"])).round().clamp(0, 255)
    error = (by_hand - seen["held"].float()).square().mean((1, 2, 3))
    assert psnr.value == pytest.approx(float((10 * (255**2 / error).log10()).mean()), rel=1e-5)
    assert psnr.low < psnr.value < psnr.high


def test_students_and_comparisons_work_on_the_teachers_latents(run, monkeypatch, tmp_path):
    trained, folder = run
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    student = student_recipe(trained, str(folder), trajectories=32, trajectory_steps=2, steps=2)
    start, data = begin(student)
    assert data.x.shape == (3, 32, 3, 4, 4)
    assert start.codec is not None
    assert start.sample(2, steps=1).shape == (2, 1, 8, 8)
    assert recipe_from_config(student.to_config()) == student


def test_snapshots_of_a_learned_codec_have_no_bound(run, monkeypatch):
    """A bound of 1, the snapshots' for pixels, would cut latents off."""
    trained, _ = run
    asked = []
    monkeypatch.setattr(
        "ebbtide.training.trained.Trained.sample", lambda self, **how: asked.append(how) or torch.zeros(1)
    )
    kind = replace(images.IMAGES, snapshot_files=lambda x, path: {})
    data = TensorData(torch.zeros(1, 3, 4, 4))
    runs._snapshot(kind, data, trained, Path())
    runs._snapshot(kind, data, replace(trained, codec=Chain((Pixels(), Cubed()))), Path())
    assert [how["bound"] for how in asked] == [1.0, 0.0]


def test_batches_are_large_enough_to_be_quick():
    assert latents.BATCH >= 64
