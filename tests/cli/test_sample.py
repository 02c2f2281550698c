"""`sample`, `evaluate`, `plot` and `export`: what a trained run is for."""

import csv
import json
import math
from dataclasses import fields, replace
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.cli import main
from ebbtide.cli.drawing import Drawing
from ebbtide.data import read, save_points
from ebbtide.exact.likelihood import log_density
from ebbtide.kinds import KINDS
from ebbtide.kinds.points.data import unseen
from ebbtide.kinds.runs import from_pretrained
from ebbtide.plots import style
from ebbtide.training.trained import Trained

from .conftest import PICTURES, POINTS, TINY

PLOTS = {"samples.png", "trajectories.png", "intermediate.png", "losses.png", "sampling.gif", "training.gif"}


@pytest.mark.parametrize("name", [*POINTS, "between", "line", "conditional", "plants"])
def test_every_run_can_be_drawn_from(ebbtide, runs, name, tmp_path):
    code, out, err = ebbtide("sample", runs / name, "--n", "50", "--steps", "5", "--no-picture", "--out", "x.npy")
    assert (code, out) == (0, "")
    assert "50 samples in" in err
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (50, 1 if name == "line" else 2)
    assert np.isfinite(x).all()


@pytest.mark.parametrize("standardise", ["--standardise", "--no-standardise"])
def test_a_constant_column_stays_exactly_constant(ebbtide, tmp_path, standardise):
    rows = [f"{x},7.3,{2 * x}" for x in range(30)]
    (tmp_path / "table.csv").write_text("\n".join(["a,fixed,c", *rows]))
    data = ("--data", tmp_path / "table.csv", standardise)
    assert ebbtide("train", "ddpm", *data, *TINY, "--out", tmp_path / "run")[0] == 0
    assert ebbtide("sample", tmp_path / "run", "--n", "40", "--steps", "5", "--out", tmp_path / "x.csv")[0] == 0
    with open(tmp_path / "x.csv") as file:
        lines = list(csv.DictReader(file))
    assert {line["fixed"] for line in lines} == {"7.3"}
    assert len({line["a"] for line in lines}) > 12


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "autoencoder"])  # which draws none
def test_every_run_on_pictures_can_be_drawn_from(ebbtide, runs, name, tmp_path):
    given = ("--n", "20", "--steps", "3", "--sampler", "ddim", "--grid", "uniform", "--label", "all", "--guidance", "2")
    code, out, err = ebbtide("sample", runs / name, *given, "--out", "x.npz")
    assert (code, out) == (0, "")
    assert "20 samples in" in err
    with np.load(tmp_path / "x.npz") as held:
        assert (held["images"].shape, held["images"].dtype) == ((20, 8, 8, 1), np.uint8)
        assert held["labels"].tolist() == [k % 10 for k in range(20)]
        assert held["classes"].tolist() == list("0123456789")
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.height > sheet.width  # a row for each of the ten classes
    assert ebbtide("sample", runs / name, *given, "--out", "x.csv")[::2] == (
        2,
        "ebbtide: --out must end in .png or .npz, or be a folder; got 'x.csv'.\n",
    )


def test_out_means_the_same_in_sample_and_show(ebbtide, runs, tmp_path):
    """A file, or a folder for one of the usual name; a folder is made, a file's must be there."""
    few = ["--n", "4", "--steps", "2", "--no-picture"]
    for command, words, usual, file in (
        ("sample", [runs / "flow", *few], "samples.npy", "x.csv"),
        ("show", ["data", "rings", "--n", "50"], "rings.png", "x.svg"),
    ):
        place = f"{command}d/in"
        assert ebbtide(command, *words, "--out", place)[0] == 0
        assert ebbtide(command, *words, "--out", f"{place}/{file}")[0] == 0
        assert {one.name for one in (tmp_path / place).iterdir()} == {usual, file}
        for out, again in ((place, f"{place}/{usual}"), (f"{place}/{file}", f"{place}/{file}")):
            assert ebbtide(command, *words, "--out", out) == (
                2, "", f"ebbtide: {again} exists; pass --overwrite to replace it.\n"
            )  # fmt: skip
            assert ebbtide(command, *words, "--out", out, "--overwrite")[0] == 0
        code, _, err = ebbtide(command, *words, "--out", f"nothere/{file}")
        assert (code, err) == (2, f"ebbtide: nothere/{file} can't be written: there is no folder nothere.\n")
    assert ebbtide("show", "path", "--out", "x.png")[2] == (
        "ebbtide: --out must be a folder, as show path draws several figures; got 'x.png'.\n"
    )


