"""Distillation: a student of a run, which samples in a few evaluations, and the table of what it reaches."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from ..exact.plans import COUNTS
from ..exact.tune import steps_within
from ..losses import LOSSES, loss_row
from ..samplers import facts
from ..specs import require
from ..tables import aligned
from ..training.asked import Choice
from ..training.history import read_metrics
from ..training.teacher import student_recipe
from ..training.trained import Trained
from . import kind_of
from .runs import from_pretrained, train_recipe
from .studies import counted

if TYPE_CHECKING:
    from ..metrics import Measurement

__all__ = ["Reached", "as_text", "cost", "distill", "outcomes"]


def distill(
    teacher: str | Path,
    out: str | Path,
    *,
    method: str = "trajectory",
    guidance: float = 1.0,
    fields: Mapping[str, Any] = {},
    opened: Trained | None = None,
    **training: Any,
) -> Trained:
    """Train a student of a run in the folder `out` and return it: a run like any other, whose sampler is `jump`.

        ebbtide.distill("runs/moons", "runs/fast").sample(1000, steps=1)

    teacher: a run's folder, an export or a hub name. method: a row of LOSSES that learns from a teacher. guidance:
    of the teacher, built into the student. fields: further fields of its recipe, such as network, steps or lr. opened:
    the teacher itself, if it is open already. training: as in `training.run.train`; evaluations among them, for which
    its grids are fitted.
    """
    row = loss_row(method, "method")
    if not (row.spans or row.teacher):
        able = ", ".join(name for name in LOSSES if loss_row(name).spans or loss_row(name).teacher)
        raise InputError(f"method must be one of {able}, which learn from a teacher; got {method!r}.")
    require("guidance", guidance)
    opened = opened or from_pretrained(teacher)
    opened.sampling()
    recipe = student_recipe(opened, str(teacher), loss=method, teacher_guidance=guidance, **dict(fields))
    return train_recipe(recipe, out, teacher=opened, **training)


class Reached(NamedTuple):
    """A row of the table: who samples, with how many evaluations, and the metrics."""

    name: str
    evaluations: int
    measurements: "list[Measurement]"


def outcomes(student: Trained, teacher: Trained, n: int, seed: int = 0) -> Iterator[Reached]:
    """The teacher, its fitted solver and the student at the student's numbers of evaluations, then the teacher's own.

    The samples of all begin at the same noise; labels are as frequent as in the data. The teacher takes as many steps
    by its recipe's sampler as its evaluations allow; where not even one fits, it has no row.
    """
    kind, labels, recipe = kind_of(student.recipe), teacher.in_proportion(n), teacher.recipe
    guidance = student.recipe.teacher_guidance
    guided: dict[str, Any] = {} if guidance == 1 else {"guidance": guidance}
    floors: dict[Any, Any] = {}

    def row(name: str, of: Trained, choice: Choice, **how: Any) -> Reached:
        x, evaluations = counted(of, n, seed=seed, label=labels, **choice._asdict(), **how)
        return Reached(name, evaluations, kind.evaluate(student.reading(), x, labels, seed=seed, floors=floors))

    spans = student.denoiser.spans
    for count in sorted({one.evaluations for one in student.tuned if facts(one.sampler).spans == spans}):
        asked = count // 2 if guided else count  # with guidance every estimate is two evaluations
        if steps := steps_within(recipe.sampler, teacher.denoiser.path, asked, recipe.grid):
            yield row("teacher", teacher, Choice(recipe.sampler, recipe.grid, steps), **guided)
        if 1 <= asked <= COUNTS[-1]:
            yield row("teacher, tuned", teacher, teacher.choice(steps=f"auto:{asked}", **guided), **guided)
        yield row("student", student, student.choice(steps=count if spans else f"auto:{count}"))
    yield row("teacher, its own steps", teacher, teacher.choice(**guided), **guided)


def as_text(found: Sequence[Reached], times: float | None = None) -> str:
    """The rows, the metrics that rank, the floor of each: the score of real data against real data; and the cost."""
    names = [one.name for one in found[0].measurements if one.in_summary]
    cells = [("", "evaluations", *names)]
    for row in found:
        values = {one.name: one for one in row.measurements}
        cells.append((row.name, str(row.evaluations), *(f"{values[name].value:.4g}" for name in names)))
    floors = {one.name: one.floor for one in found[0].measurements}
    cells.append(("real data", "", *(f"{floors[name]:.4g}" for name in names)))
    last = [] if times is None else [f"The student's training took {times:.2f} × the CPU time of its teacher's."]
    return "\n".join([*aligned(cells)[0], *last])


def cost(student: str | Path, teacher: str | Path) -> float | None:
    """CPU seconds of the student's training, with its teacher's trajectories, over those of its teacher's.

    None where a run doesn't store them, as an export doesn't.
    """
    spent = [line[-1]["cpu_seconds"] if (line := read_metrics(Path(folder))) else None for folder in (student, teacher)]
    return spent[0] / spent[1] if spent[0] and spent[1] else None
