"""Methods side by side: same network, same data, same steps, same noise; and runs that are there, as they are."""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from operator import call
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, printable
from ..files import dump_json, locked, no_link, storage, without_nan, write_file
from ..memory import room
from ..plots.study import Comparison, Sampling
from ..progress import progress_bar
from ..recipes import METHODS, Recipe
from ..signals import Interrupted
from ..specs import require
from ..tables import aligned
from ..training.devices import device_of
from ..training.folder import clear
from ..training.processes import Answers, pool, worthwhile
from ..training.storage import folder_name
from . import Kind, Plan, kind_of
from .methods import Entry, entries, finished
from .runs import a_recipe, rehearsed
from .studies import Study, floors_of, judged, study

if TYPE_CHECKING:
    from ..metrics import Measurement
    from ..plots.report import Picture

_NUMBERS = "metrics.json"

__all__ = ["compare", "figures", "resumable", "save_metrics", "summary"]


def compare(
    recipe: Recipe | str,
    out: str | Path,
    methods: Sequence[str | Path] = METHODS,
    *,
    n: int = 4_000,
    workers: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    device: str = "auto",
    command: str = "ebbtide compare",
    answers: Answers | None = None,
) -> Comparison:
    """Train methods with a recipe's data, network and steps; sample and measure all of them.

        ebbtide.compare("flow", "runs/compare", methods=("ddpm", "flow", "edm", "runs/fast"))

    methods: names of recipes for this kind of data, and folders of finished runs on this data; these are sampled as
    they are, by their own choices, students by jumps. workers: processes, where there are as many cores (a script that
    calls this then needs `if __name__ == "__main__":`, as ever with processes); one if the network is a
    `module:function`. Each method that is trained is an ordinary run in its own folder, so an interrupted comparison
    continues with resume=True. device: of the training. n: samples to measure. command: the report's line on how it was
    made. answers: of a `pool` of workers that is there already.
    """
    out, recipe = folder_name("out", out), a_recipe(recipe)
    require("n", n, 1, whole=True)
    require("workers", workers, 1, whole=True)
    room(8000 * n, f"n {n}")
    device_of(device)
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, and a comparison needs a folder.")
    kind, plan = _planned(recipe)
    found = entries(methods, recipe, plan, out)
    folders = [one.folder for one in found if one.recipe]
    for folder in folders:
        for place in (folder, folder / "checkpoints", folder / "evolution"):
            no_link(place)
    if not (resume or overwrite) and (any(folder.exists() for folder in folders) or (out / _NUMBERS).exists()):
        raise InputError(f"{out} already holds a comparison; resume it, overwrite it, or choose another folder.")
    if resume and overwrite:
        raise InputError("resume continues a comparison and overwrite replaces it; choose one of them.")
    if resume and not any(map(_begun, folders)):
        raise InputError(f"{out} holds no comparison to resume.")
    for one in found:  # what is wrong with the data or the recipe is said before anything is written
        if one.recipe:
            rehearsed(one.recipe)
    if len(kind.real(recipe, plan.fewest, 0)[0]) < plan.fewest:
        raise InputError(f"{recipe.data_named} must have at least {plan.fewest} {kind.units}, to hold samples against.")
    for one in found:
        if not one.recipe:
            finished(one.folder, recipe)
    options: dict[str, Any] = {"progress": progress, "device": device, "command": command}
    jobs = [(one, recipe, n, options | {"resume": resume and _begun(one.folder)}) for one in found]
    if overwrite:  # all at once, so that what is saved from here on is this comparison's
        for folder in filter(_begun, folders):
            with locked(folder):
                clear(folder)
    with resumable(folders, command):
        opened = nullcontext(answers) if answers else pool(worthwhile(workers, len(jobs), recipe.network))
        with opened as found_by:
            studies = _studied(jobs, plan, found_by, progress)
        return _assemble(recipe, found, studies, n, command)


def _studied(
    jobs: Sequence[tuple[Any, ...]], plan: Plan[Any], answers: Answers, progress: bool
) -> "list[tuple[Study, list[list[Measurement]]]]":
    """Each method trained and sampled, with the metrics of its samples; whoever has time meanwhile finds floors."""
    _, recipe, n, _ = jobs[0]
    sizes = (n, False), (min(n, plan.curve_n), True)
    found = answers(call, [*((study, *job) for job in jobs), *([(floors_of, recipe, sizes)] if plan.floors else [])])
    studies, shared = found[: len(jobs)], found[len(jobs) :]
    todo = [(one.recipe, drawn, shared) for one in studies for drawn in one.drawn]
    with progress_bar(len(todo), "measuring", "set", show=progress) as bar:
        rows = iter(answers(judged, todo, bar.update))
    return [(one, [next(rows) for _ in one.drawn]) for one in studies]


