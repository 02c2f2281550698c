"""The stored tables are solvers: for denoisers that they were never fitted to, on any path."""

from dataclasses import replace

import pytest
import torch

from ebbtide.core.mixtures import stored_tables, table_of
from ebbtide.core.paths import Linear
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.oracle import mixture
from ebbtide.exact.tune import reference
from ebbtide.samplers import walk
from problems import PATHS, last, noise_like

MODES = mixture(Linear(), noise_like(5, 2, seed=3), 0.2)
OWN = "bespoke:weights=mixtures"


def test_a_table_is_a_triangle_whose_rows_sum_to_1():
    assert list(stored_tables()) == list(range(1, 21))
    for steps in stored_tables():
        nodes, rows = table_of(steps)
        assert (nodes[0], nodes[-1], len(nodes)) == (1, 0, steps + 1)
        assert [len(row) for row in rows] == list(range(1, steps + 1))
        assert all(sum(row) == pytest.approx(1, abs=1e-8) for row in rows)


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
def test_the_tables_are_better_than_what_they_replace(name):
    """Medians on five modes that none was fitted to, beside DDIM's and, from five evaluations on, UniPC's."""
    path = PATHS[name]
    oracle, start = replace(MODES, path=path), path.prior(noise_like(200, 2, seed=8))
    truth, _ = reference(oracle, start, 100, {})

    def median(spec, grid, steps):
        return float((last(walk(spec, oracle, start, grid_times(grid, steps, path))) - truth).norm(dim=1).median())

    for steps in stored_tables():
        own, ddim, unipc = (
            median(spec, grid, steps)
            for spec, grid in ((OWN, "mixtures"), ("ddim", "flow_power"), ("unipc", "flow_power"))
        )
        assert own < ddim * (1.01 if steps < 3 else 0.7), steps
        assert own < unipc or steps < 5, steps


def test_there_are_no_other_tables():
    """More steps have a grid, the nodes between those of the largest table, but no weights."""
    nodes = torch.tensor(table_of(20).nodes, dtype=torch.float64)
    torch.testing.assert_close(grid_times("mixtures", 40, Linear())[::2], nodes, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match=r"^mixtures: steps must be at least 1 and at most 20; got 21\.$"):
        last(walk(OWN, MODES, noise_like(2, 2), grid_times("mixtures", 21, Linear())))
