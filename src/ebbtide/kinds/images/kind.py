"""Pictures: uint8 at rest, [-1, 1] for the network, pixel values 0..255 (not clipped) in the data's units."""

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from ...core.randomness import generator
from ...data import Pixels, images
from ...data.images import Images
from ...data.levels import Levels
from ...errors import InputError
from ...files import state_of, write_file
from ...recipes import ImageRecipe
from ...training.trainer import TensorData
from .. import Prepared, class_names, evolution, frequencies
from ..compare import Method, Plan

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...plots.report import Picture
    from ...training.trained import Trained
    from ..compare import Comparison

UNIT, UNITS = "img", "pictures"
N, N_EVALUATE = 64, 1000  # samples that `ebbtide sample` and `ebbtide evaluate` draw
FILE, EXTENSIONS = "samples.png", (".npz",)  # where to, by default, and in which formats that `train` reads
EACH, MORE = 20_000, 3  # bytes a sample may take, and how many times that to measure it: at most 5000 are
SNAPSHOT: dict[str, Any] = {"n": 20, "sampler": "dpmpp_2m", "grid": "uniform", "steps": 12, "bound": 1.0}
PLAN = Plan(
    recipes={"diffusion": "ddpm-images", "flow": "flow-images"},
    own=("path", "target", "times", "sampler", "grid", "sample_steps", "bound"),
    samplings={
        "diffusion": [
            ("DDIM, 100 steps", "ddim", "uniform", 100),
            ("DPM-Solver++(2M), 20 steps", "dpmpp_2m", "uniform", 20),
        ],
        "flow": [
            ("Heun, 50 steps", "heun", "uniform", 50),
            ("Heun, 10 steps", "heun", "uniform", 10),
        ],
    },
    curve={
        "Euler": ("euler", "uniform", (5, 10, 20, 50)),
        "Heun": ("heun", "uniform", (3, 5, 10, 25)),
    },
    curve_metrics=("KID-classifier", "KID-EffLite0"),
    curve_n=500,
    summary=(
        "FD-classifier",
        "KID-classifier",
        "FD-EffLite0",
        "KID-EffLite0",
        "precision",
        "recall",
        "asked class recognised",
    ),
    fewest=20,
)  # fmt: skip


def fits(recipe: ImageRecipe) -> None:
    """Nothing is known of the pictures before they are read."""


def prepare(recipe: ImageRecipe) -> Prepared:
    """The pictures of a recipe that are to be trained on."""
    train, _ = parts(recipe)
    if recipe.conditional and train.labels is None:
        raise InputError(f"{recipe.data} has no labels, which a conditional network needs; say where with label.")
    if recipe.value_range and not train.levels:
        raise InputError(f"value_range is for pictures of more than 8 bits, and {recipe.data} holds none.")
    shape = tuple(train.x.shape[1:])
    labels = train.labels if recipe.conditional else None
    data = TensorData(train.x, labels, prepare=partial(see, flip=recipe.flip))
    classes = class_names(train.classes, train.labels)
    shares = () if labels is None else frequencies(labels, len(classes))
    settled = {"value_range": str(train.levels)} if train.levels else {}
    return Prepared(data, shape, Pixels(), classes=classes, frequencies=shares, settled=settled)


def see(x: UInt8[Tensor, " b c h w"], draw: Generator, *, flip: bool = False) -> Float[Tensor, " b c h w"]:
    """Pictures as the network sees them in training: in [-1, 1], half of them mirrored where that is wanted."""
    z = Pixels().apply(x)
    if not flip:
        return z
    mirrored = torch.rand(len(z), generator=draw, device=z.device) < 0.5
    return torch.where(mirrored[:, None, None, None], z.flip(3), z)


def parts(recipe: ImageRecipe) -> tuple[Images, Images]:
    """The pictures to train on, and those held out."""
    return _parts(
        recipe.data,
        recipe.size,
        recipe.channels,
        recipe.value_range,
        recipe.label,
        recipe.on_bad_image,
        recipe.held_out,
        recipe.conditional,
        state_of(recipe.data),
    )  # the seed is not asked: a run of another seed holds out the same


@lru_cache(maxsize=2)
def _parts(
    data: str, size: int, channels: int, value_range: str, label: str, on_bad: str, held_out: float, conditional: bool,
    state: object,
) -> tuple[Images, Images]:  # fmt: skip
    levels = Levels.parse(value_range) if value_range else None
    every = images.load(data, size=size, channels=channels, levels=levels, label=label, on_bad=on_bad)
    every = images.labelled(every, data) if conditional else every
    return images.split(every, held_out, keep_classes=conditional)


def start(recipe: ImageRecipe, n: int, seed: int, first: int) -> Tensor | None:
    """Sampling starts from noise."""
    return None


def all_classes(trained: "Trained", n: int) -> Int[Tensor, " n"] | None:
    """Labels of n samples that show each class equally often."""
    return trained.in_turn(n)


