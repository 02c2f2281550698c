"""DiT, a transformer on the patches of an image; time and label enter through its normalisations.

Peebles & Xie 2023, arXiv:2212.09748. Figure 3, in its variant adaLN-Zero, is `DiT.forward` (left) and
`Block.forward` (second from left), read from bottom to top.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..specs import pick
from .embeddings import Fourier, LabelEmbedding

POSITIONS = ("sincos", "rotary")
TIME_FEATURES = 256  # as many as in the paper's code, at the lower frequencies of `Fourier`


def patchify(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n p"]:
    """Cut an image into patches, row by row; a patch holds its channels one after the other, each row by row."""
    return pixel_unshuffle(x, patch).flatten(2).mT


def unpatchify(patches: Float[Tensor, "b n p"], patch: int, rows: int) -> Float[Tensor, "b c h w"]:
    """The inverse of `patchify`, for an image of that many rows of pixels."""
    return pixel_shuffle(patches.mT.unflatten(2, (rows // patch, -1)), patch)


def angles(rows: int, columns: int, count: int, base: float) -> Float[Tensor, "n 2 count"]:
    """column · fᵢ and row · fᵢ of every patch, at the frequencies fᵢ = base^(-i / count), i = 0 .. count - 1."""
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1)
    return place[..., None] * base ** (-torch.arange(count) / count)


def sincos(rows: int, columns: int, width: int) -> Float[Tensor, "n width"]:
    """A fixed vector per patch: sines and cosines of its column, then of its row, as in the paper's code."""
    angle = angles(rows, columns, width // 4, 10_000.0)
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(1)


def rotary(rows: int, columns: int, head: int) -> Float[Tensor, "2 n half"]:
    """Cosines and sines for `turn`: half the pairs turn with the column, half with the row.

    Base 100 as in Heo et al. 2024, arXiv:2403.13298: images have fewer rows than texts have words.
    """
    angle = angles(rows, columns, head // 4, 100.0).flatten(1)
    return torch.stack([angle.cos(), angle.sin()])


def turn(q: Float[Tensor, "b heads n head"], by: Float[Tensor, "2 n half"]) -> Float[Tensor, "b heads n head"]:
    """Turn channels i and i + head/2 by the patch's i-th angle (Su et al. 2021, arXiv:2104.09864, Eq. 15).

    q · k then depends on where the two patches lie relative to each other alone.
    """
    (first, second), (cos, sin) = q.chunk(2, -1), by
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1).to(q.dtype)


def modulate(
    h: Float[Tensor, "b n width"], shift: Float[Tensor, "#b 1 width"], scale: Float[Tensor, "#b 1 width"]
) -> Float[Tensor, "b n width"]:
    """adaLN: shift + h (1 + scale), for a normalised h."""
    return torch.addcmul(shift, h, 1 + scale)


def linear(inputs: int, outputs: int, *, zero: bool = False) -> nn.Linear:
    """A linear layer that starts with no bias and Xavier's uniform weights, as in the paper's code, or with zeros."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight) if zero else nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """softmax(q kᵀ / √head) v of every patch with every patch (Vaswani et al. 2017, arXiv:1706.03762, Eq. 1)."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)

    def forward(
        self, h: Float[Tensor, "b n width"], by: Float[Tensor, "2 n half"] | None = None
    ) -> Float[Tensor, "b n width"]:
        q, k, v = self.qkv(h).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4)  # each (b, heads, n, head)
        if by is not None:
            q, k = turn(q, by), turn(k, by)
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """h ← h + γ₁ attention(adaLN₁ h);  h ← h + γ₂ mlp(adaLN₂ h): the identity at first, as both gates γ start at 0."""

    def __init__(self, width: int, head: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, head)
        self.mlp = nn.Sequential(linear(width, hidden), nn.GELU("tanh"), linear(hidden, width))
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Sequential(nn.SiLU(), linear(width, 6 * width, zero=True))

    def forward(
        self, h: Float[Tensor, "b n width"], c: Float[Tensor, "#b width"], by: Float[Tensor, "2 n half"] | None = None
    ) -> Float[Tensor, "b n width"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)
        h = h + gate1 * self.dropout(self.attention(modulate(self.norm(h), shift1, scale1), by))
        return h + gate2 * self.dropout(self.mlp(modulate(self.norm(h), shift2, scale2)))


class DiT(nn.Module):
    """A diffusion transformer for images (channels, rows, columns); rows and columns are multiples of patch.

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
    ) -> None:
        super().__init__()
        bounds = {
            "width": (width, 1, 65536),
            "depth": (depth, 1, 1024),
            "head": (head, 1, 65536),
            "patch": (patch, 1, 1024),
            "mlp_ratio": (mlp_ratio, 1, 64),
            "dropout": (dropout, 0, 0.99),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise InputError(f"dit: {name} must be at least {low} and at most {high}; got {value}.")
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
        self.from_time = nn.Sequential(
            Fourier(TIME_FEATURES), linear(TIME_FEATURES, width), nn.SiLU(), linear(width, width)
        )
        self.classes = classes  # which is also the label of no class
        self.from_label = LabelEmbedding(classes, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, head, round(width * mlp_ratio), dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), linear(width, 2 * width, zero=True))
        self.out = linear(width, channels * patch**2, zero=True)
        self.positions: Tensor | None
        self.rotary: Tensor | None
        grid = rows // patch, columns // patch
        self.register_buffer("positions", sincos(*grid, width) if positions == "sincos" else None, persistent=False)
        self.register_buffer("rotary", rotary(*grid, head) if positions == "rotary" else None, persistent=False)

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " #b"], label: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        if x.shape[1:] != self.shape:  # a transposed image would pass: it has as many patches
            raise InputError(
                f"dit: x must be a batch of shape (b, {', '.join(map(str, self.shape))}); got {tuple(x.shape)}."
            )
        c = self.from_time(t)
        if self.from_label is not None:
            null = torch.full((1,), self.from_label.null, device=x.device)
            c = c + self.from_label(null if label is None else label)
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
