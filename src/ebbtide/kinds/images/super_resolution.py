"""Super-resolution: smaller images to be given, the samples' distances from the images they were, and a figure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ...core.randomness import generator
from ...data.forms import named_list
from ...errors import InputError
from ...recipes import ImageRecipe
from .conditions import enlarged, reduced
from .data import kept, parts, read_images

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...training.trained import Trained

__all__ = ["against_held", "given_of", "recorded", "shown"]


def recorded(trained: "Trained", n: int, seed: int, first: int) -> Mapping[str, Tensor]:
    """Smaller versions of n held-out images, for super-resolution; each again after all others where n is more."""
    recipe = cast(ImageRecipe, trained.reading())
    x = _held(recipe, n, seed, first).float()
    return {"given": reduced(x, recipe.factor)}


def _held(recipe: ImageRecipe, n: int, seed: int, first: int = 0) -> UInt8[Tensor, "n c h w"]:
    train, held = parts(recipe)
    x = (held if len(held.x) else train).x
    order = torch.randperm(len(x), generator=generator("given", seed))
    return x[order[torch.arange(first, first + n) % len(x)]]


def given_of(trained: "Trained", text: str) -> tuple[Any, int | None]:
    """Conditions of samples from the text of --given, and their number; None for one that all share.

    For super-resolution the images of a file or folder, for attributes as in smile=1,age=30.
    """
    shape = trained.condition_shape
    if len(shape) == 3:
        x = read_images(text, shape)
        return x, len(x)
    pairs = [part.partition("=") for part in named_list(text)]
    if not all(value.strip() for _, _, value in pairs):
        raise InputError(f"--given must name attributes and their values, as in smile=1,age=30; got {text!r}.")
    return {name.strip(): value.strip() for name, _, value in pairs}, None


def against_held(recipe: ImageRecipe, samples: Float[Tensor, "n c h w"], seed: int) -> "list[Measurement]":
    """Distances of samples, drawn given smaller held-out images, from these, beside bicubic interpolation.

    Of an image with several samples also their mean, which has a smaller mean square error than each. The last row
    holds samples that are made smaller again against what they were given.
    """
    from ...metrics import peak_signal

    n, truth = len(samples), _held(recipe, len(samples), seed)
    low = reduced(truth.float(), recipe.factor)
    held = len(parts(recipe)[1].x) or n
    few, each = min(n, held), -(-n // held)
    x = torch.from_numpy(kept(samples))
    means = torch.stack([x[k::held].float().mean(0) for k in range(few)])
    plain, again = enlarged(low[:few], recipe.factor), reduced(x.float(), recipe.factor)
    rows = {
        "PSNR of samples": (x, truth, "samples"),
        "PSNR of means": (means, truth[:few], f"means of {each} samples of an image"),
        "PSNR of bicubic": (plain, truth[:few], "bicubic interpolation"),
        "PSNR made small": (again, low, "samples made smaller again"),
    }
    found = []
    for name, (made, real, what) in rows.items():
        row = peak_signal(torch.from_numpy(kept(made.float())), torch.from_numpy(kept(real.float())))
        of = "what they were given" if real is low else "held-out images"
        found.append(replace(row, name=name, note=f"in dB, {what} against {of}"))
    return found if each > 1 else [row for row in found if row.name != "PSNR of means"]


def shown(trained: "Trained", seed: int = 0, columns: int = 8, draws: int = 3) -> dict[str, UInt8[Tensor, "n c h w"]]:
    """Held-out images made smaller, bicubic interpolation, samples, the mean of sixteen, and the images, by row."""
    recipe = cast(ImageRecipe, trained.reading())
    truth = _held(recipe, columns, seed)
    low = reduced(truth.float(), recipe.factor)
    x = torch.stack([trained.sample(columns, seed=seed + k, given=low).cpu() for k in range(16)])
    near = interpolate(low, scale_factor=recipe.factor)
    rows = {"given": near, "bicubic": enlarged(low, recipe.factor)}
    rows |= {f"sample {k + 1}": x[k] for k in range(draws)} | {"mean of 16": x.mean(0), "truth": truth.float()}
    return {name: torch.from_numpy(kept(part)) for name, part in rows.items()}
