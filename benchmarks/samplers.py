"""ebbtide's samplers beside those of other libraries: error per network evaluation, and overhead per step.

    python -m benchmarks.samplers            the tables of RESULTS.md and docs/figures/samplers.png
    python -m benchmarks.samplers --quick    the same in short, printed only

Everyone starts from the same noise, on which nothing was chosen but where a column says so, and each end point is held
against a fine solution of the ODE from the very point where that solver started. Evaluations are counted at the
network, not taken from a name. Each column is one configuration for both measures but the peers' best row *after the
fact*, which is picked for every cell and measure by the error that is printed.
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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM
from ebbtide.core.randomness import Draws
from ebbtide.errors import EbbtideError, InputError
from ebbtide.exact import plans
from ebbtide.exact.fit import fit_solver
from ebbtide.exact.tune import tune
from ebbtide.exact.tuned import Tuned
from ebbtide.interop.solvers import SolverWalk, last_of, scheduler
from ebbtide.samplers import trajectory, walk as walk_from

from .flows import DEVELOPED, FRESH, NETWORKS, PATHS, PROBLEMS, Exact, Flow, Learned, Modes, exact, learned
from .pages import cpu_name, write_section
from .solvers import DEFAULTS, LIBRARIES, Solver, ours, unfitted

PEERS = ("diffusers", "flow_matching", "azula", "smalldiffusion", "k-diffusion")
COUNTS = (5, 10, 20)
MEASURES = ("rms", "median")
OURS, ALL = "ebbtide", "any peer"
FEW = 20  # rows that walk on a large network, beside the defaults
JOINT = 30  # gradient steps of a fit to an exact denoiser
KINDS = ("fresh", "trained", "float32", "developed")
JUDGED = KINDS[:2]
TABLE = ("bespoke:weights=mixtures", "mixtures")
BARS = {5: (1.0, 2.0), 10: (1.5, 2.5), 20: (1.5, 2.5)}  # that the fit is to be so many times closer in RMS and median
LARGE_BARS = {5: (1.0, 2.0), 10: (1.1, 2.0), 20: (1.1, 2.0)}  # on pictures
HERE = Path(__file__).parent


# --- accuracy


def reference(flow: Flow, walk: SolverWalk, steps: int = 1000) -> Tensor:
    """Where the ODE takes that start: RK4 on the linear path, into which x/(α + σ) takes every path."""
    size = walk.alpha + walk.sigma
    tau = walk.sigma / size
    times = tau * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps) ** 1.5
    return last_of(walk_from("rk4:clock=flow", flow.linear(), walk.start.double() / size, times))


class References:
    """One reference for each place that anyone starts from, for one noise."""

    def __init__(self, flow: Flow, steps: int) -> None:
        self.flow, self.steps, self.known = flow, steps, {}

    def __call__(self, walk: SolverWalk) -> Tensor:
        size = walk.alpha + walk.sigma
        key = (round(walk.sigma / size, 6), round(float(walk.start[0, 0]) / size, 5))
        if key not in self.known:
            self.known[key] = reference(self.flow, walk, self.steps)
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

    @property
    def score(self) -> float:
        """log (RMS × median)."""
        return math.log(self.rms * self.median + 1e-300)


def steps_within(row: Solver, evaluations: int) -> int:
    """The number of steps that, going by 7 and 9 of them, calls the network at most so often."""
    if row.fixed is not None:
        return row.fixed
    few, more = cost(row, 7), cost(row, 9)
    return int(2 * (evaluations - few) / (more - few) + 7 + 1e-9)


@cache
def cost(row: Solver, steps: int) -> int:
    """How often so many steps call the network."""
    model = Exact(PATHS[row.paths[0]], Modes.even(torch.zeros(1, 1, dtype=torch.float64), 1.0))
    row.run(model, torch.zeros(1, 1, dtype=torch.float64), steps)
    return model.calls


def errors(row: Solver, flow: Flow, noise: Tensor, references: References, evaluations: int) -> Errors | None:
    """One walk of as many steps as fit; None where the solver can't be set to so few evaluations."""
    for steps in range(steps_within(row, evaluations), row.least - 1, -1):
        flow.calls = 0
        try:
            walk = row.run(flow, noise, steps)
        except (ValueError, IndexError, RuntimeError, AssertionError, InputError, ZeroDivisionError):
            continue
        if flow.calls <= evaluations:
            return Errors.of(walk.end, references(walk))
    return None


