"""CODECS: how data is seen by a denoiser, fitted, stored with a run and undone on sampling.

A spec chains rows by "+": "pixels+patches:size=8,keep=16" scales pixels, then cuts them into patches.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..specs import bind, parse, pick
from .autoencoder import fit_autoencoder, read_autoencoder, with_decoder
from .category import Category, fit_category, read_category
from .codec import Batches, Chain, Codec, CodecRow, Shape, encoder_hash, latent_shape, split_weights, volume
from .columns import IDENTITY, REACH, Pixels, Quantiles, Standardise, read_columns, within_float32
from .diffusers import fit_diffusers, read_diffusers
from .groups import Groups, groups
from .missing import Missing, fit_missing, read_missing
from .mixed import Mixed, fit_mixed, fit_table, read_mixed
from .patches import Patches, fit_patches, read_patches
from .ranks import Cells, Ranks, fit_ranks, read_ranks

__all__ = [
    "CODECS",
    "IDENTITY",
    "REACH",
    "Batches",
    "Category",
    "Cells",
    "Chain",
    "Codec",
    "CodecRow",
    "Groups",
    "Missing",
    "Mixed",
    "Patches",
    "Pixels",
    "Quantiles",
    "Ranks",
    "Shape",
    "Standardise",
    "codec_from_config",
    "encoder_hash",
    "fit_codec",
    "fit_table",
    "groups",
    "latent_shape",
    "links",
    "volume",
    "with_decoder",
    "within_float32",
]  # fmt: skip


def _none(batches: Batches) -> Standardise:
    """Data as it is."""
    return IDENTITY


def _standardise(batches: Batches) -> Standardise:
    """Columns of numbers to mean 0 and standard deviation 1."""
    return Standardise.fit(torch.cat([*batches()]))


def _quantiles(batches: Batches, *, low: float = 0.01, high: float = 0.99) -> Quantiles:
    """Columns of numbers, from one quantile to another, to [-1, 1]."""
    return Quantiles.fit(torch.cat([*batches()]), low, high)


def _pixels(batches: Batches) -> Pixels:
    """Pixels 0 to 255 to [-1, 1]."""
    return Pixels()


CODECS: dict[str, CodecRow] = {
    "none": CodecRow(_none, read_columns, "columns"),
    "standardise": CodecRow(_standardise, read_columns, "columns"),
    "quantiles": CodecRow(_quantiles, read_columns, "columns"),
    "pixels": CodecRow(_pixels, read_columns, "pixels"),
    "patches": CodecRow(fit_patches, read_patches),
    "autoencoder": CodecRow(fit_autoencoder, read_autoencoder),
    "diffusers": CodecRow(fit_diffusers, read_diffusers),
    "ranks": CodecRow(fit_ranks, read_ranks, "columns"),
    "missing": CodecRow(fit_missing, read_missing, "columns"),
    "category": CodecRow(fit_category, read_category, "levels"),
    "mixed": CodecRow(fit_mixed, read_mixed, "columns"),
}


def links(spec: str) -> list[str]:
    """The specs of a chain's codecs: a "+" that no row's name follows belongs to an option, such as a folder."""
    return re.split(rf"\+(?=(?:{'|'.join(map(re.escape, CODECS))})(?:[:+]|$))", spec.strip())


def fit_codec(spec: str, batches: Batches, opened: Callable[[str], Any] | None = None) -> Codec:
    """The codec of a spec such as "pixels+patches:size=8,keep=16", each link fitted to what those before it encode.

    opened: (name of a folder) → its config and weights, for rows that are made of another run.
    """
    found: list[Codec] = []

    def encoded(before: tuple[Codec, ...]) -> Iterator[Tensor]:
        return (Chain(before).encode(x) for x in batches())

    for link in links(spec):
        row = bind(CODECS, link, "codec")
        takes = inspect.signature(CODECS[parse(link)[0]].function).parameters
        before = tuple(found)
        found.append(row(lambda: encoded(before), **({"opened": opened} if "opened" in takes else {})))  # noqa: B023
    return found[0] if len(found) == 1 else Chain(tuple(found))


def codec_from_config(config: Any, weights: Mapping[str, Tensor] = {}) -> Codec:
    """The codec whose `to_config` and `weights` these are; anything else is an InputError that names the codec."""
    if not isinstance(config, Mapping):
        raise InputError(f"A codec must be a table with a name; got {config!r}.")
    name = str(config.get("name", ""))
    if name == "chain":
        parts = config.get("codecs")
        if set(config) != {"name", "codecs"} or not isinstance(parts, list) or not 1 <= len(parts) <= 16:
            raise InputError("A chain of codecs must be a table of a name and codecs, a list.")
        own = split_weights(weights, len(parts), "The chain of codecs has no codec")
        if any(isinstance(part, Mapping) and part.get("name") == "chain" for part in parts):
            raise InputError("A chain of codecs can't hold another chain.")
        return Chain(tuple(map(codec_from_config, parts, own)))
    return CODECS[pick(CODECS, name, "the codec's name")].read(config, weights)
