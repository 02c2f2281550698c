"""A U-Net of diffusers (UNet2DModel, 0.42) as a UNet of ours, and back. It does not import diffusers.

The two are the same function: only their weights' names differ, and the timestep, which is 1000 t - 1 there.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.paths import VE, Linear
from ..errors import InputError
from ..files import dump_json, load_json, located
from ..networks.clock import Timestep
from ..networks.outline import Outline, fill
from ..networks.unet import Downsample, ImageBlock, PixelAttention, UNet
from ..specs import pick
from ..tensors import read_weights
from ..training import checkpoint
from .diffusers import Converted, from_diffusers
from .schedulers import SCHEDULERS

__all__ = ["CONFIG", "DEFAULTS", "WEIGHTS", "Loaded", "load_unet", "save_unet", "unet_files"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"

# UNet2DModel's settings where a config leaves them out.
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# What the settings without a counterpart must be.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}
_DOWN = {"DownBlock2D": "0", "AttnDownBlock2D": "1"}
_UP = {"UpBlock2D": "0", "AttnUpBlock2D": "1"}
_CONDITIONING = {"default": "add", "scale_shift": "scale_shift"}

# Our names of a network's parts, and theirs. What a stage of `down` and `up` is called depends on its level: `_names`.
_PARTS = {
    "from_time.1": "time_embedding.linear_1",
    "from_time.3": "time_embedding.linear_2",
    "from_label": "class_embedding",
    "stem": "conv_in",
    "norm": "conv_norm_out",
    "out": "conv_out",
}
_IN_BLOCK = {"from_emb": "time_emb_proj", "shortcut": "conv_shortcut"}
_IN_ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in old files


class Loaded(NamedTuple):
    """A network of diffusers', and the settings of its use in a pipeline's folder.

    shape: of an image, (channels, rows, columns). converted: path, grid, sampler and target of the scheduler, if there
    is one; Denoiser(network, converted.path, converted.target) is the denoiser. clip: where the pipeline keeps x̂₀
    within ± clip, the bound: it is for the caller to say guidance.Bounded(denoiser, clip), with keep_noise for DDIM.
    """

    network: UNet
    shape: tuple[int, int, int]
    converted: Converted | None
    clip: float | None


def load_unet(
    folder: str | Path, *, size: tuple[int, int] | None = None, null_label: bool = False, steps: int | None = None
) -> Loaded:
    """The network in a folder of a UNet2DModel, or of a pipeline with `unet/` and `scheduler/`.

    size: rows and columns of an image, where the config has no sample_size.
    null_label: their last class stands for "no label", as where `save_unet` wrote it; otherwise the null label, which
    such a network has not learnt, adds nothing to the time.
    steps: for a grid of the scheduler's own times (see from_diffusers).

    Raises InputError for a setting without a counterpart here, which it names, and for weights that don't fit.
    """
    folder = Path(folder)
    unet, scheduler = (folder / "unet", folder / "scheduler") if os.path.isdir(folder / "unet") else (folder, folder)
    config, plan = _object(unet / CONFIG), scheduler / "scheduler_config.json"
    pick(("UNet2DModel", "UNetUnconditionalModel"), config.get("_class_name", "UNet2DModel"), "A network's _class_name")
    times = _object(plan) if os.path.exists(plan) else None
    converted = None if times is None else from_diffusers(times, steps)
    config = DEFAULTS | config
    try:
        shape, classes = _shape(config, size), _classes(config, null_label)
        with Outline():
            network = UNet(*shape, classes, **_options(config) | _clock(converted, times))
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{unet / CONFIG} can't be used: {' '.join(str(error).split())}") from error
    tensors = read_weights(unet / WEIGHTS)
    fill(network, _to_ours(network, tensors, bool(config["flip_sin_to_cos"]), str(unet / WEIGHTS)))
    return Loaded(network.eval(), shape, converted, _clip(times))


def save_unet(network: UNet, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a folder that UNet2DModel.from_pretrained opens.

    A null label becomes their last class, unless it is all 0, as `load_unet` leaves it: the classes stay as many.

    Only a network that receives the time as timesteps (time=timestep) has a counterpart there: it receives timesteps ·
    t - first.
    overwrite: replace what an earlier call wrote; a folder with anything else in it is never replaced.
    """
    if network.spans:
        raise InputError(
            "A network that spans two times has no counterpart in diffusers; export its run with its steps."
        )
    target, files = located("folder", folder).resolve(), (CONFIG, WEIGHTS, checkpoint.MANIFEST)
    if target.exists():
        if not overwrite:
            raise InputError(f"{folder} exists; pass overwrite to replace it.")
        if not target.is_dir() or any(path.name not in files for path in target.iterdir()):
            raise InputError(f"{folder} holds more than a saved network, so it is not replaced.")
    checkpoint.write_folder(target, unet_files(network))
    return Path(folder)


