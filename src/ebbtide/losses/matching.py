"""Distribution matching: samples of the teacher's density, though not one by one the teacher's own.

A regression on trajectories blurs where ways part: the student's jump is the mean of what nearby starts lead to. Here a
sample x of the student, noised to x_t, is moved by what two scores differ in there, the teacher's and that of the
student's own samples, a "fake" denoiser that is trained on them along the way (DMD). A critic may tell apart the
student's noised samples and the teacher's as well (ADD). The regression stays, so that no mode is lost.
"""

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..specs import require
from .critic import discern, misled
from .denoise import denoise
from .flow_map import Leap, jumped, known_ends

if TYPE_CHECKING:
    from ..core.denoiser import Denoiser, DenoiserLike
    from ..core.paths import Batch, Scales

__all__ = ["EDGE", "Judges", "matching", "pull"]

EDGE = 0.02  # of the flow clock, left out at both ends, where scores are infinite or say nothing, as in DMD
FLOOR = 0.01  # of the size by which a pull is divided


class Judges(nn.Module):
    """The networks that are trained on the student's samples: a fake score, and a critic where one is asked for.

    Both start as copies of the teacher's network. The critic's score is the mean of its output's numbers.
    step: the training's, of `steps`; set by the trainer.

    others: options of the loss that concern no judge.
    """

    def __init__(self, teacher: "DenoiserLike", steps: int, *, critic: float, **others: Any) -> None:
        super().__init__()
        self.step, self.steps = 0, steps
        require("matching: critic", critic, 0)
        own: Any = teacher
        while not isinstance(own, nn.Module):  # guidance and bounds are wrapped around it
            own = own.denoiser
        self.fake: Any = deepcopy(own).eval().requires_grad_(True)
        self.critic: Any = deepcopy(self.fake) if critic else None

    def score(self, x_t: "Batch", t: "Scales", **cond: Any) -> Tensor:
        """The critic's score of each example: high for the teacher's."""
        output: Tensor = self.critic.output(t, x_t, **cond)
        return output.flatten(1).mean(1)


def pull(x: "Batch", fake: "Batch", real: "Batch") -> "Batch":
    """(x̂₀ of the fake - x̂₀ of the teacher) / mean|x - x̂₀ of the teacher|: the gradient that a sample x is given.

    It is that of KL(student's law at t | teacher's), as s_fake - s_real = α (x̂₀_fake - x̂₀_real)/σ², weighted by
    σ²/α² and that size (Yin et al. 2024, arXiv:2311.18828, Eqs. 7 and 8).

    fake, real: x̂₀ of the fake and of the teacher.
    """
    size = (x - real).abs().flatten(1).mean(1).clamp(min=FLOOR)
    return (fake - real) / size.reshape(-1, *[1] * (x.ndim - 1))


def matching(
    denoiser: "Denoiser",
    leap: Leap,
    *,
    teacher: "DenoiserLike",
    judges: Judges,
    weight: float = 1.0,
    after: float = 0.0,
    updates: int = 1,
    critic: float = 0.0,
    smooth: float = 0.1,
    power: float = 1.0,
    floor: float = 0.01,
) -> Tensor:
    """Distribution matching (DMD2), beside the regression on the teacher's trajectories that `trajectory` is.

    Yin et al. 2024, arXiv:2405.14867: x = X(1 → 0) of fresh noise moves against `pull`, at a time drawn for each
    example, and the fake learns to denoise x. weight: of that beside the regression. after: the share of the training
    that is regression alone. updates: of the judges for each of the student's by them. critic: weight of an
    adversarial term on noised samples (Sauer et al. 2023, arXiv:2311.17042; 2024, arXiv:2403.12015). smooth: λ of
    `discern`. power, floor: of the regression, as in `robust`.

    The judges' losses are added, and no gradient runs between them and the student but the critic's.
    """
    require("matching: weight", weight, 0)
    require("matching: after", after, 0, 1)
    require("matching: updates", updates, 1, whole=True)
    loss = known_ends(denoiser, leap, power=power, floor=floor)
    if judges.step < after * judges.steps:
        return loss
    fresh, path, cond = leap.given("fresh"), denoiser.path, leap.cond
    turn = judges.step % updates == 0
    first, last = path.at(torch.ones_like(leap.t.t), fresh.start), path.at(torch.zeros_like(leap.t.t), fresh.start)
    with torch.set_grad_enabled(turn and torch.is_grad_enabled()):
        x = jumped(denoiser, fresh.start, first, last, cond)
    tau = (EDGE + (1 - 2 * EDGE) * fresh.u.double()) * path.along([1.0])[0].tau
    t, own = path.at(path.time_at(tau), x), x.detach()
    x_t = t.alpha * own + t.sigma * fresh.noise
    loss = loss + denoise(judges.fake, own, fresh.noise, t.t, **cond)
    if critic:
        real, score = t.alpha * fresh.end + t.sigma * fresh.noise, partial(judges.score, t=t, **cond)
        loss = loss + fresh.lawful * discern(score, real, x_t, smooth, fresh.nudge)
    if not turn:
        return loss
    with torch.no_grad():
        to = own - pull(own, judges.fake(x_t, t, **cond).x0, teacher(x_t, t, **cond).x0)
    loss = loss + weight / 2 * (x - to).square().flatten(1).mean(1)
    if critic:
        loss = loss + critic * fresh.lawful * misled(judges, score, real, t.alpha * x + t.sigma * fresh.noise)
    return loss
