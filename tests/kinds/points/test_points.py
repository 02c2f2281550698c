"""Evaluation holds samples against the right truth: fresh points of a known set, or the rows of a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import generator
from ebbtide.data import DATASETS, Standardise, save_points
from ebbtide.errors import InputError
from ebbtide.kinds.points import study as points_study
from ebbtide.kinds.points.data import parts, point_set, prepare, real_points, unseen
from ebbtide.kinds.points.kind import evaluate
from ebbtide.recipes import PointRecipe
from ebbtide.training.trained import Trained

GAUSSIANS = PointRecipe(data="three_gaussians")


@pytest.fixture
def file(tmp_path):
    x, labels = DATASETS["two_spirals"].sample(400, torch.Generator().manual_seed(0))
    save_points(tmp_path / "points.csv", x, ["a", "b"], ["red" if k else "blue" for k in labels])
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
    with pytest.raises(InputError, match="is not here, so there is nothing to compare with"):
        real_points(PointRecipe(data="long" * 5000), 5, 0)


def test_truth_is_at_its_floor_and_a_shifted_truth_is_not():
    """Fixed seeds: truth must be at the floor in all rows but one, which 95 % intervals would miss 1 time in 20."""
    x, _ = DATASETS["three_gaussians"].sample(1000, generator("test", 3))
    floors = {}
    rows = {row.name: row for row in evaluate(GAUSSIANS, x, seed=1, floors=floors)}
    assert {"within-mode sliced W2", "outliers beyond 4 σ", "mean log-density", "fraction in mode 2"} <= set(rows)
    assert sum(not row.at_floor for row in rows.values()) <= 1
    moved = {row.name: row for row in evaluate(GAUSSIANS, x + 0.2, seed=1, floors=floors)}
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
        names = real.classes or (0, 1)
        assert {"asked label nearest", *(f"sliced W2 of label {name}" for name in names)} <= set(rows)
        swapped = {row.name: row for row in evaluate(recipe, real.x, 1 - real.labels)}
        assert rows["asked label nearest"].value > 0.8 > 0.2 > swapped["asked label nearest"].value


class Steady(torch.nn.Linear):
    """The network of a velocity that is the same everywhere: 1 to the right and 2 down."""

    def forward(self, x, t):
        return torch.tensor([1.0, -2.0]).expand(len(x), 2)


def test_velocities_are_in_the_datas_units():
    """A velocity is stretched as the data is, and not moved: by ½ and 3, whatever the mean."""
    denoiser, codec = Denoiser(Steady(1, 1), Linear()), Standardise((1.0, -2.0), (0.5, 3.0))
    for t, places, velocity, x_t in points_study._fields(Trained(denoiser, GAUSSIANS, (2,), codec)):
        assert t in points_study.FIELD_TIMES
        assert (velocity == [0.5, -6]).all()
        assert (places.min(0) <= -3.5).all()
        assert (places.max(0) >= 3.5).all()
        assert len(x_t) == points_study.WALK_POINTS


def test_floors_can_be_shared_and_rows_chosen():
    x, _ = DATASETS["rings"].sample(200, generator("test", 0))
    recipe, floors = replace(GAUSSIANS, data="rings"), {}
    first = evaluate(recipe, x, floors=floors, curve=True)
    assert [row.name for row in first] == ["non-finite", "energy distance"]
    assert set(floors) == {("energy distance", 200)}
    floors["energy distance", 200] = [5.0]
    assert evaluate(recipe, x, floors=floors, curve=True)[1].floor == 5.0


def rows_of(recipe, samples, labels=None, **options):
    return {row.name: row for row in evaluate(recipe, samples, labels, **options)}


def table_of(tmp_path, counts, **changes):
    """A table whose class k lies around (5k, 0), with so many rows of each class; and fresh points of it."""

    def draw(seed):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=generator("order", seed))]
        x = torch.randn(len(labels), 2, generator=generator("rows", seed))
        return torch.stack([x[:, 0] + 5 * labels, x[:, 1]], 1), labels

    x, labels = draw(0)
    save_points(tmp_path / "table.csv", x, ["a", "b"], labels)
    recipe = PointRecipe(
        data=str(tmp_path / "table.csv"), label="label", conditional=True, validation=0.0, held_out=0.1
    )
    return replace(recipe, **changes), draw


def test_rows_held_out_are_never_trained_on_and_no_class_is_swallowed(tmp_path):
    for counts, share, wanted in (
        ([900, 98, 1, 1], 0.1, (900, 100)),
        ([39], 0.1, (39, 0)),
        ([40], 0.1, (36, 4)),
        ([50, 50], 0.0, (100, 0)),
        ([98, *[1] * 9], 0.9, None),
    ):
        recipe, _ = table_of(tmp_path, counts, held_out=share)
        train, held = parts(recipe)
        every = {tuple(row) for row in train.x.tolist()}
        assert not every & {tuple(row) for row in held.x.tolist()}, counts
        assert len(train.x) + len(held.x) == sum(counts), counts
        assert wanted is None or abs(len(held.x) - wanted[1]) <= 2, counts
        assert set(train.labels.tolist()) == set(range(len(counts))), counts
        assert torch.equal(parts(replace(recipe, seed=5))[1].x, held.x)
        prepared = prepare(recipe)
        assert len(prepared.data) == len(train.x)
        assert prepared.frequencies == pytest.approx(
            [float((train.labels == k).double().mean()) for k in range(len(counts))]
        )
    train, held = parts(GAUSSIANS)
    assert (len(train.x), len(held.x)) == (GAUSSIANS.points, 0)


def test_a_file_s_own_parts_are_kept_apart(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 2))
    np.savez(tmp_path / "a.npz", x_test=x[:10], x_train=x[10:])
    train, held = parts(PointRecipe(data=str(tmp_path / "a.npz")))
    assert np.array_equal(train.x, x[10:].astype(np.float32))
    assert np.array_equal(held.x, x[:10].astype(np.float32))
    assert train.test == held.test == 0


def test_the_classes_of_a_named_set_are_equally_frequent():
    assert prepare(replace(GAUSSIANS, points=50, conditional=True)).frequencies == (1 / 3,) * 3
    assert prepare(replace(GAUSSIANS, points=50)).frequencies == ()


def test_copies_of_training_rows_are_seen_and_fresh_points_are_not(tmp_path):
    recipe, draw = table_of(tmp_path, [1900, 100])
    train, _ = parts(recipe)
    chosen = torch.randint(len(train.x), (1500,), generator=generator("copies"))
    copies = rows_of(recipe, train.x[chosen], train.labels[chosen])
    assert (copies["exact copies"].value, copies["copies"].value, copies["nearest training row"].value) == (1, 1, 0)
    near = rows_of(recipe, train.x[chosen] + 1e-4, train.labels[chosen])
    assert near["exact copies"].value == 0
    assert near["nearest training row"].high < 0.01
    assert near["copies"].low > 0.9
    for seen in (copies, near):
        assert not any(seen[name].at_floor for name in ("copies", "nearest training row"))
    fresh = rows_of(recipe, *draw(1))
    assert sum(not row.at_floor for row in fresh.values()) <= 1
    assert fresh["nearest training row"].value == pytest.approx(1, abs=0.25)
    assert fresh["exact copies"].value == 0
    assert "copies" not in rows_of(replace(recipe, held_out=0.0), *draw(1))
    small, _ = table_of(tmp_path, [30])
    assert all("Nothing was held out" in row.note for row in evaluate(small, draw(2)[0]))


def test_classes_in_proportion_are_at_the_floor_and_classes_in_turn_are_not(tmp_path):
    """A correct model of a 95:5 table, asked for labels in both ways."""
    recipe, draw = table_of(tmp_path, [1900, 100])
    x, labels = draw(1)
    right = rows_of(recipe, x, labels)
    both = [(labels == k).nonzero()[:100, 0] for k in (0, 1)]
    even = rows_of(recipe, x[torch.cat(both)], labels[torch.cat(both)])
    for name in ("MMD²", "energy distance", "sliced W2"):
        assert right[name].at_floor, name
        assert not even[name].at_floor, name


def test_samples_of_one_class_are_held_against_that_class(tmp_path):
    recipe, draw = table_of(tmp_path, [1000, 1000])
    x, labels = draw(1)
    for one in (recipe, replace(GAUSSIANS, conditional=True)):
        if one is not recipe:
            x, labels = DATASETS["three_gaussians"].sample(1000, generator("test", 1))
        own = labels == 1
        rows = rows_of(one, x[own], labels[own])
        assert sum(not row.at_floor for row in rows.values()) <= 1
        assert rows["sliced W2"].value < 0.5
        other = rows_of(one, x[own], torch.zeros_like(labels[own]))
        assert not other["sliced W2"].at_floor


def test_rows_of_labels_have_the_names_of_the_tables_classes(tmp_path):
    x = torch.randn(300, 2, generator=generator("rows", 0))
    moods = ["Spaß" if row > 0 else "Ernst" for row in x[:, 0]]
    save_points(tmp_path / "moods.csv", x, ["a", "b"], moods)
    recipe = PointRecipe(data=str(tmp_path / "moods.csv"), label="label", conditional=True)
    names = set(rows_of(recipe, x, (x[:, 0] > 0).long()))
    assert {"sliced W2 of label Ernst", "sliced W2 of label Spaß"} <= names
    assert not {"sliced W2 of label 0", "sliced W2 of label 1"} & names
    notes = " ".join(row.note for row in rows_of(recipe, x).values())
    assert "Gaussians" not in notes


def test_a_class_too_rare_to_be_held_out_has_no_row_of_its_own(tmp_path):
    recipe, draw = table_of(tmp_path, [197, 2, 1])
    names = set(rows_of(recipe, *draw(1)))
    assert "sliced W2 of label 0" in names
    assert "sliced W2 of label 2" not in names


def test_likelihoods_are_of_rows_never_trained_on(tmp_path):
    recipe, _ = table_of(tmp_path, [200])
    held = {tuple(row) for row in parts(recipe)[1].x.tolist()}
    assert {tuple(row) for row in unseen(recipe, 100, 0).x.tolist()} == held
    assert len(unseen(recipe, 7, 0).x) == 7
    with pytest.warns(UserWarning, match="Nothing was held out"):
        assert len(unseen(replace(recipe, held_out=0.0), 10**6, 0).x) == 200


def test_a_spread_that_float32_has_no_room_for_is_refused_before_training_by_the_columns_name(tmp_path):
    x = torch.tensor([[0.0, -1e37], [1.0, 1e37], [2.0, -1e37], [3.0, 1e37]])
    save_points(tmp_path / "wild.csv", x, ["near", "far"])
    with pytest.raises(InputError, match=r"wild\.csv, column 'far': values around 0 that spread by 1e\+37"):
        prepare(PointRecipe(data=str(tmp_path / "wild.csv"), codec="standardise"))
