"""Points in text files, .csv and .tsv: delimiter, header and the label's column are found, and a bad cell is named."""

import csv
import os
import re
from array import array as Buffer
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import InputError
from ..memory import room
from ..specs import listed
from .table import LARGEST, NUMBER, Points, as_points, narrow, short

__all__ = ["column_names", "csv_lines", "read_text"]

# Bytes that these take for a while, besides those of the file: a label, and each byte of a line that is cut into cells.
_NAME, _CELLS = 100, 64


@dataclass(frozen=True)
class _Layout:
    """The layout of a text file, found from its first lines."""

    path: Path
    delimiter: str
    names: tuple[str, ...]  # of the columns; empty without a header
    width: int
    skip: int  # lines up to the end of the header
    label: int | None  # index of the label column

    def cell(self, row: int, column: int) -> str:
        name = repr(self.names[column]) if column < len(self.names) else str(column + 1)
        return f"{self.path}, row {row}, column {name}:"


def read_text(path: Path, label: str | None) -> Points:
    """The rows of a text file, as `files.read` describes them."""
    layout = _layout(path, label)
    names: dict[str, int] = {}
    code = lambda text: names.setdefault(text.strip(), len(names))
    try:
        table = np.loadtxt(
            path.absolute(),
            delimiter=layout.delimiter,
            skiprows=layout.skip,
            converters=None if layout.label is None else {layout.label: code},
            quotechar='"',
            comments=None,
            encoding="utf-8-sig",
            ndmin=2,
        )
        sound = table.shape[1] == layout.width and "" not in names and bool((np.abs(table) <= LARGEST).all())
    except ValueError:
        sound = False
    if not sound:
        table, names = _scan(layout)
    if len(table) < 2:
        raise InputError(f"{path} has only one row of data; at least 2 are needed.")
    if layout.label is None:
        return as_points(path, table, layout.names)
    found = list(names)
    labels = [found[int(index)] for index in table[:, layout.label]]
    columns = [name for k, name in enumerate(layout.names) if k != layout.label]
    return as_points(path, np.delete(table, layout.label, axis=1), columns, labels)


def column_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The columns of a text file as `label` names them: by their names, without a header by their numbers from 1."""
    layout = _layout(Path(path), None)
    return layout.names or tuple(str(k + 1) for k in range(layout.width))


def _weigh(path: Path, label: str | None) -> None:
    """Refuse a file whose numbers, known by what parts them, or whose longest line leave no room."""
    lines = numbers = longest = line = 0
    with open(path, "rb") as file:
        while part := file.read(2**20):
            first, *others = part.replace(b"\r", b"\n").split(b"\n")
            lines += len(others)
            numbers += len(others) + max(map(part.count, (b",", b";", b"\t")))
            longest = max(longest, line + len(first), *map(len, others))
            line = len(others[-1]) if others else line + len(first)
    room(NUMBER * numbers + _NAME * lines * (label is not None) + _CELLS * longest, str(path))


def _layout(path: Path, label: str | None) -> _Layout:
    _weigh(path, label)
    delimiter = _delimiter(path)
    with closing(_rows(path, delimiter)) as rows:
        head = list(islice(rows, 2))
    if not head:
        raise InputError(f"{path} is empty.")
    line, end, cells = head[0]
    first = [cell.strip() for cell in cells]
    # A header has no numbers, unless the label's name is in it (pandas calls columns 0, 1, ... by default).
    named = label in first and _number(label) is None
    header = named or all(_number(cell) is None for cell in first)
    narrow(str(path), len(first))
    before: set[str] = set()
    for column, name in enumerate(first if header else ()):
        if not name:
            raise InputError(f"{path}, row {line}, column {column + 1}: the header has no name for it.")
        if name in before:
            raise InputError(f"{path}, row {line}, column {column + 1}: {name!r} names two columns.")
        before.add(name)
    if header and len(head) == 1:
        raise InputError(f"{path} has a header, row {line}, and no data.")
    names, index = tuple(first) if header else (), None
    if label is not None:
        numbers = [str(k + 1) for k in range(len(first))]
        if label not in (names or numbers):
            known = listed(names) if header else f"no header, so columns are numbered 1 to {len(first)}"
            raise InputError(f"{path} has no column {label!r}; it has {known}.")
        if len(first) == 1:
            raise InputError(f"{path} has no column besides the label {label!r}.")
        index = (first if header else numbers).index(label)
    return _Layout(path, delimiter, names, len(first), end if header else line - 1, index)


def _scan(layout: _Layout) -> tuple[np.ndarray, dict[str, int]]:
    """The table read cell by cell: slow, but it can say which cell is wrong."""
    names: dict[str, int] = {}
    table = Buffer("d")
    for row, end, cells in _rows(layout.path, layout.delimiter):
        if end <= layout.skip:
            continue
        if len(cells) < layout.width:
            raise InputError(
                f"{layout.cell(row, len(cells))} missing; the row has {len(cells)} of {layout.width} cells."
            )
        if len(cells) > layout.width:
            raise InputError(f"{layout.cell(row, layout.width)} one too many; the first row has {layout.width}.")
        values: list[float] = []
        for column, cell in enumerate(map(str.strip, cells)):
            if not cell:
                raise InputError(f"{layout.cell(row, column)} the cell is empty.")
            if column == layout.label:
                values.append(names.setdefault(cell, len(names)))
                continue
            value = _number(cell)
            if value is None:
                raise InputError(f"{layout.cell(row, column)} {short(cell)} is not a number{_decimal(cell)}.")
            if not abs(value) <= LARGEST:
                raise InputError(f"{layout.cell(row, column)} {short(cell)} is not a finite float32 number.")
            values.append(value)
        table.extend(values)
    return np.frombuffer(table).reshape(-1, layout.width), names


def _rows(path: Path, delimiter: str) -> Generator[tuple[int, int, list[str]], None, None]:
    """The first line, last line and cells of every row that isn't blank."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader, end = csv.reader(file, delimiter=delimiter), 0
        try:
            for cells in reader:
                line, end = end + 1, reader.line_num
                if any(cell.strip() for cell in cells) or len(cells) > 1:
                    yield line, end, cells
        except csv.Error as error:
            raise InputError(f"{path}, row {end + 1}: {error}.") from error
        except UnicodeDecodeError as error:
            _refuse_encoding(path, error)


