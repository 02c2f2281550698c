import io

import numpy as np
import pytest
import torch

from ebbflow.data import Episodes, Observation, Standardise, Windows
from ebbflow.data.episodes import load, prompt_bytes
from ebbflow.errors import InputError


def episodes(**changes):
    """Two episodes of 3 and 4 steps; the state counts from 0, the action is ten times as much."""
    steps = torch.arange(7.0)
    given = {
        "state": torch.stack([steps, -steps], 1),
        "action": 10 * steps[:, None],
        "ends": torch.tensor([3, 7]),
        "tasks": ("push", "pull it"),
        "state_names": ("x", "y"),
        "action_names": ("u",),
    }
    return Episodes(**given | changes)


def windows(horizon=3, o=2, **changes):
    e = episodes()
    return Windows(e.action, e.ends, horizon, o, e.state, **changes)


def saved(path, **changes):
    e = episodes()
    arrays = {"state": e.state.numpy(), "action": e.action.numpy(), "episode_ends": e.ends.numpy()}
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return str(path)


def test_a_window_is_the_next_actions_and_the_last_states_within_its_episode():
    taken = windows().take(torch.tensor([0, 1, 2, 3, 6]))
    assert taken["x0"][..., 0].tolist() == [[0, 10, 20], [10, 20, 20], [20, 20, 20], [30, 40, 50], [60, 60, 60]]
    assert taken["mask"][..., 0].tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert taken["state"][..., 0].tolist() == [[0, 0], [0, 1], [1, 2], [3, 3], [5, 6]]
    assert taken["state"][..., 1].equal(-taken["state"][..., 0])


def test_windows_know_their_pictures_and_prompt():
    pictures = torch.arange(7, dtype=torch.uint8)[:, None, None, None, None].expand(7, 2, 4, 5, 3).clone()
    pictures[:, 1] += 100
    taken = windows(images=pictures, prompt=prompt_bytes(("push", "pull!"), 5), masked=False).take(torch.tensor([2, 3]))
    assert taken["images"][:, :, 0, 0, 0].tolist() == [[1, 101, 2, 102], [3, 103, 3, 103]]  # oldest first
    assert taken["prompt"].tolist() == [[113, 118, 116, 105, 0], [113, 118, 109, 109, 34]]
    assert "mask" not in taken


def test_a_prompt_is_bytes_plus_one():
    assert prompt_bytes(["é", ""], 4).tolist() == [[0xC3 + 1, 0xA9 + 1, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(InputError, match="at most 4 bytes; got 5: 'press'"):
        prompt_bytes(["go", "press"], 4)


def test_some_episodes_alone():
    part = episodes().cut([1])
    assert part.state[:, 0].tolist() == [3, 4, 5, 6]
    assert part.ends.tolist() == [4]
    assert part.tasks == ("pull it",)
    assert episodes().cut([1, 0]).ends.tolist() == [4, 7]


def test_some_columns_alone():
    part = episodes().columns("y")
    assert part.state.shape == (7, 1)
    assert part.state_names == ("y",)
    assert episodes().columns("all").state.shape == (7, 2)
    assert episodes().columns("none").state.shape == (7, 0)
    turned = episodes().columns("x,y", "y")
    assert turned.state_names == ("x", "sin y", "cos y")
    assert turned.state[2].tolist() == pytest.approx([2, np.sin(-2), np.cos(-2)])
    assert episodes().columns("u,v").state.equal(episodes().state)  # other names for as many columns
    with pytest.raises(InputError, match="no column 'u'; it has x, y"):
        episodes().columns("u")
    with pytest.raises(InputError, match="no column 'z'; it has x, y"):
        episodes().columns("x,z")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ends": torch.tensor([3, 6])}, "at least one step"),
        ({"ends": torch.tensor([7, 7])}, "at least one step"),
        ({"ends": torch.tensor([], dtype=torch.int64)}, "at least one step"),
        ({"tasks": ("push",)}, "one task for each of 2 episodes; got 1"),
        ({"state": torch.full((7, 2), torch.nan)}, "state holds numbers that are not finite"),
    ],
)
def test_episodes_that_cannot_be_are_refused(changes, error):
    with pytest.raises(InputError, match=error):
        episodes(**changes)


def test_an_npz_is_read(tmp_path):
    names = {"fps": np.array(50.0), "tasks": np.array(["push", "pull it"]), "state_names": np.array(["x", "y"])}
    read = load(saved(tmp_path / "a.npz", **names))
    assert read.state.equal(episodes().state)
    assert read.action.equal(episodes().action)
    assert (read.ends.tolist(), read.fps, read.tasks) == ([3, 7], 50.0, ("push", "pull it"))
    assert (read.state_names, read.action_names) == (("x", "y"), ("action_0",))


def test_pictures_may_lie_in_a_second_file_and_are_resized(tmp_path):
    pictures = np.zeros((7, 8, 8, 3), np.uint8)
    pictures[:, :4] = 200
    np.savez(tmp_path / "b.npz", img=pictures, other=np.zeros(3))
    read = load(saved(tmp_path / "a.npz") + f"+{tmp_path / 'b.npz'}", cameras=("img",), size=2)
    assert read.images["img"].shape == (7, 2, 2, 3)
    assert read.images["img"][3, :, :, 0].tolist() == [[200, 200], [0, 0]]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"action": None}, "a.npz has no array 'action'"),
        ({"state": np.zeros(7)}, "state must be numbers"),
        ({"state": np.array([["a"]] * 7)}, "state must be numbers"),
        ({"episode_ends": np.array([3.0, 7.0])}, "episode_ends must be whole numbers"),
        ({"fps": np.array(0.0)}, "fps must be above 0"),
        ({"action": np.full((7, 1), np.inf)}, "action holds numbers that are not finite"),
    ],
)
def test_an_npz_of_something_else_is_refused(tmp_path, changes, error):
    with pytest.raises(InputError, match=error):
        load(saved(tmp_path / "a.npz", **changes))


def test_files_that_are_no_npz_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        load(str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(InputError, match=r"bad\.npz is no readable \.npz"):
        load(str(tmp_path / "bad.npz"))
    file = io.BytesIO()
    np.savez(file, state=np.zeros((2000, 5)))
    (tmp_path / "cut.npz").write_bytes(file.getvalue()[:5000])
    with pytest.raises(InputError, match=r"cut\.npz"):
        load(str(tmp_path / "cut.npz"))
    with pytest.raises(InputError, match="has no array 'img'"):
        load(saved(tmp_path / "a.npz"), cameras=("img",))


def test_an_observation_is_normalised():
    seen = Observation({"state": (2, 1)}, Standardise((10.0,), (2.0,)))
    assert seen.see({"state": torch.tensor([[[10.0], [14.0]]])})["state"].flatten().tolist() == [0, 2]


def test_an_observation_is_kept_as_json():
    seen = Observation({"state": (2, 1), "images": (1, 4, 4, 3), "prompt": (8,)}, Standardise((10.0,), (2.0,)))
    assert Observation.from_config(seen.to_config()) == seen
    for config in (None, {"shapes": {}}, {"shapes": {"state": [2, 0]}, "transform": {"name": "none"}}):
        with pytest.raises(InputError, match="An observation"):
            Observation.from_config(config)
    with pytest.raises(InputError, match="An observation has"):
        Observation({"state": (3,)})
