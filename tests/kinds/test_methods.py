"""The methods of a comparison: their names, folders and colours, the runs that may be among them, ways to sample."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebbtide.data import save_points
from ebbtide.errors import InputError
from ebbtide.exact.tuned import Tuned
from ebbtide.kinds import KINDS
from ebbtide.kinds.methods import curves, entries, finished, recipes_for, ways
from ebbtide.kinds.points.kind import PLAN
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.plots import style
from ebbtide.recipes import METHODS, ImageRecipe, PointRecipe, edm, edm_images, flow, ot_flow, recipe_from_config
from ebbtide.training import storage

TINY = {"steps": 1, "batch": 8, "points": 60, "network": "mlp:width=8,depth=1"}
QUIET = {"progress": False, "snapshots": 0, "checkpoints": 1, "solvers": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on a named set, one of two times, and one on a file of 120 rows."""
    place = tmp_path_factory.mktemp("runs")
    save_points(place / "own.csv", np.random.default_rng(0).normal(size=(120, 2)))
    train_recipe(flow(**TINY), place / "flow", **QUIET)
    spanning = TINY | {"network": "mlp:width=8,depth=1,spans=true"}
    train_recipe(flow(**spanning, loss="mean_flow", sampler="jump", sample_steps=1), place / "one", **QUIET)
    train_recipe(flow(**TINY, data=str(place / "own.csv")), place / "own", **QUIET)
    return place


POINTS = PointRecipe()


def found(methods, recipe=POINTS):
    return entries(methods, recipe, KINDS[recipe.kind].plan, Path("out"))


def test_each_method_has_a_key_a_name_a_colour_and_a_folder(runs):
    rows = found(("edm", "ddpm", runs / "flow", "ot-flow", "flow"))
    assert [(one.key, one.name) for one in rows] == [
        ("edm", "EDM"), ("diffusion", "DDPM"), ("flow-2", "flow"), ("ot-flow", "OT-CFM"), ("flow", "Flow matching"),
    ]  # fmt: skip
    assert [one.folder for one in rows] == [
        Path("out/edm"),
        Path("out/diffusion"),
        runs / "flow",
        Path("out/ot-flow"),
        Path("out/flow"),
    ]
    colours = [one.colour for one in rows]
    assert colours == [style.INKS[0], style.DIFFUSION, style.INKS[1], style.INKS[2], style.FLOW]
    assert [one.recipe is None for one in rows] == [False, False, True, False, False]


def test_every_recipe_of_the_kind_can_be_compared_and_every_run_has_its_own_name(runs):
    assert list(recipes_for("images"))[:2] == list(METHODS)
    for kind, recipe in (("points", PointRecipe()), ("images", ImageRecipe())):
        rows = found(tuple(recipes_for(kind)), recipe)
        assert len({one.key for one in rows}) == len({one.name for one in rows}) == len(rows) >= 3
    long, short = (found((name,), ImageRecipe())[0] for name in ("edm-images", "edm"))
    assert long == short
    again = runs / "again" / "flow"
    again.mkdir(parents=True)
    assert [one.name for one in found((str(runs / "flow"), again))] == ["flow", "flow 2"]


def test_a_method_has_its_recipes_part_and_shares_the_rest():
    shared = PointRecipe(steps=7, batch=9, lr=0.5, network="mlp:width=4")
    for name, row in (("edm", edm()), ("ot-flow", ot_flow())):
        (one,) = found((name,), shared)
        assert (one.recipe.steps, one.recipe.batch, one.recipe.lr, one.recipe.network) == (7, 9, 0.5, "mlp:width=4")
        assert [getattr(one.recipe, part) for part in ("path", "target", "times", "coupling", "sampler", "grid")] == [
            getattr(row, part) for part in ("path", "target", "times", "coupling", "sampler", "grid")
        ]
    (one,) = found(("shortcut",), shared)
    assert (one.recipe.network, one.recipe.steps, one.recipe.lr) == ("mlp:width=4,spans=true", 7, 0.01)
    assert (one.recipe.loss, one.recipe.sampler) == ("shortcut:power=1", "jump")
    (one,) = found(("edm",), ImageRecipe())
    assert (one.recipe.path, one.recipe.target, one.recipe.times) == ("ve", edm_images().target, edm_images().times)
    own = replace(shared, weight="min_snr", coupling="ot")  # neither of which flow matching's recipe decides
    (one,) = found(("flow",), own)
    assert (one.recipe.weight, one.recipe.coupling) == ("min_snr", "ot")