def starts(dim: int, n: int, seed: int) -> Tensor:
    """Standard normal noise."""
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Panel:
    """One flow: what each row comes to at each count, and what is ours without being a row."""

    problem: str
    path: str
    kind: str  # fresh, developed, float32 or trained
    rows: dict[str, dict[int, Errors]] = field(default_factory=dict)
    own: dict[str, dict[int, list[Errors]]] = field(default_factory=dict)  # table, fit (one a seed), tune
    spent: int = 0  # evaluations of a fit
    seconds: float = 0.0  # and its CPU time
    large: bool = False  # pictures, on which only a shortlist walked

    @property
    def name(self) -> str:
        """Problem and path."""
        return f"{self.problem}, {self.path}"

    def of(self, libraries: Iterable[str], count: int) -> dict[str, Errors]:
        """The libraries' rows at a count."""
        libraries = set(libraries)
        return {
            label: found[count]
            for label, found in self.rows.items()
            if count in found and label.partition(" ")[0] in libraries
        }

    def after(self, libraries: Iterable[str], count: int, measure: str) -> tuple[float, str]:
        """The best row after the fact."""
        rows = [(getattr(found, measure), label) for label, found in self.of(libraries, count).items()]
        return min(rows, default=(math.inf, "none"))


def best_rows(panels: Sequence[Panel], path: str, libraries: Iterable[str], count: int) -> list[str]:
    """Rows by their geometric mean over all panels of a path and both measures, the best first."""
    found = [panel.of(libraries, count) for panel in panels if panel.path == path]
    everywhere = set(found[0]).intersection(*found[1:]) if found else set()
    return sorted(everywhere, key=lambda label: (sum(rows[label].score for rows in found), label))


# --- ours


Choices = dict[str, dict[int, tuple[str, str]]]  # "problem, path" → count → (sampler, grid) of `ebbtide tune`


def tuned(plan: "Plan", bar: tqdm, keep: Callable[[Choices], None] = lambda choices: None) -> Choices:
    """`ebbtide tune --depth times` for both measures at once, on noise that nothing is reported on."""
    made: Choices = {}
    for problem, count in product(plan.tuned, plan.counts):
        model, steps = exact(problem, "linear"), plan.reference // 2
        start = starts(model.dim, plan.tuning, seed=99)
        found = tune(model, start, count, depth="times", reference_steps=steps)
        made.setdefault(f"{problem}, linear", {})[count] = found.sampler, found.grid
        bar.update()
        keep(made)
    return made


def fitted(flow: Flow, plan: "Plan", seed: int, dtype: torch.dtype) -> tuple[Sequence[Tuned], int]:
    """A flow's own solvers as training leaves them, on starts of their own, and the evaluations they took."""
    if isinstance(flow, Learned):
        trained, guidance, asked = flow.trained, NETWORKS[flow.name].guidance, []
        recipe = replace(trained.recipe, seed=seed)  # by which the starts go
        budget = plans.allowance(recipe.steps, recipe.batch)
        hook = trained.denoiser.register_forward_pre_hook(lambda module, given: asked.append(len(given[0])))
        with hook:
            made = for_run(replace(trained, recipe=recipe), plan.counts, budget=budget, guidance=guidance)
        return made, sum(asked)
    spent, model = plans.PLANS[0], replace(flow, asked=0)
    start = model.path.prior(starts(model.dim, spent.pool, seed=100 + seed)).to(dtype)
    return fit_solver(model, start, plan.counts, plan=spent, joint=JOINT), model.asked


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

    developed: tuple[str, ...] = tuple(DEVELOPED)  # on the linear path
    fresh: tuple[str, ...] = tuple(FRESH)  # on every path, and in float32
    networks: tuple[str, ...] = tuple(NETWORKS)
    libraries: tuple[str, ...] = PEERS
    counts: tuple[int, ...] = COUNTS
    starts: int = 2048
    few: tuple[int, int] = (1024, 96)  # starts of a network; of one of pictures
    tuned: tuple[str, ...] = tuple(FRESH)  # by `ebbtide tune`, on the linear path
    tuning: int = 256  # starts that it chooses and judges on
    reference: int = 200  # RK4 steps
    seeds: int = 2  # of a fit
    repeats: int = 9


