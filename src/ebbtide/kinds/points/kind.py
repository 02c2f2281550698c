"""Points: the rows of a table, drawn from a known distribution or read from a file."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core.randomness import generator, key
from ...data import DATASETS, Points, PointSet, Standardise, load, save, within_float32
from ...data.split import held_out
from ...errors import InputError
from ...memory import room
from ...recipes import PointRecipe
from ...samplers import slope
from ...training.trainer import TensorData
from .. import Prepared, class_names, evolution, frequencies
from ..compare import Method, Plan

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...plots.report import Picture
    from ...training.trained import Trained
    from ..compare import Comparison

UNIT, UNITS = "pt", "rows"
N = N_EVALUATE = 10_000  # samples that `ebbtide sample` and `evaluate` draw
FILE, EXTENSIONS = "samples.npy", (".npy", ".npz", ".csv", ".tsv")  # where to, by default, and in which formats
EACH, MORE = 300, 27  # bytes a sample may take, and how many times that to measure it
NOTHING_HELD = "Nothing was held out, so truth is the rows that were trained on, and copies of them look right."
FEWEST_ROWS = 100  # of a table of which some are held out
WALK_POINTS = 1500
FIELD_TIMES = (0.9, 0.7, 0.5, 0.3, 0.1)
# Every row is drawn from the same noise. The grid is quadratic wherever a solver may choose, for both methods alike:
# it follows σ, which is small near the data; DDPM's own 1000 steps are those of its table.
PLAN = Plan(
    recipes={"diffusion": "ddpm", "flow": "flow"},
    own=("path", "target", "sampler", "grid", "sample_steps"),
    samplings={
        "diffusion": [
            ("DDPM, 1000 steps", "ddpm:variance=beta", "trailing", 1000),
            ("DDIM, 50 steps", "ddim", "quadratic", 50),
            ("Euler, 100 steps", "euler", "quadratic", 100),
            ("Heun, 50 steps", "heun", "quadratic", 50),
            ("Heun, 10 steps", "heun", "quadratic", 10),
        ],
        "flow": [
            ("Euler, 100 steps", "euler", "quadratic", 100),
            ("Heun, 50 steps", "heun", "quadratic", 50),
            ("Heun, 10 steps", "heun", "quadratic", 10),
        ],
    },
    curve={
        "Euler": ("euler", "quadratic", (5, 10, 20, 50, 100)),
        "Heun": ("heun", "quadratic", (3, 5, 10, 25, 50)),
    },
    curve_metrics=("within-mode sliced W2", "energy distance"),
    curve_n=2000,
    summary=(
        "within-mode sliced W2", "outliers beyond 4 σ", "mean log-density", "MMD²", "energy distance", "sliced W2",
    ),
    fewest=20,  # two halves of fewer say nothing of each other
)  # fmt: skip
BLOCK = 4096  # starting points drawn together from a second sample set
SNAPSHOT: dict[str, Any] = {"n": 1000, "sampler": "heun", "grid": "quadratic", "steps": 12}


def fits(recipe: PointRecipe) -> None:
    """Refuse more points than there is memory for."""
    if recipe.data in DATASETS or recipe.source in DATASETS:
        room(200 * recipe.points, f"points {recipe.points}")


def prepare(recipe: PointRecipe) -> Prepared:
    """The points of a recipe to train on, and of its second set, in the network's units."""
    points, _ = parts(recipe)
    if recipe.conditional and points.labels is None:
        raise InputError(f"{recipe.data} has no labels, which a conditional network needs; name their column.")
    fitted = Standardise.fit(points.x)
    transform = fitted if recipe.standardise else fitted.of_constants()
    within_float32(transform, recipe.data, points.columns)
    ends = [points.x] if recipe.source == "noise" else [points.x, _source(recipe, points)]
    x, *x1 = map(transform.apply, ends)
    data = TensorData(x, points.labels if recipe.conditional else None, x1[0] if x1 else None)
    classes = class_names(points.classes, points.labels)
    shares: tuple[float, ...] = ()
    if data.labels is not None:  # the classes of a named set are equally likely, however many of each were drawn
        count = len(classes)
        shares = (1 / count,) * count if point_set(recipe) else frequencies(data.labels, count)
    return Prepared(data, tuple(x.shape[1:]), transform, points.columns, classes, frequencies=shares)


def parts(recipe: PointRecipe) -> tuple[Points, Points]:
    """The points to train on, and those held out: a file's own parts, or drawn; of an endless set or few rows none."""
    points = load(recipe.data, recipe.points, recipe.seed, recipe.label or None)
    n = len(points.x)
    share = 0.0 if point_set(recipe) or n < FEWEST_ROWS else recipe.held_out
    held = held_out(n, share, points.labels, keep_classes=True)  # the seed is not asked, as for pictures
    if points.test:
        held = torch.arange(n) >= n - points.test
    return _part(points, ~held), _part(points, held)


