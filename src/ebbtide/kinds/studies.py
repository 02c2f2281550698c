"""The jobs of a comparison, which any of its processes may take: a method to train and to sample, floors, metrics."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ..plots.study import Method
from ..progress import progress_bar
from ..recipes import Recipe
from ..training.processes import slot
from ..training.trained import Trained
from . import Way, kind_of
from .methods import Entry, curves, finished, ways
from .routes import explodes
from .runs import train_recipe

if TYPE_CHECKING:
    from ..metrics import Measurement

__all__ = ["Drawn", "Floors", "Study", "counted", "floors_of", "judged", "study"]

Floors = dict[tuple[str, int], list[float]]


@dataclass(frozen=True)
class Drawn:
    """Samples of a method by one way of sampling it."""

    way: Way
    line: str
    """The line of quality against cost that it belongs to; "" for a row of the table."""
    x: Float[Tensor, " n *d"]
    labels: Int[Tensor, " n"] | None
    """The labels they were asked for."""
    evaluations: int
    """Network evaluations of each."""
    seconds: float
    """CPU seconds of all."""


@dataclass(frozen=True)
class Study:
    """A trained method, and its samples."""

    method: Method
    recipe: Recipe
    """The comparison's, with what the method decides of how samples are measured."""
    drawn: list[Drawn]


@contextmanager
def _beside() -> Iterator[None]:
    """Context of a job: one thread, as other processes are at work; no denormal numbers, which are slow.

    And no warnings about the data, which were given before the processes began.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ebbtide\.(data|kinds)\.")
        yield


@_beside()
def study(entry: Entry, recipe: Recipe, n: int, options: dict[str, Any]) -> Study:
    """Train a method, unless it is a run, and sample it in each of its ways; options: of `train_recipe`.

    entry: the method. n: samples of each row of the table; lines have at most the plan's `curve_n`.
    """
    if entry.recipe:
        trained, notes = train_recipe(entry.recipe, entry.folder, **options, position=slot()), []
    else:
        trained = finished(entry.folder, recipe)
        notes = [f"a run of {trained.recipe.steps:,} steps of {trained.recipe.batch:,}, {trained.recipe.network}"]
    if explodes(trained.denoiser.path):
        notes.append("its noise explodes, so it is drawn as x/(α + σ) at t = σ/(α + σ)")
    kind = kind_of(recipe)
    plan = kind.plan
    assert plan is not None
    asked = ways(trained, entry.row)
    work = sum(way.steps * n for way in asked)
    bar = progress_bar(
        work, f"{entry.key}: sampling", kind.unit, show=options["progress"], position=slot(),
        unit_scale=True, dynamic_ncols=True,
    )  # fmt: skip
    with bar:
        drawn = [_draw(trained, n, way, "", bar) for way in asked]
    for line, each in curves(trained, entry.row, plan).items():
        drawn += [_draw(trained, min(n, plan.curve_n), way, f"{entry.name} · {line}") for way in each]
    method = plan.study(entry.key, entry.name, entry.colour, trained, entry.folder)
    measured = replace(recipe, conditional=trained.recipe.conditional)
    return Study(replace(method, origin="; ".join(notes)), measured, drawn)


@_beside()
def floors_of(recipe: Recipe, sizes: Sequence[tuple[int, bool]]) -> tuple[list[int] | None, Floors]:
    """The floors that all samples of the recipe's data share, and the labels these were asked for.

    They are found by measuring real examples in place of samples, repeated where there are fewer. sizes: (number of
    samples, whether on a line).
    """
    kind, floors = kind_of(recipe), Floors()
    for n, curve in sizes:
        x, labels = kind.real(recipe, n, recipe.seed)
        again = torch.arange(n) % len(x)
        x, labels = x[again], None if labels is None or not recipe.conditional else labels[again]
        kind.evaluate(recipe, x, labels, seed=recipe.seed, floors=floors, curve=curve)
    return _asked(labels), floors


@_beside()
def judged(recipe: Recipe, drawn: Drawn, shared: Sequence[tuple[list[int] | None, Floors]]) -> "list[Measurement]":
    """The metrics of samples: all in a row of the table, on a line the one that is drawn; shared: from `floors_of`."""
    its = _asked(drawn.labels)
    floors = next((floors for labels, floors in shared if labels == its), Floors())
    rows: list[Measurement] = kind_of(recipe).evaluate(
        recipe, drawn.x, drawn.labels, seed=recipe.seed, floors=floors, curve=bool(drawn.line)
    )
    return rows


def _draw(trained: Trained, n: int, way: Way, line: str, bar: tqdm | None = None) -> Drawn:
    """n samples in one way, of the labels that are in the data, in proportion."""
    start, labels = time.process_time(), trained.in_proportion(n)
    x, evaluations = counted(
        trained, n, seed=trained.recipe.seed, label=labels, sampler=way.sampler, grid=way.grid, steps=way.steps, bar=bar
    )
    return Drawn(way, line, x, labels, evaluations, time.process_time() - start)


def counted(trained: Trained, n: int, **options: Any) -> tuple[Tensor, int]:
    """n samples, by options of `Trained.sample`, and how often the network was evaluated for each."""
    seen: list[int] = []
    hook = trained.denoiser.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    x = trained.sample(n, **options)
    hook.remove()
    return x, sum(seen) // n


def _asked(labels: Tensor | None) -> list[int] | None:
    return None if labels is None else sorted(set(labels.tolist()))