@pytest.mark.unchecked
def test_what_is_no_method_is_one_sentence(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for methods, says in (
        ((), "methods must name at least one"),
        ("ddpm", "methods must be a tuple or a list"),
        (("ddpm", 3), "a method must be a text or "),
        (("flow", "flow"), "methods names flow twice"),
        ((runs / "flow", str(runs / "one" / ".." / "flow")), "twice"),
        (("flwo",), r"must be one of ddpm, flow, edm, .*did you mean 'flow'"),
        (("flow-policy",), "must be one of ddpm, flow"),
    ):
        with pytest.raises(InputError, match=says):
            found(methods)
    with pytest.raises(InputError, match="empty"):
        finished(tmp_path / "empty", PointRecipe())


def test_a_run_must_be_finished_and_on_the_same_data(runs, monkeypatch):
    own = PointRecipe(data=str(runs / "own.csv"), held_out=0.2)
    assert finished(runs / "flow", PointRecipe(seed=5)).recipe.seed == 5  # the noise that all begin at
    assert finished(runs / "own", own).shape == (2,)
    for folder, recipe, says in (
        ("flow", PointRecipe(data="two_moons"), "flow was trained on three_gaussians, not on two_moons."),
        ("flow", own, "flow was trained on three_gaussians, not on "),
        ("own", PointRecipe(), r"own was trained on own\.csv, not on three_gaussians\."),
        ("own", replace(own, held_out=0.3), r"held out 0.2 of .*, not 0.3"),
        ("flow", ImageRecipe(), "flow is a run on points, and digits holds images."),
    ):
        with pytest.raises(InputError, match=says):
            finished(runs / folder, recipe)
    monkeypatch.setattr(storage, "recipe_from_config", lambda config: replace(recipe_from_config(config), steps=2))
    with pytest.raises(InputError, match="flow is at step 1 of 2: finish it first"):
        finished(runs / "flow", PointRecipe())


def test_recipes_are_sampled_as_their_rows_say_and_runs_as_they_choose(runs):
    trained = from_pretrained(runs / "flow")
    (row,) = (one.row for one in found(("flow",)))
    assert ways(trained, row) == list(PLAN.rows["flow"].ways)
    assert [way.label for way in ways(trained, None)] == ["Heun, 50 steps"]
    solver = Tuned(5, "bespoke", "uniform", 5, 0.1, 0.1, 0.0, 0.1)
    fitted = replace(trained, tuned=(solver, replace(solver, evaluations=20, steps=20)))
    assert ways(fitted, None)[-1].label == "own solver, 20"
    lines = curves(fitted, None, PLAN)
    assert list(lines) == ["Euler", "Heun", "own solver"]
    assert {way.grid for way in lines["Heun"]} == {trained.recipe.grid}
    assert [way.steps for way in lines["own solver"]] == [5, 20]


def test_a_run_of_two_times_jumps(runs):
    """On the grids that were fitted to it, if any were."""
    trained = from_pretrained(runs / "one")
    assert [way.label for way in ways(trained, None)] == ["Jump, 1 step", "Jump, 2 steps", "Jump, 4 steps"]
    grid = Tuned(3, "jump", "1,0.4,0.2,0", 3, 0.1, 0.1, 0.0, 0.1)
    fitted = replace(trained, tuned=(grid, replace(grid, evaluations=1, steps=1, grid="1,0")))
    assert [(way.grid, way.steps) for way in ways(fitted, None)] == [("1,0", 1), ("1,0.4,0.2,0", 3)]
    assert {name: [way.steps for way in line] for name, line in curves(fitted, None, PLAN).items()} == {"Jump": [1, 3]}
