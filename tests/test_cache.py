"""What is kept comes back exactly, and what is damaged, missing or can't be written does no harm."""

import os
import stat
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from ebbtide import cache
from ebbtide.cache import cache_folder, executable, fetch, filled, fingerprint, secret, store, unchanged


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_stored_is_fetched(folder):
    tensors = {"b": torch.randn(3, 4).T, "a": torch.arange(5)}
    assert fetch("one") is None
    store("one", tensors, accuracy="0.97")
    found, about = fetch("one")
    assert about["accuracy"] == "0.97"
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], part) for name, part in tensors.items())
    assert [path.name for path in folder.iterdir()] == ["one.safetensors"]
    store("one", {"a": torch.zeros(2)})
    assert fetch("one")[0]["a"].tolist() == [0, 0]


def test_damage_is_as_good_as_nothing(folder):
    store("one", {"a": torch.arange(100)})
    data = bytearray((folder / "one.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "one.safetensors").write_bytes(data)
    assert fetch("one") is None
    (folder / "one.safetensors").write_bytes(data[:50])
    assert fetch("one") is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "file"))
    store("one", {"a": torch.zeros(1)})
    assert fetch("one") is None


def test_what_is_unchanged_is_made_once(folder, monkeypatch, tmp_path):
    """Until a source file of the package, or Python, is another; what is damaged or not ours is made again."""
    (tmp_path / "package").mkdir()
    source = tmp_path / "package" / "cache.py"
    source.write_text("one")
    monkeypatch.setattr(cache, "__file__", str(source))
    made = []

    def make():
        made.append(len(made))
        return {"times": [len(made), "σ"]}

    assert unchanged("one", make) == unchanged("one", make) == {"times": [1, "σ"]}
    assert [path.name for path in folder.iterdir()] == ["one.json"]
    source.write_text("two!")
    assert unchanged("one", make) == unchanged("one", make) == {"times": [2, "σ"]}
    (tmp_path / "package" / "more.py").write_text("")
    assert unchanged("one", make) == {"times": [3, "σ"]}
    monkeypatch.setattr(cache.sys, "version", "4.0")
    assert unchanged("one", make) == {"times": [4, "σ"]}
    stored = folder / "one.json"
    stored.write_text(stored.read_text().replace("[4,", "[5,"))
    assert unchanged("one", make) == {"times": [5, "σ"]}
    stored.chmod(0o666)  # anybody may have written it
    assert unchanged("one", make) == {"times": [6, "σ"]}
    stored.write_text("[]")
    assert unchanged("one", make) == {"times": [7, "σ"]}
    stored.unlink()
    stored.mkdir()
    assert unchanged("one", make) == {"times": [8, "σ"]}


def test_a_fingerprint_tells_values_shapes_and_words_apart():
    a = torch.arange(6)
    every = [([a], 1), ([a + 1], 1), ([a.reshape(2, 3)], 1), ([a], 2), ([a, a], 1), ([a[:3], a[3:]], 1), ([], 1)]
    found = {fingerprint(word, tensors=tensors) for tensors, word in every}
    assert len(found) == len(every)
    assert fingerprint(1, tensors=[torch.arange(6)]) == fingerprint(1, tensors=[a])


PIECES = [slice(0, 4), slice(4, 8), slice(8, 10)]


def whole():
    return torch.arange(60.0).reshape(3, 10, 2)


def made(pieces, stop=None):
    """What makes a piece and notes it; the process is gone at the one that begins at `stop`."""

    def make(piece):
        if piece.start == stop:
            raise SystemExit
        pieces.append(piece.start)
        return whole()[:, piece]

    return make


@pytest.mark.parametrize("most", [10, 2**30], ids=["mapped", "in memory"])
def test_what_is_filled_goes_on_from_the_last_whole_piece(folder, monkeypatch, most):
    """Also where a piece was damaged, or what stands beside it is."""
    monkeypatch.setattr(cache, "MAPPED", most)
    pieces = []
    with pytest.raises(SystemExit):
        filled("one", (3, 10, 2), PIECES, made(pieces, stop=8))
    x, seconds = filled("one", (3, 10, 2), PIECES, made(pieces))
    assert (pieces, x.tolist()) == ([0, 4, 8], whole().tolist())
    assert seconds > 0
    assert sorted(path.name for path in folder.iterdir()) == ["one.float32", "one.json"]
    data = bytearray((folder / "one.float32").read_bytes())
    data[4 * 10] ^= 1  # of the second piece
    (folder / "one.float32").write_bytes(data)
    assert torch.equal(filled("one", (3, 10, 2), PIECES, made(pieces))[0], whole())
    assert pieces[3:] == [4]
    for damage in (b"", b"[]", b"{", b'{"0": 3}'):
        (folder / "one.json").write_bytes(damage)
        assert torch.equal(filled("one", (3, 10, 2), PIECES, made(pieces))[0], whole())
    assert pieces[4:] == 4 * [0, 4, 8]
    (folder / "one.float32").chmod(0o666)  # anybody may have written it
    filled("one", (3, 10, 2), PIECES, made(pieces))
    assert pieces[16:] == [0, 4, 8]


