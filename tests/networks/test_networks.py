"""The table: a new network is one class and one row, and everything meets it there; each name has one meaning."""

import ast
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import ebbtide
from ebbtide.cli import main
from ebbtide.data import Observation
from ebbtide.errors import InputError
from ebbtide.kinds.robots.data import fits
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.networks import NETWORKS
from ebbtide.networks.action_expert import ActionExpert
from ebbtide.networks.mlp import MLP
from ebbtide.networks.observation import conditions
from ebbtide.recipes import RECIPES
from ebbtide.training.build import build_network
from recording import record

SHORT = ["--steps", "20", "--points", "200", "--batch", "32", "--snapshots", "1", "--checkpoints", "1", "--quiet"]


class Plain(nn.Module):
    """y = W₂ tanh(W₁ x + w t): takes no classes."""

    def __init__(self, dim, *, width: int = 8):
        super().__init__()
        self.enter, self.time, self.out = nn.Linear(dim, width), nn.Linear(1, width), nn.Linear(width, dim)

    def forward(self, x, t):
        return self.out((self.enter(x) + self.time(t[:, None])).tanh())


class Labelled(Plain):
    """The same with E[label], of which the last row is for no label."""

    def __init__(self, dim, classes=0, *, width: int = 8):
        super().__init__(dim + width, width=width)
        self.rows, self.none = nn.Embedding(classes + 1, width), classes

    def forward(self, x, t, label=None):
        label = torch.full((len(x),), self.none, device=x.device) if label is None else label
        return super().forward(torch.cat([x, self.rows(label)], 1), t)[:, : x.shape[1]]


class Keyword(Labelled):
    """The same, its classes by name alone."""

    def __init__(self, dim, *, classes=0, width: int = 8):
        super().__init__(dim, classes, width=width)


class Head(nn.Module):
    """A policy's network without a `context`: y = W [x, state] + w t."""

    def __init__(self, horizon, action_dim, *, observation):
        super().__init__()
        self.x = nn.Linear(horizon * action_dim, horizon * action_dim)
        self.state = nn.Linear(observation["state"][0] * observation["state"][1], horizon * action_dim)

    def forward(self, x, t, state):
        return (self.x(x.flatten(1)) + self.state(state.flatten(1)) + t[:, None]).view_as(x)


@pytest.fixture(autouse=True)
def rows(monkeypatch, tmp_path):
    """Four more rows; and a cache of one's own, as `list` keeps what it has made of the table."""
    for name, row in {"plain": Plain, "labelled": Labelled, "keyword": Keyword, "head": Head}.items():
        monkeypatch.setitem(NETWORKS, name, row)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))


def test_a_new_row_is_listed_with_its_options(capsys):
    assert main(["list", "networks"]) == 0
    said = capsys.readouterr().out
    assert "y = W₂ tanh(W₁ x + w t): takes no classes." in said
    assert "options: plain:width=8" in said


@pytest.mark.parametrize("name", ["labelled", "keyword"])
def test_a_row_that_takes_classes_learns_labels(name, tmp_path, capsys):
    """Trained, sampled without a label, with one and with guidance, exported and opened again."""
    run, shared = str(tmp_path / "run"), str(tmp_path / "shared")
    assert main(["train", "flow", "--conditional", "--network", f"{name}:width=4", "--out", run, *SHORT]) == 0
    for label in ([], ["--label", "0"], ["--label", "0", "--guidance", "2"]):
        target = str(tmp_path / f"{len(label)}.npy")
        assert main(["sample", run, "--n", "6", "--steps", "3", "--out", target, *label]) == 0
    assert main(["export", run, "--out", shared]) == 0
    assert capsys.readouterr().err.count("Traceback") == 0
    trained, again = from_pretrained(run), from_pretrained(shared)
    one = [of.sample(5, seed=1, steps=3, label="1", guidance=2.0) for of in (trained, again)]
    assert torch.equal(*one)
    assert not torch.equal(one[0], trained.sample(5, seed=1, steps=3, label="1"))
    assert not torch.equal(one[0], trained.sample(5, seed=1, steps=3))
    assert f"`{name}:width=4`" in (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mlp", "labelled", "keyword"])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_network_is_told_of_classes_only_if_it_is_to_learn_labels(name, conditional):
    recipe = replace(RECIPES["flow"](), network=name, conditional=conditional)
    built = build_network(recipe, (2,), 3)
    rows = [len(part) for key, part in built.state_dict().items() if key in ("from_label.weight", "rows.weight")]
    assert rows == ([4] if conditional else [] if name == "mlp" else [1])


def test_a_row_that_takes_none_trains_and_refuses_labels(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "flow", "--network", "plain", "--out", str(run), *SHORT]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "shared")]) == 0
    assert from_pretrained(tmp_path / "shared").sample(3, steps=3).shape == (3, 2)
    capsys.readouterr()
    other = tmp_path / "other"
    assert main(["train", "flow", "--conditional", "--network", "plain", "--out", str(other), *SHORT]) == 2
    said = capsys.readouterr().err
    assert "network 'plain' takes no classes, so it can't be conditional." in said
    assert len(said.strip().splitlines()) == 1
    assert not other.exists()


