"""Which action comes from which chunk, and what is refused; worked out by hand."""

import math
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ebbtide.core.paths import Linear
from ebbtide.errors import DivergedError, InputError
from ebbtide.exact.oracle import gaussian, mixture
from ebbtide.inverse.chunking import soft_mask
from ebbtide.robots.chunks import DenoiserChunks
from ebbtide.robots.policy import Policy
from robots.fakes import Counting, Towards, state

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
