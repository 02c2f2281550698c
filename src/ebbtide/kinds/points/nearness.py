"""The distance of a run's samples to the rows that it learns, by which training stops before it copies them."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...data import Points
from ...data.forms import Column

if TYPE_CHECKING:
    from ...metrics.tables import Rows
    from ...training.trained import Trained

__all__ = ["DRAWN", "nearness_to"]

DRAWN = 1000  # samples, and most rows
STEPS = 12  # of Heun's method


def nearness_to(learned: Points, others: Points, trained: "Trained") -> float:
    """The samples' median distance to the nearest row of `learned`, over that of real rows, each to another.

    In the units of a table's report (`metrics.tables.Units`). NaN for more than DRAWN rows, which no network copies
    that stops by held-out loss. others: the rows by whose loss it stops.
    """
    from ...metrics.memorisation import nearness
    from ...metrics.tables import Units

    if len(learned.x) > DRAWN:
        return torch.nan
    labels = trained.in_proportion(DRAWN)
    x = trained.sample(DRAWN, seed=trained.recipe.seed, label=labels, sampler="heun", grid="quadratic", steps=STEPS)
    units = Units(_rows(learned, learned.x))
    samples, rows, further = (units(_rows(learned, own)) for own in (x[~x.isinf().any(1)].cpu(), learned.x, others.x))
    apart = torch.cdist(rows, rows).fill_diagonal_(torch.inf).amin(1)
    real = torch.cat([apart, torch.cdist(further, rows).amin(1)])
    return nearness(torch.cdist(samples, rows).amin(1), real) if len(samples) else torch.nan


def _rows(points: Points, x: Tensor) -> "Rows":
    from ...metrics.tables import Rows

    columns = (Column(),) * x.shape[1] if points.form is None else points.form.learned
    return Rows.of(x, points.columns, [column.levels for column in columns])
