"""The place of training data: on the training device, in memory, or on the disk, from which batches are fetched."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, Num
from torch import Tensor

from ..errors import InputError
from ..memory import SHARE, in_bytes
from ..specs import pick
from .prepared import Data
from .shards import OnDisk

__all__ = ["PLACES", "Fetched", "said", "settled_on"]

PLACES = ("auto", "device", "host", "disk")
_LARGE = ("x", "action", "state", "images")  # fields of data that may lie elsewhere; "data" holds data
_SAID = 2**28  # bytes from which on it is said where data lie


@dataclass(frozen=True, eq=False)
class Fetched:
    """Rows in memory or on the disk that are copied to a device as they are taken."""

    rows: Num[Tensor, " n *d"] | OnDisk
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
    parts = {name: own[name] for name in _LARGE if isinstance(own.get(name), Tensor | OnDisk)}
    if on == "disk" and not any(isinstance(part, OnDisk) for part in parts.values()):
        raise InputError(
            "data_on can't be 'disk' (--data-on): these data are in memory; only images and episodes are kept there."
        )
    if on in ("device", "host"):
        parts = {name: part.tensor() if isinstance(part, OnDisk) else part for name, part in parts.items()}
    need = sum(part.nbytes for part in parts.values() if isinstance(part, Tensor))
    fits = device.type == "cpu" or on == "device" or (on == "auto" and need <= SHARE * _free(device))
    here = {name: x if fits and isinstance(x, Tensor) else Fetched(x, device) for name, x in parts.items()}
    return (replace(data, **here) if here else data).to(device)  # type: ignore[type-var]


def _free(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def said(data: Data, on: str) -> str:
    """The place and size of data, in a sentence; "" where that is plain."""
    own = vars(data)
    if isinstance(own.get("data"), Data):
        return said(own["data"], on)
    parts = [own[name] for name in _LARGE if own.get(name) is not None]
    rows = [x.rows if isinstance(x, Fetched) else x for x in parts]
    fetched, size = any(isinstance(x, Fetched) for x in parts), sum(x.nbytes for x in rows)
    if not parts or (on == "auto" and not fetched and size < _SAID):
        return ""
    disk = any(isinstance(x, OnDisk) for x in rows)
    place = "on the disk" if disk else "in memory" if fetched else f"on {parts[0].device}"
    return f"{len(data):,} examples, {in_bytes(size)}, lie {place}."