@dataclass
class Results:
    """What `measure` found, in plain values; `cells` has an entry for each flow and count."""

    plan: dict[str, Any]
    choices: Choices
    cells: list[dict[str, Any]]
    overheads: list[Overhead]
    timed: str  # the day of the overheads


def measure(
    plan: Plan,
    runs: Path,
    choices: Choices | None = None,
    keep: Callable[[Choices], None] = lambda choices: None,
    workers: int = 1,
) -> Results:
    """`ebbtide tune` unless told, then everyone from the same noise on every flow, then the time of a step."""
    shapes = list(product(METHODS, SHAPES)) if "diffusers" in plan.libraries else []
    panels = [Panel(problem, "linear", "developed") for problem in plan.developed]
    panels += [Panel(problem, path, "fresh") for problem, path in product(plan.fresh, PATHS)]
    exacts = len(panels)
    panels += [Panel(problem, "linear", "float32") for problem in plan.fresh]
    panels += [Panel(name, NETWORKS[name].path, "trained") for name in plan.networks]
    for panel in panels:
        panel.large = panel.kind == "trained" and NETWORKS[panel.problem].recipe.endswith("images")
    panels.sort(key=lambda panel: panel.large)
    small = sum(not panel.large for panel in panels)
    searches = len(plan.tuned) * len(plan.counts) if choices is None else 0
    with tqdm(total=searches + len(panels) + len(shapes), dynamic_ncols=True) as bar:
        choices = tuned(plan, bar, keep) if choices is None else choices
        walk = partial(fill, plan=plan, runs=runs, choices=choices)
        with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            filled = []
            for panel in pool.map(walk, panels[:small]):
                filled.append(panel)
                bar.update()
            known = filled[:exacts]
            for panel in pool.map(partial(walk, known=known), panels[small:]):
                filled.append(panel)
                bar.update()
        overheads = []
        for method, shape in shapes:
            overheads.append(overhead(method, shape, repeats=plan.repeats))
            bar.update()
    cells = [cell(panel, count, known, plan) for panel, count in product(filled, plan.counts)]
    return Results(asdict(plan), choices, cells, overheads, str(datetime.date.today()))


