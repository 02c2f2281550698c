"""Conversion of a diffusers scheduler (0.42) to path, grid, sampler and target, and back, without importing diffusers.

Their schedulers combine four things that are independent here. docs/diffusers.md lists the correspondence and the
differences between the two libraries; tests/interop/test_diffusers.py runs them side by side.
"""

import warnings
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
import torch

from ..core.paths import DDPM, VE, VP, Cosine, Linear, Path
from ..errors import InputError
from ..specs import parse, pick, require
from .schedulers import SAMPLED_BY, Config, Row, number_of, read_config, shape_of, warn

__all__ = ["Converted", "from_diffusers", "to_diffusers"]

TABLE = 1000  # entries of the β table that stands for a continuous path


class Converted(NamedTuple):
    """Arguments of `sample` and `Denoiser`: path, grid (a spec, or the times), sampler spec, target spec."""

    path: Path
    grid: str | list[float]
    sampler: str
    target: str


def from_diffusers(scheduler: Config | str | FilePath | Any, steps: int | None = None) -> Converted:
    """The path, grid, sampler and target of a scheduler of diffusers.

    scheduler: its config as a mapping with `_class_name`, the config's file or its folder, or the scheduler itself.
    `eta` of DDIM and `order` of LMS, which diffusers takes in `step`, are read from the mapping too.
    steps: the grid is then the list of times that `set_timesteps(steps)` represents, with 1 for the first and 0 for the
    last; otherwise it is the most similar row of GRIDS.

    A setting without a counterpart raises an InputError that names the key; an ignored one gives a warning.
    """
    config, row = read_config(scheduler)
    sampler = row.sampler(config)
    path, target = _path(config, row), _target(config, row)
    grid = _named(config, row, path) if steps is None else _times(config, row, path, steps)
    warn(config, row)
    return Converted(path, grid, sampler, target)


def to_diffusers(
    path: Path, target: str, sampler: str = "", grid: str = "uniform", *, bound: float = 0.0
) -> dict[str, Any]:
    """The config of a scheduler that walks on this path as the sampler does: the inverse of from_diffusers.

    sampler: a row of SAMPLERS that diffusers has on this path; "" is the first of them. bound: where x̂₀ is clipped,
    which their DDPM alone does as ours. Variance-preserving paths are written as a table of β.

    Raises InputError for a path, target or sampler that none of its schedulers has; warns of a bound that is left out.
    """
    family = "flow" if isinstance(path, Linear) else "edm" if isinstance(path, VE) else "table"
    named, given = parse(target)
    predictions = {
        "flow": {"velocity": ""}, "edm": {"edm": "epsilon"},
        "table": {"noise": "epsilon", "x0": "sample", "v": "v_prediction"},
    }[family]  # fmt: skip
    if family == "table" and not isinstance(path, DDPM | Cosine | VP):
        raise InputError(f"diffusers has no scheduler on the path {type(path).__name__.lower()}.")
    prediction = predictions[pick(predictions, named, f"The target of a scheduler on the path {_name(path)}")]
    rows = SAMPLED_BY[family]
    kind, settings = rows[pick(rows, sampler or next(iter(rows)), f"A sampler that diffusers has on {_name(path)}")]
    config: dict[str, Any] = {"_class_name": kind, "num_train_timesteps": TABLE} | {**settings}
    if prediction:
        config["prediction_type"] = prediction
    if bound and kind != "DDPMScheduler":
        warnings.warn(f"{kind} has no counterpart of bound {bound:g}, which is left out.", stacklevel=2)
    if family == "flow":
        spacing, options = parse(grid)
        return config | {"shift": float(options.get("shift", 3.0)) if spacing == "shifted" else 1.0}
    if family == "edm":
        assert isinstance(path, VE)
        spacing, options = parse(grid)
        options = options if spacing == "karras" else {}
        return config | {
            "sigma_min": float(options.get("ratio_min", 0.002)), "sigma_max": path.sigma_max,
            "sigma_data": float(given.get("data_std", 1.0)), "rho": float(options.get("rho", 7.0)),
        }  # fmt: skip
    if kind == "DDPMScheduler":
        config |= {"clip_sample": bool(bound)} | ({"clip_sample_range": float(bound)} if bound else {})
    elif kind == "DDIMScheduler":
        config["clip_sample"] = False
    return config | {"timestep_spacing": "trailing"} | _betas(path)


def _name(path: Path) -> str:
    return type(path).__name__.lower()


def _betas(path: Path) -> dict[str, Any]:
    """A variance-preserving path's table of β: its name and ends, or its entries."""
    names = {"linear": "linear", "scaled_linear": "scaled_linear", "squared_cosine": "squaredcos_cap_v2"}
    if isinstance(path, DDPM) and not path.table:
        ends = {"beta_start": path.beta_min, "beta_end": path.beta_max}
        return {"num_train_timesteps": path.steps, "beta_schedule": names[path.betas]} | ends
    if isinstance(path, DDPM):
        return {"num_train_timesteps": len(path.table), "trained_betas": list(path.table)}
    bars = np.array([c.alpha**2 for c in path.along(np.arange(TABLE + 1) / TABLE)])
    return {"trained_betas": np.minimum(1 - bars[1:] / bars[:-1], 0.999).tolist()}


def _path(config: Config, row: Row) -> Path:
    if row.times == "edm":
        return VE(number_of(config, "sigma_max"))
    if row.times == "flow" or config.get("use_flow_sigmas"):
        return Linear()
    kinds = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "squared_cosine"}
    if "trained_betas" in config:
        path = DDPM(steps=config["num_train_timesteps"], table=tuple(map(float, config["trained_betas"])))
    else:
        kind = kinds[pick(kinds, config["beta_schedule"], "beta_schedule")]
        start, end = number_of(config, "beta_start"), number_of(config, "beta_end")
        path = DDPM(betas=kind, steps=config["num_train_timesteps"], beta_min=start, beta_max=end)
    return _without_signal(path) if config.get("rescale_betas_zero_snr") else path


