"""Before a run begins: what is wrong with a recipe is found before anything is written or memory runs out."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from ..codecs import latent_shape
from ..core.couplings import COUPLINGS
from ..core.times import SPANS, TIMES
from ..data.prepared import Prepared
from ..errors import InputError
from ..losses.denoise import WEIGHTS
from ..memory import room
from ..recipes import Recipe
from ..specs import bind, calling
from .build import build_network, build_path
from .trained import Trained
from .trainer import Trainer

__all__ = ["in_memory", "rehearse"]


def in_memory(recipe: Recipe, prepared: Prepared, accumulate: int = 1, shares: int = 1) -> None:
    """Refuse rows that aren't of their kind, and what this machine's memory can't hold; too low rather than too high.

    accumulate: see `Trainer`. shares: the processes that the weights are shared out to, once each has had them whole.
    """
    shape, classes = latent_shape(prepared.codec, prepared.shape), len(prepared.classes)
    _rows(recipe, shape)
    weights = list(build_network(recipe, shape, classes, prepared.observation, outline=True).parameters())
    room(max(8, 32 // shares) * sum(p.numel() for p in weights), f"network {recipe.network!r}")
    pairs = recipe.coupling != "independent" or recipe.stable_targets
    outputs = sum(len(p) for p in weights if p.ndim > 1)
    room(recipe.batch * (12 * outputs // accumulate + 16 * recipe.batch * pairs), f"batch {recipe.batch}")


def rehearse(start: Trained, trainer: Trainer) -> None:
    """One batch of training and one step of sampling, if it samples; nothing of them is kept.

    start: the run that is about to be trained.
    """
    recipe = start.recipe
    t = trainer.batch(0)["t"].double().cpu()
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"times {recipe.times!r} must give times in [0, 1]; got {float(t.min())} to {float(t.max())}.")
    value = bind(WEIGHTS, recipe.weight, "weight")(start.denoiser.path.scales(t.clamp(1e-6, 1 - 1e-6)))
    if value is not None and not bool((value.isfinite() & (value >= 0)).all()):
        raise InputError(
            f"weight {recipe.weight!r} must give finite weights of at least 0; got {float(value.min())} to "
            f"{float(value.max())}."
        )
    _network(start, trainer)
    if start.reconstructs:
        return
    with torch.no_grad():
        walk = start.trajectory(2)
        next(walk), next(walk)
    start.denoiser.train()


def _rows(recipe: Recipe, shape: Sequence[int]) -> None:
    """Refuse training times, a weight or a coupling that don't return what their table's rows do."""
    path, u = build_path(recipe), torch.tensor([0.2, 0.4, 0.6, 0.8])
    with torch.random.fork_rng(devices=[]):
        with calling("times", recipe.times, must := "return a tensor of times, one for each of u, from (u, path)"):
            t = bind(TIMES, recipe.times, "times")(u.clone(), path)
            _is("times", recipe.times, must, t, u.shape)
        with calling("spans", recipe.spans, must := "return two tensors of times' shape, from (u, w)"):
            start, end = bind(SPANS, recipe.spans, "spans")(u.clone(), u.clone())
            for part in (start, end):
                _is("spans", recipe.spans, must, part, u.shape)
        with calling("weight", recipe.weight, must := "return None or a tensor of weights from scales"):
            value = bind(WEIGHTS, recipe.weight, "weight")(path.scales(u.double()))
            if value is not None:
                _is("weight", recipe.weight, must, value, u.shape)
        x = torch.linspace(-1, 1, 4).reshape(-1, *[1] * len(shape)).expand(4, *shape)
        labels = torch.zeros(4, dtype=torch.int64) if recipe.conditional else None
        with calling("coupling", recipe.coupling, must := "return x₁ in another order, from (x₀, x₁, labels)"):
            _is("coupling", recipe.coupling, must, bind(COUPLINGS, recipe.coupling, "coupling")(x, -x, labels), x.shape)


# Of a batch, what isn't the network's.
_EXAMPLES = (
    "x0", "noise", "t", "z", "mask", "x_t", "x_to", "to", "slope", "start", "nudge", "u", "end", "lawful",
)  # fmt: skip


def _network(start: Trained, trainer: Trainer) -> None:
    """Refuse a network that can't be trained on its own output, for a time each or one for all."""
    name, batch = start.recipe.network, {key: part[:2] for key, part in trainer.batch(0).items()}
    x, t = batch["x0" if "x0" in batch else "x_t"], batch["t"]
    cond = {key: part for key, part in batch.items() if key not in _EXAMPLES}
    spans: list[dict[str, Any]] = [{}, {"span": t.to(x)}] if getattr(start.denoiser, "spans", False) else [{}]
    network = start.denoiser.network
    own = next((p.dtype for p in network.parameters() if p.is_floating_point()), x.dtype)
    must = "return a tensor of x's shape, with a gradient, for times of shape (b,) and (1,)"
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for times, span in product((t.to(x), t[:1].to(x)), spans):
            with calling("network", name, must):
                y = network(x.to(own, copy=True), times, **cond, **span)
            _is("network", name, must, y, x.shape)
            if not y.requires_grad:
                raise InputError(f"network {name!r} must {must}; got one without a gradient.")


def _is(what: str, spec: str, must: str, value: object, shape: Sequence[int]) -> None:
    """InputError unless a row returned a tensor of this shape."""
    if not isinstance(value, torch.Tensor) or value.shape != shape:
        got = f"one of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"{what} {spec!r} must {must}; got {got}.")
