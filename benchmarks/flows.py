"""Whose flow is solved: mixtures' exact denoisers and trained networks, asked in anyone's convention."""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ebbtide.core.denoiser import DenoiserLike
from ebbtide.core.paths import DDPM, Linear, Path as ProbabilityPath, Scales, Time
from ebbtide.core.targets import Estimate
from ebbtide.core.times import from_flow
from ebbtide.data import DATASETS
from ebbtide.kinds.runs import train_recipe as train
from ebbtide.recipes import RECIPES, Recipe
from ebbtide.training.trained import Trained

PATHS: dict[str, ProbabilityPath] = {"VP": DDPM(), "linear": Linear()}
GUIDANCE = 1.5  # of the digits


# --- mixtures


class Modes(NamedTuple):
    """Σ_k w_k N(m_k, s_k² I)."""

    means: Tensor  # (k, d)
    stds: Tensor  # (k,)
    weights: Tensor  # (k,)

    @classmethod
    def even(cls, means: Tensor, std: float) -> "Modes":
        """Equal modes."""
        ones = torch.ones(len(means), dtype=torch.float64)
        return cls(means, std * ones, ones / len(means))

    def standard(self) -> "Modes":
        """Centred and scaled so that a coordinate's standard deviation is 1 on average."""
        w = self.weights[:, None]
        centred = self.means - (w * self.means).sum(0)
        scale = ((w * centred.square()).sum(0).mean() + (self.weights * self.stds.square()).sum()).sqrt()
        return Modes(centred / scale, self.stds / scale, self.weights)


def three_gaussians() -> Modes:
    """ebbtide's data set."""
    modes = DATASETS["three_gaussians"].modes
    assert modes is not None
    return Modes.even(modes.means.double(), modes.std).standard()


def corners() -> Modes:
    """Four modes at (±1, ±1), std 0.15."""
    return Modes.even(torch.tensor(list(product((-1.0, 1.0), repeat=2)), dtype=torch.float64), 0.15)


def sixteen() -> Modes:
    """Eight modes, drawn from N(0, I) in 16 dimensions, std 0.2."""
    return Modes.even(_normal(8, 8, 16), 0.2)


def ring() -> Modes:
    """Twelve modes on a circle."""
    angle = torch.arange(12, dtype=torch.float64) * 2 * math.pi / 12
    return Modes.even(torch.stack([angle.cos(), angle.sin()], 1), 0.08).standard()


def plane() -> Modes:
    """24 modes in 48 dimensions whose means lie in 5 of them."""
    return Modes.even(_normal(4, 24, 5) @ _normal(5, 5, 48) / 5**0.5, 0.1).standard()


def spiral() -> Modes:
    """60 modes along a turn and a half."""
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 60, dtype=torch.float64)
    return Modes.even(torch.stack([t * t.cos(), t * t.sin()], 1) / 10, 0.08).standard()


def unequal() -> Modes:
    """Five modes in three dimensions, each of its own spread and weight."""
    return _uneven(2026, 5, 3)


def twenty_four() -> Modes:
    """Twelve modes in 24 dimensions, each of its own spread and weight."""
    return _uneven(2027, 12, 24)


def board() -> Modes:
    """A grid of 5 × 5 modes."""
    places = torch.tensor(list(product(range(5), repeat=2)), dtype=torch.float64)
    return Modes.even(places, 0.1).standard()


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def _uneven(seed: int, count: int, dim: int) -> Modes:
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn(count, dim, generator=draw, dtype=torch.float64)
    stds, weights = torch.rand(2, count, generator=draw, dtype=torch.float64)
    return Modes(means, 0.05 + 0.3 * stds, (0.2 + weights) / (0.2 + weights).sum()).standard()


DEVELOPED = {  # while the solver was written, choices were made on these
    "three Gaussians": three_gaussians,
    "16 dimensions": sixteen,
    "four corners": corners,
    "ring of 12": ring,
    "24 modes in 48-D": plane,
    "spiral": spiral,
}
FRESH = {"5 unequal in 3-D": unequal, "12 unequal in 24-D": twenty_four, "grid of 25": board}  # and none on these
PROBLEMS: dict[str, Callable[[], Modes]] = {**DEVELOPED, **FRESH}


