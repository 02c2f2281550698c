"""The benchmark of generated tables: what is measured, kept and written, with peers that aren't here."""

import json

import numpy as np
import pytest

from benchmarks import tables
from ebbtide.metrics.tables import Rows, judge as judge_module

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(judge_module, "trees_at_hand", lambda: False)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.2f},{'xyz'[k % 3]},{'' if k % 5 == 0 else k % 4}" for k in range(60)]
    (tmp_path / "shop.csv").write_text("\n".join(["price,kind,stars", *lines]))
    (tmp_path / "labels.json").write_text('{"shop": "kind"}')
    return tmp_path


def test_tables_are_halved_by_the_seed(folder):
    one, other = (next(tables.tables([], folder, seed, 2000)) for seed in (0, 1))
    assert (one.name, one.target, one.by) == ("shop", "kind", "kind")
    assert (len(one.train), len(one.held)) == (30, 30)
    assert one.train.levels[1] == ("x", "y", "z")
    assert not np.array_equal(one.train.x, other.train.x, equal_nan=True)
    (iris,) = tables.tables(["iris"], None, 0, 20)
    assert (len(iris.train), iris.target, iris.train.levels[-1]) == (
        20,
        "target",
        ("setosa", "versicolor", "virginica"),
    )


def test_results_are_kept_and_gone_on_from(folder, tmp_path, monkeypatch, capsys):
    asked = []

    def remembers(table, n, seed):
        asked.append(seed)
        return Rows(np.resize(table.train.x, (n, 3)), table.train.names, table.train.levels)

    def fails(table, n, seed):
        raise ValueError("it only\ntakes numbers")

    monkeypatch.setitem(tables.GENERATORS, "copula", ("remembers", remembers, ""))
    monkeypatch.setitem(tables.GENERATORS, "tvae", ("fails", fails, "json"))
    monkeypatch.setitem(tables.GENERATORS, "forest", ("ForestFlow", fails, "no_such_package"))
    store = tmp_path / "runs" / "tables.json"
    given = ["--folder", str(folder), "--only", "copula", "tvae", "forest", "--store", str(store), "--seeds", "2"]
    tables.main([*given, "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "| shop 30 × 3 | remembers | – |" in text
    assert "100.0 % (real " in text
    assert "| fails | it only takes numbers |" in text
    assert "| ForestFlow | no_such_package is not installed |" in text
    assert "## Tables" in (tmp_path / "RESULTS.md").read_text()
    assert len(json.loads(store.read_text())) == 6
    assert asked == [0, 1]
    tables.main(given)
    assert asked == [0, 1]
    monkeypatch.setitem(tables.GENERATORS, "mixture", ("own", fails, ""))
    with pytest.raises(ValueError, match="takes numbers"):  # a bug of ours is no result
        tables.main(["--folder", str(folder), "--only", "mixture", "--store", str(store)])


def test_every_bar_makes_rows_of_the_table(folder):
    (table,) = tables.tables([], folder, 0, 2000)
    for name in ("copula", "per-class", "mixture"):
        rows = tables.GENERATORS[name][1](table, 7, 0)
        assert (len(rows), rows.names) == (7, table.train.names)
    rows = tables.ours(table, 7, 0, steps=2, batch=8)
    assert (len(rows), rows.names) == (7, table.train.names)
    assert set(np.unique(rows.x[:, 1])) <= {0.0, 1.0, 2.0}