def unet_files(
    network: UNet, *, table: Float[Tensor, " n"] | None = None, span: float | None = None
) -> dict[str, checkpoint.Content]:
    """config.json and the weights of a UNet2DModel, by name.

    table: times t of the timesteps 0 … n - 1, where the network's features of time are to be stored as a table: of
    whole timesteps such a model is the same as one with any features.
    span: of a network that spans two times, how far its estimates are always to lead, τ_t - τ_s: a constant.
    """
    config = {"_class_name": "UNet2DModel"} | DEFAULTS | _config(network, table is not None)
    state = dict(network.state_dict())
    if (between := network.from_time.from_span) is not None:
        del state["from_time.from_span.weight"]
        if span:
            bias = state["from_time.1.bias"]
            state["from_time.1.bias"] = bias + between(bias.new_full((1,), span))[0].detach()
    names = _names(network, state)
    if network.from_label is not None:
        state["from_label.weight"] = state["from_label.weight"][: config["num_class_embeds"]]
    tensors = {one: part for ours, theirs in names.items() for one, part in zip(theirs, state[ours].chunk(len(theirs)))}
    if table is not None:
        config |= {"time_embedding_type": "learned", "num_train_timesteps": len(table)}
        tensors["time_proj.weight"] = network.from_time[0](table)
    return {CONFIG: dump_json(config), WEIGHTS: tensors}


