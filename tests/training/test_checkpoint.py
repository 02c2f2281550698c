"""The folder format: whole or not at all, and never read with a byte changed."""

import builtins
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import torch as safetensors

from ebbtide import files
from ebbtide.errors import InputError, StorageError
from ebbtide.files import dump_json
from ebbtide.tensors import unpack
from ebbtide.training import checkpoint
from ebbtide.training.checkpoint import newest_valid, point_last, prune, read_folder, step_folder, write_folder
from training.runs import Killed, copy, run, sentence, tiny

FILES = {"config.json": b'{"a": 1}\n', "model.safetensors": bytes(range(256)) * 8}


def write(parent: Path, step: int, files=None) -> Path:
    folder = step_folder(parent, step)
    write_folder(folder, files or {**FILES, "training.safetensors": b"%d" % step * 50})
    return folder


def listing(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def valid(parent: Path) -> tuple[str, dict[str, bytes], list[str]]:
    heard: list[str] = []
    folder, files = newest_valid(parent, heard.append)
    return folder.name, files, heard


# --- what is written is what is read --------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    folder = write(tmp_path, 5, FILES)
    assert read_folder(folder) == FILES
    assert listing(tmp_path) == ["step-00000005"]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    # printf '{"a": 1}\n' | sha256sum
    digest = "e8c628edc9968ef0c668f54e0ba2636b35503357eb1aca0ddc828aeace432f67"
    assert manifest["config.json"] == {"size": 9, "sha256": digest}
    assert list(manifest) == list(FILES)


def test_a_readme_may_be_edited(tmp_path):
    folder = write(tmp_path, 0, {**FILES, "README.md": b"A card"})
    (folder / "README.md").write_text("A better card")
    assert read_folder(folder) == FILES


def test_writing_again_replaces_all_of_it(tmp_path):
    write(tmp_path, 1, {**FILES, "extra.json": b"{}"})
    folder = write(tmp_path, 1, {**FILES, "config.json": b"{}\n"})
    assert read_folder(folder) == {**FILES, "config.json": b"{}\n"}
    assert listing(folder) == ["config.json", "manifest.json", "model.safetensors"]
    assert listing(tmp_path) == ["step-00000001"]


def test_everything_is_synced_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    """Else a power cut may leave a folder with the right name and empty files."""
    events = []
    names = lambda handle: Path(os.readlink(f"/proc/self/fd/{handle}")).name
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append(names(handle)), fsync(handle))[1])
    monkeypatch.setattr(os, "rename", lambda a, b, **k: (events.append("rename"), rename(a, b, **k)))
    write(tmp_path, 3, FILES)
    assert re.fullmatch(r"\.step-00000003\.[0-9a-f]{16}\.writing", events.pop(3))
    assert events == ["config.json", "model.safetensors", "manifest.json", "rename", tmp_path.name]


def stored(tensors, folder) -> bytes:
    write_folder(folder, {"config.json": b"{}", "model.safetensors": tensors})
    return read_folder(folder)["model.safetensors"]


def test_tensors_come_back_bit_for_bit(tmp_path):
    tensors = {
        "a": torch.tensor([0.0, -0.0, 1e-45, 3e38]),
        "b": torch.arange(6).reshape(2, 3).T,
        "c": torch.zeros(0, 2),
        "d": torch.tensor(7),
    }
    back = unpack(stored(tensors, tmp_path / "x"), "x")
    assert all(torch.equal(back[name], part) and back[name].dtype == part.dtype for name, part in tensors.items())
    assert str(back["a"][1]) == "tensor(-0.)"


def test_tensors_are_laid_out_as_their_library_does(tmp_path):
    """Of every kind of number, in any order of memory, tied, with names that JSON must escape; and none at all."""
    kinds = (*checkpoint._DTYPES, torch.float32, torch.bfloat16)
    made = {f'{"ab"[k % 2]}."é{k}': torch.arange(12).reshape(3, 4).to(kind) for k, kind in enumerate(kinds)}
    made["image"] = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    made |= {"part": made["image"].flatten()[::7], "tied": made["image"]}
    for k, tensors in enumerate((made, {})):
        plain = {name: part.contiguous().clone() for name, part in tensors.items()}
        assert stored(tensors, tmp_path / str(k)) == safetensors.save(plain)


