"""Ticks that aren't numbers: dates by the length of the time shown, levels by their names."""

from itertools import pairwise

import pytest

from ebbtide.data.forms import Column
from ebbtide.plots import style, ticks


def labels(axis):
    axis.get_figure().canvas.draw()
    return [text.get_text() for text in axis.get_ticklabels()]


@pytest.mark.parametrize(
    ("low", "high", "first"),
    [(19723, 19763, "2024-01-"), (19723, 20123, "2024-0"), (0, 9000, "197"), (-400, -1, "1969-")],
)
def test_days_are_written_as_dates(low, high, first):
    """Days since 1970: 19723 is the first of 2024."""
    ax = style.axes_grid(1, 1, panel=(3, 1), margin=(0.4, 0.2, 0.2, 0.4)).axes[0, 0]
    ax.set_xlim(low, high)
    ticks.days(ax.xaxis)
    found = labels(ax.xaxis)
    assert found[0].startswith(first)
    assert len(found) > 1
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("width", [1.4, 2, 3])
@pytest.mark.parametrize("last", range(19800, 20200, 10))
def test_dates_reach_over_no_end_of_their_axis(width, last):
    """Else they lie on those of the panel beside."""
    ax = style.axes_grid(1, 1, panel=(width, 1.4), margin=(0.4, 0.4, 0.4, 0.4)).axes[0, 0]
    ax.set(xlim=(19358, last), ylim=(19358, last))
    for axis in (ax.xaxis, ax.yaxis):
        ticks.days(axis)
    assert len(labels(ax.yaxis)) > 1
    frame, found = ax.get_window_extent(), [text.get_window_extent() for text in ax.get_xticklabels()]
    assert len(found) > 1
    assert frame.x0 - 1 <= found[0].x0
    assert found[-1].x1 <= frame.x1 + 1
    assert all(one.x1 < other.x0 for one, other in pairwise(found))


def test_long_names_of_levels_are_shortened_and_many_are_turned():
    ax = style.axes_grid(1, 1, panel=(3, 1), margin=(0.4, 0.2, 0.2, 0.4)).axes[0, 0]
    ticks.level_names(ax.xaxis, ("ash", "a tree with a long name", "elm"), 3.0, across=True)
    found = labels(ax.xaxis)
    assert found[::2] == ["ash", "elm"]
    assert found[1].endswith("…")
    assert {text.get_rotation() for text in ax.get_xticklabels()} == {90}
    ticks.level_names(ax.yaxis, ("ash", "elm"), 1.0)
    assert labels(ax.yaxis) == ["ash", "elm"]
    assert ticks.shortened("abcdefghij", 4.5 * style.EM * 8, 8.0) == "abc…"


def test_a_columns_form_gives_its_ticks():
    form = (Column("size", "level", ("large", "medium", "small")), Column("day", "date"), Column("amount", "number"))
    ax = style.axes_grid(1, 1, panel=(3, 1), margin=(0.4, 0.2, 0.2, 0.4)).axes[0, 0]
    ax.set(xlim=(-0.5, 2.5), ylim=(19723, 20123))
    ticks.form_ticks(ax.xaxis, form, 0, 3.0, across=True)
    ticks.form_ticks(ax.yaxis, form, 1, 0.4)
    assert labels(ax.xaxis) == ["large", "medium", "small"]
    assert labels(ax.yaxis)[0].startswith("2024-0")
    before = labels(ax.yaxis)
    for place in (2, 3):  # numbers, and a column of data without a form
        ticks.form_ticks(ax.yaxis, form, place, 0.4)
    assert labels(ax.yaxis) == before
    assert ticks.form_room(form) == (0.3, 0.4)
    assert ticks.form_room(form[:1]) == (0, 0.4)
    assert ticks.form_room(()) == ticks.form_room(form[2:]) == (0, 0)
