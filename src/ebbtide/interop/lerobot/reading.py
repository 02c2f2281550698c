"""Episodes read from a data set in LeRobot's format: columns, images, tasks, statistics."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import PIL
import torch
from jaxtyping import Float64, Int
from torch import Tensor
from tqdm import tqdm

from ...cache import fingerprint
from ...data.episodes import Episodes, numbered
from ...data.levels import Levels
from ...data.unread import Reader, Unread
from ...errors import InputError
from ...files import home, load_json
from ...specs import require
from .files import (
    ACTION,
    IMAGES,
    PLACE,
    STATE,
    VERSION,
    Stats,
    _columns,
    _folder,
    _numbers,
    _opened,
    _parquet,
    cells_of,
    column_rows,
    make_bar,
)
from .frames import film_frames, first_stored, stored_frames

__all__ = ["open_dataset", "read_dataset", "read_info", "read_stats"]


def read_dataset(
    where: str | os.PathLike[str],
    *,
    cameras: Sequence[str] = (),
    size: int = 0,
    episodes: Sequence[int] | None = None,
    state: Sequence[str] = (STATE,),
    levels: Mapping[str, Levels] = MappingProxyType({}),
    progress: bool = True,
) -> Episodes:
    """A folder, or USER/NAME of the hub's, as episodes; numbers in float32.

    cameras: those whose images are wanted; without any, no video is fetched or decoded. size: the side images are
    resized to, 0 keeps theirs. episodes: which, in rising order; None is all. state: features put side by side, as
    PushT's observation.environment_state; a set without observation.state has a state of no columns. An episode's task
    is that of its first step. levels: by camera, the values of stored images of more than 8 bits that become 0 and
    255; all its images' lowest and highest unless given.
    """
    given: dict[str, Any] = {"cameras": cameras, "size": size, "episodes": episodes, "state": state, "levels": levels}
    return open_dataset(where, **given).read(progress=progress)


def open_dataset(
    where: str | os.PathLike[str],
    *,
    cameras: Sequence[str] = (),
    size: int = 0,
    episodes: Sequence[int] | None = None,
    state: Sequence[str] = (STATE,),
    levels: Mapping[str, Levels] = MappingProxyType({}),
) -> Episodes:
    """The episodes of `read_dataset`, their rows not read yet.

    cameras, size, episodes, state, levels: as there.
    """
    require("size", size, 0, whole=True)
    folder = _folder(where, ["meta/*", "data/*", *(f"videos/*{name}/*" for name in cameras)])
    info = read_info(folder)
    if STATE not in info["features"]:
        state = [key for key in state if key != STATE]
    keys = {name: _camera(info, name, folder) for name in cameras}
    filmed = [key for key in keys.values() if info["features"][key]["dtype"] == "video"]
    places = [f"videos/{key}/{part}" for key in filmed for part in ("chunk_index", "file_index", "from_timestamp")]
    table = _columns(folder / "meta/episodes", ["episode_index", "length", *places])
    steps = _columns(folder / "data", ["episode_index", "frame_index", "task_index", "timestamp"])
    ends = _ends(folder, info, table, steps)
    chosen = _chosen(episodes, len(ends))
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    rows = torch.cat([torch.arange(int(starts[e]), int(ends[e])) for e in chosen])
    after = (ends - starts)[chosen].cumsum(0)
    tasks = _tasks(folder, steps["task_index"][starts[chosen]])
    images = {}
    for name, key in keys.items():
        if key in filmed:
            lying = {part: table[f"videos/{key}/{part}"][chosen] for part in PLACE}
            images[name] = _filmed(
                folder, key, lying, steps["timestamp"][rows].double(), after, float(info["fps"]), size
            )
        else:
            images[name] = _stored(folder, key, rows, len(steps["timestamp"]), size, levels.get(name))
    values = _numbers_of(folder, state, rows) if state else torch.zeros(len(rows), 0)
    action = _numbers_of(folder, [ACTION], rows)
    return Episodes(
        values,
        action,
        after,
        images,
        tasks if any(tasks) else (),
        float(info["fps"]),
        _names(info, state, "state", values.shape[1]),
        _names(info, [ACTION], "action", action.shape[1]),
    )


def _numbers_of(folder: Path, keys: Sequence[str], rows: Int[Tensor, " n"]) -> Unread:
    """Columns of numbers, side by side."""

    def reader(pieces: Sequence[range], levels: Levels | None, bar: tqdm) -> Iterator[tuple[Tensor, Levels | None]]:
        for piece, x in zip(pieces, column_rows(folder / "data", keys, rows, pieces)):
            yield x, None
            bar.update(len(piece))

    first = next(column_rows(folder / "data", keys, rows, [range(1)]))
    shape = (len(rows), first.shape[1])
    return _unread(folder, shape, torch.float32, reader, *keys, rows)


def _filmed(
    folder: Path,
    key: str,
    places: Mapping[str, Tensor],
    stamps: Float64[Tensor, " n"],
    after: Int[Tensor, " e"],
    fps: float,
    size: int,
) -> Unread:
    """A camera's frames in videos. stamps: their times in the episode. after: the place after each episode's last."""
    begin = torch.cat([after.new_zeros(1), after[:-1]])

    def reader(pieces: Sequence[range], levels: Levels | None, bar: tqdm) -> Iterator[tuple[Tensor, Levels | None]]:
        for piece in pieces:
            inside = (begin < piece.stop) & (after > piece.start)
            spans = zip(begin[inside].clamp(min=piece.start).tolist(), after[inside].clamp(max=piece.stop).tolist())
            when = [stamps[first:last] for first, last in spans]
            yield film_frames(folder, key, {name: x[inside] for name, x in places.items()}, when, fps, size, bar), None

    with make_bar(1, "reading", False) as bar:
        first, _ = next(reader([range(1)], None, bar))
    return _unread(folder, (len(stamps), *first.shape[1:]), torch.uint8, reader, key, size, after)


def _stored(folder: Path, key: str, rows: Int[Tensor, " n"], total: int, size: int, given: Levels | None) -> Unread:
    """A camera's images beside the numbers; arguments as those of `stored_frames`."""

    def reader(pieces: Sequence[range], levels: Levels | None, bar: tqdm) -> Iterator[tuple[Tensor, Levels | None]]:
        for piece in pieces:
            wanted = rows[piece.start : piece.stop]
            frames, used = stored_frames(folder, key, wanted, total, size, given or levels, bar)
            levels = levels or used
            yield frames, used

    sides = (size, size, 3) if size else first_stored(folder, key).shape
    return _unread(folder, (len(rows), *sides), torch.uint8, reader, key, size, rows, given)


