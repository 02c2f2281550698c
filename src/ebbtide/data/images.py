"""Images to learn from, as uint8: the built-in digits, a folder, a .npz, idx files, or a Hugging Face data set.

Nothing is ever unpickled. What can't be used is refused in one sentence, or left out and named in `Images.bad`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ..arrays import Stored, npz
from ..errors import InputError
from ..files import home, near, no_pointer
from ..formats import arrays
from ..memory import COPIES
from ..specs import listed
from . import folder, hugging_face, idx
from .attributes import read_attributes
from .decoding import shape, transparent
from .gather import Found, Source, check_decoding, gather, joined
from .levels import Decoded, Levels
from .shards import Shards, chosen_of
from .split import beside, held_out, named_parts, part_of
from .stream import is_stream
from .table import in_order, label_array

__all__ = ["ACCEPTED", "Images", "as_images", "label_numbers", "labelled", "load_images", "split_images"]

ACCEPTED = "'digits', a folder of images, a .npz file, idx files as those of MNIST, hf:NAME or wds:PATTERN"
_NAME = 100  # bytes that a label takes besides its own


@dataclass(frozen=True, eq=False)
class Images:
    """n images, 0..255, their labels 0..k-1, -1 for none, and the labels' names.

    test: the number of images, at the end, in the set's own held-out parts. bad: one line for each image left out.
    levels: the values that became 0 and 255, if any image has more than 8 bits.
    numbers, names: attributes of each image, NaN where one is missing, and what they are called.
    """

    x: UInt8[Tensor, "n c h w"] | Shards
    labels: Int[Tensor, " n"] | None = None
    classes: tuple[str, ...] = ()
    test: int = 0
    bad: tuple[str, ...] = ()
    levels: Levels | None = None
    numbers: Float[Tensor, "n k"] | None = None
    names: tuple[str, ...] = ()

    @property
    def pixels(self) -> UInt8[Tensor, "n c h w"]:
        """Every image in memory; InputError where they don't fit."""
        return self.x.tensor() if isinstance(self.x, Shards) else self.x


def load_images(
    data: str,
    *,
    size: int = 0,
    channels: int = 0,
    levels: Levels | None = None,
    label: str = "",
    attributes: str = "",
    on_bad: str = "skip",
    workers: int = 0,
    cache: bool = True,
    on_disk: bool = False,
    most: int = 0,
    progress: bool = True,
) -> Images:
    """Every image of a set.

    data: "digits"; a folder, searched in depth; a .npz with `images` (n, h, w[, c]) in uint8; an idx file or the folder
    of them; "hf:name[:config]", also of a local folder, read by the package `datasets`. Parts that are called train,
    val, test or the like are known by their names (`split.parts`): folders, arrays such as `train_images`, idx files.
    size: 0 keeps the images, which must then be equal in size; otherwise their centre as size × size
    (`decoding.shape`).
    channels: 0 keeps grey if all are, else RGB; 1, 3, or 4 (RGBA), without which what is transparent lies on white.
    levels: of images of more than 8 bits, the values that become 0 and 255; the set's own unless given.
    label: "folder" takes the class from the first sub-folder that is no part; of a .npz or Hugging Face set it names
    the array or column, where that isn't plain.
    attributes: an array of a .npz, a .csv in a folder, or columns of a Hugging Face set, with numbers for each image
    (see `read_attributes`).
    on_bad: "skip" leaves out images that can't be read, up to 5 %; "fail" stops at the first.
    workers: threads, 0 is one a core. cache: keep what was decoded in `cache.cache_folder()`. on_disk: and leave it
    there; arrays are read into memory. most: leave it there if it has more bytes; 0 for no such number.
    """
    found = _find(data, label, attributes)
    if attributes:
        numbers, names = read_attributes(data, attributes, found)
        found = replace(found, numbers=numbers, names=names)
    return as_images(
        found, data, size=size, channels=channels, levels=levels, on_bad=on_bad, workers=workers,
        cache=cache, on_disk=on_disk, most=most, progress=progress,
    )  # fmt: skip


