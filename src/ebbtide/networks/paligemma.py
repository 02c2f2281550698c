"""PaliGemma as π0's prefix: images and a prompt through transformers' own class, to the keys and values of each layer.

Beyer et al. 2024, arXiv:2407.07726: SigLIP's vision tower, a linear projector, and Gemma 2B as the language model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ..errors import InputError
from .action_expert import ActionExpert, Memory, digitise
from .parts import token_places

__all__ = ["LENGTHS", "PaliGemma", "Tokenizer", "letterboxed", "paligemma_expert"]

Tokenizer = Callable[[str], list[int]]
LENGTHS = {"pi0": 48, "pi05": 200}  # tokens of a prompt, in π0's code


def letterboxed(images: UInt8[Tensor, "n h w 3"], size: int) -> Float[Tensor, "n 3 size size"]:
    """In [-1, 1], as large as fits in size × size without a change of proportions, on black: π0's way with images."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    rows, columns = x.shape[2:]
    if (rows, columns) == (size, size):
        return x
    scale = size / max(rows, columns)
    h, w = max(1, int(rows * scale)), max(1, int(columns * scale))
    x = interpolate(x, size=(h, w), mode="bilinear", antialias=True)
    left, top = (size - w) // 2, (size - h) // 2
    return pad(x, (left, size - w - left, top, size - h - top), value=-1)


class PaliGemma(nn.Module):
    """A prefix for ActionExpert: transformers' PaliGemmaModel, read for its keys and values.

    model: a PaliGemmaConfig, for random weights, or the name or folder of pretrained ones.
    tokenizer: text → token ids, the mark of the beginning among them; None: the prompt's bytes + 1 are the ids. More
    than LENGTHS has for the variant are an InputError. variant: "pi05" includes the state, which must lie in [-1, 1]
    (see ActionExpert), in 256 bins, as text after the prompt. frozen: it isn't trained.

    Beside `keys and values` nothing of the last layer is of use: its MLP and the last norm get no gradient.
    """

    def __init__(
        self, model: Any, *, tokenizer: Tokenizer | None = None, variant: str = "pi0", frozen: bool = False
    ) -> None:
        super().__init__()
        transformers = _transformers()
        if isinstance(model, str):
            try:
                self.model = transformers.PaliGemmaModel.from_pretrained(model)
            except (OSError, ValueError) as error:
                raise InputError(f"The weights {model!r} are not available: {' '.join(str(error).split())}") from error
        else:
            self.model = transformers.PaliGemmaModel(model)
        text = self.model.config.text_config
        self.sizes = {
            "depth": text.num_hidden_layers, "heads": text.num_attention_heads, "kv_heads": text.num_key_value_heads,
            "head": text.head_dim,
        }  # fmt: skip
        self.size = self.model.config.vision_config.image_size
        self.tokenizer, self.variant = tokenizer, variant
        if frozen:
            self.requires_grad_(False)

    def forward(
        self,
        *,
        images: UInt8[Tensor, "b k h w 3"] | None = None,
        image_mask: Bool[Tensor, "b k"] | None = None,
        prompt: Int[Tensor, "b l"] | None = None,
        state: Float[Tensor, "b o s"] | None = None,
    ) -> tuple[Memory, Bool[Tensor, "b n"]]:
        """Keys and values of every layer, and which tokens are there: not a missing image's, not a prompt's padding.

        images: uint8. image_mask: false where a camera is missing. state: in [-1, 1]; pi05's alone.
        """
        parts = []
        if images is not None:
            b, k = images.shape[:2]
            weight = self.model.multi_modal_projector.linear.weight
            pixels = letterboxed(images.flatten(0, 1), self.size).to(weight.dtype)
            tokens = self.model.get_image_features(pixels).pooler_output.unflatten(0, (b, k))
            there = images.new_ones(b, k, dtype=torch.bool) if image_mask is None else image_mask
            parts.append((tokens.flatten(1, 2), there.repeat_interleave(tokens.shape[2], 1)))
        if prompt is not None or state is not None:
            ids = self.ids(prompt, state)
            parts.append((self.model.get_input_embeddings()(ids), ids != 0))  # scaled by √width there
        h, present = (torch.cat(each, 1) for each in zip(*parts))
        kept = self.model(
            inputs_embeds=h,
            attention_mask=present.long(),
            position_ids=token_places(present),
            token_type_ids=torch.zeros_like(present, dtype=torch.int64),  # one block: all see all
            use_cache=True,
        ).past_key_values
        return [(layer.keys, layer.values) for layer in kept.layers], present

    def ids(self, prompt: Int[Tensor, "b l"] | None, state: Float[Tensor, "b o s"] | None) -> Int[Tensor, "b l2"]:
        """Token ids, 0 where there is none, of the prompt's text as π0 and π0.5 phrase it.

        state: in [-1, 1]; pi05's alone.
        """
        if self.tokenizer is None and state is None and prompt is not None:
            return prompt
        some = prompt if prompt is not None else state
        assert some is not None
        rows = []
        for i in range(len(some)):
            text = "" if prompt is None else _text(prompt[i])
            if state is not None:
                bins = " ".join(map(str, digitise(state[i].flatten()).tolist()))
                text = f"Task: {text}, State: {bins};\nAction: "
            else:
                text += "\n"
            rows.append([byte + 1 for byte in text.encode()] if self.tokenizer is None else self.tokenizer(text))
            if self.tokenizer is not None and len(rows[i]) > LENGTHS[self.variant]:
                raise InputError(
                    f"A prompt of {self.variant} may have at most {LENGTHS[self.variant]} tokens; got {len(rows[i])}: "
                    f"{text[:60]!r}."
                )
        length = max(map(len, rows)) if self.tokenizer is None else LENGTHS[self.variant]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], device=some.device)


