import sys
import threading
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from ebbtide.errors import InputError
from ebbtide.plots import style


def test_the_two_methods_and_the_classes_have_colours_of_their_own():
    used = [*style.METHOD_COLOURS.values(), *style.INKS, style.REAL, *(colour for colour, _ in style.CLASSES)]
    assert len(set(used)) == len(used)
    assert len({style.class_style(k) for k in range(25)}) == 25
    with pytest.raises(InputError, match="diffusion, flow"):
        style.colour("gan")


# Linear RGB as people without one kind of cones see it (Machado et al. 2009, Table 1, severity 1).
SIGHT = {
    "all": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


def lab(colour, sight):
    """CIE L*a*b* of a colour."""
    c = np.array(style.mpl.colors.to_rgb(colour))
    seen = np.clip(sight @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    x = np.array(to_xyz) @ seen / [0.95047, 1, 1.08883]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_six_methods_are_told_apart_by_every_kind_of_sight():
    colours = [*style.METHOD_COLOURS.values(), *style.INKS]
    for name, sight in SIGHT.items():
        seen = [lab(colour, sight) for colour in colours]
        apart = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
        assert apart > (40 if name == "all" else 17), name
    assert lab("#ffffff", SIGHT["all"]) == pytest.approx([100, 0, 0], abs=0.1)


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (1, "t = 1 noise"),
        (0, "t = 0 data"),
        (0.5, "t = 0.5"),
        (0.25, "t = 0.25"),
        (0.045, "t = 0.045"),
        (0.996, "t = 1.0"),
    ],
)
def test_times_are_named_by_their_ends(t, text):
    assert style.time_label(t) == text


def test_limits_are_one_pair_or_one_for_each_column():
    assert style.as_limits((-1, 2), 3).tolist() == [[-1, 2]] * 3
    assert style.as_limits([[0, 1], [5, 9]], 2).tolist() == [[0, 1], [5, 9]]
    for wrong in [(2, 1), (0, np.inf), [[0, 1]], (1, 2, 3)]:
        with pytest.raises(InputError, match="limits"):
            style.as_limits(wrong, 2)


def test_limits_of_rows_with_a_gap_each_are_their_columns():
    """By hand: 0 to 10 with a tenth of room, a single 3 with half of itself, and a column without a value."""
    gap = np.nan
    x = np.array([[0.0, gap, gap], [10.0, gap, gap], [gap, 3.0, gap]])
    np.testing.assert_allclose(style.limits_around(x, 0, room=0.1), [[-1, 11], [1.5, 4.5], [-0.5, 0.5]])
    whole = np.array([[1.0, 2.0], [3.0, 6.0], [gap, 99.0]])  # rows that are whole decide where there are any
    np.testing.assert_allclose(style.limits_around(whole, 0, room=0.25), [[0.5, 3.5], [1, 7]])


def test_limits_around_points_hold_them_even_where_all_are_equal():
    x = np.stack([np.full(50, 4.0), np.linspace(-1, 1, 50)], 1)
    (a, b), (c, d) = style.limits_around(x)
    assert a < 4 < b
    assert c < -0.99 < 0.99 < d
    wide = style.union(np.array([[0.0, 1.0], [-9.0, 0.0]]), x)
    assert wide[0, 1] > 4
    assert wide[1, 0] == -9
    assert wide[1, 1] > 0.9


@pytest.mark.parametrize("wrong", [np.zeros((0, 2)), np.zeros((3, 2, 2)), np.full((3, 2), np.nan)])
def test_points_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(InputError, match="samples"):
        style.checked_points(wrong, "samples")


def test_labels_are_moved_apart_but_keep_their_order():
    placed = style.spread([0.5, 0.51, 0.1, 0.52], 0.1)
    assert (np.diff(placed[[2, 0, 1, 3]]) > 0.099).all()
    assert abs(placed[2] - 0.1) < 1e-9


def test_panels_have_one_size_and_lie_inside_the_figure():
    grid = style.axes_grid(2, 3, panel=(2, 1.5), title="A title " * 30, note="word " * 200, used=5)
    assert grid.axes[1, 2] is None
    boxes = [ax.get_position() for ax in grid.axes.flat if ax is not None]
    size = grid.figure.get_size_inches()
    assert all(abs(box.width * size[0] - 2) < 1e-9 and abs(box.height * size[1] - 1.5) < 1e-9 for box in boxes)
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
    grid.figure.canvas.draw()
    for text in grid.figure.texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= grid.figure.bbox.x1
        assert extent.y0 >= -2


def test_figures_can_be_drawn_in_threads_and_leave_pyplot_alone(tmp_path):
    imported = "matplotlib.pyplot" in sys.modules  # by another test's library

    def work(k):
        grid = style.axes_grid(1, 2, panel=(1, 1))
        style.dots(grid.axes[0, 0], np.random.default_rng(k).standard_normal((100, 2)), style.FLOW)
        style.save(grid.figure, tmp_path / f"{k}.png")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert ("matplotlib.pyplot" in sys.modules) == imported


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"x\.png"):
        style.save(style.axes_grid(1, 1, panel=(1, 1)).figure, tmp_path / "no" / "x.png")


def test_figures_are_saved_in_another_form_where_that_is_asked_for(tmp_path):
    figure = style.axes_grid(1, 1, panel=(1, 1)).figure
    with style.saving(".svg"):
        assert style.save(figure, tmp_path / "a.png").read_bytes().startswith(b"<?xml")
        assert style.save(figure, tmp_path / "a.pdf").suffix == ".pdf"  # as it is named
    with style.saving(dpi=300), Image.open(style.save(figure, tmp_path / "b.png")) as picture:
        assert picture.width == pytest.approx(300 * figure.get_size_inches()[0], abs=1)
    with Image.open(style.save(figure, tmp_path / "c.png")) as picture:
        assert picture.width == pytest.approx(figure.dpi * figure.get_size_inches()[0], abs=1)


def test_few_of_many_are_evenly_apart_with_both_ends():
    assert style.evenly(9, 3) == [0, 4, 8]
    assert style.evenly(3, 9) == [0, 1, 2]
    assert style.evenly(1, 5) == [0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (-0.015, "−0.015"),
        (18000.0, "18,000"),
        (-250000, "−250,000"),
        (1234.5678, "1235"),
        (2.5e7, "2.5e+07"),
    ],
)
def test_a_ticks_number_is_written_in_full(value, text):
    assert style.tick(value) == text


@pytest.mark.unchecked
@pytest.mark.parametrize("name", [None, 3, b"a.png"])
def test_a_figure_is_saved_under_a_path(name):
    with pytest.raises(InputError, match=r"path must be a path, a text or a pathlib\.Path; got "):
        style.save(style.axes_grid(1, 1, panel=(1, 1)).figure, name)
