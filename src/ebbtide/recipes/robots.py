"""Recipes for policies: flow and diffusion policy by a U-Net over chunks, and π0's action expert."""

from dataclasses import replace
from typing import Unpack

from .fields import RobotFields
from .recipe import RobotRecipe

__all__ = [
    "diffusion_policy_pusht", "flow_policy", "flow_policy_aloha_insertion", "flow_policy_aloha_transfer",
    "flow_policy_pusht", "pi0", "pi0_aloha_insertion", "pi0_aloha_transfer", "pi0_pusht",
]  # fmt: skip

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
