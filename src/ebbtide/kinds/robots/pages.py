"""Figures of a trained policy: predicted chunks over recorded actions, and many chunks for one moment."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...data import Episodes
from ...plots import images, robots as drawing, style
from ...plots.study import key_of
from ...robots.simulators import SIMULATORS
from .data import held_episode, policy_recipe, reading, same_recording

if TYPE_CHECKING:
    from ...recipes import RobotRecipe
    from ...training.trained import Trained

__all__ = ["FAN", "MOMENTS", "UNKNOWN", "draw_fan", "draw_run", "draw_trajectories"]

FAN = 48  # chunks for one moment
MOMENTS = (0.15, 0.4, 0.7)  # of an episode
UNKNOWN = 10.0  # steps drawn as a second where a recording doesn't tell


def draw_trajectories(trained: "Trained", path: Path) -> Path:
    """An episode never trained on, and the chunks predicted along it, each from what was seen at its first step."""
    recipe, episode, seen, fps = _held(trained)
    truth = episode.action
    starts = np.arange(0, len(truth), recipe.horizon)
    x = trained.sample(len(starts), seed=recipe.seed, seen={name: part[starts] for name, part in seen.items()})
    chunks = [(int(start), chunk.numpy()) for start, chunk in zip(starts, x, strict=True)]
    title = f"Chunks by {_how(trained, episode)}, over an episode never trained on"
    figure = drawing.trajectories(truth.numpy(), chunks, trained.columns, fps, key=key_of(recipe), title=title)
    return style.save(figure, path)


def draw_fan(trained: "Trained", path: Path) -> Path:
    """Many chunks for one moment: where people did different things, so should a policy."""
    recipe, episode, seen, fps = _held(trained)
    truth = episode.action
    places = [round(share * (len(truth) - 1)) for share in MOMENTS]
    made, done = [], []
    for place in places:
        same = {name: part[place : place + 1].expand(FAN, *part.shape[1:]) for name, part in seen.items()}
        made.append(trained.sample(FAN, seed=recipe.seed, seen=same).numpy())
        rows = torch.arange(place, place + recipe.horizon).clamp(max=len(truth) - 1)
        done.append(truth[rows].numpy())
    simulator: Any = SIMULATORS.get(recipe.simulator)
    if hasattr(simulator, "fan") and episode.state.shape[1] == len(simulator.state_names):
        names = [f"{place / fps:.1f} s" for place in places]
        figure = simulator.fan(
            episode.state[places].numpy(), np.stack(made), recorded=np.stack(done), names=names, fps=fps,
            title=f"{FAN} chunks for each of {len(places)} moments, by {_how(trained, episode)}",
        )  # fmt: skip
    else:
        title = f"{FAN} chunks for the moment {places[1] / fps:.1f} s, by {_how(trained, episode)}"
        figure = drawing.fan(made[1], trained.columns, fps, recorded=done[1], title=title)
    return style.save(figure, path)


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """Trajectories, a fan of chunks, and the losses."""
    from ...files import storage
    from ...training.history import read_losses

    recipe = policy_recipe(trained)
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
    yield draw_trajectories(trained, out / "trajectories.png")
    yield draw_fan(trained, out / "fan.png")
    history = read_losses(folder)
    if history:
        yield style.save(images.loss_and_speed(history, key=key_of(recipe), unit="chunks"), out / "losses.png")


def _held(trained: "Trained") -> "tuple[RobotRecipe, Episodes, dict[str, torch.Tensor], float]":
    """The recipe, an episode never trained on, the observation at each of its steps, and its steps a second."""
    recipe = policy_recipe(trained)
    same_recording(trained)
    episode, seen = held_episode(reading(trained))
    return recipe, episode, seen, episode.fps or UNKNOWN


def _how(trained: "Trained", episode: Episodes) -> str:
    assumed = "" if episode.fps else f" ({UNKNOWN:g} steps a second assumed)"
    return f"{trained.recipe.sampler} with {trained.recipe.sample_steps} steps{assumed}"
