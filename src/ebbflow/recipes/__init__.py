"""RECIPES: the methods ebbflow trains, each a function that returns a frozen Recipe."""

from collections.abc import Callable

from .citations import CITATIONS
from .points import bridge, ddpm, edm, flow, ot_flow
from .recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "ddpm": ddpm,
    "flow": flow,
    "edm": edm,
    "bridge": bridge,
    "ot-flow": ot_flow,
}

__all__ = ["CITATIONS", "RECIPES", "Recipe"]
