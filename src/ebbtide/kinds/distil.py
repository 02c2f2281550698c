"""Distillation: a student of a run, which samples in a few evaluations, and the table of what it reaches."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from ..losses import LOSSES, loss_row
from ..samplers import facts
from ..specs import require
from ..training.history import read_metrics
from ..training.teacher import student_recipe
from ..training.trained import Trained
from . import kind_of
from .compare import aligned, counted
from .runs import from_pretrained, train_recipe

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
    **training: Any,
) -> Trained:
    """Train a student of a run in the folder `out` and return it: a run like any other, whose sampler is `jump`.

        ebbtide.distill("runs/moons", "runs/fast").sample(1000, steps=1)

    teacher: a run's folder, an export or a hub name. method: a row of LOSSES that spans two times. guidance: of the
    teacher, built into the student. fields: further fields of its recipe, such as network, steps or lr. training: as
    in `training.run.train`; evaluations among them, for which its grids are fitted.
    """
    if not loss_row(method, "method").spans:
        spanning = ", ".join(name for name in LOSSES if loss_row(name).spans)
        raise InputError(f"method must be one of {spanning}, whose estimates lead to another time; got {method!r}.")
    require("guidance", guidance)
    trained = from_pretrained(teacher)
    trained.sampling()
    recipe = student_recipe(trained, str(teacher), loss=method, teacher_guidance=guidance, **dict(fields))
    return train_recipe(recipe, out, **training)


class Reached(NamedTuple):
    """A row of the table: who samples, with how many evaluations, and the metrics."""

    name: str
    evaluations: int
    measurements: "list[Measurement]"


def outcomes(student: Trained, teacher: Trained, n: int, seed: int = 0) -> Iterator[Reached]:
    """Student and teacher at the student's numbers of evaluations, then the teacher as it samples by itself.

    The samples of all begin at the same noise; labels are as frequent as in the data.
    """
    kind, labels = kind_of(student.recipe), teacher.in_proportion(n)
    guidance = student.recipe.teacher_guidance
    floors: dict[Any, Any] = {}

    def row(name: str, of: Trained, **options: Any) -> Reached:
        options |= of.choice(options.pop("sampler", None), None, options.pop("steps", None), **options)._asdict()
        x, evaluations = counted(of, n, seed=seed, label=labels, **options)
        return Reached(name, evaluations, kind.evaluate(student.reading(), x, labels, seed=seed, floors=floors))

    guided: dict[str, Any] = {} if guidance == 1 else {"guidance": guidance}
    counts = sorted({one.evaluations for one in student.tuned if facts(one.sampler).spans})
    for count in counts:
        yield row("student", student, steps=count)
        if not guided:
            yield row("teacher, tuned", teacher, steps=f"auto:{count}")
    yield row("teacher, its own steps", teacher, **guided)


def as_text(found: Sequence[Reached]) -> str:
    """The rows, the metrics that rank, and the floor of each: the score of real data against real data."""
    names = [one.name for one in found[0].measurements if one.in_summary]
    cells = [("", "evaluations", *names)]
    for row in found:
        values = {one.name: one for one in row.measurements}
        cells.append((row.name, str(row.evaluations), *(f"{values[name].value:.4g}" for name in names)))
    floors = {one.name: one.floor for one in found[0].measurements}
    cells.append(("real data", "", *(f"{floors[name]:.4g}" for name in names)))
    return "\n".join(aligned(cells)[0])


def cost(student: str | Path, teacher: str | Path) -> float | None:
    """CPU seconds of the student's training over those of its teacher's; None where either isn't stored."""
    spent = [line[-1]["cpu_seconds"] if (line := read_metrics(Path(folder))) else None for folder in (student, teacher)]
    return spent[0] / spent[1] if spent[0] and spent[1] else None
