"""Ctrl-C, `kill` and a closed terminal: raised where they fall, or noted where something is to be saved first."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .errors import Interrupted

# The signals that stop a command, where the system has them: Ctrl-C, `kill`, and a terminal that closes.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Give STOPPING signals a handler, but leave alone what this process ignores, such as SIGHUP under nohup."""

    def once(number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGHUP":  # the shell sends it, and then the system
            signal.signal(number, signal.SIG_IGN)
        handler(number, frame)

    previous: dict[int, Any] = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, once)
    except ValueError:  # not the main thread: signals stay as they are
        pass
    try:
        yield
    finally:
        for changed, former in previous.items():
            signal.signal(changed, former)


def stop(number: int, frame: FrameType | None = None) -> None:
    """Raise Interrupted here and now."""
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
