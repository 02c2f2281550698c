"""A folder is written whole or not at all, and read only if every byte is what was written.

    config.json          what the tensors are: recipe, shape, classes, codec, time convention, versions
    model.safetensors    the weights sampling uses (the EMA); other libraries expect this name
    codec.safetensors    the weights of its codec, if that has any
    training.safetensors what resuming needs on top: raw weights, optimiser moments, step
    training/            the same in pieces, one of each process, where these share the weights (see pieces.py)
    running.json         how the run is trained, and what the data was (see settings.py)
    manifest.json        size and sha256 of each file but README.md, which people edit and nothing is read from

Nothing is ever unpickled. A flipped bit would otherwise load without a word in 98 % of cases.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import create, dump_json, load_json, old_of, read_file, refused, remove, storage, writing_folder
from ..tensors import sound, unpack
from .devices import whole

__all__ = [
    "LAST",
    "MANIFEST",
    "PIECES",
    "README",
    "TRAINING",
    "WEIGHTS",
    "Content",
    "entry_of",
    "files_of",
    "newest_valid",
    "point_last",
    "prune",
    "read_folder",
    "saved",
    "serialized",
    "step_folder",
    "weights_in",
    "write_folder",
    "write_hashed",
    "write_manifest",
]  # fmt: skip

MANIFEST, README, LAST, WEIGHTS = "manifest.json", "README.md", "last", "model.safetensors"
TRAINING, PIECES = "training.safetensors", "training"

Entry = dict[str, int | str]
"""A file's line in the manifest: its size and sha256."""
Content = bytes | Mapping[str, Tensor]
"""Contents of a file to be written: bytes, or tensors, which are written one after another as safetensors."""

# The format's names, in the order in which its library lays tensors out: the widest first.
_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip


def write_folder(folder: Path, files: Mapping[str, Content]) -> None:
    """Write files and their manifest to a temporary folder beside `folder`, sync them, then rename."""
    with writing_folder(folder) as temporary:
        for inner in {(temporary / name).parent for name in files} - {temporary}:
            inner.mkdir()
        write_manifest(temporary, {name: write_hashed(temporary / name, _parts(file)) for name, file in files.items()})


def write_manifest(folder: Path, entries: dict[str, Entry]) -> None:
    """Write the manifest of a folder's files.

    entries: size and hash of each file, by name; the README's is left out, so that it may be edited.
    """
    create(folder / MANIFEST, [dump_json({name: entry for name, entry in entries.items() if name != README})])


def write_hashed(path: Path, parts: Iterable[bytes | memoryview]) -> Entry:
    """Write one file; its entry in the manifest, computed on the way.

    parts: the file's bytes, in order.
    """
    digest, size = hashlib.sha256(), 0

    def seen() -> Iterator[bytes | memoryview]:
        nonlocal size
        for part in parts:
            digest.update(part)
            size += len(part)
            yield part

    create(path, seen())
    return {"size": size, "sha256": digest.hexdigest()}


def entry_of(path: Path) -> Entry:
    """The entry in the manifest of a file that is there already, which is never in memory as a whole."""
    try:
        with open(path, "rb") as file:
            return {"size": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise InputError(f"Can't read {path}: {error.strerror or error}.") from error


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder, each checked against the manifest; InputError names the file and its fault.

    Pieces of a training state are checked but not returned: they may be more than this process has memory for.
    """
    if not folder.exists() and old_of(folder).is_dir():  # a kill fell between the two renames of write_folder
        folder = old_of(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    manifest = load_json(folder / MANIFEST)
    files = {}
    if not isinstance(manifest, dict) or "config.json" not in manifest:
        raise InputError(f"{folder / MANIFEST} is damaged: it lists no config.json.")
    for name, entry in manifest.items():
        if not re.fullmatch(rf"({PIECES}/)?[\w-][\w.-]*", name, re.ASCII) or not isinstance(entry, dict):
            raise InputError(f"{folder / MANIFEST} is damaged at {name!r}.")
        if name.startswith(f"{PIECES}/"):
            found = entry_of(folder / name)
        else:
            files[name] = read_file(folder / name)
            found = {"size": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        if found != entry:
            raise InputError(f"{folder / name} is damaged: its contents don't match the manifest's sha256.")
    listed = {name for name in manifest if name.startswith(f"{PIECES}/")}
    if {f"{PIECES}/{one.name}" for one in (folder / PIECES).glob("*")} != listed:
        raise InputError(f"{folder / PIECES} is damaged: it doesn't hold the pieces that the manifest lists.")
    return files


def saved(parent: Path) -> list[Path]:
    """The step-* folders of a run, the newest first."""
    names = (re.fullmatch(r"\.?step-(\d{8,})(\.old)?", folder.name, re.ASCII) for folder in parent.glob("*step-*"))
    steps = {int(name[1]) for name in names if name and name[0].startswith(".") == bool(name[2])}
    return [step_folder(parent, step) for step in sorted(steps, reverse=True)]


def step_folder(parent: Path, step: int) -> Path:
    """The folder of a run's checkpoint of a step."""
    return parent / f"step-{step:08d}"


def newest_valid(parent: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, bytes]] | None:
    """The newest step-* folder that reads without damage; `warn` hears of each one passed over. None if none exists.

    A trainer may go on meanwhile, and prune what is being read: then it is looked for again.
    """
    folders, passed = saved(parent), 0
    while passed < len(folders):
        try:
            return folders[passed], read_folder(folders[passed])
        except InputError as error:
            if (now := saved(parent)) != folders:
                folders, passed = now, 0
                continue
            warn(f"{error} Falling back to the checkpoint before it.")
            passed += 1
    if folders:
        raise InputError(f"None of the {len(folders)} checkpoints in {parent} is readable.")
    return None


