"""Sources of recordings: a .npz, a folder in LeRobot's format, or one on the hub."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor
from tqdm import tqdm

from ...arrays import Stored, npz
from ...data.episodes import Episodes, numbered, resized
from ...data.levels import Levels
from ...data.unread import Unread
from ...errors import InputError

__all__ = ["load_episodes", "open_episodes"]


def load_episodes(
    data: str, cameras: Sequence[str] = (), size: int = 0, levels: Mapping[str, Levels] = MappingProxyType({})
) -> Episodes:
    """The recording of `open_episodes` in memory. cameras, size, levels: as there."""
    return open_episodes(data, cameras, size, levels).read()


def open_episodes(
    data: str, cameras: Sequence[str] = (), size: int = 0, levels: Mapping[str, Levels] = MappingProxyType({})
) -> Episodes:
    """The recording `data` names, not read yet: a .npz, a folder in LeRobot's format, or user/name of one on the hub.

    cameras: those whose images are wanted; size: the side they are resized to, 0 keeps theirs. levels: by camera,
    the values of more than 8 bits that become 0 and 255; those of the recording unless given.
    """
    files = [Path(part) for part in data.split("+")]
    if all(file.suffix == ".npz" for file in files):
        return _open_npz(files, data, cameras, size)
    from ...interop import lerobot

    return lerobot.open_dataset(data, cameras=tuple(cameras), size=size, levels=levels)


def _open_npz(files: Sequence[Path], data: str, cameras: Sequence[str], size: int) -> Episodes:
    """Arrays action, episode_ends, and where there are such state, fps, tasks, state_names, action_names and uint8
    images (n, h, w, 3) by camera; several files, joined by + in their name, hold arrays of the same steps.
    """
    held: dict[str, Stored] = {}
    for file in files:
        try:
            held |= npz(file)
        except FileNotFoundError:
            raise InputError(f"There is no file {file}.") from None
        except OSError as error:
            raise InputError(f"{file} can't be read: {error.strerror or error}.") from error
    where = " + ".join(file.name for file in files)
    for name in ("action", "episode_ends", *cameras):
        if name not in held:
            raise InputError(f"{where} has no array {name!r}, which episodes need.")
    for name in {"state", "action"} & set(held):
        if held[name].ndim != 2 or held[name].dtype.kind not in "fiu":
            raise InputError(f"{where}: {name} must be numbers (n, d); got {held[name].dtype} {held[name].shape}.")
    ends = held["episode_ends"]
    if ends.ndim != 1 or ends.dtype.kind not in "iu":
        raise InputError(f"{where}: episode_ends must be whole numbers (e,); got {ends.dtype} {ends.shape}.")
    for name in cameras:
        frames = held[name]
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) != len(held["action"]):
            raise InputError(
                f"{where}: {name} must be uint8 (n, h, w, 3), one for each action; got {frames.dtype} {frames.shape}."
            )
    arrays = {name: held[name].read(_EACH) for name in _ARRAYS if name in held}
    images = {name: _unread(held, name, data, size) for name in cameras}
    state: Any = torch.zeros(len(held["action"]), 0)
    if "state" in held and held["state"].shape[1]:
        state = _unread(held, "state", data)
    given: dict[str, Any] = {
        name: tuple(str(text) for text in arrays[name].reshape(-1))
        for name in ("tasks", "state_names", "action_names")
        if name in arrays
    }
    named: dict[str, Any] = {
        f"{kind}_names": given.get(f"{kind}_names") or numbered(kind, held[kind].shape[1] if kind in held else 0)
        for kind in ("state", "action")
    }
    rate = arrays.get("fps")
    if rate is not None and (rate.size != 1 or rate.dtype.kind not in "fiu" or not 0 < rate.item() < math.inf):
        raise InputError(f"{where}: fps must be one number above 0; got {str(rate.tolist())[:60]}.")
    after = torch.from_numpy(arrays["episode_ends"].astype(np.int64))
    fps = 0.0 if rate is None else float(rate.item())
    return Episodes(state, _unread(held, "action", data), after, images, given.get("tasks", ()), fps, **named)


def _unread(held: Mapping[str, Stored], name: str, data: str, size: int | None = None) -> Unread:
    """The rows of an array; of images, if a size is given, resized to that unless it is 0."""
    array = held[name]

    def reader(
        pieces: Sequence[range], levels: Levels | None, bar: tqdm
    ) -> Iterator[tuple[Num[Tensor, "k *d"], Levels | None]]:
        for piece, rows in zip(pieces, array.parts(pieces)):
            x = torch.from_numpy(rows if size is not None else rows.astype(np.float32, copy=False))
            yield resized(x, size or 0) if size is not None else x, None
            bar.update(len(piece))

    n, *sides = array.shape
    shape = (n, size, size, 3) if size else (n, *sides)
    dtype = torch.float32 if size is None else torch.uint8
    return Unread(shape, dtype, reader, array.where, data, (str(array.path.absolute()), name, size))


_ARRAYS = ("episode_ends", "fps", "tasks", "state_names", "action_names")


_EACH = 100  # bytes that a number or a name takes besides its own
