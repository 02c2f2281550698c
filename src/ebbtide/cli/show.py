"""ebbtide show path|data: the forward process, or a data set, as figures."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError
from ..specs import pick, require
from .arguments import MOST, Figures, Flag, given, hint, is_folder, parse, tell, within, writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ShowData", "ShowPath", "run"]


_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class ShowPath:
    """Draw how a path turns data into noise: a point in 1-D and 2-D, moments, schedules, a whole point set."""

    path: str = "ddpm"
    """A row of `ebbtide list paths`; with options as in ddpm:steps=250."""
    data: str = "swiss_roll"
    """The point set, file or images to turn into noise."""
    start: float = 4.0
    """Place of the single point whose densities are drawn."""
    times: str = ""
    """Times at which the data is drawn, separated by commas; by default 0, 0.1, 0.25, 0.5 and 1."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("runs/show-path")] = ""
    """Folder for the figures and the animation."""
    overwrite: Flag = False
    """Replace figures that exist; those in the default folder always are."""
    figures: tyro.conf.OmitArgPrefixes[Figures] = field(default_factory=Figures)

    def __post_init__(self) -> None:
        require("--start", self.start, -1e6, 1e6)


@dataclass(frozen=True)
class ShowData:
    """Draw a data set, with its classes and its exact density where one is known."""

    data: tyro.conf.Positional[str]
    """A point set, a table, or images; see `ebbtide list data`; images are digits, a folder, hf:NAME."""
    label: Annotated[str, hint("none")] = ""
    """Column of the file that holds the labels; its name, or number from 1, for images as in train flow-images."""
    columns: str = ""
    """Columns of a table to show; names separated by commas, by default all."""
    drop: str = ""
    """Columns of a table to leave out; names separated by commas."""
    missing: str = ""
    """Further marks of missing cells; separated by commas."""
    categorical: str = ""
    """Columns of levels that look like numbers; names separated by commas."""
    ordered: str = ""
    """Columns of levels in order; as in cut=Fair<Good<Ideal, separated by commas."""
    codec: Annotated[str, hint("standardise, or mixed")] = ""
    """Form in which a network would see columns; a row of `ebbtide list codecs`."""
    size: int = 0
    """Side to which images are resized and centre-cropped; 0 keeps their size."""
    n: int = 10_000
    """Number of points to draw from a named point set."""
    seed: int = 0
    """Seed of those points."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("runs/show-data")] = ""
    """File, or a folder for one of the usual name; .png, .svg or .pdf."""
    overwrite: Flag = False
    """Replace the figure if it exists; that in the default folder always is."""
    figures: tyro.conf.OmitArgPrefixes[Figures] = field(default_factory=Figures)

    def __post_init__(self) -> None:
        within(self, n=(2, 10**7), seed=(0, MOST), size=(0, 4096))


def run(argv: Sequence[str]) -> None:
    """Parse `path [OPTIONS]` or `data NAME [OPTIONS]` and draw."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: ebbtide show path [OPTIONS]\n       ebbtide show data NAME|FILE [OPTIONS]\n")
        print(f"path  {ShowPath.__doc__}\ndata  {ShowData.__doc__}\n")
        print("`ebbtide show path --help` and `ebbtide show data --help` show the options.")
        return
    if pick(("path", "data"), argv[0], "what to show") == "path":
        paths = parse(ShowPath, argv[1:], "show path")
        if paths.out and not is_folder(paths.out):
            raise InputError(f"--out must be a folder, as show path draws several figures; got {paths.out!r}.")
        _write(paths, Path("runs/show-path"), _path_figures(paths))
        _write_film(paths)
    else:
        data = parse(ShowData, argv[1:], "show data")
        if data.out and not is_folder(data.out) and Path(data.out).suffix.lower() not in _FORMATS:
            raise InputError(
                f"--out must end in {_FORMATS[0]}, {_FORMATS[1]} or {_FORMATS[2]}, or be a folder; got {data.out!r}."
            )
        _write(data, Path("runs/show-data"), _data_figures(data))


def _path_figures(args: ShowPath) -> Iterator[tuple[str, "Figure"]]:
    from ..core.paths import PATHS
    from ..data import load
    from ..kinds.points.data import limits
    from ..plots import forward
    from ..plots.continuum import continuum
    from ..recipes import ImageRecipe, recipe_type
    from ..specs import add_row, bind, parse as parse_spec

    add_row(PATHS, args.path)
    path = bind(PATHS, args.path, "path")()
    name, _ = parse_spec(args.path)
    named = {name: path}
    recipe: Any = recipe_type(args.data)(data=args.data)
    at: dict[str, Any] = {"times": _times(args.times)} if args.times else {}
    if isinstance(recipe, ImageRecipe):
        from ..kinds.images import kind as images
        from ..plots.strips import forward_strip

        both = named if name == "ddpm" else named | {"ddpm": PATHS["ddpm"]()}
        yield "dissolving", forward_strip(both, images.kept(images.real(recipe, 1, 0)[0])[0], **at)
        return
    real = load(args.data, 4000, 0)
    both = named if name in ("linear", "ddpm") else named | {"ddpm": PATHS["ddpm"]()}
    yield "point_1d", forward.point_mass(path, name, start=args.start)
    yield "point_2d", forward.point_mass_plane(path, name, start=(args.start, 0.0))
    yield "continuum", continuum(path, name, start=args.start)
    yield "moments", forward.path_moments(both, start=args.start)
    yield "schedules", forward.schedules()
    yield "ddpm_tables", forward.ddpm_tables()
    labels = None if real.labels is None else real.labels[:4000].numpy()
    yield (
        "dissolving",
        forward.dissolving(named, real.x[:4000].numpy(), limits=limits(recipe, real.x), labels=labels, **at),
    )


