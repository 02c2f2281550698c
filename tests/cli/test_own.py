"""`module:function` where the user types it: rows of a recipe, a sampler, a simulator, a metric; never from a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained
from ebbtide.training import checkpoint
from ebbtide.training.build import TABLES
from forking import forking

MINE = """
import numpy as np
import torch
from dataclasses import dataclass
from torch import nn
from ebbtide.core.paths import Linear
from ebbtide.samplers.ddim import ddim

def walk(walk):
    yield from ddim(walk)

def opt(walk, *, eta: float = 0.0):
    yield from ddim(walk, eta=eta)

def lost(walk, *, every: bool = True):
    for _ in walk.steps:
        x = walk.x.clone()
        x[: None if every else 1] = float("nan")
        yield x

def broken(walk):
    yield walk.x
    raise KeyError("sigma")

def quiet(walk):
    return None

def spread(samples, real):
    return float(samples.float().std() / real.float().std())

def scaled(samples, real, *, by: float = 1.0):
    return by * spread(samples, real)

def words(samples, real):
    return "far"

def refusing(samples, real):
    raise ZeroDivisionError("no\\nrows here")

class World:
    name, task, fps, max_steps, success, score = "mine", "Go.", 10.0, 3, False, 0.5
    state_names = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    action_names = ("target_x", "target_y")
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)

    def __init__(self, *, pixels=False):
        pass

    def reset(self, seed):
        return {"state": np.full(5, 100, np.float32)}

    def step(self, action):
        return self.reset(0), 0.0, False

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def close(self):
        pass

class Plain(nn.Module):
    def __init__(self, dim, *, width: int = 8):
        super().__init__()
        self.enter, self.time, self.out = nn.Linear(dim, width), nn.Linear(1, width), nn.Linear(width, dim)

    def forward(self, x, t):
        return self.out((self.enter(x) + self.time(t[:, None])).tanh())

@dataclass(frozen=True)
class Bent(Linear):
    bend: float = 0.0

def late(c, *, power: float = 1.0):
    return c.alpha**power

def middle(u, path):
    return 0.25 + u / 2

def turned(x0, x1, labels=None):
    return x1.flip(0)

def difference(c):
    return c.alpha_dot, c.sigma_dot

def nothing(*sizes):
    return None

