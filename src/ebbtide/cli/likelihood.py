"""ebbtide likelihood RUN: the log-density of data under a run, and a map of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro

from ..errors import InputError
from ..recipes import PointRecipe
from .arguments import MOST, Computing, Rows, hint, opened, parse, tell, within

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Points, PointSet
    from ..training.trained import Trained

__all__ = ["CHUNK", "MAP", "MAP_STEPS", "PROBES", "Likelihood", "Tick", "run"]

CHUNK = 2048  # points whose ODE is solved together
MAP, MAP_STEPS = 90, 50  # cells a side, and steps, of the figure
PROBES = 12
Tick = Callable[[int], object]  # advances a progress bar by a number of steps of a point


@dataclass(frozen=True)
class Likelihood:
    """Mean log-density of data under a run, through the probability-flow ODE, with its errors; in 2-D also a map."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    rows: tyro.conf.OmitArgPrefixes[Rows] = field(default_factory=Rows)
    data: Annotated[str, hint("fresh points of the run's own set")] = ""
    """A point set or file to measure; of the run's training file, the held-out rows."""
    n: int = 1000
    """Number of points."""
    seed: int = 0
    """Seed of the points and of the probes."""
    steps: int = 100
    """Runge-Kutta steps from data to noise; a second walk with half of them gives the discretisation error."""
    divergence: Literal["exact", "hutchinson", "hutch++"] = "exact"
    """Divergence; exact takes a derivative for each dimension, the other two one for each probe."""
    probes: Annotated[int, hint(f"{PROBES}, where there are any")] = 0
    """Random probes of hutchinson and hutch++."""
    flag: int = 0
    """Rows to list, the least likely first; beside each, how many held-out rows are less likely still. Of the run's
    own table all rows are measured, up to --n."""
    picture: bool = True
    """Draw the log-density of a run in 2-D to RUN/density.png."""
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)

    def __post_init__(self) -> None:
        within(self, n=(2, 10**8), seed=(0, MOST), steps=(4, 10**6), probes=(0, 10**6), flag=(0, 10**6))
        if self.probes and self.divergence == "exact":
            raise InputError("--probes belongs to hutchinson and hutch++; the exact divergence has none.")

    @property
    def spec(self) -> str:
        """The divergence as a row of DIVERGENCES."""
        return "exact" if self.divergence == "exact" else f"{self.divergence}:probes={self.probes or PROBES}"


def run(argv: Sequence[str]) -> None:
    """Parse, integrate, print and draw."""
    args = parse(Likelihood, argv, "likelihood")
    from ..data import DATASETS, Standardise
    from ..kinds.points.data import point_set
    from ..progress import progress_bar

    trained = opened(args.run, **vars(args.rows))
    if trained.observation is not None:
        raise InputError(f"likelihood is for runs on points; {args.run} is a policy.")
    if not isinstance(trained.recipe, PointRecipe):
        raise InputError(f"likelihood is for runs on points; {args.run} was trained on {trained.recipe.kind}.")
    if isinstance(trained.codec, Standardise) and (constant := trained.codec.constant):
        named = ", ".join(f"{trained.columns[i] if trained.columns else i} = {x:g}" for i, x in constant.items())
        raise InputError(f"Rows with a constant column have no density; train without it: {named}.")
    _volume(args, trained)  # refused before anything is measured
    trained.denoiser.eval()
    args.computing.place(trained)
    x = _points(args, trained)
    known = DATASETS.get(args.data) if args.data else point_set(cast(Any, trained.recipe))
    drawn = args.picture and trained.shape == (2,) and Path(args.run).is_dir()
    beside = _beside(args, trained)
    rows = len(x) + (0 if beside is None else len(beside))
    work = len(_together(trained)) * (rows * args.steps + drawn * MAP**2 * MAP_STEPS)
    with progress_bar(work, "integrating", "pt", unit_scale=True, delay=2) as bar:
        value, *errors = _measure(args, trained, x, bar.update)
        print(_table(args, trained, known, x, value, *errors))
        if args.flag:
            others = value if beside is None else _measure(args, trained, beside, bar.update)[0]
            print(_flagged(args, value, others, "of these rows" if beside is None else "of held-out rows"))
        if drawn:
            tell("figure:", _draw(trained, x, Path(args.run) / "density.png", bar.update))


