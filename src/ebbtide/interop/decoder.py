"""The decoder of latents that are coefficients of an image's patches, for a pipeline of diffusers.

ebbtide writes this file beside a network it exports; it needs diffusers and torch alone.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

__all__ = ["PatchDecoder"]


class PatchDecoder(ModelMixin, ConfigMixin):
    """(b, channels, h, w) → (b, colours, h size, w size): each latent is a patch, Σ_k z_k weight_k + mean."""

    @register_to_config
    def __init__(self, channels: int, colours: int, size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(channels, colours, size, size))
        self.mean = torch.nn.Parameter(torch.zeros(colours, size, size))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The images of latents. z: (n, keep, h / size, w / size)."""
        patches = torch.nn.functional.conv_transpose2d(z, self.weight, stride=self.config.size)
        return patches + self.mean.repeat(1, *z.shape[2:])
