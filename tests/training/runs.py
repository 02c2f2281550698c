"""Tiny runs, and what the tests of training share."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageReader

from ebbtide.exact.tuned import Tuned
from ebbtide.kinds.runs import begin as prepare, train_recipe as fit
from ebbtide.recipes import RECIPES, Recipe
from ebbtide.training.checkpoint import PIECES, TRAINING, WEIGHTS
from ebbtide.training.devices import accelerate
from ebbtide.training.history import Log
from ebbtide.training.pieces import read_pieces
from ebbtide.training.trainer import Trainer

STEPS = 12
# Every kind of random number and of state: ancestral, ODE, labels, coupled pairs, a path's own noise, two sample sets.
VARIANTS = {
    "ddpm": ("ddpm", {}),
    "flow": ("flow", {}),
    "edm": ("edm", {}),
    "conditional": ("flow", {"conditional": True}),
    "ot": ("ot-flow", {}),
    "class-ot": ("ot-flow", {"coupling": "class_ot", "conditional": True}),
    "bridge": ("bridge", {}),
    "two sets": ("bridge", {"source": "eight_gaussians", "data": "two_moons"}),
    "images": ("flow-images", {"flip": True, "conditional": True, "network": "unet-tiny:width=8,dropout=0.2"}),
    "decay": ("flow", {"weight_decay": 0.1, "clip": 0.01, "stratified": False}),
}


def tiny(name: str = "flow", **changes) -> Recipe:
    """A recipe that trains in no time."""
    base, own = VARIANTS[name]
    small = {"batch": 16, "steps": STEPS, "network": "mlp:width=8,depth=2", "seed": 3, "lr": 0.01}
    recipe = RECIPES[base]()
    few = {"points": 50} if recipe.kind == "points" else {}
    return replace(recipe, **{**small, **few, **own, **changes})


def trainer(recipe: Recipe, accumulate: int = 1, precision: str = "no") -> Trainer:
    start, data = prepare(recipe)
    return Trainer(start.denoiser, data, recipe, accelerate(precision), accumulate, len(start.classes))


def run(recipe: Recipe, folder: Path, **options):
    """fit, without a bar and snapshots unless asked for."""
    return fit(recipe, folder, **{"progress": False, "snapshots": 0, "checkpoints": 4, **options})


class Killed(BaseException):
    """What nothing catches: the process is gone."""


def run_until(step: int, recipe: Recipe, folder: Path, monkeypatch, action=None, **options) -> None:
    """A run that is gone right after a step is logged and before it is saved; or does `action` there and goes on."""
    log = Log.__call__

    def stop(self, record, *held):
        log(self, record, *held)
        if record.step == step:
            if action is None:
                raise Killed
            action()

    with monkeypatch.context() as patch:
        patch.setattr(Log, "__call__", stop)
        try:
            run(recipe, folder, **options)
        except Killed:
            assert action is None


def newest(folder: Path) -> Path:
    return (folder / "checkpoints" / "last").resolve()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last checkpoint: weights, average, moments, step."""
    where = newest(folder)
    state = in_pieces(where) if (where / PIECES).is_dir() else load_file(where / TRAINING)
    both = {"model": load_file(where / WEIGHTS), "training": state}
    return {f"{name}:{key}": part for name, parts in both.items() for key, part in parts.items()}


def in_pieces(where: Path) -> dict[str, torch.Tensor]:
    """The training state of a checkpoint that several processes wrote."""
    held = HuggingFaceStorageReader(str(where / PIECES)).read_metadata().state_dict_metadata
    return read_pieces(
        where / PIECES, {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in held.items()}
    )


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def tuned(n, **changes):
    values = {
        "sampler": "euler",
        "grid": "quadratic",
        "steps": n,
        "rms": 0.1,
        "median": 0.0,
        "error": 0.0,
        "usual": 1.0,
    }
    return Tuned(evaluations=n, **{**values, **changes})


def sentence(error: BaseException) -> str:
    """The error's text, if it is what a user should read: one line, a capital or a name first, no traceback."""
    text = str(error)
    assert "\n" not in text, text
    assert 10 < len(text) < 800, text
    return text


def command(*arguments: object, **options) -> subprocess.Popen:
    """`python -m ebbtide …` as a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(
        [sys.executable, "-m", "ebbtide", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options,
    )  # fmt: skip


def arguments(recipe: Recipe, base: str) -> list[str]:
    """The command line that trains this recipe."""
    default = RECIPES[base]().to_config()
    changed = {key: value for key, value in recipe.to_config().items() if value != default[key]}
    words = ["train", base, "--quiet"]
    for key, value in changed.items():
        option = key.replace("_", "-")
        words += [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", value]
    return [str(word) for word in words]


def saved_step(folder: Path) -> int:
    """The newest step on disk, -1 for none."""
    parent = folder / "checkpoints"
    steps = [int(name[5:]) for name in (os.listdir(parent) if parent.is_dir() else ()) if re.match("step-", name)]
    return max(steps, default=-1)


def copy(folder: Path, to: Path) -> Path:
    return shutil.copytree(folder, to, symlinks=True)


def children(pid: int) -> list[int]:
    """The processes that a process has begun."""
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return sorted(map(int, done.stdout.split()))


def ranked(rank, reduce, processes=2):
    """The accelerator of one of several processes, whose sums `reduce` makes."""
    accelerator = accelerate()
    own = {"process_index": rank, "num_processes": processes, "reduce": staticmethod(reduce)}
    accelerator.__class__ = type("Ranked", (type(accelerator),), own)
    return accelerator
