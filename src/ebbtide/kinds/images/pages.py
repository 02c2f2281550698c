"""The figures of a run on images: `ebbtide sample`, `ebbtide plot` and the report of `ebbtide compare`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ...codecs import Pixels
from ...core.denoiser import DenoiserLike
from ...core.guidance import Bounded
from ...core.paths import PATHS
from ...core.randomness import Draws
from ...errors import InputError
from ...exact.encoding import slerp
from ...files import storage
from ...inverse.posterior import NoisyMeasurement, PiGDM, masked, through
from ...metrics import ImageReport
from ...plots import curves, films, images, strips, style
from ...plots.report import Picture, every, losses, still
from ...plots.study import key_of
from ...recipes import ImageRecipe
from ...samplers import trajectory
from ...specs import bind
from ...training.history import evolution, read_losses
from ...training.trained import Trained
from ..titles import title_of
from . import super_resolution
from .data import kept, parts, real

if TYPE_CHECKING:
    from ...plots.study import Comparison

__all__ = [
    "CLASSES", "FILM", "STEPS", "WALK", "WEIGHTS", "draw_neighbours", "draw_run", "draw_samples", "draw_training",
    "figures", "flow_ends", "inpainted",
]  # fmt: skip

WALK = 6  # images of a strip
FILM = 20  # frames of an animation
STEPS = 25  # of Heun, for every figure drawn here
WEIGHTS = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0)
CLASSES = 10  # classes of a guidance grid at most


def draw_samples(trained: Trained, x: Tensor, labels: Tensor | None, path: Path, how: str = "") -> Path:
    """Samples as a plain grid; with labels, as a figure that names their classes. how: by which they were drawn."""
    if labels is not None:
        title = title_of(trained, how, len(x))
        return style.save(images.by_class(kept(x), labels.numpy(), trained.classes, title=title), path)
    return style.save(images.grid(kept(x)), path) if style.saved_otherwise() else images.save_png(kept(x), path)


def draw_neighbours(seen: ImageReport, path: Path) -> Path:
    """The samples nearest to an image that was trained on, above it."""
    figure = strips.neighbours(
        seen.closest.numpy(),
        seen.beside.numpy(),
        seen.apart.numpy(),
        typical=seen.typical,
        title=f"The {len(seen.closest)} of {seen.looked} samples that are nearest to a training image",
    )
    style.save(figure, path)
    return path


def draw_training(grown: list[tuple[int, np.ndarray]], path: Path, codec: bool) -> Path:
    """The samples drawn while training went on, as a strip; of a codec, images beside what it makes of them."""
    style.save(_training(grown, codec), path)
    return path


def draw_run(trained: Trained, folder: Path, out: Path) -> Iterator[Path]:
    """Draw all that a run folder can show, yielding each figure as it is written."""
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
    history = read_losses(folder)
    grown = evolution(folder, trained.shape)
    if trained.reconstructs:
        yield from _drawn_codec(trained, history, grown, out)
        return
    walk = _walk(trained, FILM)
    stills: dict[str, Callable[[], Figure] | None] = {
        "samples": lambda: images.grid(kept(trained.to_data(walk[-1][1])), title="Samples"),
        "super-resolution": (lambda: _enlarging(trained)) if cast(ImageRecipe, trained.recipe).factor else None,
        "denoising": lambda: _denoising(trained, walk),
        "forward": lambda: _forward(trained),
        "interpolation": lambda: _interpolation(trained),
        "guidance": (lambda: _guidance(trained)) if _guided(trained) else None,
        "inpainting": (lambda: _inpainting(trained)) if trained.denoiser.gaussian_end else None,
        "training": (lambda: _training(grown)) if grown else None,
        "codec": (lambda: _codec(trained)) if trained.codec is not None and trained.codec.weights() else None,
        "losses": (lambda: images.loss_and_speed(history, key=key_of(trained.recipe))) if history else None,
    }
    for name, draw in stills.items():
        if draw is None:
            continue
        path = out / f"{name}.png"
        yield style.save(draw(), path)
    frames = np.stack([kept(trained.to_data(x)) for _, x in walk])
    yield films.sampling_gif(out / "sampling.gif", [t for t, _ in walk], frames)
    if len(grown) > 1:
        yield films.training_gif(out / "training.gif", [step for step, _ in grown], np.stack([x for _, x in grown]))


def _drawn_codec(
    trained: Trained, history: list[dict[str, Any]], grown: list[tuple[int, np.ndarray]], out: Path
) -> Iterator[Path]:
    """An autoencoder's figures: what it gives back, now and over training, and its losses."""
    stills = {"codec": _codec(trained)} | ({"training": _training(grown, codec=True)} if grown else {})
    if history:
        stills["losses"] = images.loss_and_speed(history, key=key_of(trained.recipe))
    for name, figure in stills.items():
        yield style.save(figure, out / f"{name}.png")


