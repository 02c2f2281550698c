"""What the documents tell a reader to type works as typed."""

import contextlib
import math
import re
import shlex
from pathlib import Path

import pytest

import problems
from ebbflow.cli import main
from ebbflow.paths import PATHS
from ebbflow.samplers import SAMPLERS
from ebbflow.targets import TARGETS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
]


def blocks(language):
    """The README's are run at every test; other pages' commands, a quarter of a minute each, with the slow ones."""
    return [
        pytest.param(
            text,
            id=f"{document.name}: {text.strip().splitlines()[0][:60]}",
            marks=pytest.mark.slow if language == "bash" and document.parent != ROOT else (),
        )
        for document in DOCUMENTS
        for text in re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.S | re.M)
    ]


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory):
    """All of it runs in one folder, top to bottom, as a reader would."""
    with contextlib.chdir(tmp_path_factory.mktemp("reader")):
        yield


@pytest.mark.parametrize("text", blocks("python"))
def test_python(text):
    exec(compile(text, "README", "exec"), {})


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands(text):
    if "people.csv" in text:  # which the page makes first; the two may run in different processes
        (made,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/howto/points.md").read_text(), re.S | re.M)
        exec(compile(made, "points.md", "exec"), {})
    for line in text.strip().splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "ebbflow":
            assert main(words[1:]) == 0, line


def test_the_cells_counted_are_those_of_the_tables():
    """tests/samplers/test_all.py walks every one of them."""
    rows = [len(SAMPLERS), len(PATHS), len(TARGETS)]
    says = f"{rows[0]} samplers × {rows[1]} paths × {rows[2]} targets, all {math.prod(rows)}, "
    assert says in " ".join((ROOT / "README.md").read_text().split())
    assert set(problems.PATHS) == set(PATHS)


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        for text in re.findall(r"^```(?:bash|sh)\n(.*?)^```", document.read_text(), re.S | re.M):
            for line in text.splitlines():
                if line.startswith("make "):
                    assert set(shlex.split(line, comments=True)[1:]) <= targets, line


@pytest.mark.slow
def test_slow_commands():
    """The commands behind the README's figures: minutes of training, fenced as `sh`."""
    for document in DOCUMENTS:
        for text in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.S | re.M):
            for line in text.strip().splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "ebbflow":
                    assert main([*words[1:]]) == 0, line
