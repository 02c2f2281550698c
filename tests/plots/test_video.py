import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from ebbtide.errors import InputError
from ebbtide.plots import video
from ebbtide.plots.pusht import AHEAD

TINTS = [(255, 255, 255), (144, 238, 144), (119, 136, 153), (65, 105, 225), (213, 94, 0)]


def film(count=12, h=48, w=64):
    """A block that moves over white, in flat colours as a simulator draws them."""
    frames = []
    for k in range(count):
        frame = np.full((h, w, 3), 255, np.uint8)
        frame[10:30, 4 * k : 4 * k + 12] = TINTS[1 + k % 4]
        frames.append(frame)
    return frames


def gif(path):
    with Image.open(path) as file:
        frames, durations = [], []
        for k in range(file.n_frames):
            file.seek(k)
            frames.append(np.asarray(file.convert("RGB")))
            durations.append(file.info["duration"])
        return frames, durations


@pytest.mark.parametrize(("size", "even"), [((48, 64), (48, 64)), ((47, 63), (48, 64))])
def test_an_mp4_holds_every_frame_and_has_even_sides(tmp_path, size, even):
    av = pytest.importorskip("av")
    given = film(12, *size)
    path = video.write_video(tmp_path / "a.mp4", iter(given), fps=12.5)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(25, 2)
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 12
    for frame, meant in zip(frames, given, strict=True):
        assert frame.shape == (*even, 3)
        assert np.abs(frame[: size[0], : size[1]].astype(int) - meant).mean() < 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_padded_side_repeats_the_last_pixels(tmp_path):
    av = pytest.importorskip("av")
    frame = np.full((5, 33, 3), 200, np.uint8)
    path = video.write_video(tmp_path / "a.mp4", [np.tile(frame, (4, 1, 1))[:19]] * 2)
    with av.open(str(path)) as file:
        shown = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert shown.shape == (20, 34, 3)
    np.testing.assert_allclose(shown.astype(int), 200, atol=3)  # black bars would be 0


def test_a_gif_keeps_flat_colours_as_they_are(tmp_path):
    given = film()
    frames, durations = gif(video.write_video(tmp_path / "a.GIF", given, fps=10, hold=1.5))
    assert len(frames) == 12
    assert durations == [100] * 11 + [1500]
    for frame, meant in zip(frames, given, strict=True):
        np.testing.assert_array_equal(frame, meant)


def test_a_gif_of_many_colours_comes_near_them(tmp_path):
    x, y = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 48))
    frames = [np.stack([x, y, np.full_like(x, 20 * k)], 2).astype(np.uint8) for k in range(8)]
    shown, _ = gif(video.write_video(tmp_path / "a.gif", frames))
    assert np.abs(np.array(shown).astype(int) - np.array(frames)).mean() < 12


def test_a_fast_gif_is_thinned_to_what_viewers_show_and_keeps_its_end(tmp_path):
    given = film(12)
    frames, durations = gif(video.write_video(tmp_path / "a.gif", given, fps=100, hold=1))
    assert durations == [20] * 5 + [1000]
    np.testing.assert_array_equal(frames[-1], given[-1])
    np.testing.assert_array_equal(frames[0], given[1])


@pytest.mark.parametrize("background", ["flat", "painted"])
def test_a_colour_that_is_rarely_seen_is_kept(tmp_path, background):
    """A red square in five of a hundred frames, over a white wall and over thousands of blues and greens."""
    y, x = np.mgrid[:40, :50]
    wall = np.full((40, 50, 3), 255) if background == "flat" else np.stack([0 * x, 5 * x, 6 * y], 2)
    given = []
    for k in range(100):
        frame = (wall - np.array([0, 0, k % 7])).clip(0).astype(np.uint8)
        if 20 <= k < 25:
            frame[10:14, 20:24] = (255, 0, 0)
        given.append(frame)
    shown, _ = gif(video.write_video(tmp_path / "a.gif", given))
    squares = np.array(shown)[20:25, 10:14, 20:24].reshape(-1, 3)
    assert np.abs(squares.astype(int) - (255, 0, 0)).max() <= (0 if background == "flat" else 8)
    assert np.abs(np.array(shown).astype(int) - np.array(given)).mean() < 12


