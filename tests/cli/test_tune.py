"""`tune` finds and stores a winner, and `sample --steps auto` draws with it; what is damaged is one sentence."""

import json
import shutil

import numpy as np
import pytest
import torch

from ebbtide.cli import main
from ebbtide.exact.tune import evaluations
from ebbtide.exact.tuned import Tuned, read_tuned, write_tuned
from ebbtide.kinds.runs import from_pretrained

FEW = ("ddim", "heun:clock=flow", "midpoint:clock=flow", "exponential:order=2,form=x0,clock=flow,corrector=true")
QUICK = ("--n", "16", "--reference", "20", "--depth", "grids")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that nobody changes."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    small = ["--steps", "20", "--points", "300", "--batch", "64", "--snapshots", "1", "--checkpoints", "1", "--quiet"]
    assert main(["train", "flow", *small, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run", symlinks=True)


@pytest.fixture
def few(monkeypatch):
    """Four solvers to choose from instead of all."""
    monkeypatch.setattr("ebbtide.exact.tune.SOLVERS", FEW)


def stored(run):
    return read_tuned((run / "tuned.json").read_bytes(), "tuned.json")


def row(n, **changes):
    return Tuned(**{
        "evaluations": n, "sampler": "euler", "grid": "quadratic", "steps": n, "rms": 0.1, "median": 0.01,
        "error": 1e-6, "usual": 0.2, **changes,
    })  # fmt: skip


def test_an_oracles_winner_is_printed_and_stored_nowhere(ebbtide, few, tmp_path):
    code, out, err = ebbtide("tune", "oracle", "--evaluations", "5", *QUICK)
    assert code == 0, err
    assert out.startswith("5 evaluations: ")
    assert "\non the grid " in out
    assert "the best of the usual solvers on the uniform grid comes to RMS " in out
    assert list(tmp_path.iterdir()) == []
    code, other, err = ebbtide("tune", "oracle", "--evaluations", "1", "--path", "ve", *QUICK[:4])  # in full depth
    assert code == 0, err
    assert other.startswith("1 evaluations: 1 steps of ")


def test_a_runs_winner_is_stored_and_steps_auto_draws_with_it(ebbtide, few, run, tmp_path):
    """auto is the sampler, the grid and the steps of tuned.json, given by hand; the network is asked that often."""
    code, out, err = ebbtide("tune", run, "--evaluations", "4", *QUICK)
    assert code == 0, err
    assert f"stored in {run}/tuned.json" in err
    (found,) = stored(run)
    assert found.evaluations == 4
    assert out.startswith(f"4 evaluations: {found.steps} steps of {found.sampler}"[:60])
    loaded = from_pretrained(run)
    assert loaded.tuned == (found,)
    assert found.weights == loaded.fingerprint()
    from ebbtide.core.times import grid_times
    from ebbtide.samplers import SAMPLERS
    from ebbtide.specs import bind

    path = loaded.denoiser.path
    times = grid_times(found.grid, found.steps, path)
    assert 1 <= evaluations(bind(SAMPLERS, found.sampler, "sampler"), path, times) <= 4
    given = ("--n", "20", "--seed", "3", "--no-picture", "--overwrite", "--out")
    by_hand = ("--sampler", found.sampler, "--grid", found.grid, "--steps", str(found.steps))
    for name, steps in (
        ("auto", ("--steps", "auto")),
        ("number", ("--steps", "auto:4")),
        ("hand", by_hand),
        ("own", ()),
    ):
        code, _, err = ebbtide("sample", run, *steps, *given, f"{name}.npy")
        assert code == 0, err
    auto, number, hand, own = (np.load(tmp_path / f"{name}.npy") for name in ("auto", "number", "hand", "own"))
    assert np.array_equal(auto, hand)
    assert np.array_equal(auto, number)
    assert not np.array_equal(auto, own)


def test_every_option_reaches_the_search(ebbtide, monkeypatch, tmp_path):
    """As do the labels that a run's network is asked with."""
    small = ["--steps", "2", "--points", "50", "--batch", "16", "--snapshots", "0", "--quiet", "--out", "labelled"]
    assert main(["train", "flow", "--data", "two_spirals", "--conditional", *small]) == 0
    told = []

    def searched(denoiser, start, *numbers, cond, progress, rivals, **options):
        told.append((start.tolist(), numbers, options, torch.get_num_threads()))
        assert [cond["label"].tolist()] == [[2] * len(start)]  # the null label
        return row(3)

    monkeypatch.setattr("ebbtide.exact.tune.tune", searched)
    names = ("evaluations", "aim", "depth", "n", "seed", "reference", "threads")
    usual, others = (
        dict(zip(names, values.split(), strict=True)) for values in ("3 both grids 8 0 20 1", "4 rms times 9 1 30 2")
    )

    def asked(**changes):
        words = [word for name, value in (usual | changes).items() for word in (f"--{name}", value)]
        code, _, err = ebbtide("tune", tmp_path / "labelled", *words)
        assert code == 0, err
        return told[-1]

    assert asked() == asked()
    assert [one.sampler for one in stored(tmp_path / "labelled")] == ["euler"]
    assert [name for name, value in others.items() if asked(**{name: value}) == asked()] == []


def test_the_oracles_starts_follow_the_seed(ebbtide, monkeypatch):
    told = []

    def searched(denoiser, start, *_, **__):
        told.append(start.tolist())
        return row(3)

    monkeypatch.setattr("ebbtide.exact.tune.tune", searched)
    for seed in ("0", "0", "1"):
        assert ebbtide("tune", "oracle", "--n", "8", "--seed", seed)[0] == 0
    assert told[0] == told[1]
    assert told[0] != told[2]


def test_a_run_has_a_path_of_its_own(ebbtide, run):
    code, _, err = ebbtide("tune", run, "--path", "ve")
    assert (code, err) == (2, f"ebbtide: ve is not the path that {run} was trained with, which is linear.\n")


def test_tuning_again_keeps_what_was_tuned_for_other_numbers(ebbtide, few, run):
    (run / "tuned.json").write_bytes(write_tuned([row(3), row(7)]))
    assert ebbtide("tune", run, "--evaluations", "3", *QUICK)[0] == 0
    first, second = stored(run)
    assert first == row(7)
    assert second.evaluations == 3
    assert second.sampler != "euler"
    assert not list(run.glob("*.writing"))


def test_auto_is_the_latest_and_auto_n_the_one_of_that_number(ebbtide, run, tmp_path):
    (run / "tuned.json").write_bytes(write_tuned([row(2), row(6), row(4, sampler="heun", steps=3)]))
    found = {}
    for steps in ("auto", "auto:2", "auto:6", "auto:4"):
        assert (
            ebbtide("sample", run, "--steps", steps, "--n", "6", "--no-picture", "--out", "x.npy", "--overwrite")[0]
            == 0
        )
        found[steps] = torch.from_numpy(np.load(tmp_path / "x.npy"))
    loaded = from_pretrained(run)
    by_hand = lambda sampler, steps: loaded.sample(6, sampler=sampler, grid="quadratic", steps=steps)
    assert torch.equal(found["auto"], by_hand("heun", 3))
    assert torch.equal(found["auto:4"], found["auto"])
    assert torch.equal(found["auto:2"], by_hand("euler", 2))
    assert torch.equal(found["auto:6"], by_hand("euler", 6))


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (
            ("auto:25",),
            "own solver is fitted for 1 to 20 evaluations; got 25. For more, tune the run: ebbtide.tune (ebbtide tune "
            "RUN --evaluations 25).",
        ),
        (("auto:",), "steps must be a number, auto, or auto:N for N evaluations; got 'auto:'."),
        (("auto:-2",), "got 'auto:-2'."),
        (("automatic",), "got 'automatic'."),
        (("auto", "--sampler", "euler"), "steps=auto chooses the sampler and the grid itself; leave them out."),
        (("auto", "--grid", "uniform"), "steps=auto chooses the sampler and the grid itself; leave them out."),
    ],
)
def test_an_auto_that_can_not_be_is_one_sentence(ebbtide, run, tmp_path, steps, says):
    (run / "tuned.json").write_bytes(write_tuned([row(2), row(6)]))
    code, out, err = ebbtide("sample", run, "--n", "4", "--no-picture", "--out", "x.npy", "--steps", *steps)
    assert (code, out) == (2, "")
    assert err.startswith("ebbtide: ")
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.npy").exists()