def fill(
    panel: Panel, plan: Plan, runs: Path, choices: Choices, known: Sequence[Panel] = (), rows: bool = True
) -> Panel:
    """The panel with everyone's errors; on pictures only the defaults and what was best on the known panels walk.

    rows: False leaves out all that isn't fitted, ours too.
    """
    warnings.filterwarnings("ignore")
    flow: Flow = exact(panel.problem, panel.path) if panel.problem in PROBLEMS else learned(panel.problem, runs)
    n = plan.few[panel.large] if panel.kind == "trained" else plan.starts
    flow = flow.told(n)
    precision = torch.float32 if panel.kind == "float32" else torch.float64
    noise = starts(flow.dim, n, seed=1).to(precision)
    refs = References(flow, plan.reference // (5 if panel.large else 1))
    for row, count in product(all_rows(plan, panel.path) if rows else (), plan.counts):
        walks = not panel.large or row.label in shortlist(known, panel.path, count, plan.libraries)
        if walks and (found := errors(row, flow, noise, refs, count)):
            panel.rows.setdefault(row.label, {})[count] = found

    def add(name: str, row: Solver, count: int) -> None:
        if found := errors(replace(row, fixed=count), flow, noise, refs, count):
            panel.own.setdefault(name, {}).setdefault(count, []).append(found)

    for seed in range(plan.seeds):
        before = time.process_time()
        made, panel.spent = fitted(flow, plan, seed, precision)
        panel.seconds += (time.process_time() - before) / plan.seeds
        for one in made:
            add("fit", ours(one.sampler, one.grid), one.evaluations)
    chosen = choices.get(panel.name, {}) if panel.kind != "float32" else {}
    for count in plan.counts:
        add("table", ours(*TABLE), count)
        if count in chosen:
            add("tune", ours(*chosen[count]), count)
    return panel


def refitted(results: Results, runs: Path, workers: int = 1) -> Results:
    """Earlier results with all that is fitted fitted again, everyone else's as they were."""
    plan = Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in results.plan.items()})
    names = dict.fromkeys((one["problem"], one["path"], one["kind"], one["large"]) for one in results.cells)
    panels = [Panel(problem, path, kind, large=large) for problem, path, kind, large in names]
    cells = {(one["problem"], one["path"], one["kind"], one["count"]): dict(one) for one in results.cells}
    walk = partial(fill, plan=plan, runs=runs, choices=results.choices, rows=False)
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for panel, count in product(tqdm(pool.map(walk, panels), total=len(panels)), plan.counts):
            cells[panel.problem, panel.path, panel.kind, count] |= fits(panel, count)
    return replace(results, cells=list(cells.values()))


def all_rows(plan: Plan, path: str) -> list[Solver]:
    """Every row, ours without a fit among them, that a path admits."""
    peers = [row for library in plan.libraries for row in LIBRARIES[library]()]
    return [row for row in (*unfitted(), *peers) if path in row.paths]


def shortlist(panels: Sequence[Panel], path: str, count: int, libraries: Sequence[str]) -> set[str]:
    """Each library's default and best single row, and the FEW best of the peers' rows."""
    own = [best_rows(panels, path, [library], count)[:1] for library in (OURS, *libraries)]
    defaults = [f"{library} {DEFAULTS[library][path]}" for library in (OURS, *libraries)]
    return {*defaults, *best_rows(panels, path, libraries, count)[:FEW], *(name for names in own for name in names)}


def fits(panel: Panel, count: int) -> dict[str, Any]:
    """What is fitted: RMS and median, and what that took."""
    made, each = panel.own["fit"][count], {"spent": panel.spent, "seconds": round(panel.seconds, 2)}
    own = {
        name: [[one.rms, one.median] for one in panel.own.get(name, {}).get(count, [])] for name in ("table", "tune")
    }
    mean = [typical([getattr(one, measure) for one in made]) for measure in MEASURES]
    return {**each, "fit": mean, "seeds": [[one.rms, one.median] for one in made], **own}


def cell(panel: Panel, count: int, known: Sequence[Panel], plan: Plan) -> dict[str, Any]:
    """All columns of a flow at a count: name, RMS, median; of the best after the fact one for each measure."""
    found: dict[str, Any] = {
        "problem": panel.problem, "path": panel.path, "kind": panel.kind, "large": panel.large, "count": count,
    } | fits(panel, count)  # fmt: skip
    for library in (OURS, *plan.libraries, *([ALL] if plan.libraries else [])):
        libraries = plan.libraries if library == ALL else [library]
        named = {
            "default": [f"{library} {DEFAULTS[library][panel.path]}"] if library != ALL else [],
            "single": best_rows(known, panel.path, libraries, count)[:1],
        }
        found[library] = {
            kind: [[name, panel.rows[name][count].rms, panel.rows[name][count].median] for name in names
                   if count in panel.rows.get(name, {})]
            for kind, names in named.items()
        } | {"best": [panel.after(libraries, count, measure) for measure in MEASURES]}  # fmt: skip
    return found


