"""A critic of images: it scores squares of them, which is enough to see what is blurred."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from .parts import check_sizes, whole_numbers

__all__ = ["PatchCritic"]


class PatchCritic(nn.Module):
    """The mean score of an image's squares (PatchGAN, Isola et al. 2017, arXiv:1611.07004): (b, c, h, w) → (b,).

    widths: channels of the maps, each of half the rows and columns of the one before; with three a score sees squares
    of 15 × 15 pixels. It has no norms, so an image's score doesn't depend on the others.
    """

    def __init__(self, channels: int, /, *, widths: str = "32-64-128") -> None:
        super().__init__()
        levels = whole_numbers("critic: widths", widths, 1, 65536)
        check_sizes("critic", channels=(channels, 1, 2**31))
        maps = [
            part for into, out in pairwise((channels, *levels)) for part in (nn.Conv2d(into, out, 3, 2, 1), nn.SiLU())
        ]
        self.maps = nn.Sequential(*maps, nn.Conv2d(levels[-1], 1, 1))

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b"]:
        """The score of each image."""
        return self.maps(x).flatten(1).mean(1)
