import numpy as np
import pytest

from ebbtide.data.forms import Column
from ebbtide.errors import InputError
from ebbtide.kinds.points.data import limits
from ebbtide.plots import columns, style
from ebbtide.plots.points import Panel
from ebbtide.recipes import PointRecipe
from plots.material import comparison
from plots.panels import ACROSS, colours, limits_of, panels_of, texts


@pytest.mark.parametrize("d", ACROSS)
def test_histograms_have_a_panel_a_column(d):
    c = comparison(d=d, n=1500, m=120)
    figure = columns.histograms(panels_of(c)[1:3], limits_of(c), real=c.real, names=c.columns)
    assert len(figure.axes) == d
    assert {"real data", "diffusion"} <= set(texts(figure))


def test_pairs_put_one_method_on_either_side_of_the_diagonal():
    c = comparison(d=5, n=1500, m=120)
    chosen = [panels_of(c)[1], panels_of(c)[-1]]
    figure = columns.pairs(chosen, limits_of(c), real=c.real, names=c.columns)
    axes = np.array(figure.axes).reshape(4, 4)
    assert style.DIFFUSION in colours(axes[2, 0])
    assert style.FLOW in colours(axes[0, 2])
    assert [ax.get_xlabel() for ax in axes[3]] == ["x", "y", "z", "u"]
    assert {
        "▙ diffusion",
        "▜ flow",
        "○ 95 % of the real points",
        f"4 of 5 columns are shown; not shown: {c.columns[4]!r}.",
    } <= set(texts(figure))
    with pytest.raises(InputError, match="two columns"):
        columns.pairs(chosen, np.array([[0.0, 1.0]]), real=np.zeros((5, 1)))


def test_pairs_draw_one_column_to_the_right_and_one_upwards():
    """The name below a panel is of what runs to the right, the name beside it of what runs upwards."""
    x = np.arange(12.0).reshape(3, 4) + np.array([0, 100, 200, 300])
    figure = columns.pairs([Panel("a", x, style.FLOW)], limits(PointRecipe(data="a.csv"), x), real=x, names="abcd")
    axes = np.array(figure.axes).reshape(4, 4)
    for (i, j), ax in np.ndenumerate(axes):
        if i != j:
            np.testing.assert_allclose(ax.lines[0].get_xydata(), x[:, [j, i]])
    assert [ax.get_ylabel() for ax in axes[:, 0]] == [*"abcd"]
    assert [ax.get_xlabel() for ax in axes[3]] == [*"abcd"]


def test_dates_and_levels_are_written_on_the_axes():
    """Days 0 to 299 of 2024, which begins with day 19723, and three levels; not on the axis of a distribution."""
    x = np.stack([19723 + np.arange(300.0), np.arange(300.0) % 3, np.linspace(0, 1, 300)], 1)
    form = (Column("when", "date"), Column("kind", "level", ("ash", "oak", "elm")), Column("size"))
    frame = np.array([[19700.0, 20050], [-0.5, 2.5], [-0.1, 1.1]])
    figure = columns.pairs([Panel("a", x, style.FLOW)], frame, real=x, names=("when", "kind", "size"), form=form)
    figure.canvas.draw()
    across = [[text.get_text() for text in ax.get_xticklabels()] for ax in figure.axes[-3:]]
    assert all(text.startswith("2024-") for text in across[0])
    assert len(across[0]) > 1
    assert across[1] == ["ash", "oak", "elm"]
    assert across[2][0].startswith("0")
    assert [text.get_text() for text in figure.axes[3].get_yticklabels()] == ["ash", "oak", "elm"]
    alone = columns.histograms([Panel("a", x, style.FLOW)], frame, real=x, names=("when", "kind", "size"), form=form)
    alone.canvas.draw()
    ticks = [[text.get_text() for text in ax.get_xticklabels()] for ax in alone.axes]
    assert all(text.startswith("2024-") for text in ticks[0])
    assert ticks[1] == ["ash", "oak", "elm"]
    assert ticks[2][0].startswith("0")
