"""Push-T: a disc pushes a T onto its outline. Chi et al. 2023, arXiv:2303.04137; gym-pusht has the physics."""

import os
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from . import Sensed, checked, needed

__all__ = ["PushT"]


class PushT:
    """Push-T from state (disc xy, T xy, angle of the T) or from images of 96 × 96; an action is the disc's target.

    `restore` sets a recorded state. The score is Diffusion Policy's: min(greatest coverage so far, 0.95) / 0.95.
    """

    name, task = "pusht", "Push the T-shaped block onto the T-shaped target."
    in_image = True
    fps, max_steps = 10.0, 300
    state_names: tuple[str, ...] = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    action_names: tuple[str, ...] = ("target_x", "target_y")

    def __init__(self, *, pixels: bool = False) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # else it is printed where results are
        module = needed("gym_pusht.envs.pusht")
        self.env = module.PushTEnv(visualization_width=512, visualization_height=512)  # an action is a pixel
        self.pixels = pixels
        self.low, self.high = np.zeros(2, np.float32), np.full(2, 512, np.float32)
        self.steps, self.success, self.score = 0, False, 0.0
        self.reset(0)

    def reset(self, seed: int) -> Sensed:
        """Begin an episode: disc and T where the environment's own generator puts them for this seed."""
        self.env.reset(seed=seed % 2**32)
        return self._begin()

    def restore(self, state: Float[np.ndarray, " 5"]) -> Sensed:
        """Begin an episode at a recorded state, at rest.

        The angle goes first: setting it turns the T about its centre of mass and so moves the origin that the
        position is of. (The environment's own `reset_to_state` has the order of older data, and lands elsewhere.)
        """
        x, y, block_x, block_y, angle = map(float, checked("state", state, 5))
        self.env.reset()
        self.env.agent.position = x, y
        self.env.block.angle = angle
        self.env.block.position = block_x, block_y
        self.env.space.step(self.env.dt)  # contacts and what is drawn follow
        return self._begin()

    def step(self, action: Float[np.ndarray, " 2"]) -> tuple[Sensed, float, bool]:
        """Move for a tenth of a second towards the target; the reward is min(coverage, 0.95) / 0.95."""
        clipped = np.clip(checked("action", action, 2), self.low, self.high)
        _, reward, reached, _, _ = self.env.step(clipped.astype(np.float64))
        self.steps += 1
        self.success = self.success or bool(reached)
        self.score = max(self.score, float(reward))
        return self._observe(), float(reward), self.success or self.steps >= self.max_steps

    def render(self) -> UInt8[np.ndarray, "512 512 3"]:
        """An image whose pixels are the units of actions, with a cross at the last action."""
        return self.env.render()

    def close(self) -> None:
        """Nothing to release."""
        self.env.close()

    @staticmethod
    def fan(states: Float[np.ndarray, "k 5"], chunks: Float[np.ndarray, "k n h 2"], **how: Any) -> Any:
        """The figure of chunks for recorded states, over the scene; how: as in `plots.pusht.pusht_fan`."""
        from ..plots.pusht import pusht_fan

        return pusht_fan(states, chunks, **how)

    def _begin(self) -> Sensed:
        self.steps, self.success, self.score = 0, False, 0.0
        self.env._last_action = None
        return self._observe()

    def _observe(self) -> Sensed:
        state = {"state": self.env.get_obs().astype(np.float32)}
        return state | ({"images": self.env._render()[None]} if self.pixels else {})
