"""Figures of benchmarks: what is drawn is what was measured."""

import numpy as np
import pytest

from benchmarks import charts
from ebbtide.errors import InputError
from ebbtide.plots import style
from plots.material import inside


def test_every_head_is_a_line_with_intervals_in_its_methods_colour():
    lines = {
        "flow · U-Net": [(100, 0.93, 0.9, 0.95), (1, 0.6, 0.55, 0.66), (10, 0.92, 0.89, 0.94)],
        "diffusion · U-Net": [(10, 0.8, 0.75, 0.85), (100, 0.91, 0.88, 0.93)],
        "ACT": [(1, 0.5, 0.4, 0.6)],
    }
    figure = charts.score_against_evaluations(lines, references={"humans": 0.97})
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert ax.get_yscale() == "linear"
    reference, *drawn = ax.lines
    assert reference.get_ydata()[0] == 0.97
    assert [line.get_label() for line in drawn] == list(lines)
    assert [line.get_color() for line in drawn[:2]] == [style.FLOW, style.DIFFUSION]
    assert drawn[2].get_color() not in (style.FLOW, style.DIFFUSION)
    np.testing.assert_allclose(drawn[0].get_ydata(), [0.6, 0.92, 0.93])  # sorted by cost
    np.testing.assert_allclose(drawn[1].get_xdata(), [10, 100])  # the middle one isn't moved
    np.testing.assert_allclose(drawn[0].get_xdata(), np.array([1, 10, 100]) / 1.03)
    bars = [np.array(c.get_segments())[:, :, 1] for c in ax.collections]
    np.testing.assert_allclose(bars[0], [[0.55, 0.66], [0.89, 0.94], [0.9, 0.95]])
    assert ax.get_ylim()[0] < 0.4
    assert ax.get_ylim()[1] > 0.97
    assert ax.get_xticks().tolist() == [1, 10, 100]
    inside(figure)


@pytest.mark.parametrize(
    "lines", [{}, {"a": []}, {"a": [(0, 0.5, 0.4, 0.6)]}, {"a": [(1, 0.5, 0.6, 0.7)]}, {"a": [(1, np.nan, 0.0, 1.0)]}]
)
def test_quality_without_sense_is_refused(lines):
    with pytest.raises(InputError):
        charts.score_against_evaluations(lines)
