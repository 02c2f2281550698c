"""Image sets that can't be listed: streams, read from one end to the other again and again by the package `datasets`.

A stream's first images are held out. The others, pass after pass, make one endless row, which is cut into blocks of
`buffer` images; each block is in memory and shuffled by (seed, block). Image p of training is thus a function of the
stream, the seed and p alone. A run's step takes images by their places p, as from any set, and its checkpoint holds
where in the stream the block of its next batch begins, so that a resumed run needn't read what came before.

Every process reads the whole stream, and decodes the images of its share of a batch.
"""

import itertools
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor

from ..core.randomness import generator
from ..errors import InputError
from ..files import home
from ..specs import listed, require
from .decoding import BadImage, quiet, read_image
from .gather import MOST_BAD, in_threads
from .hugging_face import image_column, load, named, undecoded
from .levels import Decoded, Levels
from .split import part_of

__all__ = ["BUFFER", "HEAD", "Stream", "StreamData", "is_stream", "open_stream", "pixels_of"]

HEAD = 10_000  # images at the beginning, of which some are held out, and that stand for the stream in an evaluation
BUFFER = 1000  # images that are shuffled together, unless another number is given
_ENDING = re.compile(r":stream(?:=(\d+))?$")
_WDS = "wds:"
_PLACES = 64  # beginnings of blocks that are remembered
_FEW = 20  # images, of which any number may be bad


def is_stream(data: str) -> bool:
    """True for wds:PATTERN, and for hf:NAME:stream."""
    return data.startswith(_WDS) or (data.startswith("hf:") and _ENDING.search(data, 3) is not None)


@dataclass(frozen=True)
class StreamRow:
    """An image still to be decoded, its label, and its number in the stream."""

    image: bytes | Path
    label: Any
    number: int


