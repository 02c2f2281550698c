"""A run folder: the same result however often it is stopped, and nothing lost when something goes wrong."""

import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tqdm import tqdm

import ebbtide
from ebbtide import cli
from ebbtide.data.prepared import TensorData
from ebbtide.errors import DivergedError, InputError, StorageError
from ebbtide.files import locked
from ebbtide.kinds.images import data as images_data, kind as images
from ebbtide.kinds.runs import from_pretrained, train_recipe as fit
from ebbtide.recipes import RECIPES
from ebbtide.signals import Interrupted
from ebbtide.tensors import unpack
from ebbtide.training import checkpoint
from ebbtide.training.begun import stored
from ebbtide.training.checkpoint import newest_valid
from ebbtide.training.devices import suited
from ebbtide.training.examples import batch_indices
from ebbtide.training.history import read_metrics, track_evaluation
from ebbtide.training.run import _loop
from ebbtide.training.schedule import due as _due
from forking import forked
from interrupting import alive, at_every_line, wait_until
from recording import record
from training.runs import (
    STEPS,
    VARIANTS,
    arguments,
    assert_same,
    children,
    command,
    copy,
    newest,
    run,
    run_until,
    saved_step,
    sentence,
    tensors,
    tiny,
)


def steps_of(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder)]


def main(*words: object) -> int:
    """The command, in this process."""
    shown = warnings.showwarning
    try:
        return cli.main([str(word) for word in words])
    finally:
        warnings.showwarning = shown


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Each variant trained without a break, once."""
    folder, done = tmp_path_factory.mktemp("straight"), {}

    def get(name):
        if name not in done:
            run(tiny(name), folder / name)
            done[name] = folder / name
        return done[name]

    return get


# --- a whole run ----------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_says(tmp_path):
    folder = tmp_path / "deep" / "run"
    trained = run(tiny(), folder, snapshots=3, keep=3)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "checkpoints", "evolution", "metrics.jsonl"]
    names = ["last", *(f"step-{step:08d}" for step in (6, 9, 12))]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == names
    assert os.readlink(folder / "checkpoints" / "last") == "step-00000012"
    assert sorted(path.name for path in (folder / "evolution").iterdir()) == [
        f"step-{step:08d}.npy" for step in (0, 2, 6, 12)
    ]
    assert steps_of(folder) == list(range(1, 13))
    assert trained.step == 12
    stored = from_pretrained(folder)
    assert torch.equal(stored.sample(5, seed=1), trained.sample(5, seed=1))


def test_snapshots_are_the_average_sampled_and_change_nothing(tmp_path, straight):
    run(tiny("conditional"), tmp_path / "seen", snapshots=12)
    assert_same(tensors(tmp_path / "seen"), tensors(straight("conditional")))
    last = np.load(tmp_path / "seen" / "evolution" / "step-00000012.npy")
    trained = from_pretrained(tmp_path / "seen")
    x = trained.sample(1000, seed=3, label=torch.arange(1000) % 3, sampler="heun", grid="quadratic", steps=12)
    assert np.array_equal(last, x.numpy())


def test_a_network_drops_out_in_training_and_not_in_snapshots(tmp_path, straight, monkeypatch):
    """What a snapshot leaves behind trains on as if there had been none; what it draws is what the run draws."""
    monkeypatch.setitem(images.IMAGES.snapshot, "steps", 3)
    run(tiny("images"), tmp_path / "seen", snapshots=2)
    assert_same(tensors(tmp_path / "seen"), tensors(straight("images")))
    trained = from_pretrained(tmp_path / "seen")
    x = trained.sample(seed=3, label=torch.arange(20) % 10, **images.IMAGES.snapshot)
    assert np.array_equal(np.load(tmp_path / "seen" / "evolution" / "step-00000012.npy"), images_data.kept(x))
    drawn = trained.sample(3, steps=3)
    trained.denoiser.train()
    assert torch.equal(trained.sample(3, steps=3), drawn)


def test_what_is_returned_and_stored_is_the_average(straight):
    held = tensors(straight("flow"))
    name = "network.out.weight"
    assert not torch.equal(held[f"model:{name}"], held[f"training:weights.{name}"])
    trained = from_pretrained(straight("flow"))
    assert torch.equal(trained.denoiser.network.out.weight, held[f"model:{name}"])


@pytest.mark.parametrize("steps", [1, 7, 49, 100, 187])
def test_checkpoints_are_spread_evenly_and_the_last_step_has_one(steps):
    for times in (0, 1, 3, 7, steps, 500):
        due = [step for step in range(1, steps + 1) if _due(step, steps, times)]
        assert due[-1] == steps
        assert len(due) == min(steps, max(times, 1))
        gaps = [b - a for a, b in zip([0, *due], due)]
        assert max(gaps) - min(gaps) <= 1


def test_pictures_are_taken_early():
    """At 100 (k/5)², the first step not before: 4, 16, 36, 64, 100."""
    assert [step for step in range(1, 101) if _due(step, 100, 5, early=True)] == [4, 16, 36, 64, 100]
    assert [step for step in range(1, 4) if _due(step, 3, 50, early=True)] == [1, 2, 3]


# --- stop and go on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_resuming_after_a_kill_gives_the_same_bits(name, straight, tmp_path, monkeypatch):
    """Killed twice between checkpoints (3, 6, 9, 12): weights, average, moments and step all equal."""
    folder = tmp_path / "run"
    run_until(5, tiny(name), folder, monkeypatch)
    assert saved_step(folder) == 3
    run_until(11, tiny(name), folder, monkeypatch, resume=True)
    assert saved_step(folder) == 9
    trained = run(tiny(name), folder, resume=True)
    assert_same(tensors(folder), tensors(straight(name)))
    assert_same(trained.denoiser.state_dict(), from_pretrained(straight(name)).denoiser.state_dict())
    assert steps_of(folder) == list(range(1, STEPS + 1))
    kept = [[(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in read_metrics(where)]
            for where in (folder, straight(name))]  # fmt: skip
    assert kept[0] == kept[1]


def test_nothing_about_saving_changes_training(straight, tmp_path):
    run(tiny(), tmp_path / "run", checkpoints=12, keep=5)
    assert_same(tensors(tmp_path / "run"), tensors(straight("flow")))


def test_a_damaged_checkpoint_costs_steps_not_the_run(straight, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    run_until(11, tiny(), folder, monkeypatch)
    (newest(folder) / "training.safetensors").write_bytes(b"")
    run(tiny(), folder, resume=True, keep=1)
    heard = capsys.readouterr().err
    assert "step-00000009/training.safetensors is damaged" in heard
    assert "Falling back to the checkpoint before it." in heard
    assert_same(tensors(folder), tensors(straight("flow")))
    assert steps_of(folder) == list(range(1, STEPS + 1))
    assert not list((folder / "checkpoints").glob("step-00000009"))


def test_resuming_a_finished_run_changes_nothing(straight, tmp_path):
    folder = copy(straight("flow"), tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    trained = run(tiny(), folder, resume=True)
    assert trained.step == STEPS
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_resuming_mends_the_link_to_the_newest(straight, tmp_path):
    """A kill between the last checkpoint and its link leaves the link at the one before."""
    folder = copy(straight("flow"), tmp_path / "run")
    (folder / "checkpoints" / "last").unlink()
    (folder / "checkpoints" / "last").symlink_to("step-00000009")
    assert from_pretrained(folder).step == STEPS
    run(tiny(), folder, resume=True)
    assert os.readlink(folder / "checkpoints" / "last") == "step-00000012"


def test_what_can_not_be_resumed_is_not_trained_anew(straight, tmp_path):
    for start in (run, lambda recipe, out, **how: ebbtide.fit(recipe, out=out, **how)):
        with pytest.raises(InputError, match="run holds no run to resume"):
            start(tiny(), tmp_path / "run", resume=True)
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        with pytest.raises(InputError, match="run holds no run to resume"):
            start(tiny(), tmp_path / "run", resume=True)
        (tmp_path / "run" / "checkpoints").rmdir(), (tmp_path / "run").rmdir()
        folder = copy(straight("flow"), tmp_path / "copy")
        with pytest.raises(InputError, match="resume continues a run and overwrite replaces it; choose one of them"):
            start(tiny(), folder, resume=True, overwrite=True)
        assert_same(tensors(folder), tensors(straight("flow")))
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="resume needs out, the folder of the run to continue"):
        ebbtide.fit(tiny(), resume=True)


def test_a_finished_run_is_resumed_without_a_step(straight, tmp_path, capsys):
    folder = copy(straight("flow"), tmp_path / "run")
    assert main("resume", folder, "--quiet") == 0
    err = capsys.readouterr().err
    assert f"The run {folder} is finished already: it has been trained for all of its {STEPS} steps\n" in err
    assert "Trained" not in err
    assert_same(tensors(folder), tensors(straight("flow")))


@pytest.mark.parametrize("name", ["checkpoints", "evolution", "ebbtide"])
def test_a_link_in_place_of_a_folder_of_the_run_is_refused(name, tmp_path):
    """ebbtide is where tensorboard writes."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir(), folder.mkdir()
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=rf"{name} is a link, and nothing is written through one"):
        run(tiny(), folder)
    assert not any(elsewhere.iterdir())


