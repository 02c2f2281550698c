"""Training a recipe and loading a run, with what its kind of data supplies."""

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..codecs import Codec
from ..core.randomness import generator
from ..data.files import is_text
from ..data.place import PLACES
from ..data.prepared import Data, Prepared
from ..data.text import column_names
from ..errors import InputError
from ..exact.tuned import TUNED
from ..files import LOCK, hub_name, near, no_link, read_file
from ..recipes import IN_MEMORY, RECIPES, Recipe
from ..specs import expect, listed, pick, require
from ..training import checkpoint, run
from ..training.begun import begun, codec_of, recipe_in
from ..training.build import begin_weights
from ..training.card import for_the_card
from ..training.devices import accelerate, device_of
from ..training.engines import sharing
from ..training.folder import clear, occupied
from ..training.history import TRACKED
from ..training.rehearsal import in_memory, rehearse
from ..training.same import same_data
from ..training.stopping import SEARCH
from ..training.storage import folder_name
from ..training.teacher import student_of, trajectories_of
from ..training.trained import Trained
from ..training.trainer import Trainer
from . import KINDS, Kind, kind_of

__all__ = [
    "a_recipe",
    "attached",
    "begin",
    "from_pretrained",
    "on_its_data",
    "rehearsed",
    "resumable",
    "run_files",
    "train_recipe",
]

_WRITTEN = ("training.png", "neighbours.png", "evaluation.json", "completed.csv", "plots")  # into runs, later
# Data in memory and its labels; or that data prepared, for a recipe of which it is given, or for any.
Given = tuple[Any, Any] | Prepared | Callable[[Recipe], Prepared] | None


def train_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    given: Given = None,
    teacher: Trained | None = None,
    started: Callable[[nn.Module], object] = lambda denoiser: None,
    **options: Any,
) -> Trained:
    """Train a recipe in the folder `out` and return the result; options as in `training.run.train`.

    given: data in memory and its labels, or that data prepared, instead of what the recipe names. teacher: the run that
    the recipe names as its teacher, if it is open already. started: called with the untrained denoiser once everything
    has been checked, before anything is written.
    """
    out = folder_name("out", out)
    for name, least in {"accumulate": 1, "checkpoints": 1, "keep": 1, "snapshots": 0, "threads": 0}.items():
        if name in options:
            require(name, options[name], least, whole=True)
    for name in ("resume", "overwrite", "compile", "solvers", "progress"):
        expect(name, options.get(name, False), bool)
    expect("track", options.get("track", ()), tuple, list)
    expect("device", options.get("device", ""), str)
    device_of(options.get("device", "auto"))
    data_on = pick(PLACES, options.get("data_on", "auto"), "data_on")
    if options.get("resume"):
        resumable(out, options.get("overwrite", False))
    else:
        _free(out, options.get("overwrite", False))
    codec = codec_of(out) if options.get("resume") and hasattr(recipe, "codec") else None
    made = given
    if not recipe.teacher:
        recipe, made = _prepared(recipe, given, codec, data_on)
        if made.judging is not None and _searches(out, options):
            recipe = _searched(recipe, made, out, started, options)
            recipe, made = _prepared(recipe, given, None, data_on)
            options = options | {"resume": bool(checkpoint.saved(out / "checkpoints"))}
    again = options.get("resume", False)  # its own weights are in its folder
    parts, progress, engine = options.get("accumulate", 1), options.get("progress", True), options.get("engine", "")
    start, data = begin(recipe, parts, made, teacher, progress, again=again, engine=engine)
    return run.train(start, data, out, draw=partial(_snapshot, kind_of(recipe), data), started=started, **options)


def _free(out: Path, overwrite: bool) -> None:
    """Refuse a folder with a run, unless that is overwritten, and one in which files of a run's names are no run's."""
    for name in ("checkpoints", "evolution", SEARCH, TRACKED):
        no_link(out / name)
    runs = (out, out / SEARCH)
    if any(checkpoint.saved(folder / "checkpoints") for folder in runs):
        if not overwrite:
            raise occupied(out)
    elif not any((folder / LOCK).is_file() for folder in runs):  # which a run that was stopped early left
        names = {"checkpoints", "evolution", SEARCH, TRACKED, "metrics.jsonl", TUNED, *_WRITTEN}
        names |= {name for kind in KINDS.values() for name in (kind.file, str(Path(kind.file).with_suffix(".png")))}
        if taken := sorted(name for name in names if os.path.lexists(out / name)):
            raise InputError(
                f"{out} holds {listed(taken)}, and no run; ebbtide writes files of that name, so choose another folder."
            )


