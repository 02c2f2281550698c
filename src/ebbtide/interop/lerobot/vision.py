"""The encoder of images of LeRobot's diffusion policies, as the options, weights and buffers of a KeypointEncoder."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...errors import InputError
from ...networks.resnet import DEPTHS
from ..names import renamed

__all__ = ["columns_of_theirs", "image_scaling", "vision_options", "vision_weights"]

_ENCODER = "diffusion.rgb_encoder."
_EPS = 1e-5  # of torchvision's BatchNorms
_PARTS = (
    (r"^backbone\.", "trunk."),
    (r"^pool\.nets\.", "maps."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
)
# A BatchNorm and the convolution before it, both as theirs are called.
_BEFORE = ((r"^backbone\.1$", "backbone.0"), (r"\.bn([12])$", r".conv\1"), (r"\.downsample\.1$", ".downsample.0"))


def vision_options(config: Mapping[str, Any], cameras: int) -> dict[str, Any]:
    """The options of an ActionFiLMUNet that sees images as the policy does; InputError where there are none.

    cameras: their number.
    """
    layers = re.fullmatch(r"resnet(\d+)", str(config["vision_backbone"]))
    if layers is None or int(layers[1]) not in DEPTHS:
        rows = " or ".join(f"resnet{n}" for n in DEPTHS)
        raise InputError(f"A policy's vision_backbone must be {rows} to be loaded; got {config['vision_backbone']!r}.")
    crop, resize = config.get("crop_shape"), config.get("resize_shape")
    if resize:  # of which their crop is a share, whatever crop_shape is
        share = config.get("crop_ratio", 1.0)
        crop = [int(side * share) for side in resize] if share < 1 else None
    return {
        "resnet": int(layers[1]),
        "keypoints": config["spatial_softmax_num_keypoints"],
        "crop": "-".join(map(str, crop or ())),
        "resize": "-".join(map(str, resize or ())),
        "encoders": cameras if config["use_separate_rgb_encoder_per_camera"] else 1,
        "norms": bool(config["use_group_norm"]),
    }


def vision_weights(tensors: Mapping[str, Tensor], encoders: int) -> dict[str, Tensor]:
    """A policy's weights under the names of a KeypointEncoder's; its BatchNorms are folded into the convolutions.

    tensors: all of the policy's. encoders: as the policy has, 1 for all cameras or one for each.
    """
    found: dict[str, Tensor] = {}
    for i in range(encoders):
        own = f"{_ENCODER}{i}." if encoders > 1 else _ENCODER
        parts = {name.removeprefix(own): part for name, part in tensors.items() if name.startswith(own)}
        parts.pop("pool.pos_grid", None)  # the places of the cells, which follow from the images' size
        found |= {f"encoders.{i}.{renamed(name, _PARTS)}": part for name, part in _folded(parts).items()}
    return found


def _folded(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without BatchNorms: w (W x - mean) / √(var + eps) + b is a convolution with other weights, and a bias."""
    kept = dict(parts)
    for running in [name for name in parts if name.endswith(".running_mean")]:
        norm = running.removesuffix(".running_mean")
        convs = [re.sub(pattern, into, norm) for pattern, into in _BEFORE if re.search(pattern, norm)]
        needed = [
            *(f"{norm}.{kind}" for kind in ("running_var", "weight", "bias")),
            *(f"{one}.weight" for one in convs),
        ]
        if not convs or (missing := [name for name in needed if name not in kept]):
            lacks = f"there is no convolution before {norm}" if not convs else f"{missing[0]} is missing"
            raise InputError(f"A policy's BatchNorms can't be folded into its convolutions: {lacks}.")
        mean, var, weight, bias = (
            kept.pop(f"{norm}.{kind}").double() for kind in ("running_mean", "running_var", "weight", "bias")
        )
        kept.pop(f"{norm}.num_batches_tracked", None)
        (conv,) = convs
        scale = weight / (var + _EPS).sqrt()
        kept[f"{conv}.weight"] = (kept[f"{conv}.weight"].double() * scale[:, None, None, None]).float()
        kept[f"{conv}.bias"] = (bias - mean * scale).float()
    return kept


def columns_of_theirs(emb: int, steps: int, state: int, images: int, world: int) -> Int[Tensor, " n"]:
    """For each of an ActionFiLMUNet's conditions, its place among LeRobot's.

    Theirs are the time, and for each step the state, the images and the environment's state; ours have all images after
    all states. emb: features of the time. state, images, world: features of each at one step.
    """
    whole = state + images + world
    theirs = emb + torch.arange(steps * whole).reshape(steps, whole)
    seen = torch.cat([theirs[:, :state], theirs[:, state + images :]], 1)
    return torch.cat([torch.arange(emb), seen.flatten(), theirs[:, state : state + images].flatten()])


def image_scaling(mode: str, stats: Sequence[Mapping[str, Tensor] | None], steps: int) -> dict[str, Tensor]:
    """The buffers mean and std (steps · cameras, 3) that scale pixels in [0, 1] as the policy does.

    mode: as a policy's config names it. stats: of each camera. InputError where they are missing, or not one number a
    channel.
    """
    if mode == "IDENTITY":
        return {"mean": torch.zeros(steps * len(stats), 3), "std": torch.ones(steps * len(stats), 3)}
    ends, made = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99")}, []
    for own in stats:
        if own is None or mode not in ends or not set(ends[mode]) <= own.keys():
            raise InputError(f"The policy scales images by {mode}, for which its folder has no statistics.")
        low, high = (own[name].double().flatten().expand(3) for name in ends[mode])
        if mode == "MEAN_STD":
            made.append((low, high + 1e-8))  # as theirs, for a channel of one value
        else:  # to [-1, 1], where one value is -1
            half = ((high - low) / 2).where(high > low, 1.0)
            made.append((low + half, half))
    mean, std = (torch.stack(parts).float().repeat(steps, 1) for parts in zip(*made, strict=True))
    return {"mean": mean, "std": std}
