"""Which action comes from which chunk, what the network is shown, and what is refused; worked out by hand."""

import math
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from ebbtide.core.paths import Linear
from ebbtide.data.episodes import Windows
from ebbtide.errors import DivergedError, InputError
from ebbtide.exact.oracle import gaussian, mixture
from ebbtide.inverse.chunking import soft_mask
from ebbtide.robots.chunks import DenoiserChunks
from ebbtide.robots.policy import Policy
from robots.fakes import Counting, Towards

SEEN = {"state": np.zeros(1, np.float32)}


def executed(policy, steps):
    policy.reset()
    return [float(policy.select_action(SEEN)[0]) for _ in range(steps)]


# which action comes from which chunk


def test_receding_horizon_executes_the_first_of_every_chunk():
    assert executed(Policy(Counting()), 5) == [0, 1, 100, 101, 200]
    assert executed(Policy(Counting(), n_action_steps=4), 6) == [0, 1, 2, 3, 100, 101]
    assert executed(Policy(Counting(), n_action_steps=1), 3) == [0, 100, 200]


def test_a_delayed_chunk_takes_over_d_steps_after_it_was_asked_for():
    """H = 4, s = 2, d = 1: chunk 1 is asked for at step 2, for steps 2 to 5, and executed from step 3 on, index 1."""
    assert executed(Policy(Counting(), delay=1), 8) == [0, 1, 2, 101, 102, 201, 202, 301]
    assert executed(Policy(Counting(), delay=2), 8) == [0, 1, 2, 3, 102, 103, 202, 203]


def test_the_next_chunk_is_computed_while_this_one_is_executed():
    """A network that waits until two more actions were taken."""
    go, source = threading.Event(), Counting(horizon=8, n_action_steps=4)
    inner = source.sample_chunks

    def slow(observation, **options):
        if source.rows:
            assert go.wait(10)
            assert threading.current_thread() is not threading.main_thread()
        return inner(observation, **options)

    source.sample_chunks = slow
    policy = Policy(source, delay=3)
    assert executed(policy, 6) == [0, 1, 2, 3, 4, 5]
    go.set()
    assert [float(policy.select_action(SEEN)[0]) for _ in range(2)] == [6, 103]
    assert len(policy.chunk_ms()) == 2


def test_a_chunk_that_comes_late_is_waited_for_and_counted():
    source, late = Counting(), threading.Event()
    inner = source.sample_chunks
    source.sample_chunks = lambda observation, **o: (late.wait(0.2) if source.rows else None, inner(observation, **o))[
        1
    ]
    policy = Policy(source, delay=1)
    assert executed(policy, 4) == [0, 1, 2, 101]
    assert policy.late == 1


def test_an_error_in_the_thread_is_raised():
    source = Counting()
    inner = source.sample_chunks
    source.sample_chunks = lambda observation, **o: inner(observation, **o) if not source.rows else 1 / 0
    with pytest.raises(ZeroDivisionError):
        executed(Policy(source, delay=1), 4)


def test_temporal_ensembling_by_hand():
    """Step 2 is spoken of by chunk 0 (2), chunk 1 (101) and chunk 2 (200), the oldest weighing most."""
    m = math.log(2)  # weights 1, 1/2, 1/4
    policy = Policy(Counting(horizon=3), n_action_steps=1, ensemble=m)
    found = executed(policy, 4)
    expected = [
        0,
        (1 + 100 / 2) / 1.5,
        (2 + 101 / 2 + 200 / 4) / 1.75,
        (102 + 201 / 2 + 300 / 4) / 1.75,  # chunk 0 ended at step 2
    ]
    assert found == pytest.approx(expected)


def test_real_time_chunking_is_given_what_is_left():
    """H = 5, s = 2, d = 1: indices 2, 3, 4 of the old chunk are what the new one's 0, 1, 2 should be."""
    source = Counting(horizon=5)
    executed(Policy(source, delay=1, real_time=True), 6)
    first, second, third = source.previous[:3]
    assert first is None
    assert second.actions.flatten()[:3].tolist() == [2, 3, 4]
    assert third.actions.flatten()[:3].tolist() == [102, 103, 104]
    torch.testing.assert_close(second.weights[0], soft_mask(5, 1, 2))
    assert float(third.weights[0, 2]) > 0 == float(third.weights[0, 3])


