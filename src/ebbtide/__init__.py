"""ebbtide: diffusion and flow matching in one piece: any sampler on any checkpoint.

Reading order: core (paths → targets → denoiser → times → couplings) → samplers → training → recipes.
"""

import importlib
from typing import Any

from .version import __version__

# Names are looked up on first use (PEP 562), so that `import ebbtide` and `ebbtide --help` don't wait for torch.
_HOME = {
    "Autoguidance": "core.guidance",
    "Bridge": "core.paths",
    "ClassifierFree": "core.guidance",
    "Cosine": "core.paths",
    "DDPM": "core.paths",
    "DiT": "networks",
    "Denoiser": "core.denoiser",
    "Draws": "core.randomness",
    "Estimate": "core.targets",
    "Linear": "core.paths",
    "MLP": "networks",
    "UNet": "networks",
    "VE": "core.paths",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "Trained": "training.trained",
    "VP": "core.paths",
    "fit": "training.run",
    "from_diffusers": "interop.diffusers",
    "from_pretrained": "training.trained",
    "sample": "samplers",
    "trajectory": "samplers",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'ebbtide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
