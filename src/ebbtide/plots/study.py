"""Results of `ebbtide compare`, as plain arrays: the data of a report's figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recipes import Recipe

if TYPE_CHECKING:
    from ..data.forms import Column
    from ..metrics import Measurement

__all__ = ["Comparison", "Method", "Sampling", "key_of", "training_stages"]


@dataclass(frozen=True)
class Method:
    """One trained network. Everything is in data units; at t = 1 the noise then has the data's mean and spread."""

    key: str  # "diffusion", "flow", "edm"; its folder, and what names of files hold
    name: str  # "DDPM", "Flow matching", "EDM"
    colour: str  # in figures
    steps: np.ndarray  # training history: steps and
    losses: np.ndarray  # mean loss since the entry before
    seconds: float  # CPU seconds of training
    evolution: list[tuple[int, np.ndarray]]  # (training step, samples (m, d)), from the same noise
    walk_times: np.ndarray  # (k,) from 1 to 0
    walk: np.ndarray  # (k, m, d): a deterministic run from the noise both methods share
    fields: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]  # (t, places, velocities there, samples of x_t)
    origin: str = ""  # notes: of a run that was there before, what it is


@dataclass(frozen=True)
class Sampling:
    """One way of sampling one network, and how good the samples are."""

    method: str  # Method.key
    label: str
    sampler: str
    steps: int
    evaluations: int  # of the network, per sample
    seconds: float
    samples: np.ndarray
    labels: np.ndarray | None
    measurements: list["Measurement"]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Results of `ebbtide compare`, ready to be drawn."""

    title: str  # of the report
    command: str  # that makes it again
    real: np.ndarray  # real data, (n, *d)
    real_labels: np.ndarray | None  # (n,), the classes by number
    limits: tuple[float, float] | np.ndarray  # the frame of every figure: for all columns, or (d, 2)
    methods: list[Method]  # what was trained, or taken from a run
    samplings: list[Sampling]  # the ways of sampling each, with their measurements
    quality: dict[str, list[tuple[int, float]]]  # "Method.name · sampler" → (evaluations, metric)
    quality_metric: str  # the metric in `quality`
    floor: tuple[float, float]  # the range of truth's own
    settings: dict[str, str]  # of training and sampling, as the report prints them
    classes: tuple[str, ...] = ()  # names of the labels
    columns: tuple[str, ...] = ()  # names of the columns
    form: tuple["Column", ...] = ()  # the columns' forms, of a table that has any
    log_density: Callable[[Any], Any] | None = None  # the exact one of points, where it is known
    kind: str = "points"  # of the data
    at_floor: dict[str, int] = field(default_factory=dict)  # the fewest evaluations of `quality` that are, of each line

    def __repr__(self) -> str:
        return f"Comparison({self.title}; {len(self.samplings)} ways of sampling, by {self.quality_metric})"

    def _repr_html_(self) -> str:
        names = {method.key: method.name for method in self.methods}
        rows = "".join(
            f"<tr><td>{escape(names.get(s.method, s.method))}</td><td>{escape(s.label)}</td><td>{s.evaluations}</td>"
            f"<td>{', '.join(f'{m.value:.4g}' for m in s.measurements if m.name == self.quality_metric)}</td></tr>"
            for s in self.samplings
        )
        head = f"<tr><th></th><th>sampler</th><th>evaluations</th><th>{escape(self.quality_metric)}</th></tr>"
        return f"<table><caption>{escape(self.title)}</caption>{head}{rows}</table>"


def training_stages(methods: Sequence[Method]) -> list[tuple[str, float, list[np.ndarray]]]:
    """Stages of training that every method kept: a name, the share that was done, and each method's samples there.

    A stage is a step; of methods whose steps differ it is a share of their training.
    """
    least = min((method.evolution for method in methods), key=len, default=[])
    last = max(least[-1][0], 1) if least else 1
    if all(kept[0] == step for method in methods for kept, (step, _) in zip(method.evolution, least)):
        return [
            (f"step {step:,}", step / last, [m.evolution[k][1] for m in methods]) for k, (step, _) in enumerate(least)
        ]
    found = []
    for share in (step / last for step, _ in least):
        near = (min(m.evolution, key=lambda kept: abs(kept[0] / max(m.evolution[-1][0], 1) - share)) for m in methods)
        found.append((f"{share:.0%} trained".replace("%", " %"), share, [x for _, x in near]))
    return found


def key_of(recipe: Recipe) -> str:
    """The method whose colour a recipe gets: a path to noise with the velocity target is a flow, the rest diffusion."""
    return "flow" if recipe.target == "velocity" else "diffusion"
