"""ebbtide.fit: on data in memory as on a file, with labels, with a folder and without."""

import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import ebbtide
from ebbtide.data import save_points
from ebbtide.errors import InputError
from ebbtide.recipes import flow, flow_images, flow_policy

TABLE = np.random.default_rng(0).normal(size=(240, 3)).astype(np.float32)
KINDS = np.where(TABLE[:, 0] > 0, "up", "down")
QUICK = {"progress": False, "solvers": False}
FEW = flow(steps=8, batch=16, network="mlp:width=8,depth=2")


def test_rows_in_memory_train_as_the_same_rows_of_a_file(tmp_path):
    save_points(tmp_path / "table.npy", torch.from_numpy(TABLE), ())
    here = ebbtide.fit(FEW, TABLE, **QUICK)
    there = ebbtide.fit(FEW, tmp_path / "table.npy", **QUICK)
    assert torch.equal(here.sample(20, seed=3), there.sample(20, seed=3))
    assert here.shape == (3,)


@pytest.mark.parametrize("given", [TABLE.tolist(), torch.from_numpy(TABLE), torch.from_numpy(TABLE).double()])
def test_lists_and_tensors_are_arrays(given):
    expected = ebbtide.fit(FEW, TABLE, **QUICK).sample(5)
    torch.testing.assert_close(ebbtide.fit(FEW, given, **QUICK).sample(5), expected, atol=1e-5, rtol=1e-5)


def test_a_data_frame_keeps_its_names_and_its_labels():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE, columns=["height", "width", "depth"]).assign(kind=KINDS)
    trained = ebbtide.fit(FEW, frame, y="kind", **QUICK)
    assert trained.columns == ("height", "width", "depth")
    assert trained.classes == ("down", "up")
    assert trained.frequencies == pytest.approx((np.mean(KINDS == "down"), np.mean(KINDS == "up")), abs=0.02)
    beside = ebbtide.fit(FEW, frame.drop(columns="kind"), y=frame["kind"], **QUICK)
    assert torch.equal(beside.sample(6, label="up"), trained.sample(6, label="up"))


def test_images_in_memory_train_and_sample_by_class():
    images = (np.random.default_rng(1).random((20, 8, 8, 3)) * 255).astype(np.uint8)
    recipe = flow_images(steps=2, batch=8, network="unet-tiny:width=8")
    trained = ebbtide.fit(recipe, images, y=np.arange(20) % 2, **QUICK)
    assert trained.sample(4, label=1).shape == (4, 3, 8, 8)
    first = ebbtide.fit(recipe, torch.from_numpy(images).permute(0, 3, 1, 2), y=np.arange(20) % 2, **QUICK)
    assert torch.equal(trained.sample(2, label=0), first.sample(2, label=0))


def test_a_folder_keeps_the_run_and_none_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    trained = ebbtide.fit(FEW, TABLE, **QUICK)
    assert not list((tmp_path / "scratch").iterdir())
    kept = ebbtide.fit(FEW, TABLE, out=tmp_path / "run", **QUICK)
    again = ebbtide.from_pretrained(tmp_path / "run")
    assert torch.equal(kept.sample(5), trained.sample(5))
    assert torch.equal(kept.sample(5), again.sample(5))
    longer = ebbtide.fit(replace(FEW, steps=8), TABLE, out=tmp_path / "run", resume=True, **QUICK)
    assert longer.step == 8
    with pytest.raises(InputError, match="is not what it was"):
        ebbtide.fit(FEW, TABLE + 1, out=tmp_path / "run", resume=True, **QUICK)


