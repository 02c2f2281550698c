"""Recipes for policies: flow and diffusion policy by a U-Net over chunks, and π0's action expert."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar, Unpack

from ..errors import InputError
from ..specs import pick
from .checks import OBJECTIVES
from .fields import RobotFields
from .recipe import Recipe

__all__ = [
    "RobotRecipe", "diffusion_policy_pusht", "flow_policy", "flow_policy_aloha_insertion", "flow_policy_aloha_transfer",
    "flow_policy_pusht", "pi0", "pi0_aloha_insertion", "pi0_aloha_transfer", "pi0_pusht",
]  # fmt: skip

P = TypeVar("P", bound="RobotRecipe")


@dataclass(frozen=True)
class RobotRecipe(Recipe):
    """A recipe for a policy: chunks of a robot's actions, given its observations."""

    kind: ClassVar[str] = "robots"

    data: str = "lerobot/pusht"
    """Recorded episodes: a .npz, a LeRobot folder, or user/name on the hub; `ebbtide demos` writes a .npz, and
    a.npz+b.npz joins arrays of the same steps."""
    simulator: str = ""
    """Simulator for the policy: a row of `ebbtide list simulators`."""
    objective: Literal["flow_matching", "diffusion"] = "flow_matching"
    """Flow matching or diffusion; sets path, target, times, sampler, grid, sample_steps and bound unless given."""
    path: str = ""
    target: str = ""
    times: str = ""
    sampler: str = ""
    grid: str = ""
    sample_steps: int = 10

    horizon: int = 16
    """Actions in a chunk; the first is for the current step."""
    n_obs_steps: int = 1
    """Observations that the policy receives; the current one and those before it."""
    n_action_steps: int = 8
    """Actions to execute of each chunk before the next one."""
    state: str = "all"
    """Columns of the state that the policy receives; names separated by commas, all, or none."""
    angles: str = ""
    """Columns that are angles in radians; the policy receives their sine and cosine."""
    action: str = "all"
    """Columns of the action that the policy predicts; names separated by commas, or all."""
    cameras: str = ""
    """Cameras whose images the policy receives, separated by commas."""
    size: int = 0
    """Side to which images are resized; 0 keeps their size."""
    value_range: str = ""
    """CAMERA=LOW:HIGH of images of more than 8 bits; mapped to 0 and 255, separated by commas, by default
    each camera's extremes."""
    prompt: int = 0
    """Bytes of the task's instruction given to the policy; 0 for none."""
    normalise: Literal["mean_std", "quantiles", "min_max"] = "mean_std"
    """Scaling of states and actions; as in π0, as in π0.5, or the range to [-1, 1]."""
    least: float = 0.01
    """Smallest spread that is scaled to 1; a column that hardly moves would be all noise."""
    masked: bool = True
    """Leave actions beyond an episode's end out of the loss; otherwise its last action is learned there."""
    held_out: float = 0.05
    """Share of the episodes held out for evaluation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in OBJECTIVES[pick(OBJECTIVES, self.objective, "objective")].items():
            if getattr(self, name) == "":
                object.__setattr__(self, name, value)
        if self.bound and self.normalise == "mean_std":
            raise InputError(
                f"bound {self.bound:g} would cut off actions beyond as many standard deviations: normalise by min_max "
                "or quantiles, or let bound be 0."
            )
        if not self.n_action_steps <= self.horizon:
            raise InputError(f"n_action_steps must be at most the horizon, {self.horizon}; got {self.n_action_steps}.")

    @staticmethod
    def on_hub(data: str) -> bool:
        return not data.endswith(".npz")

    def having(self: P, fields: Mapping[str, Any]) -> P:
        """The same with other values in these fields; an objective also decides what they leave open."""
        self._has(fields)
        recipe = self.with_objective(fields["objective"]) if "objective" in fields else self
        return replace(recipe, **fields)

    def with_objective(self: P, objective: str) -> P:
        """The recipe with all settings of another objective. (`replace` alone would keep those of the old one.)"""
        decided: dict[str, Any] = OBJECTIVES[pick(OBJECTIVES, objective, "objective")] | {"objective": objective}
        if self.normalise == "mean_std":
            decided["bound"] = 0.0
        return replace(self, **decided)


_BASE = RobotRecipe(
    data="", batch=256, steps=8000, lr=2e-3, warmup=0.05, weight_decay=1e-4, ema=0.999, network="action_unet"
)  # fmt: skip
_PUSHT = replace(
    _BASE, data="pusht.npz", simulator="pusht", state="agent_x,agent_y,block_x,block_y,block_angle",
    angles="block_angle", action="target_x,target_y", n_obs_steps=2, normalise="min_max",
)  # fmt: skip
_ALOHA = replace(_BASE, horizon=48, n_action_steps=24, batch=64, steps=9000, least=0.05)
_EXPERT = "action_expert:width=96,depth=3,heads=4,head=24,hidden=256"


def flow_policy(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """Flow matching over chunks (arXiv:2410.24164) by diffusion policy's U-Net (arXiv:2303.04137): any robot."""
    return _BASE.having(fields)


