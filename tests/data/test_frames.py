"""Data frames and their files: types, levels and gaps as given, there and back."""

import datetime

import numpy as np
import pytest
import torch

from data.sentences import check_sentence
from ebbtide.data import Form, Reading, as_columns, as_frame, read
from ebbtide.data.given import given_points
from ebbtide.errors import InputError

NAN = float("nan")
DAYS = [datetime.date(2024, 2, 29), datetime.date(1970, 1, 2), None, datetime.date(2024, 3, 1)]
COLUMNS = {
    "size": [1.1, NAN, 2.5, 3.0],
    "count": [3, 1, 2, 3],
    "kind": ["b", "a", "b", None],
    "fine": [True, False, True, True],
    "day": DAYS,
    "grade": ["good", "bad", "good", "bad"],
}
NUMBERS = [[1.1, 3, 1, 1, 19782, 1], [NAN, 1, 0, 0, 1, 0], [2.5, 2, 1, 1, NAN, 1], [3, 3, NAN, 1, 19783, 0]]
KINDS = ["number", "integer", "level", "boolean", "date", "level"]


def checked(points):
    torch.testing.assert_close(points.x, torch.tensor(NUMBERS), equal_nan=True)
    assert points.columns == tuple(COLUMNS)
    assert [column.kind for column in points.form.columns] == KINDS
    return points


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    checked(given_points(frame))
    frame["count"] = frame["count"].astype("Int64")
    frame["kind"] = frame["kind"].astype("string")
    frame["day"] = pandas.to_datetime(frame["day"])
    frame["grade"] = pandas.Categorical(frame["grade"], ["worst", "bad", "good"], ordered=True)
    points = given_points(frame)
    assert points.form.columns[5].levels == ("worst", "bad", "good")
    assert points.form.columns[5].ordered
    points.x[:, 5] -= 1
    checked(points)
    points.x[:, 5] += 1
    again = as_frame(points.x, points.form, frame)
    pandas.testing.assert_frame_equal(again, frame)
    half = given_points(frame[["count", "size"]])
    assert as_frame(half.x + 0.5, half.form, frame)["count"].tolist() == [3.5, 1.5, 2.5, 3.5]  # never cut off
    labelled = given_points(frame, "grade")
    assert (labelled.classes, labelled.labels.tolist()) == (("bad", "good"), [1, 0, 1, 0])
    assert given_points(frame, how=Reading(drop=("kind",))).columns == ("size", "count", "fine", "day", "grade")
    for bad, words in {
        "identifier": ("column 'x'", "12 different texts in 12 rows"),
        "mixed": ("row 2", "column 'x'", "'1' is no text"),
        "objects": ("column 'x'", "no number, text, date"),
        "infinite": ("row 2, column 'x'", "finite"),
        "times": ("column 'x'", "a time of day", "--drop x"),
    }.items():
        cells = {
            "identifier": list("abcdefghijkl"),
            "mixed": ["a", 1],
            "objects": [{}, {}],
            "infinite": [1, np.inf],
            "times": [datetime.datetime(2024, 2, 29, 12, 30)] * 2,
        }
        with pytest.raises(InputError) as caught:
            given_points(pandas.DataFrame({"x": cells[bad], "y": range(len(cells[bad]))}))
        check_sentence(caught.value, *words)


def test_polars():
    polars = pytest.importorskip("polars")
    kinds = {"grade": polars.Enum(["bad", "good"]), "kind": polars.Categorical}
    frame = polars.DataFrame(COLUMNS, schema_overrides=kinds)
    points = checked(given_points(frame))
    assert points.form.columns[5].ordered
    again = as_frame(points.x, points.form, frame)
    assert again.schema == frame.schema
    assert again["kind"].to_list() == COLUMNS["kind"]
    assert again["day"].to_list() == DAYS


def test_parquet_and_feather(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    table = arrow.table(COLUMNS)
    parquet.write_table(table, tmp_path / "table.parquet")
    feather.write_feather(table, tmp_path / "table.feather")
    for name in ("table.parquet", "table.feather"):
        checked(read(tmp_path / name))
        labelled = read(tmp_path / name, "count")
        assert (labelled.classes, labelled.labels.tolist()) == (("1", "2", "3"), [2, 0, 1, 2])
        assert labelled.form.label == 1
        with pytest.raises(InputError, match=r"row 4, column 'kind': the cell is empty"):
            read(tmp_path / name, "kind")
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
        with pytest.raises(InputError, match="damaged or cut short"):
            read(tmp_path / name)


def test_excel(tmp_path):
    excel = pytest.importorskip("openpyxl")
    book = excel.Workbook()
    book.active.append(["nothing"])
    sheet = book.create_sheet("Data")
    sheet.append([*COLUMNS])
    for row in zip(*COLUMNS.values()):
        sheet.append([None if cell != cell else cell for cell in row])
    book.save(tmp_path / "table.xlsx")
    checked(read(f"{tmp_path}/table.xlsx:Data"))
    with pytest.raises(InputError, match=r"no sheet 'data'; it has 'Sheet', 'Data'"):
        read(f"{tmp_path}/table.xlsx:data")
    with pytest.raises(InputError, match="no rows"):
        read(tmp_path / "table.xlsx")


def test_columns_need_their_form():
    with pytest.raises(InputError, match=r"x must have 0 columns, as its form has; got shape \(2, 1\)"):
        as_columns(torch.zeros(2, 1), Form())
