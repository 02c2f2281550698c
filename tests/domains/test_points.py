"""Evaluation holds samples against the right truth: fresh points of a known set, or the rows of a file."""

from dataclasses import replace

import pytest
import torch

from ebbflow.data import DATASETS, save
from ebbflow.domains.points import evaluate, point_set, real_points
from ebbflow.errors import InputError
from ebbflow.randomness import generator
from ebbflow.recipes import PointRecipe

GAUSSIANS = PointRecipe(data="three_gaussians")


@pytest.fixture
def file(tmp_path):
    x, labels = DATASETS["two_spirals"].sample(400, torch.Generator().manual_seed(0))
    save(tmp_path / "points.csv", x, ["a", "b"], ["red" if k else "blue" for k in labels])
    return PointRecipe(data=str(tmp_path / "points.csv"), label="label", conditional=True)


def test_a_named_set_is_known_and_a_file_is_not(file):
    assert point_set(GAUSSIANS) is DATASETS["three_gaussians"]
    assert point_set(file) is None


def test_real_points_of_a_named_set_are_fresh_and_seeded():
    one, same, other = (real_points(GAUSSIANS, 100, seed).x for seed in (0, 0, 1))
    assert (one == same).all()
    assert not (one == other).any()
    training, _ = DATASETS["three_gaussians"].sample(100, torch.Generator().manual_seed(0))
    assert not (one == training).any()
    assert real_points(GAUSSIANS, 5, 0).classes == ("right", "left", "bottom")


def test_real_points_of_a_file_are_its_rows_in_random_order(file):
    every = real_points(file, 10**9, 0)
    assert len(every.x) == 400
    assert (every.columns, every.classes) == (("a", "b"), ("blue", "red"))
    few, other = real_points(file, 50, 0), real_points(file, 50, 1)
    assert (few.x == every.x[:50]).all()
    assert (few.labels == every.labels[:50]).all()
    assert not (few.x == other.x).all()
    rows = {tuple(row) for row in every.x.tolist()}
    assert len(rows) == 400
    assert {tuple(row) for row in other.x.tolist()} <= rows


def test_a_file_that_is_gone_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="is not here, so there is nothing to compare with"):
        real_points(PointRecipe(data=str(tmp_path / "gone.csv")), 5, 0)


def test_truth_is_at_its_floor_and_a_shifted_truth_is_not():
    """Fixed seeds: truth must be at the floor in all rows but one, which 95 % intervals would miss 1 time in 20."""
    x, _ = DATASETS["three_gaussians"].sample(1000, generator("test", 3))
    rows = {row.name: row for row in evaluate(GAUSSIANS, x, seed=1)}
    assert {"within-mode sliced W2", "outliers beyond 4 σ", "mean log-density", "fraction in mode 2"} <= set(rows)
    assert sum(not row.at_floor for row in rows.values()) <= 1
    moved = {row.name: row for row in evaluate(GAUSSIANS, x + 0.2, seed=1)}
    for name in ("within-mode sliced W2", "mean log-density"):
        assert not moved[name].at_floor


def test_a_set_without_density_or_modes_has_distances_alone():
    x, _ = DATASETS["swiss_roll"].sample(300, generator("test", 0))
    names = [row.name for row in evaluate(PointRecipe(data="swiss_roll"), x)]
    assert names == ["non-finite", "MMD²", "energy distance", "sliced W2", "exact W2"]


def test_labels_asked_for_are_measured_one_by_one(file):
    for recipe in (file, PointRecipe(data="two_spirals", conditional=True)):
        real = real_points(recipe, 300, 7)
        rows = {row.name: row for row in evaluate(recipe, real.x, real.labels)}
        assert {"asked label nearest", "sliced W2 of label 0", "sliced W2 of label 1"} <= set(rows)
        swapped = {row.name: row for row in evaluate(recipe, real.x, 1 - real.labels)}
        assert rows["asked label nearest"].value > 0.8 > 0.2 > swapped["asked label nearest"].value


def test_floors_can_be_shared_and_rows_chosen():
    x, _ = DATASETS["rings"].sample(200, generator("test", 0))
    recipe, floors = replace(GAUSSIANS, data="rings"), {}
    first = evaluate(recipe, x, floors=floors, only=("energy distance",))
    assert [row.name for row in first] == ["non-finite", "energy distance"]
    assert set(floors) == {("energy distance", 200)}
    floors["energy distance", 200] = [5.0]
    assert evaluate(recipe, x, floors=floors, only=("energy distance",))[1].floor == 5.0
