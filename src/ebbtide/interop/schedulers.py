"""The schedulers of diffusers (0.42): their samplers and defaults, and their configs, read and checked.

A setting without a counterpart here is refused by name; one that is ignored is warned about.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import load_json
from ..specs import pick, require

__all__ = ["SAMPLED_BY", "SCHEDULERS", "Config", "Row", "number_of", "read_config", "shape_of", "warn"]

Config = Mapping[str, Any]


def _ddpm(config: Config) -> str:
    kind = config["variance_type"]
    if kind not in ("fixed_small", "fixed_small_log", "fixed_large"):
        raise InputError(f"variance_type must be fixed_small, fixed_small_log or fixed_large to convert; got {kind!r}.")
    return "ddpm:variance=beta" if kind == "fixed_large" else "ddpm"


def _ddim(config: Config) -> str:
    return f"ddim:eta={config['eta']}" if config.get("eta") else "ddim"


def _lms(config: Config) -> str:
    return "lms" if config["order"] == 4 else f"lms:order={config['order']}"


def _unipc(config: Config) -> str:
    return f"unipc:order={config['solver_order']},variant={config['solver_type']}"


def _deis(config: Config) -> str:
    return f"exponential:order={config['solver_order']},form=noise,clock=log_snr"


# The solver_type makes a difference at order 2 alone.
_DPM_SOLVERS = {
    ("dpmsolver++", 1, ""): "ddim",
    ("dpmsolver++", 2, "midpoint"): "dpmpp_2m",
    ("dpmsolver++", 2, "heun"): "exponential:order=2,clock=log_snr",
    ("dpmsolver++", 3, ""): "dpmpp_3m",
    ("dpmsolver", 1, ""): "ddim",
    ("dpmsolver", 2, "heun"): "exponential:order=2,form=noise,clock=log_snr",
    ("sde-dpmsolver++", 1, ""): "exponential_sde",
    ("sde-dpmsolver++", 2, "midpoint"): "dpmpp_2m_sde",
}
_SINGLE_STEP = {("dpmsolver++", 1, ""): "ddim", ("dpmsolver++", 2, "midpoint"): "dpmpp_2s"}


def _dpm(table: Mapping[tuple[str, int, str], str]) -> Callable[[Config], str]:
    def sampler(config: Config) -> str:
        order = config["solver_order"]
        solver = (config["algorithm_type"], order, config["solver_type"] if order == 2 else "")
        if solver not in table:
            raise InputError(
                f"algorithm_type={solver[0]!r} with solver_order={order} and solver_type={config['solver_type']!r} has "
                f"no counterpart here; convert with one of {', '.join('/'.join(map(str, key)) for key in table)}."
            )
        return table[solver]

    return sampler


class Row(NamedTuple):
    """A scheduler: its sampler, where its times come from, and the settings that a config may leave out.

    times: `whole` timesteps; `points`, n times with σ interpolated between timesteps; `ends`, n whole timesteps that
    leave room for the last; `edm` and `flow`, which have no table of β.
    """

    sampler: Callable[[Config], str]
    times: str
    defaults: Config = MappingProxyType({})


_LEADING = {"timestep_spacing": "leading", "clip_sample": True}
_EDM = {"sigma_schedule": "karras", "sigma_min": 0.002, "sigma_max": 80.0}
_ORDERED = {"solver_order": 2, "solver_type": "midpoint", "algorithm_type": "dpmsolver++"}

SCHEDULERS: dict[str, Row] = {
    "DDPMScheduler": Row(_ddpm, "whole", {"variance_type": "fixed_small", **_LEADING}),
    "DDIMScheduler": Row(_ddim, "whole", _LEADING),
    "EulerDiscreteScheduler": Row(lambda config: "ddim", "points"),
    "EulerAncestralDiscreteScheduler": Row(lambda config: "ddpm", "points"),
    "HeunDiscreteScheduler": Row(lambda config: "edm", "points", {"beta_start": 0.00085, "beta_end": 0.012}),
    "LMSDiscreteScheduler": Row(_lms, "points", {"order": 4}),
    "DPMSolverMultistepScheduler": Row(_dpm(_DPM_SOLVERS), "ends", _ORDERED),
    "DPMSolverSinglestepScheduler": Row(_dpm(_SINGLE_STEP), "ends", _ORDERED),
    "UniPCMultistepScheduler": Row(_unipc, "ends", {"solver_order": 2, "solver_type": "bh2"}),
    "DEISMultistepScheduler": Row(_deis, "ends", {"solver_order": 2}),
    "EDMEulerScheduler": Row(lambda config: "ddim", "edm", _EDM),
    "EDMDPMSolverMultistepScheduler": Row(_dpm(_DPM_SOLVERS), "edm", {**_EDM, **_ORDERED}),
    "FlowMatchEulerDiscreteScheduler": Row(lambda config: "euler", "flow"),
    "FlowMatchHeunDiscreteScheduler": Row(lambda config: "heun", "flow"),
}
# The other way round: by kind of path, the samplers that one of theirs walks as ours; the first stands for any other.
SAMPLED_BY: dict[str, dict[str, tuple[str, Config]]] = {
    "table": {
        "ddim": ("DDIMScheduler", {}),
        "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small"}),
        "ddpm:variance=beta": ("DDPMScheduler", {"variance_type": "fixed_large"}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        "unipc": ("UniPCMultistepScheduler", {}),
        "unipc:order=3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    },
    "flow": {
        "euler": ("FlowMatchEulerDiscreteScheduler", {}),
        "heun": ("FlowMatchHeunDiscreteScheduler", {}),
    },
    "edm": {
        "dpmpp_2m": ("EDMDPMSolverMultistepScheduler", {}),
        "ddim": ("EDMEulerScheduler", {}),
    },
}
_COMMON = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "shift": 1.0,
    "flow_shift": 1.0,
    "sigma_data": 0.5,
    "rho": 7.0,
}
_SPACED = ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas")

# Settings without a counterpart: the values that change nothing, and what to do instead.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_beta_sigmas": ((False,), "give a list of times as the grid"),
    "use_dynamic_shifting": ((False,), "set it to False and `shift` to e^mu"),
    "shift_terminal": ((None,), "give a list of times as the grid"),
    "invert_sigmas": ((False,), "t = 0 is data here"),
    "stochastic_sampling": ((False,), "use exponential_sde, which is stochastic on every path"),
    "interpolation_type": (("linear",), "use the grid log_snr"),
    "timestep_type": (("discrete",), "give a Denoiser the path VE and the target edm"),
    "lambda_min_clipped": ((-math.inf,), "give a list of times as the grid"),
    "predict_x0": ((True,), "use exponential:form=noise,corrector=true"),
    "disable_corrector": (([], ()), "use dpmpp_2m, which has no corrector"),
    "solver_p": ((None,), "use that sampler directly"),
}
_HINTS = {
    "PNDMScheduler": "set _class_name to DEISMultistepScheduler or LMSDiscreteScheduler, multistep methods of its kind",
    "SASolverScheduler": "set _class_name to DPMSolverMultistepScheduler and algorithm_type to sde-dpmsolver++",
    "KDPM2DiscreteScheduler": "set _class_name to HeunDiscreteScheduler, of the same order and cost",
    "LCMScheduler": "it belongs to consistency models, which need a special sampler",
}


# What the settings that are read here may hold; None stands for diffusers' own default.
_TYPES: dict[str, tuple[str, ...]] = {
    "count": ("num_train_timesteps", "solver_order", "order"),
    "offset": ("steps_offset",),
    "number": ("eta",),
    "text": (
        "beta_schedule", "prediction_type", "timestep_spacing", "variance_type", "solver_type", "algorithm_type",
        "sigma_schedule", "final_sigmas_type",
    ),
    "switch": (
        "use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_flow_sigmas", "rescale_betas_zero_snr",
        "clip_sample", "thresholding", "set_alpha_to_one",
    ),
    "betas": ("trained_betas",),
}  # fmt: skip
_FITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "count": ("a whole number from 1 to 1000000", lambda value: type(value) is int and 1 <= value <= 10**6),
    "offset": ("a whole number from 0 to 1000000", lambda value: type(value) is int and 0 <= value <= 10**6),
    "number": ("a number of at least 0", lambda value: type(value) in (int, float) and 0 <= value < math.inf),
    "text": ("a text", lambda value: isinstance(value, str)),
    "switch": ("True or False", lambda value: isinstance(value, bool)),
    "betas": (
        "a list of numbers above 0 and below 1",
        lambda value: (
            not isinstance(value, str | Mapping)
            and isinstance(value, Iterable)
            and all(isinstance(beta, int | float | np.floating) and 0 < beta < 1 for beta in value)
        ),
    ),
}


def read_config(scheduler: Config | str | FilePath | Any) -> tuple[Config, Row]:
    """A scheduler's settings, those it leaves out added, and its row of SCHEDULERS; InputError names a bad one."""
    config = _read(scheduler)
    row = SCHEDULERS[_class_of(config)]
    _check(config)
    config = {**_COMMON, **row.defaults, **{key: value for key, value in config.items() if value is not None}}
    _refuse(config, row)
    return config, row


