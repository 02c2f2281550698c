"""Environments of gymnasium: as simulators of a policy, and recorded as the episodes that one learns from."""

import io
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..data.episodes import numbered
from ..errors import InputError
from ..files import write_file
from ..specs import expect, require
from . import Sensed, checked, needed

__all__ = ["GymWorld", "Recorder", "split_observation"]


def split_observation(
    observation: Any,
) -> tuple[Float[np.ndarray, " s"], tuple[str, ...], dict[str, UInt8[np.ndarray, "h w 3"]]]:
    """An observation's numbers end to end, their names, and its images by name.

    An array, or a dict of arrays, in the order of its keys: one of uint8, (h, w, 3), is an image, any other is numbers.
    InputError for anything else.
    """
    given = observation if isinstance(observation, dict) else {"state": observation}
    numbers: list[np.ndarray] = []
    names: list[str] = []
    images = {}
    for name, value in given.items():
        part = np.asarray(value)
        if part.dtype == np.uint8 and part.ndim == 3 and part.shape[2] == 3:
            images[name] = part
        elif part.dtype.kind in "fiub":
            numbers.append(part.reshape(-1).astype(np.float32))
            names += [name] if part.size == 1 else numbered(name, part.size)
        else:
            raise InputError(f"An observation must be numbers or images; its {name} is {type(value).__name__}.")
    return np.concatenate([np.zeros(0, np.float32), *numbers]), tuple(names), images


class GymWorld:
    """An environment of gymnasium as a simulator: `--simulator gym:Pendulum-v1`.

    With least and most its score is that of the rewards: `--simulator gym:Pendulum-v1,least=-1600,most=0`.

    id: as in gymnasium.make. Its observations are numbers, or a dict of them, and perhaps images; its actions a box.
    success: what `is_success` or `success` of a step's info says. score: of the sum of rewards, 0 at least and 1 at
    most; without these, 1 for success. pixels: what it renders is the image, where its observations have none.
    """

    def __init__(
        self, *, id: str = "Pendulum-v1", least: float = 0.0, most: float = 0.0, fps: float = 0.0, pixels: bool = False
    ) -> None:
        gymnasium = needed("gymnasium")
        require("gym: most", most, least)
        try:
            env = gymnasium.make(id, render_mode="rgb_array", disable_env_checker=True)
        except Exception as error:  # gymnasium's own, and those of the environment
            raise InputError(f"gymnasium can't make {id!r}: {' '.join(str(error).split())[:200]}") from error
        box = env.action_space
        if not isinstance(box, gymnasium.spaces.Box) or len(box.shape) != 1:
            raise InputError(f"A policy acts with numbers; the actions of {id} are {box}.")
        self.env, self.pixels, self.least, self.most = env, pixels, least, most
        self.name = self.task = id
        self.fps = fps or float(env.metadata.get("render_fps", 10))
        self.max_steps = int(getattr(env.spec, "max_episode_steps", None) or 1000)
        self.low, self.high = box.low.astype(np.float32), box.high.astype(np.float32)
        self.action_names = numbered("action", len(self.low))
        self.steps, self.success, self.score, self.total = 0, False, 0.0, 0.0
        _, self.state_names, _ = split_observation(env.reset(seed=0)[0])

    def reset(self, seed: int) -> Sensed:
        """Begin an episode of the environment with this seed."""
        observation, _ = self.env.reset(seed=seed % 2**31)
        self.steps, self.success, self.score, self.total = 0, False, 0.0, 0.0
        return self._sensed(observation)

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[Sensed, float, bool]:
        """The next observation, the reward, and whether the episode is over."""
        clipped = np.clip(checked("action", action, len(self.low)), self.low, self.high)
        observation, reward, ended, cut, info = self.env.step(clipped.astype(self.env.action_space.dtype))
        self.steps, self.total = self.steps + 1, self.total + float(reward)
        self.success = self.success or bool(info.get("is_success", info.get("success", False)))
        if self.most > self.least:
            self.score = float(np.clip((self.total - self.least) / (self.most - self.least), 0, 1))
        else:
            self.score = float(self.success)
        return self._sensed(observation), float(reward), bool(ended or cut or self.steps >= self.max_steps)

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        """The environment's own image."""
        return np.asarray(self.env.render())

    def close(self) -> None:
        """Release the environment."""
        self.env.close()

    def _sensed(self, observation: Any) -> Sensed:
        state, _, images = split_observation(observation)
        if not self.pixels:
            return {"state": state}
        return {"state": state, "images": np.stack(list(images.values()) or [self.render()])}


