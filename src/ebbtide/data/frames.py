"""Tables of typed columns: data frames, and .parquet, .feather and .xlsx files. No package is imported for a frame."""

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import damage
from ..errors import InputError
from ..memory import room
from .forms import MISSING, Column, Form, Reading, Unfit, absent, identified, short, timed, typed_column
from .table import LARGEST, NUMBER, Points, as_array, as_points, enough, in_order, narrow

__all__ = [
    "as_columns", "as_frame", "frame_columns", "framed", "is_frame", "listed_cells", "points_of_columns", "read_table",
    "sheet_of",
]  # fmt: skip

_TRUTH = ("False", "True")
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def is_frame(x: Any) -> bool:
    """True for a data frame of pandas or polars, or what has its columns by name."""
    return hasattr(x, "columns") and hasattr(x, "to_numpy")


def frame_columns(what: str, x: Any) -> dict[str, Any]:
    """A frame's columns by their names."""
    names = [str(name) for name in x.columns]
    if len(set(names)) < len(names):
        raise InputError(f"{what} has two columns named {max(names, key=names.count)!r}.")
    return {str(name): x[name] for name in x.columns}


def points_of_columns(
    where: Path | str, columns: Mapping[str, Any], how: Reading | None = None, labels: Sequence[str] | None = None
) -> Points:
    """Typed columns as Points; their types, levels and gaps as given. labels: for each row, if no column has them."""
    how = how or Reading()
    kept = how.kept(str(where), [*columns])
    narrow(str(where), len(columns))
    names = [*columns]
    found: list[Column] = []
    values = []
    for k in kept:
        column, cells = _column(where, names[k], columns[names[k]], how)
        if names[k] == how.label:
            if np.isnan(cells).any():
                row = int(np.isnan(cells).argmax()) + 1
                raise InputError(f"{where}, row {row}, column {names[k]!r}: the cell is empty.")
            levels = column.levels
            labels = (
                [levels[int(v)] for v in cells] if levels else _whole_labels(f"{where}, column {names[k]!r}", cells)
            )
            column = Column(names[k], "level")
        else:
            values.append(cells)
        found.append(column)
    table = np.stack(values, 1)
    enough(str(where), len(table), how.least)
    places = [names[k] for k in kept]
    label = places.index(how.label) if how.label in places else None
    form = Form(tuple(found), label)
    return as_points(where, table, [name for name in places if name != how.label], labels, form)


def _whole_labels(where: str, cells: np.ndarray) -> list[str]:
    if (bad := cells != np.round(cells)).any():
        raise InputError(
            f"{where}, row {int(bad.argmax()) + 1}: {cells[bad.argmax()]} is not a label (an integer or text)."
        )
    return [str(int(v)) for v in cells]


def _column(where: Path | str, name: str, series: Any, how: Reading) -> tuple[Column, np.ndarray]:
    levels = how.levels_of(name)
    try:
        if levels is None and (found := _numeric(name, series) or _categorical(name, series)):
            column, cells = found
        else:
            column, cells = _objects(name, listed_cells(series), how)
    except Unfit as error:
        place = "" if error.place is None else f", row {error.place + 1}"
        raise InputError(f"{where}{place}, column {name!r}{':' * (error.place is not None)} {error.why}") from None
    if (bad := np.abs(cells) > LARGEST).any():
        row = int(bad.argmax())
        raise InputError(f"{where}, row {row + 1}, column {name!r}: {cells[row]:g} is not a finite float32 number.")
    return column, cells


def _numeric(name: str, series: Any) -> tuple[Column, np.ndarray] | None:
    """A column whose array is of numbers or booleans."""
    array = series if isinstance(series, np.ndarray) else series.to_numpy() if hasattr(series, "to_numpy") else None
    if array is None or array.dtype.kind not in "iufb":
        return None
    if array.dtype.kind == "b":
        return Column(name, "boolean", _TRUTH), array.astype(np.float64)
    whole = array.dtype.kind in "iu"
    return Column(name, "integer" if whole else "number", decimals=0 if whole else None), array.astype(np.float64)


