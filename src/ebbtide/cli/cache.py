"""ebbtide cache list|prune: what was decoded, encoded or drawn once, and is kept."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import tyro
from filelock import FileLock, Timeout

from ..cache import cache_folder, kept_here
from ..errors import InputError, StorageError
from ..files import LOCK, remove
from ..memory import in_bytes
from .arguments import parse, tell, within

__all__ = ["Cache", "run"]


@dataclass(frozen=True)
class Cache:
    """List the contents of the cache, or remove some; all of it can be made again."""

    action: tyro.conf.Positional[Literal["list", "prune"]]
    """To list or to remove; prune removes all unless entries are named."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Entries, by name or its beginning; such as pictures, episodes or latents."""
    days: int = 0
    """Only what wasn't used for this number of days; 0 for all."""

    def __post_init__(self) -> None:
        within(self, days=(0, 36500))


def run(argv: Sequence[str]) -> None:
    """Parse, then list or remove."""
    args, held = parse(Cache, argv, "cache"), kept_here()
    for name in args.names:
        if not any(entry.name.startswith(name) for entry in held):
            raise InputError(f"The cache, {cache_folder()}, holds nothing called {name!r}; see ebbtide cache list.")
    chosen = [
        entry
        for entry in held
        if entry.age >= 86400 * args.days and (not args.names or entry.name.startswith(args.names))
    ]
    if args.action == "prune":
        chosen = [entry for entry in chosen if _removed(entry.name)]
    for name, size, age, of in chosen:
        tell(f"{name:50} {in_bytes(size):>10} {age / 86400:5.0f} days  {of}".rstrip(), file=sys.stdout)
    done = "removed from" if args.action == "prune" else "in"
    tell(f"{in_bytes(sum(entry.size for entry in chosen))} {done} {cache_folder()}", file=sys.stdout)


def _removed(name: str) -> bool:
    """Remove an entry, unless another process is making it."""
    path = cache_folder() / name
    try:
        with FileLock(path / LOCK, timeout=0) if path.is_dir() else nullcontext():
            remove(path)
    except Timeout:
        tell(f"{name} is being made by another process, and stays.")
        return False
    if path.exists():
        raise StorageError(f"{path} can't be removed.")
    return True
