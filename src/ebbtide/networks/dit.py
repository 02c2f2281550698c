"""DiT, a transformer on the patches of an image; time and label enter through its normalisations.

Peebles & Xie 2023, arXiv:2212.09748. Figure 3, in its variant adaLN-Zero, is `DiT.forward` (left) and
`DiTBlock.forward` (second from left), read from bottom to top.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..specs import pick
from .clock import Perceptron, label_embedding
from .parts import SelfAttention, angles, cells, check_batch, check_sizes, linear, modulate, rotary, sincos, zeroed

__all__ = ["POSITIONS", "TIME_FEATURES", "DiT", "DiTBlock", "patch_turns", "patchify", "unpatchify"]

POSITIONS = ("sincos", "rotary")
TIME_FEATURES = 256  # as many as in the paper's code, at the lower frequencies of `Fourier`


def patchify(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n p"]:
    """Cut an image into patches, row by row; a patch holds its channels one after the other, each row by row."""
    return pixel_unshuffle(x, patch).flatten(2).mT


def unpatchify(patches: Float[Tensor, "b n p"], patch: int, rows: int) -> Float[Tensor, "b c h w"]:
    """The inverse of `patchify`, for an image of that many rows of pixels.

    patches: (b, n, patch² channels). patch: side in pixels.
    """
    return pixel_shuffle(patches.mT.unflatten(2, (rows // patch, -1)), patch)


def patch_turns(rows: int, columns: int, head: int) -> Float[Tensor, "2 n head"]:
    """`rotary` of an image's patches: half the pairs of channels turn with the column, half with the row.

    Base 100 as in Heo et al. 2024, arXiv:2403.13298: images have fewer rows than texts have words.
    """
    return rotary(angles(cells(rows, columns), head // 4, 100.0).flatten(1))


class DiTBlock(nn.Module):
    """h ← h + γ₁ attention(adaLN₁ h);  h ← h + γ₂ mlp(adaLN₂ h): the identity at first, as both gates γ start at 0.

    adaLNᵢ h = norm(h) (1 + scaleᵢ) + shiftᵢ, (shift₁, scale₁, γ₁, shift₂, …) = W SiLU(c) + b (Section 3.2).
    h: (b, n, width), c: (b, width). by: `rotary` of the patches' angles.
    """

    def __init__(self, width: int, head: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, head)
        self.mlp = nn.Sequential(linear(width, hidden), nn.GELU("tanh"), linear(hidden, width))
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 6 * width)))

    def forward(
        self, h: Float[Tensor, "b n width"], c: Float[Tensor, "#b width"], by: Float[Tensor, "2 n head"] | None = None
    ) -> Float[Tensor, "b n width"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)
        h = h + gate1 * self.dropout(self.attention(modulate(self.norm(h), shift1, scale1), by))
        return h + gate2 * self.dropout(self.mlp(modulate(self.norm(h), shift2, scale2)))


class DiT(nn.Module):
    """h = W patchify(x) + b + positions;  h ← block(h, c), `depth` times;  ŷ = unpatchify(W adaLN(h) + b).

    c = time(t) + E[label] (Figure 3). x, ŷ: (b, channels, rows, columns), rows and columns multiples of patch;
    t: (b,) or (1,); label: (b,) or None.


    width, depth: channels of a token, blocks; head: channels of one attention head, so heads = width / head.
    mlp_ratio: hidden channels of a block's MLP per channel of a token.
    positions: "sincos", fixed vectors added to the tokens, or "rotary", turned queries and keys.
    dropout: of what attention and MLP add. checkpointing: recompute the blocks on the way back, to save memory.

    All that writes to the output starts at zero, hence ŷ = 0. The paper's networks also predict a variance; ours
    return what their Denoiser's target asks for, shaped like x, and are that half of the last layer smaller.
    """

    def __init__(
        self,
        channels: int,
        rows: int,
        columns: int,
        classes: int = 0,
        /,
        *,
        width: int = 192,
        depth: int = 8,
        head: int = 64,
        patch: int = 2,
        mlp_ratio: float = 4.0,
        positions: str = "sincos",
        dropout: float = 0.0,
        checkpointing: bool = False,
        spans: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            "dit", channels=(channels, 1, 2**31), rows=(rows, 1, 2**31), columns=(columns, 1, 2**31),
            classes=(classes, 0, 2**31),
            width=(width, 1, 65536), depth=(depth, 1, 1024), head=(head, 1, 65536), patch=(patch, 1, 1024),
            mlp_ratio=(mlp_ratio, 1.0, 64.0), dropout=(dropout, 0, 0.99),
        )  # fmt: skip
        if rows % patch or columns % patch:
            raise InputError(f"dit: patch must divide the image's {rows} rows and {columns} columns; got {patch}.")
        if width % head:
            raise InputError(f"dit: head must divide width, which is {width}; got {head}.")
        pick(POSITIONS, positions, "dit: positions")
        name, value = ("head", head) if positions == "rotary" else ("width", width)
        if value % 4:  # a sine and a cosine for each of two directions
            raise InputError(f"dit: {name} must be a multiple of 4 for positions={positions}; got {value}.")
        self.shape, self.patch, self.checkpointing = (channels, rows, columns), patch, checkpointing
        self.from_patch = linear(channels * patch**2, width)
        self.spans = spans
        self.from_time = Perceptron(TIME_FEATURES, width, linear, spans)
        self.from_label = label_embedding(classes, width)
        self.blocks = nn.ModuleList(DiTBlock(width, head, round(width * mlp_ratio), dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 2 * width)))
        self.out = zeroed(nn.Linear(width, channels * patch**2))
        self.positions: Tensor | None
        self.rotary: Tensor | None
        grid = rows // patch, columns // patch
        self.register_buffer("positions", sincos(*grid, width) if positions == "sincos" else None, persistent=False)
        self.register_buffer("rotary", patch_turns(*grid, head) if positions == "rotary" else None, persistent=False)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " #b"],
        label: Int[Tensor, " b"] | None = None,
        span: Float[Tensor, " #b"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        check_batch("dit", x, self.shape)
        c = self.from_time(t, span)
        if self.from_label is not None:
            c = c + self.from_label(label)
        h = self.from_patch(patchify(x, self.patch)).to(x.dtype)  # under autocast too, the sums over blocks stay exact
        if self.positions is not None:
            h = h + self.positions
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, c, self.rotary, use_reentrant=False)
            else:
                h = block(h, c, self.rotary)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        return unpatchify(self.out(modulate(self.norm(h), shift, scale)), self.patch, x.shape[2])
