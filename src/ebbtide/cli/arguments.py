"""Code shared by the commands: parsing with tyro, and its errors as one sentence."""

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from ..errors import InputError, printable
from ..specs import require

if TYPE_CHECKING:
    from torch import nn

    from ..recipes import Recipe
    from ..training.trained import Trained

__all__ = [
    "MOST", "Flag", "Named", "Rows", "Weights", "given", "hint", "number_or_auto", "opened", "parse", "rows_of_run",
    "said", "tell", "threads", "within",
]  # fmt: skip

T = TypeVar("T")
MOST = 2**63 - 1
_STYLE = (tyro.conf.PositionalMetavarFromFieldName,)
Flag = tyro.conf.FlagCreatePairsOff[bool]  # --overwrite, without a --no-overwrite


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Fill a dataclass from the command line; what tyro would print in a box becomes one sentence."""
    try:  # not public yet: a version without it prints its own box and exits with 2
        from tyro._errors import on_parse_error
    except ImportError:
        on_parse_error = nullcontext  # type: ignore[assignment]

    see = f"see ebbtide {prog} --help."

    def refuse(event: Any) -> None:
        raise InputError(_sentence(event, see, _options(kind, default)))

    given: dict[str, Any] = {} if default is None else {"default": default}
    with on_parse_error(refuse):
        return tyro.cli(kind, args=list(argv), prog=f"ebbtide {prog}", config=_STYLE, **given)


def said(argv: Sequence[str], option: str) -> str | None:
    """The value of an option that is needed before the others can be parsed; None if it isn't given."""
    for word, value in zip(argv, [*argv[1:], ""], strict=True):
        if word == option or word.startswith(f"{option}="):
            return value if word == option else word.removeprefix(f"{option}=")
    return None


def hint(text: str) -> Any:
    """The default that --help shows for an argument whose real default is computed later."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True)
class Rows:
    """Functions of the user's own that a run is made of: they run because the user names them again."""

    network: Annotated[str, hint("the run's")] = ""
    """The run's network, if it is a function of your own; as module:function."""
    path: Annotated[str, hint("the run's")] = ""
    """The run's path, if it is a function of your own; as module:function."""
    target: Annotated[str, hint("the run's")] = ""
    """The run's target, if it is a function of your own; as module:function."""


@dataclass(frozen=True)
class Weights(Rows):
    """Base weights of a run's network too: opened because the user names them, here or when training."""

    weights: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The folder or hub repository that the network was built on; needed if trained elsewhere."""
    tokenizer: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The folder or hub repository of its tokenizer; needed in the same cases."""


@dataclass(frozen=True)
class Named(Weights):
    """Base weights and data of a run, opened under the same condition."""

    data: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The data that the run was trained on; needed if it was trained elsewhere, or the data was moved."""
    source: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The second set, from which the run starts; needed in the same cases."""


def opened(run: str | Path, **named: str) -> "Trained":
    """A run with what the user named for it; InputError if it was trained on other data, or made of other rows."""
    from ..kinds.runs import from_pretrained, on_its_data
    from ..training.build import add_own

    rows = {one.name: named.pop(one.name) for one in fields(Rows) if one.name in named}
    add_own(rows)
    trained = from_pretrained(run, **{field: name for field, name in named.items() if name})
    rows_of_run(run, trained.recipe, rows)
    return on_its_data(trained, data, run) if (data := named.get("data")) else trained


def rows_of_run(run: str | Path, recipe: "Recipe", rows: Mapping[str, str]) -> None:
    """Refuse rows, by field of the recipe, that aren't those the run was trained with; "" is no row."""
    from ..training.build import contradicts

    for field, name in rows.items():
        if name and contradicts(field, name, its := getattr(recipe, field)):
            raise InputError(f"{name} is not the {field} that {run} was trained with, which is {its}.")


def tell(*what: object, file: Any = None) -> None:
    """Print a line for people, by default on stderr; unprintable characters, as in a file's name, are escaped."""
    print(printable(" ".join(map(str, what))), file=file or sys.stderr)


