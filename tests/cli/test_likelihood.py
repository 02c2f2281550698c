"""`likelihood`: a number in the data's own units, its errors, the truth, and a map."""

import math
import re
from dataclasses import fields

import numpy as np
import pytest
import torch

from ebbtide.cli.likelihood import Likelihood as Arguments, _draw
from ebbtide.data import DATASETS, Standardise, save_points
from ebbtide.exact.likelihood import Likelihood
from ebbtide.kinds.runs import from_pretrained
from ebbtide.training.trained import Trained

from .conftest import TINY

QUICK = ("--n", "60", "--steps", "8")


def rows(out):
    """{"log-density": (mean, error), …}."""
    found = re.findall(r"^(.*?)\s+(-?[\d.]+) ± ([\d.]+)$", out, re.M)
    return {name: (float(mean), float(error)) for name, mean, error in found}


def untrained(folder, scale=1.0):
    """The flow of an untrained network: with ŷ = 0 nothing moves, so it is N(0, 1) in its own units."""
    trained = from_pretrained(folder)
    with torch.no_grad():
        for parameter in trained.denoiser.parameters():
            parameter.zero_()
    return Trained(
        trained.denoiser, trained.recipe, (2,), Standardise((1.0, -2.0), (scale, 3.0)), trained.columns, trained.classes
    )


@pytest.fixture
def small_map(monkeypatch):
    monkeypatch.setattr("ebbtide.cli.likelihood.MAP", 12)
    monkeypatch.setattr("ebbtide.cli.likelihood.MAP_STEPS", 4)


