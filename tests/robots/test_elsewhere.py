"""Simulators in processes of their own: the same episodes as here, to the bit, and what breaks in one stays there."""

import os
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch

from ebbtide.errors import EbbtideError, InputError
from ebbtide.kinds.robots.driving import Place
from ebbtide.robots.elsewhere import Elsewhere
from ebbtide.robots.gym import GymWorld
from ebbtide.robots.policy import Policy
from ebbtide.robots.rollout import rollout
from ebbtide.specs import Own
from forking import forking
from robots.fakes import Point, Towards

SEEDS = [3, 1, 4]
quiet = partial(rollout, progress=False)


class Dying(Point):
    """A world whose process ends at the second step of seed 1."""

    def step(self, action):
        if self.seed == 1 and self.steps == 1:
            os._exit(7)
        return super().step(action)


class UnpicklableError(Exception):
    """An error that can't be made again from what it holds."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


class Odd(Point):
    """A world that can't begin an episode."""

    def reset(self, seed):
        raise UnpicklableError("not", "made")


class Pushes(Towards):
    """Pendulum's torques: a little more than random."""

    shape, n_obs_steps = (4, 1), 1

    def __init__(self):
        super().__init__()
        self.observation = {"state": (1, 3)}

    def sample_chunks(self, observation, *, draws, previous=None):
        state = observation["state"]
        return draws(0, torch.empty(len(state), 4, 1)) + state[:, :, 2:]


@pytest.fixture
def forks(monkeypatch):
    forking(monkeypatch)


def outcome(episodes):
    return [
        {name: part for name, part in asdict(one).items() if name not in ("recording", "chunk_ms")} for one in episodes
    ]


def test_episodes_are_those_of_one_simulator_at_a_time(forks):
    """Whatever their number; films too."""
    alone = quiet(Point, Policy(Towards(noise=0.3)), SEEDS, lockstep=1, record=[4], frames=True)
    beside = quiet(Point, Policy(Towards(noise=0.3)), SEEDS, environments=2, record=[4], frames=True)
    assert outcome(beside) == outcome(alone)
    assert beside[2].recording is not None
    for name in ("actions", "frames"):
        np.testing.assert_array_equal(getattr(beside[2].recording, name), getattr(alone[2].recording, name))


def test_an_error_or_a_dead_process_ends_its_own_episode_alone(forks):
    good = quiet(Point, Policy(Towards()), SEEDS)
    broken = quiet(partial(Point, "step", (3,)), Policy(Towards()), SEEDS, environments=3)
    assert broken[0].error == "RuntimeError: the world ended"
    assert outcome(broken)[1:] == outcome(good)[1:]
    died = quiet(Dying, Policy(Towards()), SEEDS, environments=3)
    assert died[1].error == "EbbtideError: A simulator's process died, with exit code 7."
    assert outcome([died[0], died[2]]) == outcome([good[0], good[2]])


def test_it_behaves_as_the_simulator_itself(forks):
    far, here = Elsewhere(Point), Point()
    assert (far.name, far.max_steps, far.state_names) == (here.name, here.max_steps, here.state_names)
    assert not hasattr(far, "in_image")
    with pytest.raises(AttributeError, match="wings"):
        far.wings  # noqa: B018
    np.testing.assert_array_equal(far.reset(5)["state"], here.reset(5)["state"])
    for send in (False, True):
        action = np.array([0.1, -0.2])
        if send:
            far.send(action)
        found, expected = far.step(action), here.step(action)
        np.testing.assert_array_equal(found[0]["state"], expected[0]["state"])
        assert (found[1:], far.score, far.success) == (expected[1:], here.score, here.success)
    np.testing.assert_array_equal(far.render(), here.render())
    far.close()
    assert not far.process.is_alive()


def test_what_cannot_be_made_is_raised_here(forks):
    with pytest.raises(InputError, match="can't make 'Nowhere-v0'"):
        Elsewhere(partial(GymWorld, id="Nowhere-v0"))
    odd = Elsewhere(Odd)
    with pytest.raises(RuntimeError, match="UnpicklableError: not made"):
        odd.reset(0)
    odd.process.kill()
    odd.process.join()
    with pytest.raises(EbbtideError, match="died"):
        odd.reset(0)
    odd.close()
    with pytest.raises(InputError, match="workers must be 1"):
        quiet(Point, Policy(Towards()), SEEDS, environments=2, workers=2)


@pytest.mark.slow
def test_environments_of_gymnasium_by_their_names():
    """In processes begun anew, as a command's are. Pendulum, pushed at random: each seed's score is the one alone."""

    place = Place(Own("ebbtide.robots.gym:GymWorld:id=Pendulum-v1,least=-2000,most=0"))
    policy = Policy(Pushes())
    alone = quiet(place, policy, SEEDS, lockstep=1, max_steps=50)
    beside = quiet(place, policy, SEEDS, environments=3, max_steps=50)
    assert len({one.score for one in alone}) == 3
    assert outcome(beside) == outcome(alone)
