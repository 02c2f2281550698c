"""The colours of methods, which are at hand without matplotlib: who trains beside others has no figures to draw."""

from collections.abc import Sequence
from itertools import cycle

__all__ = ["DIFFUSION", "FLOW", "INKS", "METHOD_COLOURS", "apart"]

DIFFUSION, FLOW = "#D55E00", "#0072B2"
METHOD_COLOURS = {"diffusion": DIFFUSION, "flow": FLOW}
# Of further methods. With the two above every pair is apart for readers of each kind of colour blindness (CIE ΔE ≥ 17).
INKS = ("#3FA34D", "#AA3377", "#332288", "#661100")


def apart(keys: Sequence[str]) -> list[str]:
    """A colour for each of several methods: those of METHOD_COLOURS, and for the others INKS in turn.

    keys: the methods' names.
    """
    others = cycle(INKS)
    return [METHOD_COLOURS[key] if key in METHOD_COLOURS else next(others) for key in keys]