@pytest.mark.parametrize("sampler", ["ddpm", "ddpm:variance=beta", "ddim", "ddim:eta=0.5", "euler", "heun"])
@pytest.mark.parametrize("name", ["ddpm", "flow", "edm"])
def test_any_sampler_on_any_run(ebbtide, runs, name, sampler, tmp_path):
    given = ("--n", "20", "--steps", "4", "--sampler", sampler, "--grid", "quadratic", "--no-picture", "--out", "x.npy")
    assert ebbtide("sample", runs / name, *given)[0] == 0
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()


# What samples are drawn with, and for each field of Drawing another value.
DRAWN = {"n": "8", "steps": "4", "label": "first", "guidance": "3"}
OTHERS = {
    "n": "9", "seed": "1", "sampler": "euler", "grid": "uniform", "steps": "3", "label": "second", "guidance": "2",
    "interval": "0 0.5", "bound": "0.5", "precision": "bf16", "device": "auto",
    "threads": "2",
}  # fmt: skip


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_every_option_of_drawing_changes_what_is_drawn(ebbtide, runs, monkeypatch, command):
    """Bit by bit, in either command; threads, which change no sample, are torch's own, and auto may be the CPU."""
    kept, draw = [], Trained.sample
    monkeypatch.setattr(Trained, "sample", lambda *own, **how: kept.append(draw(*own, **how)) or kept[-1])
    monkeypatch.setitem(KINDS, "points", replace(KINDS["points"], evaluate=lambda *_, **__: []))
    extra = {"sample": ["--no-picture", "--overwrite", "--out", "x.npy"], "evaluate": ["--json"]}[command]

    def drawn(**changes):
        words = [word for name, value in (DRAWN | changes).items() for word in (f"--{name}", *value.split())]
        code, _, err = ebbtide(command, runs / "conditional", *words, *extra)
        assert code == 0, err
        return kept[-1]

    usual, changed = drawn(), {name: drawn(**{name: value}) for name, value in OTHERS.items()}
    assert torch.get_num_threads() == 2
    assert torch.equal(drawn(), usual)
    assert torch.get_num_threads() == 1
    assert OTHERS.keys() == {field.name for field in fields(Drawing)}
    assert {name for name, x in changed.items() if torch.equal(x, usual)} <= {"threads", "device"}


def test_an_option_without_what_it_is_for_is_refused(ebbtide, runs, tmp_path):
    says = "ebbtide: --interval says when guidance acts, and --guidance 1 is off.\n"
    for command in ("sample", "evaluate"):
        given = (runs / "conditional", "--label", "first", "--interval", "0.2", "1")
        assert ebbtide(command, *given) == (2, "", says)
    says = "ebbtide: --private is for the repository that --push names.\n"
    assert ebbtide("export", runs / "flow", "--out", "model", "--private") == (2, "", says)
    assert not list(tmp_path.iterdir())


def test_samples_are_files_with_names_and_a_picture(ebbtide, runs, tmp_path):
    given = (
        runs / "plants",
        "--n",
        "30",
        "--steps",
        "3",
        "--label",
        "all",
        "--guidance",
        "1.5",
        "--interval",
        "0.1",
        "0.9",
    )
    for name in ("x.csv", "x.tsv", "x.npz"):
        assert ebbtide("sample", *given, "--out", name, "--overwrite")[0] == 0
        points = read(tmp_path / name, "labels" if name == "x.npz" else "kind")
        assert points.classes == ("fern", "moss")
        assert points.labels.tolist() == [k % 2 for k in range(30)]
        assert (tmp_path / "x.png").stat().st_size > 4_000
    with open(tmp_path / "x.csv") as file:
        assert next(csv.reader(file)) == ["height", "kind", "width"]  # in the place of its column in the file
    assert (read(tmp_path / "x.csv", "kind").x == read(tmp_path / "x.npz").x).all()


