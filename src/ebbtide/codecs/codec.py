"""The codec: what stands between the data's units and the denoiser's, fitted, stored with a run, undone on sampling."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Num
from torch import Tensor

from ..cache import fingerprint
from ..errors import InputError

__all__ = [
    "Batches",
    "Chain",
    "Codec",
    "CodecRow",
    "Shape",
    "all_weights",
    "encoder_hash",
    "latent_shape",
    "split_weights",
    "volume",
]  # fmt: skip

Shape = tuple[int, ...]
Batches = Callable[[], Iterable[Tensor]]  # each call goes through the training data once more, in batches


@runtime_checkable
class Codec(Protocol):
    """A map from data to what a denoiser sees, and back: without randomness or clipping, each example by itself.

    z = encode(x), x ≈ decode(z). A latent is a codec; nothing else depends on there being one.
    """

    @property
    def about(self) -> str:
        """Its effect on data, in a few words for the model card."""
        ...

    @property
    def linear(self) -> bool:
        """True if decode(z) - decode(0) is linear in z."""
        ...

    def shape(self, data: Shape) -> Shape:
        """The shape of z for data of this shape; InputError for data that it doesn't take."""
        ...

    def encode(self, x: Num[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Data → z, as the denoiser sees it."""
        ...

    def decode(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Samples of the denoiser → data."""
        ...

    def log_volume(self, data: Shape) -> float | None:
        """log|dx/dz|, so that log p(x) = log p(z) - log_volume for an x of this shape; None where numbers are lost."""
        ...

    def mirror(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."] | None:
        """encode(x mirrored left to right) from z = encode(x); None where only encoding twice finds it."""
        ...

    def to_config(self) -> dict[str, Any]:
        """Its row of CODECS as `name`, and all that isn't a tensor, as JSON-ready data."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name, which a run stores as codec.safetensors; those called decoder… may be replaced later."""
        ...


@dataclass(frozen=True)
class CodecRow:
    """A row of CODECS."""

    function: Callable[..., Codec]
    """(batches, *, options) → the codec fitted to the data, as the codecs before it in a chain encode that. One that
    also takes `opened` is given a function: the name of a folder → its config and weights."""
    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Codec]
    """(config, weights) → the codec whose `to_config` and `weights` these are; InputError for anything else."""
    of: str = "images"
    """Its data: the "columns" of a table, "levels" of a part of them, "pixels", or "images" that pixels encode."""

    def __call__(self, *given: Any, **options: Any) -> Codec:
        return self.function(*given, **options)


@dataclass(frozen=True)
class Chain:
    """Codecs one after the other: the first encodes the data, the last's z is what the denoiser sees."""

    codecs: tuple[Codec, ...]

    @property
    def about(self) -> str:
        """Those of its codecs."""
        return "; then ".join(codec.about for codec in self.codecs)

    @property
    def linear(self) -> bool:
        """True if all of its codecs are."""
        return all(codec.linear for codec in self.codecs)

    def shape(self, data: Shape) -> Shape:
        """The shape of the last codec's z."""
        for codec in self.codecs:
            data = codec.shape(data)
        return data

    def encode(self, x: Num[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Each codec's encoding of that of the one before it."""
        for codec in self.codecs:
            x = codec.encode(x)
        return x

    def decode(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The codecs undone, the last first."""
        for codec in reversed(self.codecs):
            z = codec.decode(z)
        return z

    def log_volume(self, data: Shape) -> float | None:
        """The sum of theirs; None if one loses numbers."""
        total = 0.0
        for codec in self.codecs:
            own = codec.log_volume(data)
            if own is None:
                return None
            total, data = total + own, codec.shape(data)
        return total

    def mirror(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."] | None:
        """The last codec's mirror, if it encodes images: those before it have no weights, and change single pixels."""
        *before, last = self.codecs
        return None if any(codec.weights() for codec in before) else last.mirror(z)

    def to_config(self) -> dict[str, Any]:
        """Its codecs' configs."""
        return {"name": "chain", "codecs": [codec.to_config() for codec in self.codecs]}

    def weights(self) -> dict[str, Tensor]:
        """Its codecs' weights."""
        return all_weights(self.codecs)


def all_weights(codecs: Sequence[Codec]) -> dict[str, Tensor]:
    """The weights of several codecs, each name after the number of its codec."""
    return {f"{k}.{name}": part for k, codec in enumerate(codecs) for name, part in codec.weights().items()}


def split_weights(weights: Mapping[str, Tensor], count: int, what: str) -> list[dict[str, Tensor]]:
    """The inverse of `all_weights` for `count` codecs; `what` begins the error for a tensor of none of them."""
    found: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for key, part in weights.items():
        number, _, rest = key.partition(".")
        if not number.isascii() or not number.isdigit() or not int(number[:3]) < count:
            raise InputError(f"{what} for the tensor {key[:60]!r}.")
        found[int(number)][rest] = part
    return found


def encoder_hash(codec: Codec) -> str:
    """A hash of all that decides z: config and weights without those called decoder…, in a chain k.decoder…."""

    def kept(config: Any) -> Any:
        if isinstance(config, Mapping):
            return {key: kept(value) for key, value in sorted(config.items()) if not key.startswith("decoder")}
        return [kept(part) for part in config] if isinstance(config, list | tuple) else config

    parts = {
        name: part for name, part in codec.weights().items() if not name.lstrip("0123456789.").startswith("decoder")
    }
    return fingerprint(kept(codec.to_config()), sorted(parts), tensors=(parts[name] for name in sorted(parts)))


def latent_shape(codec: Codec | None, data: Shape) -> Shape:
    """The shape of what the denoiser sees of data of this shape."""
    return data if codec is None else codec.shape(data)


def volume(codec: Codec | None, data: Shape) -> float:
    """log|dx/dz| of a codec, 0 without one; InputError where it loses numbers, so that data has no density."""
    if codec is None:
        return 0.0
    found = codec.log_volume(data)
    if found is None:
        raise InputError(
            "This run's codec keeps fewer numbers than the data has, or ranks, so the data has no density under it; "
            "that of a table has one with --codec standardise."
        )
    return found
