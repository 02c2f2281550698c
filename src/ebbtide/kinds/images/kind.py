"""Images: uint8 at rest, [-1, 1] for the network, pixel values 0..255 (not clipped) in the data's units."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ...data.levels import Levels
from ...files import writing
from ...recipes import ImageRecipe
from ...training.history import evolution
from ..kind import Kind, MethodRow, Plan, Way
from .data import describe, fits, given, kept, own_starts, parts, prepare, real, told
from .latents import BATCH
from .study import shown, study
from .super_resolution import given_of, recorded

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...plots.report import Picture
    from ...plots.study import Comparison
    from ...training.trained import Trained
    from .judging import Judging

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
    "judge",
    "lost",
    "snapshot_files",
    "write",
    "write_in_pieces",
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
    write_in_pieces(trained, [kept(x)], len(x), labels, path)


def write_in_pieces(
    trained: "Trained", pieces: Iterable[UInt8[np.ndarray, "k c h w"]], n: int, labels: Tensor | None, path: Path
) -> None:
    """The same of n samples in pieces, which are packed one at a time."""
    (c, h, w), arrays = trained.shape, {}
    if value_range := trained.recipe.value_range:  # type: ignore[attr-defined]
        arrays["value_range"] = np.array(Levels.parse(value_range))
    if labels is not None:
        arrays |= {"labels": labels.numpy(), "classes": np.array(trained.classes)}
    with writing(path) as file, ZipFile(file, "w", ZIP_DEFLATED) as packed:
        with packed.open("images.npy", "w", force_zip64=True) as to:
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, h, w, c)}
            np.lib.format.write_array_header_1_0(to, header)
            for piece in pieces:
                to.write(np.ascontiguousarray(piece.transpose(0, 2, 3, 1)).data)
        for name, array in arrays.items():
            with packed.open(f"{name}.npy", "w", force_zip64=True) as to:
                np.lib.format.write_array(to, array, allow_pickle=False)


def draw_samples(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path, how: str = "") -> Path:
    """Samples as one figure."""
    from . import pages

    return pages.draw_samples(trained, x, labels, path, how)


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages

    return pages.draw_run(trained, folder, out)


def figures(comparison: "Comparison") -> Iterator["Picture"]:
    """The figures of a comparison's report."""
    from . import pages

    return pages.figures(comparison)


def judge(
    recipe: ImageRecipe,
    n: int,
    labels: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    own: Mapping[str, Callable[[Tensor, Tensor], float]] = MappingProxyType({}),
) -> "Judging":
    """The judge of n samples that come in blocks; arguments as in `evaluate`."""
    from .judging import Judging

    return Judging(recipe, n, labels, seed, own)


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
    judging = judge(recipe, len(samples), labels, seed, own)
    judging.look(0, samples)
    rows, _ = judging.judged([judging.seen()])
    return [row for row in rows if row.in_curve or not curve]


def lost(trained: "Trained", seed: int = 0) -> list["Measurement"]:
    """Held-out images encoded and decoded: their PSNR, and the distance that no sampler can go below."""
    from ...metrics import mean_squares, peak_of
    from . import judging as judges

    recipe = cast(ImageRecipe, trained.reading())
    real, errors = parts(recipe)[1].x, []
    judging = judges.ImageJudge(len(real), **judges.given_to_judge(recipe), seed=seed)
    for first, x in zip(range(0, len(real), BATCH), real.split(BATCH)):
        made = torch.from_numpy(kept(trained.reconstruct(x)))
        judging.look(first, made)
        errors.append(mean_squares(made, x))
    rows = judging.report([judging.seen()]).rows
    return [
        peak_of(torch.cat(errors)),
        *(replace(row, name=f"codec {row.name}", in_curve=False) for row in rows if row.name.startswith("KID")),
    ]


def draw_evaluation(trained: "Trained", seen: Any, folder: Path) -> Iterator[Path]:
    """The samples that are nearest to a training image, beside it; seen: the report on them."""
    from . import pages

    yield pages.draw_neighbours(seen, folder / "neighbours.png")


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
    floors=False,
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
    judge=judge,
    write=write,
    kept=kept,
    write_in_pieces=write_in_pieces,
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
