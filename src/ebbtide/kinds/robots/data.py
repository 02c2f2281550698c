"""The recorded episodes that a recipe names, as windows: to train on, and held out."""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from ...codecs import Codec
from ...core.randomness import generator
from ...data import IDENTITY, Episodes, Observation, Quantiles, Standardise, Windows, within_float32
from ...data.episodes import Robot, prompt_bytes
from ...data.levels import Levels
from ...data.prepared import Prepared
from ...data.shards import Derived, OnDisk, found_on
from ...errors import InputError
from ...files import state_of
from ...memory import room
from ...networks import NETWORKS
from ...recipes import RobotRecipe
from ...robots.simulators import SIMULATORS
from ...specs import as_list, bind, named_list, named_ranges, pick
from .source import open_episodes

if TYPE_CHECKING:
    from ...training.trained import Trained

__all__ = [
    "FITS", "describe", "fits", "held_episode", "observations", "parts", "places", "policy_recipe", "prepare", "raw",
    "reading", "real", "robot_of", "same_recording", "windowed",
]  # fmt: skip

FITS: dict[str, Callable[..., Codec]] = {
    "mean_std": Standardise.fit,
    "quantiles": Quantiles.fit,
    "min_max": partial(Quantiles.fit, low=0.0, high=1.0),
}


def fits(recipe: RobotRecipe) -> None:
    """Refuse what can't be before a recording is read."""
    if not recipe.data:
        raise InputError("data is missing: a .npz of episodes, a folder in LeRobot's format, or its name on the hub.")
    if recipe.conditional or recipe.label:
        raise InputError("A policy has no labels; its observations are states, images and a prompt.")
    if recipe.simulator:
        pick(SIMULATORS, recipe.simulator, "simulator")
    variant = inspect.signature(bind(NETWORKS, recipe.network, "network")).parameters.get("variant")
    if variant is not None and variant.default == "pi05" and recipe.normalise == "mean_std":
        raise InputError("π0.5 takes a state in [-1, 1]: normalise by quantiles or min_max, not by mean_std.")


def prepare(recipe: RobotRecipe, codec: Codec | None = None, data_on: str = "auto") -> Prepared:
    """Every step of a recipe's episodes, but those held out, as an example in the network's units.

    codec: of a run that goes on; it is fitted again, exactly, so that other data is noticed.
    """
    train, _ = parts(recipe, data_on)
    ranges = named_ranges("value_range", recipe.value_range)
    if idle := sorted(ranges.keys() - train.levels.keys()):
        raise InputError(
            f"value_range is for images of more than 8 bits, and those of camera {idle[0]!r} in {recipe.data} have 8."
        )
    fit = partial(FITS[recipe.normalise], least=recipe.least)
    action = fit(train.action)
    known = train.columns(recipe.state, recipe.angles)
    state = fit(known.state) if known.state_names else IDENTITY
    within_float32(action, f"{recipe.data}, action", train.action_names)
    within_float32(state, f"{recipe.data}, state", known.state_names)
    windows = windowed(recipe, train, action, state)
    told = windows.seen(torch.zeros(1, dtype=torch.int64))
    shapes = {name: tuple(part.shape[1:]) for name, part in told.items()}
    observation = Observation(shapes, state, known.state_names, train.fps)
    shape = (recipe.horizon, train.action.shape[1])
    settled = {"value_range": as_list(f"{name}={levels}" for name, levels in train.levels.items())}
    return Prepared(
        windows, shape, action, train.action_names, observation=observation, settled=settled if train.levels else {}
    )


def windowed(recipe: RobotRecipe, episodes: Episodes, action: Codec, state: Codec) -> Windows:
    """Episodes as windows, normalised by these."""
    cameras = [episodes.images[name] for name in named_list(recipe.cameras)]
    known = episodes.columns(recipe.state, recipe.angles)
    if recipe.prompt and not episodes.tasks:
        raise InputError(f"{recipe.data} names no tasks, which a prompt needs.")
    if not cameras and not recipe.prompt and not known.state_names:
        lacking = "" if episodes.state_names else f" {recipe.data} has no state; name its cameras."
        raise InputError(f"A policy must see something: a state, cameras or a prompt.{lacking}")
    if len({tuple(frames.shape[1:]) for frames in cameras}) > 1:
        raise InputError("The cameras' images differ in size: say one with size.")
    return Windows(
        _encoded(action, episodes.action),
        episodes.ends,
        recipe.horizon,
        recipe.n_obs_steps,
        _encoded(state, known.state) if known.state_names else None,
        _beside(cameras) if cameras else None,
        prompt_bytes(episodes.tasks, recipe.prompt) if recipe.prompt else None,
        recipe.masked,
    )


def _encoded(codec: Codec, x: Any) -> Any:
    return Derived((x,), codec.encode) if isinstance(x, OnDisk) else codec.encode(x)