def test_a_slot_at_its_first_chunk_is_not_held_to_anothers():
    source = Counting(horizon=5)
    policy = Policy(source, real_time=True)
    policy.reset((0, 1))
    for slots in ([0], [0], [0, 1]):
        for slot in slots:
            policy.observe(SEEN, slot)
        policy.actions(slots)
    assert source.previous[-1].weights.sum(1).tolist() == pytest.approx([float(soft_mask(5, 0, 2).sum()), 0])


def test_the_chunk_at_hand():
    policy = Policy(Counting())
    assert executed(policy, 3) == [0, 1, 100]
    start, chunk = policy.chunk()
    assert (start, chunk.flatten().tolist()) == (2, [100, 101, 102, 103])


# what the network is shown


def state(x):
    return {"state": np.array([x, 0, 1, 1], np.float32)}


def test_history_begins_with_the_first_observation_repeated():
    source = Towards()
    policy = Policy(source, n_action_steps=1)
    policy.reset()
    for x in (0.1, 0.2, 0.3):
        policy.select_action(state(x))
    seen = [asked[0]["state"][0, :, 0].tolist() for asked in source.asked]
    assert seen == [pytest.approx([0.1, 0.1]), pytest.approx([0.1, 0.2]), pytest.approx([0.2, 0.3])]
    policy.reset()
    policy.select_action(state(0.9))
    assert source.asked[-1][0]["state"][0, :, 0].tolist() == pytest.approx([0.9, 0.9])


