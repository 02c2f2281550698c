"""A run's own word opens nothing outside of its folder, and a name can't give orders to the terminal."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ebbflow as package
from ebbflow.cli import main
from ebbflow.cli.arguments import opened
from ebbflow.errors import InputError
from ebbflow.recipes import Recipe
from ebbflow.trained import Trained
from ebbflow.training import checkpoint

# Runs each command and prints what was opened, listed or connected to meanwhile.
WATCH = """
import json, os, sys
seen = []
def note(event, args):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes | os.PathLike):
        seen.append([event, os.path.abspath(os.fsdecode(args[0]))])
    elif event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        seen.append([event, repr(args[1:])])
sys.addaudithook(note)
import matplotlib
from ebbflow import cli
from ebbflow.domains import points
from ebbflow.plots import image_run
points.WALK_POINTS, image_run.FILM, image_run.STEPS = 20, 2, 2  # a plot in no time
codes = [cli.main(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, seen]))
"""
FEW = ("--n", "4", "--steps", "2")


def watched(commands, folder):
    """Exit codes of commands in a process of their own, and (event, what) of all it reaches outside of `folder`.

    Apart from Python, its packages, this one, the machine's settings, and caches of programs.
    """
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {name: text for name, text in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "HF_HOME": str(home), "MPLCONFIGDIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(commands)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    codes, seen = json.loads(done.stdout.splitlines()[-1])
    source = Path(package.__file__).parent
    fine = [*{sys.prefix, sys.base_prefix, *filter(None, sys.path)}, source, folder, home]
    fine += ["/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/bin", "/var/cache/fontconfig"]
    own = [os.path.abspath(place) for place in fine if os.path.abspath(place) != os.path.abspath(folder.parent)]
    out = [(event, what) for event, what in seen if not any(what == p or what.startswith(f"{p}/") for p in own)]
    return codes, out, done.stderr


def stranger(run, folder, **changes):
    """A copy of a run that names other data."""
    target = shutil.copytree(run, folder / "given")
    for step in (target / "checkpoints").glob("step-*"):
        files = checkpoint.read_folder(step)
        config = json.loads(files["config.json"])
        config["recipe"] |= changes
        checkpoint.write_folder(step, files | {"config.json": checkpoint.dump_json(config)})
    return target


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """The user's own data, which a stranger's run may name."""
    folder = tmp_path_factory.mktemp("own")
    rows = np.random.default_rng(0).normal(size=(120, 2))
    np.savetxt(folder / "secret.csv", rows, delimiter=",", header="a,b", comments="")
    return folder / "secret.csv"


@pytest.mark.parametrize("name", ["flow", "between"])
def test_a_strangers_points_open_nothing(runs, secret, tmp_path, name):
    """What a run names is there and readable, and stays closed: as data, and as the set that sampling starts from."""
    starts = {"source": str(secret)} if name == "between" else {}
    given = stranger(runs / name, tmp_path, data=str(secret), **starts)
    commands = [
        ["sample", "given", *FEW], ["evaluate", "given", *FEW], ["likelihood", "given", "--n", "4", "--steps", "4"],
        ["plot", "given"], ["tune", "given", "--evaluations", "1", "--n", "4", "--depth", "grids", "--reference", "10"],
        ["export", "given", "--out", "copy"], ["sample", "copy", *FEW], ["list", "data"],
    ]  # fmt: skip
    codes, out, err = watched(commands, tmp_path)
    assert out == []
    assert codes == ([0, 2, 2, 0, 0, 0, 0, 0] if name == "flow" else [2, 2, 2, 2, 2, 0, 2, 0]), err
    option = "--source" if name == "between" else "--data"
    assert f"{option} {secret}, or where it lies now" in err
    assert given.is_dir()


def test_what_the_user_names_is_opened(runs, table, tmp_path):
    """The test before could not fail if nothing were ever seen to be opened."""
    shutil.copytree(runs / "plants", tmp_path / "given")
    shutil.copy(table, tmp_path.parent / f"{tmp_path.name}.csv")
    elsewhere = str(tmp_path.parent / f"{tmp_path.name}.csv")
    codes, out, err = watched([["evaluate", "given", *FEW, "--data", elsewhere]], tmp_path)
    assert codes == [0], err
    assert set(out) == {("open", elsewhere)}


@pytest.mark.parametrize("data", ["hf:user/mnist", "folder"])
def test_a_strangers_pictures_open_nothing(runs, secret, tmp_path, data):
    given = stranger(runs / "flow-images", tmp_path, data=str(secret.parent) if data == "folder" else data)
    commands = [
        ["sample", "given", *FEW, "--label", "all"], ["evaluate", "given", *FEW], ["plot", "given"],
        ["export", "given", "--out", "copy"], ["evaluate", "copy", *FEW],
    ]  # fmt: skip
    codes, out, err = watched(commands, tmp_path)
    assert (codes, out) == ([0, 2, 0, 0, 2], []), err
    if data != "folder":
        assert "This run was trained on hf:user/mnist, which is opened only if you name it too" in err
    assert given.is_dir()


@pytest.mark.parametrize("data", ["lerobot/pusht", "episodes.npz"])
def test_a_strangers_policy_opens_nothing(policy, tmp_path, data):
    """Nor does one whose network is built on weights of a folder, of the hub, or of the row's own."""
    stranger(policy, tmp_path, data=data if "/" in data else str(policy.parent / data))
    (tmp_path / "built").mkdir()
    network = "pi05" if data == "lerobot/pusht" else f"pi0:weights={policy.parent}"
    stranger(policy, tmp_path / "built", network=network)
    commands = [
        ["sample", "given", *FEW], ["plot", "given"], ["evaluate", "given", *FEW, "--episodes", "0"],
        ["export", "given", "--out", "copy"], ["rollout", "built/given"], ["export", "built/given", "--out", "other"],
    ]  # fmt: skip
    codes, out, err = watched(commands, tmp_path)
    assert (codes, out) == ([2, 2, 2, 0, 2, 2], []), err
    assert "--data " in err
    assert "--weights " in err


