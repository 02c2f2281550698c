"""Environments of gymnasium: as simulators of a policy, and recorded as the episodes that one learns from."""

import importlib
import io
import os
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..data.episodes import numbered
from ..errors import InputError
from ..files import located, write_file
from ..specs import expect, importing_from, require
from . import Sensed, checked, needed
from .observing import part_as_array

__all__ = ["GymWorld", "Recorder", "split_observation"]


def split_observation(
    observation: Any,
) -> tuple[Float[np.ndarray, " s"], tuple[str, ...], dict[str, UInt8[np.ndarray, "h w 3"]]]:
    """An observation's numbers end to end, their names, and its images by name.

    An array, or a dict of arrays, in the order of its keys: one of uint8, (h, w, 3), is an image, any other is numbers.
    An array alone is called image or state. InputError for anything else.
    """
    given = observation if isinstance(observation, dict) else {_alone(observation): observation}
    numbers: list[np.ndarray] = []
    names: list[str] = []
    images = {}
    for name, value in given.items():
        part = part_as_array(value)
        if _is_image(part):
            images[name] = part
        elif part.dtype.kind in "fiub":
            numbers.append(part.reshape(-1).astype(np.float32))
            names += [name] if part.size == 1 else numbered(name, part.size)
        else:
            raise InputError(f"An observation must be numbers or images; its {name} is {type(value).__name__}.")
    return np.concatenate([np.zeros(0, np.float32), *numbers]), tuple(names), images


def _is_image(part: np.ndarray) -> bool:
    return part.dtype == np.uint8 and part.ndim == 3 and part.shape[2] == 3


def _alone(observation: Any) -> str:
    """The name of an observation that isn't a dict."""
    return "image" if _is_image(part_as_array(observation)) else "state"


class GymWorld:
    """An environment of gymnasium as a simulator: `--simulator gym:Pendulum-v1`.

    With least and most its score is that of the rewards: `--simulator gym:Pendulum-v1,least=-1600,most=0`.

    id: as in gymnasium.make; `module:ID` imports the module that registers it, also from the working directory. Its
    observations are numbers, or a dict of them, and perhaps images; its actions a box.
    success: what `is_success` or `success` of a step's info says. score: of the sum of rewards, 0 at least and 1 at
    most; without these, 1 for success. pixels: what it renders is the image, where its observations have none.
    """

    def __init__(
        self, *, id: str = "Pendulum-v1", least: float = 0.0, most: float = 0.0, fps: float = 0.0, pixels: bool = False
    ) -> None:
        gymnasium = needed("gymnasium")
        require("gym: least", least)
        require("gym: most", most, least)
        require("gym: fps", fps, 0)
        try:
            with importing_from(os.getcwd()):  # id may be module:ID
                mode = {"render_mode": "rgb_array"} if _draws(gymnasium, id) else {}
                env = gymnasium.make(id, disable_env_checker=True, **mode)
            first, _ = env.reset(seed=0)
            fps = fps or float(env.metadata.get("render_fps") or 10)
        except (Exception, SystemExit) as error:  # gymnasium's own, and those of the environment
            raise InputError(f"gymnasium can't make {id!r}: {' '.join(str(error).split())[:200]}") from error
        box = env.action_space
        if not isinstance(box, gymnasium.spaces.Box) or len(box.shape) != 1:
            raise InputError(f"A policy acts with numbers; the actions of {id} are {box}.")
        self.env, self.pixels, self.least, self.most = env, pixels, least, most
        self.name = self.task = id
        self.fps = fps
        self.max_steps = int(getattr(env.spec, "max_episode_steps", None) or 1000)
        self.low, self.high = box.low.astype(np.float32), box.high.astype(np.float32)
        self.action_names = numbered("action", len(self.low))
        self.steps, self.success, self.score, self.total = 0, False, 0.0, 0.0
        _, self.state_names, _ = split_observation(first)

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
        """The environment's own image; InputError for one that renders none."""
        try:
            image = np.asarray(self.env.render())
        except NotImplementedError:
            image = np.zeros(0)
        if image.ndim != 3:
            raise InputError(f"{self.name} renders no images; an environment that does has render_mode 'rgb_array'.")
        return image

    def close(self) -> None:
        """Release the environment."""
        self.env.close()

    def _sensed(self, observation: Any) -> Sensed:
        state, _, images = split_observation(observation)
        if not self.pixels:
            return {"state": state}
        return {"state": state, "images": np.stack(list(images.values()) or [self.render()])}


