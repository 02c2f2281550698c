"""Episodes in a world where all is known: which succeed, what breaks, and that no episode minds the others."""

import io
from functools import partial

import numpy as np
import pytest
from tqdm import tqdm

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.errors import InputError
from ebbtide.robots.chunks import DenoiserChunks
from ebbtide.robots.policy import Policy
from ebbtide.robots.rollout import _Job, _Lane, _ticks, _work, latency, rollout
from ebbtide.signals import Interrupted
from forking import forking
from interrupting import at_every_line
from robots.fakes import Counting, Lacking, Point, Small, Towards

SEEDS = [3, 1, 4, 15, 9, 2, 6]
quiet = partial(rollout, progress=False)


def test_every_seed_reaches_its_goal_in_order():
    episodes = quiet(Point, Policy(Towards()), SEEDS)
    assert [episode.seed for episode in episodes] == SEEDS
    assert all(episode.success and not episode.error and episode.score > 0.95 for episode in episodes)
    assert len({episode.length for episode in episodes}) > 2
    assert all(len(episode.chunk_ms) == -(-episode.length // 2) for episode in episodes)


def test_the_number_of_steps_is_the_distance():
    """At most 0.2 a step and 0.9 of that every other: counted by hand for one seed."""
    simulator = Point()
    simulator.reset(3)
    far = float(np.abs(simulator.state[2:] - simulator.state[:2]).max())
    (episode,) = quiet(Point, Policy(Towards(noise=0.0)), [3])
    assert far / 0.2 - 1 <= episode.length <= far / 0.19 + 3


def test_time_runs_out():
    episodes = quiet(Point, Policy(Towards()), SEEDS, max_steps=2)
    assert [episode.length for episode in episodes] == [2] * len(SEEDS)
    assert not any(episode.success or episode.error for episode in episodes)
    assert max(episode.score for episode in episodes) > 0


@pytest.mark.parametrize(
    ("breaks", "says", "length"),
    [
        ("step", "RuntimeError: the world ended", 2),
        ("observation", "InputError: The observation's state must be finite; got nan at index 1.", 3),
        ("score", "ValueError: the score is nan, not in [0, 1]", 3),
    ],
)
def test_what_breaks_is_a_failure_and_the_others_go_on(breaks, says, length):
    good = {episode.seed: episode for episode in quiet(Point, Policy(Towards()), SEEDS)}
    episodes = quiet(partial(Point, breaks, (1, 9)), Policy(Towards()), SEEDS, lockstep=3)
    for episode in episodes:
        if episode.seed in (1, 9):
            assert (episode.success, episode.score, episode.length, episode.error) == (False, 0.0, length, says)
        else:
            assert episode == good[episode.seed]


def test_a_broken_reset_is_a_failure_too():
    episodes = quiet(partial(Point, "observation", (1, 9), at=0), Policy(Towards()), SEEDS)
    assert [episode.seed for episode in episodes if episode.error] == [1, 9]
    assert [episode.length for episode in episodes if episode.error] == [0, 0]


class Exiting(Point):
    """A world that ends Python at the second step of seed 1."""

    def step(self, action):
        if self.seed == 1 and self.steps == 1:
            raise SystemExit("no display")
        return super().step(action)


class Growing(Point):
    """A world whose image, and an observation's part beside the state, grow with every step of seed 1."""

    def render(self):
        return np.zeros((2 + self.steps * (self.seed == 1), 3, 3), np.uint8)


class Silent(Point):
    """A world that doesn't say whether it succeeded."""

    def step(self, action):
        found = super().step(action)
        if self.seed == 1:
            del self.success
        return found


class Wavering(Point):
    """A world that adds to its observations on the way."""

    def _seen(self):
        return super()._seen() | ({"more": np.zeros(1)} if self.steps == 1 and self.seed == 1 else {})


@pytest.mark.parametrize(
    ("world", "says", "length"),
    [
        (Exiting, "SystemExit: no display", 1),
        (Growing, "ValueError: the image is of shape (3, 3, 3), and was of shape (2, 3, 3)", 1),
        (Silent, "AttributeError: 'Silent' object has no attribute 'success'", 1),
        (Wavering, "ValueError: the observation has state, more, and had state", 1),
    ],
)
def test_worlds_that_break_in_other_ways_fail_alone(world, says, length):
    good, other = quiet(Point, Policy(Towards()), [3, 1], record=[3, 1], frames=True)
    kept, broken = quiet(world, Policy(Towards()), [3, 1], lockstep=2, record=[3, 1], frames=True)
    assert (kept, kept.recording.frames.shape) == (good, good.recording.frames.shape)
    assert (broken.success, broken.score, broken.length, broken.error) == (False, 0.0, length, says)
    assert other.length > 2
    np.testing.assert_array_equal(broken.recording.frames, other.recording.frames[: len(broken.recording.frames)])


def test_an_action_that_is_not_finite_is_a_failure():
    simulator = Point()
    simulator.reset(4)
    episodes = quiet(Point, Policy(Towards(bad=(float(simulator.state[2]),))), SEEDS)
    assert [episode.seed for episode in episodes if episode.error] == [4]
    assert episodes[2].error == "ValueError: the policy's action is not finite: [nan, nan]"


def test_after_an_error_a_new_simulator_is_made_and_all_are_closed():
    made = []

    def make():
        made.append(Point("step", (1,)))
        return made[-1]

    quiet(make, Policy(Towards()), SEEDS, lockstep=2)
    assert len(made) == 3
    assert all(simulator.closed for simulator in made)


def test_ctrl_c_is_no_failure_of_an_episode():
    class Stopped(Point):
        def step(self, action):
            raise Interrupted

    with pytest.raises(Interrupted):
        quiet(Stopped, Policy(Towards()), SEEDS)


@pytest.mark.unchecked
def test_a_signal_at_any_line_ends_everything():
    """Most fall where a simulator's errors are caught, which are an episode's alone."""
    functions = {_Job.run, _Job._together, Point.step, Point.reset}
    functions |= {_Lane.begin, _Lane.see, _Lane.act, _Lane.failing}
    count = 0
    for answer in at_every_line(functions, lambda: quiet(Point, Policy(Towards()), [1], lockstep=1, max_steps=1)):
        assert isinstance(answer, Interrupted), count
        count += 1
    assert count > 40


def network_policy(**options):
    denoiser, seen = Denoiser(Small(), Linear()), {"state": (2, 4)}
    return Policy(DenoiserChunks(denoiser, (4, 2), seen, n_obs_steps=2, n_action_steps=2, steps=3), **options)


def outcome(episodes):
    return [(episode, episode.recording.actions.tobytes()) for episode in episodes]


def test_an_episode_is_the_same_to_the_bit_beside_any_others():
    run = partial(quiet, partial(Point, noise=0.1), network_policy(delay=1, real_time=True), max_steps=8)
    together = outcome(run(SEEDS, record=SEEDS))
    assert outcome(run(SEEDS, record=SEEDS, lockstep=3)) == together
    assert outcome(run(SEEDS[::-1], record=SEEDS, lockstep=1))[::-1] == together
    assert outcome(run(SEEDS[:2], record=SEEDS)) == together[:2]


def test_and_in_any_number_of_processes(monkeypatch):
    """One of the simulators breaks."""
    forking(monkeypatch)
    make, run = partial(Point, "step", (9,), noise=0.1), partial(quiet, policy=network_policy(), max_steps=6)
    alone = outcome(run(make, seeds=SEEDS, record=SEEDS))
    assert outcome(run(make, seeds=SEEDS, record=SEEDS, workers=2)) == alone
    assert [bool(episode.error) for episode, _ in alone] == [seed == 9 for seed in SEEDS]


def test_recordings():
    episodes = quiet(Point, Policy(Towards(noise=0.0)), SEEDS, record=[1], frames=True)
    assert [episode.seed for episode in episodes if episode.recording] == [1]
    episode = episodes[1]
    seen, n = episode.recording, episode.length
    assert (seen.observations["state"].shape, seen.actions.shape) == ((n, 4), (n, 2))
    assert seen.frames[:, 0, 0, 0].tolist() == list(range(n + 1))  # the fake's image is its step
    assert [start for start, _ in seen.chunks] == list(range(0, n, 2))
    for start, chunk in seen.chunks:
        np.testing.assert_array_equal(seen.actions[start : start + 2], chunk[: len(seen.actions[start : start + 2])])
    moved = np.diff(seen.observations["state"][:, :2], axis=0)
    np.testing.assert_allclose(moved, seen.actions[:-1].clip(-0.2, 0.2), atol=1e-6)


def test_without_frames_nothing_is_rendered():
    class Dark(Point):
        def render(self):
            raise AssertionError

    (episode,) = quiet(Dark, Policy(Towards()), [1], record=[1])
    assert not episode.error
    assert episode.recording.frames is None


def test_latency_is_of_one_chunk_alone():
    source = Counting()
    policy = Policy(source, rows=16)
    took = latency(policy, {"state": np.zeros(1)}, repeats=5)
    assert len(took) == 5
    assert set(source.rows) == {1}
    assert all(ms > 0 for ms in took)
    assert policy.rows == 16


def test_a_rollout_leaves_the_policy_as_it_was():
    policy = Policy(Towards())
    policy.reset((7,))
    policy.select_action({"state": np.zeros(4)})
    quiet(Point, policy, [1])
    assert policy.rows is None
    assert policy.chunk()[1] is not None


@pytest.mark.parametrize("name", ["workers", "lockstep", "rows", "max_steps"])
def test_numbers_below_one(name):
    with pytest.raises(InputError, match=rf"{name} must be at least 1; got -1"):
        quiet(Point, Policy(Towards()), SEEDS, **{name: -1})


def test_a_policy_for_another_robot_is_no_failure_of_every_episode():
    with pytest.raises(InputError, match=r"actions are 1 numbers, the simulator's 2"):
        quiet(Point, Policy(Counting()), SEEDS)

    class Wider(Towards):
        def __init__(self):
            super().__init__()
            self.observation = {"state": (2, 5)}

    with pytest.raises(InputError, match=r"state must be float32 of shape \(5,\); got float32 of \(4,\)"):
        quiet(Point, Policy(Wider()), SEEDS)


@pytest.mark.parametrize(
    ("part", "environments"),
    [("low", 0), ("fps", 0), ("task", 0), ("action_names", 0), ("max_steps", 0), ("render", 0), ("render", 1)],
)
def test_a_simulator_without_a_part_is_refused(part, environments):
    made = partial(Lacking, part)
    with pytest.raises(InputError, match=rf"The simulator's {part} must "):
        quiet(made, Policy(Towards()), SEEDS, environments=environments)


def test_no_seeds():
    assert quiet(Point, Policy(Towards()), []) == []


def test_progress_of_other_processes_is_the_length_of_a_file():
    with tqdm(total=len(SEEDS), file=io.StringIO()) as bar, _ticks(bar) as path:
        _work(_Job(Point, Policy(Towards()), 2, None, frozenset(), False), SEEDS, path)
    assert bar.n == len(SEEDS)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"make_simulator": Point()}, "make_simulator must be a function; got "),
        ({"policy": Towards()}, "policy must be a Policy; got "),
        ({"seeds": 10}, "seeds must be a Sequence or an array; got 10"),
        ({"seeds": [1, -1]}, "a seed must be at least 0; got -1"),
        ({"seeds": [[1]]}, "a seed must be a whole number, at least 0; got [1]"),
        ({"record": 3}, "record must be a Collection; got 3"),
        ({"max_steps": 0}, "max_steps must be at least 1; got 0"),
        ({"frames": 1}, "frames must be True or False; got 1"),
    ],
)
def test_arguments_of_the_wrong_kind_are_one_sentence(changes, says):
    given = {"make_simulator": Point, "policy": Policy(Towards()), "seeds": [1]} | changes
    with pytest.raises(InputError) as refused:
        rollout(given.pop("make_simulator"), given.pop("policy"), given.pop("seeds"), **given)
    assert str(refused.value).startswith(says)
