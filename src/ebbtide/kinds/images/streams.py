"""Streams of images as a recipe names them: to be trained on, and their first images, which stand for all."""

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor

from ...codecs import fit_codec
from ...data.decoding import BadImage, quiet
from ...data.images import Images, label_numbers, labelled
from ...data.levels import Levels
from ...data.prepared import Prepared, class_names, frequencies
from ...data.stream import HEAD, Stream, StreamData, StreamRow, open_stream, pixels_of
from ...errors import InputError
from ...files import state_of
from ...memory import room
from ...recipes import ImageRecipe
from ...training.storage import opened

__all__ = ["prepare_stream", "stream_parts"]

FIRST = 16  # images by which a stream is told from another


def prepare_stream(recipe: ImageRecipe, see: Callable[[Tensor, Generator], Tensor]) -> Prepared:
    """The stream of a recipe to be trained on; see: how the network sees a batch."""
    plain = {"codec": "pixels", "attributes": "", "factor": 0}
    if other := next((name for name, value in plain.items() if getattr(recipe, name) != value), ""):
        raise InputError(f"{other} is for sets that can be listed, and {recipe.data} is a stream.")
    stream, levels = _opened(recipe), _levels(recipe)
    with quiet():
        first = [*islice(_decoded(recipe, stream, levels, stream.first(HEAD)), FIRST)]
    if not first:
        raise InputError(f"{recipe.data} holds no images.")
    x = _stacked(pixels for _, pixels in first)
    index: dict[Any, int] | None = None
    classes: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    if recipe.conditional:
        values = [row.label for row in stream.first(HEAD) if row.number > stream.held]
        codes, names = label_numbers(recipe.data, values, stream.classes, 0)
        if codes is None or bool((codes < 0).any()):
            raise InputError(f"{recipe.data} must have a label for each image, which a conditional network learns.")
        classes = class_names(names, codes)
        index, shares = dict(zip(values, codes.tolist())), frequencies(codes, len(classes))
    data = StreamData(stream, tuple(x.shape[1:]), recipe.size, levels, index, see, x, recipe.on_bad_image)
    codec = fit_codec(recipe.codec, lambda: [x], opened)
    settled = {"value_range": str(levels)} if levels else {}
    return Prepared(data, data.shape, codec, classes=classes, frequencies=shares, settled=settled)


def stream_parts(recipe: ImageRecipe) -> tuple[Images, Images]:
    """Of a stream's first HEAD images those that are trained on, and those held out."""
    own = recipe.data, recipe.label, recipe.held_out, recipe.size, recipe.channels, recipe.value_range
    return _parts(*own, recipe.on_bad_image, recipe.conditional, state_of(recipe.data))


@lru_cache(maxsize=1)
def _parts(
    data: str, label: str, held_out: float, size: int, channels: int, value_range: str, on_bad: str,
    conditional: bool, state: object,
) -> tuple[Images, Images]:  # fmt: skip
    recipe = ImageRecipe(
        data=data, label=label, held_out=held_out, size=size, channels=channels, value_range=value_range,
        on_bad_image=cast(Any, on_bad), conditional=conditional,
    )  # fmt: skip
    stream, levels = _opened(recipe), _levels(recipe)
    rows: list[StreamRow] = []
    with quiet():
        decoded = _decoded(recipe, stream, levels, stream.first(HEAD))
        x = _stacked(pixels for row, pixels in decoded if not rows.append(row))  # type: ignore[func-returns-value]
    test = sum(row.number <= stream.held for row in rows)
    order = [*range(test, len(rows)), *range(test)]  # those held out last
    labels, classes = label_numbers(data, [rows[k].label for k in order], stream.classes, test)
    every = Images(x[order], labels, classes, test, (), levels)
    every = labelled(every, data) if conditional else every
    held = torch.arange(len(every.x)) >= len(every.x) - every.test
    said = f"its first {len(rows):,} images stand for all, {test:,} of them held out"
    warnings.warn(f"{data} is a stream: {said}.", stacklevel=2)
    train, out = (
        Images(every.x[part], None if every.labels is None else every.labels[part], classes, levels=levels)
        for part in (~held, held)
    )
    return train, out


def _opened(recipe: ImageRecipe) -> Stream:
    return open_stream(recipe.data, recipe.label, recipe.held_out, recipe.seed)


def _levels(recipe: ImageRecipe) -> Levels | None:
    return Levels.parse(recipe.value_range) if recipe.value_range else None


def _decoded(
    recipe: ImageRecipe, stream: Stream, levels: Levels | None, rows: Iterator[StreamRow]
) -> Iterator[tuple[StreamRow, np.ndarray]]:
    """The rows that can be used, with their pixels, all of the first one's shape."""
    shape, channels = None, recipe.channels
    for row in rows:
        try:
            pixels = pixels_of(row, channels, recipe.size, levels, recipe.data, shape)
        except BadImage as error:
            if recipe.on_bad_image == "fail":
                raise InputError(f"{recipe.data}: row {row.number} {error}.") from error
            continue
        if shape is None:
            shape, channels = pixels.shape, pixels.shape[0]
            room(HEAD * pixels.nbytes, f"{recipe.data}: its first {HEAD} images", "give a smaller --size")
        yield row, pixels


def _stacked(images: Iterator[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack([*images]))
