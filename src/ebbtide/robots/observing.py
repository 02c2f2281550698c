"""A policy's observations: checked step by step, and joined with those before as the network takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.episodes import prompt_bytes
from ..errors import InputError

__all__ = ["Seen", "Shapes", "Step", "batched", "checked_step", "finite_step", "part_as_array", "shapes_of_step"]

Seen = Mapping[str, Any] | Any  # of one step, by name; Any, because it is checked here
Step = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]  # of the parts of one step
_DTYPES: dict[str, Any] = {"state": np.float32, "images": np.uint8, "image_mask": np.bool_, "prompt": np.int64}


def shapes_of_step(observation: Shapes, steps: int) -> dict[str, tuple[int, ...]]:
    """The shapes of one step's parts, a mask of the cameras among them, from those of all `steps` together."""
    shapes = {name: _of_step(name, shape, steps) for name, shape in observation.items()}
    return shapes | ({"image_mask": shapes["images"][:1]} if "images" in shapes else {})


def _of_step(name: str, shape: tuple[int, ...], steps: int) -> tuple[int, ...]:
    """The shape of a part of one step's observation, from that of all steps together."""
    if name == "prompt":
        return tuple(shape)
    if name not in _DTYPES or shape[0] % steps:
        raise InputError(
            f"A policy observes {', '.join(_DTYPES)}, of {steps} steps each; got {name!r} of shape {tuple(shape)}."
        )
    return tuple(shape[1:]) if name == "state" else (shape[0] // steps, *shape[1:])


def checked_step(observation: Seen, shapes: Shapes) -> Step:
    """The network's inputs, as arrays of one step; InputError if a part is missing, misshapen or of another type.

    A missing image_mask stays missing, and numbers that aren't finite are let through.
    """
    if not isinstance(observation, Mapping):
        raise InputError(f"An observation must be a dict of {', '.join(shapes)}; got {type(observation).__name__}.")
    step: Step = {}
    for name, wanted in shapes.items():
        if name == "image_mask" and name not in observation:
            continue
        if name not in observation:
            raise InputError(
                f"The policy needs {name} in an observation; got {', '.join(map(str, observation)) or 'nothing'}."
            )
        part = observation[name]
        part = prompt_bytes([part], *wanted)[0].numpy() if name == "prompt" and isinstance(part, str) else part
        part, dtype = part_as_array(part), np.dtype(_DTYPES[name])
        kinds = "fiu" if dtype.kind == "f" else dtype.kind
        wraps = dtype.kind == "u" and part.dtype.itemsize > dtype.itemsize  # 16-bit depths, modulo 256
        if part.shape != wanted or part.dtype.kind not in kinds or wraps:
            kind = f"{'a text, or ' * (name == 'prompt')}{dtype} of shape {wanted}"
            raise InputError(f"The observation's {name} must be {kind}; got {part.dtype} of {part.shape}.")
        with np.errstate(over="ignore"):  # what float32 has no room for is not finite
            step[name] = np.array(part, dtype)  # a copy: a simulator may write into its own
    return step


def finite_step(observation: Seen, shapes: Shapes) -> Step:
    """`checked_step`; InputError, too, if the state isn't finite."""
    step = checked_step(observation, shapes)
    if "state" in step and not np.isfinite(step["state"]).all():
        place = int(np.flatnonzero(~np.isfinite(step["state"]))[0])
        raise InputError(f"The observation's state must be finite; got {step['state'][place]} at index {place}.")
    return step


def batched(histories: Sequence[Sequence[Step]], shapes: Shapes, steps: int) -> dict[str, Tensor]:
    """Histories as the network takes them: state (b, o, s), images (b, o × cameras, h, w, 3), prompt (b, l).

    histories: the latest steps of each robot, the oldest first. steps: o; the first step stands for those missing.
    """
    full = [[*[history[0]] * (steps - len(history)), *history] for history in histories]
    names = {name for history in full for step in history for name in step}  # image_mask, if anyone has one

    def joined(name: str, history: Sequence[Step]) -> np.ndarray:
        if name == "prompt":
            return history[-1][name]
        parts = [step[name] if name in step else np.ones(shapes[name], bool) for step in history]
        return (np.stack if name == "state" else np.concatenate)(parts)

    return {
        name: torch.from_numpy(np.stack([joined(name, history) for history in full]))
        for name in shapes
        if name in names
    }


def part_as_array(part: Any) -> np.ndarray:
    """A part of an observation as an array, also of torch's on any device; an object array if it can't be converted.

    part: of any type.
    """
    try:
        return np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths, a dtype that numpy lacks
        whole = np.empty((), object)
        whole[()] = part
        return whole
