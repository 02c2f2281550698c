"""Jobs in separate processes. The parent alone hears of signals; a worker stops when the parent lets go of it.

That is when the pipe between them is closed, which the system does even for a parent that is killed. Little is imported
here, since a worker has to notice it before it has loaded what it works with.
"""

import _thread
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import EbbtideError
from ..signals import STOPPING, noted, stop

__all__ = ["GRACE", "cores", "follow_launcher", "held_back", "in_processes"]

GRACE = 30  # seconds to save in, for a process whose parent is gone


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(function: Callable[..., Any], jobs: list[tuple[Any, ...]], most: int = 0) -> list[Any]:
    """function(*job) for each job in a separate process. Whatever stops one stops the others, which save first.

    most: processes at a time; 0 for all at once. Raises the first error of a job, and Interrupted if a signal came
    before this returns.
    """
    context = multiprocessing.get_context("spawn")
    work = [pickle.dumps((function, job)) for job in jobs]
    workers: dict[Any, BaseProcess] = {}  # by our end of the pipe to each
    results: dict[Any, Any] = {}
    with noted() as received:
        try:
            while len(results) < len(work) and not received:
                with held_back():
                    for part in work[len(workers) : len(results) + (most or len(work))]:
                        ours, its = context.Pipe()
                        process = context.Process(target=_work, args=(its, part))
                        process.start()
                        workers[ours] = process
                        its.close()
                for end in wait(workers.keys() - results.keys(), 0.1):  # a signal alone doesn't end it
                    results[end] = _result(end, workers[end])
        finally:
            for end in workers:
                end.close()
            for worker in workers.values():
                worker.join()
    return [results[end] for end in workers]


def _result(end: Any, worker: BaseProcess) -> Any:
    try:
        result, error = pickle.loads(end.recv_bytes())
    except (EOFError, ConnectionResetError):
        worker.join()
        raise EbbtideError(f"A worker process died, with exit code {worker.exitcode}; was memory short?") from None
    if error is not None:
        raise error
    return result


@contextmanager
def held_back() -> Iterator[None]:
    """Processes begun in here never hear of STOPPING signals, however early; this one does at the end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # beginning a process does, and ends what follows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(end: Connection, work: bytes) -> None:
    """A worker's life: load the job, do it, answer (result, error)."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)  # which only _listen raises
    try:
        threading.Thread(target=_listen, args=(end,), daemon=True).start()
        function, job = pickle.loads(work)
        answer = pickle.dumps((function(*job), None))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        error.add_note(traceback.format_exc())  # pickle leaves the traceback out
        answer = pickle.dumps((None, error))
    with suppress(OSError):  # nobody listens any more
        end.send_bytes(answer)


def _listen(end: Connection) -> None:
    """Stop the job when the parent closes its end of the pipe, or is gone; then not even a stuck job stays for long."""
    with suppress(EOFError, OSError):
        end.recv_bytes()
    _thread.interrupt_main(signal.SIGTERM)
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    _leave()


@cache  # once a process, whose second SIGTERM would end what the first one saves
def follow_launcher() -> None:
    """Stop this process, as SIGTERM does, when torchrun is gone without having stopped it."""
    launcher = os.getppid()

    def follow() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        _leave()

    if "TORCHELASTIC_RUN_ID" in os.environ:  # which torchrun sets; a shell may well end before what it began
        threading.Thread(target=follow, daemon=True).start()


def _leave() -> None:
    """End a process that had time to end by itself."""
    time.sleep(GRACE)
    os._exit(1)
