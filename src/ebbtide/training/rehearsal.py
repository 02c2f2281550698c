"""Before a run begins: what is wrong with a recipe is said before anything is written or memory runs out."""

from typing import TYPE_CHECKING

from ..errors import InputError
from ..memory import room
from ..recipes import Recipe

if TYPE_CHECKING:
    from ..kinds import Prepared
    from .trained import Trained


def rehearse(recipe: Recipe, accumulate: int = 1) -> "Trained":
    """One batch of training and one step of sampling, on nothing that is kept; returns the untrained start.

    accumulate: see `Trainer`.
    """
    import torch

    from ..core.denoiser import loss_weight
    from ..kinds import domain
    from .run import accelerate, begin
    from .trainer import Trainer

    own = domain(recipe)
    own.fits(recipe)
    prepared = own.prepare(recipe)
    _fits(recipe, prepared, accumulate)
    start = begin(recipe, prepared)
    trainer = Trainer(start.denoiser, prepared.data, recipe, accelerate(), accumulate)
    t = trainer.batch(0)["t"].double().cpu()
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"times {recipe.times!r} must give times in [0, 1]; got {float(t.min())} to {float(t.max())}.")
    if weight := loss_weight(recipe.weight):
        value = weight(start.denoiser.path.scales(t.clamp(1e-6, 1 - 1e-6)))
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise InputError(
                f"weight {recipe.weight!r} must give finite weights of at least 0; got {float(value.min())} to "
                f"{float(value.max())}."
            )
    with torch.no_grad():
        walk = start.trajectory(2)
        next(walk), next(walk)
    start.denoiser.train()
    return start


def _fits(recipe: Recipe, prepared: "Prepared", accumulate: int) -> None:
    """Refuse what this machine's memory can't hold; rough, but too low rather than too high."""
    from .trained import build_network

    classes = len(prepared.classes)
    weights = list(build_network(recipe, prepared.shape, classes, prepared.observation, outline=True).parameters())
    room(32 * sum(p.numel() for p in weights), f"network {recipe.network!r}")
    pairs = recipe.coupling != "independent" or recipe.stable_targets
    outputs = sum(len(p) for p in weights if p.ndim > 1)
    room(recipe.batch * (12 * outputs // accumulate + 16 * recipe.batch * pairs), f"batch {recipe.batch}")