class Recorder:
    """An environment that remembers what it showed and was told, to be written as a file that `train` reads.

        env = Recorder(gymnasium.make("Pendulum-v1"), task="Swing the pendulum up.")
        ...                                       # your own loop of env.reset() and env.step(action)
        env.save("pendulum.npz")                  # ebbtide train flow-policy --data pendulum.npz

    env: whatever has gymnasium's reset and step; it behaves as before. Each step keeps the observation before it and
    the action; an episode ends with the step that ends or cuts it, or with the next reset. task: in words; fps: steps
    in a second, the environment's own if it states them.
    """

    def __init__(self, env: Any, *, task: str = "", fps: float = 0.0) -> None:
        for name in ("reset", "step"):
            if not callable(getattr(env, name, None)):
                raise InputError(f"Recorder: env must have {name}; got {type(env).__name__}.")
        expect("Recorder: task", task, str)
        require("Recorder: fps", fps, 0)
        self.env, self.task = env, task
        self.fps = fps or float((getattr(env, "metadata", None) or {}).get("render_fps", 0))
        self.seen: list[Any] = []
        self.actions: list[np.ndarray] = []
        self.ends: list[int] = []
        self.now: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def __len__(self) -> int:
        """The number of finished episodes."""
        return len(self.ends)

    def reset(self, **options: Any) -> Any:
        """The environment's reset. options: gymnasium's, such as seed."""
        self._end()
        found = self.env.reset(**options)
        self.now = found[0]
        return found

    def step(self, action: Any) -> Any:
        """The environment's step."""
        if self.now is None:
            raise InputError("Recorder: reset the environment before its first step.")
        before, given = self.now, np.array(action, np.float32).reshape(-1)
        found = self.env.step(action)
        self.seen.append(split_observation(before))
        self.actions.append(given)
        self.now, ended, cut = found[0], found[2], found[3]
        if ended or cut:
            self._end()
        return found

    def drop(self) -> None:
        """Forget the episode that is under way, or else the one that ended last, such as one that failed."""
        start = self.ends[-1] if self.ends else 0
        if len(self.actions) == start and self.ends:
            self.ends.pop()
            start = self.ends[-1] if self.ends else 0
        del self.seen[start:], self.actions[start:]
        self.now = None

    def save(self, file: str | PathLike[str]) -> Path:
        """Write all episodes, the one under way included, as .npz: whole or not at all.

        file: its name, ending in .npz.
        """
        target = Path(file)
        if target.suffix != ".npz":
            raise InputError(f"Episodes are written as .npz; got {str(file)!r}.")
        self._end()
        if not self.ends:
            raise InputError("Recorder: no step was taken, so there is nothing to write.")
        states, names, images = zip(*self.seen, strict=True)
        if len(set(names)) > 1 or len({len(one) for one in self.actions}) > 1:
            raise InputError("Recorder: observations and actions must be alike at all steps.")
        arrays: dict[str, Any] = {
            "state": np.stack(states), "action": np.stack(self.actions), "episode_ends": np.array(self.ends),
            "fps": np.array(self.fps), "state_names": np.array(names[0]),
            **{camera: np.stack([one[camera] for one in images]) for camera in images[0]},
        }  # fmt: skip
        if self.task:
            arrays["tasks"] = np.array([self.task] * len(self.ends))
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)
        write_file(target, held.getvalue())
        return target

    def _end(self) -> None:
        self.now = None
        if len(self.actions) > (self.ends[-1] if self.ends else 0):
            self.ends.append(len(self.actions))
