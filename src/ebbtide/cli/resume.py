"""ebbtide resume RUN: continue an interrupted run exactly where it was saved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ..errors import InputError
from .arguments import parse
from .train import Running, train


@dataclass(frozen=True)
class Resume:
    """Continue a run; on a CPU the result is the same, bit for bit, as without the interruption.

    It opens the data that the run names: resume only a run that you would train yourself.
    It continues as it began: precision, checkpoints, snapshots and so on are stored with it; options given here
    replace the stored ones.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)


def run(argv: Sequence[str]) -> None:
    """Parse `RUN [OPTIONS]` and continue training."""
    args = parse(Resume, argv, "resume")
    if not (args.run / "checkpoints").is_dir():
        raise InputError(f"{args.run} is not the folder of a run.")
    from ..training.run import recipe_of, stored

    args = parse(Resume, argv, "resume", Resume(args.run, Running(**stored(args.run))))
    train(recipe_of(args.run), args.run, args.running, resume=True)
