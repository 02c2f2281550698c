"""A data set of pictures in Hugging Face's format, from the hub or from a local folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import fingerprint
from ..errors import InputError
from ..memory import room
from .files import listed
from .gather import Found, Source
from .pictures import BadPicture, read

_LABEL = 100  # bytes of one, and of what is kept of its row


def read_hub(data: str, label: str) -> Found:
    """hf:name[:config] from the hub or a local folder: its training part and, if there is one, the test part behind."""
    try:
        import datasets
    except ImportError:
        raise InputError(f"data {data!r} needs the package datasets: pip install datasets.") from None
    name, _, config = data.removeprefix("hf:").partition(":")
    if not name:
        raise InputError(f"data must be hf:NAME or hf:NAME:CONFIG; got {data!r}.")
    path = Path(name).expanduser()
    try:
        saved = any((path / file).is_file() for file in ("state.json", "dataset_dict.json"))  # by save_to_disk
        held = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(name, config or None)
    except Exception as error:  # whatever the network, the hub and the readers of a dozen formats raise
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InputError(f"{data} can't be loaded: {reason}.") from error

    splits = held if isinstance(held, dict) else {"train": held}
    if "train" not in splits and len(splits) > 1:
        raise InputError(f"{data} has no part 'train'; it has {listed(splits)}.")
    train = splits.get("train", next(iter(splits.values())))
    test = next((splits[name] for name in ("test", "validation", "valid") if name in splits), None)
    parts = [train] if test is None or test is train else [train, test]
    kinds = {name: type(feature).__name__ for name, feature in train.features.items()}
    columns = [name for name, kind in kinds.items() if kind == "Image"]
    # Beside it there may be masks or depths, and they may come first.
    column = next((name for name in ("image", "img") if name in columns), columns[0] if columns else None)
    if column is None:
        raise InputError(f"{data} has no column of pictures; it has {listed(kinds)}.")
    label = label or next((name for name, kind in kinds.items() if kind == "ClassLabel"), "")
    if label and not all(label in part.features for part in parts):
        raise InputError(f"{data} has no column {label!r} in each of its parts; it has {listed(kinds)}.")
    room(_LABEL * sum(map(len, parts)), data)
    labels = [value for part in parts for value in part[label]] if label else None
    classes = tuple(getattr(train.features[label], "names", ())) if label else ()
    raw = [part.select_columns([column]).cast_column(column, datasets.Image(decode=False)) for part in parts]
    marks = [getattr(part, "_fingerprint", "") for part in parts]
    state = fingerprint(marks, column) if all(marks) else ""
    return Found(_rows(data, raw, column, state), labels, classes, len(parts[1]) if len(parts) == 2 else 0)


def _rows(data: str, parts: Sequence[Any], column: str, state: str) -> Source:
    """Part after part, each picture's bytes decoded as a file's are."""

    def picture(i: int, size: int, channels: int) -> np.ndarray:
        part, row = (parts[0], i) if i < len(parts[0]) else (parts[1], i - len(parts[0]))
        held = part[row][column] or {}
        if held.get("bytes") is None and not held.get("path"):
            raise BadPicture("is missing")
        return read(Path(held["path"]) if held.get("bytes") is None else held["bytes"], size, channels)

    return Source(sum(map(len, parts)), picture, lambda i: f"row {i + 1}", data, state)
