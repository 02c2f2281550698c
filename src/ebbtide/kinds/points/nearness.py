"""The distance of a run's samples to the rows that it learns, by which training stops before it copies them."""

from typing import TYPE_CHECKING

import torch

from ...data import Points

if TYPE_CHECKING:
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
    from ...metrics.tables import Rows, Units

    if len(learned.x) > DRAWN:
        return torch.nan
    labels = trained.in_proportion(DRAWN)
    x = trained.sample(DRAWN, seed=trained.recipe.seed, label=labels, sampler="heun", grid="quadratic", steps=STEPS)
    levels = () if learned.form is None else learned.form.levels
    own, *rest = (Rows.of(one, learned.columns, levels) for one in (learned.x, x[~x.isinf().any(1)], others.x))
    rows, samples, further = map(Units(own), (own, *rest))
    apart = torch.cdist(rows, rows).fill_diagonal_(torch.inf).amin(1)
    real = torch.cat([apart, torch.cdist(further, rows).amin(1)])
    return nearness(torch.cdist(samples, rows).amin(1), real) if len(samples) else torch.nan
