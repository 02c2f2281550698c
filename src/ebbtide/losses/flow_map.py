"""Losses of flow maps: identities that only the map of a flow satisfies, so that training on them learns the map.

All are written in the flow clock, z = x/(α + σ) and τ = σ/(α + σ), in which every path is the linear one. The pair
x̂₀, ε̂ that leads from t to s has the mean slope u = ε̂ - x̂₀, and z_s = z_t + (τ_s - τ_t) u; for s = t it is the velocity
v = dz/dτ. Hence no loss depends on the path, the target or the teacher.

    known ends    u = (z_s - z_t)/(τ_s - τ_t)                        trajectory
    semigroup     X(t → s) = X(m → s) ∘ X(t → m)                     shortcut
    Eulerian      u = v - (τ_t - τ_s) du/dτ along the flow           mean_flow; consistency, where s = 0
    Lagrangian    ∂X(t → s)/∂τ_s = v at X(t → s)                     lagrangian

Targets that are made of estimates pass no gradient. Each loss is zero on the exact map alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..specs import pick, require

__all__ = [
    "Leap",
    "arrive",
    "consistency",
    "jumped",
    "known_ends",
    "lagrangian",
    "mean_flow",
    "mean_slope",
    "robust",
    "shortcut",
]

if TYPE_CHECKING:
    from ..core.denoiser import DenoiserLike
    from ..core.paths import Batch, Path, Scales

STEP = 1e-3  # of a central difference in the flow clock, whose error is 1e-6 / 6 of the third derivative
SHARE = 1 / 40  # of the shortest period of a network's time features: a step of that errs by 0.4 % of their slope
DERIVATIVES = ("difference", "jvp")


@dataclass(frozen=True)
class Fresh:
    """Numbers for losses that sample: a start at t = 1, noises ε and ε', uniform u, and the end of a trajectory.

    lawful: whether that trajectory's start was drawn as starts are, and not wider.
    """

    start: "Batch"
    noise: "Batch"
    nudge: "Batch"
    u: Float[Tensor, " b"]
    end: "Batch"
    lawful: Bool[Tensor, " b"]


@dataclass(frozen=True)
class Leap:
    """Examples for a flow map: x_t, its time t, and the time `to` that the estimate is to lead to.

    slope: dz/dτ at x_t: the teacher's, or ε - x₀ of the pair that makes x_t, which is right on average.
    x_to: the point at `to` of the same trajectory. cond: the network's conditions, such as label. fresh: further draws.
    """

    x_t: "Batch"
    t: "Scales"
    to: "Scales"
    slope: "Batch | None" = None
    x_to: "Batch | None" = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    fresh: Fresh | None = None

    def given(self, name: str) -> Any:
        """The part of this name; InputError where it isn't known."""
        part = getattr(self, name)
        if part is None:
            raise InputError(f"This loss needs the leap's {name}.")
        return part

    def apart(self) -> tuple[Tensor, "Leap"]:
        """The places of the examples that lead to another time, and these examples."""
        rows = (self.t.tau != self.to.tau).flatten().nonzero()[:, 0]

        def of(part: Any) -> Any:
            return part if part is None else part[rows]

        t, to = (type(c)(*(of(value) for value in c)) for c in (self.t, self.to))
        cond = {name: of(part) for name, part in self.cond.items()}
        return rows, Leap(of(self.x_t), t, to, of(self.slope), of(self.x_to), cond)


def mean_slope(
    denoiser: "DenoiserLike", x_t: "Batch", t: "Scales", to: "Scales | None" = None, cond: Mapping[str, Any] = {}
) -> "Batch":
    """u = ε̂ - x̂₀: the mean slope dz/dτ between t and `to`; the velocity at t without `to`."""
    return denoiser(x_t, t, **({} if to is None else {"to": to}), **cond).mix(-1.0, 1.0)


def arrive(x_t: "Batch", t: "Scales", to: "Scales", u: "Batch") -> "Batch":
    """x_s, where z_s = z_t + (τ_s - τ_t) u."""
    return to.size * (x_t / t.size + (to.tau - t.tau) * u)


