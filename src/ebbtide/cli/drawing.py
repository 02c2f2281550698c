"""Sampling options, and samples drawn by them: at once or in pieces, by one process or those of torchrun."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from ..specs import require, typed
from .arguments import ITS_OWN, MOST, Computing, given, hint, number_or_auto, within

if TYPE_CHECKING:
    from torch import Tensor

    from ..training.asked import Choice
    from ..training.trained import Trained

__all__ = ["Drawing", "Pieces", "draw", "every_class", "number"]


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
        """The sampler, grid and steps to use from a time on; fits a solver first if necessary.

        at: this time, in (0, 1].
        """
        from ..samplers import SAMPLERS

        sampler, steps = typed(SAMPLERS, self.sampler) or None, number_or_auto(self.steps)
        return trained.choice(sampler, self.grid or None, steps, at=at, progress=True, **self.steered)


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

    from ..kinds import kind_of
    from ..memory import room
    from ..training.devices import gathered

    own = kind_of(trained.recipe)
    n = number(trained, how)
    room(n * max(own.each, 16 * math.prod(trained.shape)) * more, f"--n {n}")
    drawing = Pieces(trained, how, labels, share, **options)
    pieces = [x for _, x in drawing]
    x = torch.cat(pieces) if pieces else torch.empty(0, *trained.shape)
    if share:
        if not (parts := gathered((x, drawing.fine))):
            raise SystemExit(0)
        x, drawing.fine = torch.cat([x for x, _ in parts]), sum(fine for _, fine in parts)
    drawing.check(len(x))
    return x, drawing.labels


def number(trained: "Trained", how: Drawing) -> int:
    """The number of samples."""
    from ..kinds import kind_of

    return kind_of(trained.recipe).n if how.n == ITS_OWN else how.n


class Pieces:
    """Samples in pieces, each with the number of its first, of which only one is in memory at a time.

    labels, share: as in `draw`; with `share` those of this process. size: bytes of a piece at most, unless a chunk has
    more; 0 for all at once. options: of `Trained.sample`, beside those of `how`. fine: how many of those drawn are
    finite.
    """

    def __init__(
        self, trained: "Trained", how: Drawing, labels: "Tensor | None" = None, share: bool = False, size: int = 0,
        **options: Any,
    ) -> None:  # fmt: skip
        from ..training.devices import process_number

        if how.guidance == 1 and given(how, "interval"):
            raise InputError("--interval says when guidance acts, and --guidance 1 is off.")
        self.trained, self.how, self.options, self.n, self.fine = trained, how, options, number(trained, how), 0
        how.place(trained)
        self.labels = _asked(trained, how, self.n) if labels is None else labels
        self.chosen = how.chosen(trained, options.get("at", 1.0))
        self.rank, self.count = process_number() if share else (0, 1)
        self.part = _part(self.n, trained.chunk, self.rank, self.count)
        chunks = max(1, size // (8 * math.prod(trained.shape) * trained.chunk)) if size else self.n
        self.size = chunks * trained.chunk

    def __iter__(self) -> "Iterator[tuple[int, Tensor]]":
        import torch

        from ..codecs import Cells
        from ..core.times import grid_times
        from ..kinds import kind_of
        from ..progress import progress_bar
        from ..samplers import times_from
        from ..training.devices import suited

        trained, how, chosen = self.trained, self.how, self.chosen
        times = times_from(self.options.get("at", 1.0), grid_times(chosen.grid, chosen.steps, trained.denoiser.path))
        device = next(trained.denoiser.parameters()).device.type
        half = torch.autocast(device, torch.bfloat16, enabled=suited(how.precision, trained.denoiser) == "bf16")
        gaps = isinstance(trained.codec, Cells)  # a missing cell is NaN there, and what isn't finite is inf
        work, unit = (len(times) - 1) * (self.part.stop - self.part.start), kind_of(trained.recipe).unit
        with progress_bar(work, "sampling", unit, unit_scale=True, delay=1, show=not self.rank) as bar:
            for start in range(self.part.start, self.part.stop, self.size):
                piece = slice(start, min(start + self.size, self.part.stop))
                mine = piece.stop - piece.start
                each = (self.options | {"label": self.labels}).items()
                rows = {k: rows[piece] for k, rows in each if _by_sample(rows, self.n)}
                rows |= {} if "ids" in rows else {"first": self.options.get("first", 0) + start}
                with half:
                    x = trained.sample(
                        mine, seed=how.seed, sampler=chosen.sampler, grid=chosen.grid, steps=chosen.steps, bar=bar,
                        **{"label": self.labels} | how.steered | self.options | rows,
                    ).cpu()  # fmt: skip
                self.fine += int((x.isfinite() | (x.isnan() if gaps else False)).flatten(1).all(1).sum())
                yield start, x

    def check(self, n: int) -> None:
        """Refuse n samples of which none is finite, and warn if some aren't."""
        if n and not self.fine:
            raise InputError(
                f"No sample of {self.chosen.sampler} is finite; try more steps, another grid or another sampler."
            )
        if self.fine < n:
            print("ebbtide: some samples are not finite; try more steps or another grid.", file=sys.stderr)


def _by_sample(rows: Any, n: int) -> bool:
    """True for an option with a row for each of n samples."""
    import torch

    return isinstance(rows, torch.Tensor | list) and len(rows) == n


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
