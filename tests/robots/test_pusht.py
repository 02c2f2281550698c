from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.robots.pusht import PushT

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data"
GOAL = (256, 256, np.pi / 4)
AWAY = np.array([30.0, 480.0])


@pytest.fixture(scope="module")
def pusht():
    return PushT()


def beside_the_goal(along, across=0.0):
    """A state with the T shifted in its own axes, and the agent away from it."""
    angle = GOAL[2]
    x = GOAL[0] + along * np.cos(angle) - across * np.sin(angle)
    return np.array([*AWAY, x, GOAL[1] + along * np.sin(angle) + across * np.cos(angle), angle], np.float32)


@pytest.mark.parametrize(
    ("state", "coverage"),
    [
        (beside_the_goal(0), 1),
        # The bar of 120 × 30 and the stem of 30 × 90 make 6300; shifted by 15 along the bar, 105 × 30 + 15 × 90 remain.
        (beside_the_goal(15), 4500 / 6300),
        # Along the stem, by 10: the bar keeps 120 × 20 and the stem 30 × 80, and the bar covers 30 × 10 of the stem.
        (beside_the_goal(0, 10), 5100 / 6300),
        (beside_the_goal(200), 0),
    ],
)
def test_score_by_hand(pusht, state, coverage):
    pusht.restore(state)
    _, reward, done = pusht.step(AWAY)
    assert reward == pusht.score == pytest.approx(min(coverage, 0.95) / 0.95, abs=1e-5)
    assert done == pusht.success == (coverage == 1)


def test_score_is_the_best_so_far(pusht):
    """A disc that runs through the T takes the reward away, but not the score."""
    state = beside_the_goal(15)
    state[:2] = 150, 400
    pusht.restore(state)
    rewards = [pusht.step(np.array([400.0, 100.0]))[1] for _ in range(10)]
    assert rewards[-1] < rewards[0] - 0.1
    assert pusht.score == max(rewards)


def test_restore_puts_everything_where_it_was(pusht):
    """The angle first: otherwise the T turns about its centre of mass, and lands up to 90 pixels away."""
    state = np.array([123, 234, 301, 287, 2.5], np.float32)
    np.testing.assert_allclose(pusht.restore(state)["state"], state, atol=1e-4)
    for wrong in (state[:4], np.full(5, np.nan, np.float32)):
        with pytest.raises((InputError, TypeError)):
            pusht.restore(wrong)


def test_an_action_outside_the_scene_is_its_nearest_place_inside(monkeypatch):
    """What the environment, which would chase any target, is told; whether or not it is installed here."""
    told = []

    class Environment(SimpleNamespace):
        def reset(self, seed):
            pass

        def get_obs(self):
            return np.zeros(5)

        def step(self, action):
            told.append(action.tolist())
            return None, 0.0, False, False, {}

    monkeypatch.setattr("ebbtide.robots.pusht.needed", lambda name: SimpleNamespace(PushTEnv=Environment))
    simulator = PushT()
    for action in ([-3.0, 600.0], [1e9, -1e9], [5.0, 511.5]):
        simulator.step(np.array(action))
    assert told == [[0, 512], [512, 0], [5, 511.5]]


def test_begins_as_the_environment_does(pusht):
    theirs, _ = pusht.env.reset(seed=5)
    np.testing.assert_array_equal(pusht.reset(5)["state"], theirs.astype(np.float32))


def test_pictures():
    pusht = PushT(pixels=True)
    state = np.array([400, 100, 150, 300, 0.5], np.float32)
    images = pusht.restore(state)["images"]
    assert (images.shape, images.dtype) == ((1, 96, 96, 3), np.uint8)
    for picture in (images[0], pusht.render()):
        scale = len(picture) / 512
        for x, y, colour in ((400, 100, "royalblue"), (150, 310, "lightslategray"), (256, 270, "lightgreen")):
            expected = {"royalblue": (65, 105, 225), "lightslategray": (119, 136, 153), "lightgreen": (144, 238, 144)}
            assert np.abs(picture[int(y * scale), int(x * scale)].astype(int) - expected[colour]).max() < 40, colour
    assert pusht.render().shape == (512, 512, 3)
    pusht.step(np.array([100.0, 20.0]))
    assert tuple(pusht.render()[20, 100]) == (255, 0, 0)  # a cross at the action: x to the right, y down


@pytest.mark.parametrize("episode", [0, 20, 205])
def test_replays_recordings(pusht, episode):
    """The recorded actions lead through the recorded states, from the first to the last, and look the same."""
    if not (RECORDED / "pusht_human_lowdim.npz").exists():
        pytest.skip(f"needs {RECORDED}/pusht_human_lowdim.npz")
    with np.load(RECORDED / "pusht_human_lowdim.npz") as data:
        states, actions, ends = data["state"], data["action"], data["episode_ends"]
    begin, last = ends[episode - 1] if episode else 0, ends[episode] - 1
    pusht.restore(states[begin])
    found = [pusht.step(action)[0]["state"] for action in actions[begin:last]]
    np.testing.assert_allclose(np.array(found), states[begin + 1 : last + 1], atol=0.01)


@pytest.mark.slow
def test_looks_as_recorded():
    if not (RECORDED / "pusht_human_img96_uint8.npz").exists():
        pytest.skip(f"needs {RECORDED}/pusht_human_img96_uint8.npz")
    with np.load(RECORDED / "pusht_human_lowdim.npz") as data:
        states = data["state"]
    with np.load(RECORDED / "pusht_human_img96_uint8.npz") as data:
        images = data["img"]
    pusht = PushT(pixels=True)
    for i in range(0, len(states), 500):
        seen = pusht.restore(states[i])["images"][0]
        assert np.abs(seen.astype(int) - images[i]).mean() < 0.5
