"""What can go wrong, and the exit code the command gives it. The text is one sentence for the user."""

from collections.abc import Iterable


def printable(what: object) -> str:
    """Text for a terminal: what can't be printed, such as an escape sequence in a file's name, is written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(what))


def listed(names: Iterable[str], most: int = 12) -> str:
    """The first names, quoted, and how many more there are; "none" for none."""
    shown = [repr(name) for name in names]
    return (", ".join(shown[:most]) or "none") + (f" and {len(shown) - most} more" if shown[most:] else "")


class EbbflowError(Exception):
    """Base of every error ebbflow raises on purpose; the command prints it as one line on stderr."""

    exit_code = 1


class InputError(EbbflowError, ValueError):
    """An argument, file, config or checkpoint that can't be used: names it, its value, the accepted range."""

    exit_code = 2


class DivergedError(EbbflowError, ArithmeticError):
    """A loss or gradient stopped being finite; it never reached the weights, the EMA or the disk."""

    exit_code = 3


class StorageError(EbbflowError, OSError):
    """The disk refused to write (full, read-only); what was stored before is intact."""

    exit_code = 4


class CertificationError(EbbflowError):
    """A sampler does not keep what it promises."""

    exit_code = 5
