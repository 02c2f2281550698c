"""The place of training data: on the training device, in memory, or on the disk, from which batches are fetched."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int, Num
from torch import Tensor

from ..errors import InputError
from ..memory import SHARE
from ..specs import pick
from .prepared import Data
from .shards import Shards

__all__ = ["PLACES", "Fetched", "said", "settled_on"]

PLACES = ("auto", "device", "host", "disk")
_LARGE = ("x", "images")  # fields of data that may lie elsewhere; "data" holds data
_SAID = 2**28  # bytes from which on it is said where data lie


@dataclass(frozen=True, eq=False)
class Fetched:
    """Rows in memory or on the disk that are copied to a device as they are taken."""

    rows: Num[Tensor, " n *d"] | Shards
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.rows.shape)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "Fetched":
        """The same rows for a device."""
        return replace(self, device=device)

    def index_select(self, dim: int, places: Int[Tensor, " b"]) -> Num[Tensor, " b *d"]:
        """The rows at these places, on the device; the copy to a GPU doesn't wait for it."""
        taken = self.rows.index_select(dim, places.cpu())
        return taken if self.device.type == "cpu" else _sent(taken, self.device)


def _sent(x: Tensor, device: torch.device) -> Tensor:
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def settled_on(data: Data, device: torch.device, on: str = "auto") -> Data:
    """Training data on a device, or fetched from where they are.

    on: "device"; "host", this machine's memory; "disk", for sets that were prepared there; "auto": the device if they
    fit there, else where they are.
    """
    pick(PLACES, on, "data_on")
    if getattr(data, "streamed", False):
        if on != "auto":
            raise InputError(f"data_on is for sets that can be listed, and these data are a stream; got {on!r}.")
        return data.to(device)
    if not hasattr(data, "ahead"):  # a teacher's trajectories, which lie where they fit
        if on in ("host", "disk"):
            raise InputError(f"data_on is for images and rows, and these data can't lie elsewhere; got {on!r}.")
        return data.to(device)
    own = vars(data)
    if isinstance(own.get("data"), Data):  # data with something added to it
        return replace(data, data=settled_on(own["data"], device, on)).to(device)  # type: ignore[type-var]
    parts = {name: own[name] for name in _LARGE if isinstance(own.get(name), Tensor | Shards)}
    here = {name: _rows(part, device, on) for name, part in parts.items()}
    if on == "disk" and not any(isinstance(part, Shards) for part in parts.values()):
        raise InputError("data_on can't be 'disk' (--data-on): these data are in memory; only images are kept there.")
    return (replace(data, **here) if here else data).to(device)  # type: ignore[type-var]


def _rows(x: Tensor | Shards, device: torch.device, on: str) -> Any:
    if isinstance(x, Shards) and on in ("auto", "disk"):
        return Fetched(x, device)
    x = x.tensor() if isinstance(x, Shards) else x
    fits = device.type == "cpu" or on == "device" or (on == "auto" and x.nbytes <= SHARE * _free(device))
    return x if fits else Fetched(x, device)


def _free(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def said(data: Data, on: str) -> str:
    """The place and size of data, in a sentence; "" where that is plain."""
    own = vars(data)
    if isinstance(own.get("data"), Data):
        return said(own["data"], on)
    for x in (own[name] for name in _LARGE if name in own and own[name] is not None):
        rows = x.rows if isinstance(x, Fetched) else x
        place = "on the disk" if isinstance(rows, Shards) else "in memory" if isinstance(x, Fetched) else str(x.device)
        if on != "auto" or isinstance(x, Fetched) or x.nbytes >= _SAID:
            place = place if " " in place else f"on {place}"
            return f"{len(x):,} examples, {rows.nbytes / 1e9:.3g} GB, lie {place}."
    return ""
