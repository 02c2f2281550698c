"""A network, the path it was trained on, and what it predicts. Everything samplers need of a checkpoint."""

import math
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from ..losses.denoise import denoise
from ..specs import bind, expect, options, require
from .paths import Batch, Path, Scales, Time
from .targets import TARGETS, Estimate, Target, from_target, to_target

__all__ = ["Denoiser", "DenoiserLike"]


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

    base: a module that returns an estimate, such as the exact one of a Gaussian; the network's output is added to it,
    so that a network whose last layer is zero begins there. What lies further out than its data can be, the network
    sees where its `within` puts it: out there it learned nothing, and the base alone leads back.
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
        base: Any = None,
    ) -> None:
        super().__init__()
        expect("network", network, nn.Module)
        expect("path", path, Path)
        expect("target", target, str)
        require("alpha_min", alpha_min, 0, below=1)
        self.network, self.path, self.target, self.gaussian_end = network, path, target, gaussian_end
        self.needs_label, self.base = needs_label, base
        self._first = network, *_first_floating(network)
        own = bind(TARGETS, target, "target")
        row = own.func if isinstance(own.func, Target) else Target(own.func)
        self.row = partial(row.function, **own.keywords)
        self.inputs = partial(row.inputs, **{k: v for k, v in own.keywords.items() if k in options(row.inputs)})
        middle, last = path.along([0.5, 1.0])
        self.predicts_velocity = self.row(middle) == (middle.alpha_dot, middle.sigma_dot)
        if not gaussian_end and not self.predicts_velocity:
            raise InputError(
                "Between two sample sets only the velocity has a meaning, as where noise and data are coupled; got "
                f"target {target!r}."
            )
        self.alpha_min = alpha_min
        # Where y is noise alone (a = 0, so d = α b) it says nothing of x₀ as α → 0: the time at which the network is
        # asked instead; 1 where that never happens.
        lost = self.row(last)[0] == 0 and last.alpha <= alpha_min
        self.t_max = float(path.time_of(torch.tensor(1 / (alpha_min or 1 / 200), dtype=torch.float64))) if lost else 1.0
        self.latest = path.along([self.t_max])[0]

    def encode(self, c: Scales, x0: Batch, noise: Batch) -> Batch:
        """y = a x₀ + b ε: what the network should say."""
        return to_target(self.row, c, x0, noise)

    def output(self, c: Scales, x_t: Batch, **cond: Any) -> Batch:
        """The network's raw output ŷ for what its target shows it of x_t and t."""
        if self.needs_label and cond.get("label") is None:
            raise InputError("This network never learned to do without a label (label_dropout was 0); give it label.")
        inputs, clock = self.inputs(c, x_t if self.base is None else self.base.within(x_t, c))
        own = self._precision(x_t)
        fine = torch.promote_types(own, torch.float32)  # a time is never rounded to bfloat16
        clock = clock.to(x_t.device, fine) if isinstance(clock, Tensor) else x_t.new_full((1,), clock, dtype=fine)
        y: Tensor = self.network(inputs.to(own), clock, **cond)
        y = y if y.dtype == x_t.dtype else y.to(x_t)  # autocast ends here
        return y if self.base is None else y + self.base(x_t, c, label=cond.get("label")).mix(*self.row(c))

    def _precision(self, x_t: Tensor) -> torch.dtype:
        """The dtype of the network's first floating-point parameter, or of x_t where it has none.

        Where that parameter is, is kept: a search through all modules takes as long as a sampler's own arithmetic.
        """
        network, holder, name = self._first
        first = holder._parameters.get(name) if network is self.network else None
        if first is None and (name or network is not self.network):
            holder, name = _first_floating(self.network)
            self._first = self.network, holder, name
            first = holder._parameters.get(name)
        return x_t.dtype if first is None else first.dtype

    def forward(self, x_t: Batch, t: Time, *, to: Time | None = None, **cond: Any) -> Estimate:
        """x̂₀, ε̂ at time t: a float or a (1,) tensor for the whole batch, a (b,) tensor, or the Scales there.

        to: an earlier time s, where the pair is to lead: x_s = α_s x̂₀ + σ_s ε̂ is then the end of the flow from x_t,
        and ε̂ - x̂₀ its mean slope in the flow clock. Only networks that span two times can be asked so.
        """
        c = self.path.at(t, x_t)
        asked = c if self.t_max == 1 else self._within(c, x_t)
        if to is not None:
            cond["span"] = self._span(asked, self.path.at(to, x_t), x_t)
        try:
            estimate = from_target(self.row, asked, x_t, self.output(asked, x_t, **cond))
        except ZeroDivisionError:
            raise InputError(f"At t = {c.t:g} the target {self.target!r} leaves x₀ or the noise unknown.") from None
        return estimate if asked is c else self._moved(estimate, x_t, c, asked)

    def _span(self, c: Scales, to: Scales, x_t: Tensor) -> Tensor:
        """τ_t - τ_s: how far an estimate is to lead, as networks take it."""
        if not self.spans:
            raise InputError("This network spans a single time, so its estimates can't be asked to lead to another.")
        span = c.tau - to.tau
        if isinstance(span, Tensor):
            return span.flatten().clamp(min=0)
        return x_t.new_full((1,), max(span, 0.0))

    @property
    def spans(self) -> bool:
        """True if estimates can be asked to lead to another time."""
        return bool(getattr(self.network, "spans", False))

    @property
    def shortest_period(self) -> float:
        """The shortest period, in t, of the network's time features; infinite where it states none."""
        return min(
            (float(getattr(part, "shortest_period", math.inf)) for part in self.network.modules()), default=math.inf
        )

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

    def loss(self, x0: Batch, noise: Batch, t: Float[Tensor, " #b"], **options: Any) -> Float[Tensor, " b"]:
        """Per-example squared error of the target; options as in `losses.denoise`."""
        return denoise(self, x0, noise, t, **options)


def _first_floating(network: nn.Module) -> tuple[nn.Module, str]:
    """The module that has a network's first floating-point parameter, and its name there; "" where there is none."""
    for part in network.modules():
        for name, value in part._parameters.items():
            if value is not None and value.is_floating_point():
                return part, name
    return network, ""
