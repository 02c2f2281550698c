"""The denoising loss: the squared error of what a network predicts, at a time drawn for each example."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Shaped
from torch import Tensor

from ..errors import InputError
from ..specs import require

if TYPE_CHECKING:
    from ..core.denoiser import Denoiser
    from ..core.paths import Scales

__all__ = ["WEIGHTS", "Weight", "denoise", "edm_weight", "min_snr", "reflow", "unit"]

Weight = Callable[["Scales"], Tensor | None]


def unit(c: "Scales") -> None:
    """Equal weight for every error of the target."""
    return None


def min_snr(c: "Scales", gamma: float = 5.0) -> Tensor:
    """min(SNR, γ), SNR = α²/σ² (Hang et al. 2023, arXiv:2303.09556, Section 3.4). gamma: γ, the largest weight."""
    require("min_snr: gamma", gamma, above=0)
    return (c.alpha / c.sigma).square().clamp(max=gamma)


def edm_weight(c: "Scales", data_std: float = 1.0) -> Tensor:
    """λ(σ) = (σ² + σ_d²) / (σ σ_d)²: leaves the edm target's own error unweighted (Karras et al. 2022, Table 1).

    data_std: σ_d, above 0.
    """
    require("edm weight: data_std", data_std, above=0)
    ratio = c.sigma / c.alpha
    return (ratio**2 + data_std**2) / (ratio * data_std) ** 2


# Of |x₀ - x̂₀|² at each time; None is the target's own error, as each paper weighs it.
WEIGHTS: dict[str, Callable[..., Tensor | None]] = {"unit": unit, "min_snr": min_snr, "edm": edm_weight}


def denoise(
    denoiser: "Denoiser",
    x0: Float[Tensor, " b *d"],
    noise: Float[Tensor, " b *d"],
    t: Float[Tensor, " #b"],
    *,
    z: Float[Tensor, " b *d"] | None = None,
    mask: Shaped[Tensor, " b *m"] | None = None,
    weight: Weight = unit,
    **cond: Any,
) -> Float[Tensor, " b"]:
    """Per-example squared error of the target, |ŷ - (a x₀ + b ε)|² / dim.

    Ho et al. 2020, arXiv:2006.11239, Eq. 14; Lipman et al. 2023, arXiv:2210.02747, Eq. 9.
    weight: the weight of |x₀ - x̂₀|² at each time (a row of WEIGHTS); `unit` weights every target error equally.
    mask: which numbers of x₀ count, or how much, shaped to broadcast to it; where it is 0 there is no error.
    z: a third, independent noise; given where x₀ and the other end are coupled or are two sample sets, for
    then a Bridge's three terms don't add up to one Gaussian (see Path.between) and only the velocity is left.
    """
    c = denoiser.path.at(t, x0)
    if z is None:
        x_t, y = c.alpha * x0 + c.sigma * noise, denoiser.encode(c, x0, noise)
    elif denoiser.predicts_velocity:
        x_t, y = denoiser.path.between(x0, noise, t, z)
    else:
        raise InputError(f"Between given ends (z) only the velocity has a meaning; got target {denoiser.target!r}.")
    error = (denoiser.output(c, x_t, **cond) - y).square()
    if mask is not None:
        error = error * mask
    error, own = error.flatten(1).mean(1), weight(c)
    if own is None:
        return error
    a, b = denoiser.row(c)
    return error * (own * (c.sigma / (c.alpha * b - c.sigma * a)) ** 2).flatten()


def reflow(
    denoiser: "Denoiser",
    x0: Float[Tensor, " b *d"],
    noise: Float[Tensor, " b *d"],
    t: Float[Tensor, " #b"],
    *,
    z: Float[Tensor, " b *d"],
    weight: Weight = unit,
    **cond: Any,
) -> Float[Tensor, " b"]:
    """Flow matching on a teacher's own pairs: starts and ends of its trajectories, whose flow is straighter.

    Liu et al. 2023, arXiv:2209.03003. Nothing else is new: pairs in place of independent ends. The lines
    between a teacher's pairs hardly cross, so that few steps of Euler's follow their flow.

    z: as in `denoise`. weight: of the error, as in `denoise`.
    """
    return denoise(denoiser, x0, noise, t, z=z, weight=weight, **cond)
