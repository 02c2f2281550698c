"""A transformer over a chunk of actions, conditioned by its norms and by cross-attention to the observation.

Diffusion Policy's second head (Chi et al. 2023, arXiv:2303.04137, Section III-A, "Time-series diffusion transformer"),
with DiT's blocks (Peebles & Xie 2023, arXiv:2212.09748), the adaLN-Zero of which trains without a long warm-up.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from ..errors import InputError
from .clock import Perceptron
from .observation import Shapes, Summary
from .parts import SelfAttention, attend, check_batch, check_sizes, linear, modulate, positions, zeroed

__all__ = ["ActionTransformer", "ChunkBlock", "CrossAttention"]


class CrossAttention(nn.Module):
    """W_out softmax(q kᵀ / √head) v + b, q = W_q h + b: every action asks the keys and values of what is seen.

    Vaswani et al. 2017, arXiv:1706.03762, Section 3.2.3. h: (b, n, width); seen: (b, 2, heads, m, head), k and v;
    real: (b, m), which of these m tokens are there.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.q, self.out = linear(width, width), linear(width, width)

    def forward(
        self, h: Float[Tensor, "b n width"], seen: Float[Tensor, "#b 2 heads m head"], real: Bool[Tensor, "#b m"]
    ) -> Float[Tensor, "b n width"]:
        q = self.q(h).unflatten(2, (-1, self.head)).transpose(1, 2)
        k, v = seen.expand(h.shape[0], -1, -1, -1, -1).unbind(1)
        mask = real[:, None, None].expand(h.shape[0], -1, 1, -1)
        return self.out(attend(q, k, v, mask))


class ChunkBlock(nn.Module):
    """h ← h + γ attention(adaLN h), h ← h + γ cross(adaLN h, seen), h ← h + γ mlp(adaLN h), each γ 0 at first.

    adaLN h = norm(h) (1 + scale) + shift, all (shift, scale, γ) = W c + b (arXiv:2212.09748, Section 3.2).
    h: (b, n, width), c: (b, emb); seen, real: see CrossAttention.

    sees: whether it attends to what is seen.
    """

    def __init__(self, width: int, head: int, hidden: int, dropout: float, emb: int, sees: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, head)
        self.cross = CrossAttention(width, head) if sees else None
        self.mlp = nn.Sequential(linear(width, hidden), nn.SiLU(), linear(hidden, width))
        self.dropout = nn.Dropout(dropout)
        self.modulation = zeroed(nn.Linear(emb, (9 if sees else 6) * width))

    def forward(
        self, h: Float[Tensor, "b n width"], c: Float[Tensor, "#b emb"], seen: Tensor | None, real: Tensor | None
    ) -> Float[Tensor, "b n width"]:
        shift, scale, gate, *more = self.modulation(c)[:, None].chunk(9 if self.cross else 6, -1)
        h = h + gate * self.dropout(self.attention(modulate(self.norm(h), shift, scale)))
        if self.cross is not None:
            shift, scale, gate, *more = more
            h = h + gate * self.dropout(self.cross(modulate(self.norm(h), shift, scale), seen, real))
        shift, scale, gate = more
        return h + gate * self.dropout(self.mlp(modulate(self.norm(h), shift, scale)))


class ActionTransformer(nn.Module):
    """h = W x + b + positions;  h ← block(h, c, seen), `depth` times;  ŷ = W adaLN(h) + b, c = SiLU(time(t) + seen).

    x, ŷ: (b, horizon, action_dim); t: (b,) or (1,); called as network(x, t, state=…, images=…, prompt=…).


    width, depth, head, mlp_ratio, dropout: as in DiT. patch: actions of one token.
    emb: channels in which time and observation are added up; layers: residual layers on the observation before that.
    heads, channels, shift: of the images and the prompt; see Summary and ObservationEncoder. Their tokens and a learnt
    one, which stands for nothing, are what blocks attend to; where only the state is seen, they don't.

    All that writes to the output starts at zero, hence ŷ = 0. What depends on neither x nor t is `context`, made once
    per chunk: the observation's vector, and of its tokens each block's keys and values.
    """

    def __init__(
        self, horizon: int, action_dim: int, /, *, observation: Shapes,
        width: int = 96, depth: int = 4, head: int = 32, patch: int = 1, mlp_ratio: float = 4.0, dropout: float = 0.0,
        emb: int = 256, layers: int = 2, heads: int = 16, channels: int = 64, shift: int = 4, spans: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(
            "action_transformer", horizon=(horizon, 1, 65536), action_dim=(action_dim, 1, 65536),
            width=(width, 1, 65536), depth=(depth, 1, 1024), head=(head, 1, 65536), patch=(patch, 1, horizon),
            mlp_ratio=(mlp_ratio, 1.0, 64.0), dropout=(dropout, 0, 0.99), emb=(emb, 1, 65536), layers=(layers, 0, 64),
        )  # fmt: skip
        if width % head or width % 4:
            raise InputError(f"action_transformer: width must be a multiple of 4 and of head = {head}; got {width}.")
        self.shape, self.head, self.patch = (horizon, action_dim), head, patch
        self.fill = -horizon % patch
        self.observation = Summary(
            observation, emb, width=width, depth=layers, heads=heads, channels=channels, shift=shift
        )
        sees = self.observation.encoder is not None
        if sees:
            self.nothing = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.norm_seen = nn.LayerNorm(width)
            self.keys = linear(width, depth * 2 * width)
        self.spans = spans
        self.from_time = Perceptron(64, emb, linear, spans)
        self.from_action = linear(patch * action_dim, width)
        self.positions = nn.Parameter(positions(-(-horizon // patch), width))
        self.blocks = nn.ModuleList(
            ChunkBlock(width, head, round(width * mlp_ratio), dropout, emb, sees) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(emb, 2 * width))
        self.out = zeroed(linear(width, patch * action_dim))

    def context(self, **observation: Tensor) -> dict[str, Any]:
        """Everything that depends on neither x nor t; each tensor's first axis is the batch."""
        observed, tokens, real = self.observation(**observation)
        if tokens is None or real is None:
            return {"observed": observed}
        tokens = torch.cat([self.nothing.expand(tokens.shape[0], -1, -1), tokens], 1)
        seen = self.keys(self.norm_seen(tokens)).unflatten(2, (len(self.blocks), 2, -1, self.head))
        return {"observed": observed, "seen": seen.permute(0, 2, 3, 4, 1, 5), "real": pad(real, (1, 0), value=True)}

    def forward(
        self, x: Float[Tensor, "b h a"], t: Float[Tensor, " #b"], *,
        span: Float[Tensor, " #b"] | None = None, context: dict[str, Any] | None = None, **observation: Tensor,
    ) -> Float[Tensor, "b h a"]:  # fmt: skip
        check_batch("action_transformer", x, self.shape)
        context = self.context(**observation) if context is None else context
        seen, real = context.get("seen"), context.get("real")
        c = silu(self.from_time(t, span) + context["observed"])
        h = pad(x, (0, 0, 0, self.fill)) if self.fill else x
        h = self.from_action(h.unflatten(1, (-1, self.patch)).flatten(2)) + self.positions
        for i, block in enumerate(self.blocks):
            h = block(h, c, None if seen is None else seen[:, i], real)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        return (
            self.out(modulate(self.norm(h), shift, scale))
            .unflatten(2, (self.patch, -1))
            .flatten(1, 2)[:, : self.shape[0]]
        )
