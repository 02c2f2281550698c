"""ebbtide's U-Net beside diffusers' UNet2DModel: the same architecture and weights, pictures a second, and memory.

    python -m benchmarks.unet            the table of RESULTS.md: google/ddpm-cifar10-32's shape, batch 32
    python -m benchmarks.unet --quick    batch 4, no compilation, no memory; prints only

All rows take turns, so that a busy machine slows them alike. A step of training is the noise's mean squared error, its
gradient and Adam; sampling is one evaluation of the network. On one thread CPU time counts, else the clock on the wall.
"""

import argparse
import contextlib
import copy
import datetime
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ebbtide.errors import EbbtideError, InputError
from ebbtide.interop.unet import load_unet
from ebbtide.networks import fused

from .pages import cpu_name, write_section

TIMESTEPS = 1000
MODES = ("training", "sampling")
SHAPES = {
    "ddpm-cifar10-32": {
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "attention_head_dim": None,
        "norm_eps": 1e-6,
        "norm_num_groups": 32,
    },
    "tiny": {
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": None,
        "norm_eps": 1e-6,
        "norm_num_groups": 16,
    },
}


@dataclass(frozen=True)
class Row:
    """One way to run one library's network. native: with ebbtide's own compiled kernels, where they serve."""

    library: str
    last: bool = False
    bf16: bool = False
    compiled: bool = False
    native: bool = True

    @property
    def name(self) -> str:
        options = [("channels_last", self.last), ("bf16", self.bf16), ("compile", self.compiled)]
        options.append(("torch's kernels", not self.native))
        return ", ".join([self.library, *(name for name, on in options if on)])


DEFAULT = Row("diffusers")


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    rows: tuple[Row, ...]
    shape: str = "ddpm-cifar10-32"
    batch: int = 32
    repeats: int = 5
    device: str = "cpu"
    memory: bool = True


@dataclass
class Results:
    """What `measure` found, by a row's name."""

    plan: Plan
    threads: int
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # row → mode → the least over the rounds
    ratio: dict[str, dict[str, float]] = field(default_factory=dict)  # row → mode → median over rounds of × the default
    error: dict[str, float] = field(default_factory=dict)  # row → max |ŷ - the default's| / max |ŷ|
    memory: dict[str, float] = field(default_factory=dict)  # row → MiB that training adds at its peak


class Ours(nn.Module):
    """An ebbtide network that is told diffusers' timesteps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.network(x, (timestep + 1) / TIMESTEPS)


class Theirs(nn.Module):
    """A diffusers network that answers with the tensor alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.network(x, timestep, return_dict=False)[0]


def networks(shape: str) -> dict[str, nn.Module]:
    """The same random weights in both libraries."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    settings = {"flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0, "mid_block_scale_factor": 1}
    theirs = UNet2DModel(**SHAPES[shape], **settings)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_unet(folder).network
    return {"diffusers": Theirs(theirs), "ebbtide": Ours(ours)}


def rows(device: str, compiled: bool) -> tuple[Row, ...]:
    """Each library's default, then its variants: bf16 where that is fast here, compiled where there is a compiler.

    ebbtide's own is channels_last.
    """
    found = []
    for library, layouts in (("diffusers", (False, True)), ("ebbtide", (True,))):
        for last in layouts:
            for bf16 in (False, True) if fused.fast_bf16(device) else (False,):
                found += [
                    Row(library, last, bf16, with_compile) for with_compile in ((False, True) if compiled else (False,))
                ]
    if device == "cpu" and fused.native():
        found.append(Row("ebbtide", last=True, native=False))
    return tuple(found)


class Contender:
    """A row ready to run: its network, its batch, its optimiser."""

    def __init__(self, row: Row, network: nn.Module, plan: Plan) -> None:
        self.row, self.device = row, torch.device(plan.device)
        network = copy.deepcopy(network).to(self.device).train()
        generator = torch.Generator().manual_seed(0)
        shape = (plan.batch, 3, *(SHAPES[plan.shape]["sample_size"],) * 2)
        x, noise = (torch.randn(shape, generator=generator).to(self.device) for _ in range(2))
        self.timestep = torch.randint(0, TIMESTEPS, (plan.batch,), generator=generator).to(self.device)
        kind = torch.channels_last if row.last else torch.contiguous_format
        self.x, self.noise = x.to(memory_format=kind), noise.to(memory_format=kind)
        self.network = network.to(memory_format=kind)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-6)
        self.call: Callable[[Tensor, Tensor], Tensor] = torch.compile(self.network) if row.compiled else self.network

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.row.bf16:
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            if not self.row.native:
                stack.enter_context(patch.object(fused, "_library", lambda: None))
            yield

    def training(self) -> None:
        with self.context():
            loss = F.mse_loss(self.call(self.x, self.timestep).float(), self.noise)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def sampling(self) -> Tensor:
        with self.context():
            return self.call(self.x, self.timestep).float()

    def seconds(self, mode: str) -> float:
        """Of one run."""
        clock = time.process_time if self.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        getattr(self, mode)()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start


def measure(plan: Plan) -> Results:
    """Warm every row up, then let all take turns."""
    results, started = Results(plan, torch.get_num_threads()), networks(plan.shape)
    contenders = {row.name: Contender(row, started[row.library], plan) for row in plan.rows}
    bar = tqdm(total=len(contenders) * (plan.repeats + 1 + plan.memory), unit="run", dynamic_ncols=True, desc="warm-up")
    expected = contenders[DEFAULT.name].sampling()
    for name, contender in contenders.items():
        results.error[name] = float((contender.sampling() - expected).abs().max() / expected.abs().max())
        contender.training()
        bar.update()
    bar.set_description("rounds")
    times: dict[str, dict[str, list[float]]] = {name: {mode: [] for mode in MODES} for name in contenders}
    for _ in range(plan.repeats):
        for name, contender in contenders.items():
            for mode in MODES:
                times[name][mode].append(contender.seconds(mode))
            bar.update()
    for name, of in times.items():
        base = times[DEFAULT.name]
        results.seconds[name] = {mode: min(of[mode]) for mode in MODES}
        results.ratio[name] = {mode: statistics.median(b / s for b, s in zip(base[mode], of[mode])) for mode in MODES}
    del contenders
    for row in plan.rows if plan.memory else ():
        bar.set_description("memory")
        results.memory[row.name] = peak(row, plan)
        bar.update()
    bar.close()
    return results


def peak(row: Row, plan: Plan) -> float:
    """MiB that two steps of training add at most, network and optimiser included: in a process of its own on a CPU."""
    if torch.device(plan.device).type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        added(row, plan)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    code = (
        "import json, sys, torch; from benchmarks import unet; plan, threads = json.loads(sys.argv[1]); "
        "torch.set_num_threads(threads); row = unet.Row(**plan.pop('rows')[0]); "
        "print(unet.resident(row, unet.Plan((row,), **plan)))"
    )
    given = json.dumps([asdict(replace(plan, rows=(row,))), torch.get_num_threads()])
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, given], cwd=root, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def added(row: Row, plan: Plan) -> None:
    contender = Contender(row, networks(plan.shape)[row.library], plan)
    for _ in range(2):
        contender.training()


def resident(row: Row, plan: Plan) -> float:
    """What `peak` runs there: MiB of memory at the most, less what imports took; NaN where the system doesn't tell."""
    import diffusers.models  # noqa: F401

    before = most()
    added(row, plan)
    return most() - before


