"""Checkpoints in pieces, here written by one process; test_sharded.py has those of several."""

import errno
import json
import os

import pytest
import torch

from ebbtide.errors import InputError, StorageError
from ebbtide.training import pieces
from ebbtide.training.checkpoint import PIECES, newest_valid, read_folder
from ebbtide.training.devices import accelerate
from ebbtide.training.pieces import read_pieces, write_pieces
from training.runs import assert_same, sentence

FILES = {"config.json": b"{}", "model.safetensors": {"a": torch.ones(3)}}


def state():
    return {"weights.a": torch.arange(12.0).view(4, 3), "step": torch.tensor(7), "exp_avg.a": torch.zeros(1)}


@pytest.fixture
def folder(tmp_path):
    write_pieces(tmp_path / "step-00000007", FILES, state(), accelerate())
    return tmp_path / "step-00000007"


def test_what_is_written_is_read(folder):
    assert_same(read_pieces(folder / PIECES, state()), state())
    assert read_folder(folder).keys() == FILES.keys()
    assert sorted(os.listdir(folder)) == ["config.json", "manifest.json", "model.safetensors", PIECES]
    assert sorted(os.listdir(folder.parent)) == [folder.name]


def test_a_state_of_another_run_is_one_sentence(folder):
    for other in ({"b": torch.zeros(1)}, {"step": torch.zeros(1)}, {"weights.a": torch.zeros(4, 3).double()}):
        with pytest.raises(InputError, match=f"its tensor {next(iter(other))} is missing, or of another shape") as it:
            read_pieces(folder / PIECES, state() | other)
        sentence(it.value)


@pytest.mark.parametrize("how", ["a bit", "cut", "gone", "all gone", "one too many", "a name", "no hash"])
def test_a_damaged_piece_costs_the_checkpoint_and_not_the_run(folder, how):
    """The one before is read instead, and the damage said."""
    write_pieces(folder.with_name("step-00000009"), FILES, state(), accelerate())
    newer = folder.with_name("step-00000009")
    (piece,) = (newer / PIECES).iterdir()
    whole, manifest = piece.read_bytes(), json.loads((newer / "manifest.json").read_text())
    if how == "a bit":
        piece.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif how == "cut":
        piece.write_bytes(whole[:-4])
    elif how == "gone":
        piece.rename(piece.with_name("other.safetensors"))
    elif how == "all gone":
        piece.unlink()
        (newer / PIECES).rmdir()
    elif how == "one too many":
        (newer / PIECES / "00002-of-00002.safetensors").write_bytes(whole)
    elif how == "a name":
        manifest[f"{PIECES}/../{piece.name}"] = manifest[f"{PIECES}/{piece.name}"]
    else:
        manifest[f"{PIECES}/{piece.name}"] = {"size": len(whole)}
    (newer / "manifest.json").write_text(json.dumps(manifest))
    warned = []
    where, _ = newest_valid(folder.parent, warned.append)
    assert where == folder
    (text,) = warned
    assert str(newer) in text


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path, monkeypatch):
    """Whether a piece can't be written, or what the first process writes after all the pieces."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((pieces.checkpoint, "write_hashed"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(StorageError, match="No space left on device; what was saved before is intact") as it:
                write_pieces(tmp_path / "step-00000001", FILES, state(), accelerate())
        sentence(it.value)
        assert os.listdir(tmp_path) == []
