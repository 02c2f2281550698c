"""What each sampler promises: the order at which its error falls as the steps shrink, and whether it draws noise.

`ebbtide certify` holds every sampler to this table, on every path.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..specs import parse


class Facts(NamedTuple):
    """order: p where the end point's error is O(hᵖ); of the moments (weak order) where `stochastic`.

    at_least: the order shown may be higher, until the steps are so small that a cheap start's error is all there is.
    smooth: p holds for a path that is smooth in t alone, not for a β table, whose velocity jumps at every entry.
    """

    order: int
    stochastic: bool = False
    at_least: bool = False
    smooth: bool = False


def _runge_kutta(order: int) -> Callable[..., Facts]:
    return lambda clock="time", **_: Facts(order, smooth=clock == "time")


def _exponential(order: int = 3, corrector: bool = False, start: str = "ramp", clock: str = "flow", **_: Any) -> Facts:
    most = order + corrector
    # The ramp's first step has order 1 (2 with the corrector), an error of h² (h³) that no later step undoes.
    order = most if start == "runge_kutta" else min(most, 2 + corrector)
    return Facts(order, at_least=order < most, smooth=clock == "time")


FACTS: dict[str, Callable[..., Facts]] = {
    "euler": _runge_kutta(1),
    "heun": _runge_kutta(2),
    "midpoint": _runge_kutta(2),
    "rk4": _runge_kutta(4),
    "dopri5": lambda **_: Facts(0),  # its error follows rtol and atol, not the grid
    "ddim": lambda eta=0.0, **_: Facts(1, stochastic=eta > 0),
    "edm": lambda churn=0.0, **_: Facts(1 if churn else 2, stochastic=churn > 0),
    "dpmpp_2m": lambda eta=0.0, **_: Facts(1 if eta else 2, stochastic=eta > 0),
    "dpmpp_2s": lambda **_: Facts(2),
    "dpmpp_3m": partial(_exponential, order=3),
    "unipc": lambda order=2, **_: Facts(min(order + 1, 3), at_least=order > 2),
    "deis": partial(_exponential, order=3),
    "lms": partial(_exponential, order=4),
    "exponential": _exponential,
    "bespoke": lambda **_: Facts(1),  # without weights; with them it has no order, being made for one grid
    "ddpm": lambda **_: Facts(1, stochastic=True),
    "dpmpp_2m_sde": lambda **_: Facts(1, stochastic=True),
    "exponential_sde": lambda **_: Facts(1, stochastic=True),
    "euler_maruyama": lambda **_: Facts(1, stochastic=True, smooth=True),
    "predictor_corrector": lambda **_: Facts(1, stochastic=True),
    "restart": lambda **_: Facts(2, stochastic=True),
}


def facts(spec: str) -> Facts:
    """Facts of a spec such as "exponential:order=3,corrector=true"."""
    name, options = parse(spec)
    return FACTS[name](**options)
