"""The commands on images, end to end: compare, evaluate, plot, show, and what they refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ebbtide.kinds import KINDS
from ebbtide.kinds.images import kind as images, pages as image_run
from ebbtide.metrics import extractors


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(extractors, "_EPOCHS", 2)
    monkeypatch.setattr(image_run, "STEPS", 3)
    monkeypatch.setattr(image_run, "FILM", 6)
    monkeypatch.setattr(image_run, "WEIGHTS", (1.0, 3.0))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A file of 60 noisy 8 × 8 images in two classes, one bright and one dark, and a folder of the same."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = (60 + 120 * labels[:, None, None] + rng.integers(-40, 40, (60, 8, 8))).astype(np.uint8)
    np.savez(folder / "two.npz", images=x, labels=labels)
    for k, one in enumerate(x):
        (folder / "photos" / ("dark", "bright")[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / "photos" / ("dark", "bright")[k % 2] / f"{k}.png")
    return folder


@pytest.mark.slow
def test_evaluate_prints_every_metric_and_draws_the_nearest(ebbtide, runs):
    code, out, _ = ebbtide("evaluate", runs / "flow-images", "--n", "60", "--steps", "2", "--sampler", "ddim")
    assert code == 0
    rows = {line.split("  ")[0].strip() for line in out.splitlines()}
    assert {"KID-classifier", "precision", "recall", "asked class recognised", "copies"} <= rows
    stored = {row["name"] for row in json.loads((runs / "flow-images" / "evaluation.json").read_text())}
    assert "nearest training image" in stored
    assert (runs / "flow-images" / "neighbours.png").stat().st_size > 1000


def test_plot_draws_a_run(ebbtide, runs, tmp_path):
    code, out, _ = ebbtide("plot", runs / "ddpm-images", "--out", tmp_path / "plots")
    assert code == 0
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"samples.png", "denoising.png", "guidance.png", "inpainting.png", "training.gif"} <= names
    assert len(out.splitlines()) == len(names)


def test_compare_on_pictures(ebbtide, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "images", replace(images.IMAGES, plan=shortened(images.PLAN)))
    given = ["--data", pictures / "two.npz", "--held-out", "0.4", "--conditional", "--network", "unet-tiny:width=8"]
    given += ["--steps", "4", "--batch", "8", "--n", "100", "--workers", "1", "--quiet", "--out", tmp_path / "out"]
    code, out, err = ebbtide("compare", *given)
    assert (code, err) == (0, "")
    assert out.startswith("DDPM and flow matching on two.npz; trained in DDPM")
    assert "asked class recognised" in out
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["quality_metric"] == "KID-classifier"
    recipes = {
        key: json.loads((tmp_path / "out" / key / "checkpoints" / "last" / "config.json").read_text())["recipe"]
        for key in ("diffusion", "flow")
    }
    differing = {name for name, value in recipes["flow"].items() if recipes["diffusion"][name] != value}
    assert differing <= set(images.PLAN.own)
    assert (recipes["flow"]["times"], recipes["diffusion"]["bound"]) == ("logit_normal", 1.0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") == 9


def shortened(plan):

    rows = {name: replace(row, ways=(row.ways[0]._replace(steps=2),)) for name, row in plan.rows.items()}
    return replace(plan, rows=rows, curve={"Euler": ("euler", (2, 3))}, curve_n=24)


def test_show_data_and_its_way_to_noise(ebbtide, pictures, tmp_path):
    assert ebbtide("show", "data", pictures / "photos", "--label", "folder", "--out", tmp_path)[0] == 0
    assert (tmp_path / "photos.png").stat().st_size > 2000
    assert ebbtide("show", "path", "--path", "cosine", "--data", pictures / "two.npz", "--out", tmp_path)[0] == 0
    assert (tmp_path / "dissolving.png").stat().st_size > 2000


def test_what_is_resumed_is_what_was_begun(ebbtide, runs):
    code, out, err = ebbtide("resume", runs / "edm-images", "--quiet")
    assert (code, out) == (0, "")
    assert "is finished already" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train flow-images --data nothere", "'nothere' does not exist."),
        ("train flow-images --data {empty}", "holds no images."),
        ("train flow-images --data {photos} --label folder --on-bad-image ask", "must be one of 'skip', 'fail'"),
        ("train flow-images --channels 2 --data {photos}", "channels"),
        ("train flow-images --network unet-tiny:width=0", "unet: width must be at least 1"),
        ("train flow-images --network unet-tiny:patch=3", "even and multiples of patch = 3; got 8 × 8."),
        ("train flow-images --points 3", "There is no option --points"),
        (
            "train ddpm-images --coupling ot",
            "as where noise and data are coupled; got target 'noise'.",
        ),
        ("train flow-images --held-out 0.95", "held_out must be at least 0 and at most 0.9; got 0.95."),
        ("likelihood {runs}/flow-images", "likelihood is for runs on points"),
        ("sample {runs}/flow-images --bound -3", "--bound must be at least 0 and finite; got -3.0."),
        ("sample {runs}/flow-images --out x.gif", "--out must end in .png or .npz, or be a folder; got 'x.gif'."),
        ("evaluate {runs}/flow-images --n 3", "at least"),
    ],
)
def test_what_cannot_be_is_one_sentence(ebbtide, runs, pictures, arguments, sentence, tmp_path):
    (tmp_path / "empty").mkdir()
    words = arguments.format(runs=runs, photos=pictures / "photos", empty=tmp_path / "empty").split()
    code, out, err = ebbtide(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.strip().splitlines()[-1].startswith("ebbtide: ")


def test_a_file_that_is_the_figure_is_named_once(ebbtide, runs, tmp_path):
    out = tmp_path / "own.png"
    code, _, err = ebbtide("sample", runs / "flow-images", "--n", "4", "--steps", "2", "--out", out)
    assert (code, err.count(str(out))) == (0, 1), err
