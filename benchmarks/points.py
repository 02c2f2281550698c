"""ebbtide beside torchcfm, flow_matching, smalldiffusion and azula on points: time per step, time to a quality.

    python -m benchmarks.points                                    the tables of RESULTS.md
    python -m benchmarks.points --quick                            the same in short, printed only
    python -m benchmarks.points --only ebbtide --longest 1400      of these rows alone, in a section of their own

Every library trains the same network (3 × 128) on the same standardised points, 512 a step, through its own documented
loop: its loss, its optimiser, its noise levels. All take batches by index from memory, as their examples do with
synthetic data (a DataLoader would only slow smalldiffusion down). One thread, denormals flushed, for all alike.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import PATHS, VE, Linear, Scales, Time
from ebbtide.core.randomness import Draws, generator
from ebbtide.core.targets import TARGETS, Estimate, from_target
from ebbtide.data import DATASETS
from ebbtide.data.prepared import TensorData
from ebbtide.errors import EbbtideError, InputError
from ebbtide.kinds.runs import begin as prepare
from ebbtide.metrics import sliced_w2
from ebbtide.networks.clock import Fourier
from ebbtide.recipes import RECIPES
from ebbtide.samplers import sample
from ebbtide.training.ema import ema_decay
from ebbtide.training.schedule import learning_rate
from ebbtide.training.trainer import Trainer

from .pages import cpu_name, write_section

RECIPE = replace(RECIPES["flow"](), data="two_moons")
PEERS = ("torchcfm", "flow_matching", "smalldiffusion", "azula")
THRESHOLDS = (0.10, 0.07, 0.055)
SAMPLES = 6000  # at this size the floor, truth against truth, is 0.037


class Network(nn.Module):
    """[x, φ(clock(t))] → 3 hidden layers of 128 with SiLU → x's size. `clock` takes a library's time to [0, 1]."""

    classes = 0

    def __init__(self, clock: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.clock, self.features = clock, Fourier(16)
        sizes = (2 + 16, 128, 128, 128)
        hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(128, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = t if self.clock is None else self.clock(t)
        return self.layers(torch.cat([x, self.features(time).expand(len(x), -1)], 1))


@dataclass(frozen=True)
class Estimator:
    """What ebbtide's samplers call: any peer's network as (x̂₀, ε̂) on a path."""

    path: Any
    estimate: Callable[[Tensor, Scales], Estimate]
    gaussian_end: bool = True

    def __call__(self, x_t: Tensor, t: Time, /, **cond: Any) -> Estimate:
        return self.estimate(x_t, self.path.at(t, x_t))


@dataclass(frozen=True)
class Run:
    """A training under way. `steps` takes one optimiser step at a time, `learned` is the result so far."""

    steps: Iterator[Any]
    learned: Callable[[], Any]
    grid: str = "quadratic"


@dataclass
class Schedule:
    """ebbtide's learning rate and average of the weights, for a peer's optimiser."""

    steps: int
    averages: list[Tensor] = field(default_factory=list)

    def before(self, optimizer: Any, step: int) -> None:
        rate = learning_rate(step, self.steps, RECIPE.lr, round(RECIPE.warmup * self.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate

    def after(self, network: nn.Module, step: int) -> None:
        weights = [p.detach() for p in network.parameters()]
        if not self.averages:
            self.averages = [w.clone() for w in weights]
        torch._foreach_lerp_(self.averages, weights, 1 - ema_decay(step, RECIPE.ema))

    def averaged(self, network: nn.Module) -> nn.Module:
        copy = deepcopy(network)
        with torch.no_grad():
            for p, average in zip(copy.parameters(), self.averages, strict=bool(self.averages)):
                p.copy_(average)
        return copy


def train(network: nn.Module, loss: Callable[[], Tensor], schedule: Schedule | None) -> Iterator[None]:
    """The loop in the examples of torchcfm, flow_matching and azula: Adam at 1e-3."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in itertools.count():
        optimizer.zero_grad()
        loss().backward()
        if schedule:
            schedule.before(optimizer, step)
        optimizer.step()
        if schedule:
            schedule.after(network, step)
        yield


