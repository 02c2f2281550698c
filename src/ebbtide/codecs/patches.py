"""Patches of images in a fixed basis, the first few coefficients of each: a latent in closed form."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..specs import pick, require, shaped
from .codec import Batches, Shape

__all__ = ["BASES", "Patches", "fit_patches", "read_patches"]

FLOOR = 1e-6  # of the largest variance: a coefficient that hardly moves is stretched no more than that


@dataclass(frozen=True, eq=False)
class Patches:
    """z = B (x - mean) / scale of each patch, x̂ = Bᵀ scale z + mean; (c, h, w) ↔ (keep, h / size, w / size).

    The rows of B, (keep, c size²), are orthonormal, so what is lost is what lies beside them: with all rows nothing.
    """

    about: ClassVar[str] = "patches by their first coefficients in a fixed basis"
    linear: ClassVar[bool] = True

    size: int
    basis: Tensor
    """(keep, c size²), and the others (c size²) and (keep), all in float64."""
    mean: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        require("patches: size", self.size, 1, 256, whole=True)
        shaped("patches: basis", self.basis, "keep", "d")
        (keep, d), side = self.basis.shape, self.size**2
        if not 1 <= keep <= d or d % side:
            raise InputError(
                f"patches: basis must have at most as many rows as columns, a multiple of {side} of these."
            )
        shaped("patches: mean", self.mean, d)
        shaped("patches: scale", self.scale, keep)
        if any(part.dtype != torch.float64 for part in self.weights().values()):
            raise InputError("patches: basis, mean and scale must be float64.")
        if not bool((self.scale > 0).all()) or not all(bool(x.isfinite().all()) for x in self.weights().values()):
            raise InputError("patches: basis, mean and scale must be finite, and scale above 0.")
        if not (self.basis @ self.basis.T).allclose(torch.eye(keep, dtype=torch.float64), rtol=0, atol=1e-6):
            raise InputError("patches: the rows of basis must be orthonormal.")

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.basis.shape[1] // self.size**2

    def shape(self, data: Shape) -> Shape:
        """(keep, h / size, w / size)."""
        if len(data) != 3 or data[0] != self.channels or data[1] % self.size or data[2] % self.size:
            raise InputError(
                f"patches: images must have {self.channels} channels and sides that are multiples of size, "
                f"{self.size}; got {' × '.join(map(str, data))}."
            )
        return (len(self.basis), data[1] // self.size, data[2] // self.size)

    def encode(self, x: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b keep i j"]:
        """The coefficients of each patch, in x's dtype."""
        keep, i, j = self.shape(tuple(x.shape[-3:]))
        flat = _cut(x.reshape(-1, *x.shape[-3:]), self.size)
        basis, mean, scale = self._like(flat)
        z = _by_example(flat - mean, basis.T / scale)
        return z.transpose(1, 2).reshape(*x.shape[:-3], keep, i, j)

    def decode(self, z: Float[Tensor, "*b keep i j"]) -> Float[Tensor, "*b c h w"]:
        """The image of these coefficients, 0 for those that aren't kept."""
        keep, i, j = z.shape[-3:]
        if keep != len(self.basis):
            raise InputError(f"patches: z must have {len(self.basis)} channels; got {keep}.")
        flat = z.reshape(-1, keep, i * j).transpose(1, 2)
        basis, mean, scale = self._like(flat)
        x = _by_example(flat, scale[:, None] * basis) + mean
        p, c = self.size, self.channels
        return x.reshape(-1, i, j, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(*z.shape[:-3], c, i * p, j * p)

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        basis, mean, scale = (part.to(x.dtype).to(x.device) for part in (self.basis, self.mean, self.scale))
        return basis, mean, scale

    def log_volume(self, data: Shape) -> float | None:
        """Σ log scale over all patches; None where coefficients are left out."""
        if len(self.basis) < self.basis.shape[1]:
            return None
        _, i, j = self.shape(data)
        return i * j * math.fsum(self.scale.log().tolist())

    @cached_property
    def _mirrored(self) -> tuple[Tensor, Tensor] | None:
        """(order, sign) so that the mirrored patch has the coefficients sign · y[order]; None where it has others."""
        basis = self.basis
        turned = basis @ _mirrored(basis.T, self.size, self.channels)
        order = turned.abs().argmax(1)
        sign = turned.gather(1, order[:, None]).sign()[:, 0]
        exact = torch.zeros_like(turned).scatter_(1, order[:, None], sign[:, None])
        alike = self.scale[order].allclose(self.scale, rtol=1e-6)
        return (order, sign) if alike and turned.allclose(exact, atol=1e-6) else None

    def mirror(self, z: Float[Tensor, "*b keep i j"]) -> Float[Tensor, "*b keep i j"] | None:
        """Patches from right to left, each coefficient with its sign; None where the kept ones don't suffice."""
        if self._mirrored is None:
            return None
        order, sign = (part.to(z.device) for part in self._mirrored)
        return z.flip(-1).index_select(-3, order) * sign.to(z)[:, None, None]

    def to_config(self) -> dict[str, Any]:
        return {"name": "patches", "size": self.size}

    def weights(self) -> dict[str, Tensor]:
        return {"basis": self.basis, "mean": self.mean, "scale": self.scale}


def fit_patches(batches: Batches, *, size: int = 8, keep: int = 16, basis: str = "pca", whiten: float = 0.5) -> Patches:
    """Patches of size × size by their `keep` coefficients of largest variance; 0 keeps all.

    basis: a row of BASES, pca, dct or haar. whiten: z is the coefficient over its variance to this power; 0.5 makes
    every variance 1, 0 keeps distances. Fitted to the images and their mirror images in float64, so that a basis can be
    chosen whose vectors are even or odd: then mirroring z is exact.
    """
    require("patches: size", size, 1, 256, whole=True)
    require("patches: keep", keep, 0, whole=True)
    require("patches: whiten", whiten, 0, 1)
    build = BASES[pick(BASES, basis, "patches: basis")]
    n, channels, total, outer = 0, 0, torch.zeros(0), torch.zeros(0)
    for x in batches():
        shaped("The data of patches", x, "n", "c", "h", "w")
        if x.shape[2] % size or x.shape[3] % size:
            raise InputError(
                f"patches: the images' sides must be multiples of size, {size}; got {x.shape[2]} × {x.shape[3]}."
            )
        flat = _cut(x.detach().cpu().double(), size).flatten(0, 1)
        if not n:
            channels, d = x.shape[1], flat.shape[1]
            total, outer = flat.new_zeros(d), flat.new_zeros(d, d)
        total += flat.sum(0)
        outer += flat.T @ flat
        n += len(flat)
    require("patches: keep", keep, high=len(total), whole=True)

    def turned(rows: Tensor) -> Tensor:
        return _mirrored(rows, size, channels)

    mean = (total[:, None] + turned(total[:, None]))[:, 0] / (2 * n)
    covariance = (outer + turned(turned(outer).T).T) / (2 * n) - mean[:, None] * mean
    rows = build(covariance, size, channels)
    variance = (rows @ covariance * rows).sum(1).clamp(min=0)
    first = variance.argsort(descending=True, stable=True)[: keep or None]
    least = FLOOR * float(variance.max()) or 1.0
    scale = variance[first].clamp(min=least) ** whiten
    return Patches(size, rows[first].contiguous(), mean, scale)


def read_patches(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Patches:
    """The inverse of `to_config` and `weights`."""
    if set(config) != {"name", "size"} or set(weights) != {"basis", "mean", "scale"}:
        raise InputError(
            f"codec patches takes a size, and the tensors basis, mean and scale; got {', '.join(weights)}."
        )
    require("patches: size", config["size"], 1, 256, whole=True)
    return Patches(config["size"], **weights)


def _pca(covariance: Float[Tensor, "d d"], size: int, channels: int) -> Float[Tensor, "d d"]:
    """Eigenvectors of the covariance: of its even part, then of its odd part, since mirroring mixes none of them."""
    rows = []
    for half in _halves(size, channels):
        _, vectors = torch.linalg.eigh(half @ covariance @ half.T)
        rows.append(vectors.T @ half)
    return torch.cat(rows)


def _halves(size: int, channels: int) -> tuple[Tensor, Tensor]:
    """Orthonormal rows that span the patches equal to their mirror image, and those equal to its negative."""
    unit = torch.eye(channels * size**2, dtype=torch.float64)
    turned = _mirrored(unit, size, channels)
    column = torch.arange(size).repeat(channels * size)
    even, odd = (unit + turned)[column < (size + 1) // 2], (unit - turned)[column < size // 2]
    return even / even.norm(dim=1, keepdim=True), odd / odd.norm(dim=1, keepdim=True)


def _dct(covariance: Float[Tensor, "d d"], size: int, channels: int) -> Float[Tensor, "d d"]:
    """The cosines cos(π (i + ½) k / size) along both axes, for each principal colour."""
    k, i = torch.arange(size).double()[:, None], torch.arange(size).double()
    waves = (math.pi * k * (i + 0.5) / size).cos()
    return _of_colours(covariance, waves / waves.norm(dim=1, keepdim=True), channels)


def _haar(covariance: Float[Tensor, "d d"], size: int, channels: int) -> Float[Tensor, "d d"]:
    """Haar's wavelets along both axes (a tensor product), for each principal colour."""
    if size & (size - 1):
        raise InputError(f"patches: size must be a power of 2 for basis haar; got {size}.")
    waves = torch.ones(1, 1, dtype=torch.float64)
    while len(waves) < size:
        fine = torch.eye(len(waves), dtype=torch.float64).kron(torch.tensor([[1.0, -1.0]], dtype=torch.float64))
        waves = torch.cat([waves.repeat_interleave(2, 1), fine])
    return _of_colours(covariance, waves / waves.norm(dim=1, keepdim=True), channels)


def _of_colours(covariance: Tensor, waves: Float[Tensor, "p p"], channels: int) -> Float[Tensor, "d d"]:
    """Colours ⊗ waves ⊗ waves, with the eigenvectors of the covariance of a pixel's channels."""
    side = covariance.shape[0] // channels
    pixel = covariance.reshape(channels, side, channels, side).diagonal(dim1=1, dim2=3).sum(-1)
    _, colours = torch.linalg.eigh(pixel)
    return colours.T.contiguous().kron(waves.kron(waves))


BASES = {"pca": _pca, "dct": _dct, "haar": _haar}


def _cut(x: Float[Tensor, "n c h w"], p: int) -> Float[Tensor, "n m d"]:
    """The patches of each image in rows, each as (c, p, p) flat."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(n, (h // p) * (w // p), c * p * p)


def _by_example(x: Float[Tensor, "n m d"], by: Float[Tensor, "d k"]) -> Float[Tensor, "n m k"]:
    """x @ by, example by example: with one product for all, an example's last bits would depend on the others."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.bmm(x, by.expand(len(x), *by.shape))


def _mirrored(rows: Float[Tensor, "d k"], size: int, channels: int) -> Float[Tensor, "d k"]:
    """Patches in columns, mirrored left to right."""
    return rows.reshape(channels, size, size, -1).flip(2).reshape(rows.shape)
