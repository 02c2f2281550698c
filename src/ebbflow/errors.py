"""What can go wrong, and the exit code the command gives it. The text is one sentence for the user."""

import signal
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


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended it. As a KeyboardInterrupt it passes `except Exception`: it is no failure.

    rest: how the sentence goes on after the signal's name, with what was saved and how to continue.
    """

    def __init__(self, number: int = signal.SIGINT, rest: str = ".") -> None:
        super().__init__(number, rest)
        self.number, self.rest = number, rest
        self.exit_code = 128 + number

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.number).name}{self.rest}"

    @classmethod
    def by(cls, stop: KeyboardInterrupt, rest: str = ".") -> "Interrupted":
        """The same stop, with another rest; Python's own KeyboardInterrupt is Ctrl-C's."""
        return cls(getattr(stop, "number", signal.SIGINT), rest)
