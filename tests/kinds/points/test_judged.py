"""The report on a run's table: labels as a column, held-out rows, densities, its page."""

import csv

import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.kinds.points.data import parts
from ebbtide.kinds.points.judged import judged
from ebbtide.kinds.runs import train_recipe
from ebbtide.metrics.tables import judge as judge_module
from ebbtide.recipes import PointRecipe


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(judge_module, "trees_at_hand", lambda: False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(conditional, options) → a run of two steps on a table of texts, gaps and numbers."""
    folder = tmp_path_factory.mktemp("judged")
    rng = np.random.default_rng(0)
    with (folder / "shop.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["price", "colour", "stars", "sort"])
        for k in range(160):
            price = rng.lognormal()
            rows.writerow([f"{price:.2f}", ["red", "blue"][k % 2], "" if k % 5 == 0 else k % 7, "ab"[int(price > 1)]])
    made = {}

    def make(**changes):
        if (key := str(changes)) not in made:
            options = {"label": "sort", "conditional": True, "steps": 2, "batch": 16, "held_out": 0.3} | changes
            recipe = PointRecipe(data=str(folder / "shop.csv"), **options)
            made[key] = train_recipe(recipe, folder / f"run{len(made)}", snapshots=0, progress=False, solvers=False)
        return made[key]

    return make


def test_labels_are_a_column_and_held_out_rows_are_real(trained):
    run = trained()
    labels = run.in_proportion(60)
    found = judged(run, run.sample(60, label=labels), labels)
    assert found.samples.names == ("price", "colour", "stars", "sort")
    assert found.samples.levels == ((), ("blue", "red"), (), ("a", "b"))
    assert (len(found.train), len(found.held)) == (112, 48)
    assert found.real is found.held
    assert [part.heading.partition(" ")[0] for part in found.parts] == [
        "Copies", "C2ST:", "Columns:", "Correlations", "TSTR:", "Nats",
    ]  # fmt: skip
    assert "scikit-learn" in found.parts[1].words[0]
    assert "unit vectors" in found.parts[-1].words[0]
    assert "TV of sort" in str(found)
    assert [row.name for row in found.rows][:3] == ["exact copies", "nearest training row", "copies"]


def test_a_run_that_returns_training_rows_is_called_out(trained):
    run = trained()
    train, held = parts(run.reading())
    caught = judged(run, train.x, train.labels)
    assert "this model remembers" in str(caught)
    assert caught.rows[0].value == 1
    assert "this model remembers" not in str(judged(run, held.x, held.labels))


def test_one_class_is_held_against_itself_and_has_no_column(trained):
    run = trained()
    labels = torch.zeros(40, dtype=torch.long)
    found = judged(run, run.sample(40, label=labels), labels)
    assert found.samples.names == ("price", "colour", "stars")
    train, _ = parts(run.reading())
    assert len(found.train) == int((train.labels == 0).sum())


def test_a_target_and_a_table_of_which_nothing_is_held_out(trained):
    run = trained(conditional=False, label="", held_out=0.0)
    found = judged(run, run.sample(40), target="price")
    assert "copying can't be seen" in str(found)
    assert found.parts[4].heading.startswith("TSTR: trees that learn price")
    assert found.real is found.train
    with pytest.raises(InputError, match="The column must be one of price, colour, stars, sort"):
        judged(run, run.sample(10), target="prices")


def test_nats_are_a_bound_with_gaps_and_are_for_ranks(trained):
    run = trained(ordered="colour=red<blue")
    labels = run.in_proportion(60)
    (part,) = judged(run, run.sample(60, label=labels), labels).parts[-1:]
    assert "lower bounds, for values repeat or are missing" in part.words[0]
    assert part.rows[0].name == "nats per row"
    plain = trained(drop="colour,stars", codec="standardise")
    labels = plain.in_proportion(40)
    assert "--codec mixed" in judged(plain, plain.sample(40, label=labels), labels).parts[-1].words[0]


def test_a_named_set_has_no_report(tmp_path):
    recipe = PointRecipe(data="pinwheel", steps=1, points=50, batch=8)
    run = train_recipe(recipe, tmp_path / "run", snapshots=0, progress=False, solvers=False)
    assert judged(run, run.sample(5)) is None
    with pytest.raises(InputError, match="--predict names a column of a table from a file"):
        judged(run, run.sample(5), target="x")
