import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.plots import robots, style
from plots.chunks import modes
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


def test_one_step_is_a_chunk_too():
    robots.fan(modes(5, 1)).canvas.draw()