def _part(points: Points, rows: Tensor) -> Points:
    labels = None if points.labels is None else points.labels[rows]
    return replace(points, x=points.x[rows], labels=labels, test=0)


def _source(recipe: PointRecipe, points: Points) -> Tensor:
    x1 = load(recipe.source, recipe.points, recipe.seed + 1).x
    if x1.shape[1:] != points.x.shape[1:]:
        raise InputError(
            f"source {recipe.source} has {x1.shape[1]} columns, but {recipe.data} has {points.x.shape[1]}."
        )
    return x1


def start(recipe: PointRecipe, n: int, seed: int, first: int) -> Tensor | None:
    """Points first, first + 1, … of the second sample set, the same whatever n; None where sampling starts from noise.

    Of a named set fresh points in blocks, each with its own seed; of a file its rows, shuffled by the seed.
    """
    if recipe.source == "noise":
        return None
    if recipe.source in DATASETS:
        blocks = range(first // BLOCK, (first + n - 1) // BLOCK + 1)
        parts = [load(recipe.source, BLOCK, key(seed, "source", block) >> 1).x for block in blocks]
        return torch.cat(parts)[first % BLOCK :][:n]
    rows = load(recipe.source, recipe.points, seed).x
    order = torch.randperm(len(rows), generator=generator(seed, "source"))
    return rows[order[torch.arange(first, first + n) % len(rows)]]


def all_classes(trained: "Trained", n: int) -> Int[Tensor, " n"] | None:
    """Labels of n samples of every class, as often as in the data: samples are drawn beside it."""
    return trained.in_proportion(n)


def snapshot_files(x: Tensor, path: Path) -> dict[Path, bytes]:
    """Samples in data units as .npy."""
    file = io.BytesIO()
    np.save(file, x.numpy())
    return {path: file.getvalue()}


def finish(folder: Path) -> Iterator[Path]:
    """What is drawn when training has ended: nothing."""
    yield from ()


def describe(recipe: PointRecipe) -> str:
    """One line on the data a recipe names."""
    return DATASETS[recipe.data].about if recipe.data in DATASETS else f"the file {recipe.shared().data}"


def point_set(recipe: PointRecipe) -> PointSet | None:
    """The named distribution a recipe learns; None for a file."""
    return DATASETS.get(recipe.data)


def real_points(recipe: PointRecipe, n: int, seed: int) -> Points:
    """n real points, fresh where the distribution is known, else (at most n) rows of the file in random order."""
    known = point_set(recipe)
    if known is not None:
        x, labels = known.sample(n, generator("real", seed))
        return Points(x, labels, classes=known.classes)
    _at_hand(recipe)
    points = load(recipe.data, n, seed, recipe.label or None)
    return _part(points, torch.randperm(len(points.x), generator=generator("real", seed))[:n])


def _at_hand(recipe: PointRecipe) -> None:
    if not os.path.exists(recipe.data):  # a name that no file can have is no error there
        raise InputError(f"The run's data, {recipe.data}, is not here, so there is nothing to compare with.")


def unseen(recipe: PointRecipe, n: int, seed: int) -> Points:
    """At most n real points never trained on; warns where a file has none, and gives points that were."""
    if point_set(recipe) is not None:
        return real_points(recipe, n, seed)
    _at_hand(recipe)
    train, held = parts(recipe)
    if not len(held.x):
        warnings.warn(f"{Path(recipe.data).name}: {NOTHING_HELD}", stacklevel=2)
    points = held if len(held.x) else train
    return _part(points, torch.randperm(len(points.x), generator=generator("real", seed))[:n])


def evaluate(
    recipe: PointRecipe,
    samples: Float[Tensor, " n d"],
    labels: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    floors: dict[tuple[str, int], list[float]] | None = None,
    only: Sequence[str] | None = None,
) -> list["Measurement"]:
    """Every metric that applies, beside its floor: against fresh points of a named set, or the held-out rows of a file.

    labels: what the samples were asked for; they are held against real points of these classes.
    floors: one dict for several evaluations against the same data, which then share their floors.
    only: names of the metrics wanted, instead of all.
    """
    from ...metrics import measure

    asked = None if labels is None else labels.unique()

    def alike(points: Points) -> Points:
        """Those of the classes that samples were asked for."""
        if asked is None or points.labels is None:
            return points
        return _part(points, torch.isin(points.labels, asked))

    def plain(points: Points) -> Tensor | tuple[Tensor, Tensor]:
        return points.x if labels is None or points.labels is None else (points.x, points.labels)

    if asked is not None and len(asked) == 1:  # all are of the class that is held against them
        labels = None
    options: dict[str, Any] = {"labels": labels, "seed": seed, "floors": floors, "only": only}
    known = point_set(recipe)
    if known is None:
        _at_hand(recipe)
        train, held = map(alike, parts(recipe))
        if len(held.x) >= 2:
            return measure(samples, plain(held), train=plain(train), **options)
        rows = measure(samples, plain(train), **options)
        return [replace(row, note="\n".join(filter(None, (row.note, NOTHING_HELD)))) for row in rows]
    if asked is not None and len(asked) < len(known.classes):  # the density of some classes is not that of all

        def some(n: int, repeat: int) -> Tensor | tuple[Tensor, Tensor]:
            points = alike(real_points(recipe, 2 * n * len(known.classes) + 100, repeat))
            return plain(_part(points, torch.arange(len(points.x)) < n))

        return measure(samples, some, **options)
    modes = known.modes
    return measure(
        samples,
        lambda n, repeat: plain(real_points(recipe, n, repeat)),
        means=None if modes is None else modes.means,
        std=None if modes is None else modes.std,
        log_density=known.log_density,
        **options,
    )


def write(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Samples as a file that `ebbtide train` reads."""
    names = None if labels is None or path.suffix == ".npy" else [trained.classes[i] for i in labels]
    save(path, x, trained.columns, names)


def draw_samples(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> Path:
    """Samples beside real points."""
    from . import pages as run

    return run.draw_samples(trained, x, labels, path)


def draw_evaluation(trained: "Trained", x: Tensor, folder: Path) -> Iterator[Path]:
    """What `ebbtide evaluate` draws: nothing."""
    yield from ()


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages as run

    return run.draw_run(trained, folder, out)


def pictures(comparison: "Comparison") -> Iterator["Picture"]:
    """The pictures of a comparison's report."""
    from ...plots import report

    return report.pictures(comparison)


def real(recipe: PointRecipe, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """`real_points` and their labels."""
    points = real_points(recipe, n, seed)
    return points.x, points.labels


def kept(x: Tensor) -> np.ndarray:
    """Samples as a comparison keeps them."""
    array: np.ndarray = x.numpy()
    return array


def study(key: str, name: str, trained: "Trained", folder: Path) -> Method:
    """What is drawn of a trained network."""
    recipe = trained.recipe
    from ...training.run import read_metrics

    history = read_metrics(folder)
    walk = list(trained.trajectory(WALK_POINTS, seed=recipe.seed, sampler="heun", grid="uniform", steps=50))
    return Method(
        key,
        name,
        np.array([line["step"] for line in history if line["loss"] is not None]),
        np.array([line["loss"] for line in history if line["loss"] is not None]),
        history[-1]["cpu_seconds"] if history else 0.0,
        evolution(folder, trained.shape),
        np.array([t for t, _ in walk]),
        torch.stack([x for _, x in walk]).numpy(),
        _fields(trained) if trained.shape == (2,) else [],
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
    for time_ in FIELD_TIMES:
        speed = trained.to_data(slope(denoiser, trained.to_network(places), time_)) - zero
        t = torch.tensor([time_], dtype=torch.float64)
        if denoiser.gaussian_end:
            x_t = denoiser.path.interpolate(x0, noise, t)
        else:
            x_t, _ = denoiser.path.between(x0, x1[: len(x0)], t, noise)
        x_t = trained.to_data(x_t)
        fields.append((time_, places.numpy(), speed.numpy(), x_t.numpy()))
    return fields


def limits(recipe: PointRecipe, real: Tensor | np.ndarray) -> np.ndarray:
    """The frame of every picture, (d, 2): the point set's own, or the middle 99.8 % of each column and a margin."""
    known = point_set(recipe)
    if known is not None:
        return np.array([known.limits] * real.shape[1])
    low, high = np.quantile(np.asarray(real), [0.001, 0.999], axis=0)
    margin = np.where(high > low, 0.15 * (high - low), 0.5 * np.maximum(np.abs(low), 1))
    return np.stack([low - margin, high + margin], 1)


def shown(recipe: PointRecipe, n: int) -> dict[str, Any]:
    """What a comparison shows of its data."""
    points = real_points(recipe, n, recipe.seed)
    known = point_set(recipe)
    return {
        "title": f"DDPM and flow matching on {recipe.data.replace('_', ' ') if known else recipe.shared().data}",
        "real": points.x.numpy(),
        "real_labels": None if points.labels is None else points.labels.numpy(),
        "limits": limits(recipe, points.x),
        "classes": points.classes,
        "columns": points.columns,
        "settings": {
            "network": recipe.network,
            "training": f"{recipe.steps} steps of {recipe.batch}, learning rate {recipe.lr:g}, EMA {recipe.ema:g}",
            "data": f"{recipe.data}, {recipe.points} points" if known else _rows(recipe),
            "samples": f"{n} from the same noise for both",
            "seed": str(recipe.seed),
        },
    }


def _rows(recipe: PointRecipe) -> str:
    train, held = parts(recipe)
    return f"{recipe.shared().data}, {len(train.x)} rows, {len(held.x)} more held out"