@dataclass(eq=False)
class Stream:
    """The rows of a stream by their places in training; read forwards, and again from a known place where need be.

    rows: opens the stream, at its beginning or in a state that `datasets` gave. classes: the labels' names, as far as
    they are known beforehand. held: the number of images held out.
    """

    where: str
    opens: Callable[[dict[str, Any] | None], Any]
    image: str
    label: str = ""
    classes: tuple[str, ...] = ()
    held: int = 0
    buffer: int = BUFFER
    seed: int = 0
    _blocks: "OrderedDict[int, list[StreamRow]]" = field(default_factory=OrderedDict)
    _places: "OrderedDict[int, dict[str, Any]]" = field(default_factory=OrderedDict)
    _next: int = -1  # the block that the reader stands at; −1 for no reader
    _lock: Lock = field(default_factory=Lock)

    def taken(self, places: Sequence[int]) -> list[StreamRow]:
        """The rows at these places."""
        found = {}
        with self._lock:
            for place in sorted(set(places)):
                found[place] = self._block(place // self.buffer)[place % self.buffer]
        return [found[place] for place in places]

    def state(self, place: int) -> dict[str, Any]:
        """The beginning of the block of this place, as JSON can hold it; {} for a block that wasn't reached."""
        with self._lock:
            block = place // self.buffer
            if block not in self._places and block == self._next:
                self._remember()
            found = self._places.get(block)
            return {} if found is None else {"block": block, "buffer": self.buffer, "seed": self.seed, **found}

    def restore(self, state: Any) -> None:
        """Read on from a state; what it doesn't fit is read from its beginning."""
        own = {"buffer": self.buffer, "seed": self.seed}
        if isinstance(state, dict) and own.items() <= state.items() and {"block", "pass", "row", "at"} <= state.keys():
            with self._lock:
                self._places[int(state["block"])] = {key: state[key] for key in ("pass", "row", "at")}

    def first(self, n: int) -> Iterator[StreamRow]:
        """The first n rows of the stream, in its order, those held out among them; read anew."""
        return itertools.islice(self._rows(self.opens(None)), n)

    def _block(self, block: int) -> list[StreamRow]:
        """A block's rows, shuffled."""
        if (found := self._blocks.get(block)) is not None:
            return found
        if self._next < 0 or self._next > block or self._nearest(block) > self._next:
            self._seek(self._nearest(block))
        while self._next <= block:
            self._remember()
            rows = [self._following() for _ in range(self.buffer)]
            order = torch.randperm(self.buffer, generator=generator(self.seed, "stream", self._next)).tolist()
            self._blocks[self._next] = [rows[k] for k in order]
            self._next += 1
            while len(self._blocks) > 2:
                self._blocks.popitem(last=False)
        return self._blocks[block]

    def _nearest(self, block: int) -> int:
        """The last known block up to this one."""
        return max((known for known in self._places if known <= block), default=0)

    def _remember(self) -> None:
        if self._next in self._places:  # a reader that was just opened has no state yet
            return
        self._places[self._next] = {"pass": self._pass, "row": self._row, "at": self._reader.state_dict()}
        while len(self._places) > _PLACES:
            self._places.popitem(last=False)

    def _seek(self, block: int) -> None:
        """Stand at the beginning of a block that is known, or of the first."""
        place = self._places.get(block, {"pass": 0, "row": 0, "at": None})
        self._next, self._pass, self._row = block, place["pass"], place["row"]
        self._reader = self.opens(place["at"])
        self._iterator = self._rows(self._reader)

    def _following(self) -> StreamRow:
        """The next row that isn't held out, of this pass or the next."""
        while True:
            row = next(self._iterator, None)
            if row is None:
                if self._row <= self.held:
                    raise InputError(f"{self.where} holds {self._row} images, and its first {self.held} are held out.")
                self._pass, self._row, self._reader = self._pass + 1, 0, self.opens(None)
                self._iterator = self._rows(self._reader)
                continue
            self._row += 1
            if self._row > self.held:
                return replace(row, number=self._row)

    def _rows(self, reader: Any) -> Iterator[StreamRow]:
        rows = iter(reader)
        for number in itertools.count(1):
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # whatever the network, the hub and the readers of a dozen formats raise
                reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
                raise InputError(f"{self.where} can't be read on: {reason}.") from error
            held = row.get(self.image) or {}
            data: bytes | None = held.get("bytes")
            image = Path(held.get("path") or "") if data is None else data
            yield StreamRow(image, row.get(self.label) if self.label else None, number)


def open_stream(data: str, label: str, held_out: float, seed: int) -> Stream:
    """The stream of wds:PATTERN (tar files of webdataset) or hf:NAME:stream.

    held_out: a share of the first HEAD images. label: the column of the labels, or the ending of their files in a tar;
    "" takes the usual one, if there is one.
    """
    ending = _ENDING.search(data)
    base, buffer = (data, 0) if ending is None else (data[: ending.start()], int(ending[1] or 0))
    if ending is not None and ending[1] is not None:
        require("the number after stream=", buffer, 1, 10**6, whole=True)
    chosen: dict[str, str] = {}
    if base.startswith(_WDS):
        name, config = "webdataset", ""
        files = [str(path) for pattern in _expanded(base.removeprefix(_WDS)) for path in _matching(pattern)]
        if not files:
            raise InputError(f"data must be wds:PATTERN of tar files, as in wds:set-{{000..009}}.tar; {base} has none.")
        how: dict[str, Any] = {"data_files": {"train": files}}
    else:
        (name, config, chosen), how = named(base), {}
    if label and chosen.setdefault("label", label) != label:
        raise InputError(f"{data} names the labels' column, and label another, {label!r}; name it once.")

    def loaded() -> Any:
        return _training_part(data, load(data, name, config, stream=True, **how))

    features = loaded().features or {}
    column = image_column(data, features, chosen)
    usual = next((name for name, kind in features.items() if type(kind).__name__ == "ClassLabel" or name == "cls"), "")
    label = chosen.get("label", "") or usual
    if label and label not in features:
        raise InputError(f"{data} has no column {label!r}; it has {listed(features)}.")
    columns = [column, *[label] * bool(label)]

    def opens(state: dict[str, Any] | None) -> Any:
        # Loaded anew: two readers of one set would share their state.
        reader = loaded().select_columns(columns).cast_column(column, undecoded())
        if state is not None:
            reader.load_state_dict(deepcopy(state))
        return reader

    classes = tuple(getattr(features.get(label), "names", ()))
    return Stream(data, opens, column, label, classes, round(held_out * HEAD), buffer or BUFFER, seed)


def _training_part(data: str, parts: Mapping[str, Any]) -> Any:
    """The part to train on: the only one, or the one that is called train."""
    found = [name for name in parts if part_of(name)[0] in ("train", "training")] or [*parts]
    if len(found) > 1:
        raise InputError(f"{data} has no part to train on; it has {listed(parts)}.")
    return parts[found[0]]


def _expanded(pattern: str) -> list[str]:
    """The patterns that one with braces stands for, as in set-{000..009}.tar or {a,b}.tar."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    low, high = (int(ends[1]), int(ends[2])) if ends else (0, 0)
    names = [f"{k:0{len(ends[1])}d}" for k in range(low, high + 1)] if ends else found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [rest for name in names for rest in _expanded(before + name + after)]


def _matching(pattern: str) -> list[str]:
    """The files of a pattern with * and ?, in order; an address on the web as it is."""
    return [pattern] if "://" in pattern else sorted(glob(str(home(pattern))))


@dataclass(eq=False)
class StreamData:
    """A stream as training takes it: by places that only grow, each image decoded when it is taken.

    shape: (c, h, w) of an image. labels: whether there are any; index: their numbers by value. first: the first images
    held out, or of all, by which a stream is told from another. bad: lines on images that couldn't be used, by number;
    such an image gives its place to the next one of its block.
    """

    stream: Stream
    shape: tuple[int, ...]
    size: int
    levels: Levels | None
    index: Mapping[Any, int] | None
    prepare: Callable[[Tensor, Generator], Tensor]
    first: UInt8[Tensor, "k c h w"]
    on_bad: str = "skip"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bad: dict[int, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    seen: int = 0

    x1 = None
    ahead = streamed = True

    def __len__(self) -> int:
        """Images that stand for the stream where all of a set are asked for: those of its first block."""
        return self.stream.buffer

    def to(self, device: torch.device) -> "StreamData":
        return replace(self, device=device)

    def take(self, places: Int[Tensor, " b"], draw: Generator) -> dict[str, Tensor]:
        """The images at these places, as the network sees them, and their labels."""
        wanted = places.tolist()
        rows = self.stream.taken(wanted)
        with quiet():
            made = [*in_threads(self._made, [*zip(wanted, rows)], 0)]
        if self.bad and not self.told:
            self.told.append(line := next(iter(self.bad.values())))
            warnings.warn(f"{self.stream.where}: {line}; such images are left out.", stacklevel=2)
        x = torch.from_numpy(np.stack([pixels for pixels, _ in made])).to(self.device)
        taken = {"x0": self.prepare(x, draw)}
        return taken if self.index is None else taken | {"label": self._labels([row for _, row in made])}

    def _made(self, one: tuple[int, StreamRow]) -> tuple[UInt8[np.ndarray, "c h w"], StreamRow]:
        """An image's pixels and its row, or those of the next in its block that can be used."""
        place, row = one
        begin, buffer = place - place % self.stream.buffer, self.stream.buffer
        for k in range(buffer):
            row = row if not k else self.stream.taken([begin + (place + k) % buffer])[0]
            self.seen += 1
            try:
                return pixels_of(row, self.shape[0], self.size, self.levels, self.stream.where, self.shape), row
            except BadImage as error:
                self._note(row.number, error)
        raise InputError(f"{self.stream.where}: none of {buffer} images in a row can be used; {self.bad[row.number]}.")

    def _note(self, number: int, error: BadImage) -> None:
        line = f"row {number} {error}"
        if self.on_bad == "fail":
            raise InputError(f"{self.stream.where}: {line}.")
        self.bad[number] = line
        if len(self.bad) > max(_FEW, MOST_BAD * self.seen):
            raise InputError(
                f"{self.stream.where}: {len(self.bad)} of {self.seen} images can't be used, more than {MOST_BAD:.0%}; "
                f"the last is {line}."
            )

    def _labels(self, rows: Sequence[StreamRow]) -> Int[Tensor, " b"]:
        assert self.index is not None
        for row in rows:
            if row.label not in self.index:
                raise InputError(
                    f"{self.stream.where}: row {row.number} has the label {row.label!r}, and the first {HEAD} have "
                    f"{listed(map(str, self.index))}."
                )
        return torch.tensor([self.index[row.label] for row in rows], device=self.device)


def pixels_of(
    row: StreamRow, channels: int, size: int, levels: Levels | None, where: str, shape: tuple[int, ...] | None = None
) -> UInt8[np.ndarray, "c h w"]:
    """A row's image; BadImage where it can't be used, InputError where its shape or its levels don't fit the others."""
    if row.image == Path():
        raise BadImage("is missing")
    image: Decoded = read_image(row.image, size, channels, levels)
    if image.levels is not None and levels is None:
        raise InputError(
            f"{where}: row {row.number} has more than 8 bits; give the range of all, as --value-range 0:65535."
        )
    pixels = image.pixels.transpose(2, 0, 1)
    if shape is not None and pixels.shape[1:] != shape[1:]:
        (h, w), (_, other_h, other_w) = pixels.shape[1:], shape
        raise InputError(
            f"{where}: row {row.number} is {w} × {h} pixels and the first image {other_w} × {other_h}; give --size to "
            "make all alike."
        )
    return np.broadcast_to(pixels, (shape or pixels.shape)[:1] + pixels.shape[1:])
