"""Everyday tables: each form of a file gives the right numbers, and is written again as it was."""

import bz2
import gzip
import io
import lzma
import math
import os
import warnings
import zipfile

import numpy as np
import pytest

from data.sentences import check_sentence
from ebbtide.data import read
from ebbtide.data.forms import Column, Form, Reading, Unfit, absent, form_from_config
from ebbtide.data.text import form_lines
from ebbtide.errors import InputError

NAN = math.nan
NUMBERS = [[1, 2], [3, 4.5], [5, 6]]


def zipped(text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.csv", text)
    return file.getvalue()


PLAIN = "a,b\n1,2\n3,4.5\n5,6\n"
# name: (file's end, its bytes or text, the numbers, words that are said)
EVERYDAY = {
    "comma": (".csv", PLAIN, NUMBERS, ""),
    "semicolon": (".csv", PLAIN.replace(",", ";"), NUMBERS, ""),
    "tab": (".tsv", PLAIN.replace(",", "\t"), NUMBERS, ""),
    "pipe": (".txt", PLAIN.replace(",", "|"), NUMBERS, ""),
    "one blank": (".txt", PLAIN.replace(",", " "), NUMBERS, ""),
    "aligned by blanks": (".txt", "  a    b\n  1    2\n  3  4.5\n  5    6\n", NUMBERS, ""),
    "blanks without a header": (".txt", "1 2\n3 4.5\n5 6\n", NUMBERS, ""),
    "utf-8 with its mark": (".csv", b"\xef\xbb\xbf" + PLAIN.encode(), NUMBERS, ""),
    "utf-16": (".csv", PLAIN.encode("utf-16"), NUMBERS, ""),
    "cp1252": (".csv", "année,b\n1,2\n3,4.5\n5,6\n".encode("cp1252"), NUMBERS, "cp1252"),
    "comments": (".csv", "# from, the, lab\n#\n" + PLAIN, NUMBERS, ""),
    "excel's first line": (".csv", "sep=;\r\na;b\r\n1;2\r\n3;4,5\r\n5;6\r\n", NUMBERS, "'b' has a decimal comma"),
    "decimal comma": (".csv", "a;b\n1;2,0\n3;4,5\n5;6,0\n", NUMBERS, "'b' has a decimal comma"),
    "three decimals": (".csv", "a;b\n1;2,125\n3;4,500\n", [[1, 2.125], [3, 4.5]], "'b' has a decimal comma"),
    "european": (".csv", "a;b\n1;2.000,5\n3;-4,5\n5;6\n", [[1, 2000.5], [3, -4.5], [5, 6]], "points between thousands"),
    "thousands": (".csv", 'a,b\n1,"2,000"\n3,"4,500.5"\n5,6\n', [[1, 2000], [3, 4500.5], [5, 6]], "commas between"),
    "thousands by blanks": (".csv", "a,b\n1,2 000\n3,45\n5,6\n", [[1, 2000], [3, 45], [5, 6]], "blanks between"),
    "percent": (".csv", "a,b\n1,2 %\n3,4.5 %\n5,6 %\n", NUMBERS, "'b' has '%'"),
    "currency": (".csv", 'a,b\n1,$2\n3,"$4,000.5"\n5,-$6\n', [[1, 2], [3, 4000.5], [5, -6]], "'$' and commas"),
    "exponents": (".csv", "a,b\n1,2E+00\n3,45e-1\n5,.6e1\n", NUMBERS, ""),
    "missing in words": (
        ".csv",
        "a,b\n1,NA\nN/A,2\nnull,n/a\nNone,NaN\n7,8\n",
        [[1, NAN], [NAN, 2], [NAN] * 2, [NAN] * 2, [7, 8]],
        "6 cells are missing ('a' 3, 'b' 3)",
    ),
    "missing in signs": (
        ".csv",
        "a,b\n1,.\n?,2\n-,#N/A\n,3\n7,8\n",
        [[1, NAN], [NAN, 2], [NAN, NAN], [NAN, 3], [7, 8]],
        "5 cells are missing",
    ),
    "pandas' index": (".csv", ",a,b\n0,1,2\n1,3,4.5\n2,5,6\n", NUMBERS, "numbers the rows"),
    "a comma too many": (".csv", "a,b,\n1,2,\n3,4.5,\n5,6,\n,,\n", NUMBERS, "1 rows without a cell|last column"),
    "texts": (".csv", "a,b\n1,red\n3,blue\n5,red\n", [[1, 1], [3, 0], [5, 1]], ""),
    "truth values": (
        ".csv",
        "a,b\nyes,True\nno,False\nno,\n",
        [[1, 1], [0, 0], [0, NAN]],
        "1 cells are missing ('b' 1)",
    ),
    "dates": (
        ".csv",
        "a,b\n1,1970-01-02\n3,2024-02-29\n5,\n",
        [[1, 1], [3, 19782], [5, NAN]],
        "'b' has dates, as days",
    ),
    "gzip": (".csv.gz", gzip.compress(PLAIN.encode()), NUMBERS, ""),
    "bzip2": (".csv.bz2", bz2.compress(PLAIN.encode()), NUMBERS, ""),
    "xz": (".tsv.xz", lzma.compress(PLAIN.replace(",", "\t").encode()), NUMBERS, ""),
    "zip": (".zip", zipped(PLAIN), NUMBERS, ""),
    "windows' ends of lines": (".csv", PLAIN.replace("\n", "\r\n"), NUMBERS, ""),
    "quotes": (".csv", '"a, in m","b"\n"1","2"\n"3","4.5"\n"5","6"\n', NUMBERS, ""),
}


def test_everyday_files(tmp_path):
    for name, (end, content, right, words) in EVERYDAY.items():
        path = tmp_path / f"table{end}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            points = read(path)
        np.testing.assert_array_equal(points.x.numpy(), np.array(right, np.float32), err_msg=name)
        message = "".join(str(one.message) for one in said)
        assert bool(message) == bool(words), (name, message)
        assert len(said) <= 1, name
        assert all(word in message for word in words.split("|")), (name, message)
        if message:
            check_sentence(said[0].message, str(path))


AGAIN = {
    "numbers": "a,b\n1,2.50\n3,4.00\n",
    "semicolons": "a;b\n1;2,5\n3;-0,1\n",
    "units": 'a,b\n5 %,"$1,234.50"\n-7 %,-$0.10\n',
    "texts": "name,when,fine\nA. B.,2024-02-29,yes\nC,,no\n",
    "gaps": "a,b\nNA,1\n2,NA\nNA,\n".replace(",\n", ",NA\n"),
    "without a header": "red|1.5\nblue|2.5\n",
    "levels with the delimiter": 'a,b\n"x, y",1\nz,2\n',
    "label": "a,kind,b\n1,u,2.5\n3,v,4.5\n",
}


def test_what_is_read_is_written_again(tmp_path):
    """To the byte: names, order, decimals, units, marks of missing cells, and the label in its place."""
    for name, text in AGAIN.items():
        (tmp_path / "table.csv").write_text(text, newline="")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points = read(tmp_path / "table.csv", "kind" if name == "label" else None)
        labels = None if points.labels is None else [points.classes[k] for k in points.labels]
        form = form_from_config(points.form.to_config())
        assert form == points.form, name
        assert "".join(form_lines(form, points.x.numpy(), labels)) == text, name


def test_options_choose_columns_and_what_they_are(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "id,cut,zip,x\n" + "".join(f"r{k},{'abc'[k % 3]},{k % 2},{k if k % 7 else -999}\n" for k in range(40))
    )
    with pytest.raises(InputError, match=r"column 'id' has 40 different texts in 40 rows, .*add --drop id "):
        read(path)
    how = Reading.of(drop="id", ordered="cut=c<a<b", categorical="zip", missing="-999")
    with pytest.warns(UserWarning, match=r"6 cells are missing \('x' 6\)"):
        points = read(path, how=how)
    assert points.columns == ("cut", "zip", "x")
    assert points.x[:4].tolist()[1:] == [[2, 1, 1], [0, 0, 2], [1, 1, 3]]
    assert math.isnan(points.x[0, 2])
    assert [(c.kind, c.levels, c.ordered) for c in points.form.columns] == [
        ("level", ("c", "a", "b"), True), ("level", ("0", "1"), False), ("integer", (), False),
    ]  # fmt: skip
    assert read(path, how=Reading.of(columns="x, cut")).columns == ("cut", "x")
    for options, words in {
        "columns": "has no column 'size'; it has 'id', 'cut'",
        "drop": "has no column 'size'",
        "ordered": "has no column 'size'",
    }.items():
        with pytest.raises(InputError, match=words):
            read(path, how=Reading.of(**{options: "size=a<b" if options == "ordered" else "size"}))
    with pytest.raises(InputError, match=r"row 4, column 'cut': 'c' is not one of its levels in order, 'a', 'b'\."):
        read(path, how=Reading.of(drop="id", ordered="cut=a<b"))
    with pytest.raises(InputError, match="no column left"):
        read(path, how=Reading.of(drop="id,cut,zip,x"))
    for wrong in ("cut", "cut=a", "cut=a<b<a", "cut=<b", "=a<b", "a<b"):
        with pytest.raises(InputError, match=rf"ordered must name a column and its levels, .* got '{wrong}'"):
            Reading.of(ordered=wrong)
    with pytest.raises(InputError, match=r"ordered must name 'cut' once; got 'cut=a<b,cut=b<a'\."):
        Reading.of(ordered="cut=a<b,cut=b<a")
    assert Reading.of(ordered='a=b = low<high, "size=1,5<2=5"').ordered == {
        "a=b": ("low", "high"), "size": ("1,5", "2=5")
    }  # fmt: skip
    with pytest.raises(InputError, match=r"no column 'x'; it has 'x, y', 'z' \(a name with a comma in it"):
        Reading.of(drop="x, y").kept("file", ("x, y", "z"))
    assert Reading.of(drop='"x, y"').kept("file", ("x, y", "z")) == [1]


BAD = {
    "times of day": (
        "when,x\n2024-02-29 12:30:05,1\n2024-03-01T00:00Z,2\n",
        "column 'when'|a time of day|--drop when",
    ),
    "an identifier": ("id,x\n" + "".join(f"{7 * k},{k % 4}\n" for k in range(20)), "column 'id'|identifier|--drop id"),
    "not one unit": ("a,b\n1,5%\n2,6\n3,7\n", "row 2|'b'|'5%'"),
    "two units": ("a,b\n1,$5\n2,€6\n3,7\n4,8\n", "row 2|'b'|'$5'"),
    "infinity": ("a,b\n1,NA\n2,inf\n", "row 3|'b'|'inf'|finite"),
    "no date": ("a,b\n1,2023-02-28\n2,2023-02-30\n", "row 3|'b'|'2023-02-30'"),
    "a text among numbers": ("a,b\n1,5\n2,NA\n3,7\n4,x7\n", "row 5|'b'|'x7'|not a number"),
    "two members": (None, "one file|2"),
}


def test_bad_tables_are_refused_in_one_sentence(tmp_path):
    for name, (text, words) in BAD.items():
        path = tmp_path / ("table.csv" if text else "table.zip")
        if text:
            path.write_text(text)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.csv", PLAIN), archive.writestr("b.csv", PLAIN)
        with pytest.raises(InputError) as caught:
            read(path)
        check_sentence(caught.value, path.name, *words.split("|")), name
    for end, pack in {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": zipped}.items():
        (tmp_path / f"short.csv{end}").write_bytes(pack(PLAIN.encode())[:-9])
        with pytest.raises(InputError, match="damaged or cut short"):
            read(tmp_path / f"short.csv{end}")


@pytest.mark.parametrize("config", [
    None, [], {}, {"columns": 1}, {"columns": [{"kind": "x"}], "label": None, "delimiter": ",", "header": True},
    {"columns": [{}], "label": 1, "delimiter": ",", "header": True},
    {"columns": [{"levels": ["a", "a"]}], "label": None, "delimiter": ",", "header": True},
    {"columns": [{"levels": [1]}], "label": None, "delimiter": ",", "header": True},
    {"columns": [{"size": 1}], "label": None, "delimiter": ",", "header": True},
    {"columns": [{}], "label": None, "delimiter": ",,", "header": True},
])  # fmt: skip
def test_a_form_that_is_none_is_refused(config):
    with pytest.raises(InputError):
        form_from_config(config)
    assert form_from_config(Form((Column("a"),)).to_config()) == Form((Column("a"),))


def test_a_mixed_table_is_read_fast(tmp_path):
    """50,000 rows of numbers, gaps, texts and dates in 10 columns; 0.4 s where this was written."""
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.4f},{b:.3f},{c:.2f},{d},{e},{f:.1f},{'abcde'[d % 5]},{e if e % 9 else 'NA'},"
        f"19{70 + d % 30}-01-0{1 + d % 9},{'yes' if e % 2 else 'no'}"
        for (a, b, c, f), (d, e) in zip(rng.normal(size=(50_000, 4)), rng.integers(0, 1000, (50_000, 2)))
    ]
    (tmp_path / "table.csv").write_text("a,b,c,d,e,f,g,h,i,j\n" + "\n".join(rows))
    cpu = os.times().user
    with pytest.warns(UserWarning, match="cells are missing"):
        points = read(tmp_path / "table.csv")
    assert os.times().user - cpu < 2
    assert points.x.shape == (50_000, 10)


