"""The images that a recipe names: uint8 at rest, [-1, 1] for the network, pixel values 0..255 in the data's units."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from ...codecs import CODECS, Codec, CodecRow, fit_codec, links
from ...core.randomness import generator, uniform
from ...data import Pixels, images
from ...data.attributes import ranges_of, scaled
from ...data.decoding import read_image
from ...data.gather import Found, Source
from ...data.given import given_images
from ...data.images import Images
from ...data.levels import Levels
from ...data.prepared import Data, Prepared, TensorData, class_names, frequencies
from ...data.shards import found_on
from ...data.stream import is_stream
from ...errors import InputError
from ...files import home, state_of
from ...recipes import IN_MEMORY, ImageRecipe
from ...specs import as_list, bind
from ...training.storage import opened, unnamed
from .conditions import Told, WithGiven, refuse_condition
from .latents import BATCH, latents
from .streams import prepare_stream, stream_parts

if TYPE_CHECKING:
    from ...training.trained import Trained

__all__ = [
    "describe", "fits", "given", "kept", "own_starts", "parts", "prepare", "read_images", "real", "see",
    "told",
]  # fmt: skip

_ONE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")  # endings of a file that is one image


def fits(recipe: ImageRecipe) -> None:
    """InputError for a codec that isn't one of images; nothing more is known before they are read."""
    refuse_condition(recipe)
    first, *others = (cast(CodecRow, bind(CODECS, link, "codec").func).of for link in links(recipe.codec))
    if first != "pixels" or set(others) - {"images"}:
        raise InputError(
            f"codec must be pixels, or pixels+ a latent as in pixels+patches:size=8; got {recipe.codec!r}."
        )


def prepare(recipe: ImageRecipe, codec: Codec | None = None, data_on: str = "auto") -> Prepared:
    """The images of a recipe that are to be trained on; codec: one fitted before, for that of the recipe."""
    if is_stream(recipe.data):
        return prepare_stream(recipe, partial(see, flip=recipe.flip))
    return _prepared(recipe, parts(recipe, data_on)[0], codec)


def given(recipe: ImageRecipe, x: Any, y: Any, codec: Codec | None = None) -> tuple[ImageRecipe, Prepared]:
    """The recipe for images in memory, learned with their labels where there are any, and these images."""
    fits(recipe)
    recipe = replace(recipe, data=IN_MEMORY, label="", conditional=recipe.conditional or y is not None)
    if recipe.attributes:
        raise InputError("attributes are read with images from a .npz or a folder; name these as data.")
    every = given_images(x, y, size=recipe.size, channels=recipe.channels)
    return recipe, _prepared(
        recipe, images.split_images(every, recipe.held_out, keep_classes=recipe.conditional)[0], codec
    )


def _prepared(recipe: ImageRecipe, train: Images, codec: Codec | None) -> Prepared:
    if recipe.conditional and train.labels is None:
        where = "give y, a label for each image"
        if not recipe.in_memory:
            folder = os.path.isdir(recipe.data)
            of = "folder takes those of sub-folders" if folder else "the array or column that holds them"
            where = f"name their source, as in label={'folder (--label folder)' if folder else '… (--label …)'}: {of}"
        raise InputError(f"{recipe.data_named} has no labels, which a conditional network needs; {where}.")
    if recipe.value_range and not train.levels:
        raise InputError(f"value_range is for images of more than 8 bits, and {recipe.data_named} holds none.")
    shape = tuple(train.x.shape[1:])
    labels = train.labels if recipe.conditional else None
    if codec is None:
        codec = fit_codec(recipe.codec, lambda: train.x.split(BATCH), opened)
    if isinstance(codec, Pixels):
        data: Data = TensorData(train.x, labels, prepare=partial(see, flip=recipe.flip))
    else:
        data = latents(recipe, codec, train.x, labels)
    if recipe.factor and any(side % recipe.factor for side in shape[1:]):
        sides = " × ".join(map(str, shape[1:]))
        raise InputError(f"factor {recipe.factor} must divide the images' sides, {sides}; give another, or --size.")
    if recipe.factor:
        data = WithGiven(data, recipe.label_dropout, recipe.factor)
    settled = {"value_range": str(train.levels)} if train.levels else {}
    if recipe.attributes and train.numbers is not None:
        ranges = ranges_of(train.numbers, train.names, recipe.attribute_ranges, recipe.data_named)
        settled["attribute_ranges"] = as_list(f"{name}={ends}" for name, ends in ranges.items())
        data = WithGiven(data, recipe.label_dropout, numbers=scaled(train.numbers, ranges))
    classes = class_names(train.classes, train.labels)
    shares = () if labels is None else frequencies(labels, len(classes))
    return Prepared(data, shape, codec, classes=classes, frequencies=shares, settled=settled)