def files_of(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, bytes]]:
    """The files of a run's newest undamaged checkpoint, or of an exported folder, and where they lie.

    warn: called with a sentence for each damaged checkpoint passed over.
    """
    if not os.path.isdir(folder / "checkpoints"):  # os.path: a name that no file can have is no error there
        if not os.path.exists(folder / MANIFEST) and (runs := _runs_in(folder)):
            raise InputError(f"{folder} is a folder of runs, not a run; name one: {', '.join(runs)}.")
        return folder, read_folder(folder)
    found = newest_valid(folder / "checkpoints", warn)
    if found is None:
        raise InputError(f"{folder} holds no checkpoint yet.")
    return found


def _runs_in(folder: Path, most: int = 6) -> list[str]:
    """The first runs and exports in a folder that is none itself, by name, and "…" for more."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return []
    found = [str(one) for one in inside if os.path.exists(one / "checkpoints") or os.path.exists(one / MANIFEST)]
    return found[:most] + ["…"] * (len(found) > most)


def point_last(folder: Path) -> None:
    """Let the link `last` beside a checkpoint name it, in one step.

    It is for people and other programs: nothing here depends on it, and where a system has no links there is none.
    """
    last, temporary = folder.with_name(LAST), folder.with_name(f".{LAST}.{secrets.token_hex(8)}")
    with storage(last):
        for left in folder.parent.glob(f".{LAST}*"):  # by a killed process
            remove(left)
        try:
            temporary.symlink_to(folder.name, target_is_directory=True)
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and refused(error):
                raise
            return
        temporary.replace(last)


def prune(newest: Path, keep: int) -> None:
    """Keep `keep` checkpoints: the one just written and those before it.

    A checkpoint of a later step was damaged, or the run would have gone on from it; it goes, and so does what a killed
    process left half-written. newest: the folder just written.
    """
    parent = newest.parent
    with storage(parent):
        for old in parent.glob(".step-*.old"):
            if not (folder := parent / old.name[1:-4]).exists():
                old.rename(folder)
        folders = saved(parent)
        at = folders.index(newest)
        half = [*parent.glob(".step-*.old"), *parent.glob(".step-*.writing")]
        for folder in (*folders[:at], *folders[at + keep :], *half):
            remove(folder)


def _parts(content: Content) -> Iterable[bytes | memoryview]:
    return [content] if isinstance(content, bytes) else serialized(content)


def serialized(tensors: Mapping[str, Tensor], about: Mapping[str, str] = {}) -> Iterator[bytes | memoryview]:
    """The parts of a safetensors file: its header, then each tensor's bytes.

    The library wants every tensor contiguous and on the CPU at once, so a U-Net's would all be copied; here one is.
    The rows of a tensor that processes share are gathered, for which all of them have to ask. about: the header's
    metadata.
    """
    widest = list(_DTYPES)
    names = sorted(tensors, key=lambda name: (widest.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name in names:
        part = tensors[name]
        begin, end = end, end + part.nbytes
        header[name] = {"dtype": _DTYPES[part.dtype], "shape": list(part.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        part = whole(tensors[name]).detach().cpu().contiguous().flatten()
        if part.numel():
            yield part.view(torch.uint8).numpy().data


def weights_in(files: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    """The weights that sampling uses, in a folder's files; InputError where there are none, or some are not finite."""
    if WEIGHTS not in files:
        raise InputError(f"{name} has no {WEIGHTS}.")
    return sound(unpack(files[WEIGHTS], f"{name}/{WEIGHTS}"), f"{name}/{WEIGHTS}")
