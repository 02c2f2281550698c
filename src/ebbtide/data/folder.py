"""A folder of images, searched in depth."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..cache import fingerprint
from ..errors import InputError, printable
from .decoding import read_image
from .gather import Found, Source
from .split import named_parts, part_of

__all__ = ["find_images"]

# By their endings; what remains is tried, whatever its name.
_NOT_IMAGES = frozenset(
    f".{ending}"
    for ending in (
        *("7z", "bz2", "db", "gz", "rar", "sqlite", "tar", "tgz", "xz", "zip", "zst"),
        *("avi", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "wav", "webm"),
        *("c", "cpp", "css", "h", "htm", "html", "ipynb", "js", "m", "py", "pyc", "sh", "tex"),
        *("cfg", "csv", "ini", "json", "jsonl", "lock", "log", "md", "rst", "toml", "tsv", "txt", "xml", "yaml", "yml"),
        *("doc", "docx", "key", "pdf", "ppt", "pptx", "url", "xls", "xlsx"),
        *("h5", "mat", "npy", "npz", "parquet", "pickle", "pkl", "pt", "pth", "safetensors", "sha1", "sha256"),
    )
)
_NO_IMAGES = frozenset({"__macosx", "license", "licence", "copying", "readme", "notice", "makefile", "checksums"})


def find_images(folder: Path, label: str) -> Found:
    """Every file below a folder that isn't hidden or plainly something else, sorted by name, held-out parts last."""
    if label not in ("", "folder"):
        raise InputError(f"label of a folder of images must be 'folder' or nothing; got {label!r}.")
    files, unusable = _walk(folder)
    if not files and not unusable:
        raise InputError(f"{folder} holds no images.")
    where = folder.resolve()
    chosen, test, classes = _in_parts([name.split("/") for name, _, _ in files], printable(str(folder)))
    files = [files[i] for i in chosen]
    names = [name for name, _, _ in files]
    if label and "" in classes[: len(names) - test]:
        loose = printable(names[classes.index("")])
        raise InputError(f"{folder}: label 'folder' needs each image in a sub-folder, and {loose} is in none.")
    source = Source(
        len(files),
        lambda i, *how: read_image(where / names[i], *how),
        lambda i: printable(names[i]),
        printable(str(where)),
        fingerprint(files),
        tuple(f"{printable(name)} {reason}" for name, reason in unusable),
    )
    return Found(source, [printable(name) or None for name in classes] if label else None, test=test)


def _in_parts(paths: Sequence[list[str]], where: str) -> tuple[list[int], int, list[str]]:
    """The images to use, those of held-out parts last; the number of the latter; and the class of each, "" for none.

    A set's parts are folders at one depth: train/cat and test/cat, cat/train and cat/test, pets/train/cat and so on. A
    class is the first folder that is neither a part nor one that all parts lie in.
    """
    train, held, folders = list(range(len(paths))), list[int](), [path[:-1] for path in paths]
    for depth in range(max(1, min(map(len, paths), default=1) - 1)):
        groups = [path[depth] if path[depth + 1 :] else "." for path in paths]
        found = (
            None if depth and not all(part_of(group)[0] for group in groups) else named_parts(Counter(groups), where)
        )
        if found:
            train, held = ([i for i, group in enumerate(groups) if group in names] for names in found)
            above = 0 if len({tuple(path[:depth]) for path in paths}) == 1 else depth
            rest = [path[:above] + path[depth + 1 : -1] for path in paths]
            folders = [[name for name in path if name != group] for path, group in zip(rest, groups)]
        if held:
            break
    chosen = train + held
    return chosen, len(held), [folders[i][0] if folders[i] else "" for i in chosen]


def _walk(folder: Path) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]]]:
    """(name, bytes, mtime in ns) of what may be an image, and (name, reason) of what can't be looked into."""
    files: list[tuple[str, int, int]] = []
    unusable: list[tuple[str, str]] = []
    top = folder.stat()
    waiting = [("", frozenset({(top.st_dev, top.st_ino)}))]
    while waiting:
        prefix, above = waiting.pop()
        try:
            entries = list(os.scandir(folder / prefix))
        except OSError as error:
            if not prefix:
                raise
            unusable.append((prefix, f"can't be searched: {error.strerror}"))
            continue
        for entry in entries:
            lower, name = entry.name.lower(), prefix + entry.name
            if lower.startswith(".") or lower in _NO_IMAGES or os.path.splitext(lower)[1] in _NOT_IMAGES:
                continue
            try:
                info = entry.stat()
            except OSError as error:  # a link to nothing or to itself
                unusable.append((name, f"can't be found: {error.strerror}"))
                continue
            if stat.S_ISREG(info.st_mode):
                files.append((name, info.st_size, info.st_mtime_ns))
            elif not stat.S_ISDIR(info.st_mode):
                unusable.append((name, "is neither a file nor a folder"))
            elif (info.st_dev, info.st_ino) in above:
                unusable.append((name, "is a link to a folder it lies in"))
            else:
                waiting.append((f"{name}/", above | {(info.st_dev, info.st_ino)}))
    return sorted(files, key=lambda file: file[0].split("/")), sorted(unusable)
