"""Who had a run trained may open what it names; nobody else's run may."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.files import dump_json
from ebbtide.kinds.runs import from_pretrained, train_recipe as fit
from ebbtide.recipes import RECIPES, PointRecipe
from ebbtide.training import checkpoint, seal

SMALL = PointRecipe(steps=1, batch=8, network="mlp:width=8,depth=1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path):
    np.save(tmp_path / "own.npy", np.random.default_rng(0).normal(size=(30, 2)))
    return str(tmp_path / "own.npy")


@pytest.fixture
def run(table, tmp_path):
    fit(replace(SMALL, data=table), tmp_path / "run", progress=False, snapshots=0)
    return tmp_path / "run"


def closed(run):
    with pytest.raises(InputError, match="opened only if you name it too"):
        from_pretrained(run).reading()


def test_a_run_of_ones_own_reads_its_data(run, table, tmp_path):
    assert from_pretrained(run).reading().data == table
    assert from_pretrained(run.rename(tmp_path / "moved")).reading().data == table


def test_what_is_named_goes_before_what_the_run_names(run, table, tmp_path):
    elsewhere = shutil.copy(table, tmp_path / "elsewhere.npy")
    assert from_pretrained(run, data=str(elsewhere)).reading().data == str(elsewhere)


@pytest.mark.parametrize("field", ["data", "source"])
def test_a_seal_is_for_these_names_alone(run, table, field):
    """A stranger who has a sealed run of yours can't have another file opened by it."""
    for step in (run / "checkpoints").glob("step-*"):
        files = checkpoint.read_folder(step)
        config = json.loads(files["config.json"])
        config["recipe"][field] = "/etc/passwd.csv"
        checkpoint.write_folder(step, files | {"config.json": dump_json(config)})
    closed(run)


def test_a_relative_name_is_sealed_for_the_file_it_meant(table, tmp_path, monkeypatch):
    """The same name in another folder is another file, though the seal is one's own."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    shutil.copy(table, elsewhere / "own.npy")
    monkeypatch.chdir(tmp_path)
    fit(replace(SMALL, data="./own.npy"), tmp_path / "run", progress=False, snapshots=0)
    assert from_pretrained(tmp_path / "run").reading().data == "./own.npy"
    monkeypatch.chdir(elsewhere)
    closed(tmp_path / "run")
    assert from_pretrained(tmp_path / "run", data=table).reading().data == table


@pytest.mark.parametrize("name", ["user/robot", "hf:own", "a.npz+b.npz"])
def test_a_name_that_becomes_a_file_is_sealed_no_more(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = replace(RECIPES["flow-policy"](), data=name)
    files = {seal.FILE: seal.seal(recipe)}
    assert seal.holds(files, recipe)
    (tmp_path / name.removeprefix("hf:").split("+")[-1]).mkdir(parents=True)
    assert not seal.holds(files, recipe)


def test_what_a_network_is_built_on_is_sealed_too():
    """Weights by the network's own name, or by an option, and the tokenizer."""
    recipe = replace(RECIPES["flow-policy"](), data="a.npz", network="pi0")
    files = {seal.FILE: seal.seal(recipe)}
    assert seal.holds(files, recipe)
    for network in ("pi05", "pi0:weights=other/weights", "pi0:tokenizer=other/words"):
        assert seal.holds(files, replace(recipe, network=network)) == (network == "pi05"), network


def test_a_run_of_another_user_or_machine_is_closed(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "other"))
    closed(run)


def test_nothing_that_leaves_is_sealed(run, tmp_path):
    from_pretrained(run).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / seal.FILE).exists()
    closed(tmp_path / "model")


def test_without_a_cache_data_must_be_named(table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "file" / "cache"))
    fit(replace(SMALL, data=table), tmp_path / "run", progress=False, snapshots=0)
    closed(tmp_path / "run")


@pytest.mark.parametrize("forged", [b"", b"0" * 32, b"\xff" * 32])
def test_a_forged_seal_holds_nothing(forged, table):
    recipe = replace(SMALL, data=table)
    assert not seal.holds({seal.FILE: forged}, recipe)
    assert not seal.holds({}, recipe)
    assert seal.holds({seal.FILE: seal.seal(recipe)}, recipe)
    assert not seal.holds({seal.FILE: seal.seal(SMALL)}, SMALL)  # which names nothing outside