def told(recipe: ImageRecipe, codec: Codec | None) -> Told:
    """The conditions of a student's trajectories: of the images that its teacher learned from, none mirrored."""
    fits(recipe)
    data = _prepared(replace(recipe, flip=False), parts(recipe)[0], codec).data
    assert isinstance(data, WithGiven)
    return Told.of(data, recipe.seed)


def see(x: UInt8[Tensor, " b c h w"], draw: Generator, *, flip: bool = False) -> Float[Tensor, " b c h w"]:
    """Images as the network sees them in training: in [-1, 1], half of them mirrored where that is wanted."""
    z = Pixels().encode(x)
    if not flip:
        return z
    mirrored = uniform(draw, len(z)) < 0.5
    return torch.where(mirrored[:, None, None, None], z.flip(3), z)


def parts(recipe: ImageRecipe, data_on: str = "") -> tuple[Images, Images]:
    """The images to train on, and those held out. data_on: as in training; "disk" reads none before it is asked for.

    Where nothing is trained, sets of more than LARGE bytes stay on the disk if they were prepared there.
    """
    if recipe.in_memory:
        raise InputError(unnamed("data", recipe.data))
    if is_stream(recipe.data):
        return stream_parts(recipe)
    own = (
        recipe.data,
        recipe.size,
        recipe.channels,
        recipe.value_range,
        recipe.label,
        recipe.attributes,
        recipe.on_bad_image,
        recipe.held_out,
        recipe.conditional,
        state_of(recipe.data),
    )  # the seed is not asked: a run of another seed holds out the same
    found: tuple[Images, Images] = found_on(data_on, _parts, own, lambda parts: (parts[0].x,))
    return found


@lru_cache(maxsize=2)
def _parts(
    data: str, size: int, channels: int, value_range: str, label: str, attributes: str, on_bad: str, held_out: float,
    conditional: bool, state: object, on_disk: bool, most: int,
) -> tuple[Images, Images]:  # fmt: skip
    levels = Levels.parse(value_range) if value_range else None
    how: dict[str, Any] = {"size": size, "channels": channels, "levels": levels, "on_bad": on_bad}
    how |= {"on_disk": on_disk, "most": most}
    every = images.load_images(data, label=label, attributes=attributes, **how)
    every = images.labelled(every, data) if conditional else every
    return images.split_images(every, held_out, keep_classes=conditional)


def own_starts(trained: "Trained", file: str) -> Float[Tensor, " n c h w"]:
    """The images of a set, or of one file, in their order and the run's size, as starting points of samples."""
    return read_images(file, trained.shape, cast(ImageRecipe, trained.recipe).value_range)


def read_images(data: str, shape: Sequence[int], value_range: str = "") -> Float[Tensor, " n c h w"]:
    """Every image of a set, or of one file, as pixels of this shape: resized where that is square, none left out."""
    channels, h, w = shape
    how: dict[str, Any] = {"size": h if h == w else 0, "channels": channels, "on_bad": "fail"}
    how |= {"levels": Levels.parse(value_range)} if value_range else {}
    if (file := home(data)).suffix.lower() in _ONE and file.is_file():
        alone = Source(1, lambda i, *how: read_image(file, *how), lambda i: "the image", data)
        x = images.as_images(Found(alone), data, **how).pixels
    else:
        x = images.load_images(data, **how).pixels
    if tuple(x.shape[1:]) != tuple(shape):
        wanted, found = (" × ".join(map(str, one)) for one in (shape, x.shape[1:]))
        raise InputError(f"{data} must hold images of {wanted}, as this run takes; got {found}.")
    return x.float()


def kept(x: Float[Tensor, " n c h w"]) -> UInt8[np.ndarray, " n c h w"]:
    """Samples as images: rounded and clipped to 0..255."""
    array: np.ndarray = x.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array


def describe(recipe: ImageRecipe) -> str:
    """One line on the data a recipe names."""
    if recipe.in_memory:
        return "images in memory"
    if recipe.data == "digits":
        return "handwritten digits, 8 × 8"
    return f"the images of {recipe.shared().data}"


def real(recipe: ImageRecipe, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most n images that were trained on, in random order, and their labels."""
    train, _ = parts(recipe)
    chosen = torch.randperm(len(train.x), generator=generator("real", seed))[:n]
    return train.x[chosen].float(), None if train.labels is None else train.labels[chosen]
