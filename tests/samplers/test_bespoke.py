"""Bespoke solvers: DDIM by default, any other solver by its weights, exact where x₀ is known whatever the weights."""

import pytest
import torch

from ebbtide.core.paths import Linear
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import smooth, starts, walked
from ebbtide.samplers import walk
from ebbtide.samplers.bespoke import format_weights, parse_weights
from problems import PATHS, float64
from samplers.test_samplers import Knows


@pytest.mark.parametrize("name", PATHS)
def test_without_weights_it_is_ddim(name):
    path = PATHS[name]
    denoiser, times = smooth(path), grid_times("flow_power", 7, path)
    x = starts(denoiser, 8)
    torch.testing.assert_close(
        walked("bespoke", denoiser, x, times), walked("ddim", denoiser, x, times), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", PATHS)
def test_where_x0_is_known_any_weights_are_exact(name):
    """At every point of the walk, x_i = α_i x₀ + σ_i ε with the start's own ε."""
    path, x0 = PATHS[name], float64(3, -2)
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, *grid = path.along([1.0, 0.6, 0.3, 0.0])
    start = first.alpha * x0 + first.sigma * noise
    ends = walk("bespoke", Knows(path, x0), start, float64(1, 0.6, 0.3, 0), weights="/-0.7/0.4 2.5")
    for c, x in zip(grid, ends, strict=True):
        torch.testing.assert_close(x, c.alpha * x0 + c.sigma * noise, rtol=1e-9, atol=1e-9)


def test_two_steps_by_hand():
    """Linear, times 1, ½, 0: x₁ = ½ ε + ½ x̂(ε, 1) and x₂ = w x̂(ε, 1) + (1 - w) x̂(x₁, ½)."""
    denoiser = smooth(Linear())
    noise = starts(denoiser, 5)
    first = denoiser(noise, 1.0).x0
    middle = (noise + first) / 2
    expected = -0.3 * first + 1.3 * denoiser(middle, 0.5).x0
    found = list(walk("bespoke", denoiser, noise, float64(1, 0.5, 0), weights="/-0.3"))
    torch.testing.assert_close(found[0], middle)
    torch.testing.assert_close(found[1], expected)


def test_weights_are_written_and_read():
    rows = [[1.0], [0.25, 0.75], [-0.5, 0.125, 1.375]]
    assert format_weights(rows) == "/0.25/-0.5 0.125"
    assert parse_weights(format_weights(rows), 3) == rows
    assert parse_weights("", 1) == [[1.0]]


@pytest.mark.parametrize(
    ("weights", "steps", "message"),
    [("/0.1/0.2 0.3", 2, "3 rows of weights don't make 2 steps"), ("/1/2", 3, "row i has i"), ("/a", 2, "numbers")],
)
def test_other_weights_are_refused(weights, steps, message):
    with pytest.raises(InputError, match=message):
        parse_weights(weights, steps)