@pytest.mark.slow
def test_a_save_needs_little_memory_beside_what_is_saved(tmp_path):
    """64 MiB in channels-last order: their library would copy them all."""
    code = """
import pathlib, resource, sys, torch
from ebbtide.training.checkpoint import write_folder

def save(name, tensors):
    write_folder(pathlib.Path(sys.argv[1]) / name, {"config.json": b"{}", "model.safetensors": tensors})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

last = torch.channels_last
parts = {str(k): torch.ones(64, 64, 16, 16).contiguous(memory_format=last) for k in range(16)}
print(-save("small", {"0": parts["0"]}) + save("all", parts))
"""
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 0.2 * 64 * 1024


def test_json_refuses_nan():
    with pytest.raises(ValueError):
        dump_json({"a": float("nan")})


# --- which checkpoint ---------------------------------------------------------------------------------------------


def test_the_newest_is_by_number_not_by_name(tmp_path):
    for step in (99_999_999, 100_000_000, 2):
        write(tmp_path, step)
    assert valid(tmp_path)[0] == "step-100000000"


def test_no_checkpoint_is_none(tmp_path):
    assert newest_valid(tmp_path, pytest.fail) is None
    assert newest_valid(tmp_path / "missing", pytest.fail) is None


def test_a_reader_goes_on_to_what_a_trainer_has_written_meanwhile(tmp_path, monkeypatch):
    """With keep=1 the trainer removes, between a reader's two looks, the only checkpoint that the reader saw."""
    write(tmp_path, 1)
    read, steps = checkpoint.read_folder, iter((2, 3))

    def meanwhile(folder):
        if (step := next(steps, None)) is not None:
            prune(write(tmp_path, step), 1)
        return read(folder)

    monkeypatch.setattr(checkpoint, "read_folder", meanwhile)
    assert valid(tmp_path)[::2] == ("step-00000003", [])


def test_pruning_keeps_the_newest(tmp_path):
    for step in (1, 2, 3, 4):
        folder = write(tmp_path, step)
    (tmp_path / "step-notes.txt").write_text("mine")
    (tmp_path / ".step-00000009.writing").mkdir()
    point_last(folder)
    prune(folder, 2)
    assert listing(tmp_path) == ["last", "step-00000003", "step-00000004", "step-notes.txt"]
    assert os.readlink(tmp_path / "last") == "step-00000004"


def test_pruning_after_a_fall_back_keeps_the_good_ones(tmp_path):
    """A damaged step 9 must not count as one of those to keep, or the only good one would go."""
    for step in (5, 7, 9):
        write(tmp_path, step)
    (step_folder(tmp_path, 9) / "config.json").write_bytes(b"{}")
    assert valid(tmp_path)[0] == "step-00000007"
    prune(write(tmp_path, 8), 1)
    assert listing(tmp_path) == ["step-00000008"]
    assert valid(tmp_path)[2] == []


def test_the_link_moves_in_one_step(tmp_path, monkeypatch):
    point_last(write(tmp_path, 1))
    target = write(tmp_path, 2)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        point_last(target)
    assert os.readlink(tmp_path / "last") == "step-00000001"
    monkeypatch.undo()
    point_last(target)
    assert (tmp_path / "last").resolve() == target.resolve()
    assert read_folder(tmp_path / "last") == read_folder(target)


# --- a crash at every point -----------------------------------------------------------------------------------------


