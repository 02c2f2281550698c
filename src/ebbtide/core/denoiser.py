"""A network, the path it was trained on, and what it predicts. Everything samplers need of a checkpoint."""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..errors import InputError
from ..specs import bind, parse, pick, require
from .paths import Path, Scales, Time
from .targets import TARGETS, Estimate, Target, decode, edm_inputs, encode


@runtime_checkable
class DenoiserLike(Protocol):
    """A Denoiser, a guided one, or an oracle: what a sampler calls."""

    @property
    def path(self) -> Path: ...

    @property
    def gaussian_end(self) -> bool: ...

    def __call__(self, x_t: Tensor, t: Time, /, **cond: Any) -> Estimate: ...


class Denoiser(nn.Module):
    """x̂₀, ε̂ = decode(network(x_t, t)): any network, on any path, with any target.

    network: called as network(x, t, **cond) with x (b, *d) and t (b,) or (1,), one time for the whole batch.
    target: a row of TARGETS, with options as in "edm:data_std=0.5".
    gaussian_end: False where t = 1 is a second sample set instead of N(0, I). Then only the velocity has a
    meaning, so x̂₀ and ε̂ are just its coordinates, and only ODE samplers apply.
    needs_label: True where the network has classes but never learned its null label, so a call without one fails.

    alpha_min: the least α at which a noise or score is taken at its word. An error δ of ε̂ is one of δ σ/α in x̂₀, so a
    trained network, unlike an exact one, says nothing of x₀ at the end of a cosine table, where σ/α = 20 000. At
    α ≤ alpha_min x̂₀ is what the network makes of x_t at the time where σ/α = 1/alpha_min, and ε̂ the rest of x_t.
    At the least, 0, this is so only where α = 0 leaves x₀ unknown (d = 0), as at t = 1 on the linear path: there the
    network is asked at σ/α = 200 (DDPM's own table ends at 160), and ε̂ is its answer.
    """

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        target: str = "velocity",
        *,
        gaussian_end: bool = True,
        needs_label: bool = False,
        alpha_min: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.path, self.target, self.gaussian_end = network, path, target, gaussian_end
        self.needs_label = needs_label
        self.row: Target = bind(TARGETS, target, "target")
        name, options = parse(target)
        self.is_edm, self.data_std = name == "edm", float(options.get("data_std", 1.0))
        if not 0 < self.data_std < math.inf:
            raise InputError(f"target 'edm': data_std must be above 0 and finite; got {self.data_std}.")
        if not 0 <= alpha_min < 1:
            raise InputError(f"alpha_min must be at least 0 and below 1; got {alpha_min!r}.")
        if not gaussian_end and name != "velocity":
            raise InputError(f"Between two sample sets only the velocity has a meaning; got target {target!r}.")
        self.alpha_min = alpha_min
        # The time at which the network is asked instead; 1 where that never happens.
        lost = name in ("noise", "score") and path.along([1.0])[0].alpha <= alpha_min
        self.t_max = float(path.time_of(torch.tensor(1 / (alpha_min or 1 / 200), dtype=torch.float64))) if lost else 1.0
        self.latest = path.along([self.t_max])[0]

    def output(self, c: Scales, x_t: Float[Tensor, " b *d"], **cond: Any) -> Float[Tensor, " b *d"]:
        """The network's raw output ŷ; EDM alone rescales what the network sees."""
        if self.needs_label and cond.get("label") is None:
            raise InputError("This network never learned to do without a label (label_dropout was 0); give it label.")
        inputs, clock = edm_inputs(c, x_t, self.data_std) if self.is_edm else (x_t, c.t)
        own = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), x_t.dtype)
        fine = torch.promote_types(own, torch.float32)  # a time is never rounded to bfloat16
        clock = clock.to(x_t.device, fine) if isinstance(clock, Tensor) else x_t.new_full((1,), clock, dtype=fine)
        y: Tensor = self.network(inputs.to(own), clock, **cond)
        return y if y.dtype == x_t.dtype else y.to(x_t)  # autocast ends here

    def forward(self, x_t: Float[Tensor, " b *d"], t: Time, **cond: Any) -> Estimate:
        """x̂₀, ε̂ at time t: a float or a (1,) tensor for the whole batch, a (b,) tensor, or the Scales there."""
        c = self.path.at(t, x_t)
        asked = c if self.t_max == 1 else self._within(c, x_t)
        try:
            estimate = decode(self.row, asked, x_t, self.output(asked, x_t, **cond))
        except ZeroDivisionError:
            raise InputError(f"At t = {c.t:g} the target {self.target!r} leaves x₀ or the noise unknown.") from None
        return estimate if asked is c else self._moved(estimate, x_t, c, asked)

    def _within(self, c: Scales, x_t: Tensor) -> Scales:
        """The Scales at which the network is asked: c, but those of t_max where α ≤ alpha_min.

        A float's are at hand, as torch.compile can't follow how they are made.
        """
        if not isinstance(c.alpha, Tensor):
            return self.latest if c.alpha <= self.alpha_min else c
        early = (c.alpha > self.alpha_min).flatten()
        return self.path.at(c.t.where(early, self.t_max), x_t)

    def _moved(self, estimate: Estimate, x_t: Tensor, c: Scales, asked: Scales) -> Estimate:
        """x̂₀, and the ε̂ that makes x_t of it at c; where α = 0 it is the estimate's own, which no x̂₀ contradicts."""
        if not isinstance(c.alpha, Tensor):
            return Estimate(estimate.x0, (x_t - c.alpha * estimate.x0) / c.sigma) if c.alpha else estimate
        own = (c.alpha == 0) | (c.alpha == asked.alpha)
        return Estimate(estimate.x0, estimate.noise.where(own, (x_t - c.alpha * estimate.x0) / c.sigma))

    def loss(
        self,
        x0: Float[Tensor, " b *d"],
        noise: Float[Tensor, " b *d"],
        t: Float[Tensor, " #b"],
        *,
        z: Float[Tensor, " b *d"] | None = None,
        mask: Bool[Tensor, " b *m"] | None = None,
        weight: Callable[[Scales], Tensor] | None = None,
        **cond: Any,
    ) -> Float[Tensor, " b"]:
        """Per-example squared error of the target, |ŷ - (a x₀ + b ε)|² / dim.

        Ho et al. 2020, arXiv:2006.11239, Eq. 14; Lipman et al. 2023, arXiv:2210.02747, Eq. 9.
        weight: the weight of |x₀ - x̂₀|² at each time (a row of WEIGHTS); none weighs every target error alike.
        mask: which numbers of x₀ count, shaped to broadcast to it; the others are without error.
        z: a third, independent noise; given where x₀ and the other end are coupled or are two sample sets, for
        then a Bridge's three terms don't add up to one Gaussian (see Path.between) and only the velocity is left.
        """
        c = self.path.at(t, x0)
        if z is None:
            x_t, y = c.alpha * x0 + c.sigma * noise, encode(self.row, c, x0, noise)
        elif self.target != "velocity":
            raise InputError(f"Between given ends (z) only the velocity has a meaning; got target {self.target!r}.")
        else:
            x_t, y = self.path.between(x0, noise, t, z)
        error: Tensor = (self.output(c, x_t, **cond) - y).square()
        if mask is not None:
            error = error * mask
        error = error.flatten(1).mean(1)
        if weight is None:
            return error
        a, b = self.row(c)
        return error * (weight(c) * (c.sigma / (c.alpha * b - c.sigma * a)) ** 2).flatten()


