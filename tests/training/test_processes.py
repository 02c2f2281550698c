"""Jobs in processes: their answers, and what ends them."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from multiprocessing.process import BaseProcess
from operator import truediv
from types import SimpleNamespace

import pytest

from ebbtide.errors import EbbtideError
from ebbtide.signals import Interrupted
from ebbtide.training import processes
from ebbtide.training.processes import in_processes, pool
from interrupting import alive, at_every_line, wait_until


def test_answers_come_in_the_order_of_the_jobs():
    assert in_processes(truediv, [(6, 2), (1, 4)]) == [3, 0.25]


def test_no_more_processes_than_asked_for_at_a_time():
    begun = in_processes(time_of, [(k,) for k in range(3)], 1)
    assert [k for k, *_ in begun] == [0, 1, 2]
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(begun))


def time_of(k):
    start = time.time()
    time.sleep(0.05)
    return k, start, time.time()


def test_a_pool_takes_job_after_job_in_the_same_processes():
    """Each imports what it is asked to before them, has one thread, and a place of its own."""
    ticks = []
    with pool(2, "wave", "no_such_module") as answers:
        first = answers(place_of, [(k,) for k in range(4)], lambda: ticks.append(1))
        again = answers(place_of, [(k,) for k in range(2)])
    assert [k for k, *_ in first] == [0, 1, 2, 3]
    assert len(ticks) == 4
    places = {(number, process) for _, number, process, _, _ in first}
    assert {number for number, _ in places} == {0, 1}
    assert len(places) == 2
    assert {(number, process) for _, number, process, _, _ in again} == places
    assert {known for *_, known, _ in first} == {True}
    assert {threads for *_, threads in first} == {os.environ.get("OMP_NUM_THREADS", "1")}


def place_of(k):
    time.sleep(0.2)
    return k, processes.slot(), os.getpid(), "wave" in sys.modules, os.environ["OMP_NUM_THREADS"]


def test_a_worker_without_a_job_is_not_waited_for(tmp_path, monkeypatch):
    """Even where it is still importing."""
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(120)\n")
    monkeypatch.syspath_prepend(tmp_path)
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), pool(2, "slow_to_import"):
        truediv(1, 0)
    assert time.monotonic() - start < 60


def test_a_worker_that_had_a_job_closes_what_it_has():
    """A lock that it doesn't release, as a progress bar's, is a warning on the terminal."""
    script = """
