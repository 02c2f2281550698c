"""Levels of a whole set of images: the values that become 0 and 255, and the message about them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num, UInt8

from ..errors import InputError

__all__ = ["Decoded", "Levels", "Tally", "on_white"]


class Levels(NamedTuple):
    """The values that become 0 and 255 in images of more than 8 bits, and what lies between in proportion."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> "Levels":
        """LOW:HIGH, as `str` writes it."""
        try:
            low, high = map(float, text.split(":"))
        except ValueError:
            low = high = math.nan
        if not -math.inf < low <= high < math.inf:
            raise InputError(f"value_range must be LOW:HIGH, two numbers, the lower first; got {text!r}.")
        return cls(low, high)

    def __str__(self) -> str:
        return ":".join(repr(float(value)).removesuffix(".0") for value in self)

    def scaled(self, values: Num[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]:
        """255 (v - low)/(high - low), rounded; what lies beyond becomes 0 or 255, and all is 0 where low is high."""
        share = (np.clip(values.astype(np.float64), *self) - self.low) / (self.high - self.low or 1)
        return np.rint(255 * share).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image's pixels, its own lowest and highest value if it has more than 8 bits, and whether it has holes."""

    pixels: UInt8[np.ndarray, "h w c"]
    levels: Levels | None = None
    transparent: bool = False


@dataclass
class Tally:
    """Counts of conversions in a set, for one message. levels: of all images with more than 8 bits."""

    levels: Levels | None = None
    n: int = 0
    deep: int = 0
    transparent: int = 0

    def add(self, image: Decoded) -> None:
        self.n += 1
        self.transparent += image.transparent
        if image.levels:
            low, high = self.levels or image.levels
            self.levels = Levels(min(low, image.levels.low), max(high, image.levels.high))
            self.deep += 1

    def lines(self, given: Levels | None, channels: int | None = None) -> Iterator[str]:
        """Messages on losses: scaling by the given levels, or these, and transparency unless there are 4 channels."""
        if self.levels:
            (low, high), text = self.levels, f"{self.deep} of {self.n} images have more than 8 bits"
            if given is None:
                yield f"{text}: their values {low:g} to {high:g} become 0 to 255 (--value-range sets others)."
            elif low < given.low or high > given.high:
                yield f"{text}, and some values in {low:g} to {high:g} beyond the range {given}: they become 0 or 255."
        if self.transparent and channels != 4:
            hint = "" if channels is None else " (--channels 4 keeps that)"
            yield f"{self.transparent} of {self.n} images are transparent in places, and lie on white{hint}."


def on_white(x: Any) -> Any:
    """α c + 255 (1 - α) of pixels (…, 4, h, w), an array or tensor of them, as floats (…, 3, h, w)."""
    return 255 - (255.0 - x[..., :3, :, :]) * (x[..., 3:, :, :] / 255)
