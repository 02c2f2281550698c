"""Any sampler without noise, unrolled to a table of weights, and walked by it again."""

import pytest
import torch

from ebbtide.core.times import grid_times
from ebbtide.exact.certify import smooth, starts, walked
from ebbtide.exact.tune import evaluations
from ebbtide.exact.unroll import unrolled
from ebbtide.samplers import SAMPLERS
from ebbtide.samplers.bespoke import format_weights
from ebbtide.specs import bind
from problems import PATHS

SOLVERS = (
    "ddim", "midpoint:clock=flow", "dpmpp_2m", "dpmpp_2s", "unipc", "exponential:order=3,corrector=true",
    "exponential:order=4,form=noise,corrector=true,start=runge_kutta",
)  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_is_a_table_of_weights(name, solver):
    """Unrolled and walked again it comes to the same end, to the 7 digits that weights are written with."""
    path, sampler = PATHS[name], bind(SAMPLERS, solver, "sampler")
    denoiser, times = smooth(path), grid_times("flow_power", 6, path)
    x = starts(denoiser, 8)
    asked, rows = unrolled(sampler, path, times, evaluations(sampler, path, times))
    assert [len(row) for row in rows] == list(range(1, len(asked)))
    assert all(sum(row) == pytest.approx(1, abs=1e-12) for row in rows)
    same = bind(SAMPLERS, f"bespoke:weights={format_weights(rows)}", "sampler")
    torch.testing.assert_close(walked(same, denoiser, x, asked), walked(sampler, denoiser, x, times), rtol=0, atol=1e-5)
