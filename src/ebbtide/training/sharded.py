"""The sharded engine: each process holds its share of the weights, their average and the optimiser's moments.

That is torch's FSDP2 (Zhao et al. 2023, arXiv:2304.11277; Rajbhandari et al. 2020, arXiv:1910.02054, stage 3). The
weights of a block are gathered before it computes and let go of after it, forward and back; its gradients are averaged
and shared out as soon as they are there. accelerate offers FSDP2 on GPUs alone, so its `fully_shard` is called here.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ..errors import InputError
from ..recipes import Recipe
from .devices import all_there, local
from .flat import every_name

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Sharded", "blocks"]

# The methods besides `forward` by which a network, or a block of it, is called: they gather its weights too.
CALLED = ("ask", "answer", "context")


def blocks(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that are gathered one at a time, the inner ones first: what its lists repeat.

    Those of a transformer are its blocks, those of a U-Net the blocks of its levels. A single layer in a list is too
    small to be one; it belongs to the whole, with all that is in no list.
    """
    lists = [part for part in network.modules() if isinstance(part, nn.ModuleList)]
    found = [part for each in lists for part in each if not isinstance(part, nn.ModuleList) and any(part.children())]
    return found[::-1]


class Sharded:
    """The trainable weights of a denoiser, their average and AdamW, each process with its rows of every tensor.

    The update is torch's fused AdamW on these rows, with weight decay of matrices only. module: the denoiser, whose
    network is sharded in place.
    """

    sharded = True

    def __init__(self, module: Any, recipe: Recipe, accelerator: "Accelerator") -> None:
        self.module, self.clip, self.accelerator = module, recipe.clip, accelerator
        self.betas, self.eps = (recipe.beta1, recipe.beta2), recipe.eps
        self.names = every_name(module)
        _shard(module.network, f"network {recipe.network!r}", accelerator)
        self.weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if any(not hasattr(p, "to_local") for p in self.weights.values()):
            raise InputError("engine 'fsdp' shards the network alone, and this denoiser has weights beside it.")
        for p in self.weights.values():
            p.grad = torch.zeros_like(p)
        self.rows = {name: local(p.detach()) for name, p in self.weights.items()}
        self.ema = {name: part.clone() for name, part in self.rows.items()}
        self.mean, self.square = ({name: torch.zeros_like(part) for name, part in self.rows.items()} for _ in range(2))
        first = next(iter(self.rows.values()))
        self.counts = {name: torch.zeros((), device=first.device) for name in self.rows}
        matrices = {name: recipe.weight_decay * (p.ndim >= 2) for name, p in self.weights.items()}
        self.groups = [(decay, [n for n in matrices if matrices[n] == decay]) for decay in sorted({*matrices.values()})]

    def compile(self) -> None:
        """Let torch.compile have the network, block by block: what gathers their weights stays outside."""
        for part in blocks(self.module.network):
            part.compile()

    def exchanging(self) -> AbstractContextManager[None]:
        """The context of a pass there and back, in which weights and gradients are exchanged."""
        return all_there(self.accelerator.num_processes, computing=True)

    def gradients(self) -> dict[str, Tensor]:
        """This process's rows of the gradient."""
        return {name: local(p.grad) for name, p in self.weights.items() if p.grad is not None}

    def clear(self) -> None:
        """Set the gradient to zero, to which a step's parts are added."""
        torch._foreach_zero_(list(self.gradients().values()))

    def reduce(self) -> None:
        """The gradient is the mean of all processes' already: each pass back has made it so, block by block."""

    def norm(self) -> Tensor:
        """The norm of the gradient of all processes."""
        square = torch.stack(torch._foreach_norm(list(self.gradients().values()))).square().sum()
        with all_there(self.accelerator.num_processes):
            total: Tensor = self.accelerator.reduce(square, "sum")
        return total.sqrt()

    def update(self, lr: float, norm: Tensor | float, fine: Tensor | None = None) -> None:
        """Scale the gradient down to the recipe's clip, and let AdamW take a step.

        lr, norm, fine: as in `Replicated.update`.
        """
        gradients, (beta1, beta2) = self.gradients(), self.betas
        if isinstance(norm, Tensor):
            torch._foreach_mul_(list(gradients.values()), (self.clip / norm).clamp(max=1))
        elif norm > self.clip:
            torch._foreach_mul_(list(gradients.values()), self.clip / norm)
        for decay, names in self.groups:
            parts = ([of[name] for name in names] for of in (self.rows, gradients, self.mean, self.square, self.counts))
            rows, slopes, means, squares, counts = parts
            adamw(
                rows, slopes, means, squares, [], counts, fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=lr,
                weight_decay=decay, eps=self.eps, maximize=False, found_inf=None if fine is None else 1 - fine.float(),
            )  # fmt: skip

    def forget(self, steps: int) -> None:
        """Don't count the optimiser's last steps, which weren't fine: it hasn't counted them."""

    def average(self, share: Tensor | float) -> None:
        """Move the average towards the weights by a share of the way."""
        for average, own in zip(self.ema.values(), self.rows.values(), strict=True):
            average.lerp_(own, share)

    @contextmanager
    def averaging(self) -> Iterator[None]:
        """Let the module have the averaged weights in here."""
        weights = {name: part.clone() for name, part in self.rows.items()}
        self._set(self.ema)
        try:
            yield
        finally:
            self._set(weights)

    def _set(self, rows: Mapping[str, Tensor]) -> None:
        self.module.network.reshard()  # what is gathered still would be the weights of before
        for name, own in self.rows.items():
            own.copy_(rows[name])

    def averaged(self) -> dict[str, Tensor]:
        """The module's state with the average in place of the weights; whoever reads it gathers its tensors."""
        average = {name: self._whole(name, part) for name, part in self.ema.items()}
        state: dict[str, Tensor] = dict(self.module.state_dict())
        return state | {name: average[first] for name, first in self.names.items() if first in average}

    def load_averaged(self, state: Mapping[str, Tensor]) -> None:
        """Set the average, and whatever isn't averaged, to what `averaged` returned, there or with another engine."""
        self.module.network.reshard()
        for name, own in self.module.state_dict().items():
            _put(own, state[name])
        for name, part in self.rows.items():
            self.ema[name].copy_(part)

    def state(self) -> dict[str, Tensor]:
        """The weights and both moments by name, as they are and not copied: tensors of which each process has rows."""
        kinds = {"weights": self.rows, "exp_avg": self.mean, "exp_avg_sq": self.square}
        return {
            f"{kind}.{name}": self._whole(name, part) for kind, parts in kinds.items() for name, part in parts.items()
        }

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Set what `state` holds, there or with another engine, and the number of the optimiser's steps.

        updates: this number.
        """
        self.module.network.reshard()
        for name, own in self.state().items():
            _put(own, state[name])
        for count in self.counts.values():
            count.fill_(updates)

    @property
    def updates(self) -> int:
        """The number of steps that the optimiser has taken."""
        return int(next(iter(self.counts.values())))

    def _whole(self, name: str, rows: Tensor) -> Tensor:
        """A process's rows as the whole tensor that they are a part of."""
        from torch.distributed.tensor import DTensor

        like: Any = self.weights[name]
        return DTensor.from_local(
            rows, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )


def _shard(network: nn.Module, name: str, accelerator: "Accelerator") -> None:
    """Share out a network's weights, block by block; InputError where torch can't."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for p in network.parameters():
        p.data = p.data.contiguous()  # rows of a tensor can't be channels last
    try:
        for part in blocks(network):
            fully_shard(part, mesh=mesh)
        # What is in no block stays gathered from the first call on, so that `context` may be followed by `forward`.
        fully_shard(network, mesh=mesh, reshard_after_forward=False)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"engine 'fsdp' can't shard {name}: {' '.join(str(error).split())[:200]}") from error
    for part in (*blocks(network), network):
        for method in CALLED:
            if hasattr(part, method):
                register_fsdp_forward_method(part, method)


def _put(own: Any, part: Any) -> None:
    """Copy a tensor, whole or this process's rows of it, to one of which this process may have rows alone."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(own, DTensor) and not isinstance(part, DTensor):
        part = distribute_tensor(part.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
    local(own).copy_(local(part))
