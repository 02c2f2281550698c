from math import pi

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle, Polygon

from ebbtide.errors import InputError
from ebbtide.plots import pusht
from plots.chunks import modes
from plots.material import inside


def test_the_tee_is_the_simulators():
    upright = pusht.tee((100, 200, 0))
    assert upright.min(0).tolist() == [40, 200]  # 120 wide, its flat top at y = 200, y downwards
    assert upright.max(0).tolist() == [160, 320]
    # A quarter turn takes (x, y) to (-y, x): the stem, once below, points to the left.
    turned = pusht.tee((0, 0, pi / 2))
    np.testing.assert_allclose(turned.min(0), [-120, -60], atol=1e-9)
    np.testing.assert_allclose(turned.max(0), [0, 60], atol=1e-9)
    x, y = upright.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == 120 * 30 + 90 * 30


def test_the_tee_covers_gym_pushts_own_shapes():
    pymunk, env = pytest.importorskip("pymunk"), pytest.importorskip("gym_pusht.envs.pusht")
    pose = (180.0, 300.0, 2.3)
    body, shapes = env.PushTEnv.add_tee(pymunk.Space(), (0, 0), 0)
    body.angle = pose[2]  # before the position, which turns about the centre of mass otherwise
    body.position = pose[:2]
    corners = {tuple(np.round(body.local_to_world(v), 6)) for shape in shapes for v in shape.get_vertices()}
    assert {tuple(point) for point in np.round(pusht.tee(pose), 6)} <= corners
    assert len(corners) == 8


def test_a_fan_over_the_scene_is_coloured_by_the_time_along_it():
    chunks, state = modes(), np.array([100.0, 120.0, 220.0, 230.0, 0.7])
    figure = pusht.pusht_fan(state, chunks, recorded=chunks[0], fps=10)
    scene, bar = figure.axes
    assert scene.get_xlim() == (0, 512)
    assert scene.get_ylim() == (512, 0)  # as rendered: y downwards
    goal, block, agent = scene.patches
    assert isinstance(agent, Circle)
    assert (agent.center, agent.radius) == ((100, 120), 15)
    assert isinstance(goal, Polygon)
    assert isinstance(block, Polygon)
    np.testing.assert_allclose(goal.get_xy()[:-1], pusht.tee((256, 256, pi / 4)))
    np.testing.assert_allclose(block.get_xy()[:-1], pusht.tee(state[2:]))
    (lines,) = [c for c in scene.collections if isinstance(c, LineCollection)]
    segments, colours = np.array(lines.get_segments()), lines.get_colors()
    assert segments.shape == (40 * 15, 2, 2)
    np.testing.assert_allclose(segments[:40, 0], chunks[:, 0])  # all first segments, then all second ones …
    np.testing.assert_allclose(segments[-40:, 1], chunks[:, -1])
    np.testing.assert_allclose(colours[0, :3], pusht.AHEAD(0.0)[:3])
    np.testing.assert_allclose(colours[-1, :3], pusht.AHEAD(1.0)[:3])
    ends, done = scene.lines
    np.testing.assert_allclose(ends.get_xydata(), chunks[:, -1])
    np.testing.assert_allclose(done.get_xydata(), chunks[0])
    assert [text.get_text() for text in bar.texts] == ["now", "1.5 s ahead"]
    inside(figure)


def test_several_scenes_stand_side_by_side():
    states = np.tile(np.array([[100.0, 120.0, 220.0, 230.0, 0.7]]), (4, 1)) + np.arange(4)[:, None]
    figure = pusht.pusht_fan(states, np.stack([modes(12)] * 4), names=[f"step {k}" for k in range(4)])
    scenes = [ax for ax in figure.axes if ax.patches]
    assert [ax.get_title("left") for ax in scenes] == [f"step {k}" for k in range(4)]
    assert [ax.patches[2].center[0] for ax in scenes] == [100, 101, 102, 103]
    inside(figure)
    with pytest.raises(InputError, match="names"):
        pusht.pusht_fan(states, np.stack([modes(12)] * 4), names=["one"])
    with pytest.raises(InputError, match="finite"):
        pusht.pusht_fan(states[0], np.full((3, 4, 2), np.nan))


def test_one_step_is_a_chunk_too():
    figure = pusht.pusht_fan(np.array([100.0, 120.0, 220.0, 230.0, 0.7]), modes(5, 1))
    assert figure.axes[0].lines[0].get_xydata().shape == (5, 2)
