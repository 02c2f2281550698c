"""`ebbtide.fit`: train on a file, a named set, or data in memory."""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from ..errors import InputError
from ..recipes import Recipe
from ..signals import Interrupted
from ..specs import accept, expect
from ..training.trained import Trained
from .runs import a_recipe, train_recipe

__all__ = ["Training", "fit"]


class Training(TypedDict, total=False):
    """Training options; each as in `training.run.train`."""

    resume: bool
    overwrite: bool
    on_nonfinite: Literal["stop", "skip"]
    precision: Literal["auto", "no", "bf16"]
    device: str
    compile: bool
    track: tuple[str, ...]
    checkpoints: int
    keep: int
    snapshots: int
    accumulate: int
    data_on: Literal["auto", "device", "host", "disk"]
    engine: Literal["replicated", "fsdp"]
    solvers: bool
    progress: bool


def fit(
    recipe: Recipe | str,
    data: Any = ...,
    *,
    y: Any = None,
    out: str | Path | None = None,
    **training: Unpack[Training],
) -> Trained:
    """Train a recipe, or the one of that name, and return the result, ready to sample.

        ebbtide.fit("flow", X)                                  # rows of numbers: an array, a tensor, a data frame
        ebbtide.fit("flow-images", images, y=labels)            # uint8, (n, h, w) or (n, h, w, c)
        ebbtide.fit(flow(data="table.csv"), out="runs/table")   # and a run folder, for the command and `resume`

    data: in memory, or a file, folder or named set; the recipe's own unless given. y: a label for each example, for
    samples by class; of a data frame, or a file, also the name of its column. out: the folder of the run; without one
    nothing is kept on disk. training: as in `training.run.train`.

    Raises InputError for a recipe or data that can't be used, DivergedError where a loss stops being finite.
    """
    made = a_recipe(recipe)
    if fields := [name for name in training if name in vars(made)]:
        raise InputError(f"{fields[0]} is a field of the recipe: give it there, as in ebbtide.flow({fields[0]}=…).")
    accept("fit", training, ("recipe", "data", "y", "out", *Training.__annotations__))
    expect("resume", training.get("resume", False), bool)
    if data is None:
        raise InputError("data must not be None; leave it out for the recipe's own.")
    if isinstance(y, bool):
        raise InputError(f"y must hold a label for each example, or name a column; got {y}.")
    given = None
    if data is not ... and not isinstance(data, str | os.PathLike):
        given = data, y
        if made.conditional and y is None:
            raise InputError("A conditional recipe needs labels: give y, a label for each example.")
    elif y is not None and not isinstance(y, str):
        raise InputError(f"y names a column of a file; got {type(y).__name__}. Give labels beside data in memory.")
    else:
        named = {} if data is ... else {"data": os.fspath(data)}
        made = made.having(named | ({} if y is None else {"label": y, "conditional": True}))
    if out is None and training.get("resume"):
        raise InputError("resume needs out, the folder of the run to continue.")
    if out is not None:
        try:
            return train_recipe(made, out, given=given, **training)
        except Interrupted as stopped:
            if given is None:
                raise
            rest = f"; saved. Continue with the same data: ebbtide.fit(recipe, data, out={str(out)!r}, resume=True)."
            raise Interrupted.by(stopped, rest) from None
    with tempfile.TemporaryDirectory(prefix="ebbtide-") as folder:
        brief: Any = {"snapshots": 0, "checkpoints": 1, **training}
        try:
            return train_recipe(made, Path(folder) / "training", given=given, **brief)
        except Interrupted as stopped:
            raise Interrupted.by(stopped, "; nothing is kept without out, the folder of a run.") from None
