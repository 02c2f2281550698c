"""Tables in text files, .csv, .tsv and .txt: delimiter, header and forms are found, and a bad cell is named."""

import csv
import re
import warnings
from array import array as Buffer
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..memory import room
from ..specs import listed
from .forms import Column, Form, Reading, Unfit, number, typed_column
from .packed import TextFile, text_file, unpacked
from .table import LARGEST, NUMBER, Points, as_points, enough, narrow

__all__ = ["Written", "column_names", "csv_lines", "form_lines", "read_text", "written_cells", "written_lines"]

# Bytes that these take for a while, besides those of the file: a label, a text, and each byte of a line in cells.
_NAME, _TEXT, _CELLS = 100, 60, 64
_BLOCK = 2**17  # cells that are parted together
_HEAD = 100  # rows that show how a file is written


@dataclass(frozen=True)
class _Layout:
    """The layout of a text file, found from its first lines."""

    file: TextFile
    delimiter: str
    names: tuple[str, ...]  # of the columns; empty without a header
    width: int
    before: int  # lines of comments
    skip: int  # lines up to the end of the header
    head: tuple[tuple[str, ...], ...]  # some of the first rows

    @property
    def options(self) -> tuple[str, ...]:
        """The columns as options name them: by their names, without a header by their numbers from 1."""
        return self.names or tuple(str(k + 1) for k in range(self.width))

    def column(self, k: int) -> str:
        return f"{self.file.path}, column {repr(self.names[k]) if self.names else k + 1}"

    def cell(self, row: int, k: int) -> str:
        name = repr(self.names[k]) if k < len(self.names) else str(k + 1)
        return f"{self.file.path}, row {row}, column {name}:"


def read_text(path: Path, how: Reading) -> Points:
    """The rows of a text file, as `files.read` describes them."""
    layout = _layout(path, how)
    kept = how.kept(str(path), layout.options)
    label = layout.options.index(how.label) if how.label else None
    notes = [] if layout.file.encoding != "cp1252" else ["read as cp1252 (Windows), since it is not UTF-8"]
    table, columns, labels = _plain(layout, how, label) or _typed(layout, how, kept, label, notes)
    enough(str(path), len(table), how.least)
    if layout.names and not layout.names[0] and 0 in kept and len(kept) > 1:
        if not np.isin((table[:, 0] - np.arange(len(table))), (0.0, 1.0)).all():
            raise InputError(f"{path}, row {layout.before + 1}, column 1: the header has no name for it.")
        kept = kept[1:]
        notes.append("its first column, without a name, numbers the rows and is left out")
    if layout.names and not layout.names[-1] and layout.width - 1 in kept and len(kept) > 1:
        if not np.isnan(table[:, -1]).all():
            raise InputError(f"{path}, row {layout.before + 1}, column {layout.width}: the header has no name for it.")
        kept = kept[:-1]
        notes.append("its last column, without a name or a cell, is left out")
    kept = [k for k in kept if k != label]
    for k in kept:
        _identifier(layout, columns[k], table[:, k], how)
    gaps = {layout.options[k]: int(count) for k in kept if (count := np.isnan(table[:, k]).sum())}
    if gaps:
        shown = ", ".join(f"{name!r} {count:,}" for name, count in list(gaps.items())[:12])
        notes.append(f"{sum(gaps.values()):,} cells are missing ({shown}{', …' * (len(gaps) > 12)})")
    notes += [f"{layout.options[k]!r} has {columns[k].unusual}" for k in kept if columns[k].unusual]
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}.", stacklevel=4)
    place = sorted([*kept, *([] if label is None else [label])])
    form = Form(
        tuple(columns[k] for k in place), None if label is None else place.index(label), layout.delimiter,
        bool(layout.names),
    )  # fmt: skip
    names = [layout.names[k] for k in kept] if layout.names else []
    return as_points(path, table if len(kept) == layout.width else table[:, kept], names, labels, form)


def column_names(path: str | Any) -> tuple[str, ...]:
    """The columns of a text file as `label` names them: by their names, without a header by their numbers from 1."""
    return _layout(Path(path), Reading()).options


