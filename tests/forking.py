"""Commands and jobs in processes of their own, without the seconds that each would take to import torch."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ebbtide.training import processes

FORKS = """
import contextlib, importlib, io, json, os, sys, time
from ebbtide.cli import main
for place, words, first, *changed in json.loads(sys.argv[1]):
    for name in first:
        __import__(name)
    begun = time.process_time()
    if not os.fork():
        os.chdir(place)
        for name, value in changed[0].items() if changed else ():
            module, _, constant = name.rpartition(".")
            setattr(importlib.import_module(module), constant, value)
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            code = main(words)
        seconds = begun + time.process_time()
        print(json.dumps([code, said.getvalue(), seconds, list(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""


class Answer(NamedTuple):
    """What became of a command: what it printed, the CPU seconds since its start, and the modules it has."""

    code: int
    said: str
    seconds: float
    modules: list[str]


def forked(commands: Sequence[tuple]) -> list[Answer]:
    """An answer for each (folder, words, modules), of a process forked from one that has imported only those modules,
    and those of the commands before it; and for each (folder, words, modules, {"module.NAME": value}) with such values.
    """
    words = [sys.executable, "-c", FORKS, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    answers = [Answer(*json.loads(line)) for line in done.stdout.splitlines()]
    assert (done.returncode, len(answers)) == (0, len(commands)), done.stderr[-500:]
    return answers


def forking(patch, *forgotten: str) -> None:
    """Fork the processes of `in_processes` from this one until `patch` is undone; they lack the modules `forgotten`.

    As in spawned ones, jobs and answers pass through pipes; tests/training/test_processes.py has spawned ones.
    """
    context = multiprocessing.get_context("fork")

    class Forked(context.Process):
        def run(self) -> None:
            for name in forgotten:
                sys.modules.pop(name, None)
            super().run()

    class Context:
        Pipe, Process = context.Pipe, Forked

    patch.setattr(processes.multiprocessing, "get_context", lambda name: Context)
