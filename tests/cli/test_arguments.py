"""A run's own word opens nothing outside of its folder, and a name can't give orders to the terminal."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import ebbtide as package
from ebbtide.cache import cache_folder
from ebbtide.cli import COMMANDS, main
from ebbtide.cli.arguments import SYNONYMS, meant_by, opened
from ebbtide.cli.completion import options_of
from ebbtide.errors import InputError
from ebbtide.files import dump_json
from ebbtide.kinds import KINDS
from ebbtide.training import checkpoint

# Runs each command, and prints its exit code, and what was opened, listed or connected to meanwhile.
WATCH = """
import json, os, sys
seen = []
def note(event, args):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes | os.PathLike):
        seen.append([event, os.path.realpath(os.fsdecode(args[0]))])
    elif event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        seen.append([event, repr(args[1:])])
sys.addaudithook(note)
from ebbtide import cli
import ebbtide.cli.likelihood
from ebbtide.kinds.points import study as points
from ebbtide.kinds.images import pages as image_run
from ebbtide.metrics.tables import trees
from ebbtide.plots import animation, style
trees.FOLDS, trees.ITERATIONS = 2, 5
cli.likelihood.MAP, style.DPI, animation.FRAME_DPI, animation.MOST_FRAMES = 6, 50, 50, 6
points.WALK_POINTS, image_run.FILM, image_run.STEPS = 20, 6, 2  # a plot in no time
image_run.WEIGHTS, image_run.CLASSES = (1.0, 3.0), 2
found = []
for words in json.loads(sys.argv[1]):
    seen.clear()
    code = cli.main(words)
    found.append([code, list(seen)])
print(json.dumps(found))
"""
FEW = ("--n", "4", "--steps", "2")


def stranger(run, target, **changes):
    """A copy of a run that names other data."""
    shutil.copytree(run, target)
    for step in (target / "checkpoints").glob("step-*"):
        files = checkpoint.read_folder(step)
        config = json.loads(files["config.json"])
        config["recipe"] |= changes
        checkpoint.write_folder(step, files | {"config.json": dump_json(config)})


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """The user's own file, which a stranger's run may name: it is there and readable."""
    file = tmp_path_factory.mktemp("own") / "secret.csv"
    np.savetxt(file, np.random.default_rng(0).normal(size=(120, 2)), delimiter=",", header="a,b", comments="")
    return file


@pytest.fixture(scope="module")
def watched(runs, policy, secret, table, tmp_path_factory):
    """Command → exit code, what it says, and all it reaches outside of the strangers' runs, in one process.

    Apart from Python and its packages, the machine's settings, and the caches of programs.
    """
    folder, home = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("home")
    stranger(runs / "flow", folder / "points", data=str(secret))
    stranger(runs / "between", folder / "between", data=str(secret), source=str(secret))
    stranger(runs / "flow-images", folder / "hub", data="hf:user/mnist")
    stranger(runs / "flow-images", folder / "pictures", data=str(secret.parent))
    stranger(policy, folder / "recorded")
    stranger(policy, folder / "robot", data="lerobot/pusht")
    stranger(policy, folder / "pi05", network="pi05")
    stranger(policy, folder / "pi0", network=f"pi0:weights={secret.parent}")
    stranger(runs / "plants", folder / "plants")
    with contextlib.suppress(OSError):  # kernels that are compiled for this machine
        shutil.copytree(cache_folder() / "executable", home / "executable")
    commands = [command for some in WATCHED.values() for command in some]
    given = [[str(table) if word == "TABLE" else word for word in command] for command in commands]
    environment = {name: text for name, text in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= dict.fromkeys(
        ("HOME", "XDG_CACHE_HOME", "EBBTIDE_CACHE", "HF_HOME", "MPLCONFIGDIR", "TMPDIR"), str(home)
    )
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(given)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    fine = [sys.prefix, sys.base_prefix, *filter(None, sys.path), Path(package.__file__).parent, folder, home]
    fine += [*map(Path, ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib")), matplotlib.get_data_path()]
    own = tuple(f"{os.path.realpath(place)}/" for place in fine)
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        " ".join(command): (code, {(event, what) for event, what in seen if not f"{what}/".startswith(own)})
        for command, (code, seen) in zip(commands, found, strict=True)
    }, done.stderr


TUNE = ["--evaluations", "1", "--n", "4", "--depth", "grids", "--reference", "10"]
WATCHED = {
    "fine": [
        ["sample", "points", *FEW], ["plot", "points"], ["tune", "points", *TUNE],
        ["export", "points", "--out", "copy"], ["sample", "copy", *FEW],
        ["sample", "hub", *FEW, "--label", "all"], ["plot", "hub"], ["export", "hub", "--out", "shared"],
        ["sample", "pictures", *FEW], ["plot", "pictures"],
        ["export", "between", "--out", "ends"], ["export", "robot", "--out", "arm"],
    ],
    "refused": [
        ["evaluate", "points", *FEW], ["likelihood", "points", "--n", "4", "--steps", "4"], ["evaluate", "copy", *FEW],
        *([command, "between", *FEW] for command in ("sample", "evaluate")), ["plot", "between"],
        ["tune", "between", *TUNE], ["evaluate", "hub", *FEW], ["evaluate", "shared", *FEW],
        ["evaluate", "pictures", *FEW], ["sample", "recorded", *FEW], ["plot", "robot"], ["sample", "robot", *FEW],
        ["evaluate", "arm", "--episodes", "0"], ["evaluate", "recorded", "--episodes", "0"],
        *([command, name] for command in ("rollout", "sample", "evaluate", "plot") for name in ("pi05", "pi0")),
    ],
    "named": [
        ["evaluate", "plants", *FEW, "--data", "TABLE"],
        ["likelihood", "plants", "--n", "4", "--steps", "4", "--data", "TABLE"],
    ],
}  # fmt: skip


def test_a_strangers_run_opens_nothing(watched):
    """Nor is anything asked of the network; without what it doesn't open, it is drawn and exported or refused."""
    for kind, wanted in (("fine", 0), ("refused", 2)):
        for command in map(" ".join, WATCHED[kind]):
            assert watched[0][command] == (wanted, set()), command


