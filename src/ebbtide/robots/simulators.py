"""Simulators for policies: one interface, and the table of its implementations."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ..specs import Own, pick
from . import Sensed
from .aloha import AlohaInsertion, AlohaTransfer
from .pusht import PushT

__all__ = ["SIMULATORS", "Maker", "Simulator", "make"]


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
    """The simulator of that name, or the one that the user's own function makes."""
    made: Simulator = (name if isinstance(name, Own) else SIMULATORS[pick(SIMULATORS, name, "simulator")])(
        pixels=pixels
    )
    return made
