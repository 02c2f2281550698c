"""Names and ticks along the axes of a table's columns, of which dates and levels are written as such."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import Locator

from ..data.forms import Column
from . import style

__all__ = [
    "MOST_LEVELS",
    "TINY",
    "days",
    "form_room",
    "form_ticks",
    "has_turned",
    "level_names",
    "name_axes",
    "named_margin",
    "shortened",
]

TINY = 7.0  # points, of a level's name
MOST_LEVELS = 6  # whose names an axis has room for
TURNED = 2  # levels beyond which their names are turned


def form_ticks(axis: Axis, form: Sequence[Column], place: int, room: float, across: bool = False) -> None:
    """Ticks of one column of a table, where these aren't numbers: dates, or the names of at most MOST_LEVELS levels.

    axis: whose ticks they are. form: of all columns; none for data without any. place: of the axis's column among
    them. room, across: as in `level_names`.
    """
    column = form[place] if place < len(form) else None
    if column is not None and column.kind == "date":
        days(axis)
    elif column is not None and 0 < len(column.levels) <= MOST_LEVELS:
        level_names(axis, column.levels, room, across)


def form_room(form: Sequence[Column]) -> tuple[float, float]:
    """Inches beside and under a panel that ticks of two columns, the first across, need beyond those of numbers.

    form: of all columns, as in `form_ticks`.
    """
    beside = form[1] if len(form) > 1 else Column("", "number")
    wide = beside.kind == "date" or 0 < len(beside.levels) <= MOST_LEVELS
    return 0.3 * wide, 0.4 * has_turned(form[:1])


def has_turned(form: Sequence[Column]) -> bool:
    """True if the names of some column's levels are turned, where it runs across. form: of the columns."""
    return any(TURNED < len(column.levels) <= MOST_LEVELS for column in form)


def name_axes(
    ax: Axes,
    names: Sequence[str],
    labels: tuple[bool, bool] = (True, True),
    form: Sequence[Column] = (),
    width: float = 4.4,
) -> None:
    """Write the names of the first two columns along a panel's axes, where `labels` (x, y) wants them.

    form: of a table's columns, whose dates and levels are written as such. width: inches of the panel.
    """
    for k, (axis, shown, room) in enumerate(zip((ax.xaxis, ax.yaxis), labels, (width, 0.42))):
        if shown and k < len(names):
            text = names[k] if len(names[k]) <= 28 else f"{names[k][:27]}…"
            axis.set_label_text(text, size=style.SMALL, color=style.QUIET)
            axis.labelpad = 2
        if shown:
            form_ticks(axis, form, k, room, across=k == 0)


def named_margin(
    margin: tuple[float, float, float, float], names: Sequence[str], form: Sequence[Column] = ()
) -> tuple[float, float, float, float]:
    """A margin (left, right, top, bottom) with room for names along the axes, and for the ticks of a table's form."""
    left, right, top, bottom = margin
    beside, under = form_room(form)
    return (left + 0.2 * bool(names) + beside, right, top, bottom + 0.18 * bool(names) + under)


def days(axis: Axis) -> None:
    """Ticks of an axis of days since 1970, none beyond its ends: as dates, of a longer time as months or years."""
    low, high = axis.get_view_interval()
    length = len("1970") if high - low > 3653 else len("1970-01") if high - low > 150 else len("1970-01-01")
    axis.set_major_locator(_Dates(length))
    axis.set_tick_params(labelsize=TINY)  # clear of the column's name
    axis.set_major_formatter(lambda value, _: str(np.datetime64(round(value), "D"))[:length])


class _Dates(Locator):
    """Two or three dates, first days of a month or year where these fit, whose texts lie within their axis.

    Beyond its ends others begin. length: of the texts, in letters.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self) -> Any:
        axis: Any = self.axis
        low, high = sorted(axis.get_view_interval())
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Places between vmin and vmax."""
        axis: Any = self.axis  # which matplotlib allows to be none, or a dummy
        axes, across = axis.axes, axis.axis_name == "x"
        place, (width, height) = axes.get_position(), axes.figure.get_size_inches()
        text = TINY * (self.length * style.EM if across else 2 / 72)
        text *= (vmax - vmin) / (place.width * width if across else place.height * height)
        count = 3 if 3.3 * text < vmax - vmin else 2
        even = vmin + (vmax - vmin) * (np.arange(count) + 0.5) / count
        days = np.round(even).astype("datetime64[D]")
        unit = {4: "Y", 7: "M"}.get(self.length, "D")
        first = days.astype(f"datetime64[{unit}]").astype("datetime64[D]").astype(float)
        fits = (np.abs(first - even) < (vmax - vmin) / count / 2 - 0.55 * text) & (first >= vmin)
        return np.unique(np.where(fits, first, days.astype(float)))


def level_names(axis: Axis, levels: Sequence[str], room: float, across: bool = False) -> None:
    """Ticks of an axis of at most MOST_LEVELS levels, at their places.

    room: inches of the axis, or, of one that doesn't run across, beside it. across: their names are turned where
    there are more than two.
    """
    turned = across and len(levels) > TURNED
    width = 0.62 if turned else room / (len(levels) if across else 1)
    axis.set_ticks(range(len(levels)), [shortened(level, width, TINY) for level in levels], size=TINY)
    if turned:
        axis.set_tick_params(rotation=90)


def shortened(text: str, width: float, size: float = style.SMALL) -> str:
    """A text that fits into `width` inches, cut where it is longer."""
    most = max(3, int(width / (style.EM * size)))
    return text if len(text) <= most else text[: most - 1] + "…"
