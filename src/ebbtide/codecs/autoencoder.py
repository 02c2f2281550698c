"""A learned latent: the autoencoder of another run, its channels brought to one scale."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..networks.autoencoder import Autoencoder
from ..networks.outline import Outline, fill
from ..specs import bind, expect, require, words
from .codec import Batches, Chain, Codec, Shape, encoder_hash

__all__ = ["Learned", "fit_autoencoder", "in_groups", "read_autoencoder", "with_decoder"]

Opened = Callable[[str], tuple[Mapping[str, Any], Mapping[str, Tensor]]]
NAME = "autoencoder"
NUMBERS = 2**17  # of the images that go through an autoencoder together


@dataclass(frozen=True, eq=False)
class Learned:
    """z = (E(x) - centre) / spread, x̂ = D(spread z + centre), of a trained `Autoencoder`.

    network: how it was made, a spec; data: the shape of the images that it was made for.
    """

    about: ClassVar[str] = "images in the latent of an autoencoder"
    linear: ClassVar[bool] = False

    autoencoder: Autoencoder
    network: str
    data: Shape
    centre: Float[Tensor, " keep"]
    spread: Float[Tensor, " keep"]

    def __post_init__(self) -> None:
        self.autoencoder.eval().requires_grad_(False)

    def shape(self, data: Shape) -> Shape:
        """(keep, h / size, w / size)."""
        size = self.autoencoder.size
        if len(data) != 3 or data[0] != self.data[0] or data[1] % size or data[2] % size:
            raise InputError(
                f"autoencoder: images must have {self.data[0]} channels and sides that are multiples of {size}; got "
                f"{' × '.join(map(str, data))}."
            )
        return self.autoencoder.latent[0], data[1] // size, data[2] // size

    def encode(self, x: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b keep i j"]:
        """The latent of each image."""
        latent = self.shape(tuple(x.shape[-3:]))
        z = in_groups(self.autoencoder.encode, x.reshape(-1, *x.shape[-3:]), self.data)
        return ((z - self._of(self.centre, z)) / self._of(self.spread, z)).reshape(*x.shape[:-3], *latent)

    def decode(self, z: Float[Tensor, "*b keep i j"]) -> Float[Tensor, "*b c h w"]:
        """The image of each latent."""
        flat = z.reshape(-1, *z.shape[-3:])
        x = in_groups(self.autoencoder.decode, flat * self._of(self.spread, z) + self._of(self.centre, z), self.data)
        return x.reshape(*z.shape[:-3], *x.shape[1:])

    def _of(self, part: Float[Tensor, " keep"], z: Tensor) -> Float[Tensor, "keep 1 1"]:
        return part.to(z)[:, None, None]

    def log_volume(self, data: Shape) -> None:
        """None: numbers are lost."""

    def mirror(self, z: Float[Tensor, "*b keep i j"]) -> None:
        """None: only encoding the mirrored image finds its latent."""

    def to_config(self) -> dict[str, Any]:
        return {"name": NAME, "network": self.network, "data": list(self.data)}

    def weights(self) -> dict[str, Tensor]:
        return {"centre": self.centre, "spread": self.spread, **self.autoencoder.state_dict()}


def fit_autoencoder(batches: Batches, *, run: str = "", whiten: float = 0.5, opened: Opened) -> Learned:
    """The codec of a run of the recipe `autoencoder`, with the channels' mean and spread on this data.

    run: its folder or export. whiten: z is over its variance to this power; 0.5 makes every variance 1, 0.25
    leaves the channels that make the image large ones.
    """
    require("autoencoder: whiten", whiten, 0, 1)
    if not run:
        raise InputError("autoencoder: name a run of the recipe autoencoder, as in autoencoder:run=FOLDER.")
    made = _trained(run, opened)
    keep = made.centre.shape
    count, total, squares = 0, torch.zeros(keep).double(), torch.zeros(keep).double()
    for x in batches():
        z = made.encode(x).double().transpose(0, 1).flatten(1)
        count, total, squares = count + z.shape[1], total + z.sum(1), squares + z.square().sum(1)
    if not count:
        raise InputError("autoencoder: there are no images to measure the latent's channels on.")
    centre = total / count
    variance = (squares / count - centre.square()).clamp(min=1e-12)
    return replace(made, centre=centre.float(), spread=(variance**whiten).float())


def with_decoder(codec: Codec | None, run: str, *, opened: Opened) -> Codec:
    """A codec of an autoencoder with the decoder of another run, which was trained on from the same encoder's weights.

    A flow in its latent stays valid: nothing that decides z changes. InputError where the encoder is another.
    """
    before = codec.codecs if isinstance(codec, Chain) else (codec,)
    *others, own = before
    if not isinstance(own, Learned):
        raise InputError("A decoder can be replaced in a run whose codec is an autoencoder.")
    made = replace(own, autoencoder=_trained(run, opened).autoencoder)
    if encoder_hash(made) != encoder_hash(own):
        raise InputError(
            f"autoencoder: {run} has another encoder than the one that this run was trained with, so its decoder can't "
            "read these latents. Train one with --loss sharpen --init."
        )
    return replace(codec, codecs=(*others, made)) if isinstance(codec, Chain) else made


def _trained(run: str, opened: Opened) -> Learned:
    """The autoencoder of a run, its channels as they are."""
    config, weights = opened(run)
    recipe = config.get("recipe", {})
    if words(str(recipe.get("network", "")))[0] != NAME:
        raise InputError(f"autoencoder: {run} must be a run of the recipe autoencoder; its network is another.")
    network = {key.removeprefix("network."): part for key, part in weights.items()}
    data = tuple(config["shape"])
    autoencoder, keep = _filled(recipe["network"], data, network), network["scale"].shape
    return Learned(autoencoder, recipe["network"], data, torch.zeros(keep), torch.ones(keep))


def read_autoencoder(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Learned:
    """The inverse of `to_config` and `weights`; nothing is allocated but what the weights at hand fill."""
    if set(config) != {"name", "network", "data"}:
        raise InputError(f"codec autoencoder takes network and data; got {', '.join(config)}.")
    network, data = config["network"], config["data"]
    expect("codec autoencoder's network", network, str)
    if words(network)[0] != NAME or not isinstance(data, list) or len(data) != 3:
        raise InputError("codec autoencoder's network or data can't be that.")
    for side in data:
        require("codec autoencoder's data", side, 1, 65536, whole=True)
    parts = dict(weights)
    centre, spread = (parts.pop(name, torch.empty(0)) for name in ("centre", "spread"))
    autoencoder = _filled(network, tuple(data), parts)
    for name, part in (("centre", centre), ("spread", spread)):
        if part.shape != autoencoder.latent[:1] or not bool(part.isfinite().all()):
            raise InputError(f"codec autoencoder's {name} must be {autoencoder.latent[0]} finite numbers.")
    if not bool((spread > 0).all()):
        raise InputError("codec autoencoder's spread must be above 0.")
    return Learned(autoencoder, network, tuple(data), centre, spread)


def _filled(network: str, data: Shape, weights: Mapping[str, Tensor]) -> Autoencoder:
    """The autoencoder of a spec with these weights; InputError where they aren't its own."""
    row = bind({NAME: Autoencoder}, network, "codec autoencoder's network")
    with Outline():
        made = row(*data)
    own = made.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        wanted, found = own.get(name), weights.get(name)
        if wanted is None or found is None or wanted.shape != found.shape or not bool(found.isfinite().all()):
            raise InputError(f"codec autoencoder's tensor {name[:60]} is missing, of another shape, or not finite.")
    fill(made, weights)
    return made


def in_groups(network: Callable[[Tensor], Tensor], x: Float[Tensor, "n ..."], data: Shape) -> Float[Tensor, "n ..."]:
    """network(x), always of as many examples, so that the last bits of one don't depend on how many there are.

    data: the shape of an image; groups are smaller where it is large. The last one is filled up with zeros.
    """
    together = min(32, max(1, NUMBERS // math.prod(data)))
    parts = []
    for part in x.split(together):
        whole = torch.cat([part, part.new_zeros(together - len(part), *part.shape[1:])])
        with torch.autocast(x.device.type, enabled=False):
            parts.append(network(whole)[: len(part)])
    return torch.cat(parts) if parts else network(x)