def test_figures_of_samples_have_the_form_that_is_asked_for(ebbtide, runs, tmp_path):
    for name, file, usual in (
        ("flow", "x.npy", "png"),
        ("flow-images", "y.npz", "png"),
        ("flow-images", "z.png", "png"),
    ):
        few = ("sample", runs / name, "--n", "4", "--steps", "2", "--out")
        stem = file[0]
        if not file.endswith(usual):
            assert ebbtide(*few, file, "--svg")[0] == 0
            assert (tmp_path / f"{stem}.svg").read_text().lstrip().startswith("<?xml")
            assert not (tmp_path / f"{stem}.png").exists()
        sizes = []
        for dpi in ("50", "100"):
            assert ebbtide(*few, file, "--dpi", dpi, "--overwrite")[0] == 0
            with Image.open(tmp_path / f"{stem}.png") as picture:
                sizes.append(picture.width)
        assert sizes[1] == pytest.approx(2 * sizes[0], abs=2)
    assert ebbtide(*few, "pictures/", "--svg")[0] == 0
    assert [file.name for file in (tmp_path / "pictures").iterdir()] == ["samples.svg"]
    says = "ebbtide: --out must end in .svg or .npz, or be a folder; got 'z.png'.\n"
    assert ebbtide(*few, "z.png", "--svg", "--overwrite")[::2] == (2, says)


def test_nothing_is_overwritten_unasked(ebbtide, runs, tmp_path):
    (tmp_path / "x.png").write_text("mine")
    code, _, err = ebbtide("sample", runs / "flow", "--n", "9", "--steps", "2", "--out", "x.npy")
    assert (code, err) == (2, "ebbtide: x.png exists; pass --overwrite to replace it.\n")
    assert ebbtide("sample", runs / "flow", "--n", "9", "--steps", "2", "--out", "x.npy", "--no-picture")[0] == 0
    assert (tmp_path / "x.png").read_text() == "mine"
    assert ebbtide("sample", runs / "flow", "--n", "9", "--steps", "2", "--out", "x.npy", "--no-picture")[0] == 2


def test_sample_i_is_the_same_whatever_n_is(ebbtide, runs, tmp_path, monkeypatch):
    given = ("sample", runs / "conditional", "--steps", "4", "--label", "all", "--no-picture")
    draw = lambda n: ebbtide(*given, "--n", n, "--out", f"{n}.npy")
    assert draw(10)[0] == draw(50)[0] == 0
    monkeypatch.setattr("ebbtide.training.trained.CHUNK", 7)
    assert draw(51)[0] == 0
    ten, fifty, pieces = (np.load(tmp_path / f"{n}.npy") for n in (10, 50, 51))
    assert np.allclose(ten, fifty[:10], atol=1e-5)
    assert np.allclose(fifty, pieces[:50], atol=1e-5)


def test_the_default_file_is_in_the_run(ebbtide, tmp_path, runs):
    assert ebbtide("export", runs / "flow", "--out", "model") == (0, "model\n", "")
    assert ebbtide("sample", "model", "--n", "9", "--steps", "2")[0] == 0
    assert ebbtide("sample", "model", "--n", "9", "--steps", "2")[0] == 0
    assert (tmp_path / "model" / "samples.npy").exists()
    assert (tmp_path / "model" / "samples.png").exists()


def test_evaluate_prints_every_metric_beside_its_floor(ebbtide, runs):
    code, out, err = ebbtide("evaluate", runs / "flow", "--n", "200", "--steps", "5")
    assert (code, err) == (0, "measuring …\n")
    assert out.splitlines()[0].split("  ")[0] == "metric"
    assert "floor" in out.splitlines()[0]
    code, out, _ = ebbtide("evaluate", runs / "flow", "--n", "200", "--steps", "5", "--json")
    rows = json.loads(out)
    names = {row["name"] for row in rows}
    assert {"within-mode sliced W2", "mean log-density", "MMD²", "fraction in mode 0"} <= names
    assert all(row["floor_low"] <= row["floor"] <= row["floor_high"] for row in rows)
    assert json.loads((runs / "flow" / "evaluation.json").read_text()) == rows


