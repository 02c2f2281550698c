"""The user's own points in text files, arrays and other tables. Nothing is ever unpickled.

What can't be used is refused in one sentence naming file, row (the line number of a text file) and column.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import numpy as np

from ..arrays import Stored, npy, npz
from ..errors import InputError
from ..files import located, near, no_pointer, writing
from ..specs import expect, listed
from .forms import Form, Reading
from .frames import read_table, sheet_of
from .packed import PACKED, unpacked
from .split import LABELS, beside, named_parts, part_of
from .table import (
    NUMBER,
    Points,
    as_array,
    as_points,
    enough,
    finite_table,
    label_array,
    labels_of_rows,
    narrow,
    rows_of,
)
from .text import csv_lines, form_lines, read_text

__all__ = ["EXTENSIONS", "READABLE", "is_text", "read", "save_points", "save_table"]

EXTENSIONS = (".csv", ".tsv", ".npy", ".npz")  # that are written, too
_TEXTS = (".csv", ".tsv", ".txt")
_TABLES = (".parquet", ".feather", ".xlsx")
READABLE = (*EXTENSIONS, ".txt", *_TABLES)


def read(path: str | os.PathLike[str], label: str | None = None, how: Reading | None = None) -> Points:
    """Every row of a file, in float32.

    .csv, .tsv, .txt, also in .gz, .bz2, .xz or .zip: comma, semicolon, tab, | or blanks; a header or none; `label` is a
    column's name, without a header its number from 1. Columns may be numbers, texts, truth values or ISO dates, and
    cells may be missing (see `forms`); what is more than plain numbers is told in a warning.
    .parquet, .feather, .xlsx (also as FILE.xlsx:Sheet): `pip install 'ebbtide[tables]'`.
    .npy: one array of rows × columns, or of one column; `label` is a column's number.
    .npz: the array `x`, else the first of rows × columns; `label` is an array's name, else `labels` or `y`. Parts such
    as `x_train` and `x_test` are recognised by their names (`split.parts`).
    Labels may be text or integers; they become 0..k-1 in sorted order, their names kept in `classes`.
    how: more options of tables, instead of `label`.
    """
    path = located("path", path)
    how = Reading(label) if how is None else how
    path, sheet = sheet_of(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected a file ({', '.join(READABLE)}).")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist' + near(path)}.")
        no_pointer(path)
        suffix = unpacked(path).suffix.lower()
        if suffix in _TEXTS:
            return read_text(path, how)
        if path.suffix.lower() in _TABLES:
            return read_table(path, how, sheet)
        if path.suffix.lower() not in _READERS:
            also = f", the texts also in {', '.join(PACKED)}"
            raise InputError(f"{path} must end in one of {', '.join(READABLE)}{also}; got {suffix!r}.")
        if how != Reading(how.label, least=how.least):
            raise InputError(f"{path}: only a table's columns can be named; {suffix} has none.")
        return _READERS[suffix](path, how.label, how.least)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error


def is_text(path: str | os.PathLike[str]) -> bool:
    """True for a table in text, packed or not, by its name."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).suffix.lower() in _TEXTS


def save_points(
    path: str | os.PathLike[str], x: Any, columns: Sequence[str] = (), labels: Any = None, label: str = "label"
) -> None:
    """Write points so that `read` gives them back exactly; an existing file is replaced, whole or not at all.

    x: (n, d) or (n,) numbers: a tensor, an array, nested lists, or a data frame, whose columns keep their names.
    labels: one for each row, integers or text. Names are kept by .csv and .tsv (default x1, x2, ...), labels by .csv,
    .tsv and .npz. label: name of the labels' column in .csv and .tsv.
    """
    path = located("path", path)
    table, names = rows_of("x", x)
    if table.dtype.kind not in "biuf" or table.ndim not in (1, 2):
        raise InputError(f"x must be real numbers, (n, d) or (n,); got {table.dtype} of shape {table.shape}.")
    values = table.reshape(len(table), -1) if table.ndim == 1 else table
    values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
    columns = columns or names
    if columns and len(columns) != values.shape[1]:
        raise InputError(f"columns must name all {values.shape[1]} columns; got {len(columns)} names.")
    of_each = None if labels is None else labels_of_rows("labels", labels, len(values))
    if of_each is not None and of_each.dtype.kind == "O":
        raise InputError(f"labels must be integers or text; got {of_each[0]!r}.")
    if path.suffix.lower() not in EXTENSIONS:
        raise InputError(f"{path} must end in one of {', '.join(EXTENSIONS)}; got {path.suffix!r}.")
    if path.suffix.lower() == ".npy" and labels is not None:
        raise InputError(f"{path} has no place for labels; name it .npz or .csv.")

    with writing(path) as file:
        if path.suffix.lower() == ".npy":
            # Not `file` itself, to which numpy writes by C's means: a full disk would be an error without a number.
            np.save(cast(BinaryIO, SimpleNamespace(write=file.write)), values)
        elif path.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {} if of_each is None else {"labels": of_each}
            np.savez(file, x=values, **arrays)
        else:
            lines = csv_lines(path, values, columns, None if of_each is None else of_each.tolist(), label)
            file.writelines(line.encode() for line in lines)


