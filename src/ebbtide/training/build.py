"""The untrained denoiser that a recipe describes."""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from ..core.denoiser import Denoiser
from ..core.paths import PATHS
from ..core.times import GRIDS
from ..data import Observation
from ..errors import InputError
from ..networks import NETWORKS
from ..networks.outline import Outline
from ..recipes import Recipe
from ..samplers import SAMPLERS
from ..specs import bind

ALPHA_MIN = 1 / 200  # up to which a trained network's noise says nothing of x₀; DDPM's own table ends at 1/160


def build_denoiser(
    recipe: Recipe, shape: Sequence[int], classes: int, observation: Observation | None = None, *, outline: bool = False
) -> Denoiser:
    """The untrained denoiser a recipe describes, with initial weights from the recipe's seed.

    outline: without weights, as `build_network`.
    """
    path = bind(PATHS, recipe.path, "path")()
    bind(SAMPLERS, recipe.sampler, "sampler"), bind(GRIDS, recipe.grid, "grid")(1, path)
    network = build_network(recipe, shape, classes, observation, outline=outline)
    # Of coupled pairs only the velocity is known, even where the far end is N(0, I): -ε̂/σ is then not the score.
    return Denoiser(
        network, path, recipe.target, gaussian_end=recipe.independent, needs_label=not recipe.learns_null,
        alpha_min=ALPHA_MIN,
    )  # fmt: skip


def build_network(
    recipe: Recipe, shape: Sequence[int], classes: int, observation: Observation | None = None, *, outline: bool = False
) -> nn.Module:
    """The network alone; sizes it can't have are an InputError.

    Its description of the data, `classes` and `observation`, is what its row has parameters for.
    outline: with parameters on the meta device, which take no memory; `networks.outline.fill` sets them.
    """
    row = bind(NETWORKS, recipe.network, "network")
    takes = inspect.signature(row).parameters
    told: dict[str, Any] = {} if observation is None else {"observation": observation.shapes}
    if ("observation" in takes) != bool(told):
        raise InputError(
            f"network {recipe.network!r} {'takes no observations' if told else 'is for policies, told what they see'}."
        )
    if recipe.conditional and "classes" not in takes:
        raise InputError(f"network {recipe.network!r} takes no classes, so it can't be conditional.")
    sizes = tuple(shape)
    if "classes" in takes:
        count = classes if recipe.conditional else 0
        if takes["classes"].kind is inspect.Parameter.POSITIONAL_ONLY:
            sizes += (count,)
        else:
            told["classes"] = count
    with torch.random.fork_rng(devices=[]), Outline() if outline else nullcontext():
        torch.manual_seed(recipe.seed)
        try:
            network: nn.Module = row(*sizes, **told)
        except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"network {recipe.network!r} can't be built for shape {tuple(shape)}: {reason}") from error
    return network
