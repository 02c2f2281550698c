"""Point sets as metrics take them, float64 arrays (n, d), finite and not empty; the number a user's metric returns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import InputError
from ..specs import calling, expect, require

__all__ = ["STRIP", "Doubles", "checked_mixture", "flat", "pair", "plain_number", "points"]

Doubles = npt.NDArray[np.float64]
STRIP = 512  # rows of a strip of pairs


def points(x: Tensor, name: str = "x", at_least: int = 1) -> Doubles:
    """`x` flattened to (n, d) in float64; refuses empty sets and anything that is not a finite number."""
    expect(name, x, Tensor)
    if x.ndim == 0 or len(x) < at_least or x[0].numel() == 0:
        few = f"at least {at_least} point{'s' * (at_least > 1)} of dimension 1 or more"
        raise InputError(f"{name} must hold {few}; got shape {tuple(x.shape)}.")
    flat: Doubles = x.detach().reshape(len(x), -1).cpu().double().numpy()
    if bad := int((~np.isfinite(flat).all(1)).sum()):
        raise InputError(f"{name} must be finite; {bad} of its {len(flat)} points are not.")
    return flat


def flat(x: Tensor) -> Tensor:
    """`x` as (n, d); numbers alone are points of one dimension."""
    return x[:, None].flatten(1)


def pair(x: Tensor, y: Tensor, at_least: int = 1) -> tuple[Doubles, Doubles]:
    """Two point sets of the same dimension."""
    a, b = points(x, "x", at_least), points(y, "y", at_least)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"x and y must have the same dimension; got {a.shape[1]} and {b.shape[1]}.")
    return a, b


def checked_mixture(x: Tensor, means: Tensor, std: float = 1.0) -> tuple[Doubles, Doubles]:
    """A point set and the modes to compare it with."""
    a, mu = points(x, "x"), points(means, "means")
    if a.shape[1] != mu.shape[1]:
        raise InputError(f"x and means must have the same dimension; got {a.shape[1]} and {mu.shape[1]}.")
    require("std", std, above=0)
    return a, mu


def plain_number(metric: Callable[..., Any], *given: Any) -> float:
    """The number that a user's metric returns; InputError for anything else, and for whatever it ends in.

    metric: the user's function. given: its arguments.
    """
    with calling("metric", getattr(metric, "name", getattr(metric, "__name__", "")), "return a number"):
        value = metric(*given)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"A metric must return a number; got {type(value).__name__}.") from None
