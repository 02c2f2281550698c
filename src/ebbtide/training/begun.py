"""A run that has begun: its recipe, options and progress, read from its newest checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..codecs import Codec
from ..errors import InputError
from ..files import no_link, parse_json
from ..recipes import Recipe, recipe_from_config
from . import checkpoint, settings, storage
from .stopping import SEARCH

__all__ = ["begun", "codec_of", "reached", "recipe_in", "recipe_of", "stored"]


def begun(folder: Path) -> Path | None:
    """The folder of the newest of a run's checkpoints: its own, or that of its search for a number of steps."""
    return next((one for one in (folder, folder / SEARCH) if checkpoint.saved(one / "checkpoints")), None)


def stored(folder: Path) -> dict[str, Any]:
    """Training options of the run in a folder, as arguments of `fit`; {} if it stores none, or has no checkpoint."""
    found = _newest(folder)
    return {} if found is None else _how(*found)


def reached(folder: Path) -> int:
    """The step of a run's newest readable checkpoint; 0 if there is none."""
    found = _newest(folder)
    return 0 if found is None else int(found[0].name.removeprefix("step-"))


def recipe_of(folder: Path) -> Recipe:
    """The recipe of the run in a folder; nothing that it names is opened."""
    found = _newest(folder)
    if found is None:
        raise InputError(f"{folder} holds no checkpoint yet.")
    return recipe_in(*found)[0]


def recipe_in(where: Path, files: Mapping[str, bytes]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the training options, {} if there are none, in the files of a checkpoint or an export."""
    config = parse_json(files["config.json"], where / "config.json")
    try:
        recipe = recipe_from_config(config.get("recipe") if isinstance(config, dict) else None)
    except InputError as error:
        raise InputError(f"{where / 'config.json'}: {error}") from error
    return recipe, _how(where, files)


def _how(where: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    if settings.FILE not in files:
        return {}
    return settings.how(parse_json(files[settings.FILE], where / settings.FILE), str(where))


def codec_of(folder: Path) -> Codec | None:
    """The codec of the run in a folder; None if it has none."""
    found = _newest(folder)
    return None if found is None else storage.codec_in(found[1], str(found[0]))


def _newest(folder: Path) -> tuple[Path, dict[str, bytes]] | None:
    no_link(folder / "checkpoints")
    return checkpoint.newest_valid(folder / "checkpoints", lambda text: None)
