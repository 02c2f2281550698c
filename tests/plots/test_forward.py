import warnings

import numpy as np
import pytest

from ebbflow.paths import DDPM, PATHS, Linear
from ebbflow.plots import forward, style


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


def test_circles_have_radius_sigma_around_the_mean():
    figure = forward.point_mass_plane(Linear(), "linear")
    (ax,) = figure.axes
    circles = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 120]
    assert len(circles) == 5
    centre = circles[0].min(0) / 2 + circles[0].max(0) / 2  # drawn from t = 1 on
    np.testing.assert_allclose(centre, [0, 0], atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(circles[0] - centre, axis=1), 1, atol=1e-2)


def test_moments_and_schedules_name_every_path():
    figure = forward.moments({"ddpm": DDPM(), "mine": Linear()})
    assert "mine" in words(figure)
    mean = figure.axes[0].lines[1].get_ydata()
    assert mean[0] == 4
    assert mean[-1] == 0
    assert all(name in words(forward.schedules()) for name in PATHS)


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
