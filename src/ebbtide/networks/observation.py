"""A policy's observation as tokens: images through a few convolutions, a prompt byte by byte, the state step by step.

The small encoder of a policy trained from scratch. Cropping or shifting images at random, and GroupNorm where larger
encoders have BatchNorm, are those of Diffusion Policy (Chi et al. 2023, arXiv:2303.04137, Section III-B).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from ..errors import InputError
from ..specs import expect, require
from .parts import NormSiLU, check_sizes, positions, sincos

__all__ = [
    "BYTES", "DTYPES", "KEYS", "ObservationEncoder", "RandomShift", "Shapes", "Stem", "Summary", "check",
    "check_shapes", "conditions",
]  # fmt: skip

Shapes = Mapping[str, tuple[int, ...]]
KEYS = {"images": "(k, h, w, 3)", "prompt": "(l,)", "state": "(o, s)"}
DTYPES = {"images": torch.uint8, "image_mask": torch.bool, "prompt": torch.int64, "state": torch.float32}
BYTES = 257  # 0 is padding


def check_shapes(shapes: Shapes) -> None:
    """Refuse shapes (without the batch) that no observation has."""
    expect("The observation's shapes", shapes, Mapping)
    for name, shape in shapes.items():
        if name not in KEYS:
            raise InputError(f"An observation is made of {', '.join(KEYS)}; got {name!r}.")
        wanted = KEYS[name].count(",") + (not KEYS[name].endswith(",)"))
        expect(f"The shape of the observation's {name}", shape, tuple, list)
        sizes = all(isinstance(side, int) and side >= 1 for side in shape)
        if not sizes or len(shape) != wanted or (name == "images" and shape[3] != 3):
            raise InputError(f"The observation's {name} must be of shape {KEYS[name]}; got {tuple(shape)}.")
    if not shapes:
        raise InputError(f"A policy must observe something: {', '.join(KEYS)}; got nothing.")


def check(shapes: Shapes, observation: Mapping[str, Any]) -> None:
    """Refuse a batch of observations unlike `shapes`: a part missing, unknown, of another shape or kind, or not finite.

    `image_mask` (b, k), where given, marks the images present.
    """
    expected = dict(shapes)
    if "images" in shapes and "image_mask" in observation:
        expected["image_mask"] = shapes["images"][:1]
    sizes = []  # neither set nor len, by which a traced number of samples would become one number
    for name in (*expected, *observation):
        value = observation.get(name)
        if name == "image_mask" and value is None and "images" in shapes:
            continue
        if name not in expected:
            raise InputError(f"The policy observes {', '.join(shapes)}; got {name!r} too.")
        if value is None:
            raise InputError(f"The policy observes {', '.join(shapes)}; {name} is missing.")
        if not isinstance(value, Tensor):
            expect(f"The observation's {name}", value, Tensor)
        shape, dtype = tuple(expected[name]), DTYPES[name]
        floats = dtype.is_floating_point and value.dtype.is_floating_point
        if value.shape[1:] != shape or value.ndim != len(shape) + 1 or not (floats or value.dtype == dtype):
            wanted = ", ".join(map(str, ("b", *shape)))
            raise InputError(
                f"The observation's {name} must be {str(dtype)[6:]} of shape ({wanted}); "
                f"got {str(value.dtype)[6:]} of shape {tuple(value.shape)}."
            )
        sizes.append(value.shape[0])
    if any(size != sizes[0] for size in sizes):
        found = " and ".join(map(str, sorted(set(sizes))))
        raise InputError(f"An observation's parts must be as many each; got {found}.")
    if torch.compiler.is_compiling():
        return
    if "state" in shapes and not bool(observation["state"].isfinite().all()):
        raise InputError("The observation's state must be finite numbers; got NaN or infinity.")
    if "prompt" in shapes and not bool(((observation["prompt"] >= 0) & (observation["prompt"] < BYTES)).all()):
        raise InputError(f"The observation's prompt must be bytes + 1, 0 to {BYTES - 1}; got others.")


@torch.no_grad()
def conditions(network: object, observation: Mapping[str, Tensor]) -> dict[str, Any]:
    """Conditions of a policy's network at every step of a walk: its `context` of the observation, computed once.

    In evaluation mode, without gradients, and where the network's parameters are. A network without that method, or
    no network, receives the observation itself.
    """
    if isinstance(network, nn.Module):
        device = next((part.device for part in network.eval().parameters()), None)
        observation = {name: part.to(device) for name, part in observation.items()}
    context = getattr(network, "context", None)
    return dict(observation) if context is None else {"context": context(**observation)}


class RandomShift(nn.Module):
    """Images moved by up to `pixels` each way, their edges repeated: one shift for all images of an example.

    Yarats et al. 2021, arXiv:2107.09645, Section 3.1. Only in training. Where it `draws`, then from torch's own
    generator, as dropout does.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels, self.draws = pixels, pixels > 0

    def forward(self, images: UInt8[Tensor, "b k h w 3"]) -> UInt8[Tensor, "b k h w 3"]:
        if not (self.training and self.pixels):
            return images
        b, _, h, w, _ = images.shape
        rows, columns = (torch.arange(-self.pixels, n + self.pixels).clamp(0, n - 1) for n in (h, w))
        padded = images[:, :, rows.to(images.device)][:, :, :, columns.to(images.device)]
        shifts = torch.randint(2 * self.pixels + 1, (b, 2), device=images.device).tolist()
        return torch.stack([part[:, y : y + h, x : x + w] for part, (y, x) in zip(padded, shifts)])


