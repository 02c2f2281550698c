import numpy as np
import pytest

from ebbtide.core.paths import PATHS, VE, Linear
from ebbtide.errors import InputError
from ebbtide.plots import images, strips, style
from plots.tiles import channels_last, cut, mosaic_of, noise_pictures, words


def cells_of(figure, size=(8, 8)):
    return cut(mosaic_of(figure), size)


def test_a_denoising_strip_has_samples_in_rows_and_times_in_columns():
    walk = noise_pictures(5, 3, 1, 8, 8)
    figure = strips.denoising_strip([1.0, 0.7, 0.5, 0.2, 0.0], walk)
    cells = cells_of(figure)
    np.testing.assert_array_equal(np.array(cells), channels_last(walk.swapaxes(0, 1)))
    assert [word for word in words(figure) if word[-1].isdigit()] == [
        "noise\nt = 1",
        "0.7",
        "0.5",
        "0.2",
        "data\nt = 0",
    ]


def test_what_the_network_saw_stands_below_and_long_walks_are_thinned_to_their_ends():
    walk = noise_pictures(41, 2, 3, 8, 8).astype(float)
    guess = noise_pictures(41, 2, 3, 8, 8, seed=1)
    figure = strips.denoising_strip(np.linspace(1, 0, 41).tolist(), walk, guess, most=5)
    cells = cells_of(figure)
    assert [len(row) for row in cells] == [5] * 4
    chosen = [0, 10, 20, 30, 40]
    np.testing.assert_array_equal(np.array(cells[1]), channels_last(walk[chosen, 1].astype(np.uint8)))
    np.testing.assert_array_equal(np.array(cells[2]), channels_last(guess[chosen, 0]))
    assert {"x_t", "x̂₀", "0.75"} <= set(words(figure))


def test_the_note_says_how_much_was_clipped():
    walk = np.full((2, 1, 1, 8, 8), 100.0)
    assert "lipped" not in " ".join(words(strips.denoising_strip([1.0, 0.0], walk)))
    walk[0, 0, 0, :2] = 300
    figure = strips.denoising_strip([1.0, 0.0], walk)
    assert "up to 25 %" in " ".join(words(figure))
    assert (mosaic_of(figure)[:20, :20] == 255).all()


def test_a_walk_and_its_times_must_agree():
    walk = noise_pictures(4, 1, 1, 8, 8)
    with pytest.raises(InputError, match=r"walk.* 4 and 3"):
        strips.denoising_strip([1.0, 0.5, 0.0], walk)
    with pytest.raises(InputError, match="x0_hat"):
        strips.denoising_strip([1.0, 0.5, 0.2, 0.0], walk, walk[:, :, :, :4])
    with pytest.raises(InputError, match="walk must have the shape"):
        strips.denoising_strip([1.0, 0.5, 0.2, 0.0], noise_pictures(4, 1, 2, 8, 8))


def test_every_path_starts_at_the_picture_and_ends_in_one_noise():
    picture = noise_pictures(3, 16, 16)
    paths = {name: kind() for name, kind in PATHS.items()}
    figure = strips.forward_strip(paths, picture, times=(0.0, 0.5, 1.0))
    cells = cells_of(figure, (16, 16))
    for row in cells:
        np.testing.assert_array_equal(row[0], channels_last(picture))
    first = cells[0][2].astype(int)
    for row in cells[1:]:
        assert np.abs(row[2].astype(int) - first).max() <= 5  # what is left of the data, and VE's root of α² + σ²
    # The pixels that weren't clipped are 127.5 (1 + ε), ε ~ N(0, 1): 68 % of them.
    inside = (first > 0) & (first < 255)
    assert abs(inside.mean() - 0.683) < 0.06
    assert list(paths) == [word for word in words(figure) if word in PATHS]


def test_half_of_the_way_on_the_linear_path_is_the_mean_of_picture_and_noise():
    picture = np.full((1, 8, 8), 51, np.uint8)  # -0.6
    row = cells_of(strips.forward_strip({"a": Linear()}, picture, times=(0.5, 1.0)))[0]
    middle, noise = (cell[..., 0].astype(float) for cell in row)
    inside = (noise > 0) & (noise < 255)
    np.testing.assert_allclose(middle[inside], (51 + noise[inside]) / 2, atol=1.01)


