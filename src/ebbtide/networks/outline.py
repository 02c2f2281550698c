"""A network's outline: every part in its place, the parameters without numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Outline", "fill"]

_FILLS = frozenset(name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_"))  # normal_, …


class Outline(TorchFunctionMode):
    """While it is entered, modules get parameters on the meta device; buffers hold their numbers as ever.

    `with torch.device("meta")` would put everything there: each exp of a buffer and normal_ of an embedding would then
    go through torch's compiler, whose import alone takes 1.6 s, and the buffers would have to be computed again.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:  # what torch's layers make their parameters with
            return func(*args, **kwargs | {"device": "meta"})
        filled = args[0] if args else kwargs.get("tensor")
        if isinstance(filled, Tensor) and filled.is_meta and getattr(func, "__name__", "") in _FILLS:
            return filled  # initial values, of which there are none to set
        return func(*args, **kwargs)


def fill(outline: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give an outline these weights, in its own types and as it lays them out: convolutions' have channels last."""
    own = {name: torch.empty_strided(w.shape, w.stride(), dtype=w.dtype) for name, w in outline.state_dict().items()}
    for name, part in own.items():
        part.copy_(weights[name])
    outline.load_state_dict(own, assign=True)
