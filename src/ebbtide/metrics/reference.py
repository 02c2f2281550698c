"""Real points: drawn by a function or given as an array, in two sets that share nothing; distances to training rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..specs import expect
from .memorisation import nearest

__all__ = ["MOST_NEAR", "Near", "Reference", "Sampled", "points_and_labels", "real_labels", "two_sets"]

Sampled = Tensor | tuple[Tensor, Tensor]  # real points, alone or with their labels
Reference = Callable[[int, int], Sampled] | Sampled  # a function (n, seed) that draws them, or all there are

MOST_NEAR = 2000  # samples, and held-out rows, whose nearest training row is looked for


def two_sets(
    reference: Reference, train: Sampled | None, n: int, seed: int, repeat: int
) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Two independent sets of real points (and labels): fresh ones, training rows and held-out ones, or two halves."""
    one, two = (int(word) for word in np.random.SeedSequence([seed, repeat]).generate_state(2))
    if callable(reference):
        return points_and_labels(reference(n, one)), points_and_labels(reference(n, two))
    points, labels = points_and_labels(reference)
    if train is not None:
        rows, own = points_and_labels(train)
        if len(points) < 2 or len(rows) < 4:
            raise InputError(f"At least 2 held-out and 4 training rows are needed; got {len(points)} and {len(rows)}.")
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(one))[: min(n, len(rows) // 2)]
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        return (
            (rows[chosen], None if own is None else own[chosen]),
            (points[order], None if labels is None else labels[order]),
        )
    n = min(n, len(points) // 2)
    if n < 2:
        raise InputError(f"The reference needs at least 4 points, to be split into halves; got {len(points)}.")
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(one))
    halves = order[:n], order[n : 2 * n]
    x, y = ((points[half], None if labels is None else labels[half]) for half in halves)
    return x, y


def real_labels(reference: Reference, train: Sampled | None, *drawn: Tensor | None) -> set[Any]:
    """The labels that real points have: all of an array's, and those of a first draw."""
    arrays = [real for real in (reference, train) if real is not None and not callable(real)]
    sets = [*drawn, *(points_and_labels(real)[1] for real in arrays)]
    return {label for labels in sets if labels is not None for label in labels.tolist()}


def points_and_labels(real: Sampled) -> tuple[Tensor, Tensor | None]:
    """Points and their labels, on the CPU; None where there are none."""
    points, labels = real if isinstance(real, tuple) else (real, None)
    expect("Real points", points, Tensor)
    expect("Labels of real points", labels, Tensor, None)
    return points.detach().cpu(), None if labels is None else labels.cpu()


@dataclass(frozen=True)
class Near:
    """Distances to the nearest training row, each column in units of its spread: of samples and of held-out rows."""

    samples: Float[Tensor, " n"]
    held: Float[Tensor, " m"]
    seed: int

    @classmethod
    def of(cls, samples: Tensor, held: Sampled, train: Sampled, seed: int) -> "Near":
        (real, _), (rows, _) = points_and_labels(held), points_and_labels(train)
        rows = rows.double()
        spread = rows.std(0)
        unit = torch.where(spread > 0, spread, 1.0)
        some = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:MOST_NEAR]
        of_samples, of_held = (
            nearest(z.double() / unit, rows / unit).distance for z in (samples[:MOST_NEAR], real[some])
        )
        return cls(of_samples, of_held, seed)

    def floor(self, repeat: int) -> dict[str, Tensor]:
        """One random half of the held-out rows in place of samples, against the other."""
        order = torch.randperm(len(self.held), generator=torch.Generator().manual_seed(self.seed + repeat))
        half = (len(order) + 1) // 2
        return {"distance": self.held[order[:half]], "held_distance": self.held[order[half:]]}
