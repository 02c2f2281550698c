"""Image sets on the disk: the cost of preparing them, and training on them beside training on the same set in memory.

    python -m benchmarks.scale                       the table of RESULTS.md: 100,000 images of 64 × 64, 1.2 GB
    python -m benchmarks.scale --images 2000         less; prints only unless --out is given

The images are smooth noise as PNG files. Preparing is held against decoding them into memory, without any cache. Blocks
of training steps, from memory and from the disk, take turns, so that a busy machine slows them alike. Each memory is
that of a process with this task alone.
"""

import argparse
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ebbtide.data.images import load_images
from ebbtide.data.place import settled_on
from ebbtide.kinds.images.data import prepare
from ebbtide.recipes import ImageRecipe, flow_images
from ebbtide.training.build import build_denoiser
from ebbtide.training.devices import accelerate
from ebbtide.training.trainer import Trainer

from .pages import cpu_name, write_section

SIDE = 64
NETWORKS = {"unet-tiny:width=8,attention=0-0": 64, "unet-tiny:width=16": 16}  # and the batch
WAYS = ("device", "disk")


def make_images(folder: Path, n: int) -> None:
    """n images, in folders of a thousand; those that are there stay."""
    rng = np.random.default_rng(0)
    for k in tqdm(range(n), "drawing", leave=False):
        file = folder / f"{k // 1000:04d}" / f"{k:07d}.png"
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, compress_level=1)


def a_recipe(folder: Path, network: str = "unet-tiny:width=8,attention=0-0", batch: int = 64) -> ImageRecipe:
    return replace(flow_images(), data=str(folder), network=network, batch=batch, steps=10**6)


def a_trainer(recipe: ImageRecipe, way: str) -> Trainer:
    prepared = prepare(recipe, data_on=way)
    accelerator = accelerate(device="cpu")
    data = settled_on(prepared.data, accelerator.device, way)
    return Trainer(build_denoiser(recipe, prepared.shape, 0, None), data, recipe, accelerator)


def alone(task: str, folder: Path) -> dict[str, float]:
    """A task in a process of its own: seconds, CPU seconds, peak memory in MB before and after."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    wall, cpu = time.perf_counter(), time.process_time()
    if task == "decode":
        load_images(str(folder), cache=False, progress=False)
    elif task == "prepare":
        load_images(str(folder), on_disk=True, progress=False)
    else:
        trainer = a_trainer(a_recipe(folder), task)
        for _, _ in zip(range(20), trainer.steps()):
            pass
    spent = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "before": before}
    return spent | {"after": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def in_process(task: str, folder: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.scale", "--task", task, "--folder", str(folder)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in (pair.split("=") for pair in done.stdout.split())}


def rates(folder: Path, blocks: int, seconds: float) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """For each network the examples per second of every block, by the way."""
    for network, batch in NETWORKS.items():
        runs = {way: a_trainer(a_recipe(folder, network, batch), way).steps() for way in WAYS}
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for k in tqdm(range(blocks + 1), network, leave=False):
            for way in WAYS if k % 2 else WAYS[::-1]:
                count, began = 0, time.perf_counter()
                while time.perf_counter() - began < seconds:
                    next(runs[way])
                    count += batch
                if k:  # the first warms up
                    found[way].append(count / (time.perf_counter() - began))
        yield network, found


def table(n: int, folder: Path, cache: Path, blocks: int, seconds: float) -> str:
    made = {task: in_process(task, folder) for task in ("decode", "prepare", *WAYS)}
    size = sum(file.stat().st_size for file in cache.glob("pictures-*/*.safetensors"))
    lines = [
        f"{n:,} images of {SIDE} × {SIDE} as PNG files, {size / 1e9:.3g} GB decoded; {cpu_name()}, {os.cpu_count()} "
        f"cores, torch {torch.__version__}, Python {platform.python_version()}, {datetime.date.today()}.",
        "",
        "| | seconds | CPU s | peak MB | of these before |",
        "|---|---|---|---|---|",
    ]
    names = {
        "decode": "decode into memory", "prepare": "prepare on the disk", "device": "train 20 steps from memory",
        "disk": "train 20 steps from the disk",
    }  # fmt: skip
    for task, row in made.items():
        lines.append(
            f"| {names[task]} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['after']:,.0f} | {row['before']:,.0f} |"
        )
    ratios = [made["prepare"][key] / made["decode"][key] for key in ("seconds", "cpu")]
    lines += [
        "",
        f"Preparing takes {ratios[0]:.2f} × the time, {ratios[1]:.2f} × the CPU time, of decoding.",
        "",
        "| network | batch | examples/s from memory | from the disk | disk : memory, median of blocks (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for network, found in rates(folder, blocks, seconds):
        of = sorted(b / a for a, b in zip(found["device"], found["disk"], strict=True))
        low, middle, high = statistics.quantiles(of, n=4)
        each = " | ".join(f"{statistics.median(found[way]):,.0f}" for way in WAYS)
        lines.append(f"| {network} | {NETWORKS[network]} | {each} | {middle:.3f} ({low:.3f}–{high:.3f}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000, help="number of images")
    parser.add_argument("--folder", type=Path, help="a folder for the images, kept for the next time")
    parser.add_argument("--blocks", type=int, default=15, help="blocks of steps for each way")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a block")
    parser.add_argument("--out", type=Path, help="folder of RESULTS.md, to which the table is written")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.task:
        print(*(f"{name}={value}" for name, value in alone(given.task, given.folder).items()))
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = given.folder or Path(name) / "images"
        os.environ["EBBTIDE_CACHE"] = str(Path(name) / "cache")
        make_images(folder, given.images)
        text = table(given.images, folder, Path(name) / "cache", given.blocks, given.seconds)
    print(text)
    if given.out:
        write_section(given.out / "RESULTS.md", "scale", f"## Data on the disk\n\n{text}")


if __name__ == "__main__":
    main()
