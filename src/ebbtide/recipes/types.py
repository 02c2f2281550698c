"""The class of each kind's recipes: by its name in a config, or by the data."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import formats
from ..errors import InputError
from ..specs import pick
from .checks import checked_fields
from .images import ImageRecipe
from .points import PointRecipe
from .recipe import Recipe
from .robots import RobotRecipe

__all__ = ["RECIPE_TYPES", "recipe_from_config", "recipe_type"]

RECIPE_TYPES: dict[str, type[Recipe]] = {row.kind: row for row in (PointRecipe, ImageRecipe, RobotRecipe)}


def recipe_from_config(config: Any) -> Recipe:
    """The recipe that `Recipe.to_config` wrote; anything else is refused by name."""
    if not isinstance(config, dict):
        raise InputError(f"A recipe must be a JSON object; got {type(config).__name__}.")
    row = RECIPE_TYPES[pick(RECIPE_TYPES, str(config.get("domain", "")), "The recipe's domain")]
    given = {name: value for name, value in config.items() if name != "domain"}
    known = {field.name for field in fields(row)}
    if foreign := [name for name in given if name not in known]:
        raise InputError(f"A recipe for {row.kind} has no field {foreign[0]!r}.")
    return row(**checked_fields(row, {**row.older, **given}))


def recipe_type(data: str) -> type[Recipe]:
    """The kind of recipe for this data; a file's contents decide, not its name."""
    path = Path(data)
    if data.startswith(("hf:", "wds:")) or data == "digits" or (data != "" and path.is_dir()) or formats.is_idx(path):
        return ImageRecipe
    held = formats.arrays(path)
    likely = [held["x"]] if "x" in held else held.values()
    return ImageRecipe if "images" in held or any(array.images for array in likely) else PointRecipe
