"""KINDS: the kinds of data, one row each. Only here, and above, does anyone ask which kind a run's data is.

    points   the rows of a table
    images   images in uint8
    robots   chunks of a robot's actions

`fit` trains a recipe, `from_pretrained` loads a run; both hand a `Trained` what it needs of its kind.
"""

from typing import Any

from ..plots.study import Comparison
from ..recipes import Recipe
from .images.kind import IMAGES
from .kind import Kind, MethodRow, Plan, Way
from .points.kind import POINTS
from .robots.kind import ROBOTS

__all__ = ["KINDS", "Kind", "MethodRow", "Plan", "Way", "kind_of"]

KINDS: dict[str, Kind[Any]] = {kind.recipe.kind: kind for kind in (POINTS, IMAGES, ROBOTS)}


def kind_of(of: Recipe | Comparison) -> Kind[Any]:
    """The row for a recipe's data, or a comparison's."""
    return KINDS[of.kind]
