"""A run in a file: the options of `ebbtide train` as TOML, read and written."""

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, meant
from ..files import near
from ..recipes import RECIPES, Recipe
from ..specs import is_own
from .arguments import flag_only, is_switch, options, takes_several

if TYPE_CHECKING:
    from .train import Train

__all__ = ["as_text", "found", "named", "nearest", "read", "words_of"]

LONGEST = 100_000  # bytes of a file of options
RECIPE = "recipe"  # the key that names the row of RECIPES
APART = ("resume", "restartable", "overwrite", "config", "from", "print-config")  # options of a command, not of a run


def read(file: str) -> dict[str, Any]:
    """The keys of a TOML file and their values; InputError where it isn't one, or has a table in it."""
    if not file:
        raise InputError("--config must name a file.")
    try:
        with open(file, "rb") as opened:  # perhaps a pipe, or a device without an end
            text = opened.read(LONGEST + 1)
    except OSError as error:
        guess = near(Path(file)) if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"Can't use {file}: {error.strerror}{guess}.") from error
    if len(text) > LONGEST:
        raise InputError(f"{file} holds more than {LONGEST:,} bytes, so it is no file of options.")
    try:
        lines = tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of TOML, or of UTF-8
        raise InputError(f"{file} is not a TOML file: {' '.join(str(error).split())}.") from error
    for key, value in lines.items():
        if isinstance(value, dict):
            raise InputError(f"{file} must have its options at the top, without tables; got [{key}].")
    return lines


def words_of(file: str, lines: Mapping[str, Any], train: "Train") -> list[str]:
    """The lines that `read` returned, as words of the command: a key is the name of an option.

    file: its name in errors. train: the command's arguments, whose options the keys may name.
    """
    known = options(train)
    names = {name.replace("-", "_"): name for name in known if name not in APART}
    line = []
    for key, value in lines.items():
        if key == RECIPE:
            continue
        name = names.get(key.replace("-", "_"))
        if name is None:
            if key.replace("_", "-") in APART:
                raise InputError(f"{file}: {key} is for the command line; a file describes the run.")
            raise InputError(f"{file} has no option {key!r} to set{meant(key, [RECIPE, *names])}.")
        line += _words(file, name, value, known[name])
    return line


def _words(file: str, name: str, value: Any, field: Field[Any]) -> list[str]:
    """One line of the file as words: --flip, --no-flip, --lr=0.1, --track tensorboard wandb."""
    if is_switch(field):
        if not isinstance(value, bool):
            raise InputError(f"{file}: {name} must be true or false; got {value!r}.")
        return [f"--{name}"] if value else [] if flag_only(field) else [f"--no-{name}"]
    if takes_several(field):  # words that can't be options, such as --overwrite
        if isinstance(value, list) and all(isinstance(one, str) and re.fullmatch(r"\w+", one) for one in value):
            return [f"--{name}", *value] if value else []
        raise InputError(f"{file}: {name} must be a list of names; got {value!r}.")
    if isinstance(value, str | int | float) and "\0" not in str(value):
        return [f"--{name}={value}"]
    raise InputError(f"{file}: {name} must be a text, a number, true or false; got {value!r}.")


@contextmanager
def named(file: str) -> Iterator[None]:
    """Let an InputError begin with the file that it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def found(file: str, recipe: Recipe) -> None:
    """Refuse a name that lies beside the file, but not in the working directory, where its paths begin."""
    for field, name in recipe.outside().items():
        beside = Path(file).parent / name
        if not os.path.exists(name) and os.path.exists(beside):
            raise InputError(
                f"{file}: {field} {name!r} isn't in the working directory, where the paths of a file begin; give "
                f"--{field} {shlex.quote(str(beside))}."
            )


def as_text(train: "Train") -> str:
    """The file that makes the same run as `train`: every field of the recipe and every option of training."""
    name = nearest(train.recipe)
    specs = {field: str(getattr(train.recipe, field)) for field in train.recipe.rows}
    own = [f" --{field} {shlex.quote(spec)}" for field, spec in specs.items() if is_own(spec)]
    lines = [f"# ebbtide train --config FILE{''.join(own)}", f"{RECIPE} = {_toml(name)}"]
    lines += [f"out = {_toml(train.out)}"] if train.out else []
    for title, part in (("the recipe", train.recipe), ("training", train.running)):
        lines += ["", f"# {title}"]
        keys = {one.name: option.replace("-", "_") for option, one in options(part).items()}
        lines += [f"{keys[one.name]} = {_toml(getattr(part, one.name))}" for one in fields(part)]
    return "\n".join(lines) + "\n"


def nearest(recipe: Recipe) -> str:
    """The row of RECIPES that has the most fields in common with a recipe."""
    rows = {name: row() for name, row in RECIPES.items() if type(row()) is type(recipe)}
    return max(rows, key=lambda name: len(vars(rows[name]).items() & vars(recipe).items()))


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
