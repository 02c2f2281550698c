"""The files of a data set in LeRobot's format: where they lie, and columns of parquet."""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ...errors import InputError
from ...files import home, hub_name
from ...memory import room
from ...progress import progress_bar

__all__ = [
    "ACTION",
    "DATA_MB",
    "FILES_A_CHUNK",
    "FILE_NAME",
    "IMAGES",
    "PLACE",
    "QUANTILES",
    "STATE",
    "VERSION",
    "VIDEO_MB",
    "VIDEO_SECONDS",
    "Stats",
    "cells_of",
    "column_rows",
    "files_with_rows",
    "make_bar",
    "need_package",
    "parquet_files",
    "video_file",
]

VERSION = "v3.0"


STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."


QUANTILES = (1, 10, 50, 90, 99)  # percent


FILE_NAME = "chunk-{:03d}/file-{:03d}"


FILES_A_CHUNK = 1000


DATA_MB, VIDEO_MB = 100, 500  # what LeRobot lets a file grow to when it appends


# LeRobot finds a frame by its time in float32, within 1e-4 s: past 2¹⁰ s float32 is coarser than that.
VIDEO_SECONDS = 1000.0


_COPIES = 4  # of a column, until it is a tensor


_TOGETHER = 2**25  # bytes of cells that are read together


Stats = dict[str, dict[str, Tensor]]


PLACE = ("chunk_index", "file_index", "from_timestamp")


def _folder(where: str | os.PathLike[str], patterns: Sequence[str]) -> Path:
    """A local folder, else what matches the patterns of a data set on the hub: its revision v3.0, or the newest,
    unless one is named, as in USER/NAME@v2.1.
    """
    folder, name = home(os.fspath(where)), os.fspath(where)
    if folder.is_dir():
        return folder
    if folder.exists() or (found := hub_name(name)) is None:
        raise InputError(f"{name} is no folder; a data set of LeRobot's is a folder, or USER/NAME on the hub.")
    repository, asked = found
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def get(revision: str | None) -> Path:
        place = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
        return Path(place)

    try:
        try:
            return get(asked or VERSION)
        except RevisionNotFoundError as error:
            if asked:
                raise InputError(f"{repository!r} has no revision {asked!r}: a branch, a tag or a commit.") from error
            return get(None)
    except InputError:
        raise
    except RepositoryNotFoundError as error:
        raise InputError(f"There is no folder {name!r} and no such data set on the hub that you may read.") from error
    except Exception as error:  # the hub's own, or those of the library it speaks HTTP with
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name!r} is no folder here, and is not available from the hub: {reason}") from error


