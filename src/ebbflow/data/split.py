"""Which rows of a data set are held out, to measure with."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import InputError
from ..randomness import generator


def held_out(
    n: int, share: float, labels: Int[Tensor, " n"] | None = None, seed: int = 0, *, keep_classes: bool = False
) -> Bool[Tensor, " n"]:
    """round(share n) of n rows, at least one if share > 0, of each class within one of its share, drawn by `seed`.

    keep_classes: leave every class a row to train on, and hold out fewer where that takes it.
    """
    if not 0 <= share < 1:
        raise InputError(f"share must be at least 0 and below 1; got {share!r}.")
    held = torch.zeros(n, dtype=torch.bool)
    if not share or n < 2:
        return held
    count = min(max(1, round(share * n)), n - 1)
    g = generator(seed, "held out")
    order = torch.randperm(n, generator=g)
    if labels is not None:  # class by class, the classes in a random order as well
        rank = torch.randperm(int(labels.max()) + 1, generator=g)
        order = order[rank[labels[order]].argsort(stable=True)]
    steps = torch.arange(n + 1) * count // n
    held[order[steps.diff() > 0]] = True  # evenly along the order
    if labels is not None and keep_classes:
        for k in labels[held].unique():
            own = order[labels[order] == k]
            if bool(held[own].all()):
                held[own[0]] = False
    return held
