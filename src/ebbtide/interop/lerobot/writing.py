"""Episodes written in LeRobot's format, v3.0."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from ...data.episodes import Episodes
from ...errors import InputError
from ...files import dump_json, located, sync, writing_folder
from ...specs import require
from .files import (
    ACTION,
    DATA_MB,
    FILE_NAME,
    FILES_A_CHUNK,
    IMAGES,
    QUANTILES,
    STATE,
    VERSION,
    VIDEO_MB,
    VIDEO_SECONDS,
    make_bar,
    need_package,
    video_file,
)
from .frames import SWSCALE

__all__ = ["CODECS", "write_dataset"]

CODECS = {
    # Every second frame is a key frame, as LeRobot's are: a training example is a seek.
    "h264": ("libx264", {"crf": "18", "g": "2", "bf": "0", "preset": "fast"}),
    "av1": ("libsvtav1", {"crf": "24", "g": "2", "preset": "8"}),
}


def write_dataset(
    episodes: Episodes,
    folder: str | os.PathLike[str],
    *,
    codec: str = "h264",
    robot: str | None = None,
    progress: bool = True,
) -> Path:
    """Episodes as a new folder that LeRobot opens, whole or not at all; numbers in float32, images as video.

    codec: h264, or av1 (smaller, slower); both lose a little. Quantiles are those of all steps; LeRobot's own are the
    mean of the episodes'.
    robot: its type, as LeRobot names it; none without.
    """
    folder = located("folder", folder)
    if codec not in CODECS:
        raise InputError(f"codec must be one of {', '.join(CODECS)}; got {codec!r}.")
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; choose another name.")
    require("The episodes' fps", episodes.fps, above=0)
    if not all(bool(values.float().isfinite().all()) for values in (episodes.state, episodes.action)):
        raise InputError("The episodes hold numbers that float32, LeRobot's, has no room for.")
    for name, frames in episodes.images.items():
        h, w = frames.shape[1:3]
        if not re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII):
            raise InputError(f"A camera's name must be letters, digits, '.', '_' and '-'; got {name!r}.")
        if h % 2 or w % 2:
            raise InputError(f"A video needs images of even sides; those of camera {name!r} are {w} × {h} pixels.")
    with writing_folder(folder, replace=False) as temporary:
        _write(episodes, temporary, codec, robot, progress)
        for path in temporary.rglob("*"):
            sync(path)
    return folder


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
        _write_parquet(columns, folder / "data" / (FILE_NAME.format(*_place(number)) + ".parquet"))
    for key, x in values.items():
        account(key, [_stats(x[a:b]) for a, b in zip(starts, ends)])

    files = _split(lengths, VIDEO_SECONDS * fps)
    with make_bar(n * len(episodes.images), "writing", progress) as bar:
        for name, images in episodes.images.items():
            key, first = IMAGES + name, starts[[a for a, b in _spans(files) for _ in range(a, b + 1)]]
            for number, (a, b) in enumerate(_spans(files)):
                file = video_file(folder, key, *_place(number))
                _encode(file, images[starts[a] : ends[b]], starts[a : b + 1] - starts[a], fps, codec, bar)
            table |= _numbered(f"videos/{key}", files)
            table[f"videos/{key}/from_timestamp"] = ((starts - first) / fps).tolist()
            table[f"videos/{key}/to_timestamp"] = ((ends - first) / fps).tolist()
            counts = [_counts(images[a:b]) for a, b in zip(starts, ends)]
            account(key, [_image_stats(*count) for count in counts])
            stats[key] = _image_stats(np.sum([count for count, _ in counts], 0), sum(k for _, k in counts))
            features[key] = _image_feature(images, fps, codec)

    _write_parquet(table, folder / "meta/episodes" / (FILE_NAME.format(0, 0) + ".parquet"))
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
    (folder / "meta/stats.json").write_bytes(dump_json(stats))
    (folder / "meta/info.json").write_bytes(dump_json(info))


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
    arrow = need_package("pyarrow")
    flat = arrow.array(values.reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values[0].size > 1 else flat


def _write_parquet(columns: Mapping[str, Any], file: Path) -> None:
    arrow = need_package("pyarrow")
    table = arrow.table(dict(columns))
    if "__index_level_0__" in columns:  # what tells pandas, which LeRobot reads it with, that this is the index
        about = {"index_columns": ["__index_level_0__"], "columns": _PANDAS, "column_indexes": []}
        table = table.replace_schema_metadata({"pandas": json.dumps(about)})
    file.parent.mkdir(parents=True, exist_ok=True)
    need_package("pyarrow.parquet").write_table(table, file)


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
    """Counts of the 256 values in each of 3 channels of up to 100 frames, and the number of frames."""
    at = np.unique(np.linspace(0, len(frames) - 1, 100).round().astype(int))
    every = max(1, max(frames.shape[1:3]) // 150)  # as LeRobot, pixels of large images are left out
    few = frames[at, ::every, ::every].numpy()
    return np.stack([np.bincount(few[..., c].reshape(-1), minlength=256) for c in range(3)]), len(at)


def _image_stats(counts: np.ndarray, count: int) -> dict[str, list[Any]]:
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


def _image_feature(frames: UInt8[Tensor, "n h w 3"], fps: float, codec: str) -> dict[str, Any]:
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
    av = need_package("av")
    name, options = CODECS[codec]
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's only switch against a page of chatter
    file.parent.mkdir(parents=True, exist_ok=True)
    begins = set(starts.tolist())
    try:
        with _own_priority(), av.open(str(file), "w") as container:
            stream = container.add_stream(name, Fraction(fps).limit_denominator(10_000), options=dict(options))
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            for k, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image.numpy(), format="rgb24")
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
