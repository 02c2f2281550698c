"""LeRobot's data sets, format v3.0: read from a folder or the hub, written to a folder.

    meta/info.json                             version, fps, features: each one's type, shape and names
    meta/stats.json                            of each feature: min, max, mean, std, count, q01 … q99
    meta/tasks.parquet                         the instruction of each task_index
    meta/episodes/chunk-000/file-000.parquet   a row an episode: length, files, place in the videos, statistics
    data/chunk-000/file-000.parquet            a row a step: state, action, timestamp, indices
    videos/KEY/chunk-000/file-000.mp4          a camera's frames, several episodes one after the other

There a camera's key is observation.images.NAME or observation.NAME, here it is called NAME.
"""

import importlib
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from ..codecs.columns import Quantiles, Standardise
from ..data import pictures
from ..data.episodes import Episodes, numbered, resized
from ..data.levels import Decoded, Levels, Tally
from ..errors import InputError
from ..files import home, sync, writing_folder
from ..memory import COPIES, room
from ..training import checkpoint

VERSION = "v3.0"
STATE, ACTION, PICTURES = "observation.state", "action", "observation.images."
QUANTILES = (1, 10, 50, 90, 99)  # percent
FILE = "chunk-{:03d}/file-{:03d}"
FILES_A_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 500  # what LeRobot lets a file grow to when it appends
# LeRobot finds a frame by its time in float32, within 1e-4 s: past 2¹⁰ s float32 is coarser than that.
VIDEO_SECONDS = 1000.0
CODECS = {
    # Every second frame is a key frame, as LeRobot's are: a training example is a seek.
    "h264": ("libx264", {"crf": "18", "g": "2", "bf": "0", "preset": "fast"}),
    "av1": ("libsvtav1", {"crf": "24", "g": "2", "preset": "8"}),
}
# swscale's flags AREA, FULL_CHR_H_INT and ACCURATE_RND: as it is used by default, it makes colours 1.2 of 255 darker.
SWSCALE = 0x20 | 0x2000 | 0x40000
_COPIES = 4  # of a column, until it is a tensor
_TOGETHER = 2**25  # bytes of cells that are read together
_DECODING = 32  # bytes for each of a frame's pixels: the decoder keeps many frames
Stats = dict[str, dict[str, Tensor]]


