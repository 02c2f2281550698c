"""Samples from one's own starting points: in their order, the same whatever is asked, and refused where none can be."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from ebbtide.data import save_points
from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained
from problems import SIGMAS
from training.runs import run, sentence, tiny

# Products of different numbers of rows round differently in the last bit on some machines, as with MKL and AVX-512.
same = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    save_points(place / "table.csv", torch.randn(60, 2), columns=("height", "width"))
    named = {"data": str(place / "table.csv"), "source": "eight_gaussians", "codec": "standardise"}
    variants = {"two sets": {}, "flow": {"grid": "uniform"}, "ot": {}, "images": {}}
    made = {name: run(tiny(name, **changes), place / name) for name, changes in variants.items()}
    made["named"] = run(tiny("two sets", **named), place / "named")
    return made


def test_points_of_ones_own_are_carried_across_in_their_order(runs):
    """Row i of the result belongs to row i of start, whatever stands around it."""
    trained = runs["two sets"]
    start = trained.starts(trained.recipe, 9, 0, 0)
    x = trained.sample(start=start, steps=4)
    assert torch.equal(x, trained.sample(9, steps=4, seed=0))  # what it starts from by itself
    same(trained.sample(start=start.flip(0), steps=4), x.flip(0))
    same(trained.sample(start=start[3:5], steps=4), x[3:5])
    same(trained.sample(start=start.numpy()[::-1], steps=4), x.flip(0))
    (_, first), *_ = trained.trajectory(start=start.numpy(), steps=4)
    torch.testing.assert_close(first, start)


def test_columns_are_found_by_their_names(runs):
    trained = runs["named"]
    table = {"height": [0.5, 1.0, -2.0], "width": [1.0, 0.0, 3.0]}
    x = trained.sample(start=torch.tensor([*zip(*table.values())]), steps=3)
    other = dict(reversed(table.items()))
    assert torch.equal(trained.sample(start=other, steps=3), x)
    one = {"height": 0.5, "width": np.float32(1.0)}  # a single value of each: one row
    same(trained.sample(start=one, steps=3), x[:1])
    assert torch.equal(trained.sample(start=pd.DataFrame(other), steps=3), x)


def test_rows_beyond_what_was_learned_are_told(tmp_path):
    """A table's codes end where its rows do, so such a row begins at the edge; one inside is not told of."""
    save_points(tmp_path / "table.csv", torch.rand(60, 2), columns=("a", "b"))
    trained = run(tiny("flow", data=str(tmp_path / "table.csv")), tmp_path / "run")
    inside = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained.sample(start=inside, at=0.3, steps=4)
    with pytest.warns(UserWarning, match="^1 of 2 rows of start lie outside of what this run learned"):
        trained.sample(start=inside + torch.tensor([[0.0, 5.0], [0.0, 0.0]]), at=0.3, steps=4)


def test_levels_and_gaps_of_a_table_lie_inside_whatever_their_numbers(tmp_path):
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {"size": draw.normal(size=80), "kind": draw.choice([*"abc"], 80), "many": draw.choice([*"dc"], 80)}
    )
    table["gap"] = np.where(draw.random(80) < 0.2, np.nan, draw.normal(size=80) + 1000)
    table.to_csv(tmp_path / "table.csv", index=False)
    trained = run(tiny("flow", data=str(tmp_path / "table.csv")), tmp_path / "run")
    rows = table.dropna().reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained.sample(start=rows, at=0.3, steps=4)
    rows.loc[3, "gap"] = 2000
    with pytest.warns(UserWarning, match=f"^1 of {len(rows)} rows of start"):
        trained.sample(start=rows, at=0.3, steps=4)