@contextmanager
def resumable(folders: Iterable[Path], command: str) -> Iterator[None]:
    """Context in which a signal prints how to continue, if anything is saved in the folders of its runs."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        saved = any(map(_begun, folders))
        rest = f"; saved. Continue with: {command} --resume" if saved else " before anything was saved."
        raise Interrupted.by(stopped, rest) from None


def _planned(of: Recipe | Comparison) -> tuple[Kind[Any], Plan[Any]]:
    """The kind of data, and how the methods are compared on it."""
    kind = kind_of(of)
    if kind.plan is None:
        raise InputError(f"compare is for points and images; got {of.kind}.")
    return kind, kind.plan


def _begun(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step-*"))


def _assemble(
    recipe: Recipe,
    found: list[Entry],
    studies: "list[tuple[Study, list[list[Measurement]]]]",
    n: int,
    command: str,
) -> Comparison:
    kept = _planned(recipe)[1].kept
    samplings: list[Sampling] = []
    quality: dict[str, list[tuple[int, Measurement]]] = {}
    for one, each in studies:
        for drawn, rows in zip(one.drawn, each, strict=True):
            if drawn.line:
                row = next(row for row in rows if row.in_curve)
                quality.setdefault(drawn.line, []).append((drawn.evaluations, row))
                continue
            label, sampler, _, steps = drawn.way
            labels = None if drawn.labels is None else drawn.labels.numpy()
            cost = sampler.partition(":weights")[0], steps, drawn.evaluations, drawn.seconds
            samplings.append(Sampling(one.method.key, label, *cost, kept(drawn.x), labels, rows))
    first = next(iter(quality.values()))[0][1]
    shown = _planned(recipe)[1].shown(recipe, n)
    shown["title"] = f"{_sentence(found)} on {shown['title']}"
    if len(found) > 1:
        shown["settings"]["samples"] += f" from the same noise for {'both' if len(found) == 2 else 'all'}"
    if not any(one.recipe for one in found):  # nothing is trained by these
        del shown["settings"]["network"], shown["settings"]["training"]
    return Comparison(
        command=_shared(command, recipe),
        methods=[one.method for one, _ in studies],
        samplings=samplings,
        quality={name: [(evaluations, row.value) for evaluations, row in points] for name, points in quality.items()},
        quality_metric=first.name,
        floor=(first.floor_low, first.floor_high),
        at_floor={
            name: min(reached)
            for name, points in quality.items()
            if (reached := [evaluations for evaluations, row in points if row.at_floor])
        },
        kind=recipe.kind,
        **shown,
    )


def _sentence(found: list[Entry]) -> str:
    """The names of the methods in a sentence: "DDPM and flow matching"."""
    names = [
        one.name[:1].lower() + one.name[1:] if k and one.recipe and one.name[1:2].islower() else one.name
        for k, one in enumerate(found)
    ]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shared(command: str, recipe: Recipe) -> str:
    """The command as the report shows it: names of files, not where they lie."""
    shown, before = [], ""
    for word in shlex.split(command):
        option, equals, name = word.partition("=") if word.startswith("--") else ("", "", word)
        if "/" in name or os.sep in name:
            name = recipe.bare(name, (option or before).strip("-"))
        shown.append(option + equals + name)
        before = word
    return shlex.join(shown)


def summary(comparison: Comparison) -> str:
    """The table of the comparison: a row per way of sampling, the metrics that rank, and truth's own below.

    Beside what is at its floor stands a =.
    """
    from ..metrics.floor import LEVEL

    names = [row.name for row in comparison.samplings[0].measurements if row.in_summary]
    cells = [("", "sampler", "evaluations", "CPU s", *names)]
    for s in comparison.samplings:
        method = next(m.name for m in comparison.methods if m.key == s.method)
        rows = {row.name: row for row in s.measurements}
        values = (f"{rows[name].value:.4g}{' =' * rows[name].at_floor}" if name in rows else "-" for name in names)
        cells.append((method, s.label, str(s.evaluations), f"{s.seconds:.1f}", *values))
    rows = {row.name: row for row in comparison.samplings[0].measurements}
    cells.append(("truth", "against truth", "", "", *(f"{rows[name].floor:.4g}" for name in names)))
    lines, width = aligned(cells)
    rule = "─" * width
    trained = ", ".join(f"{m.name} {m.seconds:.1f} CPU s" for m in comparison.methods if m.seconds)
    title = printable(f"{comparison.title}{f'; trained in {trained}' if trained else ''}")
    key = f"=: can't be told from truth, p ≥ {LEVEL}"
    return "\n".join([title, "", lines[0], rule, *lines[1:-1], rule, lines[-1], key])


def figures(comparison: Comparison) -> "Iterator[Picture]":
    """The figures of its report, in order."""
    return _planned(comparison)[1].figures(comparison)


def save_metrics(comparison: Comparison, folder: Path) -> Path:
    """Write metrics.json: every number of the comparison, none of its points."""
    whole = asdict(replace(comparison, methods=[], samplings=[]))
    wanted = ("title", "command", "settings", "quality_metric", "quality", "floor", "at_floor")
    numbers = {name: whole[name] for name in wanted}
    numbers["training"] = [
        {"method": m.name, "cpu_seconds": m.seconds, "last_loss": m.losses[-1].item() if len(m.losses) else None}
        for m in comparison.methods
    ]
    numbers["samplings"] = [
        {
            **{name: getattr(s, name) for name in ("method", "label", "sampler", "steps", "evaluations", "seconds")},
            "measurements": [row.record() for row in s.measurements],
        }
        for s in comparison.samplings
    ]
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NUMBERS
    write_file(path, dump_json(without_nan(numbers)))
    return path