def _read(scheduler: Config | str | FilePath | Any) -> Config:
    if isinstance(scheduler, str | FilePath):
        file = FilePath(scheduler)
        scheduler = load_json(file / "scheduler_config.json" if file.is_dir() else file)
    elif not isinstance(scheduler, Mapping):
        config = getattr(scheduler, "config", None)
        if isinstance(config, Mapping):
            scheduler = {"_class_name": type(scheduler).__name__, **config}
    if not isinstance(scheduler, Mapping):
        raise InputError(f"A scheduler's config must be a mapping, a file or a scheduler; got {scheduler!r:.80}.")
    return scheduler


def _class_of(config: Config) -> str:
    name = str(config.get("_class_name"))
    if name in _HINTS:
        raise InputError(f"{name} has no counterpart here; {_HINTS[name]}.")
    return pick(SCHEDULERS, name, "A scheduler's _class_name")


def _check(config: Config) -> None:
    """Refuse a setting of another type than diffusers writes, and a whole number out of range."""
    for key, value in config.items():
        kind = next((kind for kind, keys in _TYPES.items() if key in keys), None)
        if value is None or kind is None:
            continue
        wanted, fits = _FITS[kind]
        if not fits(value):
            raise InputError(f"{key} must be {wanted}; got {value!r:.80}.")


