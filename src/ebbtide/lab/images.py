"""Images as a page shows them: a sheet on its way from noise, a sweep of guidance, pixels filled in, interpolations."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..exact.encoding import slerp
from ..kinds.images.data import kept
from ..specs import require
from ..training.trained import Trained
from .sampling import View, conditions_of, walk_of

__all__ = ["MOST_IMAGES", "SHEETS", "between", "refilled", "sheets", "swept"]

MOST_IMAGES = 64  # images of a sheet
SHEETS = 17  # stages of a walk that are sent
WAYS = 4  # in which pixels are filled in,
FILLING = 50  # steps of that
BETWEEN = 9  # images of an interpolation


def sheets(trained: Trained, view: View) -> tuple[dict[str, object], list[tuple[str, np.ndarray]]]:
    """The images of a view at every stage, x̂₀ of the same, and what there is to tell of the walk."""
    require("n, the number of images,", view.n, 1, MOST_IMAGES, whole=True)
    found = walk_of(trained, view, guesses=view.n, frames=SHEETS)
    about = {"times": found.times, "evaluations": found.evaluations, "straightness": found.straightness}
    arrays = [("frames", np.stack([kept(x) for x in found.frames]))]
    if found.guesses:
        arrays.append(("guesses", np.stack([kept(x) for x in found.guesses])))
    return about, arrays


def swept(trained: Trained, view: View) -> tuple[list[float], list[str], np.ndarray]:
    """Guidance weights, classes, and the same noise sampled with each: an array weights × classes × image."""
    if not (trained.recipe.learns_labels and trained.recipe.learns_null):
        raise InputError("A sweep of guidance needs a run that was trained by class, with some labels hidden.")
    from ..kinds.images.pages import CLASSES, WEIGHTS

    labels = trained.learned[:CLASSES]
    rows = []
    for weight in WEIGHTS:
        own = replace(view, guidance=weight, label="")
        rows.append(kept(trained.sample(len(labels), **(own.options(trained) | {"label": labels}))))
    return list(WEIGHTS), [trained.classes[k] for k in labels], np.stack(rows)


def refilled(trained: Trained, view: View, index: int, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A sample of the view, and the ways in which its hidden pixels are filled in; mask: true where it is known.

    index: its number.
    """
    from ..kinds.images.pages import inpainted

    if not trained.denoiser.gaussian_end:
        raise InputError("Pixels are filled in by runs that start from noise.")
    _alone(trained)
    require("index", index, 0, view.n - 1, whole=True)
    if bool(mask.all()) or not bool(mask.any()):
        raise InputError("Paint over some of the image, but not all of it.")
    one = trained.sample(1, **(view.options(trained) | {"first": index}))
    known = torch.from_numpy(kept(one)).float()
    labels = trained.labels(view.label or None, WAYS)
    return kept(one), inpainted(trained, known.expand(WAYS, *trained.shape), mask, labels, view.seed, FILLING)


def between(trained: Trained, view: View, pair: Sequence[int]) -> np.ndarray:
    """Images from the great circle between the noises of two samples of the view. pair: their numbers."""
    from ..kinds.images.pages import flow_ends

    _alone(trained)
    for index in pair:
        require("index", index, 0, view.n - 1, whole=True)
    _, z = next(iter(trained.latents(view.n, **view.options(trained))))
    first, second = (z[k : k + 1] for k in pair)
    starts = torch.cat([slerp(first, second, k / (BETWEEN - 1)) for k in range(BETWEEN)])
    return flow_ends(trained, starts, conditions_of(trained, view, BETWEEN), seed=view.seed)


def _alone(trained: Trained) -> None:
    """InputError for a run whose images are drawn given others."""
    if trained.observation is not None:
        raise InputError("This run draws images given others, so it can't fill in pixels or interpolate.")
