"""Options shared by the commands that run a policy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ..specs import Own, require, typed
from .arguments import MOST, Flag, hint, within

if TYPE_CHECKING:
    from ..recipes import RobotRecipe

__all__ = ["OFF", "Driving"]

OFF = -1.0


@dataclass(frozen=True)
class Driving:
    """Simulator of a policy, and the options of its control loop."""

    simulator: Annotated[str, hint("the recipe's")] = ""
    """A row of `ebbtide list simulators`; gym:ID or gym:module:ID, of gymnasium; or your own as module:function."""
    environments: Annotated[int, hint("off")] = 0
    """Simulators side by side, each in its own process, beside one network."""
    n_action_steps: Annotated[int, hint("the recipe's, or 1 with --ensemble")] = 0
    """Actions to execute of each chunk before the next one."""
    delay: int = 0
    """Steps that pass while a chunk is computed; it is requested that much earlier."""
    real_time: Flag = False
    """Let every chunk continue the one being executed (real-time chunking)."""
    ensemble: Annotated[float, hint("off")] = OFF
    """Average every step's chunks with weight exp(-this × age); ACT's is 0.01."""

    def __post_init__(self) -> None:
        within(self, environments=(0, 1024), n_action_steps=(0, MOST), delay=(0, MOST))
        if self.ensemble != OFF:
            require("--ensemble", self.ensemble, 0)

    @property
    def place(self) -> str | Own:
        """The simulator that the user names, which may be a function of theirs; "" for the recipe's."""
        from ..robots.simulators import SIMULATORS

        if self.simulator.startswith("gym:"):
            return Own(f"ebbtide.robots.gym:GymWorld:id={self.simulator.removeprefix('gym:')}")
        return typed(SIMULATORS, self.simulator)

    def how(self, recipe: "RobotRecipe") -> dict[str, Any]:
        """Arguments of `ebbtide.kinds.robots.driving.policy`, completed from the recipe."""
        ensemble = None if self.ensemble == OFF else self.ensemble
        steps = self.n_action_steps or (recipe.n_action_steps if ensemble is None else 1)
        return {"n_action_steps": steps, "delay": self.delay, "real_time": self.real_time, "ensemble": ensemble}
