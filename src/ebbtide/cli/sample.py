"""ebbtide sample RUN: draw from a trained run, to a file and a figure."""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from ..specs import require, typed, words
from .arguments import (
    MOST,
    Computing,
    Figures,
    Flag,
    Named,
    given,
    hint,
    is_folder,
    number_or_auto,
    opened,
    parse,
    tell,
    within,
    writable,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..kinds import Kind
    from ..training.asked import Choice
    from ..training.trained import Trained

__all__ = ["ITS_OWN", "Drawing", "Sample", "columns_of", "draw", "every_class", "output_file", "run"]

ITS_OWN = -(2**63)  # stands for the number of samples that suits the run's kind of data


@dataclass(frozen=True)
class Drawing(Computing):
    """Sampling options."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"]), hint("10000 points or 64 images")] = ITS_OWN
    """Number of samples."""
    seed: int = 0
    """Seed of the noise; sample i depends on (seed, i) alone, whatever n is."""
    sampler: Annotated[str, hint("the recipe's")] = ""
    """A row of `ebbtide list samplers`, or your own as module:function; with options as in ddim:eta=0.5."""
    grid: Annotated[str, hint("the recipe's")] = ""
    """A row of `ebbtide list grids`; with options as in karras:rho=5, or times such as 1,0.7,0.3,0."""
    steps: Annotated[str, hint("the run's own solver of 20 evaluations, or the recipe's")] = ""
    """Number of sampling steps; auto:N uses the run's own solver of N evaluations, fitted if necessary (auto: the
    latest one)."""
    label: Annotated[str, hint("none")] = ""
    """Draw only this class (name or number) of a conditional run; all draws every class, images in turn, points with
    the data's frequencies."""
    guidance: float = 1.0
    """Classifier-free guidance weight; 1 is off."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance acts."""
    bound: Annotated[float, hint("the recipe's")] = -1.0
    """Clip estimates of the data to ± this; in the network's units, 0 turns it off."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Mixed precision; auto is bf16 for convolutions if a trial on this machine is faster."""

    def __post_init__(self) -> None:
        if self.bound != -1:
            require("--bound", self.bound, 0)
        super().__post_init__()
        within(self, seed=(0, MOST))
        if self.n != ITS_OWN:
            within(self, n=(1, MOST))
        number_or_auto(self.steps)
        require("--guidance", self.guidance)
        low, high = self.interval
        require("--interval's low", low, 0)
        require("--interval's high", high, above=low, high=1)

    @property
    def steered(self) -> dict[str, Any]:
        """Options that change the denoiser."""
        bound = None if self.bound == -1 else self.bound
        return {"guidance": self.guidance, "interval": self.interval, "bound": bound}

    def chosen(self, trained: "Trained", at: float = 1.0) -> "Choice":
        """The sampler, grid and steps to use from a time on; fits a solver first if necessary."""
        from ..samplers import SAMPLERS

        sampler, steps = typed(SAMPLERS, self.sampler) or None, number_or_auto(self.steps)
        return trained.choice(sampler, self.grid or None, steps, at=at, progress=True, **self.steered)


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
    """Table or images that the samples start from, row by row; of a run from noise, noised to the time --at."""
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
        if self.start and (idle := ["--complete"] * bool(self.complete) + ["--n"] * bool(given(self.drawing, "n"))):
            raise InputError(f"--start has its own rows; leave {' and '.join(idle)} out.")
        if self.at != 1 and not self.start:
            raise InputError("--at is the time to which --start is noised; give --start too.")
        require("--at", self.at, above=0, high=1)


