"""A policy's figures show its own predictions beside what was recorded."""

from dataclasses import replace

import pytest
from PIL import Image

from ebbtide.kinds.robots import data, pages as robot_run
from ebbtide.kinds.runs import train_recipe as fit
from ebbtide.plots import pusht
from ebbtide.recipes import RECIPES
from recording import record


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = replace(
        RECIPES["flow-policy-pusht"](), data=record(folder / "episodes.npz"), steps=4, batch=8, horizon=8,
        network="action_unet:width=8,emb=16",
    )  # fmt: skip
    return fit(recipe, folder / "run", snapshots=1, checkpoints=1, progress=False), folder / "run"


def test_a_run_is_drawn(run, tmp_path):
    trained, folder = run
    drawn = list(robot_run.draw_run(trained, folder, tmp_path / "plots"))
    assert [path.name for path in drawn] == ["trajectories.png", "fan.png", "losses.png"]
    for path in drawn:
        with Image.open(path) as picture:
            assert min(picture.size) > 1.4 * 50


def test_every_chunk_is_told_what_was_seen_at_its_first_step(run, tmp_path, monkeypatch):
    trained, _ = run
    given = {}
    monkeypatch.setattr(
        robot_run.drawing, "trajectories", lambda truth, chunks, *_, **__: given.update(c=chunks, t=truth)
    )
    monkeypatch.setattr(robot_run.style, "save", lambda figure, path: path)
    robot_run.draw_trajectories(trained, tmp_path / "x.png")
    assert [start for start, _ in given["c"]] == [0, 8]
    episode, seen = data.held_episode(trained.recipe)
    assert (given["t"] == episode.action.numpy()).all()
    alone = trained.sample(1, first=1, seed=trained.recipe.seed, seen={name: part[8:9] for name, part in seen.items()})
    assert abs(given["c"][1][1] - alone[0].numpy()).max() < 1e-2


def test_a_policy_without_a_scene_is_drawn_joint_by_joint(run, tmp_path, monkeypatch):
    trained, _ = run
    drawn = []
    monkeypatch.setattr(robot_run.drawing, "fan", lambda chunks, *_, **__: drawn.append(chunks.shape))
    monkeypatch.setattr(robot_run.style, "save", lambda figure, path: path)
    robot_run.draw_fan(replace(trained, recipe=replace(trained.recipe, simulator="aloha-transfer")), tmp_path / "x.png")
    assert drawn == [(robot_run.FAN, 8, 2)]


@pytest.mark.parametrize(("fps", "said"), [(0.0, "10 steps a second assumed"), (10.0, None)])
def test_seconds_that_are_assumed_are_said_to_be(run, tmp_path, monkeypatch, fps, said):
    trained, _ = run
    episode, seen = data.held_episode(trained.recipe)
    monkeypatch.setattr(robot_run, "held_episode", lambda recipe: (replace(episode, fps=fps), seen))
    titles = []
    monkeypatch.setattr(robot_run.style, "save", lambda figure, path: titles.append(figure) or path)
    for room, name in ((robot_run.drawing, "trajectories"), (pusht, "pusht_fan"), (robot_run.drawing, "fan")):
        monkeypatch.setattr(room, name, lambda *_, title, **__: title)
    robot_run.draw_trajectories(trained, tmp_path / "x.png")
    robot_run.draw_fan(trained, tmp_path / "x.png")
    assert ["assumed" in title for title in titles] == [bool(said)] * 2
    assert all(said is None or said in title for title in titles)
