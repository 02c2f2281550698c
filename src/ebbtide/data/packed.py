"""Text files of a table as text: unpacked, decoded, and weighed before anything of them is kept."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from zipfile import ZipFile

from ..arrays import damage
from ..errors import InputError

__all__ = ["PACKED", "TextFile", "text_file", "unpacked"]

_OPEN: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": lambda path: ZipFile(path).open(_member(path)),  # noqa: SIM115 - it is open as long as the member is
}
PACKED = (*_OPEN,)
_DELIMITERS = (",", ";", "\t", "|", " ")


@dataclass(frozen=True)
class TextFile:
    """A text file, packed or not, of a known encoding; and its size."""

    path: Path
    encoding: str
    lines: int
    delimiters: int
    """The most of one delimiter in it."""
    longest: int
    """Characters of its longest line."""

    @contextmanager
    def open(self, newline: str | None = None) -> Iterator[TextIO]:
        """The file as text; newline as in Python's `open`."""
        with _binary(self.path) as file, io.TextIOWrapper(file, self.encoding, newline=newline) as text:
            yield text


def unpacked(path: Path) -> Path:
    """The name of a file inside of .gz, .bz2, .xz or .zip; a name that isn't packed as it is."""
    if path.suffix.lower() not in PACKED:
        return path
    if path.suffix.lower() == ".zip":
        with damage(path):
            return Path(_member(path))
    return path.with_suffix("")


def text_file(path: Path, fits: Callable[[TextFile], None]) -> TextFile:
    """A file's encoding and size: UTF-8, UTF-16 with its mark, or else cp1252; `fits` may refuse it as it grows."""
    with damage(path) if path.suffix.lower() in PACKED else nullcontext(), _binary(path) as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return _weighed(path, "utf-16", fits)
        except UnicodeError as error:
            raise InputError(f"{path} is damaged UTF-16 text.") from error
    encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return _weighed(path, encoding, fits)
        except UnicodeDecodeError as error:
            failed = error
    raise InputError(f"{path}, {_place(path, encodings)} is neither UTF-8 nor cp1252 text.") from failed


def _weighed(path: Path, encoding: str, fits: Callable[[TextFile], None]) -> TextFile:
    lines, longest, line = 0, 0, 0
    counts = dict.fromkeys(_DELIMITERS, 0)
    found = TextFile(path, encoding, 0, 0, 0)
    wrong: UnicodeDecodeError | None = None
    with damage(path) if path.suffix.lower() in PACKED else nullcontext():
        try:
            with found.open() as text:
                while part := text.read(2**20):
                    if "\0" in part:
                        row = lines + part[: part.index("\0")].count("\n") + 1
                        raise InputError(f"{path}, row {row}: a null byte, so it is no text.")
                    first, *others = part.split("\n")
                    lines += len(others)
                    longest = max(longest, line + len(first), *map(len, others))
                    line = len(others[-1]) if others else line + len(first)
                    for delimiter in _DELIMITERS:
                        counts[delimiter] += part.count(delimiter)
                    *marks, blanks = counts.values()
                    most = max(marks) if max(marks) >= lines else max(*marks, blanks)
                    found = TextFile(path, encoding, lines, most, longest)
                    if path.suffix.lower() in PACKED:  # before a small file becomes a large one
                        fits(found)
        except UnicodeDecodeError as error:
            wrong = error
    if wrong is not None:
        raise wrong
    fits(found)
    return found


def _binary(path: Path) -> Any:
    return _OPEN.get(path.suffix.lower(), lambda path: open(path, "rb"))(path)


def _member(path: Path) -> str:
    with ZipFile(path) as archive:
        names = [
            one.filename for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX")
        ]
    if len(names) != 1:
        raise InputError(f"{path} must hold one file; it holds {len(names)}.")
    return names[0]


def _place(path: Path, encodings: list[str]) -> str:
    """The row and byte of the first line that none of the encodings fits."""
    with _binary(path) as file:
        for row, line in enumerate(file, 1):
            for encoding in encodings:
                try:
                    line.decode(encoding)
                    break
                except UnicodeDecodeError as error:
                    at = error.start + 1
            else:
                return f"row {row}: byte {at}"
    return "it"