def figures(c: "Comparison") -> Iterator[Picture]:
    """The report's figures in order."""

    def of(method: str) -> np.ndarray:
        return next(s.samples for s in c.samplings if s.method == method)[:40]

    same = f"; the same noises for {every(c)}" if len(c.methods) > 1 else ""
    yield Picture(
        "real.png",
        "Real images",
        f"What {every(c)} learn from." if len(c.methods) > 1 else "What is learned from.",
        still(lambda: images.grid(c.real[:40], columns=10, title="Real images")),
    )
    for method in c.methods:
        label = next(s.label for s in c.samplings if s.method == method.key)
        yield Picture(
            f"samples-{method.key}.png",
            f"Samples: {method.name}",
            f"Drawn by {label}, not picked{same}.",
            still(partial(images.grid, of(method.key), columns=10, title=f"Samples: {method.name}")),
        )
    for method in c.methods:
        yield Picture(
            f"denoising-{method.key}.png",
            f"From noise to images: {method.name}",
            f"The same noises for {every(c)}, by Heun's method: watch at which t shapes appear."
            if same
            else "By Heun's method: watch at which t shapes appear.",
            still(partial(strips.denoising_strip, method.walk_times.tolist(), method.walk[:, :WALK])),
        )
    if c.quality:
        yield Picture(
            "quality.png",
            "Quality against cost",
            f"The grey band is the score of real images in {c.quality_metric} at this sample size.",
            still(lambda: curves.quality_against_evaluations(c.quality, c.methods, c.quality_metric, c.floor)),
        )
    for method in c.methods:
        if len(method.evolution) > 1:
            yield Picture(
                f"training-{method.key}.png",
                f"Training, step by step: {method.name}",
                "The same noises at every stage. Early images are horrible, and that says nothing of the last.",
                still(partial(_training, method.evolution)),
            )
    yield from losses(c)


def _reading(trained: Trained) -> ImageRecipe:
    return cast(ImageRecipe, trained.reading())


def _walk(trained: Trained, n: int) -> list[tuple[float, Tensor]]:
    """(t, x_t) in the network's units."""
    return list(
        trained.latents(
            n, seed=trained.recipe.seed, label=trained.in_turn(n), sampler="heun", grid="uniform", steps=STEPS
        )
    )


def _denoising(trained: Trained, walk: list[tuple[float, Tensor]]) -> Figure:
    """x_t above what the network makes of it."""
    labels = trained.labels(trained.in_turn(WALK), WALK)
    cond = {} if labels is None else {"label": labels}
    with torch.no_grad():
        guesses = [trained.denoiser(x[:WALK], max(t, 1e-3), **cond).x0 for t, x in walk]
    noisy, shown = (np.stack([kept(trained.to_data(x)) for x in xs]) for xs in ([x[:WALK] for _, x in walk], guesses))
    return strips.denoising_strip([t for t, _ in walk], noisy, shown)


def _forward(trained: Trained) -> Figure:
    """An image of the data, or else of the network's, on its way to noise."""
    path = trained.recipe.path
    try:
        image = kept(real(_reading(trained), 1, trained.recipe.seed)[0])[0]
    except InputError:  # the images it learned from are not here, or nobody named them
        image = kept(trained.to_data(_walk(trained, 1)[-1][1]))[0]
    return strips.forward_strip({path.partition(":")[0]: bind(PATHS, path, "path")()}, image)


def _interpolation(trained: Trained, rows: int = 5, n: int = 9) -> Figure:
    """Samples from the great circles between pairs of noises."""
    _, x1 = next(trained.latents(2 * rows, seed=trained.recipe.seed))
    starts = torch.stack([slerp(x1[:rows], x1[rows:], k / (n - 1)) for k in range(n)], 1)
    labels = trained.labels(trained.in_turn(rows), rows)
    found = [
        flow_ends(trained, starts[i], {} if labels is None else {"label": labels[i].expand(n)}, seed=0)
        for i in range(rows)
    ]
    return strips.interpolation(np.stack(found))


def _guided(trained: Trained) -> bool:
    return trained.recipe.learns_labels and trained.recipe.learns_null


def _guidance(trained: Trained) -> Figure:
    """The same noises by class and guidance weight."""
    labels = trained.learned[:CLASSES]
    classes, n = tuple(trained.classes[k] for k in labels), len(labels)
    found = [
        trained.sample(
            n, seed=trained.recipe.seed, label=labels, guidance=weight, sampler="heun", grid="uniform",
            steps=STEPS,
        )
        for weight in WEIGHTS
    ]  # fmt: skip
    return strips.guidance_grid(WEIGHTS, classes, np.stack([kept(x) for x in found]))


