"""Robots: chunks of actions, given what is seen; measured against recorded actions and by trying them out."""

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data import Episodes, Observation, Quantiles, Standardise, Transform, Windows
from ..data.episodes import load, prompt_bytes
from ..errors import InputError
from ..metrics import Measurement
from ..randomness import generator
from ..recipes import RobotRecipe
from . import Prepared

if TYPE_CHECKING:
    from ..trained import Trained

UNIT, UNITS = "chunk", "steps"
N, N_EVALUATE = 64, 512  # chunks that `ebbflow sample` and `evaluate` draw, for steps never trained on
FILE, EXTENSIONS = "chunks.npz", (".npz",)
EACH = 100_000  # bytes a chunk may take, with its pictures
SNAPSHOT: dict[str, Any] = {"n": 32, "steps": 10}
FITS = {
    "mean_std": Standardise.fit,
    "quantiles": Quantiles.fit,
    "min_max": lambda x: Quantiles.fit(x, 0.0, 1.0),
}


def fits(recipe: RobotRecipe) -> None:
    """Nothing is known of a recording before it is read."""


def prepare(recipe: RobotRecipe) -> Prepared:
    """Every step of a recipe's episodes, but those held out, as an example in the network's units."""
    train, _ = parts(recipe)
    action, state = (FITS[recipe.normalise](x) for x in (train.action, train.state))
    windows = windowed(recipe, train, action, state)
    told = windows.take(torch.zeros(1, dtype=torch.int64))
    del told["x0"]
    told.pop("mask", None)
    observation = Observation({name: tuple(part.shape[1:]) for name, part in told.items()}, state)
    shape = (recipe.horizon, train.action.shape[1])
    return Prepared(windows, shape, action, train.action_names, observation=observation)


def windowed(recipe: RobotRecipe, episodes: Episodes, action: Transform, state: Transform) -> Windows:
    """Episodes as windows, normalised by these."""
    cameras = [episodes.images[name] for name in _names(recipe.cameras)]
    if recipe.prompt and not episodes.tasks:
        raise InputError(f"{recipe.data} names no tasks, which a prompt needs.")
    if not cameras and not recipe.prompt and recipe.state == "none":
        raise InputError("A policy must see something: a state, cameras or a prompt.")
    return Windows(
        action.apply(episodes.action),
        episodes.ends,
        recipe.horizon,
        recipe.n_obs_steps,
        None if recipe.state == "none" else state.apply(episodes.state),
        torch.stack(cameras, 1) if cameras else None,
        prompt_bytes(episodes.tasks, recipe.prompt) if recipe.prompt else None,
        recipe.masked,
    )


def parts(recipe: RobotRecipe) -> tuple[Episodes, Episodes]:
    """The episodes to train on, and those held out: at least one, chosen without asking the seed."""
    return _parts(recipe.data, _names(recipe.cameras), recipe.size, recipe.state, recipe.held_out)


@lru_cache(maxsize=2)
def _parts(data: str, cameras: tuple[str, ...], size: int, state: str, held_out: float) -> tuple[Episodes, Episodes]:
    episodes = load(data, cameras, size).columns(state)
    if len(episodes) < 2:
        raise InputError(f"{data} must have at least 2 episodes, one of them to hold out; got {len(episodes)}.")
    order = torch.randperm(len(episodes), generator=generator("held out", len(episodes))).tolist()
    held = max(1, round(held_out * len(order)))
    return episodes.cut(sorted(order[held:])), episodes.cut(sorted(order[:held]))


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def places(recipe: RobotRecipe, n: int, seed: int, first: int = 0) -> Int[Tensor, " n"]:
    """Steps first … of the held-out episodes in random order, over again where there are not so many."""
    _, held = parts(recipe)
    order = torch.randperm(len(held.action), generator=generator("real", seed))
    return order[torch.arange(first, first + n) % len(order)]


def recorded(recipe: RobotRecipe, n: int, seed: int, first: int) -> dict[str, Tensor]:
    """What was seen at n steps that were never trained on, in the robot's units."""
    return _raw(recipe, n, seed, first, told=True)


def _raw(recipe: RobotRecipe, n: int, seed: int, first: int = 0, told: bool = False) -> dict[str, Tensor]:
    _, held = parts(recipe)
    taken = windowed(recipe, held, Standardise(), Standardise()).take(places(recipe, n, seed, first))
    return {name: part for name, part in taken.items() if not told or name not in ("x0", "mask")}


def start(recipe: RobotRecipe, n: int, seed: int, first: int) -> Tensor | None:
    """Sampling starts from noise."""
    return None


def snapshot_files(x: Float[Tensor, " n h a"], path: Path) -> dict[Path, bytes]:
    """Chunks in the robot's units as .npy."""
    file = io.BytesIO()
    np.save(file, x.numpy())
    return {path: file.getvalue()}


def finish(folder: Path) -> Iterator[Path]:
    """What is drawn when training has ended: nothing."""
    yield from ()


def describe(recipe: RobotRecipe) -> str:
    """One line on the data a recipe names."""
    return f"a robot's actions, learned from {Path(recipe.data).name}"


def real(recipe: RobotRecipe, n: int, seed: int) -> tuple[Tensor, None]:
    """n chunks that were carried out in episodes never trained on."""
    return _raw(recipe, n, seed)["x0"], None


def evaluate(
    recipe: RobotRecipe,
    samples: Float[Tensor, " n h a"],
    labels: None = None,
    seed: int = 0,
    floors: dict[Any, Any] | None = None,
    only: Sequence[str] | None = None,
) -> list[Measurement]:
    """Mean absolute error against what was done at the same steps; the floor is what was done at the nearest ones.

    A policy that draws one of several good ways has a larger error than one that draws their mean, which may be none:
    it is a sign of life, not a score.
    """
    from ..metrics import mean_absolute_error

    truth = _raw(recipe, len(samples), seed)
    rows = [mean_absolute_error(samples, truth["x0"], truth.get("mask"))]
    return [row for row in rows if only is None or row.name in only]