def _delimiter(path: Path) -> str:
    """Of semicolon, tab and comma: that which cuts two rows into equal parts, then into the most numbers."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            line = re.sub('"[^"]*"', "", next((line for line in file if line.strip()), ""))
    except UnicodeDecodeError as error:
        _refuse_encoding(path, error)
    found = [delimiter for delimiter in ("\t;," if path.suffix.lower() == ".tsv" else ";\t,") if delimiter in line]

    def merit(delimiter: str) -> tuple[bool, int]:
        with closing(_rows(path, delimiter)) as rows:
            head = [cells for _, _, cells in islice(rows, 2)]
        return len(head[0]) == len(head[-1]) > 1, sum(_number(cell) is not None for cell in head[-1])

    return max(found, key=merit) if len(found) > 1 else "".join(found) or ","


def _refuse_encoding(path: Path, error: UnicodeDecodeError) -> NoReturn:
    with open(path, "rb") as file:
        for row, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                raise InputError(f"{path}, row {row}: byte {found.start + 1} is not UTF-8 text.") from error
    raise InputError(f"{path} is not UTF-8 text.") from error


def _decimal(cell: str) -> str:
    """A hint, where a cell would be a number with a point for its comma."""
    comma = cell.count(",") == 1 and _number(cell.replace(",", ".")) is not None
    return "; write its decimal comma as a point" if comma else ""


def _number(text: str | None) -> float | None:
    try:
        return None if text is None or "_" in text else float(text)
    except ValueError:
        return None


def csv_lines(
    path: Path, values: np.ndarray, columns: Sequence[str], labels: Sequence[Any] | None, label: str = "label"
) -> Iterator[str]:
    """The lines of a text file of points; the labels stand in a last column, of the name `label` where it is free."""

    class Line:  # csv.writer returns what write returns: here the line itself
        write = staticmethod(lambda text: text)

    style: dict[str, Any] = {"delimiter": "\t" if path.suffix.lower() == ".tsv" else ",", "lineterminator": "\n"}
    header = list(columns) or [f"x{k + 1}" for k in range(values.shape[1])]
    if labels is not None:
        header.append(next(name for name in (label, "label", "label_", "label__") if name not in header))
    # A bare name with another delimiter in it would mislead whoever guesses the delimiter.
    quoting: Any = csv.QUOTE_ALL if re.search("[;,\t]", "".join(header)) else csv.QUOTE_MINIMAL
    yield csv.writer(Line(), quoting=quoting, **style).writerow(header)
    line = csv.writer(Line(), **style).writerow
    for k, row in enumerate(values.astype(str).tolist()):  # the shortest text that reads back the same
        yield line(row if labels is None else [*row, labels[k]])
