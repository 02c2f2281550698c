"""ebbflow evaluate RUN: how good are its samples?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from .arguments import Flag, parse
from .sample import ITS_OWN, Drawing, draw


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's samples against its data: each metric beside its floor (truth against truth) and interval."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    json: Flag = False
    """Print JSON instead of a table."""


def run(argv: Sequence[str]) -> None:
    """Parse, sample, measure; a conditional run is asked for every class in turn."""
    args = parse(Evaluate, argv, "evaluate")
    from dataclasses import replace

    from ..domains import domain
    from ..metrics import table, to_json
    from ..trained import Trained

    trained = Trained.from_pretrained(args.run)
    own = domain(trained.recipe)
    own.real(trained.recipe, 2, args.drawing.seed)  # if there is nothing to compare with, say so at once
    drawing = args.drawing
    if trained.recipe.conditional and not drawing.label:
        drawing = replace(drawing, label="all")
    if drawing.n == ITS_OWN:
        drawing = replace(drawing, n=own.N_EVALUATE)
    x, labels = draw(trained, drawing, more=27)
    print("measuring …", file=sys.stderr)
    rows = own.evaluate(trained.recipe, x, labels, seed=drawing.seed)
    print(to_json(rows) if args.json else table(rows))
    if Path(args.run).is_dir():
        from ..training.checkpoint import write_file

        write_file(Path(args.run) / "evaluation.json", (to_json(rows) + "\n").encode())
        for path in own.draw_evaluation(trained, x, Path(args.run)):
            print(f"picture: {path}", file=sys.stderr)
