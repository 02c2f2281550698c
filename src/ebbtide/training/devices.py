"""Processes, precision and devices of a run, by accelerate."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import InputError
from ..networks.fused import fast_bf16
from ..specs import pick

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["REFUSED", "accelerate", "leaving_group", "suited"]


@contextmanager
def leaving_group() -> Iterator[None]:
    """Leave torchrun's process group at the end, whose threads now and then abort a process that ends in it."""
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def suited(precision: str, network: nn.Module) -> str:
    """The meaning of "auto" for a network on this machine: bf16 for convolutions where that is faster, else no."""
    if precision != "auto":
        return precision
    convolves = any(p.ndim == 4 for p in network.parameters())
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "bf16" if convolves and fast_bf16(device or torch.device("cpu")) else "no"


# What accelerate's launcher can ask for and we don't do as it means it: the value that leaves it out, and what to do.
REFUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "Give accumulate={0} (--accumulate {0}) instead."),
    "ACCELERATE_USE_DEEPSPEED": ("false", "Several processes share a batch without it."),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "Several processes share a batch without it."),
}


def accelerate(precision: str = "no", track: tuple[str, ...] = (), folder: Path | None = None) -> "Accelerator":
    """The Accelerator of a run; under torchrun, the same in each process except for its rank, on a CPU as well."""
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
    cpu = not torch.accelerator.is_available()  # unless told, accelerate takes processes on CPUs for single ones
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=list(track) or None, project_dir=folder)