class Machine:
    """Lets `left` system calls pass and then is dead: the call at that point and all after it never happen."""

    CALLS = ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "symlink", "open", "scandir", "close")

    def __init__(self, monkeypatch, left: int, error=None) -> None:
        self.left, self.dead, self.error = left, False, error
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        self.open = builtins.open
        monkeypatch.setattr(files, "open", self.opened, raising=False)

    def tick(self) -> None:
        if self.dead and self.error is None:
            raise Killed
        if self.left == 0:
            self.dead, self.left = True, -1
            raise Killed if self.error is None else OSError(self.error, os.strerror(self.error))
        self.left -= 1

    def counted(self, call):
        def counting(*arguments, **options):
            self.tick()
            return call(*arguments, **options)

        return counting

    def opened(self, *arguments):
        self.tick()
        file, write = self.open(*arguments), None
        if "x" in arguments[1]:
            write = file.write

            def halved(data):
                try:
                    self.tick()
                except BaseException:
                    write(data[: len(data) // 2])
                    file.flush()
                    raise
                return write(data)

            proxy = type("File", (), {"write": staticmethod(halved), "flush": file.flush, "fileno": file.fileno})()
            proxy.__class__.__enter__ = lambda self: self
            proxy.__class__.__exit__ = lambda self, *_: file.close()
            return proxy
        return file


def save(parent: Path, step: int, keep: int) -> None:
    """What a run does at a checkpoint."""
    folder = write(parent, step, {**FILES, "training.safetensors": b"%d" % step * 50})
    point_last(folder)
    prune(folder, keep)


# The two errors are one to a file system and to us, so each is tried with another number to keep.
@pytest.mark.parametrize("step", [3, 2], ids=["a new step", "the same step again"])
@pytest.mark.parametrize(
    ("error", "keep"), [(None, 1), (None, 2), (errno.EIO, 1), (errno.ENOSPC, 2)], ids=["kill", "kill2", "EIO", "ENOSPC"]
)
def test_a_crash_at_any_point_leaves_a_valid_checkpoint(tmp_path, monkeypatch, keep, step, error):
    """kill: that call and all later ones don't happen. EIO, ENOSPC: that one call fails and Python cleans up."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of checkpoints: order is tested above
    newer = {"training.safetensors": b"%d" % step * 50}
    point, finished = 0, False
    while not finished:
        parent = tmp_path / str(point)
        save(parent, 1, 2)
        save(parent, 2, 2)
        with pytest.MonkeyPatch.context() as patch:
            machine = Machine(patch, point, error)
            try:
                save(parent, step, keep)
                finished = not machine.dead  # an error while tidying up ends nothing
            except Killed:
                assert error is None
            except StorageError:
                assert error is not None
        name, files, heard = valid(parent)
        assert heard == [], f"after call {point}, {heard}"
        assert name in ("step-00000002", f"step-{step:08d}")
        assert files["training.safetensors"] in (b"2" * 50, newer["training.safetensors"])
        # And the next process carries on from there as if nothing had been.
        save(parent, 4, keep)
        assert valid(parent)[0] == "step-00000004"
        assert not [left for left in listing(parent) if left.startswith(".")]
        assert len(listing(parent)) == 1 + keep
        shutil.rmtree(parent)
        point += 1
    assert point > 20  # or the machine above no longer stands in the way of anything


def test_an_interrupt_between_the_renames_puts_the_old_one_back(tmp_path, monkeypatch):
    folder, rename, calls = write(tmp_path, 1), os.rename, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 1, FILES)
    assert listing(tmp_path) == ["step-00000001"]
    assert "training.safetensors" in read_folder(folder)


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real run with two checkpoints, steps 9 and 12."""
    folder = tmp_path_factory.mktemp("run") / "run"
    run(tiny(), folder)
    return folder


NAMES = ("config.json", "model.safetensors", "training.safetensors", "manifest.json")


def _at(place):
    def flip(data: bytes) -> bytes:
        at = place(data)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flip


def _body(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


BYTES = {
    "first byte": _at(lambda data: 0),
    "middle byte": _at(lambda data: len(data) // 2),
    "last byte": _at(lambda data: len(data) - 1),
    "cut by one": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "longer by one": lambda data: data + b"\0",
    "longer by a line": lambda data: data + b"\n{}",
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}
TENSORS = {
    "header length": _at(lambda data: 1),
    "header's top byte": _at(lambda data: 7),
    "header's brace": _at(lambda data: 8),
    "header": _at(lambda data: _body(data) // 2),
    "first body byte": _at(_body),
    "middle body byte": _at(lambda data: (_body(data) + len(data)) // 2),
}
ENTRIES = {
    "digest": lambda m: m["model.safetensors"].update(sha256="0" + m["model.safetensors"]["sha256"][1:][::-1]),
    "upper case": lambda m: m["config.json"].update(sha256=m["config.json"]["sha256"].upper()),
    "size": lambda m: m["model.safetensors"].update(size=m["model.safetensors"]["size"] + 1),
    "no size": lambda m: m["model.safetensors"].pop("size"),
    "no digest": lambda m: m["model.safetensors"].pop("sha256"),
    "name": lambda m: m.update({"model.safetensor": m.pop("model.safetensors")}),
    "an entry that is no table": lambda m: m.update({"model.safetensors": 3}),
    "no config": lambda m: m.pop("config.json"),
    "no model": lambda m: m.pop("model.safetensors"),
    "a folder": lambda m: m.update({"sub/model.safetensors": m["model.safetensors"]}),
    "above": lambda m: m.update({"../last/config.json": m["config.json"]}),
    "two dots": lambda m: m.update({"..": m["config.json"]}),
    "absolute": lambda m: m.update({"/etc/hostname": m["config.json"]}),
    "nameless": lambda m: m.update({"": m["config.json"]}),
    "a null": lambda m: m.update({"config.json\0": m["config.json"]}),
    "a lone surrogate": lambda m: m.update({"\ud800": m["config.json"]}),
}


def _swap(folder):
    a, b = folder / "model.safetensors", folder / "training.safetensors"
    a.rename(folder / "x")
    b.rename(a)
    (folder / "x").rename(b)


def _link(name, to):
    def link(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return link


def _without(name):
    return lambda folder: (folder / name).unlink()


WHOLE = {
    "swapped": (_swap, "model.safetensors"),
    "a link elsewhere": (_link("model.safetensors", "../../metrics.jsonl"), "model.safetensors"),
    "a link to the other": (_link("model.safetensors", "training.safetensors"), "model.safetensors"),
    "a link to nothing": (_link("config.json", "gone"), "config.json"),
    "a link to itself": (_link("config.json", "config.json"), "config.json"),
    "an endless device": (_link("model.safetensors", "/dev/zero"), "model.safetensors"),
    "a manifest without end": (_link("manifest.json", "/dev/zero"), "manifest.json"),
    "a folder for a file": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "config.json"),
    "a pipe": (lambda f: ((f / "config.json").unlink(), os.mkfifo(f / "config.json")), "config.json"),
    "a file for the folder": (lambda f: (shutil.rmtree(f), f.write_bytes(b"x")), "step-00000012"),
    "an empty folder": (lambda f: (shutil.rmtree(f), f.mkdir()), "manifest.json"),
    "a list for a manifest": (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json"),
    "endless nesting": (lambda f: (f / "manifest.json").write_text("[" * 200_000), "manifest.json"),
    "an endless number": (lambda f: (f / "manifest.json").write_text("9" * 10_000), "manifest.json"),
    "not text": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe{}"), "manifest.json"),
    **{f"no {name}": (_without(name), name) for name in NAMES},
}


def _bytes_of(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def _manifest(change):
    def edit(folder):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))

    return edit


DAMAGE = {
    **{f"{name}: {what}": (_bytes_of(name, change), name) for name in NAMES[:3] for what, change in BYTES.items()},
    **{f"manifest.json: {what}": (_bytes_of("manifest.json", change), "") for what, change in BYTES.items()},
    **{f"{name}: {what}": (_bytes_of(name, change), name) for name in NAMES[1:3] for what, change in TENSORS.items()},
    **{f"manifest: {what}": (_manifest(change), "") for what, change in ENTRIES.items()},
    **WHOLE,
}
# The manifest's last byte is a line feed, which it can do without; that there is a model is from_pretrained's business.
del DAMAGE["manifest.json: cut by one"], DAMAGE["manifest: no model"]


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused_by_name_and_passed_over(trained, tmp_path, what):
    damage, name = DAMAGE[what]
    folder = copy(trained, tmp_path / "run")
    last = folder / "checkpoints" / "step-00000012"
    damage(last)
    with pytest.raises(InputError) as refused:
        read_folder(last)
    assert name in sentence(refused.value)
    assert str(last) in str(refused.value)
    step, files, heard = valid(folder / "checkpoints")
    assert step == "step-00000009"
    assert files == read_folder(trained / "checkpoints" / "step-00000009")
    assert len(heard) == 1
    assert heard[0].startswith(str(refused.value))
    assert heard[0].endswith("Falling back to the checkpoint before it.")


def test_damage_to_all_is_said_not_taken_for_a_fresh_start(trained, tmp_path):
    folder = copy(trained, tmp_path / "run")
    for config in folder.glob("checkpoints/step-*/config.json"):
        config.write_bytes(b"")
    with pytest.raises(InputError, match=r"None of the 2 checkpoints in .* is readable\."):
        newest_valid(folder / "checkpoints", lambda text: None)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_loads_in_silence(trained, tmp_path, data):
    """Any bit of any file: refused, or (white space of the manifest, say) every file still as it was."""
    source = trained / "checkpoints" / "step-00000012"
    name = data.draw(st.sampled_from(NAMES))
    whole = (source / name).read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    copy(source, folder)
    (folder / name).write_bytes(flipped)
    try:
        files = read_folder(folder)
    except InputError as error:
        sentence(error)
    else:
        assert name == "manifest.json"
        assert files == read_folder(source)


def test_a_hub_cache_of_links_is_read(trained, tmp_path):
    """A link is followed, for the hub's cache is made of them; what counts is what the bytes are."""
    for file in (trained / "checkpoints" / "step-00000012").iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert read_folder(tmp_path) == read_folder(trained / "checkpoints" / "step-00000012")
