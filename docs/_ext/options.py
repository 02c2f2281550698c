"""The options of `ebbtide train` as tables, from the dataclasses that the command fills.

A block `{options}` stands for every option with its default and effect, the settings of every recipe, and the names
that other libraries' users type.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from typing import Any, get_args

from ebbtide.cli.arguments import SYNONYMS, flag_only, is_switch, options
from ebbtide.cli.train import Running, Train
from ebbtide.recipes import RECIPE_TYPES, RECIPES, Recipe

BLOCK = "```{options}\n```"
HEADS = {"points": "Points and tables", "images": "Images", "robots": "Robots"}


def effects(kind: type) -> dict[str, str]:
    """Field → its docstring in the source of a dataclass, without those that it inherits."""
    found, last = {}, ""
    for node in ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            found[last] = " ".join(str(node.value.value).split())
            last = ""
    return found


def rows(kind: type) -> Iterator[tuple[str, str, str]]:
    """(option, default, effect) of a dataclass: of the fields that its own source describes."""
    about = effects(kind)
    for option, field in options(kind).items():
        if field.name in about:
            yield _forms(option, field), _default(field), about[field.name]


def settings(recipe: Recipe) -> dict[str, Any]:
    """The fields in which a recipe differs from the defaults of its kind."""
    return {
        one.name: value
        for one in fields(recipe)
        if (value := getattr(recipe, one.name)) != getattr(type(recipe), one.name)
    }


def page() -> str:
    """The whole page's tables."""
    heads = ("option", "default", "effect")
    lines = ["## The run", "", *_table(heads, [*rows(Train), *rows(Running)])]
    lines += ["## All recipes", "", *_table(heads, rows(Recipe))]
    for kind, row in RECIPE_TYPES.items():
        lines += [
            f"## {HEADS[kind]}",
            "",
            "These come besides those of all recipes; an option in both tables is this one.",
            "",
        ]
        lines += _table(heads, rows(row))
        others = {name: value for name, value in _defaults(row).items() if value != _defaults(Recipe).get(name, value)}
        others = {name: value for name, value in others.items() if name not in effects(row)}
        if others:
            lines += ["Their other defaults:", "", *_changed(others)]
        for name, make in RECIPES.items():
            if type(recipe := make()) is row:
                lines += [f"### {name}", "", " ".join((inspect.getdoc(make) or "").split("\n\n")[0].split()), ""]
                lines += _changed(changed) if (changed := settings(recipe)) else ["All defaults.", ""]
    lines += ["## By another library's name", "", "The command answers these names with the option that is meant:", ""]
    return "\n".join([*lines, *_table(("typed", "here"), _synonyms())])


def _synonyms() -> Iterator[tuple[str, str]]:
    """(names that users of other libraries type, option that is meant) of `train`."""
    known = {option for recipe in RECIPES.values() for option in options(Train(recipe()))}
    seen: set[str] = set()
    for ours, names in SYNONYMS.items():
        option, _, remark = ours.partition(",")
        if option in known and (typed := [name for name in names if name not in seen]):
            note = f" ({remark.strip(' ,')})" if remark else ""
            yield ", ".join(f"`--{name}`" for name in typed), f"`--{option}`{note}"
            seen |= {*names}


def _changed(values: Mapping[str, Any]) -> list[str]:
    """Fields with other defaults, as a table."""
    return _table(
        ("option", "its default"), [(f"`--{name.replace('_', '-')}`", _value(own)) for name, own in values.items()]
    )


def _defaults(kind: type) -> dict[str, Any]:
    return {one.name: one.default for one in fields(kind)}


def _forms(option: str, field: "Field[Any]") -> str:
    """An option as it is typed: a switch also with --no-."""
    return f"`--{option}`, `--no-{option}`" if is_switch(field) and not flag_only(field) else f"`--{option}`"


def _default(field: "Field[Any]") -> str:
    """A field's default, or what stands for it in --help."""
    for mark in get_args(field.type)[1:]:
        if hint := getattr(mark, "help_behavior_hint", None):
            return str(hint).removeprefix("(default: ").removesuffix(")")
    return _value(field.default)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in ("", ()) else f"`{value}`" if isinstance(value, str) else json.dumps(value)


def _table(heads: tuple[str, ...], cells: Any) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    return [*lines, ""]


def _read(app: Any, page_: str, source: list[str]) -> None:
    if BLOCK in source[0]:
        source[0] = source[0].replace(BLOCK, page())


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
