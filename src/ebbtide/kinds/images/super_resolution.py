"""Super-resolution: smaller images to be given, the samples' distances from the images they were, and a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ...core.randomness import generator
from ...errors import InputError
from ...recipes import ImageRecipe
from ...specs import named_values
from .conditions import enlarged, reduced
from .data import kept, parts, read_images

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...training.trained import Trained

__all__ = ["MEANS", "AgainstHeld", "given_of", "recorded", "shown"]

MEANS = 5000  # images at most of whose samples the means are kept


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
    pairs = named_values(text, trained.attributes)
    if not all(value for _, value in pairs):
        raise InputError(f"--given must name attributes and their values, as in smile=1,age=30; got {text!r}.")
    return dict(pairs), None


class AgainstHeld:
    """Distances of n samples, drawn given smaller held-out images, from these, beside bicubic interpolation.

    Of an image with several samples also their mean, which has a smaller mean square error than each, for MEANS images
    at most. The last row holds samples that are made smaller again against what they were given. Samples come in
    blocks, also to several processes, as in `metrics.ImageJudge`.
    """

    def __init__(self, recipe: ImageRecipe, n: int, seed: int) -> None:
        self.recipe, self.n, self.seed = recipe, n, seed
        self.held = len(parts(recipe)[1].x) or n
        self.each = -(-n // self.held)
        self._errors: dict[str, list[Tensor]] = {}
        self._sums: Tensor | None = None

    def look(self, first: int, samples: UInt8[Tensor, "b c h w"]) -> None:
        """Compare the samples `first`, first + 1, …"""
        from ...metrics import mean_squares

        factor, ids = self.recipe.factor, torch.arange(first, first + len(samples))
        truth = _held(self.recipe, len(samples), self.seed, first)
        low = reduced(truth.float(), factor)
        once = int((ids < self.held).sum())
        compared = {
            "PSNR of samples": (samples, truth),
            "PSNR of bicubic": (_pixels(enlarged(low[:once], factor)), truth[:once]),
            "PSNR made small": (_pixels(reduced(samples.float(), factor)), _pixels(low)),
        }
        for name, (made, real) in compared.items():
            self._errors.setdefault(name, []).append(mean_squares(made, real))
        if self.each > 1:
            few = min(self.held, MEANS)
            chosen = ids % self.held < few
            sums = torch.zeros(few, *samples.shape[1:]) if self._sums is None else self._sums
            self._sums = sums.index_add_(0, (ids % self.held)[chosen], samples[chosen].float())

    def seen(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """All that was kept of the samples."""
        return {name: torch.cat(errors) for name, errors in self._errors.items()}, self._sums

    def rows(self, every: Sequence[tuple[dict[str, Tensor], Tensor | None]]) -> "list[Measurement]":
        """The report on what all processes saw."""
        from ...metrics import mean_squares, peak_of

        names = {name: None for one, _ in every for name in one}
        errors = {name: torch.cat([one[name] for one, _ in every if name in one]) for name in names}
        if sums := [part for _, part in every if part is not None]:
            total, places = torch.stack(sums).sum(0), torch.arange(len(sums[0]))
            counts = (self.n - places + self.held - 1) // self.held
            means = _pixels(total / counts[:, None, None, None])
            errors["PSNR of means"] = mean_squares(means, _held(self.recipe, len(means), self.seed))
        notes = {
            "PSNR of samples": "samples against held-out images",
            "PSNR of means": f"means of {self.each} samples of an image against held-out images",
            "PSNR of bicubic": "bicubic interpolation against held-out images",
            "PSNR made small": "samples made smaller again against what they were given",
        }
        return [
            replace(peak_of(errors[name]), name=name, note=f"in dB, {note}")
            for name, note in notes.items()
            if name in errors
        ]


def _pixels(x: Tensor) -> UInt8[Tensor, "n c h w"]:
    return torch.from_numpy(kept(x.float()))


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
