"""Image sets on the disk: made in shards once, read by their places, and what is missing or damaged made again."""

import io
import os
import threading
import zlib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.cache import cache_folder
from ebbtide.data import gather as gathering, shards as module
from ebbtide.data.decoding import BadImage
from ebbtide.data.gather import Source, gather
from ebbtide.data.images import load_images, split_images
from ebbtide.data.levels import Decoded, Levels
from ebbtide.data.shards import MOST, SIZE, Damaged, Derived, Shards, pieces, write_shard
from ebbtide.errors import InputError, StorageError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SIZE", 10 * 12)  # ten images of 2 × 2 pixels in colour


def pixels(i, c=3):
    return np.full((2, 2, c), i % 256, np.uint8)


def source(n, make=pixels, **options):
    asked = []

    def image(i, size, channels, levels):
        asked.append(i)
        made = make(i)
        if isinstance(made, BaseException):
            raise made
        return made if isinstance(made, Decoded) else Decoded(made)

    return Source(n, image, lambda i: f"p{i}", "the set", "s", **options), asked


def on_disk(made, **options):
    x, good, *_ = gather(made, on_disk=True, progress=False, workers=2, **options)
    assert isinstance(x, Shards)
    return x, good


def files():
    return sorted(cache_folder().glob("*/0*.safetensors"))