def test_metrics_cut_short_or_spoilt_are_mended(straight, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run_until(8, tiny(), folder, monkeypatch)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for tail in (b'{"step": 7, "lo', b"\xff\xfe\n", b"5\n", b'{"loss": 1}\n', b"[" * 100_000, b"\0" * 40):
        (folder / "metrics.jsonl").write_bytes(b"".join(lines[:6]) + tail)
        assert steps_of(folder) == [1, 2, 3, 4, 5, 6]
    run(tiny(), folder, resume=True)
    assert steps_of(folder) == list(range(1, STEPS + 1))
    seconds = [line["cpu_seconds"] for line in read_metrics(folder)]
    assert seconds == sorted(seconds)  # what the first process spent counts too


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.5}, "lr=0.01, not 0.5; to resume it, give lr=0.01 (--lr 0.01)."),
        ({"steps": 24}, "steps=12, not 24"),
        ({"seed": 4}, "seed=3, not 4"),
        (
            {"conditional": True},
            "conditional=False, not True; to resume it, give conditional=False (--no-conditional).",
        ),
        ({"label_dropout": 0.5}, "give label_dropout=0.1 (--label-dropout 0.1)."),
        ({"data": "two_moons"}, "data='three_gaussians', not 'two_moons'"),
        (
            {"network": "mlp:width=9"},
            "network='mlp:width=8,depth=2', not 'mlp:width=9'; to resume it, give "
            "network='mlp:width=8,depth=2' (--network mlp:width=8,depth=2).",
        ),
    ],
)
def test_another_recipe_is_refused_by_field(straight, tmp_path, changes, words):
    folder = copy(straight("flow"), tmp_path / "run")
    with pytest.raises(InputError) as refused:
        run(tiny(**changes), folder, resume=True)
    assert words in sentence(refused.value)
    assert_same(tensors(folder), tensors(straight("flow")))


