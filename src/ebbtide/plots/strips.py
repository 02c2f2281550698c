"""Strips of images: sampling, the forward process, training, guidance, inpainting, memorisation.

Images are uint8 (n, c, h, w). Walks may be floats in pixel units (0..255) too: what lies outside is clipped for
display, and the note states how much.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure

from ..core.paths import Path
from ..errors import InputError
from . import images as sheets, style
from .images import HEAD, as_pixels, enlarge, fitting_factor, sheet
from .style import Array

__all__ = [
    "WalkFrames",
    "as_frames",
    "denoising_strip",
    "forward_strip",
    "guidance_grid",
    "inpainting",
    "interpolation",
    "neighbours",
    "paired",
    "training_strip",
]

WalkFrames = UInt8[Array, "k n c h w"] | Float[Array, "k n c h w"]


def denoising_strip(
    times: Sequence[style.Number],
    walk: WalkFrames,
    x0_hat: Array | None = None,
    *,
    most: int = 8,
    title: str = "",
    note: str = "",
) -> Figure:
    """x_t from noise to data: a row for each sample, a column for each of at most `most` times; then x̂₀ likewise.

    walk (k, n, c, h, w) holds x_t at the k times; x0_hat what the network made of each of them.
    """
    paired("walk", "times", len(walk), len(times))
    chosen = style.evenly(len(times), max(most, 2))
    shares = [] if walk.dtype == np.uint8 else [sheets.clipped_share(walk[i]) for i in chosen]
    blocks = [as_frames(walk[chosen], "walk")]
    if x0_hat is not None:
        if x0_hat.shape != walk.shape:
            raise InputError(f"x0_hat must have the walk's shape {walk.shape}; got {x0_hat.shape}.")
        blocks.append(as_frames(x0_hat[chosen], "x0_hat"))
    n = walk.shape[1]
    tiles = np.concatenate([block.swapaxes(0, 1).reshape(-1, *block.shape[2:]) for block in blocks])
    names = ["x_t", *[""] * (n - 1), "x̂₀", *[""] * (n - 1)] if len(blocks) > 1 else []
    below = "Below, what the network takes the image to be at each time: blurred at first, then ever sharper. "
    clipped = (
        f"Clipped for display: up to {100 * max(shares):.0f} % of the values." if max(shares, default=0) > 0.005 else ""
    )
    return sheet(
        tiles,
        len(chosen),
        least=HEAD,
        heads=[_head(times[i]) for i in chosen],
        names=names,
        under={n - 1: 14} if len(blocks) > 1 else {},
        title=title or "From noise to images",
        note=note or "Each row is one sample on its way. " + (below if len(blocks) > 1 else "") + clipped,
    ).figure


def forward_strip(
    paths: Mapping[str, Path],
    image: UInt8[Array, "c h w"],
    *,
    times: Sequence[style.Number] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
    seed: int = 0,
    title: str = "",
    note: str = "",
) -> Figure:
    """x_t = α x₀ + σ ε of one image in [-1, 1], with SNR = α²/σ² beneath: a row for each path, the same ε everywhere.

    Where α² + σ² > 1 (variance exploding), x_t is divided by its root: pixels can't show a σ of 80.

    paths: by name.
    """
    if not paths:
        raise InputError("There are no paths to draw.")
    x0 = as_pixels(image, "image", ndim=3) / 127.5 - 1
    noise = np.random.default_rng(seed).standard_normal(x0.shape)
    tiles, captions, large = [], [], False
    for path in paths.values():
        c = path.scales(torch.tensor([float(t) for t in times], dtype=torch.float64))
        for alpha, sigma in zip(c.alpha.tolist(), c.sigma.tolist(), strict=True):
            size = max(1.0, float(np.hypot(alpha, sigma)))
            large = large or size > 1.001
            tiles.append(sheets.to_uint8(127.5 + 127.5 * (alpha * x0 + sigma * noise) / size))
            captions.append(f"SNR {_snr(alpha, sigma)}")
    scaled = " Where α² + σ² > 1, x_t is shown divided by its root." if large else ""
    rows = "The same noise in each row; " if len(paths) > 1 else ""
    return sheet(
        np.stack(tiles),
        len(times),
        least=HEAD,
        heads=[_head(t) for t in times],
        names=list(paths),
        captions=captions,
        under=dict.fromkeys(range(len(paths) - 1), 6),
        title=title or "An image becomes noise",
        note=note or f"{rows}SNR = α²/σ²: at 1, signal and noise are equally strong. Clipped for display.{scaled}",
    ).figure


def training_strip(
    steps: Sequence[int],
    grids: UInt8[Array, "k n c h w"],
    *,
    labels: Sequence[str] = (),
    wait: int = 0,
    most: int = 8,
    columns: int = 10,
    title: str = "",
    note: str = "",
) -> Figure:
    """Samples from the same noises as training goes on: a row for each of at most `most` steps, close at the start.

    labels: a text for each step, such as its FID, at the row's end. wait: the step before which nobody should judge.
    grids: n samples at each of these steps.
    """
    grids = as_pixels(grids, "grids", ndim=5)
    paired("grids", "steps", len(grids), len(steps))
    if labels:
        paired("labels", "steps", len(labels), len(steps))
    # Evenly in log(step): most of what can be seen happens early.
    clock = np.log1p(np.asarray(steps, float) / max(steps[-1], 1) * 200)
    chosen = sorted({int(np.abs(clock - place).argmin()) for place in np.linspace(clock[0], clock[-1], most)})
    shown = grids[chosen][:, :columns]
    patience = f"wait for step {wait:,}" if wait else "judge by the last rows"
    return sheet(
        shown.reshape(-1, *shown.shape[2:]),
        shown.shape[1],
        names=[f"step {steps[i]:,}" for i in chosen],
        ends=[labels[i] for i in chosen] if labels else [],
        title=title or "What training does to the same noises",
        note=note or f"Each column starts from one noise. Noise and blotches in the first rows are normal: {patience}.",
    ).figure


def interpolation(
    rows: UInt8[Array, "r k c h w"],
    *,
    ends: tuple[str, str] = ("noise A", "noise B"),
    title: str = "",
    note: str = "",
) -> Figure:
    """Samples from noises between two: a row for each pair. ends: what stands at either side."""
    rows = as_pixels(rows, "rows", ndim=5)
    k = rows.shape[1]
    if k < 2:
        raise InputError(f"rows must have at least 2 images each, one for either end; got {k}.")
    return sheet(
        rows.reshape(-1, *rows.shape[2:]),
        k,
        least=HEAD,
        heads=[ends[0], *[""] * (k - 2), ends[1]],
        title=title or "Between two noises",
        note=note
        or "Each row goes from the sample of one noise to that of another. Every image on the way should "
        "look real, and neighbours alike.",
    ).figure


def guidance_grid(
    weights: Sequence[style.Number],
    classes: Sequence[str],
    images: UInt8[Array, "g k c h w"],
    *,
    title: str = "",
    note: str = "",
) -> Figure:
    """images[weight][class]: a row for each guidance weight (1 is off), a column for each class, the same noises.

    weights: of the rows.
    """
    images = as_pixels(images, "images", ndim=5)
    paired("images", "weights", len(images), len(weights))
    paired("images[0]", "classes", images.shape[1], len(classes))
    return sheet(
        images.reshape(-1, *images.shape[2:]),
        len(classes),
        least=HEAD,
        heads=list(classes),
        names=[f"{weight:g} (off)" if weight == 1 else f"{weight:g}" for weight in weights],
        title=title or "Guidance, by weight and class",
        note=note
        or "Rows: guidance weight. More weight makes the class plainer and the images more alike; too much "
        "burns out colours and contrast.",
    ).figure


def inpainting(
    original: UInt8[Array, "n c h w"],
    mask: Bool[Array, "..."],
    results: UInt8[Array, "m k c h w"],
    *,
    title: str = "",
    note: str = "",
) -> Figure:
    """Rows of an original, what was given of it, and k ways to fill it in.

    mask: true where known, (h, w), or (c, h, w) as repaint takes it; a pixel with a hidden channel is hatched.
    results: k ways each.
    """
    channels = original.shape[1]
    original, results = as_pixels(original, "original"), as_pixels(results, "results", ndim=5)
    n, c, h, w = original.shape
    if results.shape[0] != n or results.shape[2:] != (c, h, w):
        raise InputError(f"results must have the shape ({n}, k, {c}, {h}, {w}); got {results.shape}.")
    if mask.shape not in ((h, w), (channels, h, w)):
        raise InputError(f"mask must have the shape ({h}, {w}) or ({channels}, {h}, {w}); got {mask.shape}.")
    k = results.shape[1]
    factor = fitting_factor(w, h, 2 + k, HEAD)
    known = np.broadcast_to(mask, (channels, h, w)).all(0).repeat(factor, 0).repeat(factor, 1)
    row, column = np.indices(known.shape)
    hatch = np.where((row + column) % 12 < 3, 150, 225).astype(np.uint8)
    given = enlarge(original, factor)
    fills = [enlarge(results[:, i], factor) for i in range(k)]
    tiles = np.stack([given, np.where(known, given, hatch), *fills], 1)
    heads = ["original", "given", *(["filled in"] if k == 1 else [f"fill {i + 1}" for i in range(k)])]
    return sheet(
        tiles.reshape(-1, *given.shape[1:]),
        2 + k,
        factor=1,
        heads=heads,
        title=title or "Inpainting",
        note=note
        or "Hatched pixels were hidden. The fills should agree with what was given, and may differ from "
        "the original and from each other.",
    ).figure


def neighbours(
    samples: UInt8[Array, "n c h w"],
    nearest: UInt8[Array, "n c h w"],
    distances: Float[Array, " m"],
    *,
    typical: style.Number | None = None,
    columns: int = 8,
    title: str = "",
    note: str = "",
) -> Figure:
    """Each sample above its nearest training image and their distance, the closest pairs first.

    typical: the distance from a real image that wasn't trained on to its nearest, to compare with.
    distances: of the pairs.
    samples, nearest: a pair each.
    """
    samples, nearest = as_pixels(samples, "samples"), as_pixels(nearest, "nearest")
    if samples.shape != nearest.shape or len(distances) != len(samples):
        raise InputError(
            f"samples, nearest and distances must be equally many and of one size; got {samples.shape}, "
            f"{nearest.shape} and {len(distances)} distances."
        )
    order = np.argsort(distances)
    n, columns = len(order), min(columns, len(order))
    bands = -(-n // columns)
    tiles = np.full((2 * bands * columns, *samples.shape[1:]), 255, np.uint8)
    captions = [""] * len(tiles)
    for rank, i in enumerate(order.tolist()):
        band, column = divmod(rank, columns)
        above, below = 2 * band * columns + column, (2 * band + 1) * columns + column
        tiles[above], tiles[below], captions[below] = samples[i], nearest[i], f"{distances[i]:#.3g}".rstrip(".")
    compare = f" Unseen real images are typically {typical:.3g} away." if typical is not None else ""
    return sheet(
        tiles,
        columns,
        names=["sample", "nearest"] * bands,
        captions=captions,
        under={2 * band + 1: 8 for band in range(bands - 1)},
        title=title or "Samples and their nearest training images",
        note=note
        or f"Under each pair its distance, the closest first. A sample that equals its neighbour is "
        f"memorised.{compare}",
    ).figure


def as_frames(walk: WalkFrames, what: str) -> UInt8[Array, "k n _ h w"]:
    """A walk as images; floats are clipped. walk: in pixel units, 0..255."""
    return as_pixels(walk if walk.dtype == np.uint8 else sheets.to_uint8(walk), what, ndim=5)


def _head(t: style.Number) -> str:
    """A time over a narrow column: its end's name on a separate line."""
    end = {1.0: "noise", 0.0: "data"}.get(round(float(t), 6), "")
    return f"{end}\nt = {t:.2g}" if end else f"{t:.2g}"


def _snr(alpha: float, sigma: float) -> str:
    if sigma == 0:
        return "∞"
    ratio = (alpha / sigma) ** 2
    if ratio == 0 or 0.01 <= ratio < 10_000:
        return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return f"{ratio:.0e}".replace("e-0", "e-").replace("e+0", "e")


def paired(what: str, other: str, count: int, wanted: int) -> None:
    """InputError unless there are as many of `what` as of `other`, and one or more. count, wanted: their numbers."""
    if count != wanted or not count:
        raise InputError(f"{what} must be one for each of the {other}; got {count} and {wanted}.")
