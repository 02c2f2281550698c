"""RECIPES: the methods ebbflow trains, each a function that returns a frozen Recipe."""

from collections.abc import Callable

from .citations import CITATIONS
from .images import ddpm_images, edm_images, flow_images
from .points import bridge, ddpm, edm, flow, ot_flow
from .recipe import ImageRecipe, PointRecipe, Recipe, kind_of

RECIPES: dict[str, Callable[[], Recipe]] = {
    "ddpm": ddpm,
    "flow": flow,
    "edm": edm,
    "bridge": bridge,
    "ot-flow": ot_flow,
    "ddpm-images": ddpm_images,
    "flow-images": flow_images,
    "edm-images": edm_images,
}

__all__ = ["CITATIONS", "RECIPES", "ImageRecipe", "PointRecipe", "Recipe", "kind_of"]
