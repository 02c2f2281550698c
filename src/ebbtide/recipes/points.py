"""Recipes for points: each is a row (path, target, times, coupling, sampler) over the same network and training."""

from dataclasses import replace
from typing import Any, Unpack

from .fields import PointFields
from .recipe import HELD_OUT, PointRecipe

__all__ = ["MEAN_FLOW", "SHORTCUT", "bridge", "ddpm", "edm", "flow", "mean_flow_points", "ot_flow", "shortcut_points"]

_BASE = PointRecipe()

# Maps of a flow from data alone: the flow by itself first, then spans that grow; beside path, target and network.
_JUMPS: dict[str, Any] = {"sampler": "jump", "grid": "flow_power:exponent=2", "sample_steps": 1}
_ALL_STEPS: dict[str, Any] = {"validation": 0.0, "held_out": HELD_OUT}  # their losses don't show when to stop
SHORTCUT = _JUMPS | {
    "loss": "shortcut:power=1", "spans": "stretches:whole=0.2,first=0.25,last=0.25,same=0.2,alone=0.3,wide=0.55",
}  # fmt: skip
MEAN_FLOW = _JUMPS | {
    "loss": "mean_flow:own=true", "spans": "stretches:whole=0.15,first=0.2,last=0.2,same=0.35,alone=0.3,wide=0.7",
}  # fmt: skip


def ddpm(**fields: Unpack[PointFields]) -> PointRecipe:
    """Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): predict the noise, sample by ancestral steps."""
    return replace(
        _BASE, path="ddpm", target="noise", sampler="ddpm:variance=beta", grid="trailing", sample_steps=1000
    ).having(fields)


def flow(**fields: Unpack[PointFields]) -> PointRecipe:
    """Flow matching (Lipman et al. 2023, arXiv:2210.02747): predict the velocity, follow the ODE.

    The same as rectified flow (Liu et al. 2023, arXiv:2209.03003).
    """
    return replace(_BASE, path="linear", target="velocity", sampler="heun").having(fields)


def edm(**fields: Unpack[PointFields]) -> PointRecipe:
    """EDM (Karras et al. 2022, arXiv:2206.00364): preconditioned denoiser on exploding noise, Heun on their grid.

    Their P_mean = -1.2 is for data of standard deviation ½; for 1 it is -1.2 + log 2.
    """
    return replace(
        _BASE, path="ve", target="edm", times="log_normal:mean=-0.5", sampler="heun", grid="karras", sample_steps=18
    ).having(fields)


def bridge(**fields: Unpack[PointFields]) -> PointRecipe:
    """Stochastic interpolant (Albergo et al. 2023, arXiv:2303.08797): a linear path with noise on the way."""
    return replace(_BASE, path="bridge:spread=0.5", target="velocity", sampler="heun").having(fields)


def ot_flow(**fields: Unpack[PointFields]) -> PointRecipe:
    """OT-CFM (Tong et al. 2024, arXiv:2302.00482): flow matching along minibatch optimal-transport pairs."""
    return replace(_BASE, path="linear", target="velocity", coupling="ot", batch=256, sample_steps=10).having(fields)


def shortcut_points(**fields: Unpack[PointFields]) -> PointRecipe:
    """Shortcut model (Frans et al. 2024, arXiv:2410.12557): a map that samples in one step, from data alone.

    One jump leads where two half jumps do. The flow is learned first, then longer and longer jumps, each from the
    averaged network's shorter ones. Beyond 4 σ of three Gaussians' modes: 1.6 % in 1 step, 0.5 % in 2 (docs/LOG.md).
    """
    return replace(_BASE, network="mlp:spans=true", steps=5400, lr=1e-2, ema=0.997, **SHORTCUT, **_ALL_STEPS).having(
        fields
    )


def mean_flow_points(**fields: Unpack[PointFields]) -> PointRecipe:
    """MeanFlow (Geng et al. 2025, arXiv:2505.13447): mean slopes by their rate along the flow, from data alone.

    On points far behind `shortcut`: beyond 4 σ of three Gaussians' modes are 51 and 26 % in 1 step (docs/LOG.md).
    """
    return replace(_BASE, network="mlp:spans=true", steps=5000, lr=1.5e-3, **MEAN_FLOW, **_ALL_STEPS).having(fields)
