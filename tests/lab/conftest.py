"""Tiny runs that the lab's tests share."""

from dataclasses import replace

import pytest
import torch

from ebbtide.kinds.runs import begin, from_pretrained, train_recipe
from ebbtide.lab.sampling import LabRun
from ebbtide.lab.session import Lab
from ebbtide.recipes import RECIPES
from recording import record

FEW = {"steps": 6, "batch": 32}
TINY = FEW | {"points": 300, "network": "mlp:width=16,depth=2"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of runs: points, points by class, images, a policy."""
    place = tmp_path_factory.mktemp("lab")
    recipes = {
        "moons": RECIPES["flow"](data="two_moons", **TINY),
        "noisy": RECIPES["ddpm"](data="two_moons", sample_steps=20, **TINY),
        "spirals": RECIPES["flow"](data="two_spirals", conditional=True, **TINY),
        "digits": RECIPES["flow-images"](conditional=True, network="unet-tiny:width=8", sample_steps=4, **FEW),
        "policy": replace(
            RECIPES["flow-policy-pusht"](), data=record(place / "episodes.npz"), sample_steps=2, cameras="",
            network="action_unet:width=8,emb=16", **FEW,
        ),
    }  # fmt: skip
    for name, recipe in recipes.items():
        train_recipe(recipe, place / name, snapshots=0, checkpoints=1, solvers=False, progress=False)
    return place


@pytest.fixture
def lab(folder):
    """A lab with these runs."""
    names = ("moons", "noisy", "spirals", "digits", "policy")
    return Lab("", {name: LabRun(name, name, str(folder / name), from_pretrained(folder / name)) for name in names})


@pytest.fixture
def steady():
    """A flow whose velocity is (0.5, -0.25) everywhere, in the network's units; its data two moons."""
    trained, _ = begin(RECIPES["flow"](data="two_moons", **TINY))
    with torch.no_grad():
        trained.denoiser.network.out.bias.copy_(torch.tensor([0.5, -0.25]))
    return trained
