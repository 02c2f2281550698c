"""Recipes are plain data: they survive a round trip, name rows that exist, and refuse what they don't know."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st

from cells import each
from ebbtide.cli.certify import Certify
from ebbtide.cli.compare import SUBJECTS
from ebbtide.cli.drawing import Drawing
from ebbtide.cli.policy import Driving
from ebbtide.cli.show import ShowPath
from ebbtide.core.couplings import COUPLINGS
from ebbtide.core.paths import PATHS
from ebbtide.core.targets import TARGETS
from ebbtide.core.times import GRIDS, TIMES, grid_times
from ebbtide.data import DATASETS
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments
from ebbtide.exact.oracle import gaussian
from ebbtide.losses import loss_row
from ebbtide.losses.denoise import WEIGHTS
from ebbtide.networks import NETWORKS
from ebbtide.recipes import (
    OBJECTIVES,
    PAPERS,
    RECIPE_TYPES,
    RECIPES,
    ImageRecipe,
    PointRecipe,
    Recipe,
    RobotRecipe,
    cited,
    recipe_from_config,
    recipe_type,
)
from ebbtide.recipes.citations import papers
from ebbtide.recipes.recipe import _WEIGHTS
from ebbtide.samplers import SAMPLERS
from ebbtide.specs import bind, options

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


# How wide a recipe's own sampler, grid and number of steps make a mode of standard deviation 0.168 (that of three
# Gaussians' modes), over how wide it is; and what was measured with the choices that docs/LOG.md found worse.
WIDTHS = {
    "ddpm": 1.0054,  # with the posterior's variance, β̃, 0.978
    "flow": 1.0012,  # on the uniform grid 0.9945
    "edm": 1.0770,  # uniform 0.038, quadratic 0.68
    "bridge": 1.0003,  # uniform 0.9979
    "ot-flow": 1.0270,  # uniform 0.861
    **dict.fromkeys(("shortcut", "mean-flow", "shortcut-images", "mean-flow-images"), 1.0),  # an exact jump is exact
    "ddpm-images": 1.0054,
    "flow-images": 0.9945,
    "super-resolution": 0.9945,
    "edm-images": 1.0770,
    "ddpm-latents": 1.0054,
    "flow-latents": 0.9945,
    **dict.fromkeys((name for name, recipe in RECIPES.items() if recipe().kind == "robots"), 0.7409),
    "diffusion-policy-pusht": 0.8127,
}


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if not loss_row(row().loss).codec])
def test_a_recipe_s_own_steps_keep_the_width_of_a_mode(name):
    """Exactly, by certify.Impulses: with the denoiser of a Gaussian and without statistical error."""
    recipe, std = RECIPES[name](), 0.168
    path = bind(PATHS, recipe.path, "path")()
    oracle = gaussian(path, torch.tensor([0.7], dtype=torch.float64), std)
    times = grid_times(recipe.grid, recipe.sample_steps, path)
    mean, found = exact_moments(bind(SAMPLERS, recipe.sampler, "sampler"), oracle, times)
    assert mean == pytest.approx(0.7, abs=1e-6)
    assert found / std == pytest.approx(WIDTHS[name], abs=2e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    recipe = RECIPES[name]()
    assert recipe_from_config(json.loads(json.dumps(recipe.to_config()))) == recipe


# Text of a recipe that can name no place: rows of tables, and names within the data.
NO_PLACE = {
    "path", "target", "times", "weight", "coupling", "sampler", "grid", "label", "on_bad_image", "simulator",
    "objective", "state", "angles", "cameras", "normalise", "value_range", "action", "loss", "spans",
    "columns", "drop", "missing", "categorical", "ordered", "attributes", "attribute_ranges",
}  # fmt: skip


@pytest.mark.parametrize("kind", RECIPE_TYPES.values())
def test_every_text_of_a_recipe_is_known_to_name_a_place_or_none(kind):
    """A new one has to be put on either side: what names a place is opened and shared by its own rules."""
    texts = {field.name for field in fields(kind) if isinstance(getattr(kind(), field.name), str)}
    codec = ["codec"] * (kind in (ImageRecipe, PointRecipe))
    assert texts - NO_PLACE == {*kind.sources, "network", "teacher", "init", *codec}


def test_every_option_of_a_network_that_names_a_place_is_known():
    """And what π0's weights are unless given is what the recipe says of it."""
    texts = {
        (name, option): parameter.default
        for name, row in NETWORKS.items()
        for option, parameter in options(row).items()
        if parameter.annotation is str and option not in ("variant", "positions", "multipliers", "attention",
                                                          "conditioning", "time", "middle", "widths", "crop", "resize")
    }  # fmt: skip
    assert {option for _, option in texts} == set(_WEIGHTS)
    for name in NETWORKS:
        weights = texts.get((name, "weights"), "")
        assert RobotRecipe(data="", network=name).outside() == ({"weights": weights} if weights else {}), name


