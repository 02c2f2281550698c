"""Jumps: exact on any grid, one evaluation each, and with renewed noise still of the right law."""

import pytest
import torch

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import TARGETS
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments
from ebbtide.networks.mlp import MLP
from ebbtide.samplers import facts, trajectory, walk
from problems import MEAN, PATHS, STD, exact, exact_flow, float64, last, noise_like, oracle

paths = each("path", PATHS.values(), ids=PATHS.keys())
GRIDS = ([1.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.93, 0.2, 0.01, 0.0])


@paths
@each("target", TARGETS)
@each("grid", GRIDS)
def test_jumps_are_the_flow_on_any_grid(path, target, grid):
    denoiser = exact(path, target)
    x = path.prior(noise_like(6, 1))
    steps = list(walk("jump", denoiser, x, float64(*grid)))
    c = path.along([1.0])[0]
    if target in ("noise", "score") and c.alpha == 0:
        return  # there x̂₀ is what the network makes of an earlier time: tests/core/test_denoiser
    for t, found in zip(grid[1:], steps, strict=True):
        torch.testing.assert_close(found, exact_flow(path, x, 1.0, t), rtol=1e-6, atol=1e-5)  # edm: log σ/α up to 12
    assert denoiser.network.calls == len(grid) - 1


@paths
@each("renew", [0.3, 1.0])
def test_renewed_noise_keeps_the_law(path, renew):
    """Mean and standard deviation of the output, computed rather than sampled."""
    mean, std = exact_moments(lambda w: walk_of(w, renew), oracle(path), float64(1.0, 0.7, 0.4, 0.1, 0.0))
    c = path.along([1.0])[0]
    assert mean == pytest.approx(MEAN, abs=1e-9)
    assert std == pytest.approx(STD, abs=1e-9), c


def walk_of(w, renew):
    from ebbtide.samplers.jump import jump

    return jump(w, renew=renew)


def test_renewing_all_is_the_multistep_consistency_sampler():
    """x₀ of the jump to the data, then α_s x₀ + σ_s z with the step's own z (arXiv:2303.01469, Algorithm 1)."""
    path, x, draws = Linear(), noise_like(5, 2), Draws.first(5, seed=3)
    found = list(walk("jump:renew=1.0", oracle(path, 2), x, float64(1.0, 0.6, 0.0), draws=draws))
    x0 = exact_flow(path, x, 1.0, 0.0)
    middle = 0.4 * x0 + 0.6 * draws(0, x)
    torch.testing.assert_close(found[0], middle, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], exact_flow(path, middle, 0.6, 0.0), rtol=1e-9, atol=1e-9)


def test_an_untrained_span_jumps_as_ddim_steps():
    """A student's first estimates are its teacher's, whose jump is DDIM's update."""
    torch.manual_seed(0)
    network = MLP(2, width=8, depth=1, spans=True)
    torch.nn.init.normal_(network.out.weight)
    denoiser, x, grid = Denoiser(network, Linear()), torch.randn(4, 2), float64(1.0, 0.5, 0.2, 0.0)
    one, other = (last(walk(name, denoiser, x, grid)) for name in ("jump", "ddim"))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_spans_a_single_time_cannot_jump():
    denoiser = Denoiser(MLP(2, width=8, depth=1), Linear())
    with pytest.raises(InputError, match="spans two times"):
        last(trajectory(denoiser, (2,), draws=Draws.first(3, 0), steps=2, sampler="jump"))


def test_facts():
    assert facts("jump").spans
    assert not facts("jump").noise
    assert facts("jump:renew=0.5").noise
    with pytest.raises(InputError, match="renew"):
        last(walk("jump:renew=1.5", oracle(Linear()), noise_like(2, 1), float64(1.0, 0.0), draws=Draws.first(2, 0)))
