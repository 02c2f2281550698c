"""Recipes are plain data: they survive a round trip, name rows that exist, and refuse what they don't know."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ebbflow.cli import cite
from ebbflow.cli.compare import SUBJECTS
from ebbflow.cli.sample import Drawing
from ebbflow.cli.show import ShowPath
from ebbflow.couplings import COUPLINGS
from ebbflow.data import DATASETS
from ebbflow.denoiser import WEIGHTS
from ebbflow.errors import InputError
from ebbflow.networks import NETWORKS
from ebbflow.paths import PATHS
from ebbflow.recipes import CITATIONS, RECIPES, ImageRecipe, PointRecipe, Recipe, kind_of
from ebbflow.recipes.recipe import KINDS
from ebbflow.samplers import SAMPLERS
from ebbflow.specs import bind
from ebbflow.targets import TARGETS
from ebbflow.times import GRIDS, TIMES

TABLES = {
    "path": PATHS,
    "target": TARGETS,
    "times": TIMES,
    "weight": WEIGHTS,
    "coupling": COUPLINGS,
    "sampler": SAMPLERS,
    "grid": GRIDS,
}
ALL = {**TABLES, "network": NETWORKS, "data": DATASETS}


def help_of(kind):
    """Field → the text under it, which is what --help prints; its own class's before that of a parent."""
    import inspect

    found = {}
    for part in reversed([part for part in kind.__mro__ if part is not object]):
        found |= re.findall(r'^    (\w+): (?!ClassVar)[^\n]*\n    """(.*?)"""', inspect.getsource(part), re.M | re.S)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    recipe = RECIPES[name]()
    assert Recipe.from_config(json.loads(json.dumps(recipe.to_config()))) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_rows_of_the_tables(name):
    recipe = RECIPES[name]()
    for field, table in ALL.items():
        spec = getattr(recipe, field)
        if field == "data":
            assert recipe.domain == "robots" or type(recipe) is kind_of(spec)
        elif table is WEIGHTS:
            assert spec in table
        else:
            bind(table, spec, field)
    assert recipe.independent or recipe.coupling == "ot"
    assert KINDS[recipe.domain] is type(recipe)


def test_help_names_every_row_of_its_table_or_the_command_that_lists_them():
    cases = [(Recipe, field) for field in TABLES] + [(Drawing, "sampler"), (Drawing, "grid"), (ShowPath, "path")]
    for kind, field in cases:
        text = help_of(kind)[field]
        forgotten = set(TABLES[field]) - set(re.findall(r"\w+", text))
        assert not forgotten or f"`ebbflow list {field}s`" in text, f"the help of {field} forgets {forgotten}"
    assert set(RECIPES) <= set(re.findall(r"[\w-]+", help_of(cite.Cite)["recipe"]))


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_field_has_help(kind):
    assert set(help_of(kind)) == {field.name for field in fields(kind)}
    assert all(text.endswith(".") for text in help_of(kind).values())


def test_the_data_says_which_kind_of_recipe_it_takes(tmp_path):
    points = ["three_gaussians", "x.csv", "a/b.tsv", str(tmp_path / "absent.npz"), ""]
    assert {kind_of(data) for data in points} == {PointRecipe}
    folder = tmp_path / "photos"
    folder.mkdir()
    np.savez(tmp_path / "pictures.npz", images=np.zeros((2, 4, 4), np.uint8))
    np.savez(tmp_path / "points.npz", x=np.zeros((2, 4)))
    pictures = ["digits", "hf:mnist", str(folder), "train-images-idx3-ubyte.gz", str(tmp_path / "pictures.npz")]
    assert {kind_of(data) for data in pictures} == {ImageRecipe}
    assert kind_of(str(tmp_path / "points.npz")) is PointRecipe


@pytest.mark.parametrize("domain", SUBJECTS)
def test_what_compare_shares_has_the_recipe_s_own_defaults_but_a_shorter_training_on_points(domain):
    recipe, subject, _ = SUBJECTS[domain]
    own = {field.name: getattr(recipe, field.name) for field in fields(subject)}
    assert vars(subject) == own | ({"steps": 1800} if domain == "points" else {})
    assert recipe.domain == domain


def test_every_recipe_is_cited():
    assert list(CITATIONS) == list(RECIPES)
    for name, entry in CITATIONS.items():
        ids = re.findall(r"arXiv:(\d{4}\.\d{5})", entry)
        assert ids
        assert any(f"arXiv:{number}" in (RECIPES[name].__doc__ or "") for number in ids)


WRONG = {
    "steps": ["3000", 3.5, True, None, 0, -1, 10**13, 10**400],
    "lr": ["x", None, True, float("nan"), float("inf"), -1, 10**400],
    "conditional": [1, "true", None],
    "path": [3, None, ["linear"], True],
    "seed": [-1, 2**63, 0.0],
    "ema": [1.0, -0.1, 1],
    "points": [1, 2e9],
    "domain": ["sounds", "", None],
    "path_": ["linear"],
    "": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_from_config_refuses_by_name(field, value):
    with pytest.raises(InputError) as caught:
        Recipe.from_config({**PointRecipe().to_config(), field: value})
    text = str(caught.value)
    assert field in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("config", [None, [], "linear", 3, PointRecipe()])
def test_from_config_takes_objects_only(config):
    with pytest.raises(InputError, match="A recipe must be a JSON object"):
        Recipe.from_config(config)


NAMES = st.sampled_from([field.name for kind in KINDS.values() for field in fields(kind)]) | st.text()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text()


@given(st.dictionaries(NAMES, SCALARS | st.lists(st.integers())), st.sampled_from(sorted(KINDS)))
def test_any_config_is_a_recipe_or_one_sentence(config, domain):
    config = {"domain": domain} | config
    try:
        text = None
        recipe = Recipe.from_config(config)
    except InputError as error:
        text = str(error)
    assert text.endswith(".") if text else recipe.to_config() == KINDS[domain]().to_config() | config


def test_an_older_run_on_a_file_held_nothing_out():
    """Its config has no such field; a named set is endless either way."""
    for data, share in (("table.csv", 0.0), ("./two_moons", 0.0), ("two_moons", 0.1)):
        config = PointRecipe(data=data).to_config()
        assert Recipe.from_config(config).held_out == 0.1
        del config["held_out"]
        assert Recipe.from_config(config).held_out == share, data


def test_a_path_is_its_name(tmp_path):
    """In a process of its own: type checks at run time, as here, refuse what is no text."""
    code = """
from pathlib import Path
from ebbflow.recipes import PointRecipe, Recipe
recipe = PointRecipe(data=Path("folder/points.csv"), source=Path("other.csv"), coupling="independent")
print(repr(recipe.data), repr(recipe.source), Recipe.from_config(recipe.to_config()) == recipe)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{str(Path('folder/points.csv'))!r} 'other.csv' True\n", "")