def _inpainting(trained: Trained, rows: int = 5, ways: int = 5) -> Figure:
    """The right half of held-out images filled in, by ΠGDM (see posterior.py)."""
    try:
        train, held = parts(_reading(trained))
        real = held if len(held.x) >= rows else train
        given, own = real.x[:rows], None if real.labels is None else real.labels[:rows]
    except InputError:
        drawn = trained.to_data(_walk(trained, rows)[-1][1])
        given, own = torch.from_numpy(kept(drawn)), trained.in_turn(rows)
    mask = torch.zeros(trained.shape, dtype=torch.bool)
    mask[:, :, : trained.shape[2] // 2] = True
    labels = trained.labels(None, len(given) * ways)
    if not trained.recipe.learns_null and own is not None:
        labels = own.repeat_interleave(ways)
    known = given.float().repeat_interleave(ways, 0)
    filled = inpainted(trained, known, mask, labels, trained.recipe.seed).reshape(rows, ways, *trained.shape)
    exact = trained.codec is None or trained.codec.linear
    title = "" if exact else "Inpainting, approximate: in latents, with the known pixels pasted back"
    return strips.inpainting(given.numpy(), mask[0].numpy(), filled, title=title)


def inpainted(
    trained: Trained, known: Tensor, mask: Tensor, labels: Tensor | None, seed: int, steps: int = 2 * STEPS
) -> np.ndarray:
    """Images whose pixels are known where the mask is true, filled in by ΠGDM; of a learned codec approximately."""
    cond: dict[str, Any] = {} if labels is None else {"label": labels}
    exact = trained.codec is None or trained.codec.linear
    wrapped: DenoiserLike = PiGDM(trained.denoiser, _measured(trained, known, mask))
    if exact:
        wrapped = Bounded(wrapped, codec=trained.bounding(1.0))
    draws = Draws.first(len(known), seed)
    *_, (_, x) = trajectory(
        wrapped, trained.latent_shape, draws=draws, steps=steps, sampler="ddpm", grid="uniform", **cond
    )
    x = trained.to_data(x)
    return kept(x if exact else torch.where(mask, known, x))


def _measured(trained: Trained, known: Tensor, mask: Tensor) -> NoisyMeasurement:
    """The known pixels as a measurement of what the network sees: of a learned codec, the latents inside of them."""
    codec = trained.codec
    if codec is None or not codec.weights():
        return masked(trained.to_network(known), mask)
    if codec.linear:
        pixels = Pixels()
        return through(masked(pixels.encode(known), mask), trained.bounding(1.0) or codec, trained.shape)
    z = trained.to_network(torch.where(mask, known, known.mean((1, 2, 3), keepdim=True)))
    hidden = adaptive_max_pool2d((~mask).float(), z.shape[2:]).amax(0) > 0
    return masked(z, ~hidden.expand(z.shape[1:]))


def _codec(trained: Trained, n: int = 8) -> Figure:
    """Images, held-out ones where there are any, as the codec gives them back, and its channels."""
    try:
        train, held = parts(_reading(trained))
        x = (held if len(held.x) >= n else train).x
        x = x[:: max(1, len(x) // n)][:n]
    except InputError:
        x = torch.from_numpy(kept(trained.to_data(_walk(trained, n)[-1][1])))
    z = trained.latent(x)
    note = " for ".join(" × ".join(map(str, shape)) for shape in (z.shape[1:], trained.shape))
    return images.codec_sheet(x.numpy(), kept(trained.reconstruct(x)), z.numpy(), note=f"{note} numbers.")


def _enlarging(trained: Trained) -> Figure:
    """Held-out images made smaller, and what bicubic interpolation and samples make of them."""
    rows = super_resolution.shown(trained)
    tiles = torch.cat([*rows.values()]).numpy()
    return images.sheet(
        tiles, len(rows["truth"]), names=[*rows], title="Super-resolution of held-out images",
        note="Each sample is a sharp answer; their mean is nearest to the truth on average, and blurred.",
    ).figure  # fmt: skip


def flow_ends(trained: Trained, x1: Tensor, cond: dict[str, Any], seed: int) -> np.ndarray:
    """The samples that the ODE makes of noises in the network's units."""
    *_, (_, x) = trajectory(
        trained.denoiser, trained.latent_shape, draws=Draws.first(len(x1), seed), steps=STEPS, sampler="heun",
        grid="uniform", start=x1, **cond,
    )  # fmt: skip
    return kept(trained.to_data(x))


def _training(grown: list[tuple[int, np.ndarray]], codec: bool = False) -> Figure:
    title, note = (
        ("Reconstructions over training", "Each image stands beside its reconstruction.") if codec else ("", "")
    )
    return strips.training_strip([step for step, _ in grown], np.stack([x for _, x in grown]), title=title, note=note)
