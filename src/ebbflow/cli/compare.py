"""ebbflow compare: diffusion and flow matching side by side."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..recipes import Recipe
from .arguments import MOST, Flag, hint, parse, within


@dataclass(frozen=True)
class Subject:
    """What both methods share; the rest of each recipe (path, target, sampler) is its own."""

    data: str = Recipe.data
    """The data: a point set (see `ebbflow list`) or a .csv, .tsv, .npy or .npz file."""
    label: Annotated[str, hint("none")] = Recipe.label
    """Column of the file that holds the labels (name, or number from 1)."""
    points: int = Recipe.points
    """How many points to draw from a named point set, once, as training data."""
    network: str = Recipe.network
    """The network and its size, as in mlp:width=64,depth=6."""
    steps: int = 1800
    """Optimiser steps; fewer than for `train`, so that both methods and the report fit into a minute."""
    batch: int = Recipe.batch
    """Examples a step."""
    lr: float = Recipe.lr
    """Peak learning rate."""
    ema: float = Recipe.ema
    """Decay of the average of the weights that sampling uses."""
    seed: int = Recipe.seed
    """Seed of everything random."""


@dataclass(frozen=True)
class Compare:
    """Train DDPM and flow matching with the same network, data and steps; sample, measure, draw, report."""

    subject: tyro.conf.OmitArgPrefixes[Subject] = field(default_factory=Subject)
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("runs/compare-DATA")] = ""
    """Folder of the comparison."""
    n: int = 4_000
    """Samples to draw for each row of the table."""
    workers: int = 2
    """Processes: 2 trains the two methods at the same time."""
    resume: Flag = False
    """Continue the comparison in that folder."""
    overwrite: Flag = False
    """Replace the comparison in that folder."""
    quiet: Flag = False
    """No progress bars."""

    def __post_init__(self) -> None:
        within(self, n=(100, MOST), workers=(1, MOST))


def run(argv: Sequence[str]) -> None:
    """Parse, compare, write the report."""
    start = time.perf_counter()
    args = parse(Compare, argv, "compare")
    recipe = replace(Recipe(), **vars(args.subject))
    out = Path(args.out or f"runs/compare-{Path(recipe.data).stem}")
    from ..compare import compare, save_metrics, summary
    from ..plots.report import write_report

    command = shlex.join(["ebbflow", "compare", *(a for a in argv if a not in ("--resume", "--overwrite"))])
    comparison = compare(
        recipe, out, n=args.n, workers=args.workers, resume=args.resume, overwrite=args.overwrite,
        progress=not args.quiet, command=command,
    )  # fmt: skip
    print(summary(comparison))
    save_metrics(comparison, out)
    if not args.quiet:
        print("drawing …", file=sys.stderr)
    report = write_report(comparison, out)
    print(f"\nreport: {report}  ({time.perf_counter() - start:.0f} s in all)")
