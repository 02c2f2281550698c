"""The figures of one run: `ebbtide sample` and `ebbtide plot`."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ...data.forms import Column
from ...errors import InputError
from ...files import storage
from ...plots import animation, columns, curves, fields, points, style
from ...plots.study import Method, key_of
from ...recipes import PointRecipe
from ...samplers import facts
from ...specs import listed
from ...training.trained import Trained
from ..routes import explodes
from ..titles import title_of
from .data import limits, part, point_set, real_points
from .judged import rows_of_table
from .pictures import table_pictures
from .study import study

__all__ = ["draw_run", "draw_samples"]

_FEW = 500  # real points that show their distribution
_MOST = 10**6  # real points among which those of a few classes are looked for
_NAMED = 2  # classes in a title


def draw_samples(trained: Trained, x: Tensor, labels: Tensor | None, path: Path, how: str = "") -> Path:
    """Samples beside as many real points of their classes, where the data is at hand.

    how: by which they were drawn, for the title. Of fewer samples than _FEW there are that many real points.
    """
    recipe = cast(PointRecipe, trained.recipe)
    asked = [] if labels is None else [trained.classes[k] for k in labels.unique().tolist() if k < len(trained.classes)]
    some, frame = 0 < len(asked) < len(trained.classes), None
    panels = [points.Panel("samples", x.numpy(), style.colour(key_of(recipe)), "", _array(labels))]
    try:
        n = max(len(x), _FEW)
        drawn = max(n, min(100 * n, _MOST)) if some else n
        real = real_points(cast(PointRecipe, trained.reading()), drawn, recipe.seed)
        if real.x.shape[1:] == x.shape[1:]:
            frame = limits(recipe, real.x)  # of all classes, beyond whose own samples may lie
            if some and labels is not None and real.labels is not None:
                real = part(real, torch.isin(real.labels, labels).nonzero()[:n, 0])
            real_labels = None if labels is None else _array(real.labels)
            panels.insert(0, points.Panel("real", real.x.numpy(), style.REAL, "", real_labels))
    except InputError as error:
        warnings.warn(f"{error} The samples are drawn without it.", stacklevel=2)
    reference = panels[0].x
    frame = limits(recipe, reference) if frame is None else frame
    how = " · ".join(filter(None, (f"label {listed(asked)}" if some and len(asked) <= _NAMED else "", how)))
    return style.save(_beside(trained, panels, frame, reference, title_of(trained, how, len(x))), path)


def _beside(
    trained: Trained, panels: list[points.Panel], frame: np.ndarray, real: np.ndarray | None, title: str
) -> style.Figure:
    """Panels side by side, or the pairs of more than two columns."""
    named: dict[str, Any] = {"names": trained.columns, "form": _form(trained), "title": title}
    if len(frame) <= 2:
        return points.scatter_panels(
            panels, frame, real=real, log_density=_exact(trained), classes=trained.classes, **named
        )
    return columns.pairs(panels, frame, real=panels[0].x if real is None else real, **named)


def _form(trained: Trained) -> tuple[Column, ...]:
    """The forms of a table's columns, none for other points."""
    return () if trained.form is None else trained.form.learned


def _exact(trained: Trained) -> Any:
    """The exact log-density of a named set that has one."""
    known = point_set(cast(PointRecipe, trained.recipe))
    return None if known is None else known.log_density


def draw_run(trained: Trained, folder: Path, out: Path) -> Iterator[Path]:
    """Draw all that a run folder can show, yielding each figure as it is written."""
    recipe = cast(PointRecipe, trained.recipe)
    method = study("run", recipe.path.partition(":")[0], style.colour(key_of(recipe)), trained, folder)
    jumps = facts(recipe.sampler).spans
    way = "jumps" if jumps else f"heun, {len(method.walk) - 1} steps"
    title, exact = title_of(trained, way, method.walk.shape[1]), _exact(trained)
    try:
        real = real_points(cast(PointRecipe, trained.reading()), 10_000, recipe.seed).x.numpy()
    except InputError as error:
        warnings.warn(f"{error} The figures are drawn without it.", stacklevel=2)
        real = None
    frame = limits(recipe, method.walk[-1] if real is None else real)
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
    note = ""
    if (d := len(frame)) > 2:
        note = f"The first 2 of {d} columns" + (f": {listed(trained.columns[:2])}." if trained.columns else ".")
    figures = {
        "samples": lambda: _final(trained, method, real, frame, title),
        "trajectories": lambda: points.trajectories(
            _routes(trained, method),
            frame,
            real=real,
            names=trained.columns[:2],
            form=_form(trained),
            title=title_of(trained),
            note=note,
        ),
        "intermediate": lambda: points.intermediate(
            [method], frame, real=real, log_density=exact, title=title, note=note
        ),
    }
    if len(method.losses):
        figures["losses"] = lambda: curves.losses([method])
    if searched := _searched(folder):
        figures["stopping"] = lambda: curves.stopping(*searched)
    if method.fields:
        figures["vector_field"] = lambda: fields.vector_field([method], frame, title=title_of(trained))
    for name, draw in figures.items():
        yield style.save(draw(), out / f"{name}.png")
    if d > 2 and real is not None and point_set(recipe) is None:
        rows, drawn = (rows_of_table(trained, torch.from_numpy(x)) for x in (real, method.walk[-1]))
        for picture in table_pictures(rows, drawn, rows, method.colour, "real rows"):
            yield picture.draw(out / picture.file)
    yield animation.sampling_gif(out / "sampling.gif", [method], frame, real=real, log_density=exact)
    if method.evolution:
        yield animation.training_gif(out / "training.gif", [method], frame, real=real, log_density=exact)


def _routes(trained: Trained, method: Method, count: int = 3) -> list[Method]:
    """The routes of a run's ODE, and beside them a few of its sampler's, where that draws noise at every step."""
    recipe, d = trained.recipe, method.walk.shape[2]
    sampler = recipe.sampler.partition(":")[0]
    if not facts(recipe.sampler).noise or explodes(trained.denoiser.path) or d > 2:
        return [method]
    walk = list(trained.trajectory(count, seed=recipe.seed))
    times, own = np.array([t for t, _ in walk]), np.stack([x.numpy() for _, x in walk])
    return [
        replace(method, name=f"its ODE: heun, {len(method.walk) - 1} steps"),
        replace(method, name=f"{sampler}, random: {len(walk) - 1} steps", walk_times=times, walk=own),
    ]


def _searched(folder: Path) -> tuple[list[int], list[float], dict[int, float]] | None:
    """Steps, training losses and held-out losses of a run's search for a number of steps, or of a search itself."""
    from ...training.history import HELD, read_metrics
    from ...training.stopping import SEARCH

    lines = read_metrics(folder / SEARCH) or read_metrics(folder)
    held = {line["step"]: line[HELD] for line in lines if HELD in line}
    known = [line for line in lines if line["loss"] is not None]
    return ([line["step"] for line in known], [line["loss"] for line in known], held) if held else None


def _final(trained: Trained, method: Method, real: np.ndarray | None, frame: np.ndarray, title: str) -> "style.Figure":
    panels = [points.Panel("samples", method.walk[-1], method.colour)]
    if real is not None:
        panels.insert(0, points.Panel("real", real[: len(method.walk[-1])], style.REAL))
    return _beside(trained, panels, frame, real, title)


def _array(labels: Tensor | None) -> np.ndarray | None:
    return None if labels is None else labels.numpy()
