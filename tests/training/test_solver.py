"""Grids for jumps of a run that learned them from data."""

from dataclasses import replace

import torch

from ebbtide.kinds.runs import from_pretrained
from ebbtide.recipes import RECIPES
from ebbtide.training.solver import for_jumps
from training.runs import run, tiny


def small(name, **changes):
    given = {"steps": 6, "batch": 16, "points": 60, "network": "mlp:width=8,depth=1,spans=true"}
    return replace(RECIPES[name](), **given | changes)


def test_a_run_without_a_teacher_gets_grids_for_its_jumps(tmp_path):
    """Fitted at the end of its training, and taken by the number of steps alone."""
    made = run(small("shortcut", conditional=True), tmp_path / "run", checkpoints=1)
    again = from_pretrained(tmp_path / "run")
    for trained in (made, again):
        assert [(one.evaluations, one.sampler) for one in trained.tuned] == [(1, "jump"), (2, "jump"), (4, "jump")]
        assert trained.choice().steps == 1
        assert trained.choice(steps=2).grid == made.tuned[1].grid
    asked = run(small("mean-flow"), tmp_path / "asked", checkpoints=1, evaluations="3")
    assert [one.evaluations for one in asked.tuned] == [3]


def test_grids_are_fitted_to_the_ends_of_the_runs_own_flow(tmp_path):
    """A network that maps nothing, as at the start, is right on every grid."""
    made = run(small("shortcut", lr=0.0, steps=1), tmp_path / "run", checkpoints=1, solvers=False)
    for one in for_jumps(made, (1, 2), n=64):
        assert one.rms < 1e-5
        times = torch.tensor([float(t) for t in one.grid.split(",")])
        assert times[0] == 1
        assert times[-1] == 0


def test_other_runs_get_solvers(tmp_path):
    made = run(tiny("flow", steps=200, batch=64), tmp_path / "run", checkpoints=1)
    assert all(one.sampler != "jump" for one in made.tuned)
