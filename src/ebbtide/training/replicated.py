"""The replicated engine: each process holds all weights, their average and the optimiser's moments, as vectors."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..recipes import Recipe
from .flat import AdamW, FlatParameters

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Replicated"]


class Replicated:
    """The trainable weights of a module, their average and AdamW, whole on every process.

    One vector each: clipping, the update and the average are single operations, and the gradients of several processes
    become their mean in one reduction. Every process takes the same step, so that the weights stay equal.
    averages: whether anybody asks for the average.
    """

    sharded = False

    def __init__(self, module: Any, recipe: Recipe, accelerator: "Accelerator", averages: bool = True) -> None:
        self.module, self.clip, self.accelerator = module, recipe.clip, accelerator
        self.flat = FlatParameters(module)
        self.ema = self.flat.vector.clone() if averages else self.flat.vector
        self.optimizer = AdamW(self.flat, recipe.weight_decay, (recipe.beta1, recipe.beta2), recipe.eps)

    def compile(self) -> None:
        """Let torch.compile have the network."""
        self.module.network.compile()

    def exchanging(self) -> AbstractContextManager[None]:
        """The context of a pass there and back, in which nothing is exchanged."""
        return nullcontext()

    def clear(self) -> None:
        """Set the gradient to zero, to which a step's parts are added."""
        self.flat.gradient.zero_()

    def reduce(self) -> None:
        """Make the gradient the mean of all processes'."""
        self.flat.gradient.copy_(self.accelerator.reduce(self.flat.gradient, "mean"))

    def norm(self) -> Tensor:
        """The norm of the gradient."""
        return torch.linalg.vector_norm(self.flat.gradient)

    def update(self, lr: float, norm: Tensor | float, fine: Tensor | None = None) -> None:
        """Scale the gradient down to the recipe's clip, and let AdamW take a step.

        norm: of the gradient. fine: on the device, whether to take the step; the norm may be there too, and this
        process then never waits for either.
        """
        if isinstance(norm, Tensor):
            self.flat.gradient.mul_((self.clip / norm.double()).clamp(max=1))
        elif norm > self.clip:
            self.flat.gradient.mul_(self.clip / norm)
        self.optimizer.step(lr, fine)

    def forget(self, steps: int) -> None:
        """Don't count the optimiser's last steps, which weren't fine."""
        self.optimizer.updates -= steps

    def average(self, share: Tensor | float) -> None:
        """Move the average towards the weights by a share of the way."""
        self.ema.lerp_(self.flat.vector, share)

    @contextmanager
    def averaging(self) -> Iterator[None]:
        """Let the module have the averaged weights in here."""
        weights = self.flat.vector.clone()
        self.flat.vector.copy_(self.ema)
        try:
            yield
        finally:
            self.flat.vector.copy_(weights)

    def averaged(self) -> dict[str, Tensor]:
        """The module's state with the average in place of the weights."""
        return {**self.module.state_dict(), **self.flat.state(self.ema)}

    def load_averaged(self, state: Mapping[str, Tensor]) -> None:
        """Set the average, and whatever isn't averaged, to what `averaged` returned."""
        self.module.load_state_dict(state)
        self.ema.copy_(self.flat.vector)

    def state(self) -> dict[str, Tensor]:
        """The weights and both moments by name, as they are and not copied."""
        vectors = {"weights": self.flat.vector, "exp_avg": self.optimizer.mean, "exp_avg_sq": self.optimizer.square}
        return {
            f"{kind}.{name}": part for kind, whole in vectors.items() for name, part in self.flat.split(whole).items()
        }

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Set what `state` holds, and the number of the optimiser's steps.

        updates: this number.
        """
        for name, part in self.state().items():
            part.copy_(state[name])
        self.optimizer.updates = updates

    @property
    def updates(self) -> int:
        """The number of steps that the optimiser has taken."""
        return self.optimizer.updates
