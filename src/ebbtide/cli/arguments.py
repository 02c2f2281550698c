"""Code shared by the commands: parsing with tyro, and its errors as one sentence."""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from ..errors import InputError, printable

if TYPE_CHECKING:
    from torch import nn

    from ..training.trained import Trained

T = TypeVar("T")
MOST = 2**63 - 1
_STYLE = (tyro.conf.PositionalMetavarFromFieldName,)
Flag = tyro.conf.FlagCreatePairsOff[bool]  # --overwrite, without a --no-overwrite


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Fill a dataclass from the command line; what tyro prints in a box becomes one sentence."""
    box = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, args=list(argv), prog=f"ebbtide {prog}", config=_STYLE, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_sentence(box.getvalue(), f"see ebbtide {prog} --help.")) from None


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
class Weights:
    """Base weights of a run's network: opened because the user names them, here or when training."""

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
    """A run with the data that the user named for it; InputError if it was trained on other data."""
    from ..kinds.runs import from_pretrained

    trained = from_pretrained(run, **{field: name for field, name in named.items() if name})
    if named.get("data"):
        from ..kinds import kind_of
        from ..training.run import same_data

        if not same_data(trained, kind_of(trained.recipe).prepare(trained.reading())):
            raise InputError(f"{named['data']} is not the data that {run} was trained on.")
    return trained


def tell(*what: object, file: Any = None) -> None:
    """Print a line for people, by default on stderr; unprintable characters, as in a file's name, are escaped."""
    print(printable(" ".join(map(str, what))), file=file or sys.stderr)


# What tyro says, and what we say; {} is the sentence's end: which help to see.
_SAYINGS = [
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 must be a whole number; got \2."),
    (r"Error parsing (\S+): Exceeds the limit .*", r"\1 must be a whole number of fewer than 4300 digits."),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"\1 must be a number; got \2."),
    (r"Error parsing (\S+): Could not parse arguments (.*) into tuple .*", r"\1 must be numbers; got \2."),
    (r"Error parsing \S+: (.*)", r"\1"),  # our own sentence
    (r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)\.?", r"\2 must be one of \3; got \1."),
    (r"Missing value for argument '(.*)'\. Expected 1 values?\.?", r"\1 needs a value; {}"),
    (r"Missing value for argument '(.*)'\. Expected (\d+) values\.?", r"\1 needs \2 values; {}"),
    (r"Missing from .*?: (\S+) (.*?)\.? \(required\)", r"\1 is missing (\2); {}"),
]


def _sentence(box: str, see: str) -> str:
    """The message in tyro's box, which is what stands after the first rule and before the second."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│╭╮╰╯ ") for line in plain.splitlines()]
    is_rule = lambda line: line.startswith("─") or (len(line) > 3 and set(line) == {"-"})
    after = list(dropwhile(is_rule, dropwhile(lambda line: not is_rule(line), lines)))
    message = " ".join(" ".join(takewhile(lambda line: not is_rule(line), after)).split())
    if unknown := re.fullmatch("Unrecognized options: (.*)", message):
        items = unknown[1].split(", ")
        item = next((item for item in items if item.startswith("-")), items[0])
        if not item.startswith("-"):
            return f"There is no place for {item!r}; {see}"
        close = difflib.get_close_matches(item, re.findall(r"--[a-z-]+", " ".join(after)[len(message) :]), n=1)
        return f"There is no option {item}{f' (did you mean {close[0]}?)' if close else ''}; {see}"
    for theirs, ours in _SAYINGS:
        if found := re.fullmatch(theirs, message):
            return found.expand(ours).replace("{}", see)
    return f"{message.rstrip('.:;') or 'The arguments are not understood'}; {see}"


def within(arguments: object, **bounds: tuple[int, int]) -> None:
    """Refuse an argument out of its bounds: within(self, n=(1, MOST), seed=(0, MOST))."""
    for name, (low, high) in bounds.items():
        value = getattr(arguments, name)
        if not low <= value <= high:
            most = "" if high == MOST and value < low else f" and at most {high}"
            raise InputError(f"--{name.replace('_', '-')} must be at least {low}{most}; got {value}.")


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