number = 3
"""
ROWS = {  # by field of the recipe
    "network": "own_of_mine:Plain:width=5", "path": "own_of_mine:Bent:bend=0.5", "target": "own_of_mine:difference",
    "times": "own_of_mine:middle", "weight": "own_of_mine:late", "coupling": "own_of_mine:turned",
}  # fmt: skip
FIELDS = {"sampler": "own_of_mine:walk", "simulator": "own_of_mine:World"}


@pytest.fixture(autouse=True)
def module(ebbtide, tmp_path, monkeypatch):
    """In the working directory."""
    monkeypatch.delitem(__import__("sys").modules, "own_of_mine", raising=False)
    (tmp_path / "own_of_mine.py").write_text(MINE)
    yield
    forget()


def forget():
    """The tables as in a new process: our own rows alone."""
    for table, _ in TABLES.values():
        for name in [name for name in table if name.startswith("own_of_mine")]:
            del table[name]


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "flow"
    small = ["--steps", "1", "--points", "60", "--batch", "8", "--snapshots", "0", "--no-fit", "--quiet"]
    assert main(["train", "flow", "--network", "mlp:width=8,depth=2", *small, "--out", str(folder)]) == 0
    return folder


def test_a_sampler_of_one_s_own_draws_what_the_row_it_is_does(flow, ebbtide):
    for name in ("ddim", "own_of_mine:walk"):
        code, _, err = ebbtide(
            "sample", flow, "--n", 5, "--sampler", name, "--steps", 4, "--no-picture", "--out", f"{name[:4]}.npy"
        )
        assert code == 0, err
    assert Path("ddim.npy").read_bytes() == Path("own_.npy").read_bytes()
    code, out, err = ebbtide("evaluate", flow, "--n", 40, "--sampler", "own_of_mine:walk", "--steps", 2, "--json")
    assert code == 0, err
    assert json.loads(out)[0]["how"]["sampler"] == "own_of_mine:walk"


def test_samples_of_which_none_is_finite_are_refused_before_they_are_written(flow, ebbtide, tmp_path):
    for command in (("sample", flow, "--out", "z.csv"), ("sample", flow, "--no-picture", "--out", "z.csv")):
        code, out, err = ebbtide(*command, "--n", 5, "--sampler", "own_of_mine:lost")
        assert (code, out) == (2, "")
        assert err.splitlines()[-1] == (
            "ebbtide: No sample of own_of_mine:lost is finite; try more steps, another grid or another sampler."
        )
        assert not list(tmp_path.glob("z.*"))
    code, _, err = ebbtide("sample", flow, "--n", 5, "--sampler", "own_of_mine:lost:every=false", "--out", "z.csv")
    assert code == 0
    assert "some samples are not finite" in err


def test_options_of_a_function_of_one_s_own_are_those_of_a_row(flow, ebbtide):
    for name in ("ddim:eta=0.3", "own_of_mine:opt:eta=0.3", "own_of_mine:opt"):
        out = f"{name.replace(':', '_')}.npy"
        words = ("--n", 5, "--sampler", name, "--steps", 4, "--no-picture", "--out", out)
        code, _, err = ebbtide("sample", flow, *words)
        assert code == 0, err
    files = [
        Path(f"{name}.npy").read_bytes() for name in ("ddim_eta=0.3", "own_of_mine_opt_eta=0.3", "own_of_mine_opt")
    ]
    assert files[0] == files[1] != files[2]
    code, out, err = ebbtide(
        "evaluate", flow, "--n", 40, "--steps", 1, "--metric", "own_of_mine:scaled:by=100", "--json"
    )
    assert code == 0, err
    assert json.loads(out)[-1]["floor"] > 50
    no = "ebbtide: function 'own_of_mine:opt' has no option 'a'; it takes eta.\n"
    for words in (("sample", flow, "--sampler"), ("evaluate", flow, "--sampler"), ("certify",)):
        assert ebbtide(*words, "own_of_mine:opt:a=0.3")[::2] == (2, no)
    code, out, err = ebbtide("certify", "own_of_mine:opt:eta=0.0", "--order", "1", "--path", "linear")
    assert code == 0, err


def test_a_sampler_of_one_s_own_that_raises_is_answered(flow, ebbtide):
    for name, reason in (("broken", "KeyError: 'sigma'"), ("quiet", "Iterator")):
        code, _, err = ebbtide("sample", flow, "--n", 5, "--sampler", f"own_of_mine:{name}", "--out", "w.npy")
        assert (code, len(err.splitlines())) == (2, 1), err
        if name == "broken":
            assert err == f"ebbtide: sampler 'own_of_mine:broken' must yield x after every step; got {reason}.\n"
        assert reason in err
        assert not Path("w.npy").exists()


def test_a_metric_of_one_s_own_stands_beside_its_floor(flow, ebbtide):
    code, out, err = ebbtide("evaluate", flow, "--n", 200, "--steps", 1, "--metric", "own_of_mine:spread", "--json")
    assert code == 0, err
    (row,) = [row for row in json.loads(out) if row["name"] == "own_of_mine:spread"]
    assert 0.8 < row["floor_low"] <= row["floor"] <= row["floor_high"] < 1.25
    assert row["value"] > 0
    assert (row["low"], row["p"], row["better"]) == (None, None, "equal")
    code, out, err = ebbtide("evaluate", flow, "--n", 40, "--steps", 1, "--metric", "own_of_mine:words")
    assert (code, err.splitlines()[-1]) == (2, "ebbtide: A metric must return a number; got str.")
    code, out, err = ebbtide("evaluate", flow, "--n", 40, "--steps", 1, "--metric", "own_of_mine:refusing")
    said = "ebbtide: metric 'own_of_mine:refusing' must return a number; got ZeroDivisionError: no rows here."
    assert (code, err.splitlines()[-1]) == (2, said)


def test_a_simulator_of_one_s_own_is_driven_also_in_other_processes(policy, ebbtide, monkeypatch):
    forking(monkeypatch, "own_of_mine")
    world = ["--simulator", "own_of_mine:World"]
    code, out, err = ebbtide("evaluate", policy, "--n", 4, "--episodes", 2, "--workers", 2, "--steps", 1, *world)
    assert code == 0, err
    assert "episode length" in out
    lines = [json.loads(line) for line in (policy / "episodes.jsonl").read_text().splitlines()]
    assert [(one["error"], one["score"], one["length"]) for one in lines] == [("", 0.5, 3)] * 2
    assert {one["how"]["simulator"] for one in lines} == {"own_of_mine:World"}
    sampler = ["--sampler", "own_of_mine:walk", "--steps", 2]
    assert ebbtide("rollout", policy, *world, *sampler, "--video", "film.gif")[0] == 0
    code, _, err = ebbtide("evaluate", policy, "--n", 4, "--metric", "own_of_mine:spread")
    assert (code, err.count("\n")) == (2, 1)
    assert "--metric is not for policies" in err


@pytest.mark.parametrize("name", ["own_of_mine:none", "nowhere_at_all:walk", "own_of_mine:number"])
@pytest.mark.parametrize(
    "words", [("sample", "--sampler"), ("evaluate", "--metric"), ("evaluate", "--sampler"), ("certify", "")]
)
def test_what_is_no_function_is_one_sentence(flow, ebbtide, words, name):
    command, option = words
    code, out, err = ebbtide(command, flow, option, name) if option else ebbtide(command, name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"ebbtide: {name} ")


@pytest.mark.parametrize("field", FIELDS)
def test_a_run_that_names_one_runs_nothing(flow, policy, ebbtide, tmp_path, field):
    """The config of an exported folder may be anybody's."""
    trained = from_pretrained({"sampler": flow, "simulator": policy}[field])
    recipe = replace(trained.recipe, **{field: FIELDS[field]})
    folder = tmp_path / "theirs"
    checkpoint.write_folder(folder, replace(trained, recipe=recipe).files())
    (tmp_path / "own_of_mine.py").write_text("open('ran', 'w')\n" + MINE)
    words = {"sampler": ("sample", folder, "--n", 3), "simulator": ("rollout", folder, "--video", "film.gif")}[field]
    code, _, err = ebbtide(*words)
    assert (code, err.strip().count("\n")) == (2, 0), err
    assert "own_of_mine" in err
    assert not (tmp_path / "ran").exists()


