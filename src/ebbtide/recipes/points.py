"""Recipes for points: each is a row (path, target, times, coupling, sampler) over the same network and training."""

from dataclasses import replace

from .recipe import PointRecipe, Recipe

_BASE = PointRecipe()


def ddpm() -> Recipe:
    """Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): predict the noise, sample by ancestral steps."""
    return replace(_BASE, path="ddpm", target="noise", sampler="ddpm:variance=beta", grid="trailing", sample_steps=1000)


def flow() -> Recipe:
    """Flow matching / rectified flow (Lipman et al. 2023, arXiv:2210.02747): predict the velocity, follow the ODE."""
    return replace(_BASE, path="linear", target="velocity", sampler="heun")


def edm() -> Recipe:
    """EDM (Karras et al. 2022, arXiv:2206.00364): preconditioned denoiser on exploding noise, Heun on their grid.

    Their P_mean = -1.2 is for data of standard deviation ½; for 1 it is -1.2 + log 2.
    """
    return replace(
        _BASE, path="ve", target="edm", times="log_normal:mean=-0.5", sampler="heun", grid="karras", sample_steps=18
    )


def bridge() -> Recipe:
    """Stochastic interpolant (Albergo et al. 2023, arXiv:2303.08797): a linear path with noise on the way."""
    return replace(_BASE, path="bridge:spread=0.5", target="velocity", sampler="heun")


def ot_flow() -> Recipe:
    """OT-CFM (Tong et al. 2024, arXiv:2302.00482): flow matching along minibatch optimal-transport pairs."""
    return replace(_BASE, path="linear", target="velocity", coupling="ot", batch=256, sample_steps=10)
