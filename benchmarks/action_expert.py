"""What π0's cache is worth: ms per chunk with the prefix run once, and with the prefix run at every step.

    python -m benchmarks.action_expert                    several sizes, and 500 chunks for memory
    python -m benchmarks.action_expert --chunks 10000     memory after ten thousand chunks
    python -m benchmarks.action_expert --device cuda --size pi0    PaliGemma 3B and 300 M, random, bf16

Same weights, same observation, ten Euler steps; the two take turns, so that a busy machine slows both alike. On one
thread CPU time counts, else the clock on the wall.
"""

import argparse
import datetime
import gc
import json
import math
import os
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import EbbtideError, InputError
from ebbtide.networks.action_expert import ActionExpert
from ebbtide.networks.paligemma import paligemma_expert
from ebbtide.samplers import sample

from .pages import cpu_name, write_section

STEPS = 10
SIZES: dict[str, dict[str, Any]] = {  # horizon, images and prompt, and the options of an ActionExpert
    "tiny": {"width": 64, "depth": 2, "heads": 2},
    "default": {},
    "wide prefix": {"prefix_width": 256},
    "pi05": {"variant": "pi05"},
    "two cameras": {"images": (2, 192, 192, 3)},
    "long chunk": {"horizon": 50},
    "pi0, an eighth": {  # as wide; a third of the depth
        "horizon": 50, "images": (3, 256, 256, 3), "prompt": (48,), "width": 128, "hidden": 512, "prefix_width": 256,
        "prefix_hidden": 2048, "depth": 6, "heads": 8,
    },
    "no images": {"images": (), "prompt": ()},
}  # fmt: skip


@dataclass
class Times:
    """Of one size: ms per chunk, one entry a round."""

    horizon: int
    prefix: int  # tokens
    parameters: int
    cached: list[float] = field(default_factory=list)
    recomputed: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(b / a for a, b in zip(self.cached, self.recomputed))


def network(size: str, device: str) -> tuple[nn.Module, tuple[int, int], dict[str, Tensor]]:
    """A network with random weights, the shape of a chunk, and an observation."""
    torch.manual_seed(0)
    if size == "pi0":
        shape = (50, 32)
        shapes: dict[str, tuple[int, ...]] = {"state": (1, 32), "images": (3, 224, 224, 3), "prompt": (48,)}
        with torch.device(device):
            made = paligemma_expert(*shape, observation=shapes, weights="").bfloat16()
    else:
        options = {"horizon": 16, "images": (3, 192, 192, 3), "prompt": (32,)} | SIZES[size]
        shape = (options.pop("horizon"), 7)
        shapes = {"state": (2, 14), "images": options.pop("images"), "prompt": options.pop("prompt")}
        shapes = {name: part for name, part in shapes.items() if part}
        made = ActionExpert(*shape, observation=shapes, **options)
    nn.init.normal_(made.out.weight, std=0.02)  # it starts at 0
    seen = {"state": torch.randn(1, *shapes["state"])}
    if "images" in shapes:
        seen["images"] = torch.randint(0, 256, (1, *shapes["images"]), dtype=torch.uint8)
        seen["prompt"] = torch.randint(1, 257, (1, *shapes["prompt"]))
    return made.eval().to(device), shape, {name: part.to(device) for name, part in seen.items()}


class Contender:
    """A network that makes chunks of one observation."""

    def __init__(self, size: str, device: str = "cpu") -> None:
        made, self.shape, self.seen = network(size, device)
        self.denoiser, self.device = Denoiser(made, Linear(), "velocity").eval(), torch.device(device)
        tokens = self.context()["memory"][0][0].shape[2]
        self.times = Times(self.shape[0], tokens, sum(p.numel() for p in made.parameters()))

    @torch.no_grad()
    def context(self) -> dict[str, Any]:
        return self.denoiser.network.context(**self.seen)

    def chunk(self, cached: bool = True) -> Tensor:
        cond = {"context": self.context()} if cached else self.seen
        draws = Draws(0, torch.arange(1, device=self.device))
        return sample(self.denoiser, self.shape, draws=draws, steps=STEPS, sampler="euler", **cond)

    def ms(self, cached: bool) -> float:
        clock = time.process_time if self.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        self.chunk(cached).sum().item()  # waits for the device
        return 1e3 * (clock() - start)


