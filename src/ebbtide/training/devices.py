"""Processes, precision and devices of a run, by accelerate."""

import os
import re
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import EbbtideError, InputError
from ..networks.fused import fast_bf16
from ..specs import pick

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

T = TypeVar("T")

__all__ = [
    "REFUSED",
    "Deserted",
    "Gathered",
    "accelerate",
    "agreed",
    "all_there",
    "device_of",
    "gathered",
    "leaving_group",
    "lend",
    "local",
    "meet",
    "place_of",
    "placed",
    "process_number",
    "suited",
    "together",
    "whole",
]

WAIT = timedelta(days=7)  # for processes that draw or measure for longer than others; one that dies is noticed at once


@contextmanager
def leaving_group() -> Iterator[None]:
    """Leave torchrun's process group at the end, whose threads now and then abort a process that ends in it."""
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def device_of(name: str) -> torch.device:
    """The device of a name, as in cuda:1; auto is the first accelerator, or else the CPU.

    InputError for one that this machine doesn't have.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind, count = ("", 0) if found is None else (found.type, torch.accelerator.device_count())
    names = ["auto", "cpu", *[kind] * (found is not None), *(f"{kind}:{k}" for k in range(count))]
    if name not in names:
        raise InputError(f"device must be one of {', '.join(names)} on this machine; got {name!r}.")
    place = torch.device((kind or "cpu") if name == "auto" else name)
    own = os.environ.get("LOCAL_RANK", "")  # of a process that torchrun started
    if own.isdigit() and place.type != "cpu" and place.index is None and int(own) < count:
        return torch.device(place.type, int(own))
    return place


def placed(device: str = "auto") -> "PartialState":
    """The state of this process among those that torchrun started, or alone, on this device."""
    from accelerate import PartialState

    place = device_of(device)
    state = PartialState(cpu=place.type == "cpu")  # unless told, it takes processes on CPUs for single ones
    if state.num_processes == 1:
        state.device = place
    elif ":" in device or place.type != state.device.type:
        raise InputError(
            f"device {device!r} is for one process; each of the {state.num_processes} takes its own: leave it out."
        )
    return state


def agreed(value: Any, device: str = "auto") -> Any:
    """The first process's value, in all of them: what each would find for itself may differ."""
    from accelerate.utils import broadcast_object_list

    placed(device)
    found = [value]
    broadcast_object_list(found)
    return found[0]


class Deserted(EbbtideError):
    """Another process of the run is gone, and this one can't go on without it."""


@contextmanager
def all_there(count: int, computing: bool = False) -> Iterator[None]:
    """Say in one sentence that one of `count` processes is gone, where they exchange something.

    computing: something else may fail here too, whose error is left as it is.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of gloo's and NCCL's, which name sockets
        if computing and not re.search("gloo|nccl|Connection|closed by peer", str(error), re.IGNORECASE):
            raise
        raise Deserted(f"One of the {count} processes is gone: was it killed, or memory short?") from error


def process_number() -> tuple[int, int]:
    """The number of this process among those that torchrun started, and how many these are; (0, 1) for one alone.

    They can gather objects then.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=WAIT)
    return (torch.distributed.get_rank() if count > 1 else 0), count


def meet() -> None:
    """Wait until all processes that torchrun started are here."""
    _, count = process_number()
    if count > 1:
        with all_there(count):
            torch.distributed.barrier()


def gathered(part: Any) -> list[Any]:
    """The parts of all processes in their order, for the first; none for the others, and a process alone has one.

    part: this process's, of any type that can be pickled.
    """
    rank, count = process_number()
    if count == 1:
        return [part]
    parts: list[Any] = [None] * count
    with all_there(count):
        torch.distributed.gather_object(part, parts if rank == 0 else None)
    return parts if rank == 0 else []


def local(part: Tensor) -> Tensor:
    """This process's rows of a tensor that several share, or the tensor, of which it has all."""
    return part.to_local() if hasattr(part, "to_local") else part


def whole(part: Tensor) -> Tensor:
    """The tensor of which several processes have rows each, gathered; all of them have to ask for it."""
    return part.full_tensor() if hasattr(part, "full_tensor") else part


