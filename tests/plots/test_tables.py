"""Small multiples of tables: what is drawn, of which columns, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics.tables import Rows
from ebbtide.plots import style, tables
from metrics.tables.people import numbers, people


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]


def inside(figure):
    """Every text that is seen lies on the page."""
    figure.canvas.draw()
    box = figure.bbox
    for text in figure.findobj(lambda one: hasattr(one, "get_text") and one.get_visible() and one.get_text()):
        own = text.get_window_extent()
        if text.get_figure() is figure and own.width:
            assert own.x0 >= box.x0 - 2, text.get_text()
            assert own.x1 <= box.x1 + 2, text.get_text()


def test_a_column_has_a_panel_in_the_order_asked_for():
    real, samples = people(80), people(60, seed=1)
    figure = tables.marginals(real, samples, colour=style.FLOW, order=[2, 0, 5, 4, 3], notes={0: "KS 0.10"})
    assert len(figure.axes) == 5
    found = texts(figure)
    assert [name for name in found if name in real.names] == ["kind", "size", "gappy", "gone", "same"]
    assert "KS 0.10" in found
    assert "no cell" in found
    missing = next(text for text in found if text.startswith("missing"))
    assert missing.startswith(f"missing {100 * np.isnan(real.x[:, 5]).mean():.0f} %")
    inside(figure)


def test_many_columns_and_levels_and_long_names():
    names = tuple(f"a rather long name of column {k}" for k in range(40))
    levels = ((),) * 39 + (tuple(f"level {k} of a column with many long ones" for k in range(9)),)
    x = np.abs(np.random.default_rng(0).normal(size=(50, 40)) * 3).round()
    rows = Rows.of(torch.from_numpy(np.minimum(x, 8)), names, levels)
    figure = tables.marginals(rows, rows, colour=style.FLOW, order=[39, *range(39)])
    assert len(figure.axes) == 32
    found = texts(figure)
    assert any(text.startswith("Not shown: 'a rather") for text in found)
    assert any("others" in text for text in found)
    inside(figure)
    assert len(tables.marginals(rows, rows, colour=style.FLOW, order=[0, 1, 39], large=True).axes) == 3


@pytest.mark.parametrize(("span", "length"), [(40, 10), (400, 7), (9000, 4)])
def test_dates_are_written_as_dates(span, length):
    """The days 0 to `span` after 2024-01-01, which is day 19723."""
    x = np.stack([19723 + np.linspace(0, span, 60).round(), np.linspace(0, 1, 60)], 1)
    rows = replace(Rows.of(torch.from_numpy(x), ("when", "size")), dates=("when",))
    found = tables.marginals(rows, rows, colour=style.FLOW), tables.pairs(rows, rows, [0, 1], colour=style.FLOW)
    for figure in found:
        inside(figure)
        day = [text for text in texts(figure) if text.startswith("20")]
        assert day
        assert all(len(text) == length and text[:4].isdigit() for text in day), day
        assert not [text for text in texts(figure) if "e+" in text or text.startswith("19723")]


def test_bars_of_levels_are_their_shares():
    real = Rows.of(torch.tensor([[0.0], [0.0], [0.0], [1.0]]), ("k",), (("x", "y"),))
    samples = Rows.of(torch.tensor([[1.0], [1.0], [0.0], [1.0]]), ("k",), (("x", "y"),))
    (ax,) = tables.marginals(real, samples, colour=style.FLOW).axes
    assert [bar.get_width() for bar in ax.patches] == [0.75, 0.25]
    assert [line.get_xdata()[0] for line in ax.lines] == [0.25, 0.75]


def test_maps_show_real_below_and_samples_above_and_the_difference():
    a, b = np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.2], [-0.2, 1.0]])
    figure = tables.correlation_maps(["x", "y"], a, b)
    both, off = (ax.images[0].get_array() for ax in figure.axes[:2])
    assert both.tolist() == [[0, -0.2], [0.5, 0]]
    assert off.tolist() == [[0, -0.7], [-0.7, 0]]
    assert a[0, 0] == 1  # as it was
    names = [f"number {k}" for k in range(60)]
    figure = tables.correlation_maps(names, np.eye(60), np.eye(60))
    assert figure.axes[0].images[0].get_array().shape == (40, 40)
    assert "The 40 of 60 numbers that depend most on another." in texts(figure)
    with pytest.raises(InputError, match="must be two 3 × 3 matrices"):
        tables.correlation_maps(["x", "y", "z"], a, b)


def test_pairs_have_samples_below_and_real_rows_above():
    real, samples = people(40), people(30, seed=1)
    figure = tables.pairs(real, samples, [0, 2], colour=style.FLOW)
    top, right, below, last = figure.axes
    assert "size" in {text.get_text() for text in top.texts}
    assert "kind" in {text.get_text() for text in last.texts}
    assert below.lines[0].get_color() == style.FLOW
    assert right.lines[0].get_color() == style.REAL
    assert np.allclose(below.lines[0].get_xdata(), samples.x[:, 0])
    assert np.abs(below.lines[0].get_ydata() - samples.x[:, 2]).max() < 0.5  # spread about its level
    assert [label.get_text() for label in below.get_yticklabels()] == ["a", "b", "c"]
    inside(figure)
    inside(tables.pairs(real, samples, [4, 3, 5, 1], colour=style.FLOW))  # an empty column, a constant, gaps


def test_what_can_t_be_drawn_is_one_sentence():
    with pytest.raises(InputError, match="Pairs need 2 to 5 columns; got 1"):
        tables.pairs(people(9), people(9), [0], colour=style.FLOW)
    with pytest.raises(InputError, match="rows of the same columns"):
        tables.marginals(people(9), numbers(np.zeros((3, 2))), colour=style.FLOW)
