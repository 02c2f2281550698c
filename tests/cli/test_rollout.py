"""A policy is filmed by a command, in a real simulator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.cli.rollout import _left
from ebbtide.data import Episodes
from ebbtide.interop import lerobot
from ebbtide.kinds.robots import driving as robots_driving
from ebbtide.plots import video
from ebbtide.robots.pusht import PushT
from ebbtide.robots.rollout import Episode, Recording
from ebbtide.robots.simulators import SIMULATORS

pytest.importorskip("gym_pusht")


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    """A tenth of what they are: nothing here succeeds before the end."""
    monkeypatch.setattr(PushT, "max_steps", 30)


def test_a_policy_is_filmed(policy, ebbtide, tmp_path):
    film = tmp_path / "film.gif"
    code, _, err = ebbtide("rollout", policy, "--video", film, "--every", 6, "--seed", 5)
    assert code == 0, err
    assert "seed 5: score 0." in err
    with Image.open(film) as picture:
        assert picture.n_frames == 6
        assert picture.size[0] == 512
    assert ebbtide("rollout", policy, "--video", film)[0] == 2  # it is there already


def test_every_command_takes_a_recording_of_pictures_alone(ebbtide, tmp_path):
    """A set in LeRobot's format without observation.state: trained on, sampled, drawn, tried out and filmed."""
    pytest.importorskip("av")
    rng, steps = np.random.default_rng(0), 12
    pictures = torch.from_numpy(rng.integers(0, 256, (3 * steps, 32, 32, 3), np.uint8))
    actions = torch.from_numpy(rng.uniform(0, 512, (3 * steps, 2)).astype(np.float32))
    ends = torch.tensor([steps, 2 * steps, 3 * steps])
    lerobot.write_dataset(Episodes(torch.zeros(3 * steps, 0), actions, ends, {"top": pictures}, fps=10.0), "set")
    what = ["--data", "set", "--cameras", "top", "--size", 32, "--state", "all", "--angles", ""]
    small = ["--steps", 2, "--batch", 4, "--sample-steps", 2, "--network", "action_unet:width=8,emb=16", "--quiet"]
    for words in (
        ["train", "flow-policy-pusht", *what, *small, "--snapshots", 1, "--out", "run"],
        ["sample", "run", "--n", 3],
        ["plot", "run"],
        ["evaluate", "run", "--n", 4, "--episodes", 1, "--workers", 1],
        ["evaluate", "run", "--n", 4, "--episodes", 0, "--blind"],
        ["rollout", "run", "--every", 15],
        ["export", "run", "--out", "model"],
    ):
        code, _, err = ebbtide(*words)
        assert code == 0, (words, err)
    rows = {row["name"]: row["value"] for row in json.loads(Path("run/evaluation.json").read_text())}
    assert rows["episode length"] > 0
    assert (
        "observation = {  # what is seen now, in the robot's units\n    'images'" in Path("model/README.md").read_text()
    )


def test_chunks_are_drawn_and_written(policy, ebbtide, tmp_path):
    code, _, err = ebbtide("sample", policy, "--n", 3, "--out", tmp_path / "chunks.npz")
    assert code == 0, err
    with np.load(tmp_path / "chunks.npz") as archive:
        assert archive["chunks"].shape == (3, 16, 2)
    assert (tmp_path / "chunks.png").stat().st_size > 5000


def test_only_a_runs_own_film_is_replaced_without_being_asked(policy, ebbtide, tmp_path):
    assert ebbtide("export", policy, "--out", "model")[0] == 0
    (tmp_path / "rollout.gif").write_text("mine")
    for words in ([], ["--video", "rollout.gif"]):
        code, _, err = ebbtide("rollout", "model", *words)
        assert (code, err) == (2, "ebbtide: rollout.gif exists; pass --overwrite to replace it.\n")
    assert (tmp_path / "rollout.gif").read_text() == "mine"
    (policy / "rollout.gif").write_text("an older one")
    assert ebbtide("rollout", policy, "--every", 15)[0] == 0
    with Image.open(policy / "rollout.gif") as picture:
        assert picture.n_frames == 3
    assert not (tmp_path / "model" / "rollout.gif").exists()