def ours(data: TensorData, seed: int, schedule: Schedule | None, recipe: str, own: bool = False, **more: Any) -> Run:
    """ebbtide's Denoiser and Trainer, around the shared network or (own) around its MLP."""
    row = replace(RECIPES[recipe](), data="two_moons", seed=seed, steps=schedule.steps if schedule else 10**6, **more)
    torch.manual_seed(seed)
    denoiser = prepare(row)[0].denoiser if own else Denoiser(Network(), PATHS[row.path](), row.target)
    trainer = Trainer(denoiser, data, row, Accelerator(cpu=True))

    def learned() -> Denoiser:
        copy = deepcopy(denoiser)
        copy.load_state_dict(trainer.averaged())
        return copy

    return Run(trainer.steps(), learned)


def torchcfm(data: TensorData, seed: int, schedule: Schedule | None) -> Run:
    """The loop of its 2D tutorial, with σ = 0, its default."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    torch.manual_seed(seed)
    network, matcher = Network(), ConditionalFlowMatcher()

    def loss() -> Tensor:
        x1 = batch(data)
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        return torch.mean((network(x_t, t) - u_t) ** 2)

    return Run(train(network, loss, schedule), lambda: reversed_flow(trained(network, schedule)))


def flow_matching(data: TensorData, seed: int, schedule: Schedule | None) -> Run:
    """The loop of its example 2d_flow_matching."""
    from flow_matching.path import AffineProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    torch.manual_seed(seed)
    network, path = Network(), AffineProbPath(scheduler=CondOTScheduler())

    def loss() -> Tensor:
        x_1 = batch(data)
        sampled = path.sample(t=torch.rand(len(x_1)), x_0=torch.randn_like(x_1), x_1=x_1)
        return torch.pow(network(sampled.x_t, sampled.t) - sampled.dx_t, 2).mean()

    return Run(train(network, loss, schedule), lambda: reversed_flow(trained(network, schedule)))


def azula(data: TensorData, seed: int, schedule: Schedule | None) -> Run:
    """The loop of its README: KarrasDenoiser on the VP schedule."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule

    torch.manual_seed(seed)
    noise = VPSchedule()
    backbone = Network(lambda log_ratio: log_ratio / 14 + 0.5)  # log σ/α ∈ [-6.9, 6.9]
    denoiser = KarrasDenoiser(backbone, schedule=noise)

    def loss() -> Tensor:
        return denoiser.loss(batch(data), torch.rand(RECIPE.batch))

    def learned() -> Estimator:
        ready, path = trained(denoiser, schedule), VE()

        def estimate(z: Tensor, c: Scales) -> Estimate:
            ratio = z.new_full(
                (1, 1), c.sigma
            )  # z = x/α, so its σ is azula's σ/α, and α² = (1 + σ_min²) / (1 + ratio²)
            alpha = ((1 + noise.sigma_min**2) / (1 + ratio**2)).sqrt().clamp(max=1)
            time = (alpha.log() / math.log(noise.alpha_min)).sqrt().flatten()
            x0 = ready(alpha * z, time).mean
            return Estimate(x0, (z - x0) / ratio)

        return Estimator(path, estimate)

    return Run(train(denoiser, loss, schedule), learned, grid="karras")


def smalldiffusion(data: TensorData, seed: int, schedule: Schedule | None, flow: bool = False) -> Run:
    """Its training_loop, with the noise levels of its toy example or (flow) those of its flow matching."""
    library = import_smalldiffusion()
    from smalldiffusion.model import ModelMixin, PredFlow

    low, high = 0.01, 10.0
    levels = library.ScheduleFlow() if flow else library.ScheduleLogLinear(N=200, sigma_min=low, sigma_max=high)

    class Wrapped(nn.Module, ModelMixin):
        input_dims = (2,)

        def __init__(self) -> None:
            super().__init__()
            self.network = Network(None if flow else lambda sigma: (sigma / low).log() / math.log(high / low))

        def forward(self, x: Tensor, sigma: Tensor, cond: None = None) -> Tensor:
            return self.network(x, sigma.flatten())

    torch.manual_seed(seed)
    network = PredFlow(Wrapped)() if flow else Wrapped()

    def batches() -> Iterator[Tensor]:
        while True:
            yield batch(data)

    def steps() -> Iterator[None]:
        # It yields before its optimiser steps, so a step is what happens between two of its yields.
        loop = library.training_loop(batches(), network, levels, accelerator=Accelerator(cpu=True), epochs=1)
        for step, state in enumerate(loop):
            if step:
                if schedule:
                    schedule.after(network, step - 1)
                yield
            if schedule:
                schedule.before(state.optimizer, step)

    def learned() -> Estimator:
        ready = trained(network, schedule)
        path = Linear() if flow else VE(sigma_max=high)
        row = TARGETS["velocity" if flow else "noise"]

        def estimate(x: Tensor, c: Scales) -> Estimate:
            return from_target(row, c, x, ready(x, x.new_full((1, 1), c.sigma)))

        return Estimator(path, estimate)

    return Run(steps(), learned, grid="quadratic" if flow else f"karras:ratio_min={low}")


