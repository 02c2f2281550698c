"""The tensors of safetensors files, read and checked. Nothing is ever unpickled."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from .errors import InputError
from .files import PARSED, read_file
from .memory import room

__all__ = ["read_weights", "sound", "unpack"]


def unpack(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. data: its bytes. name: of the file, in errors."""
    room(PARSED * min(len(data), int.from_bytes(data[:8], "little")), f"The header of {name}")
    try:
        return load(data)
    except SafetensorError as error:
        raise InputError(f"{name} is not a readable safetensors file: {error}.") from error


def sound(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights; InputError where a number isn't finite, or the variance of a batch norm is below 0.

    name: of their file, in errors.
    """
    for key, part in weights.items():
        if not bool(part.isfinite().all()):
            raise InputError(f"{name} holds numbers that are not finite.")
        if key.endswith("running_var") and bool((part < 0).any()):
            raise InputError(f"{name} holds a variance below 0, in {key}.")
    return dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The sound weights of a file."""
    return sound(unpack(read_file(path), str(path)), str(path))
