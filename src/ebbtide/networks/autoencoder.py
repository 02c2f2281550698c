"""The autoencoder of images: the principal components of patches, and two small networks that learn what those leave.

    z = B (patch - m) / s + f(x),   x̂ = Bᵀ s z + m + g(z)

The last layers of f and g are zero at first, so training begins at the error of the patches' codec, which a plain
autoencoder needs minutes to reach.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.init import eye_, ones_, zeros_

from ..errors import InputError
from .critic import PatchCritic
from .fused import Conv3x3
from .parts import NormSiLU, check_batch, check_sizes, whole_numbers, zeroed
from .patches import analysed, synthesised

__all__ = ["Autoencoder", "double", "halve"]


class Autoencoder(nn.Module):
    """An image (c, h, w) as z (keep, h / size, w / size), and back; called as network(x, t) it returns x̂.

    size, keep: side of the patches and the number of their components, which are z's channels; `begin` sets them.
    widths: channels of f's maps from the finest to the one of z's size, each half as large as the one before; g has the
    same in reverse. 64-96-128 costs three times as much as 96-128, which sees squares of 4 × 4 pixels at once.
    blocks: residual blocks of a map. groups: of their norms.

    Any other height and width of whole patches will do, too: all but the norms is a convolution.

    rows: rows of pixels of an image.
    """

    basis: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, channels: int, rows: int, columns: int, /, *,
        size: int = 8, keep: int = 16, widths: str = "96-128", blocks: int = 1, groups: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        levels = whole_numbers("autoencoder: widths", widths, 1, 65536)
        check_sizes(
            "autoencoder", channels=(channels, 1, 2**31), rows=(rows, 1, 2**31), columns=(columns, 1, 2**31),
            size=(size, 1, 256), keep=(keep, 1, channels * size**2), blocks=(blocks, 1, 64), groups=(groups, 1, 65536),
        )  # fmt: skip
        square, rest = divmod(size, 2 ** (len(levels) - 1))  # its pixels are the channels of one of the finest map
        if rest or rows % size or columns % size:
            raise InputError(
                f"autoencoder: rows and columns must be multiples of size, and size one of {2 ** (len(levels) - 1)} "
                f"for the {len(levels)} maps of widths {widths}; got {rows} × {columns} and size {size}."
            )
        self.shape, self.size, d = (channels, rows, columns), size, channels * size**2
        self.latent = keep, rows // size, columns // size
        for name, begins, sides in (("basis", eye_, (keep, d)), ("mean", zeros_, (d,)), ("scale", ones_, (keep,))):
            self.register_buffer(name, begins(torch.empty(sides)))
        inner = channels * square**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(square), Conv3x3(inner, levels[0]), *_stages(levels, blocks, groups, halve),
            NormSiLU(levels[-1], groups), zeroed(Conv3x3(levels[-1], keep)),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            Conv3x3(keep, levels[-1]), *_stages(levels[::-1], blocks, groups, double),
            NormSiLU(levels[0], groups), zeroed(Conv3x3(levels[0], inner)), nn.PixelShuffle(square),
        )  # fmt: skip
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def begin(self, basis: Float[Tensor, "keep d"], mean: Float[Tensor, " d"], scale: Float[Tensor, " keep"]) -> None:
        """Set B, m and s: those of a `Patches` codec. basis: B, one component a row. scale: s, of each component."""
        for name, part in (("basis", basis), ("mean", mean), ("scale", scale)):
            getattr(self, name).copy_(part)

    def critic(self, widths: str) -> PatchCritic:
        """A critic of its images, for the loss `sharpen`. widths: of its maps, as in 32-64-128."""
        return PatchCritic(self.shape[0], widths=widths)

    def encode(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b keep i j"]:
        """z = B (patch - m) / s + f(x)."""
        linear = analysed(x, self.size, self.basis, self.mean, self.scale)
        return linear + self.encoder(x.contiguous(memory_format=torch.channels_last))

    def decode(self, z: Float[Tensor, " b keep i j"]) -> Float[Tensor, " b c h w"]:
        """x̂ = Bᵀ s z + m + g(z)."""
        linear = synthesised(z, self.size, self.basis, self.mean, self.scale)
        return linear + self.decoder(z.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " #b"]) -> Float[Tensor, " b c h w"]:
        """x̂; the time is that of data, whatever is given."""
        check_batch("autoencoder", x, self.shape)
        return self.decode(self.encode(x))


class _Residual(nn.Module):
    """x + conv₂ SiLU(norm(conv₁ SiLU(norm x))); conv₂ is 0 at first. x: (b, channels, rows, columns)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = NormSiLU(channels, groups), Conv3x3(channels, channels)
        self.norm2, self.conv2 = NormSiLU(channels, groups), zeroed(Conv3x3(channels, channels))

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        return x + self.conv2(self.norm2(self.conv1(self.norm1(x))))


def halve(into: int, out: int) -> nn.Module:
    """To a map of half the rows and columns: W of each square of 2 × 2 pixels. into, out: channels before and after."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * into, out, 1))


def double(into: int, out: int) -> nn.Module:
    """To a map of twice the rows and columns: each pixel's W as a square of 2 × 2.

    into, out: channels before and after.
    """
    return nn.Sequential(nn.Conv2d(into, 4 * out, 1), nn.PixelShuffle(2))


def _stages(
    widths: Sequence[int], blocks: int, groups: int, between: Callable[[int, int], nn.Module]
) -> Iterator[nn.Module]:
    """Residual blocks at each width, and `between` two of them."""
    for width, after in pairwise((*widths, 0)):
        yield from (_Residual(width, groups) for _ in range(blocks))
        if after:
            yield between(width, after)
