"""The comparison is fair, counts right, writes what it promises, and can be stopped at any time."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.cli import main
from ebbtide.data import DATASETS, save_points
from ebbtide.errors import InputError
from ebbtide.kinds import KINDS, compare as comparing, kind_of
from ebbtide.kinds.compare import _shared, compare, save_metrics, summary
from ebbtide.kinds.points import study
from ebbtide.kinds.points.data import limits
from ebbtide.kinds.points.kind import PLAN
from ebbtide.kinds.runs import begin as prepare, from_pretrained
from ebbtide.metrics import METRICS
from ebbtide.plots.study import Comparison
from ebbtide.recipes import HELD_OUT, RECIPES, ImageRecipe, PointRecipe
from ebbtide.signals import Interrupted
from ebbtide.tensors import unpack
from ebbtide.training.checkpoint import newest_valid
from ebbtide.training.examples import batch_indices
from forking import forking
from interrupting import at_every_line, wait_until

KEYS = ("diffusion", "flow")
STEPS = 5
TINY = replace(PointRecipe(validation=0.0, held_out=HELD_OUT), steps=STEPS, points=500, batch=64)
EVALUATIONS = {"euler": lambda n: n, "heun": lambda n: 2 * n - 1, "ddim": lambda n: n, "ddpm": lambda n: n}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A tiny comparison made by the command in two processes: what it found, and its folder."""
    folder, found = tmp_path_factory.mktemp("comparison") / "out", []
    with pytest.MonkeyPatch.context() as patch:
        forking(patch)
        patch.setattr(
            "ebbtide.kinds.compare.compare",
            lambda *args, **options: found.append(compare(*args, **options)) or found[0],
        )
        command = ["compare", "--steps", str(STEPS), "--points", "500", "--batch", "64", "--n", "300", "--quiet"]
        assert main([*command, "--out", str(folder)]) == 0
    return found[0], folder


def test_both_methods_start_alike(comparison):
    """The same initial weights, the same data in the same order, the same starting noise."""
    _, folder = comparison
    one, two = (from_pretrained(folder / key).recipe for key in KEYS)
    own = PLAN.own
    assert {name for name, value in vars(one).items() if value != getattr(two, name)} <= set(own)
    for base, recipe in zip(PLAN.rows, (one, two), strict=True):
        assert [getattr(recipe, name) for name in own] == [getattr(RECIPES[base](), name) for name in own]
    starts, data = zip(*(prepare(recipe) for recipe in (one, two)), strict=True)
    for a, b in zip(starts[0].denoiser.parameters(), starts[1].denoiser.parameters(), strict=True):
        assert (a == b).all()
    assert (data[0].x == data[1].x).all()
    assert batch_indices(one.seed, 3, one.batch, 500).tolist() == batch_indices(two.seed, 3, two.batch, 500).tolist()
    first = [next(start.trajectory(50, seed=0))[1] for start in starts]
    assert torch.allclose(*first, atol=1e-4)  # DDPM's σ(1) is 0.99998


def test_what_is_to_be_shared_tells_of_no_folder(comparison, tmp_path):
    """The report and its numbers; the command and the settings of a comparison of the user's own data."""
    found, folder = comparison
    assert found.command == f"ebbtide compare --steps {STEPS} --points 500 --batch 64 --n 300 --quiet --out out"
    for path in filter(Path.is_file, folder.iterdir()):
        assert str(folder.parent).encode() not in path.read_bytes(), path.name
    command = ["ebbtide", "compare", "--data", "/srv/jo/own data/a.csv", "--out=/srv/jo/found", "--network", "mlp"]
    assert _shared(shlex.join(command), PointRecipe()) == "ebbtide compare --data a.csv --out=found --network mlp"
    assert _shared("ebbtide compare --data /srv/jo=1/a.csv", PointRecipe()) == "ebbtide compare --data a.csv"
    hub = "ebbtide compare --data hf:user/mnist --steps 5"
    assert _shared(hub, ImageRecipe()) == hub
    save_points(tmp_path / "own.csv", torch.randn(120, 2, generator=torch.Generator().manual_seed(0)))
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 9).save(tmp_path / "b.png")
    for recipe in (PointRecipe(data=str(tmp_path / "own.csv")), ImageRecipe(data=str(tmp_path))):
        text = str(kind_of(recipe).plan.shown(recipe, 2))
        assert str(tmp_path) not in text
        assert Path(recipe.data).name in text


