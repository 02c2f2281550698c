"""`train` and `resume`, end to end and when they are stopped."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch

from ebbtide.cli.train import Running
from ebbtide.recipes import RECIPES
from ebbtide.training.history import read_metrics
from recording import record

from .conftest import PICTURES, TINY, tiny_fields


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if row().kind != "robots"])
def test_every_recipe_leaves_a_run(runs, name):
    run = runs / name
    config = json.loads((run / "checkpoints" / "last" / "config.json").read_text())
    given = {"steps": 20, "points": 500, "batch": 64}
    if name in PICTURES:
        given = tiny_fields(name)
    assert config["step"] == given["steps"]
    assert config["recipe"] == RECIPES[name]().having(given).to_config()
    assert [line["step"] for line in read_metrics(run)] == list(range(1, given["steps"] + 1))
    assert len(list((run / "evolution").glob("*.npy"))) == 3
    assert len(list((run / "evolution").glob("*.png"))) == (3 if name in PICTURES else 0)
    assert (run / "training.png").exists() == (name in PICTURES)


def test_a_run_may_be_conditional_on_a_file_or_between_sets(runs, table):
    def config(name):
        return json.loads((runs / name / "checkpoints" / "last" / "config.json").read_text())

    assert (config("conditional")["classes"], config("conditional")["recipe"]["conditional"]) == (
        ["first", "second"],
        True,
    )
    assert (config("plants")["columns"], config("plants")["classes"]) == (["height", "width"], ["fern", "moss"])
    assert config("between")["recipe"]["source"] == "eight_gaussians"
    assert config("line")["shape"] == [1]


def test_the_default_folder_says_recipe_and_data(ebbtide, tmp_path):
    code, out, err = ebbtide("train", "flow", "--data", "rings", *TINY, "--steps", "1")
    assert (code, out) == (0, "")
    assert "Draw from it with: ebbtide sample runs/flow-rings" in err
    assert (tmp_path / "runs" / "flow-rings" / "checkpoints" / "last").exists()


def test_every_option_reaches_the_training(ebbtide, tmp_path, monkeypatch):
    """Each field of Running with another value than its own; threads are torch's too."""
    how = Running(
        on_nonfinite="skip", precision="bf16", device="cpu", compile=True, track=("tensorboard",), checkpoints=3,
        keep=4, accumulate=2, data_on="device", engine="fsdp", snapshots=5, solvers=False, evaluations="1,2", threads=2,
        quiet=True,
    )  # fmt: skip
    assert all(getattr(how, field.name) != field.default for field in fields(Running))
    given = {}

    def fit(recipe, out, started, **options):
        started(torch.nn.Linear(1, 1))
        given.update(options, recipe=recipe, out=out, torch=torch.get_num_threads())
        return SimpleNamespace(step=20, reconstructs=False, codec=None)

    monkeypatch.setattr("ebbtide.kinds.runs.train_recipe", fit)
    words = "--on-nonfinite skip --precision bf16 --device cpu --compile --track tensorboard --checkpoints 3 --keep 4"
    rest = "--accumulate 2 --data-on device --engine fsdp --snapshots 5 --no-fit --evaluations 1,2 --threads 2 --quiet"
    try:
        assert ebbtide("train", "flow", *TINY[:6], *words.split(), *rest.split(), "--out", "run")[0] == 0
    finally:
        torch.set_num_threads(1)
    assert given.pop("torch") == 2
    recipe, out = given.pop("recipe"), given.pop("out")
    assert recipe == RECIPES["flow"]().having({"steps": 20, "points": 500, "batch": 64})
    assert str(out) == "run"
    command = f"ebbtide train flow {' '.join(TINY[:6])} {words} {rest} --out run"
    quiet = {"progress": False, "resume": False, "overwrite": False, "given": None, "command": command}
    assert given == {name: value for name, value in vars(how).items() if name != "quiet"} | quiet


def test_a_job_that_is_restarted_begins_once_and_then_goes_on(ebbtide, tmp_path):
    """The same command twice: to the end of the run at first, then nothing; after a stop, the steps that are left."""
    words = ["train", "flow", "--data", "rings", *TINY, "--steps", "4", "--out", "run", "--restartable"]
    assert ebbtide(*words)[0] == 0
    code, _, err = ebbtide(*words)
    assert (code, "is finished already" in err) == (0, True)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    code, _, err = ebbtide(*words)
    assert (code, "Trained 4 steps" in err) == (0, True)
    for other in ("--resume", "--overwrite"):
        code, _, err = ebbtide(*words, other)
        assert (code, err) == (2, f"ebbtide: --restartable resumes or begins a run; leave {other} out.\n")