def test_what_cannot_be_kept_is_filled_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "file"))
    assert torch.equal(filled("one", (3, 10, 2), PIECES, made([]))[0], whole())


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_note", full)
    assert torch.equal(filled("one", (3, 10, 2), PIECES, made([]))[0], whole())
    assert list(folder.iterdir()) == []


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("EBBTIDE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ebbtide"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ebbtide"


def test_without_a_home_there_is_no_cache(monkeypatch):
    """A container's user may have neither HOME nor an entry in the system's list."""
    for name in ("EBBTIDE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with patch.object(Path, "home", side_effect=RuntimeError("Could not determine home directory.")):
        store("one", {"a": torch.zeros(1)})
        assert fetch("one") is None
        with pytest.raises(OSError, match="home"):
            cache_folder()


def test_only_what_this_user_alone_can_write_is_fetched(folder, tmp_path):
    store("one", {"a": torch.zeros(1)})
    file = folder / "one.safetensors"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with patch.object(os, "geteuid", return_value=os.geteuid() + 1):
        assert fetch("one") is None
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert fetch("one") is None, oct(mode)
    file.chmod(0o644)
    assert fetch("one") is not None
    file.symlink_to(file.rename(tmp_path / "elsewhere"))
    assert fetch("one") is None


def make(text, made):
    """A maker of a file, which counts."""
    return lambda path: (made.append(path), path.write_text(text))


def test_what_is_executed_is_made_once_and_lies_where_nobody_else_reads(folder):
    made = []
    file = executable("tool", make("code", made))
    assert file.read_text() == executable("tool", make("code", made)).read_text() == "code"
    assert len(made) == 1
    assert [stat.S_IMODE(part.stat().st_mode) for part in (file.parent, file)] == [0o700, 0o600]
    assert sorted(part.name for part in file.parent.iterdir()) == ["tool", "tool.sha256"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text(""),
        lambda file: file.write_text("cod"),
        lambda file: file.write_text("evil"),
        lambda file: file.unlink(),
        lambda file: file.chmod(0o666),
        lambda file: file.with_name("tool.sha256").write_text("0" * 64),
        lambda file: file.with_name("tool.sha256").write_bytes(b"\xff"),
        lambda file: file.with_name("tool.sha256").unlink(),
        lambda file: file.with_name("tool.sha256").chmod(0o666),
        lambda file: file.symlink_to(file.rename(file.parent.parent / "elsewhere")),
        lambda file: file.parent.chmod(0o777),
        lambda file: file.parent.chmod(0o750),
    ],
)
def test_what_is_executed_is_made_again_where_it_is_damaged_or_was_open_to_others(folder, damage):
    made = []
    damage(executable("tool", make("code", made)))
    file = executable("tool", make("code", made))
    assert (len(made), file.read_text(), file.is_symlink()) == (2, "code", False)
    assert [stat.S_IMODE(part.stat().st_mode) for part in (file.parent, file)] == [0o700, 0o600]
    assert executable("tool", make("code", made)) == file
    assert len(made) == 2


def test_a_folder_open_to_others_is_emptied(folder):
    file = executable("tool", make("code", []))
    (file.parent / "planted").mkdir()
    (file.parent / "link").symlink_to(folder)
    file.parent.chmod(0o722)
    executable("tool", make("code", []))
    assert sorted(part.name for part in file.parent.iterdir()) == ["tool", "tool.sha256"]
    assert folder.is_dir()


def test_a_folder_of_somebody_else_or_a_link_is_refused(folder, tmp_path):
    file = executable("tool", make("code", []))
    with patch.object(os, "geteuid", return_value=os.geteuid() + 1), pytest.raises(PermissionError, match="another"):
        executable("tool", make("code", []))
    file.parent.symlink_to(file.parent.rename(tmp_path / "elsewhere"))
    with pytest.raises(PermissionError, match="a link"):
        executable("tool", make("code", []))


def test_a_secret_is_made_once_and_only_this_user_reads_it(folder):
    key = secret()
    assert (len(key), secret()) == (32, key)
    file = folder / "secret" / "key"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    for damage in (lambda: file.write_bytes(b"short"), lambda: file.chmod(0o622), file.unlink):
        damage()
        other = secret()
        assert (len(other), other != key, secret()) == (32, True, other)
        key = other


def test_a_folder_that_others_can_swap_is_refused(folder, tmp_path):
    """Who may write in any folder above may put his own in its place, unless the sticky bit keeps him from renaming."""
    executable("tool", make("code", []))
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="every user"):
        executable("tool", make("code", []))
    folder.chmod(0o1777)
    executable("tool", make("code", []))


def test_what_cannot_be_made_leaves_nothing(folder):
    def fail(path):
        path.write_text("half")
        raise OSError("no compiler")

    with pytest.raises(OSError, match="no compiler"):
        executable("tool", fail)
    assert not list((folder / "executable").iterdir())