def test_evaluate_asks_a_conditional_run_for_every_class(ebbtide, runs):
    code, out, _ = ebbtide("evaluate", runs / "plants", "--n", "100", "--steps", "5", "--json")
    names = {row["name"] for row in json.loads(out)}
    assert code == 0
    assert {"asked label nearest", "sliced W2 of label fern", "sliced W2 of label moss"} <= names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow", "plants", "line", "between"])
def test_plot_draws_all_there_is(ebbtide, runs, name, tmp_path):
    code, out, _ = ebbtide("plot", runs / name, "--out", "plots")
    expected = PLOTS | (set() if name == "line" else {"vector_field.png"})
    assert code == 0
    assert {path.name for path in (tmp_path / "plots").iterdir()} == expected
    assert len(out.splitlines()) == len(expected)


def test_an_export_is_the_run(ebbtide, runs, tmp_path):
    assert ebbtide("export", runs / "flow", "--out", "model")[0] == 0
    assert ebbtide("export", runs / "flow", "--out", "model")[0] == 2
    assert ebbtide("export", runs / "edm", "--out", "model", "--overwrite")[0] == 0
    assert "arXiv:2206.00364" in (tmp_path / "model" / "README.md").read_text()
    model, run = from_pretrained(tmp_path / "model"), from_pretrained(runs / "edm")
    assert (model.sample(5) == run.sample(5)).all()


@pytest.fixture(scope="module")
def unhidden(tmp_path_factory):
    """A run on a 95:5 table that hid no labels."""
    place = tmp_path_factory.mktemp("unhidden")
    labels = torch.arange(400) % 20 == 0
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) + 5 * labels[:, None]
    save_points(place / "table.csv", x, labels=["rare" if rare else "common" for rare in labels])
    words = (
        "--label label --conditional --label-dropout 0 --steps 3 --batch 16 --snapshots 1 --codec standardise --quiet"
    )
    network = ["--network", "mlp:width=8,depth=1", "--data", str(place / "table.csv"), "--out", str(place / "run")]
    assert main(["train", "flow", *words.split(), *network]) == 0
    return place / "run"


@pytest.mark.filterwarnings("ignore:.*log-densities change")
def test_a_run_that_hid_no_labels_draws_them_as_often_as_its_data(ebbtide, unhidden, tmp_path, monkeypatch):
    quick = ("--steps", "2", "--overwrite", "--no-picture", "--out", "x.csv")
    given = lambda *words: [*("sample", unhidden, "--n", "400"), *words, *quick]
    count = lambda: (tmp_path / "x.csv").read_text().count("rare")
    code, _, err = ebbtide(*given())
    assert code == 0
    assert "hid no labels, so each sample's is drawn as often as in the data" in err
    assert 2 <= count() <= 48  # 20 and 6 standard errors of 4.4, all but what lies below 2
    assert ebbtide(*given("--label", "all"))[0] == 0
    assert count() == 20
    assert ebbtide(*given("--label", "rare"))[0] == 0
    assert count() == 400
    code, _, err = ebbtide(*given("--label", "rare", "--guidance", "2"))
    assert (code, "Guidance needs a run trained with label_dropout above 0" in err) == (2, True)
    code, out, err = ebbtide("evaluate", unhidden, "--n", "100", "--steps", "2", "--json")
    assert (code, err.count("drawn as often")) == (0, 0)
    assert {"copies", "asked label nearest"} <= {row["name"] for row in json.loads(out)}
    config = json.loads((unhidden / "checkpoints" / "last" / "config.json").read_text())
    assert config["frequencies"] == [0.95, 0.05]
    monkeypatch.setattr("ebbtide.cli.likelihood.MAP", 6)
    code, out, _ = ebbtide("likelihood", unhidden, "--steps", "8")
    found = float(out.split()[1])
    trained = from_pretrained(unhidden)
    z = trained.to_network(unseen(trained.recipe, 10**6, 0).x)
    each = [
        log_density(trained.denoiser, z, steps=8, label=torch.full((len(z),), k)).exp() * share
        for k, share in enumerate(trained.frequencies)
    ]
    volume = math.log(math.prod(trained.codec.std))
    assert found == pytest.approx(float(sum(each).log().mean()) - volume, abs=2e-3)
    assert ebbtide("plot", unhidden)[0] == 0
    assert not (unhidden / "plots" / "vector_field.png").exists()


