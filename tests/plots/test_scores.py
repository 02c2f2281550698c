from math import sqrt

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ebbtide.errors import InputError
from ebbtide.plots import scores, style
from plots.material import inside
from plots.tiles import words


def test_the_interval_of_a_mean_is_students():
    # Of four: s² = 0.04/3, t of three = 3.18245.
    reach = 3.18245 * sqrt(0.04 / 3) / 2
    ax = scores.scores({"flow": np.array([0.4, 0.4, 0.6, 0.6])}).axes[0]
    band = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    np.testing.assert_allclose([band.x0, band.x1], [0.5 - reach, 0.5 + reach], 1e-5)


def test_scores_are_binned_averaged_and_counted_from_above():
    x = np.array([0.0, 0.5, 0.5, 1.0])
    figure = scores.scores({"flow": x, "ACT": 1 - x}, intervals={"flow": (0.3, 0.8)}, captions={"flow": "1 of 4"})
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
    figure = scores.scores({"flow": np.ones(7)})
    assert figure.axes[1].get_legend() is None
    assert figure.axes[0].texts[0].get_text() == "mean 1.000, 0.646 – 1.000\n7 episodes"  # Wilson's: 7 / (7 + 1.96²)
    inside(figure)


@pytest.mark.parametrize(
    ("results", "said"),
    [({}, "no scores"), ({"a": np.array([0.5, 1.2])}, r"0\.5 … 1\.2"), ({"a": np.array([np.nan])}, "finite")],
)
def test_scores_outside_0_1_are_refused(results, said):
    with pytest.raises(InputError, match=said):
        scores.scores(results)


def test_latency_bars_end_at_the_median_and_name_the_gain():
    times = {"256 tokens": {"recomputed": (120, 130), "cached": (20.0, 22)}, "768 tokens": {"recomputed": (300, 310)}}
    figure = scores.latency_bars(times, reference=("the paper, 73 ms", 73))
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
    slower = scores.latency_bars({"a": {"x": (10, 10), "y": (25, 30)}})
    assert "25 ms  (2.5 × slower)" in words(slower)


@pytest.mark.parametrize("times", [{}, {"a": {}}, {"a": {"b": (0, 1)}}, {"a": {"b": (2, 1)}}])
def test_times_without_sense_are_refused(times):
    with pytest.raises(InputError):
        scores.latency_bars(times)


def test_a_label_with_both_methods_or_none_has_a_colour_of_its_own():
    assert scores.tint_of("Flow · U-Net", 3) == style.FLOW
    assert scores.tint_of("diffusion", 0) == style.DIFFUSION
    assert scores.tint_of("diffusion and flow", 0) == scores.tint_of("ACT", 0) == style.CLASSES[0][0]