def _categorical(name: str, series: Any) -> tuple[Column, np.ndarray] | None:
    """A column of pandas' or polars' categories, in their order."""
    kind: Any = getattr(series, "dtype", None)
    if hasattr(kind, "categories") and hasattr(kind, "ordered"):
        levels, ordered = tuple(map(str, kind.categories)), bool(kind.ordered)
        codes = np.asarray(series.cat.codes, np.float64)
        return Column(name, "level", levels, ordered), np.where(codes < 0, math.nan, codes)
    if str(kind).startswith(("Categorical", "Enum")) and hasattr(series, "cat"):
        enum = str(kind).startswith("Enum")
        levels = tuple(map(str, kind.categories) if enum else in_order(map(str, series.drop_nulls().unique())))
        place = {level: float(k) for k, level in enumerate(levels)}
        codes = np.array([math.nan if one is None else place[str(one)] for one in series.to_list()])
        return Column(name, "level", levels, enum), codes
    return None


def listed_cells(series: Any) -> list[Any]:
    """A column's cells, as Python's values where they have any; a single value is a column of one cell."""
    for take in ("to_pylist", "to_list", "tolist"):
        if hasattr(series, take):
            cells = getattr(series, take)()
            return list(cells) if isinstance(cells, list) else [cells]
    return list(series) if isinstance(series, Iterable) and not isinstance(series, str | bytes) else [series]


def _objects(name: str, cells: list[Any], how: Reading) -> tuple[Column, np.ndarray]:
    """A column of Python's own values: all numbers, all texts, all dates or all truth values, None and NaN missing."""
    marks = {*MISSING, *how.missing}
    gap = [absent(one) or (type(one) is str and one in marks) for one in cells]
    found = [one for one, missing in zip(cells, gap) if not missing]
    values = np.full(len(cells), math.nan)
    kinds = {_kind(one) for one in found}
    if how.levels_of(name) is not None or kinds == {"text"}:
        texts = ["" if missing else str(one).strip() for one, missing in zip(cells, gap)]
        kind = Reading(missing=how.missing, ordered=how.ordered, categorical=(*how.categorical, name))
        column, values = typed_column(name, texts, kind)
        if how.levels_of(name) is None:
            identified(len(column.levels), len(cells), name)
        return column, values
    if len(kinds - {"integer", "number"}) > 0 and len(kinds) > 1:
        place = next(k for k, one in enumerate(cells) if not gap[k] and _kind(one) != _kind(found[0]))
        raise Unfit(place, f"{short(str(cells[place]))} is no {_kind(found[0])}, as the first cell is.")
    where = ~np.array(gap, bool)
    if kinds == {"date"}:
        values[where] = [_days(one) for one in found]
        return Column(name, "date"), values
    if kinds == {"boolean"}:
        values[where] = found
        return Column(name, "boolean", _TRUTH), values
    if "other" in kinds:
        if isinstance(found[0], datetime.datetime):
            raise Unfit(None, timed(name))
        raise Unfit(gap.index(False), f"{short(str(found[0]))} is no number, text, date or truth value.")
    values[where] = [float(one) for one in found]
    whole = kinds == {"integer"}
    return Column(name, "integer" if whole else "number", decimals=0 if whole else None), values


def _kind(one: Any) -> str:
    if isinstance(one, bool | np.bool_):
        return "boolean"
    if isinstance(one, int | np.integer):
        return "integer"
    if isinstance(one, float | np.floating) or type(one).__name__ == "Decimal":
        return "number"
    if isinstance(one, str):
        return "text"
    if isinstance(one, datetime.datetime):
        return "date" if one.time() == datetime.time() else "other"
    return "date" if isinstance(one, datetime.date) else "other"


def _days(one: datetime.date) -> float:
    return float(one.toordinal() - _EPOCH)


# --- frames again ---------------------------------------------------------------------------------------------


def as_columns(x: Any, form: Form) -> dict[str, Any]:
    """Points as columns by name, of which pandas, polars and others make a data frame: `pandas.DataFrame(columns)`.

    x: (n, d), as in `Points`. Whole numbers and truth values without gaps are int64 and bool, levels texts or None, and
    dates datetime64[D].
    """
    table = as_array("x", x)
    values = table.astype(np.float64)
    if values.ndim != 2 or values.shape[1] != len(form.learned):
        raise InputError(f"x must have {len(form.learned)} columns, as its form has; got shape {values.shape}.")
    found: dict[str, Any] = {}
    for k, column in enumerate(form.learned):
        cells, gaps = values[:, k], np.isnan(values[:, k])
        name = column.name or str(k + 1)
        if column.kind == "boolean" and column.levels == _TRUTH and not gaps.any():
            found[name] = cells.astype(bool)
        elif column.levels:
            made: dict[str, Any] = dict(zip(_TRUTH, (False, True))) if column.levels == _TRUTH else {}
            levels = [made.get(level, level) for level in column.levels]
            found[name] = [None if gap else levels[int(cell)] for cell, gap in zip(cells, gaps)]
        elif column.kind == "date":
            days = np.where(gaps, 0, np.round(cells)).astype("datetime64[D]")
            days[gaps] = np.datetime64("NaT")
            found[name] = days
        elif column.kind == "integer" and (cells == np.round(cells)).all():
            found[name] = cells.astype(np.int64)
        else:  # 1.1 as it is written, and not the float32 next to it
            found[name] = table[:, k].astype(str).astype(np.float64)
    return found