def network_alone(data: TensorData, seed: int, schedule: Schedule | None) -> Run:
    """Forward and backward on one fixed batch, nothing else: what no library can avoid."""
    torch.manual_seed(seed)
    network, x, t = Network(), batch(data), torch.rand(RECIPE.batch)

    def steps() -> Iterator[None]:
        while True:
            network(x, t).square().mean().backward()
            yield

    return Run(steps(), lambda: None)


CONTENDERS: dict[str, Callable[[TensorData, int, Schedule | None], Run]] = {
    "ebbtide, flow": partial(ours, recipe="flow"),
    "ebbtide, flow, plain targets": partial(ours, recipe="flow", stable_targets=False),
    "ebbtide, DDPM": partial(ours, recipe="ddpm"),
    "ebbtide, flow, its own 6 × 64": partial(ours, recipe="flow", own=True),
    "torchcfm": torchcfm,
    "flow_matching": flow_matching,
    "smalldiffusion": smalldiffusion,
    "smalldiffusion, flow": partial(smalldiffusion, flow=True),
    "azula": azula,
}
ALONE = "the network alone"


def import_smalldiffusion() -> Any:
    """The package without its progress bar (it would break ours) and, where absent, torchvision (for images only)."""
    stand_in = importlib.util.find_spec("torchvision") is None
    if stand_in:
        sys.modules["torchvision"] = MagicMock()
    try:
        import smalldiffusion
    finally:
        if stand_in:
            del sys.modules["torchvision"]
    smalldiffusion.diffusion.tqdm = iter
    return smalldiffusion


def library(name: str) -> str:
    """The package behind a row."""
    return name.partition(",")[0]


def batch(data: TensorData) -> Tensor:
    """512 of the points, by index."""
    return data.x[torch.randint(len(data.x), (RECIPE.batch,))]


def trained(network: nn.Module, schedule: Schedule | None) -> nn.Module:
    """The weights to sample with: their average under our schedule, else themselves."""
    return schedule.averaged(network) if schedule else deepcopy(network)


def reversed_flow(network: nn.Module) -> Estimator:
    """A flow whose time runs from noise at 0 to data at 1."""
    path, row = Linear(), TARGETS["velocity"]
    return Estimator(path, lambda x, c: from_target(row, c, x, -network(x, x.new_full((1,), 1 - c.t))))


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    contenders: tuple[str, ...]
    rounds: int = 24
    block: int = 50  # steps timed at once
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    ladder: tuple[int, ...] = (125, 180, 250, 350, 500, 700, 1000, 1400, 2000)
    constant: tuple[int, ...] = (250, 350, 500, 700, 1000, 1400, 2000, 2800, 4000, 5600, 8000)
    samples: int = SAMPLES
    sets: int = 3  # of samples for one distance, each against fresh real points
    sampling_steps: int = 25


@dataclass
class Results:
    """What `measure` found. Distances are over seeds: (lowest, median, highest)."""

    plan: Plan
    floor: tuple[float, float, float]
    milliseconds: dict[str, dict[str, float]]  # contender → mode → median CPU ms per step
    ratio: dict[str, float]  # contender → median over rounds of its time over the fastest ebbtide row's
    distances: dict[str, dict[str, dict[int, tuple[float, float, float]]]]  # contender → mode → steps → SWD

    def steps_to(self, contender: str, mode: str, threshold: float) -> int | None:
        """The shortest training whose median distance reaches the threshold."""
        reached = (steps for steps, d in sorted(self.distances[contender][mode].items()) if d[1] <= threshold)
        return next(reached, None)

    def best(self, contender: str, mode: str) -> tuple[float, float, float]:
        """The least median distance, whatever the length of training."""
        return min(self.distances[contender][mode].values(), key=lambda d: d[1])

    def area(self, contender: str, mode: str, lengths: Sequence[int]) -> float:
        """The mean of the distance over log(steps), by the trapezoid rule: the area under the curve over its width."""
        at = [math.log(steps) for steps in lengths]
        heights = [self.distances[contender][mode][steps][1] for steps in lengths]
        strips = ((b - a) * (u + v) / 2 for (a, b), (u, v) in zip(pairwise(at), pairwise(heights), strict=True))
        return sum(strips) / (at[-1] - at[0])

    def seconds_to(self, contender: str, mode: str, threshold: float) -> float | None:
        """The same in CPU seconds."""
        steps = self.steps_to(contender, mode, threshold)
        return None if steps is None else steps * self.milliseconds[contender][mode] / 1000