class Stem(nn.Module):
    """Images → maps of `width` channels and a cell for each 16 × 16 pixels, by convolutions of 8, 3, 3 and 3 pixels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            nn.Conv2d(3, half, 8, stride=4), NormSiLU(half, 8),
            nn.Conv2d(half, channels, 3, stride=2, padding=1), NormSiLU(channels, 8),
            nn.Conv2d(channels, channels, 3, padding=1), NormSiLU(channels, 8),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1), NormSiLU(channels, 8),
            nn.Conv2d(channels, width, 1),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # fmt: skip

    def forward(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n width rows columns"]:
        x = images.permute(0, 3, 1, 2).to(self.layers[0].weight.dtype) / 127.5 - 1
        h, w = x.shape[2:]
        return self.layers(pad(x, (2, 2 + -w % 16, 2, 2 + -h % 16)))  # zero is grey: beyond the image there is none


class ObservationEncoder(nn.Module):
    """Tokens of what a policy sees, in the order images, prompt, state: those of `observation`, shapes without batch.

    images (k, h, w, 3) are k · cells tokens, a token for each 16 × 16 pixels; prompt (l,) and state (o, s) are l and o.
    Every token has a learnt vector for its place: in the image, and which image it is (camera and step); the byte's;
    the step's. width: a multiple of 4. channels: of the convolutions. shift: see RandomShift.

    `counts` holds the number of tokens of each part; their sum is `tokens`.
    """

    def __init__(self, observation: Shapes, width: int, *, channels: int = 64, shift: int = 4) -> None:
        super().__init__()
        check_sizes("observation", channels=(channels, 2, 65536), shift=(shift, 0, 1024))
        require("observation: width", width, 4, whole=True)
        if width % 4:  # a sine and a cosine for each of two directions
            raise InputError(f"observation: width must be a multiple of 4; got {width}.")
        check_shapes(observation)
        self.shapes = {name: tuple(observation[name]) for name in KEYS if name in observation}
        self.counts: dict[str, int] = {}
        for name, shape in self.shapes.items():
            if name == "images":
                k, rows, columns = shape[0], -(-shape[1] // 16), -(-shape[2] // 16)
                self.counts[name] = k * rows * columns
                self.shift, self.stem = RandomShift(shift), Stem(width, channels)
                self.cell = nn.Parameter(sincos(rows, columns, width))
                self.image = nn.Parameter(0.5 * torch.randn(k, 1, width))
            elif name == "prompt":
                self.counts[name] = shape[0]
                self.byte = nn.Embedding(BYTES, width, padding_idx=0)
                self.place = nn.Parameter(positions(shape[0], width))
            else:
                self.counts[name] = shape[0]
                self.from_state = nn.Linear(shape[1], width)
                self.step = nn.Parameter(positions(shape[0], width))
        self.tokens = sum(self.counts.values())

    def forward(self, **observation: Tensor) -> tuple[Float[Tensor, "b n width"], Bool[Tensor, "b n"]]:
        """The tokens, and which of them are real: not a missing image's, not a prompt's padding."""
        check(self.shapes, observation)
        parts = [getattr(self, f"_{name}")(**observation) for name in self.shapes]
        tokens, real = zip(*parts)
        return torch.cat(tokens, 1), torch.cat(real, 1)

    def _images(self, images: Tensor, image_mask: Tensor | None = None, **_: Tensor) -> tuple[Tensor, Tensor]:
        b, k = images.shape[:2]
        cells = self.stem(self.shift(images).flatten(0, 1)).flatten(2).mT.unflatten(0, (b, k))
        tokens = (cells + self.cell + self.image).flatten(1, 2)
        real = images.new_ones(b, k, dtype=torch.bool) if image_mask is None else image_mask
        return tokens, real.repeat_interleave(len(self.cell), 1)

    def _prompt(self, prompt: Int[Tensor, "b l"], **_: Tensor) -> tuple[Tensor, Tensor]:
        return self.byte(prompt) + self.place, prompt != 0

    def _state(self, state: Float[Tensor, "b o s"], **_: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_state(state.to(self.step.dtype)) + self.step, torch.ones(
            state.shape[:2], dtype=torch.bool, device=state.device
        )


class Summary(nn.Module):
    """An observation as one vector h: all of the state, and what heads of attention pick of each image and the prompt.

    Of the tokens zᵢ of one image, head by head, Σᵢ softmax(W_a z)ᵢ W_v zᵢ. As a token contains its position, that
    includes the spatial softmax, which locates features (Finn et al. 2016, arXiv:1509.06113, Section V-A). A missing
    image and an empty prompt give 0. Then h = W [state, …] and, `depth` times, h ← h + SiLU(W h + b).

    encoder: of the images and the prompt, tokens of `width` channels; None where only the state is seen.
    shift: pixels by which images are moved at random in training.
    """

    def __init__(
        self, observation: Shapes, out: int, *, width: int = 64, depth: int = 2, heads: int = 16,
        channels: int = 64, shift: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        check_shapes(observation)
        self.shapes = {name: tuple(observation[name]) for name in KEYS if name in observation}
        rest = {name: shape for name, shape in self.shapes.items() if name != "state"}
        self.encoder = ObservationEncoder(rest, width, channels=channels, shift=shift) if rest else None
        size = math.prod(self.shapes.get("state", (0,)))
        if self.encoder is not None:
            require("observation: heads", heads, 1, whole=True)
            if width % heads:
                raise InputError(f"observation: heads must divide width, which is {width}; got {heads}.")
            counts = self.encoder.counts
            self.spans = [counts["images"] // rest["images"][0]] * rest["images"][0] if "images" in rest else []
            self.spans += [counts["prompt"]] if "prompt" in rest else []
            self.score, self.value = nn.Linear(width, heads, bias=False), nn.Linear(width, width)
            size += width * len(self.spans)
        self.enter = nn.Linear(size, out)
        self.layers = nn.ModuleList(nn.Linear(out, out) for _ in range(depth))

    def forward(self, **observation: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """h, and the encoder's tokens and which of them are real."""
        check(self.shapes, observation)
        state = observation.pop("state", None)
        known = [] if state is None else [state.flatten(1).to(self.enter.weight.dtype)]
        tokens = real = None
        if self.encoder is not None:
            tokens, real = self.encoder(**observation)
            known += self.pool(tokens, real)
        h = self.enter(torch.cat(known, 1))
        for layer in self.layers:
            h = h + silu(layer(h))
        return h, tokens, real

    def pool(self, tokens: Float[Tensor, "b n width"], real: Bool[Tensor, "b n"]) -> list[Float[Tensor, "b width"]]:
        """A vector for each image and for the prompt. real: which tokens are there."""
        score = self.score(tokens).masked_fill(~real[..., None], -1e4)
        value = self.value(tokens).unflatten(2, (score.shape[2], -1))
        parts = zip(*(part.split(self.spans, 1) for part in (score, value, real)))
        return [((a.softmax(1) * there[..., None])[..., None] * v).sum(1).flatten(1) for a, v, there in parts]