def as_frame(x: Any, form: Form, like: Any) -> Any:
    """Points as a data frame of the class of `like`, whose columns of the same names lend theirs their types."""
    return framed(as_columns(x, form), like)


def framed(columns: Mapping[str, Any], like: Any) -> Any:
    """Columns as a data frame of the class of `like`, whose columns of the same names lend theirs their types."""
    frame = type(like)(dict(columns))
    own = [name for name in columns if name in like.columns]
    if not hasattr(frame, "astype"):
        return frame.cast({name: like.schema[name] for name in own if str(like.schema[name]) != "Null"})
    whole = [name for name in own if getattr(like[name].dtype, "kind", "O") not in "iu" or _whole(columns[name])]
    return frame.astype({name: like[name].dtype for name in whole})


def _whole(cells: Any) -> bool:
    return bool(np.all(np.asarray(cells) == np.round(cells)))


# --- files ----------------------------------------------------------------------------------------------------


def sheet_of(path: Path) -> tuple[Path, str]:
    """A file and its sheet, for FILE.xlsx:Sheet; "" is the first one."""
    name, colon, sheet = path.name.rpartition(":")
    return (path.with_name(name), sheet) if colon and name.lower().endswith(".xlsx") else (path, "")


def read_table(path: Path, how: Reading, sheet: str = "") -> Points:
    """The rows of a .parquet, .feather or .xlsx file."""
    return points_of_columns(path, (_xlsx if path.suffix.lower() == ".xlsx" else _arrow)(path, sheet), how)


def _arrow(path: Path, sheet: str) -> dict[str, Any]:
    try:
        from pyarrow import feather, parquet
    except ImportError:
        raise InputError(f"{path} needs pyarrow: pip install 'ebbtide[tables]'.") from None
    with damage(path):
        if path.suffix.lower() == ".parquet":
            about = parquet.read_metadata(path)
            room(NUMBER * about.num_rows * about.num_columns, str(path))
            table = parquet.read_table(path)
        else:
            table = feather.read_table(path)
    return {name: _arrow_column(table[name]) for name in table.column_names if name != "__index_level_0__"}


def _arrow_column(column: Any) -> Any:
    """A column of Arrow: numbers without gaps as an array, all else as Python's values."""
    kind = str(column.type)
    plain = kind.startswith(("int", "uint", "float", "double", "halffloat")) and not column.null_count
    return column.to_numpy() if plain else column.to_pylist()


def _xlsx(path: Path, sheet: str) -> dict[str, Any]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise InputError(f"{path} needs openpyxl: pip install 'ebbtide[tables]'.") from None
    with damage(path):
        book = load_workbook(path, read_only=True, data_only=True)
        if sheet and sheet not in book.sheetnames:
            raise InputError(f"{path} has no sheet {sheet!r}; it has {', '.join(map(repr, book.sheetnames))}.")
        rows = list((book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True))
    rows = [row for row in rows if any(cell is not None for cell in row)]
    if not rows:
        raise InputError(f"{path} is empty.")
    width = max(k + 1 for row in rows for k, cell in enumerate(row) if cell is not None)
    header = all(cell is None or isinstance(cell, str) for cell in rows[0][:width])
    names = [str(cell or "").strip() for cell in rows[0][:width]] if header else [str(k + 1) for k in range(width)]
    for k, name in enumerate(names):
        if not name or name in names[:k]:
            what = f"{name!r} names two columns" if name else "the header has no name for it"
            raise InputError(f"{path}, row 1, column {k + 1}: {what}.")
    return {name: [row[k] if k < len(row) else None for row in rows[header:]] for k, name in enumerate(names)}