def measure(plan: Plan) -> Results:
    """Time every contender's step in interleaved rounds, then train each for every number of steps."""
    start, data = prepare(RECIPE)
    bar = tqdm(total=plan.rounds, unit="round", dynamic_ncols=True, desc="time per step")
    milliseconds, ratio = time_steps(plan, data, bar)
    floor = spread([distance(plan, real_points(plan, 90 + i), i) for i in range(8)])
    bar.reset(
        2 * sum(modes(c) != ("ours",) for c in plan.contenders) + sum(modes(c) == ("ours",) for c in plan.contenders)
    )
    bar.set_description("time to quality")
    bar.unit = "row"
    distances: dict[str, dict[str, dict[int, tuple[float, float, float]]]] = {}
    for name in plan.contenders:
        distances[name] = {}
        for mode in modes(name):
            bar.set_postfix_str(f"{name}, {mode}")
            curve = constant_curve if mode == "own" else schedule_curve
            distances[name][mode] = curve(plan, name, data, lambda x: start.to_data(x))
            bar.update()
    bar.close()
    return Results(plan, floor, milliseconds, ratio, distances)


def modes(contender: str) -> tuple[str, ...]:
    """`own`: the library's defaults; `ours`: our learning-rate schedule, which is ebbtide's default."""
    return ("ours",) if library(contender) == "ebbtide" else ("own", "ours")


def time_steps(plan: Plan, data: TensorData, bar: tqdm) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Blocks of A, B, C … in turn, so that a disturbance of the machine hits all alike."""
    makers: dict[tuple[str, str], Any] = {(ALONE, "own"): network_alone(data, 0, None)}
    for name in plan.contenders:
        for mode in modes(name):
            makers[name, mode] = CONTENDERS[name](data, 0, Schedule(10**6) if mode == "ours" else None)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in makers}
    for run in makers.values():
        advance(run, plan.block)
    for _ in range(plan.rounds):
        for key, run in makers.items():
            before = time.process_time()
            advance(run, plan.block)
            times[key].append((time.process_time() - before) / plan.block * 1000)
        bar.update()
    milliseconds: dict[str, dict[str, float]] = {}
    for (name, mode), values in times.items():
        milliseconds.setdefault(name, {})[mode] = statistics.median(values)
    base = times[next(iter(plan.contenders)), modes(plan.contenders[0])[0]]
    ratio = {
        name: statistics.median(a / b for a, b in zip(times[name, next(iter(kinds))], base, strict=True))
        for name, kinds in milliseconds.items()
    }
    return milliseconds, ratio


def constant_curve(plan: Plan, name: str, data: TensorData, undo: Callable[[Tensor], Tensor]) -> dict[int, Any]:
    """One training per seed at the library's defaults, measured on the way."""
    runs, curve, done = [CONTENDERS[name](data, seed, None) for seed in plan.seeds], {}, 0
    for steps in plan.constant:
        for run in runs:
            advance(run, steps - done)
        done = steps
        curve[steps] = spread([distance(plan, undo(draw(plan, run, seed)), seed) for seed, run in enumerate(runs)])
    return curve


def schedule_curve(plan: Plan, name: str, data: TensorData, undo: Callable[[Tensor], Tensor]) -> dict[int, Any]:
    """A schedule has a length, so a training for each rung of the ladder: all of them, or "best" compares lengths."""
    curve = {}
    for steps in plan.ladder:
        found = []
        for seed in plan.seeds:
            run = CONTENDERS[name](data, seed, Schedule(steps))
            advance(run, steps)
            found.append(distance(plan, undo(draw(plan, run, seed)), seed))
        curve[steps] = spread(found)
    return curve


def advance(run: Run, steps: int) -> None:
    """Take steps; a run that has ended stays so."""
    for _ in itertools.islice(run.steps, steps):
        pass


