import dataclasses

import numpy as np
import pytest

from ebbtide.data.forms import Column
from ebbtide.errors import InputError
from ebbtide.plots import points, style
from ebbtide.plots.dataset import data_set
from ebbtide.plots.study import training_stages
from plots.material import comparison, inside
from plots.panels import ACROSS, colours, limits_of, panels_of, same_frame, texts


@pytest.fixture(params=ACROSS, ids=lambda d: f"{d}-D")
def c(request):
    return comparison(d=request.param, n=1500, m=120)


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
    assert len(figure.axes) == 2 * len(points.STAGES)
    heads = [ax.get_title() for ax in figure.axes[: len(points.STAGES)]]
    assert heads == ["t = 1 noise", "t = 0.5", "t = 0.25", "t = 0.1", "t = 0 data"]
    for k in range(len(points.STAGES)):
        assert same_frame([figure.axes[k], figure.axes[k + len(points.STAGES)]])
    assert style.DIFFUSION in colours(figure.axes[0])
    assert style.FLOW in colours(figure.axes[-1])


def test_progress_shows_the_first_and_the_last_step(c):
    figure = points.progress(c.methods, limits_of(c), columns=4)
    heads = [ax.get_title() for ax in figure.axes[:4]]
    assert heads[0] == "step 0"
    assert heads[-1] == "step 3,000"


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
    ]:
        with pytest.raises(InputError) as error:
            wrong()
        assert "\n" not in str(error.value)


def test_methods_whose_steps_differ_are_shown_by_their_share_of_training():
    c = comparison(n=1500, m=120)
    x = [np.full((5, 2), float(k)) for k in range(5)]
    short = dataclasses.replace(c.methods[0], evolution=[(0, x[0]), (50, x[1]), (100, x[2])])
    long = dataclasses.replace(c.methods[1], evolution=[(0, x[0]), (10, x[1]), (100, x[2]), (220, x[3]), (400, x[4])])
    same = [(name, done) for name, done, _ in training_stages([short, short])]
    assert same == [("step 0", 0.0), ("step 50", 0.5), ("step 100", 1.0)]
    names, done, clouds = zip(*training_stages([short, long]), strict=True)
    assert names == ("0 % trained", "50 % trained", "100 % trained")
    assert done == (0, 0.5, 1)
    assert [[float(cloud[0, 0]) for cloud in pair] for pair in clouds] == [[0, 0], [1, 3], [2, 4]]
    assert training_stages([]) == training_stages([dataclasses.replace(short, evolution=[])]) == []
    inside(points.progress([short, long], style.as_limits((-3, 3), 2)))


def many_classes(n=390):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 2)), np.arange(n) % 13, tuple(f"kind {k}" for k in range(13))


def test_more_classes_than_one_panel_tells_apart_have_a_panel_each():
    x, labels, names = many_classes()
    panels = [points.Panel(name, x, tint, "", labels) for name, tint in (("real", style.REAL), ("samples", style.FLOW))]
    figure = points.scatter_panels(panels, style.as_limits((-3, 3), 2), classes=names, names=("length", "width"))
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(names)
    assert {len(line.get_xdata()) for ax in figure.axes for line in ax.lines} == {30}
    assert {ax.get_xlabel() for ax in figure.axes[-5:]} == {"length"}
    assert [ax.get_ylabel() for ax in figure.axes[::5]] == ["width"] * 3
    inside(figure)
    few = points.class_panels(panels[:1], style.as_limits((-3, 3), 2), names, most=4)
    assert "4 of 13 classes are shown, the most frequent." in texts(few)
    assert {len(line.get_xdata()) for ax in few.axes for line in ax.lines} == {30, 390}  # its own among all


def test_axes_carry_the_columns_names():
    c = comparison(n=1500, m=120)
    for figure in (
        points.scatter_panels(
            panels_of(c)[:2], limits_of(c), names=("length", "a name that is much too long to stand")
        ),
        points.trajectories(c.methods, limits_of(c), names=("length", "a name that is much too long to stand")),
    ):
        assert figure.axes[0].get_xlabel() == "length"
        assert figure.axes[0].get_ylabel() == "a name that is much too lon…"
        assert not figure.axes[1].get_ylabel()
        inside(figure)


@pytest.mark.parametrize("draw", ["panels", "classes", "routes", "data"])
def test_axes_carry_the_columns_dates_and_levels(draw):
    """Days 0 to 299 of 2024 to the right, three levels upwards."""
    x = np.stack([19723 + np.arange(300.0), np.arange(300.0) % 3], 1)
    frame, form = (
        np.array([[19700.0, 20050], [-0.5, 2.5]]),
        (Column("day", "date"), Column("of", "level", ("a", "b", "c"))),
    )
    how = {"names": ("day", "of"), "form": form}
    panel = points.Panel("a", x, style.FLOW)
    if draw == "panels":
        figure = points.scatter_panels([panel], frame, real=x, **how)
    elif draw == "classes":
        figure = points.class_panels([panel._replace(labels=np.zeros(300, int))], frame, ("x",), **how)
    elif draw == "routes":
        walk = np.stack([x, x[::-1]])
        method = dataclasses.replace(comparison(d=2, n=30, m=30).methods[0], walk=walk, walk_times=np.array([1.0, 0.0]))
        figure = points.trajectories([method], frame, real=x, **how)
    else:
        figure = data_set(x, frame, **how)
    figure.canvas.draw()
    across, up = (
        [text.get_text() for text in axis.get_ticklabels()] for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis)
    )
    assert len(across) > 1
    assert all(text.startswith("2024-") for text in across)
    assert up == ["a", "b", "c"]
    inside(figure)


def test_the_outline_is_the_exact_densitys_where_there_is_one():
    """A standard normal's: a circle of radius √(-2 log 0.05), whatever points are beside it."""
    normal = lambda x: -0.5 * x.square().sum(-1) - np.log(2 * np.pi)
    panel = points.Panel("a", np.zeros((60, 2)), style.FLOW)
    figure = points.scatter_panels([panel], style.as_limits((-4, 4), 2), real=panel.x, log_density=normal)
    (outline,) = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(np.linalg.norm(outline, axis=1), np.sqrt(-2 * np.log(0.05)), atol=0.02)
    narrow = points.scatter_panels([panel], style.as_limits((-1, 1), 2), real=panel.x, log_density=normal)
    assert narrow.axes[0].collections  # the frame holds less than 95 %: the points' own outline
