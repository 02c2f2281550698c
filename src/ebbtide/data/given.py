"""Data in memory, as `ebbtide.fit` takes it: arrays, tensors and data frames become Points or Images."""

from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .files import as_points, finite_table, label_array
from .images import Found, Images, as_images
from .table import Points


def given_points(x: Any, y: Any = None) -> Points:
    """The rows of x (n, d) or (n,), and their labels.

    x: a NumPy array, a tensor, nested lists, or a data frame, whose columns keep their names. y: a label for each row,
    integers or text; of a data frame also the name of a column. InputError for what is not numbers, or not finite.
    """
    columns: tuple[str, ...] = ()
    if hasattr(x, "columns") and hasattr(x, "to_numpy"):  # a data frame, without importing the package
        if isinstance(y, str):
            if y not in x.columns:
                raise InputError(f"y names no column: {y!r} is not among {', '.join(map(str, x.columns))}.")
            x, y = x.drop(columns=[y]), x[y]
        columns = tuple(map(str, x.columns))
        if len(set(columns)) < len(columns):
            raise InputError(f"X has two columns named {max(columns, key=columns.count)!r}.")
        if text := [str(name) for name in x.columns if not _numeric(x[name])]:
            raise InputError(f"X, column {text[0]!r} must hold numbers; encode it, leave it out, or name it as y.")
        x = x.to_numpy(dtype=np.float64, na_value=np.nan)  # also of columns that may hold missing values
        if (missing := np.isnan(x)).any():
            row, column = np.argwhere(missing)[0]
            raise InputError(f"X, row {row + 1}, column {columns[column]!r}: a value is missing; fill or drop it.")
    elif isinstance(y, str):
        raise InputError(f"y names a column, which only a data frame has; got y={y!r} for {type(x).__name__}.")
    table = _array("X", x)
    if table.dtype.kind not in "iuf" or table.ndim not in (1, 2) or 0 in table.shape[1:] or len(table) < 2:
        raise InputError(
            f"X must be at least 2 rows of real numbers, (n, d) or (n,); got {table.dtype} of shape {table.shape}."
        )
    return as_points("X", finite_table("X", table), columns, _labels(y, len(table)))


def given_images(x: Any, y: Any = None, *, size: int = 0, channels: int = 0) -> Images:
    """Images of uint8, (n, h, w), (n, h, w, c) or, of a tensor, (n, c, h, w), and their labels, as in `given_points`.

    size, channels: as in `images.load`.
    """
    array = _array("X", x)
    if isinstance(x, torch.Tensor) and array.ndim == 4 and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or (*array.shape, 1)[3] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"X must be images in uint8, (n, h, w) or (n, h, w, c) with c = 1, 3 or 4; got {array.dtype} of shape "
            f"{array.shape}."
        )
    found = Found(array.reshape((*array.shape, 1)[:4]), _labels(y, len(array)))
    return as_images(found, "X", size=size, channels=channels)


def _numeric(column: Any) -> bool:
    return getattr(column.dtype, "kind", "O") in "iuf"


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{name} has masked values; fill or drop them.")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype is torch.bfloat16 else value
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} can't be made an array: {' '.join(str(error).split())[:200]}.") from error


def _labels(y: Any, n: int) -> list[str] | None:
    if y is None:
        return None
    labels = _array("y", y)
    if labels.dtype.kind == "O" and all(isinstance(one, str | int | np.integer) for one in labels.reshape(-1)):
        labels = labels.astype(str)
    if labels.shape not in ((n,), (n, 1)):
        raise InputError(f"y must hold a label for each of {n} rows; got shape {labels.shape}.")
    return label_array("y", labels.reshape(-1))