def _unread(folder: Path, shape: tuple[int, ...], dtype: torch.dtype, reader: Reader, *how: Any) -> Unread:
    words = [word for word in how if not isinstance(word, Tensor)]
    tensors = [word for word in how if isinstance(word, Tensor)]
    name = ", ".join(word for word in words if isinstance(word, str))
    depends = fingerprint(folder.absolute(), PIL.__version__, words, tensors=tensors)
    return Unread(shape, dtype, reader, f"{folder}, {name}", str(folder), (depends,))


def read_info(where: str | os.PathLike[str]) -> dict[str, Any]:
    """meta/info.json of a folder, or of USER/NAME on the hub: fps, features, counts; another version is refused."""
    file = _folder(where, ["meta/*"]) / "meta/info.json"
    info = load_json(file)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if not isinstance(version, str):
        raise InputError(f"{file} names no codebase_version, so this is no data set of LeRobot's.")
    if version != VERSION:
        older = re.match(r"v[12]\.", version)
        what = "; convert it with LeRobot's convert_dataset_v21_to_v30" if older else ""
        raise InputError(f"{file} is of LeRobot's format {version}, and {VERSION} is read here{what}.")
    features, fps = info.get("features"), info.get("fps")
    if not isinstance(features, dict) or not all(
        isinstance(feature, dict) and isinstance(feature.get("dtype"), str) for feature in features.values()
    ):
        raise InputError(f"{file} is damaged: its features must be tables with a dtype.")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise InputError(f"{file} is damaged: fps must be a number above 0; got {fps!r}.")
    return info


