"""The methods of a comparison: recipes to train, and runs that were there before, with the ways of sampling each."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..exact.jumps import JUMPS
from ..losses import loss_row
from ..plots.colours import apart
from ..recipes import RECIPES, Recipe
from ..samplers import facts
from ..specs import expect, pick, with_option, words
from ..training.trained import Trained
from . import MethodRow, Plan, Way, kind_of
from .runs import from_pretrained, on_its_data

__all__ = ["Entry", "curves", "entries", "finished", "recipes_for", "ways"]

# Beside a plan's own: fields that a method's recipe decides where it differs from what recipes do by default.
_CHOSEN = ("times", "weight", "coupling", "spans", "stable_targets", "bound", "codec")
_ACRONYMS = ("ddpm", "ddim", "deis", "edm", "lms", "rk4")


@dataclass(frozen=True)
class Entry:
    """One method of a comparison."""

    key: str
    """Its folder's name, and its files'; "diffusion" and "flow" always have the same colours."""
    name: str
    """Its name in the report."""
    colour: str
    folder: Path
    """The folder of its training, or of the run that is there."""
    recipe: Recipe | None
    """The recipe to train it by; None for a run that is there."""
    row: MethodRow | None
    """The ways to sample that recipe."""


def recipes_for(kind: str) -> dict[str, str]:
    """The recipes that sample a kind of data, by their names without the kind's: "ddpm" for ddpm-images."""
    made = {name: row() for name, row in RECIPES.items()}
    return {
        name.removesuffix(f"-{kind}"): name
        for name, recipe in made.items()
        if recipe.kind == kind and not loss_row(recipe.loss).codec
    }


def entries(methods: Sequence[str | Path], recipe: Recipe, plan: Plan[Any], out: Path) -> list[Entry]:
    """The methods of these names, in order: a recipe of the data's kind, trained in a folder of `out`, or a run."""
    expect("methods", methods, tuple, list)
    if not methods:
        raise InputError("methods must name at least one recipe or run.")
    known, found = recipes_for(recipe.kind), []
    for given in methods:
        expect("a method", given, str, os.PathLike)
        name = str(given).strip()
        full = known.get(name, name if name in known.values() else "")
        if full:
            row = _row(full, plan)
            found.append(Entry(row.key, row.name, "", out / row.key, _fair(recipe, RECIPES[full](), plan), row))
        elif Path(name).is_dir():
            found.append(Entry("", Path(os.path.abspath(name)).name, "", Path(name), None, None))
        else:
            pick(known, name, "A method that isn't a run's folder")
    for k, one in enumerate(found):
        if any(os.path.realpath(one.folder) == os.path.realpath(other.folder) for other in found[:k]):
            raise InputError(f"methods names {methods[k]} twice.")
    keys, names = [one.key for one in found if one.recipe], [one.name for one in found if one.recipe]
    for k, one in enumerate(found):
        if one.recipe is None:
            plain = re.sub(r"[^a-z0-9_-]+", "-", one.name.lower()).strip("-") or "run"
            found[k] = replace(one, key=_unlike(plain, keys, "-"), name=_unlike(one.name, names, " "))
    colours = apart([one.key for one in found])
    return [replace(one, colour=colour) for one, colour in zip(found, colours, strict=True)]


def _unlike(name: str, taken: list[str], mark: str) -> str:
    """The name, numbered if it is taken, which it is from now on."""
    found = next(one for k in range(1, 10**6) if (one := name if k == 1 else f"{name}{mark}{k}") not in taken)
    taken.append(found)
    return found


def _row(name: str, plan: Plan[Any]) -> MethodRow:
    """A plan's row, or that of a recipe without one, which is sampled as it says and called as its docstring begins."""
    if name in plan.rows:
        return plan.rows[name]
    made = RECIPES[name]()
    short = name.removesuffix(f"-{made.kind}")
    titles = [_title(other) for other in recipes_for(made.kind).values()]
    shown = title if (title := _title(name)) and titles.count(title) == 1 else short
    own = _way(made.sampler, made.grid, made.sample_steps)
    return MethodRow(short, shown, made.grid, (own,))