@pytest.mark.parametrize(
    ("recipe", "outside", "shared"),
    [
        (PointRecipe(), {}, {}),
        (PointRecipe(data="/srv/jo/a.csv"), {"data": "/srv/jo/a.csv"}, {"data": "a.csv"}),
        (PointRecipe(source="b.npy"), {"source": "b.npy"}, {}),
        (PointRecipe(source="C:\\Users\\jo\\b.npy"), {"source": "C:\\Users\\jo\\b.npy"}, {"source": "b.npy"}),
        (PointRecipe(data="user/a.csv"), {"data": "user/a.csv"}, {"data": "a.csv"}),
        (ImageRecipe(), {}, {}),
        (ImageRecipe(data="/srv/jo/photos/"), {"data": "/srv/jo/photos/"}, {"data": "photos"}),
        (ImageRecipe(data="user/photos"), {"data": "user/photos"}, {"data": "photos"}),
        (ImageRecipe(data="/srv/jo/digits"), {"data": "/srv/jo/digits"}, {"data": "./digits"}),
        (ImageRecipe(data="hf:user/mnist"), {"data": "hf:user/mnist"}, {}),
        (ImageRecipe(data="hf:user/mnist:full"), {"data": "hf:user/mnist:full"}, {}),
        (ImageRecipe(data="hf:user/mnist:full:image=img"), {"data": "hf:user/mnist:full:image=img"}, {}),
        (ImageRecipe(data="hf:user/mnist:label=fine"), {"data": "hf:user/mnist:label=fine"}, {}),
        (ImageRecipe(data="hf:mnist"), {"data": "hf:mnist"}, {}),
        (ImageRecipe(data="hf:/srv/jo/mnist"), {"data": "hf:/srv/jo/mnist"}, {"data": "hf:mnist"}),
        (ImageRecipe(data="hf:~/mnist"), {"data": "hf:~/mnist"}, {"data": "hf:mnist"}),
        (ImageRecipe(codec="pixels+patches:size=2"), {}, {}),
        *(
            (ImageRecipe(codec=f"{codec}/jo/ae{more}"), {"codec": "/jo/ae"}, {"codec": f"{codec}ae{more}"})
            for codec in ("pixels+autoencoder:run=", "pixels+autoencoder:whiten=0.5,run=", "pixels+diffusers:folder=")
            for more in ("", ",whiten=0.25", "+patches:size=2")
        ),
        (RobotRecipe(), {"data": "lerobot/pusht"}, {}),
        (RobotRecipe(data="/jo/a.npz+../b.npz"), {"data": "/jo/a.npz+../b.npz"}, {"data": "a.npz+b.npz"}),
        (RobotRecipe(data="user/a.npz"), {"data": "user/a.npz"}, {"data": "a.npz"}),
        (RobotRecipe(data="/jo/pusht"), {"data": "/jo/pusht"}, {"data": "pusht"}),
        (RobotRecipe(data="x/y/pusht"), {"data": "x/y/pusht"}, {"data": "pusht"}),
        (
            RobotRecipe(network="pi0:weights=/jo/gemma,width=8,tokenizer=user/words"),
            {"data": "lerobot/pusht", "weights": "/jo/gemma", "tokenizer": "user/words"},
            {"network": "pi0:weights=gemma,width=8,tokenizer=user/words"},
        ),
    ],
)
def test_what_leaves_has_the_name_of_a_file_and_not_its_place(recipe, outside, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe.outside() == outside
    assert recipe.shared() == replace(recipe, **shared)
    assert recipe.shared().shared() == recipe.shared()


def test_a_folder_here_is_no_set_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jo" / "pusht").mkdir(parents=True)
    assert RobotRecipe(data="jo/pusht").shared().data == "pusht"
    assert ImageRecipe(data="hf:jo/pusht").shared().data == "hf:pusht"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_rows_of_the_tables(name):
    recipe = RECIPES[name]()
    for field, table in ALL.items():
        spec = getattr(recipe, field)
        if field == "data":
            assert recipe.kind == "robots" or type(recipe) is recipe_type(spec)
        elif table is WEIGHTS:
            assert spec in table
        else:
            bind(table, spec, field)
    assert recipe.independent or recipe.coupling == "ot"
    assert RECIPE_TYPES[recipe.kind] is type(recipe)


def test_help_names_the_command_that_lists_the_rows():
    """By hand it would forget a new one."""
    cases = [(Recipe, field) for field in TABLES] + [(Drawing, "sampler"), (Drawing, "grid"), (ShowPath, "path")]
    cases += [(Recipe, "network"), (RobotRecipe, "simulator"), (Certify, "path"), (Driving, "simulator")]
    for kind, field in cases:
        assert f"`ebbtide list {field.removesuffix('s')}s`" in help_of(kind)[field], field


@pytest.mark.parametrize("kind", RECIPE_TYPES.values())
def test_every_field_has_help(kind):
    assert set(help_of(kind)) == {field.name for field in fields(kind)}
    assert all(text.endswith(".") for text in help_of(kind).values())


def test_the_data_says_which_kind_of_recipe_it_takes(tmp_path):
    """What a file holds decides, not its name."""
    pictures, idx = np.zeros((2, 4, 4), np.uint8), b"\0\0\x08\x03" + bytes(12)
    (tmp_path / "photos").mkdir()
    for name, arrays in {
        "images.npz": {"images": pictures},
        "medmnist.npz": {"train_images": pictures, "train_labels": np.zeros((2, 1), np.uint8)},
        "keras.NPZ": {"x_train": pictures, "y_train": np.zeros(2)},
        "no_ending": {"x": pictures},
        "points.npz": {"x": np.zeros((2, 4))},
        "points_of_images.npz": {"x": np.zeros((2, 4)), "thumbnails": pictures},
        "train-images-idx3-ubyte.npz": {"x": np.zeros((2, 4), np.uint8)},
    }.items():
        with open(tmp_path / name, "wb") as file:
            np.savez(file, **arrays)
    for name, data in {
        "train-images-idx3-ubyte": idx,
        "mine": idx,
        "mine.gz": gzip.compress(idx),
        "my_idx.csv": b"x,y\n1,2\n3,4\n",
        "idx3-ubyte.csv": b"1,2\n",
        "half.gz": gzip.compress(idx)[:12],
        "half.npz": (tmp_path / "images.npz").read_bytes()[:60],
        "empty.npz": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    here = [
        "photos",
        "images.npz",
        "medmnist.npz",
        "keras.NPZ",
        "no_ending",
        "train-images-idx3-ubyte",
        "mine",
        "mine.gz",
    ]
    asked = ["digits", "hf:mnist", *(str(tmp_path / name) for name in here)]
    assert {data: recipe_type(data) for data in asked} == dict.fromkeys(asked, ImageRecipe)
    rest = [str(file) for file in tmp_path.iterdir() if file.name not in here]
    asked = ["three_gaussians", "x.csv", "a/b.tsv", "an_idx.csv", "x\0y", str(tmp_path / "absent.npz"), "", *rest]
    assert {data: recipe_type(data) for data in asked} == dict.fromkeys(asked, PointRecipe)


@pytest.mark.parametrize("domain", SUBJECTS)
def test_what_compare_shares_has_the_recipe_s_own_defaults_but_a_shorter_training_on_points(domain):
    recipe, subject, _ = SUBJECTS[domain]
    own = {field.name: getattr(recipe, field.name) for field in fields(subject)}
    assert vars(subject) == own | ({"steps": 1800} if domain == "points" else {})
    assert recipe.kind == domain


def test_every_recipe_is_cited():
    for row in RECIPES.values():
        named = papers(row)
        assert named
        assert set(named) <= PAPERS.keys()
        assert re.findall(r"arXiv:(\d{4}\.\d{5})", cited(row)) == named
    assert cited(RECIPES["flow"]).count("@inproceedings{") == 2


def test_a_paper_that_is_not_at_hand_is_cited_by_its_id():
    def row():
        """Something new (arXiv:2612.01234), after (arXiv:2006.11239) and again arXiv:2612.01234."""

    assert papers(row) == ["2612.01234", "2006.11239"]
    assert cited(row).startswith("@misc{arxiv261201234,\n  note = {arXiv:2612.01234}\n}\n@inproceedings{ho2020ddpm")
    assert cited(lambda: None) == ""


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


@each(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_from_config_refuses_by_name(field, value):
    with pytest.raises(InputError) as caught:
        recipe_from_config({**PointRecipe().to_config(), field: value})
    text = str(caught.value)
    assert field in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("config", [None, [], "linear", 3, PointRecipe()])
def test_from_config_takes_objects_only(config):
    with pytest.raises(InputError, match="A recipe must be a JSON object"):
        recipe_from_config(config)


NAMES = st.sampled_from([field.name for kind in RECIPE_TYPES.values() for field in fields(kind)]) | st.text()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text()


@example({"sampler": ""}, "robots")
@given(st.dictionaries(NAMES, SCALARS | st.lists(st.integers())), st.sampled_from(sorted(RECIPE_TYPES)))
def test_any_config_is_a_recipe_or_one_sentence(config, domain):
    config = {"domain": domain} | config
    try:
        text = None
        recipe = recipe_from_config(config)
    except InputError as error:
        text = str(error)
    left = {name for name in OBJECTIVES["diffusion"] if config.get(name) == ""} if domain == "robots" else set()
    given = {name: value for name, value in config.items() if name not in left}  # "" leaves it to the objective
    if domain == "points":
        given = {"held_out": 0.0, "validation": 0.0, "gaussians": 0} | given  # see below
    assert text.endswith(".") if text else recipe.to_config() == RECIPE_TYPES[domain]().to_config() | given


def test_an_older_run_on_a_file_held_nothing_out():
    """Its config has no such fields, and it began as a network alone and trained for all of its steps."""
    given = {"held_out": 0.1, "validation": 0.3, "gaussians": 2}
    config = PointRecipe(data="table.csv", **given).to_config()
    assert {name: getattr(recipe_from_config(config), name) for name in given} == given
    for name in given:
        older = recipe_from_config({field: value for field, value in config.items() if field != name})
        assert getattr(older, name) == 0, name


def test_a_path_is_its_name(tmp_path):
    """In a process of its own: type checks at run time, as here, refuse what is no text."""
    code = """
from pathlib import Path
from ebbtide.recipes import PointRecipe, recipe_from_config
recipe = PointRecipe(data=Path("folder/points.csv"), source=Path("other.csv"), coupling="independent")
print(repr(recipe.data), repr(recipe.source), recipe_from_config(recipe.to_config()) == recipe)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{str(Path('folder/points.csv'))!r} 'other.csv' True\n", "")
