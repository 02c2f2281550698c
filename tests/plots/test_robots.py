from math import pi, sqrt

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, Polygon

from ebbtide.errors import InputError
from ebbtide.plots import robots, style
from plots.material import inside
from plots.tiles import words

rng = np.random.default_rng(0)


def titles(ax):
    return ax.get_title("left"), ax.get_title("right")


def test_the_error_counts_what_lies_inside_the_recording():
    truth = np.array([[0.0, 10.0], [1.0, 10.0], [2.0, 10.0]])
    # |1 - 0|, |1 - 1| at steps 0 and 1; |4 - 2| at step 2; the last chunk's second step is beyond the recording.
    chunks = [(0, np.array([[1.0, 10.0], [1.0, 7.0]])), (2, np.array([[4.0, 10.0], [99.0, 99.0]]))]
    np.testing.assert_allclose(robots.absolute_error(truth, chunks), [1.0, 1.0])


def test_predictions_are_dashed_over_a_solid_recording_in_seconds():
    truth = rng.normal(size=(30, 2))
    chunks = [(0, truth[:8] + 0.5), (20, np.concatenate([truth[20:], truth[:6]]) - 0.25)]
    figure = robots.trajectories(truth, chunks, ("x", "y"), 10, unit="px")
    assert len(figure.axes) == 2
    for joint, ax in enumerate(figure.axes):
        recorded, first, _, second, mark = ax.lines
        assert recorded.get_linestyle() == "-"
        assert first.get_linestyle() == second.get_linestyle() == "--"
        assert recorded.get_color() == style.REAL
        assert first.get_color() == mark.get_color() == style.FLOW
        np.testing.assert_allclose(recorded.get_ydata(), truth[:, joint])
        np.testing.assert_allclose(second.get_ydata(), chunks[1][1][:, joint])
        np.testing.assert_allclose(second.get_xdata(), np.arange(20, 36) / 10)  # beyond the recording's end at 2.9 s
        assert mark.get_xdata()[0] == 2.0
        assert ax.get_xlim() == (0, 3.5)
        # 8 steps off by 0.5, 10 by 0.25.
        assert titles(ax) == ("xy"[joint], "error 0.361 px")
    assert figure.axes[1].get_xlabel() == "seconds"
    assert figure.axes[0].get_xlabel() == ""
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "recorded",
        "predicted",
        "a chunk's first step",
    ]
    assert "0.361 px apart on average" in words(figure)[0]
    inside(figure)


def test_fourteen_joints_stand_arm_beside_arm():
    names = [f"{side} {k}" for side in ("left", "right") for k in range(7)]
    truth = rng.normal(size=(100, 14)).cumsum(0)
    figure = robots.trajectories(
        truth, [(10, truth[10:60])], names, 50, unit=["rad"] * 6 + [""] + ["rad"] * 6 + [""], key="diffusion"
    )
    places = {titles(ax)[0]: ax.get_position() for ax in figure.axes}
    assert list(places) != names or len(places) == 14
    for k in range(7):
        assert places[f"left {k}"].y0 == places[f"right {k}"].y0
        assert places[f"left {k}"].x1 < places[f"right {k}"].x0
    assert places["left 0"].y0 > places["left 6"].y1
    assert {titles(ax)[1] for ax in figure.axes} == {"error 0.00 rad", "error 0.00"}
    assert words(figure)[0] == "Predicted and recorded actions"  # no average over units
    assert figure.axes[0].lines[1].get_color() == style.DIFFUSION
    assert [ax.get_xlabel() for ax in figure.axes].count("seconds") == 2
    inside(figure)


def test_an_odd_number_of_joints_leaves_no_empty_panel():
    truth = rng.normal(size=(9, 7))
    figure = robots.trajectories(truth, [(0, truth)])
    assert [titles(ax)[0] for ax in figure.axes if ax.lines] == [f"joint {k}" for k in (1, 5, 2, 6, 3, 7, 4)]
    assert len(figure.axes) == 7
    assert [titles(ax)[0] for ax in figure.axes if ax.get_xlabel()] == ["joint 7", "joint 4"]


