"""The parts of a Gemma layer: places turned into queries and keys, heads that share keys, and the norm before each.

Gemma Team 2024, arXiv:2403.08295, Section 2; as published, so that its weights and π0's fit.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

EPS = 1e-6


def places(present: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """0, 1, 2 … along the tokens that are there; one that isn't doesn't count."""
    return present.cumsum(1) - 1


def rotary(place: Int[Tensor, "b n"], head: int) -> Float[Tensor, "2 b 1 n head"]:
    """Cosines, and sines with their signs, of place · 10 000^(-2i / head), i = 0 .. head/2 - 1, for `turn`."""
    frequency = 10_000.0 ** (-torch.arange(0, head, 2, device=place.device) / head)
    angle = (place[..., None] * frequency)[:, None]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)])


def turn(
    q: Float[Tensor, "#b heads #n head"], by: Float[Tensor, "2 #b 1 #n head"]
) -> Float[Tensor, "#b heads #n head"]:
    """Turn channels i and i + head/2 by the token's i-th angle (Su et al. 2021, arXiv:2104.09864, Eq. 34).

    q · k then depends on how far apart the two tokens are alone.
    """
    cos, sin = by
    return torch.addcmul(q * cos, q.roll(q.shape[-1] // 2, -1), sin).to(q.dtype)


def attend(
    q: Float[Tensor, "b heads n head"],
    k: Float[Tensor, "b groups m head"],
    v: Float[Tensor, "b groups m head"],
    mask: Bool[Tensor, "#b 1 #n m"] | None = None,
) -> Float[Tensor, "b n heads_head"]:
    """softmax(q kᵀ / √head) v, where each of k's heads answers heads / groups of q's (arXiv:2305.13245).

    mask: what may be seen; None is everything. Who may see nothing gets 0.
    """
    seen = scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
    return seen.transpose(1, 2).flatten(2)


class RMSNorm(nn.Module):
    """h / rms(h) · (1 + w), and no gate (Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, h: Float[Tensor, "b n width"], c: None = None) -> tuple[Float[Tensor, "b n width"], None]:
        return (_normed(h) * (1 + self.weight)).to(self.weight.dtype), None


class AdaRMSNorm(nn.Module):
    """h / rms(h) · (1 + scale) + shift, and a gate for what follows: all three linear in c, and 0 at first.

    π0.5's way to tell a network the time (arXiv:2504.16054, Section IV-B); a DiT's adaLN-Zero with the other norm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(
        self, h: Float[Tensor, "b n width"], c: Float[Tensor, "#b width"]
    ) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "#b 1 width"]]:
        scale, shift, gate = self.dense(c)[:, None].chunk(3, -1)
        return torch.addcmul(shift, _normed(h), 1 + scale).to(self.dense.weight.dtype), gate


def _normed(h: Tensor) -> Tensor:
    h = h if h.dtype.itemsize >= 4 else h.float()  # a mean of squares in bf16 keeps two digits
    return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + EPS)
