"""ebbflow's samplers beside those of other libraries: error per network evaluation, and overhead per step.

    python -m benchmarks.samplers            the tables of RESULTS.md and docs/pictures/samplers.png
    python -m benchmarks.samplers --quick    the same in short, printed only

The network is an exact denoiser in float64, so the only error is the solver's. Everyone starts from the same noise, and
each end point is held against a fine solution of the ODE from the very point where that solver started. Evaluations are
counted at the network, not taken from a name. Ours is what `ebbflow tune` finds for each count and measure on other
noise than is judged; a peer is granted its best row of each cell, chosen on the noise that is judged.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import math
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ebbflow.denoiser import Denoiser
from ebbflow.errors import EbbflowError, InputError
from ebbflow.paths import DDPM
from ebbflow.randomness import Draws
from ebbflow.samplers import SAMPLERS, trajectory
from ebbflow.times import grid_times
from ebbflow.tune import tune

from .pages import cpu_name, write_section
from .solvers import LIBRARIES, PATHS, PROBLEMS, Exact, Solver, Walk, as_linear, exact, last, ours, scheduler

PEERS = ("diffusers", "flow_matching", "azula", "smalldiffusion", "k-diffusion")
COUNTS = (5, 10, 20, 50, 100)
MEASURES = ("rms", "median")
WEIGHED = 10  # evaluations up to which every weight is fitted
HERE = Path(__file__).parent
OURS, TUNED = "ebbflow", ", tuned"


# --- accuracy


def reference(problem: str, walk: Walk, steps: int = 1000) -> Tensor:
    """Where the ODE takes that start: RK4 on the linear path, into which x/(α + σ) takes every path."""
    size = walk.alpha + walk.sigma
    tau = walk.sigma / size
    times = tau * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps) ** 1.5
    return last(SAMPLERS["rk4"](exact(problem, "linear"), walk.start / size, times, clock="flow"))


class References:
    """One reference for each place that anyone starts from, for one noise."""

    def __init__(self, problem: str, steps: int) -> None:
        self.problem, self.steps, self.known = problem, steps, {}

    def __call__(self, walk: Walk) -> Tensor:
        size = walk.alpha + walk.sigma
        key = (round(walk.sigma / size, 10), round(float(walk.start[0, 0]) / size, 9))
        if key not in self.known:
            self.known[key] = reference(self.problem, walk, self.steps)
        return self.known[key]


@dataclass(frozen=True)
class Errors:
    """Over all starts: the root mean square and the median distance to the truth, per √coordinate."""

    rms: float
    median: float

    @classmethod
    def of(cls, end: Tensor, truth: Tensor) -> "Errors":
        if not bool(end.isfinite().all()):
            return cls(math.inf, math.inf)
        squares = (end - truth).square().mean(1)
        return cls(float(squares.mean().sqrt()), float(squares.sqrt().median()))


def steps_within(solver: Solver, model: Exact, evaluations: int) -> int:
    """The number of steps that, going by 7 and 9 of them, calls the network at most so often."""
    if solver.fixed is not None:
        return solver.fixed
    few, more = cost(solver, model.dim, 7), cost(solver, model.dim, 9)
    rate = (more - few) / 2
    return int((evaluations - few) / rate + 7 + 1e-9)


@cache
def cost(solver: Solver, dim: int, steps: int) -> int:
    """How often so many steps call the network."""
    model = exact(next(name for name in PROBLEMS if PROBLEMS[name]()[0].shape[1] == dim), solver.paths[0])
    solver.run(model, torch.zeros(1, dim, dtype=torch.float64), steps)
    return model.calls


def errors(solver: Solver, model: Exact, noise: Tensor, references: References, evaluations: int) -> Errors | None:
    """One walk of as many steps as fit; None where the solver can't be set to so few evaluations."""
    for steps in range(steps_within(solver, model, evaluations), solver.least - 1, -1):
        model.calls = 0
        try:
            walk = solver.run(model, noise, steps)
        except (ValueError, IndexError, RuntimeError, AssertionError, InputError, ZeroDivisionError):
            continue
        if model.calls <= evaluations:
            return Errors.of(walk.end, references(walk))
    return None


