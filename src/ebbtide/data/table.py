"""A table of points: rows, labels, and their names."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """n points in float32, their labels 0..k-1 and, where known, the columns' and the labels' names.

    test: the number of rows, at the end, in the set's own held-out parts.
    """

    x: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"] | None = None
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    test: int = 0