def _draws(gymnasium: Any, id: str) -> bool:
    """False for an environment whose class has images in none of its ways of rendering, and may take no render_mode."""
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gymnasium.registry.get(name)  # none without its version, which gymnasium.make finds
    creator = None if spec is None else spec.entry_point
    if isinstance(creator, str):
        creator = gymnasium.envs.registration.load_env_creator(creator)
    about = getattr(creator, "metadata", None)  # none of a function
    return about is None or "rgb_array" in (about.get("render_modes") or ())


class Recorder:
    """An environment, or a vector of them, that keeps its episodes, to be written as a file that `train` reads.

        env = Recorder(gymnasium.make("Pendulum-v1"), task="Swing the pendulum up.")
        ...                                       # your own loop of env.reset() and env.step(action)
        env.save("pendulum.npz")                  # ebbtide train flow-policy --data pendulum.npz

    env: any object with gymnasium's reset and step; it behaves as before. Each step keeps the observation before it and
    the action; an episode ends with the step that ends or cuts it, or with the next reset. task: in words; fps: steps
    in a second, the environment's own if it states them; else the file has none, which is then compared with nothing.

    Each lane of a vector environment (`num_envs`) has its own episodes, whichever metadata["autoreset_mode"] is:
    NEXT_STEP, where the step after an end is a reset and isn't recorded; SAME_STEP, where that step returns the next
    episode's first observation; DISABLED, where a lane isn't recorded until a reset whose options["reset_mask"] chooses
    it. Arrays may be torch's, on any device. Only `reset` and `step` are recorded, not `step_async`.

    Raises InputError for another mode, for a reset or step that doesn't return what gymnasium's does, and at once for
    actions or observations that no policy could learn from: other than finite numbers or images of every lane, or of
    other shapes than before. The rest of an episode in which an observation was refused isn't recorded.
    """

    def __init__(self, env: Any, *, task: str = "", fps: float = 0.0) -> None:
        for name in ("reset", "step"):
            if not callable(getattr(env, name, None)):
                raise InputError(f"Recorder: env must have {name}; got {type(env).__name__}.")
        expect("Recorder: task", task, str)
        require("Recorder: fps", fps, 0)
        about = getattr(env, "metadata", None) or {}
        self.env, self.task, self.fps = env, task, fps or float(about.get("render_fps") or 0)
        count = getattr(env, "num_envs", None)
        if count is not None:
            require("Recorder: the environment's num_envs", count, 1, whole=True)
        self._vector, self._mode = count is not None, _resetting(about) if count is not None else ""
        self._lanes = [_Lane(number) for number in range(count or 1)]
        self._episodes: list[_Episode] = []
        self._begun = False
        self._first: _Seen | None = None  # of all observations, and the first action, with which the others must agree
        self._action: np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        if name in ("step_async", "step_wait", "reset_async", "reset_wait"):
            raise AttributeError(f"A Recorder records reset and step; {name} would bypass it.")
        return getattr(self.env, name)

    def __len__(self) -> int:
        """The number of finished episodes."""
        return len(self._episodes)

    def reset(self, **options: Any) -> Any:
        """The environment's reset. options: gymnasium's, such as seed."""
        chosen = self._chosen(options.get("options"))
        for lane in chosen:
            self._end(lane)
        found = _returned("reset", self.env.reset(**options), "(observation, info)", 2)
        seen, self._begun = self._parts("observation", found[0]), True
        for lane in chosen:
            lane.now, lane.over = self._kept(seen[lane.number]), False
        return found

    def step(self, action: Any) -> Any:
        """The environment's step."""
        if not self._begun or (not self._vector and self._lanes[0].now is None):
            raise InputError("Recorder: reset the environment before its first step.")
        given = [_numbers(part) for part in self._parts("action", action)]
        for lane, own in zip(self._lanes, given, strict=True):
            if lane.now is not None and not self._begins(lane):
                self._agrees(own)
        try:
            return self._recorded(given, self.env.step(action))
        except InputError:
            for lane in self._lanes:
                lane.now = None
            raise

    def _begins(self, lane: "_Lane") -> bool:
        """True if a lane's next step is its reset, whose action is ignored."""
        return lane.over and self._mode == "NextStep"

    def _recorded(self, given: list[np.ndarray], step: Any) -> Any:
        """The parts of the environment's step, recorded with each lane's action."""
        found = _returned("step", step, "(observation, reward, terminated, truncated, info)", 5)
        ended = [bool(one) or bool(two) for one, two in zip(self._flags(found[2]), self._flags(found[3]), strict=True)]
        seen = self._parts("observation", found[0])
        for lane, own, over in zip(self._lanes, given, ended, strict=True):
            if not (begins := self._begins(lane)):
                lane.add(own)
                if over:
                    self._end(lane)
                    begins = self._mode == "SameStep"
            lane.over = over
            if begins or lane.now is not None:
                lane.now = self._kept(seen[lane.number])
        return found

    def _kept(self, observation: Any) -> "_Seen":
        """An observation's parts, copied: an environment may write the next one into the same array."""
        with np.errstate(over="ignore"):  # what float32 has no room for is not finite
            state, names, images = split_observation(observation)
        if not np.isfinite(state).all():
            place = int(np.flatnonzero(~np.isfinite(state))[0])
            raise InputError(f"Recorder: an observation must be finite; its {names[place]} is {state[place]}.")
        now = state, names, {name: image.copy() for name, image in images.items()}
        self._first = self._first or now
        if (shown := _shapes(now)) != (before := _shapes(self._first)):
            raise InputError(f"Recorder: observations must be alike at all steps; got {shown}, and before {before}.")
        return now

    def _agrees(self, action: np.ndarray) -> None:
        """InputError for an action that isn't finite, or of another length than the first."""
        if not np.isfinite(action).all():
            raise InputError(f"Recorder: an action must be finite; got {action.tolist()}.")
        self._action = action if self._action is None else self._action
        if len(action) != len(self._action):
            raise InputError(
                f"Recorder: actions must be alike at all steps; got {len(action)} numbers, and before "
                f"{len(self._action)}."
            )

    def drop(self, lane: int = 0) -> None:
        """Forget a lane's episode under way, or else the one that it ended last, such as one that failed.

        lane: of a vector environment; the rest of an episode under way isn't recorded.
        """
        require("Recorder: lane", lane, 0, len(self._lanes) - 1, whole=True)
        own = self._lanes[lane]
        if own.episode.actions:
            own.episode, own.now = _Episode(lane), None
        elif (last := next((one for one in reversed(self._episodes) if one.lane == lane), None)) is not None:
            self._episodes.remove(last)

    def save(self, file: str | PathLike[str]) -> Path:
        """Write all episodes as .npz, whole or not at all: in the order in which they ended, then those under way.

        file: its name, ending in .npz.
        """
        target = located("file", file)
        if target.suffix != ".npz":
            raise InputError(f"Episodes are written as .npz; got {str(file)!r}.")
        episodes = [*self._episodes, *(lane.episode for lane in self._lanes if lane.episode.actions)]
        if not episodes:
            raise InputError("Recorder: no step was taken, so there is nothing to write.")
        actions = [action for episode in episodes for action in episode.actions]
        states, names, images = zip(*(seen for episode in episodes for seen in episode.seen), strict=True)
        arrays: dict[str, Any] = {
            "state": np.stack(states), "action": np.stack(actions),
            "episode_ends": np.cumsum([len(episode.actions) for episode in episodes]),
            "fps": np.array(self.fps), "state_names": np.array(names[0]),
            "tasks": np.array([self.task] * len(episodes)),
        }  # fmt: skip
        if clash := sorted(images[0].keys() & {*arrays, "action_names", "file"}):
            raise InputError(f"Recorder: an image can't be called {clash[0]}: rename that part of the observation.")
        for name, known in (("tasks", self.task), ("fps", self.fps)):
            if not known:
                del arrays[name]
        held = io.BytesIO()
        np.savez_compressed(held, **arrays | {name: np.stack([one[name] for one in images]) for name in images[0]})
        write_file(target, held.getvalue())
        return target

    def _end(self, lane: "_Lane") -> None:
        if lane.episode.actions:
            self._episodes.append(lane.episode)
        lane.episode, lane.now = _Episode(lane.number), None

    def _chosen(self, options: Any) -> "list[_Lane]":
        """The lanes that a reset with these options begins anew."""
        mask = options.get("reset_mask") if self._vector and isinstance(options, dict) else None
        if mask is None:
            return self._lanes
        chosen = self._flags(mask)
        return [lane for lane in self._lanes if chosen[lane.number]]

    def _flags(self, flags: Any) -> np.ndarray:
        """True or False for each lane."""
        found = np.atleast_1d(part_as_array(flags)) if not self._vector else part_as_array(flags)
        if found.shape != (len(self._lanes),) or (self._vector and found.dtype != bool):
            raise InputError(
                f"Recorder: an end or a reset_mask must be True or False for each of {len(self._lanes)} lanes; "
                f"got {found.dtype} of shape {found.shape}."
            )
        return found

    def _parts(self, what: str, given: Any) -> list[Any]:
        """Each lane's part of what is given to all: of an array, or of each array in a dict."""
        if not self._vector:
            return [given]
        if what == "observation" and isinstance(given, tuple | list):  # of lanes, or of an observation's parts
            raise InputError(f"Recorder: an observation must be an array or a dict of arrays; got a {_kind(given)}.")
        table = {
            name: part_as_array(part) for name, part in (given if isinstance(given, dict) else {"": given}).items()
        }
        for name, part in table.items():
            if part.shape[:1] != (len(self._lanes),):
                shown = f"shape {part.shape}" if part.shape else _kind(given[name] if name else given)
                raise InputError(
                    f"Recorder: {' '.join(filter(None, ('the', what, name)))} must hold one for each of "
                    f"{len(self._lanes)} lanes; got {shown}."
                )
        rows = [{name: part[i] for name, part in table.items()} for i in range(len(self._lanes))]
        return rows if isinstance(given, dict) else [row[""] for row in rows]


