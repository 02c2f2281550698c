"""A run's folder: what is there before and after."""

import json
import os

import pytest

from ebbtide.errors import InputError
from ebbtide.recipes import RECIPES
from ebbtide.training.folder import clear, occupied
from training.runs import newest, run, sentence, tiny


def test_a_run_is_cleared_and_what_is_not_its_own_stays(tmp_path):
    run(tiny(), tmp_path, snapshots=2)
    (tmp_path / "notes.txt").write_text("mine")
    clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "notes.txt"]


def test_an_occupied_folder_is_one_sentence(tmp_path):
    assert sentence(occupied(tmp_path)).startswith(f"{tmp_path} already holds a run;")


def test_a_checkpoint_without_its_state_is_not_resumed(tmp_path):
    run(tiny(), tmp_path, checkpoints=1)
    where = newest(tmp_path)
    manifest = json.loads((where / "manifest.json").read_text())
    del manifest["training.safetensors"]
    (where / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"has no training\.safetensors, so it can be sampled but not resumed"):
        run(tiny(), tmp_path, resume=True)


def test_jumps_that_were_learned_from_data_keep_the_recipes_grid(tmp_path, monkeypatch):
    """Fitted to where its own flow ends, the grid of two jumps was the even one: 1.5 % outliers for 0.5 %."""
    asked = []
    monkeypatch.setattr("ebbtide.training.folder.for_run", lambda trained, counts, **how: asked.append(counts) or ())
    small = {"steps": 2, "batch": 8, "points": 30, "network": "mlp:width=8,depth=1,spans=true"}
    made = run(RECIPES["shortcut"](**small), tmp_path / "alone")
    assert (made.tuned, asked) == ((), [])
    assert made.choice()[:3] == ("jump", made.recipe.grid, 1)
    run(RECIPES["mean-flow"](**small), tmp_path / "asked", evaluations="3")
    run(tiny("flow"), tmp_path / "flow")
    assert asked == [(3,), (5, 10, 20)]
