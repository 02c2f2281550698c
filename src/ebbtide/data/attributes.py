"""Numbers that belong to images: an array of their .npz, a table in their folder, or columns of their set."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..arrays import npz
from ..errors import InputError
from ..files import home
from ..formats import arrays
from ..specs import LARGEST, listed, named_ranges, require
from .forms import absent
from .gather import Found, Source
from .levels import Levels
from .text import written_cells

__all__ = ["ranges_of", "read_attributes", "scaled"]

_NAMES = "attribute_names"  # of a .npz: the columns of its attributes
_NUMBER = 8


def read_attributes(data: str, name: str, found: Found) -> tuple[Float[np.ndarray, "n k"], tuple[str, ...]]:
    """A row for each image that was found, NaN where a number is missing, and the columns' names.

    name: an array (n,) or (n, k) of the .npz, whose columns `attribute_names` names; a table in the folder of images,
    whose first column is each image's path in it; or columns of a Hugging Face set, which are found with the images.
    """
    path = home(data)
    if found.numbers is not None:
        values, names = found.numbers, found.names
    elif isinstance(found.images, Source) and path.is_dir():
        values, names = _of_folder(path, name, found.images)
    elif arrays(path) and not isinstance(found.images, Source):
        values, names = _of_npz(path, name, len(found.images))
    else:
        raise InputError(
            f"attributes are an array of a .npz, a .csv in a folder of images, or columns of hf:NAME; {data} is none."
        )
    for one in names:
        if names.count(one) > 1 or not one or one != one.strip() or not one.isprintable():
            raise InputError(f"{data}: attributes need different names, with no space around them; got {one!r}.")
    for one, column in zip(names, values.T):
        if np.nanmax(np.abs(column), initial=0.0) > LARGEST:
            raise InputError(f"{data}: attribute {one!r} must be at most {LARGEST:g} in size.")
    return values, names


def _of_npz(path: Path, name: str, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    held = npz(path)
    if name not in held:
        raise InputError(f"{path} has no array {name!r}; it has {listed(held)}.")
    array = held[name]
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2) or array.shape[0] != n or 0 in array.shape:
        raise InputError(f"{array.where} must hold {n} numbers, or rows of numbers; got {array.kind} {array.shape}.")
    values = np.asarray(array.read(_NUMBER), np.float64).reshape(n, -1)
    if np.isinf(values).any():
        raise InputError(f"{array.where} must hold finite numbers, NaN where one is missing; it holds infinity.")
    count = values.shape[1]
    names = tuple(map(str, held[_NAMES].read(_NUMBER).reshape(-1).tolist())) if _NAMES in held else ()
    if names and len(names) != count:
        raise InputError(f"{path}: {_NAMES} must name {count} attributes; it names {len(names)}.")
    return values, names or ((name,) if count == 1 else tuple(f"{name}{k + 1}" for k in range(count)))


def _of_folder(path: Path, name: str, images: Source) -> tuple[np.ndarray, tuple[str, ...]]:
    if Path(name).name != name:
        raise InputError(f"attributes of a folder must be a file in it, {path}; got {name!r}.")
    table = written_cells(path / name)
    (first, files), *others = table.columns.items()
    if not table.header or not others:
        raise InputError(f"{path / name} must have a header, a column of file names, and one of numbers or more.")
    rows = {file: row for row, file in enumerate(files)}
    values = np.empty((len(files), len(others)))
    for k, (column, cells) in enumerate(others):
        for row, cell in enumerate(cells):
            values[row, k] = _number(cell, f"{path / name}, row {row + table.first}, column {column!r}")
    missing = [images.name(i) for i in range(images.n) if images.name(i) not in rows]
    if missing:
        raise InputError(f"{path / name}: its column {first!r} doesn't name the image {missing[0]}.")
    return values[[rows[images.name(i)] for i in range(images.n)]], tuple(column for column, _ in others)


def _number(cell: str, where: str) -> float:
    if absent(cell) or not cell.strip():
        return np.nan
    try:
        value = float(cell)
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise InputError(f"{where}: an attribute must be a finite number; got {cell!r}.")
    return value


def ranges_of(values: Float[Tensor, "n k"], names: tuple[str, ...], chosen: str, where: str) -> dict[str, Levels]:
    """The range of each attribute: as chosen in NAME=LOW:HIGH,…, or from the least to the largest value.

    InputError where values lie beyond it, or there is none.
    """
    given = named_ranges("attribute_ranges", chosen)
    if given and set(given) != set(names):
        raise InputError(f"attribute_ranges must name {listed(names)}; got {listed(given)}.")
    ranges: dict[str, Levels] = {}
    for name, column in zip(names, values.T):
        known = column[~column.isnan()]
        if not len(known):
            raise InputError(f"{where}: attribute {name!r} is missing for all images to train on.")
        own = Levels(float(known.min()), float(known.max()))
        ranges[name] = Levels.parse(given[name]) if given else own
        low, high = ranges[name]
        for end in (low, high):
            require(f"attribute_ranges, an end of {name!r},", end, -LARGEST, LARGEST)
        if low == high:
            raise InputError(f"{where}: attribute {name!r} is {low:g} for all images, so nothing follows from it.")
        if own.low < low or own.high > high:
            raise InputError(f"{where}: attribute {name!r} goes from {own.low:g} to {own.high:g}, beyond its range.")
    return ranges


def scaled(values: Float[Tensor, "n k"], ranges: Mapping[str, Levels]) -> Float[Tensor, "n k"]:
    """Attributes as a network sees them: -1 at the low end of their range, 1 at the high one, NaN where missing."""
    low, high = (torch.tensor([float(ends[k]) for ends in ranges.values()]) for k in (0, 1))
    return 2 * (values - low) / (high - low) - 1
