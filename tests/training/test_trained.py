"""What a folder holds, ready to sample: loaded from anywhere, refused if edited, the same sample whatever is asked."""

import json
import math
import os
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.data import DATASETS, save_points
from ebbtide.errors import InputError
from ebbtide.exact.tuned import read_tuned, write_tuned
from ebbtide.kinds.runs import from_pretrained
from ebbtide.tensors import unpack
from ebbtide.training import checkpoint
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained
from training.runs import copy, run, sentence, tensors, tiny, tuned

SMALL = {"steps": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One run of each kind that sampling tells apart."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("flow", "ddpm", "conditional", "two sets"):
        run(tiny(name), place / name, checkpoints=2, keep=2)
    return place


def load(folders, name) -> Trained:
    return from_pretrained(folders / name)


# --- loading and saving ---------------------------------------------------------------------------------------------


def test_a_run_a_checkpoint_its_link_and_an_export_are_the_same(folders, tmp_path):
    trained = load(folders, "flow")
    x = trained.sample(20, seed=5)
    saves = folders / "flow" / "checkpoints"
    exported = trained.save_pretrained(tmp_path / "export")
    for where in (saves / "last", saves / "step-00000012", exported, str(exported)):
        other = from_pretrained(where)
        assert torch.equal(other.sample(20, seed=5), x)
        assert other.step == 12
        assert (other.recipe, other.codec, other.classes, other.columns, other.shape) == (
            trained.recipe, trained.codec, trained.classes, trained.columns, trained.shape,
        )  # fmt: skip
    older = from_pretrained(saves / "step-00000006")
    assert older.step == 6
    assert not torch.equal(older.sample(20, seed=5), x)


@pytest.mark.parametrize("name", ["ddpm", "conditional", "two sets"])
def test_a_round_trip_keeps_every_sample(folders, tmp_path, name):
    trained = load(folders, name)
    again = from_pretrained(trained.save_pretrained(tmp_path / "export"))
    assert torch.equal(trained.sample(7, steps=3), again.sample(7, steps=3))


def test_sampling_uses_the_average(folders):
    held = tensors(folders / "flow")
    state = load(folders, "flow").denoiser.state_dict()
    for name, part in state.items():
        assert torch.equal(part, held[f"model:{name}"])
    assert any(not torch.equal(part, held[f"training:weights.{name}"]) for name, part in state.items())


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(folders, tmp_path):
    folder = copy(folders / "flow", tmp_path / "run")
    (folder / "checkpoints" / "last" / "model.safetensors").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"step-00000012/model\.safetensors is damaged.*Falling back"):
        assert from_pretrained(folder).step == 6


