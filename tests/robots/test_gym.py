"""Environments of gymnasium as simulators, and recorded episodes as data."""

import pickle

import numpy as np
import pytest

from ebbtide.cli.policy import Driving
from ebbtide.errors import InputError
from ebbtide.kinds.robots.source import _read_npz
from ebbtide.robots.gym import GymWorld, Recorder, split_observation
from ebbtide.robots.simulators import Simulator, make

gymnasium = pytest.importorskip("gymnasium")


def test_a_named_environment_is_a_simulator():
    own = Driving(simulator="gym:Pendulum-v1,least=-3000,most=0").place
    world = make(pickle.loads(pickle.dumps(own)))
    assert isinstance(world, Simulator)
    assert (world.name, world.max_steps, world.fps) == ("Pendulum-v1", 200, 30)
    assert world.state_names == ("state_0", "state_1", "state_2")
    assert (world.low.tolist(), world.high.tolist()) == ([-2], [2])
    first = world.reset(7)["state"]
    assert (first.dtype, first.shape) == (np.float32, (3,))
    np.testing.assert_array_equal(first, gymnasium.make("Pendulum-v1").reset(seed=7)[0])
    total, done = 0.0, False
    while not done:
        _, reward, done = world.step(np.array([9.0]))  # clipped to 2
        total += reward
    assert world.steps == 200
    assert world.score == pytest.approx((total + 3000) / 3000)
    np.testing.assert_array_equal(world.reset(7)["state"], first)
    assert (world.score, world.success) == (0, False)
    world.close()


class Reach(gymnasium.Env):
    """A point that goes to 1; seen as numbers and an image."""

    observation_space = gymnasium.spaces.Dict({
        "place": gymnasium.spaces.Box(-9, 9, (1,)), "camera": gymnasium.spaces.Box(0, 255, (4, 6, 3), np.uint8),
    })  # fmt: skip
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    metadata = {"render_fps": 5, "render_modes": ["rgb_array"]}  # noqa: RUF012 - as theirs
    render_mode = "rgb_array"

    def __init__(self, render_mode=None):
        self.x = 0.0

    def see(self):
        return {"place": np.array([self.x], np.float32), "camera": np.full((4, 6, 3), int(10 * self.x), np.uint8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return self.see(), {}

    def step(self, action):
        self.x += float(action[0])
        return self.see(), 0.0, self.x >= 1, False, {"is_success": self.x >= 1}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Reach-v0", Reach)


def test_success_and_images_of_its_own():
    world = GymWorld(id="Reach-v0", pixels=True)
    assert world.reset(0)["images"].shape == (1, 4, 6, 3)
    assert world.state_names == ("place",)
    sensed, _, done = world.step(np.array([0.5, 0]))
    assert (sensed["images"].max(), done, world.score) == (5, False, 0)
    *_, done = world.step(np.array([0.6, 0]))
    assert (done, world.success, world.score) == (True, True, 1)


def test_a_recorder_writes_what_train_reads(tmp_path):
    env = Recorder(Reach(), task="Go to 1.")
    for pushes in ((0.5, 0.5), (0.2, 0.2), (0.4, 0.4)):
        env.reset(seed=0)
        for push in pushes:
            env.step(np.array([push, 0.0]))
    assert len(env) == 2  # the first ended, the second was left at a reset, the third is under way
    assert env.save(tmp_path / "mine.npz") == tmp_path / "mine.npz"
    episodes = _read_npz([tmp_path / "mine.npz"], ("camera",), 0)
    assert (episodes.ends.tolist(), episodes.fps) == ([2, 4, 6], 5)
    assert episodes.state_names == ("place",)
    np.testing.assert_allclose(episodes.state[:, 0], [0, 0.5, 0, 0.2, 0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(episodes.action[:, 0], [0.5, 0.5, 0.2, 0.2, 0.4, 0.4], rtol=1e-6)
    assert episodes.images["camera"][3].unique().tolist() == [2]
    assert episodes.tasks == ("Go to 1.",) * 3
    env.drop()
    assert len(env) == 2


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: GymWorld(id="Nowhere-v0"), "can't make 'Nowhere-v0'"),
        (lambda: GymWorld(id="CartPole-v1"), "acts with numbers"),
        (lambda: GymWorld(id="Reach-v0", least=1.0, most=0.0), "most"),
        (lambda: Recorder(3), "must have reset"),
        (lambda: Recorder(Reach()).step([0, 0]), "reset the environment"),
        (lambda: Recorder(Reach()).save("mine.npz"), "nothing to write"),
        (lambda: Recorder(Reach()).save("mine.csv"), "as .npz"),
        (lambda: split_observation({"text": "hello"}), "its text is str"),
    ],
)
def test_bad_input_is_one_sentence(call, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=named) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