def test_a_run_s_own_sampler_is_named_when_it_samples(ebbtide, tmp_path):
    code, _, err = ebbtide("train", "flow", "--sampler", "own_of_mine:walk", "--steps", 1, "--points", 50, "--out", "r")
    assert (code, err.count("\n")) == (2, 1)
    assert "own_of_mine" in err


def options(*fields):
    """--network own_of_mine:Plain …, without options, which the run holds."""
    return [word for field in fields for word in (f"--{field}", ":".join(ROWS[field].split(":")[:2]))]


def test_a_run_of_rows_of_one_s_own(ebbtide, tmp_path):
    small = ["--steps", 4, "--points", 60, "--batch", 8, "--snapshots", 0, "--no-fit", "--quiet", "--out", "mine"]
    rows = [word for field, spec in ROWS.items() for word in (f"--{field}", spec)]
    assert ebbtide("train", "flow", *rows, *small)[0] == 0
    config = json.loads((tmp_path / "mine/checkpoints/last/config.json").read_text())["recipe"]
    assert {field: config[field] for field in ROWS} == ROWS
    built, every = options("network", "path", "target"), options(*ROWS)
    for words in (
        ("sample", "mine", "--n", 5, *built),
        ("evaluate", "mine", "--n", 40, "--steps", 2, *built),
        ("tune", "mine", "--evaluations", 1, "--n", 8, "--reference", 10, "--depth", "grids", *built),
        ("plot", "mine", *built),
        ("export", "mine", "--out", "theirs", *built),
        ("sample", "theirs", "--n", 5, "--no-picture", "--out", "x.npy", *built),
        ("resume", "mine", *every),
    ):
        forget()
        code, _, err = ebbtide(*words)
        assert code == 0, (words[0], err)
    contradicted(ebbtide, built, every)
    forget()
    (tmp_path / "own_of_mine.py").write_text("open('ran', 'w')\n" + MINE)
    __import__("sys").modules.pop("own_of_mine")
    for words in (("sample", "mine"), ("evaluate", "theirs"), ("resume", "mine"), ("export", "mine", "--out", "no")):
        code, _, err = ebbtide(*words)
        assert (code, err.count("\n")) == (2, 1), err
        assert "is a function outside ebbtide, so it runs only if you name it: by --" in err
    with pytest.raises(InputError, match="in Python by adding a row of that name to its table"):
        from_pretrained("mine")
    assert not (tmp_path / "ran").exists()
    code, _, err = ebbtide("sample", "mine", *options("path", "target"), "--network", "own_of_mine:Other")
    assert (code, err.count("\n")) == (2, 1)
    for field in ("network", "path", "target"):  # as `--network` does, in Python
        table, row = TABLES[field]
        module = __import__("own_of_mine")
        table[":".join(ROWS[field].split(":")[:2])] = row(getattr(module, ROWS[field].split(":")[1]))
    assert from_pretrained("mine").sample(3).shape == (3, 2)