_Seen = tuple[np.ndarray, tuple[str, ...], dict[str, np.ndarray]]
_MODES = ("NextStep", "SameStep", "Disabled")  # the values of gymnasium's AutoresetMode


@dataclass(eq=False)
class _Episode:
    """An episode's observations, as `split_observation` returns them, and its actions."""

    lane: int
    seen: list[_Seen] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)


@dataclass(eq=False)
class _Lane:
    """One environment: its episode under way, and its observation now, or None where it isn't recorded."""

    number: int
    now: _Seen | None = None
    over: bool = False  # its last step ended an episode

    def __post_init__(self) -> None:
        self.episode = _Episode(self.number)

    def add(self, action: np.ndarray) -> None:
        if self.now is not None:
            self.episode.seen.append(self.now)
            self.episode.actions.append(action)


def _resetting(about: Any) -> str:
    """The mode in which a vector environment begins its next episodes, from its metadata."""
    found = getattr(about.get("autoreset_mode"), "value", about.get("autoreset_mode"))
    if found not in _MODES:
        raise InputError(
            "Recorder: metadata['autoreset_mode'] of a vector environment must be one of "
            f"gymnasium.vector.AutoresetMode; got {found!r}."
        )
    return str(found)


def _numbers(action: Any) -> np.ndarray:
    """An action as numbers, end to end."""
    found = part_as_array(action)
    if found.dtype.kind not in "fiub":
        raise InputError(f"Recorder: an action must be numbers; got {_kind(action)}.")
    with np.errstate(over="ignore"):  # what float32 has no room for is not finite
        return np.array(found, np.float32).reshape(-1)


def _returned(call: str, found: Any, wanted: str, count: int) -> Any:
    """The parts that an environment returned, if they are as many as gymnasium's; older interfaces have others."""
    if not isinstance(found, tuple | list) or len(found) != count:
        got = f"{len(found)} parts" if isinstance(found, tuple | list) else _kind(found)
        raise InputError(f"Recorder: {call} must return {wanted}, as gymnasium's does; got {got}.")
    return found


def _shapes(seen: _Seen) -> str:
    """An observation's parts in a few words, which two alike have in common."""
    _, names, images = seen
    parts = [f"{name} {image.shape}" for name, image in images.items()]
    return ", ".join([f"{len(names)} numbers ({', '.join(map(str, names))})" if names else "no numbers", *parts])[:300]


def _kind(value: Any) -> str:
    return type(value).__name__