def draw(plan: Plan, run: Run, seed: int) -> Tensor:
    """Samples of what a run has learned: Heun's method on its own ODE, the same noise for every library."""
    draws = Draws.first(plan.samples * plan.sets, seed)
    return sample(run.learned(), (2,), draws=draws, sampler="heun", grid=run.grid, steps=plan.sampling_steps)


def distance(plan: Plan, samples: Tensor, seed: int) -> float:
    """Sliced W2 to fresh real points, in data units: the mean over a few sets; ∞ if a sample is not finite."""
    if not samples.isfinite().all():
        return math.inf
    truth = real_points(plan, seed)
    pairs = zip(samples.split(plan.samples), truth.split(plan.samples), strict=True)
    return statistics.mean(sliced_w2(x, y) for x, y in pairs)


def real_points(plan: Plan, seed: int) -> Tensor:
    """Points that nobody trained on."""
    return DATASETS["two_moons"].sample(plan.samples * plan.sets, generator("benchmark", seed))[0]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest, median, highest."""
    return min(values), statistics.median(values), max(values)


def report(results: Results, command: str) -> str:
    """The section of RESULTS.md."""
    plan, low, middle, high = results.plan, *results.floor
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in dict.fromkeys(map(library, plan.contenders))
    )
    alone = all(library(name) == "ebbtide" for name in plan.contenders)
    lines = [
        f"# Points: {'ebbtide alone' if alone else 'ebbtide beside other libraries'}",
        "",
        f"`{command}` on {datetime.date.today()}: {cpu_name()}, one thread, Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch').partition('+')[0]}; {versions}.",
        "",
        "Two moons, 50 000 fixed points, standardised; batch 512; the same 3 × 128 network (SiLU, 16 time features) in "
        "every library, through its own documented loop. CPU time, warm-up excluded.",
        "",
        *([text, ""] if (text := summary(results)) else []),
        "## CPU time of one training step",
        "",
        f"Medians over {plan.rounds} rounds, in which all take turns; × is the median of each round's own ratio to "
        f"{plan.contenders[0]}. ebbtide's steps include gradient clipping, the average of the weights and the check "
        "that all is finite, which the peers' defaults don't have.",
        "",
        "| | own defaults, ms | with our schedule, ms | × |",
        "|---|--:|--:|--:|",
    ]
    for name, kinds in results.milliseconds.items():
        cells = [f"{kinds[mode]:.2f}" if mode in kinds else "" for mode in ("own", "ours")]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {results.ratio[name]:.2f} |")
    lines += [
        "",
        "## CPU seconds to a quality",
        "",
        f"Sliced W2 of {plan.samples} samples to {plan.samples} fresh real points, in data units; floor (truth against "
        f"truth) {middle:.3f}, {low:.3f} to {high:.3f}. Samples from Heun's method, {plan.sampling_steps} steps, on "
        f"what each library learned. A cell: seconds (steps) of the shortest training whose median over seeds "
        f"({len(plan.seeds)}) reaches the distance; seconds are steps × the time above. Lengths are tried in factors "
        "of √2; every row is trained for all of them, so that the best is of equal lengths. Area: the mean of the "
        "distance over log(steps), between the shortest and the longest training that all rows of a table have.",
    ]
    titles = {"own": "Each with its own defaults", "ours": "All with our learning-rate schedule"}
    for mode, title in titles.items():
        if not any(mode in kinds for kinds in results.distances.values()):
            continue  # without peers
        shown = [name for name in plan.contenders if mode in results.distances[name] or library(name) == "ebbtide"]
        lines += ["", f"### {title}", ""]
        if mode == "own":
            lines += ["The peers' examples keep Adam at 1e-3 (smalldiffusion: AdamW) for as long as they run.", ""]
        else:
            lines += [
                f"Warm-up over {RECIPE.warmup:.0%} of the steps to {RECIPE.lr:g}, then a cosine to zero; samples from "
                "the average of the weights.",
                "",
            ]
        lines += [
            "| | " + " | ".join(f"{t:g}" for t in THRESHOLDS) + " | best (seeds: least to most) | area |",
            "|---" + "|--:" * (len(THRESHOLDS) + 2) + "|",
        ]
        kinds = {name: mode if mode in results.distances[name] else "ours" for name in shown}
        lengths = sorted(set.intersection(*(set(results.distances[name][kind]) for name, kind in kinds.items())))
        for name, kind in kinds.items():
            low, middle, high = results.best(name, kind)
            cells = [_cell(results, name, kind, threshold) for threshold in THRESHOLDS]
            area = _distance(results.area(name, kind, lengths)) if len(lengths) > 1 else ""
            lines.append(
                f"| {name} | "
                + " | ".join(cells)
                + f" | {_distance(middle)} ({_distance(low)}–{_distance(high)}) | {area} |"
            )
        lines += ["", "The distance after each number of steps, median over seeds:", ""]
        lines += ["| | " + " | ".join(map(str, lengths)) + " |", "|---" + "|--:" * len(lengths) + "|"]
        for name, kind in kinds.items():
            medians = (results.distances[name][kind][steps][1] for steps in lengths)
            lines.append(f"| {name} | " + " | ".join(map(_distance, medians)) + " |")
    return "\n".join(lines) + "\n"


def summary(results: Results) -> str:
    """ebbtide's first row beside the best of its peers, in a paragraph."""
    ours_row, goal = results.plan.contenders[0], min(THRESHOLDS)
    peers = [name for name in results.plan.contenders if library(name) != "ebbtide"]
    own_seconds = results.seconds_to(ours_row, "ours", goal)
    if not peers or own_seconds is None:
        return ""
    fastest = min(peers, key=results.ratio.__getitem__)
    cost = {name: ratio / results.ratio[fastest] for name, ratio in results.ratio.items()}
    others = [
        f"{name} {cost[name]:.2f} ×"
        for name in results.ratio
        if name != ours_row and library(name) in ("ebbtide", ALONE)
    ]
    text = f"A step of {ours_row} costs {cost[ours_row]:.2f} × the fastest peer's, {fastest} ({'; '.join(others)})."
    # At their own defaults most never get there, and one misses it by a hair: the tables show it, a ratio would not.
    reached = [seconds for name in peers if (seconds := results.seconds_to(name, "ours", goal)) is not None]
    longest = [max(results.distances[n]["ours"]) * results.milliseconds[n]["ours"] / 1000 for n in peers]
    least, more = (min(reached), "") if reached else (min(longest), "more than ")
    return (
        f"{text} To {goal:g} the fastest peer takes {more}{least / own_seconds:.1f} × its time under the same schedule."
    )