@dataclass
class Panel:
    """One problem on one path: by library and count, the best row for each measure."""

    problem: str
    path: str
    best: dict[str, dict[int, dict[str, tuple[float, str]]]] = field(default_factory=dict)

    def add(self, library: str, count: int, name: str, found: Errors, measures: Sequence[str] = MEASURES) -> None:
        """Keep what is best."""
        kept = self.best.setdefault(library, {}).setdefault(count, {})
        for measure in measures:
            value = getattr(found, measure)
            if measure not in kept or value < kept[measure][0]:
                kept[measure] = (value, name)

    def peer(self, count: int, measure: str, tuned: bool = True) -> tuple[float, str]:
        """The best error of any peer and its row, with or without those whose grid option is no default."""
        rows = [
            (*kept[count][measure],)
            for library, kept in self.best.items()
            if library != OURS and count in kept and (tuned or not library.endswith(TUNED))
        ]
        return min(rows)


def measure_peers(
    panel: Panel, libraries: Sequence[str], counts: Sequence[int], noise: Tensor, refs: References
) -> None:
    """Every row of every peer at every count."""
    model = exact(panel.problem, panel.path)
    for library in libraries:
        rows = [solver for solver in LIBRARIES[library]() if panel.path in solver.paths]
        for solver, count in product(rows, counts):
            if found := errors(solver, model, noise, refs, count):
                panel.add(library + TUNED * solver.tuned, count, f"{library} {solver.name}", found)


# --- our choice


def starts(problem: str, n: int, seed: int) -> Tensor:
    """Standard normal noise."""
    dim = PROBLEMS[problem]()[0].shape[1]
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Choices = dict[str, dict[int, dict[str, tuple[str, str]]]]  # "problem, path" → count → measure → (sampler, times)


def tuned(plan: "Plan", bar: tqdm, keep: Callable[[Choices], None] = lambda choices: None) -> Choices:
    """`ebbflow tune` for each problem, path, count and measure, on noise that nothing is reported on."""
    made: Choices = {}
    for problem, path, count in product(plan.problems, plan.paths, plan.counts):
        model = exact(problem, path)
        start = model.path.prior(starts(problem, plan.tuning, seed=99))
        depth, found = "weights" if count <= WEIGHED else "times", []
        for aim in MEASURES:

            def progress(stage: str, share: float, what: str = f"{problem}, {path}, {count}, {aim}") -> None:
                bar.set_postfix_str(f"{what}: {stage[:60]}", refresh=False)

            found.append(
                tune(model, start, count, aim=aim, depth=depth, reference_steps=plan.reference, progress=progress)
            )
            bar.update()
        for measure in MEASURES:
            best = min(found, key=lambda one: float(getattr(one, measure)))
            row = best.sampler, as_linear(grid_times(best.grid, best.steps, model.path), model.path)
            made.setdefault(f"{problem}, {path}", {}).setdefault(count, {})[measure] = row
        keep(made)
    return made


# --- overhead


