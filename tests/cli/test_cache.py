"""`ebbtide cache`: what is kept is listed by size and removed by name; what can't be made again is neither."""

import os
import time

import pytest
import torch
from filelock import FileLock
from PIL import Image

from ebbtide.cache import NOTE, cache_folder, secret, store
from ebbtide.cli import main
from ebbtide.data.images import load_images
from ebbtide.files import LOCK


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """A cache with a folder's images, latents and a key; the name of the images' entry, and the folder."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for k in range(3):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "photos" / f"{k}.png")
    load_images(str(tmp_path / "photos"))
    store("latents-abc", {"z": torch.zeros(2000)})
    secret()
    (images,) = (path.name for path in cache_folder().glob("pictures-*"))
    return images, tmp_path / "photos"


def names():
    return sorted(path.name for path in cache_folder().iterdir())


def test_the_list_has_each_entry_with_its_size_age_and_set(filled, capsys):
    assert main(["cache", "list"]) == 0
    first, second, total = capsys.readouterr().out.splitlines()
    assert [first.split()[k] for k in (0, 2, 3, 4)] == ["latents-abc.safetensors", "kB", "0", "days"]
    assert [second.split()[k] for k in (0, 3, 4, 5)] == [filled[0], "0", "days", str(filled[1])]
    assert 8 < float(first.split()[1]) < 8.2  # 2000 numbers and a header
    assert total.endswith(f"kB in {cache_folder()}")
    assert len(names()) == 3


def test_a_note_that_can_t_be_read_is_listed_removed_and_made_again(filled, capsys):
    """Nested deeper than Python's stack, too, which is no ValueError."""
    for text in ("[" * 10_000, "{", "[1]"):
        (cache_folder() / filled[0] / NOTE).write_text(text)
        assert main(["cache", "list"]) == 0
        assert filled[0] in capsys.readouterr().out
        assert len(load_images(str(filled[1])).x) == 3
    (cache_folder() / filled[0] / NOTE).write_text("[" * 10_000)
    assert main(["cache", "prune"]) == 0
    assert names() == ["secret"]


def test_of_several_processes_the_first_reports(filled, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("0", 3), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(["cache", "list"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == lines


def test_prune_removes_all_but_the_key(filled, capsys):
    assert main(["cache", "prune"]) == 0
    assert f"kB removed from {cache_folder()}" in capsys.readouterr().out
    assert names() == ["secret"]
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out == f"0 B in {cache_folder()}\n"


def test_prune_takes_names_and_days(filled, capsys):
    assert main(["cache", "prune", "pictures", "--days", "2"]) == 0
    assert len(names()) == 3
    for path in (cache_folder() / filled[0]).iterdir():
        os.utime(path, (time.time() - 3 * 86400,) * 2)
    assert main(["cache", "prune", "--days", "2"]) == 0
    assert names() == ["latents-abc.safetensors", "secret"]
    assert main(["cache", "prune", "secret"]) == 2
    assert "holds nothing called 'secret'; see ebbtide cache list" in capsys.readouterr().err
    load_images(str(filled[1]))  # and is made again
    assert filled[0] in names()


def test_what_another_process_is_making_stays(filled, capsys):
    with FileLock(cache_folder() / filled[0] / LOCK):
        assert main(["cache", "prune"]) == 0
    assert f"{filled[0]} is being made by another process, and stays." in capsys.readouterr().err
    assert names() == [filled[0], "secret"]


def test_there_may_be_no_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "none"))
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out == f"0 B in {tmp_path / 'none'}\n"