def test_rows_are_those_of_the_table_with_their_evaluations(comparison):
    found, _ = comparison
    wanted = [(row.key, *way) for row in PLAN.rows.values() for way in row.ways]
    assert [(s.method, s.label, s.steps) for s in found.samplings] == [(k, label, n) for k, label, _, _, n in wanted]
    for s in found.samplings:
        assert s.evaluations == EVALUATIONS[s.sampler.partition(":")[0]](s.steps)
        assert s.samples.shape == (300, 2)
        assert np.isfinite(s.samples).all()
        names = [row.name for row in s.measurements]
        assert names[:4] == ["non-finite", "within-mode sliced W2", "outliers beyond 4 σ", "mean log-density"]
    floors = {tuple((row.name, row.floor) for row in s.measurements) for s in found.samplings if s.method == "flow"}
    assert len(floors) == 1


def test_the_same_samples_as_the_run_itself_draws(comparison):
    found, folder = comparison
    heun = next(s for s in found.samplings if (s.method, s.label) == ("flow", "Heun, 10 steps"))
    again = from_pretrained(folder / "flow").sample(300, seed=0, sampler="heun", grid="quadratic", steps=10)
    assert np.allclose(heun.samples, again.numpy(), atol=1e-5)


def test_the_summary_has_every_row_and_the_floor(comparison):
    found, _ = comparison
    lines = summary(found).splitlines()
    rules = [k for k, line in enumerate(lines) if line.startswith("───")]
    assert len(rules) == 2
    assert rules[1] - rules[0] - 1 == len(found.samplings) == 8
    names = [
        "within-mode sliced W2", "outliers beyond 4 σ", "mean log-density", "MMD²", "energy distance", "sliced W2",
    ]  # fmt: skip
    assert [name for name, row in METRICS.items() if row.in_summary] == names
    truth = {m.name: m.floor for m in found.samplings[0].measurements}
    shown = [truth[name] for name in names]
    assert lines[-2].split() == ["truth", "against", "truth", *(f"{floor:.4g}" for floor in shown)]
    assert lines[-1] == "=: can't be told from truth, p ≥ 0.01"
    for line, s in zip(lines[rules[0] + 1 :], found.samplings, strict=False):
        measured = [m for m in s.measurements if m.name in names]
        assert [f"{m.value:.4g}" + " =" * m.at_floor for m in measured] == re.split(r"  +", line.strip())[4:]
    assert "Heun, 50 steps    99" in summary(found)


def test_metrics_json_has_every_number(comparison, tmp_path):
    found, _ = comparison
    numbers = json.loads(save_metrics(found, tmp_path).read_text())
    assert numbers["command"].startswith(f"ebbtide compare --steps {STEPS} --points 500")
    assert [row["label"] for row in numbers["samplings"]] == [s.label for s in found.samplings]
    for row in numbers["samplings"]:
        measured = {m["name"]: m for m in row["measurements"]}
        assert {"within-mode sliced W2", "MMD²", "sliced W2", "exact W2", "fraction in mode 2"} <= set(measured)
        assert all(m["floor_low"] <= m["floor"] <= m["floor_high"] for m in measured.values())
        assert all(m["at_floor"] == (m["p"] >= 0.01) for m in measured.values())
        assert all(m["difference"] == m["value"] - m["floor"] for m in measured.values())
    assert set(numbers["quality"]) == {"DDPM · Euler", "DDPM · Heun", "Flow matching · Euler", "Flow matching · Heun"}
    assert [count for count, _ in numbers["quality"]["DDPM · Heun"]] == [5, 9, 19, 49, 99]
    assert numbers["quality_metric"] in METRICS
    assert all(0 < t["cpu_seconds"] < 60 and t["last_loss"] > 0 for t in numbers["training"])


