"""Training a recipe and loading a run, with what its kind of data supplies."""

import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..data.prepared import Data
from ..errors import InputError
from ..exact.tuned import TUNED
from ..files import read_file
from ..recipes import Recipe
from ..specs import require
from ..training import checkpoint, run
from ..training.devices import accelerate
from ..training.rehearsal import in_memory, rehearse
from ..training.trained import Trained
from ..training.trainer import Trainer
from . import Kind, kind_of


def train_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    given: tuple[Any, Any] | None = None,
    started: Callable[[nn.Module], object] = lambda denoiser: None,
    **options: Any,
) -> Trained:
    """Train a recipe in the folder `out` and return the result; options as in `training.run.train`.

    given: data in memory and its labels, instead of what the recipe names. started: called with the untrained denoiser
    once everything has been checked, before anything is written.
    """
    for name, least in {"accumulate": 1, "checkpoints": 1, "keep": 1, "snapshots": 0, "threads": 0}.items():
        if name in options:
            require(name, options[name], least, whole=True)
    start, data = begin(recipe, options.get("accumulate", 1), given)
    return run.train(start, data, out, draw=partial(_snapshot, kind_of(recipe)), started=started, **options)


def begin(recipe: Recipe, accumulate: int = 1, given: tuple[Any, Any] | None = None) -> tuple[Trained, Data]:
    """The untrained start of a recipe and its data; InputError where the recipe can't be, or memory is too small."""
    kind = kind_of(recipe)
    if given is None:
        kind.fits(recipe)
        prepared = kind.prepare(recipe)
    elif kind.given is None:
        raise InputError(f"{recipe.kind} are trained on from files: name one as data.")
    else:
        recipe, prepared = kind.given(recipe, *given)
    in_memory(recipe, prepared, accumulate)
    return attached(run.untrained(recipe, prepared)), prepared.data


def rehearsed(recipe: Recipe) -> Trained:
    """The untrained start of a recipe, after one batch and one step of sampling; nothing is written.

    InputError for whatever would be wrong with a run of it.
    """
    start, data = begin(recipe)
    rehearse(start, Trainer(start.denoiser, data, recipe, accelerate(), classes=len(start.classes)))
    return start


def attached(trained: Trained) -> Trained:
    """A run with what its kind supplies: where it starts, recorded observations, and a line on its data."""
    kind = kind_of(trained.recipe)
    return replace(trained, starts=kind.start, recordings=kind.recorded, about=kind.describe(trained.recipe))


def _snapshot(kind: Kind[Any], start: Trained, target: Path) -> Mapping[Path, bytes]:
    """The same samples at every stage; few steps: they are for looking."""
    labels = None if kind.all_classes is None else kind.all_classes(start, kind.snapshot["n"])
    x = start.sample(seed=start.recipe.seed, label=labels, **kind.snapshot)
    return kind.snapshot_files(x.cpu(), target)


def from_pretrained(where: str | Path, **named: str) -> Trained:
    """Load a run (its newest undamaged checkpoint), a checkpoint, an exported folder, or a hub repository.

    named: data, source, weights or tokenizer: a file, folder or hub set of the user's for the one that the run
    names there. Nothing else outside of the run is opened, for it may be a stranger's, unless this user
    had it trained, on this machine (`training/seal.py`).
    """
    trained = attached(_load(where, named))
    if idle := named.keys() - trained.recipe.outside().keys():
        raise InputError(f"{min(idle)} can't be named for {where}, which names none outside of itself.")
    return trained


def _load(where: str | Path, named: Mapping[str, str]) -> Trained:
    folder = Path(where)
    if os.path.isdir(folder / "checkpoints"):  # os.path: a name that no file can have is no error there
        found = checkpoint.newest_valid(folder / "checkpoints", lambda text: warnings.warn(text, stacklevel=4))
        if found is None:
            raise InputError(f"{folder} holds no checkpoint yet.")
        trained, tuned = Trained.from_files(found[1], str(found[0]), named), folder / TUNED
        return trained.with_tuned(read_file(tuned), str(tuned)) if tuned.exists() else trained
    if os.path.isdir(folder):
        return Trained.from_files(checkpoint.read_folder(folder), str(folder), named)
    if os.path.exists(folder) or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(where), re.ASCII):
        raise InputError(f"{where} is neither a run folder nor the name of a hub repository (user/name).")
    from ..interop.hub import download

    return Trained.from_files(checkpoint.read_folder(download(str(where))), str(where), named)
