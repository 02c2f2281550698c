"""Per-kind behaviour: how one kind of data is read, written, drawn, measured and compared."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from ..codecs import Codec
from ..data.prepared import Data, Prepared
from ..plots.study import Comparison, Method
from ..recipes import Recipe
from ..training.trained import Trained

if TYPE_CHECKING:
    from ..metrics import Measurement
    from ..plots.report import Picture

__all__ = ["Judge", "Judgement", "Kind", "MethodRow", "Plan", "Way", "as_npy"]

R = TypeVar("R", bound=Recipe)


class Way(NamedTuple):
    """A way of sampling: its name in the table, and `Trained.sample`'s arguments."""

    label: str
    sampler: str
    grid: str
    steps: int


@dataclass(frozen=True)
class MethodRow:
    """A recipe as a method of a comparison."""

    key: str
    """Its folder in the comparison's, and its colour."""
    name: str
    """Its name in the report."""
    grid: str
    """The grid of its curves."""
    ways: tuple[Way, ...]
    """The ways to sample it."""


@dataclass(frozen=True)
class Plan(Generic[R]):
    """The plan by which `ebbtide compare` compares methods on one kind of data."""

    rows: Mapping[str, MethodRow]
    """By recipe: the ways of sampling it that are chosen by hand; any other recipe samples as it says."""
    own: tuple[str, ...]
    """Fields of the recipe that belong to the method, whatever they are; the others are the same for all."""
    curve: Mapping[str, tuple[str, tuple[int, ...]]]
    """Quality against cost: (sampler, numbers of steps)."""
    curve_n: int
    """Samples for each point of the curve."""
    fewest: int
    """Examples that samples must be held against, at least."""
    floors: bool
    """True if evaluations on the same data share their floors."""
    study: Callable[[str, str, str, Trained, Path], Method]
    """(method's key, its name, its colour, trained network, run folder) → what is drawn of it."""
    shown: Callable[[R, int], dict[str, Any]]
    """(recipe, samples) → the fields of a `Comparison` that describe its data."""
    kept: Callable[[Tensor], np.ndarray]
    """Samples as a comparison keeps them."""
    figures: Callable[[Comparison], Iterator["Picture"]]
    """The figures of the report."""


class Judgement(Protocol):
    """A report on samples: str() is its text."""

    @property
    def rows(self) -> "list[Measurement]":
        """Its measurements."""
        ...

    def draw(self, trained: Trained, folder: Path) -> Iterator[Path]:
        """Its figures and its page, in a folder."""
        ...


class Judge(Protocol):
    """A judge of samples that come in pieces, to several processes if need be; it keeps little of each."""

    def look(self, first: int, x: Tensor) -> None:
        """Judge the samples `first`, first + 1, …"""
        ...

    def seen(self, rank: int = 0, count: int = 1) -> Any:
        """All that one process, `rank` of `count`, keeps of them for the report."""
        ...

    def judged(self, every: Sequence[Any]) -> "tuple[list[Measurement], Any]":
        """The metrics of what all processes saw, in their order, and what `draw_evaluation` shows."""
        ...


@dataclass(frozen=True)
class Kind(Generic[R]):
    """One kind of data: a row of KINDS. A part that is None does not exist for this kind."""

    recipe: type[R]
    """The recipes for it; `recipe.kind` is the row's name."""
    unit: str
    """One sample, on a progress bar."""
    units: str
    """Several examples of the data, in messages."""
    n: int
    """Default number of samples of `ebbtide sample`."""
    n_evaluate: int
    """Default number of samples of `ebbtide evaluate`."""
    file: str
    """Name of the file that samples are written to."""
    extensions: tuple[str, ...]
    """Formats of such files that `ebbtide train` reads, by their ending."""
    each: int
    """Bytes that a sample may take in memory,"""
    more: int
    """and how many times that while it is measured."""
    snapshot: Mapping[str, Any]
    """Options of the samples that show a run's progress; arguments of `Trained.sample`."""

    fits: Callable[[R], None]
    """InputError for a recipe that can be refused before its data is read."""
    prepare: Callable[..., Prepared]
    """(recipe, codec) → the data to train on; codec: one that was fitted before, for kinds that keep it."""
    describe: Callable[[R], str]
    """One line on the data."""
    real: Callable[[R, int, int], tuple[Tensor, Tensor | None]]
    """(recipe, n, seed) → real examples and their labels, in data units."""
    evaluate: Callable[..., "list[Measurement]"]
    """(recipe, samples, labels, seed, floors, curve, own) → metrics, each beside its floor."""
    write: Callable[[Trained, Tensor, Tensor | None, Path], None]
    """(trained, samples, labels, file): samples as a file."""
    snapshot_files: Callable[[Tensor, Path], dict[Path, bytes]]
    """(samples, file) → the contents of the files that keep a snapshot."""
    draw_samples: Callable[[Trained, Tensor, Tensor | None, Path, str], Path]
    """(trained, samples, labels, file, how they were drawn): samples as a figure."""
    draw_run: Callable[[Trained, Path, Path], Iterator[Path]]
    """(trained, run folder, folder): all that `ebbtide plot` draws."""

    kept: Callable[[Tensor], np.ndarray] = Tensor.numpy
    """Samples as they are stored."""
    write_in_pieces: Callable[[Trained, Iterable[np.ndarray], int, Tensor | None, Path], None] | None = None
    """(trained, pieces of samples as `kept` made them, their number, labels, file): samples as a file, of which a piece
    is in memory at a time; None: `write` has all."""
    given: Callable[..., tuple[R, Prepared]] | None = None
    """(recipe, X, y) → the recipe for data in memory, and that data to train on."""
    start: Callable[[R, int, int, int], Tensor | None] | None = None
    """(recipe, n, seed, first) → x₁ from a second sample set; None where sampling starts from noise."""
    starts: Callable[[Trained, str], Tensor] | None = None
    """(trained, file) → its examples as starting points of samples, in data units."""
    given_of: Callable[[Trained, str], tuple[Any, int | None]] | None = None
    """(trained, text of --given) → what samples are given, and their number; None for one for all."""
    told: Callable[[R, Codec | None], Data] | None = None
    """(a student's recipe, its teacher's codec) → what its trajectories are drawn given, an example each."""
    recorded: Callable[[Trained, int, int, int], Mapping[str, Tensor]] | None = None
    """(trained, n, seed, first) → observations that a policy was never trained on."""
    all_classes: Callable[[Trained, int], Tensor | None] | None = None
    """(trained, n) → labels of n samples of every class."""
    finish: "Callable[[Path, Trained], Iterator[Path]] | None" = None
    """(run folder): what is drawn when training has ended."""
    judge: Callable[..., Judge] | None = None
    """(recipe, n, labels, seed, own) → the judge of n samples that come in pieces; None: `evaluate` has all."""
    judged: Callable[..., Judgement | None] | None = None
    """(trained, samples, labels, target, seed) → the report on samples of a table; None for data that isn't one."""
    draw_evaluation: Callable[[Trained, Any, Path], Iterator[Path]] | None = None
    """(trained, samples or what their judge shows of them, folder): what `ebbtide evaluate` draws."""
    lost: "Callable[[Trained, int], list[Measurement]] | None" = None
    """(trained, seed) → what decoding costs before anything is sampled; for a codec with weights or an autoencoder."""
    plan: Plan[R] | None = None
    """The plan of a comparison of methods."""


def as_npy(x: Tensor, path: Path) -> dict[Path, bytes]:
    """A snapshot's samples, in data units, as .npy."""
    file = io.BytesIO()
    np.save(file, x.numpy())
    return {path: file.getvalue()}
