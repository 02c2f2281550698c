"""The error of images that went through a codec: no sampler in its latent can do better."""

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..specs import shaped
from .images import measure_images
from .intervals import influence_interval
from .measurement import Measurement

__all__ = ["measure_restored", "psnr"]

PEAK = 255.0


def psnr(x: UInt8[Tensor, "n ..."], y: UInt8[Tensor, "n ..."]) -> float:
    """10 log₁₀(255² / mean squared error over all images), in decibels."""
    return _decibels(_errors(x, y))


def measure_restored(
    made: UInt8[Tensor, "n c h w"],
    held: UInt8[Tensor, "n c h w"],
    train: UInt8[Tensor, "m c h w"],
    *,
    seed: int = 0,
    train_labels: Int[Tensor, " _"] | None = None,
    held_labels: Int[Tensor, " _"] | None = None,
    classes: int = 0,
) -> list[Measurement]:
    """codec PSNR and codec KID of held-out images and what a codec made of them; the KID is beside that of samples.

    PSNR has no floor: a codec without loss has none, an infinite one.
    """
    shaped("made", made, *held.shape)
    errors = _errors(held, made)
    value = _decibels(errors)
    low, high = value, value
    if math.isfinite(value):
        influence = -10 / math.log(10) * (errors / errors.mean() - 1)
        low, high = influence_interval(value, [influence.numpy()], seed)
    nothing, note = math.nan, f"{len(held)} held-out images, encoded and decoded"
    rows = [Measurement("codec PSNR", value, low, high, nothing, nothing, nothing, "higher", note)]
    every = measure_images(
        made, train, held, train_labels=train_labels, held_labels=held_labels, classes=classes, seed=seed
    ).rows
    found = next(row for row in every if row.name.startswith("KID"))
    return [*rows, Measurement(**vars(found) | {"name": f"codec {found.name}", "in_summary": False, "in_curve": False})]


def _errors(x: Tensor, y: Tensor) -> Float[Tensor, " n"]:
    """Each image's mean squared error."""
    parts = (a.double() - b.double() for a, b in zip(x.split(64), y.split(64), strict=True))
    return torch.cat([part.square().flatten(1).mean(1) for part in parts])


def _decibels(errors: Float[Tensor, " n"]) -> float:
    error = float(errors.mean())
    return 10 * math.log10(PEAK**2 / error) if error else math.inf
