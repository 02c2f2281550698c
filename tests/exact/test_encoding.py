"""Noise of data and data of noise: round trips, paired with the exact flow, and points between two samples."""

import math

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.exact.encoding import decode, encode, interpolate, slerp, upwards
from ebbtide.exact.oracle import gaussian, mixture
from ebbtide.samplers import trajectory
from problems import PATHS, Told, float64, last, noise_like, oracle

paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
MEANS, STD = float64(1, 0.5, -1, 0.3, 0, -1.2).reshape(3, 2), 0.3


def points(n=40):
    return MEANS[torch.arange(n) % 3] + STD * noise_like(n, 2)


@paths
def test_a_round_trip(path):
    truth, x = mixture(path, MEANS, STD), points()
    noise = encode(truth, x)
    assert float((noise - x).abs().mean()) > 0.3
    torch.testing.assert_close(decode(truth, noise), x, rtol=0, atol=1e-3)


@paths
def test_encode_and_decode_follow_the_exact_flow(path):
    truth, x = oracle(path, dim=2), 0.7 + noise_like(20, 2)
    noise = truth.flow(x, 0.0, 1.0)
    scale = path.along([1.0])[0].sigma
    torch.testing.assert_close(encode(truth, x), noise, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(decode(truth, noise), x, rtol=0, atol=1e-4)


@paths
def test_encode_is_of_order_4(path):
    truth, x = oracle(path, dim=2), 0.7 + noise_like(20, 2)
    exact = truth.flow(x, 0.0, 1.0)
    errors = [float((encode(truth, x, steps=n) - exact).abs().max()) for n in (20, 40)]
    assert math.log2(errors[0] / errors[1]) > 3.5


def test_the_network_is_told_the_label_at_every_evaluation():
    told, label = Told(oracle(Linear(), dim=2)), torch.tensor([2, 0, 1])
    encode(told, noise_like(3, 2), steps=3, label=label)
    decode(told, noise_like(3, 2), steps=3, label=label)
    interpolate(told, noise_like(3, 2), noise_like(3, 2, seed=1), n=3, steps=3, label=label)
    assert told.always(label)


def test_encoded_points_are_where_a_sampler_starts():
    truth, x = mixture(Linear(), MEANS, STD), points()
    walk = trajectory(truth, (2,), draws=Draws.first(40, 0), start=encode(truth, x), sampler="dopri5", steps=2)
    torch.testing.assert_close(last(walk)[1], x, rtol=0, atol=1e-3)


def test_no_stage_is_at_zero_and_a_sample_stands_alone():
    seen = []

    class Says(nn.Module):
        def forward(self, x, t):
            seen.append(float(t.min()))
            return -x

    denoiser, x = Denoiser(Says(), PATHS["ddpm"]), noise_like(4, 3, 2)
    noise = encode(denoiser, x, steps=5)
    decode(denoiser, noise, steps=5)
    assert min(seen) > 0
    torch.testing.assert_close(encode(denoiser, x[2:], steps=5), noise[2:], rtol=1e-12, atol=1e-12)


@paths
def test_the_grid_rises_from_0_to_1(path):
    for steps in (2, 7, 1000):
        times = upwards(path, steps)
        assert (len(times), float(times[0]), float(times[-1])) == (steps + 1, 0, 1)
        assert (times.diff() > 0).all()


def test_interpolation_includes_both_ends_and_stays_in_the_prior():
    """Of 64 independent standard numbers the arc's middle is as long as its ends, and decodes to a typical sample."""
    truth = gaussian(Linear(), torch.zeros(4, 4, 4, dtype=torch.float64), 0.5)
    a, b = 0.5 * noise_like(3, 4, 4, 4), 0.5 * noise_like(3, 4, 4, 4, seed=1)
    found = interpolate(truth, a, b, n=5, steps=30)
    assert found.shape == (3, 5, 4, 4, 4)
    torch.testing.assert_close(found[:, 0], a, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[:, -1], b, rtol=0, atol=1e-3)
    # The flow of an isotropic Gaussian is a factor, so the points between are the data's own slerp.
    torch.testing.assert_close(found[:, 1], slerp(a, b, 0.25), rtol=0, atol=1e-3)


def test_slerp_by_hand():
    """A third of the way from (1, 0) to (0, 2): θ = 90°, (sin 60°, 2 sin 30°)."""
    found = slerp(float64(1, 0)[None], float64(0, 2)[None], 1 / 3)
    torch.testing.assert_close(found, float64(math.sqrt(3) / 2, 1)[None], rtol=1e-12, atol=1e-12)


def test_slerp_of_parallel_points_is_the_chord():
    for x, y in ((1, 3), (2, -1), (-1, -2)):
        assert float(slerp(float64(x)[None], float64(y)[None], 0.25)) == pytest.approx(0.75 * x + 0.25 * y)


@pytest.mark.unchecked
def test_bad_input():
    truth, x = mixture(Linear(), MEANS, STD), points()
    between = Denoiser(nn.Linear(2, 2), Linear(), gaussian_end=False)
    for act in (encode, decode):
        with pytest.raises(InputError, match="steps must be at least 2; got 1"):
            act(truth, x, steps=1)
        with pytest.raises(InputError, match=f"{act.__name__} needs independent Gaussian noise"):
            act(between, x)
        with pytest.raises(InputError, match="steps must be a whole number"):
            act(truth, x, steps=4.0)
        with pytest.raises(InputError, match=r"^x1? must be a tensor; got a list"):
            act(truth, x.tolist())
        with pytest.raises(InputError, match="needs a denoiser; got Linear"):
            act(Linear(), x)
    with pytest.raises(InputError, match="at least 2; got 1"):
        interpolate(truth, x, x, n=1)
    with pytest.raises(InputError, match="one shape"):
        interpolate(truth, x, x[1:])