def read_stats(where: str | os.PathLike[str]) -> Stats:
    """Contents of stats.json, or a data set's meta/stats.json: feature → min, max, mean, std, count, … in float64."""
    file = home(os.fspath(where))
    if file.suffix != ".json":
        file = _folder(where, ["meta/*"]) / "meta/stats.json"
    stats = load_json(file)
    try:
        return {
            feature: {name: torch.tensor(value, dtype=torch.float64) for name, value in rows.items()}
            for feature, rows in stats.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged: {error}.") from error


def _camera(info: Mapping[str, Any], name: str, folder: Path) -> str:
    """A camera's key, by its name or the key itself."""
    held = {
        key.removeprefix(IMAGES).removeprefix("observation."): key
        for key, feature in info["features"].items()
        if feature["dtype"] in ("video", "image")
    }
    if name in held.values():
        return name
    if name not in held:
        raise InputError(f"{folder} has no camera {name!r}; it has {', '.join(held) or 'none'}.")
    return held[name]


def _ends(folder: Path, info: Mapping[str, Any], table: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> Tensor:
    """The end of each episode; checks the steps against the table of episodes and info.json."""
    lengths, e = table["length"].long(), len(table["length"])
    n = len(steps["episode_index"])
    told = {"total_episodes": (e, "meta/episodes"), "total_frames": (n, "data")}
    for name, (count, where) in told.items():
        if info.get(name, count) != count:
            raise InputError(f"{folder} is damaged: info.json tells of {name} {info[name]}, and {where} holds {count}.")
    sound = (
        e > 0 and int(lengths.min()) > 0 and int(lengths.sum()) == n
        and torch.equal(table["episode_index"], torch.arange(e))
        and torch.equal(steps["episode_index"], torch.arange(e).repeat_interleave(lengths))
    )  # fmt: skip
    ends = lengths.cumsum(0)
    if not sound or not torch.equal(
        steps["frame_index"], torch.arange(n) - (ends - lengths).repeat_interleave(lengths)
    ):
        raise InputError(f"{folder} is damaged: data does not hold the steps, in order, that meta/episodes tells of.")
    return ends


def _chosen(episodes: Sequence[int] | None, count: int) -> list[int]:
    if episodes is None:
        return list(range(count))
    chosen = sorted(set(episodes))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise InputError(f"episodes must be numbers from 0 to {count - 1}; got {list(episodes)[:5]}.")
    return chosen


def _tasks(folder: Path, indices: Int[Tensor, " e"]) -> tuple[str, ...]:
    """The instruction of each index; pandas, which writes the file, keeps texts in an index without a name."""
    file = folder / "meta/tasks.parquet"
    with _opened(file) as held:
        known = held.schema_arrow.names
    column = next((name for name in ("task", "__index_level_0__") if name in known), None)
    if column is None or "task_index" not in known:
        raise InputError(f"{file} must have the columns task_index and task; it has {', '.join(known)}.")
    wanted = set(indices.tolist())
    numbers = _numbers(_parquet(file, ["task_index"])["task_index"], f"{file}, column 'task_index'").tolist()
    texts = {index: str(text) for index, text in zip(numbers, cells_of(file, column)) if index in wanted}
    if unknown := sorted(wanted - set(texts)):
        raise InputError(f"{file} has no task {unknown[0]}, which an episode is of.")
    return tuple(texts[index] for index in indices.tolist())


def _names(info: Mapping[str, Any], keys: Sequence[str], kind: str, width: int) -> tuple[str, ...]:
    """Names of the columns: a list, a table of such lists, or a table of numbers by name; otherwise numbers."""
    names: list[str] = []
    for key in keys:
        held = info["features"].get(key, {}).get("names")
        if isinstance(held, Mapping):
            lists = [value for value in held.values() if isinstance(value, list)]
            held = list(chain(*lists)) if lists else sorted(held, key=lambda name: str(held[name]).zfill(9))
        names += map(str, held if isinstance(held, list) else [])
    return tuple(names) if len(names) == width else numbered(kind, width)
