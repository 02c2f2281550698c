"""The benchmark of the action expert runs, at the smallest size."""

import json

import pytest

from benchmarks import action_expert
from ebbtide.errors import InputError


def test_it_measures_and_reports(tmp_path, capsys):
    args = ["--size", "tiny", "--size", "no images", "--rounds", "2", "--chunks", "3", "--out", str(tmp_path)]
    action_expert.main(args)
    text, page = capsys.readouterr().out, (tmp_path / "RESULTS.md").read_text()
    assert text.strip() in page
    stored = json.loads((tmp_path / "action_expert.json").read_text())
    tiny, bare = stored["sizes"]["tiny"], stored["sizes"]["no images"]
    assert (tiny["prefix"], bare["prefix"]) == (3 * 144 + 32 + 1, 1)  # the state too
    assert len(tiny["cached"]) == len(tiny["recomputed"]) == 2
    assert min(tiny["recomputed"]) > 1.5 * min(tiny["cached"])
    assert "| tiny | 16 | 465 | 0.34 M |" in text
    assert stored["grown"][0] == 3


def test_the_ratio_is_of_each_round():
    times = action_expert.Times(16, 1, 1, cached=[1.0, 2.0, 4.0], recomputed=[5.0, 14.0, 16.0])
    assert times.ratio == 5
    assert action_expert.p95([3.0, 1.0, 2.0]) == 3


def test_what_is_refused():
    with pytest.raises(InputError, match="--rounds must be at least 1"):
        action_expert.main(["--rounds", "0"])
