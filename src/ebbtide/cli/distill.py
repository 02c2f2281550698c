"""ebbtide distill RUN: make a student that samples in a few evaluations."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..errors import InputError
from .arguments import MOST, Flag, given, hint, parse, tell, threads, within
from .train import Running


@dataclass(frozen=True)
class Student:
    """Options of the student's recipe; without one the teacher's, or what distillation makes of it."""

    network: Annotated[str, hint("the teacher's, and its weights")] = ""
    """A network of another kind or size; a row of `ebbtide list networks`, with spans=true."""
    steps: Annotated[int, hint("1.25 times the teacher's")] = 0
    """Optimiser steps."""
    batch: Annotated[int, hint("three quarters of the teacher's")] = 0
    """Examples per step."""
    lr: Annotated[float, hint("0.7 times the teacher's")] = 0.0
    """Peak learning rate."""
    trajectories: int = 16384
    """Number of the teacher's trajectories to learn from."""
    trajectory_steps: int = 16
    """Steps of such a trajectory; two evaluations each."""
    spans: str = "stretches"
    """Law of the times between which estimates lead; a row of `ebbtide list spans`."""
    seed: Annotated[int, hint("the teacher's")] = -1
    """Seed of all random numbers."""


@dataclass(frozen=True)
class Distill:
    """Make a student of a run, which samples in one, two or four evaluations; it is a run like any other.

    The teacher's trajectories are drawn once and kept in the cache. At the end a table compares the two.
    """

    run: tyro.conf.Positional[str]
    """The teacher; folder of a run, an export, or a hub name."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("RUN-student")] = ""
    """Folder of the student."""
    method: str = "trajectory"
    """Loss; a row of `ebbtide list losses` that learns from a teacher."""
    guidance: float = 1.0
    """Guidance of the teacher, built into the student; 1 for none."""
    n: int = 4000
    """Samples of each row of the table; 0 for no table."""
    resume: Flag = False
    """Continue the student in that folder."""
    overwrite: Flag = False
    """Replace the run in that folder."""
    student: tyro.conf.OmitArgPrefixes[Student] = field(default_factory=Student)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)

    def __post_init__(self) -> None:
        within(self, n=(0, MOST))


def run(argv: Sequence[str]) -> None:
    """Parse, distil, print the table."""
    args = parse(Distill, argv, "distill")
    from ..kinds.distil import as_text, cost, distill, outcomes
    from ..kinds.runs import from_pretrained
    from ..training.devices import leaving_group

    out = Path(args.out or f"{args.run.rstrip('/')}-student")
    changed = {option[2:].replace("-", "_") for option in given(args.student)}
    fields: dict[str, Any] = {name: getattr(args.student, name) for name in changed}
    before, teacher = time.process_time(), from_pretrained(args.run)
    with leaving_group():
        student = distill(
            args.run, out, opened=teacher, method=args.method, guidance=args.guidance, fields=fields,
            resume=args.resume, overwrite=args.overwrite, started=partial(threads, args.running.threads),
            command=shlex.join(["ebbtide", "distill", *argv]), **args.running.options(),
        )  # fmt: skip
    spent = time.process_time() - before
    tell(f"Distilled in {student.step} steps and {spent:.1f} CPU s, trajectories included; the student is {out}")
    if args.n and student.observation is None:
        try:
            print(as_text(list(outcomes(student, teacher, args.n)), cost(out, args.run)))
        except InputError as error:  # such as too few examples to measure by: the student is there all the same
            tell(f"There is no table of it: {error}")
    steps = " --steps 1" if student.denoiser.spans else ""
    tell(f"Draw from it with: ebbtide sample {shlex.quote(str(out))}{steps}")
