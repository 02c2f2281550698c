"""Features of time, and label vectors."""

import math

import pytest
import torch

from ebbtide.networks.clock import Fourier, LabelEmbedding, Timestep, label_embedding, perceptron


def test_fourier_by_hand():
    """Two frequencies, 1 and 4, at t = 1/8: sin π/4, sin π, cos π/4, cos π."""
    features = Fourier(4, f_min=1.0, f_max=4.0)(torch.tensor([0.125]))
    expected = torch.tensor([[math.sqrt(0.5), 0, math.sqrt(0.5), -1]])
    torch.testing.assert_close(features, expected, rtol=1e-6, atol=1e-6)


def test_frequencies_are_even_in_log_between_the_two_given():
    frequencies = Fourier(10, f_min=0.5, f_max=8.0).frequencies / (2 * math.pi)
    torch.testing.assert_close(frequencies, torch.tensor([0.5, 1, 2, 4, 8]))


def test_fourier_tells_all_times_apart_also_the_ends():
    """No two of 400 times share features, and neighbours aren't further than they should be: |Δφ| ≤ 2π f_max Δt √n."""
    t = torch.linspace(0, 1, 400)
    features = Fourier(32)(t)
    distance = torch.cdist(features, features) + torch.eye(400)
    assert float(distance.min()) > 0.01
    assert float((features[0] - features[-1]).norm()) > 0.5


def test_fourier_has_no_parameters_and_nothing_to_store():
    embedding = Fourier(8)
    assert list(embedding.parameters()) == []
    assert embedding.state_dict() == {}


@pytest.mark.parametrize(
    ("options", "slow", "timestep"),
    [
        ({}, 0.01, 100.0),  # ω = 1 and 10 000^(-1/2); t = 0.101 is the 101st of 1000
        ({"freq_shift": 1}, 1e-4, 100.0),
        ({"first": 0}, 0.01, 101.0),
        ({"timesteps": 1, "first": 0}, 0.01, 0.101),
    ],
)
def test_timesteps_by_hand(options, slow, timestep):
    features = Timestep(4, **options)(torch.tensor([0.101]))
    angles = (timestep, slow * timestep)
    expected = torch.tensor([[*map(math.sin, angles), *map(math.cos, angles)]])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_the_entries_of_a_table_are_whole_timesteps():
    """t = i/1000 in float32 is timestep i - 1 to the last bit but one, so published networks know it."""
    t = torch.tensor([i / 1000 for i in range(1, 1001)])
    angle = torch.arange(1000.0)
    torch.testing.assert_close(Timestep(2)(t), torch.stack([angle.sin(), angle.cos()], 1), rtol=0, atol=4e-5)


def test_timesteps_have_no_parameters_and_nothing_to_store():
    assert list(Timestep(8).parameters()) == []
    assert Timestep(8).state_dict() == {}


def test_labels_have_a_null():
    embedding = LabelEmbedding(3, 5)
    assert embedding.null == 3
    assert embedding.weight.shape == (4, 5)
    found = embedding(torch.tensor([0, 3, 0]))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    with pytest.raises(IndexError):
        embedding(torch.tensor([4]))


def test_no_label_is_the_null_label():
    embedding = LabelEmbedding(3, 5)
    assert torch.equal(embedding(None), embedding(torch.tensor([3])))
    assert label_embedding(0, 5) is None
    assert label_embedding(2, 5).weight.shape == (3, 5)


def test_a_perceptron_of_the_time_by_hand():
    """φ = (sin τ, cos τ), τ = 2 t; W₁ and W₂ are 1, so both outputs are silu(sin τ + cos τ) twice."""
    mlp = perceptron(Timestep(2, timesteps=2, first=0), 2)
    for layer in (mlp[1], mlp[3]):
        torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
    z = math.sin(0.6) + math.cos(0.6)
    torch.testing.assert_close(mlp(torch.tensor([0.3])), torch.full((1, 2), 2 * z / (1 + math.exp(-z))))


def test_wrong_types_are_caught():
    for bad in (torch.rand(2, 1), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(Exception, match=r"(?i)type-check"):
            Fourier(4)(bad)
    with pytest.raises(Exception, match=r"(?i)type-check"):
        LabelEmbedding(3, 5)(torch.rand(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_coarse_network_is_told_the_time_to_its_own_rounding(dtype):
    """Its weights are rounded, not the time: in bfloat16 timesteps 996 to 1000 would all be one."""
    t = torch.tensor([0.999, 0.9985, 0.5, 0.123, 0.001])
    for clock in (Fourier(16), Timestep(32)):
        told = clock(t)
        coarse = clock.to(dtype)
        assert coarse(t).dtype == dtype
        torch.testing.assert_close(coarse(t), told.to(dtype), rtol=0, atol=1e-6)
        torch.testing.assert_close(clock.to(torch.float32)(t), told, rtol=0, atol=0)  # nothing is lost on the way
