"""All trainable parameters as one vector, so that clipping, AdamW and EMA are single operations.

A small network spends a third of a step in per-tensor overhead otherwise.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError


class FlatParameters:
    """`vector` holds every trainable parameter of a network and `vector.grad` every gradient.

    The network's own parameters become views of it: what is written to one is read from the other. Matrices come
    first, so that weight decay can leave biases and gains alone: `decayed` and `kept` are the two parts.
    """

    def __init__(self, network: nn.Module) -> None:
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        named.sort(key=lambda item: item[1].ndim < 2)  # stable: matrices first, else in the network's order
        if not named:
            raise InputError("The network has no trainable parameters.")
        self.shapes = {name: p.shape for name, p in named}
        self.names = _every_name(network)
        self.vector = torch.cat([p.detach().flatten() for _, p in named])
        self.gradient = torch.zeros_like(self.vector)
        values, gradients = self.split(self.vector), self.split(self.gradient)
        for name, p in named:
            p.data, p.grad = values[name], gradients[name]
        matrices = sum(p.numel() for _, p in named if p.ndim >= 2)
        self.decayed, self.kept = self._part(slice(0, matrices)), self._part(slice(matrices, None))

    def _part(self, where: slice) -> nn.Parameter:
        part = nn.Parameter(self.vector[where])
        part.grad = self.gradient[where]
        return part

    def state(self, vector: Tensor) -> dict[str, Tensor]:
        """`split`, with a tied parameter under each of its names, as the network's state_dict has it."""
        parts = self.split(vector)
        return {name: parts[first] for name, first in self.names.items() if first in parts}

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector laid out like this one as views by parameter name; a tied parameter has its first name alone."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        return {
            name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), vector.split(sizes), strict=True)
        }


def _every_name(network: nn.Module) -> dict[str, str]:
    """The first name of each parameter by each of its names, which are several where it is tied."""
    first = {id(p): name for name, p in network.named_parameters()}
    return {name: first[id(p)] for name, p in network.named_parameters(remove_duplicate=False)}
