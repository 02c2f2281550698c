"""Errors, and their exit codes in the command. The text is one sentence for the user."""

import difflib
from collections.abc import Callable, Iterable

__all__ = ["CertificationError", "DivergedError", "EbbtideError", "InputError", "StorageError", "meant", "printable"]


def meant(name: str, names: Iterable[str], shown: Callable[[str], str] = repr) -> str:
    """The nearest name as it is shown, in " (did you mean …?)"; "" where none is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {shown(close[0])}?)" if close else ""


def printable(what: object) -> str:
    """Text for a terminal: what can't be printed, such as an escape sequence in a file's name, is written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(what))


class EbbtideError(Exception):
    """Base of every error ebbtide raises on purpose; the command prints it as one line on stderr."""

    exit_code = 1


class InputError(EbbtideError, ValueError):
    """An argument, file, config or checkpoint that can't be used: names it, its value, the accepted range."""

    exit_code = 2


class DivergedError(EbbtideError, ArithmeticError):
    """A loss or gradient stopped being finite; it never reached the weights, the EMA or the disk."""

    exit_code = 3


class StorageError(EbbtideError, OSError):
    """The disk refused to write (full, read-only); what was stored before is intact."""

    exit_code = 4


class CertificationError(EbbtideError):
    """A sampler does not keep what it promises."""

    exit_code = 5
