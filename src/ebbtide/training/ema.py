"""Exponential moving average of the parameters (not of buffers): what sampling uses."""

__all__ = ["ema_decay"]


def ema_decay(step: int, final: float) -> float:
    """min(final, (1 + k) / (10 + k)): a warm-up, without which a short run still averages its random start.

    (With decay 0.9999 and no warm-up, 5000 steps keep 61 % of the initial weights.)
    """
    return min(final, (1 + step) / (10 + step))