def typical(values: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(math.log(max(value, 1e-300)) for value in values) / len(values))


# --- the page


def title(cell: dict[str, Any]) -> str:
    """Problem, path and kind of a cell."""
    how = {"fresh": "", "developed": ", *developed on*", "float32": ", float32", "trained": ", trained"}
    return f"{cell['problem']}{'' if cell['kind'] == 'trained' else ', ' + cell['path']}{how[cell['kind']]}"


def nearest(cell: dict[str, Any], i: int, libraries: Sequence[str]) -> tuple[float, str]:
    """The least error of any library's default in the i-th measure, and whose it is."""
    return min((row[1 + i], row[0]) for library in libraries for row in cell[library]["default"])


def short(cell: dict[str, Any], i: int) -> bool:
    """Whether the fit falls short of its bar in the i-th measure."""
    bars = LARGE_BARS if cell["large"] else BARS
    return cell["count"] in bars and bool(cell[ALL]["best"][i][0] / cell["fit"][i] < bars[cell["count"]][i])


def flows_of(cells: Sequence[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Cells by title and count."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for one in cells:
        found.setdefault(title(one), {})[one["count"]] = one
    return found


def summary(results: Results, kinds: Sequence[str] = KINDS) -> list[str]:
    """What a fit gains over the best peer row of each cell after the fact, and over the nearest default."""
    counts, libraries = results.plan["counts"], results.plan["libraries"]
    heads = [f"{what}, {count}" for what in ("best row after the fact", "nearest default") for count in counts]
    lines = [f"| flow | {' | '.join(heads)} | evaluations of the fit |", "|---|" + "--:|" * (len(heads) + 1)]
    for name, per in flows_of(results.cells).items():
        ones = [one for one in per.values() if one["kind"] in kinds]
        after = [
            " / ".join(
                times(one[ALL]["best"][i][0], one["fit"][i]) + " †" * (one["kind"] in JUDGED and short(one, i))
                for i in range(2)
            )
            for one in ones
        ]
        default = [" / ".join(times(nearest(one, i, libraries)[0], one["fit"][i]) for i in range(2)) for one in ones]
        if ones:
            lines.append(f"| {name} | {' | '.join(after + default)} | {ones[0]['spent']:,} |")
    return lines


def times(theirs: float, own: float) -> str:
    """How many times larger an error is."""
    return f"{theirs / own:.2g}" if theirs < 99.5 * own else f"{theirs / own:.0f}"


def report(results: Results, command: str) -> str:
    """The section of RESULTS.md."""
    plan = results.plan
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ebbtide", *plan["libraries"]))
    lines = [
        "# Samplers: error per evaluation, and overhead",
        "",
        f"`{command}` on {datetime.date.today()}: {cpu_name()}, one thread, Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch').partition('+')[0]}; {versions}.",
        "",
        f"Exact denoisers of mixtures in float64 and float32 ({plan['starts']} starts) and trained networks "
        f"({plan['few'][0]} starts, {plan['few'][1]} of pictures); the same noise for all, on which nothing was chosen "
        "but the columns *after the fact*. Each end point is held against a fine solution of the same denoiser's ODE "
        "from where that solver started: the solver's error, not the network's. Network evaluations are counted. What "
        "each column is, README.md says.",
    ]
    if plan["libraries"]:
        lines += [
            "",
            "## In short: the peers' error over that of a run's own solver, RMS / median",
            "",
            "† short of the bar that was set before: RMS 1 and median 2 at 5 evaluations, 1.5 and 2.5 at 10 and 20 "
            "(pictures: 1, 2; 1.1, 2). Bars hold for flows on which nothing was chosen; the solver was *developed on* "
            "the others. Below 1 the peer is better.",
            "",
            *summary(results),
        ]
    lines += ["", "## The rows", "", *rows_table(results)]
    for name, per in flows_of(results.cells).items():
        lines += ["", f"## {name}", "", *panel_table(per, plan["libraries"])]
    if results.overheads:
        lines += [
            "",
            "## Overhead of a step",
            "",
            f"On {results.timed}: a network that returns its input, 50 steps, best of several repeats in turns. Ours "
            "is the whole walk with its plan and the Denoiser; diffusers' is `scale_model_input` and `step` alone.",
            "",
            "| method | shape | ours, µs | diffusers, µs | ours / diffusers |",
            "|---|---|--:|--:|--:|",
        ]
        for o in results.overheads:
            shape = " × ".join(map(str, o.shape))
            lines.append(f"| {o.method} | {shape} | {o.ours:.1f} | {o.diffusers:.1f} | {o.ours / o.diffusers:.2f} |")
    return "\n".join(lines) + "\n"


def panel_table(per: dict[int, dict[str, Any]], libraries: Sequence[str]) -> list[str]:
    """A line for each solver: RMS / median at each count."""
    lines = ["| RMS / median | " + " | ".join(f"{count}" for count in per) + " |", "|---|" + "--:|" * len(per)]

    def add(whose: str, pairs: Iterable[Sequence[float]]) -> None:
        cells = [f"{pair[0]:.1e} / {pair[1]:.1e}" if pair else "" for pair in pairs]
        if any(cells):
            lines.append(f"| {whose} | {' | '.join(cells)} |")

    ones = list(per.values())
    add("**ours, as training leaves it**", [one["fit"] for one in ones])
    spreads = [[f"{max(v) / min(v):.2f}" for v in zip(*one["seeds"], strict=True)] for one in ones]
    lines.append(f"| its seeds, larger ÷ smaller | {' | '.join(' / '.join(pair) for pair in spreads)} |")
    for kind, whose in {"tune": "ours, `ebbtide tune`", "table": "ours, stored table"}.items():
        add(whose, [(*one[kind], [])[0] for one in ones])
    groups = (OURS, *([ALL] if libraries else []), *libraries)
    for kind, what in {"single": "one row", "default": "default"}.items():
        for library in groups:
            whose = "ours, no fit" if library == OURS else library
            add(f"{whose}, {what}", [[*one[library][kind], [""]][0][1:] for one in ones])
    for library in groups[1:]:
        add(f"{library}, after the fact", [[value for value, _ in one[library]["best"]] for one in ones])
    return lines


def rows_table(results: Results) -> list[str]:
    """Which row is a library's default, and which was its best single one."""
    counts = results.plan["counts"]
    lines = [
        "| library | path | default | " + " | ".join(f"one row, {count}" for count in counts) + " |",
        "|---|---|---|" + "---|" * len(counts),
    ]
    exact_flows = [per for per in flows_of(results.cells).values() if per[min(per)]["kind"] in ("fresh", "developed")]
    for library, path in product((OURS, *results.plan["libraries"]), PATHS):
        if per := next((per for per in exact_flows if per[min(per)]["path"] == path), None):
            names = [(*one[library]["single"], ["none"])[0][0] for one in per.values()]
            named = " | ".join(f"`{name.removeprefix(library + ' ')}`" for name in names)
            lines.append(f"| {library} | {path} | `{DEFAULTS[library][path]}` | {named} |")
    return lines


def picture(results: Results, where: Path) -> None:
    """RMS error over evaluations: a panel for each flow on which nothing was chosen."""
    import matplotlib.pyplot as plt

    flows = [per for per in flows_of(results.cells).values() if per[min(per)]["kind"] in JUDGED]
    columns = min(len(flows), 5)
    figure, grid = plt.subplots(
        math.ceil(len(flows) / columns), columns, figsize=(2.6 * columns, 2.9 * math.ceil(len(flows) / columns)),
        sharex=True, squeeze=False,
    )  # fmt: skip
    colors = dict(zip(PEERS, plt.get_cmap("tab10").colors, strict=False))
    for axes, per in zip(grid.flat, flows, strict=False):
        for library in results.plan["libraries"]:
            curve = [one[library]["best"][0][0] for one in per.values()]
            axes.loglog(per.keys(), curve, "o-", color=colors[library], lw=1.3, ms=4, label=library)
        rough = [one[OURS]["single"][0][1] for one in per.values()]
        axes.loglog(per.keys(), rough, "o:", color="black", lw=1.3, ms=4, label="ebbtide, no fit")
        fit = [one["fit"][0] for one in per.values()]
        axes.loglog(per.keys(), fit, "o-", color="black", lw=2.5, ms=4, label="ebbtide, as trained")
        axes.set_title(title(per[min(per)]), fontsize=9)
        axes.set_xticks(results.plan["counts"], [str(count) for count in results.plan["counts"]])
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(flows) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("network evaluations", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("RMS error", fontsize=9)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    figure.set_layout_engine("constrained")
    where.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(where, dpi=110)
    plt.close(figure)


def missing(libraries: Sequence[str]) -> list[str]:
    """Peers that are not installed."""
    return [name for name in libraries if importlib.util.find_spec(name.replace("-", "_")) is None]


def stored_choices(where: Path) -> Choices:
    """What `ebbtide tune` found in an earlier run, or what there was of it when that was stopped."""
    found = json.loads(where.read_text())["choices"]
    return {flow: {int(count): (row[0], row[1]) for count, row in per.items()} for flow, per in found.items()}


def stored_results(where: Path) -> Results:
    """What an earlier run found."""
    found = json.loads(where.read_text())
    overheads = [Overhead(**{**row, "shape": tuple(row["shape"])}) for row in found["overheads"]]
    return Results(found["plan"], stored_choices(where), found["cells"], overheads, found["timed"])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and (unless --quick) write RESULTS.md, samplers.json and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two mixtures, two counts, fewer starts; print only")
    parser.add_argument("--choices", type=Path, help="take what tune found from this samplers.json, don't search")
    parser.add_argument("--only", nargs="+", choices=[OURS, *PEERS], help="these libraries only; print only")
    parser.add_argument("--runs", type=Path, default=Path("runs/samplers"), help="folder of the trained networks")
    parser.add_argument("--refit", type=Path, help="only ours again; take the peers from this samplers.json")
    parser.add_argument("--workers", type=int, default=1, help="processes")
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
        plan = replace(plan, developed=("four corners",), fresh=("grid of 25",), networks=(), counts=(5, 10))
        plan = replace(plan, tuned=(), starts=256, reference=100, repeats=3)
    out = args.out or (None if args.quick or args.only else HERE)

    def keep(choices: Choices) -> None:
        if out:
            out.mkdir(parents=True, exist_ok=True)
            (out / "choices.json").write_text(json.dumps({"choices": choices}, indent=1) + "\n")

    stored = stored_choices(args.choices) if args.choices else {} if args.quick else None
    if args.refit:
        results = refitted(stored_results(args.refit), args.runs, args.workers)
    else:
        results = measure(plan, args.runs, stored, keep, args.workers)
    command = " ".join(["python -m benchmarks.samplers", *(sys.argv[1:] if argv is None else argv)])
    text = report(results, command)
    if out:
        write(results, text, out, (args.out or HERE.parent / "docs/figures") / "samplers.png")
    print(text)


def write(results: Results, text: str, out: Path, image: Path) -> None:
    """The section of RESULTS.md, samplers.json and the picture."""
    write_section(out / "RESULTS.md", "samplers", text)
    (out / "samplers.json").write_text(json.dumps(asdict(results), ensure_ascii=False) + "\n")
    (out / "choices.json").unlink(missing_ok=True)
    picture(results, image)


if __name__ == "__main__":
    try:
        main()
    except EbbtideError as error:
        sys.exit(f"benchmarks.samplers: {error}")
