"""The user's own points in .csv, .tsv, .npy and .npz files. Nothing is ever unpickled.

What can't be used is refused in one sentence naming file, row (the line number of a text file) and column.
"""

import csv
import os
import re
from array import array as Buffer
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Stored, npy, npz
from ..errors import InputError
from ..files import writing
from ..memory import room
from ..specs import listed
from .split import LABELS, beside, named_parts, part_of
from .table import Points

EXTENSIONS = (".csv", ".tsv", ".npy", ".npz")
MOST_COLUMNS = 2**16
_LARGEST = float(np.finfo(np.float32).max)
# Bytes that these take for a while, besides those of the file: a number on its way to float32, a label, and each byte
# of a line that is cut into cells.
_EACH, _NAME, _CELLS = 36, 100, 64


def read(path: str | os.PathLike[str], label: str | None = None) -> Points:
    """Every row of a file, in float32.

    .csv, .tsv: comma, semicolon or tab; a header or none; `label` is a column's name, without a header its
    number from 1. .npy: one array of rows × columns, or of one column; `label` is a column's number.
    .npz: the array `x`, else the first of rows × columns; `label` is an array's name, else `labels` or `y`. Parts such
    as `x_train` and `x_test` are recognised by their names (`split.parts`).
    Labels may be text or integers; they become 0..k-1 in sorted order, their names kept in `classes`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected a file ({', '.join(EXTENSIONS)}).")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
        if path.suffix.lower() not in _READERS:
            raise InputError(f"{path} must end in one of {', '.join(EXTENSIONS)}; got {path.suffix!r}.")
        return _READERS[path.suffix.lower()](path, label)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error


def save_points(
    path: str | os.PathLike[str],
    x: Float[Tensor, "n d"],
    columns: Sequence[str] = (),
    labels: Int[Tensor, " n"] | Sequence[str] | None = None,
) -> None:
    """Write points so that `read` gives them back exactly; an existing file is replaced, whole or not at all.

    Names are kept by .csv and .tsv (default x1, x2, ...), labels by .csv, .tsv and .npz.
    """
    path = Path(path)
    if columns and len(columns) != x.shape[1]:
        raise InputError(f"columns must name all {x.shape[1]} columns; got {len(columns)} names.")
    if labels is not None and len(labels) != len(x):
        raise InputError(f"labels must have one entry for each of the {len(x)} points; got {len(labels)}.")
    if path.suffix.lower() not in EXTENSIONS:
        raise InputError(f"{path} must end in one of {', '.join(EXTENSIONS)}; got {path.suffix!r}.")
    if path.suffix.lower() == ".npy" and labels is not None:
        raise InputError(f"{path} has no place for labels; name it .npz or .csv.")
    values = (x.float() if x.element_size() < 4 else x).detach().cpu().numpy()
    names = labels.tolist() if isinstance(labels, Tensor) else labels

    with writing(path) as file:
        if path.suffix.lower() == ".npy":
            # Not `file` itself, to which numpy writes by C's means: a full disk would be an error without a number.
            np.save(cast(BinaryIO, SimpleNamespace(write=file.write)), values)
        elif path.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {} if names is None else {"labels": np.array(names)}
            np.savez(file, x=values, **arrays)
        else:
            file.writelines(line.encode() for line in _csv_lines(path, values, columns, names))


# --- text ---------------------------------------------------------------------------------------------------


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


def _read_text(path: Path, label: str | None) -> Points:
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
        sound = table.shape[1] == layout.width and "" not in names and bool((np.abs(table) <= _LARGEST).all())
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
    room(_EACH * numbers + _NAME * lines * (label is not None) + _CELLS * longest, str(path))


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
    _narrow(str(path), len(first))
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
                raise InputError(f"{layout.cell(row, column)} {_short(cell)} is not a number.")
            if not abs(value) <= _LARGEST:
                raise InputError(f"{layout.cell(row, column)} {_short(cell)} is not a finite float32 number.")
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


def _number(text: str | None) -> float | None:
    try:
        return None if text is None or "_" in text else float(text)
    except ValueError:
        return None


def _csv_lines(path: Path, values: np.ndarray, columns: Sequence[str], labels: Sequence[Any] | None) -> Iterator[str]:
    class Line:  # csv.writer returns what write returns: here the line itself
        write = staticmethod(lambda text: text)

    style: dict[str, Any] = {"delimiter": "\t" if path.suffix.lower() == ".tsv" else ",", "lineterminator": "\n"}
    header = list(columns) or [f"x{k + 1}" for k in range(values.shape[1])]
    if labels is not None:
        header.append(next(name for name in ("label", "label_", "label__") if name not in header))
    # A bare name with another delimiter in it would mislead whoever guesses the delimiter.
    quoting: Any = csv.QUOTE_ALL if re.search("[;,\t]", "".join(header)) else csv.QUOTE_MINIMAL
    yield csv.writer(Line(), quoting=quoting, **style).writerow(header)
    line = csv.writer(Line(), **style).writerow
    for k, row in enumerate(values.astype(str).tolist()):  # the shortest text that reads back the same
        yield line(row if labels is None else [*row, labels[k]])


# --- arrays -------------------------------------------------------------------------------------------------


def _read_npy(path: Path, label: str | None) -> Points:
    array = npy(path)
    if label is None:
        return as_points(path, finite_table(str(path), _numbers(array)))
    numbers = [str(k + 1) for k in range(array.shape[1])] if array.ndim == 2 else []
    if label not in numbers or len(numbers) < 2:
        raise InputError(
            f"{path} has shape {array.shape}; the label must be the number of one of two or more columns, "
            f"not {label!r}."
        )
    index = numbers.index(label)
    values = _numbers(array)
    labels = label_array(f"{path}, column {label}", values[:, index])
    return as_points(path, finite_table(str(path), np.delete(values, index, axis=1)), labels=labels)


def _read_npz(path: Path, label: str | None) -> Points:
    archive = npz(path)
    tables = {name: part_of(name)[1] for name, array in archive.items() if array.ndim == 2}
    likely = [name for name, rest in tables.items() if (rest == "x" if "x" in archive else rest not in LABELS)]
    found = named_parts({name: len(archive[name]) for name in likely}, str(path), "rows")
    if found and found[1]:
        return _in_parts(path, archive, *found, label)
    if label is not None and label not in archive:
        raise InputError(f"{path} has no array {label!r}; it has {listed(archive)}.")
    label = label or next((name for name in LABELS if name in archive and len(archive) > 1), None)
    arrays = {name: array for name, array in archive.items() if name != label}
    pictures = [name for name, array in arrays.items() if array.pictures]
    if pictures and "x" not in arrays:
        raise InputError(f"{path} holds pictures ({listed(pictures)}), which recipes such as flow-images train on.")
    usable = [name for name, array in arrays.items() if array.ndim == 2 or len(arrays) == 1]
    name = next((name for name in ("x", *usable) if name in arrays), None)
    if name is None:
        raise InputError(f"{path} has no array 'x' nor one of rows × columns; it has {listed(archive)}.")
    table = finite_table(arrays[name].where, _numbers(arrays[name]))
    return as_points(path, table, labels=None if label is None else _labels(archive[label], len(table)))


def _in_parts(
    path: Path, archive: Mapping[str, Stored], train: Sequence[str], held: Sequence[str], label: str | None
) -> Points:
    """The tables of a set's parts end to end, the held-out ones last; with labels where each of them has some."""
    names = [*train, *held]
    tables = [finite_table(archive[name].where, _numbers(archive[name])) for name in names]
    if len(widths := {table.shape[1]: name for name, table in zip(names, tables)}) > 1:
        raise InputError(
            f"{path}: {' and '.join(map(repr, widths.values()))} must have as many columns; got {[*widths]}."
        )
    own = [beside(archive, name, label or "", True) for name in names]
    if label and not own[0]:
        raise InputError(f"{path} has no array {label!r}; it has {listed(archive)}.")
    labels = [_labels(archive[one], len(table)) for one, table in zip(own, tables)] if all(own) else None
    points = as_points(path, np.concatenate(tables), labels=None if labels is None else [*chain(*labels)])
    return replace(points, test=sum(map(len, tables[len(train) :])))


