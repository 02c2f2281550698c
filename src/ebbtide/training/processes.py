"""Jobs in separate processes. The parent alone hears of signals; a worker stops when the parent lets go of it.

That is when the pipe between them is closed, which the system does even for a parent that is killed. Little is imported
here, since a worker has to notice it before it has loaded what it works with.
"""

import _thread
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Protocol, runtime_checkable

from ..errors import EbbtideError
from ..signals import STOPPING, Interrupted, noted, stop
from ..specs import is_own

__all__ = [
    "GRACE", "Answers", "cores", "follow_launcher", "held_back", "in_processes", "pickled_error", "pool", "slot",
    "worthwhile",
]  # fmt: skip

GRACE = 30  # seconds to save in, for a process whose parent is gone
_slot = 0  # of this process in its pool


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@runtime_checkable
class Answers(Protocol):
    """function(*job) for each job, in their order. tick: called after each that is done."""

    def __call__(
        self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], tick: Callable[[], Any] = ..., /
    ) -> list[Any]: ...


def in_processes(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], most: int = 0) -> list[Any]:
    """function(*job) for each job, in separate processes. Whatever stops one stops the others, which save first.

    jobs: the arguments of each call. most: processes at a time; 0 for as many as jobs. Raises the first error of a job,
    and Interrupted if a signal came before this returns.
    """
    with pool(min(most or len(jobs), len(jobs))) as answers:
        return answers(function, jobs)


def worthwhile(workers: int, jobs: int, network: str = "") -> int:
    """The number of processes for this number of jobs, at most `workers`; 0 where this one does as well.

    network: of the jobs; the user's own, a `module:function`, is a row of the table only in this process.
    """
    most = min(workers, jobs)
    return most if most > 1 and cores() > 1 and not is_own(network) else 0


@contextmanager
def pool(count: int, *modules: str) -> Iterator[Answers]:
    """Processes that take one job after the other, to the end of this context, as a function like `in_processes`.

    count: of processes; without any, jobs are done in this one. modules: imported before the first job, which takes
    long. Signals are noted meanwhile, and raised where answers are waited for, and at the end.
    """
    if not count:
        yield _here
        return
    context = multiprocessing.get_context("spawn")
    workers: dict[Any, BaseProcess] = {}  # by our end of the pipe to each
    idle: set[Any] = set()  # of these, those that never had a job
    with noted() as received:
        try:
            with held_back():
                for place in range(count):
                    ours, its = context.Pipe()
                    process = context.Process(target=_work, args=(its, place, modules))
                    process.start()
                    workers[ours] = process
                    idle.add(ours)
                    its.close()
            yield partial(_answers, workers, idle, received)
        finally:
            for end, worker in workers.items():
                if end in idle:  # it has nothing to save or to close, and may still be importing
                    worker.kill()
                with suppress(OSError):
                    end.send_bytes(b"")  # beside the end of the pipe, which a forked process may keep open
                end.close()
            for worker in workers.values():
                worker.join()


def _here(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], tick: Callable[[], Any] = lambda: None
) -> list[Any]:
    found = []
    for job in jobs:
        found.append(function(*job))
        tick()
    return found


def _answers(
    workers: dict[Any, BaseProcess],
    idle: set[Any],
    received: list[int],
    function: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    tick: Callable[[], Any] = lambda: None,
) -> list[Any]:
    """A job to each worker, and the next one to whoever is done."""
    waiting = list(enumerate(pickle.dumps((function, job)) for job in jobs))
    busy: dict[Any, int] = {}
    found: dict[int, Any] = {}
    while len(found) < len(jobs):
        if received:
            raise Interrupted(received[0])
        for end in [end for end in workers if end not in busy][: len(waiting)]:
            busy[end], work = waiting.pop(0)
            idle.discard(end)
            with suppress(OSError):  # of a worker that died, which is what its answer says
                end.send_bytes(work)
        for end in wait(list(busy), 0.1):  # a signal alone doesn't end it
            done = busy.pop(end)
            found[done] = _result(end, workers[end])
            tick()
    return [found[k] for k in range(len(jobs))]


def slot() -> int:
    """This process's place in its pool, from 0; 0 elsewhere."""
    return _slot


def _result(end: Any, worker: BaseProcess) -> Any:
    try:
        result, error = pickle.loads(end.recv_bytes())
    except (EOFError, OSError):
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


def _work(end: Connection, place: int, modules: Sequence[str]) -> None:
    """A worker's life: load a job, do it, answer (result, error), until there are no more."""
    global _slot
    _slot = place
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # beside other workers threads wait for each other
        os.environ.setdefault(name, "1")
    jobs, gone = SimpleQueue[bytes | None](), threading.Event()
    threading.Thread(target=_listen, args=(end, jobs, gone), daemon=True).start()
    for name in modules:
        with suppress(Exception):  # which the job will meet
            importlib.import_module(name)
    while (work := jobs.get()) is not None:
        try:
            signal.signal(signal.SIGTERM, stop)  # which only _listen raises
            if gone.is_set():  # perhaps before that
                return
            function, job = pickle.loads(work)
            answer = pickle.dumps((function(*job), None))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        except BaseException as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            answer = pickled_error(error, traceback.format_exc())  # pickle leaves the traceback out
        with suppress(OSError):  # nobody listens any more
            end.send_bytes(answer)


def pickled_error(error: BaseException, note: str = "") -> bytes:
    """(None, error) for another process, pickled; by its text if it can't be, or can't be made again.

    note: added to it.
    """
    if note:
        error.add_note(note)
    try:
        pickle.loads(data := pickle.dumps((None, error)))
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        if note:
            told.add_note(note)
        return pickle.dumps((None, told))
    return data


def _listen(end: Connection, jobs: "SimpleQueue[bytes | None]", gone: threading.Event) -> None:
    """Hand on jobs, and stop the one at work when the parent closes its end of the pipe, or is gone.

    Then not even a stuck one stays for long.
    """
    with suppress(EOFError, OSError):
        while work := end.recv_bytes():
            jobs.put(work)
    gone.set()
    jobs.put(None)
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
