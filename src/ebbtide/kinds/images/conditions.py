"""Images to train on with what each is drawn given: an image of fewer pixels (super-resolution), or numbers."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ...core.randomness import generator, uniform
from ...data.prepared import Data
from ...errors import InputError
from ...recipes import ImageRecipe

__all__ = ["Told", "WithGiven", "enlarged", "reduced", "refuse_condition"]


def reduced(x: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c h2 w2"]:
    """Images of fewer pixels, each the mean of factor × factor, rounded as a file's; in 0..255."""
    return avg_pool2d(x, factor).round()


def enlarged(x: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c h2 w2"]:
    """Images enlarged by bicubic interpolation, in 0..255: the answer that super-resolution is held against."""
    return interpolate(x, scale_factor=factor, mode="bicubic").clamp(0, 255).round()


@dataclass(frozen=True)
class WithGiven:
    """Images to train on with what each is drawn given, which is hidden from a share of a batch.

    So the network also learns images without, as it does for labels. factor: of images of fewer pixels, 0 for numbers.
    numbers: (n, k) in [-1, 1], NaN for unknown ones; each is also hidden by itself, so that any can be left out.
    """

    data: Data
    hidden: float
    factor: int = 0
    numbers: Float[Tensor, " n k"] | None = None

    @property
    def x1(self) -> None:
        """Sampling starts from noise."""
        return None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def ahead(self) -> bool:
        """As of the images."""
        return bool(getattr(self.data, "ahead", False))

    def to(self, device: torch.device) -> "WithGiven":
        """The same data on a device."""
        numbers = None if self.numbers is None else self.numbers.to(device)
        return replace(self, data=self.data.to(device), numbers=numbers)

    def take(self, indices: Int[Tensor, " b"], draw: Generator) -> dict[str, Tensor]:
        """The examples at these places, their labels, and `given`, NaN where it is hidden."""
        taken = self.data.take(indices, draw)
        if self.numbers is None:
            given = reduced((127.5 * (taken["x0"] + 1)).round(), self.factor) / 127.5 - 1
        else:
            given = self.numbers.index_select(0, indices.to(self.numbers.device))
            alone = uniform(draw, *given.shape) < self.hidden
            given = given.masked_fill(alone, torch.nan)
        whole = uniform(draw, len(given)) < self.hidden
        return taken | {"given": given.masked_fill(whole.reshape(-1, *[1] * (given.ndim - 1)), torch.nan)}


@dataclass(frozen=True)
class Told:
    """The conditions of a teacher's trajectories: of each example the same at every step, NaN where they are hidden."""

    given: Float[Tensor, " n *g"]

    @property
    def x1(self) -> None:
        """Sampling starts from noise."""
        return None

    def __len__(self) -> int:
        return len(self.given)

    def to(self, device: torch.device) -> "Told":
        """The same on a device."""
        return Told(self.given.to(device))

    def take(self, indices: Int[Tensor, " b"], draw: Generator) -> dict[str, Tensor]:
        """The conditions of the examples at these places."""
        return {"given": self.given[indices]}

    @classmethod
    def of(cls, data: WithGiven, seed: int, batch: int = 1024) -> "Told":
        """Drawn once from the data that the teacher learned from; batch: examples at a time."""
        draw = generator(seed, "told")
        return cls(torch.cat([data.take(part, draw)["given"] for part in torch.arange(len(data)).split(batch)]))


def refuse_condition(recipe: ImageRecipe) -> None:
    """InputError for a condition that can't be learned, before its data is read."""
    if not (recipe.factor or recipe.attributes):
        if recipe.attribute_ranges:
            raise InputError("attribute_ranges are of attributes, and the recipe names none.")
        return
    if recipe.factor == 1:
        raise InputError("factor must be 0, for none, or at least 2; got 1.")
    if recipe.factor and recipe.attributes:
        raise InputError("Images are drawn given smaller ones (factor) or attributes; choose one of them.")
    if recipe.factor and recipe.codec != "pixels":
        raise InputError(f"factor {recipe.factor} is for codec pixels; got {recipe.codec!r}.")
    if recipe.teacher and recipe.conditional:
        what = "smaller images" if recipe.factor else "attributes"
        raise InputError(
            f"A run with both labels and {what} can't be distilled: the labels of its trajectories are drawn by "
            f"themselves, and would meet {what} of other classes."
        )
    if not recipe.label_dropout:
        raise InputError("label_dropout must be above 0, since images are also learned without what they are given.")
