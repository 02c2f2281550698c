"""ebbflow sample RUN: draw from a trained run, to a file and a picture."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..errors import InputError
from .arguments import at_least, parse, threads

if TYPE_CHECKING:
    from torch import Tensor

    from ..trained import Trained


@dataclass(frozen=True)
class Drawing:
    """How to draw samples; sampler, grid and steps are the recipe's unless given."""

    n: int = 10_000
    """How many samples."""
    seed: int = 0
    """Sample i depends on (seed, i) alone, whatever n is."""
    sampler: str = ""
    """ddpm, ddim, euler or heun, with options as in ddim:eta=0.5 or ddpm:variance=beta."""
    grid: str = ""
    """uniform, log_snr, karras, quadratic, shifted or trailing, with options as in karras:rho=5."""
    steps: int = 0
    """Number of sampling steps."""
    label: str = ""
    """Draw this class only (name or number), from a conditional run; "all" draws every class in turn."""
    guidance: float = 1.0
    """Classifier-free guidance weight; 1 is off."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance acts."""
    threads: int = 0
    """Threads of torch; 0 picks one for a small network."""

    def __post_init__(self) -> None:
        at_least(self, n=1, seed=0, steps=0, threads=0)


@dataclass(frozen=True)
class Sample:
    """Draw samples from a run, an exported folder or a hub repository; write a .npy or .csv file and a picture."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    out: str = ""
    """.npy, .npz or .csv file; samples.npy in the run's folder unless given. The picture stands beside it."""
    overwrite: bool = False
    """Replace the file if it exists; the default one always is."""
    picture: bool = True
    """Draw the samples, beside real data where it is at hand."""


def run(argv: Sequence[str]) -> None:
    """Parse, sample, write."""
    args = parse(Sample, argv, "sample")
    out = output_file(args.run, args.out, args.overwrite)
    from ..data import save
    from ..trained import Trained

    trained = Trained.from_pretrained(args.run)
    start = time.perf_counter()
    x, labels = draw(trained, args.drawing)
    seconds = time.perf_counter() - start
    names = None if labels is None or out.suffix == ".npy" else [trained.classes[i] for i in labels]
    save(out, x, trained.columns, names)
    print(f"{len(x)} samples in {seconds:.1f} s: {out}", file=sys.stderr)
    if args.picture:
        from ..plots.run import draw_samples

        print(f"picture: {draw_samples(trained, x, labels, out.with_suffix('.png'))}", file=sys.stderr)


def draw(trained: "Trained", how: Drawing) -> tuple["Tensor", "Tensor | None"]:
    """Samples and the labels they were asked for, with a progress bar."""
    import torch
    from tqdm import tqdm

    threads(how.threads, trained.denoiser)
    label: str | Tensor | None = how.label or None
    if label == "all":
        if not trained.recipe.conditional:
            raise InputError("This run was trained without labels, so it can't draw every class.")
        label = torch.arange(how.n) % len(trained.classes)
    steps = how.steps or trained.recipe.sample_steps
    walk = trained.trajectory(
        how.n, seed=how.seed, label=label, guidance=how.guidance, interval=how.interval,
        sampler=how.sampler or None, grid=how.grid or None, steps=steps,
    )  # fmt: skip
    x = torch.empty(0)
    for _, x in tqdm(walk, total=steps + 1, desc="sampling", unit="step", delay=1, file=sys.stderr):  # noqa: B007
        pass
    if not bool(x.isfinite().all()):
        print("ebbflow: some samples are not finite; try more steps or another grid.", file=sys.stderr)
    labels = None if label is None else trained.labels(label, how.n)
    return x, labels


def output_file(run: str, out: str, overwrite: bool) -> Path:
    """Where the samples go, refused before any work is done if they can't."""
    path = Path(out) if out else (Path(run) if Path(run).is_dir() else Path()) / "samples.npy"
    if path.suffix not in (".npy", ".npz", ".csv"):
        raise InputError(f"out must end in .npy, .npz or .csv; got {out!r}.")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"{path} can't be written: {path if path.is_dir() else path.parent} is the wrong kind of path."
        )
    if out and path.exists() and not overwrite:
        raise InputError(f"{path} exists; pass --overwrite to replace it.")
    return path
