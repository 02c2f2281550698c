"""Ctrl-C, `kill` and a closed terminal: raised where they fall, or noted where something is to be saved first."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["STOPPING", "Handler", "Interrupted", "handled", "noted", "stop"]

# The signals that stop a command, where the system has them: Ctrl-C, `kill`, and a terminal that closes.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
Handler = Callable[[int, FrameType | None], Any]


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal; exit code 128 + signal. It is no failure, so `except Exception` doesn't catch it.

    rest: how the sentence goes on after the signal's name: what was saved, and how to continue.
    number: the signal's.
    """

    def __init__(self, number: int = signal.SIGINT, rest: str = ".") -> None:
        super().__init__(number, rest)
        self.number, self.rest = number, rest

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.number).name}{self.rest}"

    @property
    def exit_code(self) -> int:
        return 128 + self.number

    @classmethod
    def by(cls, stopped: KeyboardInterrupt, rest: str) -> "Interrupted":
        """The same, said with another rest; Python's own KeyboardInterrupt is Ctrl-C. stopped: what Python raised."""
        return cls(getattr(stopped, "number", signal.SIGINT), rest)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Give STOPPING signals a handler, but leave alone what this process ignores, such as SIGHUP under nohup, and what
    a program around Python handles.
    """

    def once(number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGHUP":  # the shell sends it, and then the system
            signal.signal(number, signal.SIG_IGN)
        handler(number, frame)

    previous: dict[int, Any] = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None couldn't be given back
                previous[number] = signal.signal(number, once)
    except ValueError:  # not the main thread: signals stay as they are
        pass
    try:
        yield
    finally:
        for changed, former in previous.items():
            signal.signal(changed, former)


def stop(number: int, frame: FrameType | None = None) -> None:
    """Raise Interrupted here and now. number, frame: as handlers of signals are given them."""
    raise Interrupted(number)


@contextmanager
def noted() -> Iterator[list[int]]:
    """Collect STOPPING signals, to be looked at when it suits; a second one ends the process as usual.

    One that came after the last look is raised at the end.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(number)

    with handled(note):
        yield received
    if received:
        raise Interrupted(received[0])