def test_the_signal_to_noise_ratio_stands_under_each_picture():
    picture = noise_pictures(1, 8, 8)
    figure = strips.forward_strip({"line": Linear(), "ve": VE(sigma_max=60.0)}, picture, times=(0.0, 0.25, 0.5, 1.0))
    ratios = [word.removeprefix("SNR ") for word in words(figure) if word.startswith("SNR ") and "=" not in word]
    # Linear: (3/1)², (1/1)², 0. VE: 1/15² = 0.0044, 1/30² = 0.0011, 1/60² = 0.00028.
    assert ratios == ["∞", "9", "1", "0", "∞", "4e-3", "1e-3", "3e-4"]
    assert "divided by its root" in " ".join(words(figure))
    assert "divided" not in " ".join(words(strips.forward_strip({"line": Linear()}, picture)))
    with pytest.raises(InputError, match="no paths"):
        strips.forward_strip({}, picture)


def test_training_is_shown_closely_at_the_start_with_a_word_of_patience():
    steps = [0, *range(500, 20_001, 500)]
    grids = noise_pictures(len(steps), 12, 1, 8, 8)
    labels = [f"FID {k}" for k in range(len(steps))]
    figure = strips.training_strip(steps, grids, labels=labels, wait=6000, most=6, columns=10)
    said = words(figure)
    shown = [int(word[5:].replace(",", "")) for word in said if word.startswith("step ")]
    assert shown[0] == 0
    assert shown[1] == 500
    assert shown[-1] == 20_000
    assert len(shown) <= 6
    assert (np.diff(shown, 2) >= 0).all()
    cells = cells_of(figure)
    for row, step in zip(cells, shown, strict=True):
        np.testing.assert_array_equal(np.array(row), channels_last(grids[steps.index(step), :10]))
    assert [word for word in said if word.startswith("FID")] == [labels[steps.index(step)] for step in shown]
    assert "wait for step 6,000" in " ".join(said)
    with pytest.raises(InputError, match="labels"):
        strips.training_strip(steps, grids, labels=labels[:3])
    with pytest.raises(InputError, match="grids"):
        strips.training_strip(steps[:3], grids)


def test_one_step_alone_is_one_row():
    assert len(cells_of(strips.training_strip([0], noise_pictures(1, 3, 1, 8, 8)))) == 1


def test_an_interpolation_names_its_ends():
    rows = noise_pictures(2, 6, 3, 8, 8)
    figure = strips.interpolation(rows)
    np.testing.assert_array_equal(np.array(cells_of(figure)), channels_last(rows))
    first, last = (next(t for t in figure.axes[0].texts if t.get_text() == end) for end in ("noise A", "noise B"))
    assert first.get_position()[0] < last.get_position()[0] - 300
    with pytest.raises(InputError, match="at least 2"):
        strips.interpolation(rows[:, :1])


def test_guidance_has_weights_in_rows_and_classes_in_columns():
    x = noise_pictures(3, 4, 3, 8, 8)
    figure = strips.guidance_grid([0, 1, 7.5], ["cat", "dog", "ship", "automobile"], x)
    np.testing.assert_array_equal(np.array(cells_of(figure)), channels_last(x))
    assert words(figure)[-7:] == ["cat", "dog", "ship", "automobile", "0", "1 (off)", "7.5"]
    with pytest.raises(InputError, match="weights"):
        strips.guidance_grid([0, 1], ["cat", "dog", "ship", "automobile"], x)
    with pytest.raises(InputError, match="classes"):
        strips.guidance_grid([0, 1, 2], ["cat"], x)


