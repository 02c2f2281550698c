import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from ebbtide.errors import InputError
from ebbtide.plots import images, style
from plots.tiles import channels_last, cut, drawn, mosaic_of, noise_pictures, words


def test_floats_are_rounded_and_clipped_and_the_clipped_are_counted():
    x = np.array([-300.0, -0.6, -0.5, 0.4, 0.6, 127.5, 128.5, 254.6, 255.4, 255.5, 1e9])
    assert images.to_uint8(x).tolist() == [0, 0, 0, 0, 1, 128, 128, 255, 255, 255, 255]
    assert images.clipped_share(x) == 4 / 11  # -300 and -0.6; 255.5 (which rounds to 256) and 1e9
    assert images.clipped_share(np.array([0.0, 255.0, 255.4])) == 0
    assert images.clipped_share(np.zeros((0, 3))) == 0
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(images.to_uint8(every.astype(np.float32)), every)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pixel_without_a_value_is_refused(bad):
    with pytest.raises(InputError, match="1 of 3"):
        images.to_uint8(np.array([1.0, bad, 2.0]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((2, 3, 4, 4)), "float64"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((2, 5, 4, 3), np.uint8), "c = 1, 3 or 4"),  # channels last
        (np.zeros((0, 3, 4, 4), np.uint8), r"\(0, 3, 4, 4\)"),
    ],
)
def test_what_is_no_picture_is_one_sentence(wrong, said):
    with pytest.raises(InputError, match=said) as error:
        images.as_pixels(wrong, "samples")
    assert str(error.value).startswith("samples must")
    assert "\n" not in str(error.value)


def test_functions_refuse_channels_they_cannot_show(tmp_path):
    two = np.zeros((4, 2, 8, 8), np.uint8)
    with pytest.raises(InputError, match="c = 1, 3 or 4"):
        images.grid(two)
    with pytest.raises(InputError, match="c = 1, 3 or 4"):
        images.save_png(two, tmp_path / "x.png")
    for option in ({"columns": -1}, {"factor": -2}):
        with pytest.raises(InputError, match=f"{next(iter(option))} must be at least 1"):
            images.save_png(noise_pictures(4, 1, 8, 8), tmp_path / "x.png", **option)


@pytest.mark.parametrize(
    ("n", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (7, 4), (8, 4), (12, 4), (16, 4), (64, 8), (100, 10)]
)
def test_grids_are_nearly_square_with_few_places_empty(n, columns):
    assert images.columns_for(n) == columns


def test_tiles_fill_the_figure_but_are_never_shrunk():
    assert images.fitting_factor(8, 8, 1) == 150 // 8
    assert 700 < 10 * 8 * images.fitting_factor(8, 8, 10) < images.ROOM
    assert images.fitting_factor(512, 512, 8) == 1
    assert 28 * images.fitting_factor(28, 28, 40, least=56) == 56


@pytest.mark.parametrize(("n", "c", "h", "w"), [(1, 1, 8, 8), (8, 1, 8, 8), (9, 3, 20, 13), (7, 3, 32, 32)])
def test_the_rendered_canvas_holds_every_pixel_enlarged(n, c, h, w):
    x = noise_pictures(n, c, h, w)
    figure = images.grid(x, title="Samples", note="A note that is long enough to be wrapped. " * 4)
    cells = [cell for row in cut(drawn(figure), (h, w)) for cell in row]
    np.testing.assert_array_equal(np.stack(cells[:n]), channels_last(x))
    assert all(cell is None for cell in cells[n:])


@pytest.mark.parametrize("columns", [3, 5, 11])
def test_labels_around_the_tiles_do_not_move_or_resample_them(columns):
    x = noise_pictures(2 * columns, 3, 32, 32)
    made = images.sheet(
        x,
        columns,
        title="t",
        note="n",
        heads=["a head much too long for it"] * columns,
        names=["a", "b"],
        ends=["end", "FID 3"],
        captions=[""] * columns + ["below"] * columns,
    )
    shown, meant = drawn(made.figure), mosaic_of(made.figure)
    assert shown.shape[1] == meant.shape[1]
    width, height = made.size
    for left, top in made.corners.tolist():
        box = slice(top, top + height), slice(left, left + width)
        np.testing.assert_array_equal(shown[box], meant[box])
    for text in [*made.ax.texts, *made.figure.texts]:
        extent = text.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= made.figure.bbox.x1
        assert extent.y1 <= made.figure.bbox.y1
        assert extent.y0 >= -2


def test_captions_and_heads_stay_in_their_columns():
    made = images.sheet(
        noise_pictures(12, 1, 8, 8),
        12,
        heads=[f"class {k}" for k in range(12)],
        captions=["SNR 0.0123"] * 12,
    )
    made.figure.canvas.draw()
    for place in (made.ax.texts[:12], made.ax.texts[12:]):
        boxes = [text.get_window_extent() for text in place]
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_captions_have_room_above_the_next_row():
    made = images.sheet(noise_pictures(6, 1, 8, 8), 3, captions=["0.5"] * 6)
    shown = drawn(made.figure)
    tops = sorted(set(made.corners[:, 1].tolist()))
    for text, (_, top) in zip(made.ax.texts, made.corners.tolist(), strict=True):
        extent = text.get_window_extent()
        low = made.ax.get_window_extent().y1 - extent.y0  # pixels from the mosaic's top to the caption's foot
        assert top + made.size[1] <= low - extent.height + 1
        assert low < next((other for other in tops if other > top), low + 1)
    assert len(shown) == tops[-1] + made.size[1]