def test_a_joint_at_rest_looks_at_rest():
    truth = np.stack([np.linspace(0, 2, 50), 0.3 + 1e-4 * rng.normal(size=50)], 1)
    for figure in (robots.trajectories(truth, [(0, truth)]), robots.fan(truth[None].repeat(3, 0))):
        lively, still = (np.ptp(ax.get_ylim()) for ax in figure.axes[:2])
        assert still == pytest.approx(0.2)
        assert 2 < lively < 3
    apart = robots.trajectories(truth, [(0, truth)], unit=["m", "rad"])  # which can't be held against each other
    assert np.ptp(apart.axes[1].get_ylim()) < 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chunks": []}, "at least one"),
        ({"chunks": [(0, np.zeros((4, 3)))]}, "2 joints"),
        ({"chunks": [(10, np.zeros((4, 2)))]}, r"0 … 9; got 10"),
        ({"chunks": [(-1, np.zeros((4, 2)))]}, "got -1"),
        ({"chunks": [(0, np.full((4, 2), np.nan))]}, "finite"),
        ({"names": ("x",)}, "names"),
        ({"unit": ["rad"]}, "unit"),
        ({"fps": 0}, "fps"),
        ({"truth": np.zeros((0, 2))}, "truth"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(change, said):
    given = {"truth": np.zeros((10, 2)), "chunks": [(0, np.zeros((4, 2)))]} | change
    with pytest.raises(InputError, match=said):
        robots.trajectories(**given)


# ── Fans ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tee_is_the_simulators():
    upright = robots.tee((100, 200, 0))
    assert upright.min(0).tolist() == [40, 200]  # 120 wide, its flat top at y = 200, y downwards
    assert upright.max(0).tolist() == [160, 320]
    # A quarter turn takes (x, y) to (-y, x): the stem, once below, points to the left.
    turned = robots.tee((0, 0, pi / 2))
    np.testing.assert_allclose(turned.min(0), [-120, -60], atol=1e-9)
    np.testing.assert_allclose(turned.max(0), [0, 60], atol=1e-9)
    x, y = upright.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == 120 * 30 + 90 * 30


def test_the_tee_covers_gym_pushts_own_shapes():
    pymunk, pusht = pytest.importorskip("pymunk"), pytest.importorskip("gym_pusht.envs.pusht")
    pose = (180.0, 300.0, 2.3)
    body, shapes = pusht.PushTEnv.add_tee(pymunk.Space(), (0, 0), 0)
    body.angle = pose[2]  # before the position, which turns about the centre of mass otherwise
    body.position = pose[:2]
    corners = {tuple(np.round(body.local_to_world(v), 6)) for shape in shapes for v in shape.get_vertices()}
    assert {tuple(point) for point in np.round(robots.tee(pose), 6)} <= corners
    assert len(corners) == 8


def modes(n=40, h=16, seed=0):
    """Chunks from (100, 100) to (300, 300), one half round one side, the other round the other."""
    draw = np.random.default_rng(seed)
    u = np.linspace(0, 1, h)[None, :, None]
    side = np.where(np.arange(n) % 2, 1.0, -1.0)[:, None, None]
    bow = side * np.sin(pi * u) * np.array([60.0, -60.0])
    return 100 + 200 * u + bow + draw.normal(size=(n, h, 2))


def test_a_fan_over_the_scene_is_coloured_by_the_time_along_it():
    chunks, state = modes(), np.array([100.0, 120.0, 220.0, 230.0, 0.7])
    figure = robots.pusht_fan(state, chunks, recorded=chunks[0], fps=10)
    scene, bar = figure.axes
    assert scene.get_xlim() == (0, 512)
    assert scene.get_ylim() == (512, 0)  # as rendered: y downwards
    goal, block, agent = scene.patches
    assert isinstance(agent, Circle)
    assert (agent.center, agent.radius) == ((100, 120), 15)
    assert isinstance(goal, Polygon)
    assert isinstance(block, Polygon)
    np.testing.assert_allclose(goal.get_xy()[:-1], robots.tee((256, 256, pi / 4)))
    np.testing.assert_allclose(block.get_xy()[:-1], robots.tee(state[2:]))
    (lines,) = [c for c in scene.collections if isinstance(c, LineCollection)]
    segments, colours = np.array(lines.get_segments()), lines.get_colors()
    assert segments.shape == (40 * 15, 2, 2)
    np.testing.assert_allclose(segments[:40, 0], chunks[:, 0])  # all first segments, then all second ones …
    np.testing.assert_allclose(segments[-40:, 1], chunks[:, -1])
    np.testing.assert_allclose(colours[0, :3], robots.AHEAD(0.0)[:3])
    np.testing.assert_allclose(colours[-1, :3], robots.AHEAD(1.0)[:3])
    ends, done = scene.lines
    np.testing.assert_allclose(ends.get_xydata(), chunks[:, -1])
    np.testing.assert_allclose(done.get_xydata(), chunks[0])
    assert [text.get_text() for text in bar.texts] == ["now", "1.5 s ahead"]
    inside(figure)


def test_several_scenes_stand_side_by_side():
    states = np.tile(np.array([[100.0, 120.0, 220.0, 230.0, 0.7]]), (4, 1)) + np.arange(4)[:, None]
    figure = robots.pusht_fan(states, np.stack([modes(12)] * 4), names=[f"step {k}" for k in range(4)])
    scenes = [ax for ax in figure.axes if ax.patches]
    assert [ax.get_title("left") for ax in scenes] == [f"step {k}" for k in range(4)]
    assert [ax.patches[2].center[0] for ax in scenes] == [100, 101, 102, 103]
    inside(figure)
    with pytest.raises(InputError, match="names"):
        robots.pusht_fan(states, np.stack([modes(12)] * 4), names=["one"])
    with pytest.raises(InputError, match="finite"):
        robots.pusht_fan(states[0], np.full((3, 4, 2), np.nan))


def test_one_step_is_a_chunk_too():
    figure = robots.pusht_fan(np.array([100.0, 120.0, 220.0, 230.0, 0.7]), modes(5, 1))
    assert figure.axes[0].lines[0].get_xydata().shape == (5, 2)
    robots.fan(modes(5, 1)).canvas.draw()


def test_two_modes_have_two_colours_in_every_panel():
    chunks = modes()
    place = robots.principal(chunks)
    assert {place.min(), place.max()} == {0.0, 1.0}
    assert (place[::2] < 0.2).all() or (place[::2] > 0.8).all()
    assert ((place[::2] < 0.5) == (place[1::2] > 0.5)).all()
    figure = robots.fan(chunks, ("x", "y"), 10, recorded=chunks[3])
    for joint, ax in enumerate(figure.axes):
        (lines,) = ax.collections
        drawn = np.array(lines.get_segments())
        np.testing.assert_allclose(drawn[..., 0], np.tile(np.arange(16) / 10, (40, 1)))
        np.testing.assert_allclose(drawn[..., 1], chunks[..., joint])
        colours = lines.get_colors()[:, :3]
        assert np.abs(colours[0] - colours[2]).max() < 0.2
        assert np.abs(colours[0] - colours[1]).max() > 0.5
        np.testing.assert_allclose(ax.lines[0].get_ydata(), chunks[3, :, joint])
        assert titles(ax)[0] == "xy"[joint]
    inside(figure)


def test_the_main_axis_counts_every_joint_by_its_own_spread():
    # Joint 0 is a hundred times larger and has one mode; the others agree on two.
    chunks = np.stack([100 * rng.normal(size=(60, 8)), *[np.sign(rng.normal(size=(60, 1))) * np.ones((60, 8))] * 3], 2)
    place = robots.principal(chunks)
    assert ((place > 0.5) == (chunks[:, 0, 1] > 0)).all() or ((place < 0.5) == (chunks[:, 0, 1] > 0)).all()


def test_equal_samples_and_still_joints_do_no_harm():
    assert robots.principal(np.ones((5, 4, 3))).tolist() == [0.5] * 5
    assert robots.principal(rng.normal(size=(1, 4, 3))).tolist() == [0.5]
    figure = robots.fan(np.ones((5, 4, 14)), [f"a joint of a long name {k}" for k in range(14)], 50)
    assert len(figure.axes) == 14
    inside(figure)
    with pytest.raises(InputError, match="recorded"):
        robots.fan(np.ones((5, 4, 3)), recorded=np.ones((5, 3)))


# ── Scores, quality, latency ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_interval_of_a_mean_is_students():
    # Of four: s² = 0.04/3, t of three = 3.18245.
    reach = 3.18245 * sqrt(0.04 / 3) / 2
    ax = robots.scores({"flow": np.array([0.4, 0.4, 0.6, 0.6])}).axes[0]
    band = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    np.testing.assert_allclose([band.x0, band.x1], [0.5 - reach, 0.5 + reach], 1e-5)


def test_scores_are_binned_averaged_and_counted_from_above():
    x = np.array([0.0, 0.5, 0.5, 1.0])
    figure = robots.scores({"flow": x, "ACT": 1 - x}, intervals={"flow": (0.3, 0.8)}, captions={"flow": "1 of 4"})
    first, second, whole = figure.axes[0], figure.axes[2], figure.axes[1]
    bars = [patch for patch in first.patches if patch.get_width() < 0.06 and patch.get_height() > 0]
    np.testing.assert_allclose([bar.get_height() for bar in bars if bar.get_x() < 0.99][:3], [0.25, 0.5, 0.25])
    assert first.lines[0].get_xdata()[0] == 0.5
    assert first.lines[0].get_color() == style.FLOW != second.lines[0].get_color()
    band = first.patches[-1].get_extents().transformed(first.transData.inverted())
    np.testing.assert_allclose([band.x0, band.x1], [0.3, 0.8])
    assert first.texts[0].get_text() == "mean 0.500, 0.300 – 0.800\n4 episodes\n1 of 4"
    # All reach 0, three reach anything up to 0.5, one reaches 1.
    stair = whole.lines[0]
    at = dict(zip(stair.get_xdata(), stair.get_ydata()))
    assert at == {0.0: 1.0, 0.5: 0.75, 1.0: 0.25}
    assert stair.get_drawstyle() == "steps-pre"
    assert [text.get_text() for text in whole.get_legend().get_texts()] == ["flow", "ACT"]
    inside(figure)


def test_one_policy_needs_no_legend():
    figure = robots.scores({"flow": np.ones(7)})
    assert figure.axes[1].get_legend() is None
    assert figure.axes[0].texts[0].get_text() == "mean 1.000, 0.646 – 1.000\n7 episodes"  # Wilson's: 7 / (7 + 1.96²)
    inside(figure)


@pytest.mark.parametrize(
    ("results", "said"),
    [({}, "no scores"), ({"a": np.array([0.5, 1.2])}, r"0\.5 … 1\.2"), ({"a": np.array([np.nan])}, "finite")],
)
def test_scores_outside_0_1_are_refused(results, said):
    with pytest.raises(InputError, match=said):
        robots.scores(results)


def test_latency_bars_end_at_the_median_and_name_the_gain():
    times = {"256 tokens": {"recomputed": (120, 130), "cached": (20.0, 22)}, "768 tokens": {"recomputed": (300, 310)}}
    figure = robots.latency_bars(times, reference=("the paper, 73 ms", 73))
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [120, 20, 300]
    assert [to_rgb(bar.get_facecolor()[:3]) for bar in ax.patches] == [
        to_rgb(tint) for tint in (style.REAL, style.FLOW, style.REAL)
    ]
    said = words(figure)
    assert "20 ms  (6 × faster)" in said
    assert "120 ms" in said
    assert said.count("recomputed") == 2
    assert [line.get_xdata()[-1] for line in ax.lines[:2]] == [130, 130]
    assert ax.lines[-1].get_xdata()[0] == 73
    top = [bar.get_y() for bar in ax.patches]
    assert top == sorted(top)  # down the page: the axis is inverted
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    inside(figure)
    slower = robots.latency_bars({"a": {"x": (10, 10), "y": (25, 30)}})
    assert "25 ms  (2.5 × slower)" in words(slower)


@pytest.mark.parametrize("times", [{}, {"a": {}}, {"a": {"b": (0, 1)}}, {"a": {"b": (2, 1)}}])
def test_times_without_sense_are_refused(times):
    with pytest.raises(InputError):
        robots.latency_bars(times)


def test_a_label_with_both_methods_or_none_has_a_colour_of_its_own():
    assert robots.tint_of("Flow · U-Net", 3) == style.FLOW
    assert robots.tint_of("diffusion", 0) == style.DIFFUSION
    assert robots.tint_of("diffusion and flow", 0) == robots.tint_of("ACT", 0) == style.CLASSES[0][0]


# ── Attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mask_is_drawn_cell_by_cell_in_the_seen_blocks_colour():
    # Two prefix tokens, the second one padding; a state; an action.
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], bool)
    padded = np.array([False, True, False, False])
    figure = robots.attention(mask, [("prefix", 2), ("state", 1), ("actions", 1)], padded=padded)
    (ax,) = figure.axes
    picture = np.asarray(ax.images[0].get_array())
    blue, green, orange = (to_rgb(tint) for tint in ("#56B4E9", "#009E73", "#E69F00"))
    white, grey = (1.0, 1.0, 1.0), to_rgb("#DADADA")
    expected = [
        [blue, grey, white, white],
        [grey, grey, grey, grey],
        [blue, grey, green, white],
        [blue, grey, green, orange],
    ]
    np.testing.assert_allclose(picture, expected)
    assert tuple(ax.images[0].get_extent()) == (0, 4, 4, 0)
    assert [text.get_text() for text in ax.texts] == ["prefix", "prefix", "state", "state", "actions", "actions"]
    assert "padding" in " ".join(words(figure))
    inside(figure)


def test_a_block_that_is_a_hairline_is_not_drawn_over():
    owner = np.repeat([0, 1, 2], [256, 1, 50])
    figure = robots.attention(owner[:, None] >= owner, [("prefix", 256), ("state", 1), ("actions", 50)])
    assert sum(len(c.get_segments()) for c in figure.axes[0].collections) == 0
    inside(figure)


@pytest.mark.parametrize("blocks", [[("a", 2)], [("a", 3), ("b", 0)], []])
def test_blocks_must_fill_the_mask(blocks):
    with pytest.raises(InputError, match="blocks"):
        robots.attention(np.ones((3, 3), bool), blocks)