def test_what_a_run_names_is_said_with_how_to_name_it(watched, secret):
    _, err = watched
    for name, option, use in (
        (secret, "data", "was trained on"), (secret, "source", "starts from"),
        ("hf:user/mnist", "data", "was trained on"), ("secret.csv", "data", "was trained on"),
        ("lerobot/pusht", "data", "was trained on"), (secret.parent, "weights", "was built on"),
        ("google/paligemma-3b-pt-224", "weights", "was built on"),
    ):  # fmt: skip
        assert (
            f"This run {use} {name}, which is opened only if you name it too: --{option} {name}, or where it lies now "
            f"({option}=… in from_pretrained)." in err
        )


def test_what_the_user_names_is_opened(watched, table):
    """And nothing else. The tests before could not fail if nothing were ever seen to be opened."""
    for command in WATCHED["named"]:
        assert watched[0][" ".join(command)] == (0, {("open", str(table))})


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


@pytest.mark.unchecked
def test_no_name_gives_orders_to_the_terminal(evil, ebbtide, monkeypatch):
    run, table = evil
    copy = f"copy{EVIL}"
    words = ["--label", "kind", "--conditional", "--steps", "3", "--batch", "16", "--snapshots", "2"]
    words += ["--codec", "standardise", "--out", run]
    named = ("--data", table)
    monkeypatch.setattr("ebbtide.kinds.points.study.WALK_POINTS", 20)
    monkeypatch.setattr("ebbtide.cli.likelihood.MAP", 6)
    commands = {
        "train": ("flow", *named, *words), "resume": (run,), "sample": (run, *FEW),
        "show": ("data", table, "--label", "kind"),
        "evaluate": (run, *FEW, *named), "likelihood": (run, "--n", "4", "--steps", "4", *named),
        "tune": (run, "--evaluations", "1", "--n", "4", "--depth", "grids", "--reference", "10"),
        "plot": (run, *named), "export": (run, "--out", copy),
    }  # fmt: skip
    for command, given in commands.items():
        if command == "plot":  # what it prints is the paths, whatever is drawn
            patched(monkeypatch, draw_run=lambda trained, folder, out: iter([out / "a.png"]))
        code, out, err = ebbtide(command, *given)
        assert code == 0, (command, err)
        assert shown(out) == shown(err) == [], command
        assert r"\x1b]0;t\x07\x9b2J\ny" in out + err or command in ("evaluate", "likelihood"), command
    for command, given in {
        "sample": (run, "--label", EVIL), "evaluate": (copy, *FEW), "likelihood": (copy,), "plot": (table,),
        "resume": (table,), "export": (table, "--out", "a"), "show": ("data", f"{table}.csv"), "rollout": (run,),
        "train": ("flow", "--data", f"{EVIL}.npy"), "compare": ("--data", f"{EVIL}.npy"), "certify": (EVIL,),
        "demos": (EVIL,), "list": (EVIL,), "cite": (EVIL,), EVIL: (),
    }.items():  # fmt: skip
        code, out, err = ebbtide(command, *given)
        assert (code, out, err.count("\n")) == (2, "", 1), (command, out, err)
        assert shown(err) == [], command


def patched(monkeypatch, **parts):
    """Points with other parts."""
    monkeypatch.setitem(KINDS, "points", replace(KINDS["points"], **parts))


def test_json_is_json_and_no_order_either(ebbtide, runs, monkeypatch):
    from ebbtide.metrics import Measurement

    row = Measurement(EVIL, 1.0, 0.5, 2.0, 1.0, 0.0, 2.0, "lower", "ü")
    patched(monkeypatch, evaluate=lambda *_, **__: [row])
    code, out, _ = ebbtide("evaluate", runs / "flow", *FEW, "--json")
    assert (code, shown(out)) == (0, [])
    assert json.loads(out)[0]["name"] == EVIL
    code, out, _ = ebbtide("evaluate", runs / "flow", *FEW)
    assert (code, shown(out)) == (0, [])


