"""Start of a network: the exact estimate of a Gaussian, or of a mixture, fitted to the rows that it is to learn.

Of rows seen by their ranks N(m, C) is the Gaussian copula. A network whose last layer is zero is that copula until its
first step.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.paths import Linear, Path, Time
from ..core.randomness import far_apart, generator
from ..core.targets import Estimate
from .oracle import Gaussian, Gaussians

__all__ = ["FLOOR", "MOST_PARTS", "Start", "chosen", "drawn", "fit_mixture", "shrunk"]

FAR = 5.0  # standard deviations, beyond which one number of a million lies
FLOOR = 1e-3  # of a covariance's eigenvalues: levels' unit vectors have directions without any variance
COUNTS = (1, 2, 3, 4, 6, 8)
MOST_PARTS = COUNTS[-1]
DRAWS = 4096
ROUNDS = 20  # of Lloyd's, and of expectation and maximisation


class Start(nn.Module):
    """Σ_k w_k N(m_k, U_k diag(s_k²) U_kᵀ) as a denoiser, in a network's units.

    classes: parts are those of labels 0, 1, …, one each; a label leaves its own alone, the null label keeps all.
    dim: numbers in an example.
    """

    def __init__(self, path: Path, dim: int, parts: int = 1, classes: int = 0) -> None:
        super().__init__()
        self.path, self.classes = path, classes
        self.register_buffer("weights", torch.full((parts,), 1 / parts))
        self.register_buffer("means", torch.zeros(parts, dim))
        self.register_buffer("bases", torch.eye(dim).repeat(parts, 1, 1))
        self.register_buffer("stds", torch.ones(parts, dim))
        self.register_buffer("middle", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim))
        self.register_buffer("spread", torch.ones(dim))

    weights: Tensor
    means: Tensor
    bases: Tensor
    stds: Tensor
    middle: Tensor
    axes: Tensor
    spread: Tensor

    def exact(self, label: Int[Tensor, " b"] | None = None) -> Gaussians:
        """The denoiser of the distribution, or of that of each example's class."""
        weights = self.weights[None]
        if self.classes and label is not None:
            own = nn.functional.one_hot(label, self.classes + 1)[:, : self.classes].to(weights)
            weights = own.where((label < self.classes)[:, None], weights)
        return Gaussians(self.path, self.means, self.bases, self.stds, weights)

    def forward(self, x_t: Float[Tensor, " b *d"], t: Time, label: Tensor | None = None, **cond: Any) -> Estimate:
        with torch.autocast(x_t.device.type, enabled=False):
            return self.exact(label)(x_t, t)

    def within(self, x_t: Float[Tensor, " b d"], t: Time) -> Float[Tensor, " b d"]:
        """x_t, moved to FAR standard deviations of x_t from the middle along each principal axis where it is beyond."""
        c, own = self.path.at(t, x_t), Gaussian(self.path, self.middle, self.axes, self.spread)
        _, offsets, variance = own._coordinates(x_t, c)
        far = FAR * variance.sqrt()
        inside = torch.minimum(torch.maximum(offsets, -far), far)
        return torch.where((inside == offsets).all(1, keepdim=True), x_t, c.alpha * self.middle + inside @ self.axes.T)

    def set(self, weights: Tensor, means: Tensor, covariances: Tensor) -> "Start":
        """The same with these parts. weights: w_k, (k,). covariances: C_k, (k, d, d)."""
        variances, bases = torch.linalg.eigh(covariances.double())
        found = {"weights": weights, "means": means, "bases": bases, "stds": variances.clamp(min=FLOOR).sqrt()}
        shares, centres = weights.double() / weights.sum(), means.double()
        found["middle"] = middle = shares @ centres
        offsets = centres - middle
        whole = (shares[:, None, None] * (covariances.double() + offsets[:, :, None] * offsets[:, None])).sum(0)
        variances, found["axes"] = torch.linalg.eigh(whole)
        found["spread"] = variances.clamp(min=FLOOR).sqrt()
        for name, part in found.items():
            getattr(self, name).copy_(part)
        return self


