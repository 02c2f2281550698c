"""Sets on the disk: the cost of preparing them, and training on them beside training on the same set in memory.

    python -m benchmarks.scale                       the table of RESULTS.md: 100,000 images of 64 × 64, 1.2 GB
    python -m benchmarks.scale episodes              that of a robot's: 2,000 episodes of 400 steps, 60 columns, 0.19 GB
    python -m benchmarks.scale --n 2000              less; prints only unless --out is given

The images are smooth noise as PNG files, the episodes random walks in a .npz. Preparing is held against reading them
into memory, without any cache. Blocks of training steps, from memory and from the disk, take turns, so that a busy
machine slows them alike. Each memory is that of a process with this task alone.
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ebbtide.data.images import load_images
from ebbtide.data.place import settled_on
from ebbtide.kinds.images import data as images
from ebbtide.kinds.robots import data as robots
from ebbtide.kinds.robots.source import load_episodes, open_episodes
from ebbtide.recipes import Recipe, flow_images, flow_policy
from ebbtide.training.build import build_denoiser
from ebbtide.training.devices import accelerate
from ebbtide.training.trainer import Trainer

from .pages import cpu_name, write_section

SIDE = 64
STEPS, STATE, ACTION = 400, 46, 14  # of an episode, and the columns of a state and an action
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


def make_episodes(folder: Path, n: int) -> None:
    """A .npz of n episodes; one that is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if not recording(folder).exists():
        walks = np.random.default_rng(0).standard_normal((n, STEPS, STATE + ACTION), np.float32).cumsum(1)
        rows = walks.reshape(n * STEPS, -1)
        ends = STEPS * np.arange(1, n + 1)
        np.savez(recording(folder), state=rows[:, :STATE], action=rows[:, STATE:], episode_ends=ends)


def recording(folder: Path) -> Path:
    return folder / "episodes.npz"


class Subject(NamedTuple):
    """A set that is measured: made of n, read into memory, prepared on the disk, and learned by networks at a batch."""

    about: str
    n: int
    make: Callable[[Path, int], None]
    read: Callable[[Path], object]
    keep: Callable[[Path], object]
    recipe: Callable[[Path], Recipe]
    prepare: Callable[..., Any]
    networks: Mapping[str, int]
    heading: str


SUBJECTS = {
    "images": Subject(
        f"images of {SIDE} × {SIDE} as PNG files", 100_000, make_images,
        lambda folder: load_images(str(folder), cache=False, progress=False),
        lambda folder: load_images(str(folder), on_disk=True, progress=False),
        lambda folder: replace(flow_images(), data=str(folder)), images.prepare,
        {"unet-tiny:width=8,attention=0-0": 64, "unet-tiny:width=16": 16}, "Images on the disk",
    ),
    "episodes": Subject(
        f"episodes of {STEPS} steps, {STATE} columns of state and {ACTION} of action, in a .npz", 2000, make_episodes,
        lambda folder: load_episodes(str(recording(folder))),
        lambda folder: open_episodes(str(recording(folder))).read(cache=True, on_disk=True, progress=False),
        lambda folder: replace(flow_policy(), data=str(recording(folder)), n_obs_steps=2), robots.prepare,
        {"action_unet:width=16,emb=32": 256, "action_unet": 256}, "Episodes on the disk",
    ),
}  # fmt: skip


def a_trainer(subject: Subject, folder: Path, network: str, way: str) -> Trainer:
    recipe = replace(subject.recipe(folder), network=network, batch=subject.networks[network], steps=10**6)
    made = subject.prepare(recipe, data_on=way)
    accelerator = accelerate(device="cpu")
    data = settled_on(made.data, accelerator.device, way)
    return Trainer(build_denoiser(recipe, made.shape, 0, made.observation), data, recipe, accelerator)


