"""A run's own solver: fitted to its denoiser at the end of training, or when it is asked for, and kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .. import cache
from ..core.randomness import Draws, generator, key
from ..errors import InputError
from ..exact.fit import fit_solver
from ..exact.jumps import JUMPS, fit_jumps
from ..exact.plans import (
    BACKWARD,
    COUNTS,
    FEW_IMAGES,
    FEW_STARTS,
    JOINT,
    LARGE,
    MOST_EVALUATIONS,
    MOST_JOINT,
    allowance,
    plan,
)
from ..exact.tuned import Tuned, read_tuned, write_tuned
from ..progress import percent_bar
from .devices import place_of
from .teacher import Trajectories

if TYPE_CHECKING:
    from .trained import Trained

__all__ = ["for_run", "for_student", "kept_solver"]


def for_run(
    trained: "Trained",
    counts: Sequence[int] = COUNTS,
    *,
    budget: int | None = None,
    cond: Callable[[int], Mapping[str, Any]] | None = None,
    progress: bool = False,
    **how: Any,
) -> tuple[Tuned, ...]:
    """Solvers for a run, or none where the budget is too small for any.

    counts: the numbers of evaluations to fit a solver for. budget: network evaluations; unless given, MOST_EVALUATIONS,
    and as many again for gradients. cond: the conditions of n starts, as the network takes them; labels as frequent as
    in the data, and recorded observations, unless given. how: guidance, interval and bound, as in `Trained.trajectory`.
    """
    dim = math.prod(trained.latent_shape)
    budget = 2 * MOST_EVALUATIONS[dim >= LARGE] if budget is None else budget
    if trained.observation is not None and any(len(shape) > 1 for shape in trained.observation.shapes.values()):
        budget = min(budget, FEW_IMAGES.cost(counts))  # which are seen all at once
    spent = plan(budget, dim, counts)
    if spent is None:
        return ()
    seed, left = key(trained.recipe.seed, "solver"), budget - spent.cost(counts)
    step = FEW_STARTS * BACKWARD * spent.starts * sum(count for count in counts if count <= JOINT)
    joint = min(MOST_JOINT, left // step) if step else 0
    draws = Draws.first(spent.pool, seed, device=place_of(trained.denoiser))
    start = trained.start(spent.pool, seed, 0, draws)
    told = dict(_conditions(trained, spent.pool, seed) if cond is None else cond(spent.pool))
    if "label" in told and trained.recipe.learns_null and how.get("guidance", 1.0) == 1:
        hidden = torch.arange(spent.pool) % 8 < 2  # a quarter, for samples that are drawn without
        told["label"] = told["label"].masked_fill(hidden.to(told["label"].device), len(trained.classes))
    # Each batch size would be compiled anew. (Asking for it imports the compiler, which takes longer than a fit.)
    compiled = getattr(trained.denoiser.network, "_compiled_call_impl", None) is not None
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with percent_bar("fitting a solver", show=progress) as moved, eager:
        made = fit_solver(
            trained.steered(**how), start, counts, plan=spent, joint=joint, cond=told, progress=moved
        )  # fmt: skip
    return _signed(made, trained)


def _signed(made: Sequence[Tuned], trained: "Trained") -> tuple[Tuned, ...]:
    """Solvers with the fingerprint of the weights that they are for."""
    own = trained.fingerprint()
    return tuple(replace(one, weights=own) for one in made)


def for_student(
    trained: "Trained", data: Trajectories, counts: Sequence[int] = JUMPS, *, progress: bool = False
) -> tuple[Tuned, ...]:
    """Grids for as many jumps of a student, fitted to trajectories of its teacher that it never saw.

    One that spans a single time gets solvers of the flow that it has learned. data: the student's, with the
    trajectories held out. counts: the numbers of jumps.
    """
    held = data.held_out
    if held is None:
        return ()
    device = place_of(trained.denoiser)
    draw = generator(trained.recipe.seed, "examples", device=device)
    if not trained.denoiser.spans:
        some, recipe = partial(torch.randint, len(held), generator=draw, device=device), trained.recipe
        budget = allowance(recipe.steps, recipe.batch)
        cond = lambda n: held.conditions(some((n,)), draw)
        return for_run(trained, counts, budget=budget, cond=cond, progress=progress)
    told = held.conditions(torch.arange(len(held), device=device), draw)
    with percent_bar("fitting grids", show=progress) as moved:
        made = fit_jumps(trained.denoiser.eval(), held.x[0], held.x[-1], counts, cond=told, progress=moved)
    return _signed(made, trained)


def _conditions(trained: "Trained", n: int, seed: int) -> dict[str, Any]:
    labels = trained.in_proportion(n) if trained.recipe.learns_labels else trained.labels(None, n)
    device = place_of(trained.denoiser)
    return trained.context(n, seed, 0, None) | ({} if labels is None else {"label": labels.to(device)})


def kept_solver(trained: "Trained", count: int, *, progress: bool = False, **how: Any) -> Tuned:
    """A solver for a run that has none stored: of the user's cache, or fitted now and kept there.

    count: its evaluations. how: as in `for_run`.
    """
    if not 1 <= count <= COUNTS[-1]:
        more = f" For more, tune the run: ebbtide.tune (ebbtide tune RUN --evaluations {count})." if count else ""
        raise InputError(f"A run's own solver is fitted for 1 to {COUNTS[-1]} evaluations; got {count}.{more}")
    own = trained.fingerprint()
    name = f"solver-{cache.fingerprint(own, count, sorted(how.items()))[:32]}"
    if found := cache.fetch(name):
        with suppress(InputError, KeyError):
            (one,) = read_tuned(found[1]["tuned"].encode(), name)
            if one.weights == own and one.evaluations == count:
                return one
    made = for_run(trained, (count,), progress=progress, **how)
    if not made:
        raise InputError(f"Samples of shape {trained.shape} are too small to fit {count} evaluations to.")
    cache.store(name, {}, tuned=write_tuned(made).decode())
    return made[0]
