"""Diffusion Policy's U-Net over a chunk of actions: convolutions along time, each block conditioned.

Chi et al. 2023, arXiv:2303.04137, Section III-A, "CNN-based Diffusion Policy", after Janner et al. 2022,
arXiv:2205.09991. All maps are (batch, steps, channels), so that a convolution is one matrix product.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from ..errors import InputError
from .clock import Perceptron
from .observation import Shapes, Summary
from .parts import NormSiLU, check_batch, check_sizes, whole_numbers, zeroed

__all__ = ["ActionUNet", "FiLMBlock", "FiLMBlocks", "StepConv", "StepNormSiLU"]


class StepConv(nn.Linear):
    """yᵢ = W [x_{i-r} … x_{i+r}] + b along the steps, zeros beyond the ends; kernel = 2 r + 1.

    x: (b, steps, into), y: (b, steps, out).
    """

    def __init__(self, into: int, out: int, kernel: int) -> None:
        super().__init__(kernel * into, out)
        self.reach = kernel // 2

    def forward(self, x: Float[Tensor, "b h into"]) -> Float[Tensor, "b h out"]:
        steps, padded = x.shape[1], pad(x, (0, 0, self.reach, self.reach))
        return super().forward(torch.cat([padded[:, i : i + steps] for i in range(2 * self.reach + 1)], 2))


class StepNormSiLU(NormSiLU):
    """`NormSiLU` of (b, steps, channels): each group over all steps and its channels."""

    def forward(
        self, x: Float[Tensor, "b h c"], scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Float[Tensor, "b h c"]:
        maps = x.mT[:, :, None]  # an image of one row, in channels_last as it lies
        return super().forward(maps, scale, shift)[:, :, 0].mT


class FiLMBlock(nn.Module):
    """h = SiLU(norm(conv₁ x) (1 + scale) + shift);  W x + SiLU(norm(conv₂ h)), with (scale, shift) = W emb + b (FiLM).

    Perez et al. 2018, arXiv:1709.07871, Eq. 2. Diffusion Policy modulates after its activation, a Mish.
    x: (b, steps, into), emb: (b, e), the output: (b, steps, out).

    kernel: steps that a convolution spans.
    """

    def __init__(self, into: int, out: int, emb: int, *, kernel: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.conv1, self.norm1 = StepConv(into, out, kernel), StepNormSiLU(out, groups)
        self.conv2, self.norm2 = StepConv(out, out, kernel), StepNormSiLU(out, groups)
        self.film = nn.Linear(emb, 2 * out)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Linear(into, out) if into != out else nn.Identity()

    def forward(self, x: Float[Tensor, "b h into"], emb: Float[Tensor, "#b e"]) -> Float[Tensor, "b h out"]:
        h = self.norm1(self.conv1(x), *self.film(emb).chunk(2, 1))
        return self.shortcut(x) + self.norm2(self.conv2(self.dropout(h)))


class FiLMBlocks(nn.ModuleList):
    """x ← block(x, emb), block after block: (b, steps, into) → (b, steps, out); the first changes the channels.

    blocks: their number. options: as in FiLMBlock.
    """

    def __init__(self, into: int, out: int, blocks: int, emb: int, **options: Any) -> None:
        super().__init__(FiLMBlock(out if i else into, out, emb, **options) for i in range(blocks))

    def forward(self, x: Float[Tensor, "b h into"], emb: Float[Tensor, "#b e"]) -> Float[Tensor, "b h out"]:
        for block in self:
            x = block(x, emb)
        return x


class ActionUNet(nn.Module):
    """ŷ = W SiLU(norm(conv(up(middle(down(x)))))), all blocks conditioned on emb = SiLU(time(t) + observed).

    x, ŷ: (b, horizon, action_dim); t: (b,) or (1,); called as network(x, t, state=…, images=…, prompt=…).


    width, multipliers: level l has width · multipliers[l] channels, and half the steps of the one before: two
    neighbours become one by a linear map, and one two. A horizon that can't be halved so often is filled up with zeros.
    blocks: residual blocks of a level down, in the middle, and of a level up. kernel: of the convolutions, odd.
    groups: of each norm, or the next smaller divisor of its channels. dropout: of each block.
    emb: channels in which time and observation are added up; layers: residual layers on the observation before that.
    tokens, heads, channels, shift: of the images and the prompt; see Summary and ObservationEncoder.

    The last layer starts at zero, hence ŷ = 0. What of the observation matters is `context`, made once per chunk.
    """

    def __init__(
        self, horizon: int, action_dim: int, /, *, observation: Shapes,
        width: int = 32, multipliers: str = "1-2-4", blocks: int = 1, kernel: int = 3, groups: int = 8,
        dropout: float = 0.0, emb: int = 256, layers: int = 2, tokens: int = 64, heads: int = 16, channels: int = 64,
        shift: int = 4, spans: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(
            "action_unet", horizon=(horizon, 1, 65536), action_dim=(action_dim, 1, 65536), width=(width, 1, 65536),
            blocks=(blocks, 1, 64), kernel=(kernel, 1, 63), groups=(groups, 1, 65536), dropout=(dropout, 0, 0.99),
            emb=(emb, 1, 65536), layers=(layers, 0, 64),
        )  # fmt: skip
        if kernel % 2 == 0:
            raise InputError(f"action_unet: kernel must be odd; got {kernel}.")
        widths = [width * factor for factor in whole_numbers("action_unet: multipliers", multipliers, 1, 1024)]
        self.shape = horizon, action_dim
        self.fill = -horizon % 2 ** (len(widths) - 1)
        self.observation = Summary(
            observation, emb, width=tokens, depth=layers, heads=heads, channels=channels, shift=shift
        )
        self.spans = spans
        self.from_time = Perceptron(2 * min(64, max(1, emb // 2)), emb, spans=spans)

        stage = partial(FiLMBlocks, blocks=blocks, emb=emb, kernel=kernel, groups=groups, dropout=dropout)
        first, last, pairs = widths[0], widths[-1], list(pairwise(widths))
        self.down = nn.ModuleList([stage(action_dim, first), *(stage(out, out) for _, out in pairs)])
        self.halving = nn.ModuleList(nn.Linear(2 * into, out) for into, out in pairs)
        self.middle = stage(last, last)
        self.doubling = nn.ModuleList(nn.Linear(out, 2 * into) for into, out in reversed(pairs))
        self.up = nn.ModuleList(stage(2 * into, into) for into, _ in reversed(pairs))
        self.conv, self.norm = StepConv(first, first, kernel), StepNormSiLU(first, groups)
        self.out = zeroed(nn.Linear(first, action_dim))

    def context(self, **observation: Tensor) -> dict[str, Any]:
        """The observation's conditions for all blocks: everything that depends on neither x nor t."""
        return {"observed": self.observation(**observation)[0]}

    def forward(
        self, x: Float[Tensor, "b h a"], t: Float[Tensor, " #b"], *,
        span: Float[Tensor, " #b"] | None = None, context: dict[str, Any] | None = None, **observation: Tensor,
    ) -> Float[Tensor, "b h a"]:  # fmt: skip
        check_batch("action_unet", x, self.shape)
        context = self.context(**observation) if context is None else context
        emb = silu(self.from_time(t, span) + context["observed"])
        h, skips = pad(x, (0, 0, 0, self.fill)) if self.fill else x, []
        for level, stage in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.halving[level - 1](h.unflatten(1, (-1, 2)).flatten(2))
            h = stage(h, emb)
        h = self.middle(h, emb)
        for double, stage in zip(self.doubling, self.up):
            h = torch.cat([double(h).unflatten(2, (2, -1)).flatten(1, 2), skips.pop()], 2)
            h = stage(h, emb)
        return self.out(self.norm(self.conv(h)))[:, : self.shape[0]]