def test_a_start_is_drawn_in_pieces_like_noise(runs, monkeypatch):
    for name, at in (("two sets", 1.0), ("flow", 0.5)):
        start = torch.randn(40, 2)
        whole = runs[name].sample(start=start, at=at, steps=3, seed=2)
        monkeypatch.setattr("ebbtide.training.trained.CHUNK", 16)
        same(runs[name].sample(start=start, at=at, steps=3, seed=2), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("at", [0.05, 0.6])
def test_data_is_noised_to_the_time_and_sampled_from_there(runs, at):
    """x_at is α x₀ + σ ε: mean and spread of ε̂ within SIGMAS standard errors of 0 and 1 (3e-9 each)."""
    trained, n = runs["flow"], 4000
    x0 = torch.tensor([[1.0, -2.0]]).expand(n, 2)
    times, states = zip(*trained.trajectory(start=x0, at=at, steps=10))
    assert times[0] == pytest.approx(at)
    assert times[-1] == 0
    assert len(times) == 1 + sum(k / 10 < at for k in range(10))
    c = trained.denoiser.path.along([at])[0]
    noise = (trained.to_network(states[0]) - c.alpha * trained.to_network(x0)) / c.sigma
    assert float(noise.mean()) == pytest.approx(0, abs=SIGMAS / (2 * n) ** 0.5)
    assert float(noise.std()) == pytest.approx(1, abs=SIGMAS / (4 * n) ** 0.5)


def test_a_start_near_the_data_stays_near_it(runs):
    """One hardly noised comes back; sample i is the same whatever n is, and other seeds give others."""
    trained = runs["flow"]
    x0 = trained.sample(30, seed=1)
    near, far = (float((trained.sample(start=x0, at=at, steps=20) - x0).norm(dim=1).median()) for at in (0.01, 0.99))
    assert near < 0.05 < 0.5 < far
    ours = trained.sample(start=x0, at=0.6, steps=5, seed=4)
    same(trained.sample(start=x0[:7], at=0.6, steps=5, seed=4), ours[:7])
    same(trained.sample(start=x0[7:], at=0.6, steps=5, seed=4, first=7), ours[7:])
    assert not torch.equal(trained.sample(start=x0, at=0.6, steps=5, seed=5), ours)


def test_all_samples_may_start_from_one_row(runs):
    trained, x0 = runs["flow"], torch.tensor([[0.3, -1.2]])
    ours = trained.sample(700, start=x0, at=0.6, steps=5, seed=4)  # more than are drawn together
    same(ours, trained.sample(start=x0.expand(700, 2), at=0.6, steps=5, seed=4))
    assert len(ours.unique(dim=0)) == 700
    with pytest.raises(InputError, match=r"n must be at least 1; got 0\."):
        trained.sample(0, start=x0, at=0.6)


def test_images_start_from_their_own_pixels(runs):
    trained = runs["images"]
    x0 = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    x = trained.sample(start=x0, at=0.02, steps=50, sampler="euler", label=[0, 1, 2])
    assert float((x - x0).abs().mean()) < 10


ROWS, HALF = {"start": torch.zeros(3, 2)}, {"start": torch.zeros(3, 2), "at": 0.5}
FINITE = "start must hold a finite number for each part of a sample, and one row or more."


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("flow", ROWS, "This run starts from noise, so start is data, noised to a time below 1: give at, as 0.6."),
        ("flow", {"n": 3, "at": 0.5}, "at is the time to which start is noised, and there is no start; got at 0.5."),
        ("flow", {}, "n, the number of samples, must be given, or start, a row for each."),
        ("flow", ROWS | {"at": 0}, "at must be above 0 and at most 1; got 0."),
        ("flow", HALF | {"steps": "auto"}, "steps=auto fits a solver from t = 1, and at is 0.5; give a number."),
        ("flow", HALF | {"n": 4}, "n must be the number of rows of start, 3, or be left out; got 4."),
        ("flow", HALF | {"start": torch.zeros(0, 2)}, FINITE),
        ("flow", HALF | {"start": torch.full((1, 2), torch.nan)}, FINITE),
        (
            "flow",
            HALF | {"start": torch.zeros(3, 3)},
            "start must be a tensor or array of shape (n, 2); got a tensor of shape (3, 3).",
        ),
        (
            "flow",
            HALF | {"start": np.array([[1, None]])},
            "start must hold numbers; got array([[1, None]], dtype=object).",
        ),
        ("flow", {"n": 3, "gradient": "yes"}, "gradient must be True or False; got 'yes'."),
        ("ot", HALF, "This run learned coupled pairs, whose data can't be noised; at a middle time nothing starts."),
        ("two sets", HALF, "This run starts from points of its second set, at t = 1, so at must be 1; got 0.5."),
        ("named", {"start": {"height": [1]}}, "start must have the columns 'height', 'width'; it lacks 'width'."),
        (
            "named",
            {"start": {"height": [1.0], "width": [1.0], "z": [1.0]}},
            "start: 'z' is no column that the run has learned; it has 'height', 'width'.",
        ),
        (
            "named",
            {"start": {"height": [1.0, 2.0], "width": [1.0]}},
            "start must have as many cells in each column.",
        ),
        (
            "named",
            {"start": {"height": [1.0, None], "width": [1.0, 2.0]}},
            "start must have no missing cell; row 2 lacks 'height'.",
        ),
        (
            "named",
            {"start": {"height": "tall", "width": 1}},
            "start, column 'height': it must be a number; got 'tall'.",
        ),
        ("named", {"start": {"height": [], "width": []}}, "start must have a row or more; it has none."),
    ],
)
@pytest.mark.unchecked
def test_a_start_that_cannot_be_is_one_sentence(runs, name, options, says):
    with pytest.raises(InputError) as caught:
        runs[name].sample(**options)
    assert sentence(caught.value) == says


def test_a_strangers_run_between_two_sets_takes_points_without_opening_its_source(tmp_path, runs):
    save_points(tmp_path / "source.csv", np.random.default_rng(0).normal(size=(50, 2)))
    trained = run(tiny("two sets", source=str(tmp_path / "source.csv")), tmp_path / "run")
    loaded = from_pretrained(trained.save_pretrained(tmp_path / "export"))
    with pytest.raises(InputError, match="is opened only if you name it too"):
        loaded.sample(2)
    assert loaded.sample(start=torch.zeros(2, 2), steps=2).shape == (2, 2)
