"""Images as latents: encoded once, mirrored in training, of the scale that a recipe counts on."""

import math
from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from ... import cache
from ...codecs import Codec, encoder_hash
from ...core.randomness import uniform
from ...data.prepared import TensorData
from ...data.shards import Shards
from ...errors import InputError
from ...memory import room
from ...progress import progress_bar
from ...recipes import ImageRecipe
from ...specs import parse

__all__ = ["BATCH", "latents"]

BATCH = 256  # images encoded together


def latents(
    recipe: ImageRecipe, codec: Codec, x: UInt8[Tensor, " n c h w"] | Shards, labels: Int[Tensor, " n"] | None
) -> TensorData:
    """The latents of images once and for all, with those of their mirror images where only encoding finds these."""
    room(8 * len(x) * (1 + recipe.flip) * math.prod(codec.shape(tuple(x.shape[1:]))), f"the latents of {len(x)} images")
    if recipe.bound and not codec.linear:
        raise InputError(
            f"bound {recipe.bound:g} is for pixels, and codec {recipe.codec} isn't linear, so it must be 0 (--bound 0)."
        )
    z = _encoded(codec, x)
    _check_scale(recipe, z)
    if not recipe.flip:
        return TensorData(z, labels)
    if codec.mirror(z[:1]) is not None:
        return TensorData(z, labels, prepare=partial(_mirrored, codec=codec))
    return TensorData(torch.stack([z, _encoded(codec, x, mirrored=True)], 1), labels, prepare=_either)


def _encoded(codec: Codec, x: UInt8[Tensor, " n c h w"] | Shards, mirrored: bool = False) -> Float[Tensor, "n ..."]:
    """Latents of images, or of their mirror images; of a codec that isn't linear, which takes long, from the cache."""
    name = ""
    if not codec.linear and isinstance(x, Shards):
        name = f"latents-{cache.fingerprint(encoder_hash(codec), x.content(), mirrored)[:32]}"
    elif not codec.linear and isinstance(x, Tensor):
        name = f"latents-{cache.fingerprint(encoder_hash(codec), tensors=[x.flip(3) if mirrored else x])[:32]}"
    if name and (found := cache.fetch(name)):
        return found[0]["z"]
    parts = progress_bar(
        -(-len(x) // BATCH), "encoding", "batch", over=x.split(BATCH), delay=2, leave=False, show=not codec.linear
    )
    with torch.no_grad():
        z = torch.cat([codec.encode(part.flip(3) if mirrored else part) for part in parts])
    if name:
        cache.store(name, {"z": z})
    return z


def _check_scale(recipe: ImageRecipe, z: Tensor) -> None:
    """Refuse EDM's preconditioning for data of another scale than these latents have."""
    name, options = parse(recipe.target)
    std, stated = float(z[:1000].std()), float(options.get("data_std", 1.0))
    if name == "edm" and not 2 / 3 < std / stated < 1.5:
        raise InputError(
            f"target {recipe.target} is for data of standard deviation {stated:g}, and these latents have {std:.2g}: "
            f"give target edm:data_std={std:.2g} and times such as log_normal:mean={math.log(std) - 0.5:.2g}."
        )


def _mirrored(z: Float[Tensor, "b ..."], draw: Generator, codec: Codec) -> Float[Tensor, "b ..."]:
    """Half of the latents mirrored."""
    turned = codec.mirror(z)
    assert turned is not None
    chosen = uniform(draw, len(z)) < 0.5
    return torch.where(chosen.reshape(-1, *[1] * (z.ndim - 1)), turned, z)


def _either(z: Float[Tensor, "b 2 ..."], draw: Generator) -> Float[Tensor, "b ..."]:
    """Of each image's latent and that of its mirror image, one."""
    chosen = uniform(draw, len(z)) < 0.5
    return torch.where(chosen.reshape(-1, *[1] * (z.ndim - 2)), z[:, 1], z[:, 0])
