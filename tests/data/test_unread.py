"""Rows still in files: the same in memory and on the disk, where they are prepared once and what is missing is made."""

import os
import threading

import pytest
import torch

from ebbtide.cache import cache_folder, kept_here
from ebbtide.data import shards as shards_module, unread as module
from ebbtide.data.levels import Levels
from ebbtide.data.shards import Damaged, Shards
from ebbtide.data.unread import Unread, read
from ebbtide.errors import InputError, StorageError

N = 47
ROWS = torch.arange(3.0 * N).reshape(N, 3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards_module, "SIZE", 10 * 12)  # ten rows of three numbers


@pytest.fixture
def source(tmp_path):
    """Rows, the ranges of them that were asked for, and what happens before each."""
    file = tmp_path / "rows"
    file.write_text("as they are")

    def made(rows=ROWS, before=lambda piece: None, levels=None, how=("all",)):
        asked = []

        def reader(pieces, known, bar):
            for piece in pieces:
                before(piece)
                asked.append((piece.start, known))
                yield rows[piece.start : piece.stop], levels
                bar.update(len(piece))

        return Unread(tuple(rows.shape), rows.dtype, reader, "the rows", str(file), how), asked, file

    return made


def one(part, **how):
    return read({"x": part}, progress=False, **how)[0]["x"]


def on_disk(part):
    found = one(part, cache=True, on_disk=True)
    assert isinstance(found, Shards)
    return found


def starts(asked):
    return [start for start, _ in asked]


def files():
    return sorted(cache_folder().glob("episodes-*/0*.safetensors"))


@pytest.mark.parametrize("rows", [ROWS, torch.arange(N * 12).to(torch.uint8).reshape(N, 2, 2, 3)])
def test_rows_are_the_same_in_memory_and_on_the_disk(source, rows):
    part, asked, _ = source(rows)
    assert torch.equal(one(part), rows)
    assert files() == []
    x = on_disk(part)
    assert torch.equal(x.tensor(), rows)
    assert x.dtype == rows.dtype
    places = torch.tensor([46, 3, 3, 4, 5, 29, 30, 0])
    assert torch.equal(x[places], rows[places])
    assert len(files()) == 5
    asked.clear()
    assert torch.equal(on_disk(part).tensor(), rows)
    assert torch.equal(one(part, cache=True), rows)  # small: from its files
    assert starts(asked) == [0, 10, 20, 30, 40]
    (kept,) = kept_here()
    assert kept.name.startswith("episodes-")
    assert kept.of == "the rows"


def test_large_rows_stay_where_memory_or_the_caller_asks(source, monkeypatch):
    part, asked, _ = source()
    size = ROWS.nbytes
    assert isinstance(one(part, cache=True, most=size), torch.Tensor)
    assert isinstance(one(part, cache=True, most=size - 1), Shards)
    monkeypatch.setattr(module, "available", lambda: 3 * size / 0.8 + 1)
    assert isinstance(one(part, cache=True), torch.Tensor)
    monkeypatch.setattr(module, "available", lambda: 3 * size / 0.8 - 1)
    assert isinstance(one(part, cache=True), Shards)
    monkeypatch.setattr(module, "available", lambda: 1e12)
    asked.clear()
    monkeypatch.setattr(module, "LARGE", size - 1)
    assert torch.equal(one(part, cache=True), ROWS)  # in memory, from the cache
    assert asked == []
    assert torch.equal(read({"x": on_disk(part)}, progress=False)[0]["x"], ROWS)


def test_what_was_prepared_before_a_kill_is_not_read_again(source):
    stop = [True]

    def before(piece):
        if piece.start == 30 and stop:
            raise KeyboardInterrupt

    part, asked, _ = source(before=before)
    with pytest.raises(KeyboardInterrupt):
        on_disk(part)
    assert len(files()) == 3
    stop.clear()
    asked.clear()
    assert torch.equal(on_disk(part).tensor(), ROWS)
    assert starts(asked) == [30, 40]


@pytest.mark.parametrize("harm", ["gone", "cut", "a number"])
def test_a_missing_or_damaged_shard_is_named_and_made_again_alone(source, harm):
    part, asked, _ = source()
    x, file = on_disk(part), files()[2]
    sound = file.read_bytes()
    harmed = {"cut": sound[:-5], "a number": sound[:-1] + bytes([sound[-1] ^ 1])}
    file.unlink() if harm == "gone" else file.write_bytes(harmed[harm])
    reason = "is gone" if harm == "gone" else "is damaged"
    with pytest.raises(Damaged, match=rf"^the rows: .*{file.name} {reason}; only that file is made again when the run"):
        x[torch.tensor([1, 29])]
    asked.clear()
    assert torch.equal(on_disk(part).tensor(), ROWS)
    assert starts(asked) == [20]


def test_a_full_disk_is_one_sentence_and_what_is_there_is_kept(source, full_disk, monkeypatch):
    part, asked, _ = source()
    with pytest.raises(StorageError, match=r"^The cache, .*, refuses more: .*No space.*; what is in it is kept"):
        on_disk(part)
    assert len(files()) == 2
    monkeypatch.setattr(module, "LARGE", 0)
    assert torch.equal(one(part, cache=True), ROWS)  # in memory it needs no cache
    assert torch.equal(one(part, cache=True, most=1), ROWS)
    full_disk()
    asked.clear()
    assert torch.equal(on_disk(part).tensor(), ROWS)
    assert starts(asked) == [20, 30, 40]
    monkeypatch.setattr(shards_module, "disk_usage", lambda folder: type("Usage", (), {"free": 500}))
    other, asked, _ = source(how=("others",))
    with pytest.raises(StorageError, match=r"^the rows: it takes 564 B, and 500 B are left for the cache, "):
        on_disk(other)
    assert asked == []


def test_rows_of_a_source_that_changed_are_read_again(source):
    part, asked, file = source()
    on_disk(part)
    asked.clear()
    file.write_text("as they are now")
    on_disk(part)
    assert starts(asked) == [0, 10, 20, 30, 40]
    assert len(files()) == 5


def test_a_source_that_changes_while_it_is_read_is_refused(source):
    part, _, file = source(before=lambda piece: file.write_text(f"at {piece.start}"))
    with pytest.raises(InputError, match=r"^the rows: its files changed while they were read; start again\.$"):
        on_disk(part)
    assert files() == []


def test_numbers_that_are_not_finite_are_refused(source):
    part, _, _ = source(ROWS.masked_fill(ROWS == 60, torch.inf))
    with pytest.raises(InputError, match=r"^the rows holds numbers that are not finite\.$"):
        on_disk(part)
    assert len(files()) == 2


def test_the_levels_that_were_used_are_kept(source):
    part, asked, _ = source(levels=Levels(3, 9))
    for how in ({}, {"cache": True, "on_disk": True}, {"cache": True, "on_disk": True}):
        assert read({"x": part}, progress=False, **how)[1] == {"x": (3, 9)}
    files()[3].unlink()
    asked.clear()
    on_disk(part)
    assert asked == [(30, (3, 9))]


def test_one_process_prepares_what_others_wait_for(source):
    part, asked, _ = source()
    found = []
    threads = [threading.Thread(target=lambda: found.append(on_disk(part).tensor())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [torch.equal(x, ROWS) for x in found] == [True] * 3
    assert starts(asked) == [0, 10, 20, 30, 40]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whom no folder is closed to")
def test_a_cache_that_can_not_be_written_is_no_error_in_memory(source, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o500)
    monkeypatch.setattr(module, "LARGE", 0)
    assert torch.equal(one(source()[0], cache=True), ROWS)