def _labels(array: Stored, n: int) -> list[str]:
    if array.shape != (n,):
        raise InputError(f"{array.where} must hold {n} labels; it has shape {array.shape}.")
    return label_array(array.where, array.read(_EACH))


def _numbers(array: Stored) -> np.ndarray:
    """The numbers of a stored table; InputError unless its header describes one."""
    if array.dtype.kind not in "iuf":
        raise InputError(f"{array.where} must hold real numbers; got {array.kind}.")
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise InputError(f"{array.where} must have shape (rows, columns) or (rows,); got {array.shape}.")
    if len(array) < 2:
        raise InputError(f"{array.where} has {'one row' if len(array) else 'no rows'}; at least 2 are needed.")
    _narrow(array.where, *array.shape[1:])
    return array.read(_EACH)


def finite_table(where: str, array: np.ndarray) -> np.ndarray:
    """Rows × columns of finite numbers, in float64."""
    table = array.reshape(len(array), -1).astype(np.float64)
    if (bad := ~(np.abs(table) <= _LARGEST)).any():
        row, column = np.argwhere(bad)[0]
        value = table[row, column]
        raise InputError(f"{where}, row {row + 1}, column {column + 1}: {value} is not a finite float32 number.")
    whole = array.reshape(table.shape)
    if (lost := (table == table[:1]).all(0) & (whole != whole[:1]).any(0)).any():  # integers beyond 2⁵³
        column = int(np.argmax(lost))
        raise InputError(
            f"{where}, column {column + 1}: values around {whole[0, column]} differ by too little for float64; "
            "subtract an offset."
        )
    return table