def test_at_twice_the_resolution_each_pixel_is_four():
    figure = images.grid(noise_pictures(4, 3, 13, 13))
    small = drawn(figure)
    figure.set_dpi(2 * style.DPI)
    np.testing.assert_array_equal(drawn(figure), small.repeat(2, 0).repeat(2, 1))


def test_a_class_of_many_has_several_rows(monkeypatch):
    monkeypatch.setattr(images, "WIDE", 3)
    x, labels = noise_pictures(9, 1, 8, 8), np.array([0, 2, 2, 2, 0, 2, 2, 2, 2])
    figure = images.by_class(x, labels, ["zero", "one", "two"])
    cells = cut(mosaic_of(figure), (8, 8))
    for row, order in zip(cells, ([0, 4], [1, 2, 3], [5, 6, 7], [8]), strict=True):
        np.testing.assert_array_equal(np.stack(row[: len(order)]), channels_last(x[order]))
    assert [word for word in words(figure) if word in ("zero", "two")] == ["zero", "two"]


def test_with_labels_each_row_is_a_class_in_its_pictures_order():
    x = noise_pictures(12, 1, 8, 8)
    labels = np.array([2, 0, 0, 2, 0, 7, 0, 2, 0, 0, 7, 0])
    figure = images.grid(x, labels=labels, classes=["zero", "one", "two"], columns=4)
    cells = cut(mosaic_of(figure), (8, 8))
    for row, order in zip(cells, ([1, 2, 4, 6], [0, 3, 7], [5, 10]), strict=True):
        np.testing.assert_array_equal(np.stack(row[: len(order)]), channels_last(x[order]))
        assert row[len(order) :] == [None] * (4 - len(order))
    assert words(figure)[-3:] == ["zero", "two", "7"]
    with pytest.raises(InputError, match="labels"):
        images.grid(x, labels=labels[:5])


@pytest.mark.parametrize(("n", "c", "factor"), [(1, 1, 1), (1, 3, 0), (6, 1, 3), (10, 3, 0)])
def test_a_png_holds_the_pictures_and_nothing_else(tmp_path, n, c, factor):
    x = noise_pictures(n, c, 16, 12)
    with Image.open(images.save_png(x, tmp_path / "x.png", factor=factor)) as file:
        assert file.format == "PNG"
        assert file.mode == ("L" if c == 1 else "RGB")
        pixels = np.asarray(file.convert("RGB"))
    if n == factor == 1:
        np.testing.assert_array_equal(pixels, channels_last(x)[0])
    cells = [cell for row in cut(pixels, (16, 12)) for cell in row]
    np.testing.assert_array_equal(np.stack(cells[:n]), channels_last(x))
    assert (pixels[0] != 255).any()  # no border
    assert (pixels[:, -1] != 255).any()


def test_rgba_is_kept_in_a_png_and_on_white_in_a_figure(tmp_path):
    """0.2 · 100 + 0.8 · 255 = 224."""
    x = np.zeros((4, 4, 8, 8), np.uint8)
    x[:, :, :, :4] = np.array([100, 0, 255, 51])[:, None, None]
    with Image.open(images.save_png(x, tmp_path / "x.png", factor=1)) as file:
        assert file.mode == "RGBA"
        pixels = np.asarray(file)
    assert pixels[0, 0].tolist() == [100, 0, 255, 51]
    assert pixels[0, 7].tolist() == [0, 0, 0, 0]
    assert pixels[0, 8].tolist() == [255] * 4  # the gap
    assert images.as_pixels(x)[0, :, 0, 0].tolist() == [224, 204, 255]
    shown = mosaic_of(images.grid(x))
    assert {tuple(pixel) for pixel in shown.reshape(-1, 3).tolist()} == {(224, 204, 255), (255, 255, 255)}


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"x\.png"):
        images.save_png(noise_pictures(1, 1, 8, 8), tmp_path / "no" / "x.png")


def history(n=200):
    lines = [
        {"step": 10 * k, "loss": 0.1 + 2.0 ** (1 - k / 10), "lr": 1e-4, "examples_per_second": 800.0 + k % 2}
        for k in range(1, n + 1)
    ]
    lines[3]["loss"] = None
    lines[0]["examples_per_second"] = 90.0
    return lines


def test_loss_is_on_a_log_axis_beside_the_speed():
    figure = images.loss_and_speed(history(), key="diffusion")
    loss, speed = figure.axes
    assert loss.get_yscale() == "log"
    assert loss.lines[0].get_ydata()[9] == pytest.approx(1.1)
    assert loss.lines[0].get_xdata()[-1] == 2000
    assert np.isfinite(loss.lines[1].get_ydata()).all()  # the smoothed line bridges the missing one
    assert loss.lines[1].get_color() == style.DIFFUSION
    assert speed.get_ylim()[0] == 0
    assert "800 in the median" in speed.get_title(loc="left")
    figure.canvas.draw()


def test_a_history_without_speed_is_one_panel_and_one_without_loss_is_refused():
    bare = [{"step": line["step"], "loss": -1.0} for line in history()]
    (ax,) = images.loss_and_speed(bare).axes
    assert ax.get_yscale() == "linear"  # a loss below 0 has no logarithm
    for wrong in ([], [{"step": 1, "loss": None}], [{"loss": 1.0}]):
        with pytest.raises(InputError, match="history"):
            images.loss_and_speed(wrong)


def test_nothing_global_is_touched():
    imported = "matplotlib.pyplot" in sys.modules  # by another test's library
    before = dict(mpl.rcParams)
    images.grid(noise_pictures(4, 1, 8, 8)).canvas.draw()
    images.loss_and_speed(history()).canvas.draw()
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == imported
