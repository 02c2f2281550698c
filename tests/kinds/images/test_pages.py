"""The figures of a run on images show what the run's own samples are, and are drawn without its data, too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ebbtide.kinds.images import data as images_data, pages as image_run, study as images_study
from ebbtide.kinds.runs import from_pretrained, train_recipe as fit
from ebbtide.metrics import ImageJudge, Measurement
from ebbtide.plots import images, style
from ebbtide.plots.report import write_report
from ebbtide.plots.study import Comparison, Sampling
from ebbtide.recipes import RECIPES


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_run, "STEPS", 3)
        patch.setattr(image_run, "FILM", 6)
        patch.setattr(image_run, "WEIGHTS", (1.0, 3.0))
        yield


NAMES = ["samples", "denoising", "forward", "interpolation", "guidance", "inpainting", "training", "losses"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a file of 4 × 4 images in three classes, so small that drawing it takes no time."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 4, 4, 3), np.uint8)
    np.savez(folder / "tiny.npz", images=pictures, labels=np.arange(60) % 3)
    recipe = replace(
        RECIPES["flow-images"](), data=str(folder / "tiny.npz"), conditional=True, steps=4, batch=8, held_out=0.3,
        network="unet-tiny:width=8",
    )  # fmt: skip
    return fit(recipe, folder / "run", snapshots=2, checkpoints=1, progress=False), folder


def test_a_run_is_drawn(run, tmp_path):
    """By a network that is told a label for every image, whatever is drawn."""
    (trained, folder), told = run, []
    network = trained.denoiser.network
    tell = lambda _, args, cond: told.append((len(args[0]), len(cond.get("label", ()))))
    hook = network.register_forward_pre_hook(tell, with_kwargs=True)
    drawn = [path.name for path in image_run.draw_run(trained, folder / "run", tmp_path)]
    hook.remove()
    assert told
    assert all(pictures == labels for pictures, labels in told)
    assert drawn == [*[f"{name}.png" for name in NAMES], "sampling.gif", "training.gif"]
    assert all((tmp_path / name).stat().st_size > 1000 for name in drawn)
    with Image.open(tmp_path / "sampling.gif") as film:
        assert film.n_frames == 4
    with Image.open(tmp_path / "training.gif") as film:
        assert film.n_frames == 3


def test_a_run_is_drawn_without_its_data(run, tmp_path):
    trained, folder = run
    gone = replace(trained, recipe=replace(trained.recipe, data=str(tmp_path / "gone.npz")))
    drawn = [path.name for path in image_run.draw_run(gone, folder / "run", tmp_path)]
    assert len(drawn) == len(NAMES) + 2


def test_samples_are_tiles_of_the_sheet(run, tmp_path):
    trained, _ = run
    x = trained.sample(6, label=torch.arange(6) % 3, steps=3)
    image_run.draw_samples(trained, x, None, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as sheet:
        pixels = np.asarray(sheet)
    columns = images.columns_for(6)
    factor = images.fitting_factor(4, 4, columns)
    places = images.corners(6, columns, 4 * factor, 4 * factor)
    for tile, (left, top) in zip(images_data.kept(x), places.tolist(), strict=True):
        shown = pixels[top : top + 4 * factor : factor, left : left + 4 * factor : factor]
        assert (shown == tile.transpose(1, 2, 0)).all()


def test_samples_of_classes_stand_beside_their_names(run, tmp_path, monkeypatch):
    trained, _ = run
    drawn = []
    monkeypatch.setattr(image_run.style, "save", lambda figure, path: drawn.append(figure) or path)
    for labels in (torch.arange(6) % 3, torch.tensor([2, 2, 2]), torch.arange(3)):
        x = trained.sample(len(labels), label=labels, steps=3)
        image_run.draw_samples(trained, x, labels, tmp_path / "x.png", "heun, 3 steps")
    assert len(trained.classes) == 3
    for figure in drawn:
        assert any("heun, 3 steps" in text.get_text().replace("\n", " ") for text in figure.texts)
    for figure in (drawn[0], drawn[2]):
        assert {*trained.classes} <= {text.get_text() for text in figure.axes[0].texts}
    assert any(text.get_text().startswith(trained.classes[2]) for text in drawn[1].texts)


def test_interpolation_ends_at_the_samples_of_its_noises(run, monkeypatch):
    """Its first column is what the first noises become, its last what the others do."""
    trained, _ = run
    seen = []
    monkeypatch.setattr(image_run.strips, "interpolation", lambda rows: seen.append(rows) or Figure())
    image_run._interpolation(trained, rows=2, n=3)
    labels = torch.tensor([0, 1])
    how = {"sampler": "heun", "grid": "uniform", "steps": image_run.STEPS}
    first = trained.sample(2, label=labels, **how)
    last = trained.sample(2, first=2, label=labels, **how)
    assert np.abs(seen[0][:, 0].astype(int) - images_data.kept(first)).max() <= 1
    assert np.abs(seen[0][:, 2].astype(int) - images_data.kept(last)).max() <= 1


def test_inpainting_keeps_what_was_given(run, monkeypatch):
    trained, _ = run
    monkeypatch.setattr(image_run, "STEPS", 25)
    seen = []
    monkeypatch.setattr(image_run.strips, "inpainting", lambda *parts, **how: seen.append(parts) or Figure())
    image_run._inpainting(trained, rows=2, ways=3)
    original, mask, filled = seen[0]
    _, held = images_data.parts(trained.recipe)
    assert (original == held.x[:2].numpy()).all()
    assert mask.tolist() == [[True, True, False, False]] * 4
    assert filled.shape == (2, 3, 3, 4, 4)
    known = np.abs(filled.astype(int) - original[:, None])[..., :2]
    unknown = np.abs(filled.astype(int) - original[:, None])[..., 2:]
    assert known.max() <= 1
    assert unknown.mean() > 3


def test_guidance_rows_are_samples_with_that_weight(run, monkeypatch):
    trained, _ = run
    seen = []
    monkeypatch.setattr(image_run.strips, "guidance_grid", lambda *parts: seen.append(parts) or Figure())
    image_run._guidance(trained)
    weights, classes, shown = seen[0]
    assert (classes, shown.shape) == (("0", "1", "2"), (len(weights), 3, 3, 4, 4))
    plain = trained.sample(3, label=torch.arange(3), sampler="heun", grid="uniform", steps=image_run.STEPS)
    assert (shown[weights.index(1.0)] == images_data.kept(plain)).all()


def test_neighbours_are_the_nearest_training_pictures(run, monkeypatch):
    """Of forty samples, all of them two or more grey levels from an image but one, which is at 1."""
    trained, folder = run
    train, held = images_data.parts(trained.recipe)
    seen = []
    monkeypatch.setattr(image_run.strips, "neighbours", lambda *parts, **more: seen.append((parts, more)) or Figure())
    monkeypatch.setattr(image_run.style, "save", lambda *_: None)
    x = (train.x[:40].float() + 2).clamp(0, 255)
    x[9] = (train.x[9].float() - 1).clamp(0, 255)
    judge = ImageJudge(40, train.x, held.x)
    judge.look(0, x.to(torch.uint8))
    image_run.draw_neighbours(judge.report([judge.seen()]), folder / "x.png")
    (shown, near, distance), more = seen[0]
    assert len(shown) == 16
    assert (near[0] == train.x[9].numpy()).all()  # the nearest first
    assert distance[0] <= 1
    assert (np.diff(distance) >= 0).all()
    assert distance[-1] <= 2
    assert more["typical"] > 30
    assert more["title"] == "The 16 of 40 samples that are nearest to a training image"


def test_the_report_of_a_comparison(run, tmp_path):
    trained, folder = run
    flow = images_study.study("flow", "Flow matching", style.FLOW, trained, folder / "run")
    rows = [Measurement("KID-classifier", 0.2, 0.1, 0.3, 0.0, -0.1, 0.1, "lower")]
    samples = images_data.kept(trained.sample(12, steps=2))
    comparison = Comparison(
        command="ebbtide compare", methods=[flow, replace(flow, key="diffusion", name="DDPM")], kind="images",
        samplings=[Sampling(key, "Heun", "heun", 2, 3, 0.1, samples, None, rows) for key in ("flow", "diffusion")],
        quality={"Flow matching · Heun": [(5, 0.3), (9, 0.2)]}, quality_metric="KID-classifier", floor=(-0.1, 0.1),
        **images_study.shown(trained.recipe, 12),
    )  # fmt: skip
    page = write_report(comparison, tmp_path, image_run.figures(comparison)).read_text()
    drawn = {path.name for path in tmp_path.glob("*.png")}
    each = {f"{what}-{key}.png" for what in ("samples", "denoising", "training") for key in ("flow", "diffusion")}
    assert drawn == each | {"real.png", "quality.png", "losses.png"}
    assert page.count("data:image/png") == len(drawn)
    assert "42 images of 3 × 4 × 4, 18 held out" in page


def test_a_loaded_run_draws_the_same(run):
    trained, folder = run
    again = from_pretrained(folder / "run")
    assert torch.equal(again.sample(4, label=1, steps=3), trained.sample(4, label=1, steps=3))
