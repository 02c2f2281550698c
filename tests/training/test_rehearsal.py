"""A rehearsal says what would go wrong before a run begins, and leaves no trace."""

from dataclasses import replace

import pytest
import torch

from ebbtide import memory
from ebbtide.core.paths import Linear, Path
from ebbtide.errors import InputError
from ebbtide.kinds import kind_of
from ebbtide.kinds.runs import rehearsed
from ebbtide.recipes import RECIPES, PointRecipe
from ebbtide.samplers.ddim import ddim
from ebbtide.training.build import TABLES
from ebbtide.training.rehearsal import in_memory


class Unfinished(Path):
    """A path without scales."""


def test_weights_that_are_shared_out_need_less_memory_in_a_process(monkeypatch):
    """Of 4-byte numbers: weights, gradient, average, two moments; but never less than the whole that it begins with."""
    recipe, asked = RECIPES["flow"](points=200), []
    monkeypatch.setattr("ebbtide.training.rehearsal.room", lambda size, what: asked.append(size))
    for shares in (1, 2, 64):
        in_memory(recipe, kind_of(recipe).prepare(recipe), shares=shares)
    assert [size / asked[4] * 8 for size in asked[::2]] == [32, 16, 8]


@pytest.mark.parametrize("name", [name for name, row in RECIPES.items() if row().kind != "robots"])
def test_a_recipe_can_be_rehearsed(name):
    recipe = RECIPES[name]()
    few = {"points": 200} if recipe.kind == "points" else {}
    few |= {"codec": "pixels+patches:size=2,keep=4"} if "latents" in name else {}  # 4 × 4, of digits
    start = rehearsed(replace(recipe, batch=64, **few))
    assert start.shape == {"points": (2,), "images": (1, 8, 8)}[recipe.kind]
    assert not any(p.isnan().any() for p in start.denoiser.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": "heum"}, "did you mean 'heun'?"),
        ({"sampler": "ddim:eta=2"}, "ddim: eta must be at least 0 and at most 1; got 2.0."),
        ({"grid": "trailing", "sample_steps": 2000}, "steps of the trailing grid"),
        ({"times": "logit_normal:mean=nan"}, "must give times in [0, 1]; got nan to nan."),
        ({"weight": "min_snr:gamma=-1"}, "min_snr: gamma must be above 0 and finite; got -1.0."),
        ({"weight": "unit:x=1"}, "weight 'unit' has no option 'x'; it takes none."),
        ({"batch": 10**9}, "batch 1000000000 would take about"),
        ({"points": 10**9}, "points 1000000000 would take about"),
        ({"network": "mlp:width=65536,depth=1024"}, "would take about"),
    ],
)
def test_a_rehearsal_says_what_would_go_wrong(change, words, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 8e9)
    with pytest.raises(InputError) as caught:
        rehearsed(replace(PointRecipe(points=200, batch=64), **change))
    assert words in str(caught.value)


def test_a_rehearsal_leaves_no_trace():
    before = torch.get_rng_state()
    first, second = (rehearsed(PointRecipe(points=200, batch=64)) for _ in range(2))
    assert (torch.get_rng_state() == before).all()
    for a, b in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        assert (a == b).all()


class Bad(torch.nn.Module):
    """A network with one fault."""

    def __init__(self, dim, *, fault: str = ""):
        super().__init__()
        self.fault, self.out = fault, torch.nn.Linear(dim + 1, dim + (fault == "wide"))

    def forward(self, x, t):
        t = t[:, None] if self.fault == "one" else t[:, None].expand(len(x), 1)
        y = self.out(torch.cat([x, t], 1))
        return {"none": None, "detached": y.detach()}.get(self.fault, y)


def test_wrong_rows_and_networks_of_one_s_own_are_one_sentence(monkeypatch):
    """Of every table: an instance, a type, None, a sampler, what returns nothing; named by field and function."""
    wrong = [Linear(), int, None, ddim, lambda *given: None, lambda *given: "x", lambda *given: 1 / 0, Unfinished]
    for field, (table, _) in TABLES.items():
        for row in [*wrong, *([] if field == "path" else [Linear])]:
            if field == "weight" and row is wrong[4]:
                continue  # None is the unit weight
            monkeypatch.setitem(table, "mine:row", row)
            with pytest.raises(InputError) as caught:
                rehearsed(replace(PointRecipe(points=60, batch=8), **{field: "mine:row"}))
            assert field in str(caught.value), (field, row)
            assert "mine:row" in str(caught.value), (field, row, str(caught.value))
            assert "\n" not in str(caught.value)
    for fault in ("wide", "none", "detached", "one"):
        monkeypatch.setitem(TABLES["network"][0], "mine:Bad", Bad)
        with pytest.raises(InputError, match=r"network 'mine:Bad:fault=\w+' must return a tensor of x's shape"):
            rehearsed(PointRecipe(points=60, batch=8, network=f"mine:Bad:fault={fault}"))
    rehearsed(PointRecipe(points=60, batch=8, network="mine:Bad"))
