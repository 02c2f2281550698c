"""All trainable parameters as one vector, so that clipping, AdamW and EMA are single operations.

A small network spends a third of a step in per-tensor overhead otherwise.
"""

import math

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..recipes import Recipe

__all__ = ["AdamW", "FlatParameters", "every_name"]


class FlatParameters:
    """`vector` holds every trainable parameter of a network and `gradient` every gradient.

    The network's own parameters become views of it: what is written to one is read from the other. Matrices come
    first, so that weight decay can leave biases and gains alone: `decayed` is their part. A convolution's weights stay
    in the order of memory that the network chose for them (channels last is up to twice as fast).
    """

    def __init__(self, network: nn.Module) -> None:
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        named.sort(key=lambda item: item[1].ndim < 2)  # stable: matrices first, else in the network's order
        if not named:
            raise InputError("The network has no trainable parameters.")
        self.shapes = {name: p.shape for name, p in named}
        self.channels_last = {name for name, p in named if _is_channels_last(p)}
        self.names = every_name(network)
        parts = (p.permute(0, 2, 3, 1) if name in self.channels_last else p for name, p in named)
        self.vector = torch.cat([part.detach().flatten() for part in parts])
        self.gradient = torch.zeros_like(self.vector)
        values, gradients = self.split(self.vector), self.split(self.gradient)
        for name, p in named:
            p.data, p.grad = values[name], gradients[name]
        matrices = sum(p.numel() for _, p in named if p.ndim >= 2)
        self.decayed = self.vector[:matrices]

    def state(self, vector: Tensor) -> dict[str, Tensor]:
        """`split`, with a tied parameter under each of its names, as the network's state_dict has it.

        vector: laid out as the parameters' own, such as their average.
        """
        parts = self.split(vector)
        return {name: parts[first] for name, first in self.names.items() if first in parts}

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector laid out like this one as views by parameter name; a tied parameter has its first name alone."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), vector.split(sizes), strict=True)
        return {name: self._view(part, name, shape) for (name, shape), part in parts}

    def _view(self, part: Tensor, name: str, shape: torch.Size) -> Tensor:
        if name not in self.channels_last:
            return part.view(shape)
        out, into, rows, columns = shape
        return part.view(out, rows, columns, into).permute(0, 3, 1, 2)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2), of matrices only.

    On one vector its seven lines take half the time of torch.optim's fused one, and its state needs no splitting.
    flat: the parameters that are updated. decay: λ; betas: β₁ and β₂, the shares of m and v that a step keeps; eps: ε.
    A recipe's, unless given.
    """

    def __init__(
        self,
        flat: FlatParameters,
        decay: float = 0.0,
        betas: tuple[float, float] = (Recipe.beta1, Recipe.beta2),
        eps: float = Recipe.eps,
    ) -> None:
        self.flat, self.decay, self.betas, self.eps = flat, decay, betas, eps
        self.mean, self.square = torch.zeros_like(flat.vector), torch.zeros_like(flat.vector)
        self.updates = 0

    def step(self, lr: float, fine: Tensor | None = None) -> None:
        """m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,  θ ← (1 - lr λ) θ - lr m̂ / (√v̂ + ε).

        fine: on the device, whether the gradient is finite; where it isn't, nothing moves. Without it, it is.
        """
        self.updates += 1
        gradient, (beta1, beta2) = self.flat.gradient, self.betas
        moves: Tensor | int = 1 if fine is None else fine.to(gradient.dtype)
        if fine is not None:
            gradient.masked_fill_(~fine, 0)
        self.mean.lerp_(gradient, (1 - beta1) * moves)
        self.square.mul_(beta2**moves).addcmul_(gradient, gradient, value=1 - beta2)
        unbias = math.sqrt(1 - beta2**self.updates)
        if self.decay:
            self.flat.decayed.mul_(1 - lr * self.decay * moves)
        rate, root = lr * unbias / (1 - beta1**self.updates), self.square.sqrt().add_(self.eps * unbias)
        self.flat.vector.addcdiv_(self.mean, root if fine is None else root.div_(moves), value=-rate)


def _is_channels_last(p: Tensor) -> bool:
    return p.ndim == 4 and not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last)


def every_name(network: nn.Module) -> dict[str, str]:
    """The first name of each parameter by each of its names, which are several where it is tied.

    network: whose named_parameters they are.
    """
    first = {id(p): name for name, p in network.named_parameters()}
    return {name: first[id(p)] for name, p in network.named_parameters(remove_duplicate=False)}
