"""ebbflow show path|data: the forward process, or a data set, in pictures."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import InputError
from ..specs import pick
from .arguments import MOST, hint, parse, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ShowPath:
    """Draw how a path turns data into noise: a point in 1-D and 2-D, moments, schedules, a whole point set."""

    path: str = "ddpm"
    """linear, cosine, ddpm, vp, ve or bridge, with options as in ddpm:steps=250."""
    data: str = "swiss_roll"
    """The point set or file that dissolves."""
    out: Path = Path("runs/show-path")
    """Folder for the pictures."""


@dataclass(frozen=True)
class ShowData:
    """Draw a data set, with its classes and its exact density where one is known."""

    data: tyro.conf.Positional[str]
    """A point set (see `ebbflow list data`) or a .csv, .tsv, .npy or .npz file."""
    label: Annotated[str, hint("none")] = ""
    """Column of the file that holds the labels (name, or number from 1)."""
    n: int = 10_000
    """How many points to draw from a named point set."""
    seed: int = 0
    """Seed of those points."""
    out: Path = Path("runs/show-data")
    """Folder for the picture."""

    def __post_init__(self) -> None:
        within(self, n=(2, 10**7), seed=(0, MOST))


def run(argv: Sequence[str]) -> None:
    """Parse `path [OPTIONS]` or `data NAME [OPTIONS]` and draw."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: ebbflow show path [OPTIONS]\n       ebbflow show data NAME|FILE [OPTIONS]\n")
        print(f"path  {ShowPath.__doc__}\ndata  {ShowData.__doc__}\n")
        print("`ebbflow show path --help` and `ebbflow show data --help` show the options.")
        return
    if pick(("path", "data"), argv[0], "what to show") == "path":
        paths = parse(ShowPath, argv[1:], "show path")
        _write(paths.out, _path_figures(paths))
    else:
        data = parse(ShowData, argv[1:], "show data")
        _write(data.out, _data_figures(data))


def _path_figures(args: ShowPath) -> Iterator[tuple[str, "Figure"]]:
    from ..data import load
    from ..domains.points import limits
    from ..paths import PATHS
    from ..plots import forward
    from ..recipes import PointRecipe
    from ..specs import bind, parse as parse_spec

    path = bind(PATHS, args.path, "path")()
    name, _ = parse_spec(args.path)
    recipe = PointRecipe(data=args.data)
    real = load(args.data, 4000, 0)
    named = {name: path}
    yield "point_1d", forward.point_mass(path, name)
    yield "point_2d", forward.point_mass_plane(path, name)
    yield "moments", forward.moments({name: path} if name in ("linear", "ddpm") else named | {"ddpm": PATHS["ddpm"]()})
    yield "schedules", forward.schedules()
    yield "ddpm_tables", forward.ddpm_tables()
    labels = None if real.labels is None else real.labels[:4000].numpy()
    yield "dissolving", forward.dissolving(named, real.x[:4000].numpy(), limits=limits(recipe, real.x), labels=labels)


def _data_figures(args: ShowData) -> Iterator[tuple[str, "Figure"]]:
    from ..data import DATASETS, load
    from ..domains.points import limits
    from ..plots import points
    from ..recipes import PointRecipe

    data = load(args.data, args.n, args.seed, args.label or None)
    known = DATASETS.get(args.data)
    title = known.about if known else Path(args.data).name
    labels = None if data.labels is None else data.labels.numpy()
    yield Path(args.data).stem, points.data_set(
        data.x.numpy(), limits(PointRecipe(data=args.data), data.x), labels=labels, classes=data.classes,
        log_density=known.log_density if known else None, title=title,
    )  # fmt: skip


def _write(out: Path, figures: Iterator[tuple[str, "Figure"]]) -> None:
    from ..training.checkpoint import storage

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and the pictures need a folder.")
    for name, figure in figures:
        with storage(out):
            out.mkdir(parents=True, exist_ok=True)
            figure.savefig(out / f"{name}.png")
        print(out / f"{name}.png")
    sys.stdout.flush()
