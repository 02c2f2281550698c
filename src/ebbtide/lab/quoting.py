"""A panel's samples as code and as a command: text that makes the same ones when it is run."""

import shlex
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..recipes import RECIPES
from .sampling import LabRun, View

__all__ = ["as_code", "as_command"]


def as_code(run: LabRun, view: View, moment: int | None = None) -> str:
    """Python that draws a view's samples; moment: of a policy, the step of the episode that its chunks are for."""
    place, trained = run.place, run.trained
    first = f"trained = ebbtide.from_pretrained({str(place)!r})" if place else _fit(run)
    given = {"n": view.n} | view.options(trained)
    words = [str(given.pop("n")), *(f"{name}={value!r}" for name, value in given.items())]
    lines = ["import ebbtide"]
    if moment is not None:
        lines += ["from ebbtide.kinds.robots.data import held_episode, reading"]
    lines += ["", first]
    if moment is not None:
        lines += [
            "_, seen = held_episode(reading(trained))",
            f"seen = {{name: part[[{moment}] * {view.n}] for name, part in seen.items()}}",
        ]
        words.append("seen=seen")
    return "\n".join([*lines, f"x = trained.sample({', '.join(words)})", ""])


def as_command(run: LabRun, view: View) -> str:
    """Commands that draw a view's samples."""
    place, trained = run.place, run.trained
    options: dict[str, Any] = {"n": view.n} | view.options(trained)
    train = "" if place else _train(run) + "\n"
    return f"{train}ebbtide sample {_words([str(place or _out(run))], options)}\n"


def _words(first: list[str], options: dict[str, Any]) -> str:
    every = [*first, *(word for name, value in options.items() for word in (f"--{name}", f"{value}"))]
    return " ".join(map(shlex.quote, every))


def _learned(run: LabRun) -> tuple[str, dict[str, Any]]:
    """The recipe of a run that isn't kept, and its fields."""
    learner = run.learner
    assert learner is not None
    if learner.painted is not None:
        raise InputError("Keep the run in a folder first: its painted points are then a file that text can name.")
    return learner.name, {"data": learner.recipe.data, "steps": learner.recipe.steps}


def _out(run: LabRun) -> Path:
    name, fields = _learned(run)
    return Path("runs") / f"lab-{name}-{Path(fields['data']).stem}"


def _fit(run: LabRun) -> str:
    name, fields = _learned(run)
    conditional = ", conditional=True" * run.trained.recipe.conditional
    made = f"ebbtide.{RECIPES[name].__name__}(data={fields['data']!r}, steps={fields['steps']}{conditional})"
    return f"trained = ebbtide.fit({made}, out={str(_out(run))!r})"


def _train(run: LabRun) -> str:
    name, fields = _learned(run)
    conditional = " --conditional" * run.trained.recipe.conditional
    return f"ebbtide train {_words([name], fields)}{conditional} --out {shlex.quote(str(_out(run)))}"
