"""Images on their way through the library: read, split, mirrored, sampled, written, measured, drawn."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.core.paths import PATHS
from ebbtide.core.randomness import Draws, generator
from ebbtide.data import Pixels
from ebbtide.data.images import load_images
from ebbtide.errors import InputError
from ebbtide.exact import oracle
from ebbtide.kinds import KINDS, kind_of
from ebbtide.kinds.images import data as images_data, kind as images, pages, study as images_study
from ebbtide.kinds.points import kind as points
from ebbtide.kinds.runs import begin as prepare, from_pretrained, train_recipe as fit
from ebbtide.metrics import extractors, measure_images
from ebbtide.networks import NETWORKS
from ebbtide.plots import style
from ebbtide.recipes import RECIPE_TYPES, RECIPES, ImageRecipe, PointRecipe
from ebbtide.samplers import sample
from ebbtide.training.history import evolution

SMALL = {"network": "unet-tiny:width=8", "batch": 16, "steps": 3}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """With classifiers that see each image less than half as often as others, and are right as often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "_EPOCHS", 8)
        patch.setenv("EBBTIDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 30 colour images in two classes, of no one size."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k in range(30):
        kind = folder / ("cat", "dog")[k % 2]
        kind.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + k, 24, 3), np.uint8)).save(kind / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    recipe = replace(RECIPES["flow-images"](), conditional=True, **SMALL)
    return fit(recipe, folder, snapshots=2, checkpoints=2, progress=False), folder


def test_a_recipe_has_the_kind_of_its_data():
    assert kind_of(ImageRecipe()) is images.IMAGES
    assert kind_of(PointRecipe()) is points.POINTS


def test_every_type_of_recipe_has_its_kind():
    assert {name: kind.recipe for name, kind in KINDS.items()} == RECIPE_TYPES
    for kind in KINDS.values():
        assert kind.unit
        assert kind.n_evaluate >= kind.n >= 1
        assert Path(kind.file).suffix


def test_what_is_held_out_is_never_trained_on():
    recipe = replace(RECIPES["flow-images"](), held_out=0.25)
    train, held = images_data.parts(recipe)
    assert (len(train.x), len(held.x)) == (1348, 449)
    every = {x.numpy().tobytes() for x in train.x}
    shared = sum(x.numpy().tobytes() in every for x in held.x)
    assert shared == 0
    assert prepare(recipe)[1].x is train.x
    again, _ = images_data.parts(replace(recipe, seed=5, steps=9))
    assert again.x is train.x


def test_a_class_of_one_picture_is_trained_on_where_labels_are_learned(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 255, (20, 4, 4), np.uint8), labels=np.arange(20))
    recipe = replace(RECIPES["flow-images"](), data=str(tmp_path / "x.npz"), conditional=True, **SMALL)
    train, held = images_data.parts(recipe)
    assert (sorted(train.labels.tolist()), len(held.x)) == (list(range(20)), 0)
    assert len(images_data.parts(replace(recipe, conditional=False))[1].x) == 2
    start, _ = prepare(recipe)
    assert start.frequencies == (0.05,) * 20


@pytest.fixture(scope="module")
def depths(tmp_path_factory):
    """Forty depth images of 16 bits, 300 to 2200 mm, the extremes in one image each."""
    folder = tmp_path_factory.mktemp("depths")
    values = np.random.default_rng(0).integers(301, 2200, (40, 8, 8), np.uint16)
    values[3, 0, 0], values[29, 5, 5] = 300, 2200
    for k, picture in enumerate(values):
        Image.fromarray(picture).save(folder / f"{k:02d}.png")
    return folder, values


