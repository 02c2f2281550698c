import io

import numpy as np
import pytest
import torch

from ebbtide.data import Episodes, Observation, Standardise, Windows
from ebbtide.data.episodes import columns, prompt_bytes, resized
from ebbtide.errors import InputError
from ebbtide.kinds.robots.source import load_episodes


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


@pytest.mark.unchecked  # else the check of types refuses them first
def test_a_prompt_is_bytes_plus_one():
    assert prompt_bytes(["é", ""], 4).tolist() == [[0xC3 + 1, 0xA9 + 1, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(InputError, match="at most 4 bytes; got 5: 'press'"):
        prompt_bytes(["go", "press"], 4)
    for texts, error in (("go", "texts must be a list or a tuple; got 'go'"), ([b"go"], "a text; got b'go'")):
        with pytest.raises(InputError, match=error):
            prompt_bytes(texts, 4)


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
    for wanted in ("u", "u,u", "u,u,v", "u,v,w"):
        with pytest.raises(InputError, match="no column 'u'; it has x, y"):
            episodes().columns(wanted)
    with pytest.raises(InputError, match="no column 'z'; it has x, y"):
        episodes().columns("x,z")


def test_a_place_stands_for_a_name_only_where_it_may():
    state = torch.tensor([3.0, 4.0])
    found, names = columns(state, ("state_0", "state_1"), "height,angle", "angle", by_place=True)
    assert found.tolist() == pytest.approx([3, np.sin(4), np.cos(4)])
    assert names == ("height", "sin angle", "cos angle")
    for own in (("state_0", "state_1"), ("x", "y")):  # a simulator knows its columns' names
        with pytest.raises(InputError, match=f"no column 'height'; it has {own[0]}, {own[1]}"):
            columns(state, own, "height,angle")


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ends": torch.tensor([3, 6])}, "at least one step"),
        ({"ends": torch.tensor([7, 7])}, "at least one step"),
        ({"ends": torch.tensor([], dtype=torch.int64)}, "at least one step"),
        ({"ends": torch.tensor([0, 7])}, "at least one step"),
        ({"ends": torch.tensor([-2, 7])}, "at least one step"),
        ({"tasks": ("push",)}, "one task for each of 2 episodes; got 1"),
        ({"state_names": ("x",)}, "state_names must be one for each of 2 columns; got 1"),
        ({"action_names": ("u", "v")}, "action_names must be one for each of 1 columns; got 2"),
        (
            {"images": {"top": torch.zeros(6, 4, 4, 3, dtype=torch.uint8)}},
            r"'top', one for each step, must be .* of shape \(7, h, w, 3\); got .* of shape \(6, 4, 4, 3\)",
        ),
        ({"images": {"top": np.zeros((7, 4, 4, 3), np.uint8)}}, "images of 'top' must be a tensor; got an array"),
        ({"state": [[0.0]]}, r"state must be a tensor; got \[\[0.0\]\]"),
        ({"action": torch.zeros(7)}, r"action must be .* of shape \(n, a\); got a tensor of shape \(7,\)"),
        ({"fps": "10"}, "fps must be a number, at least 0 and finite; got '10'"),
        ({"state": torch.full((7, 2), torch.nan)}, "state holds numbers that are not finite"),
    ],
)
def test_episodes_that_cannot_be_are_refused(changes, error):
    with pytest.raises(InputError, match=error):
        episodes(**changes)


def test_an_npz_is_read(tmp_path):
    names = {"fps": np.array(50.0), "tasks": np.array(["push", "pull it"]), "state_names": np.array(["x", "y"])}
    read = load_episodes(saved(tmp_path / "a.npz", **names))
    assert read.state.equal(episodes().state)
    assert read.action.equal(episodes().action)
    assert (read.ends.tolist(), read.fps, read.tasks) == ([3, 7], 50.0, ("push", "pull it"))
    assert (read.state_names, read.action_names) == (("x", "y"), ("action_0",))


def test_an_npz_may_have_no_state(tmp_path):
    read = load_episodes(saved(tmp_path / "a.npz", state=None))
    assert (read.state.shape, read.state_names, read.fps) == ((7, 0), (), 0.0)
    with pytest.raises(InputError, match="The state has no column 'x'; it has none"):
        read.columns("x")


def test_pictures_may_lie_in_a_second_file_and_are_resized(tmp_path):
    pictures = np.zeros((7, 8, 8, 3), np.uint8)
    pictures[:, :4] = 200
    np.savez(tmp_path / "b.npz", img=pictures, other=np.zeros(3))
    read = load_episodes(saved(tmp_path / "a.npz") + f"+{tmp_path / 'b.npz'}", cameras=("img",), size=2)
    assert read.images["img"].shape == (7, 2, 2, 3)
    assert read.images["img"][3, :, :, 0].tolist() == [[200, 200], [0, 0]]