class Identity(torch.nn.Module):
    """A network that costs nothing."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


METHODS = {  # ours, and the same in diffusers
    "DDIM": ("ddim", "DDIM", {"clip_sample": False, "timestep_spacing": "trailing"}),
    "DPM++2M": ("dpmpp_2m", "DPMSolverMultistep", {"solver_order": 2, "timestep_spacing": "trailing"}),
    "LMS": ("lms", "LMSDiscrete", {"timestep_spacing": "trailing"}),
}
SHAPES = ((1, 2), (1024, 2), (4, 3, 64, 64))


@dataclass(frozen=True)
class Overhead:
    """Microseconds per step, each the least of several repeats."""

    method: str
    shape: tuple[int, ...]
    ours: float
    diffusers: float


def overhead(method: str, shape: tuple[int, ...], steps: int = 50, repeats: int = 9) -> Overhead:
    """Ours: the whole walk, with its plan and the Denoiser. diffusers: scale_model_input and step alone, in turns."""
    own, kind, options = METHODS[method]
    denoiser, draws = Denoiser(Identity(), DDPM(), "noise"), Draws.first(shape[0], 0)
    network, made, start = Identity(), scheduler(kind, **options), torch.randn(shape)

    def walk() -> float:
        before = time.perf_counter()
        for _ in trajectory(denoiser, shape[1:], draws=draws, steps=steps, sampler=own, grid="trailing", start=start):
            pass
        return time.perf_counter() - before

    @torch.no_grad()
    def theirs() -> float:
        made.set_timesteps(steps)
        x = start
        before = time.perf_counter()
        for t in made.timesteps:
            x = made.step(network(made.scale_model_input(x, t), t), t, x).prev_sample
        return time.perf_counter() - before

    turns = [(walk(), theirs()) for _ in range(repeats)]
    return Overhead(method, shape, *(min(column) / steps * 1e6 for column in zip(*turns, strict=True)))


# --- the whole


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    problems: tuple[str, ...] = ("three Gaussians", "16 dimensions")
    paths: tuple[str, ...] = tuple(PATHS)
    libraries: tuple[str, ...] = PEERS
    counts: tuple[int, ...] = COUNTS
    starts: int = 2048
    tuning: int = 4096  # starts that ours is chosen on
    reference: int = 400  # RK4 steps
    repeats: int = 9


@dataclass
class Results:
    """What `measure` found."""

    plan: Plan
    choices: Choices
    panels: list[Panel]
    overheads: list[Overhead]


def measure(
    plan: Plan, choices: Choices | None = None, keep: Callable[[Choices], None] = lambda choices: None
) -> Results:
    """Choose ours unless told, then walk everyone from the same noise, then time the steps."""
    shapes = list(product(METHODS, SHAPES)) if "diffusers" in plan.libraries else []
    cells = len(plan.problems) * len(plan.paths) * (1 + len(plan.libraries)) + len(shapes)
    tunings = 0 if choices else len(plan.problems) * len(plan.paths) * len(plan.counts) * len(MEASURES)
    with tqdm(total=cells + tunings, dynamic_ncols=True) as bar:
        choices = choices or tuned(plan, bar, keep)
        panels = []
        for problem in plan.problems:
            noise = starts(problem, plan.starts, seed=1)
            for path in plan.paths:
                panel, references = Panel(problem, path), References(problem, plan.reference)
                for count in plan.counts:
                    for measure, (sampler, grid) in choices[f"{problem}, {path}"][count].items():
                        if found := errors(ours(sampler, grid), exact(problem, path), noise, references, count):
                            panel.add(OURS, count, f"{sampler} on {grid}", found, (measure,))
                bar.update()
                for library in plan.libraries:
                    bar.set_postfix_str(f"{problem}, {path}, {library}")
                    measure_peers(panel, [library], plan.counts, noise, references)
                    bar.update()
                panels.append(panel)
        overheads = []
        for method, shape in shapes:
            overheads.append(overhead(method, shape, repeats=plan.repeats))
            bar.update()
    return Results(plan, choices, panels, overheads)


def report(results: Results, command: str) -> str:
    """The section of RESULTS.md."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ebbflow", *results.plan.libraries))
    lines = [
        "# Samplers: error per evaluation, and overhead",
        "",
        f"`{command}` on {datetime.date.today()}: {cpu_name()}, one thread, Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch').partition('+')[0]}; {versions}.",
        "",
        f"Exact denoisers in float64, {results.plan.starts} starts, the same noise for all; each end point against a "
        "fine solution of the ODE from where that solver started. Network evaluations are counted. Ours: what "
        "`ebbflow tune` finds for each problem, path, count and measure on other noise. The peers: for each cell the "
        "best of all their rows, chosen on the noise that is judged; *presets* leaves out flow shifts other than 1 and "
        "3. × is the peer's error over ours, so below 1 the peer is better. README.md says how the stored choices were "
        "found.",
    ]
    for panel in results.panels:
        lines += [
            "",
            f"## {panel.problem}, {panel.path}",
            "",
            "| evaluations | measure | ours | presets | × | best peer | × | which peer |",
            "|--:|---|--:|--:|--:|--:|--:|---|",
        ]
        for count, measure in product(results.plan.counts, ("rms", "median")):
            if count in panel.best.get(OURS, {}):
                own = panel.best[OURS][count][measure][0]
                preset, best = (
                    panel.peer(count, measure, kind) if results.plan.libraries else None for kind in (False, True)
                )
                cells = [f"{p[0]:.1e} | {p[0] / own:.1f}" if p else " | " for p in (preset, best)]
                lines.append(
                    f"| {count} | {measure} | {own:.1e} | {cells[0]} | {cells[1]} | {best[1] if best else ''} |"
                )
    lines += [
        "",
        "## Our choices",
        "",
        "<details><summary>Sampler and times of every cell</summary>",
        "",
        "| problem | evaluations | measure | sampler | times |",
        "|---|--:|---|---|---|",
    ]
    for problem, rows in results.choices.items():
        for count, measure in product(rows, MEASURES):
            sampler, grid = rows[count][measure]
            lines.append(f"| {problem} | {count} | {measure} | `{brief(sampler)}` | `{brief(grid)}` |")
    lines += ["", "</details>"]
    if results.overheads:
        lines += [
            "",
            "## Overhead of a step",
            "",
            "A network that returns its input, 50 steps, best of several repeats in turns. Ours is the whole walk with "
            "its plan and the Denoiser; diffusers' is `scale_model_input` and `step` alone.",
            "",
            "| method | shape | ours, µs | diffusers, µs | ours / diffusers |",
            "|---|---|--:|--:|--:|",
        ]
        for o in results.overheads:
            shape = " × ".join(map(str, o.shape))
            lines.append(f"| {o.method} | {shape} | {o.ours:.1f} | {o.diffusers:.1f} | {o.ours / o.diffusers:.2f} |")
    return "\n".join(lines) + "\n"


