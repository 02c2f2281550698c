"""Recipes for images: each is a row (path, target, times, sampler) over the same network and training."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Unpack

from ..specs import named_list
from .fields import ImageFields
from .points import MEAN_FLOW, SHORTCUT
from .recipe import Recipe

__all__ = [
    "ImageRecipe", "autoencoder", "ddpm_images", "ddpm_latents", "edm_images", "flow_images", "flow_latents",
    "mean_flow_images", "shortcut_images", "super_resolution",
]  # fmt: skip

_MADE_OF = r"((?:autoencoder|diffusers):(?:[^+]*,)?(?:run|folder)=)([^,]*?)(?=,|$|\+[a-z_]+(?:[:+]|$))"  # of a codec


@dataclass(frozen=True)
class ImageRecipe(Recipe):
    """A recipe for images, which are scaled to [-1, 1] for the network."""

    kind: ClassVar[str] = "images"

    data: str = "digits"
    """digits, a folder of images, a .npz, idx files, or hf:NAME; a .npz holds uint8 images and labels."""
    label: str = ""
    """Source of the labels; folder (a class for each sub-folder), an array of the .npz, a column of hf:NAME."""
    size: int = 0
    """Side to which images are resized and centre-cropped; 0 keeps their size, which must then be equal."""
    channels: int = 0
    """1 for grey, 3 for colour, 4 for transparency; 0 for grey or colour, as found."""
    value_range: str = ""
    """LOW:HIGH of images of more than 8 bits; mapped to 0 and 255, by default the set's extremes."""
    codec: str = "pixels"
    """Form in which the network sees images; rows of `ebbtide list codecs` joined by +."""
    flip: bool = False
    """Mirror half of the training images, left to right."""
    factor: int = 0
    """Draw images given ones of this many times fewer pixels a side; 0 for none."""
    attributes: str = ""
    """Numbers that images are drawn given; an array of the .npz, a .csv file with a row for each image, or columns
    of an hf: set separated by commas."""
    attribute_ranges: str = ""
    """NAME=LOW:HIGH of each attribute, separated by commas; stored with the run, by default the set's extremes."""
    held_out: float = 0.1
    """Share of the images held out for evaluation; a set with its own test split keeps that."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """Skip files that can't be read, or fail; at most 5 % may be skipped."""

    def condition(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.factor:
            return (shape[0], *(side // self.factor for side in shape[1:]))
        return (len(named_list(self.attribute_ranges)),) if self.attributes and self.attribute_ranges else ()

    def outside(self) -> dict[str, str]:
        return super().outside() | ({"codec": found[2]} if (found := re.search(_MADE_OF, self.codec)) else {})

    def naming(self, names: Mapping[str, str]) -> "Recipe":
        named = super().naming(names)
        if "codec" not in names or "codec" not in self.outside():
            return named
        return replace(named, codec=re.sub(_MADE_OF, lambda found: found[1] + names["codec"], self.codec))  # type: ignore[call-arg]

    @staticmethod
    def built_in(data: str) -> bool:
        return data == "digits"

    @staticmethod
    def on_hub(data: str) -> bool:
        return data.startswith("hf:")


_BASE = ImageRecipe(
    network="unet-tiny", batch=128, steps=3000, lr=2e-3, warmup=0.05, ema=0.999, sampler="heun", grid="uniform"
)


def ddpm_images(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): predict the noise, sample by ancestral steps.

    x̂₀ is clipped to the pixels' range while sampling, as theirs is. Digits by class: 97.1 % of samples recognised
    after 720 steps, 142 CPU s (docs/results.md).
    """
    return replace(
        _BASE, path="ddpm", target="noise", sampler="ddpm:variance=beta", grid="trailing", sample_steps=1000, bound=1.0
    ).having(fields)


def flow_images(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """Flow matching (Lipman et al. 2023, arXiv:2210.02747): predict the velocity, follow the ODE.

    The same as rectified flow (Liu et al. 2023, arXiv:2209.03003). Training times are logit-normal (Esser et al. 2024,
    arXiv:2403.03206): most is learned half-way. Digits by class: 98.6 % of samples recognised after 720 steps, 133
    CPU s, with 19 evaluations (docs/results.md). Fashion-MNIST: docs/LOG.md.
    """
    return replace(_BASE, path="linear", target="velocity", times="logit_normal").having(fields)


def edm_images(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """EDM (Karras et al. 2022, arXiv:2206.00364): preconditioned denoiser on exploding noise, Heun on their grid."""
    return replace(
        _BASE, path="ve", target="edm:data_std=0.5", times="log_normal:mean=-1.2", grid="karras", sample_steps=18
    ).having(fields)


def super_resolution(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """Super-resolution (SR3, Saharia et al. 2021, arXiv:2104.07636) by flow matching: images given smaller ones.

    The smaller image, here of a quarter of the sides, is enlarged and stands beside x as further channels of the input.
    Samples without --given are drawn given held-out images that were made smaller.
    """
    return replace(flow_images(), factor=4).having(fields)


def shortcut_images(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """Shortcut model (Frans et al. 2024, arXiv:2410.12557): a map that samples in one step, from data alone."""
    return replace(flow_images(), network="unet-tiny:spans=true", steps=6000, **SHORTCUT).having(fields)


def mean_flow_images(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """MeanFlow (Geng et al. 2025, arXiv:2505.13447): mean slopes by their rate along the flow, from data alone."""
    return replace(flow_images(), network="unet-tiny:spans=true", steps=6000, lr=1e-3, **MEAN_FLOW).having(fields)


def autoencoder(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """An autoencoder: a codec of images for `flow-latents`, which begins at the principal components of patches.

    Latents for diffusion: Rombach et al. 2022, arXiv:2112.10752. x̂₀ = decode(encode(x₀) + noise) learns by its squared
    and absolute error; the fields of paths, times and sampling have no effect.
    """
    return replace(
        _BASE, network="autoencoder", loss="reconstruct", target="x0", times="uniform", batch=32, steps=2000, lr=2.5e-3,
        beta2=0.98, ema=0.995, flip=True,
    ).having(fields)  # fmt: skip


_LATENTS: dict[str, Any] = {
    "codec": "pixels+patches:size=8,keep=16", "network": "unet:width=64,multipliers=1-2,attention=1-1,groups=16",
    "batch": 64, "steps": 6000, "lr": 1e-3, "ema": 0.9995, "bound": 0.0,
}  # fmt: skip


def flow_latents(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """Latent diffusion (Rombach et al. 2022, arXiv:2112.10752) by flow matching: `flow-images` on the codec's latents.

    The default codec is for 64 × 64: the first 16 principal components of each patch of 8 × 8.
    """
    return replace(flow_images(), **_LATENTS).having(fields)


def ddpm_latents(**fields: Unpack[ImageFields]) -> ImageRecipe:
    """Latent diffusion (Rombach et al. 2022, arXiv:2112.10752): `ddpm-images` on the codec's latents, not clipped."""
    return replace(ddpm_images(), **_LATENTS).having(fields)
