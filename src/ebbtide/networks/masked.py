"""A network that is also given some of the numbers it is to predict: any network, with more inputs."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Masked", "masked_shape"]


def masked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of examples for the network inside of a `Masked` for examples of this shape."""
    return (3 * shape[0], *shape[1:])


class Masked(nn.Module):
    """ŷ = the first numbers of network([(1 - m) x, m z, m], t): z, what is known of x₀, and its mask m are inputs.

    given: z, NaN where nothing is known; none is known without it. There x is hidden, as z says more than its noised
    self. network: for examples of `masked_shape`. Trained with the loss on what isn't known, its estimates are those of
    p(unknown | known).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def spans(self) -> bool:
        """True if the network spans two times."""
        return bool(getattr(self.network, "spans", False))

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        t: Float[Tensor, " #b"],
        given: Float[Tensor, " #b *d"] | None = None,
        **cond: Any,
    ) -> Float[Tensor, " b *d"]:
        if given is None:
            inputs = torch.cat([x, torch.zeros_like(x), torch.zeros_like(x)], 1)
        else:
            given = given.to(x).expand_as(x)
            unknown = given.isnan()
            z = given.masked_fill(unknown, 0)
            inputs = torch.cat([x.masked_fill(~unknown, 0), z, (~unknown).to(x)], 1)
        y: Tensor = self.network(inputs, t, **cond)
        return y[:, : x.shape[1]]
