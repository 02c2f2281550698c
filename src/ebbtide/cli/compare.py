"""ebbtide compare: methods side by side, by default diffusion and flow matching."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError
from ..formats import arrays
from ..progress import progress_bar
from ..recipes import HELD_OUT, METHODS, PointRecipe, Recipe, recipe_type
from ..recipes.images import flow_images
from .arguments import MOST, Flag, hint, parse, said, tell, within

__all__ = ["SUBJECTS", "Compare", "Images", "Points", "Subject", "run"]


@dataclass(frozen=True)
class Subject:
    """Settings shared by the methods; the rest of each recipe (path, target, sampler) differs."""

    data: str = PointRecipe.data
    """A point set or a file, as in train; for images, see compare --data digits --help."""
    label: Annotated[str, hint("none")] = PointRecipe.label
    """Column of the file that holds the labels; its name, or number from 1."""
    network: str = PointRecipe.network
    """A row of `ebbtide list networks`, and its size, as in mlp:width=64,depth=6."""
    steps: int = 1800
    """Optimiser steps; fewer than for `train`, so that everything takes about a minute."""
    batch: int = PointRecipe.batch
    """Examples a step."""
    lr: float = PointRecipe.lr
    """Peak learning rate."""
    ema: float = PointRecipe.ema
    """Decay of the averaged weights that sampling uses."""
    seed: int = PointRecipe.seed
    """Seed of everything random."""


@dataclass(frozen=True)
class Points(Subject):
    """Points."""

    points: int = PointRecipe.points
    """Number of points to draw from a named point set; once, as training data."""
    held_out: float = HELD_OUT
    """Share of a file's rows held out for evaluation; none of fewer than 40 rows."""


_IMAGES = flow_images()


@dataclass(frozen=True)
class Images(Subject):
    """Images."""

    data: str = _IMAGES.data
    """digits, a folder of images, a .npz, idx files, or hf:NAME; a .npz holds uint8 images and labels."""
    label: Annotated[str, hint("where they usually are")] = _IMAGES.label
    """Source of the labels; folder (a class for each sub-folder), an array of the .npz, a column of hf:NAME."""
    network: str = _IMAGES.network
    """A row of `ebbtide list networks`, and its size, as in unet:width=64."""
    steps: int = _IMAGES.steps
    """Optimiser steps."""
    batch: int = _IMAGES.batch
    """Examples a step."""
    lr: float = _IMAGES.lr
    """Peak learning rate."""
    conditional: bool = _IMAGES.conditional
    """Train on the labels too; samples have the class frequencies of the data."""
    size: int = _IMAGES.size
    """Side to which images are resized and centre-cropped; 0 keeps their size, which must then be equal."""
    channels: int = _IMAGES.channels
    """1 for grey, 3 for colour, 4 for transparency; 0 for grey or colour, as found."""
    value_range: str = _IMAGES.value_range
    """LOW:HIGH of images of more than 8 bits; mapped to 0 and 255, by default the set's extremes."""
    flip: bool = _IMAGES.flip
    """Mirror half of the training images, left to right."""
    held_out: float = _IMAGES.held_out
    """Share of the images held out for evaluation."""


# What a comparison of each domain starts from: the recipe, what is asked of it, and how many samples are drawn.
SUBJECTS: dict[str, tuple[Recipe, Subject, int]] = {
    "points": (PointRecipe(validation=0.0, held_out=HELD_OUT), Points(), 4_000),
    "images": (_IMAGES, Images(), 1_000),
}


@dataclass(frozen=True)
class Compare:
    """Train DDPM and flow matching, or other methods, with the same network, data and steps; sample, measure, draw,
    report."""

    subject: tyro.conf.OmitArgPrefixes[Subject]
    methods: str = ",".join(METHODS)
    """Recipes, and folders of finished runs on this data; separated by commas, runs are sampled as they are."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("runs/compare-DATA")] = ""
    """Folder of the comparison."""
    n: int = 4_000
    """Samples to draw for each row of the table."""
    workers: int = 2
    """Processes; each trains and samples one method at a time."""
    device: str = "auto"
    """Device to train on; cpu, cuda, cuda:1, mps, or auto for the first accelerator."""
    resume: Flag = False
    """Continue the comparison in that folder."""
    overwrite: Flag = False
    """Replace the comparison in that folder."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """No progress bars."""

    def __post_init__(self) -> None:
        within(self, n=(100, MOST), workers=(1, MOST))


def run(argv: Sequence[str]) -> None:
    """Parse, compare, write the report."""
    start = time.perf_counter()
    data = said(argv, "--data")
    data = PointRecipe.data if data is None else data  # which decides what else can be asked for
    _no_episodes(data)
    recipe, subject, n = SUBJECTS[recipe_type(data).kind]
    args = parse(Compare, argv, "compare", Compare(subject, n=n))
    recipe = replace(recipe, **vars(args.subject))
    out = Path(args.out or f"runs/compare-{Path(recipe.data).stem}")
    from ..training.processes import pool, worthwhile

    methods = tuple(name.strip() for name in args.methods.split(",") if name.strip())
    command = shlex.join(["ebbtide", "compare", *(a for a in argv if a not in ("--resume", "--overwrite"))])
    # Begun before torch is imported here, so that all import it at once.
    with pool(worthwhile(args.workers, len(methods), recipe.network), "ebbtide.kinds.compare") as answers:
        from ..kinds.compare import compare, figures, resumable, save_metrics, summary
        from ..plots.report import write_report
        from ..training.build import add_own

        add_own({"network": recipe.network})
        comparison = compare(
            recipe, out, methods, n=args.n, workers=args.workers, resume=args.resume, overwrite=args.overwrite,
            progress=not args.quiet, device=args.device, command=command, answers=answers,
        )  # fmt: skip
    with resumable([out / method.key for method in comparison.methods], command):
        print(summary(comparison))
        save_metrics(comparison, out)
        drawn = [*figures(comparison)]
        shown = progress_bar(len(drawn), "drawing", "figure", over=drawn, show=not args.quiet, leave=False)
        report = write_report(comparison, out, shown)
    print()
    tell(f"report: {report}  ({time.perf_counter() - start:.0f} s in all)", file=sys.stdout)


def _no_episodes(data: str) -> None:
    """Refuse a recording, whose first array would otherwise be taken for points."""
    for path in map(Path, data.split("+")):
        if "episode_ends" in arrays(path):
            raise InputError(
                f"{path} holds a robot's episodes, and compare is for points and images: train policies on it, and "
                "hold what `ebbtide evaluate` says of them side by side."
            )
