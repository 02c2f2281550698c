"""Columns given to a run: what comes back, what is drawn, and what it refuses."""

import datetime
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cells import each
from ebbtide import fit
from ebbtide.codecs import groups
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.exact.likelihood import log_density
from ebbtide.kinds.points.data import parts
from ebbtide.kinds.runs import from_pretrained
from ebbtide.recipes import flow
from ebbtide.samplers import SAMPLERS
from ebbtide.training.completing import merged, row_numbers
from training.runs import assert_same, run, run_until, sentence, tensors, tiny

NAN = float("nan")
pytestmark = pytest.mark.filterwarnings("ignore:.*cells are missing")
TINY = {"steps": 60, "batch": 64, "held_out": 0.0, "any_columns": True, "seed": 3, "lr": 0.01}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Invented shells: a number, levels, truth with gaps, a date, a number with gaps, and many levels; and a label."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "shells.csv"
    lines = ["size,kind,wet,day,mass,place,sea"]
    for _ in range(150):
        size = rng.normal(5, 1)
        wet, mass = rng.choice(["yes", "no", ""], p=[0.5, 0.3, 0.2]), f"{2 * size:.2f}" * (rng.random() < 0.8)
        day = datetime.date(2024, 1, 1) + datetime.timedelta(int(rng.integers(60)))
        place, sea = f"bay {rng.integers(12)}", rng.choice(["north", "south"])
        lines.append(f"{size:.1f},{rng.choice(['cone', 'cowrie', 'whelk'])},{wet},{day},{mass},{place},{sea}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory, table):
    """A run on all columns, and one whose label is the sea."""
    place = tmp_path_factory.mktemp("runs")
    run(tiny(data=str(table), **TINY), place / "plain")
    run(tiny(data=str(table), label="sea", conditional=True, **TINY), place / "labelled")
    return place


@pytest.fixture(scope="module")
def plain(folders):
    return from_pretrained(folders / "plain")


@pytest.fixture(scope="module")
def labelled(folders):
    return from_pretrained(folders / "labelled")


GIVEN = {"size": 4.7, "kind": "whelk", "wet": "no", "day": "2024-01-31", "place": "bay 3"}


def test_given_columns_come_back_and_the_others_are_drawn(plain):
    x = plain.sample(40, given=GIVEN, seed=2)
    assert x.dtype == torch.float32
    assert (x[:, 0] == torch.tensor(4.7)).all()
    assert (x[:, 1] == 2).all()  # cone, cowrie, whelk
    assert (x[:, 2] == 0).all()  # no, yes
    assert (x[:, 3] == (datetime.date(2024, 1, 31) - datetime.date(1970, 1, 1)).days).all()
    assert len(x[:, 4].unique()) > 5
    assert bool((x[:, 6] == 0).any() & (x[:, 6] == 1).any())
    assert set(plain.learned_columns) == {"size", "kind", "wet", "day", "mass", "place", "sea"}


def test_rows_of_numbers_may_be_an_array(plain):
    rows = torch.full((3, 7), torch.nan)
    rows[:, 0] = torch.tensor([4.0, 4.5, 4.7])
    x = plain.sample(3, given=rows, steps=3)
    assert x[:, 0].tolist() == pytest.approx([4.0, 4.5, 4.7])
    assert torch.equal(plain.sample(3, given=rows.numpy(), steps=3), x)
    masked = np.ma.masked_invalid(rows.double().numpy())
    assert torch.equal(plain.sample(3, given=masked, steps=3), x)


def test_a_value_may_be_of_its_own_type_one_for_each_sample_or_none(plain):
    day = datetime.date(2024, 1, 31)
    for same in ({"day": day, "wet": False}, {"day": np.datetime64(day), "wet": np.bool_(False)}, {"wet": ["no"] * 6}):
        x = plain.sample(6, given=GIVEN | same)
        assert torch.equal(x, plain.sample(6, given=GIVEN))
    sizes = np.array([4.0, 5.0, NAN, 6.0, NAN, 4.5])
    x = plain.sample(6, given={"size": sizes, "kind": ["cone", None, "whelk", "cone", "cone", None]})
    known = ~np.isnan(sizes)
    assert np.array_equal(x[known, 0].numpy(), sizes[known].astype(np.float32))
    assert bool(x[:, 0].isfinite().all())
    assert x[[0, 2, 3, 4], 1].tolist() == [0, 2, 0, 0]
    assert torch.equal(
        plain.sample(6, given={"size": torch.tensor(sizes)})[known, 0], torch.tensor(sizes).float()[known]
    )


def test_a_sample_depends_on_its_number_and_on_what_it_is_given_alone(plain):
    given = {"size": [4.0, 5.0, 6.0, 4.5, 5.5], "place": ["bay 1", None, "bay 2", None, None]}
    x = plain.sample(5, given=given, seed=7, first=3)
    for i in range(5):
        own = {name: cells[i] for name, cells in given.items() if cells[i] is not None}
        assert torch.allclose(plain.sample(1, given=own, seed=7, first=3 + i), x[i : i + 1], equal_nan=True, atol=0.02)
    assert not torch.equal(plain.sample(5, given=given, seed=8, first=3), x)
    ids = torch.tensor([7, 3, 5])
    again = plain.sample(3, given={"size": [5.5, 4.0, 6.0], "place": [None, "bay 1", "bay 2"]}, seed=7, ids=ids)
    assert torch.allclose(again, x[[4, 0, 2]], equal_nan=True, atol=0.02)


def test_nothing_given_is_an_ordinary_sample_and_the_last_of_a_trajectory_is_the_sample(plain):
    assert torch.allclose(plain.sample(8, given={}), plain.sample(8), equal_nan=True)
    *_, (t, x) = plain.trajectory(8, given=GIVEN)
    assert t == 0
    assert torch.allclose(x, plain.sample(8, given=GIVEN), equal_nan=True)


@each("name", SAMPLERS)
def test_every_sampler_ends_at_what_is_given(plain, name):
    if SAMPLERS[name].facts().spans:
        with pytest.raises(InputError, match="spans two times"):
            plain.sample(4, sampler=name, steps=4, given=GIVEN)
        return
    codes = plain.codes(plain.asked_columns(GIVEN, None, 4)[0], False, Draws.first(4, 5))
    *_, (_, z) = plain.latents(4, sampler=name, steps=4, grid="uniform", given=GIVEN, seed=5)
    own = ~codes.isnan()
    assert torch.allclose(z[own], codes[own], atol=1e-4)
    assert bool(z.isfinite().all())


def test_a_value_is_given_anywhere_in_its_interval_and_one_beyond_the_table_as_its_nearest(plain):
    draws, at = Draws.first(400, 1), groups(plain.codec, 7)
    known = plain.asked_columns({"place": "bay 3"}, None, 400)[0]
    z = plain.codes(known, False, draws)[:, at.column == 5]
    assert torch.equal(plain.to_data(plain.codes(known, False, draws).nan_to_num(0.0))[:, 5], known[:, 5])
    u = torch.special.ndtr(z.double())
    low, high = float(u.min()), float(u.max())
    assert high - low > 0.9 * float(known_share := (plain_rows(plain)[:, 5] == known[0, 5]).double().mean())
    assert abs(float(u.mean()) - (low + high) / 2) < 0.1 * float(known_share)
    rows = torch.tensor([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]).repeat(20, 1)
    ranked = fit(flow(**TINY | {"steps": 1, "codec": "ranks"}), rows, solvers=False)
    beyond = torch.tensor([[-3.0, NAN], [0.0, NAN], [9.0, NAN], [2.0, NAN]])
    low, least, high, most = ranked.codes(beyond, False, Draws(1, torch.zeros(4, dtype=torch.int64)))[:, 0].tolist()
    assert (low, high) == (least, most)
    with pytest.warns(UserWarning, match="the network sees the nearest"):
        x = ranked.sample(4, given=beyond, steps=2)
    assert torch.equal(x[:, 0], beyond[:, 0])


def plain_rows(trained):
    return parts(trained.reading())[0].x


def test_filled_in_samples_have_every_cell(plain):
    assert bool(plain.sample(200).isnan().any())
    assert bool(plain.sample(50, given={"size": 5}).isnan().any())
    assert not plain.sample(200, fill=True).isnan().any()
    assert not plain.sample(200, fill=True, given={"size": 5}).isnan().any()


# --- labels ---------------------------------------------------------------------------------------------------


def test_a_label_is_a_condition_of_its_own_and_may_be_named_as_a_column(labelled):
    x = labelled.sample(6, given={"size": 5.0}, label="south", guidance=2.0)
    also = labelled.sample(6, given={"size": 5.0, "sea": "south"}, guidance=2.0)
    assert torch.allclose(x, also, equal_nan=True)
    assert (x[:, 0] == 5).all()
    assert not torch.equal(x, labelled.sample(6, given={"size": 5.0}, label="north", guidance=2.0))
    one = labelled.sample(1, given={"size": 5.0}, label="south", guidance=2.0)
    assert torch.allclose(one, x[:1], equal_nan=True, atol=0.02)
    with pytest.raises(InputError, match="label is too") as error:
        labelled.sample(6, given={"sea": "south"}, label="south")
    sentence(error.value)


# --- what keeps working ---------------------------------------------------------------------------------------


def test_it_is_resumed_exported_and_loaded_with_its_columns(folders, table, tmp_path, monkeypatch):
    recipe = tiny(data=str(table), **TINY)
    run_until(30, recipe, tmp_path / "run", monkeypatch)
    run(recipe, tmp_path / "run", resume=True)
    assert_same(tensors(tmp_path / "run"), tensors(folders / "plain"))
    trained = from_pretrained(folders / "plain")
    again = from_pretrained(trained.save_pretrained(tmp_path / "export"))
    assert torch.equal(again.sample(5, given=GIVEN), trained.sample(5, given=GIVEN))


def test_its_density_is_that_of_all_columns_together():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    trained = fit(flow(**TINY | {"steps": 10}), x, solvers=False)
    nothing = torch.full((3, 2), NAN)
    z = trained.to_network(x[:3])
    value = log_density(trained.denoiser, z, steps=10)
    assert torch.equal(value, log_density(trained.denoiser, z, steps=10, given=nothing))
    assert bool(value.isfinite().all())


def test_numbers_in_their_own_units_have_no_ends_and_standardised_ones_ten_deviations():
    x = torch.tensor([[100.0, 7.0, 0.0], [300.0, 7.0, 1.0]]).repeat(20, 1)
    own = fit(flow(**TINY | {"steps": 2, "standardise": False}), x, solvers=False)
    assert (own.sample(3, given={"1": 5000.0, "2": 7.0}, steps=2)[:, :2] == torch.tensor([5000.0, 7.0])).all()
    scaled = fit(flow(**TINY | {"steps": 2, "codec": "standardise"}), x, solvers=False)
    assert (scaled.sample(3, given={"1": 1199.0}, steps=2)[:, 0] == 1199).all()
    with pytest.raises(InputError, match=r"'1': it must be at least -800\.0 and at most 1200\.0, .*; got 1201\.0"):
        scaled.sample(3, given={"1": 1201.0})
    with pytest.raises(InputError, match=r"'2': it must be at least 7\.0 and at most 7\.0, .*; got 8\.0"):
        scaled.sample(3, given={"2": 8.0})


def test_a_short_training_learns_a_conditional_distribution():
    """An example: of a pair with correlation 0.8, E[y | x] = 0.8 x and std 0.6, both ways."""
    z = torch.randn(8000, 2, generator=torch.Generator().manual_seed(1))
    rows = torch.stack([z[:, 0], 0.8 * z[:, 0] + 0.6 * z[:, 1]], 1)
    recipe = flow(any_columns=True, steps=300, batch=256, network="mlp:width=32,depth=3", held_out=0.0)
    trained = fit(recipe, rows, solvers=False)
    for known, value in (("1", 1.2), ("2", -0.7)):
        x = trained.sample(2000, given={known: value}, steps=10)
        drawn = x[:, 2 - int(known)]
        assert abs(float(drawn.mean()) - 0.8 * value) < 0.1
        assert abs(float(drawn.std()) - 0.6) < 0.08
    x = trained.sample(2000, steps=10)
    assert abs(float(torch.corrcoef(x.T)[0, 1]) - 0.8) < 0.06


# --- data frames ----------------------------------------------------------------------------------------------


def frame(table, rows=8):
    pandas = pytest.importorskip("pandas")
    return pandas.read_csv(table).head(rows)


def test_a_frame_is_completed_and_its_cells_come_back_as_they_are(plain, table):
    rows = frame(table)
    rows["size"] = rows["size"].astype(object).where(rows.index != 3, None)
    holes = rows.drop(columns="place").assign(kind=rows["kind"].where(rows.index > 2))
    done = plain.complete(holes, seed=4)
    assert list(done.columns) == [*holes.columns, "place"]
    assert not done.isna().any().any()
    for name in holes.columns:
        known = holes[name].notna()
        assert list(done[name][known]) == list(holes[name][known]), name
        assert done[name].dtype == holes[name].dtype
    assert set(done["kind"]) <= {"cone", "cowrie", "whelk"}
    assert set(done["place"]) <= set(frame(table, 150)["place"])


def test_the_draws_of_a_row_are_the_same_among_others_and_whatever_their_number(plain, table):
    rows = frame(table).drop(columns="mass")
    three = plain.complete(rows, draws=3, seed=4)
    assert three["draw"].tolist() == [1, 2, 3] * 8
    one = plain.complete(rows, seed=4)
    assert np.allclose(one["mass"], three["mass"][::3], atol=0.02)
    assert len(set(three["mass"][:3])) == 3
    fewer = plain.complete(rows.head(2)[["sea", *rows.columns[:-1]]], draws=2, seed=4)  # in another order
    assert np.allclose(fewer["mass"], three["mass"][[0, 1, 3, 4]], atol=0.02)
    assert row_numbers(3, 2).tolist() == [0, 2**32, 1, 2**32 + 1, 2, 2**32 + 2]


def test_polars_frames_are_completed_too(plain, table):
    polars = pytest.importorskip("polars")
    rows = polars.read_csv(table).head(6).with_columns(polars.lit(None).alias("place"))
    done = plain.complete(rows, draws=2)
    assert done.columns == [*rows.columns, "draw"]
    assert done.null_count().sum_horizontal().item() == 0
    assert done["size"].to_list() == [size for size in rows["size"] for _ in range(2)]


def test_cells_are_merged_row_by_row():
    known = torch.tensor([[1.0, NAN], [NAN, 5.0]])
    columns = {"b": ["", "five"], "note": ["x", "y"], "draw": [0, 0]}
    drawn = {"a": [1.0, 1.0, 8.0, 9.0], "b": ["p", "q", "r", "s"]}
    assert merged(columns, drawn, known, 2) == {
        "b": ["p", "q", "five", "five"], "note": ["x", "x", "y", "y"], "draw": [0, 0, 0, 0], "a": [1.0, 1.0, 8.0, 9.0],
        "draw_": [1, 2, 1, 2],
    }  # fmt: skip


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"sizes": 4.7},
            r"'sizes' is no column that the run has learned \(did you mean 'size'\?\); it has 'size', 'kind'",
        ),
        ({"kind": "wellk"}, r"column 'kind': it must be one of 'cone', .*; got 'wellk' \(did you mean 'whelk'\?\)"),
        ({"size": 400}, r"column 'size': it must be at least [0-9.]+ and at most [0-9.]+, as in the table .*; got 400"),
        ({"size": -math.inf}, "column 'size': it must be a number; got '-inf'"),
        ({"size": "much"}, "column 'size': it must be a number; got 'much'"),
        ({"day": "2031-02-03"}, "'day': it must be at least 2024-01-0. and at most 2024-0.-.., .*; got 2031-02-03"),
        ({"day": "soon"}, "'day': it must be a date, as 2024-02-29; got 'soon'"),
        ({"size": [1.0, 2.0]}, "given 'size' must be one value or 3; got 2"),
        ([4.7], "given must be a Mapping"),
        (torch.zeros(3, 2), "given must be a tensor"),
        (torch.full((2, 7), NAN), "given must have one row or 3; got 2"),
    ],
)
def test_what_the_table_does_not_have_is_refused_in_one_sentence(plain, given, says):
    with pytest.raises(InputError, match=says) as error:
        plain.sample(3, given=given)
    sentence(error.value)


