"""What a student reaches in 1, 2 and 4 evaluations, beside its teacher, the teacher's fitted solvers, and the floor.

    python -m benchmarks.few_steps                       the tables of RESULTS.md; half an hour
    python -m benchmarks.few_steps --quick               one seed, three Gaussians, printed only
    python -m benchmarks.few_steps --only digits         one data set, printed only; --steps sets the students' steps

Every data set has a base and a student for each training seed, each sampled with three seeds. On none of these was
anything chosen. The cost is the student's CPU seconds, its teacher's trajectories and its grids included, over those of
its base (without the base's fitted solvers), in the same run and on one thread.
"""

import argparse
import datetime
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import ebbtide
from ebbtide.data import DATASETS, load
from ebbtide.kinds import kind_of
from ebbtide.metrics import Measurement, outlier_fraction, sliced_w2, within_mode_sliced_w2
from ebbtide.recipes import RECIPES
from ebbtide.training.trained import Trained

from .pages import cpu_name, write_section

SEEDS, SAMPLING = (7, 8), (201, 202, 203)
N, FEWER = 20_000, 1000  # samples of points, of images
COUNTS = (1, 2, 4)
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A base on a data set and a student of it; fields: of the base's recipe, student: of the student's.

    full: the teacher's own sampling, and what it is called in the table.
    """

    data: str
    note: str = ""
    fields: tuple[tuple[str, Any], ...] = ()
    student: tuple[tuple[str, Any], ...] = ()
    recipe: str = "flow"
    full: tuple[tuple[str, Any], ...] = (("sampler", "heun"), ("grid", "quadratic"), ("steps", 50))

    @property
    def n(self) -> int:
        """Samples of each set."""
        return N if self.recipe == "flow" else FEWER

    @property
    def columns(self) -> dict[str, str]:
        """The names of the distances, and how they are printed."""
        if self.recipe != "flow":
            return dict.fromkeys(("recall", "precision"), ".3f") | {"KID": ".3f"}
        modes = DATASETS[self.data].modes is not None
        return {"within-mode sliced W₂": ".4f", "beyond 4 σ, %": ".2f"} if modes else {"sliced W₂": ".4f"}


HALF = (("steps", 1400),)  # of their base's steps: these students are at the floor long before their default's end
ROWS = (
    Row("three_gaussians"),
    Row("three_gaussians", "a student of 8 × 128",
        student=(("network", "mlp:width=128,depth=8,spans=true"), ("lr", 5e-3))),
    Row("two_moons", "1400 steps", student=HALF),
    Row("two_spirals", "by label, 1400 steps", fields=(("conditional", True),), student=HALF),
    Row("swiss_roll", "1400 steps", student=HALF),
    Row("digits", "by class", recipe="flow-images",
        fields=(("conditional", True), ("held_out", 0.3), ("steps", 720)),
        student=(("trajectories", 2048), ("trajectory_steps", 8), ("steps", 230)),
        full=(("sampler", "heun"), ("steps", 10))),
)  # fmt: skip


def image_metrics(row: Row, of: Trained, x: Tensor, labels: Tensor | None, seed: int) -> list[Measurement]:
    """The metrics of images that are the row's columns; KID is named after its features, too."""
    found = {one.name.partition("-")[0]: one for one in kind_of(of.recipe).evaluate(of.recipe, x, labels, seed=seed)}
    return [found[name] for name in row.columns]


def distances(row: Row, x: Tensor, seed: int, of: Trained, labels: Tensor | None) -> list[float]:
    """Within-mode sliced W₂ and the share beyond 4 σ where there are modes; else sliced W₂ to fresh points."""
    if row.recipe != "flow":
        return [one.value for one in image_metrics(row, of, x, labels, seed)]
    modes = DATASETS[row.data].modes
    if modes is None:
        return [sliced_w2(x, load(row.data, N, 10_000 + seed).x)]
    return [within_mode_sliced_w2(x, modes.means, modes.std), 100 * outlier_fraction(x, modes.means, modes.std)]