def test_a_bar_bears_a_printable_name(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    network = ["--network", "mlp:width=8,depth=1", "--points", "50", "--steps", "2", "--batch", "8", "--snapshots", "0"]
    assert main(["train", "flow", *network, "--out", str(tmp_path / EVIL)]) == 0
    err = capsys.readouterr().err
    assert "step/s" in err or "/2" in err
    assert shown(err) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sample", "RUN is missing (Folder of the run, or user/name on the hub); see ebbtide sample --help."),
        ("sample r --n x", "--n must be a whole number; got 'x'."),
        (f"sample r --n {'9' * 5000}", "--n must be a whole number of fewer than 4300 digits."),
        ("sample r --guidance x", "--guidance must be a number; got 'x'."),
        ("sample r --interval a b", "--interval must be numbers; got ['a', 'b']."),
        ("sample r --interval 0.2", "--interval needs 2 values; see ebbtide sample --help."),
        ("sample r --n", "--n needs a value; see ebbtide sample --help."),
        ("sample r --precision x", "--precision must be one of 'auto', 'no', 'bf16'; got 'x'."),
        ("sample r x", "There is no place for 'x'; see ebbtide sample --help."),
        (
            "sample r --sampeler x",
            "There is no option --sampeler (did you mean --sampler?); see ebbtide sample --help.",
        ),
        ("train flow --stepz=3", "There is no option --stepz (did you mean --steps?); see ebbtide train flow --help."),
        ("train flow --qqq", "There is no option --qqq; see ebbtide train flow --help."),
        ("train flow --keep 0", "--keep must be at least 1; got 0."),
    ],
)
def test_what_the_parser_refuses_is_one_sentence(ebbtide, words, said):
    assert ebbtide(*words.split()) == (2, "", f"ebbtide: {said}\n")


@pytest.mark.parametrize("command", ["sample", "evaluate", "likelihood", "plot", "tune", "train", "distill", "compare"])
def test_a_missing_device_is_one_sentence_in_every_command(ebbtide, runs, command, tmp_path):
    """Before anything is written; of rollout in test_rollout."""
    words = [command, *{"train": ["flow"], "compare": []}.get(command, [runs / "flow"]), "--device", "cuda:7"]
    code, out, err = ebbtide(*words, *["--out", tmp_path / "there"] * (command in ("train", "distill", "compare")))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("ebbtide: device must be one of auto, cpu")
    assert err.endswith("on this machine; got 'cuda:7'.\n")
    assert not (tmp_path / "there" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("train flow --batch-size 3", "--batch"),
        ("train flow --learning_rate=0.1", "--lr"),
        ("train flow --epochs 3", "--steps, a number of batches,"),
        ("train flow --output-dir there", "--out"),
        ("train flow --num-train-steps 3", "--steps"),
        ("train flow --num-inference-steps 3", "--sample-steps"),
        ("train flow --mixed-precision bf16", "--precision"),
        ("train flow --report-to wandb", "--track"),
        ("train flow --seed-everything 3", "--seed"),
        ("train flow --model mlp", "--network"),
        ("train flow --pretrained runs/a", "--init"),
        ("train flow --warmup-steps 3", "--warmup, a share of the steps,"),
        ("train flow-images --resolution 64", "--size"),
        ("train flow-images --dataset-name digits", "--data"),
        ("sample r --num-samples 3", "--n"),
        ("sample r --num-inference-steps 3", "--steps"),
        ("sample r --guidance-scale 3", "--guidance"),
        ("sample r --scheduler ddim", "--sampler"),
        ("sample --model r", "RUN"),
        ("evaluate r --ckpt r", "RUN"),
        ("rollout r --output-dir there", "--video"),
        ("distill r --batch-size 3", "--batch"),
        ("compare --learning-rate 3", "--lr"),
        ("resume r --gradient-accumulation-steps 2", "--accumulate"),
        ("tune r --nfe 5", "--evaluations"),
        ("demos aloha-transfer --num-episodes 5", "--episodes"),
        ("likelihood r --gpu 5", "--device"),
        ("export r --force", "--overwrite"),
    ],
)
def test_a_name_of_other_libraries_is_answered_with_ours(ebbtide, words, ours):
    code, out, err = ebbtide(*words.split())
    typed = next(word for word in words.split() if word.startswith("--")).partition("=")[0]
    see = " ".join(words.split()[: 2 if words.startswith("train") else 1])
    assert (code, out, err) == (2, "", f"ebbtide: {typed} is {ours} here; see ebbtide {see} --help.\n")


def test_a_synonym_stands_for_options_and_is_none_of_the_same_command():
    """Where it is one, as --samplers of certify or --network of train, it means itself."""
    every = {
        option[2:]
        for command in COMMANDS
        for option in options_of(command, "flow-images" if command == "train" else "")
    }
    meant = {name.partition(",")[0] for name in SYNONYMS}
    assert meant - {"RUN"} <= every
    for synonyms in SYNONYMS.values():
        for one in every.intersection(synonyms):
            assert not meant_by(f"--{one}", [f"--{option}" for option in every]), one
