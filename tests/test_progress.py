"""Bars on a terminal, and lines in a log."""

import ast
import io
import sys
from pathlib import Path

import pytest

import ebbtide
from ebbtide import progress
from ebbtide.progress import percent_bar, progress_bar, rate_of


class Stream(io.StringIO):
    """stderr as a terminal, or as a log."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def stderr(monkeypatch):
    """stderr(terminal): what is written there."""

    def be(terminal):
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return be


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds): time passes for bars."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


@pytest.mark.parametrize("terminal", [True, False])
def test_a_rate_is_there_before_the_bar_is_drawn_again(stderr, clock, terminal):
    stderr(terminal)
    with progress_bar(100, "moons", mininterval=1000, initial=10) as bar:
        clock(2)
        bar.update(50)
        assert rate_of(bar) == pytest.approx(25)
    with progress_bar(100, "moons", show=False) as bar:
        bar.update(50)
        assert rate_of(bar) >= 0


def test_a_log_gets_a_line_every_thirty_seconds(stderr, clock):
    """And nothing else: no line at the start or the end, no carriage return, none that a description brings about."""
    log = stderr(False)
    with progress_bar(2800, "moons\x1b", "step", initial=100, position=1, dynamic_ncols=True, mininterval=0.2) as bar:
        for step in range(1000):
            clock(0.1)
            bar.update()
            bar.set_postfix_str(f"loss {step}.000")
            bar.set_description("moons\\x1b")
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "moons\\x1b: step 400 of 2,800 (14 %), loss 298.000, 10 step/s, 4:00 left"
    assert [round(int(line.split("step ")[1].split()[0].replace(",", "")), -1) for line in lines] == [400, 700, 1000]
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_what_is_done_in_half_a_minute_prints_nothing(stderr, clock):
    log = stderr(False)
    with progress_bar(10, "reading", " images", delay=2, leave=False) as bar:
        for _ in range(10):
            clock(2.9)
            bar.update()
    assert list(progress_bar(3, "encoding", "batch", over=[1, 2, 3])) == [1, 2, 3]
    assert log.getvalue() == ""


def test_units_that_are_scaled_or_no_words(stderr, clock):
    log = stderr(False)
    with progress_bar(4, "demo", "demo", unit_scale=2) as bar:
        clock(40)
        bar.update(1)
    with percent_bar("fitting") as moved:
        clock(20)
        moved(0.04)
        clock(20)
        moved(0.1)
    with progress_bar(None, "drawing", "") as bar:
        clock(40)
        bar.update(10)
    assert log.getvalue().splitlines() == [
        "demo: demo 2 of 8 (25 %), 0.05 demo/s, 2:00 left",
        "fitting: 10 of 100 (10 %), 0.25 %/s, 6:00 left",
        "drawing: 10, 0.25 it/s",
    ]


def test_a_bar_of_shares_has_other_names(stderr, clock):
    terminal = stderr(True)
    with percent_bar("tuning") as moved:
        clock(2)
        moved(0.25, "tuning: grids")
    assert "tuning: grids:  25%|" in terminal.getvalue()


def test_two_bars_at_once_leave_no_fragments(stderr, clock):
    log = stderr(False)
    with progress_bar(4, "one", "a", position=0) as one, progress_bar(4, "two", "b", position=1) as two:
        clock(40)
        one.update()
        two.update()
    assert [line.partition(":")[0] for line in log.getvalue().splitlines()] == ["one", "two"]


def test_a_terminal_has_a_bar(stderr, clock):
    terminal = stderr(True)
    with progress_bar(10, "mo\x1bons", "step") as bar:
        clock(1)
        bar.update(5)
    assert "50%|" in terminal.getvalue()
    assert "mo\\x1bons" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_none_is_shown_unless_asked_for(stderr, clock, terminal):
    out = stderr(terminal)
    with progress_bar(10, "moons", show=False) as bar:
        clock(100)
        bar.update(5)
    assert out.getvalue() == ""


def test_a_process_without_stderr_goes_on(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(10, "moons") as bar:
        bar.update(5)


def test_there_is_one_helper_in_the_tree():
    """Every other file may name tqdm as a type only, and never calls it."""
    source = Path(ebbtide.__file__).parent
    called = [
        f"{file.relative_to(source)}:{node.lineno}"
        for file in source.rglob("*.py")
        if file != Path(progress.__file__)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm"
    ]
    assert called == []