def paligemma_expert(
    horizon: int,
    action_dim: int,
    /,
    *,
    observation: Mapping[str, tuple[int, ...]],
    weights: str = "google/paligemma-3b-pt-224",
    tokenizer: str = "",
    frozen: bool = False,
    width: int = 1024,
    hidden: int = 4096,
    pad_to: int = 32,
    variant: str = "pi0",
    checkpointing: bool = False,
    spans: bool = False,
) -> ActionExpert:
    """π0 at its full size: PaliGemma 3B and an action expert of 300 million parameters (arXiv:2410.24164, Appendix B).

    weights: of a PaliGemma, by name or folder; "" is PaliGemma 3B with random ones, to be loaded from a π0 checkpoint
    (`ebbtide.interop.pi0`). tokenizer: a name or folder; "" is that of the weights, or, without these, none: bytes.
    horizon, action_dim: of a chunk. frozen: PaliGemma isn't trained. pad_to: numbers of an action and a state. variant:
    "pi0" or "pi05".
    checkpointing: recompute layers on the way back, for memory.
    """
    transformers = _transformers()
    given = tokenizer or weights
    model = weights or transformers.PI0Config().vlm_config
    prefix = PaliGemma(model, tokenizer=_tokenizer(given) if given else None, variant=variant, frozen=frozen)
    return ActionExpert(
        horizon, action_dim, observation=observation, width=width, hidden=hidden, pad_to=pad_to,
        variant=variant, prefix=prefix, checkpointing=checkpointing, spans=spans, **prefix.sizes,
    )  # fmt: skip


def _tokenizer(name: str) -> Tokenizer:
    """Text → the mark of a beginning and the ids of the text."""
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"The tokenizer {name!r} is not available: {' '.join(str(error).split())}") from error
    return lambda text: [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]


def _text(prompt: Tensor) -> str:
    """The text whose bytes + 1 these are, as π0 cleans it."""
    text = bytes(byte - 1 for byte in prompt.tolist() if byte).decode(errors="replace")
    return text.strip().replace("_", " ").replace("\n", " ")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError("PaliGemma needs transformers; pip install 'ebbtide[paligemma]'.") from None
    return transformers
