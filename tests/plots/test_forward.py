import warnings

import numpy as np
import pytest

from ebbtide.core.paths import DDPM, PATHS, Linear
from ebbtide.plots import forward, style


def words(figure):
    return " ".join(text.get_text() for text in [*figure.texts, *(t for ax in figure.axes for t in ax.texts)])


@pytest.mark.parametrize("name", list(PATHS))
def test_a_point_mass_becomes_noise_on_every_path(name):
    figure = forward.point_mass(PATHS[name](), name)
    density, walks = figure.axes
    assert "t = 1 noise" in [text.get_text() for text in density.texts]
    x, y = density.lines[-2].get_data()
    assert set(x) == {4.0}  # all of the mass, as an arrow
    for line in density.lines[:4]:
        x, y = line.get_data()
        assert abs(np.trapezoid(y, x) - 1) < 0.02
    assert len(walks.lines) == 15
    figure.canvas.draw()


@pytest.mark.parametrize("name", list(PATHS))
def test_sample_paths_have_the_paths_own_mean_and_spread(name):
    path = PATHS[name]()
    routes = forward._routes(path, 4.0, 4000, 0)
    alpha, sigma = forward._scales(path, forward._T)
    for i in (20, 100, 250, 400):
        assert abs(routes[:, i].mean() - 4 * alpha[i]) < 6 * sigma[i] / 4000**0.5
        assert abs(routes[:, i].std() / sigma[i] - 1) < 6 / (2 * 4000) ** 0.5


def test_bands_and_densities_are_as_wide_as_sigma():
    """On the linear path from 4: at t = ½ the mean is 2 and σ is ½; densities are drawn where σ is 0.2, 0.35, 0.6."""
    density, walks = forward.point_mass(Linear(), "linear").axes
    bands = [band.get_paths()[0].vertices for band in walks.collections[:2]]
    middle = [np.unique(band[np.isclose(band[:, 0], 0.5), 1]) for band in bands]
    np.testing.assert_allclose(middle, [[1, 3], [1.5, 2.5]])
    for line, sigma in zip(density.lines, (0.2, 0.35, 0.6), strict=False):
        x, y = line.get_data()
        mean = np.trapezoid(x * y, x)
        assert mean == pytest.approx(4 * (1 - sigma), abs=0.02)
        assert np.trapezoid((x - mean) ** 2 * y, x) ** 0.5 == pytest.approx(sigma, rel=0.02)


def test_circles_have_radius_sigma_around_the_mean():
    figure = forward.point_mass_plane(Linear(), "linear")
    (ax,) = figure.axes
    circles = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 120]
    assert len(circles) == 5
    centre = circles[0].min(0) / 2 + circles[0].max(0) / 2  # drawn from t = 1 on
    np.testing.assert_allclose(centre, [0, 0], atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(circles[0] - centre, axis=1), 1, atol=1e-2)
    for circle in circles:  # x_t = (1 - t) 4 + t ε
        radius = np.ptp(circle[:, 1]) / 2
        assert circle[:, 0].min() / 2 + circle[:, 0].max() / 2 == pytest.approx(4 * (1 - radius), abs=1e-2)


def test_moments_and_schedules_name_every_path():
    figure = forward.path_moments({"ddpm": DDPM(), "mine": Linear()})
    assert "mine" in words(figure)
    mean = figure.axes[0].lines[1].get_ydata()
    assert mean[0] == 4
    assert mean[-1] == 0
    assert all(name in words(forward.schedules()) for name in PATHS)


def drawn_at(ax, line, t):
    """The height of a panel's line at a time of the 401 that are drawn."""
    x, y = ax.lines[line].get_data()
    return y[np.flatnonzero(np.isclose(x, t))[0]]


def test_moments_and_schedules_are_what_they_say():
    """By hand: the linear path at t = ¼ from 4, and DDPM, where α² + σ² = 1 at any time."""
    mean, variance = forward.path_moments({"linear": Linear(), "ddpm": DDPM()}).axes
    assert [drawn_at(ax, 0, 0.25) for ax in (mean, variance)] == pytest.approx([3, 1 / 16])
    assert (drawn_at(mean, 1, 0.25) / 4) ** 2 + drawn_at(variance, 1, 0.25) == pytest.approx(1)
    alpha, sigma, ratio = forward.schedules({"linear": Linear()}).axes
    assert [drawn_at(ax, 0, 0.25) for ax in (alpha, sigma, ratio)] == pytest.approx([0.75, 0.25, np.log(9)])


def test_what_is_left_is_written_where_its_line_ends():
    for ax in forward.ddpm_tables().axes:
        ends = [float(text.get_text().rpartition("= ")[2]) for text in ax.texts if "ᾱ" in text.get_text()]
        assert sorted(line.get_ydata()[-1] for line in ax.lines if len(line.get_ydata()) == 401) == pytest.approx(
            sorted(ends), rel=0.2
        )


def test_tables_say_what_is_left_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = forward.ddpm_tables()
    assert "T = 50: ᾱ = 0.60" in words(figure)
    assert "T = 1,000: ᾱ = 4e-5" in words(figure)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_a_point_set_dissolves_on_every_path_alike(d):
    x = np.random.default_rng(0).uniform(10, 11, (300, d))
    figure = forward.dissolving({"ddpm": DDPM(), "linear": Linear()}, x)
    assert len(figure.axes) == 10
    assert [ax.get_title() for ax in figure.axes[:5]][::4] == ["t = 0 data", "t = 1 noise"]
    if d > 1:
        assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
        ddpm, linear = (figure.axes[k].lines[0].get_xydata() for k in (4, 9))
        np.testing.assert_allclose(ddpm, linear, atol=0.02)  # the same noise, in the data's units
        assert style.limits_around(linear)[0, 0] < 10.2
        first, middle, last = (figure.axes[k].lines[0].get_xydata() for k in (5, 8, 9))
        np.testing.assert_allclose(middle, (first + last) / 2, atol=1e-9)  # t = ½ of a straight path
