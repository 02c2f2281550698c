"""ebbtide plot RUN: the figures of one run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError
from .arguments import Computing, Figures, Named, hint, opened, parse, tell

__all__ = ["Plot", "run"]


@dataclass(frozen=True)
class Plot:
    """Draw a run: samples, trajectories, intermediate steps, vector field, losses, and two animations."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    names: tyro.conf.OmitArgPrefixes[Named] = field(default_factory=Named)
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("RUN/plots")] = ""
    """Folder for the figures."""
    figures: tyro.conf.OmitArgPrefixes[Figures] = field(default_factory=Figures)


def run(argv: Sequence[str]) -> None:
    """Parse and draw."""
    args = parse(Plot, argv, "plot")
    if not (args.run / "checkpoints").is_dir():
        what = "an export, which has no losses and steps to draw" if (args.run / "config.json").is_file() else "no run"
        raise InputError(f"{args.run} is {what}; plot needs the folder that train wrote.")
    from ..files import no_link
    from ..kinds import kind_of

    trained = opened(args.run, **vars(args.names))
    args.computing.place(trained)
    out = Path(args.out or args.run / "plots")
    if not args.out:
        no_link(out)
    with args.figures.saving():
        for path in kind_of(trained.recipe).draw_run(trained, args.run, out):
            tell(path, file=sys.stdout)
