"""What the commands share: parsing with tyro, and its errors as one sentence."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import tyro

from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Fill a dataclass from the command line; what tyro prints in a box becomes one sentence."""
    box = io.StringIO()
    prog = f"ebbflow {prog}"
    try:
        with contextlib.redirect_stderr(box):
            if default is None:
                return tyro.cli(kind, args=list(argv), prog=prog)
            return tyro.cli(kind, args=list(argv), prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_sentence(box.getvalue())}; see {prog} --help.") from None


def _sentence(box: str) -> str:
    """The message in tyro's box: the lines between its title and the first rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│╭╮╰╯ ") for line in plain.splitlines()]
    message = []
    for line in lines[1:]:
        if set(line) <= {"─"}:
            break
        message.append(line)
    return " ".join(" ".join(message).split()).rstrip(".:;") or "The arguments can't be used"


def at_least(arguments: object, **bounds: int) -> None:
    """Refuse an argument below its bound: at_least(self, n=1, seed=0)."""
    for name, low in bounds.items():
        value = getattr(arguments, name)
        if value < low:
            raise InputError(f"{name.replace('_', '-')} must be at least {low}; got {value}.")


def threads(count: int, network: "nn.Module") -> None:
    """Set torch's threads: `count`, or one for a small network, whose second thread buys little and can cost much."""
    import torch

    if count:
        torch.set_num_threads(count)
    elif sum(p.numel() for p in network.parameters()) < 1_000_000:
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # AdamW's moments of dead units decay into denormals, which are slow
