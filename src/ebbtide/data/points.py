"""Points: synthetic distributions, with their density where it is exact, and the user's own files.

To add a data set, add a row to DATASETS in this file: `mixture(means, std)`, `along(curve, std)` or your own.
Give it a log_density only if that is exact; tests/data/test_points.py holds every row to its samples.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..errors import InputError
from ..specs import expect, pick, require
from .files import READABLE, read
from .forms import Reading
from .table import Points

__all__ = ["DATASETS", "Curve", "LogDensity", "Modes", "PointSet", "Sample", "along_curve", "gaussian_modes", "load"]

Sample = Callable[[int, Generator], tuple[Tensor, Tensor | None]]
LogDensity = Callable[[Tensor], Tensor]
Curve = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Modes:
    """Equally likely Gaussian modes N(μₖ, std² I), means in float64."""

    means: Float[Tensor, "k d"]
    std: float


@dataclass(frozen=True, eq=False)
class PointSet:
    """A synthetic distribution. `sample(n, generator)` → x (n, d) float32 and labels (n,) int64 or None.

    `log_density` takes any batch (*b, d) in any float dtype; it is None where no exact closed form exists.
    `curve(u, labels)` is the noise-free skeleton, u ∈ [0, 1], of a set that is a curve plus noise.
    """

    sample: Sample
    about: str
    limits: tuple[float, float]
    classes: tuple[str, ...] = ()
    log_density: LogDensity | None = None
    modes: Modes | None = None
    curve: Curve | None = None
    dim: int = 2


def load(spec: str, n: int, seed: int, label: str | None = None, how: Reading | None = None) -> Points:
    """n points of a DATASETS row drawn from `seed`, or every row of a file.

    `label` names a file's label column, and `how` more of its columns (see `files.read`). A file called like a row
    is written ./two_moons.
    """
    expect("The data", spec, str)
    expect("label", label, str, None)
    if spec not in DATASETS and (os.sep in spec or "/" in spec or Path(spec).suffix):
        return read(spec, label, how)
    data = DATASETS[pick(DATASETS, spec, f"data that is not a file ({', '.join(READABLE)})")]
    if label is not None:
        raise InputError(f"label names a column of a file, and {spec} is not a file; got label {label!r}.")
    if how is not None and how != Reading(label):
        raise InputError(f"Columns are named of a file, and {spec} is not a file.")
    require("n, the number of points,", n, 1, whole=True)
    require("seed", seed, 0, 2**63 - 1, whole=True)
    x, labels = data.sample(n, Generator().manual_seed(seed))
    return Points(x, labels, columns=("x", "y", "z")[: data.dim], classes=data.classes)


def gaussian_modes(
    means: Sequence[Sequence[float]],
    std: float,
    *,
    about: str,
    limits: tuple[float, float],
    classes: tuple[str, ...] = (),
) -> PointSet:
    """p(x) = 1/k Σₖ N(x; μₖ, std² I); the label is the mode."""
    mu = torch.tensor(means, dtype=torch.float64)
    k, d = mu.shape

    def sample(n: int, g: Generator) -> tuple[Tensor, Tensor]:
        labels = _integers(k, n, g)
        return mu.to(g.device, torch.float32)[labels] + std * _normal(g, n, d), labels

    def log_density(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        r2 = (x[..., None, :] - mu.to(x)).square().sum(-1)
        return torch.logsumexp(-r2 / (2 * std**2), -1) - math.log(k) - d / 2 * math.log(2 * math.pi * std**2)

    return PointSet(sample, about, limits, classes, log_density, Modes(mu, std), dim=d)


def along_curve(
    curve: Curve, std: float, *, about: str, limits: tuple[float, float], classes: tuple[str, ...] = ()
) -> PointSet:
    """x = curve(u, label) + std ε with u ~ U(0, 1): one curve, or one per class, all equally likely."""

    def sample(n: int, g: Generator) -> tuple[Tensor, Tensor | None]:
        labels = _integers(max(len(classes), 1), n, g)
        x = curve(_uniform(g, n), labels) + std * _normal(g, n, 2)
        return x, labels if classes else None

    return PointSet(sample, about, limits, classes, curve=curve)


def _moons(u: Tensor, label: Tensor) -> Tensor:
    """scikit-learn's two half circles, centred at the origin and twice as large (radius 2)."""
    sign = 1 - 2 * label
    return sign[..., None] * (2 * _circle(math.pi * u) - torch.tensor([1.0, 0.5]).to(u))


def _roll(u: Tensor, label: Tensor) -> Tensor:
    """scikit-learn's roll seen from the side: radius θ/15, θ from 1.5π to 4.5π."""
    angle = 1.5 * math.pi * (1 + 2 * u)
    return angle[..., None] / 15 * _circle(angle)


def _spirals(u: Tensor, label: Tensor) -> Tensor:
    """One and a half turns out to radius 1, the second spiral half a turn ahead of the first."""
    return u[..., None] * _circle(math.pi * (3 * u + label))


_RADII, _RING_STD = (1.0, 2.0, 3.0), 0.1


def _rings(u: Tensor, label: Tensor) -> Tensor:
    return torch.tensor(_RADII).to(u)[label][..., None] * _circle(2 * math.pi * u)


