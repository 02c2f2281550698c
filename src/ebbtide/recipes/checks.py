"""The types and ranges of a recipe's fields, for what a user gives and for what a config holds."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ..specs import expect, pick, require

__all__ = ["OBJECTIVES", "RANGES", "checked_fields", "is_file"]

# The ranges of numbers by field, as arguments of `require`.
RANGES: dict[str, dict[str, float]] = {
    "points": {"low": 2, "high": 10**9},
    "label_dropout": {"low": 0, "high": 1},
    "steps": {"low": 1, "high": 10**12},
    "batch": {"low": 1, "high": 10**9},
    "lr_steps": {"low": 0, "high": 10**12},
    "lr": {"low": 0, "high": 1e3},
    "warmup": {"low": 0, "high": 1},
    "weight_decay": {"low": 0, "high": 1e3},
    "beta1": {"low": 0, "below": 1},
    "beta2": {"low": 0, "below": 1},
    "eps": {"low": 1e-30, "high": 1},
    "clip": {"low": 1e-12, "high": 1e12},
    "ema": {"low": 0, "below": 1},
    "seed": {"low": 0, "high": 2**63 - 1},
    "bound": {"low": 0, "high": 1e6},
    "size": {"low": 0, "high": 4096},
    "channels": {"low": 0, "high": 4},
    "factor": {"low": 0, "high": 64},
    "held_out": {"low": 0, "high": 0.9},
    "validation": {"low": 0, "high": 0.9},
    "gaussians": {"low": -1, "high": 8},
    "horizon": {"low": 1, "high": 4096},
    "n_obs_steps": {"low": 1, "high": 256},
    "n_action_steps": {"low": 1, "high": 4096},
    "least": {"low": 0, "high": 1e6},
    "prompt": {"low": 0, "high": 4096},
    "teacher_guidance": {"low": -1e3, "high": 1e3},
    "trajectories": {"low": 1, "high": 10**8},
    "trajectory_steps": {"low": 1, "high": 10**4},
    "sample_steps": {"low": 1, "high": 10**6},
}

OBJECTIVES: dict[str, dict[str, Any]] = {
    "flow_matching": {"path": "linear", "target": "velocity", "times": "beta", "sampler": "euler", "grid": "uniform",
                      "sample_steps": 10, "bound": 0.0},
    "diffusion": {"path": "ddpm:betas=squared_cosine", "target": "noise", "times": "uniform", "sampler": "ddim",
                  "grid": "trailing", "sample_steps": 20, "bound": 1.0},
}  # fmt: skip


def checked_fields(recipe: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields of this class of recipes, as their types: numbers of NumPy become Python's, a path its name.

    InputError names the field whose value is of another type or out of its range.

    given: values by field.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(recipe)}
    return {name: _checked(name, kinds[name], value) for name, value in given.items()}


def _checked(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        return pick(get_args(kind), str(value), name)
    if kind in (int, float):
        require(name, value, **RANGES.get(name, {}), whole=kind is int)
        return kind(value)
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    expect(name, value, kind)
    return value


def is_file(data: str) -> bool:
    """True if points are read from a file, not drawn from a named set."""
    return os.sep in data or "/" in data or Path(data).suffix != ""
