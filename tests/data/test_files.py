import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from ebbtide import arrays as arrays_module, memory
from ebbtide.data import files as files_module, read, save_points
from ebbtide.data.files import EXTENSIONS
from ebbtide.errors import InputError, StorageError


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def foreign_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "not an array")
    return file.getvalue()


TABLE = np.arange(12.0).reshape(6, 2)
KINDS = np.array(list("abcabc"))


def holed(value: float) -> np.ndarray:
    table = TABLE.copy()
    table[4, 1] = value
    return table


def check_sentence(error: Exception, *words: str) -> None:
    message = str(error)
    assert "\n" not in message, message
    assert message.endswith("."), message
    for word in words:
        assert word in message, message


# --- what is read -------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("extension", ["csv", "tsv", "npy", "npz"])
def test_any_number_of_columns(tmp_path, d, extension):
    x = torch.randn(7, d)
    save_points(tmp_path / f"mine.{extension}", x)
    assert torch.equal(read(tmp_path / f"mine.{extension}").x, x)


def test_a_vector_is_one_column(tmp_path):
    np.save(tmp_path / "mine.npy", np.arange(3))
    assert read(tmp_path / "mine.npy").x.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i1", "i8", "u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_real_dtype(tmp_path, dtype, order):
    np.save(tmp_path / "mine.npy", np.asarray(TABLE, dtype=dtype, order=order))
    assert read(tmp_path / "mine.npy").x.tolist() == TABLE.tolist()


def test_a_constant_column_is_allowed(tmp_path):
    for constant in (0.1, 16777217.0):
        np.save(tmp_path / "mine.npy", np.array([[constant, 1], [constant, 2]]))
        assert read(tmp_path / "mine.npy").x[:, 0].tolist() == [np.float32(constant)] * 2


@pytest.mark.parametrize(
    ("held", "label"),
    [
        ({"x": TABLE, "labels": KINDS}, None),
        ({"x": TABLE, "y": KINDS}, None),
        ({"x": TABLE, "other": TABLE + 1, "kind": KINDS}, "kind"),
        ({"kind": KINDS, "points": TABLE, "more": TABLE + 1}, "kind"),
        ({"points": TABLE, "labels": KINDS.astype("S")}, None),
    ],
)
def test_npz(tmp_path, held, label):
    np.savez(tmp_path / "mine.npz", **held)
    points = read(tmp_path / "mine.npz", label)
    assert points.x.tolist() == TABLE.tolist()
    assert points.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert points.classes == ("a", "b", "c")


