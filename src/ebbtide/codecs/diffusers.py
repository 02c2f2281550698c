"""The autoencoders of diffusers as codecs: a folder in, and the same latents as its pipelines."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from ..files import load_json
from ..specs import pick
from ..tensors import read_weights, sound
from .autoencoder import in_groups
from .codec import Batches, Shape

__all__ = ["Foreign", "fit_diffusers", "read_diffusers"]

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
FILES = "config.json", "diffusion_pytorch_model.safetensors"
NAME, LAST = "diffusers", "post_quant_conv."  # which belongs to AutoencoderKL's decoder


class _Scales(NamedTuple):
    """z = (latent - shift) factor."""

    shift: Float[Tensor, "k 1 1"]
    factor: Float[Tensor, "k 1 1"]


@dataclass(frozen=True, eq=False)
class Foreign:
    """z = (E(x) - shift) factor, as diffusers' pipelines scale it, for images in [-1, 1]; a VAE's posterior mode.

    autoencoder: AutoencoderKL (Rombach et al. 2022, arXiv:2112.10752), AutoencoderTiny (TAESD), or AutoencoderDC (Chen
    et al. 2024, arXiv:2410.10733), and its config, with the class's name as `_class_name`.
    """

    about: ClassVar[str] = "images in the latent of an autoencoder of diffusers"
    linear: ClassVar[bool] = False

    autoencoder: nn.Module
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.autoencoder.eval().requires_grad_(False)

    @property
    def scales(self) -> _Scales:
        """shift and factor, of each channel where the config has them so."""
        get = self.config.get
        mean, std = get("latents_mean"), get("latents_std")
        shift = torch.as_tensor((get("shift_factor") or 0.0) if mean is None else mean, dtype=torch.float32)
        factor = torch.as_tensor(get("scaling_factor", 1.0), dtype=torch.float32)
        factor = factor if std is None else factor / torch.as_tensor(std, dtype=torch.float32)
        return _Scales(shift.reshape(-1, 1, 1), factor.reshape(-1, 1, 1))

    def shape(self, data: Shape) -> Shape:
        """(latent channels, h / s, w / s), s the autoencoder's own."""
        channels, s = int(self.config.get("in_channels", 3)), self._size
        if len(data) != 3 or data[0] != channels or data[1] % s or data[2] % s:
            raise InputError(
                f"diffusers: images must have {channels} channels and sides that are multiples of {s}; got "
                f"{' × '.join(map(str, data))}."
            )
        return int(self.config["latent_channels"]), data[1] // s, data[2] // s

    @property
    def _size(self) -> int:
        """Pixels of an image's side for each of the latent's."""
        names = "block_out_channels", "encoder_block_out_channels"
        levels = next(self.config[name] for name in names if name in self.config)
        return 2 ** (len(levels) - 1)

    def encode(self, x: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b k i j"]:
        """The scaled latent of each image."""
        latent, (shift, factor) = self.shape(tuple(x.shape[-3:])), self.scales
        z = in_groups(self._latent, x.reshape(-1, *x.shape[-3:]), tuple(x.shape[-3:]))
        return ((z - shift.to(z)) * factor.to(z)).reshape(*x.shape[:-3], *latent)

    def _latent(self, x: Tensor) -> Tensor:
        found: Any = self.autoencoder.encode(x, return_dict=False)[0]  # type: ignore[operator]
        return found.mode() if hasattr(found, "mode") and not isinstance(found, Tensor) else found

    def decode(self, z: Float[Tensor, "*b k i j"]) -> Float[Tensor, "*b c h w"]:
        """The image of each latent."""
        shift, factor = self.scales
        flat = z.reshape(-1, *z.shape[-3:]) / factor.to(z) + shift.to(z)
        data = 3, self._size * z.shape[-2], self._size * z.shape[-1]
        x = in_groups(lambda part: self.autoencoder.decode(part, return_dict=False)[0], flat, data)  # type: ignore[operator]
        return x.reshape(*z.shape[:-3], *x.shape[1:])

    def log_volume(self, data: Shape) -> None:
        """None: numbers are lost."""

    def mirror(self, z: Float[Tensor, "*b k i j"]) -> None:
        """None: only encoding the mirrored image finds its latent."""

    def to_config(self) -> dict[str, Any]:
        return {"name": NAME, "config": dict(self.config)}

    def weights(self) -> dict[str, Tensor]:
        own = self.autoencoder.state_dict()
        return {f"decoder.{name}" if name.startswith(LAST) else name: part for name, part in own.items()}


def fit_diffusers(batches: Batches, *, folder: str = "") -> Foreign:
    """The autoencoder in a folder of diffusers, or in the folder vae of a pipeline's.

    folder: holds config.json and diffusion_pytorch_model.safetensors.
    """
    place = Path(folder)
    place = place / "vae" if not (place / FILES[0]).exists() else place
    if not folder or not (place / FILES[0]).exists():
        raise InputError(f"diffusers: folder must hold an autoencoder of diffusers, with {FILES[0]}; got {folder!r}.")
    config, where = load_json(place / FILES[0]), place / FILES[1]
    return _built(config, read_weights(where), str(place / FILES[0]))


def read_diffusers(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Foreign:
    """The inverse of `to_config` and `weights`."""
    if set(config) != {"name", "config"}:
        raise InputError(f"codec diffusers takes a config; got {', '.join(config)}.")
    own = {name.removeprefix("decoder.") if LAST in name else name: part for name, part in weights.items()}
    return _built(config["config"], sound(own, "codec diffusers"), "codec diffusers")


def _built(config: Any, weights: Mapping[str, Tensor], where: str) -> Foreign:
    """The module of a config with these weights; InputError where they aren't its own."""
    if not isinstance(config, Mapping):
        raise InputError(f"{where}: a config must be a table; got {type(config).__name__}.")
    kind = pick(CLASSES, str(config.get("_class_name", "")), f"{where}: _class_name")
    try:
        made = getattr(importlib.import_module("diffusers"), kind)
    except ImportError:
        raise InputError("codec diffusers needs a package that is not installed: pip install diffusers.") from None
    kept = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        with torch.device("meta"):  # no memory is taken but that of the weights at hand
            module = made.from_config(kept)
        floats = {name: part.float() if part.is_floating_point() else part for name, part in weights.items()}
        module.load_state_dict(floats, assign=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{where} doesn't fit its weights: {' '.join(str(error).split())[:200]}") from error
    full = {name: value for name, value in module.config.items() if not name.startswith("_")}
    return Foreign(module, json.loads(json.dumps({"_class_name": kind} | full)))