class Gathered(UserDict[str, Tensor]):
    """Tensors by name, each gathered when it is asked for, so that no more than one is whole at a time."""

    def __getitem__(self, name: str) -> Tensor:
        return whole(super().__getitem__(name))


def together(action: Callable[[], T], count: int) -> list[T]:
    """The results of an action of `count` processes, in their order; an error in one of them is raised in all.

    Else the others would wait for the one that failed, where they exchange something next.
    """
    if count == 1:
        return [action()]
    mine: tuple[T | None, EbbtideError | None]
    try:
        mine = action(), None
    except EbbtideError as error:
        mine = None, error
    found: list[Any] = [None] * count
    with all_there(count):
        torch.distributed.all_gather_object(found, mine)
    for _, failed in found:
        if failed is not None:
            raise failed
    return [result for result, _ in found]


def lend(denoiser: nn.Module, device: torch.device) -> None:
    """Let the network of a denoiser compute on a device, for whoever goes on working with it on the CPU.

    Inputs are moved there, and the answer is moved back to where x is.
    """
    network: Any = denoiser.network
    network.to(device)
    if device.type == "cpu" or getattr(network, "lent", False):
        return
    places: list[torch.device] = []

    def enter(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        places.append(inputs[0].device)
        return tuple(_moved(part, device) for part in inputs), {k: _moved(part, device) for k, part in named.items()}

    network.register_forward_pre_hook(enter, with_kwargs=True)
    network.register_forward_hook(lambda _, __, answer: answer.to(places.pop()))
    network.lent = True


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, dict | list | tuple):
        moved = {k: _moved(one, device) for k, one in part.items()} if isinstance(part, dict) else None
        return moved if moved is not None else type(part)(_moved(one, device) for one in part)
    if not isinstance(part, Tensor):
        return part
    return part.float().to(device) if device.type == "mps" and part.dtype == torch.float64 else part.to(device)


def place_of(denoiser: nn.Module) -> torch.device:
    """The device of a denoiser's x: its parameters', or the CPU if its network is lent to another."""
    if getattr(denoiser.network, "lent", False):
        return torch.device("cpu")
    return next(denoiser.parameters()).device


def suited(precision: str, network: nn.Module, device: torch.device | None = None) -> str:
    """The meaning of "auto" for a network: bf16 for convolutions where its device is faster at that, else no.

    precision: returned as it is, unless auto.
    """
    if precision != "auto":
        return precision
    convolves = any(p.ndim == 4 for p in network.parameters())
    return "bf16" if convolves and fast_bf16(device or next(network.parameters()).device) else "no"


# What accelerate's launcher can ask for and we don't do as it means it: the value that leaves it out, and what to do.
REFUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "Give accumulate={0} (--accumulate {0}) instead."),
    "ACCELERATE_USE_FSDP": ("false", "Give engine='fsdp' (--engine fsdp) instead."),
    "ACCELERATE_USE_DEEPSPEED": ("false", "Several processes share a batch without it."),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "Several processes share a batch without it."),
}


def accelerate(
    precision: str = "no", track: tuple[str, ...] = (), folder: Path | None = None, device: str = "auto"
) -> "Accelerator":
    """The Accelerator of a run; under torchrun, the same in each process except for its rank, on a CPU as well.

    precision: no or bf16. folder: of the trackers' files.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.tracking import get_available_trackers

    pick(("no", "bf16"), precision, "precision")
    for name in track:
        if pick(("tensorboard", "wandb", "trackio"), name, "track") not in map(str, get_available_trackers()):
            raise InputError(f"track can't be {name}: it is not installed; try: pip install {name}")
    AcceleratorState._reset_state()  # else the first precision used in this process would hold for all its runs
    for name, (usual, instead) in REFUSED.items():
        if os.environ.get(name, usual) != usual:
            raise InputError(f"{name} must be {usual}; got {os.environ[name]!r}. {instead.format(os.environ[name])}")
    placed(device)
    return Accelerator(
        cpu=device_of(device).type == "cpu", mixed_precision=precision, log_with=list(track) or None, project_dir=folder
    )
