"""Jobs in processes of their own, where Ctrl-C and SIGTERM reach every job once and each saves before it stops."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from .run import STOPPING, Interrupted


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(function: Callable[..., Any], jobs: list[tuple[Any, ...]]) -> list[Any]:
    """function(*job) for each job in a process of its own. Whatever stops one stops the others, which save first."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with _forwarded_signals(before) as (received, start), ProcessPoolExecutor(len(jobs), context, _worker) as pool:
        futures = start(lambda: [pool.submit(_at_work, function, job) for job in jobs])
        try:
            failed = any(future.exception() for future in wait(futures, return_when=FIRST_EXCEPTION).done)
            if failed and not received:  # a second signal would end what the first still saves
                _terminate(before)
            return [future.result() for future in futures]
        except (Interrupted, BrokenProcessPool):
            if not received:
                raise
            raise Interrupted("", received[0]) from None


def _at_work(function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    with _busy:
        return function(*job)


class _Busy:
    """Whether this process is at work. SIGTERM ends the work; a worker without any leaves it to the pool to end."""

    at_work = False

    def __enter__(self) -> None:
        self.at_work = True

    def __exit__(self, *_: object) -> None:
        self.at_work = False


_busy = _Busy()


def _worker() -> None:
    """A worker leaves STOPPING signals to its parent, which passes them on as SIGTERM once, and doesn't outlive it."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _busy.at_work:
            raise Interrupted("", number)

    for number in STOPPING:
        signal.signal(number, stop if number == signal.SIGTERM else signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait_for([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    while _busy.at_work:
        time.sleep(0.05)
    os._exit(1)


def _terminate(before: set[BaseProcess]) -> None:
    """SIGTERM to the processes begun since."""
    for child in set(multiprocessing.active_children()) - before:
        child.terminate()


Start = Callable[[Callable[[], Any]], Any]


@contextmanager
def _forwarded_signals(before: set[BaseProcess]) -> Iterator[tuple[list[int], Start]]:
    """Pass STOPPING signals on to the workers, which save and stop; workers are to be begun by what is yielded.

    A process begins with the signals its parent ignores ignored: so Ctrl-C can't fall into the workers' imports.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _terminate(before)

    def start(make: Callable[[], Any]) -> Any:
        if signal.SIGINT in previous:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return make()
        finally:
            if signal.SIGINT in previous:
                signal.signal(signal.SIGINT, forward)

    with suppress(ValueError):  # not the main thread: signals stay as they are
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, forward)
    try:
        yield received, start
    finally:
        for changed, handler in previous.items():
            signal.signal(changed, handler)