def snapshot_files(x: Float[Tensor, " n c h w"], path: Path) -> dict[Path, bytes]:
    """Samples as uint8 .npy, and a picture of them."""
    from ...plots.images import png

    pixels, array = kept(x), io.BytesIO()
    np.save(array, pixels)
    return {path: array.getvalue(), path.with_suffix(".png"): png(pixels)}


def finish(folder: Path) -> Iterator[Path]:
    """The strip of samples over training, if more than one set was kept."""
    from . import pages as image_run

    if len(grown := evolution(folder)) > 1:
        yield image_run.draw_training(grown, folder / "training.png")


def kept(x: Float[Tensor, " n c h w"]) -> UInt8[np.ndarray, " n c h w"]:
    """Samples as pictures: rounded and clipped to 0..255."""
    array: np.ndarray = x.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array


def describe(recipe: ImageRecipe) -> str:
    """One line on the data a recipe names."""
    if recipe.data == "digits":
        return "handwritten digits, 8 × 8"
    return f"the pictures of {recipe.shared().data}"


def write(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Samples as an .npz that `ebbtide train` reads: `images` (n, h, w, c) in uint8, `labels`, `classes`.

    `value_range` holds what 0 and 255 were, where the training pictures had more than 8 bits.
    """
    arrays = {"images": kept(x).transpose(0, 2, 3, 1)}
    if value_range := trained.recipe.value_range:  # type: ignore[attr-defined]
        arrays["value_range"] = np.array(Levels.parse(value_range))
    if labels is not None:
        arrays |= {"labels": labels.numpy(), "classes": np.array(trained.classes)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_file(path, file.getvalue())


def draw_samples(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> Path:
    """Samples as one picture."""
    from . import pages as image_run

    return image_run.draw_samples(trained, x, labels, path)


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages as image_run

    return image_run.draw_run(trained, folder, out)


def pictures(comparison: "Comparison") -> Iterator["Picture"]:
    """The pictures of a comparison's report."""
    from . import pages as image_run

    return image_run.pictures(comparison)


def real(recipe: ImageRecipe, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most n pictures that were trained on, in random order, and their labels."""
    train, _ = parts(recipe)
    chosen = torch.randperm(len(train.x), generator=generator("real", seed))[:n]
    return train.x[chosen].float(), None if train.labels is None else train.labels[chosen]


def evaluate(
    recipe: ImageRecipe,
    samples: Float[Tensor, " n c h w"],
    labels: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    floors: dict[Any, Any] | None = None,  # of points, which would otherwise draw their truth anew
    only: Sequence[str] | None = None,
) -> list["Measurement"]:
    """Every metric that applies, beside its floor. Labels, where given, are what the samples were asked for."""
    from ...metrics import measure_images

    train, held = parts(recipe)
    report = measure_images(
        torch.from_numpy(kept(samples)), train.x, held.x, asked=labels, train_labels=train.labels,
        held_labels=held.labels, classes=len(class_names(train.classes, train.labels)), seed=seed,
    )  # fmt: skip
    return [row for row in report.rows if only is None or row.name in only]


def draw_evaluation(trained: "Trained", x: Tensor, folder: Path) -> Iterator[Path]:
    """The samples that are nearest to a training picture, beside it."""
    from . import pages as image_run

    yield image_run.draw_neighbours(trained, x, folder / "neighbours.png")


def study(key: str, name: str, trained: "Trained", folder: Path) -> Method:
    """What is drawn of a trained network."""
    from ...training.run import read_metrics

    history = [line for line in read_metrics(folder) if line["loss"] is not None]
    n = 8
    labels = trained.in_turn(n)
    walk = list(trained.trajectory(n, seed=trained.recipe.seed, label=labels, sampler="heun", grid="uniform", steps=20))
    return Method(
        key,
        name,
        np.array([line["step"] for line in history]),
        np.array([line["loss"] for line in history]),
        history[-1]["cpu_seconds"] if history else 0.0,
        evolution(folder, trained.shape),
        np.array([t for t, _ in walk]),
        np.stack([kept(x) for _, x in walk]),
        [],
    )


def shown(recipe: ImageRecipe, n: int) -> dict[str, Any]:
    """What a comparison shows of its data."""
    x, labels = real(recipe, 64, recipe.seed)
    train, held = parts(recipe)
    name = recipe.shared().data
    return {
        "title": f"DDPM and flow matching on {name}",
        "real": kept(x),
        "real_labels": None if labels is None else labels.numpy(),
        "limits": (0.0, 255.0),
        "classes": train.classes,
        "settings": {
            "network": recipe.network,
            "training": f"{recipe.steps} steps of {recipe.batch}, learning rate {recipe.lr:g}, EMA {recipe.ema:g}",
            "data": f"{name}, {len(train.x)} pictures of {' × '.join(map(str, x.shape[1:]))}, {len(held.x)} held out",
            "samples": f"{n} from the same noise for both",
            "seed": str(recipe.seed),
        },
    }