def read(
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

    cameras: those whose pictures are wanted; without any, no video is fetched or decoded. size: the side pictures are
    resized to, 0 keeps theirs. episodes: which, in rising order; None is all. state: features put side by side, as
    PushT's observation.environment_state; a set without observation.state has a state of no columns. An episode's task
    is that of its first step. levels: by camera, the values of stored pictures of more than 8 bits that become 0 and
    255; all its pictures' lowest and highest unless given.
    """
    if size < 0:
        raise InputError(f"size must be 0 or a number of pixels; got {size}.")
    folder = _folder(where, ["meta/*", "data/*", *(f"videos/*{name}/*" for name in cameras)])
    info = read_info(folder)
    if STATE not in info["features"]:
        state = [key for key in state if key != STATE]
    keys = {name: _camera(info, name, folder) for name in cameras}
    filmed = [key for key in keys.values() if info["features"][key]["dtype"] == "video"]
    places = [f"videos/{key}/{part}" for key in filmed for part in ("chunk_index", "file_index", "from_timestamp")]
    table = _columns(folder / "meta/episodes", ["episode_index", "length", *places])
    numbers = ["episode_index", "frame_index", "task_index", "timestamp"]
    steps = _columns(folder / "data", [*state, ACTION, *numbers])
    ends = _ends(folder, info, table, steps)
    chosen = _chosen(episodes, len(ends))
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    rows = torch.cat([torch.arange(int(starts[e]), int(ends[e])) for e in chosen])
    tasks = _tasks(folder, steps["task_index"][starts[chosen]])

    images, scaled = {}, dict[str, Levels]()
    with _bar(len(rows) * len(keys), "reading", progress) as bar:
        for name, key in keys.items():
            if key in filmed:
                when = [steps["timestamp"][starts[e] : ends[e]].double() for e in chosen]
                table_rows = {part: table[f"videos/{key}/{part}"][chosen] for part in _PLACE}
                images[name] = _film(folder, key, table_rows, when, float(info["fps"]), size, bar)
            else:
                images[name], used = _stored(folder, key, rows, len(steps[ACTION]), size, levels.get(name), bar)
                scaled |= {name: used} if used else {}
    values = torch.cat([torch.zeros(len(steps[ACTION]), 0), *(_wide(steps[key]) for key in state)], 1)[rows]
    return Episodes(
        values,
        _wide(steps[ACTION])[rows],
        (ends - starts)[chosen].cumsum(0),
        images,
        tasks if any(tasks) else (),
        float(info["fps"]),
        _names(info, state, "state", values.shape[1]),
        _names(info, [ACTION], "action", _wide(steps[ACTION]).shape[1]),
        scaled,
    )


def read_info(where: str | os.PathLike[str]) -> dict[str, Any]:
    """meta/info.json of a folder, or of USER/NAME on the hub: fps, features, counts; another version is refused."""
    file = _folder(where, ["meta/*"]) / "meta/info.json"
    info = checkpoint.load_json(file)
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
    """What stats.json, or a data set's meta/stats.json, holds: feature → min, max, mean, std, count, … in float64."""
    file = home(os.fspath(where))
    if file.suffix != ".json":
        file = _folder(where, ["meta/*"]) / "meta/stats.json"
    stats = checkpoint.load_json(file)
    try:
        return {
            feature: {name: torch.tensor(value, dtype=torch.float64) for name, value in rows.items()}
            for feature, rows in stats.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged: {error}.") from error


def transform_from_stats(stats: Stats, feature: str, kind: str = "quantiles") -> Standardise | Quantiles:
    """The data transform that LeRobot's statistics of a feature mean; kind: mean_std, quantiles or min_max.

    A constant column stays constant: LeRobot's quantiles, from histograms, miss it by some 1e-14.
    """
    needs = {"mean_std": ("mean", "std"), "quantiles": ("q01", "q99"), "min_max": ("min", "max")}
    if kind not in needs:
        raise InputError(f"kind must be one of {', '.join(needs)}; got {kind!r}.")
    if feature not in stats:
        raise InputError(f"There are no statistics of {feature!r}, only of {', '.join(sorted(stats))}.")
    rows = stats[feature]
    if missing := [name for name in (*needs[kind], "min", "max") if name not in rows]:
        raise InputError(f"The statistics of {feature!r} have no {missing[0]}, which {kind} needs.")
    value, constant = rows["min"].flatten(), (rows["min"] == rows["max"]).flatten()
    first, second = (torch.where(constant, value, rows[name].flatten()) for name in needs[kind])
    if kind == "mean_std":
        std = torch.where(constant, 0.0, torch.where(second == 0, 1.0, second))
        return Standardise(tuple(first.tolist()), tuple(std.tolist()))
    return Quantiles.between(first.numpy(), second.numpy(), constant.numpy())


def write(
    episodes: Episodes,
    folder: str | os.PathLike[str],
    *,
    codec: str = "h264",
    robot: str | None = None,
    progress: bool = True,
) -> Path:
    """Episodes as a new folder that LeRobot opens, whole or not at all; numbers in float32, pictures as video.

    codec: h264, or av1 (smaller, slower); both lose a little. Quantiles are those of all steps; LeRobot's own are the
    mean of the episodes'.
    """
    folder = Path(folder)
    if codec not in CODECS:
        raise InputError(f"codec must be one of {', '.join(CODECS)}; got {codec!r}.")
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; choose another name.")
    if not 0 < episodes.fps < math.inf:
        raise InputError(f"The episodes' fps must be a number above 0; got {episodes.fps}.")
    if not all(bool(values.float().isfinite().all()) for values in (episodes.state, episodes.action)):
        raise InputError("The episodes hold numbers that float32, LeRobot's, has no room for.")
    for name, frames in episodes.images.items():
        h, w = frames.shape[1:3]
        if not re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII):
            raise InputError(f"A camera's name must be letters, digits, '.', '_' and '-'; got {name!r}.")
        if h % 2 or w % 2:
            raise InputError(f"A video needs pictures of even sides; those of camera {name!r} are {w} × {h} pixels.")
    with writing_folder(folder, replace=False) as temporary:
        _write(episodes, temporary, codec, robot, progress)
        for path in temporary.rglob("*"):
            sync(path)
    return folder


# --- reading ------------------------------------------------------------------------------------------------


_PLACE = ("chunk_index", "file_index", "from_timestamp")


def _folder(where: str | os.PathLike[str], patterns: Sequence[str]) -> Path:
    """A local folder, else what matches the patterns of a data set on the hub: its revision v3.0, or the newest."""
    folder, name = home(os.fspath(where)), os.fspath(where)
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        raise InputError(f"{name} is no folder; a data set of LeRobot's is a folder, or USER/NAME on the hub.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def get(revision: str | None) -> Path:
        found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
        return Path(found)

    try:
        try:
            return get(VERSION)
        except RevisionNotFoundError:
            return get(None)
    except RepositoryNotFoundError as error:
        raise InputError(f"There is no folder {name!r} and no such data set on the hub that you may read.") from error
    except Exception as error:  # the hub's own, or those of the library it speaks HTTP with
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name!r} is no folder here, and can't be had from the hub: {reason}") from error


def _camera(info: Mapping[str, Any], name: str, folder: Path) -> str:
    """A camera's key, by its name or the key itself."""
    held = {
        key.removeprefix(PICTURES).removeprefix("observation."): key
        for key, feature in info["features"].items()
        if feature["dtype"] in ("video", "image")
    }
    if name in held.values():
        return name
    if name not in held:
        raise InputError(f"{folder} has no camera {name!r}; it has {', '.join(held) or 'none'}.")
    return held[name]


def _columns(place: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Columns of numbers of all files of a place, one after the other: (n,), and (n, d) of lists."""
    parts = []
    for file in _files(place):
        table = _parquet(file, names)
        parts.append({name: _numbers(table[name], f"{file}, column {name!r}") for name in names})
    for name in names:
        if len({part[name].shape[1:] for part in parts}) > 1:
            raise InputError(f"{place}: column {name!r} is not as wide in each of its files.")
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _files(place: Path) -> list[Path]:
    files = sorted(place.glob("chunk-*/file-*.parquet"), key=lambda file: (len(str(file)), file))
    if not files:
        raise InputError(f"{place} has no chunk-*/file-*.parquet, which a data set of LeRobot's needs.")
    return files


@contextmanager
def _opened(file: Path, names: Sequence[str] = (), **options: Any) -> Iterator[Any]:
    """A parquet file with these columns; one that can't be read or lacks a column is named."""
    parquet = _package("pyarrow.parquet")
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


def _cells(file: Path, name: str) -> Iterator[Any]:
    """A column's cells, of any size: few at a time, for a large one is in the file once if it stands in every row."""
    with _opened(file, [name]) as held:
        largest = max((chunk.total_uncompressed_size for chunk in _chunks(held, name)), default=0)
        room(_COPIES * largest, f"{file}, column {name!r}")
        for batch in held.iter_batches(max(1, min(1000, _TOGETHER // max(largest, 1))), columns=[name]):
            yield from batch.column(0)


def _chunks(held: Any, name: str) -> Iterator[Any]:
    """What a file's own table says of the parts of a column, or of what is inside it."""
    for group in map(held.metadata.row_group, range(held.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}."):
                yield chunk


def _numbers(column: Any, name: str) -> Tensor:
    """A column of numbers, or of lists of them that are equally long."""
    arrow, compute = _package("pyarrow"), _package("pyarrow.compute")
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


def _ends(folder: Path, info: Mapping[str, Any], table: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> Tensor:
    """Where each episode ends, if the steps are those that the table of episodes and info.json tell of."""
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
    texts = {index: str(text) for index, text in zip(numbers, _cells(file, column)) if index in wanted}
    if unknown := sorted(wanted - set(texts)):
        raise InputError(f"{file} has no task {unknown[0]}, which an episode is of.")
    return tuple(texts[index] for index in indices.tolist())


def _names(info: Mapping[str, Any], keys: Sequence[str], kind: str, width: int) -> tuple[str, ...]:
    """What the columns are called: a list, a table of such lists, or a table of numbers by name; else numbered."""
    names: list[str] = []
    for key in keys:
        held = info["features"].get(key, {}).get("names")
        if isinstance(held, Mapping):
            lists = [value for value in held.values() if isinstance(value, list)]
            held = list(chain(*lists)) if lists else sorted(held, key=lambda name: str(held[name]).zfill(9))
        names += map(str, held if isinstance(held, list) else [])
    return tuple(names) if len(names) == width else numbered(kind, width)


def _wide(values: Tensor) -> Tensor:
    """(n, d) in float32, of a column of numbers too."""
    return values.reshape(len(values), -1).float()


# --- pictures -----------------------------------------------------------------------------------------------


def _film(
    folder: Path,
    key: str,
    places: Mapping[str, Tensor],
    when: Sequence[Float64[Tensor, " _"]],
    fps: float,
    size: int,
    bar: tqdm,
) -> UInt8[Tensor, "n h w 3"]:
    """The frames of a camera at each episode's times, which its video counts from from_timestamp on."""
    frames: np.ndarray | None = None
    row = 0
    total = sum(map(len, when))
    for chunk, number, begin, times in zip(*(places[part].tolist() for part in _PLACE), when):
        file = _video(folder, key, int(chunk), int(number))
        if not file.is_file():
            raise InputError(
                f"{file} does not exist: this copy has no video of the camera {key!r}, which was asked for."
            )
        for i, picture in _decode(file, times.numpy() + begin, 0.5 / fps, size):
            frames = _room(folder, (total, *picture.shape)) if frames is None else frames
            if picture.shape != frames.shape[1:]:
                raise InputError(f"{file} has pictures of another size than the other videos of {key!r}; give a size.")
            frames[row + i] = picture
        row += len(times)
        bar.update(len(times))
    return torch.from_numpy(frames)


def _decode(file: Path, times: np.ndarray, tolerance: float, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(i, picture) for each of the rising times: the frame nearest to times[i]."""
    av = _package("av")
    away = np.full(len(times), np.inf)
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            parts: Any = stream.format.components if stream.format else ()
            if len(parts) == 1 and (bits := parts[0].bits) > 8:  # depths, of which 8 bits would keep a few shades
                raise InputError(f"{file} holds grey of {bits} bits; such pictures are read as images, not video.")
            stream.thread_type = "AUTO"
            room(_DECODING * stream.width * stream.height, str(file))
            for frame in _from(container, stream, float(times[0]) + tolerance):
                if frame.time > times[-1] + tolerance:
                    break
                i = int(np.abs(times - frame.time).argmin())
                if (off := abs(times[i] - frame.time)) < min(away[i], tolerance):
                    away[i] = off
                    yield i, _sized(frame.to_ndarray(format="rgb24", interpolation=SWSCALE), size)
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{file} can't be decoded: {' '.join(str(error).split())}.") from error
    if not np.isfinite(away).all():
        at = float(times[~np.isfinite(away)][0])
        raise InputError(f"{file} has no frame within {tolerance:.3g} s of {at:.3f} s, where a step of an episode is.")


def _from(container: Any, stream: Any, time: float) -> Iterator[Any]:
    """The frames from the key frame before a time on; from the first, where the file's index misleads."""
    container.seek(max(0, int(time / stream.time_base)), stream=stream)
    frames = (frame for frame in container.decode(stream) if frame.time is not None)
    first = next(frames, None)
    if first is None or first.time > time:
        container.seek(0, stream=stream)
        frames = (frame for frame in container.decode(stream) if frame.time is not None)
    else:
        yield first
    yield from frames


def _stored(
    folder: Path, key: str, rows: Int[Tensor, " n"], total: int, size: int, levels: Levels | None, bar: tqdm
) -> tuple[UInt8[Tensor, "n h w 3"], Levels | None]:
    """The pictures of a data set that keeps them, as PNG or JPEG, beside its numbers; and the levels used, if any."""
    wanted, tally = rows.tolist(), Tally()

    def fill(levels: Levels | None, tally: Tally) -> np.ndarray:
        frames: np.ndarray | None = None
        for i, (where, picture) in enumerate(_decoded(folder, key, wanted, levels)):
            tally.add(picture)
            pixels = _sized(np.array(picture.pixels), size)
            frames = _room(folder, (len(wanted), *pixels.shape)) if frames is None else frames
            if pixels.shape != frames.shape[1:]:
                raise InputError(f"{where} is of another size than the others; give a size.")
            frames[i] = pixels
            bar.update()
        assert frames is not None
        return frames

    frames = fill(levels, tally)
    if tally.deep and levels is None:  # those of all pictures, whichever are wanted
        for _, picture in _decoded(folder, key, sorted(set(range(total)) - set(wanted)), None):
            tally.add(picture)
        bar.total += len(wanted)
        frames = fill(tally.levels, Tally())
    for text in tally.lines(levels):
        warnings.warn(f"{folder.name}, {key}: {text}", stacklevel=4)
    return torch.from_numpy(frames), (levels or tally.levels) if tally.deep else None


def _decoded(folder: Path, key: str, rows: Sequence[int], levels: Levels | None) -> Iterator[tuple[str, Decoded]]:
    """The pictures of these rows, in rising order, and what an error calls each."""
    wanted, seen = set(rows), 0
    for file in _files(folder / "data") if rows else ():
        for row, cell in enumerate(_cells(file, key)):
            seen += 1
            if seen - 1 not in wanted:
                continue
            where = f"{file}, column {key!r}: row {row}"
            try:
                picture = pictures.read(cell["bytes"].as_py(), channels=3, levels=levels)
            except (KeyError, TypeError, ValueError, AttributeError, pictures.BadPicture) as error:
                raise InputError(f"{where} holds no readable picture: {error}.") from error
            yield where, picture


def _sized(picture: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "r q 3"]:
    """As everywhere else: what a policy was trained on and what it sees in a simulator are made small alike."""
    return resized(torch.from_numpy(picture)[None], size)[0].numpy()


def _video(folder: Path, key: str, chunk: int, number: int) -> Path:
    return folder / "videos" / key / (FILE.format(chunk, number) + ".mp4")


def _room(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    n, h, w, _ = shape
    what = f"{folder}: {n} pictures of {w} × {h} pixels"
    room(COPIES * math.prod(shape), what, "give a smaller size, or fewer episodes")
    return np.zeros(shape, np.uint8)


# --- writing ------------------------------------------------------------------------------------------------


def _write(episodes: Episodes, folder: Path, codec: str, robot: str | None, progress: bool) -> None:
    n, e, fps = len(episodes.state), len(episodes), episodes.fps
    starts, ends = episodes.starts.numpy(), episodes.ends.numpy()
    lengths = ends - starts
    texts = list(dict.fromkeys(episodes.tasks or ("",)))
    tasks = np.array([texts.index(text) for text in episodes.tasks or ("",) * e])
    frame = np.arange(n) - starts.repeat(lengths)
    values: dict[str, np.ndarray] = {
        STATE: episodes.state.float().numpy(),
        ACTION: episodes.action.float().numpy(),
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.arange(e).repeat(lengths),
        "index": np.arange(n),
        "task_index": tasks.repeat(lengths),
    }
    if not values[STATE].size:
        del values[STATE]
    names = {STATE: episodes.state_names, ACTION: episodes.action_names}
    features: dict[str, Any] = {
        key: {"dtype": str(x.dtype), "shape": list(x.shape[1:]) or [1], "names": list(names.get(key, ())) or None}
        for key, x in values.items()
    }
    stats = {key: _stats(x) for key, x in values.items()}
    table: dict[str, list[Any]] = {
        "episode_index": list(range(e)),
        "tasks": [[texts[task]] for task in tasks],
        "length": lengths.tolist(),
        "dataset_from_index": starts.tolist(),
        "dataset_to_index": ends.tolist(),
        "meta/episodes/chunk_index": [0] * e,
        "meta/episodes/file_index": [0] * e,
    }

    def account(key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        table.update({f"stats/{key}/{name}": [row[name] for row in rows] for name in rows[0]})

    step = sum(x.itemsize * (x.size // n) for x in values.values())
    files = _split(lengths, DATA_MB * 2**20 / step)
    table |= _numbered("data", files)
    for number, (a, b) in enumerate(_spans(files)):
        columns = {key: _column(x[starts[a] : ends[b]]) for key, x in values.items()}
        _write_parquet(columns, folder / "data" / (FILE.format(*_place(number)) + ".parquet"))
    for key, x in values.items():
        account(key, [_stats(x[a:b]) for a, b in zip(starts, ends)])

    files = _split(lengths, VIDEO_SECONDS * fps)
    with _bar(n * len(episodes.images), "writing", progress) as bar:
        for name, pictures in episodes.images.items():
            key, first = PICTURES + name, starts[[a for a, b in _spans(files) for _ in range(a, b + 1)]]
            for number, (a, b) in enumerate(_spans(files)):
                file = _video(folder, key, *_place(number))
                _encode(file, pictures[starts[a] : ends[b]], starts[a : b + 1] - starts[a], fps, codec, bar)
            table |= _numbered(f"videos/{key}", files)
            table[f"videos/{key}/from_timestamp"] = ((starts - first) / fps).tolist()
            table[f"videos/{key}/to_timestamp"] = ((ends - first) / fps).tolist()
            counts = [_counts(pictures[a:b]) for a, b in zip(starts, ends)]
            account(key, [_picture_stats(*count) for count in counts])
            stats[key] = _picture_stats(np.sum([count for count, _ in counts], 0), sum(k for _, k in counts))
            features[key] = _picture_feature(pictures, fps, codec)

    _write_parquet(table, folder / "meta/episodes" / (FILE.format(0, 0) + ".parquet"))
    _write_parquet({"task_index": list(range(len(texts))), "__index_level_0__": texts}, folder / "meta/tasks.parquet")
    info = {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": e,
        "total_frames": n,
        "total_tasks": len(texts),
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": _plain(fps),
        "splits": {"train": f"0:{e}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if episodes.images
        else None,
        "features": features,
    }
    (folder / "meta/stats.json").write_bytes(checkpoint.dump_json(stats))
    (folder / "meta/info.json").write_bytes(checkpoint.dump_json(info))


def _split(lengths: np.ndarray, most: float) -> list[int]:
    """The number of the file of each episode: as many to a file as have `most` steps together, but at least one."""
    files, held = [0], float(lengths[0])
    for length in lengths[1:]:
        full = held + length > most
        held = length if full else held + length
        files.append(files[-1] + full)
    return [int(number) for number in files]


def _spans(files: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last episode of each file."""
    first = np.flatnonzero(np.diff(files, prepend=-1)).tolist()
    return list(zip(first, [*(a - 1 for a in first[1:]), len(files) - 1]))


def _place(number: int) -> tuple[int, int]:
    return divmod(number, FILES_A_CHUNK)


def _numbered(kind: str, files: Sequence[int]) -> dict[str, list[Any]]:
    chunks, numbers = zip(*map(_place, files))
    return {f"{kind}/chunk_index": list(chunks), f"{kind}/file_index": list(numbers)}


def _column(values: np.ndarray) -> Any:
    """Lists of one length; of length 1 the number itself, which is what LeRobot expects there."""
    arrow = _package("pyarrow")
    flat = arrow.array(values.reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values[0].size > 1 else flat


def _write_parquet(columns: Mapping[str, Any], file: Path) -> None:
    arrow = _package("pyarrow")
    table = arrow.table(dict(columns))
    if "__index_level_0__" in columns:  # what tells pandas, which LeRobot reads it with, that this is the index
        about = {"index_columns": ["__index_level_0__"], "columns": _PANDAS, "column_indexes": []}
        table = table.replace_schema_metadata({"pandas": json.dumps(about)})
    file.parent.mkdir(parents=True, exist_ok=True)
    _package("pyarrow.parquet").write_table(table, file)


_PANDAS = [
    {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
    {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object",
     "metadata": None},
]  # fmt: skip


def _stats(values: np.ndarray) -> dict[str, list[Any]]:
    """Of each column, over its steps; in float64."""
    x = values.reshape(len(values), -1).astype(np.float64)
    least, most = (extreme(values.reshape(x.shape), axis=0) for extreme in (np.min, np.max))
    quantiles = np.quantile(x, [q / 100 for q in QUANTILES], axis=0)
    return {
        "min": least.tolist(), "max": most.tolist(), "mean": x.mean(0).tolist(), "std": x.std(0).tolist(),
        "count": [len(x)], **{f"q{q:02d}": row.tolist() for q, row in zip(QUANTILES, quantiles)},
    }  # fmt: skip


def _counts(frames: UInt8[Tensor, "n h w 3"]) -> tuple[np.ndarray, int]:
    """How often each of 256 values is in each of 3 channels of up to 100 frames, and of how many."""
    at = np.unique(np.linspace(0, len(frames) - 1, 100).round().astype(int))
    every = max(1, max(frames.shape[1:3]) // 150)  # as LeRobot, pixels of large pictures are left out
    few = frames[at, ::every, ::every].numpy()
    return np.stack([np.bincount(few[..., c].reshape(-1), minlength=256) for c in range(3)]), len(at)


def _picture_stats(counts: np.ndarray, count: int) -> dict[str, list[Any]]:
    """Of each channel, over its pixels as numbers from 0 to 1."""
    share = counts / counts.sum(1, keepdims=True)
    value, below = np.arange(256) / 255, share.cumsum(1)
    mean = share @ value
    held = [value[row > 0] for row in counts]
    rows = {
        "min": np.array([x[0] for x in held]),
        "max": np.array([x[-1] for x in held]),
        "mean": mean,
        "std": np.sqrt((share * (value - mean[:, None]) ** 2).sum(1)),
        **{f"q{q:02d}": (below < q / 100 - 1e-12).sum(1) / 255 for q in QUANTILES},
    }
    return {name: row.reshape(3, 1, 1).tolist() for name, row in rows.items()} | {"count": [count]}


def _picture_feature(frames: UInt8[Tensor, "n h w 3"], fps: float, codec: str) -> dict[str, Any]:
    h, w = frames.shape[1:3]
    return {
        "dtype": "video",
        "shape": [h, w, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": h, "video.width": w, "video.channels": 3, "video.codec": codec, "video.fps": _plain(fps),
            "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "has_audio": False,
        },
    }  # fmt: skip


def _encode(
    file: Path, frames: UInt8[Tensor, "n h w 3"], starts: np.ndarray, fps: float, codec: str, bar: tqdm
) -> None:
    """A video of these frames; each episode starts with a key frame."""
    av = _package("av")
    name, options = CODECS[codec]
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's only switch against a page of chatter
    file.parent.mkdir(parents=True, exist_ok=True)
    begins = set(starts.tolist())
    try:
        with _own_priority(), av.open(str(file), "w") as container:
            stream = container.add_stream(name, Fraction(fps).limit_denominator(10_000), options=dict(options))
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            for k, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")
                frame = frame.reformat(format="yuv420p", interpolation=SWSCALE)
                frame.pts = k
                if k in begins:
                    frame.pict_type = av.video.frame.PictureType.I
                container.mux(stream.encode(frame))
                bar.update()
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:  # ValueError: a codec that this build of av lacks
        if isinstance(error, OSError):
            raise
        raise InputError(f"{file.name} can't be encoded as {codec}: {' '.join(str(error).split())}.") from error


@contextmanager
def _own_priority() -> Iterator[None]:
    """This thread keeps its scheduling: for root, the AV1 encoder makes it a real-time one that nothing interrupts."""
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def _plain(fps: float) -> int | float:
    """LeRobot's fps are whole wherever they can be."""
    return int(fps) if fps == int(fps) else fps


def _bar(total: int, what: str, progress: bool) -> tqdm:
    """Shown from two seconds on."""
    return tqdm(
        total=total, desc=what, unit=" pictures", delay=2, leave=False, file=sys.stderr, disable=not progress
    )  # fmt: skip


def _package(name: str) -> Any:
    """pyarrow, a part of it, or av."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise InputError(f"LeRobot's format needs the package {package}: pip install 'ebbtide[robots]'.") from None