def _points(args: Likelihood, trained: "Trained") -> "Tensor":
    """Data in its own units: the named set, or points of the run's distribution that it was not trained on."""
    from ..data import load
    from ..kinds.points.data import at_hand, point_set, read_rows, unseen

    own = _its_own(trained, args.data)
    if args.data and own is None:
        points = load(args.data, args.n, args.seed, _labels_in(args.data, trained))
        if not points.plain and not args.flag:
            raise InputError(f"{args.data} has texts or missing cells, which have no density.")
        x = _as_trained(args.data, points, trained)[: args.n]
    elif args.flag and point_set(recipe := cast(Any, (own or trained).reading())) is None:
        at_hand(recipe)
        x = read_rows(recipe, args.n, args.seed).x[: args.n]  # all of the file's, by their number
    else:
        x = unseen(cast(Any, (own or trained).reading()), args.n, args.seed).x
    if tuple(x.shape[1:]) != trained.shape:
        have, got = (" × ".join(map(str, shape)) for shape in (trained.shape, x.shape[1:]))
        raise InputError(f"The run has points of {have} numbers, but {args.data or trained.recipe.data} has {got}.")
    if len(x) < 2:
        raise InputError(f"{args.data or trained.recipe.data} has one row; a mean with its error needs two.")
    return x


def _beside(args: Likelihood, trained: "Trained") -> "Tensor | None":
    """Rows of the run's table that it wasn't trained on, to hold flagged rows against, where there are any here."""
    from ..kinds.points.data import parts, point_set

    if not args.flag:
        return None
    try:
        recipe = cast(Any, (_its_own(trained, args.data) or trained).reading())
        held = None if point_set(recipe) else parts(recipe)[1].x
    except InputError:  # not named, or not here
        return None
    return held[: args.n] if held is not None and len(held) else None


def _as_trained(name: str, points: "Points", trained: "Trained") -> "Tensor":
    """A file's rows with its levels numbered as those of the run's table."""
    import torch

    x = points.x.clone()
    own = () if trained.form is None else trained.form.learned
    if points.form is None or not any(column.levels for column in own):
        return x
    for k, (column, got) in enumerate(zip(own, points.form.learned)):
        places = {level: float(i) for i, level in enumerate(column.levels)}
        texts = got.text(points.x[:, k].numpy()) if column.levels else []
        if left := [text for text in texts if text not in places and text != got.empty]:
            raise InputError(f"{name}, column {column.name!r}: {left[0]!r} is not one of the run's levels.")
        if texts:
            x[:, k] = torch.tensor([places.get(text, math.nan) for text in texts])
    return x


def _volume(args: Likelihood, trained: "Trained") -> float:
    """log|dx/dz|; 0 of ranks, by whose density rows can be flagged although they have none in the data's units."""
    from ..codecs import Missing, Mixed, Ranks, volume

    if args.flag and isinstance(trained.codec, Ranks | Missing | Mixed):
        if trained.codec.has_unit_vectors:
            raise InputError(
                f"{args.run} sees levels as unit vectors, which have no density; --ordered, or --drop, in training "
                "leaves columns by whose ranks rows can be flagged."
            )
        return 0.0
    return volume(trained.codec, trained.shape)


def _flagged(args: Likelihood, value: "Tensor", others: "Tensor", what: str) -> str:
    """The least likely rows by their number in the file, from 1, and the share of others that are even less likely."""
    from ..tables import aligned

    order = value.argsort()[: args.flag]
    cells = [("row", "log-density", f"less likely {what}")]
    for k in order.tolist():
        cells.append(
            (str(k + 1), f"{float(value[k]):.2f}", f"{100 * float((others < value[k]).double().mean()):.1f} %")
        )
    return "\n".join(aligned(cells)[0])


def _labels_in(data: str, trained: "Trained") -> str | None:
    """The column of a text file, such as one of the run's samples, that holds labels beside as many as the run has."""
    from ..data.files import is_text
    from ..data.text import column_names
    from ..kinds.points.data import label_column

    recipe = cast(PointRecipe, trained.recipe)
    if not recipe.conditional or not is_text(data) or not Path(data).is_file():
        return None
    names = column_names(data)
    known = (name for name in (recipe.label, label_column(recipe), "label") if name in names)
    return next(known, None) if len(names) == trained.shape[0] + 1 else None


