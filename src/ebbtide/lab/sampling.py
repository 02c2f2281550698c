"""Samples as a page shows them: every stage of a walk, the field around it, and how far its end is from the truth."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.paths import Scales
from ..core.randomness import Draws
from ..errors import InputError
from ..exact import encoding
from ..kinds import kind_of
from ..kinds.routes import explodes
from ..samplers import SAMPLERS, facts, slope, walk
from ..specs import options, require, with_option, words
from ..training.asked import Choice
from ..training.trained import Trained
from .learning import Learner

__all__ = [
    "ARROWS",
    "EXACT",
    "FRAMES",
    "MOST_WORK",
    "Course",
    "LabRun",
    "View",
    "asked",
    "counting",
    "distances_of",
    "encoded",
    "field_at",
    "solver_error",
    "takes_eta",
    "walk_of",
]  # fmt: skip

FRAMES = 65  # stages of a walk that are sent
ARROWS = 80  # samples whose estimates of x₀ are
EXACT = 500  # samples that a solver's error is measured on, with
JUDGED = 1000  # samples that are held against real data
FINE = 50  # steps of the classical Runge–Kutta method
MOST_WORK = 4_000_000  # samples × steps of a walk
COARSE = 24  # steps of an encoding, drawn while a mouse moves


@dataclass(frozen=True)
class View:
    """A panel's way of sampling: arguments of `Trained.sample`, and the columns that are shown."""

    n: int = 1000
    seed: int = 0
    sampler: str = ""
    """The run's own unless given; so are grid and steps."""
    grid: str = ""
    steps: int = 0
    eta: float | None = None
    """Share of fresh noise, of samplers that have one."""
    guidance: float = 1.0
    label: str = ""
    columns: tuple[int, ...] = (0, 1)

    def options(self, trained: Trained) -> dict[str, Any]:
        """The options of `Trained.sample` that differ from its defaults."""
        sampler = self.sampler
        if self.eta is not None:
            sampler = with_option(sampler or trained.recipe.sampler, "eta", f"{self.eta:g}")
        found: dict[str, Any] = {"seed": self.seed} if self.seed else {}
        given = {"sampler": sampler, "grid": self.grid, "steps": self.steps, "label": self.label}
        found |= {name: value for name, value in given.items() if value}
        return found | ({"guidance": self.guidance} if self.guidance != 1 else {})


