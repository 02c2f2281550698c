"""Points: the rows of a table, drawn from a known distribution or read from a file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data import Points, save_points
from ...data.files import save_table
from ...recipes import PointRecipe
from ..kind import Kind, MethodRow, Plan, Way, as_npy
from .data import (
    NOTHING_HELD,
    at_hand,
    codec_for,
    describe,
    fits,
    given,
    label_column,
    part,
    parts,
    point_set,
    prepare,
    real,
    real_points,
    start,
)
from .starts import own_starts
from .study import kept, shown, study

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...plots.report import Picture
    from ...plots.study import Comparison
    from ...training.trained import Trained
    from .judged import Judgement

__all__ = ["PLAN", "POINTS", "all_classes", "draw_run", "draw_samples", "evaluate", "figures", "judged", "write"]


def all_classes(trained: "Trained", n: int) -> Int[Tensor, " n"] | None:
    """Labels of n samples of every class, as often as in the data: samples are drawn beside it."""
    return trained.in_proportion(n)


def evaluate(
    recipe: PointRecipe,
    samples: Float[Tensor, " n d"],
    labels: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    floors: dict[tuple[str, int], list[float]] | None = None,
    curve: bool = False,
    own: Mapping[str, Callable[[Tensor, Tensor], float]] = MappingProxyType({}),
) -> list["Measurement"]:
    """Every metric that applies, beside its floor: against fresh points of a named set, or the held-out rows of a file.

    labels: what the samples were asked for; they are held against real points of these classes.
    floors: one dict for several evaluations against the same data, which then share their floors.
    curve: only the metric that `compare` draws against cost. own: more metrics, functions of (samples, real points).
    """
    from ...metrics import METRICS, measure

    known = point_set(recipe)
    asked = None if labels is None else labels.unique()
    exact: dict[str, Any] = {}
    if known is not None and (asked is None or len(asked) >= len(known.classes)):  # what is exact of all isn't of some
        modes = known.modes
        exact = {"log_density": known.log_density} | ({"means": modes.means, "std": modes.std} if modes else {})
    drawn = (
        name for name, row in METRICS.items() if row.in_curve and all(exact.get(one) is not None for one in row.needs)
    )
    only = [next(drawn)] if curve else None

    def alike(points: Points) -> Points:
        """Those of the classes that samples were asked for."""
        if asked is None or points.labels is None:
            return points
        return part(points, torch.isin(points.labels, asked))

    def plain(points: Points) -> Tensor | tuple[Tensor, Tensor]:
        return points.x if labels is None or points.labels is None else (points.x, points.labels)

    if asked is not None and len(asked) == 1:  # all are of the class that is held against them
        labels = None
    options: dict[str, Any] = {"labels": labels, "seed": seed, "floors": floors, "only": only, "own": own}
    if known is None:
        at_hand(recipe)
        train, held = parts(recipe)
        if not train.plain:  # in the network's units, where columns of any kind are numbers of one size
            codec = codec_for(recipe, train)
            train, held = (replace(points, x=codec.encode(points.x)) for points in (train, held))
            samples = codec.encode(samples)
        train, held = alike(train), alike(held)
        options["classes"] = train.classes
        if len(held.x) >= 2:
            return measure(samples, plain(held), train=plain(train), **options)
        rows = measure(samples, plain(train), **options)
        return [replace(row, note="\n".join(filter(None, (row.note, NOTHING_HELD)))) for row in rows]
    options["classes"] = known.classes
    if not exact:

        def some(n: int, repeat: int) -> Tensor | tuple[Tensor, Tensor]:
            points = alike(real_points(recipe, 2 * n * len(known.classes) + 100, repeat))
            return plain(part(points, torch.arange(len(points.x)) < n))

        return measure(samples, some, **options)
    return measure(samples, lambda n, repeat: plain(real_points(recipe, n, repeat)), **exact, **options)


def write(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Samples as a file that `ebbtide train` reads."""
    names = None if labels is None or path.suffix == ".npy" else [trained.classes[i] for i in labels]
    if trained.form is not None and path.suffix in (".csv", ".tsv"):
        save_table(path, x, trained.form, names)
        return
    save_points(path, x, trained.columns, names, label_column(cast(PointRecipe, trained.recipe)))


def judged(trained: "Trained", x: Tensor, labels: Tensor | None = None, **options: Any) -> "Judgement | None":
    """The report on samples of a table from a file; None for a named set."""
    from .judged import judged

    return judged(trained, x, labels, **options)


def draw_samples(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path, how: str = "") -> Path:
    """Samples beside real points."""
    from . import pages

    return pages.draw_samples(trained, x, labels, path, how)


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages

    return pages.draw_run(trained, folder, out)


def figures(comparison: "Comparison") -> Iterator["Picture"]:
    """The figures of a comparison's report."""
    from . import report

    return report.figures(comparison)


# Every row is drawn from the same noise. The grid is quadratic wherever a solver may choose, for both methods alike:
# it follows σ, which is small near the data; DDPM's own 1000 steps are those of its table.
_ODE = (
    Way("Euler, 100 steps", "euler", "quadratic", 100),
    Way("Heun, 50 steps", "heun", "quadratic", 50),
    Way("Heun, 10 steps", "heun", "quadratic", 10),
)
PLAN = Plan(
    rows={
        "ddpm": MethodRow(
            "diffusion",
            "DDPM",
            "quadratic",
            (
                Way("DDPM, 1000 steps", "ddpm:variance=beta", "trailing", 1000),
                Way("DDIM, 50 steps", "ddim", "quadratic", 50),
                *_ODE,
            ),
        ),
        "flow": MethodRow("flow", "Flow matching", "quadratic", _ODE),
    },
    own=("loss", "teacher", "path", "target", "sampler", "grid", "sample_steps"),
    curve={"Euler": ("euler", (5, 10, 20, 50, 100)), "Heun": ("heun", (3, 5, 10, 25, 50))},
    curve_n=2000,
    fewest=20,  # two halves of fewer say nothing of each other
    floors=True,
    study=study,
    shown=shown,
    kept=kept,
    figures=figures,
)
POINTS = Kind(
    recipe=PointRecipe,
    unit="pt",
    units="rows",
    n=10_000,
    n_evaluate=10_000,
    file="samples.npy",
    extensions=(".npy", ".npz", ".csv", ".tsv"),
    each=300,
    more=27,
    snapshot={"n": 1000, "sampler": "heun", "grid": "quadratic", "steps": 12},
    fits=fits,
    prepare=prepare,
    describe=describe,
    real=real,
    evaluate=evaluate,
    write=write,
    snapshot_files=as_npy,
    draw_samples=draw_samples,
    draw_run=draw_run,
    given=given,
    start=start,
    starts=own_starts,
    all_classes=all_classes,
    judged=judged,
    plan=PLAN,
)