def test_numbers_that_are_not_finite_are_null(comparison, tmp_path):
    found, _ = comparison
    quality = {name: [(5, float("nan"))] for name in found.quality}
    numbers = json.loads(save_metrics(replace(found, quality=quality, floor=(0.0, float("inf"))), tmp_path).read_text())
    assert numbers["quality"]["DDPM · Heun"] == [[5, None]]
    assert numbers["floor"] == [0.0, None]


def test_there_is_something_to_draw(comparison):
    found, _ = comparison
    for method in found.methods:
        assert method.walk.shape == (len(method.walk_times), study.WALK_POINTS, 2)
        assert (method.walk_times[0], method.walk_times[-1]) == (1, 0)
        assert [t for t, *_ in method.fields] == [0.9, 0.7, 0.5, 0.3, 0.1]
        assert [step for step, _ in method.evolution] == sorted({step for step, _ in method.evolution})
        assert method.steps[-1] == STEPS
    assert np.allclose(found.methods[0].walk[0], found.methods[1].walk[0], atol=1e-3)


def test_a_comparison_is_neither_overwritten_nor_mixed_with_another_unasked(comparison):
    _, folder = comparison
    with pytest.raises(InputError, match="already holds a comparison"):
        compare(TINY, folder, n=300)
    with pytest.raises(InputError, match=f"trained with steps={STEPS}, not 40"):
        compare(replace(TINY, steps=40), folder, n=300, workers=1, resume=True, progress=False)