def jumped(denoiser: "DenoiserLike", x_t: "Batch", t: "Scales", to: "Scales", cond: Mapping[str, Any] = {}) -> "Batch":
    """X(t → s): x_s by one estimate that leads there."""
    return arrive(x_t, t, to, mean_slope(denoiser, x_t, t, to, cond))


def robust(error: "Batch", power: float, floor: float) -> Float[Tensor, " b"]:
    """|Δ|² / (|Δ|² + c)^p, the denominator without gradient (Geng et al. 2025, arXiv:2505.13447, Eq. 22).

    |Δ|²: the mean over an example's numbers. power: p; 0 is the squared error, 1 about its logarithm. floor: c.
    """
    require("loss: power", power, 0)
    require("loss: floor", floor, above=0)
    square = error.square().flatten(1).mean(1)
    return square / (square.detach() + floor) ** power if power else square


def known_ends(denoiser: "DenoiserLike", leap: Leap, *, power: float = 1.0, floor: float = 0.01) -> Tensor:
    """|u - (z_s - z_t)/(τ_s - τ_t)|²: regression on the ends of a part of the teacher's own trajectories.

    Where s = t it is regression on the teacher's slope, so that a student stays a denoiser for every other sampler.
    """
    known = (leap.given("x_to") / leap.to.size - leap.x_t / leap.t.size) / (leap.to.tau - leap.t.tau)
    if leap.slope is not None:
        known = torch.where(leap.t.tau == leap.to.tau, leap.slope, known)
    return robust(mean_slope(denoiser, leap.x_t, leap.t, leap.to, leap.cond) - known, power, floor)


def shortcut(
    denoiser: "DenoiserLike",
    leap: Leap,
    *,
    average: "DenoiserLike | None" = None,
    power: float = 0.0,
    floor: float = 0.01,
) -> Tensor:
    """|u(t → s) - ½ (u(t → m) + u(m → s))|², m halfway in the flow clock: one jump leads where two half jumps do.

    Frans et al. 2024, arXiv:2410.12557, Eq. 5; the halves are the average's estimates. Where s = t the target is the
    slope that is known, which anchors the map: without it any semigroup would do.
    """
    target, (rows, part) = leap.given("slope").clone(), leap.apart()
    if len(rows):
        half = _at(denoiser.path, (part.t.tau + part.to.tau) / 2, part.x_t)
        with torch.no_grad():
            teacher = average or denoiser
            first = mean_slope(teacher, part.x_t, part.t, half, part.cond)
            second = mean_slope(teacher, arrive(part.x_t, part.t, half, first), half, part.to, part.cond)
        target[rows] = (first + second) / 2
    return robust(mean_slope(denoiser, leap.x_t, leap.t, leap.to, leap.cond) - target, power, floor)


def mean_flow(
    denoiser: "DenoiserLike",
    leap: Leap,
    *,
    average: "DenoiserLike | None" = None,
    own: bool = False,
    derivative: str = "difference",
    power: float = 1.0,
    floor: float = 0.01,
) -> Tensor:
    """|u - (v - (τ_t - τ_s) du/dτ)|², du/dτ = ∂_τ u + v ∂_z u along the flow, `to` held fixed.

    Geng et al. 2025, arXiv:2505.13447, Eqs. 6, 8 and 11. Where s = t it is the flow-matching loss.
    own: v is the average's velocity, which has no spread as the slope of a pair does; where s = t that slope is learned
    (Geng et al. 2025, arXiv:2512.02012). derivative: a central "difference", which costs two evaluations without
    gradients, or "jvp", in forward mode. The difference's step follows from the shortest period of the network's time
    features, π0's being 0.004.
    """
    target, (rows, part) = leap.given("slope").clone(), leap.apart()
    if len(rows):
        with torch.no_grad():
            v = mean_slope(average or denoiser, part.x_t, part.t, None, part.cond) if own else part.given("slope")

            def along(c: "Scales") -> "Batch":
                return mean_slope(denoiser, arrive(part.x_t, part.t, c, v), c, part.to, part.cond)

            rate = _derivative(along, denoiser, part.t, part.x_t, derivative)
            target[rows] = v - (part.t.tau - part.to.tau) * rate
    return robust(mean_slope(denoiser, leap.x_t, leap.t, leap.to, leap.cond) - target, power, floor)