@pytest.mark.parametrize("per_channel", [False, True])
def test_inpainting_hatches_what_was_hidden_and_nothing_else(per_channel):
    original, results = noise_pictures(2, 3, 8, 8), noise_pictures(2, 3, 3, 8, 8, seed=1)
    mask = np.ones((8, 8), bool)
    mask[2:5, 3:] = False
    given = np.stack([mask, np.ones_like(mask), mask]) if per_channel else mask
    picture = mosaic_of(strips.inpainting(original, given, results))
    tiles = 5
    factor = (picture.shape[1] + 0) // (tiles * 8)
    places = [0, *(np.flatnonzero((picture[:, 1:] != 255).any((0, 2)) & (picture[:, :-1] == 255).all((0, 2))) + 1)]
    assert len(places) == tiles
    known = mask.repeat(factor, 0).repeat(factor, 1)
    original_big, given_big, first = (picture[: 8 * factor, p : p + 8 * factor] for p in places[:3])
    np.testing.assert_array_equal(given_big[known], original_big[known])
    assert set(np.unique(given_big[~known])) == {150, 225}
    np.testing.assert_array_equal(original_big[::factor, ::factor], channels_last(original)[0])
    np.testing.assert_array_equal(first[::factor, ::factor], channels_last(results)[0, 0])


def test_inpainting_refuses_shapes_that_do_not_fit():
    original, results = noise_pictures(2, 3, 8, 8), noise_pictures(2, 4, 3, 8, 8)
    with pytest.raises(InputError, match="mask"):
        strips.inpainting(original, np.ones((8, 7), bool), results)
    with pytest.raises(InputError, match="results"):
        strips.inpainting(original, np.ones((8, 8), bool), results[:1])


def test_each_sample_stands_over_its_neighbour_the_closest_first():
    samples, nearest = noise_pictures(5, 1, 8, 8), noise_pictures(5, 1, 8, 8, seed=1)
    figure = strips.neighbours(samples, nearest, np.array([3.0, 0.5, 12.25, 1.0, 2.0]), typical=2.5, columns=3)
    a, b, c, d = cells_of(figure)
    np.testing.assert_array_equal(np.array(a), channels_last(samples[[1, 3, 4]]))
    np.testing.assert_array_equal(np.array(b), channels_last(nearest[[1, 3, 4]]))
    np.testing.assert_array_equal(np.array(c[:2]), channels_last(samples[[0, 2]]))
    np.testing.assert_array_equal(np.array(d[:2]), channels_last(nearest[[0, 2]]))
    assert c[2] is d[2] is None
    said = words(figure)
    assert [word for word in said if word[0].isdigit()] == ["0.500", "1.00", "2.00", "3.00", "12.2"]
    assert said.count("nearest") == 2
    assert "typically 2.5 away" in " ".join(said)
    with pytest.raises(InputError, match="4 distances"):
        strips.neighbours(samples, nearest, np.zeros(4))


def test_rgba_is_shown_on_white():
    """In every strip, also where a mask has four channels."""
    x = noise_pictures(3, 2, 4, 16, 16)
    mask = np.ones((4, 16, 16), bool)
    figures = [
        strips.denoising_strip([1.0, 0.5, 0.0], x, x),
        strips.forward_strip({"linear": Linear()}, x[0, 0]),
        strips.training_strip([1, 2, 3], x),
        strips.interpolation(x),
        strips.guidance_grid([1.0, 2.0, 3.0], ["a", "b"], x),
        strips.inpainting(x[0], mask, x[:2]),
        strips.neighbours(x[0], x[1], np.array([1.0, 2.0])),
    ]
    for figure in figures:
        assert mosaic_of(figure).shape[2] == 3
    np.testing.assert_array_equal(cells_of(figures[3], (16, 16))[0][0], channels_last(images.as_pixels(x[0]))[0])


def test_texts_stay_inside_the_figure():
    figures = [
        strips.denoising_strip([1.0, 0.0], noise_pictures(2, 1, 1, 8, 8)),
        strips.forward_strip({"a path of a long name": Linear()}, noise_pictures(3, 64, 64)),
        strips.guidance_grid([1, 2], ["automobile"] * 10, noise_pictures(2, 10, 3, 32, 32)),
        strips.neighbours(*(noise_pictures(1, 1, 8, 8, seed=k) for k in range(2)), np.array([123456.0])),
    ]
    for figure in figures:
        figure.canvas.draw()
        for text in [*figure.texts, *figure.axes[0].texts]:
            extent = text.get_window_extent()
            assert extent.x0 >= 0
            assert extent.x1 <= figure.bbox.x1
            assert -2 <= extent.y0 < extent.y1 <= figure.bbox.y1 or not text.get_text()
        assert figure.dpi == style.DPI
