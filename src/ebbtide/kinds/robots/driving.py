"""A trained policy in the control loop, and tried out in its simulator."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...data.episodes import Robot, columns, resized
from ...errors import InputError
from ...robots.chunks import DenoiserChunks
from ...robots.policy import Policy
from ...robots.rollout import Episode, latency, rollout
from ...robots.simulators import SIMULATORS, Simulator, make
from ...samplers import Stepper
from ...specs import Own, calling, pick
from .data import policy_recipe, robot_of

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...training.trained import Trained

__all__ = ["Place", "chunk_time", "episodes", "outcome", "policy"]


def policy(
    trained: "Trained",
    *,
    seed: int = 0,
    sampler: str | Stepper = "",
    grid: str = "",
    steps: int | str | None = None,
    bound: float | None = None,
    n_action_steps: int | None = None,
    delay: int = 0,
    real_time: bool = False,
    ensemble: float | None = None,
) -> Policy:
    """A trained policy, ready for the control loop; what is left out is the recipe's.

    sampler, grid, steps: rows and a number of steps as in `Trained.sample`; bound: of x̂₀, 0 for none.
    n_action_steps: actions carried out of each chunk before the next, from 1 to the chunk's length.
    delay, real_time, ensemble: as in `Policy`. seed: of the noise.
    """
    recipe, seen = policy_recipe(trained), trained.observation
    assert seen is not None
    chosen = trained.choice(sampler or None, grid or None, steps or None, bound=bound, progress=True)
    chunks = DenoiserChunks(
        trained.denoiser,
        trained.shape,
        seen.shapes,
        recipe.n_obs_steps,
        recipe.n_action_steps,
        trained.codec,
        {"state": seen.codec},
        chosen.sampler,
        chosen.steps,
        chosen.grid,
        recipe.bound if bound is None else bound,
        robot_of(trained),
    )
    return Policy(chunks, seed=seed, n_action_steps=n_action_steps, delay=delay, real_time=real_time, ensemble=ensemble)


@dataclass(frozen=True)
class Place:
    """Makes a simulator that shows a policy what its recipe lets it see, and nothing else; blind: black images."""

    name: str | Own
    state: str = "all"
    angles: str = ""
    pixels: bool = False
    size: int = 0
    blind: bool = False
    robot: Robot = field(default_factory=Robot)

    @classmethod
    def of(cls, trained: "Trained", simulator: str | Own = "", blind: bool = False) -> "Place":
        """The simulator of a policy: by default its recipe's."""
        recipe = policy_recipe(trained)
        if not (name := simulator or recipe.simulator):
            raise InputError(f"This policy's recipe names no simulator; choose one of {', '.join(SIMULATORS)}.")
        if not isinstance(name, Own):
            name = pick(SIMULATORS, name, "simulator")
        return cls(name, recipe.state, recipe.angles, bool(recipe.cameras), recipe.size, blind, robot_of(trained))

    def __call__(self) -> "_Shown":
        return _Shown(make(self.name, pixels=self.pixels), self)


class _Shown:
    """A simulator behind a Place."""

    def __init__(self, simulator: Simulator, place: Place) -> None:
        self.simulator, self.place, self.max_steps, self.task = simulator, place, simulator.max_steps, simulator.task
        own = simulator.state_names
        _, self.state_names = columns(torch.zeros(len(own)), own, place.state, place.angles)
        place.robot.check(Robot(self.state_names, simulator.action_names, simulator.fps), simulator.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.simulator, name)

    def reset(self, seed: int) -> dict[str, Any]:
        return self._seen(self.simulator.reset(seed))

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool]:
        observation, reward, done = self.simulator.step(action)
        return self._seen(observation), reward, done

    def close(self) -> None:
        """Release the simulator, whatever it raises: nothing depends on it any more."""
        with suppress(Exception, SystemExit):
            self.simulator.close()

    def _seen(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        state = torch.from_numpy(observation["state"])
        told, _ = columns(state, self.simulator.state_names, self.place.state, self.place.angles)
        seen = {"state": told.numpy()}
        if self.place.pixels:
            images = observation["images"] * (not self.place.blind)
            seen["images"] = resized(torch.from_numpy(images), self.place.size).numpy()
        return seen


def episodes(
    trained: "Trained",
    seeds: Sequence[int],
    *,
    simulator: str | Own = "",
    blind: bool = False,
    workers: int = 1,
    environments: int = 0,
    **how: Any,
) -> list[Episode]:
    """A policy tried out, once for each seed. workers, environments: as in `rollout`; how: as in `policy`."""
    place = Place.of(trained, simulator, blind)
    return rollout(place, policy(trained, **how), seeds, workers=workers, environments=environments)


def outcome(tried: Sequence[Episode]) -> list["Measurement"]:
    """Success rate, score and length of episodes, and how many ended in an error."""
    from ...metrics.success import mean_length, mean_score, success_rate

    lengths = [one.length for one in tried]
    errors = [one.error for one in tried if one.error]
    said = f"; {len(errors)} ended by an error, such as {errors[0]}" if errors else ""
    rate = success_rate([one.success for one in tried])
    return [replace(rate, note=rate.note + said), mean_score([one.score for one in tried]), mean_length(lengths)]


def chunk_time(trained: "Trained", *, simulator: str | Own = "", repeats: int = 50, **how: Any) -> "Measurement":
    """Time for a chunk of one robot: the median, from the fastest 5 % to the slowest 5 %."""
    from ...metrics import Measurement

    shown = Place.of(trained, simulator)()
    try:
        with calling("simulator", shown.name, "begin an episode"):
            first = shown.reset(0)
        took = latency(policy(trained, **how), {"prompt": shown.task} | first, repeats)
    finally:
        shown.close()
    low, median, high = np.quantile(took, [0.05, 0.5, 0.95]).tolist()
    note = f"the median of {repeats} chunks for one robot, with 5 % and 95 %"
    return Measurement("milliseconds a chunk", median, low, high, math.nan, math.nan, math.nan, "lower", note)
