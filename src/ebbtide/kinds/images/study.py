"""Arrays for the figures of a network trained on images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...plots.study import Method
from ...recipes import ImageRecipe
from ...training.history import evolution, read_losses
from ..routes import route
from .data import kept, parts, real

if TYPE_CHECKING:
    from ...training.trained import Trained

__all__ = ["shown", "study"]


def study(key: str, name: str, colour: str, trained: "Trained", folder: Path) -> Method:
    """Arrays for the figures of a trained network."""
    history = read_losses(folder)
    n = 8
    labels = trained.in_turn(n)
    times, walk = route(trained, n, 20, labels)
    return Method(
        key,
        name,
        colour,
        np.array([line["step"] for line in history]),
        np.array([line["loss"] for line in history]),
        history[-1]["cpu_seconds"] if history else 0.0,
        evolution(folder, trained.shape),
        times,
        np.stack([kept(x) for x in walk]),
        [],
    )


def shown(recipe: ImageRecipe, n: int) -> dict[str, Any]:
    """Arrays for a comparison's figures of its data."""
    x, labels = real(recipe, 64, recipe.seed)
    train, held = parts(recipe)
    name = recipe.shared().data
    return {
        "title": name,
        "real": kept(x),
        "real_labels": None if labels is None else labels.numpy(),
        "limits": (0.0, 255.0),
        "classes": train.classes,
        "settings": {
            "network": recipe.network,
            "training": f"{recipe.steps} steps of {recipe.batch}, learning rate {recipe.lr:g}, EMA {recipe.ema:g}",
            "data": f"{name}, {len(train.x)} images of {' × '.join(map(str, x.shape[1:]))}, {len(held.x)} held out",
            "samples": str(n),
            "seed": str(recipe.seed),
        },
    }