@dataclass(eq=False)
class LabRun:
    """A run in the lab: trained before, or learning now."""

    key: str
    name: str
    where: str = ""
    """Its folder as the user typed it; "" for one that is not kept anywhere."""
    opened: Trained | None = None
    learner: Learner | None = None
    floors: dict[Any, Any] = field(default_factory=dict)
    """Of distances: shared by all samples that are held against this run's data."""
    ends: dict[Any, Tensor] = field(default_factory=dict)
    """The last few walks' ends, in the network's units."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while its network is asked, as its calls are counted."""

    def kept_end(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """The end of a walk that was just shown, or of one that is made now.

        key: what decides the walk. make: walks.
        """
        if key not in self.ends:
            found = make()
            while len(self.ends) >= 6:
                self.ends.pop(next(iter(self.ends)))
            self.ends[key] = found
        return self.ends[key]

    @property
    def trained(self) -> Trained:
        """The run as it is now."""
        if self.learner is not None:
            return self.learner.now()
        assert self.opened is not None
        return self.opened

    @property
    def place(self) -> Path | None:
        """The folder that a command can name; None if there is none."""
        if self.learner is not None:
            return self.learner.kept
        return Path(self.where)

    @cached_property
    def real(self) -> Tensor | None:
        """Real examples to draw samples beside; None where they aren't here or nobody named them."""
        if self.learner is not None and self.learner.painted is not None:
            return self.learner.painted
        trained = self.trained
        try:
            return kind_of(trained.recipe).real(trained.reading(), 2000, 0)[0]
        except InputError:
            return None


def asked(trained: Trained, view: View) -> Choice:
    """The sampler, grid and steps that a view comes to; InputError where they are too much work for a page."""
    given = view.options(trained)
    how = {name: given[name] for name in ("sampler", "grid", "steps", "guidance") if name in given}
    choice = trained.choice(**how)
    require("n", view.n, 1, 20_000, whole=True)
    if choice.steps * view.n > MOST_WORK:
        raise InputError(f"n × steps must be at most {MOST_WORK:,} here; got {view.n:,} × {choice.steps:,}.")
    return choice


def takes_eta(sampler: str) -> bool:
    """True if a sampler's spec may have an option eta."""
    row = SAMPLERS.get(words(sampler)[0])
    return row is not None and "eta" in options(row)


@contextmanager
def counting(trained: Trained) -> Iterator[list[int]]:
    """The rows of every call of the network in this context."""
    seen: list[int] = []
    hook = trained.denoiser.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        hook.remove()


@dataclass(frozen=True)
class Course:
    """A walk from noise to samples."""

    times: list[float]
    """Of the frames: t, or the flow clock of a path whose noise explodes."""
    frames: list[Tensor]
    """x_t in data units."""
    guesses: list[Tensor]
    """x̂₀ of the first samples in each frame; empty where the network has none."""
    evaluations: float
    """Calls of the network for each sample."""
    straightness: float
    """Mean of |end − start| over the length of the way, in the network's units and the flow clock; 1 is straight."""
    choice: Choice
    steps: int
    end: Tensor
    """The samples in the network's units."""


def walk_of(trained: Trained, view: View, *, guesses: int = ARROWS, frames: int = FRAMES) -> Course:
    """Every stage of a view's walk, at most `frames` of them. guesses: arrows to x̂₀ that are kept."""
    choice = asked(trained, view)
    grid = choice.grid
    count = len(grid) - 1 if not isinstance(grid, str) else grid.count(",") or choice.steps
    wanted = {round(k * count / min(count, frames - 1)) for k in range(min(count, frames - 1) + 1)}
    shrinks = explodes(trained.denoiser.path)
    times, found, raw = [], [], []
    start = last = length = z = torch.zeros(0)
    with counting(trained) as seen:
        for k, (t, z) in enumerate(trained.latents(view.n, **view.options(trained))):
            (c,) = trained.denoiser.path.along([t])
            place = (z / c.size).flatten(1)
            if not len(last):
                start, length = place, torch.zeros(len(place))
            else:
                length += (place - last).norm(dim=1)
            last = place
            if k in wanted or t == 0:
                times.append(c.tau if shrinks else t)
                found.append(trained.to_data(z / c.size if shrinks else z))
                raw.append((c, z[:guesses]))
    chord = (last - start).norm(dim=1)
    return Course(
        times, found, _guesses(trained, view, raw) if guesses else [], sum(seen) / view.n,
        float((chord / length.clamp(min=1e-12)).mean()), choice, count, z,
    )  # fmt: skip


@torch.no_grad()
def _guesses(trained: Trained, view: View, raw: Sequence[tuple[Scales, Tensor]]) -> list[Tensor]:
    """x̂₀ of the samples in each frame; nothing where it has no meaning."""
    if not trained.denoiser.gaussian_end or not trained.recipe.independent:
        return []
    denoiser, cond = trained.steered(guidance=view.guidance), conditions_of(trained, view, len(raw[0][1]))
    return [trained.to_data(z if c.t == 0 else denoiser(z, c, **cond).x0) for c, z in raw]


def conditions_of(trained: Trained, view: View, n: int) -> dict[str, Any]:
    """The denoiser's conditions for the first n samples."""
    labels = trained.labels(view.label or None, n, Draws.first(n, view.seed))
    return ({} if labels is None else {"label": labels}) | trained.context(n, view.seed, 0, None)


@torch.no_grad()
def field_at(trained: Trained, view: View, t: float, places: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """The velocity at places in data units, at a time of the slider."""
    _flat(trained)
    path, z = trained.denoiser.path, trained.to_network(places)
    denoiser, cond = trained.steered(guidance=view.guidance), conditions_of(trained, view, len(places))
    t = min(max(t, 1e-3), 1.0)
    if explodes(path):  # the slope in the flow clock
        (c,) = path.along(path.time_at(torch.tensor([t], dtype=torch.float64)))
        x0, noise = denoiser(z * c.size, c, **cond)
        speed = noise - x0
    else:
        speed = slope(denoiser, z, t, **cond)
    return trained.to_data(speed) - trained.to_data(torch.zeros_like(speed))


@torch.no_grad()
def encoded(trained: Trained, view: View, point: Float[Tensor, " d"]) -> tuple[list[float], Float[Tensor, "k d"]]:
    """The times and places of a point's way to its noise, by the flow; and so of the way back."""
    _flat(trained)
    path, cond = trained.denoiser.path, conditions_of(trained, view, 1)
    denoiser = trained.steered(guidance=view.guidance)
    noise = encoding.encode(denoiser, trained.to_network(point[None]), steps=COARSE, **cond)
    times = encoding.upwards(path, COARSE).flip(0)
    way = [noise, *walk("rk4:clock=flow", denoiser, noise, times, cond=cond)]
    scales, shrinks = path.along(times), explodes(path)
    places = [trained.to_data(z / c.size if shrinks else z) for c, z in zip(scales, way, strict=True)]
    return [c.tau if shrinks else c.t for c in scales], torch.cat(places)


def _flat(trained: Trained) -> None:
    """InputError unless the plane that is drawn is all of the data's space, and a straight line in it stays one."""
    if len(trained.shape) != 1 or trained.shape[0] > 2 or not (trained.codec is None or trained.codec.linear):
        raise InputError("Fields and encodings are drawn of data with one or two columns, seen through a linear codec.")


def distances_of(run: LabRun, trained: Trained, view: View) -> list[dict[str, Any]]:
    """Each distance of a view's samples to real data, beside that of real data; empty where there is none at hand."""
    kind, learner = kind_of(trained.recipe), run.learner
    if trained.recipe.kind != "points" or (learner is not None and learner.painted is not None):
        return []
    try:
        recipe, x = trained.reading(), trained.to_data(_end(run, trained, view))[:JUDGED]
        labels = trained.labels(view.label, len(x)) if view.label else None
        rows = kind.evaluate(recipe, x, labels, 0, run.floors.setdefault(view.label, {}), curve=True)
    except InputError as error:
        return [{"name": "distance", "note": str(error)}]
    return [
        {"name": row.name, "value": row.value, "low": row.low, "high": row.high, "floor": row.floor, "p": row.p}
        for row in rows
        if row.name != "non-finite" or row.value
    ]


def solver_error(run: LabRun, trained: Trained, view: View) -> float | None:
    """RMS distance of the samples from the ends of their flow, in the network's units; None where noise is added."""
    choice = asked(trained, view)
    sampler = choice.sampler if isinstance(choice.sampler, str) else ""
    if not trained.denoiser.gaussian_end or not sampler or facts(sampler).noise or facts(sampler).spans:
        return None
    n = min(view.n, EXACT)
    fine = encoding.upwards(trained.denoiser.path, FINE).flip(0).tolist()
    how = view.options(trained) | {"sampler": "rk4:clock=flow", "grid": fine, "steps": FINE}
    flow = ("flow", view.seed, view.label, view.guidance, n, trained.step)
    exact = run.kept_end(flow, lambda: _last(trained, n, how))
    return float((_end(run, trained, view)[:n] - exact).square().sum(1).mean().sqrt())


def _end(run: LabRun, trained: Trained, view: View) -> Tensor:
    asked(trained, view)
    own = replace(view, columns=(0,))
    return run.kept_end((own, trained.step), lambda: _last(trained, view.n, view.options(trained)))


def _last(trained: Trained, n: int, how: dict[str, Any]) -> Tensor:
    *_, (_, z) = trained.latents(n, **how)
    return z


def as_columns_of(x: Tensor, columns: Sequence[int]) -> np.ndarray:
    """The columns that are shown, as float32; of data with one column that one."""
    own = [k for k in columns if k < x.shape[1] or x.shape[1] > 1]
    for k in own:
        require("a column", k, 0, x.shape[1] - 1, whole=True)
    if not own:
        raise InputError(f"The data has one column, number 0; got {list(columns)}.")
    return x[:, own].float().numpy()