def test_a_class_may_be_called_all(ebbtide, tmp_path):
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    save_points(tmp_path / "table.csv", x, labels=["all", "some"] * 50)
    small = "--label label --conditional --steps 3 --batch 16 --snapshots 0 --quiet --out run"
    assert ebbtide("train", "flow", "--data", "table.csv", *small.split())[0] == 0
    few = ("run", "--n", "20", "--steps", "2")
    assert ebbtide("sample", *few, "--label", "all", "--no-picture", "--out", "x.csv")[0] == 0
    assert (tmp_path / "x.csv").read_text().count("all") == 20
    code, out, _ = ebbtide("evaluate", *few, "--json")
    assert code == 0
    assert {"sliced W2 of label all", "sliced W2 of label some"} <= {row["name"] for row in json.loads(out)}


def test_an_export_has_no_training_to_plot(ebbtide, runs, tmp_path):
    assert ebbtide("export", runs / "flow", "--out", tmp_path / "shared")[0] == 0
    code, _, err = ebbtide("plot", tmp_path / "shared")
    assert (code, "an export, which has no losses and steps to draw" in err) == (2, True)


def test_plot_shows_the_columns_of_a_wide_table(ebbtide, tmp_path):
    np.savetxt(
        tmp_path / "a.csv",
        np.random.default_rng(0).normal(size=(40, 5)),
        delimiter=",",
        header="a,b,c,d,e",
        comments="",
    )
    assert ebbtide("train", "flow", "--data", tmp_path / "a.csv", *TINY, "--out", tmp_path / "run")[0] == 0
    assert ebbtide("plot", tmp_path / "run")[0] == 0
    with Image.open(tmp_path / "run" / "plots" / "samples.png") as figure:
        assert figure.height > 6 * style.DPI  # pairs of columns, not two panels


