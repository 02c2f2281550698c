"""Data as a run's network sees it: through the codec, and back."""

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..codecs import Cells, Codec, latent_shape
from ..core.denoiser import Denoiser
from ..errors import InputError
from ..exact.start import Start
from ..losses import LOSSES, Loss
from ..recipes import Recipe
from ..specs import words
from .devices import place_of

__all__ = ["Coded"]

RESTORED = 64  # images that go through an autoencoder together


class Coded:
    """The part of a `Trained` that goes between the data's units and the network's."""

    denoiser: Denoiser
    recipe: Recipe
    shape: tuple[int, ...]
    codec: Codec | None

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of what the network sees: the data's, unless the codec has another."""
        return latent_shape(self.codec, self.shape)

    @property
    def begins(self) -> str:
        """The start of the network, in a few words."""
        parts = len(self.denoiser.base.means) if isinstance(self.denoiser.base, Start) else 0
        if self.recipe.init:
            return f"weights of {self.recipe.init}"
        if not parts:
            return "untrained network"
        kind = "Gaussian copula" if isinstance(self.codec, Cells) else "Gaussian"
        return kind if parts == 1 else f"mixture of {parts} {kind}s"

    @property
    def reconstructs(self) -> bool:
        """True if it is a codec of its data, such as an autoencoder: then it has reconstructions, and no samples."""
        row = LOSSES.get(words(self.recipe.loss)[0])
        return isinstance(row, Loss) and row.codec

    def sampling(self) -> None:
        """InputError for a run that has no samples."""
        if self.reconstructs:
            raise InputError(
                "This run is an autoencoder: it has no samples. Train a flow in its latent: ebbtide train flow-latents "
                "--codec pixels+autoencoder:run=FOLDER."
            )

    @torch.no_grad()
    def latent(self, x: Num[Tensor, " n ..."]) -> Float[Tensor, " n ..."]:
        """z of data: the codec's, or, of an autoencoder, its own."""
        network: Any = self.denoiser.eval().network
        z = self.to_network(x.to(place_of(self.denoiser)))
        return network.encode(z) if self.reconstructs else z

    @torch.no_grad()
    def reconstruct(self, x: Num[Tensor, " n ..."]) -> Float[Tensor, " n ..."]:
        """Data that went through the latent and back, in data units."""
        network: Any = self.denoiser.network
        latents = (self.latent(part) for part in x.split(RESTORED))
        return torch.cat([self.to_data(network.decode(z) if self.reconstructs else z) for z in latents])

    def to_data(self, x: Num[Tensor, " n ..."]) -> Float[Tensor, " n ..."]:
        """From the network's units to the data's."""
        with torch.autocast(x.device.type, enabled=False):
            return x if self.codec is None else self.codec.decode(x)

    def to_network(self, x: Num[Tensor, " n ..."]) -> Float[Tensor, " n ..."]:
        """From the data's units to the network's."""
        with torch.autocast(x.device.type, enabled=False):
            return x if self.codec is None else self.codec.encode(x)
