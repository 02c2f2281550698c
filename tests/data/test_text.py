"""Text files of points: what is found in them, and which cell is named where one is wrong."""

import os

import pytest
import torch

from data.sentences import refused
from ebbtide import memory
from ebbtide.data import read, save_points
from ebbtide.errors import InputError

GOOD = {
    "header": "x,y\n1,2\n3,4\n",
    "none": "1,2\n3,4\n",
    "semicolon": "x;y\n1;2\n3;4\n",
    "tab": "x\ty\n1\t2\n3\t4\n",
    "bom": "\ufeffx,y\n1,2\n3,4\n",
    "bom without header": "\ufeff1,2\n3,4\n",
    "crlf": "x,y\r\n1,2\r\n3,4\r\n",
    "cr": "x,y\r1,2\r3,4\r",
    "no newline at the end": "x,y\n1,2\n3,4",
    "blank lines": "\n\nx,y\n\n1,2\n\n3,4\n\n\n",
    "blank lines without header": "\n\n1,2\n\n3,4\n \n",
    "quoted": '"x","y"\n"1","2"\n3,"4"\n',
    "spaces": " x , y \n 1 , 2\n3, 4 \n",
    "numbers": "x,y\n+1.0,2e0\n.3e1,40E-1\n",
    "names with everything": '"a, ""b""","c\nd"\n1,2\n3,4\n',
    "semicolon in a bare name": "a;b,c\n1,2\n3,4\n",
    "comma in a bare name": "a,b;c\n1;2\n3;4\n",
    "tab in a bare name": "a\tb,c\n1,2\n3,4\n",
    "semicolon in a name": '"a;b",c\n1,2\n3,4\n',
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_csv(tmp_path, text):
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8", newline="")
    points = read(tmp_path / "mine.csv")
    assert points.x.dtype == torch.float32
    assert points.x.tolist() == [[1, 2], [3, 4]]
    assert points.labels is None
    assert points.classes == ()


def test_column_names(tmp_path):
    for text, names in [
        (GOOD["spaces"], ("x", "y")),
        (GOOD["none"], ()),
        (GOOD["names with everything"], ('a, "b"', "c\nd")),
    ]:
        (tmp_path / "mine.csv").write_text(text)
        assert read(tmp_path / "mine.csv").columns == names


LABELLED = {
    "text": ("x,kind,y\n1,b,2\n3,a,4\n5,b,6\n", "kind", ("a", "b"), [1, 0, 1]),
    "without header": ("1,b,2\n3,a,4\n5,b,6\n", "2", ("a", "b"), [1, 0, 1]),
    "integers": ("x,kind,y\n1,10,2\n3,9,4\n5,-1,6\n", "kind", ("-1", "9", "10"), [2, 1, 0]),
    "semicolons in labels": ("1,b;c,2\n3,a;c,4\n5,b;c,6\n", "2", ("a;c", "b;c"), [1, 0, 1]),
    "mixed": ("x,kind,y\n1,10,2\n3,9,4\n5,a,6\n", "kind", ("10", "9", "a"), [0, 1, 2]),
    "quoted": ('x,kind,y\n1,"b, c",2\n3," a ",4\n5,a,6\n', "kind", ("a", "b, c"), [1, 0, 0]),
    "numbered by pandas": ("0,kind,1\n1,b,2\n3,a,4\n5,b,6\n", "kind", ("a", "b"), [1, 0, 1]),
    "unicode": ("x,β,y\n1,é,2\n3,e,4\n5,é,6\n", "β", ("e", "é"), [1, 0, 1]),
    "nan is a name": ("x,kind,y\n1,nan,2\n3,inf,4\n5,nan,6\n", "kind", ("inf", "nan"), [1, 0, 1]),
}


@pytest.mark.parametrize(("text", "label", "classes", "labels"), LABELLED.values(), ids=LABELLED)
def test_labels(tmp_path, text, label, classes, labels):
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    points = read(tmp_path / "mine.csv", label)
    assert points.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert points.classes == classes
    assert points.labels.dtype == torch.int64
    assert points.labels.tolist() == labels


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("extension", ["csv", "tsv"])
def test_names_stay_with_their_columns_wherever_the_label_stands(tmp_path, extension, place):
    """In that order, with their own numbers; what is written puts the label last."""
    rows = [["low", "b", "mid", "z"], ["1", "20", "300", "x"], ["2", "30", "400", "y"], ["3", "40", "500", "x"]]
    comma = "," if extension == "csv" else "\t"
    text = "\n".join(comma.join([*row[:place], row[3], *row[place:3]]) for row in rows)
    (tmp_path / f"mine.{extension}").write_text(text)
    points = read(tmp_path / f"mine.{extension}", "z")
    for found in (points, _again(points, tmp_path / f"ours.{extension}")):
        assert found.columns == ("low", "b", "mid")
        assert found.x.tolist() == [[1, 20, 300], [2, 30, 400], [3, 40, 500]]
        assert [found.classes[k] for k in found.labels] == ["x", "y", "x"]


def _again(points, path):
    save_points(path, points.x, points.columns, [points.classes[k] for k in points.labels])
    return read(path, "label")


def test_a_large_csv_is_read_fast(tmp_path):
    """Line by line it would take three times as long; the label column is read in the same pass."""
    row = "0.123456,-1.234567,b\n"
    (tmp_path / "mine.csv").write_text("x,y,kind\n" + (row + row.replace("b", "a")) * 100_000)
    cpu = os.times().user
    points = read(tmp_path / "mine.csv", "kind")
    assert os.times().user - cpu < 2
    assert points.x.shape == (200_000, 2)
    assert int(points.labels.sum()) == 100_000


@pytest.mark.unchecked
def test_a_wide_csv_is_read_fast(tmp_path):
    """As many columns as there may be: 11 s of CPU where each name was looked for among those before it."""
    names = [f"column {k}" for k in range(65_536)]
    (tmp_path / "wide.csv").write_text("\n".join([",".join(names), *[",".join(["1.5", "2"] * 32_768)] * 2]) + "\n")
    cpu = os.times().user
    points = read(tmp_path / "wide.csv")
    assert os.times().user - cpu < 3
    assert points.x.shape == (2, 65_536)
    assert points.columns == tuple(names)


@pytest.mark.parametrize(("label", "need"), [(None, 36 * 6 + 64 * 5), ("k", 36 * 6 + 64 * 5 + 100 * 3)])
def test_a_csv_is_weighed_before_it_is_read(tmp_path, monkeypatch, label, need):
    """3 lines of 2 numbers, of 5 bytes at most."""
    (tmp_path / "mine.csv").write_text("k,x\n1,2.5\n2,3\n")
    monkeypatch.setattr(memory, "TRIFLE", 0)
    monkeypatch.setattr(memory, "available", lambda: need / 0.8 + 1)
    assert len(read(tmp_path / "mine.csv", label).x) == 2
    monkeypatch.setattr(memory, "available", lambda: need / 0.8 - 1)
    with pytest.raises(InputError, match=r"mine\.csv would take about"):
        read(tmp_path / "mine.csv", label)


BAD_TEXT = {
    "empty": ("", None, "empty"),
    "blank": ("\n \n\n", None, "empty"),
    "header only": ("x,y\n", None, "row 1|no data"),
    "header only after blanks": ("\n\nx,y\n\n", None, "row 3|no data"),
    "one row": ("x,y\n1,2\n", None, "one row"),
    "one row without header": ("1,2\n", None, "one row"),
    "infinity": ("x,y\n1,nan\n3,inf\n", None, "row 3|'y'|'inf'"),
    "inf": ("x,y\n1,2\n-inf,4\n", None, "row 3|'x'|'-inf'"),
    "overflow": ("x,y\n1,2\n3,1e400\n", None, "row 3|'y'|'1e400'"),
    "float32 overflow": ("x,y\n1,2\n3,1e39\n", None, "row 3|'y'|'1e39'"),
    "text": ("x,y\n1,2\n3,four\n", None, "row 3|'y'|'four'"),
    "text in the first row": ("x,y\none,2\n3,4\n", None, "row 2|'x'|'one'"),
    "text without header": ("1,2\n3,four\n5,6\n", None, "row 2|column 2|'four'"),
    "text in a row that can't be a header": ("1,two\n3,4\n", None, "row 1|column 2|'two'"),
    "text after blank lines": ("x,y\n\n\n1,2\n\n3,four\n", None, "row 6|'y'|'four'"),
    "text after a quoted newline": ('x,"y\nz"\n1,2\n3,four\n', None, "row 4|'y\\nz'|'four'"),
    "text with crlf": ("x,y\r\n1,2\r\n3,four\r\n", None, "row 3|'y'|'four'"),
    "text with bom": ("\ufeffx,y\n1,2\nthree,4\n", None, "row 3|'x'|'three'"),
    "cell with a newline": ('x,y\n1,2\n3,"4\n5"\n', None, "row 3|'y'|'4\\n5'"),
    "python's own numbers": ("x,y\n1,2\n3,1_000\n", None, "row 3|'y'|'1_000'"),
    "complex": ("x,y\n1,2\n3,1+2j\n", None, "row 3|'y'"),
    "boolean": ("x,y\n1,2\n3,True\n", None, "row 3|'y'|'True'"),
    "two decimal signs": ("x;y\n1,5;2\n3.5;4\n", None, "row 2|'x'|'1,5'"),
    "long text": (f"x,y\n1,2\n3,{'a' * 9999}\n", None, "row 3|'y'|aaa…"),
    "huge cell": (f"x,y\n1,2\n3,{'1' * 200_000}\n", None, "row 3"),
    "unclosed quote": ('x,y\n1,2\n3,"4\n5,6\n', None, "row 3|'y'"),
    "null byte": ("x,y\n1,2\n3,\0\n", None, "row 3"),
    "missing cell": ("x,y\n1,2\n3\n", None, "row 3|'y'|missing"),
    "missing cells": ("x,y,z\n1,2,3\n4\n", None, "row 3|'y'|1 of 3"),
    "extra cell": ("x,y\n1,2\n3,4,5\n", None, "row 3|column 3|one too many"),
    "ragged without header": ("1,2\n3,4\n5\n", None, "row 3|column 2|missing"),
    "header too short": ("x,y\n1,2,3\n4,5,6\n", None, "row 2|column 3|one too many"),
    "header too long": ("x,y,z\n1,2\n3,4\n", None, "row 2|'z'|missing"),
    "only commas": ("x,y\n1,2\n,\n", None, "one row"),
    "unnamed column": (",x,y\n5,1,2\n1,3,4\n", None, "row 1|column 1|no name"),
    "unnamed column within": ("x,,y\n0,1,2\n1,3,4\n", None, "row 1|column 2|no name"),
    "unnamed last column": ("x,y,\n0,1,2\n1,3,4\n", None, "row 1|column 3|no name"),
    "two names alike": ("x,x\n1,2\n3,4\n", None, "row 1|column 2|'x'"),
    "label missing": ("x,y\n1,2\n3,4\n", "kind", "'kind'|'x', 'y'"),
    "label missing from many": (",".join(f"c{k}" for k in range(40)) + "\n1,2\n", "kind", "'c0'|28 more"),
    "label by name without header": ("1,2\n3,4\n", "kind", "'kind'|1 to 2"),
    "label 0": ("1,2\n3,4\n", "0", "'0'|1 to 2"),
    "label beyond the last column": ("1,2\n3,4\n", "3", "'3'|1 to 2"),
    "label by number with header": ("x,y\n1,2\n3,4\n", "2", "'2'|'x', 'y'"),
    "nothing but the label": ("kind\na\nb\n", "kind", "besides|'kind'"),
    "empty label": ("x,kind\n1,a\n2,\n3,b\n", "kind", "row 3|'kind'|empty"),
    "text beside a label": ("x,kind\n1,a\n2,b\ntwo,b\n", "kind", "row 4|'x'|'two'"),
    "a number as label": (
        "x,y\n" + "".join(f"{k},{k / 7}\n" for k in range(50)),
        "y",
        "50 different labels|number",
    ),
    "too many columns": (",".join("1" * 65_537) + "\n", None, "65,537 columns|65,536"),
    "too fine for float32": ("t,y\n1700000001,1\n1700000002,2\n", None, "'t'|1700000001|float32"),
}


def test_what_a_saved_csv_looks_like(tmp_path):
    save_points(tmp_path / "mine.csv", torch.tensor([[0.1, 2], [1e-9, 4]]), labels=torch.tensor([0, 1]))
    assert (tmp_path / "mine.csv").read_text() == "x1,x2,label\n0.1,2.0,0\n1e-09,4.0,1\n"


def test_a_name_that_looks_like_two_columns(tmp_path):
    save_points(tmp_path / "mine.csv", torch.tensor([[1.0], [2]]), columns=["speed; m/s"])
    assert read(tmp_path / "mine.csv").columns == ("speed; m/s",)


@pytest.mark.parametrize(("text", "label", "words"), BAD_TEXT.values(), ids=BAD_TEXT)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, recwarn, text, label, words):
    refused(tmp_path / "mine.csv", text.encode(), label, words)
    assert not recwarn.list
