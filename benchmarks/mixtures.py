"""The stored table of `bespoke:weights=mixtures`: `exact.fit.fit_solver` over many mixtures of Gaussians at once.

    python -m benchmarks.mixtures            writes src/ebbtide/mixtures.json

No problem of benchmarks/solvers.py is among them. Each is a batch of starts of one denoiser that looks up whose start
it is asked about; samples of fewer numbers than the largest are filled up with zeros, which are always right.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.core.times import grid_times
from ebbtide.exact.fit import CLASSIC, fit_solver
from ebbtide.exact.plans import FitPlan
from ebbtide.exact.tune import reference
from ebbtide.exact.unroll import unrolled
from ebbtide.files import write_file
from ebbtide.samplers import SAMPLERS, walk
from ebbtide.samplers.bespoke import format_weights, parse_weights
from ebbtide.specs import bind

GRID = "flow_power:exponent=2"  # for it
FILE = Path(__file__).parents[1] / "src" / "ebbtide" / "mixtures.json"
DIMS, MODES, SPREADS = (1, 2, 4, 12, 32), (1, 3, 10, 30), (0.05, 0.15, 0.4)
EACH = 8  # starts
JUDGING = 24
STEPS = 60  # of gradients, where evaluations are few


@dataclass(frozen=True)
class Many:
    """The exact denoisers of many mixtures of equal modes at once; cond `which` is the number of each sample's.

    As ebbtide.exact.oracle.Mixture, with r_k ∝ w_k exp(-|x - α m_k|² / 2V), V = α² s² + σ²: x̂₀ = m̂ + α s²/V (x - α m̂).
    """

    means: Tensor  # (problem, mode, number), filled up with zeros
    log_weights: Tensor  # (problem, mode), -∞ where there is no such mode
    stds: Tensor
    path: Linear = field(default_factory=Linear)
    gaussian_end: bool = True

    def __call__(self, x: Tensor, t: Any, /, *, which: Tensor, **cond: Any) -> Estimate:
        c, means = self.path.at(t, x), self.means[which]
        variance = self.stds[which][:, None] ** 2 * c.alpha**2 + c.sigma**2
        offsets = x[:, None] - (c.alpha[..., None] if isinstance(c.alpha, Tensor) else c.alpha) * means
        logits = self.log_weights[which] - offsets.square().sum(2) / (2 * variance)
        mean = (logits.softmax(1)[:, None] @ means)[:, 0]
        x0 = mean + c.alpha * self.stds[which][:, None] ** 2 / variance * (x - c.alpha * mean)
        return Estimate(x0, (x - c.alpha * x0) / c.sigma)


def problems() -> Many:
    """Every number of dimensions, modes and spread; means from N(0, I), all scaled to variance 1."""
    kinds = list(product(DIMS, MODES, SPREADS))
    means = torch.zeros(len(kinds), max(MODES), max(DIMS), dtype=torch.float64)
    log_weights = torch.full(means.shape[:2], -math.inf, dtype=torch.float64)
    stds = torch.zeros(len(kinds), dtype=torch.float64)
    for i, (dim, modes, std) in enumerate(kinds):
        drawn = torch.randn(modes, dim, generator=torch.Generator().manual_seed(1000 + i), dtype=torch.float64)
        drawn -= drawn.mean(0)
        scale = math.sqrt(float(drawn.square().mean()) + std**2)
        means[i, :modes, :dim], stds[i], log_weights[i, :modes] = drawn / scale, std / scale, -math.log(modes)
    return Many(means, log_weights, stds)


def starts(which: Tensor, seed: int) -> Tensor:
    """Standard normal noise for each problem, with zeros for the numbers that it doesn't have."""
    start = torch.randn(len(which), max(DIMS), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    dims = torch.tensor([dim for dim, *_ in product(DIMS, MODES, SPREADS)])[which]
    start[torch.arange(max(DIMS)) >= dims[:, None]] = 0
    return start


def score(many: Many, sampler: str, times: Tensor, start: Tensor, truth: Tensor, which: Tensor) -> float:
    """The mean of log RMS + log median over all problems but single Gaussians, on which any fit is exact."""
    with torch.no_grad():
        *_, end = walk(sampler, many, start, times, cond={"which": which})
    off = (end - truth).square().sum(1).reshape(len(many.stds), -1)
    found = (off.mean(1).log() / 2 + off.median(1).values.log() / 2)[many.log_weights[:, 1].isfinite()]
    return float(found.mean()) if bool(found.isfinite().all()) else math.inf


def tables(counts: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Nodes and rows for each number of evaluations: the best of two fits and of a solver that is fitted to nothing.

    The fits: to half of the starts of all problems, and to all starts of half of the problems. Other starts choose.
    """
    many = problems()
    number = torch.arange(len(many.stds))
    which = number.repeat_interleave(JUDGING)
    fresh = starts(which, 1)
    truth, _ = reference(many, fresh, 100, {"which": which})
    made = {}
    for count in tqdm(counts, desc="tables"):
        found = []
        for own in (number.repeat_interleave(EACH), number.repeat(EACH)):
            spent = FitPlan(len(own), 0, len(own), 32, 12)
            (one,) = fit_solver(many, starts(own, 0), [count], plan=spent, joint=STEPS, cond={"which": own})
            found.append((one.sampler, grid_times(one.grid, count, many.path)))
        times, rows = unrolled(bind(SAMPLERS, CLASSIC, "sampler"), many.path, grid_times(GRID, count, many.path), count)
        found.append((f"bespoke:weights={format_weights(rows)}" if count > 1 else "bespoke", times))
        scores = [score(many, sampler, times, fresh, truth, which) for sampler, times in found]
        sampler, times = found[scores.index(min(scores))]
        rows = parse_weights(sampler.partition("weights=")[2], count) if count > 1 else [[1.0]]
        made[count] = {"nodes": times.tolist(), "rows": [[float(f"{w:.10g}") for w in row] for row in rows]}
        print(count, [f"{math.exp(score / 2):.2g}" for score in scores])
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=list(range(1, 21)))
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_file(arguments.out, (json.dumps(tables(arguments.counts)) + "\n").encode())