@dataclass
class Exact:
    """The exact denoiser of a mixture, in the precision of what it is asked about, counting calls and samples.

    It is ebbtide.exact.oracle.Mixture in fewer operations: V = α² s² + σ²,
    r = softmax(log w - d/2 log V - |x - α m|² / 2V), x̂₀ = Σ r (σ² m + α s² x) / V, ε̂ = σ Σ r (x - α m) / V.
    """

    path: ProbabilityPath
    modes: Modes
    gaussian_end: bool = True
    calls: int = 0
    asked: int = 0

    @property
    def dim(self) -> int:
        """Numbers in a sample."""
        return self.modes.means.shape[1]

    def __call__(self, x: Tensor, t: Time, /, **cond: Any) -> Estimate:
        c = self.path.at(t, x)
        return self.at(x, c.alpha, c.sigma)

    def at(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        """The estimate for x = α x₀ + σ ε, whatever the time is called."""
        self.calls, self.asked = self.calls + 1, self.asked + len(x)
        means, stds, weights = (part.to(x) for part in self.modes)
        if not (isinstance(alpha, Tensor) and alpha.ndim):
            alpha, sigma = float(alpha), float(sigma)
        variance = (alpha * stds) ** 2 + sigma**2
        squares = x.square().sum(1, keepdim=True) - 2 * alpha * (x @ means.T) + alpha**2 * means.square().sum(1)
        share = (weights.log() - (self.dim * variance.log() + squares / variance) / 2).softmax(1) / variance
        scale = share.sum(1, keepdim=True)
        mean = share @ means
        gain = alpha * (share @ stds.square())[:, None]
        return Estimate(sigma**2 * mean + gain * x, sigma * (scale * x - alpha * mean))

    def told(self, n: int) -> "Exact":
        """Itself: nothing is to be told of n samples."""
        return self

    def linear(self) -> "Exact":
        """The same on the linear path."""
        return replace(self, path=PATHS["linear"])


def exact(problem: str, path: str) -> Exact:
    """The denoiser of a problem on a path."""
    return Exact(PATHS[path], PROBLEMS[problem]())


# --- networks


def table(where: Path) -> Path:
    """5000 rows of eight columns, some correlated, some skewed, one of whole numbers."""
    draw = torch.Generator().manual_seed(2028)
    z = torch.randn(5000, 8, generator=draw, dtype=torch.float64)
    mixed = z @ torch.randn(8, 8, generator=draw, dtype=torch.float64) / 8**0.5 + z / 2
    columns = [*mixed[:, :4].T, mixed[:, 4].exp(), (mixed[:, 5] / 2).exp(), mixed[:, 6].abs() + mixed[:, 0]]
    columns.append(
        torch.bucketize(mixed[:, 7].contiguous(), torch.tensor([-1.0, -0.3, 0.4, 1.2], dtype=torch.float64)).double()
    )
    with where.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([f"c{i}" for i in range(8)])
        rows.writerows([f"{value:.6g}" for value in row] for row in torch.stack(columns, 1).tolist())
    return where


@dataclass(frozen=True)
class Recipes:
    """How a network is trained, and on which of PATHS it then is."""

    recipe: str
    path: str
    options: Mapping[str, Any]
    guidance: float = 1.0

    def made(self, folder: Path) -> Recipe:
        """The recipe; it writes the data that it needs."""
        data = self.options["data"]
        own = {"data": str(table(folder / "table.csv"))} if data == "table" else {}
        return replace(RECIPES[self.recipe](), **{**self.options, **own})


NETWORKS = {
    "pinwheel, flow": Recipes("flow", "linear", {"data": "pinwheel"}),
    "checkerboard, DDPM": Recipes("ddpm", "VP", {"data": "checkerboard"}),
    "table, flow": Recipes("flow", "linear", {"data": "table"}),
    "digits, flow": Recipes(
        "flow-images", "linear", {"data": "digits", "conditional": True, "steps": 1000}, guidance=GUIDANCE
    ),
}


def network(name: str, folder: Path) -> Trained:
    """The trained network, trained first unless the folder holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    where = folder / name.replace(", ", "-").lower()
    return train(NETWORKS[name].made(folder), where, resume=where.exists(), solvers=False)


@dataclass
class Learned:
    """A trained network seen as `Exact` is: asked at the time of its own path where σ/(α + σ) is the same."""

    name: str
    trained: Trained
    path: ProbabilityPath
    cond: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    gaussian_end: bool = True
    calls: int = 0
    asked: int = 0

    @property
    def dim(self) -> int:
        """Numbers in a sample."""
        return math.prod(self.trained.shape)

    @cached_property
    def denoiser(self) -> DenoiserLike:
        return self.trained.steered(guidance=NETWORKS[self.name].guidance)

    def __call__(self, x: Tensor, t: Time, /, **cond: Any) -> Estimate:
        c = self.path.at(t, x)
        return self.at(x, c.alpha, c.sigma)

    @torch.no_grad()
    def at(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        """The estimate for x = α x₀ + σ ε, whatever the time is called."""
        self.calls, self.asked = self.calls + 1, self.asked + len(x)
        size = float(alpha) + float(sigma)
        c = _at_tau(self.denoiser.path, round(float(sigma) / size, 14))
        own = (x * ((c.alpha + c.sigma) / size)).reshape(-1, *self.trained.shape)
        found = self.denoiser(own, c, **self.cond)
        return Estimate(found.x0.reshape(x.shape), found.noise.reshape(x.shape))

    def told(self, n: int) -> "Learned":
        """With labels for n samples, as frequent as in the data."""
        labels = self.trained.in_proportion(n) if self.trained.recipe.learns_labels else None
        return self if labels is None else replace(self, cond={"label": labels})

    def linear(self) -> "Learned":
        """The same on the linear path."""
        return replace(self, path=PATHS["linear"])


def learned(name: str, folder: Path) -> Learned:
    """The denoiser of a trained network on its own path."""
    return Learned(name, network(name, folder), PATHS[NETWORKS[name].path])


@cache
def _at_tau(path: ProbabilityPath, tau: float) -> Scales:
    """The scales where σ/(α + σ) = τ; those at t = 1 from there on."""
    last = path.along([1.0])[0]
    share = tau * (last.alpha + last.sigma) / last.sigma
    if share >= 1:
        return last
    return path.along(from_flow(torch.tensor([1.0, share, 0.0], dtype=torch.float64), path))[1]


Flow = Exact | Learned
