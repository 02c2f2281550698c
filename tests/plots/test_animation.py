import dataclasses

import numpy as np
import pytest
from PIL import Image

from ebbtide.errors import InputError
from ebbtide.plots import animation, style
from plots.material import comparison, several


@pytest.mark.parametrize("d", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_the_animations_are_small_loop_and_rest_on_the_last_frame(tmp_path, d):
    c = comparison(d=d, n=1500, m=120)
    frame = style.as_limits(c.limits, d)
    for make in (animation.sampling_gif, animation.training_gif):
        path = make(tmp_path / "a.gif", c.methods, frame, real=c.real)
        assert path.stat().st_size < 3e6
        with Image.open(path) as gif:
            assert 5 <= gif.n_frames <= 50
            assert gif.info["loop"] == 0
            durations = []
            for k in range(gif.n_frames):
                gif.seek(k)
                durations.append(gif.info["duration"])
        assert durations[-1] == 2000
        assert max(durations[:-1]) < 1000


@pytest.mark.parametrize("seconds", [0.8, 1.0, 3.0, 4.5])
def test_delays_add_up_to_what_was_asked_for(tmp_path, seconds):
    """38 frames: no delay is a whole number of hundredths, and none is under two."""
    drawn = (np.full((4, 5), k, np.uint8) for k in range(38))
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    path = animation.write_gif(tmp_path / "a.gif", drawn, palette, seconds=seconds, count=38)
    with Image.open(path) as gif:
        durations = [gif.seek(k) or gif.info["duration"] for k in range(38)]
    assert sum(durations[:-1]) == pytest.approx(1000 * seconds * 37 / 38, abs=5)
    assert durations[-1] == 2000


@pytest.mark.parametrize("count", [3, 256])
def test_a_few_colours_are_shared_as_they_are(count):
    rng = np.random.default_rng(0)
    given = np.unique(rng.integers(0, 256, (count, 3), np.uint8), axis=0)
    frames = [given[None, k : k + 1] for k in range(len(given))]  # each in one frame alone
    palette = animation.shared_palette(iter(frames))
    assert palette.shape == (256, 3)
    assert {*map(tuple, given.tolist())} <= {*map(tuple, palette.tolist())}


def test_of_many_colours_the_commonest_stay_and_the_rest_are_near():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 320, 350, 3), np.uint8)  # three hundred thousand colours
    assert len(np.unique(animation.codes(noise))) > animation._DISTINCT
    noise[:, :40] = (1, 2, 3)
    palette = animation.shared_palette(noise, 100)
    assert palette.shape == (100, 3)
    assert [1, 2, 3] in palette.tolist()
    far = np.linalg.norm(noise[0, 40:, ::50, None].astype(float) - palette, axis=-1).min(-1)
    assert far.mean() < 60


def tinted(picture, colour):
    """How many pixels have a colour's hue."""
    ink = np.array(style.mpl.colors.to_rgb(colour))
    pixels = 1 - np.asarray(picture.convert("RGB")) / 255
    size = np.linalg.norm(pixels, axis=-1)
    along = pixels @ (1 - ink) / np.linalg.norm(1 - ink)
    return int(((size > 0.05) & (along > 0.995 * size)).sum())


def test_dots_are_where_the_points_are_in_their_methods_colour(tmp_path):
    c = comparison(n=1500, m=120)
    where = [np.tile([[1.5, 1.5]], (50, 1)), np.tile([[-1.5, -1.5]], (50, 1))]
    methods = [
        dataclasses.replace(method, evolution=[(0, x), (10, x)]) for method, x in zip(c.methods, where, strict=True)
    ]
    path = animation.training_gif(tmp_path / "a.gif", methods, style.as_limits((-3, 3), 2))
    with Image.open(path) as gif:
        picture = gif.convert("RGB")
    width, height = picture.size
    panel = round(2.75 * animation.FRAME_DPI)
    first = picture.crop(
        (round(0.6 * panel), round(0.3 * animation.FRAME_DPI), panel, round(0.3 * animation.FRAME_DPI + panel / 2))
    )
    assert tinted(first, style.DIFFUSION) >= 5
    middle = picture.crop((round(0.3 * panel), height // 2 - 20, round(0.5 * panel), height // 2 + 20))
    assert tinted(middle, style.DIFFUSION) == 0
    assert tinted(picture.crop((width // 2, height // 2, width, height)), style.FLOW) >= 5


def test_the_clock_spends_frames_where_points_move():
    c = comparison(n=1500, m=120)
    times = animation._clock(c.methods, 40)
    assert times[0] == 1
    assert abs(times[-1]) < 1e-9
    assert (np.diff(times) < 0).all()


def test_the_clock_of_large_numbers_is_that_of_small_ones():
    """Squares of 1e30 overflow in float32, which a run's points are."""
    methods = comparison(n=1500, m=120).methods
    large = [dataclasses.replace(one, walk=(one.walk * 1e30).astype(np.float32)) for one in methods]
    np.testing.assert_allclose(animation._clock(large, 40), animation._clock(methods, 40), rtol=1e-4, atol=1e-6)


def test_walks_are_followed_between_their_own_times():
    method = comparison(n=1500, m=120).methods[1]
    clouds = animation._at_times(method, np.array([1.0, 0.9875, 0.0]))
    np.testing.assert_allclose(clouds[0], method.walk[0])
    np.testing.assert_allclose(clouds[1], (method.walk[0] + method.walk[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(clouds[2], method.walk[-1])


def test_one_method_alone_and_broken_points_do_no_harm(tmp_path):
    method = comparison(n=1500, m=120).methods[1]
    walk = method.walk.copy()
    walk[-1, :5] = np.nan
    walk[-1, 5:9] = 1e12
    alone = dataclasses.replace(method, walk=walk)
    animation.sampling_gif(tmp_path / "a.gif", [alone], style.as_limits((-3, 3), 2), frames=4)


def test_what_cannot_be_animated_is_one_sentence(tmp_path):
    method = comparison(n=1500, m=120).methods[0]
    frame = style.as_limits((-3, 3), 2)
    with pytest.raises(InputError, match="walk"):
        animation.sampling_gif(tmp_path / "a.gif", [dataclasses.replace(method, walk=np.zeros((0, 0, 0)))], frame)
    with pytest.raises(InputError, match="training"):
        animation.training_gif(tmp_path / "a.gif", [dataclasses.replace(method, evolution=[])], frame)
    with pytest.raises(InputError, match=r"a\.gif"):
        animation.training_gif(tmp_path / "no" / "a.gif", [method], frame)


def test_each_of_six_methods_has_its_colour_in_two_rows(tmp_path):
    c = several(6)
    path = animation.training_gif(tmp_path / "a.gif", c.methods, style.as_limits((-3, 3), 2), real=c.real)
    with Image.open(path) as gif:
        picture = gif.convert("RGB")
    width, height = picture.size
    for k, method in enumerate(c.methods):
        row, column = divmod(k, 3)
        part = (column * width // 3, row * height // 2, (column + 1) * width // 3, (row + 1) * height // 2)
        assert tinted(picture.crop(part), method.colour) > 100, method.name
