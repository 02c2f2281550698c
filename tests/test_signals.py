"""Signals: none is lost, none is answered twice, and what stops a command passes for no failure."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from ebbtide.signals import STOPPING, Interrupted, handled, noted, stop
from interrupting import at_every_line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_stopped_a_command(number, code):
    one = Interrupted(number, "; saved.")
    assert (str(one), one.exit_code) == (f"Stopped by {number.name}; saved.", code)
    assert not isinstance(one, Exception)
    again = pickle.loads(pickle.dumps(one))  # it crosses from workers
    assert (type(again), str(again), again.exit_code) == (Interrupted, str(one), code)
    assert str(Interrupted.by(one, ".")) == f"Stopped by {number.name}."
    assert str(Interrupted.by(KeyboardInterrupt(), ".")) == "Stopped by SIGINT."


def test_a_noted_signal_is_raised_at_the_end_unless_another_error_is():
    def note():
        with noted() as received:
            received.copy()

    answers = list(at_every_line({note, noted}, note))
    assert len(answers) > 6
    assert all(isinstance(answer, Interrupted) for answer in answers)
    with handled(stop), pytest.raises(ZeroDivisionError), noted() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        1 / 0  # noqa: B018


def test_handlers_are_given_back_and_what_is_ignored_stays_ignored():
    before = [signal.getsignal(number) for number in STOPPING]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(stop):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch):
    """A program around Python has its own, which Python can't give back."""
    asked, given = signal.getsignal, []
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else asked(number))
    monkeypatch.setattr(signal, "signal", lambda number, handler: given.append(number) or asked(number))
    with handled(stop):
        assert signal.SIGINT in given
    assert signal.SIGTERM not in given


TWICE = """
import os, signal
from ebbtide.signals import noted
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with noted() as received:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)  # the shell sends one, and then the system
    print(len(received), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still there")
"""


def test_a_second_signal_ends_the_process_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "1\n")
