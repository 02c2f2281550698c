"""The size of a fit: how many evaluations of the network it may take, and what it does with them."""

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError

__all__ = [
    "BACKWARD",
    "CHECKED",
    "COUNTS",
    "FEW_IMAGES",
    "FEW_STARTS",
    "JOINT",
    "LARGE",
    "MOST_EVALUATIONS",
    "MOST_JOINT",
    "PLANS",
    "TRAINING_SHARE",
    "FitPlan",
    "allowance",
    "counts_of",
    "plan",
]

COUNTS = (5, 10, 20)  # evaluations that every run has a solver for
TRAINING_SHARE = 0.05  # of training's network evaluations that the fit may take,
FEW_STARTS = 3  # times dearer in the few starts of a gradient step than in training's batches,
BACKWARD = 3  # where one with its gradient counts for three
JOINT = 6  # evaluations up to which gradients move nodes and weights together
MOST_JOINT = 300  # steps of that
LARGE = 64  # numbers in a sample from which each start gives equations enough
MOST_EVALUATIONS = {False: 150_000, True: 20_000}  # evaluations for all of COUNTS; of large samples
CHECKED = 8  # the reference of every 8th start is compared with one of half the steps


class FitPlan(NamedTuple):
    """The size of a fit. Of `pool` starts, the `border` on which two coarse walks differ most are fitted with weight
    one each; `others`, drawn at random, represent the rest.
    """

    pool: int
    border: int
    others: int
    reference: int  # RK4 steps
    shapes: int

    @property
    def starts(self) -> int:
        return self.border + self.others

    def cost(self, counts: Sequence[int]) -> int:
        """Network evaluations."""
        walks = (2 * self.shapes + 2) * sum(counts)
        checked = len(range(0, self.starts, CHECKED)) * (4 * (self.reference // 2) - 1)
        return 15 * self.pool * (self.border > 0) + self.starts * (4 * self.reference - 1 + walks) + checked

    def suits(self, dim: int, counts: Sequence[int]) -> bool:
        """True if half of the starts give at least twice as many equations as the longest row has unknowns.

        dim: numbers in a sample.
        """
        return self.starts // 2 * dim >= 2 * (max(counts) - 1)


PLANS = (
    FitPlan(768, 32, 96, 37, 12),
    FitPlan(512, 16, 64, 36, 9),
    FitPlan(256, 8, 40, 32, 7),
    FitPlan(64, 0, 64, 19, 3),
    FitPlan(32, 0, 32, 28, 6),
    FitPlan(24, 0, 24, 20, 4),
)
FEW_IMAGES = PLANS[4]


def allowance(steps: int, batch: int) -> int:
    """The evaluations that the fit after a training may take, a step of which counts for BACKWARD of each sample.

    batch: examples in a step.
    """
    return int(TRAINING_SHARE * BACKWARD * steps * batch)


def plan(budget: int, dim: int, counts: Sequence[int] = COUNTS) -> FitPlan | None:
    """The largest fit to samples of `dim` numbers within a budget, at most MOST_EVALUATIONS; None if none fits."""
    budget = min(budget, MOST_EVALUATIONS[dim >= LARGE])
    return next((row for row in PLANS if row.suits(dim, counts) and row.cost(counts) <= budget), None)


def counts_of(evaluations: str) -> tuple[int, ...]:
    """ "1,2,4" → (1, 2, 4). evaluations: counts, separated by commas."""
    parts = [part.strip() for part in evaluations.split(",") if evaluations]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:9]) <= 1000 for part in parts):
        raise InputError(f"evaluations must be numbers of 1 to 1000, such as 1,2,4; got {evaluations!r}.")
    return tuple(sorted({int(part) for part in parts}))
