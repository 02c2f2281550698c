"""The learning-rate schedule."""

import math

__all__ = ["learning_rate"]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear from 0 over `warmup` steps, then a cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983, Eq. 5)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
