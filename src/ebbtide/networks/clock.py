"""Conditions of a network besides x: features of the time, a multilayer perceptron of them, and a vector per label."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .parts import waves

__all__ = [
    "PERIOD",
    "Attributes",
    "Fourier",
    "LabelEmbedding",
    "Perceptron",
    "Span",
    "Timestep",
    "Waves",
    "label_embedding",
    "periodic",
    "with_span",
]


class Waves(nn.Module):
    """τ → (sin ωτ, cos ωτ), in the network's type; taken in float32 at least, as bfloat16 can't tell 999 from 1000.

    ω: (features / 2,), a buffer that isn't stored with the weights. τ: (b,), the output (b, features).
    shortest_period: the least of 2π/ω, in t; a difference along t has to take steps that are much shorter.
    frequencies: ω.
    """

    def __init__(self, frequencies: Float[Tensor, " half"], shortest_period: float) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.dtype, self.shortest_period = frequencies.dtype, shortest_period

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Waves":
        exact = self.frequencies
        super()._apply(fn, recurse)
        self.dtype, self.frequencies = self.frequencies.dtype, exact.to(self.frequencies.device)
        return self

    def forward(self, tau: Float[Tensor, " b"]) -> Float[Tensor, " b features"]:
        return waves(tau[:, None] * self.frequencies).to(self.dtype)


class Fourier(Waves):
    """t → (sin 2πf t, cos 2πf t) for fixed frequencies f spaced evenly in log from f_min to f_max.

    Sinusoidal features (Vaswani et al. 2017, arXiv:1706.03762, Section 3.5) on t ∈ [0, 1]; the lowest turns less than
    once over the interval, so that it distinguishes the ends. Fields are smooth in t: learned from plain targets, the
    samples of a short run were 1.5 × further from the data with f_max = 16 than with 4; from stable ones they are as
    near. Frequencies are not stored with the weights, so other defaults would change the networks that are.
    """

    def __init__(self, features: int, f_min: float = 0.1, f_max: float = 4.0) -> None:
        frequencies = torch.linspace(math.log(f_min), math.log(f_max), features // 2).exp()
        super().__init__(2 * math.pi * frequencies, 1 / f_max)


class Timestep(Waves):
    """t → (sin ωτ, cos ωτ) of the timestep τ = timesteps · t - first, ω from 1 down to 1/10 000.

    The time features of published DDPMs (Ho et al. 2020, arXiv:2006.11239, Appendix B): the i-th entry of their
    table, at t = i/N, is timestep i - 1. Flows receive N t, so `first` is 0. ω_j = 10 000^(-j / (n - freq_shift)) for
    j = 0 … n - 1, n half the features; with freq_shift 1, as in Ho's code, the last ω is 1/10 000 itself.
    """

    def __init__(self, features: int, timesteps: int = 1000, first: int = 1, freq_shift: int = 0) -> None:
        half = features // 2  # ω rounded as those that the published weights know: 1e-7 of 999 counts
        frequencies = (-math.log(10_000) * torch.arange(half) / max(half - freq_shift, 1)).exp()
        super().__init__(frequencies, 2 * math.pi / timesteps)
        self.timesteps, self.first, self.freq_shift = timesteps, first, freq_shift

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b features"]:
        return super().forward(self.timesteps * t - self.first)


PERIOD = 4e-3  # the shortest of π0's time features


def periodic(
    t: Float[Tensor, " b"], features: int, shortest: float = PERIOD, longest: float = 4.0
) -> Float[Tensor, "b features"]:
    """sin(2πt/p), cos(2πt/p) for periods p spaced evenly in log from 4e-3 to 4, in float64: 2πt/p is up to 1571.

    π0's features of the time (Black et al. 2024, arXiv:2410.24164, Appendix B).

    shortest, longest: of the periods.
    """
    i = torch.arange(features // 2, dtype=torch.float64, device=t.device) / (features // 2 - 1)
    fastest = torch.tensor(2 * math.pi / shortest, dtype=torch.float64, device=t.device)  # a float is float32 in ONNX
    return waves(fastest * t[:, None].double() * (shortest / longest) ** i)


class Span(nn.Module):
    """W (φ(τ_t - τ_s) - φ(0)): what a network that spans two times adds to its features of t.

    span: (b,) or (1,), the flow clock's way from t to the time s to which the estimate leads; φ: Fourier. Nothing is
    added where s = t, and nowhere before W, which starts at zero, has learned something: so a network of two times
    made from one of a single time equals it to the last bit.
    """

    def __init__(self, width: int, features: int = 16) -> None:
        super().__init__()
        self.features = Fourier(features)
        self.weight = nn.Parameter(torch.zeros(width, features))

    def forward(self, span: Float[Tensor, " #b"]) -> Float[Tensor, "#b width"]:
        return nn.functional.linear(self.features(span) - self.features(span.new_zeros(1)), self.weight)


def with_span(h: Tensor, from_span: Span | None, span: Float[Tensor, " #b"] | None) -> Tensor:
    """h and, where a span is given, its features. from_span: makes the features."""
    if span is None:
        return h
    assert from_span is not None, "a network of a single time was given a span"
    return h + from_span(span)


class Perceptron(nn.Sequential):
    """t → W₂ SiLU(W₁ φ(t) + b₁) + b₂: (b,) → (b, width); with `span`, its features are added to W₁ φ(t) + b₁.

    features: φ, or the number of Fourier's. linear: what makes the two layers. spans: whether it has a Span.
    """

    def __init__(
        self,
        features: int | Waves,
        width: int,
        linear: Callable[[int, int], nn.Linear] = nn.Linear,
        spans: bool = False,
    ) -> None:
        phi = Fourier(features) if isinstance(features, int) else features
        super().__init__(phi, linear(2 * len(phi.frequencies), width), nn.SiLU(), linear(width, width))
        self.from_span = Span(width) if spans else None

    def forward(self, t: Float[Tensor, " #b"], span: Float[Tensor, " #b"] | None = None) -> Float[Tensor, "#b width"]:
        phi, first, act, second = (self[i] for i in range(4))
        return second(act(with_span(first(phi(t)), self.from_span, span)))


class LabelEmbedding(nn.Embedding):
    """label → E[label]: a vector for each class, and a last one, E[classes], the null label's, for "no label".

    Ho & Salimans 2022, arXiv:2207.12598, Section 3.2. label: (b,), or None for the null label; the output is (b, width)
    or (1, width). `null` is the null label, which training puts in the place of hidden ones.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)
        self.null = classes

    def forward(self, label: Int[Tensor, " b"] | None) -> Float[Tensor, " b width"]:
        return super().forward(torch.full((1,), self.null, device=self.weight.device) if label is None else label)


class Attributes(nn.Module):
    """v → W₂ SiLU(W₁ [m v, m] + b₁) + b₂: numbers that an example is drawn given, and which of them are (m).

    v: (b, k), about -1 to 1, NaN where a number isn't known; or None, for none known. The output is (b, width) or
    (1, width).
    count: k, of the numbers.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count = count
        self.layers = nn.Sequential(nn.Linear(2 * count, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, v: Float[Tensor, " b k"] | None) -> Float[Tensor, " #b width"]:
        weight = next(self.layers.parameters())
        v = weight.new_full((1, self.count), torch.nan) if v is None else v.to(weight)
        return self.layers(torch.cat([v.nan_to_num(0.0), (~v.isnan()).to(v)], 1))


def label_embedding(classes: int, width: int) -> LabelEmbedding | None:
    """The embedding of this number of classes; None for a network without any."""
    return LabelEmbedding(classes, width) if classes else None
