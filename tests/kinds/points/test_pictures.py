"""A table's figures, and the page that holds them with the report."""

from ebbtide.kinds.points.pictures import FEW, draw_table, table_pictures
from ebbtide.metrics.tables import judge as judge_module, judge_table
from ebbtide.plots import style
from ebbtide.recipes import PointRecipe
from metrics.tables.people import NAMES, people


def test_its_page_holds_the_report_and_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_module, "trees_at_hand", lambda: False)
    train, held, samples = people(60), people(40, seed=1), people(50, seed=2)
    report = judge_table(samples, train, held)
    recipe = PointRecipe(data=str(tmp_path / "shop.csv"))
    paths = list(draw_table(recipe, report, samples, train, held, tmp_path))
    assert [path.name for path in paths] == ["columns.png", "correlations.png", "pairs.png", "evaluation.html"]
    page = paths[-1].read_text()
    assert "Samples beside held-out rows of shop.csv" in page
    assert report[0].words[0] in page
    assert page.count("data:image/png") == 3
    assert all(path.stat().st_size > 5000 for path in paths)
    assert str(tmp_path) not in page


def test_of_many_columns_the_worst_come_first():
    rows, off = people(40), people(30, seed=1)
    pictures = list(table_pictures(rows, off, rows, style.FLOW, "real rows"))
    assert [one.file for one in pictures] == ["columns.png", "correlations.png", "pairs.png"]
    wide = rows
    for k in range(FEW):
        wide = wide.beside(rows.tensor[:, 2].long(), f"{NAMES[2]}{k}", rows.levels[2])
    pictures = list(table_pictures(wide, wide, wide, style.FLOW, "real rows"))
    assert [one.file for one in pictures][:2] == ["worst.png", "columns.png"]