def test_overwrite_replaces_and_resume_goes_on(ebbtide, tmp_path):
    arguments = ["train", "flow", *TINY, "--out", "run"]
    assert ebbtide(*arguments, "--steps", "2")[0] == 0
    assert ebbtide(*arguments, "--steps", "2")[0] == 2
    assert ebbtide(*arguments, "--steps", "3", "--overwrite")[0] == 0
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert ebbtide(*arguments, "--steps", "3", "--resume")[0] == 0
    code, _, err = ebbtide("resume", "run", "--quiet")
    told = "The run run is finished already: it has been trained for all of its 3 steps"
    assert (code, err.splitlines()[0]) == (0, told)


@pytest.mark.slow  # as test_signals_to_a_real_process of tests/training, which is daily
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(ebbtide, tmp_path, number, code):
    command = [sys.executable, "-m", "ebbtide", "train", "flow", "--steps", "100000", "--snapshots", "0", "--quiet"]
    process = subprocess.Popen([*command, "--out", "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(line["step"] for line in read_metrics(tmp_path / "run")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()  # where the signal did not end it
    last = err.splitlines()[-1]
    assert process.returncode == code, err
    assert last.startswith(f"ebbtide: Stopped by {signal.Signals(number).name} at step ")
    assert last.endswith("of 100000; saved. Continue with: ebbtide resume run")
    step = int(last.split("at step ")[1].split()[0])
    assert json.loads((tmp_path / "run" / "checkpoints" / "last" / "config.json").read_text())["step"] == step
    assert "Traceback" not in err


def test_an_objective_decides_what_is_left_to_it(ebbtide, tmp_path):
    recording = record(tmp_path / "episodes.npz")

    def trained(*words):
        out = tmp_path / "run"
        short = ["--data", recording, "--steps", 1, "--batch", 4, "--network", "action_unet:width=8,emb=16", "--quiet"]
        assert ebbtide("train", "flow-policy-pusht", *short, *words, "--out", out, "--overwrite")[0] == 0
        recipe = json.loads((out / "checkpoints" / "last" / "config.json").read_text())["recipe"]
        return [recipe[name] for name in ("objective", "path", "target", "sampler")]

    assert trained() == ["flow_matching", "linear", "velocity", "euler"]
    assert trained("--objective", "diffusion") == ["diffusion", "ddpm:betas=squared_cosine", "noise", "ddim"]
    assert trained("--objective=diffusion", "--target", "v") == ["diffusion", "ddpm:betas=squared_cosine", "v", "ddim"]
    code, _, err = ebbtide("train", "flow-policy-pusht", "--objective", "magic")
    assert (code, err.count("\n")) == (2, 1)
    assert "objective must be one of flow_matching, diffusion; got 'magic'" in err


def test_a_folder_of_other_files_keeps_them(ebbtide, tmp_path):
    """Whatever has a name that a run writes is refused before anything is written; what has another stays beside it."""
    out = tmp_path / "mine"
    for name, made in (("metrics.jsonl", '{"mine": 1}\n'), ("samples.npy", "mine"), ("checkpoints/notes.txt", "mine")):
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(made)
        (out / "photo.png").write_text("mine")
        for more in ([], ["--overwrite"]):
            code, _, err = ebbtide("train", "flow", *TINY, "--out", "mine", *more)
            says = f"ebbtide: mine holds {name.split('/')[0]!r}, and no run; ebbtide writes files of that name, so"
            assert (code, err) == (2, f"{says} choose another folder.\n")
        assert (out / name).read_text() == made
        shutil.rmtree(out)
    out.mkdir()
    (out / "photo.png").write_text("mine")
    (out / "log.txt").write_text("mine")
    assert ebbtide("train", "flow", *TINY, "--steps", "1", "--out", "mine")[0] == 0
    assert ebbtide("train", "flow", *TINY, "--steps", "1", "--out", "mine", "--overwrite")[0] == 0
    assert {name: (out / name).read_text() for name in ("photo.png", "log.txt")} == {
        "photo.png": "mine",
        "log.txt": "mine",
    }


def test_nothing_is_said_before_an_error(ebbtide, table, runs):
    """The note that no held-out rows stop a run comes once nothing stands against training."""
    words = ("train", "flow", "--data", table, *TINY, "--out")
    note = "All 20 steps are trained for; without --steps training stops by held-out loss.\n"
    for more, says in (
        ([runs / "flow"], "already holds a run"),
        (["new", "--label", "nothing"], "'nothing'"),
        (["new", "--network", "mlp:width=0"], "width"),
        (["new", "--batch", "0"], "batch"),
    ):
        code, out, err = ebbtide(*words, *more)
        assert (code, out) == (2, "")
        assert err.startswith("ebbtide: ")
        assert err.count("\n") == 1
        assert says in err
    assert ebbtide(*words, "new")[2].startswith(note)