class Written(NamedTuple):
    """The cells of a text file as they are written: by column, with the number of the first row and the delimiter."""

    columns: dict[str, list[str]]
    first: int
    delimiter: str
    header: bool


def written_cells(path: Path) -> Written:
    """The rows of a text file, whose cells stay as they are."""
    layout = _layout(path, Reading())
    room(_TEXT * (layout.file.lines + layout.file.delimiters), str(path))
    parts: list[list[str]] = [[] for _ in range(layout.width)]
    with closing(_rows(layout.file, layout.delimiter, layout.before)) as rows:
        for row, end, cells in rows:
            if end > layout.skip:
                if len(cells) != layout.width:
                    _ragged(layout, row, cells)
                for part, cell in zip(parts, cells):
                    part.append(cell)
    return Written(dict(zip(layout.options, parts)), layout.skip + 1, layout.delimiter, bool(layout.names))


def written_lines(columns: Mapping[str, Sequence[str]], delimiter: str, header: bool) -> Iterator[str]:
    """The lines of a text file of these cells."""
    style: dict[str, Any] = {"delimiter": delimiter, "lineterminator": "\n"}
    if header:
        yield _header(list(columns), style)
    yield from map(csv.writer(_Line(), **style).writerow, zip(*columns.values()))


def _identifier(layout: _Layout, column: Column, values: np.ndarray, how: Reading) -> None:
    """Refuse whole numbers that name the rows, unless --columns asks for them."""
    named = re.fullmatch(r"(?:.*[ _])?id|row ?(?:id|number)|index", column.name, re.I)
    different = named and column.kind == "integer" and len(np.unique(values)) == len(values) > 10
    if different and column.name not in how.columns:
        raise InputError(
            f"{layout.file.path}, column {column.name!r} is an identifier, a different number in each row; add "
            f"--drop {column.name} (or name it in --columns)."
        )


# --- the layout -----------------------------------------------------------------------------------------------


def _layout(path: Path, how: Reading) -> _Layout:
    named = how.label is not None

    def fits(file: TextFile) -> None:
        numbers = file.lines + file.delimiters
        room(NUMBER * numbers + _NAME * file.lines * named + _CELLS * file.longest, str(path))

    file = text_file(path, fits)
    before, delimiter = _comments(file)
    delimiter = delimiter or _delimiter(file, before)
    with closing(_rows(file, delimiter, before)) as rows:
        head = list(islice(rows, _HEAD))
    if not head:
        raise InputError(f"{path} is empty.")
    line, end, cells = head[0]
    first = [cell.strip() for cell in cells]
    # A header has no numbers, unless the label's name is in it (pandas calls columns 0, 1, ... by default).
    numbered = how.label in first and number(how.label) is None
    header = numbered or all(number(cell) is None for cell in first)
    narrow(str(path), len(first))
    seen: set[str] = set()
    for column, name in enumerate(first if header else ()):
        if not name and column not in (0, len(first) - 1):
            raise InputError(f"{path}, row {line}, column {column + 1}: the header has no name for it.")
        if name in seen:
            raise InputError(f"{path}, row {line}, column {column + 1}: {name!r} names two columns.")
        seen.add(name)
    if header and len(head) == 1:
        raise InputError(f"{path} has a header, row {line}, and no data.")
    names = tuple(first) if header else ()
    data = tuple(tuple(map(str.strip, row)) for _, _, row in head[header:])
    found = _Layout(file, delimiter, names, len(first), before, end if header else line - 1, data)
    if how.label is not None:
        if how.label not in found.options:
            known = listed(names) if header else f"no header, so columns are numbered 1 to {len(first)}"
            raise InputError(f"{path} has no column {how.label!r}; it has {known}.")
        if len(first) == 1:
            raise InputError(f"{path} has no column besides the label {how.label!r}.")
    return found


def _comments(file: TextFile) -> tuple[int, str]:
    """The number of comment lines at the start, and the delimiter that Excel's line sep=; names, if there is one."""
    with file.open() as text:
        for count, line in enumerate(text):
            if found := re.fullmatch(r'"?sep=(.)"?\s*', line, re.I | re.S):
                return count + 1, found[1]
            if not line.startswith("#"):
                return count, ""
    return 0, ""


