"""Routes from noise to data: of the flow, in the linear path's clock where noise explodes, and of single jumps."""

from dataclasses import replace

import numpy as np
import torch

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, VE, Linear
from ebbtide.kinds.routes import explodes, route
from ebbtide.networks.mlp import MLP
from ebbtide.recipes import PointRecipe
from ebbtide.training.trained import Trained
from problems import exact, fill

RECIPE = PointRecipe(seed=3)


def trained_on(path):
    """An exact network, and a weight, which tells its device."""
    denoiser = exact(path)
    denoiser.register_parameter("weight", torch.nn.Parameter(torch.zeros(1)))
    return Trained(denoiser, RECIPE, (1,))


def test_only_an_exploding_path_explodes():
    assert [explodes(path) for path in (Linear(), DDPM(), VE())] == [False, False, True]


def test_a_route_is_the_samplers_own():
    trained = trained_on(DDPM())
    times, walk = route(trained, 5, 4)
    own = list(trained.trajectory(5, seed=3, sampler="heun", grid="uniform", steps=4))
    assert times.tolist() == [t for t, _ in own] == [1, 0.75, 0.5, 0.25, 0]
    assert (walk == torch.stack([x for _, x in own])).all()


def test_an_exploding_path_is_drawn_as_the_linear_one():
    """Which it is but for its beginning, where σ/(α + σ) is 0.9998 instead of 1."""
    (times, walk), (others, linear) = (route(trained_on(path), 50, 200) for path in (VE(sigma_max=5000.0), Linear()))
    assert np.allclose(times, others)
    assert torch.allclose(walk, linear, atol=2e-3)


def test_a_run_that_jumps_is_drawn_by_single_jumps():
    network = fill(MLP(2, width=8, depth=1, spans=True))
    trained = Trained(Denoiser(network, Linear()), replace(RECIPE, sampler="jump", sample_steps=1), (2,))
    times, walk = route(trained, 6, 4)
    noise = next(trained.trajectory(6, seed=3))[1]
    assert times.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert (walk[0] == noise).all()
    assert torch.allclose(walk[-1], trained.sample(6, seed=3, steps=1))
    one = trained.denoiser(noise, 1.0, to=0.25).mix(0.75, 0.25)
    assert torch.allclose(walk[3], one)
