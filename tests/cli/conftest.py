"""Tiny runs that the tests of the commands share, and a way to call a command."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import tyro

from ebbtide.cli import main
from ebbtide.kinds import KINDS
from ebbtide.kinds.runs import train_recipe as fit
from ebbtide.recipes import RECIPES
from ebbtide.training import devices
from plots.material import small
from recording import record

POINTS = [name for name, row in RECIPES.items() if row().kind == "points"]
PICTURES = [name for name, row in RECIPES.items() if row().kind == "images"]
SHORT = ["--snapshots", "2", "--checkpoints", "2", "--quiet"]
TINY = ["--steps", "20", "--points", "500", "--batch", "64", *SHORT]


def tiny_fields(name):
    """What makes a recipe for images tiny, by fields; latents of digits are 4 × 4."""
    recipe, fields = RECIPES[name](), {"steps": 4, "batch": 16, "sample_steps": 2}
    if recipe.network == "autoencoder":  # which takes no labels
        return fields | {"network": "autoencoder:size=4,keep=4,widths=8-8"}
    fields |= {"network": "unet-tiny:width=8" + ",spans=true" * ("spans" in recipe.network), "conditional": True}
    return fields | ({"codec": "pixels+patches:size=2,keep=4"} if "patches" in recipe.codec else {})


def tiny_pictures(name):
    """The same as words of a command."""
    words = [
        [f"--{field.replace('_', '-')}"] + [str(value)] * (value is not True)
        for field, value in tiny_fields(name).items()
    ]
    return sum(words, SHORT)


@pytest.fixture(scope="session", autouse=True)
def quiet_hub():
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A user's file: three columns, one of text labels."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "plants.csv"
    rows = [f"{x:.4f},{kind},{y:.4f}" for kind in ("fern", "moss") for x, y in rng.normal(size=(60, 2)) + 3]
    path.write_text("height,kind,width\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory, table):
    """A folder of runs: one of each recipe, conditional ones, one on a file, one between two sets, and a bare line.

    Those on files are seen in standard deviations, so that their data has a density.
    """
    folder = tmp_path_factory.mktemp("runs")
    np.save(folder / "line.npy", np.random.default_rng(1).normal(size=(90, 1)))
    extra = {
        "conditional": ["flow", "--data", "two_spirals", "--conditional"],
        "plants": ["flow", "--data", str(table), "--label", "kind", "--conditional", "--codec", "standardise"],
        "between": ["flow", "--source", "eight_gaussians", "--data", "two_moons"],
        "line": ["ddpm", "--data", str(folder / "line.npy"), "--codec", "standardise"],
    }
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        for kind in ("points", "images"):
            patch.setitem(KINDS[kind].snapshot, "steps", 2)
        for name, arguments in ({name: [name] for name in POINTS} | extra).items():
            assert main(["train", *arguments, *TINY, "--out", str(folder / name)]) == 0
        for name in PICTURES:
            assert main(["train", name, *tiny_pictures(name), "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="session")
def policy_in():
    """policy_in(folder): a run of a policy for Push-T that has learned nothing, on folder/episodes.npz."""

    def make(folder, pictures=False, **changes):
        recipe = replace(
            RECIPES["flow-policy-pusht"](), data=record(folder / "episodes.npz", pictures=pictures), steps=4, batch=8,
            sample_steps=2, network="action_unet:width=8,emb=16", cameras="top" if pictures else "", **changes,
        )  # fmt: skip
        fit(recipe, folder / "run", snapshots=0, checkpoints=1, progress=False)
        return folder / "run"

    return make


@pytest.fixture(scope="session")
def policy(policy_in, tmp_path_factory):
    """The run of one."""
    return policy_in(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def ebbtide(capsys, monkeypatch, tmp_path):
    """Call a command in an empty folder: ebbtide("list") → (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def in_two():
    """in_two(run, words): a command of two processes that torchrun started, here two threads; whether each ended.

    tests/cli/test_drawing.py has real ones, among the slow tests.
    """
    own, wall, parts = threading.local(), threading.Barrier(2, timeout=120), {}
    alone, parsed = threading.Lock(), tyro.cli

    def cli(*args, **options):  # its caches are for one thread, which a process has
        with alone:
            return parsed(*args, **options)

    def gathered(part):
        parts[own.rank] = part
        wall.wait()
        return [parts[0], parts[1]] if own.rank == 0 else []

    def together(action, count):
        found = action()
        wall.wait()
        return [found] * count

    def call(run, words):
        ended = []

        def process(rank):
            own.rank = rank
            try:
                run([str(word) for word in words])
                ended.append(rank)
            except SystemExit as left:
                ended.append((rank, left.code))
            except BaseException:
                wall.abort()
                raise

        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "process_number", lambda: (own.rank, 2))
            patch.setattr(devices, "meet", wall.wait)
            patch.setattr(devices, "gathered", gathered)
            patch.setattr(devices, "together", together)
            patch.setattr(tyro, "cli", cli)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return sorted(ended, key=str)

    return call