def save_table(path: str | os.PathLike[str], x: Any, form: Form, labels: Sequence[str] | None = None) -> None:
    """Write points as a text file of this form: its columns, their names, order, kinds and units.

    x: as in `Points`: places of levels, days of dates, and NaN for missing cells.
    """
    path = located("path", path)
    expect("form", form, Form)
    values = as_array("x", x)
    if values.ndim != 2 or values.shape[1] != len(form.learned):
        raise InputError(f"x must have {len(form.learned)} columns, as its form has; got shape {values.shape}.")
    with writing(path) as file:
        lines = form_lines(form, values, labels, tabs=path.suffix.lower() == ".tsv")
        file.writelines(line.encode() for line in lines)


# --- arrays -------------------------------------------------------------------------------------------------


def _read_npy(path: Path, label: str | None, least: int) -> Points:
    array = npy(path)
    if label is None:
        return as_points(path, finite_table(str(path), _numbers(array, least)))
    numbers = [str(k + 1) for k in range(array.shape[1])] if array.ndim == 2 else []
    if label not in numbers or len(numbers) < 2:
        raise InputError(
            f"{path} has shape {array.shape}; the label must be the number of one of two or more columns, "
            f"not {label!r}."
        )
    index = numbers.index(label)
    values = _numbers(array, least)
    labels = label_array(f"{path}, column {label}", values[:, index])
    return as_points(path, finite_table(str(path), np.delete(values, index, axis=1)), labels=labels)


def _read_npz(path: Path, label: str | None, least: int) -> Points:
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
    images = [name for name, array in arrays.items() if array.images]
    if images and "x" not in arrays:
        raise InputError(f"{path} holds images ({listed(images)}), which recipes such as flow-images train on.")
    usable = [name for name, array in arrays.items() if array.ndim == 2 or len(arrays) == 1]
    name = next((name for name in ("x", *usable) if name in arrays), None)
    if name is None:
        raise InputError(f"{path} has no array 'x' nor one of rows × columns; it has {listed(archive)}.")
    table = finite_table(arrays[name].where, _numbers(arrays[name], least))
    return as_points(path, table, labels=None if label is None else _labels(archive[label], len(table)))


def _in_parts(
    path: Path, archive: Mapping[str, Stored], train: Sequence[str], held: Sequence[str], label: str | None
) -> Points:
    """The tables of a set's parts end to end, the held-out ones last; with labels where each of them has some."""
    names = [*train, *held]
    tables = [finite_table(archive[name].where, _numbers(archive[name], 2)) for name in names]
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
    return label_array(array.where, array.read(NUMBER))


def _numbers(array: Stored, least: int) -> np.ndarray:
    """The numbers of a stored table; InputError unless its header describes one."""
    if array.dtype.kind not in "iuf":
        raise InputError(f"{array.where} must hold real numbers; got {array.kind}.")
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise InputError(f"{array.where} must have shape (rows, columns) or (rows,); got {array.shape}.")
    enough(array.where, len(array), least)
    narrow(array.where, *array.shape[1:])
    return array.read(NUMBER)


_READERS: dict[str, Callable[[Path, str | None, int], Points]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
}