def brief(text: str) -> str:
    """A list of numbers' beginning; samplers.json has the rest."""
    return text if len(text) <= 60 else f"{text[:57]}…"


def picture(results: Results, where: Path) -> None:
    """Error over evaluations: a panel for each problem and path."""
    import matplotlib.pyplot as plt

    problems, paths = results.plan.problems, results.plan.paths
    figure, grid = plt.subplots(
        len(paths), len(problems), figsize=(4 * len(problems), 3.4 * len(paths)), sharex=True, squeeze=False
    )
    colors = dict(zip((OURS, *PEERS), ("black", *plt.get_cmap("tab10").colors), strict=False))
    for panel in results.panels:
        axes = grid[paths.index(panel.path)][problems.index(panel.problem)]
        for library, color in colors.items():
            curve: dict[int, float] = {}
            for name in (library, library + TUNED):
                for count, kept in panel.best.get(name, {}).items():
                    curve[count] = min(curve.get(count, math.inf), kept["rms"][0])
            if curve:
                thick = 2.5 if library == OURS else 1.3
                axes.loglog(*zip(*sorted(curve.items()), strict=True), "o-", color=color, lw=thick, ms=4, label=library)
        axes.set_title(f"{panel.problem}, {panel.path}", fontsize=11)
        axes.set_xticks(results.plan.counts, [str(count) for count in results.plan.counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("network evaluations")
    for axes in grid[:, 0]:
        axes.set_ylabel("RMS error")
    known = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        known.values(),
        known.keys(),
        loc="outside lower center",
        ncols=len(known),
        frameon=False,
        columnspacing=1.2,
        handlelength=1.5,
    )
    figure.set_layout_engine("constrained")
    where.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(where, dpi=110)
    plt.close(figure)


def missing(libraries: Sequence[str]) -> list[str]:
    """Peers that are not installed."""
    return [name for name in libraries if importlib.util.find_spec(name.replace("-", "_")) is None]


def stored_choices(where: Path) -> Choices:
    """Our choices of an earlier run, or what there was of them when it was stopped."""
    found = json.loads(where.read_text())["choices"]
    return {
        problem: {
            int(count): {measure: (row[0], row[1]) for measure, row in rows.items()} for count, rows in per.items()
        }
        for problem, per in found.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and (unless --quick) write RESULTS.md, samplers.json and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one problem, three counts, fewer starts; print only")
    parser.add_argument("--choices", type=Path, help="take our choices from this samplers.json instead of searching")
    parser.add_argument("--only", nargs="+", choices=[OURS, *PEERS], help="these libraries only; print only")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md, samplers.json and samplers.png")
    args = parser.parse_args(argv)
    libraries = tuple(name for name in PEERS if not args.only or name in args.only)
    if absent := missing(libraries):
        raise InputError(
            f"Not installed: {', '.join(absent)}. `make bench-samplers` installs them; see benchmarks/README.md."
        )
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    plan = Plan(libraries=libraries)
    if args.quick:
        plan = replace(plan, problems=("four corners",), counts=(5, 10), starts=256, tuning=256)
        plan = replace(plan, reference=200, repeats=3)
    out = args.out or (None if args.quick or args.only else HERE)

    def keep(choices: Choices) -> None:
        if out:
            out.mkdir(parents=True, exist_ok=True)
            (out / "choices.json").write_text(json.dumps({"choices": choices}, indent=1) + "\n")

    results = measure(plan, stored_choices(args.choices) if args.choices else None, keep)
    command = " ".join(["python -m benchmarks.samplers", *(sys.argv[1:] if argv is None else argv)])
    text = report(results, command)
    if out:
        write(results, text, out, (args.out or HERE.parent / "docs/pictures") / "samplers.png")
    print(text)


def write(results: Results, text: str, out: Path, image: Path) -> None:
    """The section of RESULTS.md, samplers.json and the picture."""
    write_section(out / "RESULTS.md", "samplers", text)
    (out / "samplers.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    (out / "choices.json").unlink(missing_ok=True)
    picture(results, image)


if __name__ == "__main__":
    try:
        main()
    except EbbflowError as error:
        sys.exit(f"benchmarks.samplers: {error}")