def test_saving_over_something_needs_to_be_asked_and_never_takes_more_than_its_own(folders, tmp_path):
    trained, target = load(folders, "flow"), tmp_path / "export"
    trained.save_pretrained(target)
    with pytest.raises(InputError, match=r"exists; give overwrite=True \(--overwrite\) to replace it"):
        trained.save_pretrained(target)
    (target / "README.md").write_text("edited")
    load(folders, "ddpm").save_pretrained(target, overwrite=True)
    assert from_pretrained(target).recipe.path == "ddpm"
    assert "edited" not in (target / "README.md").read_text()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds more than an exported model, so it is not replaced"):
        trained.save_pretrained(target, overwrite=True)
    assert (target / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is not a folder, so it is not replaced"):
        trained.save_pretrained(tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_folder_one_stands_in_is_never_replaced(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    for name in (".", "..", "/"):
        with pytest.raises(InputError, match="is not replaced"):
            load(folders, "flow").save_pretrained(name, overwrite=True)
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "a/b/c",
        "user/../name",
        "/nowhere/run",
        "../up",
        "-x/..",
        "a b/c",
        "",
        "x" * 5000,
        "nul\0l",
        "user/näme",
    ],
)
def test_a_name_that_is_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        from_pretrained(name)
    if len(name) < 100 and "\0" not in name:
        sentence(refused.value)


def test_a_file_or_an_empty_folder_is_not_a_run(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    for name, words in (("file", "neither a run folder"), ("empty", "manifest.json"), ("begun", "no checkpoint yet")):
        with pytest.raises(InputError, match=words) as refused:
            from_pretrained(tmp_path / name)
        sentence(refused.value)


# --- what an edited folder may say ----------------------------------------------------------------------------------


def edited(folders, tmp_path, change=None, weights=None, name="flow"):
    """An exported folder whose config or weights were changed by someone who then made the manifest fit."""
    files = checkpoint.read_folder(load(folders, name).save_pretrained(tmp_path / "export"))
    if change is not None:
        config = json.loads(files["config.json"])
        changed = change(config)
        files["config.json"] = json.dumps(config if changed is None else changed).encode()
    if weights is not None:
        state = unpack(files["model.safetensors"], "x")
        changed = weights(state)
        files["model.safetensors"] = changed if isinstance(changed, bytes) else state
    checkpoint.write_folder(tmp_path / "export", files)
    return tmp_path / "export"


def recipe(**changes):
    return lambda config: config["recipe"].update(changes)


def top(**changes):
    return lambda config: config.update(changes)


EDITS = {
    "another format": top(format=3),
    "another clock": top(time="t = 1 is data"),
    "an extra field": top(hook="os.system('true')"),
    "a missing field": lambda c: c.pop("shape") and None,
    "a list": lambda c: [c],
    "a number": lambda c: 3,
    "step as text": top(step="12"),
    "step as a fraction": top(step=1.5),
    "step below 0": top(step=-1),
    "step without end": top(step=10**400),
    "step true": top(step=True),
    "shape as text": top(shape="22"),
    "shape of fractions": top(shape=[2.0]),
    "shape of nothing": top(shape=[]),
    "shape of 0": top(shape=[0]),
    "another shape": top(shape=[3]),
    "two axes": top(shape=[2, 2]),
    "a huge shape": top(shape=[10**12]),
    "classes as text": top(classes="abc"),
    "classes of numbers": top(classes=[1, 2]),
    "columns as text": top(columns="xy"),
    "versions as numbers": top(torch=2),
    "codec as text": top(codec="none"),
    "codec unknown": top(codec={"name": "builtins.eval"}),
    "codec of another width": top(codec={"name": "standardise", "mean": [0.0], "std": [1.0]}),
    "codec of NaN": top(codec={"name": "standardise", "mean": [math.nan, 0.0], "std": [1.0, 1.0]}),
    "codec below 0": top(codec={"name": "standardise", "mean": [0.0, 0.0], "std": [-1.0, 1.0]}),
    "codec too large": top(codec={"name": "standardise", "mean": [1e300, 0.0], "std": [1.0, 1.0]}),
    "codec with code": top(codec={"name": "standardise", "mean": ["__import__('os')"], "std": [1.0]}),
    "recipe as a list": top(recipe=[]),
    "an unknown recipe field": recipe(callback="os.system"),
    "a field of another type": recipe(steps="12"),
    "a number for a name": recipe(path=1),
    "true for a number": recipe(batch=True),
    "NaN": recipe(lr=math.nan),
    "infinity": recipe(lr=math.inf),
    "a huge number": recipe(batch=10**310),
    "an unknown path": recipe(path="wormhole"),
    "a dotted path": recipe(path="os.path"),
    "a path with code": recipe(path="__import__('os').system('true')"),
    "a path option with code": recipe(path="vp:beta_min=__import__('os')"),
    "a path without end": recipe(path="ddpm:steps=" + "9" * 30),
    "an unknown target": recipe(target="wish"),
    "an unknown network": recipe(network="torch.nn.Linear"),
    "an option the network lacks": recipe(network="mlp:exec=1"),
    "another width": recipe(network="mlp:width=16,depth=2"),
    "a huge width": recipe(network="mlp:width=1000000000000,depth=2"),
    "a large width": recipe(network="mlp:width=60000,depth=2"),
    "a width below 0": recipe(network="mlp:width=-8,depth=2"),
    "a depth without end": recipe(network="mlp:width=8,depth=100000000000"),
    "an unknown sampler": recipe(sampler="subprocess.run"),
    "an unknown grid": recipe(grid="../../grid"),
    "labels it never had": recipe(conditional=True),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_config_is_refused_in_one_sentence(folders, tmp_path, what):
    folder = edited(folders, tmp_path, EDITS[what])
    with pytest.raises(InputError) as refused:
        from_pretrained(folder)
    assert f"{folder}/config.json" in sentence(refused.value)


def test_the_edits_are_what_is_refused(folders, tmp_path):
    """An edit that changes nothing loads."""
    folder = edited(folders, tmp_path, lambda config: None, lambda state: None)
    assert torch.equal(from_pretrained(folder).sample(3, steps=2), load(folders, "flow").sample(3, steps=2))


class Explode:
    def __reduce__(self):
        return os.mkdir, ("executed",)


WEIGHTS = {
    "NaN": lambda s: s["network.out.bias"].fill_(math.nan) is None,
    "infinity": lambda s: s["network.from_x.weight"][0].fill_(math.inf) is None,
    "another shape": lambda s: s.update({"network.out.bias": torch.zeros(1)}),
    "a missing tensor": lambda s: s.pop("network.out.bias") is None,
    "an extra tensor": lambda s: s.update(extra=torch.zeros(1)),
    "integers": lambda s: s.update({"network.out.bias": torch.zeros(2, dtype=torch.int64)}),
    "none at all": lambda s: s.clear(),
    "a pickle": lambda s: pickle.dumps(Explode()),
    "a torch file": lambda s: _torch_file(s),
    "text": lambda s: b"weights, honestly",
    "nothing": lambda s: b"",
    "a header past the end": lambda s: (2**40).to_bytes(8, "little") + b"{}",
    "a header that isn't JSON": lambda s: (4).to_bytes(8, "little") + b"}}{{",
}


def _torch_file(state):
    import io

    file = io.BytesIO()
    torch.save({"state": Explode(), **state}, file)
    return file.getvalue()


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_do_not_fit_are_refused_and_none_is_run(folders, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    folder = edited(folders, tmp_path, weights=WEIGHTS[what])
    with pytest.raises(InputError) as refused:
        from_pretrained(folder)
    assert "model.safetensors" in sentence(refused.value)
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_a_model_is_refused(folders, tmp_path):
    files = load(folders, "flow").files()
    checkpoint.write_folder(tmp_path / "x", {"config.json": files["config.json"]})
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        from_pretrained(tmp_path / "x")


def test_nothing_is_allocated_for_a_network_the_weights_can_not_fill(folders, tmp_path, monkeypatch):
    """A width of 60 000 would take 30 GB; only its outline is made."""
    folder = edited(folders, tmp_path, recipe(network="mlp:width=200,depth=3"))
    made, real = [], torch.nn.init.kaiming_uniform_

    def watched(tensor, **options):
        made.append(tensor.device.type)
        return real(tensor, **options)

    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", watched)
    with pytest.raises(InputError, match="it describes network"):
        from_pretrained(folder)
    assert set(made) == {"meta"}


# --- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flow", "ddpm", "conditional", "two sets"])
@pytest.mark.parametrize("first", [0, 3, 17])
def test_sample_i_depends_on_seed_and_i_alone(folders, name, first):
    """Alone, in a piece, in the whole: equal up to the rounding of matrix products of other heights."""
    trained = load(folders, name)
    whole = trained.sample(25, seed=2, steps=4)
    piece = trained.sample(8, seed=2, first=first, steps=4)
    torch.testing.assert_close(piece, whole[first : first + 8], rtol=1e-4, atol=1e-5)
    alone = trained.sample(1, seed=2, first=first, steps=4)
    torch.testing.assert_close(alone, whole[first : first + 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(trained.sample(25, seed=3, steps=4), whole)


@pytest.mark.parametrize("name", ["ddpm", "conditional", "two sets"])
def test_chunks_change_nothing(folders, name, monkeypatch):
    trained, moved = load(folders, name), []
    label = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0] if name == "conditional" else None
    whole = trained.sample(10, seed=2, steps=4, label=label)
    monkeypatch.setattr("ebbtide.training.trained.CHUNK", 4)
    bar = type("Bar", (), {"update": staticmethod(moved.append)})
    pieces = trained.sample(10, seed=2, steps=4, label=label, bar=bar)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)
    assert sum(moved) == 10 * 4


def test_starting_points_of_a_second_set_are_its_own_and_continue_across_blocks(folders):
    trained = load(folders, "two sets")
    starts = [next(trained.trajectory(n, seed=1, first=first))[1] for n, first in ((40, 4080), (3, 4095), (1, 4096))]
    assert torch.equal(starts[0][15:18], starts[1])
    assert torch.equal(starts[0][16:17], starts[2])
    # All within 7 σ of one of the eight modes: false-positive rate 40 · e^-24.5 = 9e-10.
    modes = DATASETS["eight_gaussians"].modes
    assert torch.cdist(starts[0].double(), modes.means).amin(1).max() < 7 * modes.std
    assert len(starts[0].unique(dim=0)) == 40


def test_starting_points_from_a_file_are_its_rows(tmp_path):
    table = tmp_path / "start.csv"
    rows = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    save_points(table, rows)
    trained = run(tiny("two sets", source=str(table)), tmp_path / "run")
    draw = lambda n, first=0, seed=1: next(trained.trajectory(n, seed=seed, first=first))[1]
    whole = draw(25)
    torch.testing.assert_close(whole[7:12], draw(5, 7))
    torch.testing.assert_close(whole[:10].sort(0).values, rows.sort(0).values)  # each once before any twice
    torch.testing.assert_close(whole[10:20], whole[:10])
    assert not torch.allclose(draw(10, seed=2), draw(10, seed=1))


def test_the_transform_is_undone(folders):
    """Samples are the raw ones, times std, plus mean, at every step."""
    trained = load(folders, "flow")
    raw = replace(trained, codec=None)
    mean, std = torch.tensor(trained.codec.mean), torch.tensor(trained.codec.std)
    assert not torch.allclose(std, torch.ones(2))
    for (t, x), (s, z) in zip(trained.trajectory(4, steps=3), raw.trajectory(4, steps=3), strict=True):
        assert t == s
        torch.testing.assert_close(x, z * std + mean)
    torch.testing.assert_close(trained.to_network(trained.to_data(z)), z)


def test_a_trajectory_goes_from_noise_to_samples(folders):
    trained = load(folders, "flow")
    walk = list(trained.trajectory(4, steps=5))
    assert len(walk) == 6
    assert (walk[0][0], walk[-1][0]) == (1.0, 0.0)
    assert torch.equal(walk[-1][1], trained.sample(4, steps=5))


def test_options_override_the_recipe(folders):
    trained = load(folders, "flow")
    x = trained.sample(4)
    recipe_own = {"sampler": trained.recipe.sampler, "grid": trained.recipe.grid, "steps": trained.recipe.sample_steps}
    assert torch.equal(trained.sample(4, **recipe_own), x)
    for option in ({"sampler": "euler"}, {"grid": "karras"}, {"steps": 4}):
        assert not torch.equal(trained.sample(4, **option), x)


def test_sampling_leaves_torchs_own_randomness_alone(folders):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(folders, "ddpm").sample(3, steps=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("n", "first", "said"),
    [
        (0, 0, "n must be at least 1; got 0"),
        (-1, 0, "n must be at least 1; got -1"),
        (3, -1, "first must be at least 0; got -1"),
        (3, 0.5, "first must be a whole number"),
    ],
)
def test_numbers_of_samples_out_of_range(folders, n, first, said):
    trained = load(folders, "flow")
    for draw in (trained.sample, lambda *given, **options: next(trained.trajectory(*given, **options))):
        with pytest.raises(InputError, match=said):
            draw(n, first=first)


def test_labels_and_solver_are_looked_up_once_for_all_chunks(folders, monkeypatch):
    trained, asked = load(folders, "conditional"), []
    for name in ("labels", "choice", "steered"):
        inner = getattr(Trained, name)
        monkeypatch.setattr(Trained, name, lambda *a, _name=name, _f=inner, **k: asked.append(_name) or _f(*a, **k))
    monkeypatch.setattr("ebbtide.training.trained.CHUNK", 4)
    trained.sample(10, label="left", guidance=2.0, steps=2)
    assert sorted(asked) == ["choice", "labels", "steered"]


@pytest.mark.parametrize("option", [{"steps": 0}, {"sampler": "rk45"}, {"grid": "even"}, {"sampler": "ddim:eta=x"}])
def test_bad_options_are_refused(folders, option):
    with pytest.raises(InputError):
        load(folders, "flow").sample(2, **option)


# --- labels and guidance --------------------------------------------------------------------------------------------


def test_a_label_by_name_by_number_and_one_each(folders):
    trained = load(folders, "conditional")
    assert trained.classes == ("right", "left", "bottom")
    named = trained.sample(4, label="left", **SMALL)
    for label in ("1", 1, [1, 1, 1, 1], (1,), torch.tensor([1, 1, 1, 1])):
        assert torch.equal(trained.sample(4, label=label, **SMALL), named)
    assert not torch.equal(trained.sample(4, label="right", **SMALL), named)
    each = trained.sample(4, label=[0, 1, 2, 1], **SMALL)
    torch.testing.assert_close(each[1], named[1])
    torch.testing.assert_close(each[3], named[3])


def test_without_a_label_the_null_one_is_drawn(folders):
    trained = load(folders, "conditional")
    assert trained.labels(None, 3).tolist() == [3, 3, 3]
    assert not torch.equal(trained.sample(4, **SMALL), trained.sample(4, label=0, **SMALL))


def test_a_run_without_labels_refuses_them(folders):
    with pytest.raises(InputError, match="trained without labels"):
        load(folders, "flow").sample(2, label=0)
    with pytest.raises(InputError, match="Guidance needs a label"):
        load(folders, "flow").sample(2, guidance=2.0)


def test_guidance_1_is_off_0_is_no_label_and_more_is_more(folders):
    trained = load(folders, "conditional")
    plain = trained.sample(4, label=0, **SMALL)
    assert torch.equal(trained.sample(4, label=0, guidance=1.0, **SMALL), plain)
    torch.testing.assert_close(trained.sample(4, label=0, guidance=0.0, **SMALL), trained.sample(4, **SMALL))
    strong = trained.sample(4, label=0, guidance=3.0, **SMALL)
    assert not torch.allclose(strong, plain)
    nowhere = trained.sample(4, label=0, guidance=3.0, interval=(0.0, 1e-9), **SMALL)
    torch.testing.assert_close(nowhere, plain)


def test_guidance_towards_nothing_is_refused(folders):
    trained = load(folders, "conditional")
    with pytest.raises(InputError, match="Guidance needs a label"):
        trained.sample(2, guidance=2.0)


def test_a_folder_without_frequencies_loads_and_draws_classes_evenly_with_a_warning(folders, tmp_path):
    trained = load(folders, "conditional")
    checkpoint.write_folder(tmp_path / "now", trained.files())
    files = checkpoint.read_folder(tmp_path / "now")
    config = json.loads(files["config.json"])
    del config["frequencies"]
    old = Trained.from_files(files | {"config.json": json.dumps(config).encode()}, "old")
    assert old.frequencies == ()
    with pytest.warns(UserWarning, match="doesn't hold how often each class occurs"):
        assert old.in_proportion(6).tolist() == [0, 1, 2, 0, 1, 2]
    for wrong in ([0.5, 0.5], [0.5, 0.2, 0.2], [2, -1, 0], ["1", 0, 0], 1):
        with pytest.raises(InputError, match="frequencies"):
            Trained.from_files(files | {"config.json": json.dumps(config | {"frequencies": wrong}).encode()}, "bad")


def test_a_folder_from_before_the_renaming_loads(folders, tmp_path):
    """Version 0.1 wrote its name, ebbflow, as a key of config.json."""
    trained = load(folders, "flow")
    trained.save_pretrained(tmp_path / "old")
    files = checkpoint.read_folder(tmp_path / "old")
    config = json.loads(files["config.json"])
    del config["ebbtide"]
    config = {"format": config.pop("format"), "ebbflow": "0.1.0"} | config
    checkpoint.write_folder(tmp_path / "old", files | {"config.json": json.dumps(config).encode()})
    old = from_pretrained(tmp_path / "old")
    assert torch.equal(old.sample(4, seed=1), trained.sample(4, seed=1))
    assert "ebbflow" not in json.loads(old.files()["config.json"])


# --- what was tuned -------------------------------------------------------------------------------------------------


def test_steps_auto_is_what_was_tuned(folders):
    """Sampler, grid and steps are all taken; seeds and labels mean what they always do."""
    trained = replace(
        load(folders, "conditional"), tuned=(tuned(3), tuned(9, sampler="heun", grid="1,0.6,0.2,0", steps=3))
    )
    given = {"seed": 4, "label": [0, 1, 2, 1]}
    by_hand = trained.sample(4, sampler="heun", grid=[1.0, 0.6, 0.2, 0.0], steps=3, **given)
    assert torch.equal(trained.sample(4, steps="auto", **given), by_hand)
    assert torch.equal(trained.sample(4, steps="auto:9", **given), by_hand)
    assert [t for t, _ in trained.trajectory(4, steps="auto", **given)] == [1, 0.6, 0.2, 0]
    other = trained.sample(4, sampler="euler", grid="quadratic", steps=3, **given)
    assert torch.equal(trained.sample(4, steps="auto:3", **given), other)
    for interval in ((0, 1), [0.0, 1.0], np.array([0.0, 1.0])):  # the default, in another container
        assert torch.equal(trained.sample(4, steps="auto:3", interval=interval, **given), other)
    assert not torch.equal(other, by_hand)
    for option in ({"sampler": "heun"}, {"grid": "uniform"}):
        with pytest.raises(InputError, match="chooses the sampler and the grid itself"):
            trained.sample(4, steps="auto", **option)


def test_what_was_tuned_is_loaded_with_a_run_and_carried_by_an_export(folders, tmp_path):
    rows = (tuned(6), tuned(4, grid="1,0.5,0", steps=2))
    folder = copy(folders / "flow", tmp_path / "run")
    (folder / "tuned.json").write_bytes(write_tuned(rows))
    trained = from_pretrained(folder)
    assert trained.tuned == rows
    exported = trained.save_pretrained(tmp_path / "export")
    assert read_tuned((exported / "tuned.json").read_bytes(), "tuned.json") == rows
    assert "tuned.json" in json.loads((exported / "manifest.json").read_text())
    again = from_pretrained(exported)
    assert again.tuned == rows
    assert torch.equal(again.sample(3, steps="auto"), trained.sample(3, steps="auto"))
    assert from_pretrained(again.save_pretrained(exported, overwrite=True)).tuned == rows
    plain = load(folders, "flow").save_pretrained(tmp_path / "plain")
    assert not (plain / "tuned.json").exists()
    assert "tuned.json" not in load(folders, "flow").files()


def test_a_tuned_file_that_was_edited_is_refused(folders, tmp_path):
    """In an export the manifest tells; in a run, where it stands alone, its contents do."""
    folder = copy(folders / "flow", tmp_path / "run")
    (folder / "tuned.json").write_bytes(write_tuned([tuned(6)]))
    exported = from_pretrained(folder).save_pretrained(tmp_path / "export")
    for place, data, words in (
        (exported, write_tuned([tuned(7)]), "sha256"),
        (folder, b"[{}]", "is not a file of ebbtide tune"),
        (folder, b"{", r"tuned\.json"),
    ):
        (place / "tuned.json").write_bytes(data)
        with pytest.raises(InputError, match=words) as refused:
            from_pretrained(place)
        assert str(place / "tuned.json") in sentence(refused.value)


@pytest.mark.unchecked
def test_a_tuned_error_beyond_all_floats_is_one_sentence():
    data = json.dumps([tuned(6).to_config() | {"rms": 10**400}]).encode()
    with pytest.raises(InputError, match=r"tuned\.json is not a file of ebbtide tune: a value of the wrong kind"):
        read_tuned(data, "tuned.json")


# --- the untrained start --------------------------------------------------------------------------------------------


def test_initial_weights_are_the_seeds(folders):
    one, same, other = (build_denoiser(tiny(seed=seed), (2,), 0).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["network.from_x.weight"], other["network.from_x.weight"])


def test_no_warning_on_the_way(folders):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folders, "flow").sample(2, steps=2)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.2)])
def test_a_denoiser_of_another_precision_draws_the_same(folders, dtype, apart):
    trained = load(folders, "flow")
    expected = trained.sample(20, steps=3)
    trained.denoiser.to(dtype)
    found = trained.sample(20, steps=3)
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).abs().max()) < apart * float(expected.std())


def test_torchs_default_dtype_changes_no_sample_but_its_rounding(folders):
    expected = load(folders, "flow").sample(20, steps=3)
    torch.set_default_dtype(torch.float64)
    try:
        found = load(folders, "flow").sample(20, steps=3)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-5)


def test_a_table_s_samples_stay_where_its_codes_can_be(tmp_path):
    """However far a network throws them: one of 654 samples was at 1000, where levels are at 0 and 1."""
    table = tmp_path / "shop.csv"
    rows = [f"{k % 7}.25,{'red' if k % 3 else 'blue'},{'' if k % 5 == 0 else k}" for k in range(60)]
    table.write_text("\n".join(["price,colour,stock", *rows]) + "\n")
    trained = run(tiny(data=str(table), steps=2, validation=0.0, held_out=0.0), tmp_path / "run")
    with torch.no_grad():
        trained.denoiser.network.out.weight.normal_(0, 1e4, generator=torch.Generator().manual_seed(0))
    low, high = trained.codec.ends()
    *_, (_, z) = trained.latents(50, seed=0)
    assert bool(((z >= low - 1e-3) & (z <= high + 1e-3)).all())
    assert trained.sample(50, seed=0).shape == (50, 3)