def _its_own(trained: "Trained", data: str) -> "Trained | None":
    """The run with its data named, if that is the file it was trained on."""
    from ..kinds.points.data import prepare
    from ..training.same import same_data

    if not data or "data" not in trained.recipe.outside():
        return None
    own = replace(trained, named={"data": data})
    try:
        return own if same_data(own, prepare(cast(Any, own.reading()))) else None
    except InputError:  # it hasn't even the column of labels
        return None


def _measure(args: Likelihood, trained: "Trained", x: "Tensor", tick: Tick) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Each point's log-density in the data's units, its step error and its probe error."""
    import torch

    from ..core.randomness import Draws
    from ..exact.likelihood import doubt, likelihood

    parts = []
    for start in range(0, len(x), CHUNK):
        own = x[start : start + CHUNK]
        draws = Draws.first(len(own), args.seed, start)
        found = []
        for _, label in _together(trained):
            one = likelihood(
                trained.denoiser, trained.to_network(own), steps=args.steps, divergence=args.spec, draws=draws,
                tolerance=math.inf, **_labelled(label, len(own)),
            )  # fmt: skip
            found.append(one)
            tick(len(own) * args.steps)
        value, *errors = (torch.stack(part).double() for part in zip(*found, strict=True))
        joint = value + _log_shares(trained)
        parts.append((joint.logsumexp(0), *((joint.softmax(0) * error).sum(0) for error in errors)))
    value, step_error, probe_error = (torch.cat(part) for part in zip(*parts, strict=True))
    doubt(step_error, 0.01 * math.prod(trained.shape), args.steps)
    return value - _volume(args, trained), step_error, probe_error


def _together(trained: "Trained") -> list[tuple[float, int | None]]:
    """(share, label) of the densities that make up that of all classes together: log p(x) = log Σ share p(x | label).

    That is the null label's alone, where training hid labels; else every class has its share.
    """
    if not trained.recipe.conditional:
        return [(1.0, None)]
    if trained.recipe.learns_null:
        return [(1.0, len(trained.classes))]
    return [(share, k) for k, share in enumerate(trained.shares().tolist()) if share]


def _log_shares(trained: "Trained") -> "Tensor":
    import torch

    return torch.tensor([[share] for share, _ in _together(trained)], dtype=torch.float64).log()


def _labelled(label: int | None, n: int) -> dict[str, Any]:
    import torch

    return {} if label is None else {"label": torch.full((n,), label)}


def _table(
    args: Likelihood,
    trained: "Trained",
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
    units = (
        "the data's units" if trained.codec is None or trained.codec.log_volume(trained.shape) is not None else "ranks"
    )
    about = f"nats in {units}; {len(value)} points, {args.steps} steps, {args.spec} divergence"
    return "\n".join([*lines, about])


def _draw(trained: "Trained", x: "Tensor", path: Path, tick: Tick) -> Path:
    """The run's log-density over the frame of the data x, beside the truth."""
    import torch

    from ..codecs import volume
    from ..exact.likelihood import log_density
    from ..kinds.points.data import limits, point_set
    from ..plots.density import density_map, lattice
    from ..plots.study import key_of
    from ..plots.style import colour, save

    known = point_set(cast(Any, trained.recipe))
    frame = limits(cast(Any, trained.recipe), x)
    parts = []
    for own in lattice(frame, MAP).float().split(CHUNK):
        z, found = trained.to_network(own), []
        for _, label in _together(trained):
            found.append(log_density(trained.denoiser, z, steps=MAP_STEPS, **_labelled(label, len(own))).double())
            tick(len(own) * MAP_STEPS)
        parts.append((torch.stack(found) + _log_shares(trained)).logsumexp(0) - volume(trained.codec, trained.shape))
    figure = density_map(
        torch.cat(parts).reshape(MAP, MAP).numpy(),
        frame,
        log_density=None if known is None else known.log_density,
        colour=colour(key_of(trained.recipe)),
    )
    return save(figure, path)