def _searches(out: Path, options: Mapping[str, Any]) -> bool:
    """True if a run that stops by held-out loss is to begin, or to go on, by finding its number of steps."""
    whole, search = (bool(checkpoint.saved(folder / "checkpoints")) for folder in (out, out / SEARCH))
    return search or not (options.get("resume") and whole)


def _searched(
    recipe: Recipe, prepared: Prepared, out: Path, started: Callable[[nn.Module], object], options: Mapping[str, Any]
) -> Recipe:
    """The recipe for all rows, with the number of steps after which the loss of held-out ones was least."""

    def checked(denoiser: nn.Module) -> None:
        started(denoiser)
        if options.get("overwrite"):
            clear(out)

    how = dict(options)
    how["resume"] = bool(checkpoint.saved(out / SEARCH / "checkpoints")) and not options.get("overwrite")
    start, data = _start(recipe, prepared, options.get("accumulate", 1), how["resume"])
    how |= {"judging": prepared.judging, "near": prepared.near}
    found = run.train(start, data, out / SEARCH, started=checked, **how)
    # Where step 0 was best, a step at learning rate 0 leaves it as it is.
    lr = found.recipe.lr if found.step else 0.0
    fields: dict[str, Any] = {"validation": 0.0, "steps": max(1, found.step), "lr": lr, "lr_steps": found.recipe.steps}
    return replace(found.recipe, **fields)


def resumable(out: Path, overwrite: bool) -> None:
    """Refuse to resume where no run is, or one that is to be overwritten."""
    if overwrite:
        raise InputError("resume continues a run and overwrite replaces it; choose one of them.")
    for name in ("checkpoints", "evolution", SEARCH):
        no_link(out / name)
    if begun(out) is None:
        raise InputError(f"{out} holds no run to resume.")


def a_recipe(recipe: Any) -> Recipe:
    """A recipe, or the one of that name; InputError for anything else."""
    made = RECIPES[pick(RECIPES, recipe, "recipe")]() if isinstance(recipe, str) else recipe
    if not isinstance(made, Recipe) or not made.kind:
        raise InputError(f"recipe must be a recipe, such as ebbtide.flow(), or its name; got {repr(recipe)[:60]}.")
    return made


def begin(
    recipe: Recipe,
    accumulate: int = 1,
    given: Given = None,
    teacher: Trained | None = None,
    progress: bool = False,
    codec: Codec | None = None,
    again: bool = False,
    engine: str = "",
) -> tuple[Trained, Data]:
    """The untrained start of a recipe and its data; InputError where the recipe can't be, or memory is too small.

    codec: of the run that is resumed, where its recipe has one, which is not fitted again. again: that it is resumed,
    so that the weights of the run that it began with aren't needed. engine: which may need less memory in a process.
    """
    if recipe.teacher and recipe.init:
        raise InputError("A student begins with its teacher's weights; leave init out, or teacher.")
    if recipe.teacher:
        return _student(recipe, given, teacher or from_pretrained(recipe.teacher), progress)
    recipe, prepared = _prepared(recipe, given, codec)
    return _start(recipe, prepared, accumulate, again, sharing(engine))


def _prepared(recipe: Recipe, given: Given, codec: Codec | None, data_on: str = "auto") -> tuple[Recipe, Prepared]:
    """The recipe and its data."""
    kind = kind_of(recipe)
    if given is None:
        kind.fits(recipe)
        return recipe, kind.prepare(recipe, codec, data_on)
    if isinstance(given, Prepared):
        return recipe, given
    if callable(given):
        return recipe, given(recipe)
    if kind.given is None:
        raise InputError(f"A recipe for {recipe.kind} takes its data from a file or folder: name it as data.")
    recipe, prepared = kind.given(recipe, *given, codec)
    return recipe, prepared


def _start(recipe: Recipe, prepared: Prepared, accumulate: int, again: bool, among: int = 1) -> tuple[Trained, Data]:
    """The start of a recipe, untrained or with the weights of the run that it names, and its data."""
    in_memory(recipe, prepared, accumulate, among)
    start = attached(run.untrained(recipe, prepared))
    if recipe.init and not again:
        where, files = run_files(recipe.init)
        its, weights = recipe_in(where, files)[0], checkpoint.weights_in(files, str(where))
        begin_weights(start.denoiser, recipe, its, weights)
    return start, prepared.data


