"""Guidance: wrappers that turn a denoiser into another denoiser. Weight 1 means off.

Training for it replaces a share of the labels with the null label (see training), so that one network knows both
p(x) and p(x | label).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .denoiser import DenoiserLike
from .errors import InputError
from .paths import Path, Scales, Time
from .targets import Estimate


@dataclass(frozen=True)
class ClassifierFree:
    """x̂ = x̂_∅ + w (x̂_label - x̂_∅) (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6, whose w is ours minus 1).

    weight: 1 is the conditional model itself, 0 the unconditional one, above 1 exaggerates the label.
    null_label: the label that stands for "none", by convention the number of classes.
    interval: times (low, high] in which guidance acts; outside, the weight is 1 (Kynkäänniemi et al. 2024,
    arXiv:2404.07724). Where both estimates are needed they are one batch of 2b.
    """

    denoiser: DenoiserLike
    weight: float
    null_label: int
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise InputError(f"The guidance interval must satisfy 0 ≤ low < high ≤ 1; got {self.interval}.")

    @property
    def path(self) -> Path:
        return self.denoiser.path

    @property
    def gaussian_end(self) -> bool:
        return self.denoiser.gaussian_end

    def __call__(
        self,
        x_t: Float[Tensor, " b *d"],
        t: Time,
        /,
        *,
        label: Int[Tensor, " b"] | None = None,
        **cond: Any,
    ) -> Estimate:
        if label is None:
            raise InputError("Classifier-free guidance needs a label for each sample.")
        inside = within(self.interval, t)
        if self.weight == 1 or not (bool(inside.any()) if isinstance(inside, Tensor) else inside):
            return self.denoiser(x_t, t, label=label, **cond)
        null = torch.full_like(label, self.null_label)
        both_t = torch.cat([t, t]) if isinstance(t, Tensor) and len(t) > 1 else t
        both = self.denoiser(torch.cat([x_t, x_t]), both_t, label=torch.cat([label, null]), **cond)
        b, w = len(x_t), 1 + (self.weight - 1) * inside
        if isinstance(w, Tensor):
            w = w.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1))
        return both.map(lambda both: torch.lerp(both[b:], both[:b], w))


def within(interval: tuple[float, float], t: Time) -> Any:
    """Whether low < t ≤ high: a bool, or one for each example."""
    time = t.t if isinstance(t, Scales) else t
    return (time > interval[0]) & (time <= interval[1])
