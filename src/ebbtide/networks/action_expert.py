"""π0's head: an action expert that attends to what a vision-language model, or a small encoder, made of an observation.

Black et al. 2024, arXiv:2410.24164, Section IV and Appendix B; variant "pi05" is that of arXiv:2504.16054.

Three blocks of tokens, each of which sees itself and the blocks before it, never those after:

    images, prompt   width of the prefix, its own weights    the prefix expert
    state            one token                               ⎫ the action expert
    actions          H tokens, one a step of the chunk       ⎭

The two experts share nothing but the attention: in layer l the queries of a token meet the keys and values, in layer l,
of all the tokens that it sees. As no block sees a later one, and neither x nor t reaches the first two, their keys and
values are computed once per chunk, `ActionExpert.context`; a step of a sampler then runs the H action tokens alone.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, pad
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..specs import pick
from .clock import PERIOD, Span, periodic, with_span
from .observation import ObservationEncoder, check, check_shapes
from .parts import AdaRMSNorm, RMSNorm, angles, attend, check_batch, check_sizes, rotary, token_places, turn, zeroed

__all__ = [
    "BINS", "VARIANTS", "ActionExpert", "Expert", "GemmaLayer", "Memory", "SmallPrefix", "add", "as_mask", "digitise",
    "token_turns", "unbiased",
]  # fmt: skip

VARIANTS = ("pi0", "pi05")
BINS = 256
Memory = Sequence[tuple[Tensor, Tensor]]  # keys and values of each layer, both (b, kv_heads, m, head)


def digitise(state: Float[Tensor, "*b s"]) -> Int[Tensor, "*b s"]:
    """The state's bin of 256 even ones between -1 and 1, counted from 0; beyond them the first or the last (π0.5)."""
    return ((state + 1) * (BINS / 2)).floor().long().clamp(0, BINS - 1)


def as_mask(present: Bool[Tensor, "b m"]) -> Bool[Tensor, "b 1 1 m"] | None:
    """A mask of the tokens present, for every query of a block. None if all are, which is faster."""
    if not torch.compiler.is_compiling() and bool(present.all()):
        return None
    return present[:, None, None]