def test_what_to_give_for_a_run_of_an_older_version_is_said(tmp_path, capsys):
    """Which trained on every row of a file, and for all of its steps."""
    table = tmp_path / "mine.csv"
    np.savetxt(table, np.random.default_rng(0).normal(size=(100, 2)), delimiter=",", header="a,b", comments="")
    recipe = tiny(data=str(table), held_out=0.0, validation=0.0, gaussians=0)
    run(recipe, tmp_path / "run")
    words = [*arguments(recipe, "flow"), "--held-out", "0.0", "--out", tmp_path / "run", "--resume"]
    at = words.index("--held-out")
    assert main(*words[:at], *words[at + 2 :]) == 2
    assert "held_out=0.0, not 0.2; to resume it, give held_out=0.0 (--held-out 0.0).\n" in capsys.readouterr().err
    assert main(*words) == 0


def test_other_data_under_the_same_name_is_refused(tmp_path, monkeypatch):
    table = tmp_path / "mine.csv"
    rows = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    write = lambda x: table.write_text("a,b\n" + "".join(f"{u},{v}\n" for u, v in x.tolist()))
    write(rows)
    recipe = tiny(data=str(table), validation=0.0)
    run_until(5, recipe, tmp_path / "run", monkeypatch)
    write(rows + 0.1)
    with pytest.raises(InputError, match=r"mine\.csv is not what it was when .*step-00000003 was trained"):
        run(recipe, tmp_path / "run", resume=True)
    write(rows)
    assert run(recipe, tmp_path / "run", resume=True).step == STEPS


def test_an_exported_folder_can_not_be_resumed(straight, tmp_path):
    folder = tmp_path / "run"
    from_pretrained(straight("flow")).save_pretrained(folder / "checkpoints" / "step-00000012")
    with pytest.raises(InputError, match=r"has no training\.safetensors, so it can be sampled but not resumed"):
        run(tiny(), folder, resume=True)


def test_state_of_another_network_is_refused(straight, tmp_path):
    """A consistent folder, as only an editor makes: the manifest is right, the state is not this network's."""
    folder = copy(straight("flow"), tmp_path / "run")
    files = checkpoint.read_folder(newest(folder))
    state = unpack(files["training.safetensors"], "x")
    state["weights.network.out.bias"] = torch.zeros(1)
    checkpoint.write_folder(newest(folder), files | {"training.safetensors": state})
    with pytest.raises(InputError, match=r"training\.safetensors doesn't fit this run: its tensor weights\.network"):
        run(tiny(), folder, resume=True)


