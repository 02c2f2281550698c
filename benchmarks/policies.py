"""What a policy reaches for a number of network evaluations a chunk, in its simulator, beside others.

    python -m benchmarks.policies flow=runs/flow diffusion=runs/diffusion --evaluations 1 2 5 10 100 --out benchmarks

Every policy plays the same seeds. Runs of one name, NAME=RUN NAME=RUN, other seeds of training, are counted together.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ebbflow.domains import robots
from ebbflow.metrics import Measurement
from ebbflow.metrics.success import mean_score, success_rate
from ebbflow.plots import style
from ebbflow.plots.robots import score_against_evaluations
from ebbflow.trained import Trained

from .pages import write_section

FIRST = 2_000_000  # seed of the first episode


def measured(runs: Sequence[Trained], evaluations: int, episodes: int, workers: int) -> tuple[Measurement, Measurement]:
    """Success rate and mean score over all these runs' episodes."""
    seeds = range(FIRST, FIRST + episodes)
    tried = [one for run in runs for one in robots.episodes(run, seeds, workers=workers, steps=evaluations)]
    return success_rate([one.success for one in tried]), mean_score([one.score for one in tried])


def report(found: dict[str, dict[int, tuple[Measurement, Measurement]]], episodes: int) -> str:
    """The section of RESULTS.md."""
    lines = [
        "## Policies",
        "",
        f"`python -m benchmarks.policies`: {episodes} episodes of every run, the same seeds for all; 95 % intervals.",
        "",
        "| policy | evaluations a chunk | mean score | success |",
        "|---|--:|--:|--:|",
    ]
    for name, rows in found.items():
        for count, (rate, score) in rows.items():
            lines.append(
                f"| {name} | {count} | {score.value:.3f} ({score.low:.3f}–{score.high:.3f}) | "
                f"{rate.value:.0%} ({rate.low:.0%}–{rate.high:.0%}) |"
            )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and with --out write RESULTS.md, policies.json and policies.png there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="a policy, and the folder of its run")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 5, 10, 100])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md, policies.json and policies.png")
    args = parser.parse_args(argv)
    runs: dict[str, list[Trained]] = {}
    for word in args.runs:
        name, _, folder = word.partition("=")
        runs.setdefault(name, []).append(Trained.from_pretrained(folder))
    found = {
        name: {count: measured(own, count, args.episodes, args.workers) for count in args.evaluations}
        for name, own in runs.items()
    }
    text = report(found, args.episodes)
    print(text)
    if args.out is None:
        return
    write_section(args.out / "RESULTS.md", "policies", text)
    stored = {name: {n: [asdict(row) for row in rows] for n, rows in own.items()} for name, own in found.items()}
    (args.out / "policies.json").write_text(json.dumps(stored, indent=1) + "\n")
    lines = {
        name: [(n, score.value, score.low, score.high) for n, (_, score) in own.items()] for name, own in found.items()
    }
    figure = score_against_evaluations(lines, title="Score against network evaluations a chunk")
    style.save(figure, args.out / "policies.png")


if __name__ == "__main__":
    main()
