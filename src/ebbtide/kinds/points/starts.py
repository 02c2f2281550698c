"""The rows of a file as the starting points of a run's samples."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.files import is_text, read
from ...data.forms import Reading
from ...data.text import written_cells
from ...errors import InputError
from ...specs import listed, named_list

if TYPE_CHECKING:
    from ...training.trained import Trained

__all__ = ["own_starts"]


def own_starts(trained: "Trained", file: str) -> Float[Tensor, "n d"]:
    """Every row of a table, in its order: the run's columns by their names, or by place where it or the file has none.

    A text table may have the run's label and dropped columns too; they are left alone. InputError for what doesn't fit.
    """
    own, recipe = trained.learned_columns, trained.recipe
    if trained.columns and is_text(file):
        table = written_cells(Path(file))
        if table.header:
            carried = ("", recipe.label, *named_list(getattr(recipe, "drop", "")))
            return trained.whole_rows(file, table.columns, carried=carried, first=table.first)
    points = read(file, how=Reading(least=1))
    if not points.plain:
        raise InputError(f"{file} must hold numbers without missing cells, as this run's columns do.")
    if trained.columns and points.columns and set(points.columns) != set(own):
        raise InputError(f"{file} must have the run's columns, {listed(own)}; it has {listed(points.columns)}.")
    if points.x.shape[1] != len(own):
        raise InputError(f"{file} must have {len(own)} columns, as the run has; it has {points.x.shape[1]}.")
    order = [points.columns.index(name) for name in own] if trained.columns and points.columns else [*range(len(own))]
    return points.x[:, torch.tensor(order)]
