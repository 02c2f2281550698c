"""Images: uint8 at rest, [-1, 1] for the network, pixel values 0..255 (not clipped) in the data's units."""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data.levels import Levels
from ...data.prepared import class_names
from ...files import write_file
from ...recipes import ImageRecipe
from ...training.history import evolution
from ..kind import Kind, MethodRow, Plan, Way
from .data import describe, fits, given, kept, own_starts, parts, prepare, real, told
from .study import shown, study
from .super_resolution import against_held, given_of, recorded

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...plots.report import Picture
    from ...plots.study import Comparison
    from ...training.trained import Trained

__all__ = [
    "IMAGES",
    "PLAN",
    "all_classes",
    "draw_evaluation",
    "draw_run",
    "draw_samples",
    "evaluate",
    "figures",
    "finish",
    "lost",
    "snapshot_files",
    "write",
]  # fmt: skip


def all_classes(trained: "Trained", n: int) -> Int[Tensor, " n"] | None:
    """Labels of n samples that show each class equally often."""
    return trained.in_turn(n)


def snapshot_files(x: Float[Tensor, " n c h w"], path: Path) -> dict[Path, bytes]:
    """Samples as uint8 .npy, and a figure of them."""
    from ...plots.images import png

    pixels, array = kept(x), io.BytesIO()
    np.save(array, pixels)
    return {path: array.getvalue(), path.with_suffix(".png"): png(pixels)}


def finish(folder: Path, trained: "Trained") -> Iterator[Path]:
    """The strip of samples, or of an autoencoder's images, over training, if more than one set was kept."""
    from . import pages

    if len(grown := evolution(folder)) > 1:
        yield pages.draw_training(grown, folder / "training.png", trained.reconstructs)


def write(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Samples as an .npz that `ebbtide train` reads: `images` (n, h, w, c) in uint8, `labels`, `classes`.

    `value_range` holds what 0 and 255 were, where the training images had more than 8 bits.
    """
    arrays = {"images": kept(x).transpose(0, 2, 3, 1)}
    if value_range := trained.recipe.value_range:  # type: ignore[attr-defined]
        arrays["value_range"] = np.array(Levels.parse(value_range))
    if labels is not None:
        arrays |= {"labels": labels.numpy(), "classes": np.array(trained.classes)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_file(path, file.getvalue())


def draw_samples(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path, how: str = "") -> Path:
    """Samples as one figure."""
    from . import pages

    return pages.draw_samples(trained, x, labels, path)


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages

    return pages.draw_run(trained, folder, out)


def figures(comparison: "Comparison") -> Iterator["Picture"]:
    """The figures of a comparison's report."""
    from . import pages

    return pages.figures(comparison)


def evaluate(
    recipe: ImageRecipe,
    samples: Float[Tensor, " n c h w"],
    labels: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    floors: dict[Any, Any] | None = None,  # of points, which would otherwise draw their truth anew
    curve: bool = False,
    own: Mapping[str, Callable[[Tensor, Tensor], float]] = MappingProxyType({}),
) -> list["Measurement"]:
    """Every metric that applies, beside its floor. Labels, where given, are what the samples were asked for.

    curve: only the metrics that `compare` draws against cost. own: more metrics, functions of (samples, real images).
    """
    rows = _measured(recipe, torch.from_numpy(kept(samples)), asked=labels, seed=seed, own=own)
    rows += against_held(recipe, samples, seed) if recipe.factor else []
    return [row for row in rows if row.in_curve or not curve]


def _measured(recipe: ImageRecipe, x: Tensor, **how: Any) -> "list[Measurement]":
    """The metrics of images held against the recipe's; how: asked, seed, own, as in `measure_images`."""
    from ...metrics import measure_images

    train, held = parts(recipe)
    return measure_images(
        x, train.pixels, held.pixels, train_labels=train.labels, held_labels=held.labels,
        classes=len(class_names(train.classes, train.labels)), **how,
    ).rows  # fmt: skip


def lost(trained: "Trained", seed: int = 0) -> list["Measurement"]:
    """Held-out images encoded and decoded: their PSNR, and the distance that no sampler can go below."""
    from ...metrics import peak_signal

    recipe = cast(ImageRecipe, trained.reading())
    _, held = parts(recipe)
    x = torch.from_numpy(kept(trained.reconstruct(held.pixels)))
    rows = _measured(recipe, x, seed=seed)
    return [
        peak_signal(x, held.pixels),
        *(replace(row, name=f"codec {row.name}", in_curve=False) for row in rows if row.name.startswith("KID")),
    ]


def draw_evaluation(trained: "Trained", x: Tensor, folder: Path) -> Iterator[Path]:
    """The samples that are nearest to a training image, beside it."""
    from . import pages

    yield pages.draw_neighbours(trained, x, folder / "neighbours.png")


PLAN = Plan(
    rows={
        "ddpm-images": MethodRow(
            "diffusion",
            "DDPM",
            "uniform",
            (
                Way("DDIM, 100 steps", "ddim", "uniform", 100),
                Way("DPM-Solver++(2M), 20 steps", "dpmpp_2m", "uniform", 20),
            ),
        ),
        "flow-images": MethodRow(
            "flow",
            "Flow matching",
            "uniform",
            (Way("Heun, 50 steps", "heun", "uniform", 50), Way("Heun, 10 steps", "heun", "uniform", 10)),
        ),
    },
    own=("loss", "teacher", "path", "target", "times", "sampler", "grid", "sample_steps", "bound"),
    curve={"Euler": ("euler", (5, 10, 20, 50)), "Heun": ("heun", (3, 5, 10, 25))},
    curve_n=500,
    fewest=20,
    study=study,
    shown=shown,
    kept=kept,
    figures=figures,
)
IMAGES = Kind(
    recipe=ImageRecipe,
    unit="img",
    units="images",
    n=64,
    n_evaluate=1000,
    file="samples.png",
    extensions=(".npz",),
    each=20_000,
    more=3,  # at most 5000 are measured
    snapshot={"n": 20, "sampler": "dpmpp_2m", "grid": "uniform", "steps": 12, "bound": 1.0},
    fits=fits,
    prepare=prepare,
    describe=describe,
    real=real,
    evaluate=evaluate,
    write=write,
    snapshot_files=snapshot_files,
    draw_samples=draw_samples,
    draw_run=draw_run,
    given=given,
    starts=own_starts,
    recorded=recorded,
    given_of=given_of,
    told=told,
    all_classes=all_classes,
    finish=finish,
    draw_evaluation=draw_evaluation,
    lost=lost,
    plan=PLAN,
)