def test_a_run_that_was_never_tuned_is_fitted_a_solver(ebbtide, run, tmp_path, monkeypatch):
    """On first use, which is kept in the cache: the same samples come again, and the run stays as it is."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    before = sorted(path.name for path in run.iterdir())
    drawn = []
    for name in ("a", "b"):
        code, _, err = ebbtide("sample", run, "--n", "4", "--no-picture", "--steps", "auto:3", "--out", f"{name}.npy")
        assert code == 0, err
        drawn.append(np.load(tmp_path / f"{name}.npy"))
    assert np.array_equal(*drawn)
    assert sorted(path.name for path in run.iterdir()) == before
    assert len(list((tmp_path / "cache").glob("solver-*"))) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"{}",
        b"[1]",
        b'[{"steps": 3}]',
        b"\xff\xfe",
        write_tuned([row(3)]).replace(b'"euler"', b"7"),
        write_tuned([row(3)]).replace(b'"steps": 3', b'"steps": 0'),
        write_tuned([row(3)]).replace(b'"grid"', b'"grit"'),
    ],
)
def test_a_damaged_file_is_one_sentence(ebbtide, run, data):
    (run / "tuned.json").write_bytes(data)
    for command in (("sample", run, "--n", "4", "--no-picture"), ("sample", run, "--n", "4", "--steps", "auto")):
        code, out, err = ebbtide(*command)
        assert (code, out) == (2, "")
        assert err.startswith("ebbtide: ")
        assert "tuned.json" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"sampler": "os.system"}, "sampler must be one of"), ({"grid": "../../grid"}, "grid must be one of")],
)
def test_a_file_with_other_names_runs_nothing(ebbtide, run, changes, says):
    (run / "tuned.json").write_bytes(write_tuned([row(3, **changes)]))
    code, _, err = ebbtide("sample", run, "--n", "4", "--no-picture", "--steps", "auto")
    assert code == 2
    assert says in err


def test_what_was_tuned_goes_with_an_export(ebbtide, run, tmp_path):
    (run / "tuned.json").write_bytes(write_tuned([row(3)]))
    assert ebbtide("export", run, "--out", "shared")[0] == 0
    assert json.loads((tmp_path / "shared" / "tuned.json").read_text()) == [row(3).to_config()]
    ends = []
    for folder in (run, tmp_path / "shared"):
        given = ("--n", "5", "--steps", "auto", "--no-picture", "--out", "x.npy", "--overwrite")
        assert ebbtide("sample", folder, *given)[0] == 0
        ends.append(np.load(tmp_path / "x.npy"))
    assert np.array_equal(*ends)


@pytest.mark.parametrize("before", [(), (3,)], ids=["never tuned", "tuned before"])
def test_an_exported_folder_can_be_tuned(ebbtide, few, run, tmp_path, before):
    """What is said to be stored is used, and the folder stays whole."""
    if before:
        (run / "tuned.json").write_bytes(write_tuned([row(n) for n in before]))
    assert ebbtide("export", run, "--out", "shared")[0] == 0
    code, _, err = ebbtide("tune", "shared", "--evaluations", "2", *QUICK)
    if code == 2:  # refused: then nothing has changed
        assert err.count("\n") == 1
        assert [one.evaluations for one in from_pretrained(tmp_path / "shared").tuned] == list(before)
        return
    assert [one.evaluations for one in from_pretrained(tmp_path / "shared").tuned] == [*before, 2]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("nowhere",), "nowhere is not a folder"),
        ((), "run"),
        (("oracle", "--evaluations", "0"), "--evaluations must be at least 1"),
        (("oracle", "--n", "3"), "--n must be at least 4"),
        (("oracle", "--reference", "2"), "--reference must be at least 10"),
        (("oracle", "--path", "lineal"), "path must be one of"),
        (("oracle", "--depth", "seven"), "depth must be one of"),
        (("oracle", "--source", "two_moons"), "--source is for runs"),
    ],
)
def test_what_can_not_be_is_one_sentence(ebbtide, given, says):
    code, out, err = ebbtide("tune", *given)
    assert (code, out) == (2, "")
    assert err.startswith("ebbtide: ")
    assert says in err.lower()
    assert err.count("\n") == 1


def test_a_policy_is_refused(ebbtide, policy):
    error = f"ebbtide: A sampler is tuned for runs without observations; {policy} is a policy.\n"
    assert ebbtide("tune", policy) == (2, "", error)