@pytest.mark.parametrize(
    ("n", "each", "first", "count"),
    [(1, 12, 1, 1), (10**6, 3 * 64 * 64, SIZE // 12288, 184), (10**7, 3 * 256 * 256, 19532, MOST), (3, 10**9, 1, 3)],
)
def test_a_shard_has_64_MiB_or_a_512th_of_a_large_set(n, each, first, count, monkeypatch):
    monkeypatch.setattr(module, "SIZE", SIZE)
    found = pieces(n, each)
    assert [one.start for one in found] == [k * len(found[0]) for k in range(len(found))]
    assert (found[-1].stop, len(found[0]), len(found)) == (n, first, count)


def test_rows_are_read_by_their_places_as_they_are_in_memory():
    bad = {4: BadImage("is bad"), 31: BadImage("is bad")}
    make = lambda i: bad.get(i, pixels(i, 1 if 10 <= i < 20 or i == 3 else 3))
    made, asked = source(97, make)
    x, good = on_disk(made)
    whole = gather(made, progress=False, cache=False)[0]
    assert good == [i for i in range(97) if i not in bad]
    assert x.shape == tuple(whole.shape) == (95, 3, 2, 2)
    assert len(files()) == 10
    places = torch.tensor([94, 0, 17, 17, 93, 3])
    for chosen in (places, slice(5, 60, 3), torch.arange(95) % 7 == 0):
        assert torch.equal(x[chosen], whole[chosen])
    mask = torch.arange(95) % 2 == 1
    half = x.part(mask)
    assert (len(half), half.shape, half.nbytes) == (47, (47, 3, 2, 2), 47 * 12)
    assert torch.equal(half.part(torch.arange(47) > 20)[slice(None)], whole[mask][21:])
    assert torch.equal(half.tensor(), whole[mask])
    assert torch.equal(torch.cat(list(half.split(10))), whole[mask])
    assert [len(part) for part in half.split(20)] == [20, 20, 7]
    asked.clear()
    assert torch.equal(on_disk(made)[0].tensor(), whole)
    assert torch.equal(gather(made, progress=False)[0], whole)  # in memory, from the same shards
    assert asked == []


def test_a_grey_set_stays_grey():
    x, _ = on_disk(source(25, lambda i: pixels(i, 1))[0])
    assert x.shape == (25, 1, 2, 2)
    assert x[torch.tensor([24, 7])].flatten(1).unique(dim=1).flatten().tolist() == [24, 7]


def test_what_was_made_before_a_kill_is_not_made_again():
    stop = KeyboardInterrupt()
    made, asked = source(60, lambda i: stop if i == 33 and stop else pixels(i))
    with pytest.raises(KeyboardInterrupt):
        on_disk(made)
    assert len(files()) == 3
    stop = None
    asked.clear()
    assert on_disk(made)[0].tensor().flatten(1)[:, 0].tolist() == list(range(60))
    assert min(asked) == 30


@pytest.mark.parametrize("harm", ["gone", "cut", "a pixel", "a note", "empty"])
def test_a_missing_or_damaged_shard_is_named_and_made_again_alone(harm):
    made, asked = source(60)
    x, _ = on_disk(made)
    file = files()[2]
    sound = file.read_bytes()
    cut = {"cut": sound[:-5], "a pixel": sound[:-1] + bytes([sound[-1] ^ 1]), "empty": b""}
    cut["a note"] = sound.replace(b"lasting", b"lastinG", 1)
    file.unlink() if harm == "gone" else file.write_bytes(cut[harm])
    if harm != "a note":  # which is read at the start alone
        reason = "is gone" if harm == "gone" else "is damaged"
        with pytest.raises(Damaged, match=rf"^the set: .*{file.name} {reason}; only that file is made again when"):
            x[torch.tensor([1, 29])]
    asked.clear()
    again, _ = on_disk(made)
    assert again.tensor().flatten(1)[:, 0].tolist() == list(range(60))
    assert sorted({*asked}) == list(range(20, 30))
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert gather(made, progress=False)[0].flatten(1)[:, 0].tolist() == list(range(60))  # in memory, without a word


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a file of Unix")
def test_a_pipe_in_a_shard_s_place_is_not_waited_for():
    made, _ = source(30)
    on_disk(made)
    file = files()[1]
    file.unlink()
    os.mkfifo(file)
    x, _ = on_disk(made)
    assert file.is_file()
    assert x.tensor().flatten(1)[:, 0].tolist() == list(range(30))


@pytest.mark.parametrize("number", [13, 5])  # EACCES, EIO
def test_a_shard_that_can_not_be_read_now_is_kept(monkeypatch, number):
    """It is named and not made again; in memory the images are decoded as without a cache."""
    made, asked = source(60)
    x, _ = on_disk(made)
    file = files()[2]
    sound, reason = file.read_bytes(), os.strerror(number)

    def refused(name, *how, **more):
        if Path(name) == file:
            raise OSError(number, reason)
        return open(name, *how, **more)

    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "open", refused, raising=False)
        with pytest.raises(InputError, match=rf"^the set: .*{file.name} can't be read \({reason}\), and is kept\.$"):
            x[torch.tensor([1, 29])]
        with pytest.raises(StorageError, match=rf"{file.name} can't be read \({reason}\); it is kept"):
            on_disk(made)
        assert not asked
        assert gather(made, progress=False)[0].flatten(1)[:, 0].tolist() == list(range(60))
    assert file.read_bytes() == sound
    asked.clear()
    assert x[torch.tensor([1, 29])].flatten(1)[:, 0].tolist() == [1, 29]
    assert len(on_disk(made)[0]) == 60
    assert not asked


def test_a_full_disk_is_one_sentence_and_what_is_there_is_kept(full_disk):
    made, asked = source(60)
    with pytest.raises(StorageError, match=r"^The cache, .*, refuses more: .*No space.*; what is in it is kept"):
        on_disk(made)
    assert len(files()) == 2
    assert len(gather(made, progress=False)[0]) == 60  # in memory it needs no cache
    full_disk()
    asked.clear()
    assert len(on_disk(made)[0]) == 60
    assert min(asked) == 20


def test_too_little_room_is_said_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(module, "disk_usage", lambda folder: type("Usage", (), {"free": 700}))
    words = r"^the set: it takes 720 B, and 700 B are left for the cache, .*; EBBTIDE_CACHE names another"
    with pytest.raises(StorageError, match=words):
        on_disk(source(60)[0])
    assert files() == []


def test_what_does_not_fit_into_memory_stays_on_the_disk(monkeypatch):
    made, _ = source(60)
    monkeypatch.setattr(gathering, "available", lambda: 3 * 720 / 0.8 - 1)
    assert isinstance(gather(made, progress=False)[0], Shards)
    monkeypatch.setattr(gathering, "available", lambda: 3 * 720 / 0.8 + 1)
    assert isinstance(gather(made, progress=False)[0], torch.Tensor)
    monkeypatch.setattr(gathering, "available", lambda: 10)
    monkeypatch.setattr(module, "disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    with pytest.raises(StorageError, match="0 B are left for the cache"):  # neither
        gather(replace(made, state="another"), progress=False)


def test_one_process_makes_what_others_wait_for():
    made, asked = source(60)
    found = []
    threads = [threading.Thread(target=lambda: found.append(on_disk(made)[0].tensor())) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 3
    assert all(torch.equal(one, found[0]) for one in found)
    assert len(asked) == 60 + 6 + 1  # each shard's first once more for its shape, and the set's for the shards' size


def test_images_of_more_than_8_bits_share_one_range_over_all_shards():
    own = lambda i: Levels(i, i + 10)
    image = lambda i, size, channels, levels: (
        Decoded((levels or own(i)).scaled(np.array([[[i], [i + 10]]])), own(i))
        if i >= 5
        else Decoded(np.full((1, 2, 1), i, np.uint8))
    )
    made = Source(60, image, str, "the set", "s")
    x, _, _, levels = gather(made, on_disk=True, progress=False)
    assert levels == (5, 69)
    expected = gather(made, progress=False, cache=False)[0]
    assert torch.equal(x.tensor(), expected)
    other = gather(made, on_disk=True, levels=Levels(0, 20), progress=False)[0]
    assert torch.equal(other.tensor(), gather(made, levels=Levels(0, 20), progress=False, cache=False)[0])


def test_sizes_that_differ_from_shard_to_shard_are_refused():
    made, _ = source(60, lambda i: pixels(i) if i < 45 else np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"^the set: p\d+ is 2 × 2 pixels and p\d+ 7 × 5; give --size to make all alike\.$"
    ):
        on_disk(made)


def test_rows_are_read_in_runs_and_come_in_any_order(tmp_path, monkeypatch):
    """Three files, of which 4 to 11, 17 and 20 are asked for: a read of each run, two where a file ends within."""
    reads = []

    class Noted(io.FileIO):
        def readinto(self, to):
            reads.append(len(to))
            return super().readinto(to)

    x = torch.randn(30, 5)
    made = [write_shard(tmp_path / f"{k}.safetensors", x[10 * k : 10 * k + 10], {}) for k in range(3)]
    found = Shards(made, "here")
    assert (found.shape, found.dtype, found.nbytes) == ((30, 5), torch.float32, 600)
    monkeypatch.setattr(module, "open", lambda name, *how, **more: Noted(name), raising=False)
    places = torch.tensor([20, 7, 4, 5, 6, 7, 17, 11, 10, 9, 8])
    assert torch.equal(found.index_select(0, places), x[places])
    assert reads == [120, 40, 20, 20]
    reads.clear()
    monkeypatch.setattr(module, "_READ", 90)  # parts of what is asked for, which end within a row
    assert torch.equal(found.tensor(), x)
    assert reads == [90, 90, 20] * 3
    assert found[torch.tensor([], dtype=torch.int64)].shape == (0, 5)


def test_a_large_set_is_walked_through_without_an_index_of_all(tmp_path, monkeypatch):
    """Such an index for each block, 8 bytes a row, was more than what is read, and memory grew with the set."""
    found = Shards([write_shard(tmp_path / "0.safetensors", torch.arange(300.0)[:, None], {})], "here")
    made, arange = [], torch.arange
    monkeypatch.setattr(torch, "arange", lambda *ends: made.append(ends) or arange(*ends))
    assert [part.flatten().tolist() for part in found.split(128)] == [
        [*range(128)],
        [*range(128, 256)],
        [*range(256, 300)],
    ]
    assert made == [(0, 128, 1), (128, 256, 1), (256, 300, 1)]
    places = arange(5)
    assert found.part(places).places is places


def test_rows_are_seen_as_a_function_makes_them(tmp_path):
    x, y = (
        torch.randint(256, (12, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(k)) for k in (0, 1)
    )
    sets = [Shards([write_shard(tmp_path / f"{k}.safetensors", one, {})], "here") for k, one in enumerate((x, y))]
    seen = Derived(tuple(sets), lambda *rows: torch.stack(rows, 1))
    expected = torch.stack([x, y], 1)
    assert (seen.shape, seen.dtype, seen.nbytes, seen.ndim, len(seen)) == ((12, 2, 2, 3), torch.uint8, 144, 4, 12)
    assert torch.equal(seen.tensor(), expected)
    odd = seen.part(torch.arange(12) % 2 == 1)
    assert torch.equal(odd[torch.tensor([5, 0])], expected[[11, 1]])
    assert torch.equal(torch.cat(list(odd.split(4))), expected[1::2])
    hashes = [one.content() for one in (seen, seen, odd, Derived(tuple(sets[::-1]), seen.see))]
    wanted = [expected, expected, expected[1::2], torch.stack([y, x], 1)]
    assert hashes == [sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in wanted]


def test_the_content_is_hashed_once(monkeypatch):
    x, _ = on_disk(source(60)[0])
    for part in (x, x.part(torch.arange(60) > 50)):
        expected = sha256(part.tensor().numpy().tobytes()).hexdigest()
        assert part.content() == expected
        monkeypatch.setattr(Shards, "split", lambda *_: 1 / 0)
        assert part.content() == expected
        monkeypatch.undo()
        monkeypatch.setenv("EBBTIDE_CACHE", str(x.shards[0].file.parents[1]))


def test_a_folder_on_the_disk_is_split_without_being_read(tmp_path, monkeypatch):
    for k in range(40):
        Image.fromarray(pixels(k)).save(tmp_path / f"{k:03d}.png")
    plain = split_images(load_images(str(tmp_path)), 0.2)
    made = load_images(str(tmp_path), on_disk=True)
    monkeypatch.setattr(Shards, "index_select", lambda *_: 1 / 0)
    parts = split_images(made, 0.2)
    monkeypatch.undo()
    for one, other in zip(plain, parts, strict=True):
        assert isinstance(other.x, Shards)
        assert torch.equal(one.x, other.pixels)
    with pytest.raises(InputError, match=r"digits is read into memory, so data_on can't be 'disk'"):
        load_images("digits", on_disk=True)


def test_a_shard_is_a_file_that_safetensors_reads():
    from safetensors.torch import load_file

    on_disk(source(15)[0])
    held = load_file(files()[1])
    assert held["x"].shape == (5, 3, 2, 2)
    assert held["sums"].tolist() == [zlib.crc32(row.numpy().tobytes()) for row in held["x"]]
    assert Path(files()[1]).stat().st_mode & 0o077 == 0
