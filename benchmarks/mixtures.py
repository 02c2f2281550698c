"""The stored table of `bespoke:weights=mixtures`: `ebbflow.solver.fit` over many mixtures of Gaussians at once.

    python -m benchmarks.mixtures            writes src/ebbflow/mixtures.json

No problem of benchmarks/solvers.py is among them. Each is a batch of starts of one denoiser that looks up whose start
it is asked about; samples of fewer numbers than the largest are filled up with zeros, which are always right.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ebbflow.files import write_file
from ebbflow.oracle import Mixture, mixture
from ebbflow.paths import Linear
from ebbflow.samplers.bespoke import parse_weights
from ebbflow.solver import JOINT, Plan, fit
from ebbflow.targets import Estimate
from ebbflow.times import grid_times

FILE = Path(__file__).parents[1] / "src" / "ebbflow" / "mixtures.json"
DIMS, MODES, SPREADS = (1, 2, 4, 12, 32), (1, 3, 10, 30), (0.05, 0.15, 0.4)
EACH = 8  # starts
JOINT_STEPS = 60  # of gradients, where evaluations are few


@dataclass(frozen=True)
class Many:
    """The denoisers of many mixtures; cond `which` is the number of each sample's."""

    parts: Sequence[Mixture]
    path: Linear = field(default_factory=Linear)
    gaussian_end: bool = True

    def __call__(self, x: Tensor, t: Any, /, *, which: Tensor, **cond: Any) -> Estimate:
        x0, noise = torch.zeros_like(x), x / self.path.at(t, x).sigma
        for i, part in enumerate(self.parts):
            rows, dim = which == i, part.means.shape[1]
            if bool(rows.any()):
                estimate = part(x[rows][:, :dim], t[rows] if isinstance(t, Tensor) else t)
                x0[rows, :dim], noise[rows, :dim] = estimate.x0, estimate.noise
        return Estimate(x0, noise)


def problems() -> list[Mixture]:
    """Every number of dimensions, modes and spread; means from N(0, I), all scaled to variance 1."""
    made = []
    for seed, (dim, modes, std) in enumerate((d, m, s) for d in DIMS for m in MODES for s in SPREADS):
        means = torch.randn(modes, dim, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)
        scale = math.sqrt(float((means - means.mean(0)).square().mean()) + std**2)
        made.append(mixture(Linear(), (means - means.mean(0)) / scale, std / scale))
    return made


def tables(counts: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Nodes and rows for each number of evaluations."""
    many = Many(problems())
    which = torch.arange(len(many.parts)).repeat(EACH)
    start = torch.randn(len(which), max(DIMS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row, i in enumerate(which.tolist()):
        start[row, many.parts[i].means.shape[1] :] = 0
    made = {}
    for count in tqdm(counts, desc="tables"):
        spent = Plan(len(start), 0, len(start), 32, 12)
        (found,) = fit(many, start, [count], plan=spent, joint=JOINT_STEPS * (count <= JOINT), cond={"which": which})
        rows = parse_weights(found.sampler.partition("weights=")[2], count) if count > 1 else [[1.0]]
        nodes = grid_times(found.grid, count, many.path).tolist()
        made[count] = {"nodes": nodes, "rows": [[float(f"{w:.10g}") for w in row] for row in rows]}
        print(f"{count}: RMS {found.rms:.2g}, median {found.median:.2g}, largest weight", end=" ")
        print(f"{max(abs(w) for row in rows for w in row):.3g}")
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=list(range(1, 21)))
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_file(arguments.out, (json.dumps(tables(arguments.counts)) + "\n").encode())
