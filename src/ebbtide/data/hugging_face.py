"""A data set of images in Hugging Face's format, from the hub or from a local folder."""

from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..cache import fingerprint
from ..errors import InputError
from ..files import home
from ..memory import room
from ..specs import listed, named_list, named_values
from .decoding import BadImage, read_image
from .gather import Found, Source
from .levels import Decoded
from .split import named_parts

__all__ = ["image_column", "load", "named", "read_hub", "undecoded"]

_LABEL = 100  # bytes of one, and of what is kept of its row


def read_hub(data: str, label: str, attributes: str = "") -> Found:
    """A set of the hub or in a local folder: its training part, and behind it any that is to be held out.

    data: hf:name[@revision][:config][:image=…,label=…], with the columns of the images and the labels where a set has
    several. attributes: columns of numbers for each image, separated by commas.
    """
    name, config, chosen = named(data)
    if label and chosen.setdefault("label", label) != label:
        raise InputError(f"{data} names the labels' column, and label another, {label!r}; name it once.")
    label = chosen.get("label", "")
    held = load(data, name, config)
    splits = held if isinstance(held, dict) else {"train": held}
    found = named_parts({name: len(part) for name, part in splits.items()}, data)
    if not found and len(splits) > 1:
        raise InputError(f"{data} has no part to train on; it has {listed(splits)}.")
    train, held_out = found or ([*splits], [])
    every = [splits[name] for name in train + held_out]
    kinds = {name: type(feature).__name__ for name, feature in every[0].features.items()}
    column = image_column(data, every[0].features, chosen)
    if missing := next((name for name in train + held_out if column not in splits[name].features), None):
        raise InputError(f"{data}: its part {missing!r} has no column {column!r}, where the images are.")
    label = label or next((name for name, kind in kinds.items() if kind == "ClassLabel"), "")
    if label and label not in kinds:
        raise InputError(f"{data} has no column {label!r}; it has {listed(kinds)}.")
    room(_LABEL * sum(map(len, every)), data)
    labels = [value for part in every for value in (part[label] if label in part.features else [None] * len(part))]
    classes = tuple(getattr(every[0].features[label], "names", ())) if label else ()
    raw = [part.select_columns([column]).cast_column(column, undecoded()) for part in every]
    marks = [getattr(part, "_fingerprint", "") for part in every]
    state = fingerprint(marks, column) if all(marks) else ""
    test = sum(len(splits[name]) for name in held_out)
    names = named_list(attributes)
    numbers = _numbers(data, every, names) if names else None
    return Found(_rows(data, raw, column, state), labels if label else None, classes, test, numbers, names)


def _numbers(data: str, every: Sequence[Any], names: Sequence[str]) -> Float[np.ndarray, "n k"]:
    """Columns of numbers, NaN where one is missing."""
    columns = []
    for name in names:
        if missing := [part for part in every if name not in part.features]:
            raise InputError(f"{data} has no column {name!r} for attributes; it has {listed(missing[0].features)}.")
        cells = [np.nan if value is None else value for part in every for value in part[name]]
        odd = next((one for one in cells if not isinstance(one, bool | int | float) or one in (np.inf, -np.inf)), None)
        if odd is not None:
            raise InputError(f"{data}: attributes must be finite numbers; its column {name!r} has {str(odd)[:40]!r}.")
        columns.append(np.array(cells, np.float64))
    return np.stack(columns, 1)


def load(data: str, name: str, config: str = "", stream: bool = False, **how: Any) -> Any:
    """A set of the hub or in a local folder, or its parts by name, as `datasets` reads it; how: options of
    `load_dataset`."""
    try:
        import datasets
    except ImportError:
        raise InputError(f"data {data!r} needs the package datasets: pip install datasets.") from None
    path, (repository, _, revision) = home(name), name.partition("@")
    if path.exists():
        repository, revision = name, ""
    try:
        if any((path / file).is_file() for file in ("state.json", "dataset_dict.json")):  # by save_to_disk
            saved = datasets.load_from_disk(str(path))
            if not stream:
                return saved
            parts = saved.items() if isinstance(saved, dict) else [("train", saved)]
            return {part: rows.to_iterable_dataset() for part, rows in parts}
        how |= {"streaming": True} if stream else {}
        return datasets.load_dataset(repository, config or None, revision=revision or None, **how)
    except Exception as error:  # whatever the network, the hub and the readers of a dozen formats raise
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InputError(f"{data} can't be loaded: {reason}.") from error


def image_column(data: str, features: Mapping[str, Any], chosen: Mapping[str, str]) -> str:
    """The column of the images: the one that was chosen, or the usual one."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    columns = [name for name, kind in kinds.items() if kind == "Image"]
    if "image" in chosen:
        if (column := chosen["image"]) not in columns:
            raise InputError(f"{data} has no column of images {column!r}; it has {listed(columns or kinds)}.")
        return column
    if not columns:
        raise InputError(f"{data} has no column of images; it has {listed(kinds)}.")
    # Beside it there may be masks or depths, and they may come first.
    return next((name for name in ("image", "img") if name in columns), columns[0])


def undecoded() -> Any:
    """The kind of a column of images whose bytes are wanted."""
    import datasets

    return datasets.Image(decode=False)


def named(data: str) -> tuple[str, str, dict[str, str]]:
    """The set's name, its configuration or "", and the columns that are named."""
    name, *rest = data.removeprefix("hf:").split(":")
    last = rest.pop() if rest and "=" in rest[-1] else ""
    chosen = dict(named_values(last, ("image", "label")))
    if not name or len(rest) > 1 or chosen.keys() - {"image", "label"} or not all(chosen.values()):
        raise InputError(f"data must be hf:NAME, hf:NAME:CONFIG or hf:NAME:image=COLUMN,label=COLUMN; got {data!r}.")
    return name, "".join(rest), chosen


def _rows(data: str, every: Sequence[Any], column: str, state: str) -> Source:
    """Part after part, each image's bytes decoded as a file's are."""
    ends = [*accumulate(map(len, every))]

    def image(i: int, *how: Any) -> Decoded:
        part = every[k := bisect(ends, i)]
        held = part[i - ends[k] + len(part)][column] or {}
        if held.get("bytes") is None and not held.get("path"):
            raise BadImage("is missing")
        return read_image(Path(held["path"]) if held.get("bytes") is None else held["bytes"], *how)

    return Source(ends[-1], image, lambda i: f"row {i + 1}", data, state)
