"""What a policy reaches for a number of network evaluations a chunk, in its simulator, beside others.

    python -m benchmarks.policies flow=runs/flow diffusion=runs/diffusion --evaluations 1 2 5 10 100 --out benchmarks

Every policy takes as many of its sampler's steps as that number allows, and plays the same seeds. Runs of one name,
NAME=RUN NAME=RUN, other seeds of training, are averaged seed by seed before anything is said of their spread: they all
meet the same beginnings, so N seeds are N draws however many runs play them. An interval is hence of these runs, over
where things lie; how other runs would fare it doesn't tell.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm

from ebbtide.core.randomness import Draws
from ebbtide.errors import EbbtideError, InputError
from ebbtide.exact.tune import steps_within
from ebbtide.kinds.robots import driving as robots_driving
from ebbtide.kinds.runs import from_pretrained
from ebbtide.metrics import Measurement
from ebbtide.metrics.success import mean_score, success_rate
from ebbtide.plots import style
from ebbtide.samplers import SAMPLERS
from ebbtide.specs import bind
from ebbtide.training.trained import Trained

from .charts import score_against_evaluations
from .pages import write_section

FIRST = 2_000_000  # seed of the first episode
Found = dict[int, tuple[Measurement, Measurement]]  # success rate and mean score by evaluations a chunk


def plan(run: Trained, budgets: Sequence[int]) -> dict[int, int]:
    """Evaluations a chunk → steps of the run's sampler: for each budget the most steps that it allows."""
    recipe, path = run.recipe, run.denoiser.path
    sampler = bind(SAMPLERS, recipe.sampler, "sampler")
    steps = [steps_within(sampler, path, budget, recipe.grid) for budget in budgets]
    found = {evaluations(run, count): count for count in steps if count}
    if not found:
        raise InputError(f"No step of {recipe.sampler} takes so few evaluations as {', '.join(map(str, budgets))}.")
    return found


def evaluations(run: Trained, steps: int) -> int:
    """How often a chunk asks the network, beside its context: counted on one, not declared. Heun's steps take two."""
    chunks = robots_driving.policy(run, steps=steps).source
    kinds = {"images": torch.uint8, "prompt": torch.int64}
    blank = {name: torch.zeros(1, *shape, dtype=kinds.get(name)) for name, shape in chunks.observation.items()}
    calls: list[None] = []
    hook = run.denoiser.network.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        chunks.sample_chunks(blank, draws=Draws.first(1, 0))
    finally:
        hook.remove()
    return len(calls)


def measured(
    runs: Sequence[Trained], steps: int, episodes: int, workers: int, bar: tqdm
) -> tuple[Measurement, Measurement]:
    """Success rate and mean score of these runs, each seed's being the mean over the runs."""
    seeds, played = range(FIRST, FIRST + episodes), []
    for run in runs:
        played.append(robots_driving.episodes(run, seeds, workers=workers, steps=steps))
        bar.update(episodes)
    tried = list(zip(*played, strict=True))
    successes = [fmean(one.success for one in same) for same in tried]
    return success_rate(successes), mean_score([fmean(one.score for one in same) for same in tried])


def report(found: Mapping[str, Found], runs: Mapping[str, Sequence[Trained]], episodes: int) -> str:
    """The section of RESULTS.md."""
    lines = [
        "## Policies",
        "",
        f"`python -m benchmarks.policies {' '.join(f'{name}=RUN' for name, own in runs.items() for _ in own)}`: "
        f"{episodes} episodes of every run, the same seeds for all. 95 % intervals "
        "are over the seeds, each with the mean of a policy's runs.",
        "",
        "| policy | runs | evaluations a chunk | mean score | success |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, rows in found.items():
        for count, (rate, score) in rows.items():
            lines.append(
                f"| {name} | {len(runs[name])} | {count} | {score.value:.3f} ({score.low:.3f}–{score.high:.3f}) | "
                f"{rate.value:.0%} ({rate.low:.0%}–{rate.high:.0%}) |"
            )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and with --out write RESULTS.md, policies.json and policies.png there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="a policy, and the folder of its run")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 5, 10, 100], help="at most, a chunk")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md, policies.json and policies.png")
    args = parser.parse_args(argv)
    for option, value in (("evaluations", min(args.evaluations)), ("episodes", args.episodes)):
        if value < 1:
            raise InputError(f"--{option} must be at least 1; got {value}.")
    runs: dict[str, list[Trained]] = {}
    for word in args.runs:
        name, _, folder = word.partition("=")
        if not name or not folder:
            raise InputError(f"A policy must be given as NAME=RUN; got {word!r}.")
        runs.setdefault(name, []).append(from_pretrained(folder))
    plans = {name: [plan(run, args.evaluations) for run in own] for name, own in runs.items()}
    for name, own in plans.items():
        if any(other != own[0] for other in own):
            raise InputError(f"The runs of {name!r} are sampled in different ways; give them different names.")
    total = args.episodes * sum(len(own) * len(plans[name][0]) for name, own in runs.items())
    with tqdm(total=total, unit="episode", dynamic_ncols=True) as bar:
        found = {
            name: {
                count: measured(own, steps, args.episodes, args.workers, bar) for count, steps in plans[name][0].items()
            }
            for name, own in runs.items()
        }
    text = report(found, runs, args.episodes)
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
    try:
        main()
    except EbbtideError as error:
        sys.exit(f"benchmarks.policies: {error}")
