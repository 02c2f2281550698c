"""Parts shared by several networks: checked sizes, layers that start at zero, places, attention and norms.

Parts of a single network are in its own file. The time and the label are in `clock`.
"""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ..errors import InputError
from ..specs import require
from .fused import norm_silu

__all__ = [
    "EPS", "AdaRMSNorm", "NormSiLU", "RMSNorm", "SelfAttention", "angles", "attend", "cells", "check_batch",
    "check_sizes", "largest_divisor", "linear", "modulate", "positions", "rotary", "sincos", "token_places", "turn",
    "waves", "whole_numbers", "zeroed",
]  # fmt: skip

EPS = 1e-6

# --- sizes ----------------------------------------------------------------------------------------------------------


def check_sizes(network: str, **sizes: tuple[Any, float | int, float | int]) -> None:
    """Raise InputError unless each size, given as (value, lowest, highest), is in its range; whole if its ends are.

    network: its name in the error. sizes: by name.
    """
    for name, (value, low, high) in sizes.items():
        require(f"{network}: {name}", value, low, high, whole=isinstance(low, int) and isinstance(high, int))


def check_batch(network: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise InputError unless x is a batch of examples of this shape; a transposed image would pass for another.

    network: its name in the error.
    """
    if x.shape[1:] != shape:
        wanted = ", ".join(map(str, ("b", *shape)))
        raise InputError(f"{network}: x must be of shape ({wanted}); got {tuple(x.shape)}.")


def whole_numbers(what: str, text: str, low: int, high: int) -> list[int]:
    """ "1-2-2" → [1, 2, 2], one number a level: a spec's values hold no commas.

    low, high: the least and the most of each.
    text: the option's.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} must be a text such as 1-1-1; got {repr(text)[:60]}.")
    numbers = [int(part) if part.isascii() and part.isdigit() else -1 for part in text.split("-")]
    if not all(low <= number <= high for number in numbers):
        raise InputError(f"{what} must be numbers of {low} to {high}, one a level, as 1-1-1; got {text[:60]!r}.")
    return numbers


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`."""
    return next(divisor for divisor in range(min(n, most), 0, -1) if n % divisor == 0)


# --- layers ---------------------------------------------------------------------------------------------------------


def zeroed(layer: Any) -> Any:
    """The same layer with weights and bias 0: its output is 0 until it has learned something."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts with bias 0 and Xavier's uniform weights, as in DiT's code (arXiv:2212.09748).

    inputs, outputs: features before and after.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


# --- places ---------------------------------------------------------------------------------------------------------


def waves(angle: Float[Tensor, "*b n"]) -> Float[Tensor, "*b 2*n"]:
    """(sin θ₁ … sin θₙ, cos θ₁ … cos θₙ). angle: θ."""
    return torch.cat([angle.sin(), angle.cos()], -1)


def angles(place: Num[Tensor, "*b"], count: int, base: float = 10_000.0) -> Float[Tensor, "*b count"]:
    """place · base^(-i / count), i = 0 … count - 1."""
    return place[..., None] * base ** (-torch.arange(count, device=place.device) / count)


def positions(n: int, width: int) -> Float[Tensor, "n width"]:
    """A fixed vector for each of the places 0 … n - 1 (Vaswani et al. 2017, arXiv:1706.03762, Section 3.5)."""
    return waves(angles(torch.arange(n), width // 2))


def cells(rows: int, columns: int) -> Int[Tensor, "n 2"]:
    """Column and row of each cell of a grid, row by row. rows: of the grid."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1)


def sincos(rows: int, columns: int, width: int) -> Float[Tensor, "n width"]:
    """A fixed vector for each cell of a grid: `waves` of its column, then of its row, as in DiT's code.

    rows: of the grid.
    """
    return waves(angles(cells(rows, columns), width // 4)).flatten(1)


def token_places(present: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """0, 1, 2 … along the tokens that are there; one that isn't doesn't count.

    present: true for a token that is there.
    """
    return present.cumsum(1) - 1


def rotary(angle: Float[Tensor, "*n half"]) -> Float[Tensor, "2 *n head"]:
    """Cosines, and sines with their signs, of angles that are to `turn` the channels of a head twice as wide.

    angle: a pair of channels is turned by each.
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)])


def turn(
    q: Float[Tensor, "*m head"], by: Float[Tensor, "2 *n head"], *, fused: bool = True
) -> Float[Tensor, "*k head"]:
    """Turn channels i and i + head/2 by the token's i-th angle (Su et al. 2021, arXiv:2104.09864, Eq. 34).

    q · k then depends on how far apart the two tokens are alone.
    fused: products and sum are rounded once, else each: the last bit of what trained networks compute.
    """
    (cos, sin), swapped = by, q.roll(q.shape[-1] // 2, -1)
    return (torch.addcmul(q * cos, swapped, sin) if fused else q * cos + swapped * sin).to(q.dtype)


# --- derivatives ----------------------------------------------------------------------------------------------------


def in_forward_mode(x: Tensor) -> bool:
    """True if x carries a tangent: inside torch.func.jvp, that is."""
    return not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None


# --- attention ------------------------------------------------------------------------------------------------------


def attend(
    q: Float[Tensor, "b heads n head"],
    k: Float[Tensor, "b groups m head"],
    v: Float[Tensor, "b groups m head"],
    mask: Bool[Tensor, "#b 1 #n m"] | None = None,
) -> Float[Tensor, "b n heads_head"]:
    """softmax(q kᵀ / √head) v, the heads beside each other (Vaswani et al. 2017, arXiv:1706.03762, Eq. 1).

    Each of k's heads answers heads / groups of q's (Ainslie et al. 2023, arXiv:2305.13245, Section 2.2).
    mask: True where a query sees a key; None: everywhere. The output is 0 where it sees none.
    """
    # The fast kernels have no forward mode.
    with sdpa_kernel(SDPBackend.MATH) if in_forward_mode(q) else nullcontext():
        seen = scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
    return seen.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """W_out softmax(q kᵀ / √head) v + b of every token with every token, (q, k, v) = W_qkv h (arXiv:1706.03762, Eq. 1).

    h: (b, n, width), heads = width / head. by: `rotary` of the tokens' angles, to turn q and k.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)

    def forward(
        self, h: Float[Tensor, "b n width"], by: Float[Tensor, "2 n head"] | None = None
    ) -> Float[Tensor, "b n width"]:
        q, k, v = self.qkv(h).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4)  # each (b, heads, n, head)
        if by is not None:
            q, k = turn(q, by, fused=False), turn(k, by, fused=False)
        return self.out(attend(q, k, v))


# --- norms ----------------------------------------------------------------------------------------------------------


def modulate(
    h: Float[Tensor, "b n width"], shift: Float[Tensor, "#b 1 width"], scale: Float[Tensor, "#b 1 width"]
) -> Float[Tensor, "b n width"]:
    """h (1 + scale) + shift of a normalised h: adaLN (Peebles & Xie 2023, arXiv:2212.09748, Section 3.2)."""
    return torch.addcmul(shift, h, 1 + scale)


class NormSiLU(nn.GroupNorm):
    """SiLU((w x̂ + b)(1 + scale) + shift), x̂ = (x - mean) / std over a group (Wu & He 2018, arXiv:1803.08494, Eq. 7).

    x: (b, channels, rows, columns); scale, shift: (b, channels) or none. As many groups up to `groups` as divide the
    channels.
    """

    def __init__(self, channels: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__(largest_divisor(channels, groups), channels, eps)

    def forward(
        self, x: Float[Tensor, " b c h w"], scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Float[Tensor, " b c h w"]:
        return norm_silu(x, self.weight, self.bias, self.num_groups, self.eps, scale, shift)


class RMSNorm(nn.Module):
    """h / rms(h) · (1 + w), and no gate (Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4); h: (b, n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, h: Float[Tensor, "b n width"], c: None = None) -> tuple[Float[Tensor, "b n width"], None]:
        return (_normed(h) * (1 + self.weight)).to(self.weight.dtype), None


class AdaRMSNorm(nn.Module):
    """h / rms(h) · (1 + scale) + shift, and a gate for what follows: (scale, shift, gate) = W c + b, 0 at first.

    h: (b, n, width), c: (b, width). π0.5's way to tell a network the time (arXiv:2504.16054, Section IV-B); a DiT's
    adaLN-Zero with the other norm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = zeroed(nn.Linear(width, 3 * width))

    def forward(
        self, h: Float[Tensor, "b n width"], c: Float[Tensor, "#b width"]
    ) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "#b 1 width"]]:
        scale, shift, gate = self.dense(c)[:, None].chunk(3, -1)
        return modulate(_normed(h), shift, scale).to(self.dense.weight.dtype), gate


def _normed(h: Tensor) -> Tensor:
    h = h if h.dtype.itemsize >= 4 else h.float()  # a mean of squares in bf16 keeps two digits
    return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + EPS)