def measure(sizes: Sequence[str], rounds: int, device: str) -> dict[str, Times]:
    """Let the two ways take turns, size by size."""
    results = {}
    bar = tqdm(total=len(sizes) * rounds, unit="round", dynamic_ncols=True, disable=not sys.stderr.isatty())
    for size in sizes:
        bar.set_description(size)
        contender = Contender(size, device)
        torch.testing.assert_close(contender.chunk(True), contender.chunk(False), rtol=0, atol=1e-4)
        for _ in range(rounds):
            contender.times.cached.append(contender.ms(True))
            contender.times.recomputed.append(contender.ms(False))
            bar.update()
        results[size] = contender.times
    bar.close()
    return results


def growth(chunks: int) -> tuple[float, float]:
    """KiB that Python holds, and that the process has, more after so many chunks of a very small network."""
    torch.manual_seed(0)
    shapes = {"state": (1, 4)}
    made = ActionExpert(4, 2, observation=shapes, width=8, depth=1, heads=1, head=4).eval()
    denoiser, state = Denoiser(made, Linear(), "velocity"), torch.zeros(1, 1, 4)
    with torch.no_grad():

        def run(count: int) -> None:
            for i in range(count):
                draws = Draws(0, torch.tensor([i]))
                sample(denoiser, (4, 2), draws=draws, steps=STEPS, sampler="euler", context=made.context(state=state))

        run(max(20, chunks // 10))  # what is kept once: caches, the allocator's arenas
        gc.collect()
        tracemalloc.start()
        run(10)
        before, resident = tracemalloc.get_traced_memory()[0], kib()
        run(chunks)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    return (after - before) / 2**10, kib() - resident


def kib() -> float:
    """Of memory that this process has now; NaN where the system doesn't tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**10
    except OSError:
        return math.nan


def report(results: dict[str, Times], grown: tuple[int, float, float] | None, command: str, device: str) -> str:
    """The section of RESULTS.md."""
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name()
    threads, rounds = torch.get_num_threads(), len(next(iter(results.values())).cached)
    lines = [
        "# The action expert: a cached prefix",
        "",
        f"`{command}` on {datetime.date.today()}: {machine}, {threads} thread{'s' * (threads > 1)}, "
        f"Python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}.",
        "",
        f"ms per chunk of one observation, {STEPS} Euler steps, the prefix's keys and values computed once or at every "
        f"step: median (95 %) over {rounds} rounds that take turns. ×: the median of each round's ratio. On one thread "
        "CPU time counts, else the clock on the wall.",
        "",
        "| | actions | prefix tokens | parameters | cached | recomputed | × |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for size, times in results.items():
        cells = [f"{statistics.median(ms):.1f} ({p95(ms):.1f})" for ms in (times.cached, times.recomputed)]
        counts = f"{times.horizon} | {times.prefix} | {times.parameters / 1e6:.2f} M"
        lines.append(f"| {size} | {counts} | {' | '.join(cells)} | {times.ratio:.1f} |")
    if grown:
        chunks, held, resident = grown
        grew = f"Python holds {held:+.1f} KiB, the process {resident:+.0f} KiB."
        lines += ["", f"After {chunks:,} chunks of a very small network {grew}"]
    return "\n".join(lines) + "\n"


def p95(ms: Sequence[float]) -> float:
    return sorted(ms)[math.ceil(0.95 * len(ms)) - 1]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and with --out write RESULTS.md and action_expert.json there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.action_expert", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=(*SIZES, "pi0"), action="append", help="one or more (all but pi0)")
    parser.add_argument("--rounds", type=int, default=3, help="of each size (3)")
    parser.add_argument("--chunks", type=int, default=500, help="of the very small one, for memory; 0 is none (500)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md and action_expert.json")
    args = parser.parse_args(argv)
    for name, value, low in (("rounds", args.rounds, 1), ("chunks", args.chunks, 0)):
        if value < low:
            raise InputError(f"--{name} must be at least {low}; got {value}.")
    results = measure(args.size or list(SIZES), args.rounds, args.device)
    grown = (args.chunks, *growth(args.chunks)) if args.chunks else None
    command = " ".join(["python -m benchmarks.action_expert", *(sys.argv[1:] if argv is None else argv)])
    text = report(results, grown, command, args.device)
    if args.out:
        write_section(args.out / "RESULTS.md", "action_expert", text)
        stored = {"sizes": {size: asdict(times) for size, times in results.items()}, "grown": grown}
        (args.out / "action_expert.json").write_text(json.dumps(stored, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except EbbtideError as error:
        sys.exit(f"benchmarks.action_expert: {error}")
