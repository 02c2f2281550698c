"""The command as a stranger meets it: help in a moment, and one clear sentence for whatever can't be."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cells import each
from ebbtide import __version__
from ebbtide.cli import COMMANDS, HELP, arguments, listing, main
from ebbtide.recipes import RECIPES
from ebbtide.signals import STOPPING, Interrupted
from forking import forked
from recording import record

SOURCE = Path(arguments.__file__).parent
SLOW_IMPORTS = ("torch", "numpy", "matplotlib", "scipy", "accelerate", "PIL", "huggingface_hub")
KINDS = ("flow", "ddpm-images", "pi0-pusht")  # a recipe for each kind of data
HELPS = {
    "commands": [
        ["--help"],
        *([name, "--help"] for name in COMMANDS),
        *(["train", name, "--help"] for name in KINDS),
        ["show", "path", "--help"],
        ["show", "data", "--help"],
    ],
    "recipes": [["train", name, "--help"] for name in RECIPES if name not in KINDS],
}


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def shell(*arguments, **options):
    return run(sys.executable, "-m", "ebbtide", *map(str, arguments), **options)


# --- help ---------------------------------------------------------------------------------------------------


def test_a_help_text_says_the_main_thing_in_twelve_words():
    """Those before its semicolon; of every field of the commands and recipes."""
    long = []
    for file in (*SOURCE.glob("*.py"), *SOURCE.parent.glob("recipes/*.py")):
        for row in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            body = row.body if isinstance(row, ast.ClassDef) else []
            for field, text in pairwise(body):
                is_option = isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.dump(field.annotation)
                said = text.value.value if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) else ""
                if is_option and len(said.split(";")[0].split()) > 12:
                    long.append(f"{file.name}: {said}")
    assert not long


def test_what_is_said_twice_is_said_once(monkeypatch, capsys):
    """Data is read before training and in it, and Python forgets what it said whenever its filters change."""

    def warn(argv):
        for text in ("one", "one", "two"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
            warnings.warn(f"{text}\x1b", stacklevel=1)

    monkeypatch.setattr(listing, "run", warn)
    assert main(["list"]) == 0
    assert capsys.readouterr().err == "ebbtide: one\\x1b\nebbtide: two\\x1b\n"


@pytest.mark.parametrize("which", ["commands", pytest.param("recipes", marks=pytest.mark.slow)])
def test_help_takes_a_moment_and_no_torch(which):
    """At most 0.5 s of CPU, the best of three (measured: 0.02 for --help, 0.2 for `train flow --help`)."""
    slow = HELPS[which]
    for _ in range(3):
        answers = forked([(".", words, ["tyro"]) for words in slow])
        for words, (code, said, _, modules) in zip(slow, answers, strict=True):
            assert (code, said[:6], set(SLOW_IMPORTS) & set(modules)) == (0, "usage:", set()), words
        slow = [words for words, (*_, seconds, _) in zip(slow, answers, strict=True) if seconds > 0.5]
        if not slow:
            break
    assert not slow


def test_importing_the_package_imports_no_torch():
    done = run(sys.executable, "-c", "import sys, ebbtide; print(*sys.modules)")
    assert not set(SLOW_IMPORTS) & set(done.stdout.split())


HEAVY = ("torch", "accelerate", "matplotlib", "scipy", "sympy", "torch._dynamo", "pandas", "PIL", "huggingface_hub")
NEEDS = {  # what each command may import of HEAVY, and nothing else; none less than one before it
    ("list",): (),
    ("cite", "flow"): (),
    ("export", "RUN", "--out", "exported"): ("torch", "PIL"),
    ("sample", "RUN", "--n", "20", "--no-picture"): ("torch", "PIL"),
    ("likelihood", "RUN", "--n", "4", "--steps", "4", "--no-picture"): ("torch", "PIL"),
    ("evaluate", "RUN", "--n", "50"): ("torch", "PIL", "scipy"),
    ("train", "flow", "--steps", "2", "--points", "100", "--out", "trained"): ("torch", "PIL", "accelerate"),
    ("sample", "RUN", "--n", "20"): ("torch", "matplotlib", "PIL", "scipy"),
    ("plot", "RUN"): ("torch", "matplotlib", "PIL", "scipy"),
    ("show", "data", "two_moons", "--n", "100"): ("torch", "matplotlib", "PIL", "scipy"),
    ("show", "path", "--data", "two_moons"): ("torch", "matplotlib", "PIL", "scipy"),
}

# A plot of little: none of these modules is one that plot could do without.
FEW = {
    "ebbtide.kinds.points.study.WALK_POINTS": 20,
    "ebbtide.plots.animation.MOST_FRAMES": 6,
    "ebbtide.plots.style.DPI": 50,
}


def test_a_command_imports_only_what_it_uses(runs, tmp_path, monkeypatch):
    """The compiler of torch and sympy, a second and a half, are for none of these."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    # The first one after a change of the code asks the tables themselves, for which this process has imported it all.
    assert main(["list"]) == 0
    commands = []
    for number, (words, wanted) in enumerate(NEEDS.items()):
        place = tmp_path / str(number)
        shutil.copytree(runs / "flow", place / "run")
        drawn = ["matplotlib.figure", "scipy.optimize", "scipy.special"] if "matplotlib" in wanted else []
        first = ["torch", *drawn] if "torch" in wanted else []  # what it needs anyway, for those after it too
        changed = FEW if words[0] == "plot" else {}
        commands.append((str(place), ["run" if word == "RUN" else word for word in words], first, changed))
    for (words, wanted), (code, said, _, modules) in zip(NEEDS.items(), forked(commands), strict=True):
        assert code == 0, (words, said)
        assert set(HEAVY) & set(modules) == set(wanted), words


