"""ebbflow evaluate RUN: how good are its samples?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .arguments import MOST, Flag, hint, parse, within
from .sample import ITS_OWN, Drawing, draw

if TYPE_CHECKING:
    from ..metrics import Measurement
    from ..trained import Trained


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's samples against its data: each metric beside its floor (truth against truth) and interval."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    episodes: int = 100
    """A policy's: how many episodes to try it out in the simulator; 0 for none."""
    simulator: Annotated[str, hint("the recipe's")] = ""
    """A policy's: where; a row of `ebbflow list simulators`."""
    action_steps: Annotated[int, hint("the recipe's")] = 0
    """A policy's: actions of a chunk that are carried out before the next."""
    blind: Flag = False
    """A policy's: show it black pictures, to see what it sees."""
    workers: Annotated[int, hint("one for each processor")] = 0
    """A policy's: processes that try it out."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        within(self, episodes=(0, MOST), action_steps=(0, MOST), workers=(0, 1024))


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
    if trained.recipe.domain == "robots" and args.episodes:
        rows = _tried(args, trained, drawing) + rows
    print(to_json(rows) if args.json else table(rows))
    if Path(args.run).is_dir():
        from ..training.checkpoint import write_file

        write_file(Path(args.run) / "evaluation.json", (to_json(rows) + "\n").encode())
        for path in own.draw_evaluation(trained, x, Path(args.run)):
            print(f"picture: {path}", file=sys.stderr)


def _tried(args: Evaluate, trained: "Trained", drawing: Drawing) -> "list[Measurement]":
    """A policy in its simulator; every episode is kept in RUN/episodes.jsonl."""
    import json
    import os
    from dataclasses import asdict

    from ..domains import robots
    from ..training.checkpoint import write_file

    first = (drawing.seed + 1) * 1_000_000  # far from those of demonstrations, which a policy has seen
    how: dict[str, Any] = {
        "seed": drawing.seed, "sampler": drawing.sampler, "grid": drawing.grid, "steps": int(drawing.steps or 0),
        "n_action_steps": args.action_steps or None,
    }  # fmt: skip
    seeds = range(first, first + args.episodes)
    workers = args.workers or os.cpu_count() or 1
    tried = robots.episodes(trained, seeds, simulator=args.simulator, blind=args.blind, workers=workers, **how)
    milliseconds = robots.chunk_time(trained, simulator=args.simulator, **how)
    if Path(args.run).is_dir():
        kept = ({name: part for name, part in asdict(one).items() if name != "recording"} for one in tried)
        write_file(Path(args.run) / "episodes.jsonl", "".join(json.dumps(one) + "\n" for one in kept).encode())
    return [*robots.outcome(tried), milliseconds]
