"""Environments of gymnasium as simulators, and recorded episodes as data."""

import pickle
import sys

import numpy as np
import pytest
import torch

from ebbtide.cli.policy import Driving
from ebbtide.errors import InputError
from ebbtide.kinds.robots.source import load_episodes
from ebbtide.robots.gym import GymWorld, Recorder, split_observation
from ebbtide.robots.policy import Policy
from ebbtide.robots.simulators import Simulator, make
from robots.fakes import Towards

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


class Stuck(Reach):
    """One that can't begin."""

    def reset(self, *, seed=None, options=None):
        raise RuntimeError("it can't\nbegin")


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Reach-v0", Reach)
    gymnasium.register("Stuck-v0", Stuck)


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
    episodes = load_episodes(str(tmp_path / "mine.npz"), ("camera",))
    assert (episodes.ends.tolist(), episodes.fps) == ([2, 4, 6], 5)
    assert episodes.state_names == ("place",)
    np.testing.assert_allclose(episodes.state[:, 0], [0, 0.5, 0, 0.2, 0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(episodes.action[:, 0], [0.5, 0.5, 0.2, 0.2, 0.4, 0.4], rtol=1e-6)
    assert episodes.images["camera"][3].unique().tolist() == [2]
    assert episodes.tasks == ("Go to 1.",) * 3
    env.drop()
    assert len(env) == 2
    env.drop()
    assert len(env) == 1
    with pytest.raises(InputError, match="reset the environment"):
        env.step(np.zeros(2))


@pytest.mark.parametrize("about", [{}, {"render_fps": None}, {"render_modes": []}])
def test_an_environment_need_not_state_its_rate(about, tmp_path, monkeypatch):
    monkeypatch.setattr(Reach, "metadata", about)
    env = Recorder(Reach())
    env.reset(seed=0)
    env.step(np.array([0.5, 0.0]))
    assert load_episodes(str(env.save(tmp_path / "mine.npz"))).fps == 0
    env.fps = 12.0
    assert load_episodes(str(env.save(tmp_path / "mine.npz"))).fps == 12


def test_an_image_alone_has_its_name(tmp_path):
    env = Recorder(gymnasium.wrappers.FilterObservation(Reach(), ["camera"]))
    alone = Recorder(gymnasium.wrappers.TransformObservation(Reach(), lambda seen: seen["camera"], None))
    for one, name in ((env, "camera"), (alone, "image")):
        one.reset(seed=0)
        one.step(np.array([0.5, 0.0]))
        episodes = load_episodes(str(one.save(tmp_path / f"{name}.npz")), (name,))
        assert episodes.state.shape == (1, 0)
        assert episodes.images[name].shape == (1, 4, 6, 3)


class Lane(gymnasium.Env):
    """Lane k's episodes last k + 2 steps; it shows 100 k + the step, as a number and as an image of 10 k + the step."""

    observation_space = Reach.observation_space
    action_space = gymnasium.spaces.Box(-999, 999, (1,))
    metadata = {"render_fps": 5}  # noqa: RUF012 - as theirs
    render_mode = None

    def __init__(self, k):
        self.k, self.at = k, 0

    def see(self):
        place = np.array([100 * self.k + self.at], np.float32)
        return {"place": place, "camera": np.full((4, 6, 3), 10 * self.k + self.at, np.uint8)}

    def reset(self, *, seed=None, options=None):
        self.at = 0
        return self.see(), {}

    def step(self, action):
        self.at += 1
        return self.see(), 0.0, self.at == self.k + 2, False, {}


class Tensors:
    """The same two lanes as a simulator on a GPU has them: in tensors that the next step overwrites."""

    num_envs, metadata = 2, {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP, "render_fps": 5}

    def reset(self, *, seed=None, options=None):
        self.at, self.place = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1)
        self.camera = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
        return self.see(), {}

    def see(self):
        self.place[:, 0] = 100 * torch.arange(2) + self.at
        self.camera[:] = (10 * torch.arange(2) + self.at)[:, None, None, None]
        return {"place": self.place, "camera": self.camera}

    def step(self, action):
        self.at += 1
        ended = self.at == torch.tensor([2, 3])
        self.at[ended] = 0
        return self.see(), torch.zeros(2), ended, torch.zeros(2, dtype=torch.bool), {}


def vector(mode, kind=gymnasium.vector.SyncVectorEnv):
    return kind([lambda: Lane(0), lambda: Lane(1)], autoreset_mode=mode)


SAME = [(0, (0, 1)), (1, (0, 1, 2)), (0, (2, 3)), (0, (4, 5)), (1, (3, 4, 5)), (0, (6,)), (1, (6,))]
NEXT = [(0, (0, 1)), (1, (0, 1, 2)), (0, (3, 4)), (1, (4, 5, 6)), (0, (6,))]  # 2, 5 and 3 are resets


@pytest.mark.parametrize(
    ("make_env", "expected", "finished"),
    [
        (lambda: vector("NextStep"), NEXT, 4),
        (lambda: vector("SameStep"), SAME, 5),
        (lambda: vector("Disabled"), SAME, 5),
        (lambda: vector("NextStep", gymnasium.vector.AsyncVectorEnv), NEXT, 4),
        (lambda: vector("SameStep", gymnasium.vector.AsyncVectorEnv), SAME, 5),
        (lambda: vector("Disabled", gymnasium.vector.AsyncVectorEnv), SAME, 5),
        (Tensors, SAME, 5),
    ],
    ids=["sync-next", "sync-same", "sync-disabled", "async-next", "async-same", "async-disabled", "tensors"],
)
def test_each_lane_of_a_vector_has_its_episodes(make_env, expected, finished, tmp_path):
    """In the order in which they ended, those under way last; the action of lane k at step t is 10 t + k."""
    env = Recorder(make_env(), task="Count.")
    env.reset(seed=0)
    for t in range(7):
        *_, ended, cut, _ = env.step(np.array([[10.0 * t], [10.0 * t + 1]], np.float32))
        if env.metadata["autoreset_mode"].value == "Disabled" and (ended | cut).any():
            env.reset(options={"reset_mask": ended | cut})
    assert len(env) == finished
    for _ in range(2):  # to save twice changes nothing
        episodes = load_episodes(str(env.save(tmp_path / "mine.npz")), ("camera",))
    if hasattr(env.env, "close"):
        env.close()
    assert episodes.ends.tolist() == np.cumsum([len(steps) for _, steps in expected]).tolist()
    assert episodes.action[:, 0].tolist() == [10 * t + k for k, steps in expected for t in steps]
    assert episodes.state[:, 0].tolist() == [100 * k + i for k, steps in expected for i in range(len(steps))]
    assert episodes.images["camera"][:, 0, 0, 0].tolist() == [
        10 * k + i for k, steps in expected for i in range(len(steps))
    ]
    assert (episodes.fps, episodes.state_names) == (5, ("place",))
    assert episodes.tasks == ("Count.",) * len(expected)


def two(t):
    return np.full((2, 1), 10.0 * t, np.float32)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_lane_that_ended_is_recorded_from_its_next_episode_on(mode):
    """Resetting one lane leaves the other's episode, and dropping one too; until its next episode it isn't recorded."""
    env = Recorder(
        vector(mode, gymnasium.vector.AsyncVectorEnv if mode == "Disabled" else gymnasium.vector.SyncVectorEnv)
    )
    env.reset(seed=0)
    env.step(two(0))
    mask = np.array([True, False])
    env.reset(options={"reset_mask": mask})  # lane 0's episode of one step is kept, as one that was left
    assert (len(env), mask.tolist()) == (1, [True, False])
    env.step(two(1))
    env.drop(1)  # its two steps, and its third, which ends it
    for t in range(2, 5):  # lane 0 ends at 2; without a reset, an asynchronous one would go on beyond its end
        env.step(two(t))
    env.close()
    taken = [(one.lane, [float(action[0]) // 10 for action in one.actions]) for one in env._episodes]
    begun = {"NextStep": [], "SameStep": [(0, [3, 4])], "Disabled": []}[mode]
    assert taken == [(0, [0]), (0, [1, 2]), *begun]
    under_way = [[float(action[0]) // 10 for action in lane.episode.actions] for lane in env._lanes]
    assert under_way == {"NextStep": [[4], [4]], "SameStep": [[], [3, 4]], "Disabled": [[], []]}[mode]
    env.drop(0)
    assert len(env) == {"NextStep": 2, "SameStep": 2, "Disabled": 1}[mode]


class Walk(gymnasium.Env):
    """A point and its goal, drawn anew in each episode, that may take as many steps as the length given."""

    observation_space = gymnasium.spaces.Box(-9, 9, (4,))
    action_space = gymnasium.spaces.Box(-9, 9, (2,))
    metadata, render_mode = {}, None

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.state = 0, self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        self.at += 1
        self.state[:2] += action
        return self.state.copy(), 0.0, False, self.at == self.length, {}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_policy_drives_the_lanes_of_a_vector_by_a_slot_for_each_episode(mode):
    """As in docs/robots.md: an episode has the actions that its slot takes alone from the same observations."""
    n, most = 2, 3
    env = Recorder(gymnasium.vector.SyncVectorEnv([lambda: Walk(3), lambda: Walk(5)], autoreset_mode=mode))
    policy = Policy(Towards(), rows=4)
    policy.reset(range(n * (most + 1)))
    slots, before = np.arange(n), np.zeros(n, bool)
    observations, _ = env.reset(seed=[0, 1])
    while slots.min() < n * most:
        for lane, slot in enumerate(slots):
            policy.observe({"state": observations[lane]}, slot)
        observations, _, ended, cut, _ = env.step(policy.actions(slots))
        over, before = before if mode == "NextStep" else ended | cut, ended | cut
        slots = np.minimum(slots + n * over, n * most + np.arange(n))
        if mode == "Disabled" and over.any():
            observations, _ = env.reset(seed=slots.tolist(), options={"reset_mask": over})
    counts, alone = [0, 0], Policy(Towards(), rows=4)
    for episode in env._episodes:
        slot, counts[episode.lane] = episode.lane + n * counts[episode.lane], counts[episode.lane] + 1
        if slot >= n * most:
            continue
        alone.reset([slot])
        states = [state for state, _, _ in episode.seen]
        assert len(states) == (3, 5)[episode.lane]
        if mode == "Disabled":
            np.testing.assert_array_equal(states[0], Walk(1).reset(seed=slot)[0])
        for state, action in zip(states, episode.actions, strict=True):
            np.testing.assert_array_equal(alone.select_action({"state": state}), action)
    assert min(counts) >= most


class Odd(Tensors):
    """A vector environment that returns what it was given."""

    def __init__(self, place=None, ended=None, **about):
        self.metadata = Tensors.metadata | about
        self.given, self.ended = place, ended

    def see(self):
        return super().see() if self.given is None else self.given

    def step(self, action):
        seen, rewards, ended, cut, info = super().step(action)
        return seen, rewards, ended if self.ended is None else self.ended, cut, info


def stepped(env, action=((0,), (0,))):
    env = Recorder(env)
    env.reset()
    return env.step(action)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Recorder(Odd(autoreset_mode=None)), "must be one of gymnasium.vector.AutoresetMode; got None"),
        (lambda: Recorder(Odd()).step([[0], [0]]), "reset the environment"),
        (lambda: stepped(Odd(), [[0], [0], [0]]), r"the action must hold one for each of 2 lanes; got shape \(3, 1\)"),
        (lambda: stepped(Odd(), 0.5), "one for each of 2 lanes; got float"),
        (lambda: stepped(Odd(), [{"a": 1}, {"a": 2}]), "an action must be numbers; got dict"),
        (lambda: stepped(Odd(place=np.zeros((3, 1)))), r"the observation must hold .* 2 lanes; got shape \(3, 1\)"),
        (lambda: stepped(Odd(place={"a": {"b": 0}})), "the observation a must hold .* 2 lanes; got dict"),
        (lambda: stepped(Odd(place=(np.zeros(2), np.zeros(2)))), "an array or a dict of arrays; got a tuple"),
        (lambda: stepped(Odd(place=np.array(["a", "b"]))), "its state is str"),
        (lambda: stepped(Odd(ended=torch.zeros(2))), r"True or False for each of 2 lanes; got float32 of shape \(2,\)"),
        (lambda: Recorder(Odd()).reset(options={"reset_mask": np.array([True])}), r"got bool of shape \(1,\)"),
        (lambda: Recorder(Odd()).drop(2), "lane must be at least 0 and at most 1; got 2"),
        (lambda: Recorder(Reach()).drop(1), "lane must be"),
    ],
)
def test_bad_lanes_are_one_sentence(call, named):
    with pytest.raises(InputError, match=named) as refused:
        call()
    assert "\n" not in str(refused.value)


class Turning(Reach):
    """One whose third step returns something else than the others."""

    def __init__(self, reset=None, step=None, see=None):
        super().__init__()
        self.changed, self.count = {"reset": reset, "step": step, "see": see}, 0

    def reset(self, **options):
        self.count = 0
        return (self.changed["reset"] or (lambda found: found))(super().reset(**options))

    def see(self):
        return (self.changed["see"] if self.count == 3 and self.changed["see"] else dict)(super().see())

    def step(self, action):
        self.count += 1
        found = super().step(action)
        return self.changed["step"](found) if self.count == 3 and self.changed["step"] else found


@pytest.mark.parametrize(
    ("env", "named"),
    [
        (Turning(step=lambda found: (*found[:3], found[4])), r"step must return \(observation, .* got 4 parts"),
        (Turning(step=lambda found: None), "step must return .* got NoneType"),
        (Turning(see=lambda seen: seen | {"place": np.array([np.nan], np.float32)}), "finite; its place is nan"),
        (Turning(see=lambda seen: seen | {"place": np.array([1e300])}), "finite; its place is inf"),
        (
            Turning(see=lambda seen: seen | {"place": np.zeros(2)}),
            r"alike at all steps; got 2 numbers \(place_0, place_1\), .* and before 1 numbers \(place\)",
        ),
        (
            Turning(see=lambda seen: seen | {"camera": np.zeros((2, 2, 3), np.uint8)}),
            r"camera \(2, 2, 3\), and before .*camera \(4, 6, 3\)",
        ),
    ],
)
def test_what_no_policy_could_learn_from_is_refused_at_its_step(env, named, tmp_path):
    """And what came before it can be written."""
    env = Recorder(env)
    env.reset()
    for _ in range(2):
        env.step([0.25, 0])
    with pytest.raises(InputError, match=named):
        env.step([0.25, 0])
    with pytest.raises(InputError, match="reset the environment"):
        env.step([0.25, 0])
    env.reset()
    env.step([0.5, 0])
    with np.load(env.save(tmp_path / "a.npz")) as file:
        steps = 2 if "step must return" in named else 3
        assert file["episode_ends"].tolist() == [steps, steps + 1]
        np.testing.assert_array_equal(file["state"][:, 0], [*[0, 0.25, 0.5][:steps], 0])


def test_an_older_interface_is_refused():
    """Whose reset returns the observation alone, and whose step returns four parts, of which the last isn't an end."""
    with pytest.raises(InputError, match=r"reset must return \(observation, info\), as gymnasium's does; got dict"):
        Recorder(Turning(reset=lambda found: found[0])).reset()


@pytest.mark.parametrize(("action", "named"), [([np.nan, 0], "action must be finite"), ([0.5], "got 1 numbers")])
def test_a_bad_action_never_reaches_the_environment(action, named, tmp_path):
    env = Recorder(Turning())
    env.reset()
    env.step([0.25, 0])
    with pytest.raises(InputError, match=named):
        env.step(action)
    assert env.env.count == 1
    env.step([0.25, 0])
    with np.load(env.save(tmp_path / "a.npz")) as file:
        np.testing.assert_array_equal(file["state"], [[0], [0.25]])


@pytest.mark.unchecked
def test_what_cannot_be_written_is_one_sentence(tmp_path):
    for name in (None, 3, b"mine.npz"):
        with pytest.raises(InputError, match=r"file must be a path, a text or a pathlib\.Path; got "):
            Recorder(Turning()).save(name)
    for shown in ({"action": np.zeros((2, 4, 6, 3), np.uint8)}, {"file": np.zeros((2, 4, 6, 3), np.uint8)}):
        env = Recorder(Odd(place=shown))
        env.reset()
        env.step([[0], [0]])
        with pytest.raises(InputError, match="can't be called"):
            env.save(tmp_path / "mine.npz")
    with pytest.raises(AttributeError, match="step_async would bypass it"):
        env.step_async([[0], [0]])
    assert list(tmp_path.iterdir()) == []


def test_a_module_of_the_working_directory_registers_its_environment(tmp_path, monkeypatch):
    code = (
        "import gymnasium; gymnasium.register('Mine/Pole-v0', entry_point='gymnasium.envs.classic_control:PendulumEnv')"
    )
    (tmp_path / "registers_a_pole.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    before = [*sys.path]
    world = GymWorld(id="registers_a_pole:Mine/Pole-v0")
    assert (len(world.state_names), world.action_names, sys.path) == (3, ("action_0",), before)
    world.close()


@pytest.mark.parametrize("about", [{"render_modes": []}, {"render_fps": 5}, {}])
def test_an_environment_need_not_render(about, recwarn):
    def see(self, **_):
        return np.zeros(1, np.float32), {}

    space = gymnasium.spaces.Box(-1, 1, (1,))
    own = {"metadata": about, "observation_space": space, "action_space": space, "reset": see, "__init__": bare}
    gymnasium.register("Dark-v0", type("Dark", (gymnasium.Env,), own))
    world = GymWorld(id="Dark-v0")
    assert world.reset(0)["state"].tolist() == [0]
    assert not [one for one in recwarn if "rgb_array" in str(one.message)]
    with pytest.raises(InputError, match="Dark-v0 renders no images"):
        world.render()
    del gymnasium.registry["Dark-v0"]


def bare(self):
    """No argument render_mode."""


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: GymWorld(id="Nowhere-v0"), "can't make 'Nowhere-v0'"),
        (lambda: GymWorld(id="CartPole-v1"), "acts with numbers"),
        (lambda: GymWorld(id="Reach-v0", least=1.0, most=0.0), "most"),
        (lambda: GymWorld(id="Reach-v0", least=float("nan")), "least must be finite"),
        (lambda: GymWorld(id="Reach-v0", fps=-1.0), "fps must be at least 0"),
        (lambda: GymWorld(id="Stuck-v0"), "can't make 'Stuck-v0': it can't begin"),
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
