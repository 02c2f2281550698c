"""Arrays for the figures of a network trained on points."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...losses.flow_map import mean_slope
from ...plots.study import Method
from ...recipes import PointRecipe
from ...samplers import slope
from ...training.history import evolution, read_losses
from ..routes import explodes, route
from .data import limits, parts, point_set, real_points

if TYPE_CHECKING:
    from ...training.trained import Trained

__all__ = ["FIELD_TIMES", "WALK_POINTS", "kept", "shown", "study"]

WALK_POINTS = 1500


FIELD_TIMES = (0.9, 0.7, 0.5, 0.3, 0.1)


def kept(x: Tensor) -> np.ndarray:
    """Samples as a comparison keeps them."""
    array: np.ndarray = x.numpy()
    return array


def study(key: str, name: str, colour: str, trained: "Trained", folder: Path) -> Method:
    """Arrays for the figures of a trained network."""
    history = read_losses(folder)
    times, walk = route(trained, WALK_POINTS, 50)
    return Method(
        key,
        name,
        colour,
        np.array([line["step"] for line in history]),
        np.array([line["loss"] for line in history]),
        history[-1]["cpu_seconds"] if history else 0.0,
        evolution(folder, trained.shape),
        times,
        walk.numpy(),
        _fields(trained) if trained.shape == (2,) and (trained.codec is None or trained.codec.linear) else [],
    )


@torch.no_grad()
def _fields(trained: "Trained") -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
    """The marginal velocity on a lattice over the frame at FIELD_TIMES, among real points noised to that time.

    None where only the velocities of single classes were learned.
    """
    if not trained.recipe.learns_null:
        return []
    try:
        real = real_points(cast(PointRecipe, trained.reading()), WALK_POINTS, trained.recipe.seed).x
    except InputError:  # not here, or not named
        return []
    denoiser, recipe = trained.denoiser, cast(PointRecipe, trained.recipe)
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(recipe.seed))
    frame = limits(recipe, real)
    noise_end = trained.to_data(torch.tensor([[-3.0] * len(frame), [3.0] * len(frame)])).numpy()
    low, high = np.minimum(frame[:, 0], noise_end[0]), np.maximum(frame[:, 1], noise_end[1])
    axes = [torch.linspace(float(a), float(b), 17) for a, b in zip(low, high, strict=True)]
    places = torch.cartesian_prod(*axes)
    zero = trained.to_data(torch.zeros_like(places))
    x0, x1 = trained.to_network(real), trained.to_network(next(trained.trajectory(len(real), seed=recipe.seed))[1])
    fields = []
    x = trained.to_network(places)
    for time_ in FIELD_TIMES:
        t = torch.tensor([time_], dtype=torch.float64)
        if explodes(denoiser.path):
            (c,) = denoiser.path.along(denoiser.path.time_at(t))
            speed, x_t = mean_slope(denoiser, x * c.size, c), (c.alpha * x0 + c.sigma * noise) / c.size
        elif denoiser.gaussian_end:
            speed, x_t = slope(denoiser, x, time_), denoiser.path.interpolate(x0, noise, t)
        else:
            speed, (x_t, _) = slope(denoiser, x, time_), denoiser.path.between(x0, x1[: len(x0)], t, noise)
        speed, x_t = trained.to_data(speed) - zero, trained.to_data(x_t)
        fields.append((time_, places.numpy(), speed.numpy(), x_t.numpy()))
    return fields


def shown(recipe: PointRecipe, n: int) -> dict[str, Any]:
    """Arrays for a comparison's figures of its data."""
    points = real_points(recipe, n, recipe.seed)
    known = point_set(recipe)
    return {
        "title": recipe.data.replace("_", " ") if known else recipe.shared().data,
        "real": points.x.numpy(),
        "real_labels": None if points.labels is None else points.labels.numpy(),
        "limits": limits(recipe, points.x),
        "classes": points.classes,
        "columns": points.columns,
        "form": () if points.form is None else tuple(points.form.learned),
        "log_density": None if known is None else known.log_density,
        "settings": {
            "network": recipe.network,
            "training": f"{recipe.steps} steps of {recipe.batch}, learning rate {recipe.lr:g}, EMA {recipe.ema:g}",
            "data": f"{recipe.data}, {recipe.points} points" if known else _rows(recipe),
            "samples": str(n),
            "seed": str(recipe.seed),
        },
    }


def _rows(recipe: PointRecipe) -> str:
    train, held = parts(recipe)
    return f"{recipe.shared().data}, {len(train.x)} rows, {len(held.x)} more held out"
