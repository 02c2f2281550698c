"""A cache of reproducible results: decoded images, classifiers, features, compiled kernels, the output of `list`.

A cache that can't be written is no error. A file that is damaged, or that other users can write, is ignored: the
contents of the cache are trusted, and some are executed.
"""

import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:  # `ebbtide list` reads its texts here without torch
    from torch import Tensor

from .memory import room

__all__ = [
    "MAPPED", "NOTE", "Kept", "cache_folder", "executable", "fetch", "filled", "fingerprint", "kept_here", "put",
    "secret", "store", "unchanged", "unshared",
]  # fmt: skip

MAPPED = 2**30  # bytes beyond which a tensor that is filled stays on the disk, mapped
NOTE = "state.json"  # in an entry that is a folder
ATTEMPTS = 3  # at filling a file that another process may have begun at the same moment


def cache_folder() -> Path:
    """$EBBTIDE_CACHE, else ebbtide in $XDG_CACHE_HOME, else in ~/.cache; OSError where there is no home either."""
    if folder := os.environ.get("EBBTIDE_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "ebbtide"
    try:
        return Path.home() / ".cache" / "ebbtide"
    except RuntimeError as error:  # HOME is unset, and the system has no such user
        raise FileNotFoundError(str(error)) from error


class Kept(NamedTuple):
    """Something in the cache: its name, bytes, seconds since it was made or last read as a set, and what it is of."""

    name: str
    size: int
    age: float
    of: str = ""


def kept_here() -> list[Kept]:
    """The contents of the cache that can be made again, largest first; not the key that seals a user's runs."""
    found = []
    with suppress(OSError):
        for path in cache_folder().iterdir():
            if path.name in ("secret", "executable") or path.name.startswith("."):
                continue
            with suppress(OSError):  # another process removes it
                files = [path] if not path.is_dir() else [one for one in path.rglob("*") if one.is_file()]
                newest = max((one.stat().st_mtime for one in files), default=path.stat().st_mtime)
                about: Any = {}
                with suppress(OSError, ValueError, RecursionError):
                    about = json.loads((path / NOTE).read_bytes()) if path.is_dir() else {}
                of = str(about.get("of", "")) if isinstance(about, dict) else ""
                found.append(Kept(path.name, sum(one.stat().st_size for one in files), time.time() - newest, of))
    return sorted(found, key=lambda entry: (-entry.size, entry.name))


def fingerprint(*words: object, tensors: Iterable[Any] = ()) -> str:
    """A hash of whatever repr tells apart, and of tensors and their shapes.

    words: anything whose repr stands for it. tensors: or rows on the disk, which are read by blocks.
    """
    tensors = list(tensors)
    if tensors:
        import torch
    digest = hashlib.sha256(repr((words, [tuple(tensor.shape) for tensor in tensors])).encode())
    for tensor in tensors:
        for part in [tensor] if isinstance(tensor, torch.Tensor) else tensor.split(256):
            plain = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
            digest.update(plain.numpy().data)
    return digest.hexdigest()


def store(name: str, tensors: Mapping[str, "Tensor"], **about: str) -> None:
    """Keep tensors, and a few words on them, under a name; whole or not at all.

    about: what is known of them, by name.
    """
    from safetensors.torch import save_file

    whole = {key: tensors[key].contiguous() for key in sorted(tensors)}
    with suppress(OSError, SafetensorError), _writing(cache_folder() / f"{name}.safetensors") as file:
        save_file(whole, file, about | {"sum": _sum(whole, about)})


def fetch(name: str) -> tuple[dict[str, "Tensor"], dict[str, str]] | None:
    """The stored contents of a name, and their description; None if there is no intact file of this user."""
    try:
        stored = cache_folder() / f"{name}.safetensors"
        if not unshared(stored):
            return None
        room(stored.stat().st_size, str(stored))
        with safe_open(stored, "pt") as file:
            tensors, about = {key: file.get_tensor(key) for key in sorted(file.keys())}, file.metadata()
        return (tensors, about) if about.pop("sum") == _sum(tensors, about) else None
    except Exception:  # safetensors and the system raise a dozen kinds for a damaged file
        return None


def filled(
    name: str, shape: tuple[int, ...], pieces: Sequence[slice], make: Callable[[slice], "Tensor"]
) -> tuple["Tensor", float]:
    """A float32 tensor of this shape, and the CPU seconds that making it took.

    x[:, piece] is make(piece), written as soon as it is made: the next call continues one that was killed. Up to
    MAPPED bytes are then read into memory; more are mapped, so that they needn't fit there, unless the cache can't be
    written.

    pieces: slices of the second axis, which together cover it.
    """
    file = None
    try:
        file = cache_folder() / f"{name}.float32"
        return _filled(file, shape, pieces, make)
    except OSError:
        with suppress(OSError):
            if file is not None:
                file.unlink(missing_ok=True)
                file.with_suffix(".json").unlink(missing_ok=True)
    import torch

    room(8 * math.prod(shape), f"{name.partition('-')[0]}, for which the cache has no place,")
    began = time.process_time()
    return torch.cat([make(piece) for piece in pieces], 1), time.process_time() - began


def _filled(
    file: Path, shape: tuple[int, ...], pieces: Sequence[slice], make: Callable[[slice], "Tensor"]
) -> tuple["Tensor", float]:
    """The same, in a file, whose pieces' sums and CPU seconds stand beside it."""
    import torch

    count, beside = math.prod(shape), file.with_suffix(".json")
    known: dict[str, list[Any]] = {}
    whole = False
    with suppress(Exception):  # not there, open to others, damaged
        whole = unshared(file) and file.stat().st_size == 4 * count
        if whole and unshared(beside):
            kept = json.loads(beside.read_bytes())
            known = {start: [str(check), float(seconds)] for start, (check, seconds) in kept.items()}
    if not whole:
        with _writing(file) as empty, open(empty, "wb") as made_long:
            made_long.truncate(4 * count)
    for _ in range(ATTEMPTS):
        x = torch.from_file(str(file), shared=False, size=count, dtype=torch.float32).reshape(shape)
        sums = {str(piece.start): fingerprint(piece.stop, tensors=[x[:, piece]]) for piece in pieces}
        missing = [piece for piece in pieces if known.get(str(piece.start), [""])[0] != sums[str(piece.start)]]
        if not missing:
            return x if x.nbytes > MAPPED else x.clone(), sum(seconds for _, seconds in known.values())
        for piece in missing:
            began = time.process_time()
            made = make(piece).contiguous()
            seconds = time.process_time() - began
            with open(file, "r+b") as to:  # written, not stored through the map: a full disk is an error, not a signal
                for k, row in enumerate(made):
                    to.seek(4 * (k * math.prod(shape[1:]) + piece.start * math.prod(shape[2:])))
                    to.write(row.numpy().data)
            known[str(piece.start)] = [fingerprint(piece.stop, tensors=[made]), seconds]
            _note(beside, known)
    raise OSError(f"{file} does not stay as it is written")


def _note(beside: Path, known: Mapping[str, list[Any]]) -> None:
    with _writing(beside) as note:
        note.write_text(json.dumps(known))


def unchanged(name: str, make: Callable[[], Any]) -> Any:
    """The result of make(), as JSON; cached until a source file of this package, or Python, changes."""
    package = Path(__file__).parent
    files = [(str(path.relative_to(package)), path.stat()) for path in sorted(package.rglob("*.py"))]
    key = fingerprint(sys.version, [(path, about.st_size, about.st_mtime_ns) for path, about in files])
    with suppress(Exception):  # not there, open to others, damaged
        stored = cache_folder() / f"{name}.json"
        kept = json.loads(stored.read_bytes()) if unshared(stored) else {}
        if kept["sum"] == fingerprint(key, kept["made"]):
            return kept["made"]
    made = make()
    with suppress(OSError), _writing(cache_folder() / f"{name}.json") as file:
        file.write_text(json.dumps({"sum": fingerprint(key, made), "made": made}), encoding="utf-8")
    return made


def executable(name: str, make: Callable[[Path], None]) -> Path:
    """A file whose contents this process may run: made by make(path) unless it lies here as it was made.

    It is kept in a folder of the cache that nobody else can read or write, with its sha256 beside it; what doesn't
    match is made again. OSError where the folder is a link or another user's, or can't be written.
    """
    folder = _private(cache_folder() / "executable")
    file, beside = folder / name, folder / f"{name}.sha256"
    with suppress(OSError):
        if unshared(file) and unshared(beside) and beside.read_bytes() == _sha256(file):
            return file
    with tempfile.TemporaryDirectory(dir=folder) as temporary:  # renamed when whole: others may be making it too
        made, check = Path(temporary) / name, Path(temporary) / beside.name
        make(made)
        made.chmod(0o600)
        check.write_bytes(_sha256(made))
        check.chmod(0o600)
        check.replace(beside)
        made.replace(file)
    return file


def secret() -> bytes:
    """32 random bytes, made once, that only this user can read; OSError where they can't be kept."""
    file = _private(cache_folder() / "secret") / "key"
    with suppress(OSError):
        if unshared(file) and len(key := file.read_bytes()) == 32:
            return key
    with _writing(file) as made:
        made.write_bytes(secrets.token_bytes(32))
    return file.read_bytes()  # another process's, if that came later


def put(file: Path, write: Callable[[Path], object]) -> None:
    """A file of the cache, made by write(path); whole or not at all."""
    with _writing(file) as written:
        write(written)


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """A temporary file that then replaces `file`; readable by this user only."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as temporary:
        written = Path(temporary) / file.name
        yield written
        written.chmod(0o600)
        written.replace(file)


def _private(folder: Path) -> Path:
    """The folder, made if need be; emptied where others could have written to it, then closed to them."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "nt":  # whose folders have owners and modes of another kind
        return folder
    for above in folder.resolve().parents:  # whoever can rename one of them can put another folder in this one's place
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(f"every user of this machine can write in {above}")
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is a link, or belongs to another user")
    if about.st_mode & 0o077:
        folder.chmod(0o700)
        if folder.lstat().st_mode & 0o077:
            raise PermissionError(f"{folder} can't be closed to other users")
        for old in folder.iterdir():
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    return folder


def unshared(path: Path) -> bool:
    """True for a file, not a link to one, that only this user can write."""
    about = path.lstat()
    closed = os.name == "nt" or (about.st_uid == os.geteuid() and not about.st_mode & 0o022)
    return stat.S_ISREG(about.st_mode) and closed


def _sha256(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).hexdigest().encode()


def _sum(tensors: Mapping[str, "Tensor"], about: Mapping[str, str]) -> str:
    """A check of the tensors, their names and descriptions."""
    return fingerprint(list(tensors), sorted(about.items()), tensors=tensors.values())