def test_a_long_history_is_filled_with_its_oldest_step_and_read_oldest_first():
    """Four of the network's steps: what is missing are copies of the first, before it; as a recording's windows are."""
    source, seen = Towards(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    source.n_obs_steps, source.observation = 4, {"state": (4, 4)}
    policy = Policy(source, n_action_steps=1)
    policy.reset()
    for x in seen:
        policy.predict_action_chunk(state(x))
        policy.select_action(state(x))
    told = [asked[0]["state"][0, :, 0].tolist() for asked in source.asked]
    filled = [[0.1] * 3 + seen[:1], [0.1] * 2 + seen[:2], [0.1, *seen[:3]], seen[:4], seen[1:5], seen[2:]]
    assert told[1::2] == told[::2] == [pytest.approx(history) for history in filled]
    recorded = Windows(torch.zeros(6, 1), torch.tensor([6]), 1, 4, torch.tensor(seen)[:, None])
    assert recorded.seen(torch.arange(6))["state"][..., 0].tolist() == told[::2]


def test_a_simulator_may_write_into_its_observation():
    source = Towards()
    policy, seen = Policy(source, n_action_steps=1), state(0.1)
    policy.reset()
    policy.select_action(seen)
    seen["state"][0] = 0.2
    policy.select_action(seen)
    assert source.asked[-1][0]["state"][0, :, 0].tolist() == pytest.approx([0.1, 0.2])


class Sees(Counting):
    """Two steps of two cameras and a prompt."""

    n_obs_steps = 2
    observation = MappingProxyType({"images": (4, 2, 3, 3), "prompt": (5,)})

    def sample_chunks(self, observation, **options):
        self.seen = observation
        return super().sample_chunks(observation, **options)


def test_images_and_prompts():
    source = Sees()
    policy = Policy(source, n_action_steps=1)
    policy.reset()
    for step in range(2):
        images = np.full((2, 2, 3, 3), 10 * step, np.uint8)
        images[1] += 1
        policy.select_action({"images": images, "prompt": "aé"})
    assert source.seen["images"][0, :, 0, 0, 0].tolist() == [0, 1, 10, 11]  # oldest first, cameras in their order
    assert source.seen["images"].dtype == torch.uint8
    assert source.seen["prompt"].tolist() == [[98, 0xC3 + 1, 0xA9 + 1, 0, 0]]
    assert "image_mask" not in source.seen
    policy.select_action({"images": images, "prompt": "aé", "image_mask": np.array([True, False])})
    assert source.seen["image_mask"].tolist() == [[True, True, True, False]]


# randomness


def test_noise_belongs_to_seed_episode_and_chunk():
    def first_two(episodes, slot, seed=0, rows=None):
        policy = Policy(Towards(noise=1.0), seed=seed, rows=rows)
        policy.reset(episodes)
        taken = []
        for _ in range(3):
            for i in range(len(episodes)):
                policy.observe(state(i == slot), i)
            taken.append(policy.actions(range(len(episodes)))[slot])
        return np.stack(taken)

    alone = first_two([7], 0)
    for other in (first_two([3, 7], 1), first_two([3, 7, 9], 1, rows=2), first_two([7], 0, rows=4)):
        np.testing.assert_array_equal(alone, other)
    assert np.abs(alone - first_two([8], 0)).max() > 0.1
    assert np.abs(alone - first_two([7], 0, seed=1)).max() > 0.1
    assert np.abs(alone[0] - alone[2]).max() > 0.1  # the second chunk's noise is another


WAYS = mixture(Linear(), torch.tensor([[[-1.0], [-1.0]], [[1.0], [1.0]]]), 0.05)


def ways(policy, episodes, steps=1):
    """-1 or 1 for each episode: which of two ways it goes at first."""
    gone = []
    for episode in episodes:
        policy.reset(episode)
        gone += [[float(policy.select_action(SEEN)[0]) for _ in range(steps)]]
    gone = np.array(gone)
    assert np.abs(np.abs(gone) - 1).max() < 0.4  # one way or the other, never between
    return np.sign(gone[:, 0]).tolist(), gone


def test_every_episode_has_noise_of_its_own_and_can_be_repeated():
    """Half of all episodes go either way: that forty go the same has a probability of 2e-12."""
    source = DenoiserChunks(WAYS, (2, 1), {"state": (1, 1)}, n_action_steps=1, steps=10)
    policy = Policy(source)
    gone, actions = ways(policy, [None] * 40, steps=3)
    assert set(gone) == {-1, 1}
    assert policy.episodes == (39,)
    np.testing.assert_array_equal(ways(Policy(source), [None] * 40, steps=3)[1], actions)  # the same seed
    np.testing.assert_array_equal(ways(policy, [[k] for k in range(40)], steps=3)[1], actions)  # the same episodes
    assert ways(Policy(source, seed=1), [None] * 40)[0] != gone
    assert policy.episodes == (39,)
    policy.reset()
    assert policy.episodes == (40,)  # what was repeated doesn't count twice


def test_the_next_episode_is_one_that_was_not_begun_before():
    policy = Policy(Counting())
    policy.select_action(SEEN)  # without a reset the first begins
    assert policy.episodes == (0,)
    for asked, numbers in ((None, (1,)), ([7, np.int64(3)], (7, 3)), (None, (8,)), ([2], (2,)), (None, (9,)), ([], ())):
        policy.reset(asked)
        assert policy.episodes == numbers
    assert policy.actions([]).shape == (0, 1)


def test_predict_action_chunk_is_what_select_action_would_do_and_changes_nothing():
    policy = Policy(Towards(noise=1.0))
    policy.reset((5,))
    for x in (0.0, 0.1, 0.2, 0.3):
        chunks = policy.predict_action_chunk(state(x), n=3)
        assert chunks.shape == (3, 4, 2)
        action = policy.select_action(state(x))
        if x in (0.0, 0.2):
            np.testing.assert_array_equal(chunks[0, 0], action)
    assert np.abs(chunks[0] - chunks[1]).max() > 0.1 < np.abs(chunks[1] - chunks[2]).max()


def test_chunks_of_several_slots_are_each_ones_own():
    """Before a reset, of the episodes that begin next; then after each slot's own past."""
    policy, alone = Policy(Towards(noise=1.0)), Policy(Towards(noise=1.0))
    early = policy.predict_action_chunks([state(0.1), state(0.2)])
    assert policy.episodes == ()
    policy.reset([0, 1])
    for slot, x in enumerate((0.1, 0.2)):
        alone.reset([slot])
        np.testing.assert_array_equal(early[slot], alone.predict_action_chunk(state(x))[0])
        policy.observe(state(x), slot)
    policy.actions([0, 1])
    found = policy.predict_action_chunks([state(0.5), state(0.6)])
    for slot, (x, y) in enumerate(((0.1, 0.5), (0.2, 0.6))):
        alone.reset([slot])
        alone.select_action(state(x))
        np.testing.assert_array_equal(found[slot], alone.predict_action_chunk(state(y))[0])
    with pytest.raises(InputError, match="each of 2 slots; got 1"):
        policy.predict_action_chunks([state(0.5)])


def test_rows_of_every_call():
    source = Counting()
    policy = Policy(source, rows=2)
    policy.reset(range(5))
    for slot in range(5):
        policy.observe(SEEN, slot)
    assert policy.actions(range(5)).shape == (5, 1)
    assert source.rows == [2, 2, 2]


# refusals


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({"state": np.array([0, math.nan, 1, 1])}, r"state must be finite; got nan at index 1"),
        ({"state": np.array([0, 1, 1, math.inf])}, r"state must be finite; got inf at index 3"),
        ({"state": np.zeros(3)}, r"state must be float32 of shape \(4,\); got float64 of \(3,\)"),
        ({"state": np.zeros((2, 4))}, r"state must be float32 of shape \(4,\)"),
        ({"state": np.array(["a"] * 4)}, r"state must be float32"),
        ({"images": 1}, r"needs state in an observation; got images"),
        ({}, r"needs state in an observation; got nothing"),
        ({1: 2}, r"needs state in an observation; got 1"),
        (np.zeros(4, np.float32), r"An observation must be a dict of state; got ndarray"),
        ([0.0] * 4, r"must be a dict of state; got list"),
        (None, r"must be a dict of state; got NoneType"),
        ("left", r"must be a dict of state; got str"),
        ({"state": "left"}, r"state must be float32 of shape \(4,\); got <U4 of \(\)"),
        ({"state": None}, r"state must be float32"),
        ({"state": [[1.0], [1.0, 2.0], 3, 4]}, r"state must be float32 of shape \(4,\); got object of \(\)"),
        ({"state": {"x": 1}}, r"state must be float32"),
        ({"state": [10**400] * 4}, r"state must be float32 of shape \(4,\); got object of \(4,\)"),
        ({"state": [1e300] * 4}, r"state must be finite; got inf at index 0"),
        ({"state": np.zeros(4, complex)}, r"state must be float32"),
        ({"state": torch.zeros(4, dtype=torch.bfloat16)}, r"state must be float32"),
        ({"state": torch.zeros(4).to_sparse()}, r"state must be float32"),
    ],
)
def test_bad_observations(seen, says):
    policy = Policy(Towards())
    for use in (policy.select_action, policy.observe, policy.predict_action_chunk):
        with pytest.raises(InputError, match=says):
            use(seen)
    assert policy.select_action(state(0)).shape == (2,)  # nothing of it was remembered