def _distance(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "∞"


def _cell(results: Results, name: str, mode: str, threshold: float) -> str:
    seconds, steps = results.seconds_to(name, mode, threshold), results.steps_to(name, mode, threshold)
    if seconds is None:
        longest = max(results.distances[name][mode])
        return f"> {longest * results.milliseconds[name][mode] / 1000:.1f} ({longest})"
    return f"{seconds:.2f} ({steps})"


def missing(contenders: Sequence[str]) -> list[str]:
    """Peers that are not installed."""
    absent = []
    for name in dict.fromkeys(map(library, contenders)):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    return absent


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and (unless --quick) write RESULTS.md and points.json beside this file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.points", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one seed, shorter trainings; print only")
    parser.add_argument("--only", nargs="+", choices=["ebbtide", *PEERS], help="these libraries only")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each length; 5")
    parser.add_argument("--longest", type=int, default=8000, help="leave out trainings of more steps; 8000")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md and points.json")
    args = parser.parse_args(argv)
    contenders = tuple(name for name in CONTENDERS if not args.only or library(name) in args.only)
    if absent := missing(contenders):
        raise InputError(f"Not installed: {', '.join(absent)}. `make bench` installs them; see benchmarks/README.md.")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.seeds < 1:
        raise InputError(f"--seeds must be at least 1; got {args.seeds}.")
    plan = Plan(contenders, seeds=tuple(range(args.seeds)))
    if args.quick:
        plan = replace(plan, rounds=8, seeds=(0,), ladder=(250, 500, 1000, 2000), constant=(500, 1000, 2000), sets=1)
    ladder, constant = (tuple(n for n in steps if n <= args.longest) for steps in (plan.ladder, plan.constant))
    if not (ladder and constant):
        raise InputError(f"--longest must be at least {max(plan.ladder[0], plan.constant[0])}; got {args.longest}.")
    plan = replace(plan, ladder=ladder, constant=constant)
    results = measure(plan)
    command = " ".join(["python -m benchmarks.points", *(sys.argv[1:] if argv is None else argv)])
    text = report(results, command)
    out = args.out or (None if args.quick else Path(__file__).parent)
    if out:
        name = "-".join(["points", *(args.only or ())])
        write_section(out / "RESULTS.md", name, text)
        (out / f"{name}.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except EbbtideError as error:
        sys.exit(f"benchmarks.points: {error}")