def token_turns(place: Int[Tensor, "b n"], head: int) -> Float[Tensor, "2 b 1 n head"]:
    """`rotary` of the tokens' places, for all heads. place: of each token, from 0."""
    return rotary(angles(place[:, None], head // 2))


def unbiased(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without a bias whose weights, drawn from N(0, 1 / inputs), keep the variance, as in π0's code.

    inputs, outputs: features before and after.
    """
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class GemmaLayer(nn.Module):
    """h ← h + W_o attention(norm₁ h);  h ← h + W_d (gelu(W_g n) · W_u n), n = norm₂ h (arXiv:2403.08295, Section 2).

    h: (b, n, width). With a condition c, (b, width), the norms are adaptive and gate both sums (AdaRMSNorm).
    blind: it has keys and values, and nothing after them.
    heads, kv_heads: heads that ask, and that answer.
    """

    def __init__(
        self, width: int, hidden: int, heads: int, kv_heads: int, head: int, adaptive: bool, blind: bool
    ) -> None:
        super().__init__()
        norm = AdaRMSNorm if adaptive else RMSNorm
        self.counts = (0 if blind else heads, kv_heads, kv_heads)
        self.head = head
        self.norm1 = norm(width)
        self.qkv = unbiased(width, sum(self.counts) * head)
        if not blind:
            self.out = unbiased(heads * head, width)
            self.norm2 = norm(width)
            self.gate_up = unbiased(width, 2 * hidden)
            self.down = unbiased(hidden, width)

    def ask(
        self, h: Float[Tensor, "b n width"], by: Tensor, past: tuple[Tensor, Tensor] | None, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q of these tokens; k and v of these and of those before, (b, kv_heads, m, head); and the gate.

        past: k and v of the tokens before; None for none.
        """
        n, gate = self.norm1(h, c)
        qkv = self.qkv(n).unflatten(2, (-1, self.head)).transpose(1, 2)
        queries, keys, _ = self.counts
        qk, v = turn(qkv[:, : queries + keys], by), qkv[:, queries + keys :]
        q, k = qk[:, :queries], qk[:, queries:]
        if past is not None:
            before = (part.to(k.dtype).expand(h.shape[0], -1, -1, -1) for part in past)
            k, v = (torch.cat(pair, 2) for pair in zip(before, (k, v)))
        return q, k, v, gate

    def answer(
        self,
        h: Float[Tensor, "b n width"],
        asked: tuple[Tensor, Tensor, Tensor, Tensor | None],
        mask: Tensor | None,
        c: Tensor | None = None,
    ) -> Float[Tensor, "b n width"]:
        """The tokens after the layer. asked: as `ask` returns it."""
        q, k, v, gate = asked
        h = add(h, self.out(attend(q, k, v, mask)), gate)
        n, gate = self.norm2(h, c)
        gating, up = self.gate_up(n).chunk(2, -1)
        return add(h, self.down(gelu(gating, approximate="tanh") * up), gate)


def add(h: Tensor, more: Tensor, gate: Tensor | None) -> Tensor:
    """h + gate · more."""
    return h + more if gate is None else torch.addcmul(h, more, gate.to(h.dtype)).to(h.dtype)


class Expert(nn.Module):
    """h ← layerᵢ(h), i = 1 … depth;  norm(h): a Gemma without its words, h and the output (b, n, width).

    remembers: it only makes keys and values for another expert to see; of its last layer nothing else is needed.
    checkpointing: recompute the layers of `forward` on the way back, to save memory.
    heads, kv_heads: heads that ask, and that answer. adaptive: norms take a condition.
    """

    layers: Any  # of GemmaLayer

    def __init__(
        self, *, width: int, hidden: int, depth: int, heads: int, kv_heads: int, head: int,
        adaptive: bool = False, remembers: bool = False, checkpointing: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.checkpointing = checkpointing
        self.layers = nn.ModuleList(
            GemmaLayer(width, hidden, heads, kv_heads, head, adaptive, blind=remembers and i == depth - 1)
            for i in range(depth)
        )
        if not remembers:
            self.norm = AdaRMSNorm(width) if adaptive else RMSNorm(width)

    def remember(
        self, h: Float[Tensor, "b n width"], by: Tensor, mask: Tensor | None, memory: Memory | None = None
    ) -> Memory:
        """Keys and values of every layer: of these tokens, after those of the memory."""
        kept = []
        for layer, past in zip(self.layers, memory or repeat(None)):
            asked = layer.ask(h, by, past)
            kept.append(asked[1:3])
            if layer is not self.layers[-1]:
                h = layer.answer(h, asked, mask)
        return kept

    def forward(
        self, h: Float[Tensor, "b n width"], by: Tensor, mask: Tensor | None, memory: Memory, c: Tensor | None = None
    ) -> Float[Tensor, "b n width"]:
        def through(layer: Any, h: Tensor, past: tuple[Tensor, Tensor]) -> Tensor:
            answered: Tensor = layer.answer(h, layer.ask(h, by, past, c), mask, c)
            return answered

        for layer, past in zip(self.layers, memory):
            if self.checkpointing and torch.is_grad_enabled():
                h = checkpoint(through, layer, h, past, use_reentrant=False)
            else:
                h = through(layer, h, past)
        return self.norm(h, c)[0]


class SmallPrefix(nn.Module):
    """The prefix of a policy trained from scratch: ObservationEncoder's tokens, through a separate expert.

    With the variant pi05 the state is here too: a token for each of its numbers, by bins of 256. It must
    lie in [-1, 1], by quantiles or min_max; see ActionExpert.

    sizes: of its `Expert`.
    """

    def __init__(self, observation: Mapping[str, tuple[int, ...]], *, width: int, **sizes: Any) -> None:
        super().__init__()
        seen = {name: shape for name, shape in observation.items() if name != "state"}
        self.encoder = ObservationEncoder(seen, width) if seen else None
        self.bin: nn.Embedding | None = None
        if "state" in observation:
            self.bin = nn.Embedding(BINS, width)
            self.place = nn.Parameter(torch.randn(math.prod(observation["state"]), width))
        self.head = sizes["head"]
        self.expert = Expert(width=width, remembers=True, **sizes)

    def forward(self, *, state: Tensor | None = None, **observation: Tensor) -> tuple[Memory, Bool[Tensor, "b n"]]:
        """Keys and values of every layer, and which tokens are there: not a missing image's, not a prompt's padding.

        state: (b, o, s), in [-1, 1]; pi05's alone.
        """
        parts = [] if self.encoder is None else [self.encoder(**observation)]
        if state is not None and self.bin is not None:
            tokens = self.bin(digitise(state).flatten(1)) + self.place
            parts.append((tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)))
        h, present = (torch.cat(each, 1) for each in zip(*parts))
        return self.expert.remember(h, token_turns(token_places(present), self.head), as_mask(present)), present


class ActionExpert(nn.Module):
    """ŷ = W expert(mlp(W x, φ(t)); state, prefix(images, prompt)) + b: π0's (arXiv:2410.24164, Appendix B).

    x, ŷ: (b, horizon, action_dim); t: (b,) or (1,). observation: the shapes of `state`, `images` and `prompt` without
    the batch, which are given by name. φ: `periodic`.

    width, hidden: channels of an action's token, and of the gated MLP of a layer (0: 4 width). depth: layers.
    heads, kv_heads, head: heads that ask, heads that answer them (a divisor of heads), and the channels of one.
    prefix_width, prefix_hidden: the same of the prefix's tokens (0: as width; 4 prefix_width).
    pad_to: actions and state are padded with zeros to this width (0: they aren't); the output is cut. π0's is 32.
    variant: "pi0" or "pi05". prefix: a module in place of SmallPrefix, such as PaliGemma, with its `sizes`.
    checkpointing: recompute the actions' layers on the way back, to save memory.

    pi0: the time is mixed into the actions' tokens by an MLP; the state, its o steps in a row, is one token.
    pi05: the time is in the norms (AdaRMSNorm). There is no state token: the state is given in 256 bins of [-1, 1] as
    part of the prefix. It must be normalised by quantiles or min_max, never by mean_std, which puts about a third of
    all numbers beyond [-1, 1]: only their sign would be left.

    π0's published weights expect padded actions whose padding is noise like the rest: for them let `action_dim` be 32.
    The last layer starts at zero, hence ŷ = 0.
    """

    def __init__(
        self, horizon: int, action_dim: int, /, *,
        observation: Mapping[str, tuple[int, ...]],
        width: int = 128, hidden: int = 0, depth: int = 4, heads: int = 4, kv_heads: int = 1, head: int = 32,
        prefix_width: int = 0, prefix_hidden: int = 0, pad_to: int = 0, variant: str = "pi0",
        prefix: nn.Module | None = None, checkpointing: bool = False, spans: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(
            "action_expert", horizon=(horizon, 1, 65536), action_dim=(action_dim, 1, 65536), width=(width, 4, 65536),
            hidden=(hidden, 0, 2**20), depth=(depth, 1, 1024), heads=(heads, 1, 1024), kv_heads=(kv_heads, 1, heads),
            head=(head, 2, 65536), prefix_width=(prefix_width, 0, 65536), prefix_hidden=(prefix_hidden, 0, 2**20),
            pad_to=(pad_to, 0, 65536),
        )  # fmt: skip
        pick(VARIANTS, variant, "action_expert: variant")
        for name, value in (("width", width), ("head", head)):
            if value % 2:  # a sine and a cosine
                raise InputError(f"action_expert: {name} must be even; got {value}.")
        if heads % kv_heads:
            raise InputError(f"action_expert: kv_heads must divide heads, which is {heads}; got {kv_heads}.")
        check_shapes(observation)
        self.shapes = {name: tuple(shape) for name, shape in observation.items()}
        numbers = math.prod(self.shapes.get("state", (0,)))
        for what, value in (("action_dim", action_dim), ("the state's numbers", 0 if variant == "pi05" else numbers)):
            if 0 < pad_to < value:
                raise InputError(f"action_expert: pad_to must be at least {what}, {value}; got {pad_to}.")
        self.shape, self.head = (horizon, action_dim), head
        self.pad_action, self.pad_state = (max(0, pad_to - n) for n in (action_dim, numbers))
        self.width, self.adaptive = width, variant == "pi05"

        sizes: dict[str, Any] = {"depth": depth, "heads": heads, "kv_heads": kv_heads, "head": head}
        self.seen = tuple(name for name in self.shapes if name != "state" or self.adaptive)
        self.prefix = prefix
        if prefix is None and self.seen:
            into = prefix_width or width
            seen = {name: self.shapes[name] for name in self.seen}
            self.prefix = SmallPrefix(seen, width=into, hidden=prefix_hidden or 4 * into, **sizes)
        elif prefix is not None and prefix.sizes != sizes:
            raise InputError(f"action_expert: the prefix has {prefix.sizes}, and the actions must too; got {sizes}.")
        self.from_action = nn.Linear(action_dim + self.pad_action, width)
        self.from_state = nn.Linear(numbers + self.pad_state, width) if numbers and not self.adaptive else None
        inner = nn.Linear(width if self.adaptive else 2 * width, width)
        self.spans, self.shortest_period = spans, PERIOD
        self.from_span = Span(width) if spans else None
        self.time = nn.Sequential(inner, nn.SiLU(), nn.Linear(width, width))
        self.expert = Expert(
            width=width, hidden=hidden or 4 * width, adaptive=self.adaptive, checkpointing=checkpointing, **sizes
        )
        self.out = zeroed(nn.Linear(width, action_dim + self.pad_action))

    def context(self, **observation: Tensor) -> dict[str, Any]:
        """Everything that depends on neither x nor t: what the actions will see, and where they stand.

        memory: keys and values of the prefix and the state, layer by layer. mask: which of these and of the actions are
        there (None: all). by: the actions' token_places, for `turn`. Of one observation it serves a batch of any size.
        """
        check(self.shapes, observation)
        weight = self.from_action.weight
        b = next(iter(observation.values())).shape[0]  # not len, which a traced number has none of
        memory: Memory | None = None
        present = torch.ones(b, 0, dtype=torch.bool, device=weight.device)
        if self.prefix is not None:
            own = {name: value for name, value in observation.items() if name != "state" or self.adaptive}
            memory, present = self.prefix(**own)
        if self.from_state is not None:
            present = pad(present, (0, 1), value=True)
            h = self.from_state(pad(observation["state"].flatten(1), (0, self.pad_state)).to(weight.dtype))
            by = token_turns(token_places(present)[:, -1:], self.head)
            memory = self.expert.remember(h[:, None], by, as_mask(present), memory)
        horizon = self.shape[0]
        present = pad(present, (0, horizon), value=True)
        by = token_turns(token_places(present)[:, -horizon:], self.head)
        return {"memory": memory, "mask": as_mask(present), "by": by}

    def forward(
        self,
        x: Float[Tensor, "b h a"],
        t: Float[Tensor, " #b"],
        *,
        span: Float[Tensor, " #b"] | None = None,
        context: dict[str, Any] | None = None,
        **observation: Tensor,
    ) -> Float[Tensor, "b h a"]:
        check_batch("action_expert", x, self.shape)
        if context is None:
            context = self.context(**observation)
        weight = self.from_action.weight
        h, c = self.from_action(pad(x, (0, self.pad_action)).to(weight.dtype)), None
        time = with_span(periodic(t, self.width).to(weight.dtype), self.from_span, span)
        if self.adaptive:
            c = nn.functional.silu(self.time(time))
        else:
            h = self.time(torch.cat([h, time[:, None].expand_as(h)], 2))
        h = self.expert(h.to(x.dtype), context["by"], context["mask"], context["memory"], c)
        return self.out(h)[..., : self.shape[1]].to(x.dtype)
