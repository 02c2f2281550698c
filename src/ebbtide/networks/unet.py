"""The U-Net of images: down to small maps, through the middle, and up again, with a skip across at every stage.

Ho et al. 2020, arXiv:2006.11239, Appendix B, after Ronneberger et al. 2015, arXiv:1505.04597. Scale and shift by the
time, and attention in several heads, are those of Dhariwal & Nichol 2021, arXiv:2105.05233, Section 3.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..specs import pick
from .clock import Attributes, Fourier, Perceptron, Timestep, label_embedding
from .fused import Conv3x3
from .parts import NormSiLU, attend, check_sizes, in_forward_mode, largest_divisor, whole_numbers, zeroed

__all__ = [
    "CONDITIONING", "MIDDLE", "MOST_LEVELS", "TIME_KINDS", "Downsample", "ImageBlock", "PixelAttention", "UNet",
    "Upsample",
]  # fmt: skip

CONDITIONING = ("scale_shift", "add")
TIME_KINDS = ("fourier", "timestep")
MIDDLE = ("attention", "unnormed", "plain")
MOST_LEVELS = 16  # after which images of 65,536 pixels a side are a single one


class PixelAttention(nn.Module):
    """x + W_out softmax(q kᵀ / √head) v + b, (q, k, v) = W_qkv norm(x): each pixel asks all pixels of the map.

    Vaswani et al. 2017, arXiv:1706.03762, Eq. 1; in a U-Net: Ho et al. 2020, arXiv:2006.11239, Appendix B.
    x: (b, channels, rows, columns). head: the channels of a head at most; it has as many as divide the channels.
    """

    def __init__(self, channels: int, *, head: int, groups: int, eps: float, norm: bool = True) -> None:
        super().__init__()
        self.heads = channels // largest_divisor(channels, head)
        self.norm = nn.GroupNorm(largest_divisor(channels, groups), channels, eps) if norm else nn.Identity()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        x = x.contiguous() if in_forward_mode(x) else x  # a norm of channels-last maps has no forward mode
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return x + self.out(attend(q, k, v)).transpose(1, 2).unflatten(2, x.shape[2:])


class ImageBlock(nn.Module):
    """h = conv₁ SiLU(norm x);  h = conv₂ SiLU(norm(h) (1 + scale) + shift);  x + h, then attention if there is one.

    (scale, shift) = W emb + b (arXiv:2105.05233, Section 3); with "add" it is norm(h + W emb + b) instead, as in Ho et
    al. 2020. x: (b, into, rows, columns), emb: (b, e), the output: (b, out, rows, columns); x is made that wide by W x.

    conditioning: "scale_shift", as above, or "add".
    """

    def __init__(
        self, into: int, out: int, attention: nn.Module | None = None, *,
        emb: int, conditioning: str, groups: int, eps: float, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.adds = conditioning == "add"
        self.norm1 = NormSiLU(into, groups, eps)
        self.conv1 = Conv3x3(into, out)
        self.from_emb = nn.Linear(emb, out if self.adds else 2 * out)
        self.norm2 = NormSiLU(out, groups, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(Conv3x3(out, out))
        self.shortcut = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        self.attention = attention or nn.Identity()

    def forward(self, x: Float[Tensor, " b into h w"], emb: Float[Tensor, " #b e"]) -> Float[Tensor, " b out h w"]:
        h = self.conv1(self.norm1(x))
        if self.adds:
            h = self.norm2(h + self.from_emb(emb)[:, :, None, None])
        else:
            scale, shift = self.from_emb(emb).chunk(2, 1)
            h = self.norm2(h, scale, shift)
        h = self.shortcut(x) + self.conv2(self.dropout(h))
        return self.attention(h)


class Downsample(nn.Module):
    """A convolution of stride 2: (b, c, h, w) → (b, c, ⌈h/2⌉, ⌈w/2⌉); asymmetric: padded below and right, as Ho's."""

    def __init__(self, channels: int, asymmetric: bool) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Float[Tensor, " b c h w"], emb: Float[Tensor, " #b e"]) -> Float[Tensor, " b c h2 w2"]:
        if self.asymmetric:
            x = F.pad(x, (0, 1 + x.shape[3] % 2, 0, 1 + x.shape[2] % 2))
        return self.conv(x)