def _rings_log_density(x: Float[Tensor, "*b 2"]) -> Float[Tensor, " *b"]:
    """A circle of radius R plus N(0, s²I): p(x) = exp(-(ρ² + R²) / 2s²) I₀(ρR / s²) / 2πs²,  ρ = |x|."""
    radii, s2 = torch.tensor(_RADII).to(x), _RING_STD**2
    rho = x.norm(dim=-1, keepdim=True)
    # i0e(z) = I₀(z) exp(-z) never overflows, and its exponent completes the square.
    terms = -(rho - radii).square() / (2 * s2) + torch.special.i0e(rho * radii / s2).log()
    return torch.logsumexp(terms, -1) - math.log(len(_RADII) * 2 * math.pi * s2)


def _checkerboard(n: int, g: Generator) -> tuple[Tensor, None]:
    column = _integers(4, n, g)
    row = 2 * _integers(2, n, g) + column % 2
    # Below 1 - 2⁻²⁰, float32 can't round a point over its square's edge, where the density is zero.
    inside = _uniform(g, n, 2).clamp(max=1 - 2**-20)
    return 2 * (torch.stack([column, row], -1) + inside) - 4, None


def _checkerboard_log_density(x: Float[Tensor, "*b 2"]) -> Float[Tensor, " *b"]:
    """Uniform on the 8 squares of side 2 whose column + row is even: p = 1/32 there, else 0 (log p = -∞)."""
    square = ((x + 4) / 2).floor()
    dark = (square.sum(-1) % 2 == 0) & ((square >= 0) & (square < 4)).all(-1)
    return torch.where(dark, -math.log(32), -math.inf).to(x)


_BLADES, _BLADE_MEAN, _BLADE_STD = 5, (2.0, 0.0), (0.6, 0.2)


def _pinwheel(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    labels = _integers(_BLADES, n, g)
    z = _normal(g, n, 2)
    z = torch.tensor(_BLADE_MEAN).to(z) + torch.tensor(_BLADE_STD).to(z) * z
    return _turn(z, _blade_angle(z) + 2 * math.pi / _BLADES * labels.to(z)), labels


def _pinwheel_log_density(x: Float[Tensor, "*b 2"]) -> Float[Tensor, " *b"]:
    """A blade is a Gaussian turned by an angle that depends on the radius alone, so its Jacobian is 1."""
    spokes = 2 * math.pi / _BLADES * torch.arange(_BLADES).to(x)
    z = _turn(x[..., None, :], -_blade_angle(x)[..., None] - spokes)
    std = torch.tensor(_BLADE_STD, dtype=torch.float64).to(x)
    r2 = ((z - torch.tensor(_BLADE_MEAN).to(x)) / std).square().sum(-1)
    return torch.logsumexp(-r2 / 2, -1) - math.log(_BLADES * 2 * math.pi * math.prod(_BLADE_STD))


def _blade_angle(z: Tensor) -> Tensor:
    return (z.norm(dim=-1) / 2).exp() / 4


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    """Each point (x, y) turned counter-clockwise by its angle."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1]], -1)


def _circle(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], -1)


# Drawn in float32 whatever torch's default dtype, so that a seed always means the same points.
def _normal(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, device=g.device, dtype=torch.float32)


def _uniform(g: Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=g, device=g.device, dtype=torch.float32)


def _integers(high: int, n: int, g: Generator) -> Tensor:
    return torch.randint(high, (n,), generator=g, device=g.device)


DATASETS: dict[str, PointSet] = {
    "three_gaussians": gaussian_modes(
        [(2.0, 2.0), (-2.0, 2.0), (0.0, -2.0)],
        std=0.3,
        about="three round clusters at (2, 2), (-2, 2) and (0, -2), std 0.3",
        limits=(-3.5, 3.5),
        classes=("right", "left", "bottom"),
    ),
    "eight_gaussians": gaussian_modes(
        [(2 * math.cos(k * math.pi / 4), 2 * math.sin(k * math.pi / 4)) for k in range(8)],
        std=0.2,
        about="eight round clusters on a circle of radius 2, std 0.2",
        limits=(-3.0, 3.0),
        classes=("E", "NE", "N", "NW", "W", "SW", "S", "SE"),
    ),
    "two_moons": along_curve(
        _moons,
        std=0.1,
        about="two interleaved half circles of radius 2, noise 0.1",
        limits=(-3.5, 3.5),
        classes=("upper", "lower"),
    ),
    "swiss_roll": along_curve(
        _roll,
        std=0.03,
        about="one and a half turns of a spiral, radius 0.31 to 0.94, noise 0.03",
        limits=(-1.25, 1.25),
    ),
    "two_spirals": along_curve(
        _spirals,
        std=0.06,
        about="two intertwined spirals of radius 1, noise 0.06",
        limits=(-1.4, 1.4),
        classes=("first", "second"),
    ),
    "checkerboard": PointSet(
        _checkerboard,
        about="uniform on the eight dark squares, side 2, of a 4 × 4 board",
        limits=(-4.5, 4.5),
        log_density=_checkerboard_log_density,
    ),
    "pinwheel": PointSet(
        _pinwheel,
        about="five Gaussian blades, twisted by their radius",
        limits=(-4.5, 4.5),
        classes=tuple(f"blade {k + 1}" for k in range(_BLADES)),
        log_density=_pinwheel_log_density,
    ),
    "rings": replace(
        along_curve(
            _rings,
            std=_RING_STD,
            about="three circles of radius 1, 2 and 3, noise 0.1",
            limits=(-4.0, 4.0),
            classes=("inner", "middle", "outer"),
        ),
        log_density=_rings_log_density,
    ),
    "point_mass": PointSet(
        lambda n, g: (torch.full((n, 1), 4.0, dtype=torch.float32, device=g.device), None),
        about="one dimension, every point at 4",
        limits=(-3.5, 5.5),
        dim=1,
    ),
}