import multiprocessing
from ebbtide.training.processes import pool
if __name__ == "__main__":
    with pool(2) as answers:
        answers(exec, [("import multiprocessing; multiprocessing.kept = multiprocessing.RLock()",)] * 2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pool_without_processes_is_this_one():
    ticks = []
    with pool(0) as answers:
        assert answers(os.getpid, [(), ()], lambda: ticks.append(1)) == [os.getpid()] * 2
    assert len(ticks) == 2
    assert processes.slot() == 0


@pytest.mark.parametrize(
    ("workers", "jobs", "cores", "count"), [(2, 3, 2, 2), (4, 3, 2, 3), (2, 1, 2, 0), (2, 2, 1, 0)]
)
def test_processes_begin_only_where_they_are_worth_it(monkeypatch, workers, jobs, cores, count):
    monkeypatch.setattr(processes, "cores", lambda: cores)
    assert processes.worthwhile(workers, jobs) == count


def test_a_pool_whose_job_failed_answers_no_more_but_ends():
    with pytest.raises(ZeroDivisionError), pool(2) as answers:
        answers(truediv, [(1, 0), (1, 1)])


class UnpicklableError(Exception):
    """An error that can't be made again from what it holds."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


def unpicklable():
    raise UnpicklableError("not", "made")


def test_an_error_that_cannot_be_sent_comes_as_its_text():
    with pytest.raises(RuntimeError, match=r"^UnpicklableError: not made") as raised:
        in_processes(unpicklable, [(), ()])
    assert "function(*job)" in raised.value.__notes__[0]


def test_an_error_is_the_jobs_own_with_its_traceback():
    with pytest.raises(ZeroDivisionError) as raised:
        in_processes(truediv, [(1, 0), (1, 1)])
    assert "function(*job)" in raised.value.__notes__[0]


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(EbbtideError, match="A worker process died, with exit code 7"):
        in_processes(os._exit, [(7,)])


def test_a_signal_at_any_line_reaches_every_worker_and_is_raised(monkeypatch):
    """From before the first has begun until after the last has answered. The workers here only seem to be processes."""
    ends, begun = [], []

    def pipe():
        ends.append(multiprocessing.Pipe())
        return ends[-1]

    class Worker(BaseProcess):
        def __init__(self, target, args):
            self.own, self.joined = ends[-1], False

        def start(self):
            begun.append(self)
            self.own[1].send_bytes(pickle.dumps((7, None)))

        def kill(self):
            assert not self.joined

        def join(self):
            assert self.own[0].closed  # let go of
            self.joined = True

    context = SimpleNamespace(Pipe=pipe, Process=Worker)
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda name: context)
    functions = {in_processes, processes.pool, processes._answers, processes.held_back, processes._result,
                 Worker.start, Worker.join}  # fmt: skip
    count = 0
    for answer in at_every_line(functions, lambda: in_processes(truediv, [(1, 1), (1, 1)])):
        assert isinstance(answer, Interrupted), count
        assert all(worker.joined for worker in begun), count
        count += 1
    assert count > 40
    assert in_processes(truediv, [(1, 1)]) == [7]


# --- real processes, which are ended ----------------------------------------------------------------------------------

WORK = """
import os, time
open(f"{folder}/{os.getpid()}", "w").close()
try:
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    time.sleep(0.5)  # what saving takes
    open(f"{folder}/{os.getpid()}.saved", "w").close()
    raise
"""
SCRIPT = """
import signal, sys
from ebbtide.signals import Interrupted, handled, stop
from ebbtide.training.processes import in_processes

class Loaded:
    def __reduce__(self):
        return exec, (code,)

folder, kind = sys.argv[1:]
code = f"folder = {folder!r}\\n" + sys.stdin.read()
if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has ignored
    try:
        with handled(stop):
            in_processes(exec, [(code,)] * 2) if kind == "work" else in_processes(print, [(Loaded(),)] * 2)
    except Interrupted as stopped:
        print(stopped)
"""


@pytest.fixture
def begin(tmp_path):
    """Start a parent of two workers, and wait until they are at work; → process, their ids."""
    begun = []

    def start(kind="work", work=WORK):
        words = [sys.executable, "-c", SCRIPT, str(tmp_path), kind]
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True))
        begun[-1].stdin.write(work)
        begun[-1].stdin.close()
        begun[-1].stdin = None
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        return begun[-1], [int(path.name) for path in tmp_path.iterdir()]

    yield start
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("kind", ["work", "load"])
def test_workers_end_with_a_parent_that_is_killed(begin, tmp_path, kind):
    """Whether they are at work or still loading what they work with; and they save."""
    process, workers = begin(kind)
    process.kill()
    wait_until(lambda: not any(map(alive, workers)), 15)
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert process.communicate() == ("", "")


def test_even_a_worker_that_is_stuck_ends_with_its_parent(begin):
    """One that sleeps for ten minutes hears of nothing."""
    stuck = "import ebbtide.training.processes as p\np.GRACE = 0.5\n" + WORK.replace("0.01", "600")
    process, workers = begin(work=stuck)
    process.kill()
    wait_until(lambda: not any(map(alive, workers)), 15)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("everyone", [True, False])
def test_a_signal_to_one_or_to_the_whole_group_is_heard_once(begin, tmp_path, number, everyone):
    """A terminal sends Ctrl-C to every process, a batch system SIGTERM: twice would end what is being saved."""
    process, workers = begin()
    (os.killpg if everyone else os.kill)(process.pid, number)
    assert process.communicate(timeout=60) == (f"Stopped by {number.name}.\n", "")
    assert process.returncode == 0
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert not any(map(alive, workers))
