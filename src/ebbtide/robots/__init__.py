"""Robots: simulators, scripted demonstrations, policies. Dependencies: the extra `robots`."""

import importlib
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["Sensed", "checked", "needed"]

Sensed = dict[str, np.ndarray]  # "state" float32 (s,); with pixels=True also "images" uint8 (cameras, h, w, 3)


def needed(module: str) -> Any:
    """An optional module; InputError with installation advice if it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        name = (missing.name or module).partition(".")[0]
        raise InputError(f"Robots need {name}, which is not installed: pip install 'ebbtide[robots]'.") from missing


def checked(what: str, values: np.ndarray, width: int) -> np.ndarray:
    """The values, if they are `width` finite numbers."""
    values = np.asarray(values)
    if values.shape != (width,) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(f"{what} must be {width} finite numbers; got {np.array2string(values, threshold=20)}.")
    return values