def run(argv: Sequence[str]) -> None:
    """Parse, sample, write."""
    args = parse(Sample, argv, "sample")
    from ..files import storage
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
        told["given"] = columns_of(args.given)
    if args.start:
        if own.starts is None:
            raise InputError(f"--start is for points and images; {args.run} has {trained.recipe.kind}.")
        told |= {"start": own.starts(trained, args.start), "at": args.at}
        how = replace(how, n=len(told["start"]))
    with leaving_group():
        x, labels = draw(trained, how, share=True, **told)
    seconds = time.perf_counter() - start
    with storage(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() in own.extensions:
        own.write(trained, x, labels, out)
    tell(f"{len(x)} samples in {seconds:.1f} s: {out}")
    if args.picture or out.suffix.lower() not in own.extensions:
        chosen = how.chosen(trained, args.at)
        by = f"{words(str(chosen.sampler))[0]}, {chosen.steps} step{'s' * (chosen.steps != 1)}"
        with args.figures.saving():
            figure = own.draw_samples(trained, x, labels, out.with_suffix(".png"), by)
        if figure != out:  # of images the figure is the file
            tell("figure:", figure)


def _counted(how: Drawing, count: int, option: str) -> int:
    """The number of images in a file, unless --n is that, or there is one for all."""
    if given(how, "n") and count not in (1, how.n):
        raise InputError(f"--n must be the number of images of {option}, {count}, or be left out; got {how.n}.")
    return how.n if given(how, "n") else count


def columns_of(text: str) -> dict[str, str]:
    """The columns and values in a text such as cut=Ideal,carat=1.0; one with a comma in it stands in quotes."""
    from ..data.forms import named_list

    found = {}
    for part in named_list(text):
        name, _, value = part.partition("=")
        if not (name.strip() and value.strip()) or name.strip() in found:
            raise InputError(f"--given must name columns and their values once, as cut=Ideal,carat=1.0; got {part!r}.")
        found[name.strip()] = value.strip()
    return found


def _complete(trained: "Trained", args: Sample, out: Path) -> str:
    """Write the rows of --complete with what was missing drawn; the message about it."""
    from ..data.text import written_cells, written_lines
    from ..files import storage, writing
    from ..training.completing import merged, repeated, row_numbers

    trained.refuse_given()
    table = written_cells(Path(args.complete))
    carried = ("", *getattr(trained.recipe, "drop", "").split(","), trained.recipe.label)
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


def draw(
    trained: "Trained",
    how: Drawing,
    more: int = 1,
    labels: "Tensor | None" = None,
    share: bool = False,
    **options: Any,
) -> tuple["Tensor", "Tensor | None"]:
    """Samples and the labels they were asked for, with a progress bar; with `more` times their memory to work on.

    labels: one for each sample, instead of what `how` asks for. share: let the processes that torchrun started draw a
    part each; the first returns all samples, and the others end here. options: any others of `Trained.sample`.
    """
    import torch

    from ..codecs import Cells
    from ..core.times import grid_times
    from ..kinds import kind_of
    from ..memory import room
    from ..progress import progress_bar
    from ..samplers import times_from
    from ..training.devices import gathered, process_number, suited

    if how.guidance == 1 and given(how, "interval"):
        raise InputError("--interval says when guidance acts, and --guidance 1 is off.")
    own = kind_of(trained.recipe)
    n = own.n if how.n == ITS_OWN else how.n
    room(n * max(own.each, 16 * math.prod(trained.shape)) * more, f"--n {n}")
    how.place(trained)
    if labels is None:
        labels = _asked(trained, how, n)
    chosen = how.chosen(trained, options.get("at", 1.0))
    device = next(trained.denoiser.parameters()).device.type
    half = torch.autocast(device, torch.bfloat16, enabled=suited(how.precision, trained.denoiser) == "bf16")
    times = times_from(options.get("at", 1.0), grid_times(chosen.grid, chosen.steps, trained.denoiser.path))
    rank, count = process_number() if share else (0, 1)
    part = _part(n, trained.chunk, rank, count)
    mine = part.stop - part.start
    each = (options | {"label": labels}).items()
    rows = {k: rows[part] for k, rows in each if isinstance(rows, torch.Tensor | list) and len(rows) == n}
    rows |= {} if "ids" in rows else {"first": options.get("first", 0) + part.start}
    work, x = (len(times) - 1) * mine, torch.empty(0, *trained.shape)
    with half, progress_bar(work, "sampling", own.unit, unit_scale=True, delay=1, show=not rank) as bar:
        if mine:
            x = trained.sample(
                mine, seed=how.seed, sampler=chosen.sampler, grid=chosen.grid, steps=chosen.steps, bar=bar,
                **{"label": labels} | how.steered | options | rows,
            ).cpu()  # fmt: skip
    if share:
        if not (parts := gathered(x)):
            raise SystemExit(0)
        x = torch.cat(parts)
    gaps = isinstance(trained.codec, Cells)  # a missing cell is NaN there, and what isn't finite is inf
    fine = (x.isfinite() | (x.isnan() if gaps else False)).flatten(1).all(1)
    if len(x) and not bool(fine.any()):
        raise InputError(f"No sample of {chosen.sampler} is finite; try more steps, another grid or another sampler.")
    if not bool(fine.all()):
        print("ebbtide: some samples are not finite; try more steps or another grid.", file=sys.stderr)
    return x, labels


def _part(n: int, chunk: int, rank: int, count: int) -> slice:
    """The samples of a process: whole chunks, so that each sample is computed beside the same others as by one."""
    chunks = math.ceil(n / chunk)
    ends = [min(n, chunk * (chunks * k // count)) for k in (rank, rank + 1)]
    return slice(*ends)


def _asked(trained: "Trained", how: Drawing, n: int) -> "Tensor | None":
    """The requested labels of the samples; None if they are drawn without."""
    from ..core.randomness import Draws
    from ..kinds import kind_of

    if every_class(trained, how):
        if not trained.recipe.learns_labels:
            raise InputError("This run was trained without labels, so it can't draw every class.")
        all_classes = kind_of(trained.recipe).all_classes
        return None if all_classes is None else all_classes(trained, n)
    if how.label:
        return trained.labels(how.label, n)
    if trained.recipe.learns_null:
        return None
    print("ebbtide: Training hid no labels, so each sample's is drawn as often as in the data.", file=sys.stderr)
    return trained.labels(None, n, Draws.first(n, how.seed))


def every_class(trained: "Trained", how: Drawing) -> bool:
    """True if samples of every class are requested; a class may be called all."""
    return how.label == "all" and "all" not in trained.classes


def output_file(args: Sample, own: "Kind[Any]") -> Path:
    """The output file; InputError, before any work is done, if it can't be written."""
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