def as_images(found: Found, data: str, *, size: int = 0, channels: int = 0, **how: Any) -> Images:
    """The found images as Images of one size; `data` is their name in errors, how: the rest of `gather`'s options."""
    check_decoding(size=size, channels=channels, on_bad=how.get("on_bad", "skip"), workers=how.get("workers", 0))
    images = found.images
    if isinstance(images, np.ndarray) and how.get("on_disk"):
        raise InputError(f"{data} is read into memory, so data_on can't be 'disk' (--data-on).")
    if isinstance(images, np.ndarray):
        *_, h, w, c = images.shape
        if size in (0, h if h == w else 0) and channels in (c, 0 if c < 4 else 4):
            x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
            named = label_numbers(data, found.labels, found.classes, found.test)
            return Images(x, *named, found.test, numbers=_float(found.numbers), names=found.names)
        images = _from_array(data, images)
    made, good, bad, levels = gather(images, size=size, channels=channels, **how)
    labels = None if found.labels is None else [found.labels[i] for i in good]
    test = sum(i >= images.n - found.test for i in good)
    numbers = None if found.numbers is None else _float(found.numbers[good])
    return Images(made, *label_numbers(data, labels, found.classes, test), test, bad, levels, numbers, found.names)


def _float(numbers: np.ndarray | None) -> Float[Tensor, "n k"] | None:
    return None if numbers is None else torch.from_numpy(numbers).float()


def split_images(images: Images, share: float, seed: int = 0, *, keep_classes: bool = False) -> tuple[Images, Images]:
    """(training part, held-out part), each in the set's order.

    If the set has its own test part, that is held out, whatever `share`; else what `held_out` draws.
    """
    held = held_out(len(images.x), share, images.labels, seed, keep_classes=keep_classes)
    if images.test:
        held = torch.arange(len(held)) >= len(held) - images.test
    return _part(images, ~held, images.bad), _part(images, held, ())


def labelled(images: Images, where: str) -> Images:
    """The images that a conditional network can use: of the held-out parts those with labels, with a message.

    InputError for an image of the training part without one. Where no held-out image is left, `split_images` draws
    some.
    """
    if images.labels is None or not bool((bare := images.labels < 0).any()):
        return images
    train = len(bare) - images.test
    if bool(bare[:train].any()):
        raise InputError(
            f"{where}: image {int(bare.int().argmax()) + 1} has no label, and a conditional network learns from all."
        )
    left = int(bare.sum())
    instead = "; what is held out is drawn from the training part" * (left == images.test)
    warnings.warn(
        f"{where}: {left:,} of {images.test:,} held-out images are left out, with no label that is learned{instead}.",
        stacklevel=2,
    )
    numbers = None if images.numbers is None else images.numbers[~bare]
    labels = images.labels[~bare]
    return replace(images, x=chosen_of(images.x, ~bare), labels=labels, numbers=numbers, test=images.test - left)


def _part(images: Images, rows: Tensor, bad: tuple[str, ...]) -> Images:
    """Some of the rows; without labels where one of them has none."""
    labels = None if images.labels is None or bool((images.labels[rows] < 0).any()) else images.labels[rows]
    numbers = None if images.numbers is None else images.numbers[rows]
    return Images(chosen_of(images.x, rows), labels, images.classes, 0, bad, images.levels, numbers, images.names)


def _find(data: str, label: str, attributes: str) -> Found:
    if not isinstance(data, str):
        raise InputError(f"images must be {ACCEPTED}; got {data!r}.")
    if is_stream(data):
        raise InputError(f"{data} is a stream, which is trained on and not listed; without :stream a set is listed.")
    if data == "digits":
        return _digits(label)
    if data.startswith("hf:"):
        return hugging_face.read_hub(data, label, attributes)
    if not data:  # which Path takes for the current folder
        raise InputError(f"images must be {ACCEPTED}; got ''.")
    path = home(data)
    try:
        if path.is_dir():
            return idx.find_idx(path, label) if idx.find(path) else folder.find_images(path, label)
        if not path.exists():
            raise InputError(f"images must be {ACCEPTED}; {data!r} does not exist{near(path)}.")
        if not path.is_file():
            raise InputError(f"images must be {ACCEPTED}; {data!r} is not a file.")
        no_pointer(path)
        if path.suffix.lower() == ".npz" or arrays(path):
            return _npz(path, label)
        if idx.matches(path):
            return idx.read_idx(path, label)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    raise InputError(f"images must be {ACCEPTED}; {data!r} is another kind of file.")


