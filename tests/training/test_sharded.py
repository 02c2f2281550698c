"""The sharded engine: a network's weights shared out among processes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.errors import InputError
from ebbtide.networks import NETWORKS
from ebbtide.training.checkpoint import read_folder, saved
from ebbtide.training.devices import accelerate
from ebbtide.training.history import read_metrics
from ebbtide.training.sharded import Sharded, blocks
from interrupting import wait_until
from recording import record
from training.ranks import CASES, POLICIES, STEPS, resumed, trainer_of
from training.runs import arguments, assert_same, children, copy, run, saved_step, sentence, tensors, tiny

ROOT = Path(__file__).parents[2]
RECIPE = tiny("images", network="dit:width=16,depth=2,head=8", steps=12, batch=8, eps=1e-4, weight_decay=0.2)
WORDS = [*arguments(RECIPE, "flow-images"), "--checkpoints", 3, "--keep", 9, "--snapshots", 2, "--no-fit"]


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


def cut(folder, to):
    """A copy of a run that has come to a third of its steps."""
    copy(folder, to)
    for step in (8, 12):
        shutil.rmtree(to / "checkpoints" / f"step-{step:08d}")
    return to


def torchrun(count, *words):
    """Run words in so many processes of torchrun; in this one alone without it."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [*launch, *map(str, words)], capture_output=True, text=True, env=env, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_with_half_the_weights_each_train_as_one_with_all(tmp_path):
    """Losses and norms to 1e-5, though saved and resumed on the way; then all that is saved, read by one process."""
    as_one(2, CASES, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_networks_of_policies_are_shared_too(count, tmp_path):
    record(tmp_path / "episodes.npz", pictures=True)
    as_one(count, [*CASES, *POLICIES], tmp_path)


def as_one(count, names, folder):
    """Train cases in so many processes; losses, and all that is saved, are those of one process with all weights."""
    torchrun(count, Path(__file__).parent / "ranks.py", folder, *names)
    for name in names:
        alone = trainer_of(name, folder, "replicated")
        records = list(alone.steps())
        found = json.loads((folder / f"{name}.json").read_text())
        assert len(found) == len(records) == STEPS
        for one, (loss, norm) in zip(records, found, strict=True):
            assert loss == pytest.approx(one.loss, rel=1e-5), (name, one.step)
            assert norm == pytest.approx(one.grad_norm, rel=1e-4), (name, one.step)
        back = resumed(trainer_of(name, folder, "replicated"), folder / name)
        assert back.step == back.engine.updates == STEPS
        for kind in ("state", "averaged"):
            mine, theirs = (getattr(run, kind)() for run in (alone, back))
            assert mine.keys() == theirs.keys()
            for part in mine:
                torch.testing.assert_close(theirs[part], mine[part], rtol=1e-3, atol=1e-5, msg=f"{name}: {part}")


def test_a_network_is_gathered_block_by_block():
    """Each unit once, the inner ones first; a lone layer in a list is none."""
    counts = {
        "mlp": (NETWORKS["mlp"](2), 0),
        "dit": (NETWORKS["dit"](1, 8, 8, width=16, depth=3, head=8), 3),
        "unet": (NETWORKS["unet-tiny"](1, 8, 8, 0, width=8), 10),
    }
    for name, (network, count) in counts.items():
        found = blocks(network)
        assert (len(found), len({*found})) == (count, count), name


class Scalar(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))


def test_a_network_that_can_not_be_shared_is_one_sentence(tmp_path):
    """A lone number has no rows."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(InputError, match="engine 'fsdp' can't shard network 'mine:Scalar': ") as it:
            Sharded(Denoiser(Scalar(), Linear()), tiny(network="mine:Scalar"), accelerate())
    finally:
        torch.distributed.destroy_process_group()
    sentence(it.value)


@pytest.mark.slow
def test_any_number_of_processes_goes_on_from_any_other(tmp_path):
    """Two, four, and one with all the weights, each from the checkpoint of another; two from their own to the bit."""
    run(RECIPE, tmp_path / "1", checkpoints=3, keep=9, solvers=False)
    for count in (2, 4):
        torchrun(count, "-m", "ebbtide", *WORDS, "--engine", "fsdp", "--out", tmp_path / str(count))
    for before, count, engine in ((2, 2, "fsdp"), (2, 4, "fsdp"), (4, 2, "fsdp"), (1, 2, "fsdp"), (4, 2, "replicated")):
        folder = cut(tmp_path / str(before), tmp_path / f"{before}-{count}-{engine}")
        torchrun(count, "-m", "ebbtide", "resume", folder, "--engine", engine, "--quiet")
    run(RECIPE, cut(tmp_path / "2", tmp_path / "2-1-replicated"), resume=True, checkpoints=3, solvers=False)
    assert_same(tensors(tmp_path / "2-2-fsdp"), tensors(tmp_path / "2"))
    wanted = tensors(tmp_path / "1")
    for folder in sorted(tmp_path.iterdir()):
        assert losses(folder) == pytest.approx(losses(tmp_path / "1"), rel=1e-5), folder.name
        found = tensors(folder)
        assert found.keys() == wanted.keys()
        for name, part in wanted.items():
            torch.testing.assert_close(found[name], part, rtol=1e-3, atol=1e-5, msg=f"{folder.name}: {name}")


@pytest.mark.slow
def test_kill_9_costs_a_sharded_run_steps_and_no_more(tmp_path):
    """All processes at random moments of a run that saves without a pause, then one of the two, which the other says;
    at last the run has the bits of one that nothing happened to."""
    rng, folder, env = random.Random(0), tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    often = arguments(replace(RECIPE, steps=300), "flow-images"), "--checkpoints", 100, "--snapshots", 0, "--no-fit"
    words = ["-m", "ebbtide", *often[0], *often[1:], "--engine", "fsdp", "--restartable"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [str(word) for word in (*launch, *words, "--out", folder)]
    for chance in range(5):
        since = saved_step(folder)
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as agent:
            wait_until(lambda agent=agent, since=since: saved_step(folder) > since or agent.poll() is not None, 200)
            ranks = children(agent.pid)
            time.sleep(rng.uniform(0, 0.5))
            if chance < 4:
                agent.kill()
            for rank in ranks if chance < 4 else ranks[1:]:
                os.kill(rank, signal.SIGKILL)
            said = agent.communicate(timeout=200)[1]
        assert all(read_folder(one) for one in saved(folder / "checkpoints"))
    gone = r"One of the 2 processes is gone: was it killed, or memory short\? Saved at step \d+ of 300; continue with:"
    assert re.search(gone, said), said
    torchrun(2, *words, "--out", folder)
    torchrun(2, *words, "--out", tmp_path / "whole")
    assert_same(tensors(folder), tensors(tmp_path / "whole"))
