"""Stopping by held-out loss: where it stops, what is learned then, and going on after a kill in either phase."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebbtide import flow
from ebbtide.errors import InputError
from ebbtide.kinds.points.data import parts, prepare
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.training import stopping
from ebbtide.training.history import HELD, read_metrics
from ebbtide.training.stopping import NEAR, SEARCH, Stopping
from training.runs import assert_same, run_until, tensors

BRIEF = {"progress": False, "solvers": False, "snapshots": 0, "checkpoints": 4}
QUICK = {"batch": 64, "network": "mlp:width=16,depth=2", "lr": 0.02}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Every 2 steps instead of 50, for 10 steps instead of 400."""
    monkeypatch.setattr(stopping, "EVERY", 2)
    monkeypatch.setattr(stopping, "PATIENCE", 10)
    monkeypatch.setattr(stopping, "DRAWS", 256)


def bent(folder, n=80):
    """Rows on a bow, which no Gaussian of ranks is."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, n)
    rows = np.stack([a + 0.1 * rng.normal(size=n), a**2 + 0.05 * rng.normal(size=n)], 1)
    np.savetxt(folder / "bow.csv", rows, delimiter=",", header="a,b", comments="", fmt="%.5f")
    return str(folder / "bow.csv")


def held(folder):
    return {line["step"]: line[HELD] for line in read_metrics(folder / SEARCH) if HELD in line}


def recipe_of(folder, **fields):
    return replace(flow(data=bent(folder), gaussians=1, **QUICK), steps=60, **fields)


def test_a_run_stops_and_then_learns_all_rows_for_as_many_steps(tmp_path, capsys):
    recipe = recipe_of(tmp_path)
    trained = train_recipe(recipe, tmp_path / "run", **BRIEF | {"progress": True})
    losses = held(tmp_path / "run")
    best = min(losses, key=losses.__getitem__)
    assert list(losses) == list(range(0, 2 * len(losses), 2))
    assert best > 0
    assert max(losses) == min(60, best + 10)
    found = trained.recipe
    assert (found.steps, found.lr_steps, found.validation, found.held_out) == (best, 60, 0.0, 0.0)
    said = capsys.readouterr().err
    assert f"The held-out loss is least after {best} steps: {losses[best]:.4g}, at step 0 {losses[0]:.4g}." in said
    assert len(trained.codec.values[0]) == 80  # fitted to all rows; in the search to those that it learned
    searched = from_pretrained(tmp_path / "run" / SEARCH, data=recipe.data)
    assert len(searched.codec.values[0]) == 64
    learned, unseen = parts(searched.recipe)
    assert (len(learned.x), len(unseen.x)) == (64, 16)
    assert not len(parts(found)[1].x)
    again = train_recipe(found, tmp_path / "plain", **BRIEF)
    assert_same(trained.denoiser.state_dict(), again.denoiser.state_dict())


def test_the_search_keeps_the_weights_of_the_least_loss(tmp_path):
    recipe = recipe_of(tmp_path)
    train_recipe(recipe, tmp_path / "run", **BRIEF)
    losses = held(tmp_path / "run")
    best = min(losses, key=losses.__getitem__)
    kept = from_pretrained(tmp_path / "run" / SEARCH).denoiser.state_dict()
    prepared = prepare(recipe)
    assert prepared.judging is not None
    assert len(prepared.judging) == 16
    fixed = replace(recipe, steps=best, lr_steps=60, gaussians=1)
    alone = train_recipe(fixed, tmp_path / "short", given=prepared._replace(judging=None), **BRIEF)
    assert_same(alone.denoiser.state_dict(), kept)


def test_rows_held_out_by_name_are_learned_in_neither_phase(tmp_path):
    recipe = recipe_of(tmp_path, held_out=0.25)
    trained = train_recipe(recipe, tmp_path / "run", **BRIEF)
    learned, unseen = parts(trained.recipe)
    assert (len(learned.x), len(unseen.x), trained.recipe.held_out) == (60, 20, 0.25)
    fitted, apart = parts(recipe)
    assert (len(fitted.x), len(prepare(recipe).judging)) == (48, 12)
    assert torch.equal(apart.x, unseen.x)
    assert len(trained.codec.values[0]) == 60


def test_given_steps_are_trained_for_and_rows_held_out(tmp_path):
    recipe = flow(data=bent(tmp_path), steps=3, **QUICK)
    assert (recipe.validation, recipe.held_out) == (0.0, 0.2)
    trained = train_recipe(recipe, tmp_path / "run", **BRIEF)
    assert trained.step == 3
    assert not (tmp_path / "run" / SEARCH).exists()
    assert flow(steps=3, held_out=0.1).held_out == 0.1
    assert flow(steps=3, validation=0.2).held_out == 0.0
    assert flow(validation=0).held_out == 0.2


@pytest.mark.parametrize("where", ["search", "all rows"])
def test_going_on_after_a_kill_gives_the_same_bits(where, tmp_path, monkeypatch):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    recipe = recipe_of(tmp_path)
    final = train_recipe(recipe, whole, **BRIEF)
    if where == "search":
        run_until(7, recipe, folder, monkeypatch, solvers=False)
        assert not (folder / "checkpoints").exists()
    else:
        run_until(max(held(whole)) + final.step // 2 + 1, recipe, folder, monkeypatch, solvers=False)
        assert (folder / "checkpoints").exists()
    train_recipe(recipe, folder, resume=True, **BRIEF)
    assert_same(tensors(folder), tensors(whole))
    assert_same(tensors(folder / SEARCH), tensors(whole / SEARCH))
    assert held(folder) == held(whole)
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    train_recipe(recipe, folder, resume=True, **BRIEF)
    assert before == {path: path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_a_run_is_not_searched_for_again_unasked(tmp_path):
    recipe = recipe_of(tmp_path)
    train_recipe(recipe, tmp_path / "run", **BRIEF)
    with pytest.raises(InputError, match=r"run already holds a run; resume it, overwrite it"):
        train_recipe(recipe, tmp_path / "run", **BRIEF)
    train_recipe(replace(recipe, seed=1), tmp_path / "run", overwrite=True, **BRIEF)
    assert from_pretrained(tmp_path / "run").recipe.seed == from_pretrained(tmp_path / "run" / SEARCH).recipe.seed == 1


def test_where_nothing_improves_on_the_copula_it_is_the_result(tmp_path, capsys, monkeypatch):
    """With a learning rate of 0 nothing does."""
    recipe = recipe_of(tmp_path, lr=0.0)
    trained = train_recipe(recipe, tmp_path / "run", **BRIEF | {"progress": True})
    assert "The Gaussian copula was not improved upon with 80 rows.\n" in capsys.readouterr().err
    assert (trained.recipe.lr, trained.recipe.steps) == (0.0, 1)
    x = torch.randn(5, 2)
    with torch.no_grad():
        torch.testing.assert_close(trained.denoiser(x, 0.3).x0, trained.denoiser.base(x, 0.3).x0)


def by_hand(values, distances=None):
    """Losses and distances as given → Stopping when it is done, its engine, and what was looked at when."""
    values, distances = iter(values), iter(distances or ())
    engine = SimpleNamespace(ema=torch.zeros(2), averaging=nullcontext)
    engine.flat = SimpleNamespace(split=lambda whole: {"w": whole})
    trainer = SimpleNamespace(step=0, measured=lambda batches: next(values), denoiser=torch.nn.Identity())
    own, looked = object.__new__(Stopping), []
    near = None if distances is None else lambda: next(distances, math.nan)
    vars(own).update(trainer=trainer, engine=engine, batches=[], losses=[], weights=torch.zeros(2))
    vars(own).update(near=near, least=NEAR, copies=False)
    while not own.done:
        engine.ema = torch.full((2,), float(trainer.step))
        looked.append((trainer.step, own.look()))
        assert own.look() is None
        trainer.step += 1
    return own, engine, looked


@pytest.mark.parametrize(
    ("distances", "best"),
    [([1.1, 0.85, 0.79], 2), ([0.6, 0.65, 0.7, 0.61, 0.59], 6), ([1.0, 0.5], 0), ([1.0, math.nan, 0.2], 2)],
)
def test_it_stops_once_samples_crowd_about_the_rows_although_the_loss_falls(distances, best):
    """0.8 by default, or as near as samples are before anything is learned."""
    own, engine, looked = by_hand([5.0, 4.0, 3.0, 2.5, 2.0, 1.0], distances)
    assert (own.copies, own.best) == (True, best)
    assert looked[-1][0] == 2 * (len(distances) - 1)
    own.settle()
    assert engine.ema.tolist() == [best, best]
    said = own.said(7, "copula")
    assert f"before samples crowd about rows that were learned after {best + 2}: " in said or not best
    state = own.state()
    again = object.__new__(Stopping)
    vars(again).update(engine=engine, weights=torch.zeros(2))
    again.load_state(state)
    assert (again.losses, again.least, again.copies) == (own.losses, own.least, True)
    assert again.weights.tolist() == [best, best]
    with pytest.raises(InputError, match="stopping distance"):
        again.load_state(state | {"stopping distance": torch.zeros(3)})


def test_the_loss_is_looked_at_when_due_and_stops_after_its_patience():
    """By hand: 5, 3, 4, … at steps 0, 2, 4, … stop at 12 = 2 + 10."""
    own, engine, looked = by_hand([5.0, 3.0, *[4.0] * 5])
    assert [pair for pair in looked if pair[1]] == [(0, 5.0), (2, 3.0), *((step, 4.0) for step in range(4, 13, 2))]
    assert own.best == 2
    own.settle()
    assert engine.ema.tolist() == [2.0, 2.0]
    assert not own.copies
    assert own.said(7, "copula").startswith("The held-out loss is least after 2 steps: 3, at step 0 5.")
