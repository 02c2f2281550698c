"""Engines: where the weights of a run are while several processes train it, and what each of them can train."""

import os
from typing import TYPE_CHECKING

from ..errors import InputError
from ..losses import Loss
from ..specs import pick
from .replicated import Replicated
from .sharded import Sharded

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["ENGINES", "Engine", "pick_engine", "sharing"]

Engine = Replicated | Sharded

ENGINES: dict[str, type[Engine]] = {"replicated": Replicated, "fsdp": Sharded}


def sharing(name: str) -> int:
    """The number of processes among which the engine of this name shares out the weights."""
    row = ENGINES.get(name)
    return int(os.environ.get("WORLD_SIZE", "1")) if row is not None and row.sharded else 1


def pick_engine(name: str, loss: Loss, spec: str, accelerator: "Accelerator") -> type[Engine]:
    """The engine of this name; InputError where the run has one process, or a loss that asks for whole networks."""
    pick(ENGINES, name, "engine")
    if ENGINES[name].sharded and accelerator.num_processes == 1:
        raise InputError(
            f"engine {name!r} shares a network among processes, and this is one alone; start several with torchrun "
            "--nproc-per-node 2 -m ebbtide …, or take engine='replicated' (--engine replicated)."
        )
    if ENGINES[name].sharded and (loss.helps or loss.codec or (loss.spans and not loss.teacher)):
        raise InputError(
            f"engine {name!r} can't train loss {spec!r}, which asks more of a network than one pass; take "
            "engine='replicated' (--engine replicated)."
        )
    return ENGINES[name]
