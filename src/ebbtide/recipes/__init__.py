"""RECIPES: the methods ebbtide trains, each a function that returns a frozen Recipe."""

from collections.abc import Callable

from .checks import OBJECTIVES
from .citations import PAPERS, cited
from .images import (
    ImageRecipe,
    autoencoder,
    ddpm_images,
    ddpm_latents,
    edm_images,
    flow_images,
    flow_latents,
    mean_flow_images,
    shortcut_images,
    super_resolution,
)
from .points import HELD_OUT, PointRecipe, bridge, ddpm, edm, flow, mean_flow_points, ot_flow, shortcut_points
from .recipe import IN_MEMORY, Recipe
from .robots import (
    RobotRecipe,
    diffusion_policy_pusht,
    flow_policy,
    flow_policy_aloha_insertion,
    flow_policy_aloha_transfer,
    flow_policy_pusht,
    pi0,
    pi0_aloha_insertion,
    pi0_aloha_transfer,
    pi0_pusht,
)
from .types import RECIPE_TYPES, recipe_from_config, recipe_type

RECIPES: dict[str, Callable[..., Recipe]] = {
    "ddpm": ddpm,
    "flow": flow,
    "edm": edm,
    "bridge": bridge,
    "ot-flow": ot_flow,
    "shortcut": shortcut_points,
    "mean-flow": mean_flow_points,
    "ddpm-images": ddpm_images,
    "flow-images": flow_images,
    "edm-images": edm_images,
    "shortcut-images": shortcut_images,
    "mean-flow-images": mean_flow_images,
    "super-resolution": super_resolution,
    "autoencoder": autoencoder,
    "ddpm-latents": ddpm_latents,
    "flow-latents": flow_latents,
    "flow-policy": flow_policy,
    "pi0": pi0,
    "flow-policy-pusht": flow_policy_pusht,
    "diffusion-policy-pusht": diffusion_policy_pusht,
    "pi0-pusht": pi0_pusht,
    "flow-policy-aloha-transfer": flow_policy_aloha_transfer,
    "flow-policy-aloha-insertion": flow_policy_aloha_insertion,
    "pi0-aloha-transfer": pi0_aloha_transfer,
    "pi0-aloha-insertion": pi0_aloha_insertion,
}

METHODS = ("ddpm", "flow")  # that are compared unless others are named; of images, those with -images in their names

for row in RECIPES.values():  # what `help(ebbtide.flow)` shows: **fields alone names none
    defaults = ", ".join(f"{field}={value!r}" for field, value in vars(row()).items())
    row.__doc__ = f"{row.__doc__}\n\n    Fields, with their defaults: {defaults}."

__all__ = [
    "HELD_OUT",
    "IN_MEMORY",
    "METHODS",
    "OBJECTIVES",
    "PAPERS",
    "RECIPES",
    "RECIPE_TYPES",
    "ImageRecipe",
    "PointRecipe",
    "Recipe",
    "RobotRecipe",
    "autoencoder",
    "bridge",
    "cited",
    "ddpm",
    "ddpm_images",
    "ddpm_latents",
    "diffusion_policy_pusht",
    "edm",
    "edm_images",
    "flow",
    "flow_images",
    "flow_latents",
    "flow_policy",
    "flow_policy_aloha_insertion",
    "flow_policy_aloha_transfer",
    "flow_policy_pusht",
    "mean_flow_images",
    "mean_flow_points",
    "ot_flow",
    "pi0",
    "pi0_aloha_insertion",
    "pi0_aloha_transfer",
    "pi0_pusht",
    "recipe_from_config",
    "recipe_type",
    "shortcut_images",
    "shortcut_points",
    "super_resolution",
]
