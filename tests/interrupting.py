"""A signal at every line of some code, one line after the other; and waiting for processes to end."""

import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from ebbtide.signals import handled, stop


def at_every_line(functions: set[Callable], act: Callable[[], Any], number: int = signal.SIGTERM) -> Iterator[Any]:
    """What `act` returned, or the Interrupted it raised, with the signal at the first line, the second, … up to the
    last of `functions`: of what they are below their decorators.

    It falls only while the signal is handled; outside of what notes it, it is raised, as in every command.
    """
    codes = {inspect.unwrap(function).__code__ for function in functions}
    place, reached = 0, True
    while reached:
        outcome, reached = _once(codes, act, number, place)
        if reached:
            yield outcome
        place += 1


def _once(codes: set[CodeType], act: Callable[[], Any], number: int, place: int) -> tuple[Any, bool]:
    seen = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code not in codes:
            return None
        if event == "line":
            seen += 1
            if seen == place + 1:
                os.kill(os.getpid(), number)
        return trace

    outer, outcome = sys.gettrace(), None
    try:
        with handled(stop):
            sys.settrace(trace)
            try:
                outcome = act()
            finally:
                sys.settrace(outer)
    except KeyboardInterrupt as stopped:
        outcome = stopped
    return outcome, seen > place


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")
