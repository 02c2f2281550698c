"""Free memory, the one check that something fits, made before any of it is allocated, and sizes in words."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from .errors import InputError

__all__ = ["COPIES", "SHARE", "TRIFLE", "available", "in_bytes", "room"]

COPIES = 3  # that there are of images for a moment, before they are split into those to train on and others
SHARE = 0.8  # of what is free: needs are estimates, and other programs go on working
TRIFLE = 2**20  # bytes that are always there: asking the system takes longer than drawing a few samples
_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # version 2, and 1


def in_bytes(size: float | int) -> str:
    """Bytes with three digits and a unit, as in 41.5 kB. size: their number."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:  # which rounds to 1000
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def room(need: int, what: str, hint: str = "") -> None:
    """Refuse what needs more bytes than SHARE of those that are free, before it brings the machine down.

    what: named first, such as a file. hint: how to need less.
    """
    if need <= TRIFLE:
        return
    free = available()
    if need > SHARE * free:
        raise InputError(
            f"{what} would take about {need / 2**30:.3g} GiB of memory; {free / 2**30:.3g} GiB are free, of which "
            f"{SHARE:.0%} may be used{hint and f'; {hint}'}."
        )


def available() -> float:
    """Bytes this process may still take: the smallest of the limits of the machine, its containers and the process."""
    left = [float(psutil.virtual_memory().available), *map(_left, _groups())]
    with suppress(ImportError, AttributeError):  # on Windows there is none
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            left.append(most - psutil.Process().memory_info().vms)
    return max(0.0, min(left))


def _groups() -> Iterator[Path]:
    """The folders of the control groups that may limit this process: its own, and those around it."""
    with suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if not kinds or "memory" in kinds.split(","):
                top = _GROUPS / "memory" if kinds else _GROUPS
                own = top / place.strip("/")
                yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _left(group: Path) -> float:
    """Memory that a control group may still take; pages that only cache files are freed when memory runs short."""
    for most, used in _FILES:
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            left = float((group / most).read_text()) - float((group / used).read_text())
            lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            held = {name: float(value) for name, value in lines}
            kinds = ("inactive_file", "active_file")
            return left + sum(held.get(f"total_{kind}", held.get(kind, 0.0)) for kind in kinds)
    return float("inf")
