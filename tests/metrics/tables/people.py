"""A small table of every kind of column, and generators of it: an honest one and one that returns training rows."""

import numpy as np
import torch

from ebbtide.metrics.tables import Rows

NAMES = ("size", "count", "kind", "same", "gone", "gappy")
LEVELS = ((), (), ("a", "b", "c"), (), (), ())


def people(n, seed=0):
    """n rows: a number, a whole number that follows it, three levels, a constant, an empty column and one with gaps."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    size = rng.normal(2 * kind, 0.5)
    gappy = np.where(rng.random(n) < 0.2, np.nan, np.round(size + rng.normal(0, 0.3, n), 1))
    count = np.clip(np.round(size + rng.normal(0, 0.5, n)), 0, 9)
    x = np.stack([size, count, kind, np.full(n, 7.0), np.full(n, np.nan), gappy], 1)
    return Rows.of(torch.from_numpy(x), NAMES, LEVELS)


def copies(rows, n, seed=0):
    """n of the rows, drawn with replacement."""
    return rows.take(torch.randint(len(rows), (n,), generator=torch.Generator().manual_seed(seed)))


def numbers(x):
    """Rows of numbers alone."""
    return Rows.of(torch.as_tensor(x))