def test_a_run_without_masks_names_the_option(tmp_path):
    trained = run(tiny(), tmp_path / "run")
    for ask in (
        lambda: trained.sample(3, given={"1": 0.0}),
        lambda: trained.sample(3, fill=True),
        lambda: trained.complete(None),
    ):
        with pytest.raises(InputError, match="--any-columns") as error:
            ask()
        sentence(error.value)


def test_numbers_beyond_the_table_in_rows_are_kept_and_said(plain, table):
    rows = frame(table, 2).drop(columns="mass").assign(size=[99.5, 5.0])
    with pytest.warns(
        UserWarning, match=r"such as 99\.5 in 'size' \([0-9.]+ to [0-9.]+\): the network sees the nearest"
    ):
        done = plain.complete(rows)
    assert done["size"].tolist() == [99.5, 5.0]
    assert bool(np.isfinite(done["mass"]).all())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gaussians": 2}, "any_columns needs gaussians 0 or -1, .*; got 2"),
        ({"coupling": "ot"}, "any_columns needs .* coupling 'ot'"),
        ({"source": "eight_gaussians", "data": "two_moons"}, "source 'eight_gaussians'"),
        ({"data": "line.npy"}, "any_columns needs two columns or more; line.npy has one"),
    ],
)
def test_training_that_can_not_teach_it_is_refused(tmp_path, monkeypatch, changes, says):
    monkeypatch.chdir(tmp_path)
    np.save("line.npy", np.arange(30.0))
    with pytest.raises(InputError, match=says) as error:
        run(replace(tiny(), any_columns=True, **changes), tmp_path / "run")
    sentence(error.value)


def test_an_unknown_label_cell_is_refused(labelled, table):
    rows = frame(table, 3)
    rows.loc[1, "sea"] = None
    with pytest.raises(InputError, match=r"rows, row 2, column 'sea': the run draws the other columns given its label"):
        labelled.complete(rows)
    done = labelled.complete(frame(table, 3).drop(columns="mass"))
    assert done["sea"].tolist() == frame(table, 3)["sea"].tolist()
