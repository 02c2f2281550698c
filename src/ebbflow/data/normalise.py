"""Between the data's units and the network's, explicitly: saved with the checkpoint, undone on sampling, never clipped.

Standardise   columns of numbers to mean 0 and standard deviation 1
Pixels        0..255 to [-1, 1]
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..errors import InputError
from ..specs import pick


@dataclass(frozen=True)
class Standardise:
    """z = (x - mean) / std, column by column. Without columns it is the IDENTITY, for data of any width."""

    about: ClassVar[str] = "standardised per column; undone on sampling"

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InputError(f"mean and std must have one number per column; got {len(self.mean)} and {len(self.std)}.")
        for value in self.mean:
            if not math.isfinite(value):
                raise InputError(f"mean must be finite numbers; got {value!r}.")
        for value in self.std:
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"std must be finite numbers above 0; got {value!r}.")

    @classmethod
    def fit(cls, x: Float[Tensor, "n d"]) -> "Standardise":
        """Mean and (biased) standard deviation in float64; a constant column is only shifted (std = 1)."""
        if x.numel() == 0:
            raise InputError(f"x must have at least one row and one column; got shape {tuple(x.shape)}.")
        # Through the CPU because some accelerators have no float64.
        columns = x.detach().cpu().double()
        std, mean = torch.std_mean(columns, dim=0, correction=0)
        constant = (columns.amin(0) == columns.amax(0)) | (std == 0)
        return cls(tuple(mean.tolist()), tuple(torch.where(constant, 1.0, std).tolist()))

    def apply(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Data → what the network sees, in x's dtype."""
        if self == IDENTITY:
            return x
        mean, std = self._like(x)
        return (x - mean) / std

    def undo(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What the network makes → data: x = std z + mean."""
        if self == IDENTITY:
            return z
        mean, std = self._like(z)
        return z * std + mean

    def log_volume(self, shape: tuple[int, ...]) -> float:
        """Σ log std, so that log p(x) = log p(z) - log_volume for an x of this shape."""
        return math.fsum(math.log(value) for value in self.std)

    def to_config(self) -> dict[str, Any]:
        if self == IDENTITY:
            return {"name": "none"}
        return {"name": "standardise", "mean": list(self.mean), "std": list(self.std)}

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1:] != (len(self.mean),):
            raise InputError(
                f"The data transform expects {len(self.mean)} columns; got data of shape {tuple(x.shape)}."
            )
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (self.mean, self.std))
        return mean, std


IDENTITY = Standardise()


@dataclass(frozen=True)
class Pixels:
    """z = x / 127.5 - 1: pixel values 0..255 to [-1, 1]. What a network makes may lie outside, and stays there."""

    about: ClassVar[str] = "pixels 0 to 255 as -1 to 1; undone on sampling"

    def apply(self, x: Num[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        """Pixel values, uint8 or floating, → what the network sees."""
        return (x if x.is_floating_point() else x.float()) / 127.5 - 1

    def undo(self, z: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        """What the network makes → pixel values as floats: x = 127.5 (z + 1)."""
        return (z + 1) * 127.5

    def log_volume(self, shape: tuple[int, ...]) -> float:
        """d log 127.5, so that log p(x) = log p(z) - log_volume for an x of d numbers."""
        return math.prod(shape) * math.log(127.5)

    def to_config(self) -> dict[str, Any]:
        return {"name": "pixels"}


Transform = Standardise | Pixels


def transform_from_config(config: Any) -> Transform:
    """The transform whose `to_config` this is; anything else is an InputError."""
    if not isinstance(config, Mapping):
        raise InputError(f"The data transform must be a table with a name; got {config!r}.")
    name = pick(_KEYS, str(config.get("name", "")), "the data transform's name")
    if set(config) != _KEYS[name]:
        takes, got = (", ".join(sorted(map(repr, keys))) for keys in (_KEYS[name], config))
        raise InputError(f"The data transform {name!r} takes the keys {takes}; got {got}.")
    if name == "standardise":
        return Standardise(_numbers(config, "mean"), _numbers(config, "std"))
    return Pixels() if name == "pixels" else IDENTITY


_KEYS = {"standardise": {"name", "mean", "std"}, "pixels": {"name"}, "none": {"name"}}


def _numbers(config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = config[key]
    if (
        not isinstance(values, list | tuple)
        or not values
        or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    ):
        raise InputError(f"The data transform's {key} must be a list of numbers; got {values!r}.")
    try:
        return tuple(map(float, values))
    except OverflowError as error:
        raise InputError(f"The data transform's {key} must hold finite numbers.") from error