@pytest.mark.parametrize("fps", [1, 7, 12, 15, 24, 29.97, 30, 33, 48, 50, 60, 75, 120])
def test_a_gif_lasts_as_long_as_what_it_shows(tmp_path, fps):
    """A GIF's delays are hundredths of a second: 1/30 s is now 3, now 4 of them."""
    _, durations = gif(video.write_video(tmp_path / "a.gif", 10 * film(12), fps=fps, hold=1))
    assert durations[-1] == 1000
    assert sum(durations[:-1]) / 1000 == pytest.approx(119 / fps, abs=1 / fps + 0.005)
    assert min(durations[:-1]) >= 20
    assert max(durations[:-1]) - min(durations[:-1]) <= 10


def test_what_cannot_be_filmed_is_one_sentence_and_leaves_nothing(tmp_path):
    frame = film(1)[0]
    for name, frames, option, said in [
        ("a.avi", [frame], {}, r"\.mp4 or \.gif; got 'a\.avi'"),
        ("a", [frame], {}, r"\.mp4 or \.gif"),
        ("no/a.gif", [frame], {}, "no folder"),
        ("a.gif", [], {}, "at least one frame"),
        *(("a.gif", [frame], {"fps": fps}, r"fps must be at least 0\.001") for fps in (0, 1e-4, np.inf, np.nan)),
        ("a.gif", [frame, frame[::-1]], {"fps": 0.001}, "no frame for longer than 655 s"),
        ("a.gif", [frame] * 7000, {"fps": 10}, "no frame for longer than 655 s"),
        ("a.gif", [frame, frame[:20]], {}, r"Frame 1 must have the first one's shape \(48, 64, 3\); got \(20, 64, 3\)"),
    ]:
        with pytest.raises(InputError, match=said):
            video.write_video(tmp_path / name, frames, **option)
    assert list(tmp_path.iterdir()) == []


