"""Diffusion Policy's U-Net over a chunk of actions as its authors and LeRobot built it, to the last option.

Chi et al. 2023, arXiv:2303.04137, Section III-A. `ActionUNet` is the same idea made for CPUs. Here two blocks a level,
Mish, FiLM after the activation, strided convolutions, and the observation beside the time instead of added to it.
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import InputError
from .clock import Timestep
from .observation import Shapes, Summary, check, check_shapes
from .parts import check_batch, check_sizes, largest_divisor, whole_numbers, zeroed
from .resnet import DEPTHS, KeypointEncoder

__all__ = ["ActionFiLMUNet", "FiLMResidual"]


class FiLMResidual(nn.Module):
    """h = scale · Mish(norm(conv₁ x)) + shift;  W x + Mish(norm(conv₂ h)), with (scale, shift) = W Mish(emb) + b.

    x: (b, into, steps), emb: (b, e), the output: (b, out, steps). scales: without, only the shift is given.
    kernel: steps that a convolution spans.
    """

    def __init__(
        self, into: int, out: int, emb: int, *, kernel: int, groups: int, scales: bool, dropout: float
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(into, out, kernel, groups), _conv(out, out, kernel, groups)
        self.film, self.dropout = nn.Sequential(nn.Mish(), nn.Linear(emb, (1 + scales) * out)), nn.Dropout(dropout)
        self.shortcut = nn.Conv1d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Float[Tensor, "b into h"], emb: Float[Tensor, "#b e"]) -> Float[Tensor, "b out h"]:
        h = self.conv1(x)
        *scale, shift = self.film(emb)[..., None].split(h.shape[1], 1)
        h = h * scale[0] + shift if scale else h + shift
        return self.conv2(self.dropout(h)) + self.shortcut(x)


class ActionFiLMUNet(nn.Module):
    """ŷ = W Mish(norm(conv(up(middle(down(x)))))), all blocks conditioned on emb = [time(t), observed].

    x, ŷ: (b, horizon, action_dim); t: (b,) or (1,); called as network(x, t, state=…, images=…, prompt=…).
    observed: the state of all steps end to end; after it, of images and prompt, the `Summary`; or, with resnet, of each
    image the keypoints of a ResNet of that many layers, as Diffusion Policy's authors and LeRobot see images.

    widths: channels of each level, with half the steps of the one before. kernel: of the convolutions, odd; groups: of
    each norm, or the next smaller divisor of its channels. emb: features of the timestep τ = timesteps · t - first.
    scales: FiLM scales and shifts, otherwise it only shifts. dropout: of each block, which LeRobot's hasn't.
    summary, tokens, depth, heads, channels, shift: of images and prompt; see Summary and ObservationEncoder.
    resnet: 18 or 34 layers, or 0 for none; keypoints, crop, resize, encoders, norms: see KeypointEncoder.

    The last layer starts at zero. `ebbtide.interop.lerobot.load_policy` loads the weights of LeRobot's policies.
    """

    def __init__(
        self, horizon: int, action_dim: int, /, *, observation: Shapes,
        widths: str = "64-128-256", kernel: int = 5, groups: int = 8, emb: int = 128, timesteps: int = 100,
        first: int = 1, scales: bool = True, dropout: float = 0.0, summary: int = 256, tokens: int = 64,
        depth: int = 2, heads: int = 16, channels: int = 64, shift: int = 4, resnet: int = 0, keypoints: int = 32,
        crop: str = "", resize: str = "", encoders: int = 1, norms: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(
            "action_unet-film", horizon=(horizon, 1, 65536), action_dim=(action_dim, 1, 65536), kernel=(kernel, 1, 63),
            groups=(groups, 1, 65536), emb=(emb, 4, 65536), timesteps=(timesteps, 1, 10**6), first=(first, 0, 1),
            dropout=(dropout, 0, 0.99), summary=(summary, 1, 65536),
        )  # fmt: skip
        if kernel % 2 == 0 or emb % 2:
            raise InputError(f"action_unet-film: kernel must be odd and emb even; got {kernel} and {emb}.")
        if resnet not in (0, *DEPTHS) or ((crop or resize or encoders != 1) and not resnet):
            raise InputError(
                f"action_unet-film: resnet must be {' or '.join(map(str, DEPTHS))}, as crop, resize and encoders need, "
                f"or 0 for none; got {resnet}."
            )
        check_shapes(observation)
        sizes = whole_numbers("action_unet-film: widths", widths, 1, 65536)
        self.shape, self.fill = (horizon, action_dim), -horizon % 2 ** (len(sizes) - 1)
        self.shapes = {name: tuple(shape) for name, shape in observation.items()}
        rest = {name: shape for name, shape in self.shapes.items() if name != "state"}
        self.vision = (
            KeypointEncoder(
                rest.pop("images"), layers=resnet, keypoints=keypoints, crop=crop, resize=resize, encoders=encoders,
                norms=norms,
            )
            if resnet and "images" in rest
            else None
        )  # fmt: skip
        self.observation = (
            Summary(rest, summary, width=tokens, depth=depth, heads=heads, channels=channels, shift=shift)
            if rest
            else None
        )
        self.clock = nn.Sequential(
            Timestep(emb, timesteps, first, freq_shift=1), nn.Linear(emb, 4 * emb), nn.Mish(), nn.Linear(4 * emb, emb)
        )
        steps, width = self.shapes.get("state", (0, 0))
        whole = emb + steps * width + summary * bool(rest) + (self.vision.features if self.vision is not None else 0)

        def blocks(into: int, out: int) -> nn.ModuleList:
            options: dict[str, Any] = {"kernel": kernel, "groups": groups, "scales": scales, "dropout": dropout}
            return nn.ModuleList(FiLMResidual(size, out, whole, **options) for size in (into, out))

        pairs = list(pairwise(sizes))
        self.down = nn.ModuleList(blocks(into, out) for into, out in pairwise([action_dim, *sizes]))
        self.halving = nn.ModuleList(nn.Conv1d(size, size, 3, 2, 1) for size in sizes[:-1])
        self.middle = blocks(sizes[-1], sizes[-1])
        self.up = nn.ModuleList(blocks(2 * out, into) for into, out in reversed(pairs))
        self.doubling = nn.ModuleList(nn.ConvTranspose1d(into, into, 4, 2, 1) for into, _ in reversed(pairs))
        self.last = _conv(sizes[0], sizes[0], kernel, 8)
        self.out = zeroed(nn.Conv1d(sizes[0], action_dim, 1))

    def context(self, **observation: Tensor) -> dict[str, Any]:
        """The observation's conditions for all blocks: everything that depends on neither x nor t."""
        check(self.shapes, observation)
        state = observation.pop("state", None)
        known = [] if state is None else [state.flatten(1).to(self.out.weight.dtype)]
        if self.vision is not None:
            known.append(self.vision(observation.pop("images"), observation.pop("image_mask", None)))
        if self.observation is not None:
            known.append(self.observation(**observation)[0])
        return {"observed": torch.cat(known, 1)}

    def forward(
        self, x: Float[Tensor, "b h a"], t: Float[Tensor, " #b"], *, context: dict[str, Any] | None = None,
        **observation: Tensor,
    ) -> Float[Tensor, "b h a"]:  # fmt: skip
        check_batch("action_unet-film", x, self.shape)
        observed = (self.context(**observation) if context is None else context)["observed"]
        time = self.clock(t)
        (rows,) = torch.broadcast_shapes(time.shape[:1], observed.shape[:1])
        emb = torch.cat([time.expand(rows, -1), observed.expand(rows, -1)], 1)
        h, skips = pad(x.mT, (0, self.fill)) if self.fill else x.mT, []
        for level, stage in enumerate(self.down):
            h = _through(stage, self.halving[level - 1](h) if level else h, emb)
            skips.append(h)
        h = _through(self.middle, h, emb)
        for double, stage in zip(self.doubling, self.up):
            h = double(_through(stage, torch.cat([h, skips.pop()], 1), emb))
        return self.out(self.last(h)).mT[:, : self.shape[0]]


def _conv(into: int, out: int, kernel: int, groups: int) -> nn.Sequential:
    """Mish(norm(conv x)): (b, into, steps) → (b, out, steps)."""
    return nn.Sequential(
        nn.Conv1d(into, out, kernel, padding=kernel // 2), nn.GroupNorm(largest_divisor(out, groups), out), nn.Mish()
    )


def _through(stage: Any, h: Tensor, emb: Tensor) -> Tensor:
    for block in stage:
        h = block(h, emb)
    return h
