"""What a network is told besides x: the time, and a label."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class _Waves(nn.Module):
    """τ → (sin ωτ, cos ωτ), in the network's type; taken in float32 at least, as bfloat16 can't tell 999 from 1000."""

    def __init__(self, frequencies: Float[Tensor, " half"]) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.dtype = frequencies.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Waves":
        exact = self.frequencies
        super()._apply(fn, recurse)
        self.dtype, self.frequencies = self.frequencies.dtype, exact.to(self.frequencies.device)
        return self

    def waves(self, tau: Float[Tensor, " b"]) -> Float[Tensor, " b features"]:
        angle = tau[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], 1).to(self.dtype)


class Fourier(_Waves):
    """t → (sin 2πf t, cos 2πf t) for fixed frequencies f spaced evenly in log from f_min to f_max.

    Sinusoidal features (Vaswani et al. 2017, arXiv:1706.03762) on t ∈ [0, 1]; the lowest turns less than once over
    the interval, so that it tells the ends apart. Fields are smooth in t: learned from plain targets, the samples of a
    short run were 1.5 × further from the data with f_max = 16 than with 4; from stable ones they are as near.
    Frequencies are not stored with the weights, so other defaults would change the networks that are.
    """

    def __init__(self, features: int, f_min: float = 0.1, f_max: float = 4.0) -> None:
        super().__init__(2 * math.pi * torch.linspace(math.log(f_min), math.log(f_max), features // 2).exp())

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b features"]:
        return self.waves(t)


class Timestep(_Waves):
    """t → (sin ωτ, cos ωτ) of the timestep τ = timesteps · t - first, ω from 1 down to 1/10 000.

    What published DDPMs know the time by (Ho et al. 2020, arXiv:2006.11239, Appendix B): the i-th entry of their
    table, at t = i/N, is timestep i - 1. Flows are told N t, so `first` is 0. ω_j = 10 000^(-j / (n - freq_shift)) for
    j = 0 … n - 1, n half the features; with freq_shift 1, as in Ho's code, the last ω is 1/10 000 itself.
    """

    def __init__(self, features: int, timesteps: int = 1000, first: int = 1, freq_shift: int = 0) -> None:
        half = features // 2  # ω rounded as those that the published weights know: 1e-7 of 999 counts
        super().__init__((-math.log(10_000) * torch.arange(half) / max(half - freq_shift, 1)).exp())
        self.timesteps, self.first, self.freq_shift = timesteps, first, freq_shift

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b features"]:
        return self.waves(self.timesteps * t - self.first)


class LabelEmbedding(nn.Embedding):
    """One vector per class and a last one, the null label, for "no label" (classifier-free guidance)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)
        self.null = classes

    def forward(self, label: Int[Tensor, " b"]) -> Float[Tensor, " b width"]:
        return super().forward(label)
