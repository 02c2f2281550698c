import dataclasses

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.plots import fields, style
from plots.material import comparison
from plots.panels import ACROSS, limits_of, same_frame


@pytest.fixture(params=ACROSS, ids=lambda d: f"{d}-D")
def c(request):
    return comparison(d=request.param, n=1500, m=120)


def test_arrows_fill_every_panel_and_point_where_sampling_goes(c):
    """A diffusion hardly moves at t = 0.9: on the flow's scale its arrows would vanish."""
    figure = fields.vector_field(c.methods, limits_of(c))
    assert len(figure.axes) == 8
    assert [ax.get_title() for ax in figure.axes[:4]] == ["t = 0.9", "t = 0.6", "t = 0.3", "t = 0.1"]
    assert same_frame([figure.axes[0], figure.axes[4]])
    if c.real.shape[1] == 1:
        return
    for row, method in enumerate(c.methods):
        for column, (_, places, velocity, _) in enumerate(method.fields):
            quiver = figure.axes[4 * row + column].collections[0]
            drawn = np.stack([quiver.U, quiver.V], 1)
            spacing = np.ptp(places[:, 0]) / (len(places) ** 0.5 - 1)
            assert 0.4 * spacing < np.linalg.norm(drawn, axis=1).max() < 2.5 * spacing
            assert (drawn * -velocity[:, :2]).sum(1).min() >= 0


def test_arrows_point_where_sampling_goes():
    """A field that pulls towards the origin as t falls: dx/dt = x, so samples move along −x."""
    axis = np.linspace(-2, 2, 9)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    method = dataclasses.replace(comparison(n=1500, m=120).methods[0], fields=[(0.5, grid, grid, grid)])
    quiver = fields.vector_field([method], style.as_limits((-3, 3), 2)).axes[0].collections[0]
    assert (np.stack([quiver.U, quiver.V], 1) * grid).sum(1).max() <= 0


def test_an_infinite_velocity_does_no_harm():
    method = comparison(n=1500, m=120).methods[0]
    t, grid, velocity, x = method.fields[0]
    broken = velocity.copy()
    broken[:5] = np.inf
    method = dataclasses.replace(method, fields=[(t, grid, np.nan_to_num(broken, posinf=1e30), x)])
    fields.vector_field([method], style.as_limits((-3, 3), 2)).canvas.draw()


def test_fields_that_cannot_be_drawn_are_one_sentence():
    method = comparison(n=1500, m=120).methods[0]
    frame = style.as_limits((-3, 3), 2)
    for methods in (
        [],
        [dataclasses.replace(method, fields=[])],
        [method, dataclasses.replace(method, fields=method.fields[:1])],
    ):
        with pytest.raises(InputError) as error:
            fields.vector_field(methods, frame)
        assert "\n" not in str(error.value)


def test_a_speed_beyond_float32_s_squares_is_met():
    """By hand: 3-4-5 where samples are, and nothing elsewhere."""
    velocity = np.array([[3e30, 4e30], [1e30, 0.0]], np.float32)
    assert fields.speed_met(velocity, np.array([1.0, 0.0])) == pytest.approx(5e30)
