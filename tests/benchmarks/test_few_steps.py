"""The benchmark of few steps runs, at the smallest size."""

import pytest
from benchmarks.few_steps import Row, run, table

from benchmarks import few_steps
from ebbtide.metrics import extractors
from ebbtide.training import solver

TINY = (("steps", 4), ("points", 200), ("batch", 16), ("network", "mlp:width=8,depth=1"))
FEW = (("trajectories", 60), ("trajectory_steps", 4), ("steps", 4))


SMALL = (("steps", 4), ("batch", 16), ("network", "unet-tiny:width=8"), ("held_out", 0.3))
ROWS = (
    Row("three_gaussians", "small", TINY, FEW),
    Row("two_moons", "", TINY, FEW),
    Row("digits", "by class", (*SMALL, ("conditional", True)), FEW, "flow-images", (("steps", 2),)),
)


@pytest.mark.parametrize("row", [*ROWS[:2], pytest.param(ROWS[2], marks=pytest.mark.slow)], ids=lambda row: row.data)
def test_a_base_and_its_student_are_measured_and_reported(row, tmp_path, monkeypatch):
    monkeypatch.setattr(few_steps, "N", 300)
    monkeypatch.setattr(few_steps, "FEWER", 60)
    monkeypatch.setattr(few_steps, "COUNTS", (2,))
    monkeypatch.setattr(few_steps, "SAMPLING", (101, 102))
    monkeypatch.setattr(extractors, "_EPOCHS", 1)
    monkeypatch.setattr(solver, "MOST_EVALUATIONS", (6000, 6000))  # a solver as of a short training
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    found = run(row, 1, tmp_path)
    assert found["cost"][0][0] > 0
    real = "real points" if row.recipe == "flow" else "held-out images"
    assert {len(sets) for who, sets in found.items() if who not in ("cost", real)} == {len(few_steps.SAMPLING)}
    lines = table(row, [found]).splitlines()
    assert lines[0].startswith("## " + row.data.replace("_", " "))
    assert sum(line.startswith("| student") for line in lines) == 1
    assert lines[-1].startswith(f"| {real}")