def test_a_name_and_a_named_set_will_do():
    trained = ebbtide.fit(flow(data="two_moons", steps=4, batch=16, points=100), **QUICK)
    assert trained.recipe.data == "two_moons"
    assert ebbtide.fit(FEW, "two_moons", **QUICK).recipe.data == "two_moons"
    with pytest.raises(InputError, match=r"recipe must be one of .*did you mean 'flow'"):
        ebbtide.fit("flaw", TABLE)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([["a", "b"], ["c", "d"]], None, r"X must be at least 2 rows of real numbers"),
        (TABLE[:1], None, r"got float32 of shape \(1, 3\)"),
        (np.zeros((2, 3, 4)), None, r"got float64 of shape \(2, 3, 4\)"),
        ([[1.0], [1.0, 2.0]], None, r"X can't be made an array"),
        (TABLE * np.nan, None, "nan is not a finite float32 number"),
        (TABLE, "kind", "y names a column, which only a data frame has"),
        (TABLE, KINDS[:-1], r"a label for each of 240 rows; got shape \(239,\)"),
        (TABLE, TABLE[:, 0], "is not a label"),
        (TABLE, np.arange(240), "different labels in 240 rows"),
    ],
)
def test_what_cannot_be_learned_from_is_one_sentence(x, y, words):
    with pytest.raises(InputError, match=words) as refused:
        ebbtide.fit(FEW, x, y=y, **QUICK)
    assert "\n" not in str(refused.value)


def test_episodes_are_trained_on_from_files():
    with pytest.raises(InputError, match="robots are trained on from files"):
        ebbtide.fit(flow_policy(), TABLE)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (None, "recipe must be a recipe, such as ebbtide.flow(), or its name; got None"),
        (flow, "or its name; got <function flow"),
        (ebbtide.Recipe(), "or its name; got Recipe"),
        (TABLE, "or its name; got array"),
    ],
)
@pytest.mark.unchecked
def test_what_is_no_recipe_is_one_sentence(recipe, words):
    with pytest.raises(InputError, match=re.escape(words)):
        ebbtide.fit(recipe, TABLE)


def test_labels_beside_a_file_are_a_columns_name(tmp_path):
    for data in (tmp_path / "table.csv", None):
        with pytest.raises(InputError, match="y names a column of a file; got ndarray"):
            ebbtide.fit(FEW, data, y=KINDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 5}, r"steps is a field of the recipe: give it there, as in ebbtide.flow\(steps=…\)"),
        ({"accumulate": 0}, "accumulate must be at least 1; got 0"),
        ({"accumulate": 1.5}, "accumulate must be a whole number, at least 1; got 1.5"),
        ({"checkpoints": "5"}, "checkpoints must be a whole number, at least 1; got '5'"),
        ({"snapshots": -1}, "snapshots must be at least 0; got -1"),
    ],
)
@pytest.mark.unchecked
def test_options_of_training_are_checked(options, words):
    with pytest.raises(InputError, match=words):
        ebbtide.fit(FEW, TABLE, **options)


def test_missing_values_are_refused_by_the_columns_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE, columns=["a", "b", "c"]).astype("Float64")
    assert ebbtide.fit(FEW, frame, **QUICK).columns == ("a", "b", "c")
    frame.loc[3, "b"] = pandas.NA
    with pytest.raises(InputError, match="X, row 4, column 'b': a value is missing"):
        ebbtide.fit(FEW, frame, **QUICK)
    with pytest.raises(InputError, match="X has two columns named 'a'"):
        ebbtide.fit(FEW, pandas.DataFrame(TABLE, columns=["a", "a", "b"]), **QUICK)
    with pytest.raises(InputError, match="X has masked values"):
        ebbtide.fit(FEW, np.ma.masked_array(TABLE, TABLE > 1), **QUICK)


@pytest.mark.parametrize(("out", "rest"), [(None, "nothing is kept without out"), ("run", "resume=True)")])
def test_a_signal_says_how_to_go_on(out, rest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stop = lambda *_: os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr("ebbtide.training.history.Log.__call__", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        ebbtide.fit(FEW, TABLE, out=out, **QUICK)
    assert rest in str(stopped.value)
    assert "ebbtide resume" not in str(stopped.value)


def test_images_have_one_three_or_four_channels():
    with pytest.raises(InputError, match="channels must be"):
        ebbtide.fit(flow_images(channels=2, steps=1), np.zeros((9, 8, 8), np.uint8))


def test_a_card_of_data_in_memory_names_no_file():
    card = ebbtide.fit(FEW, TABLE, **QUICK).export("me/table")["README.md"].decode()
    assert "A generative model of data in memory" in card
