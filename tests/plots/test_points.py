import dataclasses

import numpy as np
import pytest
import torch

from ebbtide.data import DATASETS
from ebbtide.errors import InputError
from ebbtide.kinds.points.data import limits
from ebbtide.plots import points, style
from ebbtide.recipes import PointRecipe
from plots.material import comparison
from plots.tiles import colour_at

ACROSS = [1, 2, 5]


@pytest.fixture(params=ACROSS, ids=lambda d: f"{d}-D")
def c(request):
    return comparison(d=request.param, n=1500, m=120)


def panels_of(c):
    return [points.Panel("Real data", c.real, style.REAL)] + [
        points.Panel(s.method, s.samples, style.colour(s.method), s.label) for s in c.samplings
    ]


def limits_of(c):
    return style.as_limits(c.limits, c.real.shape[1])


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in [*ax.texts, ax.title, ax._left_title]] + [
        text.get_text() for text in figure.texts
    ]


def same_frame(axes):
    return len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1


def colours(ax):
    lines = [line.get_color() for line in ax.lines]
    return {*lines, *(style.mpl.colors.to_hex(patch.get_facecolor()).upper() for patch in ax.patches)}


def test_every_sampling_has_a_panel_in_the_same_frame(c):
    figure = points.scatter_panels(panels_of(c), limits_of(c), real=c.real, title="Samples")
    assert len(figure.axes) == 1 + len(c.samplings)
    assert same_frame(figure.axes)
    for ax, sampling in zip(figure.axes[1:], c.samplings, strict=True):
        assert style.colour(sampling.method) in colours(ax)
        assert sampling.label in [text.get_text() for text in ax.texts]
    figure.canvas.draw()


def test_points_outside_the_frame_are_counted_on_the_picture():
    x = np.concatenate([np.zeros((10, 2)), np.full((7, 2), 99.0), np.full((1, 2), np.nan)])
    figure = points.scatter_panels([points.Panel("a", x, style.FLOW)], style.as_limits((-1, 1), 2))
    assert "8 outside" in texts(figure)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9])
def test_any_number_of_panels_fits(count):
    x = np.random.default_rng(0).standard_normal((30, 2))
    figure = points.scatter_panels([points.Panel("a", x, style.FLOW)] * count, style.as_limits((-3, 3), 2), real=x)
    assert len(figure.axes) == count
    assert figure.get_size_inches()[0] < 7.5


def test_classes_are_named_once_and_drawn_with_their_own_marker():
    c = comparison(n=1500, m=120, labelled=True)
    panels = [panel._replace(labels=c.real_labels) for panel in panels_of(c)[:2]]
    figure = points.scatter_panels(panels, limits_of(c), classes=c.classes)
    assert {"right", "left", "bottom"} <= {text.get_text() for text in figure.axes[0].texts}
    assert not {"right", "left", "bottom"} & {text.get_text() for text in figure.axes[1].texts}
    assert len({(line.get_color(), line.get_marker()) for line in figure.axes[1].lines}) == 3


def test_routes_start_at_the_same_noise_and_run_in_one_frame(c):
    figure = points.trajectories(c.methods, limits_of(c), real=c.real, count=10)
    first, second, _ = figure.axes
    assert same_frame([first, second])
    starts = [ax.lines[-2].get_xydata() for ax in (first, second)]
    np.testing.assert_allclose(*starts, atol=1e-3)  # DDPM's σ(1) is not quite 1
    assert len(starts[0]) == 10
    assert [ax.get_title(loc="left") for ax in (first, second)] == ["DDPM", "Flow matching"]
    assert {"t = 1 noise", "t = 0 data"} <= set(texts(figure))
    if c.real.shape[1] > 1:
        low, high = np.sort(first.get_xlim())
        assert (starts[0] >= [low, first.get_ylim()[0]]).all()
        assert (starts[0] <= [high, first.get_ylim()[1]]).all()