def _student(recipe: Recipe, given: Any, teacher: Trained, progress: bool) -> tuple[Trained, Data]:
    """The start of a student of the recipe's teacher, and trajectories of that to learn from."""
    if given is not None:
        raise InputError("A student learns from its teacher's trajectories; leave data out, or teacher.")
    kind, told = kind_of(recipe), None
    if teacher.observation is not None:
        told = kind.prepare(recipe).data
    elif teacher.condition_shape and kind.told is not None:
        told = kind.told(recipe, teacher.codec)
    start = student_of(recipe, teacher)
    return attached(start), trajectories_of(teacher, start.recipe, told, progress=progress)


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


def _snapshot(kind: Kind[Any], data: Data, start: Trained, target: Path) -> Mapping[Path, bytes]:
    """The same samples at every stage; few steps: they are for looking. Of an autoencoder, images and their like."""
    if start.reconstructs:
        first = torch.arange(min(kind.snapshot["n"] // 2, len(data)))
        real = start.to_data(data.take(first, generator("snapshot"))["x0"].cpu())
        return kind.snapshot_files(torch.stack([real, start.reconstruct(real).cpu()], 1).flatten(0, 1), target)
    labels = None if kind.all_classes is None else kind.all_classes(start, kind.snapshot["n"])
    through = start.codec is None or start.codec.linear  # where a bound can act
    how = kind.snapshot if through else {**kind.snapshot, "bound": 0.0}
    x = start.sample(seed=start.recipe.seed, label=labels, **how)
    return kind.snapshot_files(x.cpu(), target)


def from_pretrained(where: str | Path, **named: str) -> Trained:
    """Load a run (its newest undamaged checkpoint), a checkpoint, an exported folder, or a hub repository.

    named: data, source, weights or tokenizer: a file, folder or hub set of the user's for the one that the run
    names there; of a run on data in memory a file with the same rows, and label, its column. Nothing else outside of
    the run is opened, for it may be a stranger's, unless this user had it trained, on this machine
    (`training/seal.py`).
    """
    for name, given in named.items():
        expect(name, given, str, os.PathLike)
    trained = attached(_load(folder_name("where", where), named))
    label = {"label"} if trained.recipe.data == IN_MEMORY and trained.recipe.conditional else set()
    if idle := named.keys() - trained.recipe.outside().keys() - label:
        raise InputError(f"{min(idle)} can't be named for {where}, which names none outside of itself.")
    return trained


def on_its_data(trained: Trained, data: str, run_name: str | Path) -> Trained:
    """A run whose user named `data` for the data it was trained on; InputError if that isn't the same.

    Of a run on data in memory the label is the column without which the other columns are that data.
    """
    recipe = trained.recipe
    if recipe.data != IN_MEMORY or not recipe.conditional or not is_text(data):
        if same_data(trained, kind_of(recipe).prepare(trained.reading(), trained.codec)):
            return trained
        raise InputError(f"{data} is not the data that {run_name} was trained on.")
    others: dict[str, tuple[str, ...]] = {}
    for column in column_names(data):
        named = replace(trained, named={**trained.named, "label": column})
        with suppress(InputError):  # with one column as labels, another may not be numbers
            prepared = kind_of(recipe).prepare(named.reading())
            if same_data(named, prepared):
                return named
            if same_data(replace(named, classes=prepared.classes), prepared):
                others[column] = prepared.classes
    for column, classes in others.items():
        its, got = listed(trained.classes), listed(classes)
        raise InputError(f"{data}, column {column!r}: the labels must be those of the run, {its}; got {got}.")
    raise InputError(f"{data} is not the data that {run_name} was trained on, and a column more for its labels.")


def run_files(name: str | Path) -> tuple[Path, dict[str, bytes]]:
    """The files of a run's newest undamaged checkpoint, of an export or of a hub repository, and where they lie."""
    if os.path.isdir(name):  # os.path: a name that no file can have is no error there
        return checkpoint.files_of(Path(name), lambda text: warnings.warn(text, stacklevel=6))
    if os.path.exists(name) or (found := hub_name(str(name))) is None:
        guess = near(Path(name))
        raise InputError(f"{name} is neither a run folder nor the name of a hub repository (user/name){guess}.")
    from ..interop.hub import download

    return Path(name), checkpoint.read_folder(download(*found))


def _load(folder: Path, named: Mapping[str, str]) -> Trained:
    where, files = run_files(folder)
    trained, tuned = Trained.from_files(files, str(where), named), folder / TUNED
    if where != folder and where.parent.name == "checkpoints":
        parts = partial(for_the_card, folder, where, trained.step, kind_of(trained.recipe).file)
        trained = replace(trained, card_parts=parts)
    return trained.with_tuned(read_file(tuned), str(tuned)) if where != folder and tuned.exists() else trained