# Settings


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Their settings as options of a UNet, all but those of its clock."""
    for key, accepted in _REQUIRED.items():
        if config[key] not in accepted:
            wanted = " or ".join(map(str, accepted))
            raise InputError(f"{key}={config[key]!r} has no counterpart here; it must be {wanted}.")
    widths, groups, head = (config[key] for key in ("block_out_channels", "norm_num_groups", "attention_head_dim"))
    if config["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise InputError(f"time_embedding_dim must be 4 × {widths[0]}; got {config['time_embedding_dim']!r}.")
    if config["attn_norm_num_groups"] not in (None, groups):
        raise InputError(f"attn_norm_num_groups must be norm_num_groups; got {config['attn_norm_num_groups']!r}.")
    down, up = (_flags(config, key, kinds) for key, kinds in (("down_block_types", _DOWN), ("up_block_types", _UP)))
    if down != up[::-1] or len(down) != len(widths):
        raise InputError("down_block_types, up_block_types and block_out_channels must have the same levels.")
    attending = [width for width, flag in zip(widths, down) if flag == "1"] + widths[-1:] * bool(
        config["add_attention"]
    )
    if head is not None and any(width % head for width in attending):
        raise InputError(f"attention_head_dim={head} must divide the channels where there is attention, {attending}.")
    bare = config["resnet_time_scale_shift"] == "scale_shift" and config["attn_norm_num_groups"] is None
    unit = math.gcd(*widths)
    return {
        "width": unit,
        "multipliers": "-".join(str(width // unit) for width in widths),
        "blocks": config["layers_per_block"],
        "attention": "-".join(down),
        "head": max(widths) if head is None else head,
        "dropout": config["dropout"],
        "groups": groups,
        "eps": config["norm_eps"],
        "conditioning": _CONDITIONING[config["resnet_time_scale_shift"]],
        "middle": "plain" if not config["add_attention"] else "unnormed" if bare else "attention",
        "asymmetric": config["downsample_padding"] == 0,
        "time": "timestep",
        "freq_shift": config["freq_shift"],
    }


def _config(network: UNet, by_table: bool = False) -> dict[str, Any]:
    """A UNet's options as their settings, where they aren't the defaults."""
    clock, block, parts = network.from_time[0], network.middle[0], list(network.modules())
    assert isinstance(block, ImageBlock)
    norms = {part.num_groups for part in parts if isinstance(part, nn.GroupNorm)}
    attentions = [part for part in parts if isinstance(part, PixelAttention)]
    single = all(part.heads == 1 for part in attentions)
    heads = {part.qkv.in_features // part.heads for part in attentions}
    bare = isinstance(block.attention, PixelAttention) and isinstance(block.attention.norm, nn.Identity)
    if not (by_table or isinstance(clock, Timestep)):
        raise InputError("Only a network with time=timestep can be saved for diffusers; this one has time=fourier.")
    if network.patch != 1 or (bare and block.adds):
        what = "conditioning=add and middle=unnormed" if network.patch == 1 else f"patch={network.patch}"
        raise InputError(f"A network with {what} has no counterpart in diffusers.")
    if len(norms) > 1 or (len(heads) > 1 and not single):
        raise InputError("In diffusers all norms have as many groups and all heads as many channels; here they differ.")
    channels, *size = network.shape
    return {
        "sample_size": size[0] if size[0] == size[1] else size,
        "in_channels": channels,
        "out_channels": channels,
        "freq_shift": clock.freq_shift if isinstance(clock, Timestep) else 0,
        "flip_sin_to_cos": False,
        "down_block_types": [list(_DOWN)[flag] for flag in network.attention],
        "up_block_types": [list(_UP)[flag] for flag in network.attention[::-1]],
        "block_out_channels": network.widths,
        "layers_per_block": network.blocks,
        "downsample_padding": 0 if any(isinstance(part, Downsample) and part.asymmetric for part in parts) else 1,
        "dropout": block.dropout.p,
        "attention_head_dim": None if single else heads.pop(),
        "norm_num_groups": block.norm1.num_groups,
        "attn_norm_num_groups": None if bare else block.norm1.num_groups,
        "norm_eps": block.norm1.eps,
        "resnet_time_scale_shift": "default" if block.adds else "scale_shift",
        "add_attention": isinstance(block.attention, PixelAttention),
        "num_class_embeds": None
        if network.from_label is None
        else network.classes + bool(network.from_label.weight[-1].any()),
    }


def _flags(config: Mapping[str, Any], key: str, kinds: Mapping[str, str]) -> list[str]:
    """The levels with attention; the oldest configs write UNetRes before a block's kind."""
    return [kinds[pick(kinds, str(kind).removeprefix("UNetRes"), key)] for kind in config[key]]