def lagrangian(
    denoiser: "DenoiserLike",
    leap: Leap,
    *,
    teacher: "DenoiserLike | None" = None,
    derivative: str = "difference",
    power: float = 0.0,
    floor: float = 0.01,
) -> Tensor:
    """|∂X(t → s)/∂τ_s - v(X(t → s), s)|², ∂X/∂τ_s = u + (τ_s - τ_t) ∂u/∂τ_s: the end moves as the flow does there.

    Boffi et al. 2025, arXiv:2505.18825, Eq. 10. v: the teacher's, or the denoiser's own; no gradient runs through it,
    all of it through the derivative. Where s = t it is the flow-matching loss, with the known slope.
    """
    u = mean_slope(denoiser, leap.x_t, leap.t, leap.to, leap.cond)

    def toward(to: "Scales") -> "Batch":
        return mean_slope(denoiser, leap.x_t, leap.t, to, leap.cond)

    rate = _derivative(toward, denoiser, leap.to, leap.x_t, derivative)
    with torch.no_grad():
        end = arrive(leap.x_t, leap.t, leap.to, u)
        v = mean_slope(teacher or denoiser, end, leap.to, None, leap.cond)
        if leap.slope is not None:
            v = torch.where(leap.t.tau == leap.to.tau, leap.slope, v)
    return robust(u + (leap.to.tau - leap.t.tau) * rate - v, power, floor)


def consistency(
    denoiser: "DenoiserLike",
    leap: Leap,
    *,
    average: "DenoiserLike | None" = None,
    power: float = 0.5,
    floor: float = 1e-4,
) -> Tensor:
    """|X(t → 0) - X(s → 0)|² of two points of one trajectory, the later one's without gradient; at s = 0 it is x₀.

    Song et al. 2023, arXiv:2303.01469, Eq. 7, on the teacher's trajectories, or, where x_t and x_s are made of the same
    pair, Eq. 9; power ½ is its pseudo-Huber form (Geng et al. 2024, arXiv:2406.14548, Section 3).

    average: makes the later estimate; the denoiser itself without it.
    """
    x_to = leap.given("x_to")
    end = denoiser.path.at(torch.zeros_like(leap.t.t), leap.x_t)
    with torch.no_grad():
        held = jumped(average or denoiser, x_to, leap.to, end, leap.cond).where(leap.to.sigma > 0, x_to)
    return robust(jumped(denoiser, leap.x_t, leap.t, end, leap.cond) - held, power, floor)


def _at(path: "Path", tau: Tensor, x: "Batch") -> "Scales":
    """The Scales at which the flow clock is τ, for each example."""
    return path.at(path.time_at(tau.flatten().double()), x)


def _derivative(
    function: Callable[["Scales"], "Batch"], denoiser: "DenoiserLike", c: "Scales", x: "Batch", derivative: str
) -> "Batch":
    """d function / dτ at c; the difference is one-sided at the ends of the path."""
    pick(DERIVATIVES, derivative, "loss: derivative")
    path, period = denoiser.path, getattr(denoiser, "shortest_period", math.inf)
    pace = c.size**2 / (c.sigma_dot * c.alpha - c.sigma * c.alpha_dot)  # dt/dτ
    if derivative == "jvp":
        return torch.func.jvp(lambda t: function(path.at(t, x)), (c.t.clone(),), (pace.flatten().to(c.t),))[1]
    last, step = path.along([1.0])[0].tau, (SHARE * period / pace).clamp(STEP / 100, STEP)
    low, high = (_at(path, (c.tau + way).clamp(0, last), x) for way in (-step, step))
    return (function(high) - function(low)) / (high.tau - low.tau)