def drawn(data: Any, count: int = DRAWS) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"] | None]:
    """Every row of data at least once, at least `count` draws in all, as a network sees them, and their labels."""
    draw, rows = generator("start"), torch.arange(len(data))
    taken = [data.take(rows, draw) for _ in range(-(-count // len(data)))]
    labels = torch.cat([part["label"] for part in taken]) if "label" in taken[0] else None
    return torch.cat([part["x0"] for part in taken]).double(), labels


def chosen(data: Any, judging: Any) -> int:
    """The number of Gaussians, fitted to data, under which data not seen is likely; each of 2 d rows or more.

    The fewest within an error of the best, that of their difference over rows (Breiman et al. 1984, Section 3.4.3).

    data, judging: the training rows and those not seen, as prepared for training.
    """
    (z, _), (other, _) = drawn(data), drawn(judging)
    likely = {}
    for parts in (k for k in COUNTS if k == 1 or 2 * z.shape[1] * k <= len(data)):
        each = _set(*fit_mixture(z, parts, len(data))).exact().log_density(other)
        likely[parts] = each.reshape(-1, len(judging)).mean(0)  # of each row over its draws
    best = max(likely.values(), key=lambda each: each.mean().item())
    error = lambda gap: gap.std().item() / len(gap) ** 0.5 if len(gap) > 1 else 0.0
    return next(parts for parts, each in likely.items() if (best - each).mean().item() <= error(best - each))


def shrunk(z: Float[Tensor, "n d"], rows: int | None = None) -> Float[Tensor, "d d"]:
    """The covariance (1 - λ) S + λ tr(S)/d I (Ledoit & Wolf 2004, Section 3.2), λ the best for as many rows.

    rows: how many of z are independent; all, unless given.
    """
    z = (z - z.mean(0)).double()
    n, d = z.shape
    S = z.T @ z / n
    mu = S.trace() / d
    target = mu * torch.eye(d, dtype=z.dtype)
    distance = (S - target).square().sum()
    noise = (z.square().sum(1).square().sum() / n - S.square().sum()) / (n if rows is None else rows)
    share = (noise / distance.clamp(min=1e-12)).clamp(0, 1)
    return (1 - share) * S + share * target


def fit_mixture(
    z: Float[Tensor, "n d"], parts: int, rows: int | None = None, labels: Int[Tensor, " n"] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of `parts` Gaussians; of labelled rows one for each label.

    By expectation and maximisation from centres far from one another. Each covariance is drawn to the mean of all, as
    if d + 2 more rows were spread as that is. rows: how many of z are independent; all, unless given.
    """
    z, each = z.double(), len(z) / (rows or len(z))  # draws of a row
    own = _nearest(z, _spread(z, parts)) if labels is None else labels
    found = _maximised(z, nn.functional.one_hot(own, parts).to(z), each)
    for _ in range(ROUNDS if labels is None and parts > 1 else 0):
        found = _maximised(z, _set(*found).exact().log_joint(z).softmax(1), each)
    return found


def _spread(z: Tensor, count: int) -> Tensor:
    """Centres of rows: some that are far apart, then Lloyd's."""
    centres = z[far_apart(z, count, generator("spread"))]
    for _ in range(ROUNDS):
        own = nn.functional.one_hot(_nearest(z, centres), count).to(z)
        centres = torch.where((total := own.sum(0)[:, None]) > 0, own.T @ z / total.clamp(min=1), centres)
    return centres


def _nearest(z: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(z, centres).argmin(1)


def _maximised(z: Tensor, r: Tensor, each: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of the parts that rows belong to by these responsibilities."""
    total, prior = r.sum(0), each * (z.shape[1] + 2)
    means = (r.T @ z + each * z.mean(0)) / (total[:, None] + each)
    within = shrunk(z - r @ means, round(len(z) / each))
    covariances = []
    for mean, share, count in zip(means, r.T, total, strict=True):
        offsets = z - mean
        own = (share[:, None] * offsets).T @ offsets
        covariances.append(within if r.shape[1] == 1 else (own + prior * within) / (count + prior))
    return (total + each) / (total + each).sum(), means, torch.stack(covariances)


def _set(weights: Tensor, means: Tensor, covariances: Tensor) -> Start:
    return Start(Linear(), means.shape[1], len(means)).double().set(weights, means, covariances)
