import numpy as np
import pytest
import torch

from ebbtide.data import DATASETS
from ebbtide.errors import InputError
from ebbtide.plots import style
from ebbtide.plots.density import SPAN, density_map, empirical_outline, lattice, outline
from plots.tiles import colour_at

FRAME = style.as_limits((-3.5, 3.5), 2)
TRUE = DATASETS["three_gaussians"].log_density


def square(log_density, size=60):
    return log_density(lattice(FRAME, size)).reshape(size, size).numpy()


def images(figure):
    return [ax.images[0] for ax in figure.axes if ax.images]


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in [*ax.texts, ax._left_title]]


def test_the_lattice_is_the_centres_of_cells_from_low_y_to_high():
    found = lattice(np.array([[0.0, 2.0], [10.0, 14.0]]), 2)
    assert found.tolist() == [[0.5, 11], [1.5, 11], [0.5, 13], [1.5, 13]]


def test_truth_and_model_share_one_scale_and_say_their_mass():
    """The model is the truth moved to the right by 1 and made half as dense."""
    model = square(lambda x: TRUE(x - torch.tensor([1.0, 0])) - np.log(2))
    figure = density_map(model, FRAME, log_density=TRUE)
    truth, drawn = images(figure)
    assert [text for text in texts(figure) if text in ("truth", "model")] == ["truth", "model"]
    assert truth.get_clim() == drawn.get_clim()
    low, high = truth.get_clim()
    assert (high, high - low) == (pytest.approx(square(TRUE).max()), pytest.approx(SPAN))
    mass = [text for text in texts(figure) if "adds up" in text]
    assert mass[0] == "adds up to 1.000"
    assert 0.4 < float(mass[1].split()[-1]) <= 0.5
    # The brightest cells are where the density is: the lower mode is in the lower half, moved by 1 in the model.
    lower = [image.get_array()[:30].max(0).argmax() for image in (truth, drawn)]
    assert (lower[1] - lower[0]) * 7 / 60 == pytest.approx(1, abs=0.15)
    figure.canvas.draw()


def test_a_peak_is_drawn_where_it_is():
    """To the right and below the middle of a frame twice as high as wide, in both panels: the brightest of four."""
    frame = np.array([[0.0, 2.0], [10.0, 14.0]])
    peak = lambda x: -20 * ((x - torch.tensor([1.5, 11.0])) / torch.tensor([1.0, 2.0])).square().sum(1)
    figure = density_map(peak(lattice(frame, 40)).reshape(40, 40).numpy(), frame, log_density=peak)
    for ax in figure.axes[:2]:
        shades = {(x, y): colour_at(figure, ax, x, y).sum() for x in (0.5, 1.5) for y in (11, 13)}
        assert max(shades, key=shades.get) == (1.5, 11)


def test_a_model_alone_and_densities_of_zero():
    board = DATASETS["checkerboard"].log_density
    figure = density_map(square(board), FRAME)
    (image,) = images(figure)
    assert np.isfinite(image.get_array()).all()
    assert image.get_clim()[1] == pytest.approx(-np.log(32))
    assert set(np.unique(image.get_array()).round(6)) == {round(-np.log(32) - SPAN, 6), round(-np.log(32), 6)}
    figure.canvas.draw()


def test_what_is_not_finite_is_dark():
    model = square(TRUE)
    model[0, 0], model[5, 5] = np.nan, np.inf
    figure = density_map(model, FRAME, log_density=TRUE)
    assert images(figure)[1].get_array()[0, 0] == images(figure)[1].get_clim()[0]
    assert "adds up to 1.000" in texts(figure)


@pytest.mark.parametrize("wrong", [np.zeros(9), np.zeros((3, 4)), np.full((3, 3), np.nan)])
def test_bad_input(wrong):
    with pytest.raises(InputError, match="square of log-densities"):
        density_map(wrong, FRAME)


def test_an_outline_is_of_the_exact_density_where_that_is_known():
    """The circle of N(0, I) that holds 95 %, radius √(-2 log 0.05), whatever the points are; theirs without it."""
    frame, far = np.array([[-4.0, 4], [-4, 4]]), np.random.default_rng(0).normal(2, 0.3, (500, 2))
    normal = lambda x: -x.square().sum(1) / 2 - np.log(2 * np.pi)
    (circle,) = outline(far, frame, normal)
    assert np.linalg.norm(circle, axis=1) == pytest.approx((-2 * np.log(0.05)) ** 0.5, abs=0.01)
    assert outline(None, frame, normal)
    around = np.concatenate(outline(far, frame))
    assert np.linalg.norm(around - 2, axis=1).max() < 1.5
    assert outline(None, frame) == []


def test_the_outline_holds_95_percent_of_a_gaussian():
    x = np.random.default_rng(0).standard_normal((20_000, 2))
    (curve,) = empirical_outline(x, style.as_limits((-4, 4), 2))
    radius = np.linalg.norm(curve, axis=1)
    assert abs(radius.mean() - np.sqrt(-2 * np.log(0.05))) < 0.08
