"""A camera's frames, from videos and from stored images."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from ...data import decoding
from ...data.episodes import resized
from ...data.levels import Decoded, Levels, Tally
from ...errors import InputError
from ...memory import COPIES, room
from .files import PLACE, cells_of, files_with_rows, need_package, video_file

__all__ = ["DECODING", "SWSCALE", "film_frames", "first_stored", "stored_frames"]

# swscale's flags AREA, FULL_CHR_H_INT and ACCURATE_RND: as it is used by default, it makes colours 1.2 of 255 darker.
SWSCALE = 0x20 | 0x2000 | 0x40000


DECODING = 32  # bytes for each of a frame's pixels: the decoder keeps many frames


def film_frames(
    folder: Path,
    key: str,
    places: Mapping[str, Tensor],
    when: Sequence[Float64[Tensor, " _"]],
    fps: float,
    size: int,
    bar: tqdm,
) -> UInt8[Tensor, "n h w 3"]:
    """The frames of a camera at each episode's times, which its video counts from from_timestamp on.

    when: the times of each episode's frames in seconds. size: sides in pixels, 0 as they are. bar: moves a step a
    frame.
    places: where each episode's film lies, as its metadata has it.
    """
    frames: np.ndarray | None = None
    row = 0
    total = sum(map(len, when))
    for chunk, number, begin, times in zip(*(places[part].tolist() for part in PLACE), when):
        file = video_file(folder, key, int(chunk), int(number))
        if not file.is_file():
            raise InputError(
                f"{file} does not exist: this copy has no video of the camera {key!r}, which was asked for."
            )
        for i, image in _decode(file, times.numpy() + begin, 0.5 / fps, size):
            frames = _room(folder, (total, *image.shape)) if frames is None else frames
            if image.shape != frames.shape[1:]:
                raise InputError(f"{file} has images of another size than the other videos of {key!r}; give a size.")
            frames[row + i] = image
        row += len(times)
        bar.update(len(times))
    return torch.from_numpy(frames)


def _decode(file: Path, times: np.ndarray, tolerance: float, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(i, image) for each of the rising times: the frame nearest to times[i]."""
    av = need_package("av")
    away = np.full(len(times), np.inf)
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            parts: Any = stream.format.components if stream.format else ()
            if len(parts) == 1 and (bits := parts[0].bits) > 8:  # depths, of which 8 bits would keep a few shades
                raise InputError(f"{file} holds grey of {bits} bits; such images are read from image files, not video.")
            stream.thread_type = "AUTO"
            room(DECODING * stream.width * stream.height, str(file))
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


def stored_frames(
    folder: Path, key: str, rows: Int[Tensor, " n"], total: int, size: int, levels: Levels | None, bar: tqdm
) -> tuple[UInt8[Tensor, "n h w 3"], Levels | None]:
    """The images of a data set that keeps them, as PNG or JPEG, beside its numbers; and the levels used, if any.

    rows: of the frames, by their place in the whole set. total: frames in the set. size: sides in pixels, 0 as they
    are. bar: moves a step a frame.
    """
    wanted, tally = rows.tolist(), Tally()

    def fill(levels: Levels | None, tally: Tally) -> np.ndarray:
        frames: np.ndarray | None = None
        for i, (where, image) in enumerate(_decoded(folder, key, wanted, levels)):
            tally.add(image)
            pixels = _sized(np.array(image.pixels), size)
            frames = _room(folder, (len(wanted), *pixels.shape)) if frames is None else frames
            if pixels.shape != frames.shape[1:]:
                raise InputError(f"{where} is of another size than the others; give a size.")
            frames[i] = pixels
            bar.update()
        assert frames is not None
        return frames

    frames = fill(levels, tally)
    if tally.deep and levels is None:  # those of all images, whichever are wanted
        for _, image in _decoded(folder, key, sorted(set(range(total)) - set(wanted)), None):
            tally.add(image)
        bar.total += len(wanted)
        frames = fill(tally.levels, Tally())
    for text in tally.lines(levels):
        warnings.warn(f"{folder.name}, {key}: {text}", stacklevel=4)
    return torch.from_numpy(frames), (levels or tally.levels) if tally.deep else None


def first_stored(folder: Path, key: str) -> UInt8[np.ndarray, "h w 3"]:
    """The first image of a data set that keeps them beside its numbers."""
    return next(_decoded(folder, key, [0], Levels(0, 1)))[1].pixels


def _decoded(folder: Path, key: str, rows: Sequence[int], levels: Levels | None) -> Iterator[tuple[str, Decoded]]:
    """The images of these rows, in rising order, and what an error calls each."""
    wanted = set(rows)
    for file, held in files_with_rows(folder / "data") if rows else ():
        for row, cell in enumerate(cells_of(file, key) if not wanted.isdisjoint(held) else ()):
            if held.start + row not in wanted:
                continue
            where = f"{file}, column {key!r}: row {row}"
            try:
                image = decoding.read_image(cell["bytes"].as_py(), channels=3, levels=levels)
            except (KeyError, TypeError, ValueError, AttributeError, decoding.BadImage) as error:
                raise InputError(f"{where} holds no readable image: {error}.") from error
            yield where, image


def _sized(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "r q 3"]:
    """The same resizing as everywhere: in training data and in a simulator."""
    return resized(torch.from_numpy(image)[None], size)[0].numpy()


def _room(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    n, h, w, _ = shape
    what = f"{folder}: {n} images of {w} × {h} pixels"
    room(COPIES * math.prod(shape), what, "give a smaller size, or fewer episodes")
    return np.zeros(shape, np.uint8)
