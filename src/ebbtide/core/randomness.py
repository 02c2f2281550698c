"""Counter-keyed randomness: every number is a function of its address, so there is no state to save or to share.

Training addresses numbers by (seed, stream, step), which makes resuming bit-exact. Sampling addresses them by
(seed, sample, step, element), so sample i is the same alone, in a batch of 64, and on two processes. One
torch.Generator per sample would do that too, at a Python loop per step; hashing the address takes all samples at
once. The hash is SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).

A process that trains on a share of a batch takes that share of the batch's numbers (`Share`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..specs import expect, require

__all__ = ["BLOCK", "Draws", "Share", "far_apart", "generator", "key", "keyed", "normal", "share_of", "uniform"]

BLOCK = 2**22  # normal numbers that are drawn together

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def key(*address: int | str) -> int:
    """A 64-bit hash of an address such as (seed, "order", epoch)."""
    state = 0
    for part in address:
        words = [*part.encode(), 256] if isinstance(part, str) else [part & _MASK]  # 256, no byte, ends a text
        for word in words:
            state = _mix_int((state + _GOLDEN ^ word) & _MASK)
    return state


def generator(*address: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by an address: generator(seed, "times", step)."""
    return torch.Generator(device).manual_seed(key(*address))


class Share(torch.Generator):
    """The generator of the numbers of a batch of n examples, for a process that needs those of `rows` alone.

    `uniform`, `normal` and the laws of times give a row the same numbers however the batch is divided. Of those that
    every example has few of, the whole batch's are drawn.
    """

    def __new__(cls, *address: int | str, n: int, rows: slice, device: torch.device | str = "cpu") -> "Share":
        """Rows of the batch at an address such as (seed, "step", step)."""
        self = super().__new__(cls, device)  # type: ignore[call-arg]  # torch's stub has only __init__
        self.manual_seed(key(*address))
        self.address, self.n, self.rows, self.drawn = address, n, rows, 0
        return self

    address: tuple[int | str, ...]
    n: int
    rows: slice
    drawn: int


def share_of(draw: torch.Generator, count: int) -> tuple[int, slice]:
    """The number of examples to draw numbers for, and which of them are the `count` that are wanted."""
    return (draw.n, draw.rows) if isinstance(draw, Share) else (count, slice(None))


def uniform(draw: torch.Generator, count: int, *shape: int) -> Float[Tensor, " {count} *d"]:
    """Uniform numbers in [0, 1) of a shape, for each of `count` examples."""
    n, rows = share_of(draw, count)
    return torch.rand(n, *shape, generator=draw, device=draw.device)[rows]


def normal(draw: torch.Generator, count: int, *shape: int) -> Float[Tensor, " {count} *d"]:
    """Standard normal numbers of a shape, for each of `count` examples.

    Those of a batch that takes more than BLOCK are drawn in blocks of examples, each block by another generator,
    so that a process draws only the blocks in which its rows lie.
    """
    n, rows = share_of(draw, count)
    together = max(1, BLOCK // math.prod(shape))
    if n <= together or not isinstance(draw, Share):
        return torch.randn(n, *shape, generator=draw, device=draw.device)[rows]
    draw.drawn += 1
    first, last = rows.start // together, (rows.stop - 1) // together
    parts = []
    for k in range(first, last + 1):
        block = generator(*draw.address, "normal", draw.drawn, k, device=draw.device)
        parts.append(torch.randn(min(together, n - k * together), *shape, generator=block, device=draw.device))
    begin = first * together
    return torch.cat(parts)[rows.start - begin : rows.stop - begin]


def far_apart(x: Float[Tensor, "n d"], count: int, draw: torch.Generator) -> list[int]:
    """The places of rows far from one another: each drawn by its squared distance from those before it.

    k-means++ (Arthur & Vassilvitskii 2007, Section 2.2), for centres to begin with.

    count: how many places, at least 1.
    """
    chosen = [int(torch.randint(len(x), (), generator=draw))]
    far = torch.full((len(x),), math.inf, dtype=x.dtype)
    for _ in range(count - 1):
        far = torch.minimum(far, (x - x[chosen[-1]]).square().sum(1))
        chosen.append(int(torch.multinomial(far + 1e-12, 1, generator=draw)))
    return chosen


@contextmanager
def keyed(device: torch.device, *address: int | str) -> Iterator[None]:
    """Torch's own generator seeded by an address for as long as this lasts: for dropout, which takes no other."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(key(*address))
        yield


@dataclass(frozen=True)
class Draws:
    """Standard normal numbers for samples `ids`: draws(step, x) is like x and depends on (seed, id, step) alone."""

    seed: int
    ids: Int[Tensor, " b"]

    def __post_init__(self) -> None:
        require("seed", self.seed, 0, _MASK, whole=True)
        expect("ids", self.ids, Tensor)
        object.__setattr__(self, "seed", int(self.seed))  # NumPy's integers don't mix with words of 64 bits

    @classmethod
    def first(cls, n: int, seed: int, start: int = 0, device: torch.device | str = "cpu") -> "Draws":
        """Samples start, start + 1, …, start + n - 1."""
        require("n", n, 0, 10**9, whole=True)
        require("start", start, 0, 2**62, whole=True)
        return cls(seed, torch.arange(start, start + n, device=device))

    def __call__(self, step: int, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Box–Muller on 2 × 32 bits of each hash, in float64: numbers up to 6.76 σ, the same on every device."""
        size = math.prod(x.shape[1:])
        stream = _mix(self.ids.to(x.device, torch.int64) + _signed(key(self.seed, "draws", step)))
        counter = torch.arange(1, (size + 1) // 2 + 1, device=x.device) * _signed(_GOLDEN)
        bits = _mix(stream[:, None] + counter)
        radius = (-2 * (((bits >> 32 & 0xFFFFFFFF).double() + 0.5) * 2**-32).log()).sqrt()
        angle = (bits & 0xFFFFFFFF).double() * (2 * math.pi * 2**-32)
        z = torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten(1)
        return z[:, :size].reshape(x.shape).to(x)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose products wrap; >> is arithmetic, hence the mask."""
    for shift, multiplier in _MULTIPLIERS:
        z = (z ^ (z >> shift & (1 << 64 - shift) - 1)) * _signed(multiplier)
    return z ^ (z >> 31 & (1 << 33) - 1)


def _mix_int(z: int) -> int:
    for shift, multiplier in _MULTIPLIERS:
        z = (z ^ z >> shift) * multiplier & _MASK
    return z ^ z >> 31


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