def label_numbers(
    where: str, labels: np.ndarray | Sequence[Any] | None, classes: tuple[str, ...], test: int
) -> tuple[Int[Tensor, " n"] | None, tuple[str, ...]]:
    """Labels as 0..k-1, -1 where there is none, and the classes' names, by default the training part's in sorted order.

    test: the number of images, at the end, that are held out; a class that only they have can't be learned, so their
    label is none.
    """
    here = [i for i, label in enumerate(() if labels is None else labels) if label is not None]
    if labels is None or not here:
        return None, ()
    values, codes = np.asarray([labels[i] for i in here]), torch.full((len(labels),), -1)
    train = len(labels) - test
    if classes and values.dtype.kind in "iu":
        if (wrong := (values < -1) | (values >= len(classes))).any():
            row = int(wrong.argmax())
            raise InputError(f"{where}: label {values[row]} of image {here[row] + 1} is not in 0..{len(classes) - 1}.")
        codes[here] = torch.from_numpy(values.astype(np.int64))
    else:
        names = label_array(f"{where}, labels", values)
        classes = tuple(in_order({name for i, name in zip(here, names) if i < train}))
        index = {name: k for k, name in enumerate(classes)}
        codes[here] = torch.tensor([index.get(name, -1) for name in names])
    return (None, ()) if bool((codes[:train] < 0).all()) else (codes, classes)


# --- arrays -------------------------------------------------------------------------------------------------


def _from_array(where: str, array: UInt8[np.ndarray, "n h w c"]) -> Source:
    """Images of an array, to be resized or recoloured."""

    def image(i: int, size: int, channels: int, levels: Levels | None) -> Decoded:
        made = Image.fromarray(array[i].squeeze(2) if array.shape[3] == 1 else array[i])
        return Decoded(shape(made, size, channels), transparent=transparent(made))

    return Source(len(array), image, lambda i: f"image {i + 1}", where)


def _digits(label: str) -> Found:
    """1797 digits of 8 × 8 pixels (see digits.txt), stored as 0..16."""
    if label:
        raise InputError(f"label names an array or column of your own data, and digits has its labels; got {label!r}.")
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as held:
        images, labels = held["images"], held["labels"]
    return Found(np.rint(images[..., None] * (255 / 16)).astype(np.uint8), labels, tuple("0123456789"))


def _npz(path: Path, label: str) -> Found:
    held = npz(path)
    images = [name for name, array in held.items() if array.images]
    likely = [name for name in images if part_of(name)[1] in _USUAL] or images
    found = named_parts({name: len(held[name]) for name in likely}, str(path))
    name = next((name for name in ("images", *likely) if name in held), None)
    if name is None:
        raise InputError(f"{path} has no array 'images', nor one like images in uint8; it has {listed(held)}.")
    train, test = found or ([name], [])
    labels = {one: beside(held, one, label, bool(test)) for one in train + test}
    if label and not any(labels[one] for one in train):
        raise InputError(f"{path} has no array {label!r}; it has {listed(held)}.")
    every = {one: _array(held, one, labels[one]) for one in labels}
    if len(every) == 1:
        return every.popitem()[1]
    return joined([every[one] for one in train], [every[one] for one in test], str(path))


def _array(held: Mapping[str, Stored], name: str, label: str) -> Found:
    array = held[name]
    if array.dtype != np.uint8:
        raise InputError(f"{array.where} must be uint8, 0 to 255; got {array.kind}.")
    if array.ndim not in (3, 4) or (*array.shape, 1)[3] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{array.where} must have shape (n, h, w) or (n, h, w, c), c = 1, 3 or 4; got {array.shape}.")
    images = array.read(COPIES - 1)
    images = images.reshape((*images.shape, 1)[:4])
    if not label:
        return Found(images)
    labels = held[label]
    if labels.ndim == 2 and len(labels) == len(array) and labels.shape[1] > 1:
        warnings.warn(f"{labels.where} is left out: it has {labels.shape[1]} labels an image.", stacklevel=2)
        return Found(images)
    if labels.shape not in ((len(array),), (len(array), 1)):
        raise InputError(f"{labels.where} must hold {len(array)} labels; it has shape {labels.shape}.")
    names = next((held[name].read(_NAME) for name in ("classes", "class_names") if name in held), np.empty(0, str))
    classes = tuple(str(name) for name in names.reshape(-1).tolist())
    return Found(images, labels.read(_NAME).reshape(-1).tolist(), classes)


_USUAL = ("images", "image", "imgs", "img", "x", "pictures", "data")