def test_only_what_a_run_was_trained_on_can_be_named_for_it(runs, table, secret, tmp_path):
    run, moved = runs / "plants", tmp_path / "moved.csv"
    shutil.copy(table, moved)
    assert opened(run, data=str(moved)).named == {"data": str(moved)}
    with pytest.raises(InputError, match=r"held_out|has no column|is not the data that .* was trained on"):
        opened(run, data=str(secret))
    lines = moved.read_text().splitlines()
    moved.write_text("\n".join([lines[0], "9,fern,9", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=f"{moved} is not the data that {run} was trained on"):
        opened(run, data=str(moved))
    with pytest.raises(InputError, match=r"data can't be named for .*, which names none outside of itself\."):
        opened(runs / "flow", data=str(table))
    with pytest.raises(InputError, match=r"source can't be named for "):
        opened(run, source=str(table))


def test_a_run_just_trained_reads_what_its_recipe_names(table, tmp_path):
    """Training is the user's word; loading is not."""
    from ebbflow.training.run import fit

    recipe = replace(Recipe.from_config({"domain": "points"}), data=str(table), label="kind", source="two_moons")
    recipe = replace(recipe, source="noise", steps=1, batch=8, network="mlp:width=8,depth=1")
    trained = fit(recipe, tmp_path / "run", progress=False, snapshots=0)
    assert trained.reading().data == str(table)
    with pytest.raises(InputError, match=r"\(data=… in from_pretrained\)\.$"):
        Trained.from_pretrained(tmp_path / "run").reading()
    assert Trained.from_pretrained(tmp_path / "run", data="x.csv").reading().data == "x.csv"


EVIL = "x\x1b]0;t\x07\x9b2J\ny"


def shown(text):
    """What of a command's output no name may bring about; bars have line starts of their own."""
    return [c for c in text if not c.isprintable() and c not in "\n\r"] + ["\n"] * text.count("\ny")


@pytest.fixture
def evil(tmp_path):
    """A run of which every name is hostile: folder, file, columns, classes."""
    rng, table = np.random.default_rng(0), tmp_path / f"{EVIL}.csv"
    name = EVIL.replace("\n", "")  # a line break would end a row
    rows = [f"{a:.3f},{b:.3f},{name}{i % 2}" for i, (a, b) in enumerate(rng.normal(size=(120, 2)))]
    table.write_text("\n".join([f"{name},b,kind", *rows]) + "\n")
    return tmp_path / EVIL, table


def test_no_name_gives_orders_to_the_terminal(evil, ebbflow, monkeypatch):
    run, table = evil
    words = ["--label", "kind", "--conditional", "--steps", "3", "--batch", "16", "--snapshots", "2", "--out", run]
    named = ("--data", table)
    monkeypatch.setattr("ebbflow.domains.points.WALK_POINTS", 20)
    commands = {
        "train": ("flow", *named, *words), "resume": (run,), "sample": (run, *FEW), "show": ("data", table),
        "evaluate": (run, *FEW, *named), "likelihood": (run, "--n", "4", "--steps", "4", *named),
        "tune": (run, "--evaluations", "1", "--n", "4", "--depth", "grids", "--reference", "10"),
        "plot": (run, *named), "export": (run, "--out", f"copy{EVIL}"),
    }  # fmt: skip
    for command, given in commands.items():
        if command == "plot":  # what it prints is the paths, whatever is drawn
            monkeypatch.setattr("ebbflow.domains.points.draw_run", lambda trained, folder, out: iter([out / "a.png"]))
        code, out, err = ebbflow(command, *given)
        assert code == 0, (command, err)
        assert shown(out) == shown(err) == [], command
        assert r"\x1b]0;t\x07\x9b2J\ny" in out + err or command in ("evaluate", "likelihood"), command
    for command, given in {
        "sample": (run, "--label", EVIL), "evaluate": (run, *FEW), "likelihood": (run,), "plot": (table,),
        "resume": (table,), "export": (table, "--out", "a"), "show": ("data", f"{table}.csv"), "rollout": (run,),
        "train": ("flow", "--data", f"{EVIL}.npy"), "compare": ("--data", f"{EVIL}.csv"), "certify": (EVIL,),
        "demos": (EVIL,), "list": (EVIL,), "cite": (EVIL,), EVIL: (),
    }.items():  # fmt: skip
        code, out, err = ebbflow(command, *given)
        assert (code, out, err.count("\n")) == (2, "", 1), (command, out, err)
        assert shown(err) == [], command


def test_json_is_json_and_no_order_either(ebbflow, runs, monkeypatch):
    from ebbflow.metrics import Measurement

    row = Measurement(EVIL, 1.0, 0.5, 2.0, 1.0, 0.0, 2.0, "lower", "ü")
    monkeypatch.setattr("ebbflow.domains.points.evaluate", lambda *_, **__: [row])
    code, out, _ = ebbflow("evaluate", runs / "flow", *FEW, "--json")
    assert (code, shown(out)) == (0, [])
    assert json.loads(out)[0]["name"] == EVIL
    code, out, _ = ebbflow("evaluate", runs / "flow", *FEW)
    assert (code, shown(out)) == (0, [])


def test_a_bar_bears_a_printable_name(tmp_path, capsys):
    network = ["--network", "mlp:width=8,depth=1", "--points", "50", "--steps", "2", "--batch", "8", "--snapshots", "0"]
    assert main(["train", "flow", *network, "--out", str(tmp_path / EVIL)]) == 0
    err = capsys.readouterr().err
    assert "step/s" in err or "/2" in err
    assert shown(err) == []
