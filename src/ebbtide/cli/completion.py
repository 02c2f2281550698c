"""ebbtide completion bash|zsh: a script that completes commands, options and the names of tables in a shell."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro

from ..cache import unchanged
from ..recipes import RECIPES
from . import COMMANDS
from .arguments import flag_only, is_switch, options, parse

__all__ = ["Completion", "candidates", "options_of", "run"]

# The tables whose names an option or an argument takes.
TABLES = {
    "path": "paths", "target": "targets", "times": "times", "weight": "weights", "coupling": "couplings",
    "loss": "losses", "method": "losses", "spans": "spans", "network": "networks", "sampler": "samplers",
    "grid": "grids", "codec": "codecs", "simulator": "simulators", "data": "data", "source": "data",
    "samplers": "samplers", "task": "demonstrations", "recipe": "recipes", "methods": "recipes",
}  # fmt: skip
DEVICES = ("auto", "cpu", "cuda", "mps")
BASH = """_ebbtide() {
    local IFS=$'\\n'
    COMPREPLY=($(ebbtide completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
}
complete -o default -F _ebbtide ebbtide
"""
ZSH = """#compdef ebbtide
_ebbtide() {
    local -a found
    found=("${(@f)$(ebbtide completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
compdef _ebbtide ebbtide
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


@dataclass(frozen=True)
class Completion:
    """Print the script by which a shell completes this command: eval "$(ebbtide completion bash)"."""

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """bash or zsh."""


def run(argv: Sequence[str]) -> None:
    """Print a script, or the candidates for the last of the words after `words --`, which the scripts call."""
    if argv[:2] == ["words", "--"]:  # words that look like options are no options of this command
        print("\n".join(candidates(argv[2:])))
        return
    print(SCRIPTS[parse(Completion, argv, "completion").shell], end="")


def candidates(words: Sequence[str]) -> list[str]:
    """The words that may stand in place of the last one, which is typed in part; none where a file's name may be."""
    *before, word = words or ("",)
    if not before:
        return _from(COMMANDS, word)
    command, *typed = before
    known = options_of(command, typed[0] if typed else "") if command in COMMANDS else {}
    option, equals, value = word.partition("=")
    if word.startswith("--") and equals:
        return [f"{option}={name}" for name in _values(known.get(option), value)]
    if word.startswith("-"):
        forms = [form for name, field in known.items() for form in (name, *_negated(name, field))]
        return _from([*forms, "--help"], word)
    if typed and typed[-1] in known and not is_switch(known[typed[-1]]):
        return _values(known[typed[-1]], word)
    return _from(_arguments(command, typed), word)


def options_of(command: str, first: str = "") -> dict[str, Field[Any]]:
    """The options of a command, --… → its field; first: the recipe of train, or path or data of show."""
    module = importlib.import_module(f".{COMMANDS[command][0]}", __package__)
    if command == "train":
        found = options(module.Train(RECIPES[first if first in RECIPES else "flow"]()))
    elif command == "compare":
        found = options(module.Compare(module.SUBJECTS["points"][1]))
    elif command == "show":
        found = options(module.ShowPath if first == "path" else module.ShowData)
    else:
        found = options(getattr(module, command.title()))
    return {f"--{name}": field for name, field in found.items()}


def _values(field: Field[Any] | None, word: str) -> list[str]:
    """The values of an option: its choices, or the rows of its table."""
    if field is None:
        return []
    kind = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
    if get_origin(kind) is Literal:
        return _from(get_args(kind), word)
    if field.name == "device":
        return _from(DEVICES, word)
    return _from(_rows(TABLES.get(field.name, "")), word)


def _arguments(command: str, typed: Sequence[str]) -> list[str]:
    """The names that a command takes in place of its first argument."""
    first = not [word for word in typed if not word.startswith("-")]
    own: Mapping[str, Sequence[str]] = {
        "show": ("path", "data"), "list": ("all", *_tables()), "completion": tuple(SCRIPTS),
        "train": tuple(RECIPES), "cite": tuple(RECIPES), "demos": _rows("demonstrations"),
    }  # fmt: skip
    if command == "show" and list(typed[:1]) == ["data"] and len(typed) == 1:
        return _rows("data")
    if command == "certify":
        return _rows("samplers")
    return list(own.get(command, ())) if first else []


def _negated(name: str, field: Field[Any]) -> list[str]:
    return [f"--no-{name[2:]}"] if is_switch(field) and not flag_only(field) else []


def _tables() -> dict[str, dict[str, list[str]]]:
    from .listing import tables

    found: dict[str, dict[str, list[str]]] = unchanged("tables", tables)
    return found


def _rows(table: str) -> list[str]:
    return list(_tables().get(table, ()))


def _from(names: Any, word: str) -> list[str]:
    return [name for name in names if name.startswith(word)]