def test_a_smaller_picture_is_the_mean_over_each_new_pixels_area():
    """3 × 2 to 2 × 2: of three rows the middle one is shared by halves, (2 a + b) / 3 and (b + 2 c) / 3."""
    picture = torch.tensor([[0, 30], [90, 60], [240, 9]], dtype=torch.uint8)
    picture = torch.stack([picture, 255 - picture, picture // 3], 2)[None]
    assert resized(picture, 2)[0, ..., 0].tolist() == [[30, 40], [190, 26]]
    assert resized(picture, 2)[0, ..., 1].tolist() == [[225, 215], [65, 229]]
    assert resized(picture.transpose(1, 2), 2).equal(resized(picture, 2).transpose(1, 2))
    assert resized(picture, 1)[0, 0, 0].tolist() == [72, 184, 24]  # 429 / 6, 1101 / 6, 143 / 6
    wide = torch.arange(5, dtype=torch.uint8)[None, None, :, None] * 50
    wide = wide.expand(1, 2, 5, 3)  # 2 × 5, in steps of 2.5 pixels: (0 + 50 + 100 / 2) / 2.5
    assert resized(wide, 2)[0, :, :, 0].tolist() == [[40, 160], [40, 160]]


def test_a_whole_factor_is_the_mean_of_its_pixels():
    frames = torch.randint(256, (5, 12, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    means = frames.double().unflatten(1, (4, 3)).unflatten(3, (4, 5)).mean((2, 4))
    assert resized(frames, 4).equal(means.round().to(torch.uint8))


def test_a_larger_picture_repeats_its_pixels():
    picture = torch.tensor([[0, 90], [150, 30]], dtype=torch.uint8)[None, :, :, None].expand(1, 2, 2, 3)
    assert resized(picture, 4).equal(picture.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert resized(picture, 3)[0, ..., 0].tolist() == [[0, 45, 90], [75, 68, 60], [150, 90, 30]]  # 67.5, to even
    assert resized(picture, 2) is picture
    assert resized(picture, 0) is picture


@pytest.mark.parametrize("shape", [(479, 641), (97, 31)])
def test_a_picture_becomes_the_same_alone_and_among_others(shape):
    """Weights of 479 × 641 pixels to 96 add up to 307039, times 255 more than float32 counts to."""
    frames = torch.randint(256, (9, *shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = resized(frames, 96)
    assert small.equal(torch.cat([resized(frame[None], 96) for frame in frames]))
    shares = [np.zeros((96, n)) for n in shape]
    for n, share in zip(shape, shares):
        for i in range(96):
            for j in range(n):
                share[i, j] = max(0, min((j + 1) * 96, (i + 1) * n) - max(j * 96, i * n)) / n
    means = np.einsum("rh,nhwc,qw->nrqc", shares[0], frames[:1].double().numpy(), shares[1], optimize=True)
    assert np.abs(small[:1].numpy() - means).max() < 0.5 + 1e-6
    plain = torch.full((1, *shape, 3), 201, dtype=torch.uint8)
    assert (resized(plain, 96) == 201).all()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"action": None}, "a.npz has no array 'action'"),
        ({"state": np.zeros(7)}, "state must be numbers"),
        ({"state": np.array([["a"]] * 7)}, "state must be numbers"),
        ({"episode_ends": np.array([3.0, 7.0])}, "episode_ends must be whole numbers"),
        *(({"fps": np.array(fps)}, "a.npz: fps must be one number above 0; got ") for fps in (0.0, np.nan, np.inf)),
        *(({"fps": np.array(fps)}, "fps must be one number above 0; got ") for fps in ("10", [10, 10], [], 1j)),
        ({"state_names": np.array(["x", "y", "z"])}, "state_names must be one for each of 2 columns; got 3"),
        ({"action": np.full((7, 1), np.inf)}, "action holds numbers that are not finite"),
    ],
)
def test_an_npz_of_something_else_is_refused(tmp_path, changes, error):
    with pytest.raises(InputError, match=error):
        load_episodes(saved(tmp_path / "a.npz", **changes))


def test_files_that_are_no_npz_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        load_episodes(str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(InputError, match=r"bad\.npz is damaged or cut short"):
        load_episodes(str(tmp_path / "bad.npz"))
    file = io.BytesIO()
    np.savez(file, state=np.zeros((2000, 5)))
    (tmp_path / "cut.npz").write_bytes(file.getvalue()[:5000])
    with pytest.raises(InputError, match=r"cut\.npz"):
        load_episodes(str(tmp_path / "cut.npz"))
    with pytest.raises(InputError, match="has no array 'img'"):
        load_episodes(saved(tmp_path / "a.npz"), cameras=("img",))


def test_an_observation_is_normalised():
    seen = Observation({"state": (2, 1)}, Standardise((10.0,), (2.0,)))
    assert seen.see({"state": torch.tensor([[[10.0], [14.0]]])})["state"].flatten().tolist() == [0, 2]


def test_an_observation_is_kept_as_json():
    seen = Observation({"state": (2, 1), "images": (1, 4, 4, 3), "prompt": (8,)}, Standardise((10.0,), (2.0,)))
    assert Observation.from_config(seen.to_config()) == seen
    for config in (None, {"shapes": {}}, {"shapes": {"state": [2, 0]}, "codec": {"name": "none"}}):
        with pytest.raises(InputError, match="An observation"):
            Observation.from_config(config)
    with pytest.raises(InputError, match="An observation has"):
        Observation({"state": (3,)})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_recording_is_read_or_refused(tmp_path, save):
    """Bytes cut off, or replaced where they lie: never anything but an InputError."""
    file, rng, refused = tmp_path / "a.npz", np.random.default_rng(0), 0
    save(file, **dict(np.load(saved(tmp_path / "whole.npz", img=np.zeros((7, 8, 8, 3), np.uint8)))))
    whole = file.read_bytes()
    for k in range(150):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(len(whole), size=2 ** (k % 5))] = rng.integers(256, size=2 ** (k % 5))
        file.write_bytes(damaged[: rng.integers(len(whole)) if k % 6 == 0 else None].tobytes())
        try:
            load_episodes(str(file), ("img",))
        except InputError:
            refused += 1
    assert refused > 75
