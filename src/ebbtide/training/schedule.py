"""Schedules over a run: of the learning rate, and of what happens now and then."""

import math

__all__ = ["due", "learning_rate"]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear from 0 over `warmup` steps, then a cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983, Eq. 5).

    peak: the rate at the end of the warm-up.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def due(step: int, steps: int, times: int, early: bool = False) -> bool:
    """True if this step is one of `times` over the run, always including the last: evenly spread, or, since most
    happens early, evenly in √step. Computed in integers, because rounding would skip some.
    """
    now, before = (math.isqrt(times**2 * k // steps) if early else times * k // steps for k in (step, step - 1))
    return step == steps or now != before
