"""A run that begins with the weights of another: `init`."""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ebbtide import fit
from ebbtide.errors import InputError
from ebbtide.kinds.runs import begin, from_pretrained
from ebbtide.recipes import RECIPES, autoencoder, recipe_from_config
from ebbtide.training.build import build_network
from training.runs import STEPS, assert_same, newest, run, tensors, tiny

CLASSES = {"data": "two_moons", "conditional": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run by label of two classes, whose average and last weights differ."""
    folder = tmp_path_factory.mktemp("base") / "run"
    run(tiny("flow", **CLASSES), folder)
    return folder


def first(folder):
    """The tensors of a run's checkpoint before training: the average, and the weights to train."""
    where = folder / "checkpoints" / "step-00000000"
    return load_file(where / "model.safetensors"), load_file(where / "training.safetensors")


def test_both_the_weights_and_their_average_begin_there(base, tmp_path):
    """On other data; without a notice, as all fits. The recipe in config.json names the run."""
    theirs = load_file(newest(base) / "model.safetensors")
    recipe = tiny("flow", **CLASSES | {"data": "two_spirals", "init": str(base)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(recipe, tmp_path / "run", keep=9)
    average, state = first(tmp_path / "run")
    raw = {
        name.removeprefix("weights."): part for name, part in state.items() if name.removeprefix("weights.") in theirs
    }
    assert average.keys() == theirs.keys()
    assert raw.keys() == {name for name, _ in begin(tiny("flow", **CLASSES))[0].denoiser.named_parameters()}
    for name in raw:
        assert torch.equal(average[name], theirs[name])
        assert torch.equal(raw[name], theirs[name])
    config = json.loads((newest(tmp_path / "run") / "config.json").read_text())
    assert (config["recipe"]["init"], config["step"]) == (str(base), STEPS)


def test_what_does_not_fit_is_named_in_one_sentence(base):
    """Without labels their embedding is left over; another target is a warning, another network is an error."""
    theirs = load_file(newest(base) / "model.safetensors")
    with pytest.warns(UserWarning, match="doesn't fit in all") as told:
        start, _ = begin(tiny("flow", data="checkerboard", init=str(base)))
    text = str(told[0].message)
    assert (len(told), text.count("\n"), text[-15:]) == (1, 0, " no place here."), text
    for name, part in start.denoiser.named_parameters():
        assert torch.equal(part, theirs[name]), name
    with pytest.warns(
        UserWarning, match=r"network\.[\w.]+ \(4 × 8\) begins untrained; its network\.[\w.]+ \(\d+ × 8\)"
    ):
        start, _ = begin(tiny("flow", **CLASSES | {"data": "three_gaussians", "init": str(base)}))
    with pytest.warns(UserWarning, match="target is noise, there velocity"):
        begin(tiny("flow", **CLASSES | {"target": "noise", "init": str(base)}))
    with pytest.raises(InputError, match=r"its weights don't fit the network mlp:width=9,depth=1, as its own is mlp:w"):
        begin(tiny("flow", data="rings", network="mlp:width=9,depth=1", init=str(base)))


def test_an_autoencoder_begins_with_the_others_components_too(tmp_path):
    """Its networks add to them: on other data it reconstructs at first as the run it began with."""
    recipe = autoencoder(network="autoencoder:size=4,keep=2,widths=8-8,groups=4", steps=2, batch=16)
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    theirs = fit(recipe, x, out=tmp_path / "AE", snapshots=0, progress=False)
    other = x[:, ::2].repeat(2, 1) // 2
    start, _ = begin(recipe.having({"init": str(tmp_path / "AE")}), given=(other, None))
    assert torch.equal(
        start.reconstruct(torch.from_numpy(x)[:, None]), theirs.reconstruct(torch.from_numpy(x)[:, None])
    )


def test_a_run_resumes_to_the_bit_without_the_run_it_began_with(base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "base", symlinks=True)
    recipe = tiny("flow", **CLASSES | {"data": "two_spirals", "init": str(tmp_path / "base")})
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "hit")
    shutil.rmtree(newest(tmp_path / "hit"))
    shutil.rmtree(tmp_path / "base")
    run(recipe, tmp_path / "hit", resume=True)
    assert_same(tensors(tmp_path / "hit"), tensors(tmp_path / "straight"))
    with pytest.raises(InputError, match="is neither a run folder nor the name of a hub repository"):
        run(recipe, tmp_path / "new")


def test_a_file_is_tuned_from_a_run(base, tmp_path):
    """A search for a number of steps begins there, and so does the training on all rows; from Python too."""
    table = tmp_path / "t.csv"
    table.write_text("x,y\n" + "".join(f"{k % 7 - 3},{k % 5 - 2}\n" for k in range(120)))
    one = fit(tiny("flow", data=str(table), label="", steps=STEPS, init=""), out=tmp_path / "one", progress=False)
    recipe = replace(one.recipe, validation=0.2, steps=40, lr_steps=0, init=str(tmp_path / "one"))
    two = fit(recipe, out=tmp_path / "two", progress=False)
    assert two.begins == f"weights of {tmp_path / 'one'}"
    assert two.recipe.init == str(tmp_path / "one")
    found = first(tmp_path / "two")[0]
    theirs = load_file(newest(tmp_path / "one") / "model.safetensors")
    own = {name for name, _ in two.denoiser.named_parameters()}
    assert all(torch.equal(found[name], theirs[name]) for name in own)


def test_what_leaves_holds_its_name_alone(base, tmp_path):
    run(tiny("flow", **CLASSES | {"init": str(base)}), tmp_path / "run")
    trained = from_pretrained(tmp_path / "run")
    config = json.loads(trained.export("shared")["config.json"])
    assert config["recipe"]["init"] == base.name
    assert str(base) not in json.dumps(config)
    assert (
        recipe_from_config({k: v for k, v in config["recipe"].items() if k != "init"}).init == ""
    )  # of older versions


def test_a_student_has_one_start(base):
    recipe = tiny("flow", **CLASSES | {"init": str(base), "teacher": str(base)})
    with pytest.raises(InputError, match="leave init out, or teacher"):
        begin(recipe)


@pytest.mark.parametrize(
    ("network", "shape", "says"),
    [
        (
            "unet",
            (2,),
            r"network 'unet' is for data of another shape, \(channels, rows, columns\); this data has \(2,\)\.",
        ),
        ("dit-tiny", (2,), r"\(channels, rows, columns\); this data has \(2,\)\."),
        ("mlp", (1, 8, 8), r"network 'mlp' is for data of another shape, \(dim\); this data has \(1, 8, 8\)\."),
    ],
)
def test_a_network_for_another_shape_is_named(network, shape, says):
    with pytest.raises(InputError, match=says):
        build_network(RECIPES["flow"](network=network), shape, 0)