def test_a_run_is_not_overwritten_unasked(straight, tmp_path):
    folder = copy(straight("flow"), tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="already holds a run; resume it, overwrite it, or choose another folder"):
        run(tiny(), folder)
    assert_same(tensors(folder), tensors(straight("flow")))
    run(tiny("ddpm"), folder, overwrite=True)
    assert_same(tensors(folder), tensors(straight("ddpm")))
    assert steps_of(folder) == list(range(1, STEPS + 1))
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_nonfinite": "ignore"}, "on_nonfinite must be one of stop, skip"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"precision": "fp8"}, "precision must be one of auto, no, bf16"),
        ({"track": ("mlflow",)}, "track must be one of tensorboard, wandb, trackio"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_written(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tiny(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"coupling": "class_ot"}, {"times": "beta:a=0.0"}, {"sampler": "x"}, {"data": "nowhere.csv"}]
)
def test_a_bad_recipe_is_refused_before_anything_is_written(tmp_path, changes):
    with pytest.raises(InputError):
        run(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- 25 kills -------------------------------------------------------------------------------------------------------


def unfinished(folder):
    """The names of checkpoints that are being written."""
    return [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_25_kills_at_random_moments_of_a_real_run(tmp_path):
    """kill -9 with a checkpoint every third step, so that many fall into one; then the run is finished."""
    steps, kills, seed = 4000, 25, 20
    recipe = tiny("conditional", steps=steps)
    often = ["--checkpoints", steps // 3, "--snapshots", 5]
    process = command(*arguments(recipe, "flow"), *often, "--out", tmp_path / "straight")
    assert process.wait(900) == 0, process.stderr.read()
    folder, chance, found = tmp_path / "killed", random.Random(seed), []
    for kill in range(kills):
        before = saved_step(folder)
        words = ["resume", folder, "--quiet"] if before >= 0 else [*arguments(recipe, "flow"), "--out", folder]
        process = command(*words, *often)
        goal = before + chance.randint(1, 100)
        while saved_step(folder) < goal and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        while kill % 2 and not unfinished(folder) and process.poll() is None:
            pass  # every other one falls into a save, however fast those are
        assert process.poll() is None, f"before kill {kill}: {process.stderr.read()}"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        found += unfinished(folder)
        where, _ = newest_valid(folder / "checkpoints", pytest.fail)
        assert int(where.name[5:]) >= goal
    assert found, "no kill fell into a save"
    process = command("resume", folder, "--quiet", *often)
    assert process.wait(900) == 0, process.stderr.read()
    assert_same(tensors(folder), tensors(tmp_path / "straight"))
    assert steps_of(folder) == steps_of(tmp_path / "straight")
    for one in sorted((folder / "evolution").iterdir()):
        assert one.read_bytes() == (tmp_path / "straight" / "evolution" / one.name).read_bytes()


# --- what is stored of how a run is trained --------------------------------------------------------------------------


def test_a_run_goes_on_as_it_began(tmp_path, monkeypatch):
    """Resumed without a word it keeps every setting, and its weights are those of a run without the interruption."""
    how = {"on_nonfinite": "skip", "precision": "bf16", "checkpoints": 3, "keep": 1, "snapshots": 2, "accumulate": 3}
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    monkeypatch.setitem(images.IMAGES.snapshot, "steps", 3)
    recipe = tiny("images", steps=7)
    run(recipe, whole, **how)
    with pytest.raises(Interrupted):
        run_until(5, recipe, folder, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM), **how)
    usual = {
        "device": "auto",
        "data_on": "auto",
        "engine": "replicated",
        "compile": False,
        "track": (),
        "threads": 0,
        "solvers": True,
        "evaluations": "",
    }
    assert stored(folder) == how | usual
    assert main("resume", folder, "--quiet") == 0
    assert stored(folder) == stored(whole)
    assert_same(tensors(folder), tensors(whole))
    with pytest.raises(InputError, match="precision 'bf16', not 'no'"):
        run(recipe, folder, resume=True, precision="no")


def test_a_run_on_data_that_was_replaced_is_not_resumed(tmp_path, monkeypatch):
    """By processes that haven't read the data before. It is resumed once the data is what it was."""
    rng, cases = np.random.default_rng(0), {}
    for kind, change in (*product(["points"], ("more", "another", "order")), ("images", "another")):
        place = tmp_path / f"{kind}, {change}"
        place.mkdir()
        x = rng.normal(size=(40, 2)) if kind == "points" else rng.integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
        other = {"more": np.concatenate([x, x[:5]]), "another": x.copy(), "order": x[::-1].copy()}[change]
        other[3, 1] = other[7, 0]
        name, base = ("x", "flow") if kind == "points" else ("images", "images")
        np.savez(place / "a.npz", **{name: x})
        recipe = tiny(
            base,
            data=str(place / "a.npz"),
            conditional=False,
            held_out=0.0,
            **({"validation": 0.0} if kind == "points" else {}),
        )
        with pytest.raises(Interrupted):
            run_until(5, recipe, place / "run", monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        np.savez(place / "a.npz", **{name: other})
        cases[place] = recipe, {name: x}
    first = ["accelerate", "ebbtide.training.run", "ebbtide.kinds.points.kind", "ebbtide.kinds.images.kind"]
    resumed = forked([(str(place), ["resume", "run", "--quiet", "--snapshots", "0"], first) for place in cases])
    for (place, (recipe, trained_on)), answer in zip(cases.items(), resumed, strict=True):
        assert answer.code == 2, place.name
        assert "not what it was" in answer.said, place.name
        np.savez(place / "a.npz", **trained_on)
        assert run(recipe, place / "run", resume=True).step == STEPS, place.name


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_says_how_to_go_on(number, code, straight, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    if number == signal.SIGHUP:  # nohup has it ignored, and then it is
        signal.signal(number, signal.SIG_DFL)
    with pytest.raises(Interrupted) as stopped:
        run_until(5, tiny(), folder, monkeypatch, action=lambda: os.kill(os.getpid(), number))
    assert stopped.value.exit_code == code
    name = signal.Signals(number).name
    assert sentence(stopped.value) == (
        f"Stopped by {name} at step 5 of 12; saved. Continue with: ebbtide resume {folder}"
    )
    assert saved_step(folder) == 5
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert main("resume", folder, "--quiet", "--snapshots", 0) == 0
    assert_same(tensors(folder), tensors(straight("flow")))


@pytest.mark.unchecked  # a fake is no run
def test_a_signal_at_any_line_of_the_loop_is_answered_by_what_is_on_the_disk():
    """Line after line until no line is left: each signal ends the run, and what its message names is what was saved."""

    class Fake:
        folder, recipe, stopping = Path("runs/a b"), tiny(steps=3), None

        def __init__(self):
            self.trainer, self.step, self.saved = self, 0, None
            self.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)

        def steps(self, on_nonfinite, due):
            for self.step in (1, 2, 3):
                yield SimpleNamespace(step=self.step, loss=0.0)

        def heard(self, received):
            return received[0] if received else 0

        def save(self):
            self.saved = self.step  # what a slow disk would be doing when the signal comes

    fakes, answers = [], []

    def train():
        fakes.append(Fake())
        _loop(fakes[-1], None, tqdm(disable=True), lambda *_: None, "stop", 2, 0)

    for answer in at_every_line({_loop, Fake.save, Fake.steps}, train):
        assert isinstance(answer, Interrupted), fakes[-1].step
        answers.append((str(answer), fakes[-1].saved))
    after = "; saved. Continue with: ebbtide resume 'runs/a b'"
    assert all(text in ("Stopped by SIGTERM.", f"Stopped by SIGTERM at step {at} of 3{after}") for text, at in answers)
    assert sum(after in text for text, _ in answers) > 20
    assert {at for text, at in answers if after not in text} <= {None, 0, 3}  # before the first step and after the last


def test_a_folder_that_is_removed_while_it_is_trained_in_is_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with pytest.raises(StorageError, match="removed or moved"):
        run_until(5, tiny(), folder, monkeypatch, action=lambda: shutil.rmtree(folder))


def test_signals_to_a_real_process(tmp_path):
    """Both at once, each to its own run of a million steps that has shown it is under way."""
    recipe = tiny(steps=10**6)
    runs = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name
        runs[number] = command(*arguments(recipe, "flow"), "--checkpoints", 10**5, "--out", folder), folder
    for number, (process, folder) in runs.items():
        while saved_step(folder) < 10 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
    for number, (process, folder) in runs.items():
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # where the signal did not end it
        assert process.returncode == 128 + number, err
        assert out == ""
        at = saved_step(folder)
        assert err == (
            f"ebbtide: Stopped by {number.name} at step {at} of 1000000; saved. "
            f"Continue with: ebbtide resume {folder}\n"
        )
        where, files = newest_valid(folder / "checkpoints", pytest.fail)
        assert int(where.name[5:]) == at
        assert int(unpack(files["training.safetensors"], "x")["step"]) == at


# --- what is not finite ---------------------------------------------------------------------------------------------


def poison(monkeypatch):
    """One of the 50 rows becomes infinite, after it has been standardised; step 3 draws it first."""
    row = int(batch_indices(3, 2, 16, 50)[0])
    to = TensorData.to

    def spoilt(self, device):
        data = to(self, device)
        data.x[row] = math.inf
        return data

    monkeypatch.setattr(TensorData, "to", spoilt)


def assert_finite_on_disk(folder: Path) -> None:
    files = [*folder.rglob("*.safetensors")]
    assert files
    for file in files:
        for name, part in load_file(file).items():
            assert bool(part.isfinite().all()), f"{file}: {name}"
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("name", ["ddpm", "flow", "conditional", "ot"])
def test_a_run_that_diverges_stops_with_its_last_good_weights(name, tmp_path, monkeypatch, straight):
    poison(monkeypatch)
    if name == "ot":  # the assignment itself can't be solved with an infinite cost
        with pytest.raises((DivergedError, ValueError)):
            run(tiny(name), tmp_path / "run", keep=99)
        return
    with pytest.raises(DivergedError) as stopped:
        run(tiny(name), tmp_path / "run", keep=99)
    assert "At step 3 the loss was" in sentence(stopped.value)
    assert saved_step(tmp_path / "run") == 2
    assert_finite_on_disk(tmp_path / "run")


def test_a_run_that_skips_goes_on(tmp_path, monkeypatch):
    poison(monkeypatch)
    run(tiny(steps=24), tmp_path / "run", on_nonfinite="skip", checkpoints=24, keep=99)
    assert steps_of(tmp_path / "run") == list(range(1, 25))
    assert_finite_on_disk(tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    skipped = [line["step"] for line in lines if line["loss"] is None]
    assert skipped[0] == 3
    assert 6 <= len(skipped) <= 9


def test_the_command_exits_with_3(tmp_path, monkeypatch, capsys):
    poison(monkeypatch)
    assert main(*arguments(tiny(), "flow"), "--snapshots", 0, "--out", tmp_path / "run") == 3
    err = capsys.readouterr().err
    assert err.startswith("ebbtide: At step 3 the loss was ")
    assert err.count("\n") == 1


# --- the disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of 600 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", mount], capture_output=True, check=False
    )
    if not done or done.returncode:
        pytest.skip("needs the right to mount a file system")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def fill(mount: Path) -> None:
    with open(mount / "filler", "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(size))


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(disk, straight, monkeypatch, capsys):
    """Full at step 5: a save at 6 fails, or the line of metrics before it. Full at the start of a resume, too."""
    folder = disk / "run"
    with pytest.raises(StorageError) as refused:
        run_until(5, tiny(), folder, monkeypatch, action=lambda: fill(disk))
    assert "No space left on device; what was saved before is intact" in sentence(refused.value)
    assert saved_step(folder) == 3
    assert newest_valid(folder / "checkpoints", pytest.fail)[0].name == "step-00000003"
    for _ in range(2):
        assert main("resume", folder, "--quiet") == 4
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert "No space left on device" in err
        assert newest_valid(folder / "checkpoints", pytest.fail)[0].name == "step-00000003"
    (disk / "filler").unlink()
    run(tiny(), folder, resume=True)
    assert_same(tensors(folder), tensors(straight("flow")))
    assert steps_of(folder) == list(range(1, STEPS + 1))


def test_no_space_at_all_is_said_before_training(disk, capsys):
    fill(disk)
    assert main(*arguments(tiny(), "flow"), "--out", disk / "run") == 4
    assert "No space left on device" in capsys.readouterr().err


def test_a_read_only_disk_is_the_disk_refusing(disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert main(*arguments(tiny(), "flow"), "--out", disk / "run") == 4
    err = capsys.readouterr().err
    assert err == f"ebbtide: Can't write {disk / 'run'}: Read-only file system; what was saved before is intact.\n"


def test_a_limit_on_the_size_of_files(straight, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run_until(5, tiny(), folder, monkeypatch)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(StorageError) as refused:
            run(tiny(), folder, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "step-00000006: File too large; what was saved before is intact" in sentence(refused.value)
    assert not list((folder / "checkpoints").glob(".*"))
    run(tiny(), folder, resume=True)
    assert_same(tensors(folder), tensors(straight("flow")))


@pytest.mark.parametrize("place", ["run", "run/below", "run/checkpoints"])
def test_a_file_in_place_of_a_folder_is_bad_input(tmp_path, capsys, place):
    file = tmp_path / "run"
    if place == "run/checkpoints":
        file.mkdir()
        (file / "checkpoints").write_text("mine")
    else:
        file.write_text("mine")
    out = tmp_path / "run" / "below" if place == "run/below" else file
    assert main(*arguments(tiny(), "flow"), "--out", out) == 2
    err = capsys.readouterr().err
    said = f"{out} holds 'checkpoints', and no run" if place == "run/checkpoints" else f"Can't write {out}"
    assert err.startswith(f"ebbtide: {said}")
    assert err.count("\n") == 1
    assert (file / "checkpoints" if place == "run/checkpoints" else file).read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_bad_input(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        run(tiny(), tmp_path / "run")


def test_a_folder_in_use_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="Another process is training in"):
        run(tiny(), tmp_path)
    assert run(tiny(), tmp_path).step == STEPS


@pytest.mark.slow
def test_kill_9_lets_go_of_a_run(tmp_path):
    """A real run holds its folder while it lives and not a moment longer; daily, tests/test_files.py kills a holder."""
    folder = tmp_path / "run"
    recipe = tiny(steps=10**6)
    process = command(*arguments(recipe, "flow"), "--out", folder)
    while saved_step(folder) < 0 and process.poll() is None:
        time.sleep(0.01)
    with pytest.raises(InputError, match="Another process is training in"):
        run(recipe, folder, resume=True)
    process.kill()
    process.communicate()
    run(tiny(), folder, overwrite=True)


# --- precision, trackers, processes -------------------------------------------------------------------------------


def test_bf16_runs_beside_full_precision_in_one_process(straight, tmp_path):
    run(tiny("conditional"), tmp_path / "bf16", precision="bf16")
    full, half = tensors(straight("conditional")), tensors(tmp_path / "bf16")
    assert all(part.dtype != torch.bfloat16 for part in half.values())
    name = "model:network.blocks.0.weight"
    assert not torch.equal(full[name], half[name])
    torch.testing.assert_close(full[name], half[name], rtol=0.05, atol=0.02)
    run(tiny("conditional"), tmp_path / "again")
    assert_same(tensors(tmp_path / "again"), full)


def test_tensorboard_is_written_when_asked(straight, tmp_path):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "run"
    run(tiny(), folder, track=("tensorboard",))
    events = list(folder.rglob("events.out.tfevents.*"))
    assert events
    written = b"".join(file.read_bytes() for file in events)
    for name in (b"train/loss", b"train/grad_norm", b"train/lr"):
        assert name in written
    assert b"sampler: heun" in b"".join(file.read_bytes() for file in folder.rglob("hparams.yml"))
    assert_same(tensors(folder), tensors(straight("flow")))


def test_trackers_get_the_recipe_the_folders_name_sheets_of_samples_and_metrics(tmp_path, monkeypatch):
    """Through accelerate, whose trackers are replaced by one that keeps what it is given; training is the same."""
    kept = []

    class Kept:
        name, finish = "wandb", staticmethod(lambda: None)

        def log_images(self, values, step, **options):
            kept.append(("images", step, [np.asarray(one).shape for one in values["samples"]]))

    def init(self, project, config=None, init_kwargs=None):
        kept.append(("init", project, config, init_kwargs))
        self.trackers = [Kept()]

    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["wandb"])
    monkeypatch.setattr("accelerate.accelerator.filter_trackers", lambda *_: [])
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", init)
    monkeypatch.setattr("accelerate.Accelerator.log", lambda self, values, step: kept.append(("log", step, values)))
    monkeypatch.setitem(images.IMAGES.snapshot, "steps", 2)
    recipe = tiny("images", steps=4)
    run(recipe, tmp_path / "digits", track=("wandb",), snapshots=2, precision="no")
    _, project, config, named = kept[0]
    assert (project, named) == ("ebbtide", {"wandb": {"name": "digits"}})
    assert {name: config[name] for name in recipe.to_config()} == recipe.to_config()
    assert (config["keep"], config["precision"]) == (2, "no")
    shown = [one for one in kept if one[0] == "images"]
    assert [step for _, step, _ in shown] == [0, 1, 4]
    assert all(shape[2] == 3 for _, _, (shape,) in shown)
    logged = [values for kind, _, values in (one[:3] for one in kept) if kind == "log"]
    assert logged
    assert all({"train/loss", "train/lr"} <= values.keys() for values in logged)
    kept.clear()
    track_evaluation(tmp_path / "digits", ("wandb",), 4, {"FD": 2.0, "none": float("nan")})
    assert kept[0][3] == {"wandb": {"name": "digits"}}
    assert kept[1] == ("log", 4, {"evaluation/FD": 2.0})


def test_a_tracker_that_is_not_installed_is_bad_input(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    assert main(*arguments(tiny(), "flow"), "--track", "wandb", "--out", tmp_path / "run") == 2
    err = capsys.readouterr().err
    assert err == "ebbtide: track can't be wandb: it is not installed; try: pip install wandb\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow", "conditional", "two sets"])
def test_two_processes_train_as_one(name, tmp_path):
    """By torchrun, over gloo, each in parts. Gradients are summed in another order, hence a tolerance: after 12
    steps weights of size 1 differ by less than 1e-4."""
    recipe = tiny(name, clip=1e6)
    base = VARIANTS[name][0]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    words = [*torchrun, "-m", "ebbtide", *arguments(recipe, base), "--snapshots", "2", "--out", str(tmp_path / "two")]
    words += ["--accumulate", "3"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    run(recipe, tmp_path / "one")
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, part in one.items():
        torch.testing.assert_close(two[key], part, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    assert steps_of(tmp_path / "two") == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchrun is killed", "SIGTERM to the second process"])
def test_all_processes_of_torchrun_stop_after_the_same_step(how, tmp_path):
    """And the first saves it before any of them ends, which would end the others."""
    folder = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    words = [*arguments(tiny(steps=10**6), "flow"), "--checkpoints", 10**5, "--snapshots", 0, "--out", folder]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*torchrun, "-m", "ebbtide", *map(str, words)], env=env, stderr=subprocess.PIPE) as process:
        wait_until(lambda: saved_step(folder) >= 20 or process.poll() is not None)
        ranks = children(process.pid)
        if how == "torchrun is killed":
            process.kill()
        else:
            os.kill(ranks[1], signal.SIGTERM)
        wait_until(lambda: not children(process.pid) and not any(map(alive, ranks)))
        said = process.stderr.read().decode()
    at = saved_step(folder)
    assert said.count(f"Stopped by SIGTERM at step {at} of 1000000; saved.") == len(ranks) == 2
    assert "RuntimeError" not in said


@pytest.mark.slow
def test_a_job_of_two_hosts_is_started_again_after_one_dies(tmp_path):
    """Two agents of torchrun on one machine, one killed with its process: the other says so, saves and ends. The same
    job again goes on, to the bits of a run of two processes that nothing happened to."""
    recipe = tiny(steps=600)
    port = str(free_port())
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def agents(count, *launch):
        words = [*arguments(recipe, "flow"), "--checkpoints", 20, "--snapshots", 0, "--no-fit", "--restartable"]
        for rank in range(count):
            torchrun = [sys.executable, "-m", "torch.distributed.run", *launch, "--node-rank", str(rank)]
            yield subprocess.Popen([*torchrun, "-m", "ebbtide", *map(str, words), "--out", folder], env=env,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip

    pair = "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port
    folder = str(tmp_path / "run")
    first, second = agents(2, *pair)
    wait_until(lambda: saved_step(tmp_path / "run") >= 60 or first.poll() is not None)
    process = children(second.pid)
    second.kill()
    for pid in process:
        os.kill(pid, signal.SIGKILL)
    said = first.communicate(timeout=120)[1]
    second.communicate(timeout=120)
    at = saved_step(tmp_path / "run")
    assert 60 <= at < 600
    assert f"One of the 2 processes is gone: was it killed, or memory short? Saved at step {at} of 600;" in said
    for agent in list(agents(2, *pair)):
        agent.communicate(timeout=300)
        assert agent.returncode == 0
    folder = str(tmp_path / "whole")
    (whole,) = agents(1, "--nproc-per-node", "2", "--standalone")
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    assert_same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_every_recipe_trains_as_a_command(tmp_path):
    recording = record(tmp_path / "episodes.npz", pictures=True)
    latent = ["--codec", "pixels+patches:size=2,keep=4"]  # theirs is for images of 64 × 64
    seen = {"pi0-pusht": ["--cameras", "top"], "ddpm-latents": latent, "flow-latents": latent}
    own = {"robots": ["--data", recording], "points": ["--points", 40], "images": []}
    networks = {"robots": "action_unet:width=8,emb=16", "points": "mlp:width=8,depth=1", "images": "unet-tiny:width=8"}
    for name, make in RECIPES.items():
        recipe = make()
        network = networks[recipe.kind] + ",spans=true" * ("spans=true" in recipe.network)
        network = "autoencoder:size=4,keep=8,widths=8-8,groups=4" if name == "autoencoder" else network
        words = ["--batch", 8, "--steps", 2, "--snapshots", 1, "--network", network, *own[recipe.kind]]
        assert main("train", name, "--quiet", *words, *seen.get(name, []), "--out", tmp_path / name) == 0
        trained = from_pretrained(tmp_path / name)
        if name != "autoencoder":  # a codec
            assert trained.sample(2, steps=2).shape == (2, *trained.shape)


def test_fit_is_the_same_from_python(tmp_path, straight):
    trained = fit(tiny(), str(tmp_path / "run"), progress=False)
    assert_same(trained.denoiser.state_dict(), from_pretrained(straight("flow")).denoiser.state_dict())


def test_mixed_precision_is_for_convolutions_on_machines_that_are_faster_at_it(monkeypatch):
    convolves, multiplies = torch.nn.Conv2d(1, 1, 3), torch.nn.Linear(1, 1)
    for fast, wanted in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr("ebbtide.training.devices.fast_bf16", lambda device, fast=fast: fast)
        assert suited("auto", convolves) == wanted
        assert suited("auto", multiplies) == "no"
        assert suited("no", convolves) == "no"
        assert suited("bf16", multiplies) == "bf16"


def test_bf16_trains_images_and_keeps_float32_weights(tmp_path):
    recipe = tiny("images", steps=5)
    trained = fit(recipe, tmp_path / "run", precision="bf16", snapshots=0, progress=False)
    assert {part.dtype for part in trained.denoiser.state_dict().values()} == {torch.float32}
    fit(recipe, tmp_path / "plain", precision="no", snapshots=0, progress=False)
    losses = [np.array([line["loss"] for line in read_metrics(tmp_path / name)]) for name in ("run", "plain")]
    assert 0 < np.abs(losses[0] - losses[1]).max() < 0.05


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shapes can't be checked while dynamo traces
    # AdamW with a tiny eps makes whole steps of gradients that are 0 but for rounding, whose signs are chance.
    recipe = tiny("images", network="unet-tiny:width=16", steps=6, eps=1e-3)
    compiled = fit(recipe, tmp_path / "compiled", compile=True, snapshots=0, progress=False)
    plain = fit(recipe, tmp_path / "plain", snapshots=0, progress=False)
    for name, part in plain.denoiser.state_dict().items():
        assert torch.allclose(part, compiled.denoiser.state_dict()[name], atol=1e-3), name
    again = from_pretrained(tmp_path / "compiled")
    assert again.sample(2, steps=2).shape == (2, 1, 8, 8)


def test_training_needs_float32_by_default(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(InputError, match=r"default dtype to be float32; got torch\.float64"):
            fit(tiny(), tmp_path / "run", progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "0.5"}, {"loss": [1]}, {"loss": True}, {"loss": math.nan}, {"loss": math.inf}, {"step": True},
        {"step": None}, {"cpu_seconds": None}, {"cpu_seconds": {}}, {"lr": "x"}, {"loss": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_a_foreign_line_ends_the_log(tmp_path, change):
    line = {"step": 1, "loss": 0.5, "grad_norm": None, "lr": 1e-3, "examples_per_second": 9.0, "cpu_seconds": 0.1}
    lines = [line, line | {"step": 2, "loss": None}, line | {"step": 3} | change, line]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_metrics(tmp_path) == lines[:2]
