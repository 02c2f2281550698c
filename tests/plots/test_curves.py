import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text

from ebbtide.errors import InputError
from ebbtide.plots import curves, style
from plots.material import comparison


@pytest.fixture
def c():
    return comparison(n=1500, m=120)


def test_every_sampler_is_a_labelled_line_in_its_methods_colour(c):
    figure = curves.quality_against_evaluations(c.quality, c.methods, c.quality_metric, c.floor)
    (ax,) = figure.axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    drawn = {text.get_text(): text.get_color() for text in ax.texts}
    assert drawn["DDPM · Heun"] == style.DIFFUSION
    assert drawn["Flow matching · Euler"] == style.FLOW
    assert set(c.quality) <= set(drawn)
    strokes = {(line.get_color(), line.get_marker()) for line in ax.lines}
    assert len(strokes) == len(c.quality)
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    np.testing.assert_allclose([band.y0, band.y1], c.floor)
    figure.canvas.draw()


def test_a_metric_that_may_be_negative_is_drawn_on_a_plain_axis(c):
    figure = curves.quality_against_evaluations(
        {"DDPM · Heun": [(4, -0.1), (8, np.nan), (16, 0.2)]}, c.methods, "MMD²", (-0.01, 0.01)
    )
    assert figure.axes[0].get_yscale() == "linear"


def test_labels_at_the_ends_do_not_overlap(c):
    quality = {f"DDPM · sampler {k}": [(10, 0.1), (100, 0.02 + 1e-5 * k)] for k in range(5)}
    figure = curves.quality_against_evaluations(quality, c.methods, "W2", (0.01, 0.012))
    figure.canvas.draw()
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts[1:]), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 3 for below, above in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_leaders_cross_no_name_and_only_names_at_the_ends_have_room(c):
    quality = {f"DDPM · sampler {k}": [(10, 0.1), (100, 0.02 + 1e-5 * k)] for k in range(5)}
    quality |= {"DDPM · a solver with a long name that ends early": [(10, 0.05), (20, 0.03)]}
    figure = curves.quality_against_evaluations(quality, c.methods, "W2", (0.01, 0.012))
    figure.canvas.draw()
    names = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None)]
    assert len(names) == 5
    left = min(Text.get_window_extent(text).x0 for text in names)
    for text in names:
        along = text.arrow_patch.get_transform().transform(text.arrow_patch.get_path().vertices)
        assert along[:, 0].max() <= left, text.get_text()
    blank = figure.bbox.x1 - max(Text.get_window_extent(text).x1 for text in names)
    assert 0 < blank < 0.8 * figure.dpi


def test_a_label_without_a_method_is_refused(c):
    with pytest.raises(InputError, match="Heun"):
        curves.quality_against_evaluations({"Heun": [(4, 0.1)]}, c.methods, "W2", (0.1, 0.2))
    with pytest.raises(InputError, match="no quality"):
        curves.quality_against_evaluations({"DDPM": []}, c.methods, "W2", (0.1, 0.2))


def test_losses_have_a_panel_and_a_scale_for_each_method(c):
    figure = curves.losses(c.methods)
    first, second = figure.axes
    assert first.get_ylim() != second.get_ylim()
    assert first.get_xlim() == second.get_xlim()
    assert {text.get_text() for text in first.texts} >= {"DDPM"}


def test_losses_may_hold_a_nan_and_may_not_be_missing(c):
    method = c.methods[0]
    losses = method.losses.copy()
    losses[3] = np.nan
    curves.losses([dataclasses.replace(method, losses=losses)]).canvas.draw()
    with pytest.raises(InputError, match="losses"):
        curves.losses([dataclasses.replace(method, losses=losses[:4])])


def test_smoothing_keeps_a_line_and_a_constant():
    np.testing.assert_allclose(curves.smoothed(np.full(100, 2.5)), 2.5)
    line = np.linspace(0, 1, 400)
    np.testing.assert_allclose(curves.smoothed(line)[:380], line[:380], atol=1e-12)
    assert np.isfinite(curves.smoothed(np.where(np.arange(100) == 50, np.nan, 1.0))).all()
