"""A policy as a page shows it: many chunks for one moment of an episode it never saw, and what they cost."""

import time
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Episodes
from ..kinds.robots.data import held_episode, policy_recipe, reading, same_recording
from ..specs import require
from ..training.trained import Trained
from .sampling import View, asked, counting

__all__ = ["MOST_CHUNKS", "episode_steps", "fan_at"]

MOST_CHUNKS = 256


@lru_cache(maxsize=2)
def _episode(trained: Trained) -> tuple[Episodes, dict[str, Tensor]]:
    same_recording(trained)
    return held_episode(reading(trained))


def episode_steps(trained: Trained) -> int:
    """The number of steps in the episode."""
    return len(_episode(trained)[0].action)


def fan_at(trained: Trained, view: View, place: int) -> tuple[dict[str, Any], list[tuple[str, np.ndarray]]]:
    """Chunks n × h × a for a step of the episode, and what was done there, h × a. place: the step's number."""
    from ..kinds.robots.pages import UNKNOWN

    require("n, the number of chunks,", view.n, 1, MOST_CHUNKS, whole=True)
    asked(trained, view)
    recipe, (episode, seen) = policy_recipe(trained), _episode(trained)
    require("place", place, 0, len(episode.action) - 1, whole=True)
    same = {name: part[place : place + 1].expand(view.n, *part.shape[1:]) for name, part in seen.items()}
    with counting(trained) as rows:
        chunks = trained.sample(view.n, seen=same, **view.options(trained))
    one = {name: part[place : place + 1] for name, part in seen.items()}
    begun = time.perf_counter()
    trained.sample(1, seen=one, **view.options(trained))
    steps = torch.arange(place, place + recipe.horizon).clamp(max=len(episode.action) - 1)
    fps = episode.fps or UNKNOWN
    about = {
        "evaluations": sum(rows) / view.n, "ms": 1000 * (time.perf_counter() - begun), "moment": place / fps,
        "fps": fps, "columns": list(trained.columns), "moments": len(episode.action),
    }  # fmt: skip
    return about, [("chunks", chunks.float().numpy()), ("recorded", episode.action[steps].float().numpy())]
