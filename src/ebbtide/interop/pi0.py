"""π0's published weights in an ActionExpert with PaliGemma, and back: only the names differ.

transformers   PI0ForConditionalGeneration: model.vlm…, model.dit…, embed_action_time.state_proj…
lerobot        model.paligemma_with_expert.paligemma…, model.paligemma_with_expert.gemma_expert…, model.state_proj…
openpi         the same without the first "model.": openpi's PyTorch port

Reading takes any of the three, a pi05 among the last two, with or without the words' table that nothing uses: the
expert's. Time runs as here (1 is noise), so nothing is converted but names, and where one matrix of ours is several.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..memory import room
from ..networks.action_expert import ActionExpert, GemmaLayer
from ..networks.paligemma import PaliGemma
from ..specs import pick
from ..tensors import read_weights
from .names import renamed

__all__ = ["DIALECTS", "from_pi0", "load_pi0", "to_pi0"]

# Our name of a part, and their short names: without what says whose part it is.
_PARTS = {
    "norm1": ("input_layernorm",),
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "norm2": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_ENDS = {
    "from_action": "action_in_proj",
    "from_state": "state_proj",
    "time.0": "action_time_mlp_in",
    "time.2": "action_time_mlp_out",
    "out": "action_out_proj",
}
_WORDS = "vlm.language_model.embed_tokens.weight"
_UNUSED = ("expert.embed_tokens.weight", "expert.lm_head.weight")

# Short names from theirs, step by step; and, by dialect, theirs from short names.
_SHORTEN = (
    (r"^model\.(?!dit\.|vlm\.)", ""),
    (r"^embed_action_time\.", ""),
    (r"^(model\.dit|paligemma_with_expert\.gemma_expert\.model)\.", "expert."),
    (r"^paligemma_with_expert\.gemma_expert\.lm_head\.", "expert.lm_head."),
    (r"^(model\.vlm|paligemma_with_expert\.paligemma\.model)\.", "vlm."),
    (r"^paligemma_with_expert\.paligemma\.lm_head\.weight$", _WORDS),
    (r"^vlm\.vision_tower\.vision_model\.", "vlm.vision_tower."),
    (r"^vlm\.language_model\.model\.", "vlm.language_model."),  # in files that transformers saves
)
_OPENPI = (
    (f"^{re.escape(_WORDS)}$", "paligemma_with_expert.paligemma.lm_head.weight"),
    (r"^vlm\.vision_tower\.", "vlm.vision_tower.vision_model."),
    (r"^vlm\.", "paligemma_with_expert.paligemma.model."),
    (r"^expert\.lm_head\.", "paligemma_with_expert.gemma_expert.lm_head."),
    (r"^expert\.", "paligemma_with_expert.gemma_expert.model."),
)
DIALECTS = {
    "transformers": (
        (r"^(vlm\.)", r"model.\1"),
        (r"^expert\.lm_head\.", "expert.embed_tokens."),
        (r"^expert\.", "model.dit."),
        (r"^(state_proj|action_in_proj|action_time)", r"embed_action_time.\1"),
    ),
    "lerobot": (*_OPENPI, (r"^", "model.")),
    "openpi": _OPENPI,
}


def to_pi0(network: ActionExpert, dialect: str = "lerobot") -> dict[str, Tensor]:
    """The network's weights under the published names; the expert's unused table of words is zeros.

    dialect: whose names, a row of DIALECTS.
    """
    steps = DIALECTS[pick(DIALECTS, dialect, "dialect")]
    if network.adaptive and dialect == "transformers":
        raise InputError("transformers has no class for π0.5; dialect must be lerobot or openpi.")
    found: dict[str, Tensor] = {}
    for ours, theirs, sizes in _names(network):
        found |= zip(theirs, network.state_dict()[ours].split(sizes))
    found["expert.lm_head.weight"] = found[_WORDS].new_zeros(len(found[_WORDS]), network.width)
    return {renamed(name, steps): tensor for name, tensor in found.items()}


def from_pi0(network: ActionExpert, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under the network's names, for its load_state_dict.

    Raises InputError if one is missing, has another shape, or isn't part of this network.
    """
    short = {renamed(name, _SHORTEN): tensor for name, tensor in tensors.items()}
    found, wanted, left = {}, network.state_dict(), set(short) - set(_UNUSED)
    for ours, theirs, sizes in _names(network):
        for name, size in zip(theirs, sizes):
            shape = (size, *wanted[ours].shape[1:])
            if name not in short:
                raise InputError(f"The checkpoint has no {name}, which this network needs.")
            if tuple(short[name].shape) != shape:
                raise InputError(f"{name} must be of shape {shape} here; got {tuple(short[name].shape)}.")
        found[ours] = torch.cat([short[name] for name in theirs]) if len(theirs) > 1 else short[theirs[0]]
        left -= set(theirs)
    if left:
        raise InputError(f"The checkpoint has {len(left)} weights that this network has not, such as {min(left)}.")
    return found


def load_pi0(network: ActionExpert, folder: str | Path) -> None:
    """Fill the network with the weights of a folder: of all its safetensors files together."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} has no safetensors files.")
    room(2 * sum(file.stat().st_size for file in files), str(folder))
    network.load_state_dict(from_pi0(network, {k: v for file in files for k, v in read_weights(file).items()}))


def _names(network: ActionExpert) -> Iterator[tuple[str, tuple[str, ...], list[int]]]:
    """Our name of each weight, its short names there, and how many rows of ours each of these is."""
    if not isinstance(network.prefix, PaliGemma):
        raise InputError("π0's checkpoints hold a PaliGemma; this network's prefix is another.")
    for ours, tensor in network.state_dict().items():
        owner, _, rest = ours.partition(".")
        theirs: tuple[str, ...]
        sizes = [len(tensor)]
        if owner == "prefix":
            theirs = (f"vlm.{rest.removeprefix('model.')}",)
        elif owner == "expert" and rest.startswith("layers."):
            _, i, part, kind = rest.split(".", 3)
            theirs = tuple(f"expert.layers.{i}.{name}.{kind}" for name in _PARTS[part])
            layer = network.expert.layers[int(i)]
            assert isinstance(layer, GemmaLayer)
            if part == "qkv":
                sizes = [count * layer.head for count in layer.counts]
            elif part == "gate_up":
                sizes = [len(tensor) // 2] * 2
        elif owner == "expert":
            theirs = (ours,)
        else:
            part, _, kind = ours.rpartition(".")
            name = _ENDS[part].removeprefix("action_") if network.adaptive and owner == "time" else _ENDS[part]
            theirs = (f"{name}.{kind}",)
        yield ours, theirs, sizes