def _refuse(config: Config, row: Row) -> None:
    refused = dict(_REFUSED)
    if row.times != "edm":
        refused |= dict.fromkeys(("sigma_min", "sigma_max"), ((None,), "use the grid karras with ratio_min, ratio_max"))
    if row.times != "whole":
        refused["variance_type"] = ((None,), "split the network's output first")
    if row.times == "flow" or config.get("use_flow_sigmas"):
        refused |= dict.fromkeys(_SPACED, ((False,), "give a list of times as the grid"))
    length, size = len(config.get("trained_betas", ())), config["num_train_timesteps"]
    if length not in (0, size):
        raise InputError(f"trained_betas must have num_train_timesteps = {size} entries; got {length}.")
    for key, (accepted, instead) in refused.items():
        if key in config and config[key] not in accepted:
            raise InputError(f"{key}={config[key]!r} has no counterpart here; {instead}.")


def warn(config: Config, row: Row) -> None:
    """Warnings about settings that are deliberately ignored. row: the scheduler's."""
    said = []
    if config.get("thresholding"):
        said.append("thresholding is left out: no sampler changes an estimate by itself")
    elif config.get("clip_sample"):
        said.append("clip_sample is left out: it is right for data in [-1, 1] alone")
    if row.times in ("whole", "points", "ends") and config["timestep_spacing"] == "leading" and not shape_of(config):
        said.append("timestep_spacing='leading' starts below t = 1, though from pure noise; here it starts at t = 1")
    if config.get("final_sigmas_type") == "sigma_min" or config.get("set_alpha_to_one") is False:
        said.append("the last step goes to t = 0, not to the table's first entry")
    if row.sampler(config) == "dpmpp_3m":
        said.append("dpmpp_3m has the whole third-order term, of which diffusers takes half")
    for what in said:
        warnings.warn(f"{config['_class_name']}: {what}.", stacklevel=3)


def shape_of(config: Config) -> str:
    """The spacing of σ if not by timesteps: "karras", "log_snr" (exponential, and Lu's), otherwise ""."""
    if config.get("use_karras_sigmas") or config.get("sigma_schedule") == "karras":
        return "karras"
    other = config.get("use_exponential_sigmas") or config.get("use_lu_lambdas")
    return "log_snr" if other or config.get("sigma_schedule") == "exponential" else ""


def number_of(config: Config, key: str) -> float:
    """A setting that is a number above 0."""
    require(key, config[key], above=0)
    return float(config[key])