def measured(row: Row, of: Trained, **how: Any) -> list[list[float]]:
    """The distances of as many sample sets as there are sampling seeds; a sample that is not finite is left out."""
    labels, found = of.in_proportion(row.n), []
    for seed in SAMPLING:
        x = of.sample(row.n, seed=seed, label=labels, **how)
        kept = x.isfinite().flatten(1).all(1) if x.is_floating_point() else slice(None)
        if row.recipe == "flow" and (lost := int((~kept).sum())):
            print(f"{lost} of {row.n} samples by {how} of training seed {of.recipe.seed} are not finite", flush=True)
        found.append(distances(row, x[kept], seed, of, None if labels is None else labels[kept]))
    return found


def floor(row: Row, of: Trained) -> list[list[float]]:
    """The same of real points in the place of samples; of images, the floor: halves of those that are held out."""
    if row.recipe == "flow":
        return [distances(row, load(row.data, N, seed).x, seed, of, None) for seed in SAMPLING]
    x = of.sample(row.n, seed=0, steps=1)
    return [[one.floor for one in image_metrics(row, of, x, None, 0)]]


def run(row: Row, seed: int, folder: Path) -> dict[str, list[list[float]]]:
    """One base and its student: distances by who samples, and the cost."""
    base, fast = folder / f"{row.data}-{seed}", folder / f"{row.data}-{row.note}-{seed}"
    recipe = RECIPES[row.recipe]().having({"data": row.data, "seed": seed, **dict(row.fields)})
    quiet: dict[str, Any] = {"progress": False, "snapshots": 0, "checkpoints": 1, "overwrite": True}
    began = time.process_time()
    ebbtide.fit(recipe, out=base, solvers=False, **quiet)
    between = time.process_time()
    student = ebbtide.distill(base, fast, fields=dict(row.student) | {"seed": seed}, **quiet)
    spent = time.process_time()
    teacher = ebbtide.from_pretrained(base)
    found = {"cost": [[(spent - between) / (between - began)]]}
    for count in COUNTS:
        found[f"student, {count}"] = measured(row, student, steps=count)
        found[f"teacher's solver, {count}"] = measured(row, teacher, steps=f"auto:{count}")
    full = dict(row.full)
    found[f"teacher, {full['steps']} steps of Heun's"] = measured(row, teacher, **full)
    found["real points" if row.recipe == "flow" else "held-out images"] = floor(row, student)
    return found


def table(row: Row, runs: Sequence[dict[str, list[list[float]]]]) -> str:
    """Markdown: the mean over training and sampling seeds, and the range of all."""
    cost = " and ".join(f"{one['cost'][0][0]:.2f}" for one in runs)
    title = f"## {row.data.replace('_', ' ')}{', ' + row.note if row.note else ''}"
    lines = [title, "", f"Cost {cost} × the base's training.", "", "| |" + "|".join(row.columns) + "|"]
    lines.append("|---|" + "--:|" * len(row.columns))
    for who in runs[0]:
        if who != "cost":
            columns = [[sample[k] for one in runs for sample in one[who]] for k in range(len(row.columns))]
            cells = [
                f"{fmean(part):{form}} ({min(part):{form}} to {max(part):{form}})"
                for form, part in zip(row.columns.values(), columns, strict=True)
            ]
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, three Gaussians, printed only")
    parser.add_argument("--only", default="", help="one data set, printed only")
    parser.add_argument("--steps", type=int, default=0, help="steps of the students, printed only")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = ROWS[:1] if args.quick else [row for row in ROWS if args.only in ("", row.data)]
    if args.steps:
        rows = [replace(row, student=(*row.student, ("steps", args.steps))) for row in rows]
    parts = []
    with tempfile.TemporaryDirectory(prefix="ebbtide-") as folder:
        for row in rows:
            parts.append(table(row, [run(row, seed, Path(folder)) for seed in SEEDS[: 1 if args.quick else None]]))
            print(parts[-1], flush=True)
    if not (args.quick or args.only or args.steps):
        head = (
            "# Few steps: students in 1, 2 and 4 evaluations\n\n"
            f"`python -m benchmarks.few_steps` on {datetime.date.today()}: {cpu_name()}, one thread, Python "
            f"{platform.python_version()}, torch {torch.__version__.split('+')[0]}. Means over {len(SEEDS)} training "
            f"seeds and {len(SAMPLING)} sampling seeds of {N:,} samples each ({FEWER:,} of images), with the "
            "range of all; nothing was chosen on these seeds."
        )
        write_section(HERE / "RESULTS.md", "few steps", "\n\n".join([head, *parts]))


if __name__ == "__main__":
    main()
