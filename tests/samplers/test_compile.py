"""torch.compile takes a whole step, denoiser and update, into one graph without breaks, and changes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("steps_to_compile.py")
STEPS = ("ddim", "ddim of noise", "euler", "heun", "dpmpp_2m", "unipc", "exponential")


@pytest.fixture(scope="module")
def found():
    """In a process of its own: the tests' checks of types and shapes, which no user has, can't be traced."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["name"], row["path"]): row for row in rows}


@pytest.mark.parametrize(
    ("name", "path"), [*((name, "linear") for name in STEPS), ("ddim", "vp"), ("unipc", "vp"), ("ddim", "ddpm")]
)
def test_a_whole_step_is_one_graph(found, name, path):
    """fullgraph=True raises on a break; the graph holds every layer of every call of the network."""
    row = found[name, path]
    assert row["error"] is None, row
    assert row["graphs"] == 1
    assert row["layers"] == row["expected"]
    assert row["off"] < 1e-6
    assert row["moved"] > 0.01


def test_nothing_else_was_compiled(found):
    assert len(found) == len(STEPS) + 3
