"""Data as training takes it: examples by index, in the network's units, and what their set has settled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..codecs import Codec
from . import Observation
from .forms import Form
from .shards import Shards

__all__ = ["Data", "Prepared", "TensorData", "class_names", "frequencies"]


@runtime_checkable
class Data(Protocol):
    """Training data: len(data) examples, taken by index.

    `take` returns the parts of examples: x0, the label if there is one, further inputs of the network by their names,
    and `mask` if not all of x0 is real. x1: the other end's points where that is a sample set, else None.
    """

    @property
    def x1(self) -> Float[Tensor, " m *d"] | None: ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Data": ...

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class TensorData:
    """Data in memory, on the training device, taken by index: a DataLoader would cost 10-20 % of a small step.

    x: or rows that are fetched when they are taken (`place.Fetched`), which batches are then made ahead for.
    x1: the other end's points where that is a sample set; None means N(0, I).
    prepare: what a batch of x still needs, such as pixels to [-1, 1] and mirroring, with the draws to use.
    """

    x: Num[Tensor, " n *d"] | Shards | Any
    labels: Int[Tensor, " n"] | None = None
    x1: Float[Tensor, " m *d"] | None = None
    prepare: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def to(self, device: torch.device) -> "TensorData":
        """The same data on a device."""
        labels, x1 = (part if part is None else part.to(device) for part in (self.labels, self.x1))
        x = self.x if isinstance(self.x, Shards) else self.x.to(device)
        return replace(self, x=x, labels=labels, x1=x1)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def ahead(self) -> bool:
        """True if examples have to be fetched, so that a batch is best made while the one before it is learned."""
        return not isinstance(self.x, Tensor)

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]:
        """The examples at these places, as the network sees them, and their labels."""
        x0 = self.x.index_select(0, indices)
        taken = {"x0": x0 if self.prepare is None else self.prepare(x0, draw)}
        return taken if self.labels is None else taken | {"label": self.labels[indices.to(self.labels.device)]}


class Prepared(NamedTuple):
    """A recipe's data for training, and its description for the trained network."""

    data: Data
    shape: tuple[int, ...]
    """Of an example in the data's units; the codec's `shape` of it is what the network sees."""
    codec: Codec | None
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    observation: Observation | None = None
    frequencies: tuple[float, ...] = ()
    """Frequency of each class, if labels are learned; 0 for one without a training example."""
    settled: Mapping[str, Any] = MappingProxyType({})
    """Fields of the recipe that the data determines, stored with it."""
    form: Form | None = None
    """Of a table: its columns, and how its file is written."""
    judging: Data | None = None
    """Data by whose loss training is to stop; not learned before that."""
    near: Callable[[Any], float] | None = None
    """The distance of a run's samples to the rows of data, in units of real rows'; training stops where it is small."""


def frequencies(labels: Int[Tensor, " n"], classes: int) -> tuple[float, ...]:
    """The share of each class among the labels."""
    return tuple((torch.bincount(labels, minlength=classes).double() / len(labels)).tolist())


def class_names(classes: Sequence[str], labels: Any) -> tuple[str, ...]:
    """The classes' names, which are their numbers where the data has no others."""
    return tuple(classes) or (() if labels is None else tuple(str(i) for i in range(int(labels.max()) + 1)))
