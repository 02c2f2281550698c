"""Many images into one tensor: order, channels, bad ones, threads and the cache."""

import os
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tqdm import tqdm

from ebbtide.cache import cache_folder, fingerprint
from ebbtide.data import gather as module
from ebbtide.data.decoding import BadImage
from ebbtide.data.gather import Source, gather
from ebbtide.data.levels import Decoded, Levels
from ebbtide.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))


def constant(value, h=2, w=3, c=1):
    return np.full((h, w, c), value, np.uint8)


def source(pictures, **options):
    """Images as arrays, or a reason why not; `asked` counts how often one was decoded."""
    asked = []

    def picture(i, size, channels, levels):
        asked.append(i)
        if isinstance(pictures[i], BadImage):
            raise pictures[i]
        return pictures[i] if isinstance(pictures[i], Decoded) else Decoded(pictures[i])

    made = Source(len(pictures), picture, lambda i: f"p{i}", "the set", **options)
    return made, asked


def get(pictures, **options):
    return gather(source(pictures)[0], **{"progress": False, **options})[:3]


@given(kinds=st.lists(st.sampled_from(["grey", "colour"]), min_size=1, max_size=70), workers=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_order_and_channels(kinds, workers):
    """Each image is where it was asked for, grey alone in one channel, beside colour in three."""
    pictures = []
    for i, kind in enumerate(kinds):
        picture = constant(i, c=1 if kind == "grey" else 3)
        if kind == "colour":
            picture[..., 1] = 100 + i
        pictures.append(picture)
    x, good, bad = get(pictures, workers=workers)
    assert x.dtype == torch.uint8
    assert x.shape == (len(kinds), 3 if "colour" in kinds else 1, 2, 3)
    assert x.is_contiguous()
    assert good == list(range(len(kinds)))
    assert bad == ()
    for i, kind in enumerate(kinds):
        assert (x[i, 0] == i).all()
        if x.shape[1] == 3:
            assert (x[i, 1] == (i if kind == "grey" else 100 + i)).all()
            assert (x[i, 2] == i).all()


def test_rows_and_columns_stay():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    x, _, _ = get([picture])
    assert x[0, 2].tolist() == [[2, 5, 8, 11], [14, 17, 20, 23]]


@given(where=st.sets(st.integers(0, 99), max_size=5))
@settings(max_examples=30, deadline=None)
def test_bad_ones_are_left_out_and_named(where):
    pictures = [BadImage(f"is bad {i}") if i in where else constant(i) for i in range(100)]
    x, good, bad = get(pictures)
    assert good == [i for i in range(100) if i not in where]
    assert x[:, 0, 0, 0].tolist() == good
    assert bad == tuple(f"p{i} is bad {i}" for i in sorted(where))


def test_more_than_a_twentieth_is_no_accident():
    pictures = [BadImage("is bad") if i % 16 == 1 else constant(i) for i in range(80)]
    line = "the set: 5 of 100 images can't be used and are left out: p1 is bad; p17 is bad; p33 is bad; and 2 more."
    with pytest.warns(UserWarning, match=f"^{line}$"):
        assert len(get([*pictures, *[constant(1)] * 20])[2]) == 5
    with pytest.raises(InputError) as error:
        get(pictures)
    assert str(error.value) == (
        "the set: 5 of 80 images can't be used, more than 5%: p1 is bad; p17 is bad; p33 is bad; and 2 more."
    )


@pytest.mark.parametrize("n", [1, 3, 50])
def test_none_is_good(n):
    with pytest.raises(InputError, match=rf"^the set: {n} of {n} images can't be used, .*p0 is bad"):
        get([BadImage("is bad")] * n)


def test_what_was_unusable_before_counts():
    made, _ = source([constant(1)] * 19, unusable=("a is a pipe",))
    assert gather(made, progress=False)[2] == ("a is a pipe",)
    with pytest.raises(InputError, match=r"^the set: a is a pipe\.$"):
        gather(made, on_bad="fail", progress=False)
    with pytest.raises(InputError, match=r"^the set: 2 of 21 images"):
        gather(replace(made, unusable=("a is a pipe", "b is a pipe")), progress=False)
    with pytest.raises(InputError, match=r"^the set: 1 of 1 images"):
        gather(source([], unusable=("a is a pipe",))[0], progress=False)


@pytest.mark.parametrize("first", [0, 700])
def test_fail_stops_at_the_first(first):
    pictures = [BadImage("is bad") if i >= first else constant(1) for i in range(5000)]
    made, asked = source(pictures)
    with pytest.raises(InputError, match=rf"^the set: p{first} is bad\.$"):
        gather(made, on_bad="fail", workers=1, progress=False)
    assert len(asked) < 4000


def test_all_must_be_alike():
    pictures = [BadImage("is bad"), constant(1), *[constant(1, c=3)] * 40, constant(1, h=5, w=7)]
    with pytest.raises(InputError) as error:
        get(pictures)
    assert str(error.value) == "the set: p1 is 3 × 2 pixels and p42 7 × 5; give --size to make all alike."


def test_too_much_for_the_memory():
    made = replace(source([constant(1, h=999, w=9999)])[0], n=10**10)
    words = r"^the set: 10000000000 images of 9999 × 999 pixels would take about 8\.37e\+08 GiB of memory;"
    with pytest.raises(InputError, match=words):
        gather(made, progress=False)


def test_threads_work_at_once():
    barrier = threading.Barrier(3, timeout=20)

    def picture(i, size, channels, levels):
        if i in (16, 32, 48):  # in three batches
            barrier.wait()
        return Decoded(constant(i))

    x, *_ = gather(Source(64, picture, str, "the set"), workers=3, progress=False)
    assert x[:, 0, 0, 0].tolist() == list(range(64))


def test_a_mistake_in_the_code_is_no_bad_picture():
    with pytest.raises(ZeroDivisionError):
        gather(Source(40, lambda i, *_: Decoded(constant(i)) if i < 30 else 1 // 0, str, "the set"), progress=False)


def test_progress_is_shown_from_two_seconds_on(capfd, monkeypatch):
    get([constant(1)] * 64, progress=True)
    assert capfd.readouterr() == ("", "")
    delays = []

    def at_once(total, desc, unit, *, delay, show, **options):
        delays.append(delay)
        return tqdm(total=total, disable=not show, **options)

    monkeypatch.setattr(module, "progress_bar", at_once)
    get([constant(1)] * 64, progress=False)
    assert capfd.readouterr() == ("", "")
    get([BadImage("is bad"), *[constant(1)] * 63], progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "/64" in err
    assert delays == [2, 2]


# --- more than 8 bits, transparency -------------------------------------------------------------------------


def deep(values, **options):
    """Images of two values: v and v + 10 of more than 8 bits where v is a float, else v twice, as it is."""

    def picture(i, size, channels, levels):
        if isinstance(values[i], int):
            return Decoded(constant(values[i], 1, 2))
        own = Levels(values[i], values[i] + 10)
        return Decoded((levels or own).scaled(np.array([[[own.low], [own.high]]])), own)

    return Source(len(values), picture, lambda i: f"p{i}", "the set", **options)


def heard(make):
    """What make() gives, and the warnings it gave."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made = make()
    return made, [str(one.message) for one in found]


@given(
    values=st.lists(st.one_of(st.integers(0, 255), st.integers(-500, 5000).map(float)), min_size=1, max_size=40),
    workers=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_the_range_is_the_sets(values, workers):
    """Whichever comes first, all that has more than 8 bits shares one range, and what has 8 stays."""
    floats = [value for value in values if isinstance(value, float)]
    (x, _, _, levels), said = heard(lambda: gather(deep(values), workers=workers, progress=False))
    assert levels == ((min(floats), max(floats) + 10) if floats else None)
    for row, value in zip(x[:, 0, 0].tolist(), values, strict=True):
        assert row == ([value] * 2 if isinstance(value, int) else levels.scaled(value + np.array([0, 10])).tolist())
    low, high = levels or (0, 0)
    text = f"the set: {len(floats)} of {len(values)} images have more than 8 bits: their values {low:g} to {high:g} "
    assert said == [f"{text}become 0 to 255 (--value-range sets others)."] * bool(floats)


@pytest.mark.parametrize(("wanted", "beyond"), [((0, 100), 0), ((5, 100), 1), ((0, 25), 1)])
def test_a_range_that_is_given_is_kept_and_what_lies_beyond_is_said(wanted, beyond):
    wanted = Levels(*wanted)
    (x, _, _, levels), said = heard(lambda: gather(deep([5.0, 0.0, 30.0]), levels=wanted, progress=False))
    assert levels == wanted
    assert x.flatten().tolist() == wanted.scaled(np.array([5, 15, 0, 10, 30, 40])).tolist()
    text = "the set: 3 of 3 images have more than 8 bits, and some values in 0 to 40 beyond the range "
    assert said == [f"{text}{wanted}: they become 0 or 255."] * beyond


@pytest.mark.parametrize(("channels", "lost"), [(0, 1), (3, 1), (1, 1), (4, 0)])
def test_transparency_is_said_once_with_a_count(channels, lost):
    pictures = [Decoded(constant(k, c=channels or 3), transparent=k % 3 == 0) for k in range(10)]
    _, said = heard(lambda: get(pictures, channels=channels))
    assert (
        said
        == ["the set: 4 of 10 images are transparent in places, and lie on white (--channels 4 keeps that)."] * lost
    )


def test_a_cached_set_is_told_of_again_and_has_one_range():
    """What was kept serves for the same range, however it was asked for, and for no other."""
    made = deep([5.0, 0.0, 30.0], state="s")
    asked = []

    def get(levels=None):
        asked.clear()
        counted = replace(made, image=lambda i, *how: asked.append(i) or made.image(i, *how))
        (x, _, _, used), said = heard(lambda: gather(counted, levels=levels and Levels(*levels), progress=False))
        assert len(said) == (levels != (0, 40))
        return x.flatten().tolist(), used, len(asked)

    first, used, count = get()
    assert (used, count) == ((0, 40), 8)  # each twice, and the first twice more for its shape
    assert get() == (first, used, 0)
    assert get((0, 40)) == (first, used, 0)
    other, used, count = get((0, 20))
    assert (other == first, used, count) == (False, (0, 20), 4)
    assert get() == (first, (0, 40), 4)


# --- cache --------------------------------------------------------------------------------------------------


def kept():
    folder = cache_folder()
    return sorted(folder.iterdir()) if folder.exists() else []


def test_the_second_time_nothing_is_decoded():
    pictures = [BadImage("is bad") if i == 7 else constant(i, c=3) for i in range(40)]
    made, asked = source(pictures, state="s")
    first = gather(made, progress=False)
    asked.clear()
    second = gather(made, progress=False)
    assert asked == []
    assert torch.equal(first[0], second[0])
    assert first[1:] == second[1:] == ([i for i in range(40) if i != 7], ("p7 is bad",), None)
    second[0][:] = 0  # it can be written to, and that is not kept
    assert torch.equal(gather(made, progress=False)[0], first[0])
    with pytest.raises(InputError, match=r"^the set: p7 is bad\.$"):
        gather(made, on_bad="fail", progress=False)
    assert len(kept()) == 1


@pytest.mark.parametrize(
    ("change", "files"),
    [
        ({"state": "t"}, 1),  # the set has changed: what was kept of it is replaced
        ({"where": "another"}, 2),
        ({"size": 2}, 2),
        ({"channels": 1}, 2),
        ({"pillow": "0"}, 1),
        ({"cache": False}, 1),
        ({"state": ""}, 1),
    ],
    ids=lambda change: "-".join(change) if isinstance(change, dict) else "",
)
def test_what_the_cache_depends_on(monkeypatch, change, files):
    made, asked = source([constant(1)] * 3, state="s")
    gather(made, progress=False)
    asked.clear()
    if version := change.pop("pillow", None):
        monkeypatch.setattr("PIL.__version__", version)
    options = {name: change.pop(name) for name in ("size", "channels", "cache") if name in change}
    gather(replace(made, **change), progress=False, **options)
    assert asked
    assert len(kept()) == files


def test_a_damaged_cache_is_made_again(tmp_path):
    made, asked = source([constant(i) for i in range(5)], state="s")
    expected = gather(made, progress=False)[0]
    (file,) = kept()[0].glob("*.safetensors")
    sound = file.read_bytes()
    rng = np.random.default_rng(0)
    flips = [sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :] for at in rng.integers(0, len(sound), 60)]
    flips.append(sound[:-1] + bytes([sound[-1] ^ 1]))  # a pixel
    for damaged in (*flips, b"", sound[:50], sound[:-1], b"\xff" * 100):
        file.write_bytes(damaged)
        assert torch.equal(gather(made, progress=False)[0], expected)
    asked.clear()
    assert torch.equal(gather(made, progress=False)[0], expected)
    assert asked == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    made, _ = source([constant(1)] * 3, state="s")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("EBBTIDE_CACHE", str(folder))
        assert len(gather(made, progress=False)[0]) == 3

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr("safetensors.torch.save_file", full)
    assert len(gather(made, progress=False)[0]) == 3
    assert kept() == []  # nor is anything left behind


def test_a_reason_that_may_pass_is_not_kept():
    pictures = [constant(1)] * 39 + [BadImage("can't be read: Permission denied", passing=True)]
    made, _ = source(pictures, state="s")
    gather(made, progress=False)
    pictures[-1] = constant(5)
    assert len(gather(made, progress=False)[1]) == 40
    assert gather(made, progress=False)[0][-1].unique().tolist() == [5]


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("EBBTIDE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "ebbtide"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ebbtide"


def test_the_cache_is_its_owners_alone():
    gather(source([constant(1)], state="s")[0], progress=False)
    assert os.stat(cache_folder()).st_mode & 0o077 == 0


def test_fingerprints_tell_apart():
    assert fingerprint("a", ("b", 1)) == fingerprint("a", ("b", 1))
    assert len({fingerprint(*parts) for parts in (("a",), ("b",), ("a", "b"), ("ab",), (1,), ("1",), ("\udcff",))}) == 7
