import numpy as np
import pytest
import torch

from ebbtide.data import DATASETS
from ebbtide.kinds.points.data import limits
from ebbtide.plots import dataset, style
from ebbtide.recipes import PointRecipe
from plots.panels import texts
from plots.tiles import colour_at


def test_an_exact_density_is_drawn_where_it_is():
    """Its peak is to the right and below the middle, as are the points beside it."""
    peak = lambda x: -20 * ((x - torch.tensor([1.5, 11.0])) / torch.tensor([1.0, 2.0])).square().sum(-1)
    x, frame = np.tile([[1.5, 11.0]], (9, 1)), np.array([[0.0, 2.0], [10.0, 14.0]])
    figure = dataset.data_set(x, frame, log_density=peak)
    dots, density = figure.axes
    for ax, best in ((dots, min), (density, max)):
        shades = {(x, y): colour_at(figure, ax, x, y).sum() for x in (0.5, 1.5) for y in (11, 13)}
        assert best(shades, key=shades.get) == (1.5, 11)


def test_a_table_is_shown_by_its_columns_names():
    """A constant column and one of millions have ticks that stand apart, and nothing beside the axis's name."""
    x = np.random.default_rng(0).normal(size=(500, 6)) * 0.3 + [0, 0, 7, 3, 0, 0]
    x[:, 2] = 7
    x[:, 3] *= 1e6
    figure = dataset.data_set(x, limits(PointRecipe(data="a.csv"), x), names="abcdef")
    assert [ax.get_xlabel() for ax in figure.axes[-4:]] == [*"abcd"]
    assert {"○ 95 % of the real points", "4 of 6 columns are shown; not shown: 'e', 'f'."} <= set(texts(figure))
    figure.canvas.draw()
    ticks = [[text.get_text() for text in ax.get_xticklabels()] for ax in figure.axes[-4:]]
    assert all(len({*row}) == len(row) >= 2 for row in ticks), ticks
    assert set(ticks[2]) >= {"6", "8"}
    assert all(text.endswith("e+06") for text in ticks[3]), ticks
    assert not any(ax.xaxis.get_offset_text().get_text() for ax in figure.axes)


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_can_be_shown(name):
    data = DATASETS[name]
    x, labels = data.sample(500, torch.Generator().manual_seed(0))
    figure = dataset.data_set(
        x.numpy(),
        style.as_limits(data.limits, x.shape[1]),
        labels=None if labels is None else labels.numpy(),
        classes=data.classes,
        log_density=data.log_density,
    )
    assert len(figure.axes) == (2 if data.log_density is not None and data.dim == 2 else 1)
    assert set(data.classes) <= set(texts(figure))


def test_the_density_image_is_the_right_way_up():
    image = dataset.density_image(
        lambda x: -10 * (x - torch.tensor([1.0, -1.0])).square().sum(-1), np.array([[-2.0, 2], [-2, 2]])
    )
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row < image.shape[0] / 2 < column