def test_steps_on_the_way_are_rows_of_methods_and_columns_of_times(c):
    figure = points.intermediate(c.methods, limits_of(c), real=c.real)
    assert len(figure.axes) == 2 * len(points.TIMES)
    heads = [ax.get_title() for ax in figure.axes[: len(points.TIMES)]]
    assert heads == ["t = 1 noise", "t = 0.5", "t = 0.25", "t = 0.1", "t = 0 data"]
    for k in range(len(points.TIMES)):
        assert same_frame([figure.axes[k], figure.axes[k + len(points.TIMES)]])
    assert style.DIFFUSION in colours(figure.axes[0])
    assert style.FLOW in colours(figure.axes[-1])


def test_progress_shows_the_first_and_the_last_step(c):
    figure = points.progress(c.methods, limits_of(c), columns=4)
    heads = [ax.get_title() for ax in figure.axes[:4]]
    assert heads[0] == "step 0"
    assert heads[-1] == "step 3,000"


def test_arrows_fill_every_panel_and_point_where_sampling_goes(c):
    """A diffusion hardly moves at t = 0.9: on the flow's scale its arrows would vanish."""
    figure = points.vector_field(c.methods, limits_of(c))
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
    quiver = points.vector_field([method], style.as_limits((-3, 3), 2)).axes[0].collections[0]
    assert (np.stack([quiver.U, quiver.V], 1) * grid).sum(1).max() <= 0


def test_an_infinite_velocity_does_no_harm():
    method = comparison(n=1500, m=120).methods[0]
    t, grid, velocity, x = method.fields[0]
    broken = velocity.copy()
    broken[:5] = np.inf
    method = dataclasses.replace(method, fields=[(t, grid, np.nan_to_num(broken, posinf=1e30), x)])
    points.vector_field([method], style.as_limits((-3, 3), 2)).canvas.draw()


@pytest.mark.parametrize("d", ACROSS)
def test_histograms_have_a_panel_a_column(d):
    c = comparison(d=d, n=1500, m=120)
    figure = points.histograms(panels_of(c)[1:3], limits_of(c), real=c.real, names=c.columns)
    assert len(figure.axes) == d
    assert {"real data", "diffusion"} <= set(texts(figure))


def test_pairs_put_one_method_on_either_side_of_the_diagonal():
    c = comparison(d=5, n=1500, m=120)
    chosen = [panels_of(c)[1], panels_of(c)[-1]]
    figure = points.pairs(chosen, limits_of(c), real=c.real, names=c.columns)
    axes = np.array(figure.axes).reshape(4, 4)
    assert style.DIFFUSION in colours(axes[2, 0])
    assert style.FLOW in colours(axes[0, 2])
    assert [ax.get_xlabel() for ax in axes[3]] == ["x", "y", "z", "u"]
    assert {"▙ diffusion", "▜ flow", "○ 95 % of the real points", f"Not shown: {c.columns[4]!r}."} <= set(texts(figure))
    with pytest.raises(InputError, match="two columns"):
        points.pairs(chosen, np.array([[0.0, 1.0]]), real=np.zeros((5, 1)))


def test_pairs_draw_one_column_to_the_right_and_one_upwards():
    """The name below a panel is of what runs to the right, the name beside it of what runs upwards."""
    x = np.arange(12.0).reshape(3, 4) + np.array([0, 100, 200, 300])
    figure = points.pairs(
        [points.Panel("a", x, style.FLOW)], limits(PointRecipe(data="a.csv"), x), real=x, names="abcd"
    )
    axes = np.array(figure.axes).reshape(4, 4)
    for (i, j), ax in np.ndenumerate(axes):
        if i != j:
            np.testing.assert_allclose(ax.lines[0].get_xydata(), x[:, [j, i]])
    assert [ax.get_ylabel() for ax in axes[:, 0]] == [*"abcd"]
    assert [ax.get_xlabel() for ax in axes[3]] == [*"abcd"]