def test_tensors_and_lists_are_observations_too():
    policy = Policy(Towards(noise=0.0))
    expected = policy.predict_action_chunk(state(0.5))
    for seen in (torch.tensor([0.5, 0, 1, 1]), torch.tensor([0.5, 0, 1, 1], requires_grad=True), [0.5, 0, 1, 1]):
        np.testing.assert_array_equal(policy.predict_action_chunk({"state": seen}), expected)


@pytest.mark.parametrize("prompt", [b"push", None, 3, ["push"], "push it\ud800", "a prompt that is too long"])
def test_a_prompt_must_be_a_text(prompt):
    seen = {"images": np.zeros((2, 2, 3, 3), np.uint8), "prompt": prompt}
    with pytest.raises(InputError, match=r"prompt must be a text, or int64 of shape \(5,\)|prompt may have|UTF-8"):
        Policy(Sees()).select_action(seen)


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize("use", [
    lambda policy: policy.reset(3), lambda policy: policy.reset("ab"), lambda policy: policy.reset([1.5]),
    lambda policy: policy.reset([None]), lambda policy: policy.actions(0), lambda policy: policy.actions([1]),
    lambda policy: policy.actions(["a"]), lambda policy: policy.observe(SEEN, 1),
    lambda policy: policy.observe(SEEN, -1), lambda policy: policy.observe(SEEN, "a"),
    lambda policy: policy.chunk(5), lambda policy: policy.chunk_ms(None),
    lambda policy: policy.predict_action_chunk(SEEN, 0), lambda policy: policy.predict_action_chunk(SEEN, 1.5),
    lambda policy: policy.predict_action_chunk(SEEN, "2"),
])  # fmt: skip
def test_numbers_of_episodes_and_slots_are_whole(use):
    policy = Policy(Counting())
    policy.reset()
    with pytest.raises(InputError, match=r"whole number|at least 1; got 0|slot must be one of the 1 that reset began"):
        use(policy)
    assert (policy.episodes, policy.select_action(SEEN).tolist()) == ((0,), [0])


