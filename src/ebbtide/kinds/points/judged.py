"""The report on samples of a table from a file: its rows as the metrics of tables take them, and its density."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...codecs import Missing, Mixed, Ranks
from ...data import Points
from ...errors import InputError
from ...metrics import Measurement
from ...metrics.tables import Nats, Part, Rows, judge_table, nats_over_independent, report_text
from ...recipes import PointRecipe
from .data import at_hand, label_column, part, parts, point_set

if TYPE_CHECKING:
    from ...training.trained import Trained

__all__ = ["LIKELY", "NATS_STEPS", "Judgement", "judged", "rows_of_table"]

LIKELY, NATS_STEPS = 500, 50  # held-out rows whose density is integrated, and Runge-Kutta steps


@dataclass(frozen=True, eq=False)
class Judgement:
    """A report, and the rows that it is on."""

    parts: list[Part]
    samples: Rows
    train: Rows
    held: Rows

    @property
    def rows(self) -> list[Measurement]:
        """All measurements of the report."""
        return [row for part in self.parts for row in part.rows]

    def __str__(self) -> str:
        return report_text(self.parts)

    def draw(self, trained: "Trained", folder: Path) -> Iterator[Path]:
        """Figures and the page that holds them, in a run's folder."""
        from .pictures import draw_table

        yield from draw_table(trained.recipe, self.parts, self.samples, self.train, self.held, folder)

    @property
    def real(self) -> Rows:
        """The rows to hold samples against."""
        return self.held if len(self.held) >= 2 else self.train


def judged(
    trained: "Trained",
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | None = None,
    *,
    target: str = "",
    seed: int = 0,
) -> Judgement | None:
    """The report on a run's samples and the labels that they were asked for; None for a named set, or one row.

    target: the column that is predicted from the others, by default the labels.
    """
    recipe = cast(PointRecipe, trained.reading())
    if point_set(recipe) is not None:
        if target:
            raise InputError("--predict names a column of a table from a file; this run learned a named set.")
        return None
    at_hand(recipe)
    if len(x) < 2:
        return None
    train, held = parts(recipe)
    if labels is not None:
        asked = labels.unique()
        train, held = (
            points if points.labels is None else part(points, torch.isin(points.labels, asked))
            for points in (train, held)
        )
        labels = labels if len(asked) > 1 and train.labels is not None else None  # of one class it is no column
    name = "" if labels is None else label_column(recipe)
    samples, *real = (
        rows_of_table(trained, rows, own, name)
        for rows, own in ((x, labels), *((points.x, points.labels) for points in (train, held)))
    )
    nats = _nats(trained, train, held, seed) if len(held.x) >= 2 else ""
    own = real[1] if len(real[1]) >= 2 else None
    return Judgement(
        judge_table(samples, real[0], own, label=name, target=target, nats=nats, seed=seed), samples, real[0], real[1]
    )


def rows_of_table(
    trained: "Trained", x: Float[Tensor, "n d"], labels: Int[Tensor, " n"] | None = None, name: str = ""
) -> Rows:
    """Rows in the run's columns, with the labels as one more column if that has a name."""
    found = Rows.of(x, trained.columns, () if trained.form is None else trained.form.levels)
    if trained.form is not None:
        found = replace(found, dates=tuple(one.name for one in trained.form.learned if one.kind == "date"))
    return found.beside(cast(Tensor, labels), name, trained.classes) if name else found


def _nats(trained: "Trained", train: Points, held: Points, seed: int) -> Nats | str:
    """Nats of held-out rows under the run's density, or the reason why there are none."""
    from ...exact.likelihood import log_density

    codec = trained.codec
    if not isinstance(codec, Ranks | Missing | Mixed):
        return "Not measured: they are for runs whose columns are seen by their ranks (--codec mixed)."
    if codec.has_unit_vectors:
        return "Not measured: levels that are seen as unit vectors have no density (--ordered gives them ranks)."
    labelled = trained.recipe.learns_labels

    def density(z: Tensor, labels: Tensor | None) -> Tensor:
        cond: dict[str, Any] = {"label": labels} if labelled and labels is not None else {}
        return log_density(trained.denoiser.eval(), z, steps=NATS_STEPS, **cond)

    few = part(held, torch.arange(len(held.x)) < LIKELY)
    own = [(points.x, points.labels if labelled else None) for points in (train, few)]
    try:
        return nats_over_independent(codec, density, own[0], own[1], seed)
    except InputError as error:  # a second sample set has no density
        return f"Not measured: {error}"
