"""Metrics of a mixture's modes and labels: the share of samples in none, and in each."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from scipy.special import gammaincc
from torch import Tensor

from ..errors import InputError
from .inputs import Doubles, checked_mixture, flat, pair, points

__all__ = [
    "expected_outliers",
    "label_agreement",
    "log_densities",
    "mean_log_density",
    "mode_fractions",
    "nearest_mode",
    "outlier_fraction",
]


def outlier_fraction(
    x: Float[Tensor, " n *d"], means: Float[Tensor, " k ..."], std: float, sigmas: float = 4.0
) -> float:
    """The fraction of samples with |x − μ_k| > sigmas · σ for every mode k.

    The truth has some too: P(χ²_d > sigmas²), in 2-D exp(−8) = 0.034 % beyond 4 σ.
    """
    _, distance = nearest_mode(*checked_mixture(x, means, std))
    return float((distance > sigmas * std).mean())


def expected_outliers(means: Float[Tensor, " k ..."], std: float, sigmas: float = 4.0) -> float | None:
    """The true outlier_fraction, P(χ²_d > sigmas²); None where neighbouring modes overlap at that distance."""
    centres = flat(means.double())
    if len(centres) > 1 and float(torch.pdist(centres).min()) < 2 * sigmas * std:
        return None
    return float(gammaincc(centres.shape[1] / 2, sigmas**2 / 2))


def mode_fractions(x: Float[Tensor, " n *d"], means: Float[Tensor, " k ..."]) -> Float[Tensor, " k"]:
    """The fraction of samples nearest to each mode."""
    nearest, _ = nearest_mode(*checked_mixture(x, means))
    return torch.from_numpy(np.bincount(nearest, minlength=len(means)) / len(x))


def mean_log_density(x: Float[Tensor, " n *d"], log_density: Callable[[Tensor], Tensor]) -> float:
    """(1/n) Σ log p(x_i) under the true density p, in nats.

    Higher is not better: samples that all sit on a mode beat the truth. Compare with the truth's own, −entropy.
    """
    return float(log_densities(x, log_density).mean())


def label_agreement(
    x: Float[Tensor, " n *d"],
    asked: Int[Tensor, " _"],
    reference: Float[Tensor, " m ..."],
    labels: Int[Tensor, " _"],
) -> float:
    """The fraction of samples whose nearest reference point carries the asked label.

    Where classes overlap the truth stays below 1 too (0.96 on two labelled spirals).
    """
    a, b = pair(x, reference)
    if len(asked) != len(a) or len(labels) != len(b):
        sizes = f"{len(asked)} for {len(a)} and {len(labels)} for {len(b)}"
        raise InputError(f"Every sample and every reference point needs one label; got {sizes}.")
    _, nearest = cKDTree(b).query(a)
    return float((labels.cpu().numpy()[nearest] == asked.cpu().numpy()).mean())


def log_densities(x: Float[Tensor, " n *d"], log_density: Callable[[Tensor], Tensor]) -> Doubles:
    """log p(x_i) for each sample, checked."""
    points(x)
    values: Doubles = log_density(x).detach().double().cpu().numpy()
    if values.shape != (len(x),):
        raise InputError(f"log_density must give {len(x)} values for {len(x)} points; got {values.shape}.")
    return values


def nearest_mode(x: Doubles, means: Doubles) -> tuple[npt.NDArray[np.intp], Doubles]:
    """Index of the nearest mode, and the distance to it."""
    distance, nearest = cKDTree(means).query(x)
    return nearest, distance
