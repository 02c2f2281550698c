"""The figures of a comparison on points, and the sentences under them."""

import dataclasses

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.kinds.points import report
from ebbtide.kinds.points.study import shown
from ebbtide.recipes import PointRecipe
from plots.material import comparison


def test_conditional_samples_show_their_classes():
    panels = report.sample_panels(comparison(n=1500, m=120, labelled=True))
    assert all(panel.labels is not None for panel in panels)
    assert all(panel.labels is None for panel in report.sample_panels(comparison(n=1500, m=120)))


def test_the_sentences_are_computed():
    c = comparison(n=1500, m=120)
    method = c.methods[1]
    walk = np.linspace([[0.0, 0]], [[3.0, 4]], 11)
    straight = dataclasses.replace(method, walk=walk, walk_times=np.linspace(1, 0, 11))
    assert "1.00 times (Flow matching)" in report._straightness([straight])
    assert "t = 0.50 (Flow matching)" in report._halfway([straight])
    quality = {"DDPM · Heun": [(8, 0.5), (16, 0.01)], "Flow matching · Euler": [(8, 0.5)]}
    sentence = report._quality_sentence(dataclasses.replace(c, quality=quality, at_floor={"DDPM · Heun": 16}))
    assert "(p ≥ 0.01): DDPM · Heun with 16; Flow matching · Euler did not." in sentence
    sentence = report._quality_sentence(dataclasses.replace(c, quality=quality, at_floor={}))
    assert "All of the samplers can be told from it" in sentence


def test_what_cannot_be_reported_is_one_sentence():
    c = comparison(n=1500, m=120)
    stranger = dataclasses.replace(c.samplings[0], method="gan")
    narrow = dataclasses.replace(c.samplings[0], samples=np.zeros((5, 3)))
    for change in (
        {"methods": []},
        {"samplings": []},
        {"samplings": [stranger]},
        {"samplings": [narrow]},
        {"limits": (3.0, -3.0)},
    ):
        with pytest.raises(InputError):
            list(report.figures(dataclasses.replace(c, **change)))


def test_the_outline_is_of_the_exact_density_where_that_is_known(monkeypatch):
    seen = []
    for name in ("scatter_panels", "intermediate", "progress"):
        monkeypatch.setattr(report.points, name, lambda *_, log_density, **__: seen.append(log_density))
    monkeypatch.setattr(report, "still", lambda draw: (draw(), lambda path: path)[1])
    exact = lambda x: -x.square().sum(1)
    pictures = {one.file: one for one in report.figures(dataclasses.replace(comparison(), log_density=exact))}
    assert seen == [exact] * 3
    assert "95 % of the exact density" in pictures["samples.png"].sentence
    assert "95 % of the real points" in next(report.figures(comparison())).sentence


def test_a_table_brings_the_forms_of_its_columns(tmp_path):
    """So that its figures write dates, and levels by their names."""
    rows = [f"2024-01-{1 + k % 28:02},{('ash', 'oak')[k % 2]},{k}" for k in range(60)]
    (tmp_path / "trees.csv").write_text("\n".join(["day,kind,size", *rows]) + "\n")
    found = shown(PointRecipe(data=str(tmp_path / "trees.csv")), 20)
    assert [(one.kind, one.levels) for one in found["form"]] == [
        ("date", ()), ("level", ("ash", "oak")), ("integer", ()),
    ]  # fmt: skip
    assert shown(PointRecipe(data="two_moons"), 20)["form"] == ()
