"""Patches of images in a basis: the linear part of the codecs `patches` and `autoencoder`."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["analysed", "cut", "synthesised"]


def analysed(
    x: Float[Tensor, "n c h w"], size: int, basis: Float[Tensor, "k d"], mean: Float[Tensor, " d"],
    scale: Float[Tensor, " k"],
) -> Float[Tensor, "n k i j"]:  # fmt: skip
    """z = B (patch - mean) / scale of every patch of size × size pixels. basis: B."""
    i, j = x.shape[2] // size, x.shape[3] // size
    return _by_example(cut(x, size) - mean, basis.T / scale).transpose(1, 2).reshape(-1, len(basis), i, j)


def synthesised(
    z: Float[Tensor, "n k i j"], size: int, basis: Float[Tensor, "k d"], mean: Float[Tensor, " d"],
    scale: Float[Tensor, " k"],
) -> Float[Tensor, "n c h w"]:  # fmt: skip
    """Patches Bᵀ scale z + mean, side by side. basis: B. size: of a patch, in pixels."""
    n, _, i, j = z.shape
    x = _by_example(z.flatten(2).transpose(1, 2), scale[:, None] * basis) + mean
    return x.reshape(n, i, j, -1, size, size).permute(0, 3, 1, 4, 2, 5).reshape(n, -1, i * size, j * size)


def cut(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n m d"]:
    """The patches of each image in rows, each as (c, size, size) flat."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * size * size)


def _by_example(x: Float[Tensor, "n m d"], by: Float[Tensor, "d k"]) -> Float[Tensor, "n m k"]:
    """x @ by, example by example: with one product for all, an example's last bits would depend on the others."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.bmm(x, by.expand(x.shape[0], *by.shape))
