"""Simulators for policies: one interface, and the table of its implementations."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ..specs import Own, calling, expect, pick, require, shaped
from . import Sensed
from .aloha import AlohaInsertion, AlohaTransfer
from .pusht import PushT

__all__ = ["SIMULATORS", "Maker", "Simulator", "check_simulator", "make"]


@runtime_checkable
class Simulator(Protocol):
    """A world whose episodes begin with `reset` and proceed by `step` until they are done.

    An observation holds "state", float32 (s,), and, where the simulator was made with pixels=True, "images",
    uint8 (cameras, h, w, 3). Actions are in the simulator's own units; it clips them to [low, high].

    A class may also have
        in_image = True: an action is a position in the image that `render` returns, in pixels; films then show it;
        fan(states, chunks, recorded=, names=, fps=, title=): the figure of chunks over the scenes of recorded states
        (then `state_names` belongs to the class).
    """

    name: str
    task: str  # in words, for policies that take a prompt
    fps: float
    max_steps: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    low: Float32[np.ndarray, " a"]
    high: Float32[np.ndarray, " a"]
    success: bool  # of the episode so far
    score: float  # in [0, 1], of the episode so far

    def reset(self, seed: int) -> Sensed:
        """Begin an episode; the seed determines the positions of all objects."""
        ...

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[Sensed, float, bool]:
        """The next observation, the reward, and whether the episode is over."""
        ...

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        """An image for people."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class Maker(Protocol):
    """A row of SIMULATORS: a simulator's class."""

    task: str

    def __call__(self, *, pixels: bool = False) -> Simulator:
        """Create the simulator, with or without images in its observations."""
        ...


SIMULATORS: Mapping[str, Maker] = {
    "pusht": PushT,
    "aloha-transfer": AlohaTransfer,
    "aloha-insertion": AlohaInsertion,
}


def make(name: str | Own, *, pixels: bool = False) -> Simulator:
    """The simulator of that name, or the one that the user's own function makes; InputError where that is none."""
    if not isinstance(name, Own):
        return SIMULATORS[pick(SIMULATORS, name, "simulator")](pixels=pixels)
    with calling("simulator", str(name), "make a simulator, from pixels=True or False"):
        made: Simulator = name(pixels=pixels)
    check_simulator(f"simulator {name}:", made)
    return made


def check_simulator(what: str, made: Any) -> None:
    """InputError for a part of `Simulator` that is missing or of another type.

    what: the simulator, in errors. made: what should be one.
    """
    for part in ("reset", "step", "render", "close"):
        expect(f"{what} {part}", getattr(made, part, None), Callable)
    for part in ("name", "task"):
        expect(f"{what} {part}", getattr(made, part, None), str)
    require(f"{what} fps", getattr(made, "fps", None), 0)
    require(f"{what} max_steps", getattr(made, "max_steps", None), 1, whole=True)
    for part in ("state_names", "action_names"):
        expect(f"{what} {part}", getattr(made, part, None), tuple, list)
        for one in getattr(made, part):
            expect(f"{what} each of {part}", one, str)
    for part in ("low", "high"):
        shaped(f"{what} {part}", np.asarray(getattr(made, part, None)), len(made.action_names))