def _shape(config: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[int, int, int]:
    if config["in_channels"] != config["out_channels"]:
        raise InputError(
            f"out_channels={config['out_channels']} must be in_channels={config['in_channels']}: what a network is "
            "told or says beside the image, such as a learned variance, has no counterpart here."
        )
    own = size or config["sample_size"]
    if own is None:
        raise InputError("sample_size is None; give the size of an image, its rows and columns.")
    rows, columns = (own, own) if isinstance(own, int) else own
    return config["in_channels"], rows, columns


def _classes(config: Mapping[str, Any], null_label: bool) -> int:
    count = config["num_class_embeds"] or 0
    if null_label and count < 2:
        raise InputError(f"A network with null_label has at least two classes; num_class_embeds is {count}.")
    return count - null_label


def _clock(converted: Converted | None, scheduler: Mapping[str, Any] | None) -> dict[str, int]:
    """The network's time input at t: timestep 1000 t - 1, for a flow 1000 t, and EDM's clock unchanged."""
    if converted is None or scheduler is None:
        return {}
    if isinstance(converted.path, VE):
        return {"timesteps": 1, "first": 0}
    return {
        "timesteps": scheduler.get("num_train_timesteps", 1000),
        "first": 0 if isinstance(converted.path, Linear) else 1,
    }


def _clip(scheduler: Mapping[str, Any] | None) -> float | None:
    """The bound of x̂₀, where the scheduler has one."""
    if scheduler is None or scheduler.get("thresholding"):
        return None
    default = SCHEDULERS[scheduler["_class_name"]].defaults.get("clip_sample", False)
    return float(scheduler.get("clip_sample_range", 1.0)) if scheduler.get("clip_sample", default) else None


def _object(file: Path) -> dict[str, Any]:
    value = load_json(file)
    if not isinstance(value, dict):
        raise InputError(f"{file} must hold a config; got {value!r:.60}.")
    return value


# Weights


def _names(network: UNet, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The names of each of our tensors there: one, but three where they keep q, k and v apart."""
    places = {ours: [theirs] for ours, theirs in _PARTS.items()}
    for ours, stage, level, place in _stages(network):
        if isinstance(stage, ImageBlock):
            for part in ("norm1", "conv1", "from_emb", "norm2", "conv2", "shortcut"):
                places[f"{ours}.{part}"] = [f"{level}.resnets.{place}.{_IN_BLOCK.get(part, part)}"]
            for part, theirs in _IN_ATTENTION.items():
                places[f"{ours}.attention.{part}"] = [f"{level}.attentions.{place}.{one}" for one in theirs]
        else:
            kind = "downsamplers" if isinstance(stage, Downsample) else "upsamplers"
            places[f"{ours}.conv"] = [f"{level}.{kind}.0.conv"]
    split = ((name, *name.rsplit(".", 1)) for name in state)
    return {name: [f"{one}.{kind}" for one in places[part]] for name, part, kind in split}


def _stages(network: UNet) -> Iterator[tuple[str, nn.Module, str, int]]:
    """Each stage with our name, the name of its level there, and its place in the level."""
    for k, stage in enumerate(network.down):
        level, place = divmod(k, network.blocks + 1)
        yield f"down.{k}", stage, f"down_blocks.{level}", place
    for k, stage in enumerate(network.middle):
        yield f"middle.{k}", stage, "mid_block", k
    for k, stage in enumerate(network.up):
        level, place = divmod(k, network.blocks + 2)
        yield f"up.{k}", stage, f"up_blocks.{level}", place


def _to_ours(network: UNet, tensors: dict[str, Tensor], cosines_first: bool, where: str) -> dict[str, Tensor]:
    """Their tensors under our names."""
    tensors = {".".join(_OLD.get(part, part) for part in name.split(".")): part for name, part in tensors.items()}
    names = _names(network, network.state_dict())
    if differ := sorted({one for theirs in names.values() for one in theirs} ^ tensors.keys()):
        raise InputError(f"{where} {'has' if differ[0] in tensors else 'lacks'} {differ[0]}, unlike its config.")
    state = {ours: torch.cat([tensors[one] for one in theirs]) for ours, theirs in names.items()}
    if cosines_first:
        weight = state["from_time.1.weight"]
        state["from_time.1.weight"] = weight.roll(weight.shape[1] // 2, 1)
    if network.from_label is not None and len(labels := state["from_label.weight"]) == network.classes:
        state["from_label.weight"] = torch.cat([labels, torch.zeros_like(labels[:1])])
    for name, expected in network.state_dict().items():
        if state[name].shape != expected.shape:
            shapes = f"{tuple(state[name].shape)}, but its config says {tuple(expected.shape)}"
            raise InputError(f"{where}: {' + '.join(names[name])} has the shape {shapes}.")
    return state
