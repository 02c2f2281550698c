"""ebbtide sample RUN: draw from a trained run, to a file and a figure."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError, StorageError
from ..memory import in_bytes
from ..specs import named_list, named_values, require, words
from .arguments import Figures, Flag, Named, given, hint, is_folder, opened, parse, tell, within, writable
from .drawing import Drawing, Pieces, draw

if TYPE_CHECKING:
    from ..kinds import Kind
    from ..training.trained import Trained

__all__ = ["SHOWN", "Sample", "columns_of", "output_file", "run"]

SHOWN = 1000  # samples of a figure beside a file that needn't fit into memory
_PIECE = 2**25  # bytes of samples that are in memory together there


@dataclass(frozen=True)
class Sample:
    """Draw samples from a run, an exported folder or a hub repository; write them to a file, and a figure."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    names: tyro.conf.OmitArgPrefixes[Named] = field(default_factory=Named)
    given: Annotated[str, hint("nothing")] = ""
    """Columns that all samples share, as in cut=Ideal,carat=1.0; of a run trained with --any-columns. Attributes of
    images likewise; for super-resolution, images of fewer pixels."""
    complete: Annotated[str, hint("nothing")] = ""
    """Text table whose gaps are drawn, given the rest of their rows; its empty cells and the columns that it lacks,
    of a run trained with --any-columns."""
    draws: int = 1
    """Draws of each row of --complete; a last column draw numbers them."""
    start: Annotated[str, hint("noise, or the run's own second set")] = ""
    """Table or images that the samples start from, row by row; from one row, all --n. Of a run from noise, noised to
    the time --at."""
    at: Annotated[float, hint("1, for a run between two sets")] = 1.0
    """Time to which --start is noised; below 1, for a run from noise; nearer to 0 it is changed less."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("RUN/samples.npy or .png, or completed.csv")] = ""
    """File, or a folder for one of the usual name; .npy, .npz, .csv or .tsv, the figure beside it; for images .png
    (.svg with --svg), or .npz with the figure beside it."""
    overwrite: Flag = False
    """Replace the file and its figure if they exist; those in the run's folder always are."""
    picture: bool = True
    """Draw a figure of the samples; beside real data if the run may open some."""
    figures: tyro.conf.OmitArgPrefixes[Figures] = field(default_factory=Figures)

    def __post_init__(self) -> None:
        within(self, draws=(1, 10**6))
        if self.complete and (self.given or given(self.drawing, "n")):
            raise InputError("--complete has its own rows and columns; leave --given and --n out.")
        if self.complete and (idle := given(self.figures)):
            raise InputError(f"--complete draws no figure; leave {idle[0]} out.")
        if self.draws > 1 and not self.complete:
            raise InputError("--draws belongs to --complete; --n is the number of samples.")
        if self.start and self.complete:
            raise InputError("--complete has its own rows, and --start too; leave one of them out.")
        if self.at != 1 and not self.start:
            raise InputError("--at is the time to which --start is noised; give --start too.")
        require("--at", self.at, above=0, high=1)


def run(argv: Sequence[str]) -> None:
    """Parse, sample, write."""
    args = parse(Sample, argv, "sample")
    from ..kinds import kind_of
    from ..training.devices import leaving_group

    trained = opened(args.run, **vars(args.names))
    own = kind_of(trained.recipe)
    out = output_file(args, own)
    start = time.perf_counter()
    if args.complete:
        with leaving_group():
            done = _complete(trained, args, out)
        tell(f"{done} in {time.perf_counter() - start:.1f} s: {out}")
        return
    how, told = args.drawing, {}
    if args.given and own.given_of is not None and trained.condition_shape:
        told["given"], count = own.given_of(trained, args.given)
        how = how if count is None else replace(how, n=_counted(how, count, "--given"))
    elif args.given:
        told["given"] = columns_of(args.given, trained.columns)
    if args.start:
        if own.starts is None:
            raise InputError(f"--start is for points and images; {args.run} has {trained.recipe.kind}.")
        told |= {"start": own.starts(trained, args.start), "at": args.at}
        how = replace(how, n=_counted(how, len(told["start"]), "--start"))
    with leaving_group():
        n, figure_of = (_in_pieces if own.write_in_pieces else _at_once)(trained, how, out, own, told)
    seconds = time.perf_counter() - start
    tell(f"{n} samples in {seconds:.1f} s: {out}")
    if args.picture or out.suffix.lower() not in own.extensions:
        chosen = how.chosen(trained, args.at)
        by = f"{words(str(chosen.sampler))[0]}, {chosen.steps} step{'s' * (chosen.steps != 1)}"
        x, labels = figure_of
        with args.figures.saving():
            figure = own.draw_samples(trained, x, labels, out.with_suffix(".png"), by)
        if figure != out:  # of images the figure is the file
            tell("figure:", figure, *[f"(the first {len(x):,})"] * (len(x) < n))


