"""A teacher's trajectories: what a student of it learns from, drawn once and kept in the cache."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import cache
from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws, generator, key, uniform
from ..core.times import SPANS, grid_times, stratified_draws
from ..data.prepared import Data
from ..errors import InputError
from ..losses import loss_row
from ..losses.flow_map import mean_slope
from ..networks.observation import conditions
from ..progress import progress_bar
from ..samplers import walk
from ..specs import bind, with_option
from .build import build_denoiser
from .devices import place_of
from .settings import data_fingerprint

if TYPE_CHECKING:
    from ..core.times import GridTimes
    from ..recipes import Recipe
    from .trained import Trained

__all__ = [
    "GRID", "HELD_OUT", "STILL", "WIDE", "WIDER", "Trajectories", "student_of", "student_recipe", "trajectories_of",
    "well_conditioned",
]  # fmt: skip

GRID = "flow_power:exponent=2"
WIDE, WIDER = 0.1, 1.5  # a share of the starts is drawn wider, so that a student doesn't extrapolate to rare ones
FAR = 10.0  # times the farthest start: no trajectory from a wider start leads beyond
PIECE, LARGEST = 1024, 2**23  # trajectories walked at once at most, and the numbers that all their points hold
STILL = 8  # the teacher's slope is kept along every 8th trajectory, for the examples that stay where they are
HELD_OUT = 4000  # trajectories that a student's grids are fitted to, or a quarter of those that are learned


@dataclass(frozen=True)
class Trajectories:
    """Trajectories of a teacher's flow as training data: two points of one at a time, and the network's conditions.

    x: (times, n, *d), in the network's units; times: a grid's, from 1 to 0. law: a row of SPANS. denoiser: the teacher,
    with its guidance. slopes: its dz/dτ along every STILL-th trajectory, but at the end. labels: one for each, or None.
    told, examples: data with further inputs of the network, such as observations, and the place of each trajectory's.
    cpu_seconds: what it took to make them. wider: how many, the first, have a start that is wider than the noise.
    """

    x: Float[Tensor, " k n *d"]
    times: "GridTimes"
    law: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    denoiser: DenoiserLike
    slopes: Float[Tensor, " steps m *d"] | None = None
    labels: Int[Tensor, " n"] | None = None
    told: Data | None = None
    examples: Int[Tensor, " n"] | None = None
    held_out: "Trajectories | None" = None
    x1: None = None
    cpu_seconds: float = 0.0
    wider: int = 0

    def __len__(self) -> int:
        return self.x.shape[1]

    def to(self, device: torch.device) -> "Trajectories":
        """The same on a device; what is mapped stays on the disk."""
        names = ["times", "labels", "examples", "told", "held_out"]
        names += ["x", "slopes"] if self.x.nbytes <= cache.MAPPED else []
        parts = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {name: part if part is None else part.to(device) for name, part in parts.items()}
        return replace(self, **moved)

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator, ends: bool = False) -> dict[str, Tensor]:
        """x_t and x_to at the times t and `to` that the law draws, and the network's conditions.

        An example that stays where it is comes from the nearest trajectory before it whose slopes are kept.
        ends: with the trajectory's `start` and `end`, and whether it is `lawful`: from a start no wider than the noise.
        """
        steps = len(self.times) - 1
        u = stratified_draws(len(indices), draw)
        start, end = self.law(u, uniform(draw, len(u)))
        i = ((1 - start) * steps).round().long().clamp(0, steps - 1)
        j = torch.maximum(((1 - end) * steps).round().long(), i + 1).clamp(max=steps).where(start > end, i)
        if self.slopes is not None:
            indices = indices.where(i < j, indices - indices % STILL)
        batch = {"t": self.times[i], "to": self.times[j]}
        batch |= {"x_t": _points(self.x, i, indices), "x_to": _points(self.x, j, indices)}
        if self.slopes is not None:
            batch["slope"] = _points(self.slopes, i, indices // STILL)
        if ends:
            batch["start"], batch["end"] = self.ends(indices)
            batch["lawful"] = indices >= self.wider
        return batch | self.conditions(indices, draw)

    def ends(self, indices: Int[Tensor, " b"]) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b *d"]]:
        """The starts of trajectories and the data they lead to."""
        first = torch.zeros_like(indices)
        return _points(self.x, first, indices), _points(self.x, first + len(self.times) - 1, indices)

    def conditions(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]:
        """The label and further inputs of the network at these places."""
        found = {} if self.labels is None else {"label": self.labels[indices]}
        if self.told is not None and self.examples is not None:
            taken = self.told.take(self.examples[indices], draw)
            found |= {name: part for name, part in taken.items() if name not in ("x0", "mask", "label")}
        return found


def _points(x: Tensor, i: Tensor, places: Tensor) -> Tensor:
    """x[i, places], on the device of the places."""
    rows = i.to(x.device) * x.shape[1] + places.to(x.device)
    return x.flatten(0, 1).index_select(0, rows).to(places.device)  # some times faster than by two indices


def trajectories_of(
    teacher: "Trained", recipe: "Recipe", told: Data | None = None, *, progress: bool = False
) -> Trajectories:
    """The trajectories that a student of this recipe learns from, and others to fit its grids to.

    From the cache, or drawn now. told: data with what the teacher's network is given besides x and the label.
    """
    n = recipe.trajectories
    few = min(HELD_OUT if told is None else HELD_OUT // 8, max(n // 4, 64), n)  # observations take long to look at
    held_out = _drawn(teacher, recipe, told, few, "held out", progress)
    learned = _drawn(teacher, recipe, told, n, "fair" if loss_row(recipe.loss).fair else "learned", progress)
    spent = learned.cpu_seconds + held_out.cpu_seconds
    return replace(learned, held_out=held_out, cpu_seconds=spent)


def _starts(
    teacher: "Trained", recipe: "Recipe", told: Data | None, n: int, what: str, wider: int
) -> tuple[str, Tensor, Tensor | None, Tensor | None]:
    """The sampler of n trajectories, their starts, labels and examples; `what` keys the draws."""
    draw, classes = generator(recipe.seed, "teacher", what), len(teacher.classes)
    if teacher.denoiser.gaussian_end:
        sampler, start = "heun:clock=flow", torch.randn(n, *teacher.latent_shape, generator=draw)
        start[:wider] *= WIDER
        start = teacher.denoiser.path.prior(start)
    else:
        sampler, start = "heun", teacher.start(n, key(recipe.seed, what), 0, Draws.first(n, recipe.seed)).cpu()
    labels = examples = None
    if teacher.recipe.learns_labels:
        labels = torch.multinomial(teacher.shares(), n, replacement=True, generator=draw)
        if teacher.recipe.learns_null and recipe.teacher_guidance == 1:
            labels = labels.masked_fill(torch.rand(n, generator=draw) < teacher.recipe.label_dropout, classes)
    elif teacher.recipe.conditional:
        labels = torch.full((n,), classes)
    if told is not None:
        examples = torch.randint(len(told), (n,), generator=draw)
    return sampler, start, labels, examples


def _drawn(teacher: "Trained", recipe: "Recipe", told: Data | None, n: int, what: str, progress: bool) -> Trajectories:
    """n trajectories of the teacher's probability flow, by Heun's method in the flow clock."""
    steps, guidance, path = recipe.trajectory_steps, recipe.teacher_guidance, teacher.denoiser.path
    device, law = place_of(teacher.denoiser), bind(SPANS, recipe.spans, "spans")
    wider = round(WIDE * n) if what == "learned" and teacher.denoiser.gaussian_end else 0
    sampler, start, labels, examples = _starts(teacher, recipe, told, n, what, wider)
    denoiser, times = teacher.steered(guidance=guidance), grid_times(GRID, steps, path)
    nothing = torch.empty(0, n, *teacher.latent_shape)
    made = Trajectories(nothing, times, law, denoiser, None, labels, told, examples, wider=wider).to(device)
    # All that the points depend on: the teacher's weights, how it is asked, and what of.
    asked: tuple[Any, ...] = (teacher.fingerprint(), guidance, teacher.recipe.bound, sampler, FAR)
    if told is not None:
        asked = *asked, teacher.recipe.to_config(), data_fingerprint(told)
    inputs = [times, start, *(part for part in (labels, examples) if part is not None)]
    name = f"trajectories-{cache.fingerprint(*asked, tensors=inputs)[:32]}"
    shape, kept = (steps + 1, n, *teacher.latent_shape), len(range(0, n, STILL))
    numbers = (steps + 1) * math.prod(teacher.latent_shape)
    most = min(PIECE, max(2 * STILL, LARGEST // numbers // STILL * STILL))
    pieces = [slice(first, min(first + most, n)) for first in range(0, n, most)]
    if progress:
        size = f"{4 * numbers * n / 2**20:,.1f} MiB"
        print(f"The teacher's trajectories, {what}: {n:,} of {steps} steps, {size}", file=sys.stderr)
    bar = progress_bar(n, "drawing trajectories", "", delay=1, leave=False, show=progress)

    def given(places: Tensor) -> dict[str, Any]:
        own = made.conditions(places, generator(recipe.seed, "teacher", what, int(places[0]), device=device))
        return own if teacher.observation is None else dict(conditions(teacher.denoiser.network, own))

    @torch.no_grad()
    def walked(piece: slice) -> Tensor:
        places = torch.arange(piece.start, piece.stop)
        x, cond = start[piece], given(places.to(device))

        def along(x: Tensor) -> Tensor:
            return torch.stack([x, *(each.cpu() for each in walk(sampler, denoiser, x.to(device), times, cond=cond))])

        found = along(x)
        lost = ~(found.abs().flatten(2).amax((0, 2)) <= FAR * x.abs().max()) & (places < wider)
        if lost.any():  # from a start as rare as these the teacher may fly off, and there is nothing to learn
            found = along(torch.where(lost.reshape(-1, *[1] * (x.dim() - 1)), x / WIDER, x))
        if not (finite := found.isfinite().flatten(2).all(2).all(0)).all():
            count = int((~finite).sum())
            raise InputError(f"{recipe.teacher} can't be a teacher: {count} of {len(x)} of its samples are not finite.")
        bar.update(len(x))
        return found

    @torch.no_grad()
    def sloped(piece: slice) -> Tensor:
        places = slice(STILL * piece.start, STILL * piece.stop, STILL)
        cond = given(torch.arange(n, device=device)[places])
        return torch.stack([
            mean_slope(denoiser, x[places].to(device), t, None, cond).cpu()
            for x, t in zip(points, path.along(times[:-1]))
        ])  # fmt: skip

    slopes = None
    with bar:
        points, seconds = cache.filled(name, shape, pieces, walked)
        if what != "held out":
            fewer = [slice(first, min(first + most, kept)) for first in range(0, kept, most)]
            slopes, more = cache.filled(f"{name}-slopes", (steps, kept, *teacher.latent_shape), fewer, sloped)
            seconds += more
    return replace(made, x=points, slopes=slopes, cpu_seconds=seconds).to(device)


def student_recipe(teacher: "Trained", where: str, **fields: Any) -> "Recipe":
    """The recipe of a student of a run at `where`: the teacher's, with what distillation changes."""
    recipe = teacher.recipe
    lr = recipe.lr or type(recipe)().lr  # a table's training that stopped at its start had none
    changed: dict[str, Any] = {
        "teacher": where, "init": "", "loss": "trajectory", "network": with_option(recipe.network, "spans", "true"),
        "target": recipe.target if well_conditioned(teacher) else "v",
        "coupling": recipe.coupling, "stable_targets": False, "weight": "unit", "batch": math.ceil(0.75 * recipe.batch),
        "steps": round(1.25 * (recipe.lr_steps or recipe.steps)), "lr_steps": 0, "lr": 0.7 * lr,
        "sampler": "jump", "grid": GRID, "sample_steps": 1, "bound": 0.0,
    }  # fmt: skip
    row = loss_row(str(fields.get("loss", changed["loss"])))
    if not row.spans:
        changed |= {"network": recipe.network, "target": "velocity", "coupling": "given", "batch": recipe.batch,
                    "lr": lr, "sampler": "euler", "grid": "uniform", "sample_steps": 4}  # fmt: skip
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
    if denoiser.base is not None:
        denoiser.base.load_state_dict(teacher.denoiser.base.state_dict())
    return replace(teacher, denoiser=denoiser, recipe=recipe, step=0, tuned=(), named=recipe.outside())
