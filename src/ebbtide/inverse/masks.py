"""Masks of what is known."""

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["boolean"]


def boolean(mask: Any, what: str) -> Tensor:
    """A mask of bools: integers would be taken for indices, and floats for nothing."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = getattr(mask, "dtype", "") if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"{what}: a mask must be a tensor of bools, true where the value is known; got {got}.")
    return mask