def _sentence(event: Any, see: str, options: Sequence[str]) -> str:
    """The sentence for an event that tyro's parser reports."""
    name = event.argument.display_name() if getattr(event, "argument", None) is not None else ""
    match type(event).__name__:
        case "MissingArgs":
            missing = event.missing_arguments[0].arg
            return f"{missing.lowered.metavar or missing.display_name()} is missing ({_help(missing)}); {see}"
        case "BadValue":
            count = event.argument.lowered.nargs
            return f"{name} needs {'a value' if count == 1 else f'{count} values'}; {see}"
        case "InvalidChoice":
            return f"{name} must be one of {', '.join(map(repr, event.choices))}; got {event.value!r}."
        case "UnrecognizedArgs":
            item = next((token for token in event.tokens if token.startswith("-")), event.tokens[0])
            if not item.startswith("-"):
                return f"There is no place for {item!r}; {see}"
            item = item.partition("=")[0]
            close = difflib.get_close_matches(item, options, n=1)
            return f"There is no option {item}{f' (did you mean {close[0]}?)' if close else ''}; {see}"
        case "InstantiationFailure" if not name:
            return str(event.message)  # our own sentence
        case "InstantiationFailure":
            return _unparsed(name, event.message)
    return f"The arguments can't be used; {see}"


def _unparsed(name: str, message: str) -> str:
    """A value that Python could not make a number of."""
    if "Exceeds the limit" in message:
        return f"{name} must be a whole number of fewer than 4300 digits."
    for text, wanted in (("int()", "a whole number"), ("to float", "a number"), ("into tuple", "numbers")):
        if text in message:
            value = re.fullmatch(r".*?(?:: |arguments )(.*?)(?: into tuple.*)?", message)
            return f"{name} must be {wanted}; got {value[1] if value else message}."
    return message


def _options(kind: Any, default: Any) -> list[str]:
    """The options of a dataclass, and of those that are its parts, as they are written."""
    found = []
    for one in fields(kind):
        part = getattr(default, one.name, None if one.default_factory is MISSING else one.default_factory)
        found += _options(part, part) if is_dataclass(part) else [f"--{one.name.replace('_', '-')}"]
    return found


def _help(argument: Any) -> str:
    text = argument.field.helptext
    return " ".join(str(text() if callable(text) else text or "").split()).rstrip(".")


def within(arguments: object, **bounds: tuple[int, int]) -> None:
    """Refuse an argument out of its bounds: within(self, n=(1, MOST), seed=(0, MOST))."""
    for name, (low, high) in bounds.items():
        value = getattr(arguments, name)
        require(f"--{name.replace('_', '-')}", value, low, None if high == MOST and value < low else high, whole=True)


def number_or_auto(steps: str) -> int | str | None:
    """--steps as `Trained.choice` takes it; None where it isn't given."""
    if not steps or steps.startswith("auto"):
        return steps or None
    if not steps.isascii() or not steps.isdigit():
        raise InputError(f"--steps must be a whole number or auto; got {steps!r}.")
    if not 1 <= int(steps[:9]) <= 10**6:
        raise InputError(f"--steps must be at least 1 and at most 1000000; got {steps}.")
    return int(steps)


def given(arguments: object, *names: str) -> list[str]:
    """Options that are not at their default: all of them, unless named."""
    return [
        f"--{one.name.replace('_', '-')}"
        for one in fields(arguments)  # type: ignore[arg-type]
        if (not names or one.name in names) and getattr(arguments, one.name) != one.default
    ]


def threads(count: int, network: "nn.Module") -> None:
    """Set torch's threads: `count`, or one for a small network, which a second thread hardly speeds up."""
    import torch

    if count:
        torch.set_num_threads(count)
    elif sum(p.numel() for p in network.parameters()) < 1_000_000:
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # AdamW's moments of dead units decay into denormals, which are slow