def pi0(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """π0's action expert (Black et al. 2024, arXiv:2410.24164), a small encoder before it: any robot."""
    return replace(_BASE, network=_EXPERT, batch=64, lr=1e-3).having(fields)


def flow_policy_pusht(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """Flow matching over chunks (arXiv:2410.24164) by diffusion policy's U-Net (arXiv:2303.04137): Push-T by state.

    Score 0.935 and 0.941, two seeds, over 100 episodes after 8000 steps, 17 CPU minutes (docs/robots.md).
    """
    return _PUSHT.having(fields)


def diffusion_policy_pusht(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """Diffusion policy (Chi et al. 2023, arXiv:2303.04137): the noise, by a U-Net over chunks: Push-T by state.

    x̂₀ is clipped to the actions' range while sampling, as theirs is: without that, a short training scores a third.
    Score 0.970 and 0.986, two seeds, over 100 episodes after 8000 steps, 14 to 17 CPU minutes (docs/robots.md).
    """
    return _PUSHT.with_objective("diffusion").having(fields)


def pi0_pusht(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """π0's action expert (Black et al. 2024, arXiv:2410.24164): Push-T by images, the agent's position and a prompt."""
    return replace(_PUSHT, network=_EXPERT, data="lerobot/pusht", cameras="observation.image", prompt=64, n_obs_steps=1,
        state="agent_x,agent_y", angles="", batch=64, lr=1e-3).having(fields)  # fmt: skip


def flow_policy_aloha_transfer(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """Flow matching (arXiv:2410.24164) by a U-Net (arXiv:2303.04137): ALOHA's cube, by joints and its pose.

    100 of 100 episodes, two seeds, after 9000 steps on 300 demonstrations, 15 CPU minutes (docs/robots.md).
    """
    return replace(_ALOHA, data="aloha-transfer.npz", simulator="aloha-transfer").having(fields)


def flow_policy_aloha_insertion(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """Flow matching (arXiv:2410.24164) by a U-Net (arXiv:2303.04137): ALOHA's peg and socket, by joints and poses.

    100 and 99 of 100 episodes, two seeds, after 9000 steps on 300 demonstrations, 14 CPU minutes (docs/robots.md).
    """
    return replace(_ALOHA, data="aloha-insertion.npz", simulator="aloha-insertion").having(fields)


def pi0_aloha_transfer(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """π0's action expert (arXiv:2410.24164): ALOHA's cube from hand to hand, by joints and its pose."""
    return replace(flow_policy_aloha_transfer(), network=_EXPERT).having(fields)


def pi0_aloha_insertion(**fields: Unpack[RobotFields]) -> RobotRecipe:
    """π0's action expert (arXiv:2410.24164): ALOHA's peg and socket, by joints and poses."""
    return replace(flow_policy_aloha_insertion(), network=_EXPERT).having(fields)