def _beside(cameras: Sequence[Any]) -> Any:
    """The images of all cameras, (n, cameras, h, w, 3)."""

    def stacked(*frames: UInt8[Tensor, " n h w 3"]) -> UInt8[Tensor, " n c h w 3"]:
        return torch.stack(frames, 1) if len(frames) > 1 else frames[0][:, None]

    if all(isinstance(frames, OnDisk) for frames in cameras):
        return Derived(tuple(cameras), stacked)
    return stacked(*(frames.tensor() if isinstance(frames, OnDisk) else frames for frames in cameras))


def parts(recipe: RobotRecipe, data_on: str = "") -> tuple[Episodes, Episodes]:
    """The episodes to train on, and those held out: at least one, chosen without asking the seed.

    data_on: as in training. Where nothing is trained, recordings of more than LARGE bytes stay on the disk.
    """
    own = (
        recipe.data, named_list(recipe.cameras), recipe.size, recipe.value_range, recipe.action, recipe.held_out,
        state_of(recipe.data),
    )  # fmt: skip
    found: tuple[Episodes, Episodes] = found_on(
        data_on, _parts, own, lambda parts: (parts[0].action, parts[0].state, *parts[0].images.values())
    )
    return found


@lru_cache(maxsize=2)
def _parts(
    data: str, cameras: tuple[str, ...], size: int, value_range: str, action: str, held_out: float, state: object,
    on_disk: bool, most: int,
) -> tuple[Episodes, Episodes]:  # fmt: skip
    ranges = named_ranges("value_range", value_range)
    if unknown := [name for name in ranges if name not in cameras]:
        raise InputError(f"value_range must be CAMERA=LOW:HIGH of the recipe's cameras; got {unknown[0]!r}.")
    levels = {name: Levels.parse(text) for name, text in ranges.items()}
    recorded = open_episodes(data, cameras, size, levels).read(cache=True, on_disk=on_disk, most=most)
    episodes = recorded.actions(action)
    if not episodes.action_names:
        raise InputError(f"A policy needs at least one action; got action={action!r}.")
    if len(episodes) < 2:
        raise InputError(f"{data} must have at least 2 episodes, one of them to hold out; got {len(episodes)}.")
    order = torch.randperm(len(episodes), generator=generator("held out", len(episodes))).tolist()
    held = min(max(1, round(held_out * len(order))), len(order) - 1)
    return episodes.cut(sorted(order[held:])), episodes.cut(sorted(order[:held]))


def places(recipe: RobotRecipe, n: int, seed: int, first: int = 0) -> Int[Tensor, " n"]:
    """Steps first … of the held-out episodes in random order, repeated if there are too few."""
    _, held = parts(recipe)
    order = torch.randperm(len(held.action), generator=generator("real", seed))
    return order[torch.arange(first, first + n) % len(order)]


def same_recording(trained: "Trained") -> None:
    """InputError where the recording that a policy is held against isn't of the robot that it was trained on."""
    recipe = reading(trained)
    held = parts(recipe)[1].columns(recipe.state, recipe.angles)
    robot_of(trained).check(held.robot, recipe.data)


def observations(recipe: RobotRecipe, n: int, seed: int, first: int) -> dict[str, Tensor]:
    """Observations at n held-out steps, in the robot's units."""
    windows = raw(recipe, parts(recipe)[1])
    each = sum(part.nbytes for part in windows.seen(torch.zeros(1, dtype=torch.int64)).values())
    room(2 * n * each, f"n {n}")
    return windows.seen(places(recipe, n, seed, first))


def held_episode(recipe: RobotRecipe) -> tuple[Episodes, dict[str, Tensor]]:
    """The first episode never trained on, and what was seen at each of its steps, in the robot's units."""
    episode = parts(recipe)[1].cut([0]).read()
    return episode, raw(recipe, episode).seen(torch.arange(len(episode.action)))


def raw(recipe: RobotRecipe, episodes: Episodes) -> Windows:
    """Windows in the robot's units."""
    return windowed(recipe, episodes, IDENTITY, IDENTITY)


def describe(recipe: RobotRecipe) -> str:
    """One line on the data a recipe names."""
    return f"a robot's actions, learned from {recipe.shared().data}"


def real(recipe: RobotRecipe, n: int, seed: int) -> tuple[Tensor, None]:
    """n chunks that were carried out in episodes never trained on."""
    return raw(recipe, parts(recipe)[1]).take(places(recipe, n, seed))["x0"], None


def reading(trained: "Trained") -> RobotRecipe:
    """A policy's recipe, to read its recording by."""
    policy_recipe(trained)
    return cast(RobotRecipe, trained.reading())


def policy_recipe(trained: "Trained") -> RobotRecipe:
    """A policy's recipe; an InputError for a run of another kind."""
    if not isinstance(trained.recipe, RobotRecipe) or trained.observation is None:
        raise InputError("Only a run that was trained on episodes is a policy.")
    return trained.recipe


def robot_of(trained: "Trained") -> Robot:
    """The robot that a policy was trained on."""
    return trained.observation.robot(trained.columns) if trained.observation else Robot()
