"""The columns of a run's samples that are given: their values, what the network sees of them, and rows filled in."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codecs import IDENTITY, Cells, Codec, groups
from ..core.randomness import Draws, key
from ..data.forms import Column, Form, Unfit, absent
from ..data.frames import as_columns, frame_columns, framed, is_frame, listed_cells
from ..errors import InputError, meant
from ..recipes import Recipe
from ..specs import expect, listed, require, shaped
from .asked import Asked, tensor_of

__all__ = ["DRAW", "REACHED", "Completing", "merged", "repeated", "row_numbers"]

REACHED = 10.0  # in the network's units: values beyond it are in no table
DRAW = 2**32  # sample r + DRAW k is the k-th draw of row r, whatever rows and draws there are besides


def row_numbers(rows: int, draws: int) -> Int[Tensor, " n"]:
    """The samples' numbers, for some draws of each row, row by row.

    rows: the number of rows; draws: the number for each.
    """
    return (torch.arange(rows)[:, None] + DRAW * torch.arange(draws)).flatten()


class Completing:
    """The part of a `Trained` that draws columns given others."""

    recipe: Recipe
    shape: tuple[int, ...]
    codec: Codec | None
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    form: Form | None

    @property
    def learned_columns(self) -> dict[str, Column]:
        """The columns of a sample by their names, or numbers from 1."""
        if self.form is None:
            names = self.columns or tuple(str(k + 1) for k in range(self.shape[-1]))
            return {name: Column(name) for name in names}
        every = [(one.name or str(k + 1), one) for k, one in enumerate(self.form.columns)]
        return dict(one for k, one in enumerate(every) if k != self.form.label)

    @property
    def label_column(self) -> str | None:
        """The name of the labels' column in the run's table; None where that has none."""
        at = None if self.form is None else self.form.label
        return None if self.form is None or at is None else self.form.columns[at].name or str(at + 1)

    def asked_columns(self, given: Any, label: Any, n: int) -> tuple[Float[Tensor, "n d"] | None, Any]:
        """Known values of n samples, NaN where they are to be drawn, and their labels, from `trajectory`'s arguments.

        InputError where the run hasn't learned to be given any, and for values that its table doesn't have.
        """
        if given is None:
            return None, label
        self.refuse_given()
        if isinstance(given, Tensor | np.ndarray):
            given = tensor_of("given", given)
            shaped("given", given, "n", self.shape[-1])
            if len(given) not in (1, n):
                raise InputError(f"given must have one row or {n}; got {len(given)}.")
            known = given.detach().cpu().float()
            if found := self._beyond(known):
                name, least, most, got = found
                warnings.warn(
                    f"Some numbers lie beyond those of the table that was learned, such as {got} in {name!r} ({least} "
                    f"to {most}): the network sees the nearest of these.",
                    stacklevel=4,
                )
        else:
            expect("given", given, Mapping)
            cells = {str(name): self._cells(str(name), value, n) for name, value in given.items()}
            known, labels = self.known_rows("given", cells)
            if found := self._beyond(known):
                name, least, most, got = found
                raise InputError(
                    f"given, column {name!r}: it must be at least {least} and at most {most}, as in the table that was "
                    f"learned; got {got}."
                )
            if labels is not None and label is not None:
                raise InputError(f"given names {self.label_column!r}, which label is too; give one of them.")
            label = label if labels is None else labels
        return known.expand(n, -1), label

    def refuse_given(self) -> None:
        """InputError for a run that hasn't learned to draw columns given others."""
        if not self.recipe.learns_columns:
            raise InputError(
                "This run can't be given columns, since it was trained without any: train it with --any-columns "
                "(any_columns=True)."
            )

    def _cells(self, name: str, value: Any, n: int) -> list[Any]:
        """A column's values for n samples: one for all, or one for each."""
        if isinstance(value, str) or not (isinstance(value, Sequence | Tensor | np.ndarray) or hasattr(value, "dtype")):
            return [value]
        cells = listed_cells(value) if getattr(value, "ndim", 1) else [value.item()]
        if len(cells) not in (1, n):
            raise InputError(f"given {name!r} must be one value or {n}; got {len(cells)}.")
        return cells

    def known_rows(
        self, where: str, columns: Mapping[str, Sequence[Any]], carried: Sequence[str] = (), first: int = 0
    ) -> tuple[Float[Tensor, "n d"], list[str] | None]:
        """Cells by column as rows, NaN where they are missing or there is no such column; and labels, if given.

        where, first: what errors call them, and the number of the first row; 0 for rows without numbers. carried:
        columns that the run hasn't learned, which are left alone.
        """
        own, n = self.learned_columns, max((len(cells) for cells in columns.values()), default=1)
        known, labels = torch.full((n, len(own)), torch.nan, dtype=torch.float64), None
        for name, cells in columns.items():
            if name == self.label_column and self.recipe.conditional:
                labels = [str(cell).strip() for cell in cells] * (n // len(cells))
                if gap := [row for row, cell in enumerate(cells) if absent(cell) or not labels[row]]:
                    raise InputError(
                        f"{_place(where, name, gap[0], first)} the run draws the other columns given its label, not "
                        "the label; train without --label to have it drawn."
                    )
            elif name in own:
                values = []
                for row, cell in enumerate(cells):
                    try:
                        values.append(own[name].value(cell))
                    except Unfit as error:
                        raise InputError(f"{_place(where, name, row, first)} it {error.why}") from None
                known[:, list(own).index(name)] = torch.tensor(values, dtype=torch.float64)
            elif name not in carried:
                raise InputError(
                    f"{where}: {name!r} is no column that the run has learned{meant(name, own)}; it has {listed(own)}."
                )
        return known.float(), labels

    def _beyond(self, known: Float[Tensor, "n d"]) -> tuple[str, str, str, str] | None:
        """A number beyond those of the table: its column, the table's ends, and itself; None where there is none."""
        low, high = self._ends()
        beyond = ((known < low) | (known > high)).nonzero().tolist()
        if not beyond:
            return None
        row, k = beyond[0]
        name, column = list(self.learned_columns.items())[k]
        if column.levels:
            raise InputError(f"given, column {name!r}: it must be the place of a level, 0 to {len(column.levels) - 1}.")
        least, most, got = column.text(torch.stack([low[k], high[k], known[row, k]]).numpy())
        return name, least, most, got

    def _ends(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """The least and the largest value of each column in the table, or those REACHED away; of levels their places.

        Ranks end at the table's own values, as Φ(±REACHED) rounds to 0 and 1. Columns in their own units have no ends.
        """
        tells, scaled = groups(self.codec, self.shape[-1]).tells, getattr(self.recipe, "standardise", True)
        reach = REACHED if scaled and self.codec not in (None, IDENTITY) else torch.inf
        ends = torch.tensor([[-reach], [reach]]).repeat(1, len(tells)).masked_fill(tells, -REACHED)
        low, high = ends if self.codec is None else self.codec.decode(ends)
        last = torch.tensor([len(column.levels) - 1.0 for column in self.learned_columns.values()])
        low, high = (end.nan_to_num(own, torch.inf, -torch.inf) for end, own in ((low, -torch.inf), (high, torch.inf)))
        return low.where(last < 0, 0.0), high.where(last < 0, last)

    def codes(self, known: Float[Tensor, "n d"] | None, fill: bool, draws: Draws) -> Tensor | None:
        """Known values as the network is given them: in its units, NaN where nothing is known; None where all is.

        A value of an interval, such as a level's, is drawn from it, as in training. fill: that there is a cell in every
        column is known, too.
        """
        n, d, codec = len(draws.ids), self.shape[-1], self.codec
        columns = groups(codec, d)
        if known is None and not (fill and bool(columns.tells.any())):
            return None
        known = torch.full((n, d), torch.nan) if known is None else known
        mask = ~known.isnan()[:, columns.column] | (columns.tells & fill)
        x = known.clamp(*self._ends()).nan_to_num(0.0)
        if isinstance(codec, Cells):
            v = Draws(key(draws.seed, "given"), draws.ids.cpu())(0, torch.empty(mask.shape, dtype=torch.float64))
            z = codec.encode_with(x, torch.special.ndtr(v))
        else:
            z = x if codec is None else codec.encode(x)
        return z.masked_fill(~mask, torch.nan).to(draws.ids.device)

    def finished(self: Any, z: Float[Tensor, "n ..."], asked: Asked, most: int = 2**30) -> Float[Tensor, "n ..."]:
        """The end of a walk in data units, `most` decoded at a time; what was given of it to the last bit.

        asked: what the samples were drawn given.
        """
        if asked.fill:  # a level for missing cells is never the largest, whatever the others are
            z = z.masked_fill(groups(self.codec, self.shape[-1]).tells.to(z.device), -REACHED)
        x = torch.cat([*map(self.to_data, z.split(most))])
        return x if asked.known is None else x.where(asked.known.isnan().to(x.device), asked.known.to(x))

    def complete(self: Any, rows: Any, draws: int = 1, *, seed: int = 0, label: Any = None, **options: Any) -> Any:
        """A data frame whose missing cells and columns are drawn given the others, which come back as they are.

        rows: of pandas or polars. draws: of each row; if more than one, they are next to each other, and a last column
        `draw` numbers them from 1. options: as in `sample`. The k-th draw of row i depends on (seed, i, k) alone.
        """
        self.refuse_given()
        require("draws", draws, 1, DRAW, whole=True)
        if not is_frame(rows):
            raise InputError(f"rows must be a data frame of pandas or polars; got {type(rows).__name__}.")
        columns = {name: listed_cells(cells) for name, cells in frame_columns("rows", rows).items()}
        known, labels = self.known_rows("rows", columns, first=1)
        x = self.sample(
            len(known) * draws, seed=seed, given=known.repeat_interleave(draws, 0), fill=True,
            ids=row_numbers(len(known), draws), label=label if labels is None else repeated(labels, draws), **options,
        )  # fmt: skip
        found = as_columns(x.cpu(), self.form or Form(tuple(self.learned_columns.values())))
        return framed(merged(columns, {name: listed_cells(cells) for name, cells in found.items()}, known, draws), rows)


def merged(
    columns: Mapping[str, Sequence[Any]], drawn: Mapping[str, Sequence[Any]], known: Float[Tensor, "n d"], draws: int
) -> dict[str, list[Any]]:
    """Columns with the cells that were drawn where none were known, and those drawn as a whole; see `complete`.

    drawn: the learned columns in their order, of rows that are repeated; known: as `known_rows` returns it. draws: the
    number for each row.
    """
    gaps = {name: repeated(own, draws) for name, own in zip(drawn, known.isnan().T.tolist())}
    found = {name: repeated(cells, draws) for name, cells in columns.items()}
    for name, cells in drawn.items():
        own = found.get(name, cells)
        found[name] = [new if gap else cell for cell, new, gap in zip(own, cells, gaps[name])]
    if draws > 1:
        name = next(name for name in ("draw", "draw_", "draw__") if name not in found)
        found[name] = [k + 1 for _ in range(len(known)) for k in range(draws)]
    return found


def repeated(cells: Sequence[Any], times: int) -> list[Any]:
    """Each of these as often, next to each other.

    cells: the values. times: how often each.
    """
    return [cell for cell in cells for _ in range(times)]


def _place(where: str, name: str, row: int, first: int) -> str:
    return f"{where}{f', row {row + first}' * (first > 0)}, column {name!r}:"
