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

from ..errors import InputError
from ..specs import pick
from .attention import AdaRMSNorm, RMSNorm, attend, places, rotary, turn
from .observation import ObservationEncoder, check, check_shapes

VARIANTS = ("pi0", "pi05")
BINS = 256
Memory = Sequence[tuple[Tensor, Tensor]]  # keys and values of each layer, both (b, kv_heads, m, head)


def periodic(
    t: Float[Tensor, " b"], features: int, shortest: float = 4e-3, longest: float = 4.0
) -> Float[Tensor, "b features"]:
    """sin(2πt/p), cos(2πt/p) for periods p spaced evenly in log from 4e-3 to 4, in float64: 2πt/p is up to 1571."""
    i = torch.arange(features // 2, dtype=torch.float64, device=t.device) / (features // 2 - 1)
    angle = 2 * math.pi / shortest * t[:, None].double() * (shortest / longest) ** i
    return torch.cat([angle.sin(), angle.cos()], 1)


def digitise(state: Float[Tensor, "*b s"]) -> Int[Tensor, "*b s"]:
    """The state's bin of 256 even ones between -1 and 1, counted from 0; beyond them the first or the last (π0.5)."""
    return ((state + 1) * (BINS / 2)).floor().long().clamp(0, BINS - 1)


def as_mask(present: Bool[Tensor, "b m"]) -> Bool[Tensor, "b 1 1 m"] | None:
    """What every query of a block may see: the tokens that are there. None where all are, which is faster."""
    if not torch.compiler.is_compiling() and bool(present.all()):
        return None
    return present[:, None, None]


class Layer(nn.Module):
    """h ← h + W_o attention(norm₁ h);  h ← h + W_d (gelu(W_g n) · W_u n), n = norm₂ h: a Gemma layer.

    With a condition c the norms are adaptive and gate both sums. blind: it has keys and values, and nothing after them.
    """

    def __init__(
        self, width: int, hidden: int, heads: int, kv_heads: int, head: int, adaptive: bool, blind: bool
    ) -> None:
        super().__init__()
        norm = AdaRMSNorm if adaptive else RMSNorm
        self.counts = (0 if blind else heads, kv_heads, kv_heads)
        self.head = head
        self.norm1 = norm(width)
        self.qkv = linear(width, sum(self.counts) * head)
        if not blind:
            self.out = linear(heads * head, width)
            self.norm2 = norm(width)
            self.gate_up = linear(width, 2 * hidden)
            self.down = linear(hidden, width)

    def ask(
        self, h: Float[Tensor, "b n width"], by: Tensor, past: tuple[Tensor, Tensor] | None, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q of these tokens; k and v of these and of those before, (b, kv_heads, m, head); and the gate."""
        n, gate = self.norm1(h, c)
        qkv = self.qkv(n).unflatten(2, (-1, self.head)).transpose(1, 2)
        queries, keys, _ = self.counts
        qk, v = turn(qkv[:, : queries + keys], by), qkv[:, queries + keys :]
        q, k = qk[:, :queries], qk[:, queries:]
        if past is not None:
            before = (part.to(k.dtype).expand(len(h), -1, -1, -1) for part in past)
            k, v = (torch.cat(pair, 2) for pair in zip(before, (k, v)))
        return q, k, v, gate

    def answer(
        self,
        h: Float[Tensor, "b n width"],
        asked: tuple[Tensor, Tensor, Tensor, Tensor | None],
        mask: Tensor | None,
        c: Tensor | None = None,
    ) -> Float[Tensor, "b n width"]:
        """What the tokens are after the layer."""
        q, k, v, gate = asked
        h = add(h, self.out(attend(q, k, v, mask)), gate)
        n, gate = self.norm2(h, c)
        gating, up = self.gate_up(n).chunk(2, -1)
        return add(h, self.down(gelu(gating, approximate="tanh") * up), gate)


def add(h: Tensor, more: Tensor, gate: Tensor | None) -> Tensor:
    """h + gate · more."""
    return h + more if gate is None else torch.addcmul(h, more, gate.to(h.dtype)).to(h.dtype)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Without a bias, and weights that keep the variance, as in π0's code."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class Expert(nn.Module):
    """A Gemma without its words: `depth` layers and a last norm.

    remembers: it only makes keys and values for another expert to see; of its last layer nothing else is needed.
    """

    layers: Any  # of Layer

    def __init__(
        self, *, width: int, hidden: int, depth: int, heads: int, kv_heads: int, head: int,
        adaptive: bool = False, remembers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(width, hidden, heads, kv_heads, head, adaptive, blind=remembers and i == depth - 1)
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
        for layer, past in zip(self.layers, memory):
            h = layer.answer(h, layer.ask(h, by, past, c), mask, c)
        return self.norm(h, c)[0]


class SmallPrefix(nn.Module):
    """The prefix of a policy trained from scratch: ObservationEncoder's tokens, through an expert of their own.

    With the variant pi05 the state is here too: a token for each of its numbers, which says its bin of 256. It must
    lie in [-1, 1], by quantiles or min_max; see ActionExpert.
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
        """Keys and values of every layer, and which tokens are there: not a missing image's, not a prompt's padding."""
        parts = [] if self.encoder is None else [self.encoder(**observation)]
        if state is not None and self.bin is not None:
            tokens = self.bin(digitise(state).flatten(1)) + self.place
            parts.append((tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)))
        h, present = (torch.cat(each, 1) for each in zip(*parts))
        return self.expert.remember(h, rotary(places(present), self.head), as_mask(present)), present


class ActionExpert(nn.Module):
    """ŷ of a chunk of `horizon` actions, from an observation of `state`, `images` and `prompt` in these shapes.

    width, hidden: channels of an action's token, and of the gated MLP of a layer (0: 4 width). depth: layers.
    heads, kv_heads, head: heads that ask, heads that answer them (a divisor of heads), and the channels of one.
    prefix_width, prefix_hidden: the same of the prefix's tokens (0: as width; 4 prefix_width).
    pad_to: actions and state are padded with zeros to this width (0: they aren't); the output is cut. π0's is 32.
    variant: "pi0" or "pi05". prefix: a module in place of SmallPrefix, such as PaliGemma, with its `sizes`.

    pi0: the time is mixed into the actions' tokens by an MLP; the state, its o steps in a row, is one token.
    pi05: the time is in the norms (AdaRMSNorm). There is no state token: the state is told in 256 bins of [-1, 1] as
    part of the prefix. It must be normalised by quantiles or min_max, never by mean_std, which puts about a third of
    all numbers beyond [-1, 1]: only their sign would be left.

    π0's published weights know padded actions whose padding is noise like the rest: for them let `action_dim` be 32.
    The last layer starts at zero, hence ŷ = 0. `label` is of no use here.
    """

    def __init__(
        self, horizon: int, action_dim: int, classes: int = 0, /, *,
        observation: Mapping[str, tuple[int, ...]],
        width: int = 128, hidden: int = 0, depth: int = 4, heads: int = 4, kv_heads: int = 1, head: int = 32,
        prefix_width: int = 0, prefix_hidden: int = 0, pad_to: int = 0, variant: str = "pi0",
        prefix: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value, low, high in (
            ("horizon", horizon, 1, 65536), ("action_dim", action_dim, 1, 65536), ("width", width, 4, 65536),
            ("hidden", hidden, 0, 2**20), ("depth", depth, 1, 1024), ("heads", heads, 1, 1024),
            ("kv_heads", kv_heads, 1, heads), ("head", head, 2, 65536), ("prefix_width", prefix_width, 0, 65536),
            ("prefix_hidden", prefix_hidden, 0, 2**20), ("pad_to", pad_to, 0, 65536),
        ):  # fmt: skip
            if not low <= value <= high:
                raise InputError(f"action_expert: {name} must be at least {low} and at most {high}; got {value}.")
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
        self.time = nn.Sequential(inner, nn.SiLU(), nn.Linear(width, width))
        self.expert = Expert(width=width, hidden=hidden or 4 * width, adaptive=self.adaptive, **sizes)
        self.out = nn.Linear(width, action_dim + self.pad_action)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def context(self, **observation: Tensor) -> dict[str, Any]:
        """Everything that depends on neither x nor t: what the actions will see, and where they stand.

        memory: keys and values of the prefix and the state, layer by layer. mask: which of these and of the actions are
        there (None: all). by: the actions' places, for `turn`. Of one observation it serves a batch of any size.
        """
        check(self.shapes, observation)
        weight = self.from_action.weight
        b = len(next(iter(observation.values())))
        memory: Memory | None = None
        present = torch.ones(b, 0, dtype=torch.bool, device=weight.device)
        if self.prefix is not None:
            own = {name: value for name, value in observation.items() if name != "state" or self.adaptive}
            memory, present = self.prefix(**own)
        if self.from_state is not None:
            present = pad(present, (0, 1), value=True)
            h = self.from_state(pad(observation["state"].flatten(1), (0, self.pad_state)).to(weight.dtype))
            by = rotary(places(present)[:, -1:], self.head)
            memory = self.expert.remember(h[:, None], by, as_mask(present), memory)
        horizon = self.shape[0]
        present = pad(present, (0, horizon), value=True)
        by = rotary(places(present)[:, -horizon:], self.head)
        return {"memory": memory, "mask": as_mask(present), "by": by}

    def forward(
        self,
        x: Float[Tensor, "b h a"],
        t: Float[Tensor, " #b"],
        *,
        label: Tensor | None = None,
        context: dict[str, Any] | None = None,
        **observation: Tensor,
    ) -> Float[Tensor, "b h a"]:
        if x.shape[1:] != self.shape:
            raise InputError(
                f"action_expert: x must be a batch of shape (b, {', '.join(map(str, self.shape))}); "
                f"got {tuple(x.shape)}."
            )
        if context is None:
            context = self.context(**observation)
        weight = self.from_action.weight
        h, c = self.from_action(pad(x, (0, self.pad_action)).to(weight.dtype)), None
        time = periodic(t, self.width).to(weight.dtype)
        if self.adaptive:
            c = nn.functional.silu(self.time(time))
        else:
            h = self.time(torch.cat([h, time[:, None].expand_as(h)], 2))
        h = self.expert(h.to(x.dtype), context["by"], context["mask"], context["memory"], c)
        return self.out(h)[..., : self.shape[1]].to(x.dtype)
