"""What every simulator promises: shapes, seeds, limits, errors."""

import pickle
import sys

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.robots.simulators import SIMULATORS, make
from ebbtide.specs import Own

every = pytest.mark.parametrize("name", SIMULATORS)


@pytest.fixture(scope="module")
def simulators():
    return {name: make(name) for name in SIMULATORS}


@every
def test_interface(simulators, name):
    simulator = simulators[name]
    observation = simulator.reset(3)
    assert simulator.name == name
    assert set(observation) == {"state"}
    assert (observation["state"].shape, observation["state"].dtype) == ((len(simulator.state_names),), np.float32)
    assert simulator.low.shape == simulator.high.shape == (len(simulator.action_names),)
    assert simulator.low.dtype == simulator.high.dtype == np.float32
    assert (simulator.low < simulator.high).all()
    assert (simulator.success, simulator.score) == (False, 0)
    after, reward, done = simulator.step((simulator.low + simulator.high) / 2)
    assert set(after) == {"state"}
    assert (type(reward), done) == (float, False)


@every
def test_an_episode_depends_on_its_seed_alone(simulators, name):
    simulator = simulators[name]
    middle = (simulator.low + simulator.high) / 2

    def episode(seed):
        return np.stack([simulator.reset(seed)["state"], *(simulator.step(middle)[0]["state"] for _ in range(5))])

    first, other, again = episode(7), episode(8), episode(7)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.isfinite(episode(2**63)).all()


@every
def test_actions_are_clipped(simulators, name):
    simulator = simulators[name]
    for end, beyond in ((simulator.high, 1e9), (simulator.low, -1e9)):
        found = []
        for action in (end, end.astype(np.float64) + beyond):
            simulator.reset(0)
            found.append(simulator.step(action)[0]["state"])
        np.testing.assert_array_equal(*found)


@every
@pytest.mark.parametrize("wrong", [lambda a: a[:-1], lambda a: a * np.nan, lambda a: a[None], lambda a: a + np.inf])
def test_what_is_no_action(simulators, name, wrong):
    simulator = simulators[name]
    simulator.reset(0)
    with pytest.raises((InputError, TypeError), match=r"finite numbers|Type-check"):
        simulator.step(wrong(simulator.high.astype(np.float64)))


@every
def test_an_episode_ends(simulators, name, monkeypatch):
    simulator = simulators[name]
    monkeypatch.setattr(simulator, "max_steps", 2)
    simulator.reset(0)
    assert [simulator.step(simulator.low)[2] for _ in range(2)] == [False, True]
    assert not simulator.success


@every
def test_rows_cross_to_other_processes(name):
    assert pickle.loads(pickle.dumps(SIMULATORS[name]))


def test_unknown_name():
    with pytest.raises(InputError, match=r"simulator must be one of pusht, .*did you mean 'pusht'"):
        make("pushT")


@pytest.mark.parametrize(("name", "package"), [("pusht", "gym_pusht"), ("aloha-transfer", "gym_aloha")])
def test_without_the_extra(name, package, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}, which is not installed: pip install 'ebbtide\[robots\]'"):
        make(name)


def test_every_simulator_says_what_is_to_be_done():
    """Without being made: its class has name and task."""
    assert [row.name for row in SIMULATORS.values()] == list(SIMULATORS)
    assert SIMULATORS["aloha-insertion"].task == "Insert the peg into the socket."
    assert all(row.task.endswith(".") for row in SIMULATORS.values())


class World:
    """A user's own simulator, whole."""

    name, task, fps, max_steps = "world", "stay", 10.0, 3
    success, score = False, 0.0
    state_names, action_names, low, high = ["x"], ("dx",), [-1.0], np.ones(1, np.float32)

    def __init__(self, pixels=False):
        self.pixels = pixels

    def reset(self, seed): ...

    def step(self, action): ...

    def render(self): ...

    def close(self): ...


def raising(error):
    def make_world(pixels=False):
        raise error

    return make_world


def lacking(**parts):
    return lambda pixels=False: type("Lacking", (World,), parts)()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raising(RuntimeError("no\nworld")), "must make a simulator, .* got RuntimeError: no world"),
        (raising(SystemExit("no display")), "must make a simulator, .* got SystemExit: no display"),
        (lambda: World(), "must make a simulator, from pixels=True or False; got TypeError"),
        (lambda pixels=False: None, "reset must be a function; got None"),
        (lacking(close=None), "close must be a function; got None"),
        (lacking(task=3), "task must be a text; got 3"),
        (lacking(fps=None), "fps must be a number, .* got None"),
        (lacking(fps=-1), "fps must be at least 0"),
        (lacking(max_steps=None), "max_steps must be a whole number"),
        (lacking(state_names="abc"), "state_names must be a tuple or a list; got 'abc'"),
        (lacking(action_names=(0,)), "each of action_names must be a text; got 0"),
        (lacking(low=None), r"low must be a tensor or array of shape \(1,\)"),
        (lacking(high=np.ones(2)), r"high must be a tensor or array of shape \(1,\)"),
    ],
)
def test_what_is_no_simulator_is_one_sentence(monkeypatch, function, words):
    monkeypatch.setattr(sys.modules[__name__], "made", function, raising=False)
    with pytest.raises(InputError, match=f"^simulator '?{__name__}:made'?:? {words}") as refused:
        make(Own(f"{__name__}:made"))
    assert "\n" not in str(refused.value)


def test_a_whole_simulator_of_the_users_is_made():
    assert make(Own(f"{__name__}:World"), pixels=True).pixels is True
