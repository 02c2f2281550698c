"""Every example runs as it stands, and prints what it promises."""

import re
from pathlib import Path
from types import MappingProxyType

import pytest

from ebbtide.samplers import SAMPLERS

pytestmark = pytest.mark.unchecked  # as users run them

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, capsys, less=MappingProxyType({})):
    """What an example prints; less: what is to be replaced in it, so that it takes less time than a reader has."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for whole, few in less.items():
        assert text.count(whole) == 1
        text = text.replace(whole, few)
    exec(compile(text, name, "exec"), {"__name__": "__main__"})
    return capsys.readouterr().out


def test_each_example_is_short_and_tested():
    assert {p.name for p in EXAMPLES.glob("*.py")} == {
        "any_sampler.py", "between_two_sets.py", "own_network_and_sampler.py", "own_images.py", "own_points.py"
    }  # fmt: skip
    for path in EXAMPLES.glob("*.py"):
        assert len([line for line in path.read_text().splitlines() if line.strip()]) <= 40, path


def test_any_sampler(capsys):
    out = run("any_sampler.py", capsys, {"first(4000": "first(200"})
    rows = {name: list(map(float, scores)) for name, *scores in map(str.split, out.splitlines()[1:])}
    assert set(rows) == set(SAMPLERS) - {"jump"}
    assert rows["ddim"][0] == rows["euler"][0]  # the same method on the linear path
    assert rows["heun"][0] < min(rows["ddpm"][0], rows["euler"][0])


def test_between_two_sets(capsys):
    score, floor = map(
        float,
        re.findall(
            r": +([\d.]+)", run("between_two_sets.py", capsys, {"progress=False": "progress=False, snapshots=0"})
        ),
    )
    assert score < 5 * floor


def test_own_network_and_sampler(capsys):
    lists = re.findall(r"\[([^\]]+)\]", run("own_network_and_sampler.py", capsys))
    samples, data = ([float(number) for number in text.split(",")] for text in lists)
    assert samples == pytest.approx(data, rel=0.2)


def test_own_points(capsys):
    out = run("own_points.py", capsys, {"progress=False": "progress=False, snapshots=0, solvers=False"})
    found = {group: (int(h), int(w)) for group, h, w in re.findall(r"(\w+): (\d+) cm, (\d+) kg", out)}
    assert found["adult"] == pytest.approx((165, 60), abs=4)
    assert found["child"] == pytest.approx((110, 19), abs=4)


def test_own_images(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    out = run("own_images.py", capsys, {"steps=60, batch=32": "steps=6, batch=16", "steps=10)": "steps=2)"})
    (score, low, high) = map(float, re.search(r"^KID-classifier +(\S+) +(\S+) to (\S+)", out, re.M).groups())
    assert low < score < high
    assert "18 of 32 samples, as many of 36 held-out images for the floor, against 84 of 84" in out