def test_an_exact_density_is_drawn_where_it_is():
    """Its peak is to the right and below the middle, as are the points beside it."""
    peak = lambda x: -20 * ((x - torch.tensor([1.5, 11.0])) / torch.tensor([1.0, 2.0])).square().sum(-1)
    x, frame = np.tile([[1.5, 11.0]], (9, 1)), np.array([[0.0, 2.0], [10.0, 14.0]])
    figure = points.data_set(x, frame, log_density=peak)
    dots, density = figure.axes
    for ax, best in ((dots, min), (density, max)):
        shades = {(x, y): colour_at(figure, ax, x, y).sum() for x in (0.5, 1.5) for y in (11, 13)}
        assert best(shades, key=shades.get) == (1.5, 11)


def test_a_table_is_shown_by_its_columns_names():
    """A constant column and one of millions have ticks that stand apart, and nothing beside the axis's name."""
    x = np.random.default_rng(0).normal(size=(500, 6)) * 0.3 + [0, 0, 7, 3, 0, 0]
    x[:, 2] = 7
    x[:, 3] *= 1e6
    figure = points.data_set(x, limits(PointRecipe(data="a.csv"), x), names="abcdef")
    assert [ax.get_xlabel() for ax in figure.axes[-4:]] == [*"abcd"]
    assert {"○ 95 % of the real points", "Not shown: 'e', 'f'."} <= set(texts(figure))
    figure.canvas.draw()
    ticks = [[text.get_text() for text in ax.get_xticklabels()] for ax in figure.axes[-4:]]
    assert all(len({*row}) == len(row) >= 2 for row in ticks), ticks
    assert set(ticks[2]) >= {"6", "8"}
    assert all(text.endswith("e+06") for text in ticks[3]), ticks
    assert not any(ax.xaxis.get_offset_text().get_text() for ax in figure.axes)


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_cut_off_at_the_edge_of_a_figure_of_routes(count):
    """The ends of the time bar are named beside it, within the figure."""
    c = comparison(n=300, m=60)
    figure = points.trajectories(c.methods[:count], limits_of(c), real=c.real)
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        for text in ax.texts:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0, text.get_text()
            assert box.x1 <= figure.bbox.width, text.get_text()


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_can_be_shown(name):
    data = DATASETS[name]
    x, labels = data.sample(500, torch.Generator().manual_seed(0))
    figure = points.data_set(
        x.numpy(),
        style.as_limits(data.limits, x.shape[1]),
        labels=None if labels is None else labels.numpy(),
        classes=data.classes,
        log_density=data.log_density,
    )
    assert len(figure.axes) == (2 if data.log_density is not None and data.dim == 2 else 1)
    assert set(data.classes) <= set(texts(figure))


def test_the_density_image_is_the_right_way_up():
    image = points.density_image(
        lambda x: -10 * (x - torch.tensor([1.0, -1.0])).square().sum(-1), np.array([[-2.0, 2], [-2, 2]])
    )
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row < image.shape[0] / 2 < column


def test_what_cannot_be_drawn_is_one_sentence():
    method = comparison(n=1500, m=120).methods[0]
    frame = style.as_limits((-3, 3), 2)
    for wrong in [
        lambda: points.scatter_panels([], frame),
        lambda: points.scatter_panels([points.Panel("a", np.zeros((0, 2)), style.FLOW)], frame),
        lambda: points.trajectories([], frame),
        lambda: points.trajectories([dataclasses.replace(method, walk=np.zeros((0, 0, 0)))], frame),
        lambda: points.intermediate([dataclasses.replace(method, walk_times=np.ones(3))], frame),
        lambda: points.progress([dataclasses.replace(method, evolution=[])], frame),
        lambda: points.vector_field([dataclasses.replace(method, fields=[])], frame),
        lambda: points.vector_field([method, dataclasses.replace(method, fields=method.fields[:1])], frame),
    ]:
        with pytest.raises(InputError) as error:
            wrong()
        assert "\n" not in str(error.value)