# --- columns given --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shells(tmp_path_factory):
    """A run on a table of shells, whose masses in g have a decimal comma, each column learned given the others."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("shells")
    kind = rng.choice(["cone", "whelk, red"], 120)
    sizes, masses = rng.integers(9, 20, 120), [f"{mass:.1f}".replace(".", ",") for mass in rng.normal(5, 1, 120)]
    lines = [f'{k};{size};{mass};"{what}"' for k, (size, mass, what) in enumerate(zip(sizes, masses, kind))]
    (folder / "shells.csv").write_text("\n".join(["no, all;size;mass;kind", *lines]) + "\n")
    data = ("--data", str(folder / "shells.csv"), "--drop", '"no, all"', "--any-columns")
    assert main(["train", "flow", *data, *TINY, "--out", str(folder / "run")]) == 0
    return folder


def test_rows_are_completed_and_known_cells_stay_as_written(ebbtide, shells, tmp_path):
    rows = ["mass;no, all;kind", "5,00;a7;", ";b; whelk, red", ' 4,5;c;"cone"', '7.25;"d;e";whelk, red']
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    ask = ("sample", shells / "run", "--complete", "rows.csv", "--steps", "3")
    code, _, err = ebbtide(*ask, "--out", "one.csv")
    assert code == 0, err
    assert "6 cells of 4 rows drawn in" in err
    read_again = lambda name: list(csv.reader((tmp_path / name).read_text().splitlines(), delimiter=";"))
    one = read_again("one.csv")
    assert one[0] == ["mass", "no, all", "kind", "size"]
    assert [row[1] for row in one[1:]] == ["a7", "b", "c", "d;e"]
    assert [one[k][0] for k in (1, 3, 4)] == ["5,00", " 4,5", "7.25"]
    assert [row[2] for row in one[2:]] == [" whelk, red", "cone", "whelk, red"]
    assert one[1][2] in ("cone", "whelk, red")
    assert "," in one[2][0]
    assert all(9 <= int(row[3]) < 20 for row in one[1:])
    assert ebbtide(*ask, "--draws", "3", "--out", "three.csv")[0] == 0
    three = read_again("three.csv")
    assert three[0] == [*one[0], "draw"]
    assert [row[4] for row in three[1:]] == ["1", "2", "3"] * 4
    assert [row[:3:2] for row in three[4::3]] == [row[:3:2] for row in one[2:]]
    assert ebbtide(*ask, "--out", "one.tsv")[0] == 0
    assert (tmp_path / "one.tsv").read_text().startswith('"mass"\t"no, all"\t"kind"\t"size"\n5,00\ta7\t')


def test_rows_to_start_from_may_have_a_dropped_column(ebbtide, shells, tmp_path):
    ask = ("sample", shells / "run", "--start", shells / "shells.csv", "--at", "0.1", "--steps", "2", "--no-picture")
    assert ebbtide(*ask, "--out", "x.csv") == (0, "", ANY)
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 121


def test_columns_are_given_by_name(ebbtide, shells, tmp_path):
    ask = ("sample", shells / "run", "--n", "9", "--steps", "3", "--no-picture", "--out", "x.csv", "--overwrite")
    code, _, err = ebbtide(*ask, "--given", 'size=12, "kind=whelk, red"')
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text().splitlines(), delimiter=";"))
    assert {(row["size"], row["kind"]) for row in rows} == {("12", "whelk, red")}
    assert len({row["mass"] for row in rows}) > 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--given", "sizes=12"], "'sizes' is no column that the run has learned (did you mean 'size'?)"),
        (["--given", "size=200"], "column 'size': it must be at least 9 and at most 19, as in the table"),
        (["--given", "kind=cones"], "it must be one of 'cone', 'whelk, red'; got 'cones' (did you mean 'cone'?)"),
        (["--given", "size"], "--given must name columns and their values once, as cut=Ideal,carat=1.0, with a comma"),
        (["--given", "size=12", "--complete", "rows.csv"], "leave --given and --n out"),
        (["--complete", "rows.csv", "--n", "7"], "leave --given and --n out"),
        (["--draws", "3"], "--draws belongs to --complete"),
        (["--complete", "rows.csv", "--out", "x.npy"], "--out must end in .csv or .tsv for --complete"),
        (["--complete", "none.csv"], "none.csv: No such file"),
        (["--complete", "rows.csv"], "rows.csv: 'seize' is no column that the run has learned (did you mean 'size'?)"),
        (["--complete", "bad.csv"], "bad.csv, row 3, column 'mass': it must be a number; got 'heavy'"),
    ],
)  # fmt: skip
def test_what_the_run_can_not_be_given_is_refused(ebbtide, shells, tmp_path, options, says):
    (tmp_path / "rows.csv").write_text("seize;kind\n12;cone\n13;cone\n")
    (tmp_path / "bad.csv").write_text("mass;kind\n4,1;cone\nheavy;cone\n")
    code, _, err = ebbtide("sample", shells / "run", "--steps", "3", "--no-picture", *options)
    assert code == 2
    assert says in err


def test_a_run_without_masks_says_how_to_train_one(ebbtide, runs, tmp_path):
    (tmp_path / "rows.csv").write_text("1,2\n3,\n4,5\n")
    for ask in (("--given", "1=0.5"), ("--complete", "rows.csv")):
        code, _, err = ebbtide("sample", runs / "flow", *ask, "--out", "x.csv")
        assert code == 2
        assert "train it with --any-columns" in err


# --- one's own starting points --------------------------------------------------------------------------------------


def test_a_files_rows_are_carried_across_in_their_order(ebbtide, runs, tmp_path):
    save_points("start.csv", torch.randn(7, 2), columns=("x", "y"))
    ask = ("sample", runs / "between", "--steps", "4", "--no-picture")
    assert ebbtide(*ask, "--start", "start.csv", "--out", "x.npy")[0] == 0
    x = np.load("x.npy")
    np.save("start.npy", read("start.csv").x[[3, 1]].numpy())
    assert ebbtide(*ask, "--start", "start.npy", "--out", "y.npy")[0] == 0
    np.testing.assert_allclose(np.load("y.npy"), x[[3, 1]], atol=1e-5)


def test_a_tables_rows_start_by_their_columns_names(ebbtide, shells, tmp_path):
    rows = [line.split(";") for line in (shells / "shells.csv").read_text().splitlines()[:7]]
    (tmp_path / "rows.csv").write_text("\n".join(";".join(reversed(row)) for row in rows))
    done = ebbtide("sample", shells / "run", "--start", "rows.csv", "--at", "1e-4", "--steps", "4", "--out", "x.csv")
    assert done[0] == 0, done
    sizes = [line.split(";")[0] for line in (tmp_path / "x.csv").read_text().splitlines()]
    assert sizes == [size for _, size, _, _ in rows]


@pytest.mark.parametrize("name", ["one.npy", "one.npz", "one.txt", "one.csv"])
def test_a_single_point_is_a_start(ebbtide, runs, tmp_path, name):
    """Though data to learn from has two rows at least."""
    if name == "one.txt":
        (tmp_path / name).write_text("0.5 -0.25\n")
    else:
        save_points(name, torch.tensor([[0.5, -0.25]]), columns=("x", "y"))
    done = ebbtide("sample", runs / "flow", "--start", name, "--at", "1e-6", "--steps", "4", "--out", "x.npy")
    assert done[0] == 0, done
    np.testing.assert_allclose(np.load("x.npy"), [[0.5, -0.25]], atol=1e-3)
    code, _, err = ebbtide("train", "flow", "--data", name, "--out", "there")
    assert (code, "has one row; at least 2 are needed" in err) == (2, True)


def test_all_samples_may_start_from_one_point(ebbtide, runs):
    """Each with noise of its own."""
    save_points("one.npy", torch.tensor([[0.5, -0.25]]), columns=("x", "y"))
    save_points("same.npy", torch.tensor([[0.5, -0.25]] * 3), columns=("x", "y"))
    ask = ("sample", runs / "flow", "--at", "0.5", "--steps", "4", "--no-picture")
    assert ebbtide(*ask, "--start", "one.npy", "--n", "3", "--out", "x.npy")[0] == 0
    assert ebbtide(*ask, "--start", "same.npy", "--out", "y.npy")[0] == 0
    x = np.load("x.npy")
    assert np.array_equal(x, np.load("y.npy"))
    assert len(np.unique(x, axis=0)) == 3


def test_images_start_from_a_folder_a_file_or_an_npz(ebbtide, runs, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "digits.npz", images=images)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / "folder" / f"{i}.png")
    ask = ("sample", runs / "flow-images", "--at", "0.5", "--steps", "4", "--sampler", "euler", "--grid", "uniform")
    drawn = {}
    for name in ("digits.npz", "folder", "folder/0.png"):
        code, _, err = ebbtide(*ask, "--start", name, "--out", "x.npz", "--overwrite")
        assert code == 0, err
        with np.load("x.npz") as held:
            drawn[name] = held["images"]
    assert np.array_equal(drawn["digits.npz"], drawn["folder"])
    assert np.array_equal(drawn["folder/0.png"], drawn["folder"][:1])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("flow", ("--start", "start.csv"), "This run starts from noise, so start is data, noised to a time below 1"),
        ("flow", ("--at", "0.5"), "--at is the time to which --start is noised; give --start too."),
        ("flow", ("--start", "start.csv", "--at", "0"), "--at must be above 0 and at most 1; got 0."),
        (
            "flow",
            ("--start", "start.csv", "--at", "0.5", "--n", "3"),
            "--n must be the number that --start has, 7, or be",
        ),
        ("flow", ("--start", "start.csv", "--complete", "start.csv"), "--complete has its own rows, and --start too"),
        ("flow", ("--start", "none.csv", "--at", "0.5"), "Can't use none.csv: No such file"),
        ("flow", ("--start", "three.csv", "--at", "0.5"), "three.csv: 'z' is no column that the run has learned"),
        ("flow-images", ("--start", "start.csv", "--at", "0.5"), "images must be 'digits', a folder"),
        ("flow-images", ("--start", "bad.png", "--at", "0.5"), "bad.png: the image is not an image of a known format"),
    ],
)
def test_a_start_that_cannot_be_is_refused(ebbtide, runs, tmp_path, name, options, says):
    save_points("start.csv", torch.randn(7, 2), columns=("x", "y"))
    save_points("three.csv", torch.randn(7, 3), columns=("x", "y", "z"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, out, err = ebbtide("sample", runs / name, *options, "--out", "x.npy" if name == "flow" else "x.npz")
    assert (code, out) == (2, "")
    assert says in err
