"""Recipes for policies: π0's flow over chunks of actions, and diffusion policy, from states or pictures."""

from dataclasses import replace

from .recipe import OBJECTIVES, RobotRecipe

_BASE = RobotRecipe(
    batch=256, steps=6000, lr=1e-3, warmup=0.05, weight_decay=1e-4, ema=0.999, network="action_unet"
)  # fmt: skip
_ALOHA = replace(_BASE, horizon=50, n_action_steps=25, steps=4000)


def pi0_pusht() -> RobotRecipe:
    """π0's flow matching over chunks (Black et al. 2024, arXiv:2410.24164) on Push-T, from the state."""
    return replace(
        _BASE,
        simulator="pusht",
        n_obs_steps=2,
        normalise="min_max",
        network="action_unet:width=32,multipliers=1-2-4,kernel=3",
        state="agent_x,agent_y,block_x,block_y,block_angle",
        angles="block_angle",
    )


def diffusion_policy_pusht() -> RobotRecipe:
    """Diffusion policy (Chi et al. 2023, arXiv:2303.04137): noise prediction by a 1-D U-Net on Push-T."""
    return replace(
        pi0_pusht(), objective="diffusion", **OBJECTIVES["diffusion"], network="action_unet", sample_steps=20, bound=1.0
    )


def pi0_pusht_pixels() -> RobotRecipe:
    """π0 (arXiv:2410.24164) on Push-T from 96 × 96 pictures, the agent's place and a prompt."""
    return replace(
        pi0_pusht(), cameras="observation.image", n_obs_steps=1, prompt=64, state="agent_x,agent_y", angles=""
    )


def pi0_aloha_transfer() -> RobotRecipe:
    """π0 (arXiv:2410.24164) on ALOHA's cube, from hand to hand, by joints and poses; `ebbflow demos` makes the data."""
    return replace(_ALOHA, data="aloha-transfer.npz", simulator="aloha-transfer")


def pi0_aloha_insertion() -> RobotRecipe:
    """π0 (arXiv:2410.24164) on ALOHA's peg and socket, by joints and poses; `ebbflow demos` makes the data."""
    return replace(_ALOHA, data="aloha-insertion.npz", simulator="aloha-insertion")
