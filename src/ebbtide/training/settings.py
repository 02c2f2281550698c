"""Training options of a run beyond its recipe, and a fingerprint of its data: kept beside each checkpoint.

    running.json   {"how": {"precision": "bf16", …}, "data": {"x": …}}

Without it a resumed run could change: to another precision, or to other data under the same name.
"""

import hashlib
import math
import platform
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ..data.prepared import Data
from ..data.shards import OnDisk
from ..errors import InputError

__all__ = ["FILE", "HOW", "MADE", "data_fingerprint", "how", "made_by", "resumed_by", "same"]

FILE = "running.json"
# What may be stored of how a run is trained, each with what it must be.
HOW: dict[str, type] = {
    "on_nonfinite": str, "precision": str, "device": str, "compile": bool, "track": list, "checkpoints": int,
    "keep": int, "snapshots": int, "threads": int, "accumulate": int, "data_on": str, "engine": str,
    "solvers": bool, "evaluations": str,
}  # fmt: skip


# What config.json stores of how a run came about, and of that what leaves the machine: no command, which names files.
MADE = {"command": False, "versions": True, "device": True, "precision": True, "data": False, "resumed": False}


def made_by(command: str, device: torch.device, precision: str, data: Any) -> dict[str, Any]:
    """The origin of a run: the command, "" from Python, versions, device, precision, and the data's fingerprint."""
    versions = {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "numpy", "accelerate")
    }
    return {"command": command, "versions": versions, "device": str(device), "precision": precision, "data": data}


def resumed_by(before: dict[str, Any], now: dict[str, Any], step: int) -> dict[str, Any]:
    """The origin of a run that is resumed at a step: as it began, and what differs of versions, device or command.

    before: the origin stored with the run. now: that of the process which resumes it.
    """
    last = before | (before.get("resumed") or [{}])[-1]
    changed = {name: now[name] for name in ("command", "versions", "device") if now[name] != last.get(name)}
    if changed.keys() <= {"command"}:  # the same machine; a command resumes it again and again
        return before
    return before | {"resumed": [*before.get("resumed", [])[-19:], {"step": step} | changed]}


def data_fingerprint(data: Data) -> dict[str, list[Any]]:
    """Shape and content of each tensor trained on: of integers sha256, of floats sums that another machine can repeat.

    Σ x², and Σ x_i cos(√2 i), which depends on the order; equal to 1e-6, as standardised data is. Of attributes, which
    may be missing, these are of the numbers that are there, beside a sha256 of the places of the others.
    """
    return {
        name: [list(part.shape), *_content(part)]
        for name, part in vars(data).items()
        if isinstance(part, Tensor | OnDisk)
    }


def _content(x: Tensor | OnDisk) -> list[Any]:
    if not x.dtype.is_floating_point:
        if isinstance(x, OnDisk):
            return [x.content()]
        return [hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()]
    sums, gaps, whole, start = torch.zeros(2, dtype=torch.float64), hashlib.sha256(), True, 0
    for part in x.split(max(1, 2**20 // max(1, math.prod(x.shape[1:])))):
        numbers = part.detach().cpu().flatten().double()
        known = numbers.isfinite()
        gaps.update((~known).numpy().tobytes())
        whole, numbers = whole and bool(known.all()), numbers.where(known, 0.0)
        turn = (torch.arange(start, start + len(numbers), dtype=torch.float64) * math.sqrt(2)).cos()
        sums += torch.stack([numbers.square().sum(), (numbers * turn).sum()])
        start += len(numbers)
    return sums.tolist() + [gaps.hexdigest()] * (not whole)


def same(stored: Any, now: Any) -> bool:
    """True if two fingerprints are of the same data: equal up to the order of summation on another machine."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return stored.keys() == now.keys() and all(same(stored[name], now[name]) for name in now)
    if isinstance(stored, list) and isinstance(now, list):
        scale = max([1.0, *(math.sqrt(abs(value)) for value in now if isinstance(value, float))])
        return len(stored) == len(now) and all(
            math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6 * scale)
            if isinstance(a, float) and isinstance(b, float)
            else same(a, b)
            for a, b in zip(stored, now, strict=True)
        )
    return bool(stored == now)


def how(stored: Any, where: str) -> dict[str, Any]:
    """The settings in what running.json holds, as `fit` and the command take them; {} where there are none."""
    found = stored.get("how", {}) if isinstance(stored, dict) else None
    if not isinstance(found, dict) or not all(type(value) is HOW.get(name) for name, value in found.items()):
        raise InputError(f"{where}/{FILE} is damaged: it doesn't hold how a run is trained.")
    return found | ({"track": tuple(found["track"])} if "track" in found else {})