def _delimiter(file: TextFile, before: int) -> str:
    """The delimiter that cuts the first rows into equal parts, then into the most numbers; blanks if no other does."""
    with file.open() as text:
        line = next((line for line in islice(text, before, None) if line.strip()), "")
    line = re.sub('"[^"]*"', "", line).strip(" \r\n")
    order = "\t;|," if unpacked(file.path).suffix.lower() == ".tsv" else ";\t|,"
    found = [delimiter for delimiter in order if delimiter in line]

    def merit(delimiter: str) -> tuple[bool, int]:
        with closing(_rows(file, delimiter, before)) as rows:
            head = [cells for _, _, cells in islice(rows, 20)]
        comma = "," if delimiter != "," else "."
        numbers = sum(number(cell.strip().replace(comma, ".")) is not None for cells in head for cell in cells)
        return len({len(cells) for cells in head}) == 1 and len(head[0]) > 1, numbers

    if found:
        return max(found, key=merit) if len(found) > 1 else found[0]
    if " " in line:
        equal, numbers = merit(" ")
        return " " if equal and numbers else ","
    return ","


def _rows(file: TextFile, delimiter: str, before: int) -> Generator[tuple[int, int, list[str]], None, None]:
    """The first line, last line and cells of every row that isn't blank."""
    with file.open(newline="") as text:
        lines = (line.strip() for line in text) if delimiter == " " else text
        for _ in islice(lines, before):
            pass
        reader, end = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter == " "), before
        try:
            for cells in reader:
                line, end = end + 1, before + reader.line_num
                if any(cell.strip() for cell in cells) or len(cells) > 1:
                    yield line, end, cells
        except csv.Error as error:
            raise InputError(f"{file.path}, row {end + 1}: {error}.") from error


# --- the cells ------------------------------------------------------------------------------------------------

Found = tuple[np.ndarray, list[Column], list[str] | None]


def _plain(layout: _Layout, how: Reading, label: int | None) -> Found | None:
    """A table of plain numbers, besides its label; None where a cell is something else. It is read at once."""
    if how.missing or how.categorical or how.ordered or not layout.head:
        return None
    if any(k != label and number(cell) is None for k, cell in enumerate(layout.head[0])):
        return None
    names: dict[str, int] = {}
    code = lambda text: names.setdefault(text.strip(), len(names))
    try:
        with layout.file.open() as text:
            table = np.loadtxt(
                text,
                delimiter=None if layout.delimiter == " " else layout.delimiter,
                skiprows=layout.skip,
                converters=None if label is None else {label: code},
                quotechar='"',
                comments=None,
                ndmin=2,
            )
    except ValueError:
        return None
    if table.shape[1] != layout.width or "" in names or not bool((np.abs(table) <= LARGEST).all()):
        return None
    labels = None if label is None else list(map([*names].__getitem__, table[:, label].astype(int)))
    decimals = [set(map(_decimals, cells)) for cells in zip(*layout.head)]
    whole = (table == np.round(table)).all(0)
    columns = [
        _as_written(layout.names[k] if layout.names else "", decimals[k], bool(whole[k])) for k in range(layout.width)
    ]
    return table, columns, labels


def _decimals(cell: str) -> int | None:
    """The digits after the point; None of a number written with an exponent."""
    return None if "e" in cell.lower() else len(cell.partition(".")[2])


def _as_written(name: str, decimals: set[int | None], whole: bool) -> Column:
    """A column of plain numbers whose first cells have these decimals."""
    one = decimals.pop() if len(decimals) == 1 else None
    return Column(name, "integer", decimals=0) if whole and one == 0 else Column(name, decimals=one or None)


