"""Losses of a codec: how far an image that went through its latent is from what it was."""

from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from ..specs import require

if TYPE_CHECKING:
    from ..core.denoiser import Denoiser

__all__ = ["distance", "reconstruct", "restored"]


def reconstruct(
    denoiser: "Denoiser",
    x0: Float[Tensor, " b c h w"],
    noise: Float[Tensor, " b c h w"],
    *,
    noise_std: float = 0.1,
    absolute: float = 1.0,
    **rest: Any,
) -> Float[Tensor, " b"]:
    """|x̂ - x₀|² + absolute |x̂ - x₀|, per number, with x̂ = decode(encode(x₀) + noise_std ε).

    The noise on z makes the decoder smooth, since what a flow makes is never quite a z that it has seen (Ghosh et al.
    2020, arXiv:1903.12436, in place of a variational posterior).
    noise: of which the first numbers of each example are ε. rest: what other losses take; not used here.
    """
    return distance(restored(denoiser, x0, noise, noise_std), x0, absolute)


def restored(
    denoiser: "Denoiser", x0: Float[Tensor, " b c h w"], noise: Float[Tensor, " b c h w"], noise_std: float
) -> Float[Tensor, " b c h w"]:
    """decode(encode(x₀) + noise_std ε)."""
    require("reconstruct: noise_std", noise_std, 0)
    network: Any = denoiser.network
    z = network.encode(x0)
    made: Tensor = network.decode(z + noise_std * noise.flatten(1)[:, : z[0].numel()].reshape(z.shape))
    return made


def distance(made: Float[Tensor, " b c h w"], x0: Float[Tensor, " b c h w"], absolute: float) -> Float[Tensor, " b"]:
    """|x̂ - x₀|² + absolute |x̂ - x₀|, per number. made: x̂."""
    require("reconstruct: absolute", absolute, 0)
    error = (made - x0).flatten(1)
    return error.square().mean(1) + absolute * error.abs().mean(1)
