"""Tables of every kind of column, from their file through training to samples in the same form."""

import csv
import warnings

import numpy as np
import pytest
import torch

import ebbtide
from ebbtide.cli import main
from ebbtide.codecs import Missing
from ebbtide.errors import InputError
from ebbtide.kinds.points.data import described, parts, prepare, read_rows

G = np.random.default_rng(0)
STEPS = ["--steps", "3", "--batch", "32", "--snapshots", "0", "--no-fit", "--quiet", "--no-picture"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "people.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name of town", "height", "group", "pays", "born", "fee"])
        for k in range(120):
            height = "" if k % 11 == 5 else f"{G.normal(170, 9):.1f}"
            fee = f"${G.integers(0, 5000):,}"
            rows.writerow(
                [["Ulm", "Bonn"][k % 2], height, "abc"[k % 3], ["yes", "no"][k % 7 == 0], f"19{50 + k % 40}-03-01", fee]
            )
    return path


@pytest.fixture(scope="module")
def run(table):
    out = table.parent / "run"
    argv = ["train", "flow", "--data", str(table), "--label", "group", "--conditional", "--out", str(out), *STEPS[:-1]]
    assert main(argv) == 0
    return out


def test_samples_are_written_as_their_file_is(table, run, capsys):
    out = run / "mine.csv"
    assert (
        main(["sample", str(run), "--n", "50", "--label", "all", "--steps", "2", "--out", str(out), "--no-picture"])
        == 0
    )
    assert "not finite" not in capsys.readouterr().err
    with open(table) as file, open(out) as ours:
        given, made = list(csv.reader(file)), list(csv.reader(ours))
    assert made[0] == given[0]
    for k, right in {0: {"Ulm", "Bonn"}, 2: set("abc"), 3: {"yes", "no"}}.items():
        assert {row[k] for row in made[1:]} <= right
    assert all(row[1] == "" or (row[1].count(".") == 1 and len(row[1].partition(".")[2]) == 1) for row in made[1:])
    assert all(1950 <= int(row[4][:4]) < 1990 for row in made[1:])
    assert all(row[5].startswith("$") for row in made[1:])
    with pytest.warns(UserWarning, match="'fee' has "):
        again = ebbtide.data.read(out, "group")
    assert again.columns == ("name of town", "height", "pays", "born", "fee")


def test_a_run_is_loaded_measured_and_resumed(table, run, capsys):
    trained = ebbtide.from_pretrained(run)
    assert trained.shape == (5,)
    assert trained.sample(4, seed=1, steps=2).shape == (4, 5)
    x = trained.sample(4, seed=1, steps=2)
    assert torch.equal(trained.sample(2, seed=1, first=2, steps=2).nan_to_num(-1), x[2:].nan_to_num(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["evaluate", str(run), "--n", "40", "--steps", "2"]) == 0
    assert "nearest training row" in capsys.readouterr().out
    assert main(["likelihood", str(run)]) == 2
    assert "or ranks, so the data has no density" in capsys.readouterr().err
    argv = ["train", "flow", "--data", str(table), "--label", "group", "--conditional", "--out", str(run), "--resume"]
    assert main([*argv, *STEPS[:-1]]) == 0


def test_show_data_names_the_columns_and_their_codecs(table, tmp_path, capsys):
    assert main(["show", "data", str(table), "--drop", "born", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [part for part in lines[0].split("  ") if part] == ["name of town", "2 levels", "unit vectors of levels"]
    assert "11 missing" in lines[1]
    assert "ranks and an indicator of missing cells" in lines[1]
    assert not any("born" in line for line in lines)


def test_ties_are_drawn_anew_at_every_step():
    """And numbers without ties are not; a run's every draw is a function of its seed and step."""
    recipe = ebbtide.flow(data="three_gaussians", points=500, codec="ranks")
    prepared = prepare(recipe)
    take = lambda seed: prepared.data.take(torch.arange(20), torch.Generator().manual_seed(seed))["x0"]
    assert torch.equal(take(0), take(1))
    counts = torch.tensor(G.integers(0, 4, (60, 1)), dtype=torch.float32)
    _, given = ebbtide.kinds.points.data.given(ebbtide.flow(codec="ranks"), counts, None)
    take = lambda seed: given.data.take(torch.arange(20), torch.Generator().manual_seed(seed))["x0"]
    assert torch.equal(take(0), take(0))
    assert not torch.equal(take(0), take(1))
    assert torch.equal(given.codec.decode(take(1)), given.codec.decode(take(2)))


def test_the_codec_is_fitted_to_the_rows_to_train_on_alone(table):
    recipe = ebbtide.flow(data=str(table), codec="mixed", validation=0.0, held_out=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, held = parts(recipe)
        codec = prepare(recipe).codec
        assert len(held.x) == 12
        assert torch.equal(codec.encode(train.x), prepare(recipe).codec.encode(train.x))
        own = ebbtide.codecs.fit_table(train.x, [len(c.levels) for c in train.form.columns])
    assert all(torch.equal(part, own.weights()[name]) for name, part in codec.weights().items())


def test_codecs_that_do_not_fit_are_refused(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fields, words in {
            ("codec", "pixels"): "codec must be one of columns",
            ("codec", "ranks"): "has texts or missing cells, which codec mixed is for; got 'ranks'",
            ("source", "two_moons"): "source is for tables of numbers",
            ("drop", "size"): "has no column 'size'",
        }.items():
            with pytest.raises(InputError, match=words):
                recipe = ebbtide.flow(data=str(table)).having(dict([fields]))
                ebbtide.kinds.points.data.fits(recipe)
                prepare(recipe)
    with pytest.raises(InputError, match="both say"):
        ebbtide.kinds.points.data.fits(ebbtide.flow(codec="ranks", standardise=False))
    with pytest.raises(InputError, match="two_moons is not a file"):
        read_rows(ebbtide.flow(data="two_moons", drop="x"), 10, 0)
    lines = described(ebbtide.flow(data="two_moons"), read_rows(ebbtide.flow(data="two_moons"), 10, 0))
    assert [" ".join(line.split()) for line in lines] == [
        "x number standardised per column",
        "y number standardised per column",
    ]


def test_cells_may_be_missing_in_rows_that_are_not_learned_alone(tmp_path):
    rng, shapes, path = np.random.default_rng(2), set(), tmp_path / "rare.csv"
    numbers, unseen = rng.normal(size=(60, 2)), 0
    recipe = ebbtide.flow(data=str(path), network="mlp:width=16,depth=1", batch=32, steps=20, validation=0.2)
    for k in range(0, 60, 4):
        rows = [f"{a:.3f},{b:.3f},{'abc'[i % 3]},yes" for i, (a, b) in enumerate(numbers)]
        rows[k] = "1.0,,,"
        path.write_text("a,b,kind,fine\n" + "\n".join(rows) + "\n")
        with warnings.catch_warnings(action="ignore"):
            prepared = prepare(recipe)
            for data in (prepared.data, prepared.judging):
                z = data.take(torch.arange(len(data)), torch.Generator().manual_seed(0))["x0"]
                assert bool(z.isfinite().all())
                shapes.add(z.shape[1:])
            if not bool(
                next(part.empty.values for part in prepared.codec.parts if isinstance(part, Missing)).any()
            ):  # the gap is in a row that judges
                unseen += 1
                if unseen == 1:
                    assert ebbtide.fit(recipe, progress=False, solvers=False).sample(4, steps=2).shape == (4, 4)
    assert len(shapes) == 1  # wherever the gaps lie
    assert unseen > 0
