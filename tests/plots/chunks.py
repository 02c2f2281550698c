"""Chunks in two modes, for the figures of policies."""

from math import pi

import numpy as np


def modes(n=40, h=16, seed=0):
    """Chunks from (100, 100) to (300, 300), one half round one side, the other round the other."""
    draw = np.random.default_rng(seed)
    u = np.linspace(0, 1, h)[None, :, None]
    side = np.where(np.arange(n) % 2, 1.0, -1.0)[:, None, None]
    bow = side * np.sin(pi * u) * np.array([60.0, -60.0])
    return 100 + 200 * u + bow + draw.normal(size=(n, h, 2))
