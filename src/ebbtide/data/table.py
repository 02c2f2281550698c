"""A table of points: rows, labels, and their names, made of arrays and data frames whose numbers are checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from .forms import Form, in_order, short

__all__ = [
    "LARGEST", "MOST_COLUMNS", "NUMBER", "Points", "as_array", "as_points", "enough", "finite_table", "in_order",
    "label_array", "labels_of_rows", "narrow", "rows_of", "short",
]  # fmt: skip

LARGEST = float(np.finfo(np.float32).max)
MOST_COLUMNS = 2**16
NUMBER = 36  # bytes that one takes on its way to float32, besides those of its file


@dataclass(frozen=True, eq=False)
class Points:
    """n points in float32, their labels 0..k-1 and, where known, the columns' and the labels' names.

    test: the number of rows, at the end, in the set's own held-out parts. form: that of the file or the data frame. In
    a column of levels x holds the place among these, in one of dates days since 1970, and NaN where a cell is missing.
    gaps: columns in which the whole table misses cells, of points that are a part of it.
    """

    x: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"] | None = None
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    test: int = 0
    form: Form | None = None
    gaps: Bool[Tensor, " d"] | None = None

    @property
    def missing(self) -> Bool[Tensor, " d"]:
        """True for columns in which cells may be missing."""
        return self.x.isnan().any(0) if self.gaps is None else self.gaps

    @property
    def plain(self) -> bool:
        """True if all of x is numbers: no levels, no dates, no missing cells."""
        kinds = {column.kind for column in self.form.learned} if self.form else set()
        return kinds <= {"number", "integer"} and not bool(self.missing.any()) and bool(self.x.isfinite().all())


def as_points(
    where: Path | str,
    table: np.ndarray,
    columns: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    form: Form | None = None,
) -> Points:
    """Rows of finite numbers, or NaN where a cell is missing, as Points; `where` is what errors call them."""
    x, known = table.astype(np.float32), table
    if (gaps := np.isnan(table)).any():
        known = np.where(gaps, np.nanmin(table, 0, initial=LARGEST), table)
    off = np.abs(np.where(gaps, 0, x - table)).max(0) if known is not table else np.abs(x - table).max(0)
    lost = (off > 1e-3 * known.std(0)) & (known.max(0) > known.min(0))
    if lost.any():
        column = int(np.argmax(lost))
        name = repr(columns[column]) if columns else column + 1
        raise InputError(
            f"{where}, column {name}: values around {known[0, column]:.12g} differ by too little for float32; "
            "subtract an offset."
        )
    if labels is None:
        return Points(torch.from_numpy(x), columns=tuple(columns), form=form)
    classes = in_order(set(labels))
    if len(classes) > max(10, len(labels) / 2):
        raise InputError(
            f"{where} has {len(classes)} different labels in {len(labels)} rows, so they seem to be numbers."
        )
    index = {name: k for k, name in enumerate(classes)}
    codes = torch.tensor([index[name] for name in labels])
    return Points(torch.from_numpy(x), codes, tuple(columns), tuple(classes), form=form)


def rows_of(what: str, x: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers of an array, a tensor, nested lists or a data frame, and the names of a frame's columns."""
    if not (hasattr(x, "columns") and hasattr(x, "to_numpy")):  # a data frame, without importing the package
        return as_array(what, x), ()
    columns = tuple(map(str, x.columns))
    if len(set(columns)) < len(columns):
        raise InputError(f"{what} has two columns named {max(columns, key=columns.count)!r}.")
    if text := [str(name) for name in x.columns if getattr(x[name].dtype, "kind", "O") not in "iuf"]:
        raise InputError(f"{what}, column {text[0]!r} must hold numbers; encode it, leave it out, or name it as y.")
    array = x.to_numpy(dtype=np.float64, na_value=np.nan)  # also of columns that may hold missing values
    if (missing := np.isnan(array)).any():
        row, column = np.argwhere(missing)[0]
        raise InputError(f"{what}, row {row + 1}, column {columns[column]!r}: a value is missing; fill or drop it.")
    return array, columns


def as_array(what: str, value: Any) -> np.ndarray:
    """A tensor or anything that numpy makes an array of; bfloat16, which numpy lacks, as float32."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{what} has masked values; fill or drop them.")
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype is torch.bfloat16 else value
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} can't be made an array: {' '.join(str(error).split())[:200].rstrip('.')}.") from error


def labels_of_rows(what: str, y: Any, n: int) -> np.ndarray:
    """Labels as an array, one for each of n rows; integers or text, as `label_array` takes them."""
    labels = as_array(what, y)
    if labels.dtype.kind == "O" and all(isinstance(one, str | int | np.integer) for one in labels.reshape(-1)):
        labels = labels.astype(str)
    if labels.shape not in ((n,), (n, 1)):
        raise InputError(f"{what} must hold a label for each of {n} rows; got shape {labels.shape}.")
    return labels.reshape(-1)


def finite_table(where: str, array: np.ndarray) -> np.ndarray:
    """Rows × columns of finite numbers, in float64."""
    table = array.reshape(len(array), -1).astype(np.float64)
    if (bad := ~(np.abs(table) <= LARGEST)).any():
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
        raise InputError(f"{where} must hold labels, integers or text; got dtype {short(str(array.dtype))}.")
    return [str(value) for value in array.tolist()]


def narrow(where: str, columns: int = 1) -> None:
    """InputError for more than MOST_COLUMNS."""
    if columns > MOST_COLUMNS:
        raise InputError(f"{where} has {columns:,} columns; at most {MOST_COLUMNS:,} are read.")


def enough(where: str, rows: int, least: int) -> None:
    """InputError for a table of fewer rows than `least`; where: the table, in errors."""
    if rows < least:
        found = "one row" if rows else "no rows"
        raise InputError(f"{where} has {found}; at least {least} {'is' if least == 1 else 'are'} needed.")