def _typed(layout: _Layout, how: Reading, kept: Sequence[int], label: int | None, notes: list[str]) -> Found:
    """The table read cell by cell: columns of numbers in any form, of texts and dates, with gaps."""
    file = layout.file
    room(_TEXT * (file.lines + file.delimiters) + 3 * _NAME * file.lines, str(file.path))
    lines, wanted = Buffer("q"), set(kept)
    parts: list[list[np.ndarray]] = [[] for _ in range(layout.width)]
    empty = 0
    with closing(_rows(file, layout.delimiter, layout.before)) as rows:
        data = ((row, cells) for row, end, cells in rows if end > layout.skip)
        while block := list(islice(data, max(1, _BLOCK // layout.width))):
            full = []
            for row, cells in block:
                if len(cells) != layout.width:
                    _ragged(layout, row, cells)
                if any(map(str.strip, cells)):
                    lines.append(row)
                    full.append(cells)
                else:
                    empty += 1
            for k, column in enumerate(zip(*full)):
                if k in wanted:
                    parts[k].append(np.array(list(map(str.strip, column)), np.dtypes.StringDType()))
    if empty:
        notes.append(f"{empty:,} rows without a cell are left out")
    n = len(lines)
    table, columns, labels = np.zeros((n, layout.width)), [Column()] * layout.width, None
    for k in kept:
        texts = np.concatenate(parts[k]).tolist() if parts[k] else []
        parts[k] = []
        name = layout.names[k] if layout.names else ""
        if k == label:
            if "" in texts:
                raise InputError(f"{layout.cell(lines[texts.index('')], k)} the cell is empty.")
            columns[k], labels = Column(name, "level"), texts
            continue
        try:
            columns[k], table[:, k] = typed_column(
                name, texts, how, comma=layout.delimiter == ";", option=layout.options[k]
            )
        except Unfit as error:
            if error.place is None:
                raise InputError(f"{layout.column(k)} {error.why}") from None
            raise InputError(f"{layout.cell(lines[error.place], k)} {error.why}") from None
    return table, columns, labels


def _ragged(layout: _Layout, row: int, cells: Sequence[str]) -> None:
    if len(cells) < layout.width:
        missing = f"missing; the row has {len(cells)} of {layout.width} cells."
        raise InputError(f"{layout.cell(row, len(cells))} {missing}")
    raise InputError(f"{layout.cell(row, layout.width)} one too many; the first row has {layout.width}.")


# --- writing --------------------------------------------------------------------------------------------------


class _Line:
    """A file whose write returns the line: csv.writer returns what write returns."""

    write = staticmethod(lambda text: text)


def csv_lines(
    path: Path, values: np.ndarray, columns: Sequence[str], labels: Sequence[Any] | None, label: str = "label"
) -> Iterator[str]:
    """The lines of a text file of points; the labels stand in a last column, of the name `label` where it is free."""
    style: dict[str, Any] = {"delimiter": "\t" if path.suffix.lower() == ".tsv" else ",", "lineterminator": "\n"}
    header = list(columns) or [f"x{k + 1}" for k in range(values.shape[1])]
    if labels is not None:
        header.append(next(name for name in (label, "label", "label_", "label__") if name not in header))
    yield _header(header, style)
    line = csv.writer(_Line(), **style).writerow
    for k, row in enumerate(values.astype(str).tolist()):  # the shortest text that reads back the same
        yield line(row if labels is None else [*row, labels[k]])


def form_lines(form: Form, values: np.ndarray, labels: Sequence[str] | None, tabs: bool = False) -> Iterator[str]:
    """The lines of a text file in this form: the columns by name and in order, each cell as the form writes it.

    tabs: for .tsv. Without labels their column is left out.
    """
    style: dict[str, Any] = {"delimiter": "\t" if tabs else form.delimiter, "lineterminator": "\n"}
    numbers = iter(range(values.shape[1]))
    header, columns = [], []
    for k, column in enumerate(form.columns):
        if k != form.label:
            header.append(column.name)
            columns.append(column.text(values[:, next(numbers)]))
        elif labels is not None:
            header.append(column.name)
            columns.append(list(labels))
    if form.header:
        yield _header(header, style)
    line = csv.writer(_Line(), **style).writerow
    for row in zip(*columns):
        yield line(row)


def _header(names: Sequence[str], style: dict[str, Any]) -> str:
    # A bare name with another delimiter in it would mislead whoever guesses the delimiter.
    quoting: Any = csv.QUOTE_ALL if re.search("[;,\t|]", "".join(names)) else csv.QUOTE_MINIMAL
    found: str = csv.writer(_Line(), quoting=quoting, **style).writerow(names)
    return found
