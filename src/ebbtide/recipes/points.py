"""Recipes for points: each is a row (path, target, times, coupling, sampler) over the same network and training."""

from dataclasses import replace
from typing import Unpack

from .fields import PointFields
from .recipe import PointRecipe

__all__ = ["bridge", "ddpm", "edm", "flow", "ot_flow"]

_BASE = PointRecipe()


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
