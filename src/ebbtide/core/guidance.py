"""Guidance: wrappers that turn a denoiser into another denoiser. Weight 1 means off.

ClassifierFree and Autoguidance use x̂ = x̂_weak + w (x̂_strong - x̂_weak) for both x̂₀ and ε̂, so the guided score is that
of p_strong^w p_weak^{1-w} at each noise level. For w ≠ 1 these tilted densities are not the noised versions of one
distribution: samples do not follow the tilt of the data, except for Gaussians of equal covariance.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..specs import expect, require
from .denoiser import DenoiserLike
from .paths import Batch, Path, Scales, Time
from .targets import Estimate

__all__ = ["Autoguidance", "Bounded", "ClassifierFree", "Known", "Recomputed", "Wrapper", "active_weight"]


def active_weight(weight: float, interval: tuple[float, float], t: Time, x: Batch) -> Any:
    """`weight` where low < t ≤ high, else 1: a float, or (b, 1, …, 1) where each sample has its own time."""
    low, high = interval
    time = t.t if isinstance(t, Scales) else t
    if isinstance(time, Tensor) and len(time) > 1:
        inside = ((time > low) & (time <= high)).to(x).reshape(-1, *[1] * (x.ndim - 1))
        return 1 + (weight - 1) * inside if bool(inside.any()) else 1.0
    return weight if low < time <= high else 1.0


class Wrapper:
    """The properties that a wrapper passes on from its denoiser."""

    denoiser: DenoiserLike

    @property
    def path(self) -> Path:
        return self.denoiser.path

    @property
    def gaussian_end(self) -> bool:
        return self.denoiser.gaussian_end

    @property
    def spans(self) -> bool:
        return getattr(self.denoiser, "spans", False)

    @property
    def needs_label(self) -> bool:
        return getattr(self.denoiser, "needs_label", False)


@dataclass(frozen=True)
class ClassifierFree(Wrapper):
    """x̂ = x̂_∅ + w (x̂_label - x̂_∅) (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6, whose w is ours minus 1).

    weight: 1 is the conditional model itself, 0 the unconditional one, above 1 exaggerates the label.
    null_label: the label that stands for "none", by convention the number of classes. Training replaces a share of
    the labels with it (see training), so that one network learns both p(x) and p(x | label).
    interval: times (low, high] in which guidance acts; outside, the weight is 1 (Kynkäänniemi et al. 2024,
    arXiv:2404.07724). Where both estimates are needed they are one batch of 2b; of other conditions `given` is taken
    twice, and the rest are passed on as they are, so they have to fit 2b samples. Without a label, guidance is towards
    `given`, instead of nothing given (NaN).

    Raises InputError for an interval outside 0 ≤ low < high ≤ 1, a weight that isn't finite, a denoiser that never
    learned the null label, and a missing label.
    """

    denoiser: DenoiserLike
    weight: float
    null_label: int
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self.weight, self.interval, denoiser=self.denoiser)
        require("guidance: null_label", self.null_label, 0, whole=True)
        if self.needs_label:
            raise InputError("Guidance needs a run trained with label_dropout above 0, which learns the null label.")

    def __call__(self, x_t: Batch, t: Time, /, *, label: Int[Tensor, " b"] | None = None, **cond: Any) -> Estimate:
        if label is None and cond.get("given") is None:
            raise InputError("Classifier-free guidance needs a label for each sample.")
        w = active_weight(self.weight, self.interval, t, x_t)
        if not isinstance(w, Tensor) and w == 1:
            return self.denoiser(x_t, t, **({} if label is None else {"label": label}), **cond)
        time = t.t if isinstance(t, Scales) and isinstance(t.t, Tensor) else t
        both_t = torch.cat([time, time]) if isinstance(time, Tensor) and len(time) > 1 else time
        b, given = len(x_t), cond.get("given")
        if label is not None:
            cond["label"] = torch.cat([label, torch.full_like(label, self.null_label)])
        if given is not None and (len(given) > 1 or label is None):
            given = given.expand(b, *given.shape[1:])
            cond["given"] = torch.cat([given, torch.full_like(given, torch.nan) if label is None else given])
        both = self.denoiser(torch.cat([x_t, x_t]), both_t, **cond)
        return both.map(lambda both: torch.lerp(both[b:], both[:b], w))


@dataclass(frozen=True)
class Autoguidance(Wrapper):
    """x̂ = x̂_weak + w (x̂ - x̂_weak): away from a weaker version of the same model (Karras et al. 2024, arXiv:2406.02507).

    Their Eq. 3, D_w = w D₁ + (1 - w) D₀, of x̂₀ and hence of ε̂, with D₀ smaller or trained for less long than D₁ and
    the same conditions given to both. Errors that both make, D₀ more so, cancel.

    denoiser, weak: D₁ and D₀, on one path. weight: w; 1 is the model itself, 0 the weak one. interval: times (low,
    high] in which guidance acts, as in ClassifierFree. Two evaluations where it acts, one elsewhere. Inside
    ClassifierFree or around it, either works.

    Raises InputError for an interval outside 0 ≤ low < high ≤ 1, a weight that isn't finite, and two denoisers whose
    paths differ: x_t would mean different things to them.
    """

    denoiser: DenoiserLike
    weak: DenoiserLike
    weight: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self.weight, self.interval, denoiser=self.denoiser, weak=self.weak)
        if self.weak.path != self.denoiser.path or self.weak.gaussian_end != self.denoiser.gaussian_end:
            raise InputError(
                f"Autoguidance needs two denoisers on the same path; got {self.denoiser.path} and {self.weak.path}."
            )

    def __call__(self, x_t: Batch, t: Time, /, **cond: Any) -> Estimate:
        w = active_weight(self.weight, self.interval, t, x_t)
        strong = self.denoiser(x_t, t, **cond)
        if not isinstance(w, Tensor) and w == 1:
            return strong
        weak = self.weak(x_t, t, **cond)
        # weak + w (strong - weak), which is `strong` to the last bit where w = 1
        return Estimate(torch.lerp(weak.x0, strong.x0, w), torch.lerp(weak.noise, strong.noise, w))


@dataclass(frozen=True)
class Bounded(Wrapper):
    """x̂₀ kept within ±bound, or from low to high, and ε̂ = (x_t - α x̂₀)/σ moved with it, for data known to lie there.

    The clipping of Ho et al. 2020 (arXiv:2006.11239), which other libraries do unasked; for data of any other range
    it is plainly wrong. Where σ = 0 the noise stays as it is.

    keep_noise: leave ε̂ as the network has it, as diffusers' DDIM does unless use_clipped_model_output. x_t is then no
    longer α x̂₀ + σ ε̂, so only a sampler whose step is a x̂₀ + b ε̂, as DDIM's, sees the bound; one that steps by ε̂
    alone (edm, deis, lms) does not.

    bound: a number, or a pair (low, high) of tensors that x₀ broadcasts to.
    codec: of a latent x₀, a linear one, so that the bound acts on what it decodes to: x̂₀ + E(clamp(D x̂₀)) - E(D x̂₀).

    Raises InputError for a bound that isn't above 0.
    """

    denoiser: DenoiserLike
    bound: float | tuple[Tensor, Tensor] = 1.0
    keep_noise: bool = False
    codec: Any = None

    def __post_init__(self) -> None:
        expect("Bounded: denoiser", self.denoiser, DenoiserLike)
        if not isinstance(self.bound, tuple):
            require("Bounded: bound", self.bound, above=0)

    def _within(self, x: Batch) -> Batch:
        if not isinstance(self.bound, tuple):
            return x.clamp(-float(self.bound), float(self.bound))
        low, high = (end.to(x) for end in self.bound)
        return x.clamp(low, high)

    def __call__(self, x_t: Batch, t: Time, /, **cond: Any) -> Estimate:
        c = self.path.at(t, x_t)
        estimate = self.denoiser(x_t, t, **cond)
        if self.codec is None:
            x0 = self._within(estimate.x0)
        else:
            data = self.codec.decode(estimate.x0)
            x0 = estimate.x0 + (self.codec.encode(self._within(data)) - self.codec.encode(data))
        if self.keep_noise or (not isinstance(c.sigma, Tensor) and c.sigma == 0):
            return Estimate(x0, estimate.noise)
        return Estimate(x0, estimate.noise + c.alpha / c.sigma * (estimate.x0 - x0))


@dataclass(frozen=True)
class Known(Wrapper):
    """x̂₀ = z where z is given, and ε̂ = (x_t - α z)/σ: on every path a sample ends at what is known of it.

    given: z, NaN where nothing is known; passed on to the denoiser, whose network has learned to make use of it (see
    networks.masked). Without it nothing changes.
    """

    denoiser: DenoiserLike

    def __call__(
        self, x_t: Batch, t: Time, /, *, given: Float[Tensor, " #b *d"] | None = None, **cond: Any
    ) -> Estimate:
        if given is None:
            return self.denoiser(x_t, t, **cond)
        c, unknown = self.path.at(t, x_t), given.isnan()
        z = given.to(x_t).masked_fill(unknown, 0)
        estimate = self.denoiser(x_t, t, given=given, **cond)
        x0, noise = estimate.x0.where(unknown, z), estimate.noise
        if isinstance(c.sigma, Tensor) or c.sigma != 0:
            noise = noise.where(unknown, (x_t - c.alpha * z) / c.sigma)
        return Estimate(x0, noise)


@dataclass(frozen=True)
class Recomputed(Wrapper):
    """The same estimates, each computed again on the way back (Chen et al. 2016, arXiv:1604.06174, Section 4).

    So the gradient through a sampler's steps, whichever sampler, needs memory for one evaluation of the network and a
    few tensors like x_t for each of the others, at the price of every evaluation being made twice.
    """

    denoiser: DenoiserLike

    def __call__(self, x_t: Batch, t: Time, /, **cond: Any) -> Estimate:
        return checkpoint(self.denoiser, x_t, t, use_reentrant=False, preserve_rng_state=False, **cond)


def _check(weight: float, interval: tuple[float, float], **denoisers: DenoiserLike) -> None:
    for name, denoiser in denoisers.items():
        expect(f"guidance: {name}", denoiser, DenoiserLike)
    require("guidance: weight", weight)
    if not isinstance(interval, tuple | list) or len(interval) != 2:
        raise InputError(f"guidance: interval must be two times (low, high); got {interval!r}.")
    require("guidance: the interval's low", interval[0], 0)
    require("guidance: the interval's high", interval[1], high=1, above=interval[0])