def test_any_number_of_methods_and_runs_among_them(comparison, tmp_path, capsys, monkeypatch):
    """In one process; the run is not trained again, and a comparison of runs alone trains none."""
    folder = comparison[1]
    monkeypatch.chdir(tmp_path)
    before = (folder / "flow" / "metrics.jsonl").read_bytes()
    few = ["--steps", "3", "--points", "500", "--batch", "64", "--n", "100", "--workers", "1", "--quiet"]
    assert main(["compare", *few, "--methods", f"edm, {folder / 'flow'},ot-flow", "--out", "out"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("EDM, flow and OT-CFM on three gaussians; trained in EDM")
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [(row["method"], row["label"]) for row in numbers["samplings"]] == [
        ("edm", "Heun, 18 steps"), ("flow", "Heun, 50 steps"), ("ot-flow", "Heun, 10 steps"),
    ]  # fmt: skip
    lines = {f"{name} · {solver}" for name in ("EDM", "flow", "OT-CFM") for solver in ("Euler", "Heun")}
    assert set(numbers["quality"]) == lines
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"edm", "ot-flow"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"a run of {STEPS} steps of 64, mlp" in page
    assert page.count("its noise explodes") == 1
    assert str(folder.parent) not in page
    assert (folder / "flow" / "metrics.jsonl").read_bytes() == before
    for methods, says in (
        ("flow,flow", "methods names flow twice"),
        ("flow,nowhere", "A method that isn't a run's folder must be one of ddpm, flow, "),
        (f"{tmp_path},flow", ""),
        (",", "methods must name at least one"),
    ):
        assert main(["compare", *few, "--methods", methods, "--out", "other"]) == 2
        _, err = capsys.readouterr()
        assert says in err
        assert err.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_runs_alone_are_sampled_as_they_are(comparison, tmp_path):
    found, folder = comparison
    alone = compare(TINY, tmp_path / "alone", (folder / "flow",), n=300, workers=1, progress=False)
    heun = next(s for s in found.samplings if (s.method, s.label) == ("flow", "Heun, 50 steps"))
    assert (alone.samplings[0].samples == heun.samples).all()
    assert alone.title == "flow on three gaussians"
    assert set(alone.settings) == {"data", "samples", "seed"}
    with pytest.raises(InputError, match="holds no comparison to resume"):
        compare(TINY, tmp_path / "alone", (folder / "flow",), resume=True)
    save_metrics(alone, tmp_path / "alone")
    with pytest.raises(InputError, match="already holds a comparison"):
        compare(TINY, tmp_path / "alone", (folder / "flow",))


@pytest.mark.slow
def test_resume_after_the_end_measures_the_same_in_one_process(comparison):
    found, folder = comparison
    again = compare(TINY, folder, n=300, workers=1, resume=True, progress=False)
    for a, b in zip(found.samplings, again.samplings, strict=True):
        assert (a.samples == b.samples).all()
        assert a.measurements == b.measurements


@pytest.mark.parametrize("name", DATASETS)
def test_limits_hold_the_data(name):
    recipe = PointRecipe(data=name)
    x, _ = DATASETS[name].sample(2000, torch.Generator().manual_seed(0))
    low, high = limits(recipe, x).T
    assert ((x.numpy() > low) & (x.numpy() < high)).mean() > 0.98


def test_limits_of_a_file_are_the_middle_of_each_column():
    x = np.stack([np.linspace(0, 1, 1001), np.linspace(-500, 500, 1001)], 1)
    frame = limits(PointRecipe(data="a.csv"), x)
    assert np.allclose(frame, [[-0.15, 1.15], [-650, 650]], rtol=0.01)


# --- the command --------------------------------------------------------------------------------------------

FILES = {"report.html", "metrics.json", "samples.png", "trajectories.png", "losses.png", "quality.png", "sampling.gif"}
SMALL = ["--steps", "30", "--n", "300", "--quiet"]


def user_file(folder):
    rng, path = np.random.default_rng(0), folder / "plants.csv"
    rows = [f"{x:.4f},{kind},{y:.4f},{x * y:.4f}" for kind in ("fern", "moss") for x, y in rng.normal(size=(60, 2)) + 3]
    path.write_text("height,kind,width,area\n" + "\n".join(rows) + "\n")
    return ["--data", str(path), "--label", "kind"]


def check_folder(folder, data, solvers=0):
    """solvers: of how many methods the run's own solver is a row, as of those that trained long enough to have one."""
    assert {path.name for path in folder.iterdir()} >= FILES | {"diffusion", "flow"}
    assert len(json.loads((folder / "metrics.json").read_text())["samplings"]) == 8 + solvers
    page = (folder / "report.html").read_text()
    assert page.count("data:image/") >= len(FILES) - 2
    assert Path(data).stem.replace("_", " ") in page
    for picture in folder.glob("*.png"):
        assert picture.read_bytes()[:4] == b"\x89PNG"


def test_the_folder_holds_what_is_promised(comparison):
    check_folder(comparison[1], "three_gaussians")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "workers"),
    [("three_gaussians", "1"), ("two_moons", "2"), ("point_mass", "1"), ("file", "1"), ("file", "2")],
)
def test_the_command_leaves_a_report(data, workers, tmp_path, capsys):
    given = user_file(tmp_path) if data == "file" else ["--data", data]
    command = ["compare", *given, *SMALL, "--workers", workers, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "truth" in out
    assert "Traceback" not in err
    check_folder(tmp_path / "out", given[1])


@pytest.fixture
def start(tmp_path):
    """Start a long comparison as a stranger would; wait until both methods train."""
    processes = []

    def begin(workers, steps="100000"):
        command = [sys.executable, "-m", "ebbtide", "compare", "--steps", steps, "--n", "300", "--points", "500"]
        command += ["--quiet", "--out", "out", "--workers", workers]
        processes.append(
            subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
        )
        keys = list(KEYS)[: int(workers)]
        wait_until(lambda: all((tmp_path / "out" / key / "metrics.jsonl").exists() for key in keys))
        time.sleep(1)
        return processes[-1]

    yield begin
    for process in processes:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.unchecked
@pytest.mark.parametrize("before", [pytest.param("nothing", marks=pytest.mark.slow), "overwritten", "resumed"])
def test_a_signal_at_any_line_is_answered_by_what_is_on_the_disk(before, tmp_path, monkeypatch):
    """`saved` is only said of this comparison's own checkpoints, not of those that it is to replace."""
    out, old = tmp_path / "a b", [tmp_path / "a b" / key / "checkpoints" / "step-00000009" for key in KEYS]

    def work(entry, recipe, n, options):
        (entry.folder / "checkpoints" / "step-00000001").mkdir(parents=True, exist_ok=True)

    def begin():
        shutil.rmtree(out, ignore_errors=True)
        for folder in old if before != "nothing" else ():
            folder.mkdir(parents=True)
        options = {"resume": before == "resumed", "overwrite": before == "overwritten", "workers": 1}
        compare(TINY, out, **options, command="ebbtide compare")

    monkeypatch.setattr(comparing, "rehearsed", lambda recipe: None)
    few = replace(KINDS["points"], real=lambda *_: (torch.zeros(PLAN.fewest, 2), None))
    monkeypatch.setitem(KINDS, "points", few)
    monkeypatch.setattr(comparing, "study", work)
    monkeypatch.setattr(comparing, "_studied", lambda jobs, plan, answers, progress: answers(work, jobs))
    monkeypatch.setattr(comparing, "_assemble", lambda *_: object.__new__(Comparison))
    said = []
    for answer in at_every_line({compare, comparing.resumable, work}, begin):
        assert isinstance(answer, Interrupted)
        own = any(out.glob("*/checkpoints/step-00000001")) or (before == "resumed" and old[0].exists())
        said.append(str(answer).removeprefix("Stopped by SIGTERM"))
        if "; saved" in said[-1]:
            assert own
        elif "before anything" in said[-1]:
            assert not own
    assert set(said) >= {".", "; saved. Continue with: ebbtide compare --resume"}
    assert (" before anything was saved." in said) == (before != "resumed")


def members(group):
    """The living processes of a group."""
    done = subprocess.run(["ps", "-eo", "pgid=,stat=,pid="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [pid for pgid, state, pid in rows if int(pgid) == group and not state.startswith("Z")]


def saved_step(folder):
    found = newest_valid(folder / "checkpoints", lambda text: pytest.fail(text))
    return int(unpack(found[1]["training.safetensors"], "training")["step"])


def stopped(process, tmp_path, code, name):
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    last = err.splitlines()[-1]
    assert last.startswith(f"ebbtide: Stopped by {name}; saved. Continue with: ebbtide compare --steps ")
    assert last.endswith(" --resume")
    assert "Traceback" not in err
    wait_until(lambda: not members(process.pid), 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "everyone", "workers", "code"),
    [
        (signal.SIGINT, True, "2", 130),  # Ctrl-C reaches every process of a terminal
        (signal.SIGINT, False, "2", 130),
        (signal.SIGTERM, False, "2", 143),
        (signal.SIGINT, True, "1", 130),
    ],
)
def test_a_signal_saves_both_and_leaves_no_orphans(start, tmp_path, number, everyone, workers, code):
    process = start(workers)
    (os.killpg if everyone else os.kill)(process.pid, number)
    stopped(process, tmp_path, code, number.name)
    for key in list(KEYS)[: int(workers)]:
        assert saved_step(tmp_path / "out" / key) > 0


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(start, tmp_path):
    process = start("2")
    assert len(members(process.pid)) >= 3
    process.kill()
    process.wait()
    wait_until(lambda: not members(process.pid), 30)
    for key in KEYS:
        assert saved_step(tmp_path / "out" / key) > 0


@pytest.mark.slow
def test_an_interrupted_comparison_is_completed_by_resume(start, tmp_path, monkeypatch, capsys):
    process = start("2", "1500")
    process.send_signal(signal.SIGTERM)
    stopped(process, tmp_path, 143, "SIGTERM")
    monkeypatch.chdir(tmp_path)
    command = ["compare", "--steps", "1500", "--n", "300", "--points", "500", "--quiet", "--out", "out", "--resume"]
    assert main(command) == 0
    check_folder(tmp_path / "out", "three_gaussians", solvers=2)
    assert {saved_step(tmp_path / "out" / key) for key in KEYS} == {1500}
    again = ["compare", "--steps", "1500", "--n", "300", "--points", "500", "--quiet", "--out", "straight"]
    assert main(again) == 0
    found = [json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in ("out", "straight")]
    one, two = ([(row["label"], row["measurements"]) for row in numbers["samplings"]] for numbers in found)
    assert one == two