# --- single cells ---------------------------------------------------------------------------------------------

EUROS = Column("price", decimals=2, point=",", group=".", after=" €")


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        (Column(), "1.5", 1.5),
        (Column(), 2, 2.0),
        (EUROS, "1.234,50 €", 1234.5),
        (EUROS, "1234,5", 1234.5),
        (EUROS, "1.234", 1234.0),
        (EUROS, "1.5", 1.5),  # no thousands
        (Column(group=","), "-1,234.5", -1234.5),
        (Column(before="$"), "$7", 7.0),
        (Column(before="$"), "-$7", -7.0),
        (Column(before="$"), 7, 7.0),
        (Column(kind="level", levels=("7", "12")), 12.0, 1.0),
        (Column(kind="level", levels=("red", "blue")), " blue ", 1.0),
        (Column(kind="boolean", levels=("no", "yes")), True, 1.0),
        (Column(kind="date"), "1970-01-03", 2.0),
        (Column(kind="date"), np.datetime64("1970-01-03T00:00:00"), 2.0),
        (Column(), "NA", NAN),
        (Column(empty="nothing"), "nothing", NAN),
        (Column(kind="date"), None, NAN),
        (Column(kind="level", levels=("a",)), NAN, NAN),
    ],
)  # fmt: skip
def test_a_cell_is_read_in_the_form_of_its_column(column, cell, value):
    assert column.value(cell) == value or (math.isnan(value) and math.isnan(column.value(cell)))
    assert absent(cell) == (cell is None or cell != cell)


@pytest.mark.parametrize("cell", ["1,234", "x", "", "1e39", "inf"])
def test_what_is_written_is_read_back_or_refused(cell):
    written = np.array([0.0, -1234.5, 0.07, 1e6])
    for column in (Column(), EUROS, Column(before="$", group=","), Column(after="%", point=",")):
        assert [column.value(text) for text in column.text(written)] == written.tolist()
    if cell:
        with pytest.raises(Unfit, match="must be a number"):
            Column().value(cell)