@pytest.mark.filterwarnings("ignore:.*more than 8 bits:UserWarning")
def test_the_range_of_depths_is_stored_with_the_run_and_used_ever_after(depths, tmp_path):
    folder, values = depths
    data = tmp_path / "depths"
    shutil.copytree(folder, data)
    recipe = replace(RECIPES["flow-images"](), data=str(data), held_out=0.25, **SMALL)
    trained = fit(recipe, tmp_path / "run", snapshots=0, checkpoints=1, progress=False)
    assert trained.recipe.value_range == "300:2200"
    assert from_pretrained(tmp_path / "run").recipe.value_range == "300:2200"
    exact = {np.rint((x - 300.0) / 1900 * 255).astype(np.uint8).tobytes() for x in values}
    for part in images_data.parts(trained.recipe):  # held out or not
        assert {x.numpy().tobytes() for x in part.x} <= exact
    again = replace(trained.recipe, steps=5)
    with pytest.raises(InputError, match="was trained with steps=3, not 5"):  # and not value_range
        fit(again, tmp_path / "run", resume=True, progress=False)
    assert fit(recipe, tmp_path / "run", resume=True, progress=False).step == 3
    images.write(trained, trained.sample(2, steps=1), None, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as written:
        assert written["value_range"].tolist() == [300, 2200]

    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(data / "99.png")
    with pytest.warns(UserWarning, match="some values in 300 to 60000 beyond the range 300:2200: they become 0 or 255"):
        train, held = images_data.parts(trained.recipe)
    every = [x.numpy().tobytes() for part in (train, held) for x in part.x]
    assert set(every) == exact | {bytes([255] * 64)}
    with pytest.raises(InputError, match="is not what it was"):
        fit(trained.recipe, tmp_path / "run", resume=True, progress=False)


@pytest.mark.filterwarnings("ignore:.*more than 8 bits:UserWarning")
def test_a_range_of_ones_own(depths):
    recipe = replace(RECIPES["flow-images"](), data=str(depths[0]), value_range="0:4095.0", **SMALL)
    start, _ = prepare(recipe)
    assert start.recipe.value_range == "0:4095"
    with pytest.raises(InputError, match="value_range must be LOW:HIGH"):
        prepare(replace(recipe, value_range="much"))
    plain = replace(RECIPES["flow-images"](), **SMALL)
    assert prepare(plain)[0].recipe.value_range == ""
    with pytest.raises(InputError, match="value_range is for images of more than 8 bits, and digits holds none"):
        prepare(replace(plain, value_range="0:255"))


@pytest.fixture(scope="module")
def stickers(tmp_path_factory):
    """Thirty coloured discs on nothing."""
    folder, rng = tmp_path_factory.mktemp("stickers"), np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    for k in range(30):
        picture = np.zeros((16, 16, 4), np.uint8)
        picture[..., :3] = rng.integers(0, 256, 3)
        picture[..., 3] = 255 * ((x - 8) ** 2 + (y - 8) ** 2 < rng.integers(20, 60))
        Image.fromarray(picture).save(folder / f"{k:02d}.png")
    return folder


@pytest.mark.unchecked
def test_four_channels_are_trained_on_sampled_written_and_drawn(stickers, tmp_path, monkeypatch):
    monkeypatch.setitem(images.IMAGES.snapshot, "steps", 3)
    monkeypatch.setattr(pages, "STEPS", 3)
    monkeypatch.setattr(pages, "FILM", 6)
    recipe = replace(RECIPES["flow-images"](), data=str(stickers), channels=4, held_out=0.5, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is lost, so nothing is said
        trained = fit(recipe, tmp_path / "run", snapshots=2, checkpoints=1, progress=False)
    assert trained.shape == (4, 16, 16)
    train, _ = images_data.parts(recipe)
    assert train.x[:, 3].unique().tolist() == [0, 255]
    samples = trained.sample(4, steps=2)
    images.write(trained, samples, None, tmp_path / "x.npz")
    again = load_images(str(tmp_path / "x.npz"), channels=4)
    assert again.x.tolist() == images_data.kept(samples).tolist()
    with Image.open(images.draw_samples(trained, samples, None, tmp_path / "x.png")) as picture:
        assert picture.mode == "RGBA"
    drawn = list(images.draw_run(trained, tmp_path / "run", tmp_path / "figures"))
    assert {path.suffix for path in drawn} == {".png", ".gif"}
    real, _ = images_data.real(recipe, 15, 0)
    judging = images.judge(recipe, len(real))
    judging.look(0, real)
    found, report = judging.judged([judging.seen()])
    assert {row.name: row for row in found}["copies"].value == 1
    assert list(images.draw_evaluation(trained, report, tmp_path))


def test_transparency_is_said_where_it_is_lost(stickers):
    with pytest.warns(
        UserWarning,
        match=r"30 of 30 images are transparent in places, and lie on white \(--channels 4 keeps that\)\.$",
    ):
        train, _ = images_data.parts(replace(RECIPES["flow-images"](), data=str(stickers)))
    assert train.x.shape[1] == 3
    assert (train.x[:, :, 0, 0] == 255).all()


def test_pictures_are_seen_between_minus_one_and_one_and_half_of_them_mirrored():
    x = torch.randint(0, 256, (4000, 1, 2, 3), dtype=torch.uint8, generator=generator("test"))
    plain = images_data.see(x, generator(1))
    assert torch.equal(plain, x.float() / 127.5 - 1)
    seen = images_data.see(x, generator(1), flip=True)
    mirrored = (seen == plain.flip(3)).flatten(1).all(1) & ~(seen == plain).flatten(1).all(1)
    assert ((seen == plain.flip(3)) | (seen == plain)).flatten(1).all()
    assert 0.4 < mirrored.float().mean() < 0.6  # 12 standard deviations either way
    assert torch.equal(seen, images_data.see(x, generator(1), flip=True))


def test_a_folder_becomes_a_run(photos, tmp_path):
    recipe = replace(
        RECIPES["ddpm-images"](), data=str(photos), label="folder", size=16, flip=True, conditional=True, **SMALL
    )
    trained = fit(recipe, tmp_path / "run", snapshots=1, progress=False)
    assert (trained.shape, trained.classes) == ((3, 16, 16), ("cat", "dog"))
    config = json.loads((tmp_path / "run" / "checkpoints" / "last" / "config.json").read_text())
    assert config["codec"] == {"name": "pixels"}
    again = from_pretrained(tmp_path / "run")
    assert again.recipe == recipe
    x = again.sample(3, label="dog", steps=2, sampler="ddim", grid="uniform")
    assert torch.equal(x, trained.sample(3, label=1, steps=2, sampler="ddim", grid="uniform"))


def test_parts_of_a_set_are_kept_apart_and_of_use(tmp_path):
    """Conditional or not: without labels the test part is held out unless labels are learned."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_images": rng.integers(0, 255, (n, 4, 4), np.uint8) for part, n in {"train": 20, "test": 8}.items()
    }
    np.savez(
        tmp_path / "x.npz", train_labels=np.arange(20) % 2, test_labels=np.full(8, -1), classes=["cat", "dog"], **arrays
    )
    recipe = replace(RECIPES["flow-images"](), data=str(tmp_path / "x.npz"), **SMALL)
    train, held = images_data.parts(recipe)
    assert np.array_equal(train.x[:, 0], arrays["train_images"])
    assert np.array_equal(held.x[:, 0], arrays["test_images"])
    assert (train.classes, len(train.labels), held.labels) == (("cat", "dog"), 20, None)
    assert prepare(recipe)[1].x is train.x
    with pytest.warns(UserWarning, match="8 of 8 held-out images are left out"):
        train, held = images_data.parts(replace(recipe, conditional=True))
    assert (len(train.x), held.labels.sort().values.tolist()) == (18, [0, 1])
    every = {x.numpy().tobytes() for x in (*train.x[:, 0], *held.x[:, 0])}
    assert every == {x.tobytes() for x in arrays["train_images"]}


def test_pictures_of_several_sizes_are_refused_in_words(photos):
    with pytest.raises(InputError, match="size"):
        prepare(replace(RECIPES["flow-images"](), data=str(photos)))


def test_labels_must_be_there_for_a_conditional_network(photos):
    with pytest.raises(
        InputError, match=r"has no labels, .* needs; name their source, as in label=folder \(--label folder\)"
    ):
        prepare(replace(RECIPES["flow-images"](), data=str(photos), size=8, conditional=True))


def test_a_picture_depends_on_its_number_alone(run):
    trained, _ = run
    many = trained.sample(64, label=torch.arange(64) % 10, sampler="ddpm", grid="uniform", steps=4)
    for i in (0, 7, 63):
        alone = trained.sample(1, first=i, label=i % 10, sampler="ddpm", grid="uniform", steps=4)
        assert torch.allclose(many[i], alone[0], atol=1e-3)  # of 255


def test_estimates_stay_within_the_bound_that_is_asked_for(run):
    trained, _ = run
    wild = {"sampler": "ddpm", "grid": "uniform", "steps": 4, "n": 20}
    free, bounded = trained.sample(bound=0.0, **wild), trained.sample(bound=1.0, **wild)
    assert free.min() < -1
    assert bounded.min() >= -1e-3
    assert bounded.max() <= 255 + 1e-3


def test_snapshots_are_kept_as_pixels_and_as_a_picture(run):
    trained, folder = run
    grown = evolution(folder)
    assert [step for step, _ in grown] == [0, 1, 3]
    assert all((x.shape, x.dtype) == ((20, 1, 8, 8), np.uint8) for _, x in grown)
    with Image.open(folder / "evolution" / "step-00000003.png") as sheet:
        assert min(sheet.size) > 100
    labels = torch.arange(20) % 10
    again = trained.sample(seed=trained.recipe.seed, label=labels, **images.IMAGES.snapshot)
    assert np.abs(images_data.kept(again).astype(int) - grown[-1][1]).max() <= 1


def test_what_is_written_can_be_read_and_trained_on(run, tmp_path):
    trained, _ = run
    labels = torch.tensor([3, 1, 2, 3, 0, 9])
    x = torch.tensor([-20.0, 0.4, 0.6, 254.6, 300.0, 128.0]).reshape(6, 1, 1, 1).expand(6, 1, 8, 8)
    images.write(trained, x, labels, tmp_path / "x.npz")
    held = load_images(str(tmp_path / "x.npz"))
    assert held.x[:, 0, 0, 0].tolist() == [0, 0, 1, 255, 255, 128]
    assert held.labels.tolist() == labels.tolist()
    assert held.classes == trained.classes


@pytest.mark.unchecked
def test_real_pictures_in_place_of_samples_are_at_the_floor_and_noise_is_not():
    recipe = replace(RECIPES["flow-images"](), held_out=0.5)
    train, held = images_data.parts(recipe)
    rows = {row.name: row for row in images.evaluate(recipe, held.x.float(), held.labels)}
    assert rows["asked class recognised"].floor > 0.94
    assert rows["KID-classifier"].at_floor
    assert rows["copies"].value < 0.06
    noise = torch.rand(300, 1, 8, 8, generator=generator("noise")) * 255
    (row,) = images.evaluate(recipe, noise, curve=True)
    assert row.low > 10 * row.floor_high
    copies = [row for row in images.evaluate(recipe, train.x[:300].float()) if row.name == "copies"]
    assert copies[0].value == 1


@pytest.mark.parametrize("name", ["linear", "ddpm", "ve"])
def test_the_oracle_of_a_few_pictures_lands_on_them(name):
    """The finite set's exact denoiser, sampled as images are, draws its images and no others."""
    train, _ = images_data.parts(RECIPES["flow-images"]())
    few = Pixels().encode(train.x[:12])
    denoiser = oracle.finite(PATHS[name](), few)
    x = sample(denoiser, (1, 8, 8), draws=Draws.first(60, 0), sampler="dpmpp_2m", grid="log_snr", steps=40)
    distance = torch.cdist(x.flatten(1), few.flatten(1))
    assert distance.min(1).values.max() < 0.02 * 8
    assert len(distance.argmin(1).unique()) >= 10  # 60 draws of 12 miss three or more with probability 2e-5


@pytest.mark.slow
@pytest.mark.parametrize(("network", "steps"), [("unet-tiny", 600), ("dit-tiny", 2000)])
def test_eight_pictures_are_learned_by_heart(network, steps, tmp_path):
    np.savez(tmp_path / "eight.npz", images=images_data.parts(ImageRecipe())[0].x[:9].permute(0, 2, 3, 1).numpy())
    recipe = replace(
        RECIPES["flow-images"](), data=str(tmp_path / "eight.npz"), held_out=0.1, network=network, steps=steps,
        batch=64, ema=0.99,
    )  # fmt: skip
    trained = fit(recipe, tmp_path / "run", snapshots=0, checkpoints=1, progress=False)
    train, _ = images_data.parts(recipe)
    assert len(train.x) == 8
    x = trained.sample(32, steps=20)
    distance = torch.cdist(x.flatten(1), train.x.float().flatten(1)) / 8  # root mean square, in grey levels
    assert float(distance.min(1).values.median()) < 5
    assert len(distance.argmin(1).unique()) >= 6


def test_networks_for_pictures_are_in_the_table():
    assert {"unet-tiny", "unet-small", "unet-ddpm-cifar10", "unet-flowers", "dit-tiny", "dit-b2"} <= set(NETWORKS)


def test_a_study_holds_what_is_drawn(run):
    trained, folder = run
    method = images_study.study("flow", "Flow matching", style.FLOW, trained, folder)
    assert method.walk.shape == (21, 8, 1, 8, 8)
    assert method.walk.dtype == np.uint8
    assert (method.walk_times[0], method.walk_times[-1]) == (1, 0)
    shown = images_study.shown(trained.recipe, 100)
    assert shown["real"].shape == (64, 1, 8, 8)
    assert "180 held out" in shown["settings"]["data"]


def test_the_metrics_are_those_of_measure_images():
    recipe = replace(RECIPES["flow-images"](), held_out=0.5)
    train, held = images_data.parts(recipe)
    rows = images.evaluate(recipe, held.x[:50].float(), seed=3)
    direct = measure_images(
        held.x[:50], train.x, held.x, train_labels=train.labels, held_labels=held.labels, classes=10, seed=3
    )
    assert rows == direct.rows


def test_samples_of_one_class_are_held_against_that_class():
    recipe = replace(RECIPES["flow-images"](), held_out=0.5)
    train, held = images_data.parts(recipe)
    of = held.labels == 3
    rows = {row.name: row for row in images.evaluate(recipe, held.x[of].float(), held.labels[of])}
    assert rows["KID-classifier"].at_floor
    assert rows["asked class recognised"].floor > 0.9
    assert f"of {int((train.labels == 3).sum())} training images" in rows["KID-classifier"].note


def test_pictures_that_were_replaced_are_read_again(tmp_path):
    """In the same process, under the same name, a file and a folder."""
    for data in (tmp_path / "a.npz", tmp_path / "photos"):
        for value in (10, 200):
            frames = np.full((12, 8, 8, 1), value, np.uint8)
            if data.suffix:
                np.savez(data, images=frames)
            else:
                data.mkdir(exist_ok=True)
                for i, frame in enumerate(frames):
                    Image.fromarray(frame[:, :, 0]).save(data / f"{i}.png")
            train, held = images_data.parts(ImageRecipe(data=str(data)))
            assert {*train.x.unique().tolist(), *held.x.unique().tolist()} == {value}