def _columns(place: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Columns of numbers of all files of a place, one after the other: (n,), and (n, d) of lists."""
    parts = []
    for file in parquet_files(place):
        table = _parquet(file, names)
        parts.append({name: _numbers(table[name], f"{file}, column {name!r}") for name in names})
    for name in names:
        if len({part[name].shape[1:] for part in parts}) > 1:
            raise InputError(f"{place}: column {name!r} is not as wide in each of its files.")
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def column_rows(
    place: Path, names: Sequence[str], rows: Int[Tensor, " n"], pieces: Iterable[range]
) -> Iterator[Float[Tensor, "k d"]]:
    """Columns of numbers side by side, in float32: of each piece of these rows, which rise, in all files of a place.

    pieces: ranges of places in `rows`, which rise.
    """
    files = files_with_rows(place)
    for piece in pieces:
        wanted, parts = rows[piece.start : piece.stop], []
        for file, held in files:
            if len(inside := wanted[(wanted >= held.start) & (wanted < held.stop)] - held.start):
                table = _parquet(file, names)
                columns = [_wide(_numbers(table[name], f"{file}, column {name!r}")) for name in names]
                parts.append(torch.cat(columns, 1)[inside])
        if len({part.shape[1] for part in parts}) > 1:
            shown = ", ".join(map(repr, names))
            raise InputError(f"{place}: column {shown} is not as wide in each of its files.")
        yield torch.cat(parts)


def _wide(values: Tensor) -> Tensor:
    """(n, d) in float32, of a column of numbers too."""
    return values.reshape(len(values), -1).float()


def files_with_rows(place: Path) -> list[tuple[Path, range]]:
    """The files of a place, and the rows of the whole set that are in each."""
    found, begin = [], 0
    for file in parquet_files(place):
        with _opened(file) as held:
            found.append((file, range(begin, begin + held.metadata.num_rows)))
        begin = found[-1][1].stop
    return found


def parquet_files(place: Path) -> list[Path]:
    """Its files in order. place: the folder of the chunks."""
    files = sorted(place.glob("chunk-*/file-*.parquet"), key=lambda file: (len(str(file)), file))
    if not files:
        raise InputError(f"{place} has no chunk-*/file-*.parquet, which a data set of LeRobot's needs.")
    return files


@contextmanager
def _opened(file: Path, names: Sequence[str] = (), **options: Any) -> Iterator[Any]:
    """A parquet file with these columns; one that can't be read or lacks a column is named."""
    parquet = need_package("pyarrow.parquet")
    if not file.is_file():
        raise InputError(f"{file} does not exist, which a data set of LeRobot's needs.")
    try:
        with parquet.ParquetFile(file, **options) as held:
            known = held.schema_arrow.names
            if missing := [name for name in names if name not in known]:
                shown = ", ".join(name for name in known if not name.startswith("stats/"))
                raise InputError(f"{file} has no column {missing[0]!r}; it has {shown}.")
            yield held
    except InputError:
        raise
    except Exception as error:  # pyarrow's own, the system's, and EOFError and the like of a damaged file
        raise InputError(f"{file} is not a readable parquet file: {' '.join(str(error).split())[:200]}.") from error


def _parquet(file: Path, names: Sequence[str]) -> Any:
    """These columns of a file, which must be of numbers, as a table."""
    with _opened(file, names) as held:
        need = 0
        for name in set(names):
            for chunk in _chunks(held, name):
                if "BYTE_ARRAY" in chunk.physical_type:
                    raise InputError(
                        f"{file}, column {name!r} must hold numbers; got {held.schema_arrow.field(name).type}."
                    )
                need += _COPIES * max(8 * chunk.num_values, chunk.total_uncompressed_size)
        room(need, str(file))
        return held.read(columns=list(dict.fromkeys(names)))


def cells_of(file: Path, name: str) -> Iterator[Any]:
    """A column's cells, of any size: few at a time, for a large one is in the file once if it stands in every row.

    name: the column's.
    """
    with _opened(file, [name]) as held:
        largest = max((chunk.total_uncompressed_size for chunk in _chunks(held, name)), default=0)
        room(_COPIES * largest, f"{file}, column {name!r}")
        for batch in held.iter_batches(max(1, min(1000, _TOGETHER // max(largest, 1))), columns=[name]):
            yield from batch.column(0)


def _chunks(held: Any, name: str) -> Iterator[Any]:
    """Entries of a file's own table on the parts of a column, or on those inside it."""
    for group in map(held.metadata.row_group, range(held.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}."):
                yield chunk


def _numbers(column: Any, name: str) -> Tensor:
    """A column of numbers, or of lists of them that are equally long."""
    arrow, compute = need_package("pyarrow"), need_package("pyarrow.compute")
    width: tuple[int, ...] = ()
    if isinstance(column, arrow.ChunkedArray):
        column = column.combine_chunks()
    n, kind = len(column), column.type
    if column.null_count:
        raise InputError(f"{name} lacks {column.null_count} of {n} values.")
    if arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind):
        lengths = compute.unique(compute.list_value_length(column)).to_pylist()
        if len(lengths) > 1:
            raise InputError(f"{name} holds lists of {min(lengths)} to {max(lengths)} numbers; all must be as long.")
        column, width = column.flatten(), tuple(lengths or [0])
        kind = column.type
    if not (arrow.types.is_floating(kind) or arrow.types.is_integer(kind) or arrow.types.is_boolean(kind)):
        raise InputError(f"{name} must hold numbers; got {kind}.")
    values = column.to_numpy(zero_copy_only=False)
    whole = values.dtype.kind in "iub"
    return torch.from_numpy(values.astype(np.int64 if whole else np.float64)).reshape(n, *width)


def video_file(folder: Path, key: str, chunk: int, number: int) -> Path:
    """The file of a camera, key, in a chunk. number: the file's."""
    return folder / "videos" / key / (FILE_NAME.format(chunk, number) + ".mp4")


def make_bar(total: int, what: str, progress: bool) -> tqdm:
    """Shown from two seconds on. total: frames in all."""
    return progress_bar(total, what, " images", delay=2, leave=False, show=progress)


def need_package(name: str) -> Any:
    """pyarrow, a part of it, or av. name: of the module."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise InputError(f"LeRobot's format needs the package {package}: pip install 'ebbtide[robots]'.") from None
