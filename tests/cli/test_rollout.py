"""A policy is tried out and filmed by commands, in a real simulator."""

import json

import numpy as np
import pytest
from PIL import Image

from ebbflow.recipes import RECIPES
from ebbflow.training.run import fit
from recording import record

pytest.importorskip("gym_pusht")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("run")
    recipe = replace(
        RECIPES["flow-policy-pusht"](), data=record(folder / "episodes.npz"), steps=4, batch=8, sample_steps=2,
        network="action_unet:width=8,emb=16",
    )  # fmt: skip
    fit(recipe, folder / "run", snapshots=0, checkpoints=1, progress=False)
    return folder / "run"


def test_a_policy_is_evaluated_in_its_simulator(run, ebbflow):
    code, out, err = ebbflow("evaluate", run, "--n", 8, "--episodes", 2, "--workers", 1, "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads(out)}
    assert list(rows) == ["success rate", "mean score", "episode length", "milliseconds a chunk", "mean absolute error"]
    assert rows["success rate"]["value"] == 0
    assert rows["episode length"]["value"] == 300
    assert 0 <= rows["mean score"]["low"] <= rows["mean score"]["value"] < 0.9
    assert rows["success rate"]["floor"] is None
    episodes = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    assert [one["seed"] for one in episodes] == [1_000_000, 1_000_001]
    assert np.mean([one["score"] for one in episodes]) == pytest.approx(rows["mean score"]["value"])
    assert (run / "trajectories.png").stat().st_size > 5000


def test_a_policy_is_filmed(run, ebbflow, tmp_path):
    film = tmp_path / "film.gif"
    code, _, err = ebbflow("rollout", run, "--video", film, "--every", 60, "--seed", 5)
    assert code == 0, err
    assert "seed 5: score 0." in err
    with Image.open(film) as picture:
        assert picture.n_frames == 6
        assert picture.size[0] == 512
    assert ebbflow("rollout", run, "--video", film)[0] == 2  # it is there already


def test_chunks_are_drawn_and_written(run, ebbflow, tmp_path):
    code, _, err = ebbflow("sample", run, "--n", 3, "--out", tmp_path / "chunks.npz")
    assert code == 0, err
    with np.load(tmp_path / "chunks.npz") as archive:
        assert archive["chunks"].shape == (3, 16, 2)
    assert (tmp_path / "chunks.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--video", "film.avi"], "must end in .mp4 or .gif"),
        (["--simulator", "moon"], "simulator must be one of pusht, aloha-transfer, aloha-insertion; got 'moon'"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--action-steps", "40"], "at most the horizon of 16"),
        (["--ensemble", "0.01"], "n_action_steps=1"),
    ],
)
def test_what_cannot_be_is_one_sentence(run, ebbflow, words, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ebbflow("rollout", run, *words)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert error in err
    assert not list(tmp_path.iterdir())
