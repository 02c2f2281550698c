"""ebbtide: diffusion and flow matching in one piece: any sampler on any checkpoint.

    trained = ebbtide.fit("flow", X)   # a table, images, or the name of a file or set
    x = trained.sample(1000)

Reading order: core (paths → targets → denoiser → times → couplings) → samplers → training → recipes.
"""

import importlib
from typing import Any

from .version import __version__

# Each room's names here. They are looked up on first use (PEP 562), so that `import ebbtide` and `ebbtide --help` don't
# wait for torch; __init__.pyi has the same names with their types.
_NAMES = {
    "core.couplings": "COUPLINGS",
    "core.denoiser": "Denoiser DenoiserLike",
    "core.guidance": "Autoguidance ClassifierFree",
    "core.paths": "DDPM PATHS VE VP Bridge Cosine Linear Path",
    "core.randomness": "Draws",
    "core.targets": "TARGETS Estimate",
    "core.times": "GRIDS SPANS TIMES",
    "data": "DATASETS",
    "errors": "CertificationError DivergedError EbbtideError InputError StorageError",
    "exact.certify": "certify",
    "exact.encoding": "encode",
    "exact.likelihood": "likelihood",
    "exact.oracle": "gaussian mixture",
    "exact.tune": "tune",
    "interop.diffusers": "from_diffusers",
    "interop.hub": "push_to_hub",
    "interop.unet": "load_unet save_unet",
    "inverse.posterior": "DPS TMPD PiGDM",
    "kinds": "KINDS",
    "kinds.compare": "compare",
    "kinds.distil": "distill",
    "kinds.fit": "fit",
    "kinds.robots.driving": "policy",
    "kinds.runs": "from_pretrained",
    "losses": "LOSSES",
    "metrics": "IMAGE_METRICS METRICS",
    "networks": "MLP NETWORKS DiT UNet",
    "plots.study": "Comparison",
    "recipes": (
        "RECIPES ImageRecipe PointRecipe Recipe RobotRecipe autoencoder bridge ddpm ddpm_images ddpm_latents "
        "diffusion_policy_pusht edm edm_images flow flow_images flow_latents flow_policy "
        "flow_policy_aloha_insertion flow_policy_aloha_transfer flow_policy_pusht mean_flow_images mean_flow_points "
        "ot_flow pi0 pi0_aloha_insertion pi0_aloha_transfer pi0_pusht shortcut_images shortcut_points super_resolution"
    ),
    "robots.policy": "Policy",
    "robots.simulators": "SIMULATORS",
    "samplers": "SAMPLERS sample trajectory",
    "training.trained": "Trained",
}
_HOME = {name: room for room, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'ebbtide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
