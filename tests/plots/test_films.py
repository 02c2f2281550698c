import numpy as np
import pytest
from PIL import Image

from ebbtide.errors import InputError
from ebbtide.plots import films
from plots.tiles import channels_last, cut, noise_pictures


def frames_of(path):
    with Image.open(path) as gif:
        frames, durations = [], []
        for k in range(gif.n_frames):
            gif.seek(k)
            frames.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
        return frames, durations, gif.info["loop"]


def test_a_training_film_has_a_frame_for_each_grid_and_rests_on_the_last(tmp_path):
    grids = noise_pictures(6, 4, 1, 8, 8)
    frames, durations, loop = frames_of(films.training_gif(tmp_path / "a.gif", [0, 10, 20, 40, 80, 160], grids))
    assert len(frames) == 6
    assert durations == [500] * 5 + [2000]
    assert loop == 0
    for frame, grid in zip(frames, grids, strict=True):
        tiles = frame[: frame.shape[1]]  # two by two and as high as wide; the clock is beneath
        np.testing.assert_array_equal(np.array(cut(tiles, (8, 8))).reshape(4, 8, 8, 3), channels_last(grid))


def bars(frames):
    """The longest black line of each frame: the bar, or a stroke of the text."""
    return [int(max((row == 0).all(1).sum() for row in frame)) for frame in frames]


def test_a_bar_fills_with_the_clock(tmp_path):
    grids = np.full((3, 1, 1, 8, 8), 99, np.uint8)
    frames, _, _ = frames_of(films.training_gif(tmp_path / "a.gif", [0, 50, 100], grids))
    # The bar is the black above the text.
    lengths = bars(frames)
    assert lengths[2] > 150
    assert abs(lengths[1] - lengths[2] / 2) <= 1
    assert lengths[0] < 40  # only text


def test_a_sampling_film_is_thinned_and_keeps_its_ends_and_colours(tmp_path):
    last = noise_pictures(1, 3, 4, 4)[0].repeat(4, 1).repeat(4, 2)  # 16 colours, which the palette can hold
    noise = np.random.default_rng(0).normal(127, 127, last.shape)
    times = np.linspace(1, 0, 200)
    walk = np.stack([(last * (1 - t) + noise * t)[None].repeat(9, 0) for t in times])
    path = films.sampling_gif(tmp_path / "a.gif", times.tolist(), walk)
    frames, durations, _ = frames_of(path)
    assert len(frames) == 48
    assert durations[-1] == 2000
    assert sum(durations[:-1]) < 6000
    assert path.stat().st_size < 3e6
    lengths = bars([frame[-60:] for frame in frames])
    assert lengths[0] < 40 < 400 < lengths[-1]
    side = frames[-1].shape[1] - 24
    end = frames[-1][12 : 12 + 16 * 9, 12 : 12 + 16 * 9].astype(int)
    factor = 9  # of a 16-pixel tile, three across
    assert side == 3 * 16 * factor + 2 * 9
    np.testing.assert_allclose(end[::factor, ::factor], channels_last(last), atol=6)


def test_equal_pictures_stay_equal_in_few_colours(tmp_path):
    x = noise_pictures(1, 3, 32, 32).repeat(2, 0)
    (frame,), _, _ = frames_of(films.training_gif(tmp_path / "a.gif", [1], x[None]))
    (tiles,) = cut(frame[: 12 + 32 * 6], (32, 32))
    np.testing.assert_array_equal(tiles[0], tiles[1])  # dithering would spread errors from one to the other
    assert np.abs(tiles[0].astype(int) - channels_last(x)[0]).mean() < 12


def test_a_colour_of_a_few_frames_is_kept(tmp_path):
    """Each frame of a walk counts, and so does what is small beside the noise around it."""
    walk = noise_pictures(40, 4, 3, 16, 16) // 4  # dark
    walk[13:15, 1, :, 4:8, 4:8] = np.array([255, 0, 0])[:, None, None]
    frames, _, _ = frames_of(films.sampling_gif(tmp_path / "a.gif", np.linspace(1, 0, 40).tolist(), walk))
    red = [(np.abs(frame.astype(int) - (255, 0, 0)).max(2) <= 8).sum() for frame in frames]
    assert [k for k, count in enumerate(red) if count] == [13, 14]


def test_large_films_have_fewer_frames(tmp_path):
    walk = noise_pictures(30, 16, 3, 64, 64)
    frames, _, _ = frames_of(films.sampling_gif(tmp_path / "a.gif", np.linspace(1, 0, 30).tolist(), walk))
    assert len(frames) == 16


def test_what_cannot_be_filmed_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="steps"):
        films.training_gif(tmp_path / "a.gif", [1, 2], noise_pictures(3, 2, 1, 8, 8))
    with pytest.raises(InputError, match="times"):
        films.sampling_gif(tmp_path / "a.gif", [1.0], noise_pictures(3, 2, 1, 8, 8))
    with pytest.raises(InputError, match=r"a\.gif"):
        films.training_gif(tmp_path / "no" / "a.gif", [1], noise_pictures(1, 2, 1, 8, 8))


def test_transparency_is_shown_on_white(tmp_path):
    x = noise_pictures(2, 1, 4, 8, 8)
    x[:, :, 3] = 0
    frames, _, _ = frames_of(films.training_gif(tmp_path / "a.gif", [1, 2], x))
    assert (frames[0][:150] == 255).all()