def test_a_policy_s_row_needs_no_context(tmp_path):
    """Where a network makes none of what is seen, it is told that at every step."""
    data = record(tmp_path / "episodes.npz", episodes=6)
    recipe = replace(RECIPES["flow-policy"](), data=data, network="head", steps=3, batch=8, horizon=4, n_action_steps=2)
    trained = train_recipe(recipe, tmp_path / "run", progress=False, snapshots=0, checkpoints=1)
    assert trained.sample(3, steps=2).shape == (3, *trained.shape)
    seen = {"state": torch.randn(2, 1, 3)}
    assert conditions(Head(4, 2, observation={"state": (1, 3)}), seen) == seen


@pytest.mark.parametrize("name", ["action_unet", "action_transformer", "action_expert", "head"])
def test_a_policy_s_row_takes_no_classes(name):
    recipe = replace(RECIPES["flow-policy"](), network=name, conditional=True)
    with pytest.raises(InputError, match=f"network '{name}' takes no classes"):
        build_network(recipe, (4, 2), 3, Observation({"state": (1, 3)}))


@pytest.mark.parametrize("name", ["pi05", "action_expert:variant=pi05", "mine"])
def test_a_row_that_digitises_the_state_is_known_by_its_variant(name, monkeypatch):
    """Whatever it is called: a state in [-1, 1] is asked for."""
    monkeypatch.setitem(NETWORKS, "mine", partial(ActionExpert, variant="pi05"))
    recipe = replace(RECIPES["flow-policy"](), data="a.npz", network=name, normalise="mean_std")
    with pytest.raises(InputError, match="normalise by quantiles"):
        fits(recipe)
    fits(replace(recipe, normalise="quantiles"))
    fits(replace(recipe, network="mine:variant=pi0"))


def public(module):
    """The classes and functions that a module defines."""
    body = ast.parse(module.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"}


def test_a_network_s_names_have_one_meaning():
    """What a module of networks/ calls a class or function, no other module of the package calls another."""
    modules = sorted(Path(ebbtide.__file__).parent.rglob("*.py"))
    counts = Counter(name for module in modules for name in public(module))
    own = {name for module in modules if module.parent.name == "networks" for name in public(module)}
    assert [name for name in sorted(own) if counts[name] > 1] == []


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize("wrong", ["a", None, 2.5, float("nan"), True, [64]])
def test_a_size_is_a_whole_number(wrong):
    seen = {"state": (1, 3)}
    for make in (
        lambda: MLP(2, width=wrong), lambda: MLP(2, depth=wrong), lambda: MLP(wrong), lambda: MLP(2, wrong),
        lambda: NETWORKS["unet"](1, 8, 8, width=wrong), lambda: NETWORKS["dit"](1, 8, 8, width=wrong),
        lambda: NETWORKS["unet"](1, 8, wrong), lambda: NETWORKS["dit"](wrong, 8, 8),
        lambda: NETWORKS["dit"](1, 8, 8, wrong),
        lambda: NETWORKS["action_unet"](4, 2, observation=seen, width=wrong),
        lambda: NETWORKS["action_transformer"](4, wrong, observation=seen),
        lambda: NETWORKS["action_expert"](wrong, 2, observation=seen),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r": \w+ must be a whole number, at least"):
            make()
    with pytest.raises(InputError, match=r"unet: multipliers must be a text such as 1-1-1"):
        NETWORKS["unet"](1, 8, 8, multipliers=wrong if wrong != "a" else 12)
