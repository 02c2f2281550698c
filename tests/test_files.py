"""Writing: whole or not at all, never through a link, and the lock on a run."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ebbtide import data
from ebbtide.errors import EbbtideError, InputError, StorageError
from ebbtide.files import (
    append_to,
    create,
    home,
    located,
    locked,
    near,
    own_folder,
    parse_json,
    remove,
    state_of,
    storage,
    sync,
    write_file,
    writing_folder,
)
from ebbtide.kinds.compare import compare
from ebbtide.kinds.runs import from_pretrained
from ebbtide.plots import animation, images, style, video
from ebbtide.recipes import PointRecipe
from training.runs import Killed, run, sentence, tiny

# --- the lock, and what the disk refuses ----------------------------------------------------------------------------

HOLD = "import fcntl, sys; h = open(sys.argv[1], 'w'); fcntl.flock(h, 2); print('held', flush=True); sys.stdin.read()"


def test_the_lock_is_another_process_and_ends_with_it(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="Another process is training in"), locked(tmp_path):
            pass
        process.kill()
        process.wait()
    with locked(tmp_path):
        pass


def test_the_lock_is_let_go_whatever_happens_inside(tmp_path):
    for _ in range(2):
        with pytest.raises(Killed), locked(tmp_path / "new" / "folder"):
            raise Killed


def test_a_file_system_without_locks_is_not_another_process(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="No locks available"), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (errno.ENOSPC, StorageError, 4),
        (errno.EDQUOT, StorageError, 4),
        (errno.EFBIG, StorageError, 4),
        (errno.EIO, StorageError, 4),
        (errno.EACCES, InputError, 2),
        (errno.EROFS, StorageError, 4),
        (errno.ENOTDIR, InputError, 2),
        (errno.ENAMETOOLONG, InputError, 2),
    ],
)
def test_what_the_system_says_becomes_one_sentence(code, kind, exit_code):
    with pytest.raises(EbbtideError) as caught, storage(Path("runs/x")):
        raise OSError(code, os.strerror(code))
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    assert sentence(caught.value).startswith(f"Can't write runs/x: {os.strerror(code)}")


def test_only_the_system_is_translated():
    for error in (ValueError("x"), StorageError("said already"), InputError("said already")):
        with pytest.raises(type(error), match=str(error)), storage(Path("x")):
            raise error


def test_a_file_is_written_whole_or_stays_what_it_was(tmp_path, monkeypatch):
    path = tmp_path / "one.json"
    write_file(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StorageError, match="what was saved before is intact"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["one.json"]


# --- links ----------------------------------------------------------------------------------------------------------

FRAMES = np.zeros((3, 16, 16, 3), np.uint8)
WRITERS = {
    "bytes.json": lambda path: write_file(path, b"new"),
    "figure.png": lambda path: style.save(Figure(), path),
    "grid.png": lambda path: images.save_png(np.zeros((2, 1, 8, 8), np.uint8), path),
    "palette.gif": lambda path: animation.write_gif(
        path, iter(FRAMES[..., 0]), np.zeros((256, 3), np.uint8), seconds=1, count=3
    ),
    "film.gif": lambda path: video.write_video(path, FRAMES),
    **{
        f"points{end}": lambda path: data.save_points(path, torch.zeros(3, 2))
        for end in (".npy", ".npz", ".csv", ".tsv")
    },
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_replaces_a_link_and_leaves_its_target(tmp_path, name):
    """And what a full disk interrupts is neither half there nor left behind under another name."""
    path, target = tmp_path / name, tmp_path / "precious"
    target.write_bytes(b"precious")
    path.symlink_to(target)
    for guess in (f"{name}.writing", f".{name}.writing", f".{name}.{os.getpid()}.tmp"):
        (tmp_path / guess).symlink_to(target)
    before = {left.name for left in tmp_path.iterdir()}
    WRITERS[name](path)
    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()
    whole = path.read_bytes()
    assert whole

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device; what was saved before is intact"):
            WRITERS[name](path)
    assert path.read_bytes() == whole
    assert {left.name for left in tmp_path.iterdir()} == before


def test_only_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("folder", "pipe", "null"):
        with pytest.raises(InputError, match=f"Can't write .*{name}: it is not a file"):
            write_file(tmp_path / name, b"x")
    with pytest.raises(InputError, match="No such file or directory"):
        write_file(tmp_path / "missing" / "x", b"x")
    assert sorted(left.name for left in tmp_path.iterdir()) == ["folder", "null", "pipe"]


def test_neither_a_new_file_nor_one_to_append_to_is_opened_through_a_link(tmp_path):
    target = tmp_path / "precious"
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(FileExistsError):
        create(tmp_path / "link", [b"x"])
    assert not target.exists()
    target.write_bytes(b"precious")
    with pytest.raises(InputError, match="link: Too many levels of symbolic links"):
        append_to(tmp_path / "link")
    assert target.read_bytes() == b"precious"
    with append_to(target) as file:
        file.write(b"!")
    assert target.read_bytes() == b"precious!"


def test_a_folder_is_replaced_or_refused_whole(tmp_path):
    folder = tmp_path / "set"
    for name in (b"one", b"two"):
        with writing_folder(folder) as new:
            (new / "x").write_bytes(name)
        assert (folder / "x").read_bytes() == name
    with pytest.raises(InputError, match="set"), writing_folder(folder, replace=False) as new:
        (new / "x").write_bytes(b"three")
    with pytest.raises(Killed), writing_folder(folder) as new:
        raise Killed
    assert (folder / "x").read_bytes() == b"two"
    assert [left.name for left in tmp_path.iterdir()] == ["set"]


def test_what_is_removed_is_the_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "precious").touch()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert (tmp_path / "far" / "precious").exists()
    assert not (tmp_path / "link").is_symlink()
    remove(tmp_path / "far")
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize("way", ["link", "hard link", "dangling link", "pipe"])
def test_the_lock_is_neither_followed_nor_emptied(tmp_path, way):
    target, lock = tmp_path / "precious", tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    if way != "dangling link":
        target.write_bytes(b"precious")
    {
        "link": lambda: lock.symlink_to(target),
        "hard link": lambda: lock.hardlink_to(target),
        "dangling link": lambda: lock.symlink_to(target),
        "pipe": lambda: os.mkfifo(lock),
    }[way]()
    with pytest.raises(InputError, match=r"\.lock is not an empty file, so it is no lock of ours"), locked(lock.parent):
        pass
    assert not target.exists() if way == "dangling link" else target.read_bytes() == b"precious"


def test_nothing_in_a_run_is_written_through_a_link(tmp_path):
    """Files that the trainer writes are replaced; folders that lead out are refused, and keep what they hold."""
    far = tmp_path / "far"
    (far / "step-00000001").mkdir(parents=True)
    (far / "precious").write_bytes(b"precious")
    for name in ("checkpoints", "evolution"):
        folder = tmp_path / f"linked {name}"
        folder.mkdir()
        (folder / name).symlink_to(far)
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(InputError, match=f"{name} is a link, and nothing is written through one"):
                run(tiny(), folder, snapshots=2, **options)
    with pytest.raises(InputError, match="diffusion is a link, and nothing is written through one"):
        (tmp_path / "comparison").mkdir()
        (tmp_path / "comparison" / "diffusion").symlink_to(far)
        compare(PointRecipe(), tmp_path / "comparison", overwrite=True)
    assert sorted(left.name for left in far.iterdir()) == ["precious", "step-00000001"]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").symlink_to(far / "precious")
    with pytest.raises(InputError, match=r"run holds 'metrics\.jsonl', and no run"):
        run(tiny(), folder)
    (folder / "metrics.jsonl").unlink()
    run(tiny(), folder)
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(far / "precious")
    run(tiny(), folder, overwrite=True)
    assert (far / "precious").read_bytes() == b"precious"
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
    with pytest.raises(InputError, match="plots is a link"):
        (folder / "plots").symlink_to(far)
        own_folder(folder / "plots")


# --- systems unlike this one ----------------------------------------------------------------------------------------


def test_folders_are_not_synced_where_the_system_opens_none(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a folder was opened"))
    sync(tmp_path)


def test_a_run_needs_no_links(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    run(tiny(), tmp_path / "run")
    assert sorted(left.name for left in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000009",
        "step-00000012",
    ]
    assert from_pretrained(tmp_path / "run").step == 12


# --- the state of data, for a cache's key ---------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["{}/photos", "hf:{}/photos", "~/photos", "{}/none.npz+{}/photos/b/2.png"])
def test_a_state_changes_with_any_file_of_the_data(tmp_path, monkeypatch, named):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos/b").mkdir(parents=True)
    (tmp_path / "photos/a").symlink_to("nothing")  # hides no other file
    file = tmp_path / "photos/b/2.png"
    file.write_bytes(b"one")
    name = named.replace("{}", str(tmp_path))
    before = state_of(name)
    assert before == state_of(name)
    file.write_bytes(b"three")
    assert state_of(name) != before
    assert state_of("three_gaussians") == ()


def test_a_user_that_is_nobody_is_part_of_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (home("~/a"), home("~nobody-of-that-name/a")) == (tmp_path / "a", Path("~nobody-of-that-name/a"))


def test_a_folder_is_not_made_where_something_else_is(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "link", "pipe"):
        with pytest.raises(InputError, match=rf"^Can't write .*{name}: it is not a folder\.$"), locked(tmp_path / name):
            pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("use", [lambda name: located("file", name), lambda name: write_file(Path(name), b"")])
def test_a_name_that_no_file_can_have_is_one_sentence(use):
    with pytest.raises(InputError, match=r"^file must be a path, .*; got .*a\\x00b"):
        use("a\0b")


def test_a_file_is_guessed_from_the_names_in_its_folder(tmp_path):
    (tmp_path / "table.csv").touch()
    assert near(tmp_path / "table.cvs") == f" (did you mean {str(tmp_path / 'table.csv')!r}?)"
    assert near(tmp_path / "table.csv") == ""  # it is there, but something else than was asked for
    assert near(tmp_path / "zebra") == near(tmp_path / "nowhere/table.csv") == near(Path("\0")) == ""


def test_json_of_half_a_character_is_refused_and_a_pair_is_read():
    """Half of one, which JSON can write and a file of text can't, failed where the run was written again."""
    assert parse_json(b'{"a": "\\ud83d\\ude00"}', "config.json") == {"a": "\U0001f600"}
    for text in (b'["\\ud800"]', b'{"\\uDBFF": 1}'):
        with pytest.raises(InputError, match=r"config\.json is not valid JSON: .*surrogates not allowed"):
            parse_json(text, "config.json")
