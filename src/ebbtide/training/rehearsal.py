"""Before a run begins: what is wrong with a recipe is found before anything is written or memory runs out."""

import torch

from ..data.prepared import Prepared
from ..errors import InputError
from ..losses.denoise import WEIGHTS
from ..memory import room
from ..recipes import Recipe
from ..specs import bind
from .build import build_network
from .trained import Trained
from .trainer import Trainer

__all__ = ["in_memory", "rehearse"]


def in_memory(recipe: Recipe, prepared: Prepared, accumulate: int = 1) -> None:
    """Refuse what this machine's memory can't hold; rough, but too low rather than too high.

    accumulate: see `Trainer`.
    """
    classes = len(prepared.classes)
    weights = list(build_network(recipe, prepared.shape, classes, prepared.observation, outline=True).parameters())
    room(32 * sum(p.numel() for p in weights), f"network {recipe.network!r}")
    pairs = recipe.coupling != "independent" or recipe.stable_targets
    outputs = sum(len(p) for p in weights if p.ndim > 1)
    room(recipe.batch * (12 * outputs // accumulate + 16 * recipe.batch * pairs), f"batch {recipe.batch}")


def rehearse(start: Trained, trainer: Trainer) -> None:
    """One batch of training and one step of sampling, of which nothing is kept."""
    recipe = start.recipe
    t = trainer.batch(0)["t"].double().cpu()
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"times {recipe.times!r} must give times in [0, 1]; got {float(t.min())} to {float(t.max())}.")
    value = bind(WEIGHTS, recipe.weight, "weight")(start.denoiser.path.scales(t.clamp(1e-6, 1 - 1e-6)))
    if value is not None and not bool((value.isfinite() & (value >= 0)).all()):
        raise InputError(
            f"weight {recipe.weight!r} must give finite weights of at least 0; got {float(value.min())} to "
            f"{float(value.max())}."
        )
    with torch.no_grad():
        walk = start.trajectory(2)
        next(walk), next(walk)
    start.denoiser.train()