def _times(text: str) -> tuple[float, ...]:
    """The times of a text such as 0,0.1,0.5,1, in order."""
    try:
        times = sorted(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--times must be times such as 0,0.1,0.5,1; got {text!r}.") from None
    for t in times:
        require("--times: each", t, 0, 1)
    require("--times: their number", len(times), 1, 12)
    return tuple(times)


def _write_film(args: ShowPath) -> None:
    """The animation of a single point's densities, where points are shown."""
    from ..core.paths import PATHS
    from ..plots.continuum import continuum_film
    from ..recipes import ImageRecipe, recipe_type
    from ..specs import bind, parse as parse_spec

    if recipe_type(args.data) is not ImageRecipe:
        path, name = bind(PATHS, args.path, "path")(), parse_spec(args.path)[0]
        film = Path(args.out or "runs/show-path") / "continuum.gif"
        writable(film, args.overwrite or not args.out)
        tell(continuum_film(film, path, name, start=args.start), file=sys.stdout)


def _data_figures(args: ShowData) -> Iterator[tuple[str, "Figure"]]:
    from ..data import DATASETS
    from ..kinds.points.data import described, fits, limits, read_rows
    from ..plots.dataset import data_set
    from ..recipes import ImageRecipe, PointRecipe, recipe_type

    images, drawn = recipe_type(args.data) is ImageRecipe, args.data in DATASETS
    heeded = {"n": drawn, "size": images, "seed": drawn or images}
    if idle := [option for name, fits in heeded.items() if not fits for option in given(args, name)]:
        raise InputError(
            f"--n is for named point sets, --size for images, and --seed for both; got {idle[0]} for {args.data}."
        )
    if images:
        yield from _images(args)
        return
    named = {name: getattr(args, name) for name in ("label", "columns", "drop", "missing", "categorical", "ordered")}
    recipe = PointRecipe(data=args.data, codec=args.codec, **named)
    fits(recipe)
    data = read_rows(recipe, args.n, args.seed)
    known = DATASETS.get(args.data)
    if args.codec or not data.plain:
        for line in described(recipe, data):
            tell(line, file=sys.stdout)
    title = known.about if known else f"{Path(args.data).name} · {len(data.x):,} rows"
    labels = None if data.labels is None else data.labels.numpy()
    yield Path(args.data).stem, data_set(
        data.x.numpy(), limits(recipe, data.x), labels=labels, classes=data.classes,
        names=data.columns, form=() if data.form is None else data.form.learned,
        log_density=known.log_density if known else None, title=title,
    )  # fmt: skip


def _images(args: ShowData) -> Iterator[tuple[str, "Figure"]]:
    """A few of each class, or of all."""
    import torch

    from ..core.randomness import generator
    from ..data.images import load_images
    from ..plots.images import grid

    data = load_images(args.data, size=args.size, label=args.label)
    order = torch.randperm(len(data.x), generator=generator(args.seed, "show"))
    title = f"{len(data.x):,} images of {' × '.join(map(str, data.x.shape[1:]))}"
    if data.labels is None:
        kept, labels, note = order[:60], None, ""
    else:
        shown = min(len(data.classes), 12)
        note = f"{shown} of {len(data.classes)} classes are shown." if shown < len(data.classes) else ""
        each = [order[data.labels[order] == k][:10] for k in range(shown)]
        kept = torch.cat(each)
        labels = data.labels[kept].numpy()
    yield (
        Path(args.data.removeprefix("hf:")).stem,
        grid(data.x[kept].numpy(), columns=10, labels=labels, classes=data.classes, title=title, note=note),
    )


def _write(args: ShowPath | ShowData, usual: Path, figures: Iterator[tuple[str, "Figure"]]) -> None:
    from ..files import storage
    from ..plots.style import save

    folder, made = Path(args.out or usual), not args.out or is_folder(args.out)
    if made and folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, and the figures need a folder.")
    for name, figure in figures:
        file = folder / f"{name}{args.figures.ending}" if made else folder
        writable(file, args.overwrite or not args.out, made)
        with storage(file.parent), args.figures.saving():
            file.parent.mkdir(parents=True, exist_ok=True)
            tell(save(figure, file), file=sys.stdout)
    sys.stdout.flush()