def alone(subject: Subject, task: str, folder: Path, n: int) -> dict[str, float]:
    """A task in a process of its own: seconds, CPU seconds, peak memory in MB before and after."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    wall, cpu = time.perf_counter(), time.process_time()
    if task == "make":
        subject.make(folder, n)
    elif task == "decode":
        subject.read(folder)
    elif task == "prepare":
        subject.keep(folder)
    else:
        trainer = a_trainer(subject, folder, next(iter(subject.networks)), task)
        for _, _ in zip(range(20), trainer.steps()):
            pass
    spent = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "before": before}
    return spent | {"after": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def in_process(what: str, task: str, folder: Path, n: int) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.scale", what, "--task", task, "--folder", str(folder), "--n", str(n)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in (pair.split("=") for pair in done.stdout.split())}


def rates(
    subject: Subject, folder: Path, blocks: int, seconds: float
) -> Iterator[tuple[str, dict[str, list[tuple[float, float]]]]]:
    """For each network the examples per second, and per second of CPU time, of every block, by the way."""
    for network, batch in subject.networks.items():
        runs = {way: a_trainer(subject, folder, network, way).steps() for way in WAYS}
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for k in tqdm(range(blocks + 1), network, leave=False):
            for way in WAYS if k % 2 else WAYS[::-1]:
                count, began, cpu = 0, time.perf_counter(), time.process_time()
                while time.perf_counter() - began < seconds:
                    next(runs[way])
                    count += batch
                if k:  # the first warms up
                    found[way].append((count / (time.perf_counter() - began), count / (time.process_time() - cpu)))
        yield network, found


def table(what: str, n: int, folder: Path, cache: Path, blocks: int, seconds: float) -> str:
    subject = SUBJECTS[what]
    made = {task: in_process(what, task, folder, n) for task in ("decode", "prepare", *WAYS)}
    size = sum(file.stat().st_size for file in cache.glob("*/*.safetensors"))
    lines = [
        f"`python -m benchmarks.scale {what}`: {n:,} {subject.about}, {size / 1e9:.3g} GB on the disk; {cpu_name()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{datetime.date.today()}.",
        "",
        "| | seconds | CPU s | peak MB | of these before |",
        "|---|---|---|---|---|",
    ]
    names = {
        "decode": "read into memory", "prepare": "prepare on the disk", "device": "train 20 steps from memory",
        "disk": "train 20 steps from the disk",
    }  # fmt: skip
    for task, row in made.items():
        lines.append(
            f"| {names[task]} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['after']:,.0f} | {row['before']:,.0f} |"
        )
    slower = [made["prepare"][key] / made["decode"][key] for key in ("seconds", "cpu")]
    lines += [
        "",
        f"Preparing takes {slower[0]:.2f} × the time, {slower[1]:.2f} × the CPU time, of reading.",
        "",
        "The rates from the disk to those from memory are medians of blocks (quartiles).",
        "",
        "| network | batch | examples/s from memory | from the disk | disk : memory | of CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for network, found in rates(subject, folder, blocks, seconds):
        ratios = []
        for k in range(2):
            of = [disk[k] / memory[k] for memory, disk in zip(found["device"], found["disk"], strict=True)]
            low, middle, high = statistics.quantiles(of, n=4)
            ratios.append(f"{middle:.3f} ({low:.3f}–{high:.3f})")
        each = " | ".join(f"{statistics.median(rate for rate, _ in found[way]):,.0f}" for way in WAYS)
        lines.append(f"| {network} | {subject.networks[network]} | {each} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=SUBJECTS, default="images", help="the set")
    parser.add_argument("--n", type=int, help="number of images or episodes")
    parser.add_argument("--folder", type=Path, help="a folder for the set, kept for the next time")
    parser.add_argument("--blocks", type=int, default=15, help="blocks of steps for each way")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a block")
    parser.add_argument("--out", type=Path, help="folder of RESULTS.md, to which the table is written")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    subject = SUBJECTS[given.what]
    n = given.n or subject.n
    torch.set_num_threads(1)
    if given.task:
        print(*(f"{name}={value}" for name, value in alone(subject, given.task, given.folder, n).items()))
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = given.folder or Path(name) / given.what
        os.environ["EBBTIDE_CACHE"] = str(Path(name) / "cache")
        in_process(given.what, "make", folder, n)
        text = table(given.what, n, folder, Path(name) / "cache", given.blocks, given.seconds)
    print(text)
    if given.out:
        section = "scale" if given.what == "images" else f"scale-{given.what}"
        write_section(given.out / "RESULTS.md", section, f"# {subject.heading}\n\n{text}")


if __name__ == "__main__":
    main()
