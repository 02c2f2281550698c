"""ebbtide demos TASK: scripted demonstrations in a simulator, for policies to learn from."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError
from ..signals import Interrupted
from ..specs import pick, require
from .arguments import MOST, Flag, hint, parse, tell, within

__all__ = ["Demos", "run"]


@dataclass(frozen=True)
class Demos:
    """Run a script that solves a task, with objects in random positions, and record observations and actions."""

    task: tyro.conf.Positional[str]
    """Task to demonstrate; a row of `ebbtide list demonstrations`, such as aloha-transfer."""
    episodes: int = 50
    """Number of demonstrations; failed attempts are not kept."""
    out: Annotated[str, hint("TASK.npz")] = ""
    """The .npz file to write: state, action, episode_ends, fps, tasks, state_names, action_names."""
    seed: int = 0
    """Seed of the objects' positions."""
    noise: float = 0.0
    """Perturbation of the executed joint angles, in radians (standard deviation); the script's actions are recorded."""
    workers: int = 1
    """Processes that share the work; the result is the same for any number."""
    overwrite: Flag = False
    """Replace the file if it exists."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """No progress bar."""

    def __post_init__(self) -> None:
        require("--noise", self.noise, 0, 1)
        within(self, episodes=(1, 10**6), seed=(0, MOST), workers=(1, 1024))


def run(argv: Sequence[str]) -> None:
    """Parse, demonstrate, write."""
    args = parse(Demos, argv, "demos")
    from ..robots.demonstrations import SCRIPTS, collect

    pick(SCRIPTS, args.task, "TASK")
    out = Path(args.out or f"{args.task}.npz")
    if out.suffix != ".npz":
        raise InputError(f"--out must be a .npz file; got {args.out!r}.")
    if out.is_dir() or (out.exists() and not args.overwrite):
        raise InputError(f"{out} is a folder." if out.is_dir() else f"{out} exists; --overwrite replaces it.")
    import io

    import numpy as np

    from ..files import storage, write_file

    with storage(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    try:
        arrays, tried = collect(
            args.task, args.episodes, seed=args.seed, workers=args.workers, noise=args.noise, progress=not args.quiet
        )
    except KeyboardInterrupt as stopped:
        raise Interrupted.by(stopped, "; nothing is written.") from None
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_file(out, buffer.getvalue())
    rate = f"{args.episodes} of {tried} attempts succeeded ({args.episodes / tried:.0%})"
    tell(f"{rate}: {len(arrays['state']):,} steps in {out}", file=sys.stdout)
    sys.stdout.flush()