def test_what_is_left_of_the_chunk_that_is_carried_out():
    chunks = [(start, start + np.arange(16)[:, None].repeat(2, 1)) for start in (0, 8)]
    first = lambda step, delay: _left(chunks, step, delay)[0, 0]
    assert [first(step, 0) for step in (0, 7, 8, 15)] == [0, 7, 8, 15]  # index 0 of a chunk is its own start
    assert len(_left(chunks, 10, 0)) == 14
    assert len(_left(chunks, 10, 4)) == 6  # the older one goes on until step 12
    assert len(_left(chunks, 12, 4)) == 12
    assert _left(chunks, 24, 0) is None
    assert _left([], 3, 0) is None


@pytest.mark.parametrize(("drawn", "place"), [(True, "pusht"), (False, "beside")])
def test_a_chunk_is_drawn_where_actions_are_places(policy, ebbtide, monkeypatch, drawn, place):
    """Whatever the recipe says: it is the simulator in use that counts. All simulators that were made are closed."""
    seen, open_ones, overlay = [], set(), video.overlay

    class Counted(PushT):
        def __init__(self, **options):
            super().__init__(**options)
            self.max_steps = 3
            open_ones.add(self)

        def close(self):
            super().close()
            open_ones.discard(self)

    class Beside(Counted):
        in_image = False

    monkeypatch.setitem(SIMULATORS, "pusht", Counted)
    monkeypatch.setitem(SIMULATORS, "beside", Beside)
    monkeypatch.setattr(
        video, "overlay", lambda frame, *rest, **how: seen.append(rest[0]) or overlay(frame, *rest, **how)
    )
    code, _, err = ebbtide("rollout", policy, "--video", "film.gif", "--simulator", place)
    assert code == 0, err
    assert [chunk is not None for chunk in seen] == [drawn] * 4
    assert not drawn or [len(chunk) for chunk in seen] == [16, 15, 14, 13]
    assert not open_ones


def test_every_option_reaches_the_policy_and_the_film(policy, ebbtide, tmp_path, monkeypatch):
    """Each option with another value than its own."""
    driven, filmed, shown, drive = [], [], [], robots_driving.policy

    def tried(place, policy, seeds, **options):
        frames = np.zeros((7, 8, 8, 3), np.uint8)
        recording = Recording({}, np.zeros((6, 2), np.float32), [(0, np.ones((16, 2), np.float32))], frames)
        return [Episode(seeds[0], False, 0.0, 6, recording=recording)]

    monkeypatch.setattr(robots_driving, "policy", lambda trained, **how: driven.append(how) or drive(trained, **how))
    monkeypatch.setattr("ebbtide.robots.rollout.rollout", tried)
    monkeypatch.setattr(video, "write_video", lambda path, frames, fps: filmed.append((path, len([*frames]), fps)))
    monkeypatch.setattr(video, "overlay", lambda frame, left, places, *, step, text: shown.append(step))
    driving = {"n_action_steps": 5, "delay": 2, "real_time": True}
    words = "--sampler heun --steps 3 --n-action-steps 5 --delay 2 --real-time --seed 4 --episodes 2 --every 3"
    code, _, err = ebbtide("rollout", policy, *words.split(), "--video", "film.mp4")
    assert code == 0, err
    assert driven == [{"seed": 4, "sampler": "heun", "steps": 3, "ensemble": None} | driving]
    assert "seed 4: score" in err
    assert "seed 5: score" in err
    assert shown == [0, 3, 6] * 2
    assert filmed == [(Path("film.mp4"), 6, 10 / 3)]
    assert ebbtide("rollout", policy, "--ensemble", "0.1", "--video", "film.mp4")[0] == 0
    assert {"ensemble": 0.1, "n_action_steps": 1}.items() <= driven[-1].items()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--video", "film.avi"], "must end in .mp4 or .gif"),
        (["--simulator", "moon"], "simulator must be one of pusht, aloha-transfer, aloha-insertion; got 'moon'"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--n-action-steps", "40"], "n_action_steps + delay must be at least 1 and at most 16; got 40"),
        (["--ensemble", "0.01", "--n-action-steps", "4"], "n_action_steps=1"),
        (["--ensemble", "-0.5"], "--ensemble must be at least 0 and finite; got -0.5."),
        (["--video", "."], ". is a folder; --video must be a file."),
    ],
)
def test_what_cannot_be_is_one_sentence(policy, ebbtide, words, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ebbtide("rollout", policy, *words)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert error in err
    assert not list(tmp_path.iterdir())
