"""What the network is shown of observations, through a policy, and which observations are refused."""

import math
from types import MappingProxyType

import numpy as np
import pytest
import torch

from ebbtide.data.episodes import Windows
from ebbtide.errors import InputError
from ebbtide.robots.policy import Policy
from robots.fakes import Counting, Towards, state


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


@pytest.mark.parametrize("dtype", ["float64", "uint16", "int64"])
def test_images_must_be_bytes(dtype):
    """Depths of 16 bits too: as bytes, 300 mm would be 44."""
    said = rf"images must be uint8 of shape \(2, 2, 3, 3\); got {dtype} of \(2, 2, 3, 3\)"
    with pytest.raises(InputError, match=said):
        Policy(Sees()).select_action({"images": np.zeros((2, 2, 3, 3), dtype), "prompt": "a"})
