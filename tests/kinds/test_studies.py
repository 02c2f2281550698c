"""What the processes of a comparison do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.kinds import Way, studies
from ebbtide.kinds.methods import entries
from ebbtide.kinds.points.kind import PLAN
from ebbtide.kinds.runs import begin as prepare
from ebbtide.recipes import HELD_OUT, PointRecipe

TINY = replace(PointRecipe(validation=0.0, held_out=HELD_OUT), steps=2, points=500, batch=64)
OPTIONS = {"resume": False, "progress": False, "device": "cpu", "command": "ebbtide compare"}


def test_every_class_is_drawn_as_often_as_the_data_has_it():
    """And by single steps of Euler, for which the network is asked once."""
    start, _ = prepare(replace(TINY, data="two_spirals", conditional=True))
    way = Way("Euler, 1 step", "euler", "uniform", 1)
    drawn = studies._draw(replace(start, frequencies=(0.75, 0.25)), 40, way, "")
    assert torch.bincount(drawn.labels).tolist() == [30, 10]
    assert (drawn.x.shape, drawn.evaluations) == ((40, 2), 1)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("data", ["three_gaussians", "file"])
def test_a_study_is_measured_with_the_same_numbers_whoever_found_the_floors(data, conditional, tmp_path):
    """They are computed once for all rows of the table, and once for all points of the lines; of a file, too, that has
    fewer rows than there are samples."""
    if data == "file":
        data = str(tmp_path / "few.npz")
        np.savez(data, x=np.random.default_rng(0).normal(size=(50, 2)), labels=np.arange(50) % 3)
    recipe = replace(TINY, data=data, conditional=conditional)
    (entry,) = entries(("flow",), recipe, PLAN, tmp_path)
    study = studies.study(entry, recipe, 60, OPTIONS)
    table, line = study.drawn[0], next(one for one in study.drawn if one.line)
    assert {one.line for one in study.drawn} == {"", "Flow matching · Euler", "Flow matching · Heun"}
    shared = [studies.floors_of(recipe, ((60, False), (60, True)))]
    alone = [studies.judged(study.recipe, one, []) for one in (table, line)]
    assert len(alone[1]) == 2  # beside the share that isn't finite, that which is drawn
    assert alone[1][1].in_curve
    assert [studies.judged(study.recipe, one, shared) for one in (table, line)] == alone
    labels, floors = shared[0]
    assert labels == ([0, 1, 2] if conditional else None)
    (size,) = {size for name, size in floors if name == "MMD²"}  # which is on no line
    marked = floors | {("energy distance", size): [value + 7 for value in floors["energy distance", size]]}
    row, marked_row = (
        next(row for row in studies.judged(study.recipe, table, found) if row.name == "energy distance")
        for found in (shared, [(labels, marked)])
    )
    assert marked_row.floor == pytest.approx(row.floor + 7)
    others = [0, 1] if conditional else [0]  # of those, or of any, the real points are others
    assert studies.judged(study.recipe, table, [(others, marked)]) == alone[0]