@pytest.mark.parametrize("dtype", ["float64", "uint16", "int64"])
def test_images_must_be_bytes(dtype):
    """Depths of 16 bits too: as bytes, 300 mm would be 44."""
    said = rf"images must be uint8 of shape \(2, 2, 3, 3\); got {dtype} of \(2, 2, 3, 3\)"
    with pytest.raises(InputError, match=said):
        Policy(Sees()).select_action({"images": np.zeros((2, 2, 3, 3), dtype), "prompt": "a"})


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_action_steps": 0}, r"n_action_steps must be at least 1; got 0"),
        ({"n_action_steps": 5}, r"n_action_steps \+ delay must be at least 1 and at most 4; got 5"),
        ({"n_action_steps": 3, "delay": 2}, r"n_action_steps \+ delay must be .*at most 4; got 5"),
        ({"delay": -1}, r"delay must be at least 0 and at most 2; got -1"),
        ({"n_action_steps": 1, "delay": 2}, r"delay must be at least 0 and at most 1; got 2"),
        ({"rows": 0}, r"rows must be at least 1; got 0"),
        ({"ensemble": 0.01}, r"needs n_action_steps=1 and delay=0; got n_action_steps=2"),
        ({"ensemble": -1.0, "n_action_steps": 1}, r"ensemble must be at least 0 and finite; got -1.0"),
        ({"ensemble": 0.01, "n_action_steps": 1, "real_time": True}, r"choose one"),
        ({"ensemble": "off", "n_action_steps": 1}, r"ensemble must be a number, at least 0 and finite; got 'off'"),
        ({"n_action_steps": 1.5}, r"n_action_steps must be a whole number, at least 1; got 1.5"),
        ({"delay": "1"}, r"delay must be a whole number"),
        ({"rows": 2.0}, r"rows must be a whole number"),
        ({"ensemble": math.nan, "n_action_steps": 1}, r"ensemble must be"),
        ({"seed": "a"}, r"seed must be a whole number"),
    ],
)
def test_refused_options(options, says):
    with pytest.raises(InputError, match=says):
        Policy(Counting(), **options)


@pytest.mark.unchecked  # else the check of types refuses them first
def test_a_source_makes_chunks():
    with pytest.raises(InputError, match=r"source must be a ChunkSampler, such as DenoiserChunks; got Linear"):
        Policy(nn.Linear(1, 1))


def test_an_action_that_is_not_finite_never_reaches_the_robot():
    with pytest.raises(DivergedError, match=r"not finite: \[nan, nan\]"):
        Policy(Towards(bad=(1.0,))).select_action(state(0))


def test_a_sampler_of_other_chunks():
    source = Counting()
    policy = Policy(source)
    source.shape = (5, 1)
    with pytest.raises(InputError, match=r"has shape \(4, 1\).*made \(1, 5, 1\)"):
        policy.select_action(SEEN)


def test_acting_without_having_seen():
    policy = Policy(Counting())
    policy.reset()
    with pytest.raises(InputError, match=r"call observe"):
        policy.actions([0])


def test_a_policy_goes_to_another_process():
    policy = Policy(Towards(), delay=1, seed=3)
    for x in range(4):
        policy.select_action(state(x))
    other = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(
        other.predict_action_chunk(state(1)), Policy(Towards(), seed=3).predict_action_chunk(state(1))
    )


# the loop of a denoiser


def test_an_oracle_in_the_loop_continues_its_chunk():
    """Smooth chunks with real-time chunking: where they change over, actions jump less than without it."""
    covariance = 0.98 ** (torch.arange(8)[:, None] - torch.arange(8)).abs().double()
    source = DenoiserChunks(gaussian(Linear(), torch.zeros(8, 1), covariance), (8, 1), {"state": (1, 1)}, solve=2)

    def jumps(**options):
        actions = executed(Policy(source, n_action_steps=4, delay=2, **options), 80)
        return float(np.abs(np.diff(actions)).max())

    assert jumps(real_time=True) < 0.9 < 1.5 < jumps()


TEN_THOUSAND = """
import gc, tracemalloc
import numpy as np
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.robots.chunks import DenoiserChunks
from ebbtide.robots.policy import Policy
from robots.fakes import Small

chunks = DenoiserChunks(Denoiser(Small(), Linear()), (4, 2), {"state": (2, 4)}, n_obs_steps=2, steps=2)
policy = Policy(chunks, n_action_steps=1, delay=1, real_time=True)
policy.reset()

def after(n):
    for _ in range(n):
        policy.select_action({"state": np.zeros(4, np.float32)})
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

tracemalloc.start()
before = after(1000)
print(after(9000) - before)
"""


@pytest.mark.slow
def test_ten_thousand_chunks_take_no_more_memory_than_a_thousand():
    """What one episode of 10,000 chunks in a thread of their own leaves behind: under 0.1 kB each.

    In a process of its own: where jaxtyping checks every function, it compiles those that are made for each chunk.
    """
    here = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", TEN_THOUSAND], capture_output=True, text=True, check=True, cwd=here, timeout=1200
    )
    assert int(run.stdout) < 9000 * 100
