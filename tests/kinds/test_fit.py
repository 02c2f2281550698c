"""ebbtide.fit: on data in memory as on a file, with labels, with a folder and without."""

import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import ebbtide
from ebbtide.cli import main
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
        (TABLE, 1, "y names a column, which only a data frame has; got y=1 for ndarray"),
        (None, None, "data must not be None; leave it out for the recipe's own"),
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
    with pytest.raises(InputError, match="A recipe for robots takes its data from a file or folder: name it as data"):
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


@pytest.mark.unchecked
def test_unknown_arguments_are_one_sentence():
    """Of the call that the user wrote, not of a function within."""
    with pytest.raises(
        InputError, match=r"^fit has no argument foo; it takes recipe, data, y, out, resume, .*progress.$"
    ):
        ebbtide.fit(FEW, TABLE, foo=1)
    for name, row in ebbtide.RECIPES.items():
        kind = row().kind
        with pytest.raises(InputError, match=f"^A recipe for {kind} has no field foo; it takes data, .*held_out.*"):
            row(foo=1)
        with pytest.raises(InputError, match=r"has no field stesp \(did you mean steps\?\)"):
            row(stesp=1), name


def test_labels_beside_a_file_are_a_columns_name(tmp_path):
    for data in (tmp_path / "table.csv", ...):
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
        ({"resume": np.ones(2)}, r"resume must be True or False; got an array of shape \(2,\)"),
        ({"compile": "no"}, "compile must be True or False; got 'no'"),
        ({"track": "wandb"}, "track must be a tuple or a list; got 'wandb'"),
        ({"precision": 16}, "precision must be one of auto, no, bf16; got 16"),
        ({"y": True}, "y must hold a label for each example, or name a column; got True"),
    ],
)
@pytest.mark.unchecked
def test_options_of_training_are_checked(options, words):
    with pytest.raises(InputError, match=words):
        ebbtide.fit(FEW, TABLE, **options)


def test_missing_values_are_learned_and_damaged_frames_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE, columns=["a", "b", "c"]).astype("Float64")
    assert ebbtide.fit(FEW, frame, **QUICK).columns == ("a", "b", "c")
    frame.loc[3, "b"] = pandas.NA
    assert ebbtide.fit(FEW, frame, **QUICK).codec.columns == ((0, 2), (1,))
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
    trained = ebbtide.fit(FEW, TABLE, **QUICK)
    assert repr(trained).startswith("Trained(data=in memory, shape=3, ")
    assert "A generative model of data in memory" in trained.export("me/table")["README.md"].decode()


def test_a_conditional_recipe_needs_labels_beside_data_in_memory():
    with pytest.raises(InputError, match=r"^A conditional recipe needs labels: give y, a label for each example\.$"):
        ebbtide.fit(replace(FEW, conditional=True), TABLE)


def test_columns_may_be_numbered():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE).assign(**{"3": KINDS}).rename(columns={"3": 3})
    trained = ebbtide.fit(FEW, frame, y=3, **QUICK)
    assert (trained.columns, trained.classes) == (("0", "1", "2"), ("down", "up"))
    assert ebbtide.fit(FEW, TABLE, y=KINDS.tolist(), **QUICK).classes == ("down", "up")


@pytest.fixture(scope="module")
def remembered(tmp_path_factory):
    """Runs on data in memory, without labels, with names and with numbers, and files of the same rows."""
    folder = tmp_path_factory.mktemp("remembered")
    numbers = (KINDS == "up").astype(int)
    for name, y in {"plain": None, "names": KINDS, "numbers": numbers}.items():
        recipe = replace(FEW, codec="standardise" if name == "plain" else "")  # ranks have no likelihood
        ebbtide.fit(recipe, TABLE, y=y, out=folder / name, snapshots=0, checkpoints=2, **QUICK)
    for name, labels in {"plain": None, "names": KINDS.tolist(), "numbers": [str(k) for k in numbers]}.items():
        save_points(folder / f"{name}.csv", torch.from_numpy(TABLE), ("a", "b", "c"), labels)
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param("plain", marks=pytest.mark.slow), "names", pytest.param("numbers", marks=pytest.mark.slow)]
)
def test_a_run_on_data_in_memory_is_measured_and_resumed_on_a_file_of_it(remembered, name, capsys):
    run, file = str(remembered / name), str(remembered / f"{name}.csv")
    assert main(["evaluate", run, "--data", file, "--n", "50", "--steps", "2"]) == 0
    step = max((remembered / name / "checkpoints").glob("step-*"))
    before = (step / "model.safetensors").read_bytes()
    shutil.rmtree(step)
    assert main(["resume", run, "--data", file, "--quiet"]) == 0
    assert (step / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate", "plain"], "This run was trained on data in memory; give a file with the same rows: --data FILE"),
        (["resume", "plain"], "This run was trained on data in memory; give a file with the same rows: --data FILE"),
        (["likelihood", "plain"], "This run was trained on data in memory; give a file with the same rows"),
        (
            ["evaluate", "numbers", "--data", "names.csv"],
            "must be those of the run, '0', '1'; got 'down', 'up'.",
        ),
        (["resume", "names", "--data", "plain.csv"], "and a column more for its labels"),
        (["evaluate", "plain", "--data", "numbers.csv"], "is not the data that plain was trained on"),
    ],
)
def test_data_in_memory_is_not_called_a_file(remembered, words, sentence, monkeypatch, capsys):
    monkeypatch.chdir(remembered)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert (error.count("\n"), "memory.npy" in error) == (1, False)