def test_no_frame_is_asked_for_where_the_film_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)

    def frames():
        raise AssertionError("an episode was played for nothing")
        yield

    with pytest.raises(InputError, match=r"pip install 'ebbtide\[robots\]'"):
        video.write_video(tmp_path / "a.mp4", frames())
    with pytest.raises(InputError, match="folder"):
        video.write_video(tmp_path / "no" / "a.mp4", frames())


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_film_that_breaks_off_leaves_the_old_one(tmp_path, name):
    if name == "a.mp4":
        pytest.importorskip("av")
    path = tmp_path / name
    path.write_bytes(b"old")

    def frames():
        yield from film(3)
        raise RuntimeError("the simulator fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        video.write_video(path, frames())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ── Overlay ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def straight(h=11):
    """From (0.1, 0.5) to (0.9, 0.5), in units of the frame's side."""
    return np.stack([np.linspace(0.1, 0.9, h), np.full(h, 0.5)], 1)


def shade(t):
    return np.array([round(255 * v) for v in AHEAD(t)[:3]])


def test_a_chunk_runs_over_the_frame_from_violet_to_orange():
    frame = np.full((400, 400, 3), 40, np.uint8)
    before = frame.copy()
    drawn = video.overlay(frame, straight(), lambda x: x * 400)
    np.testing.assert_array_equal(frame, before)
    assert drawn.shape == frame.shape
    # Dots in the middle of their own colour: step k of 10 stands at x = 40 + 32 k, y = 200.
    for k in (0, 5, 10):
        np.testing.assert_allclose(drawn[200, 40 + 32 * k], shade(k / 10), atol=2)
    # Between two dots the line has the colour of the step it leads to.
    np.testing.assert_allclose(drawn[200, 56], shade(0.1), atol=2)
    changed = (drawn != frame).any(2)
    assert changed[:, :34].sum() == changed[:, 367:].sum() == changed[:190].sum() == changed[211:].sum() == 0
    # A white rim above and below sets it off from any background.
    column = drawn[190:211, 56].astype(int)
    rims = np.flatnonzero((column > 150).all(1)) + 190
    assert rims.min() < 200 < rims.max()


def test_small_frames_are_enlarged_and_the_chunk_with_them():
    frame = np.zeros((96, 96, 3), np.uint8)
    frame[3, 5] = (1, 2, 3)
    drawn = video.overlay(frame, straight(), lambda x: x * 96, least=360)
    assert drawn.shape == (384, 384, 3)
    assert (drawn[12:16, 20:24] == (1, 2, 3)).all()
    assert (drawn[11, 20:24] == 0).all()
    # Pixel 48's middle, 48.5 of 96, is 194 of 384 but for half a pixel: 193.5.
    rows = np.flatnonzero((drawn[100:, 100:280] != 0).any((1, 2))) + 100
    np.testing.assert_allclose((rows[0] + rows[-1]) / 2, 193.5, atol=0.5)


def test_several_chunks_make_a_fan_without_dots_but_at_the_ends():
    frame = np.full((400, 400, 3), 255, np.uint8)
    chunks = np.stack([straight() + np.array([0, 0.1 * k]) for k in range(3)])
    drawn = video.overlay(frame, chunks, lambda x: x * 400)
    for y in (200, 240, 280):
        column = (drawn[y - 12 : y + 12, 40 + 32 * 5 - 10] != 255).any(1).sum()
        dot = (drawn[y - 12 : y + 12, 360] != 255).any(1).sum()
        assert 1 <= column < dot


def test_a_strip_beneath_says_step_and_score():
    frame = np.full((400, 400, 3), 7, np.uint8)
    drawn = video.overlay(frame, None, lambda x: x, step=1234, score=0.5)
    np.testing.assert_array_equal(drawn[:400], frame)
    strip = drawn[400:]
    assert len(strip) == 26
    dark = (strip < 128).any((0, 2))
    assert dark[:100].any()
    assert dark[300:].any()
    assert not dark[150:250].any()  # no text was given for the middle
    other = video.overlay(frame, None, lambda x: x, step=1234, score=0.51)
    assert (other[400:, :200] == strip[:, :200]).all()
    assert (other != drawn).any()
    assert video.overlay(frame, None, lambda x: x).shape == frame.shape


def test_long_captions_shrink_before_they_meet():
    frame = np.zeros((400, 400, 3), np.uint8)
    strip = video.overlay(frame, None, lambda x: x, step=1234, score=0.5, text="insert the peg into the socket")[400:]
    light = (strip > 200).all((0, 2))
    gaps = np.diff(np.flatnonzero(np.diff(light.astype(int)))).max()
    assert gaps >= 15
    assert light[:5].all()
    assert light[-5:].all()


def test_a_chunk_outside_the_frame_draws_nothing_and_one_that_leaves_it_is_cut():
    frame = np.zeros((400, 400, 3), np.uint8)
    assert not video.overlay(frame, straight() + 5, lambda x: x * 400).any()
    assert not video.overlay(frame, straight() - 1e9, lambda x: x * 400).any()
    half = video.overlay(frame, straight() + np.array([0.5, 0]), lambda x: x * 400)
    assert half[200, 240:].any()


@pytest.mark.parametrize("chunk", [np.zeros((4, 2)) * np.nan, np.zeros((0, 2))])
def test_a_chunk_that_cannot_be_drawn_is_refused(chunk):
    with pytest.raises(InputError, match="chunk"):
        video.overlay(np.zeros((9, 9, 3), np.uint8), chunk, lambda x: x)