def label_array(where: str, array: np.ndarray) -> list[str]:
    """Labels as text: integers, also written as floats, booleans or strings."""
    if array.dtype.kind == "f":
        if (bad := ~(np.isfinite(array) & (array == np.round(array)))).any():
            row = int(np.argmax(bad))
            raise InputError(f"{where}, row {row + 1}: {array[row]} is not a label (an integer or text).")
        array = array.astype(np.int64)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "biuU":
        raise InputError(f"{where} must hold labels, integers or text; got dtype {_short(str(array.dtype))}.")
    return [str(value) for value in array.tolist()]


# --- both ---------------------------------------------------------------------------------------------------


def as_points(
    where: Path | str, table: np.ndarray, columns: Sequence[str] = (), labels: Sequence[str] | None = None
) -> Points:
    """Rows of finite numbers as Points; `where` is what errors call them."""
    x = table.astype(np.float32)
    lost = (np.abs(x - table).max(0) > 1e-3 * table.std(0)) & (table.max(0) > table.min(0))
    if lost.any():
        column = int(np.argmax(lost))
        name = repr(columns[column]) if columns else column + 1
        raise InputError(
            f"{where}, column {name}: values around {table[0, column]:.12g} differ by too little for float32; "
            "subtract an offset."
        )
    if labels is None:
        return Points(torch.from_numpy(x), columns=tuple(columns))
    classes = in_order(set(labels))
    if len(classes) > max(10, len(labels) / 2):
        raise InputError(
            f"{where} has {len(classes)} different labels in {len(labels)} rows, so they seem to be numbers."
        )
    index = {name: k for k, name in enumerate(classes)}
    codes = torch.tensor([index[name] for name in labels])
    return Points(torch.from_numpy(x), codes, tuple(columns), tuple(classes))


def _narrow(where: str, columns: int = 1) -> None:
    if columns > MOST_COLUMNS:
        raise InputError(f"{where} has {columns:,} columns; at most {MOST_COLUMNS:,} are read.")


def in_order(names: Iterable[str]) -> list[str]:
    """2 before 10 when all are integers, else as text."""
    names = sorted(names)
    return sorted(names, key=int) if all(re.fullmatch("[+-]?[0-9]+", name) for name in names) else names


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


_READERS: dict[str, Callable[[Path, str | None], Points]] = {
    ".csv": _read_text,
    ".tsv": _read_text,
    ".npy": _read_npy,
    ".npz": _read_npz,
}