def _at_once(trained: "Trained", how: Drawing, out: Path, own: "Kind[Any]", told: dict[str, Any]) -> Any:
    """Draw and write samples; their number, and those of the figure with their labels."""
    from ..files import storage

    x, labels = draw(trained, how, share=True, **told)
    with storage(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() in own.extensions:
        own.write(trained, x, labels, out)
    return len(x), (x, labels)


def _in_pieces(trained: "Trained", how: Drawing, out: Path, own: "Kind[Any]", told: dict[str, Any]) -> Any:
    """The same, of which every process writes its samples to files as they come, and the first one merges these."""
    import numpy as np
    import torch

    from ..files import storage
    from ..memory import room
    from ..training.devices import gathered

    assert own.write_in_pieces is not None
    is_figure = out.suffix.lower() not in own.extensions  # which shows all samples, so they have to be in memory
    drawing = Pieces(trained, how, share=True, size=_PIECE, **told)
    n, labels = drawing.n, drawing.labels
    room(n * (8 * math.prod(trained.shape) if is_figure else 16), f"--n {n}")
    with _beside(out, drawing, n * math.prod(trained.shape)) as folder:
        for first, x in drawing:
            with storage(out):
                np.save(folder / f"{first:020d}.npy", own.kept(x))
        if not (fine := gathered(drawing.fine)):
            raise SystemExit(0)
        drawing.fine = sum(fine)
        drawing.check(n)
        files = sorted(folder.glob("*.npy"))
        if (found := sum(len(np.load(file, mmap_mode="r")) for file in files)) != n:
            raise InputError(f"{out} has {found} of {n} samples; all processes must see its folder, {out.parent}.")
        if not is_figure:
            own.write_in_pieces(trained, map(np.load, files), n, labels, out)
        shown, most = [], n if is_figure else SHOWN
        for file in files:
            shown.append(torch.from_numpy(np.array(np.load(file, mmap_mode="r")[:most])))
            most -= len(shown[-1])
        x = torch.cat(shown).float()
    return n, (x, None if labels is None else labels[: len(x)])


@contextmanager
def _beside(out: Path, drawing: Pieces, size: int) -> Iterator[Path]:
    """A folder beside a file, which all processes see, for what it is made of; gone when the file is there."""
    from ..files import remove, storage
    from ..training.devices import meet

    folder = out.with_name(f".{out.name}.pieces")
    if not drawing.rank:
        with storage(out.parent):
            remove(folder)  # of a process that was killed
            folder.mkdir(parents=True)
            left = disk_usage(folder).free
        if 2 * size > left:
            remove(folder)
            raise StorageError(
                f"--n {drawing.n} takes up to {in_bytes(2 * size)}; {in_bytes(left)} are left in {out.parent}."
            )
    meet()
    try:
        yield folder
    finally:
        if not drawing.rank:
            remove(folder)


def _counted(how: Drawing, count: int, option: str) -> int:
    """The number of rows or images in a file, unless --n is that, or there is one for all."""
    if given(how, "n") and count not in (1, how.n):
        raise InputError(f"--n must be the number that {option} has, {count}, or be left out; got {how.n}.")
    return how.n if given(how, "n") else count


def columns_of(text: str, own: Iterable[str] = ()) -> dict[str, str]:
    """The columns and values in a text such as cut=Ideal,carat=1.0; one with a comma in it stands in quotes.

    own: the run's columns.
    """
    found: dict[str, str] = {}
    for name, value in named_values(text, own):
        if not (name and value) or name in found:
            raise InputError(
                "--given must name columns and their values once, as cut=Ideal,carat=1.0, with a comma in quotes; "
                f"got {f'{name}={value}'.rstrip('=')!r}."
            )
        found[name] = value
    return found


def _complete(trained: "Trained", args: Sample, out: Path) -> str:
    """Write the rows of --complete with what was missing drawn; the message about it."""
    from ..data.text import written_cells, written_lines
    from ..files import storage, writing
    from ..training.completing import merged, repeated, row_numbers

    trained.refuse_given()
    table = written_cells(Path(args.complete))
    carried = ("", *named_list(getattr(trained.recipe, "drop", "")), trained.recipe.label)
    known, labels = trained.known_rows(args.complete, table.columns, carried, table.first)
    if labels is not None and args.drawing.label:
        raise InputError(f"{args.complete} has the labels in its column {trained.label_column!r}; leave --label out.")
    how = replace(args.drawing, n=len(known) * args.draws)
    x, _ = draw(
        trained, how, labels=None if labels is None else trained.labels(repeated(labels, args.draws), how.n),
        given=known.repeat_interleave(args.draws, 0), fill=True, ids=row_numbers(len(known), args.draws), share=True,
    )  # fmt: skip
    columns = trained.learned_columns.items()
    drawn = {name: column.text(x[:, k].cpu().numpy()) for k, (name, column) in enumerate(columns)}
    delimiter = "\t" if out.suffix.lower() == ".tsv" else table.delimiter
    with storage(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    with writing(out) as file:
        for line in written_lines(merged(table.columns, drawn, known, args.draws), delimiter, table.header):
            file.write(line.encode())
    return f"{int(known.isnan().sum()):,} cells of {len(known):,} rows drawn{f' {args.draws} times' * (args.draws > 1)}"


def output_file(args: Sample, own: "Kind[Any]") -> Path:
    """The output file; InputError, before any work is done, if it can't be written.

    args: the command's arguments. own: the kind of data, which decides the file's name and endings.
    """
    home, usual = Path(args.run), Path("completed.csv" if args.complete else own.file)
    usual = usual.with_suffix(args.figures.ending) if usual.suffix == ".png" else usual  # of images the figure is it
    made = bool(args.out) and is_folder(args.out)
    ours = not args.out and home.is_dir()
    path = (Path(args.out) if args.out else home if ours else Path()) / (usual if made or not args.out else "")
    if args.complete and path.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(f"--out must end in .csv or .tsv for --complete; got {args.out!r}.")
    if path.suffix.lower() not in (formats := dict.fromkeys((usual.suffix, *own.extensions))):
        *most, last = formats
        raise InputError(f"--out must end in {', '.join(most)} or {last}, or be a folder; got {args.out!r}.")
    for file in dict.fromkeys((path, *[path.with_suffix(args.figures.ending)] * (args.picture and not args.complete))):
        writable(file, args.overwrite or ours, made)
    return path
