"""Data in memory, as `ebbtide.fit` takes it: arrays, tensors and data frames become Points or Images."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .forms import Reading
from .frames import frame_columns, is_frame, points_of_columns
from .images import Found, Images, as_images
from .table import Points, as_array, as_points, finite_table, label_array, labels_of_rows, rows_of

__all__ = ["given_images", "given_points"]


def given_points(x: Any, y: Any = None, how: Reading | None = None) -> Points:
    """The rows of x (n, d) or (n,), and their labels.

    x: a NumPy array, a tensor, nested lists, or a data frame, whose columns keep their names and kinds: numbers, texts,
    categories, truth values, dates, and gaps. y: a label for each row, integers or text; of a data frame also the name
    of a column. how: options of a data frame's columns. InputError for any other content.
    """
    if isinstance(y, str | int):
        if not hasattr(x, "columns"):
            raise InputError(f"y names a column, which only a data frame has; got y={y!r} for {type(x).__name__}.")
        if y not in x.columns:
            raise InputError(f"y names no column: {y!r} is not among {', '.join(map(str, x.columns))}.")
    if is_frame(x):
        named = isinstance(y, str | int)
        own = replace(how or Reading(), label=str(y) if named else None)
        labels = None if named or y is None else _labels(y, len(x))
        return points_of_columns("X", frame_columns("X", x), own, labels)
    if how is not None and how != Reading(how.label):
        raise InputError("Columns are named of a data frame; X is none.")
    table, columns = rows_of("X", x)
    if table.dtype.kind not in "iuf" or table.ndim not in (1, 2) or 0 in table.shape[1:] or len(table) < 2:
        raise InputError(
            f"X must be at least 2 rows of real numbers, (n, d) or (n,); got {table.dtype} of shape {table.shape}."
        )
    return as_points("X", finite_table("X", table), columns, _labels(y, len(table)))


def given_images(x: Any, y: Any = None, *, size: int = 0, channels: int = 0) -> Images:
    """Images of uint8, (n, h, w), (n, h, w, c) or, of a tensor, (n, c, h, w), and their labels, as in `given_points`.

    size, channels: as in `images.load`.
    """
    array = as_array("X", x)
    if isinstance(x, torch.Tensor) and array.ndim == 4 and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or (*array.shape, 1)[3] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"X must be images in uint8, (n, h, w) or (n, h, w, c) with c = 1, 3 or 4; got {array.dtype} of shape "
            f"{array.shape}."
        )
    found = Found(array.reshape((*array.shape, 1)[:4]), _labels(y, len(array)))
    return as_images(found, "X", size=size, channels=channels)


def _labels(y: Any, n: int) -> list[str] | None:
    return None if y is None else label_array("y", labels_of_rows("y", y, n))