def test_parts_of_a_table(tmp_path):
    """The held-out ones come last, whatever their order."""
    held = {
        "x_test": TABLE[4:],
        "y_test": KINDS[4:],
        "x_train": TABLE[:4],
        "y_train": KINDS[:4],
        "kind_train": KINDS[2:],
    }
    np.savez(tmp_path / "mine.npz", **held)
    with pytest.warns(UserWarning, match=r"4 rows to train on \('x_train'\), 2 held out \('x_test'\)\.$"):
        points = read(tmp_path / "mine.npz")
    assert (points.x.tolist(), points.test, points.labels.tolist()) == (TABLE.tolist(), 2, [0, 1, 2, 0, 1, 2])
    assert read(tmp_path / "mine.npz", "kind").labels is None  # the test part has none
    with pytest.raises(InputError, match="no array 'sort'"):
        read(tmp_path / "mine.npz", "sort")
    np.savez(tmp_path / "mine.npz", **held | {"x_test": TABLE[4:, :1]})
    with pytest.raises(
        InputError, match=r"'x_test' and 'x_train' must have as many columns|'x_train' and 'x_test' must"
    ):
        read(tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", x=TABLE[:4], x_test=TABLE[4:], y=KINDS[:4], y_test=KINDS[4:], train=TABLE)
    with pytest.warns(UserWarning, match=r"4 rows to train on \('x'\), 2 held out \('x_test'\)\.$"):
        points = read(tmp_path / "mine.npz")
    assert (points.x.tolist(), points.test, points.labels.tolist()) == (TABLE.tolist(), 2, [0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "mine.npz", train=TABLE, labels=KINDS)
    assert read(tmp_path / "mine.npz").labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_an_npz_of_pictures_is_no_table(tmp_path):
    """Its labels, a column of numbers, would else be taken for the points."""
    pictures = np.zeros((6, 2, 2), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=pictures, train_labels=np.zeros((6, 1), np.uint8))
    with pytest.raises(
        InputError, match=r"a\.npz holds pictures \('train_images'\), which recipes such as flow-images"
    ):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", thumbnails=pictures, x=TABLE)
    assert read(tmp_path / "a.npz").x.tolist() == TABLE.tolist()


@pytest.mark.parametrize("name", ["x", "anything", "labels"])
def test_npz_of_one_vector(tmp_path, name):
    np.savez_compressed(tmp_path / "mine.npz", **{name: np.arange(3.0)})
    assert read(tmp_path / "mine.npz").x.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("labels", [np.array([7, 2, 10]), np.array([7.0, 2, 10])])
def test_npz_integer_labels(tmp_path, labels):
    np.savez(tmp_path / "mine.npz", x=np.zeros((3, 2)), labels=labels)
    points = read(tmp_path / "mine.npz")
    assert points.labels.tolist() == [1, 0, 2]
    assert points.classes == ("2", "7", "10")


def test_npy_label_column(tmp_path):
    np.save(tmp_path / "mine.npy", np.array([[1.0, 5, 2], [3, 4, 4], [5, 5, 6]]))
    points = read(tmp_path / "mine.npy", "2")
    assert points.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert points.labels.tolist() == [1, 0, 1]


def test_a_large_csv_is_read_fast(tmp_path):
    """Line by line it would take three times as long; the label column is read in the same pass."""
    row = "0.123456,-1.234567,b\n"
    (tmp_path / "mine.csv").write_text("x,y,kind\n" + (row + row.replace("b", "a")) * 100_000)
    cpu = os.times().user
    points = read(tmp_path / "mine.csv", "kind")
    assert os.times().user - cpu < 2
    assert points.x.shape == (200_000, 2)
    assert int(points.labels.sum()) == 100_000


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
    monkeypatch.setattr(memory, "available", lambda: need / 0.8 + 1)
    assert len(read(tmp_path / "mine.csv", label).x) == 2
    monkeypatch.setattr(memory, "available", lambda: need / 0.8 - 1)
    with pytest.raises(InputError, match=r"mine\.csv would take about"):
        read(tmp_path / "mine.csv", label)


@pytest.mark.parametrize("name", ["a.csv", "b.csv", "a.npy", "a.npz", "bytes.npy"])
def test_what_is_weighed_is_what_is_taken(tmp_path, monkeypatch, name):
    """The peak while reading is at most what was asked room for, and at least a third of it."""
    x, kinds = np.arange(150_000.0).reshape(-1, 3) / 7, np.arange(50_000) % 9
    if name == "bytes.npy":
        np.save(tmp_path / name, (x % 5).astype(np.uint8))
    else:
        save_points(tmp_path / name, torch.from_numpy(x), labels=None if name == "a.npy" else torch.from_numpy(kinds))
    needs, real = [], memory.room
    for module in (files_module, arrays_module):
        monkeypatch.setattr(module, "room", lambda need, *rest: needs.append(need) or real(need, *rest))
    tracemalloc.start()
    read(tmp_path / name, "label" if name == "b.csv" else None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(needs) / 3 < peak < sum(needs)


# --- what is refused ----------------------------------------------------------------------------------------

BAD_TEXT = {
    "empty": ("", None, "empty"),
    "blank": ("\n \n\n", None, "empty"),
    "header only": ("x,y\n", None, "row 1|no data"),
    "header only after blanks": ("\n\nx,y\n\n", None, "row 3|no data"),
    "one row": ("x,y\n1,2\n", None, "one row"),
    "one row without header": ("1,2\n", None, "one row"),
    "nan": ("x,y\n1,2\n3,nan\n", None, "row 3|'y'|'nan'"),
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
    "decimal comma": ("x;y\n1,5;2\n3,5;4\n", None, "row 2|'x'|'1,5'"),
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
    "empty cell": ("x,y\n1,2\n3,\n", None, "row 3|'y'|empty"),
    "only commas": ("x,y\n1,2\n,\n", None, "row 3|'x'|empty"),
    "unnamed column": (",x,y\n0,1,2\n1,3,4\n", None, "row 1|column 1|no name"),
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
BAD_BYTES = {
    "latin-1.csv": ("x,y\n1,2\n3,é\n".encode("latin-1"), None, "row 3|byte 3|UTF-8"),
    "latin-1 header.csv": ("é,y\n1,2\n3,4\n".encode("latin-1"), None, "row 1|UTF-8"),
    "late latin-1.csv": (("x,y\n" + "1,2\n" * 9999 + "3,é\n").encode("latin-1"), None, "row 10001|UTF-8"),
    "utf-16.csv": ("x,y\n1,2\n3,4\n".encode("utf-16"), None, "row 1|UTF-8"),
    "zip.csv": (npz(x=TABLE), None, "row 1"),
    "other.txt": (b"1,2\n3,4\n", None, ".txt|.csv"),
    "none": (b"1,2\n3,4\n", None, "''|.csv"),
    "model.pkl": (b"1,2\n3,4\n", None, ".pkl"),
    "whole numbers.npy": (
        npy(np.array([[2**62, 1], [2**62 + 1, 2]])),
        None,
        "column 1: values around 4611686018427387904 differ",
    ),
    "empty.npy": (b"", None, "empty"),
    "text.npy": (b"1,2\n3,4\n", None, "not a .npy"),
    "zip.npy": (npz(x=TABLE), None, "not a .npy"),
    "short.npy": (npy(TABLE)[:-8], None, "damaged"),
    "header.npy": (npy(TABLE)[:40], None, "damaged"),
    "flipped header.npy": (flip(npy(TABLE), 12), None, "damaged"),
    "enormous.npy": (npy(TABLE).replace(b"(6, 2)", b"(9" + b"9" * 14 + b", 2)"), None, "damaged"),
    "pickle.npy": (npy(np.array([[{}, 1]]), allow_pickle=True), None, "pickled"),
    "complex.npy": (npy(TABLE + 1j), None, "complex128"),
    "text array.npy": (npy(TABLE.astype(str)), None, "<U"),
    "bool.npy": (npy(TABLE > 3), None, "bool"),
    "dates.npy": (npy(TABLE.astype("M8[s]")), None, "datetime64"),
    "records.npy": (npy(np.zeros(3, dtype=[("a", "f8"), ("b", "f8")])), None, "dtype"),
    "scalar.npy": (npy(np.array(1.0)), None, "()"),
    "cube.npy": (npy(np.zeros((4, 3, 2))), None, "(4, 3, 2)"),
    "no columns.npy": (npy(np.zeros((4, 0))), None, "(4, 0)"),
    "no rows.npy": (npy(np.zeros((0, 2))), None, "no rows"),
    "too many columns.npy": (npy(np.zeros((2, 65_537), np.uint8)), None, "65,537 columns|65,536"),
    "one row.npy": (npy(np.zeros((1, 2))), None, "one row"),
    "nan.npy": (npy(holed(np.nan)), None, "row 5|column 2|nan"),
    "inf.npy": (npy(holed(-np.inf)), None, "row 5|column 2|-inf"),
    "large.npy": (npy(holed(1e39)), None, "row 5|column 2|1e+39"),
    "label by name.npy": (npy(TABLE), "kind", "'kind'|number"),
    "label 3 of 2.npy": (npy(TABLE), "3", "'3'|(6, 2)"),
    "label of a vector.npy": (npy(TABLE[:, 0]), "1", "'1'|(6,)"),
    "label not whole.npy": (npy(TABLE + 0.5), "2", "column 2|row 1|1.5"),
    "label nan.npy": (npy(holed(np.nan)), "2", "column 2|row 5|nan"),
    "empty.npz": (b"", None, "empty"),
    "text.npz": (b"1,2\n3,4\n", None, "not a .npz"),
    "array.npz": (npy(TABLE), None, "not a .npz"),
    "short.npz": (npz(x=TABLE)[:-30], None, "damaged"),
    "flipped.npz": (flip(npz(x=TABLE), 200), None, "damaged"),
    "foreign.npz": (foreign_zip(), None, "no array"),
    "no arrays.npz": (npz(), None, "array"),
    "pickle.npz": (npz(x=np.array([[{}, 1]], dtype=object)), None, "pickled"),
    "two vectors.npz": (npz(a=TABLE[:, 0], b=TABLE[:, 1]), None, "'a', 'b'"),
    "cube.npz": (npz(x=np.zeros((4, 3, 2))), None, "'x'|(4, 3, 2)"),
    "nan.npz": (npz(x=holed(np.nan)), None, "'x'|row 5|column 2|nan"),
    "label.npz": (npz(x=TABLE, kind=KINDS), "label", "'label'|'x', 'kind'"),
    "label too short.npz": (npz(x=TABLE, labels=KINDS[:-1]), None, "'labels'|6 labels|(5,)"),
    "label 2-D.npz": (npz(x=TABLE, labels=TABLE), None, "'labels'|(6, 2)"),
    "coordinates.npz": (npz(x=TABLE[:, 0], y=TABLE[:, 1] + 0.5), None, "'y'|row 1|1.5"),
    "complex label.npz": (npz(x=TABLE, labels=TABLE[:, 0] + 1j), None, "'labels'|complex128"),
}
BAD = {f"{name}.csv": (text.encode(), *rest) for name, (text, *rest) in BAD_TEXT.items()} | BAD_BYTES


@pytest.mark.parametrize(("name", "content", "label", "words"), [(k, *v) for k, v in BAD.items()], ids=BAD)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, recwarn, name, content, label, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name, label)
    check_sentence(caught.value, name, *words.split("|"))
    assert len(str(caught.value)) < len(str(tmp_path)) + 250
    assert not recwarn.list


def test_a_file_that_is_not_there(tmp_path):
    for name in ("nothing.csv", "nothing.npy", "no/folder.npz", "a" * 300 + ".csv"):
        with pytest.raises(InputError, match=r"(?i)exist|long") as caught:
            read(tmp_path / name)
        check_sentence(caught.value, name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("ending", EXTENSIONS)
def test_a_pipe_is_not_waited_for(tmp_path, ending):
    os.mkfifo(tmp_path / f"pipe{ending}")
    with pytest.raises(InputError, match=rf"pipe\{ending} is not a file\.$"):
        read(tmp_path / f"pipe{ending}")


def test_a_folder(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv is a folder"):
        read(tmp_path / "folder.csv")


def test_nothing_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name, content in {
        "trap.npy": npy(np.array([Trap()]), allow_pickle=True),
        "trap.npz": npz(x=np.array([Trap()], dtype=object)),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="pickled"):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@given(at=st.integers(0, 400), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_refused_or_read_right(tmp_path, at, bit):
    """A zip carries checksums of its contents, so a flipped bit is noticed or did no harm."""
    content = bytearray(npz(x=TABLE))
    content[at % len(content)] ^= 1 << bit
    (tmp_path / "mine.npz").write_bytes(content)
    try:
        points = read(tmp_path / "mine.npz")
    except InputError as error:
        check_sentence(error, "mine.npz")
    else:
        assert points.x.tolist() == TABLE.tolist()


@given(content=st.one_of(st.binary(max_size=60), st.text("0123.,;\t\n\r\"' -eanx", max_size=60).map(str.encode)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["mine.csv", "mine.npy", "mine.npz"])
def test_any_bytes_are_points_or_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    try:
        points = read(tmp_path / name)
    except InputError as error:
        check_sentence(error, name)
    else:
        assert len(points.x) > 1
        assert bool(points.x.isfinite().all())


# --- what is written ----------------------------------------------------------------------------------------

floats = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)


@given(
    x=arrays(np.float32, st.tuples(st.integers(2, 8), st.integers(1, 4)), elements=floats),
    labels=st.lists(names, min_size=8, max_size=8),
    columns=st.lists(names.map("c".__add__), min_size=4, max_size=4, unique=True),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("extension", ["csv", "tsv", "npz"])
def test_save_and_read_round_trip(tmp_path, extension, x, labels, columns):
    path, (n, d) = tmp_path / f"mine.{extension}", x.shape
    save_points(path, torch.from_numpy(x), columns[:d], labels[:n])
    points = read(path, "labels" if extension == "npz" else "label")
    np.testing.assert_array_equal(points.x.numpy(), x)
    assert [points.classes[k] for k in points.labels] == labels[:n]
    assert points.columns == (() if extension == "npz" else tuple(columns[:d]))


def test_what_a_saved_csv_looks_like(tmp_path):
    save_points(tmp_path / "mine.csv", torch.tensor([[0.1, 2], [1e-9, 4]]), labels=torch.tensor([0, 1]))
    assert (tmp_path / "mine.csv").read_text() == "x1,x2,label\n0.1,2.0,0\n1e-09,4.0,1\n"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_dtype_is_saved(tmp_path, dtype):
    for extension in ("csv", "npy", "npz"):
        save_points(tmp_path / f"mine.{extension}", torch.tensor([[0.5, -3], [2, 4]], dtype=dtype))
        assert read(tmp_path / f"mine.{extension}").x.tolist() == [[0.5, -3], [2, 4]]


def test_a_name_that_looks_like_two_columns(tmp_path):
    save_points(tmp_path / "mine.csv", torch.tensor([[1.0], [2]]), columns=["speed; m/s"])
    assert read(tmp_path / "mine.csv").columns == ("speed; m/s",)


def test_saving_replaces_whole_files_and_leaves_nothing_else(tmp_path):
    for name in ("mine.npy", "mine.csv"):
        save_points(tmp_path / name, torch.zeros(100, 2))
        save_points(tmp_path / name, torch.ones(3, 2))
        assert read(tmp_path / name).x.tolist() == [[1, 1]] * 3
    assert sorted(os.listdir(tmp_path)) == ["mine.csv", "mine.npy"]


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_a_full_disk_is_a_full_disk(tmp_path, ending):
    """Whatever writes, python or numpy's C; a limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match=rf"Can't write .*mine\{ending}: File too large; what was saved before"):
            save_points(tmp_path / f"mine{ending}", torch.ones(5000, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    save_points(tmp_path / "mine.npy", torch.ones(3, 2))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"Can't write .*mine\.npy: No space left"):
        save_points(tmp_path / "mine.npy", torch.zeros(3, 2))
    assert os.listdir(tmp_path) == ["mine.npy"]
    assert read(tmp_path / "mine.npy").x.tolist() == [[1, 1]] * 3


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        save_points(tmp_path / "nowhere" / "mine.npy", torch.zeros(3, 2))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        save_points(tmp_path / "file" / "mine.npy", torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("mine.txt", {}, ".txt"),
        ("mine", {}, ".csv"),
        ("mine.npy", {"labels": ["a", "b", "a"]}, "labels"),
        ("mine.csv", {"columns": ["a"]}, "2 columns"),
        ("mine.csv", {"labels": ["a"]}, "3 points"),
    ],
)
def test_save_refuses(tmp_path, name, options, word):
    with pytest.raises(InputError) as caught:
        save_points(tmp_path / name, torch.zeros(3, 2), **options)
    check_sentence(caught.value, word)
    assert not os.listdir(tmp_path)
