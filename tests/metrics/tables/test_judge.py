"""The report: copying is called out, an honest generator isn't, and odd tables don't stop it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.core.randomness import generator
from ebbtide.errors import InputError
from ebbtide.metrics.tables import Rows, copula, judge as judge_module, judge_table, report_text, trees
from ebbtide.metrics.tables.judge import NOT_HELD, percent
from metrics.tables.people import copies, numbers, people

REMEMBERS = "this model remembers"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """No trees in tests that aren't about them: they take nearly all of the time."""
    monkeypatch.setattr(judge_module, "trees_at_hand", lambda: False)


def copied(samples, train, held, **options):
    return judge_table(samples, train, held, **options)[0]


def by_name(parts):
    return {row.name: row for part in parts for row in part.rows}


def test_copying_is_called_out_and_held_out_rows_are_not():
    train, held = people(200), people(200, seed=1)
    for n in (60, 600):
        caught = copied(copies(train, n), train, held)
        assert caught.words[0] == f"100 % of samples are copies of training rows; of held-out rows 0 %: {REMEMBERS}."
        fresh = copied(copies(held, n), train, held)
        assert fresh.words[0].endswith("no more than new rows are.")
        honest = copied(people(n, seed=2), train, held)
        assert REMEMBERS not in " ".join(honest.words)


def test_a_third_of_copies_is_called_out_and_near_ones_too():
    train, held = people(200), people(100, seed=1)
    third = Rows.of(torch.cat([copies(train, 100).tensor, people(200, seed=3).tensor]), train.names, train.levels)
    words = copied(third, train, held).words
    assert words[0] == f"33 % of samples are copies of training rows; of held-out rows 0 %: {REMEMBERS}."
    near = numbers(train.x[:, :2] + 1e-3)
    some = [numbers(rows.x[:, :2]) for rows in (train, held)]
    words = copied(near, *some).words
    assert words[0].startswith("0 % of samples are copies")
    assert words[0].endswith(f"too near to training rows: {REMEMBERS}.")


def test_in_a_table_of_few_different_rows_copies_are_no_fault():
    """Two columns of three levels: nearly every row is one of nine, of held-out rows as well."""
    levels = (("a", "b", "c"),) * 2
    train, held, fresh = (
        Rows.of(torch.randint(0, 3, (300, 2), generator=generator("few", k)).float(), ("x", "y"), levels)
        for k in range(3)
    )
    part = copied(fresh, train, held)
    assert part.words[0] == (
        "100 % of samples are copies of training rows; of held-out rows 100 %: no more than new rows are."
    )
    assert part.rows[1].value == 1


def test_without_held_out_rows_a_warning():
    train = people(100)
    for held in (None, people(2).take(slice(1)).take(slice(0))):
        parts = judge_table(people(100, seed=1), train, held)
        assert NOT_HELD in parts[0].words
        assert [row.name for row in parts[0].rows] == ["exact copies"]
    assert "copying can't be seen" in report_text(parts)


def test_every_part_in_order_and_the_worst_columns_named(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(judge_module, "trees_at_hand", trees.trees_at_hand)
    monkeypatch.setattr(judge_module, "FEW", 0)
    monkeypatch.setattr(trees, "ITERATIONS", 10)
    train, held = people(100), people(100, seed=1)
    off = replace(people(200, seed=2), x=people(200, seed=2).x + np.array([3, 0, 0, 0, 0, 0]))
    parts = judge_table(off, train, held, label="kind", draws=2)
    heads = ["Copies", "C2ST", "Columns", "Correlations", "TSTR"]
    assert [part.heading.partition(" ")[0].strip(":") for part in parts] == heads
    rows = by_name(parts)
    assert [name for name in rows if name.startswith("C2ST")] == [
        "C2ST of samples", "C2ST of the Gaussian copula", "C2ST of the copula per kind", "C2ST of the mixture of ranks",
    ]  # fmt: skip
    assert rows["C2ST of samples"].value > 0.95
    assert rows["C2ST of samples"].floor < 0.7
    assert "worse than" in parts[1].words[0]
    assert [row.name for row in parts[2].rows[:2]] == ["worst column", "KS of size"]
    assert rows["KS of size"].value > 0.6
    assert rows["TSTR of kind"].floor > 0.85
    text = report_text(parts)
    assert "1.7 %" not in text  # of cells that are missing: an empty column's are
    assert "the worst pair is" in text.lower()


def test_the_target_may_be_a_number_and_samples_may_be_few_or_not_finite():
    train, held, x = people(60), people(60, seed=1), people(20, seed=2)
    x.x[3, 0] = np.inf
    parts = judge_table(x, train, held, target="size")
    assert parts[0].words[0] == "1 samples are not finite and are left out."
    assert parts[-1].heading.startswith("TSTR: trees that learn size from samples, tested on held-out rows (R²)")
    with pytest.raises(InputError, match="The column must be one of"):
        judge_table(x, train, held, target="sizes")
    with pytest.raises(InputError, match="of the same columns"):
        judge_table(numbers(np.zeros((5, 2))), train)


def test_samples_of_a_copula_are_no_worse_than_the_copula():
    """Blocks of samples that stand in order of class are mixed before they are drawn from."""
    train, held = people(300), people(300, seed=1)
    x = copula(train).sample(900, generator("c"))
    ordered = x.take(torch.from_numpy(np.argsort(x.x[:, 2], kind="stable")))
    rows = by_name(judge_table(ordered, train, held))
    assert rows["TV of kind"].value < 0.15


def test_shares_in_words():
    assert [percent(s) for s in (0.0, 1.0, 0.35, 0.0199, 0.0004)] == ["0 %", "100 %", "35 %", "2.0 %", "0.04 %"]


def test_a_wide_table_has_no_bars_and_smaller_draws(monkeypatch):
    monkeypatch.setattr(judge_module, "MOST_COLUMNS", 99)
    monkeypatch.setattr(judge_module, "MOST", 150)
    wide = numbers(torch.randn(120, 100, generator=generator("wide")))
    assert judge_module._bars(wide) == {}
    assert len(judge_module.Judged.of(wide, wide, wide, draws=1).real) == 100
    rows = by_name(judge_table(wide, wide, numbers(torch.randn(120, 100, generator=generator("held"))), draws=1))
    assert rows["exact copies"].value == 1


def test_a_bar_is_beaten_beyond_the_noise_of_all_draws(monkeypatch):
    """0.60 ± 0.02 beside a bar whose draws happen to agree, at 0.62: no better; and at 0.5 it is."""
    monkeypatch.setattr(judge_module, "trees_at_hand", lambda: True)
    train, held = people(40), people(40, seed=1)
    bar = {"bar": lambda: copula(train)}
    for centre, verdict in ((0.6, "no better than"), (0.5, "better than"), (0.8, "worse than")):
        scores = iter([0.5, 0.5, 0.5, centre - 0.03, centre, centre + 0.03, 0.62, 0.62, 0.62])
        monkeypatch.setattr(judge_module, "auc", lambda *_: next(scores))  # noqa: B023
        monkeypatch.setattr(judge_module, "FEW", 0)
        j = judge_module.Judged.of(people(120, seed=2), train, held)
        part = judge_module._classified(j, bar, 0)
        assert f"Samples are {verdict} the bar." in part.words[0], centre
