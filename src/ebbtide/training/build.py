"""The untrained denoiser that a recipe describes."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..codecs import fit_patches
from ..core.couplings import COUPLINGS
from ..core.denoiser import Denoiser
from ..core.paths import PATHS, Path
from ..core.randomness import generator
from ..core.targets import TARGETS, Target
from ..core.times import GRIDS, SPANS, TIMES
from ..data import Observation
from ..data.prepared import Data
from ..errors import InputError
from ..exact.start import MOST_PARTS, Start, drawn, fit_mixture
from ..losses import LOSSES, Loss
from ..losses.denoise import WEIGHTS
from ..networks import NETWORKS
from ..networks.autoencoder import Autoencoder
from ..networks.masked import Masked, masked_shape
from ..networks.outline import Outline
from ..recipes import Recipe
from ..samplers import SAMPLERS
from ..specs import add_row, bind, calling, options, require, words

__all__ = [
    "ALPHA_MIN",
    "TABLES",
    "add_own",
    "begin_base",
    "begin_codec",
    "begin_weights",
    "build_denoiser",
    "build_network",
    "build_path",
    "contradicts",
]

PATCHED = 256  # images cut into patches at once
ALPHA_MIN = 1 / 200  # up to which a trained network's noise says nothing of x₀; DDPM's own table ends at 1/160

# The tables of a recipe's fields that take a function of the user's own, and what makes a row of it where that is more.
TABLES: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "path": (PATHS, lambda row: row),
    "target": (TARGETS, Target),
    "loss": (LOSSES, Loss),
    "times": (TIMES, lambda row: row),
    "spans": (SPANS, lambda row: row),
    "weight": (WEIGHTS, lambda row: row),
    "coupling": (COUPLINGS, lambda row: row),
    "network": (NETWORKS, lambda row: row),
}


def add_own(named: Mapping[str, str]) -> None:
    """Add the user's own functions to TABLES; named: module:function by field of the recipe, other fields ignored.

    It runs their modules: never for what a recipe that was loaded holds.
    """
    for field, (table, row) in TABLES.items():
        if name := named.get(field):
            add_row(table, name, row)


def contradicts(field: str, named: str, its: str) -> bool:
    """True if a spec that the user named for a field of TABLES isn't that of a run, or sets another option than it.

    Options that the user leaves out are the run's. InputError for one that the row doesn't have. its: the run's spec.
    """
    if words(named)[0] != words(its)[0]:
        return True
    table, _ = TABLES[field]
    said, own = bind(table, named, field), bind(table, its, field)
    every = {key: option.default for key, option in options(own.func).items()} | own.keywords
    return any(every[key] != value for key, value in said.keywords.items())


def build_denoiser(
    recipe: Recipe, shape: Sequence[int], classes: int, observation: Observation | None = None, *, outline: bool = False
) -> Denoiser:
    """The untrained denoiser a recipe describes, with initial weights from the recipe's seed.

    observation: the parts of a policy's observation, by name. outline: without weights, as `build_network`.
    """
    path = build_path(recipe)
    bind(SAMPLERS, recipe.sampler, "sampler"), bind(GRIDS, recipe.grid, "grid")(1, path)
    network = build_network(recipe, shape, classes, observation, outline=outline)
    # Of coupled pairs only the velocity is known, even where the far end is N(0, I): -ε̂/σ is then not the score.
    with calling("target", recipe.target, "return two numbers (a, b), of y = a x₀ + b ε, for given scales"):
        denoiser = Denoiser(
            network, path, recipe.target, gaussian_end=recipe.independent, needs_label=not recipe.learns_null,
            alpha_min=ALPHA_MIN, base=_base(recipe, path, shape, classes),
        )  # fmt: skip
        a, b = denoiser.row(path.along([0.5])[0])
        for number in (a, b):
            require(f"target {recipe.target!r}: each of its two numbers (a, b)", number)
    return denoiser


def _base(recipe: Recipe, path: Path, shape: Sequence[int], classes: int) -> Start | None:
    """The Gaussians that a network starts from, before they are fitted; None without."""
    parts = getattr(recipe, "gaussians", 0)
    if parts <= 0:
        return None
    if len(shape) != 1:
        raise InputError(f"gaussians {parts} are for the rows of a table; got shape {tuple(shape)}.")
    by_class = recipe.conditional and classes <= MOST_PARTS
    return Start(path, shape[0], classes if by_class else parts, classes if by_class else 0)


def begin_base(base: Start, data: Data) -> None:
    """Fit the Gaussians that a network starts from to its data.

    base: the Gaussians, set in place.
    """
    z, labels = drawn(data)
    base.set(*fit_mixture(z, len(base.means), len(data), labels if base.classes else None))


def begin_codec(network: Autoencoder, data: Data) -> None:
    """Let an autoencoder begin at the principal components of its data's patches.

    Each is scaled by the fourth root of its variance, so that the loss's noise on z hides little of the largest.
    network: the autoencoder, whose weights are set.
    """
    draw = generator(
        "begin",
    )
    places = torch.arange(len(data)).split(PATCHED)
    size, keep = network.size, network.latent[0]
    patches = fit_patches(lambda: (data.take(part, draw)["x0"] for part in places), size=size, keep=keep, whiten=0.25)
    network.begin(patches.basis, patches.mean, patches.scale)


def begin_weights(denoiser: Denoiser, recipe: Recipe, its: Recipe, weights: Mapping[str, Tensor]) -> None:
    """Let a denoiser begin with the weights of the run that its recipe names, whose recipe is `its`.

    A warning names those that don't fit, which begin untrained, and what else differs; InputError where less than half
    of the network fits. The Gaussians that a network starts from stay the new data's; an autoencoder's components come
    along, since its two networks add to them.
    """
    own = {f"network.{name}": part for name, part in denoiser.network.state_dict().items()}
    fits = [name for name, part in own.items() if name in weights and weights[name].shape == part.shape]
    if 2 * sum(own[name].numel() for name in fits) < sum(part.numel() for part in own.values()):
        raise InputError(
            f"init {recipe.init!r}: its weights don't fit the network {recipe.network}, as its own is {its.network}."
        )
    with torch.no_grad():
        for name in fits:
            own[name].copy_(weights[name])
    fresh = [f"{name} ({_sides(part)})" for name, part in own.items() if name not in fits]
    buffers = {name for name, _ in denoiser.named_buffers()}
    lost = [f"{name} ({_sides(part)})" for name, part in weights.items() if name not in (*fits, *buffers)]
    said = [f"{_few(fresh)} begin{'s' * (len(fresh) == 1)} untrained"] if fresh else []
    said += [f"its {_few(lost)} ha{'s' if len(lost) == 1 else 've'} no place here"] if lost else []
    said += [
        f"{field} is {getattr(recipe, field)}, there {getattr(its, field)}"
        for field in ("path", "target")
        if getattr(recipe, field) != getattr(its, field)
    ]
    if said:
        warnings.warn(f"init {recipe.init!r} doesn't fit in all: {'; '.join(said)}.", stacklevel=5)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _sides(part: Tensor) -> str:
    return " × ".join(map(str, part.shape)) or "1"


def build_path(recipe: Recipe) -> Path:
    """The path of a recipe; InputError where its row makes none."""
    with calling("path", recipe.path, "make an ebbtide.Path with scales"):
        path = bind(PATHS, recipe.path, "path")()
        if not isinstance(path, Path):
            raise InputError(f"path {recipe.path!r} must make an ebbtide.Path; got {type(path).__name__}.")
        for c in path.along([0.5, 1.0]):
            for number in c:
                require(f"path {recipe.path!r}: each of its scales", number)
    return path


def build_network(
    recipe: Recipe, shape: Sequence[int], classes: int, observation: Observation | None = None, *, outline: bool = False
) -> nn.Module:
    """The network alone; sizes it can't have are an InputError.

    Its description of the data, `classes` and `observation`, is what its row has parameters for.
    outline: with parameters on the meta device, which take no memory; `networks.outline.fill` sets them.
    """
    row = bind(NETWORKS, recipe.network, "network")
    with calling("network", recipe.network, "be a function that makes a torch.nn.Module"):
        takes = inspect.signature(row).parameters
    told: dict[str, Any] = {} if observation is None else {"observation": observation.shapes}
    if ("observation" in takes) != bool(told):
        raise InputError(
            f"network {recipe.network!r} {'takes no observations' if told else 'is for policies, told what they see'}."
        )
    masked = getattr(recipe, "any_columns", False)
    sizes = masked_shape(tuple(shape)) if masked else tuple(shape)
    _takes_shape(recipe.network, takes, sizes)
    if condition := recipe.condition(shape):
        if "given" not in takes:
            raise InputError(f"network {recipe.network!r} can't be given images or numbers; take a unet.")
        told["given"] = condition
    if recipe.conditional and "classes" not in takes:
        raise InputError(f"network {recipe.network!r} takes no classes, so it can't be conditional.")
    if "classes" in takes:
        count = classes if recipe.conditional else 0
        if takes["classes"].kind is inspect.Parameter.POSITIONAL_ONLY:
            sizes += (count,)
        else:
            told["classes"] = count
    with torch.random.fork_rng(devices=[]), Outline() if outline else nullcontext():
        torch.manual_seed(recipe.seed)
        try:
            network = row(*sizes, **told)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"network {recipe.network!r} can't be built for shape {tuple(shape)}: {reason}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"network {recipe.network!r} must make a torch.nn.Module; got {type(network).__name__}.")
    return Masked(network) if masked else network


def _takes_shape(name: str, takes: Mapping[str, inspect.Parameter], shape: tuple[int, ...]) -> None:
    """InputError where a network's row has parameters for data of more or fewer sizes, as a U-Net for points."""
    kinds = {one.kind for one in takes.values()}
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    sizes = [one for one in takes.values() if one.kind in by_place and one.name != "classes"]
    least = sum(one.default is one.empty for one in sizes)
    if inspect.Parameter.VAR_POSITIONAL not in kinds and not least <= len(shape) <= len(sizes):
        names = ", ".join(one.name for one in sizes)
        raise InputError(f"network {name!r} is for data of another shape, ({names}); this data has {shape}.")