def _without_signal(path: DDPM) -> DDPM:
    """√ᾱ shifted and scaled to end at 0 (Lin et al. 2024, arXiv:2305.08891, Algorithm 1), or as they do at 2⁻¹².

    From their default betas the last ᾱ but one is less than that; ours falls to half of it.
    """
    root = (path.log_alpha_bar[1:] / 2).exp()
    bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    end = torch.minimum(bar[-2:-1] / 2, bar.new_tensor(2.0**-24))
    bar = torch.cat([bar.new_ones(1), bar[:-1], end])
    return DDPM(steps=path.steps, table=tuple((1 - bar[1:] / bar[:-1]).tolist()))


def _target(config: Config, row: Row) -> str:
    prediction = config["prediction_type"]
    if row.times == "flow":
        return "velocity"
    if row.times == "edm":
        names = {"epsilon": f"edm:data_std={number_of(config, 'sigma_data')}"}
    elif config.get("use_flow_sigmas"):
        names = {"flow_prediction": "velocity", "epsilon": "noise", "sample": "x0"}
    else:
        names = {"epsilon": "noise", "sample": "x0", "v_prediction": "v"}
    return names[pick(names, prediction, f"{config['_class_name']}'s prediction_type")]


def _range(config: Config, row: Row, path: Path) -> tuple[float, float]:
    """σ_min and σ_max: EDM's own, or those of the table's ends."""
    if row.times == "edm":
        return number_of(config, "sigma_min"), number_of(config, "sigma_max")
    low, high = path.along([1 / config["num_train_timesteps"], 1.0])
    return low.ratio, high.ratio


def _named(config: Config, row: Row, path: Path) -> str:
    """The row of GRIDS most similar to the scheduler's times."""
    if shape := shape_of(config):
        low, high = _range(config, row, path)
        rho = f"rho={number_of(config, 'rho')}," if shape == "karras" else ""
        return f"{shape}:{rho}ratio_min={low!r},ratio_max={high!r}"
    if isinstance(path, Linear):
        shift = number_of(config, "shift" if row.times == "flow" else "flow_shift")
        return "uniform" if shift == 1 else f"shifted:shift={shift}"
    return "uniform" if config["timestep_spacing"] == "linspace" else "trailing"


def _times(config: Config, row: Row, path: Path, steps: int) -> list[float]:
    """The times of set_timesteps(steps), from 1 to 0."""
    size = config["num_train_timesteps"]
    require("steps", steps, 1, size, whole=True)  # a table has no more times
    if isinstance(path, Linear):
        times = _flow_times(config, row, steps, size)
    elif shape := shape_of(config):
        low, high = _range(config, row, path)
        if row.times == "points":  # Euler's and its like space them between the σ of their timesteps
            times = _table_times(config, row, path, steps, size)
            low, high = path.along(times[-1:].tolist())[0].ratio, path.along(times[:1].tolist())[0].ratio
        u = np.linspace(0, 1, steps)
        if shape == "karras":
            rho = number_of(config, "rho")
            ratios = (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        else:
            ratios = np.exp(np.log(high) + u * (np.log(low) - np.log(high)))
        times = path.time_of(torch.from_numpy(ratios)).numpy()
    else:
        times = _table_times(config, row, path, steps, size)
    if "Singlestep" in config["_class_name"] and config["solver_order"] == 2:
        times = times[::2]  # what lies between is where the second evaluations are
    grid = [1.0, *times[1:].tolist(), 0.0]
    if any(later >= earlier for earlier, later in pairwise(grid)):
        raise InputError(f"{config['_class_name']} with {steps} steps has times that do not fall; use fewer steps.")
    return grid


def _flow_times(config: Config, row: Row, steps: int, size: int) -> np.ndarray:
    if row.times == "flow":
        shift = number_of(config, "shift")
        shifted = lambda u: shift * u / (1 + (shift - 1) * u)
        return shifted(np.linspace(1, shifted(1 / size), steps))  # the last σ is shifted twice
    shift = number_of(config, "flow_shift")
    u = np.linspace(1, 1 / size, steps + 1)
    if config["_class_name"] == "UniPCMultistepScheduler":
        u = u[:-1]
    else:
        u = (1 - u)[:0:-1]
    return shift * u / (1 + (shift - 1) * u)


def _table_times(config: Config, row: Row, path: Path, steps: int, size: int) -> np.ndarray:
    """(timestep + 1) / N; between timesteps they interpolate σ."""
    ends = row.times == "ends"
    spacing = config["timestep_spacing"]
    if spacing == "linspace":
        timesteps = np.linspace(0, size - 1, steps + ends)[::-1][:steps]
    elif spacing == "leading":
        timesteps = (np.arange(steps + ends) * (size // (steps + ends)))[::-1][:steps] + config["steps_offset"]
    elif spacing == "trailing":
        timesteps = np.arange(size, 0, -size / steps).round() - 1
    else:
        raise InputError(f"timestep_spacing must be linspace, leading or trailing; got {spacing!r}.")
    if row.times != "points":
        return (timesteps.round() + 1) / size
    ratios = [c.ratio for c in path.along(np.arange(1, size + 1) / size)]
    return path.time_of(torch.from_numpy(np.interp(timesteps, np.arange(size), ratios))).numpy()