def test_help_and_version_in_process(ebbtide):
    assert ebbtide() == ebbtide("-h") == ebbtide("--help") == (0, HELP, "")
    assert ebbtide("--version") == (0, f"ebbtide {__version__}\n", "")
    for command in COMMANDS:
        assert f"\n  {command} " in HELP
        code, out, err = ebbtide(command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: ebbtide {command}")
        assert "None" not in out  # of an option that may be None, which would stand in its errors too


def test_python_m_ebbtide_is_the_command():
    assert shell("--version").stdout == f"ebbtide {__version__}\n"


# --- one sentence -------------------------------------------------------------------------------------------

LONG = "x" * 100_000
HUGE = str(10**15)
F = ["train", "flow"]
S = ["sample", "{runs}/flow"]
C = ["sample", "{runs}/conditional"]
SPECS = {  # option of train: specs it can't be
    "--path": [
        "", "foo", "Linear", "vp:beta_max=nan", "vp:beta_max=inf", "vp:beta_max=0.01", "vp:beta_max=1,beta_max=2",
        "vp:beta_max=ten", "vp:gamma=1", "vp:beta_max", "ddpm:steps=0", "ddpm:steps=1000000000000", "ddpm:steps=2.5",
        "ddpm:betas=foo", "ddpm:beta_min=-1", "ddpm:table=1", "cosine:offset=1", "ve:sigma_max=0", "ve:sigma_max=inf",
        "bridge:spread=-1", "linear:x=1",
    ],
    "--target": ["foo", "edm:data_std=0", "edm:data_std=nan", "edm:data_std=true", "noise:x=1", "v:x"],
    "--times": [
        "foo", "uniform:x=1", "logit_normal:std=0", "logit_normal:mean=nan", "beta:a=-1", "beta:scale=2",
        "beta:b=inf", "log_normal:std=nan", "log_normal:mean=nan",
    ],
    "--weight": ["foo", "unit:x=1", "min_snr:gamma=nan", "min_snr:gamma=-1", "edm:data_std=0", "edm:data_std=x"],
    "--coupling": ["foo", "ot:x=1", "class_ot", "OT"],
    "--network": [
        "foo", "mlp:", "mlp:width=0", "mlp:width=-3", "mlp:width=1000000000", "mlp:width=65536,depth=1024",
        "mlp:depth=-1", "mlp:time_features=3", "mlp:width=1.5", "mlp:classes=3", "mlp:dim=3", "mlp:width=1,width=2",
        "torch.nn.Linear",
    ],
    "--grid": [
        "foo", "karras:rho=-1", "karras:rho=nan", "karras:ratio_min=100", "log_snr:ratio_min=0", "shifted:shift=0",
        "trailing:table=10", "uniform:x=1",
    ],
    "--sampler": ["foo", "ddim:", "ddim:eta=2", "ddim:eta=nan", "ddpm:variance=both", "heun:eta=1", "ddim:draws=1"],
    "--data": [
        "foo", "", "nothere.csv", ".", "{tmp}", "two_moon", "{bad}/ragged.csv", "{bad}/empty.csv",
        "{bad}/text.csv", "{bad}/one.csv", "{bad}/pickle.npy", "{bad}/cut.npz", "no\nthere.csv",
        "ünï\u2028cøde",
    ],
    "--source": ["foo", "point_mass", "nothere.csv"],
}  # fmt: skip
NUMBERS = {  # option of train: numbers it can't be
    "--steps": ["0", "-1", "1.5", "x", "", "nan", "1e3", "9" * 5000, str(10**400)],
    "--points": ["1", HUGE, "-5", "1000000000"],
    "--batch": ["0", HUGE, "10000000"],
    "--lr": ["nan", "inf", "-0.1", "1e400", "fast", "1e9"],
    "--ema": ["1", "-1", "nan"],
    "--warmup": ["2", "nan"],
    "--clip": ["0", "nan"],
    "--weight-decay": ["-1"],
    "--label-dropout": ["1.5"],
    "--seed": ["-1", "9223372036854775808", "1.0"],
    "--sample-steps": ["0", HUGE],
    "--checkpoints": ["0"],
    "--keep": ["0", "-1"],
    "--snapshots": ["-1"],
    "--threads": ["-1", "1000000000"],
}
OTHERS = [
    ["foo"], [""], ["--foo"], ["Train"], ["trian"], ["../train"], ["tr\nain"], [LONG], ["é"],
    ["train", "foo"], ["train", ""], ["train", "--steps", "3"], ["train", "otflow"],
    [*F, "extra"], [*F, "--foo"], [*F, "--stepz", "5"], [*F, "--steps"], [*F, "--resume=3"], [*F, "-x"], [*F, LONG],
    [*F, "--on-nonfinite", "x"], [*F, "--precision", "fp8"], [*F, "--track", "x"], [*F, "--label", "x"],
    [*F, "--data", LONG], [*F, "--path", LONG], [*F, "--foo\nbar"], [*F, "--data", "\x1b[31mred"],
    [*F, "--data", "swiss_roll", "--conditional"], [*F, "--data", "{bad}/fine.csv", "--label", "kind"],
    [*F, "--source", "two_moons", "--sampler", "ddpm"], [*F, "--source", "two_moons", "--sampler", "ddim:eta=1"],
    [*F, "--grid", "trailing", "--sample-steps", "2000"],
    ["train", "ddpm", "--coupling", "ot"], ["train", "ddpm", "--source", "two_moons"],
    ["train", "edm", "--target", "v", "--coupling", "ot"],
    [*F, "--out", "{runs}/flow"], [*F, "--out", "{bad}/file.txt"], [*F, "--out", "{bad}/file.txt/run"],
    [*F, "--out", LONG], [*F, "--out", "nothere", "--resume"], [*F, "--out", "{runs}/edm", "--resume"],
    [*F, "--out", "{runs}/flow", "--resume", "--steps", "50"],
    ["resume"], ["resume", "nothere"], ["resume", "{runs}"], ["resume", "{bad}/file.txt"], ["resume", "{bad}/damaged"],
    ["resume", "{bad}/nothing"], ["resume", LONG],
    ["sample"], ["sample", ""], ["sample", "nothere"], ["sample", "{bad}"], ["sample", "{bad}/file.txt"], [*S, "more"],
    ["sample", "{bad}/damaged"], ["sample", "{bad}/nothing"], ["sample", LONG], ["sample", "a/b/c"],
    ["sample", "\n"], [*S, "--n", "0"], [*S, "--n", "-1"], [*S, "--n", HUGE], [*S, "--n", "many"], [*S, "--n", "1e4"],
    [*S, "--seed", "-1"], [*S, "--seed", str(2**64)], [*S, "--steps", "-1"], [*S, "--steps", HUGE],
    [*S, "--steps", "2.5"], [*S, "--sampler", "foo"], [*S, "--sampler", "ddim:eta=2"], [*S, "--sampler", "ddim:eta"],
    [*S, "--grid", "foo"], [*S, "--grid", "karras:rho=-1"], [*S, "--grid", "trailing", "--steps", "1001"],
    [*S, "--label", "upper"], [*S, "--label", "all"], [*S, "--guidance", "3"], [*S, "--guidance", "nan"],
    [*S, "--threads", "-1"], [*S, "--interval", "1", "0"], [*S, "--interval", "0", "nan"], [*S, "--interval", "0.5"],
    [*S, "--interval", "a", "b"], [*S, "--interval", "-1", "2"],
    [*C, "--label", "third"], [*C, "--label", "2"], [*C, "--label", "-1"], [*C, "--label", "9" * 30],
    [*C, "--guidance", "2"], [*C, "--guidance", "inf", "--label", "first"], [*C, "--label", "all", "--out", "x.txt"],
    ["sample", "{runs}/between", "--sampler", "ddpm"],
    [*S, "--out", "x.txt"], [*S, "--out", "x.pdf"], [*S, "--out", "{bad}/file.txt/"], [*S, "--out", "nothere/x.npy"],
    [*S, "--out", "{bad}/fine.csv"], [*S, "--out", "{bad}/file.npy"], [*S, "--out", "{bad}/file.txt/x.csv"],
    [*S, "--out", f"{LONG}.npy"], [*S, "--out", "a\nb.txt"], [*C, "--label", "all", "--out", "x.npy", "--n", "0"],
    ["evaluate"], ["evaluate", "nothere"], ["evaluate", "{bad}/orphan"], ["evaluate", "{runs}/flow", "--foo"],
    ["evaluate", "{runs}/flow", "--n", "0"], ["evaluate", "{runs}/flow", "--n", "100000000"],
    ["plot"], ["plot", "nothere"], ["plot", "{bad}"], ["plot", "{bad}/nothing"],
    ["plot", "{runs}/flow", "--out", "{bad}/file.txt"],
    ["export"], ["export", "{runs}/flow"], ["export", "nothere", "--out", "x"],
    ["export", "{runs}/flow", "--out", "{runs}/edm"], ["export", "{runs}/flow", "--out", "{bad}/file.txt/x"],
    ["show", "foo"], ["show", "data"], ["show", "data", "foo"], ["show", "data", ""], ["show", "data", "nothere.csv"],
    ["show", "data", "two_moons", "--n", "1"], ["show", "data", "two_moons", "--n", HUGE],
    ["show", "data", "rings", "x"],
    ["show", "data", "two_moons", "--seed", "-1"], ["show", "data", "two_moons", "--label", "x"],
    ["show", "data", "{bad}/ragged.csv"], ["show", "data", "rings", "--out", "{bad}/file.txt"],
    ["show", "path", "--path", "foo"], ["show", "path", "--path", "vp:beta_max=nan"], ["show", "path", "--data", "foo"],
    ["show", "path", "--out", "{bad}/file.txt"], ["show", "path", "--out", "x.png"],
    ["show", "data", "rings", "--out", "nothere/x.png"], ["show", "data", "rings", "--out", "x.q"],
    ["show", "data", "rings", "--out", "{bad}/fine.csv"], ["show", "path", "linear"],
    ["list", "foo"], ["list", "paths", "targets"], ["cite"], ["cite", "foo"], ["cite", "flow", "edm"],
    ["compare", "--n", "1"], ["compare", "--n", HUGE], ["compare", "--workers", "0"], ["compare", "--network", "foo"],
    ["compare", "--data", "foo"], ["compare", "--data", "{bad}/few.csv"], ["compare", "--lr", "nan"],
    ["compare", "--resume"], ["compare", "--out", "{bad}/file.txt"], ["compare", "--out", "{bad}/file.txt/x"],
    ["compare", "--steps", "0"], ["compare", "flow"], ["compare", "--path", "vp"], ["compare", "--label", "x"],
]  # fmt: skip
CASES = [
    *([*F, f"{option}={value}"] for table in (SPECS, NUMBERS) for option, values in table.items() for value in values),
    *OTHERS,
]


@pytest.fixture(scope="session")
def bad(tmp_path_factory, runs):
    """Files and folders that can't be used, and some that can."""
    folder = tmp_path_factory.mktemp("bad")
    texts = {
        "file.txt": "1,2\n3,4\n",
        "file.npy": "",
        "fine.csv": "x,y\n" + "".join(f"{k},{k * k}\n" for k in range(30)),
        "few.csv": "x,y\n1,2\n3,5\n4,4\n",
        "ragged.csv": "x,y\n1,2\n3\n",
        "empty.csv": "",
        "nan.csv": "x,y\n1,2\n3,nan\n",
        "text.csv": "x,y\n1,2\n3,four\n",
        "one.csv": "x,y\n1,2\n",
        "cut.npz": "PK not an archive",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    np.save(folder / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "nothing" / "checkpoints").mkdir(parents=True)
    run("cp", "-r", runs / "flow", folder / "damaged")  # every checkpoint with one byte changed
    for weights in (folder / "damaged").rglob("*.safetensors"):
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    own = folder / "own.csv"
    own.write_text(texts["fine.csv"])
    assert main(["train", "flow", "--data", str(own), "--steps", "1", "--quiet", "--out", str(folder / "orphan")]) == 0
    own.unlink()
    return folder


def contents(*folders):
    """When each file and folder was changed, locks left out."""
    found, left = {}, list(folders)
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.name != ".lock":
                    found[entry.path] = entry.stat().st_mtime_ns
                    left += [entry.path] if entry.is_dir(follow_symlinks=False) else []
    return found


def short(case):
    return " ".join(word if len(word) < 40 else f"{word[:20]}…" for word in case).encode("unicode_escape").decode()


def test_there_are_many_cases():
    assert len(CASES) >= 250
    assert len({tuple(case) for case in CASES}) == len(CASES)


@pytest.fixture
def before(runs, bad, tmp_path):
    """What there is before the first case, and so before each."""
    return contents(runs, bad, tmp_path)


@each("case", CASES, ids=short)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(case, ebbtide, runs, bad, before, tmp_path):
    places = {"{runs}": str(runs), "{bad}": str(bad), "{tmp}": str(tmp_path)}
    words = case
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    code, out, err = ebbtide(*words)
    lines = err.splitlines()
    if "damaged" in case[-1]:  # a warning for each checkpoint passed over
        lines = lines[-1:]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith("ebbtide: ")
    assert lines[0].endswith(".")
    assert len(lines[0]) < 1100
    assert "Traceback" not in err
    assert contents(runs, bad, tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train flow --steps x", "--steps must be a whole number; got 'x'."),
        ("train flow --lr x", "--lr must be a number; got 'x'."),
        ("train flow --lr nan", "lr must be at least 0 and at most 1000; got nan."),
        ("train flow --on-nonfinite go", "--on-nonfinite must be one of 'stop', 'skip'; got 'go'."),
        ("train flow --stepz 3", "There is no option --stepz (did you mean --steps?); see ebbtide train flow --help."),
        ("train flow --steps", "--steps needs a value; see ebbtide train flow --help."),
        ("train flow there", "There is no place for 'there'; see ebbtide train flow --help."),
        ("train flwo", f"recipe must be one of {', '.join(RECIPES)}; got 'flwo' (did you mean 'flow'?)."),
        ("sample x --interval a b", "--interval must be numbers; got ['a', 'b']."),
        ("sample x --interval 1", "--interval needs 2 values; see ebbtide sample --help."),
        ("sample", "RUN is missing (Folder of the run, or user/name on the hub); see ebbtide sample --help."),
        ("plot x --dpi x", "--dpi must be a whole number; got 'x'."),
        ("export x --steps x", "--steps must be a whole number; got 'x'."),
        ("sample x --n 0", "--n must be at least 1; got 0."),
    ],
)
def test_sentences_read_well(ebbtide, arguments, sentence):
    assert ebbtide(*arguments.split()) == (2, "", f"ebbtide: {sentence}\n")


NEITHER = "neither a run folder nor the name of a hub repository (user/name)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train flow --data table.cvs", "table.cvs does not exist (did you mean 'table.csv'?)."),
        ("train flow --config rnu.toml", "Can't use rnu.toml: No such file or directory (did you mean 'run.toml'?)."),
        ("train flow --data far/off.csv", "far/off.csv does not exist."),
        ("sample runs", "runs is a folder of runs, not a run; name one: runs/a, runs/b."),
        ("sample runz", f"runz is {NEITHER} (did you mean 'runs'?)."),
        ("sample empty", "Can't read empty/manifest.json: No such file or directory."),
    ],
)
def test_a_name_that_is_not_there_is_guessed(ebbtide, arguments, sentence, tmp_path, monkeypatch):
    """From the names in its own folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("table.csv", "run.toml", "runs/a/manifest.json", "runs/b/checkpoints/x", "runs/notes.txt", "empty/x"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert ebbtide(*arguments.split()) == (2, "", f"ebbtide: {sentence}\n")


def test_a_recording_is_not_compared_as_points(ebbtide, tmp_path):
    data = record(tmp_path / "episodes.npz")
    for words in (["--data", data], [f"--data={data}"], ["--data", f"{data}+other.npz"]):
        code, out, err = ebbtide("compare", *words, "--out", "x")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"ebbtide: {data} holds a robot's episodes, and compare is for points and images")
        assert "ebbtide evaluate" in err
    assert not (tmp_path / "x").exists()


def test_what_the_system_refuses_is_one_sentence(ebbtide, monkeypatch):
    def broken(error):
        def run(argv):
            raise error

        monkeypatch.setattr("ebbtide.cli.cite.run", run)
        return ebbtide("cite")

    assert broken(FileNotFoundError(2, "No such file", "x\ny")) == (2, "", "ebbtide: Can't use x\\ny: No such file.\n")
    assert broken(MemoryError())[0] == 2
    assert "Not enough memory" in broken(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"))[2]
    assert broken(KeyboardInterrupt()) == (130, "", "ebbtide: Stopped by SIGINT.\n")
    ended = "ebbtide: A function outside ebbtide ended the command by sys.exit('no display').\n"
    assert broken(SystemExit("no display")) == (1, "", ended)
    assert broken(SystemExit(3))[0] == 1  # which would be training that diverged
    assert broken(SystemExit()) == (0, "", "")
    wrapped = RuntimeError("Error calling __set_name__ on 'cached_property' instance")  # as Python 3.11 does
    wrapped.__cause__ = Interrupted(signal.SIGTERM)
    assert broken(wrapped) == (143, "", "ebbtide: Stopped by SIGTERM.\n")
    with pytest.raises(RuntimeError):  # a bug stays a bug
        broken(RuntimeError("matrices don't match"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_every_command_with_one_sentence(ebbtide, monkeypatch, command, name):
    """What is tidied up is not stopped by a second SIGHUP: the shell sends one, and then the system."""
    module, number, tidied = COMMANDS[command][0], getattr(signal, name), []

    def run(argv):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            if name == "SIGHUP":
                os.kill(os.getpid(), number)
            tidied.append(True)

    monkeypatch.setattr(f"ebbtide.cli.{module}.run", run)
    before = {one: signal.signal(one, signal.default_int_handler) for one in STOPPING}
    try:
        assert ebbtide(command) == (128 + number, "", f"ebbtide: Stopped by {name}.\n")
        assert tidied
        assert [signal.getsignal(one) for one in STOPPING] == [signal.default_int_handler] * 3
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_a_signal_that_the_process_ignores_is_ignored(ebbtide, monkeypatch):
    """As nohup has SIGHUP ignored."""
    monkeypatch.setattr("ebbtide.cli.cite.run", lambda argv: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ebbtide("cite") == (0, "", "")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_warnings_are_one_line_each_and_only_ours_to_show(ebbtide, recwarn):
    code, _, err = ebbtide("train", "flow", "--path", "vp:beta_max=0.2", "--steps", "0.5")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = ebbtide("show", "path", "--path", "vp:beta_max=0.2", "--data", "nothere.csv")
    assert code == 2
    assert [line.split(":")[0] for line in err.splitlines()] == ["ebbtide"] * 2
    assert not recwarn.list


SHELL = [["foo"], [*F, "--data", "x\ny.csv"], ["cite", b"\xff"]]


@pytest.mark.parametrize("words", SHELL)
def test_the_same_from_a_shell(words, tmp_path):
    """With torch and without it, and with a byte that is no letter; the other cases are those above."""
    done = subprocess.run([sys.executable, "-m", "ebbtide", *words], capture_output=True, cwd=tmp_path, timeout=300)
    err = done.stderr.decode()
    assert (done.returncode, done.stdout, err.count("\n")) == (2, b"", 1), err
    assert err.startswith("ebbtide: ")
    assert err.endswith(".\n")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m ebbtide list | head -1; exit ${{PIPESTATUS[0]}}"
    done = run("bash", "-c", command)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_without_the_letters_gets_question_marks():
    done = shell("list", "metrics", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "MMD?" in done.stdout


def test_a_notice_is_no_error_where_warnings_are(monkeypatch, capsys):
    monkeypatch.setattr("ebbtide.cli._main", lambda args: warnings.warn("Drawn without it.", stacklevel=1) or 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["plot"]) == 0
    assert capsys.readouterr().err == "ebbtide: Drawn without it.\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["plot"]) == 0
    assert capsys.readouterr().err == ""