def test_the_label_of_a_file_of_data_in_memory_is_named_in_python(remembered):
    named = {"data": str(remembered / "names.csv"), "label": "label"}
    assert ebbtide.from_pretrained(remembered / "names", **named).reading().label == "label"
    with pytest.raises(InputError, match="label can't be named"):
        ebbtide.from_pretrained(remembered / "plain", label="label")


def test_what_needs_the_data_of_a_run_on_data_in_memory_says_how_to_name_it(remembered, tmp_path):
    """In the session that trained it as in another; with a file of it named, that is read."""
    pixels = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    ebbtide.fit(flow_images(steps=1, batch=8, network="unet-tiny:width=8"), pixels, out=tmp_path / "run", **QUICK)
    says = r"^This run was trained on data in memory; give a file with the same rows: --data FILE \(data=… in from_"
    for folder in (remembered / "plain", remembered / "names", tmp_path / "run"):
        trained = ebbtide.from_pretrained(folder)
        x = trained.sample(4, steps=2, label=None if folder.name != "names" else "up")
        kind = ebbtide.KINDS[trained.recipe.kind]
        for needs in (
            lambda trained=trained, kind=kind, x=x: kind.evaluate(trained.recipe, x),
            lambda trained=trained, kind=kind: kind.prepare(trained.recipe),
            lambda trained=trained: ebbtide.fit(trained.recipe, **QUICK),
            trained.reading,
        ):
            with pytest.raises(InputError, match=says):
                needs()
    named = ebbtide.from_pretrained(remembered / "plain", data=str(remembered / "plain.csv"))
    assert len(ebbtide.KINDS["points"].prepare(named.reading()).data) > 0


@pytest.mark.unchecked
def test_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("", 3):
        with pytest.raises(InputError, match=f"out must name a folder; got {out!r}"):
            ebbtide.fit(FEW, TABLE, out=out, **QUICK)
        with pytest.raises(InputError, match=f"out must name a folder; got {out!r}"):
            ebbtide.compare(FEW, out)
        with pytest.raises(InputError, match=f"where must name a folder; got {out!r}"):
            ebbtide.from_pretrained(out)
    assert not list(tmp_path.iterdir())


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 10**12}, "n 1000000000000 would take about .* GiB of memory"),
        ({"n": "5"}, "n must be a whole number, at least 1; got '5'"),
        ({"first": 0.5}, "first must be a whole number, at least 0; got 0.5"),
        ({"seed": -1}, r"seed must be at least 0 and at most 18446744073709551615; got -1\."),
        ({"first": 2**63}, "first must be at most 4611686018427387904; got 9223372036854775808"),
        ({"guidance": "strong"}, "guidance must be a finite number; got 'strong'"),
        ({"guidance": float("nan"), "label": 0}, "guidance must be finite; got nan"),
        ({"interval": 0.5}, r"interval must be two times, \(low, high\); got 0.5"),
        ({"interval": "ab"}, "the interval's low must be a number, at least 0 and finite; got 'a'"),
        ({"interval": (0.5, None)}, "the interval's high must be a number, above 0.5 and at most 1; got None"),
        ({"interval": (0.5, 0.2)}, "the interval's high must be above 0.5 and at most 1; got 0.2"),
        ({"interval": (0.5,)}, r"interval must be two times, \(low, high\); got \(0.5,\)"),
        ({"ids": [1, 2]}, r"ids must be 4 whole numbers, one for each sample; got \[1, 2\]"),
        ({"ids": torch.zeros(4)}, "ids must be 4 whole numbers"),
        ({"ids": ["a"] * 4}, "ids must be 4 whole numbers"),
        ({"bound": "tight"}, "bound must be a number, at least 0 and finite; got 'tight'"),
        ({"bar": True}, "bar must be a tqdm; got True"),
        ({"fill": np.ones(2)}, r"fill must be True or False; got an array of shape \(2,\)"),
        ({"sampler": 3}, "sampler must be the name of one, or a function; got 3"),
        ({"grid": 3}, "grid must be the name of one, or falling times; got 3"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"foo": 1}, "^sample has no argument foo; it takes n, seed, first, .*steps.*, bar.$"),
        ({"gidance": 2}, r"^sample has no argument gidance \(did you mean guidance\?\); it takes n, "),
    ],
)
def test_options_of_sampling_are_checked(remembered, options, words):
    with pytest.raises(InputError, match=words):
        ebbtide.from_pretrained(remembered / "names").sample(**{"n": 4} | options)


def test_samples_by_number_are_those_of_any_set(remembered):
    trained = ebbtide.from_pretrained(remembered / "plain")
    chosen = torch.tensor([2500, 3, 7])
    assert torch.equal(trained.sample(3, ids=chosen), trained.sample(2501)[chosen])
    many = torch.arange(3000).flip(0)
    assert torch.equal(trained.sample(3000, ids=many), trained.sample(3000).flip(0))


def test_help_lists_the_fields_of_a_recipe():
    assert "steps=2800" in ebbtide.flow.__doc__
    assert "horizon=" in flow_policy.__doc__