def _min_snr(c: Scales, gamma: float = 5.0) -> Tensor:
    """min(SNR, γ), SNR = α²/σ² (Hang et al. 2023, arXiv:2303.09556, Section 3.4)."""
    require("min_snr: gamma", gamma, above=0)
    return (c.alpha / c.sigma).square().clamp(max=gamma)


def _edm_weight(c: Scales, data_std: float = 1.0) -> Tensor:
    """λ(σ) = (σ² + σ_d²) / (σ σ_d)²: leaves the edm target's own error unweighted (Karras et al. 2022, Table 1)."""
    require("edm weight: data_std", data_std, above=0)
    ratio = c.sigma / c.alpha
    return (ratio**2 + data_std**2) / (ratio * data_std) ** 2


WEIGHTS: dict[str, Callable[..., Tensor] | None] = {"unit": None, "min_snr": _min_snr, "edm": _edm_weight}


def loss_weight(spec: str) -> Callable[[Scales], Tensor] | None:
    """The row of WEIGHTS a spec names; "unit" weighs the target's own error, as each paper does."""
    name, given = parse(spec)
    if WEIGHTS[pick(WEIGHTS, name, "weight")] is None:
        if given:
            raise InputError(f"weight {name!r} has no option {next(iter(given))!r}; it takes none.")
        return None
    return bind({name: row for name, row in WEIGHTS.items() if row is not None}, spec, "weight")