def most() -> float:
    """MiB of memory that this process has had at its peak: Linux's own count, as getrusage's begins at the parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        return math.nan


def report(results: Results, command: str) -> str:
    """The section of RESULTS.md."""
    plan = results.plan
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ebbtide", "diffusers"))
    machine = torch.cuda.get_device_name() if plan.device.startswith("cuda") else cpu_name()
    threads = "one thread" if results.threads == 1 else f"{results.threads} threads"
    lines = [
        "# U-Net: ebbtide beside diffusers",
        "",
        f"`{command}` on {datetime.date.today()}: {machine}, {threads}, Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch').partition('+')[0]}; {versions}.",
        "",
        f"{plan.shape}, batch {plan.batch}, the same weights; bf16 is {'' if has_bf16(plan) else 'not '}fast here. "
        f"Training: loss, gradient, Adam. Sampling: one evaluation. The fastest of {plan.repeats} rounds, in which all "
        "take turns; × is the median of each round's own ratio to diffusers' default. Error: of the output, to that "
        "default's, over its largest entry. Memory: what training adds to the process at its peak.",
        "",
        *summary(results),
        "| | training, images/s | × | sampling, images/s | × | error | memory, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, seconds in results.seconds.items():
        cells = []
        for mode in MODES:
            cells += [f"{plan.batch / seconds[mode]:.3g}", f"{results.ratio[name][mode]:.2f}"]
        mib = results.memory.get(name, math.nan)
        memory = "" if math.isnan(mib) else f"{mib:.0f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {results.error[name]:.1g} | {memory} |")
    return "\n".join(lines) + "\n"


def has_bf16(plan: Plan) -> bool:
    return any(row.bf16 for row in plan.rows)


def best(results: Results, library: str, mode: str) -> str:
    """The name of the library's fastest row."""
    names = [row.name for row in results.plan.rows if row.library == library]
    return max(names, key=lambda name: results.ratio[name][mode])


def summary(results: Results) -> list[str]:
    """ebbtide's best beside diffusers' default and best, in a paragraph."""
    parts = []
    for mode in MODES:
        ours, theirs = best(results, "ebbtide", mode), best(results, "diffusers", mode)
        times = results.ratio[ours][mode]
        beside = times / results.ratio[theirs][mode]
        parts.append(
            f"In {mode} {ours} is {times:.2f} × as fast as diffusers' default and {beside:.2f} × as its best, {theirs}."
        )
    return [" ".join(parts), ""]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and (unless --quick) write RESULTS.md and unet.json beside this file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unet", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batch 4, no compilation, no memory; print only")
    parser.add_argument("--batch", type=int, help="pictures a step (32)")
    parser.add_argument("--repeats", type=int, help="rounds (5)")
    parser.add_argument("--shape", choices=SHAPES, default="ddpm-cifar10-32", help="of the network")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md and unet.json")
    args = parser.parse_args(argv)
    for name, value in (("batch", args.batch), ("repeats", args.repeats)):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1; got {value}.")
    compiler = bool(shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))
    compiled = compiler and not args.no_compile and not args.quick
    batch, repeats = args.batch or (4 if args.quick else 32), args.repeats or (2 if args.quick else 5)
    plan = Plan(rows(args.device, compiled), args.shape, batch, repeats, args.device, memory=not args.quick)
    results = measure(plan)
    text = report(results, " ".join(["python -m benchmarks.unet", *(sys.argv[1:] if argv is None else argv)]))
    out = args.out or (None if args.quick else Path(__file__).parent)
    if out:
        write_section(out / "RESULTS.md", "unet", text)
        (out / "unet.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except EbbtideError as error:
        sys.exit(f"benchmarks.unet: {error}")
