"""ebbflow likelihood RUN: the log-density of data under a run, and a map of it."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro

from ..errors import InputError
from .arguments import MOST, hint, parse, threads, within

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import PointSet
    from ..trained import Trained

CHUNK = 2048  # points whose ODE is solved together
MAP, MAP_STEPS = 90, 50  # cells a side, and steps, of the picture
PROBES = 12
Tick = Callable[[int], object]  # moves a progress bar on by so many steps of a point


@dataclass(frozen=True)
class Likelihood:
    """Mean log-density of data under a run, through the probability-flow ODE, with its errors; in 2-D also a map."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    data: Annotated[str, hint("fresh points of the run's data")] = ""
    """A point set or file to measure instead."""
    n: int = 1000
    """How many points."""
    seed: int = 0
    """Seed of the points and of the probes."""
    steps: int = 100
    """Runge-Kutta steps from data to noise; half of them are the comparison that gives the discretisation error."""
    divergence: Literal["exact", "hutchinson", "hutch++"] = "exact"
    """exact takes a derivative for each dimension, the other two one for each probe."""
    probes: Annotated[int, hint(f"{PROBES}, where there are any")] = 0
    """Random probes of hutchinson and hutch++."""
    picture: bool = True
    """Draw the log-density of a run in 2-D to RUN/density.png."""
    threads: int = 0
    """Threads of torch; 0 picks one for a small network."""

    def __post_init__(self) -> None:
        within(self, n=(2, 10**8), seed=(0, MOST), steps=(4, 10**6), probes=(0, 10**6), threads=(0, 1024))
        if self.probes and self.divergence == "exact":
            raise InputError("--probes belongs to hutchinson and hutch++; the exact divergence has none.")

    @property
    def spec(self) -> str:
        """The divergence as a row of DIVERGENCES."""
        return "exact" if self.divergence == "exact" else f"{self.divergence}:probes={self.probes or PROBES}"


def run(argv: Sequence[str]) -> None:
    """Parse, integrate, print and draw."""
    args = parse(Likelihood, argv, "likelihood")
    from tqdm import tqdm

    from ..data import DATASETS
    from ..domains.points import point_set
    from ..trained import Trained

    trained = Trained.from_pretrained(args.run)
    if trained.observation is not None:
        raise InputError(f"The likelihood is measured of runs without observations; {args.run} is a policy.")
    if trained.recipe.domain != "points":
        raise InputError(f"The likelihood is measured of points; {args.run} has {trained.recipe.domain}.")
    threads(args.threads, trained.denoiser.eval())
    x = _points(args, trained)
    known = DATASETS.get(args.data) if args.data else point_set(cast(Any, trained.recipe))
    drawn = args.picture and trained.shape == (2,) and Path(args.run).is_dir()
    work = len(x) * args.steps + drawn * MAP**2 * MAP_STEPS
    with tqdm(total=work, desc="integrating", unit="pt", unit_scale=True, delay=2, file=sys.stderr) as bar:
        print(_table(args, known, x, *_measure(args, trained, x, bar.update)))
        if drawn:
            print(f"picture: {_draw(trained, Path(args.run) / 'density.png', bar.update)}", file=sys.stderr)


def _points(args: Likelihood, trained: "Trained") -> "Tensor":
    """Data in its own units: what was asked for, or fresh points of what the run learned."""
    from ..data import load
    from ..domains.points import real_points

    if args.data:
        x = load(args.data, args.n, args.seed).x[: args.n]
    else:
        x = real_points(cast(Any, trained.recipe), args.n, args.seed).x
    if tuple(x.shape[1:]) != trained.shape:
        have, got = (" × ".join(map(str, shape)) for shape in (trained.shape, x.shape[1:]))
        raise InputError(f"The run has points of {have} numbers, but {args.data or trained.recipe.data} has {got}.")
    if len(x) < 2:
        raise InputError(f"{args.data or trained.recipe.data} has one row; a mean with its error needs two.")
    return x


def _measure(args: Likelihood, trained: "Trained", x: "Tensor", tick: Tick) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Each point's log-density in the data's units, its step error and its probe error."""
    import torch

    from ..likelihood import doubt, likelihood
    from ..randomness import Draws

    parts = []
    for start in range(0, len(x), CHUNK):
        own = x[start : start + CHUNK]
        draws = Draws.first(len(own), args.seed, start)
        found = likelihood(
            trained.denoiser, trained.to_network(own), steps=args.steps, divergence=args.spec, draws=draws,
            tolerance=math.inf, **_null_label(trained, len(own)),
        )  # fmt: skip
        parts.append(found)
        tick(len(own) * args.steps)
    value, step_error, probe_error = (torch.cat(part).double() for part in zip(*parts, strict=True))
    doubt(step_error, 0.01 * math.prod(trained.shape), args.steps)
    return value - _log_volume(trained), step_error, probe_error


def _null_label(trained: "Trained", n: int) -> dict[str, Any]:
    """A conditional run's density of all classes together is that of its null label."""
    return {"label": trained.labels(None, n)} if trained.recipe.conditional else {}


def _log_volume(trained: "Trained") -> float:
    """log|dx/dz| of the transform x = std z + mean: log p(x) = log p(z) - Σ log std."""
    return 0.0 if trained.transform is None else trained.transform.log_volume(trained.shape)


def _table(
    args: Likelihood,
    known: "PointSet | None",
    x: "Tensor",
    value: "Tensor",
    step_error: "Tensor",
    probe_error: "Tensor",
) -> str:
    """Mean ± standard error, beside the truth; the mean of their differences is the KL divergence from data to run."""
    rows = [("log-density", value)]
    if known is not None and known.log_density is not None:
        true = known.log_density(x.double())
        rows += [("truth", true), ("truth - log-density", true - value)]
    lines = [f"{name:20}{float(of.mean()):9.4f} ± {float(of.std()) / math.sqrt(len(of)):.4f}" for name, of in rows]
    errors = [("discretisation", step_error), *[("probes", probe_error)] * (args.divergence != "exact")]
    lines += [f"{name:20}{float(of.mean()):9.4f}   a point, {float(of.max()):.2g} the worst" for name, of in errors]
    about = f"nats in the data's units; {len(value)} points, {args.steps} steps, {args.spec} divergence"
    return "\n".join([*lines, about])


def _draw(trained: "Trained", path: Path, tick: Tick) -> Path:
    """The run's log-density over the frame of its data, beside the truth."""
    import torch

    from ..domains.points import limits, point_set, real_points
    from ..likelihood import log_density
    from ..plots.density import density_map, lattice
    from ..plots.run import key_of
    from ..plots.style import colour, save

    known = point_set(cast(Any, trained.recipe))
    frame = limits(cast(Any, trained.recipe), real_points(cast(Any, trained.recipe), 10_000, 0).x)
    parts = []
    for own in lattice(frame, MAP).float().split(CHUNK):
        z = trained.to_network(own)
        found = log_density(trained.denoiser, z, steps=MAP_STEPS, **_null_label(trained, len(own)))
        parts.append(found.double() - _log_volume(trained))
        tick(len(own) * MAP_STEPS)
    figure = density_map(
        torch.cat(parts).reshape(MAP, MAP).numpy(),
        frame,
        log_density=None if known is None else known.log_density,
        colour=colour(key_of(trained.recipe)),
    )
    return save(figure, path)