def contradicted(ebbtide, built, every):
    """Options that the run wasn't trained with are refused; those that it was, or that are left out, are its own."""
    for field, spec in {"network": "Plain:width=8", "path": "Bent:bend=0.0"}.items():
        words = [word for word in built if word not in (f"--{field}", ":".join(ROWS[field].split(":")[:2]))]
        named = f"own_of_mine:{spec}"
        for command in ("sample", "evaluate", "plot", "likelihood", "resume"):
            its = [*words, *every[6:]] if command == "resume" else words
            code, _, err = ebbtide(command, "mine", *its, f"--{field}", named)
            assert (code, err) == (
                2, f"ebbtide: {named} is not the {field} that mine was trained with, which is {ROWS[field]}.\n"
            ), command  # fmt: skip
        assert ebbtide("sample", "mine", "--n", 3, "--no-picture", *words, f"--{field}", ROWS[field])[0] == 0
        code, _, err = ebbtide("sample", "mine", *words, f"--{field}", named.partition("=")[0] + "s=1")
        assert (code, err.count("\n")) == (2, 1)
        assert "has no option" in err
    late = [word for word in every if word not in ("--weight", "own_of_mine:late")]
    code, _, err = ebbtide("resume", "mine", *late, "--weight", "own_of_mine:late:power=2")
    assert (code, "is not the weight that mine was trained with, which is own_of_mine:late." in err) == (2, True)
    code, _, err = ebbtide("resume", "mine", *every, "--weight", "own_of_mine:late:power=1")  # by default
    assert code == 0, err


def test_a_likelihood_on_a_path_of_one_s_own(ebbtide):
    path = ["--path", "own_of_mine:Bent"]
    few = ["--points", 60, "--steps", 1, "--batch", 8, "--snapshots", 0, "--no-fit", "--quiet", "--out", "mine"]
    assert ebbtide("train", "flow", "--network", "mlp:width=8,depth=2", *path, *few)[0] == 0
    forget()
    assert ebbtide("likelihood", "mine", "--n", 4, "--steps", 4, "--no-picture", *path)[0] == 0


def test_what_a_run_was_not_made_of_is_refused(flow, ebbtide):
    code, _, err = ebbtide("sample", flow, "--network", "own_of_mine:Plain")
    assert (code, err.count("\n")) == (2, 1)
    assert f"own_of_mine:Plain is not the network that {flow} was trained with, which is mlp:width=8,depth=2." in err


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--network", "network 'own_of_mine:nothing' must make a torch.nn.Module; got NoneType."),
        ("--path", "path 'own_of_mine:nothing' must make an ebbtide.Path; got NoneType."),
    ],
)
def test_what_makes_no_row_is_one_sentence(ebbtide, option, sentence):
    code, _, err = ebbtide("train", "flow", option, "own_of_mine:nothing", "--points", 50, "--steps", 1, "--quiet")
    assert (code, err) == (2, f"ebbtide: {sentence}\n")


def test_paths_and_a_network_of_one_s_own_are_certified_shown_and_compared(ebbtide, monkeypatch):
    monkeypatch.setattr("ebbtide.exact.certify.STEP_COUNTS", (40, 80))
    monkeypatch.setattr("ebbtide.exact.certify.BUDGETS", (10, 20))
    assert ebbtide("certify", "euler", "--path", "own_of_mine:Bent")[0] == 0
    forget()
    assert ebbtide("show", "path", "--path", "own_of_mine:Bent", "--out", "shown")[0] == 0
    forget()
    monkeypatch.setattr("ebbtide.kinds.compare.figures", lambda comparison: iter(()))
    few = ["--steps", 2, "--points", 100, "--batch", 8, "--n", 100, "--quiet", "--out", "both"]
    code, _, err = ebbtide("compare", "--network", "own_of_mine:Plain", *few)
    assert code == 0, err