def _title(name: str) -> str:
    """The name at the beginning of a recipe's docstring, before its paper."""
    found = re.match(r"([^.:(\n]{1,24}?) \(", RECIPES[name].__doc__ or "")
    return found[1] if found else ""


def _fair(recipe: Recipe, row: Recipe, plan: Plan[Any]) -> Recipe:
    """The recipe of a comparison with what belongs to a method."""
    usual = type(recipe)()
    its = {name: getattr(row, name) for name in plan.own}
    chosen = [name for name in _CHOSEN if hasattr(usual, name)]
    its |= {name: getattr(row, name) for name in chosen if getattr(row, name) != getattr(usual, name)}
    if loss_row(row.loss).spans:  # which diverge where others don't
        its |= {"lr": min(recipe.lr, row.lr), "network": with_option(recipe.network, "spans", "true")}
    return replace(recipe, **its)


def finished(folder: Path, recipe: Recipe) -> Trained:
    """A run that is there, which draws from the comparison's noise; InputError unless it is finished, on its data."""
    trained = from_pretrained(folder)
    its = trained.recipe
    if its.kind != recipe.kind:
        raise InputError(f"{folder} is a run on {its.kind}, and {recipe.data_named} holds {recipe.kind}.")
    if "data" in its.outside() and not recipe.built_in(recipe.data):
        trained = on_its_data(from_pretrained(folder, data=recipe.data), recipe.data, folder)
        shares = [getattr(one, "held_out", 0.0) for one in (its, recipe)]
        if shares[0] != shares[1]:
            raise InputError(
                f"{folder} held out {shares[0]:g} of {recipe.data_named}, not {shares[1]:g}, so it may have learned "
                "what samples are held against."
            )
    elif its.data != recipe.data:
        raise InputError(f"{folder} was trained on {its.shared().data}, not on {recipe.data_named}.")
    shape = tuple(kind_of(recipe).real(recipe, 1, 0)[0].shape[1:])
    if trained.shape != shape:
        raise InputError(f"{folder} draws {trained.shape}, and an example of {recipe.data_named} is {shape}.")
    if trained.step < its.steps:
        raise InputError(f"{folder} is at step {trained.step} of {its.steps}: finish it first, by ebbtide resume.")
    return replace(trained, recipe=replace(its, seed=recipe.seed))


def ways(trained: Trained, row: MethodRow | None) -> list[Way]:
    """The ways to sample a trained method in the table: its row's, its own choice or jumps, and its own solver."""
    jumps, own = _fitted(trained)
    recipe = trained.recipe
    if facts(recipe.sampler).spans:
        return jumps + own[-1:]
    return [*(row.ways if row else (_way(recipe.sampler, recipe.grid, recipe.sample_steps),)), *own[-1:]]


def curves(trained: Trained, row: MethodRow | None, plan: Plan[Any]) -> dict[str, list[Way]]:
    """Lines of quality against cost: for each solver, or for jumps, the same with more and more evaluations."""
    jumps, own = _fitted(trained)
    grid = row.grid if row else trained.recipe.grid
    lines = {name: [Way(name, sampler, grid, k) for k in counts] for name, (sampler, counts) in plan.curve.items()}
    lines = {"Jump": jumps} if facts(trained.recipe.sampler).spans else lines
    return lines | ({"own solver": own} if own else {})


def _fitted(trained: Trained) -> tuple[list[Way], list[Way]]:
    """Ways that were fitted to a run: grids of jumps, the fewest first, and solvers, the latest last."""
    recipe = trained.recipe
    stored = sorted((one for one in trained.tuned if facts(one.sampler).spans), key=lambda one: one.steps)
    jumps = [_way(one.sampler, one.grid, one.steps) for one in stored]
    jumps = jumps or [_way(recipe.sampler, recipe.grid, count) for count in JUMPS]
    solvers = [one for one in trained.tuned if not facts(one.sampler).spans]
    return jumps, [Way(f"own solver, {one.evaluations}", one.sampler, one.grid, one.steps) for one in solvers]


def _way(sampler: str, grid: str, steps: int) -> Way:
    name, _ = words(sampler)
    shown = name.upper() if name in _ACRONYMS else name.replace("_", " ").capitalize()
    return Way(f"{shown}, {steps} step{'s'[: steps > 1]}", sampler, grid, steps)
