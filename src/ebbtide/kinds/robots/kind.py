"""Robots: chunks of actions, given what is seen; measured against recorded actions and by trying them out."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...files import write_file
from ...recipes import RobotRecipe
from ...training.trained import Trained
from ..kind import Kind, as_npy
from .data import describe, fits, observations, parts, places, prepare, raw, reading, real, same_recording

if TYPE_CHECKING:
    from ...metrics import Measurement

__all__ = ["DRAWS", "ROBOTS", "draw_evaluation", "draw_run", "draw_samples", "evaluate", "recorded", "write"]

DRAWS = 8  # chunks for each step that `ebbtide evaluate` looks at


def evaluate(
    recipe: RobotRecipe,
    samples: Float[Tensor, " n *k h a"],
    labels: None = None,
    seed: int = 0,
    floors: dict[Any, Any] | None = None,
    only: Sequence[str] | None = None,
) -> list["Measurement"]:
    """Mean absolute error against what was done at the same steps; of k chunks for each step, that of the best as well.

    A policy that draws one of several good ways has a larger error than one that draws their mean, which may be none:
    it is a sign of life, not a score. One of its draws should be near what was done.
    """
    from ...metrics import best_of, mean_absolute_error

    _, held = parts(recipe)
    steps = places(recipe, len(samples), seed)
    truth, episode = raw(recipe, held).take(steps), torch.searchsorted(held.ends, steps, right=True)
    measured = (truth["x0"], truth.get("mask"), episode)
    draws = samples[:, None] if samples.ndim == 3 else samples
    each: Any = [None if part is None else part.repeat_interleave(draws.shape[1], 0) for part in measured]
    rows = [mean_absolute_error(draws.flatten(0, 1), *each)]
    if draws.shape[1] > 1:
        rows.append(best_of(draws, *measured))
    return [row for row in rows if only is None or row.name in only]


def recorded(trained: Trained, n: int, seed: int, first: int) -> Mapping[str, Tensor]:
    """Observations at n steps that a policy was never trained on, in the robot's units."""
    same_recording(trained)
    return observations(reading(trained), n, seed, first)


def write(trained: Trained, x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Chunks as an .npz: `chunks` (n, h, a), in the robot's units, and the actions' names."""
    file = io.BytesIO()
    np.savez_compressed(file, chunks=x.numpy(), action_names=np.array(trained.columns))
    write_file(path, file.getvalue())


def draw_samples(trained: Trained, x: Tensor, labels: Tensor | None, path: Path, how: str = "") -> Path:
    """Many chunks for one step that was never trained on, beside what was done there."""
    from . import pages

    return pages.draw_fan(trained, path)


def draw_evaluation(trained: Trained, x: Tensor, folder: Path) -> Iterator[Path]:
    """Predicted chunks over what was done."""
    from . import pages

    yield pages.draw_trajectories(trained, folder / "trajectories.png")


def draw_run(trained: Trained, folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages

    return pages.draw_run(trained, folder, out)


ROBOTS = Kind(
    recipe=RobotRecipe,
    unit="chunk",
    units="steps",
    n=64,
    n_evaluate=512,
    file="chunks.npz",
    extensions=(".npz",),
    each=100_000,  # with small images
    more=27,
    snapshot={"n": 32, "steps": 10},
    fits=fits,
    prepare=prepare,
    describe=describe,
    real=real,
    evaluate=evaluate,
    write=write,
    snapshot_files=as_npy,
    draw_samples=draw_samples,
    draw_run=draw_run,
    recorded=recorded,
    draw_evaluation=draw_evaluation,
)