class Upsample(nn.Module):
    """conv(x at the nearest neighbour of each pixel): to the rows and columns of the skip that comes next, `like`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Float[Tensor, " b c h w"], like: Float[Tensor, " b c2 h2 w2"]) -> Float[Tensor, " b c h2 w2"]:
        return self.conv(F.interpolate(x, size=like.shape[2:]))


class UNet(nn.Module):
    """ŷ = W SiLU(norm(up(middle(down(W x))))), emb = SiLU(time(t) + E[label]) in every block: Ho et al., Appendix B.

    x, ŷ: (b, channels, rows, columns), rows and columns even; t: (b,) or (1,); label: (b,) or None.
    given: what x is drawn given besides, of this shape, NaN where it isn't known, None for nothing known. An image
    (channels, rows, columns), such as one of fewer pixels, is enlarged to x's size and stands beside it as further
    channels, as in SR3 (Saharia et al. 2021, arXiv:2104.07636, Section 2.4); k numbers, (k,), are added to emb.

    width, multipliers: level l has width · multipliers[l] channels, and half the rows and columns of the one before.
    blocks: residual blocks of a level on the way down; there is one more on the way up.
    attention: a flag for each level; head: the channels of one head, or the next smaller divisor of a level's channels.
    dropout, groups, eps: of each block, and of its norms, which have as many groups up to that as divide its channels.
    conditioning: time and label scale and shift inside each block ("scale_shift") or are added to its maps ("add").
    patch: squares of patch × patch pixels are the channels of one, in and out; 2 costs a quarter.
    time: "fourier" features of t, or "timestep": DDPM's sinusoids of timesteps · t - first (see Timestep).
    middle: between its two blocks is "attention", attention "unnormed", or nothing ("plain").
    asymmetric: see Downsample. checkpointing: recompute blocks on the way back: less memory, a third more time.

    The last layer of each block, of attention and of the whole start at zero, hence ŷ = 0. `label` None stands for the
    null label. The weights are in torch.channels_last, in which convolutions are fastest and x follows by itself.
    """

    def __init__(
        self, channels: int, rows: int, columns: int, classes: int = 0, /, *,
        width: int = 32, multipliers: str = "1-2-2-2", blocks: int = 2, attention: str = "0-1-0-0", head: int = 64,
        dropout: float = 0.1, groups: int = 8, eps: float = 1e-5, conditioning: str = "scale_shift", patch: int = 1,
        time: str = "fourier", timesteps: int = 1000, first: int = 1, freq_shift: int = 0, middle: str = "attention",
        asymmetric: bool = False, checkpointing: bool = False, spans: bool = False, given: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(
            "unet", channels=(channels, 1, 2**31), rows=(rows, 1, 2**31), columns=(columns, 1, 2**31),
            classes=(classes, 0, 2**31),
            width=(width, 1, 65536), blocks=(blocks, 1, 64), head=(head, 1, 65536), eps=(eps, 1e-12, 1),
            groups=(groups, 1, 65536), dropout=(dropout, 0, 0.99), patch=(patch, 1, 64),
            timesteps=(timesteps, 1, 10**6), first=(first, 0, 1), freq_shift=(freq_shift, 0, 1),
        )  # fmt: skip
        pick(CONDITIONING, conditioning, "unet: conditioning")
        pick(TIME_KINDS, time, "unet: time")
        pick(MIDDLE, middle, "unet: middle")
        if rows % 2 or columns % 2 or rows % patch or columns % patch:
            wanted = "even" if patch == 1 else f"even and multiples of patch = {patch}"
            raise InputError(f"unet: the rows and columns of an image must be {wanted}; got {rows} × {columns}.")
        factors = whole_numbers("unet: multipliers", multipliers, 1, 1024)
        flags = whole_numbers("unet: attention", attention, 0, 1)
        if len(factors) > MOST_LEVELS:
            raise InputError(f"unet: multipliers must be at most {MOST_LEVELS} levels; got {len(factors)}.")
        if len(factors) != len(flags):
            raise InputError(f"unet: attention must have a flag for each of {multipliers!r}; got {attention[:60]!r}.")
        widths, emb = [width * factor for factor in factors], 4 * width * factors[0]
        self.shape, self.widths, self.blocks, self.attention = (channels, rows, columns), widths, blocks, flags
        self.classes, self.patch, self.checkpointing = classes, patch, checkpointing

        block = partial(ImageBlock, emb=emb, conditioning=conditioning, groups=groups, eps=eps, dropout=dropout)
        attending = partial(PixelAttention, head=head, groups=groups, eps=eps)
        features = max(2, widths[0] // 2 * 2)
        clock = Fourier(features) if time == "fourier" else Timestep(features, timesteps, first, freq_shift)
        self.spans = spans
        self.from_time = Perceptron(clock, emb, spans=spans)
        self.from_label = label_embedding(classes, emb)

        self.given = tuple(given)
        self.from_given = Attributes(self.given[0], emb) if len(self.given) == 1 else None
        beside = self.given[0] + 1 if len(self.given) == 3 else 0
        self.stem = Conv3x3((channels + beside) * patch**2, widths[0])
        self.down, skips = nn.ModuleList(), [now := widths[0]]
        for level, (out, flag) in enumerate(zip(widths, flags)):
            for _ in range(blocks):
                self.down.append(block(now, out, attending(out) if flag else None))
                skips.append(now := out)
            if level < len(widths) - 1:
                self.down.append(Downsample(out, asymmetric))
                skips.append(out)
        inner = None if middle == "plain" else attending(now, norm=middle == "attention")
        self.middle = nn.ModuleList([block(now, now, inner), block(now, now)])
        self.up = nn.ModuleList()
        for level, (out, flag) in reversed(list(enumerate(zip(widths, flags)))):
            for _ in range(blocks + 1):
                self.up.append(block(now + skips.pop(), out, attending(out) if flag else None))
                now = out
            if level:
                self.up.append(Upsample(out))
        self.norm = NormSiLU(now, groups, eps)
        self.out = zeroed(Conv3x3(now, channels * patch**2))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Float[Tensor, " b c h w"],
        t: Float[Tensor, " #b"],
        label: Int[Tensor, " b"] | None = None,
        span: Float[Tensor, " #b"] | None = None,
        given: Float[Tensor, " #b *g"] | None = None,
    ) -> Float[Tensor, " b c h w"]:
        emb = self.embed(t, label, span)
        if self.from_given is not None:
            emb = emb + F.silu(self.from_given(given))
        elif self.given:
            x = torch.cat([x, self.beside(x, given)], 1)
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = [h]
        for stage in self.down:
            h = self.run(stage, h, emb)
            skips.append(h)
        for stage in self.middle:
            h = self.run(stage, h, emb)
        for stage in self.up:
            if isinstance(stage, Upsample):
                h = stage(h, like=skips[-1])
            else:
                h = self.run(stage, torch.cat([h, skips.pop()], 1), emb)
        return F.pixel_shuffle(self.out(self.norm(h)), self.patch)

    def embed(
        self, t: Float[Tensor, " #b"], label: Int[Tensor, " b"] | None, span: Float[Tensor, " #b"] | None = None
    ) -> Float[Tensor, " #b e"]:
        """The conditions of every block: time, span and label."""
        emb = self.from_time(t, span)
        if self.from_label is not None:
            emb = emb + self.from_label(label)
        return F.silu(emb)

    def beside(self, x: Float[Tensor, " b c h w"], given: Tensor | None) -> Float[Tensor, " b k h w"]:
        """A given image at x's size, and a channel that is 1 where it is known; both are 0 elsewhere."""
        if given is None:
            return x.new_zeros(len(x), self.given[0] + 1, *x.shape[2:])
        known = (~given.isnan().any(1, keepdim=True)).to(x)
        image = F.interpolate(given.to(x).nan_to_num(0.0) * known, x.shape[2:], mode="bicubic")
        mask = F.interpolate(known, x.shape[2:])
        return torch.cat([image * mask, mask], 1).expand(len(x), -1, -1, -1)

    def run(self, stage: nn.Module, *inputs: Tensor) -> Tensor:
        """stage(*inputs); with checkpointing only the inputs are kept for the way back."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)