def test_a_density_in_the_datas_own_units_beside_the_truth(ebbtide, runs, tmp_path):
    """N((1, -2), diag(½, 3)²) by construction; worked out from the points by torch's own normal."""
    untrained(runs / "flow", 0.5).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 2)) * (0.5, 3) + (1, -2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code, out, err = ebbtide("likelihood", "model", "--data", "x.npy", "--no-picture", "--steps", "20")
    each = torch.distributions.Normal(torch.tensor([1.0, -2]), torch.tensor([0.5, 3])).log_prob(torch.tensor(x)).sum(1)
    assert code == 0
    assert "log-densities change" not in err
    mean, error = rows(out)["log-density"]
    assert mean == pytest.approx(float(each.mean()), abs=2e-3)
    assert error == pytest.approx(float(each.std()) / math.sqrt(50), abs=2e-3)
    assert "truth" not in out
    code, out, _ = ebbtide("likelihood", "model", "--data", "pinwheel", "--no-picture", *QUICK)
    found, known = rows(out), DATASETS["pinwheel"]
    x, _ = known.sample(60, torch.Generator().manual_seed(0))
    assert found["truth"][0] == pytest.approx(float(known.log_density(x.double()).mean()), abs=1e-3)
    assert found["truth - log-density"][0] == pytest.approx(found["truth"][0] - found["log-density"][0], abs=2e-4)


def test_the_map_is_the_density_in_the_datas_own_units(runs, monkeypatch, tmp_path):
    """That of N((1, -2), diag(½, 3)²), rows from low y to high, and its frame the point set's."""
    drawn = []
    monkeypatch.setattr("ebbtide.cli.likelihood.MAP", 12)
    monkeypatch.setattr("ebbtide.plots.density.density_map", lambda model, frame, **_: drawn.append((model, frame)))
    monkeypatch.setattr("ebbtide.plots.style.save", lambda figure, path: path)
    _draw(untrained(runs / "flow", 0.5), torch.zeros(2, 2), tmp_path / "x.png", lambda steps: None)
    [(model, frame)] = drawn
    assert frame.tolist() == [[-3.5, 3.5]] * 2
    places = torch.linspace(-3.5, 3.5, 25, dtype=torch.float64)[1::2]
    normal = lambda mean, std: torch.distributions.Normal(mean, std).log_prob(places)
    np.testing.assert_allclose(model, normal(-2.0, 3.0)[:, None] + normal(1.0, 0.5), atol=2e-3)


@pytest.mark.filterwarnings("ignore:.*log-densities change")
@pytest.mark.parametrize("name", ["flow", "ddpm", "edm", "bridge", "conditional", "plants", "line"])
def test_every_run_has_a_likelihood(ebbtide, runs, name, small_map):
    picture = runs / name / "density.png"
    picture.unlink(missing_ok=True)
    code, out, err = ebbtide("likelihood", runs / name, *QUICK)
    assert code == 0, err
    assert math.isfinite(rows(out)["log-density"][0])
    assert ("truth" in out) == (name in ("flow", "ddpm", "edm", "bridge"))
    assert picture.exists() == (name != "line")
    assert "discretisation" in out
    if picture.exists():
        assert f"figure: {picture}" in err
        assert picture.stat().st_size > 5000


def test_a_constant_column_has_no_density(ebbtide, tmp_path):
    rows = [f"{x},7.3,{2 * x}" for x in range(30)]
    (tmp_path / "table.csv").write_text("\n".join(["a,fixed,c", *rows]))
    assert (
        ebbtide(
            "train",
            "flow",
            "--data",
            tmp_path / "table.csv",
            *TINY,
            "--codec",
            "standardise",
            "--out",
            tmp_path / "run",
        )[0]
        == 0
    )
    code, out, err = ebbtide("likelihood", tmp_path / "run", *QUICK)
    assert (code, out) == (2, "")
    assert "train without it: fixed = 7.3" in err


@pytest.mark.parametrize("divergence", ["hutchinson", "hutch++"])
def test_probes_agree_with_the_exact_divergence(ebbtide, runs, divergence):
    given = (runs / "flow", *QUICK, "--no-picture")
    exact = rows(ebbtide("likelihood", *given)[1])["log-density"][0]
    code, out, _ = ebbtide("likelihood", *given, "--divergence", divergence, "--probes", "6")
    assert code == 0
    assert f"{divergence}:probes=6 divergence" in out
    assert "probes  " in out
    assert rows(out)["log-density"][0] == pytest.approx(exact, abs=0.2)


def test_pieces_make_no_difference(ebbtide, runs, monkeypatch):
    given = ("likelihood", runs / "flow", *QUICK, "--no-picture", "--divergence", "hutchinson", "--probes", "2")
    whole = rows(ebbtide(*given)[1])
    monkeypatch.setattr("ebbtide.cli.likelihood.CHUNK", 7)
    assert rows(ebbtide(*given)[1])["log-density"] == pytest.approx(whole["log-density"], abs=1e-3)


def test_every_option_reaches_the_equation(ebbtide, runs, tmp_path, monkeypatch):
    """Of a file that is measured whole the seed is that of the probes alone; of a set that of its points."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32))
    usual = {"data": "x.npy", "n": "30", "seed": "0", "steps": "8", "divergence": "hutchinson", "probes": "3"}
    others = {"data": "pinwheel", "n": "29", "seed": "1", "steps": "4", "divergence": "hutch++", "probes": "4"}
    told = []

    def measured(denoiser, x, *, steps, divergence, draws, **rest):
        told.append((x.tolist(), steps, divergence, draws.seed, torch.get_num_threads()))
        return Likelihood(*torch.zeros(3, len(x)))

    monkeypatch.setattr("ebbtide.exact.likelihood.likelihood", measured)

    def asked(**changes):
        words = [word for name, value in (usual | changes).items() for word in (f"--{name}", value)]
        code, _, err = ebbtide("likelihood", runs / "conditional", *words, "--no-picture")
        assert code == 0, err
        return told[-1]

    assert asked() == asked()
    assert [name for name, value in others.items() if asked(**{name: value}) == asked()] == []
    for drawn in ("pinwheel", ""):  # or the run's own set
        assert asked(data=drawn, seed="1")[0] != asked(data=drawn)[0]
    assert asked(threads="2")[-1] == 2
    assert asked()[-1] == 1
    assert usual.keys() | {"run", "computing", "picture", "rows", "flag"} == {field.name for field in fields(Arguments)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--steps", "3"), "--steps must be at least 4"),
        (("--n", "1"), "--n must be at least 2"),
        (("--probes", "3"), "--probes belongs to hutchinson"),
        (("--divergence", "hutch++", "--probes", "2"), "probes must be at least 3"),
        (("--divergence", "trace"), "--divergence must be one of"),
        (("--data", "missing.npy"), "missing.npy"),
        (("--data", "point_mass"), "points of 2 numbers, but point_mass has 1"),
    ],
)
def test_what_can_not_be_is_one_sentence(ebbtide, runs, given, says):
    code, out, err = ebbtide("likelihood", runs / "flow", *given)
    assert (code, out) == (2, "")
    assert err.startswith("ebbtide: ")
    assert says in err
    assert err.count("\n") == 1


def test_coupled_ends_are_refused(ebbtide, runs):
    for name in ("between", "ot-flow"):
        code, out, err = ebbtide("likelihood", runs / name, *QUICK)
        assert (code, out) == (2, "")
        assert "independent Gaussian noise" in err


def test_a_policy_is_refused(ebbtide, policy):
    error = f"ebbtide: likelihood is for runs on points; {policy} is a policy.\n"
    assert ebbtide("likelihood", policy) == (2, "", error)


def test_labelled_samples_are_read_again_by_the_runs_own_label(ebbtide, tmp_path):
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    moods = ["Spaß", "Ernst"] * 30
    save_points(tmp_path / "table.csv", x, ["a", "b"], moods, "mood")
    small = [
        "--conditional",
        "--codec",
        "standardise",
        "--steps",
        "3",
        "--batch",
        "16",
        "--snapshots",
        "0",
        "--no-fit",
        "--quiet",
        "--network",
        "mlp:width=8,depth=2",
    ]
    assert ebbtide("train", "flow", "--data", "table.csv", "--label", "mood", *small, "--out", "run")[0] == 0
    few = ("--n", "20", "--steps", "4", "--no-picture")
    assert ebbtide("sample", "run", *few, "--label", "all", "--out", "s1.csv")[0] == 0
    assert (tmp_path / "s1.csv").read_text().splitlines()[0] == "a,b,mood"
    code, out, err = ebbtide("likelihood", "run", *few, "--data", "s1.csv")
    assert (code, "20 points" in out) == (0, True), err
    (tmp_path / "s2.csv").write_text((tmp_path / "s1.csv").read_text().replace("mood", "label"))
    assert ebbtide("likelihood", "run", *few, "--data", "s2.csv")[1] == out
    assert ebbtide("train", "flow", "--data", "s1.csv", "--label", "mood", *small, "--out", "again")[0] == 0


def test_outlying_rows_are_flagged_by_their_number_in_the_file(ebbtide, tmp_path):
    """Of a table with gaps and levels in order, seen by ranks: a row beyond all others, and levels by their names."""
    rng = np.random.default_rng(0)
    grades = ["low", "mid", "high"]
    lines = [
        f"{x:.3f},{'' if k % 9 == 0 else round(x * 2)},{grades[k % 3]}" for k, x in enumerate(rng.normal(size=120))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,grade", *lines]))
    told = ("--ordered", "grade=low<mid<high", "--held-out", "0.3")
    assert ebbtide("train", "flow", "--data", tmp_path / "table.csv", *told, *TINY, "--out", tmp_path / "run")[0] == 0
    (tmp_path / "new.csv").write_text("a,b,grade\n0.1,1,high\n99,50,high\n0.2,,high\n-0.3,1,high\n")
    flags = ("--steps", "4", "--flag", "2", "--no-picture")
    code, out, err = ebbtide("likelihood", tmp_path / "run", *flags, "--data", tmp_path / "new.csv")
    assert code == 0, err
    head, first, second = out.splitlines()[-3:]
    assert head.split() == ["row", "log-density", "less", "likely", "of", "held-out", "rows"]
    assert first.split()[0] == "2"
    assert float(first.split()[1]) < float(second.split()[1])
    assert "nats in ranks; 4 points" in out
    code, out, err = ebbtide("likelihood", tmp_path / "run", *flags)
    assert code == 0, err
    assert "nats in ranks; 120 points" in out  # all of the run's own, not the held-out ones alone
    (tmp_path / "new.csv").write_text("a,b,grade\n0.1,1,other\n0.2,2,high\n")
    code, _, err = ebbtide("likelihood", tmp_path / "run", *flags, "--data", tmp_path / "new.csv")
    assert code == 2
    assert "column 'grade': 'other' is not one of the run's levels" in err
    code, _, err = ebbtide("likelihood", tmp_path / "run", "--steps", "4")  # without the flag, as before
    assert (code, "has no density under it" in err) == (2, True)


def test_levels_as_unit_vectors_can_t_be_flagged(ebbtide, tmp_path):
    lines = [f"{k % 7},{'ab'[k % 2]}" for k in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["a,kind", *lines]))
    assert ebbtide("train", "flow", "--data", tmp_path / "table.csv", *TINY, "--out", tmp_path / "run")[0] == 0
    code, _, err = ebbtide("likelihood", tmp_path / "run", "--flag", "3")
    assert code == 2
    assert "sees levels as unit vectors, which have no density; --ordered, or --drop, in training" in err
