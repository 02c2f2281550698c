"""A teacher's trajectories: what a student of it learns from, drawn once and kept in the cache."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from .. import cache
from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws, generator, key
from ..core.times import SPANS, grid_times, stratified_draws
from ..data.prepared import Data
from ..memory import room
from ..networks.observation import conditions
from ..samplers import walk
from ..specs import bind, words
from .build import build_denoiser

if TYPE_CHECKING:
    from ..core.times import GridTimes
    from ..recipes import Recipe
    from .trained import Trained

GRID = "flow_power:exponent=2"
WIDE, WIDER = 0.1, 1.5  # a share of the starts is drawn wider, so that a student doesn't extrapolate to rare ones
CHUNK = 1024  # trajectories walked at once
HELD_OUT = 2000  # trajectories that a student's grids are fitted to


@dataclass(frozen=True)
class Trajectories:
    """Trajectories of a teacher's flow as training data: two points of one at a time, and what the network was told.

    x: (times, n, *d), in the network's units; times: a grid's, from 1 to 0. law: a row of SPANS. labels: one for each,
    or None. told, examples: data with further inputs of the network, such as observations, and the place of each
    trajectory's. denoiser: the teacher, with its guidance.
    """

    x: Float[Tensor, " k n *d"]
    times: "GridTimes"
    law: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    denoiser: DenoiserLike
    labels: Int[Tensor, " n"] | None = None
    told: Data | None = None
    examples: Int[Tensor, " n"] | None = None
    held_out: "Trajectories | None" = None
    x1: None = None

    def __len__(self) -> int:
        return self.x.shape[1]

    def to(self, device: torch.device) -> "Trajectories":
        """The same on a device."""
        labels, examples = (part if part is None else part.to(device) for part in (self.labels, self.examples))
        told = None if self.told is None else self.told.to(device)
        held_out = None if self.held_out is None else self.held_out.to(device)
        return replace(
            self, x=self.x.to(device), times=self.times.to(device), labels=labels, examples=examples, told=told,
            held_out=held_out,
        )  # fmt: skip

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]:
        """x_t and x_to at the times t and `to` that the law draws, and the network's conditions."""
        steps = len(self.times) - 1
        u = stratified_draws(len(indices), draw)
        start, end = self.law(u, torch.rand(len(u), generator=draw, device=u.device))
        i = ((1 - start) * steps).round().long().clamp(0, steps - 1)
        j = torch.maximum(((1 - end) * steps).round().long(), i + 1).clamp(max=steps).where(start > end, i)
        batch = {"x_t": self.x[i, indices], "t": self.times[i], "x_to": self.x[j, indices], "to": self.times[j]}
        return batch | self.conditions(indices, draw)

    def conditions(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]:
        """The label and further inputs of the network at these places."""
        found = {} if self.labels is None else {"label": self.labels[indices]}
        if self.told is not None and self.examples is not None:
            taken = self.told.take(self.examples[indices], draw)
            found |= {name: part for name, part in taken.items() if name not in ("x0", "mask", "label")}
        return found


