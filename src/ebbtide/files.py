"""Reading and writing files: a file or folder appears whole or not at all, and never at the other end of a link.

Everything is written under a random name in the folder it belongs to, synced, and renamed: a rename over a link
replaces the link, not the file it points to.
"""

import errno
import glob
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from .errors import InputError, StorageError, meant
from .memory import room

__all__ = [
    "LOCK", "PARSED", "POINTER", "append_to", "create", "dump_json", "home", "hub_name", "is_pointer", "load_json",
    "located", "locked", "near", "no_link", "no_pointer", "old_of", "own_folder", "parse_json", "read_file",
    "refused", "remove", "state_of", "storage", "sync", "without_nan", "write_file", "writing",
    "writing_folder",
]  # fmt: skip

LOCK = ".lock"
POINTER = "is a pointer of Git LFS and not the file itself, which `git lfs pull` fetches"
PARSED = 40  # bytes that one of JSON may take once it is read, as in [[],[],[]]
_COPIES = 3  # of weights: the file's bytes, its tensors, the network's
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # by the disk, whatever the path


def refused(error: OSError) -> bool:
    """True if the disk is at fault (full, read-only, failing), and not the path. error: as raised while writing."""
    return error.errno in _REFUSALS


@contextmanager
def storage(where: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one sentence; what was stored before stays."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        reason = f"Can't write {where}: {error.strerror or error}"
        if refused(error):
            raise StorageError(f"{reason}; what was saved before is intact.") from error
        if isinstance(error, FileExistsError):  # by making a folder where something else is
            raise InputError(f"Can't write {where}: it is not a folder.") from error
        raise InputError(f"{reason}.") from error


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once it is whole and is removed if it never is."""
    with storage(located("file", path)):
        if path.exists() and not path.is_file():  # a folder, a device, a pipe
            raise InputError(f"Can't write {path}: it is not a file.")
        temporary = path.with_name(f".{secrets.token_hex(8)}.writing")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_file(path: Path, data: bytes) -> None:
    """One file, whole or not at all."""
    with writing(path) as file:
        file.write(data)


def create(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """A file that did not exist, not even as a link, of these parts; on the disk itself when this returns."""
    with open(path, "xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def append_to(path: Path) -> BinaryIO:
    """A file opened to be added to, unbuffered; StorageError or InputError where it is a link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    with storage(path):
        return open(path, "ab", buffering=0, opener=opener)


@contextmanager
def writing_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` once it is whole and is removed if it never is.

    replace: whether a folder that is already there gives way; else it stays, and the new one is refused.
    """
    temporary, old = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.writing"), old_of(folder)
    with storage(folder):
        try:
            for half in folder.parent.glob(f".{glob.escape(folder.name)}.*writing"):  # left by a killed process
                remove(half)
            temporary.mkdir(parents=True)
            yield temporary
            sync(temporary)
            if replace and os.path.lexists(folder):  # until the next rename, read_folder reads the old one
                remove(old)
                folder.rename(old)
            temporary.rename(folder)
            sync(folder.parent)
            if replace:
                remove(old)
        except BaseException:
            if replace and os.path.lexists(old) and not os.path.lexists(folder):
                old.rename(folder)
            remove(temporary)
            raise


def old_of(folder: Path) -> Path:
    """The temporary place of a folder while another replaces it."""
    return folder.with_name(f".{folder.name}.old")


def own_folder(folder: Path) -> Path:
    """A folder inside a run's, made if need be; a link there leads out of the run, and is refused."""
    no_link(folder)
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def no_link(folder: Path) -> None:
    """Refuse a link where a run, or a comparison, keeps a folder."""
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, and nothing is written through one; link the whole folder instead.")


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold a run's folder: a second process is refused. Yields the lock's file, which is ours while this lasts.

    The system lets go of the lock however the process ends.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        if os.path.lexists(folder / LOCK):
            found = os.lstat(folder / LOCK)
            if not stat.S_ISREG(found.st_mode) or found.st_size:  # some versions of filelock empty it
                raise InputError(
                    f"{folder / LOCK} is not an empty file, so it is no lock of ours; remove it if nothing trains here."
                )
        try:
            lock.acquire()
        except Timeout:
            raise InputError(f"Another process is training in {folder}.") from None
    try:
        yield folder / LOCK
    finally:
        lock.release()


def sync(path: Path) -> None:
    """Have a file or folder written to the disk itself; a folder where the system opens folders, unlike Windows."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that can't sync a folder
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a folder, or a link or file in its place, as far as that can be done; what a link points to stays."""
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError:  # a folder
        shutil.rmtree(path, ignore_errors=True)


def state_of(name: str) -> tuple[tuple[str, int, int, int], ...]:
    """Path, size, time and inode of each of a data set's files, for a cache's key; () where it names none.

    name: a file, a folder with all that is in it, either after "hf:" and before ":", or several with + between.
    """
    found = []
    name = name.removeprefix("hf:")
    for part in map(home, {name, name.partition(":")[0], *name.split("+")}):
        for file in [part, *(part.rglob("*") if os.path.isdir(part) else ())]:
            with suppress(OSError, ValueError):  # what can't be looked at, such as a link to nothing, hides no other
                about = file.stat()
                found.append((str(file.absolute()), about.st_size, about.st_mtime_ns, about.st_ino))
    return tuple(sorted(found))


def home(name: str) -> Path:
    """A path with ~ and ~user in it looked up; as it is written where there is no such user.

    name: the path as typed.
    """
    path = Path(name)
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def located(what: str, path: Any) -> Path:
    """The path; InputError for what is no path, such as a number. what: the argument's name."""
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):  # which no system takes
        raise InputError(f"{what} must be a path, a text or a pathlib.Path; got {repr(path)[:60]}.")
    return Path(path)


def is_pointer(source: Path | bytes) -> bool:
    """True for a file, or its bytes, that Git LFS puts in the place of data until `git lfs pull` has fetched them.

    source: the file or its first bytes.
    """
    if isinstance(source, Path):
        with open(source, "rb") as file:
            source = file.read(64)
    return source.startswith(b"version https://git-lfs.")


def no_pointer(path: Path) -> None:
    """InputError if the file is a pointer of Git LFS to its data."""
    if is_pointer(path):
        raise InputError(f"{path} {POINTER}.")


def near(path: Path) -> str:
    """The path of its folder with the nearest name, as in " (did you mean …?)"; "" where none is near."""
    try:
        others = [name for name in os.listdir(path.parent) if name != path.name]  # it may be there, but no run
        return meant(path.name, others, lambda name: repr(str(path.with_name(name))))
    except (OSError, ValueError):  # a folder that isn't there or may not be read; a name that no file can have
        return ""


def hub_name(name: str) -> tuple[str, str | None] | None:
    """Repository and revision of a hub name, as in user/name@v2 or hf:user/name; None for what is no such name.

    InputError for user/name where a folder user lies here, in which a name was probably mistyped: the hub isn't asked,
    unless hf: stands before it.
    """
    found = re.fullmatch(r"(hf:)?(([\w-][\w.-]*)/([\w-][\w.-]*))(?:@([\w-][\w./-]*))?", name, re.ASCII)
    if found is None:
        return None
    if not found[1] and os.path.isdir(found[3]):
        guess = near(Path(found[2]))
        raise InputError(f"There is no {name!r} in the folder {found[3]}{guess}; write hf:{name} for the hub's.")
    return found[2], found[5]


def dump_json(value: Any) -> bytes:
    """Indented JSON that refuses NaN. value: anything that JSON holds."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def without_nan(value: Any) -> Any:
    """The value with None for each number that JSON has no word for: NaN and the infinities.

    value: of tables, lists and what they may hold.
    """
    if isinstance(value, Mapping):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: Path) -> Any:
    """A JSON file's value, or an InputError naming the file."""
    return parse_json(read_file(path), path)


def parse_json(data: bytes, name: Path | str) -> Any:
    """The value of JSON text, or an InputError naming where it came from. name: where the text came from."""
    room(PARSED * len(data), str(name))
    try:
        found = json.loads(data)
        if b"\\ud" in data.lower():  # half of a character, as in "\\ud800", is text that no file could hold
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except (ValueError, RecursionError) as error:  # bytes that aren't text, text that isn't JSON, endless numbers
        raise InputError(f"{name} is not valid JSON: {error}.") from error


def read_file(path: Path) -> bytes:
    """A file's bytes, or an InputError naming it."""
    try:
        about = path.stat()
        if stat.S_ISREG(about.st_mode):
            room(_COPIES * about.st_size, str(path))
            return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"Can't read {path}: {error.strerror}{near(path)}.") from error
    except OSError as error:
        raise InputError(f"Can't read {path}: {error.strerror or error}.") from error
    raise InputError(f"Can't read {path}: it is not a file.")
