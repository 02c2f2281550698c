"""`module:function` where the user types it: a sampler, a simulator, a metric; never from what a run holds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ebbtide.cli import main
from ebbtide.kinds.runs import from_pretrained
from ebbtide.training import checkpoint

MINE = """
import numpy as np
from ebbtide.samplers.ddim import ddim

def walk(walk):
    yield from ddim(walk)

def spread(samples, real):
    return float(samples.float().std() / real.float().std())

def words(samples, real):
    return "far"

class World:
    name, task, fps, max_steps, success, score = "mine", "Go.", 10.0, 3, False, 0.5
    state_names = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    action_names = ("target_x", "target_y")
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)

    def __init__(self, *, pixels=False):
        pass

    def reset(self, seed):
        return {"state": np.full(5, 100, np.float32)}

    def step(self, action):
        return self.reset(0), 0.0, False

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def close(self):
        pass

number = 3
"""
FIELDS = {"sampler": "own_of_mine:walk", "simulator": "own_of_mine:World"}


@pytest.fixture(autouse=True)
def module(ebbtide, tmp_path, monkeypatch):
    """In the working directory."""
    monkeypatch.delitem(__import__("sys").modules, "own_of_mine", raising=False)
    (tmp_path / "own_of_mine.py").write_text(MINE)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "flow"
    small = ["--steps", "1", "--points", "60", "--batch", "8", "--snapshots", "0", "--no-fit", "--quiet"]
    assert main(["train", "flow", "--network", "mlp:width=8,depth=2", *small, "--out", str(folder)]) == 0
    return folder


def test_a_sampler_of_one_s_own_draws_what_the_row_it_is_does(flow, ebbtide):
    for name in ("ddim", "own_of_mine:walk"):
        code, _, err = ebbtide(
            "sample", flow, "--n", 5, "--sampler", name, "--steps", 4, "--no-picture", "--out", f"{name[:4]}.npy"
        )
        assert code == 0, err
    assert Path("ddim.npy").read_bytes() == Path("own_.npy").read_bytes()
    code, out, err = ebbtide("evaluate", flow, "--n", 40, "--sampler", "own_of_mine:walk", "--steps", 2, "--json")
    assert code == 0, err
    assert json.loads(out)[0]["how"]["sampler"] == "own_of_mine:walk"


def test_a_metric_of_one_s_own_stands_beside_its_floor(flow, ebbtide):
    code, out, err = ebbtide("evaluate", flow, "--n", 200, "--steps", 1, "--metric", "own_of_mine:spread", "--json")
    assert code == 0, err
    (row,) = [row for row in json.loads(out) if row["name"] == "own_of_mine:spread"]
    assert 0.8 < row["floor_low"] <= row["floor"] <= row["floor_high"] < 1.25
    assert row["value"] > 0
    assert (row["low"], row["p"], row["better"]) == (None, None, "equal")
    code, out, err = ebbtide("evaluate", flow, "--n", 40, "--steps", 1, "--metric", "own_of_mine:words")
    assert (code, err.splitlines()[-1]) == (2, "ebbtide: A metric must return a number; got str.")


def test_a_simulator_of_one_s_own_is_driven_also_in_other_processes(policy, ebbtide):
    world = ["--simulator", "own_of_mine:World"]
    code, out, err = ebbtide("evaluate", policy, "--n", 4, "--episodes", 2, "--workers", 2, "--steps", 1, *world)
    assert code == 0, err
    assert "episode length" in out
    lines = [json.loads(line) for line in (policy / "episodes.jsonl").read_text().splitlines()]
    assert [(one["error"], one["score"], one["length"]) for one in lines] == [("", 0.5, 3)] * 2
    assert {one["how"]["simulator"] for one in lines} == {"own_of_mine:World"}
    sampler = ["--sampler", "own_of_mine:walk", "--steps", 2]
    assert ebbtide("rollout", policy, *world, *sampler, "--video", "film.gif")[0] == 0
    code, _, err = ebbtide("evaluate", policy, "--n", 4, "--metric", "own_of_mine:spread")
    assert (code, err.count("\n")) == (2, 1)
    assert "--metric is not for policies" in err


@pytest.mark.parametrize("name", ["own_of_mine:none", "nowhere_at_all:walk", "own_of_mine:number"])
@pytest.mark.parametrize(
    "words", [("sample", "--sampler"), ("evaluate", "--metric"), ("evaluate", "--sampler"), ("certify", "")]
)
def test_what_is_no_function_is_one_sentence(flow, ebbtide, words, name):
    command, option = words
    code, out, err = ebbtide(command, flow, option, name) if option else ebbtide(command, name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"ebbtide: {name} ")


@pytest.mark.parametrize("field", FIELDS)
def test_a_run_that_names_one_runs_nothing(flow, policy, ebbtide, tmp_path, field):
    """The config of an exported folder may be anybody's."""
    trained = from_pretrained({"sampler": flow, "simulator": policy}[field])
    recipe = replace(trained.recipe, **{field: FIELDS[field]})
    folder = tmp_path / "theirs"
    checkpoint.write_folder(folder, replace(trained, recipe=recipe).files())
    (tmp_path / "own_of_mine.py").write_text("open('ran', 'w')\n" + MINE)
    words = {"sampler": ("sample", folder, "--n", 3), "simulator": ("rollout", folder, "--video", "film.gif")}[field]
    code, _, err = ebbtide(*words)
    assert (code, err.strip().count("\n")) == (2, 0), err
    assert "own_of_mine" in err
    assert not (tmp_path / "ran").exists()


def test_a_recipe_on_the_command_line_names_rows_alone(ebbtide, tmp_path):
    code, _, err = ebbtide("train", "flow", "--sampler", "own_of_mine:walk", "--steps", 1, "--points", 50, "--out", "r")
    assert (code, err.count("\n")) == (2, 1)
    assert "own_of_mine" in err
