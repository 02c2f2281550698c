"""Between the data's units and the network's, explicitly: saved with the checkpoint, undone on sampling, never clipped.

Standardise   columns of numbers to mean 0 and standard deviation 1
Quantiles     columns of numbers, from one quantile to another, to [-1, 1]
Pixels        0..255 to [-1, 1]
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from ..errors import InputError
from ..specs import expect, pick, require, shaped
from .codec import Codec, Shape

__all__ = [
    "IDENTITY", "REACH", "Pixels", "Quantiles", "Standardise", "read_columns", "within_float32",
]  # fmt: skip


BLOCK = 2**16  # rows that are looked at together
TOGETHER = 2**28  # bytes of columns whose quantiles are found together


@runtime_checkable
class Matrix(Protocol):
    """A matrix whose rows needn't be in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def split(self, size: int) -> Iterable[Tensor]: ...


class _Elementwise:
    """A codec that changes each number by itself: the shape stays."""

    linear: ClassVar[bool] = True

    def shape(self, data: Shape) -> Shape:
        """The data's, if it has the codec's number of columns."""
        width = len(vars(self).get("mean", vars(self).get("low", ())))
        if width and data[-1:] != (width,):
            raise InputError(f"The codec expects {width} columns; got data of shape {tuple(data)}.")
        return data

    def mirror(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."] | None:
        """None: columns have no left and right."""
        return None

    def weights(self) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class Standardise(_Elementwise):
    """z = (x - mean) / std, column by column. Without columns it is the IDENTITY, for data of any width.

    A std of 0 marks a constant column: it is only shifted, and every sample has exactly its mean there.
    """

    about: ClassVar[str] = "standardised per column; undone on sampling"

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        expect("mean", self.mean, tuple)
        expect("std", self.std, tuple)
        if len(self.mean) != len(self.std):
            raise InputError(f"mean and std must have one number per column; got {len(self.mean)} and {len(self.std)}.")
        for mean, std in zip(self.mean, self.std):
            require("mean", mean)
            require("std", std, 0)

    @classmethod
    def fit(cls, x: Float[Tensor, "n d"] | Matrix, least: float = 0.0) -> "Standardise":
        """Mean and (biased) standard deviation in float64; of a constant column its value and 0.

        Found block by block: of n rows with variance v and m more with w, whose means differ by d, the variance is
        (n v + m w) / (n + m) + d² n m / (n + m)² (Chan, Golub, LeVeque 1979).

        least: the smallest std of a column that moves; one that hardly does would be stretched until it is all noise.
        """
        _fits(x, least)
        blocks = map(_moments, _blocks(x))
        n, mean, variance, low, high = next(blocks)
        for m, other, its, lowest, highest in blocks:
            share, apart = m / (n + m), other - mean
            variance = (1 - share) * variance + share * its + apart.square() * share * (1 - share)
            mean, n = mean + share * apart, n + m
            low, high = low.minimum(lowest), high.maximum(highest)
        std = variance.sqrt()
        std = torch.where(std == 0, least or 1.0, std.clamp(min=least))  # 0 by underflow, as of 0 and 1e-200
        constant = low == high
        return cls(tuple(low.where(constant, mean).tolist()), tuple(std.where(~constant, 0.0).tolist()))

    def of_constants(self) -> "Standardise":
        """This codec of constant columns alone, the others left as they are; IDENTITY where all columns move."""
        if not self.constant:
            return IDENTITY
        return Standardise(
            tuple(0.0 if s else m for m, s in zip(self.mean, self.std)), tuple(map(float, map(bool, self.std)))
        )

    def encode(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Data → what the network sees, in x's dtype."""
        if self == IDENTITY:
            return x
        mean, std = _like(x, self.mean, self.std)
        return (x - mean) / std.where(std != 0, 1.0)

    def decode(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The network's output → data: x = std z + mean."""
        if self == IDENTITY:
            return z
        mean, std = _like(z, self.mean, self.std)
        return z * std + mean

    def log_volume(self, data: Shape) -> float:
        """Σ log std, so that log p(x) = log p(z) - log_volume for an x of this shape; without constant columns."""
        return _log_volume(self.std)

    @property
    def constant(self) -> dict[int, float]:
        """The value of each constant column, by the column's number."""
        return {i: mean for i, (mean, std) in enumerate(zip(self.mean, self.std)) if not std}

    def to_config(self) -> dict[str, Any]:
        if self == IDENTITY:
            return {"name": "none"}
        return {"name": "standardise", "mean": list(self.mean), "std": list(self.std)}


IDENTITY = Standardise()


@dataclass(frozen=True)
class Pixels(_Elementwise):
    """z = x / 127.5 - 1: pixel values 0..255 to [-1, 1]. What a network makes may lie outside, and stays there."""

    about: ClassVar[str] = "pixels 0 to 255 as -1 to 1; undone on sampling"

    def encode(self, x: Num[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        """Pixel values, uint8 or floating, → what the network sees."""
        expect("The data", x, Tensor)
        return (x if x.is_floating_point() else x.float()) / 127.5 - 1

    def decode(self, z: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        """The network's output → pixel values as floats: x = 127.5 (z + 1)."""
        return (z + 1) * 127.5

    def log_volume(self, data: Shape) -> float:
        """d log 127.5, so that log p(x) = log p(z) - log_volume for an x of d numbers."""
        return math.prod(data) * math.log(127.5)

    def mirror(self, z: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        """The mirrored image's z."""
        return z.flip(-1)

    def to_config(self) -> dict[str, Any]:
        return {"name": "pixels"}


@dataclass(frozen=True)
class Quantiles(_Elementwise):
    """z = 2 (x - low) / (high - low) - 1, column by column; what lies beyond low and high stays beyond -1 and 1.

    The quantiles 1 % and 99 % are FAST's and π0.5's (arXiv:2501.09747; openpi), 0 and 1 diffusion policy's
    (arXiv:2303.04137). low = high marks a constant column: it is only shifted, and every sample has exactly that value.
    """

    about: ClassVar[str] = "from quantile to quantile as -1 to 1, per column; undone on sampling"

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        expect("low", self.low, tuple)
        expect("high", self.high, tuple)
        if len(self.low) != len(self.high) or not self.low:
            raise InputError(f"low and high must have one number per column; got {len(self.low)} and {len(self.high)}.")
        for low, high in zip(self.low, self.high):
            require("low", low)
            require("high", high, low)
            require("high - low", high - low)

    @classmethod
    def fit(
        cls, x: Float[Tensor, "n d"] | Matrix, low: float = 0.01, high: float = 0.99, least: float = 0.0
    ) -> "Quantiles":
        """These quantiles of every column, in float64 and linear between its sorted values.

        As many columns are in memory at once as have TOGETHER bytes; x is read once for each such group.

        least: the smallest half of high - low of a column that moves; a narrower one is widened to both sides, and one
        whose quantiles agree is only shifted unless least is given.
        """
        require("low", low, 0, below=1)
        require("high", high, above=low, high=1)
        _fits(x, least)
        many, found = max(1, TOGETHER // (8 * len(x))), list[np.ndarray]()
        for group in range(0, x.shape[-1], many):
            columns = torch.cat([part[:, group : group + many] for part in _blocks(x)])
            if not bool(columns.isfinite().all()):
                raise InputError("x must hold finite numbers.")
            # Not torch.quantile, which refuses more than 2²⁴ numbers.
            ends = np.quantile(columns.numpy(), (low, high), axis=0)
            found.append(np.stack([*ends, np.ptp(columns.numpy(), axis=0)]))
        lows, highs, range_ = np.concatenate(found, 1)
        return cls.between(lows, highs, range_ == 0, least)

    @classmethod
    def between(
        cls,
        low: Float[np.ndarray, " d"],
        high: Float[np.ndarray, " d"],
        constant: Bool[np.ndarray, " d"],
        least: float = 0.0,
    ) -> "Quantiles":
        """Those of these columns, all but the constant ones widened as in `fit`.

        low, high: of each column. least: the smallest half of their difference.
        """
        half = (high - low) / 2
        wider = np.where(constant, 0, np.where(half == 0, least or 1.0, np.maximum(0, least - half)))
        return cls(tuple((low - wider).tolist()), tuple((high + wider).tolist()))

    @property
    def centre(self) -> tuple[float, ...]:
        """The data value of z = 0."""
        return tuple(low + (high - low) / 2 for low, high in zip(self.low, self.high))

    @property
    def scale(self) -> tuple[float, ...]:
        """dx/dz; 0 of a constant column."""
        return tuple((high - low) / 2 for low, high in zip(self.low, self.high))

    def encode(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Data → what the network sees, in x's dtype."""
        centre, scale = _like(x, self.centre, self.scale)
        return (x - centre) / scale.where(scale != 0, 1.0)

    def decode(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The network's output → data: x = low + (z + 1) (high - low) / 2."""
        centre, scale = _like(z, self.centre, self.scale)
        return z * scale + centre

    def log_volume(self, data: Shape) -> float:
        """Σ log dx/dz, so that log p(x) = log p(z) - log_volume for an x of one row; without constant columns."""
        return _log_volume(self.scale)

    def to_config(self) -> dict[str, Any]:
        return {"name": "quantiles", "low": list(self.low), "high": list(self.high)}


def within_float32(codec: Codec, where: str, columns: Sequence[str] = ()) -> None:
    """Refuse a column whose samples, up to REACH from its middle, float32 has no room for, or can't tell from 0.

    where, columns: what an error calls the data and, if they have names, its columns.
    """
    if isinstance(codec, Quantiles):
        middles, scales = codec.centre, codec.scale
    elif isinstance(codec, Standardise):
        middles, scales = codec.mean, codec.std
    else:
        return
    for k, (centre, scale) in enumerate(zip(middles, scales)):
        if abs(centre) + REACH * scale > _FLOAT32.max or 0 < scale < _FLOAT32.tiny:
            name = repr(columns[k]) if columns else k + 1
            raise InputError(
                f"{where}, column {name}: values around {centre:.3g} that spread by {scale:.3g} lie outside of what "
                f"float32 holds, {_FLOAT32.tiny:.2g} to {_FLOAT32.max:.2g}; scale them."
            )


REACH = 100.0  # in the network's units: what lies beyond is no sample, but an accident
_FLOAT32 = torch.finfo(torch.float32)


def _fits(x: Tensor | Matrix, least: float) -> None:
    """InputError for what no codec can be fitted to."""
    if not isinstance(x, Matrix) or isinstance(x, Tensor):
        expect("x", x, Tensor)
        shaped("x", x, "n", "d")
    require("least", least, 0)
    if not math.prod(x.shape):
        raise InputError(f"x must have at least one row and one column; got shape {tuple(x.shape)}.")


def _blocks(x: Tensor | Matrix) -> Iterator[Float[Tensor, "k d"]]:
    """x in float64, BLOCK rows at a time; on the CPU because some accelerators have no float64."""
    return (part.detach().cpu().double() for part in x.split(BLOCK))


def _moments(x: Float[Tensor, "k d"]) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
    """The number of rows; of each column the mean, the variance, the lowest and the highest value."""
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    return len(x), mean, variance, *x.aminmax(dim=0)


def _log_volume(scale: tuple[float, ...]) -> float:
    return math.fsum(math.log(value) for value in scale if value)


def _like(x: Tensor, *columns: tuple[float, ...]) -> tuple[Tensor, ...]:
    """One number for each of x's columns, in its dtype and where it is."""
    expect("The data", x, Tensor)
    if x.shape[-1:] != (len(columns[0]),):
        raise InputError(f"The codec expects {len(columns[0])} columns; got data of shape {tuple(x.shape)}.")
    return tuple(torch.tensor(values, dtype=x.dtype, device=x.device) for values in columns)


def read_columns(config: Mapping[str, Any], weights: Mapping[str, Any] = {}) -> Standardise | Quantiles | Pixels:
    """The codec of this module whose `to_config` this is; anything else is an InputError."""
    name = pick(_KEYS, str(config.get("name", "")), "the codec's name")
    if set(config) != _KEYS[name]:
        takes, got = (", ".join(sorted(map(repr, keys))) for keys in (_KEYS[name], config))
        raise InputError(f"The codec {name!r} takes the keys {takes}; got {got}.")
    if weights:
        raise InputError(f"The codec {name!r} has no tensors; got {', '.join(map(str, weights))[:60]}.")
    if name == "standardise":
        return Standardise(_numbers(config, "mean"), _numbers(config, "std"))
    if name == "quantiles":
        return Quantiles(_numbers(config, "low"), _numbers(config, "high"))
    return Pixels() if name == "pixels" else IDENTITY


_KEYS = {
    "standardise": {"name", "mean", "std"},
    "quantiles": {"name", "low", "high"},
    "pixels": {"name"},
    "none": {"name"},
}


def _numbers(config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = config[key]
    if (
        not isinstance(values, list | tuple)
        or not values
        or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    ):
        raise InputError(f"The codec's {key} must be a list of numbers; got {values!r}.")
    try:
        return tuple(map(float, values))
    except OverflowError as error:
        raise InputError(f"The codec's {key} must hold finite numbers.") from error