def trajectories_of(
    teacher: "Trained", recipe: "Recipe", told: Data | None = None, *, progress: bool = False
) -> Trajectories:
    """The trajectories that a student of this recipe learns from, and others to fit its grids to.

    From the cache, or drawn now. told: data with what the teacher's network is told besides x and the label.
    """
    law, n = bind(SPANS, recipe.spans, "spans"), recipe.trajectories
    few = min(HELD_OUT if told is None else HELD_OUT // 8, n)  # observations take long to look at
    held_out = _drawn(teacher, recipe, law, told, few, "held out", progress)
    return replace(_drawn(teacher, recipe, law, told, n, "learned", progress), held_out=held_out)


def _drawn(
    teacher: "Trained",
    recipe: "Recipe",
    law: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    told: Data | None,
    n: int,
    what: str,
    progress: bool,
) -> Trajectories:
    """n trajectories of the teacher's probability flow, by Heun's method in the flow clock; what: part of their key."""
    steps, guidance, path = recipe.trajectory_steps, recipe.teacher_guidance, teacher.denoiser.path
    device = next(teacher.denoiser.parameters()).device
    draw, classes = generator(recipe.seed, "teacher", what), len(teacher.classes)
    if teacher.denoiser.gaussian_end:
        sampler, start = "heun:clock=flow", torch.randn(n, *teacher.latent_shape, generator=draw)
        if what == "learned":
            start[: round(WIDE * n)] *= WIDER
        start = path.prior(start)
    else:
        sampler, start = "heun", teacher.start(n, key(recipe.seed, what), 0, Draws.first(n, recipe.seed)).cpu()
    labels = examples = None
    if teacher.recipe.learns_labels:
        labels = torch.multinomial(teacher.shares(), n, replacement=True, generator=draw)
        if teacher.recipe.learns_null and guidance == 1:
            labels = labels.masked_fill(torch.rand(n, generator=draw) < teacher.recipe.label_dropout, classes)
    elif teacher.recipe.conditional:
        labels = torch.full((n,), classes)
    if told is not None:
        examples = torch.randint(len(told), (n,), generator=draw)
    denoiser, times = teacher.steered(guidance=guidance), grid_times(GRID, steps, path)
    made = Trajectories(torch.empty(0, n), times, law, denoiser, labels, told, examples).to(device)
    name = f"trajectories-{cache.fingerprint(teacher.fingerprint(), n, steps, recipe.seed, guidance, what)[:32]}"
    if told is None and (found := cache.fetch(name)):
        return replace(made, x=found[0]["x"].to(device))
    size = 4 * (steps + 1) * n * math.prod(teacher.latent_shape)
    room(2 * size, f"trajectories {n} of {steps} steps")
    kept = torch.empty(steps + 1, n, *teacher.latent_shape)
    bar = tqdm(
        total=n, desc=f"the teacher's trajectories, {what} ({size / 2**20:,.0f} MiB)", unit="", delay=1,
        file=sys.stderr, leave=False, disable=not progress,
    )  # fmt: skip
    with bar, torch.no_grad():
        for first in range(0, n, CHUNK):
            part = slice(first, min(first + CHUNK, n))
            given = made.conditions(torch.arange(part.start, part.stop, device=device), draw)
            if teacher.observation is not None:
                given = conditions(teacher.denoiser.network, given)
            kept[0, part] = start[part]
            for k, x in enumerate(walk(sampler, denoiser, start[part].to(device), times, cond=given), 1):
                kept[k, part] = x.cpu()
            bar.update(part.stop - part.start)
    if told is None:
        cache.store(name, {"x": kept})
    return replace(made, x=kept.to(device))


def student_recipe(teacher: "Trained", where: str, **fields: Any) -> "Recipe":
    """The recipe of a student of a run at `where`: the teacher's, with what distillation changes."""
    recipe = teacher.recipe
    network, options = words(recipe.network)
    spanning = ",".join(f"{name}={value}" for name, value in (options | {"spans": "true"}).items())
    changed: dict[str, Any] = {
        "teacher": where, "loss": "trajectory", "network": f"{network}:{spanning}",
        "target": recipe.target if well_conditioned(teacher) else "v",
        "coupling": recipe.coupling, "stable_targets": False, "weight": "unit", "steps": round(1.25 * recipe.steps),
        "lr": recipe.lr / 2, "sampler": "jump", "grid": GRID, "sample_steps": 1, "bound": 0.0,
    }  # fmt: skip
    return recipe.having(changed | fields)


def well_conditioned(teacher: "Trained") -> bool:
    """True if the mean slope follows from the network's output about as precisely as that is: |d| against |(a, b)|.

    A noise says little of x₀ where α is small (d = α), and a jump from there needs it to the last digit.
    """
    denoiser = teacher.denoiser
    for c in denoiser.path.along([0.01, 0.25, 0.5, 0.75, 1.0]):
        a, b = denoiser.row(c)
        if abs(c.alpha * b - c.sigma * a) < 0.1 * math.hypot(a, b) * math.hypot(c.alpha, c.sigma):
            return False
    return True


def student_of(recipe: "Recipe", teacher: "Trained") -> "Trained":
    """The start of a student: the teacher's weights, if its network takes them, else weights from the recipe's seed."""
    denoiser = build_denoiser(recipe, teacher.latent_shape, len(teacher.classes), teacher.observation)
    own, theirs = denoiser.network.state_dict(), teacher.denoiser.network.state_dict()
    new = own.keys() - theirs.keys()
    fits = theirs.keys() <= own.keys() and all(own[name].shape == part.shape for name, part in theirs.items())
    if fits and all("from_span" in name for name in new):
        denoiser.network.load_state_dict(theirs, strict=False)
    return replace(teacher, denoiser=denoiser, recipe=recipe, step=0, tuned=(), named=recipe.outside())
