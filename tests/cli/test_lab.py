"""ebbtide lab: what it refuses, and that it serves until Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from ebbtide.cli import lab as command
from ebbtide.lab import server


@pytest.fixture
def served(monkeypatch):
    """What the server is called with, instead of serving."""
    calls = []
    monkeypatch.setattr(server, "serve", lambda *given: calls.append(given))
    return calls


BAD = {
    ("nothere",): "nothere is neither a run folder",
    ("--data", "two_moon"): "did you mean 'two_moons'?",
    ("--data", "nothere.csv"): "nothere.csv",
    ("--port", "70000"): "--port must be at least 0 and at most 65535; got 70000.",
    ("--export", "page.html"): "--export writes one run; got 0.",
    ("RUN", "--export", "page.txt"): "--export must end in .html; got 'page.txt'.",
    ("RUN", "--export", "page.html", "--port", "5"): "--export serves nothing, so leave --port out.",
    ("--overwrite",): "--overwrite is for the page of --export; give that too.",
    ("RUN", "--data", "two_moons"): "data can't be named for",
}


def test_what_can_t_be_opened_is_one_sentence(ebbtide, runs, served):
    for words, want in BAD.items():
        code, _, err = ebbtide("lab", "--no-open", *(str(runs / "flow") if word == "RUN" else word for word in words))
        assert (code, want in err, err.count("\n")) == (2, True, 1), err
    assert served == []


def test_a_page_is_replaced_only_where_that_is_asked_for(ebbtide, runs, tmp_path, served):
    page = tmp_path / "page.html"
    page.write_text("mine")
    code, _, err = ebbtide("lab", runs / "flow", "--export", page)
    assert (code, "exists; give overwrite=True (--overwrite) to replace it" in err) == (2, True)
    assert page.read_text() == "mine"
    assert ebbtide("lab", runs / "flow", "--export", page, "--overwrite")[0] == 0
    assert page.read_text().startswith("<!doctype html>")
    assert served == []


def test_runs_data_and_address_reach_the_server(ebbtide, runs, served):
    assert ebbtide("lab", runs / "flow", runs / "ddpm", "--port", "8123", "--no-open") == (0, "", "")
    assert ebbtide("lab", "--data", "digits", "--no-open")[0] == 0
    code, _, err = ebbtide("lab", "--host", "0.0.0.0")
    assert (code, "lets its network open the lab" in err) == (0, True)
    (first, *_), (_, data, *_), *_ = served
    assert [(run.name, run.where, run.trained.recipe.path) for run in first] == [
        ("flow", str(runs / "flow"), "linear"), ("ddpm", str(runs / "ddpm"), "ddpm"),
    ]  # fmt: skip
    assert served[0][1:4] == ("", "127.0.0.1", 8123)
    assert [call[-1] for call in served] == [False, False, True]
    assert data == "digits"


def test_without_its_packages_it_names_them(ebbtide, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "ebbtide.lab.server")
    code, _, err = ebbtide("lab")
    assert code == 2
    assert err == "ebbtide: The lab needs starlette, uvicorn and websockets: pip install 'ebbtide[lab]'.\n"


@pytest.mark.slow
def test_it_serves_until_ctrl_c(runs):
    words = [sys.executable, "-m", "ebbtide", "lab", str(runs / "flow"), "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as own:
        address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", own.stdout.readline())[0]
        with urllib.request.urlopen(address) as answer:
            assert b"ebbtide lab" in answer.read()
        os.kill(own.pid, signal.SIGINT)
        assert own.wait(30) == 130
        assert own.stderr.read() == "ebbtide: Ctrl-C ends it.\nebbtide: Stopped by SIGINT.\n".replace(
            "ebbtide: Ctrl", "Ctrl"
        )


def test_the_command_is_lazy():
    assert "torch" not in vars(command)
