"""Before a run begins: what is wrong with a recipe is said before anything is written or memory runs out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..recipes import Recipe

if TYPE_CHECKING:
    from ..domains import Prepared
    from ..trained import Trained


def rehearse(recipe: Recipe, accumulate: int = 1) -> "Trained":
    """One batch of training and one step of sampling, on nothing that is kept; returns the untrained start.

    accumulate: see `Trainer`.
    """
    import torch

    from ..denoiser import loss_weight
    from ..domains import domain
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
    import torch

    from ..trained import build_network

    with torch.device("meta"):
        weights = list(build_network(recipe, prepared.shape, len(prepared.classes), prepared.observation).parameters())
    room(32 * sum(p.numel() for p in weights), f"network {recipe.network!r}")
    pairs = recipe.coupling != "independent" or recipe.stable_targets
    outputs = sum(len(p) for p in weights if p.ndim > 1)
    room(recipe.batch * (12 * outputs // accumulate + 16 * recipe.batch * pairs), f"batch {recipe.batch}")


def room(need: int, what: str) -> None:
    """Refuse a request for more bytes than there is memory, before it brings the machine down."""
    have = memory()
    if need > have:
        raise InputError(f"{what} needs about {need / 2**30:.3g} GiB of memory; this machine has {have / 2**30:.3g}.")


def memory() -> float:
    """Bytes of memory this process may use: the machine's, or less where a container says so."""
    sizes = [float("inf")]
    if "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(float(Path(limit).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(sizes)
