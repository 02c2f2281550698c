"""The actions that a page may ask for: a table, each with its fields, which are checked before anything is done."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..core.times import GRIDS
from ..data import DATASETS
from ..errors import EbbtideError, InputError
from ..kinds import KINDS
from ..kinds.methods import recipes_for
from ..kinds.points.data import limits
from ..plots.study import key_of
from ..recipes import recipe_type
from ..samplers import SAMPLERS, facts
from ..specs import listed, pick
from . import images, policies
from .learning import Learner, begun_with
from .messages import Array, Check, a_list, a_name, a_number, a_text, a_truth, a_whole, packed, parsed
from .quoting import as_code, as_command
from .sampling import LabRun, View, as_columns_of, distances_of, encoded, field_at, solver_error, takes_eta, walk_of

__all__ = ["ACTIONS", "MOST_PAINTED", "Lab", "answer", "is_light", "learnable"]

MOST_PAINTED = 20_000  # points
LATTICE = 48  # arrows on a side
Reply = tuple[dict[str, Any], Sequence[Array]]


@dataclass(eq=False)
class Lab:
    """The part that all pages of a server share: runs, methods in training, and the data that was named."""

    data: str = ""
    runs: dict[str, LabRun] = field(default_factory=dict)
    learners: list[Learner] = field(default_factory=list)
    begun: int = 0
    """Learners so far, for their numbers."""
    ended: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while a method begins, is kept or is forgotten."""

    def run(self, key: Any) -> LabRun:
        """The run of that key."""
        return self.runs[pick(self.runs, str(key), "run")]

    def forget(self) -> None:
        """Stop what learns, and remove what wasn't kept."""
        gone, self.learners = self.learners, []  # so that another page's pause or go doesn't reach them
        for learner in gone:
            learner.stop()
        for learner in gone:
            learner.close()
            self.runs.pop(learner.key, None)

    def close(self) -> None:
        """Forget what learns, and refuse to begin more; a message may still be being answered."""
        with self.lock:
            self.ended = True
            self.forget()

    def about(self) -> dict[str, Any]:
        """The runs, methods and tables from which a page begins."""
        kind = recipe_type(self.data).kind if self.data else "points"
        sets = [name for name, row in DATASETS.items() if row.dim == 2]
        return {
            "event": "lab", "data": self.data, "kind": kind, "sets": sets,
            "recipes": {of: list(recipes_for(of).values()) for of in ("points", "images")},
            "samplers": {
                name: {"eta": takes_eta(name), "noise": facts(name).noise, "spans": facts(name).spans}
                for name in SAMPLERS
            },
            "grids": list(GRIDS), "runs": [_run_about(run) for run in self.runs.values()],
            "learners": self.learning(losses=True),
        }  # fmt: skip

    def learning(self, losses: bool = False) -> list[dict[str, Any]]:
        """The state of every method in training. losses: with all of them."""
        return [
            {
                "key": one.key, "name": one.name, "state": one.state, "error": one.error, "step": one.step,
                "steps": one.recipe.steps, "left": one.left, "kept": str(one.kept or ""), "kind": one.recipe.kind,
                "data": "painted points" if one.painted is not None else one.recipe.data,
            }
            | ({"losses": one.losses()[-2000:]} if losses else {})
            for one in self.learners
        ]  # fmt: skip


def learnable(data: str) -> None:
    """InputError for data that no method in the lab can learn: not there, or neither points nor images."""
    kind = KINDS[recipe_type(data).kind]
    recipe = kind.recipe(data=data)
    kind.fits(recipe)
    kind.prepare(recipe)


def _run_about(run: LabRun) -> dict[str, Any]:
    """A run's properties, as a page needs them."""
    trained = run.trained
    recipe, choice = trained.recipe, trained.choice()
    return {
        "key": run.key, "name": run.name, "kind": recipe.kind, "shape": list(trained.shape),
        "columns": list(trained.columns) or [f"x{k + 1}" for k in range(trained.shape[-1])],
        "levels": [] if trained.form is None else [list(one.levels) for one in trained.form.learned],
        "classes": list(trained.classes) if recipe.learns_labels else [], "null": recipe.learns_null,
        "path": recipe.path, "target": recipe.target, "step": trained.step, "steps": recipe.steps,
        "sampler": str(choice.sampler) if len(str(choice.sampler)) < 60 else "fitted solver",
        "grid": choice.grid if isinstance(choice.grid, str) and len(choice.grid) < 60 else "fitted times",
        "count": choice.steps, "spans": facts(recipe.sampler).spans, "kept": str(run.place or ""),
        "flat": len(trained.shape) == 1 and trained.shape[0] <= 2 and (trained.codec is None or trained.codec.linear),
        "colour": key_of(recipe),
    }  # fmt: skip


_FAR = a_number(-1e6, 1e6)
_PLACE = a_list(1, 2, _FAR)
_VIEW: dict[str, Check] = {
    "n": a_whole(1, 20_000), "seed": a_whole(0, 2**31), "sampler": a_name(SAMPLERS), "grid": a_name(GRIDS),
    "steps": a_whole(0, 1000), "eta": lambda what, value: None if value is None else a_number(0, 1)(what, value),
    "guidance": a_number(-20, 20), "label": a_text(200), "columns": a_list(1, 2, a_whole(0, 10_000)),
}  # fmt: skip


class Action(NamedTuple):
    """A row of ACTIONS: what does it, its fields, and whether these are of a view too."""

    do: Callable[..., Reply]
    fields: Mapping[str, Check] = {}
    views: bool = True
    optional: Mapping[str, Any] = {}


def _sample(lab: Lab, run: LabRun, view: View) -> Reply:
    """Every stage of a walk."""
    trained = run.trained
    if trained.recipe.kind == "images":
        about, arrays = images.sheets(trained, view)
        return about | {"step": trained.step}, arrays
    if trained.recipe.kind == "robots":
        raise InputError("A policy's samples are chunks for a moment: ask for its fan.")
    found = walk_of(trained, view)
    run.kept_end((replace(view, columns=(0,)), trained.step), lambda: found.end)
    arrays = [("frames", np.stack([as_columns_of(x, view.columns) for x in found.frames]))]
    if found.guesses:
        arrays.append(("guesses", np.stack([as_columns_of(x, view.columns) for x in found.guesses])))
    if view.label == "" and trained.recipe.learns_labels and not trained.recipe.learns_null:
        arrays.append(("labels", trained.labels(None, view.n).numpy().astype(np.int32)))  # type: ignore[union-attr]
    told = {
        "times": found.times, "evaluations": found.evaluations, "straightness": found.straightness,
        "sampler": str(found.choice.sampler)[:60], "steps": found.steps, "step": trained.step,
    }  # fmt: skip
    return told, arrays


def _data(lab: Lab, data: str) -> Reply:
    """Some of the data that could be learned, before anything is trained on it."""
    _named(lab, data)
    kind = KINDS[recipe_type(data).kind]
    recipe = kind.recipe(data=data)
    x, labels = kind.real(recipe, 16 if recipe.kind == "images" else 2000, 0)
    if recipe.kind == "images":
        return {"data": data, "classes": 0 if labels is None else 10}, [("images", x.numpy().astype(np.uint8))]
    known = DATASETS.get(data)
    about = {"data": data, "limits": limits(recipe, x)[:2].tolist(), "classes": len(known.classes) if known else 0}
    return about, [("real", as_columns_of(x, (0, 1)))]


def _named(lab: Lab, data: str) -> None:
    """InputError for data that is neither built in nor named by the command."""
    if data not in (sets := ["digits", *DATASETS, *filter(None, [lab.data])]):
        raise InputError(f"data must be one of {listed(sets)}; name any other to the command, as --data.")


def _judge(lab: Lab, run: LabRun, view: View) -> Reply:
    """Distances to real data and to the exact flow, each beside what is least."""
    trained = run.trained
    if trained.recipe.kind != "points":
        return {"distances": [], "solver": None}, []
    return {"distances": distances_of(run, trained, view), "solver": solver_error(run, trained, view)}, []


def _shown(lab: Lab, run: LabRun, columns: list[int]) -> Reply:
    """Real examples, and the frame that they are drawn in."""
    trained, x = run.trained, run.real
    if trained.recipe.kind != "points":
        return {"limits": None}, []
    x = trained.sample(500) if x is None else x
    # Painted points are of no recipe's data set, so their frame is that of a file.
    real = as_columns_of(x, columns)
    frame = limits(trained.recipe, x)[[k for k in columns if k < x.shape[1]]]  # type: ignore[arg-type]
    arrays = [] if run.real is None else [("real", real)]
    return {"limits": frame.tolist()}, arrays


def _field_of(lab: Lab, run: LabRun, view: View, t: float, frame: list[list[float]], sides: list[int]) -> Reply:
    """The velocity on a lattice over a frame, row by row from below."""
    (columns, rows), (x, y) = sides, frame
    if x[0] >= x[1] or y[0] >= y[1]:
        raise InputError(f"frame must be [[low, high], [low, high]]; got {frame}.")
    across = torch.linspace(x[0], x[1], 2 * columns + 1)[1::2]
    up = torch.linspace(y[0], y[1], 2 * rows + 1)[1::2]
    places = torch.stack([across.repeat(rows), up.repeat_interleave(columns)], 1)
    if len(run.trained.shape) == 1 and run.trained.shape[0] == 1:
        speed = field_at(run.trained, view, t, places[:, :1])
        speed = torch.cat([speed, torch.zeros_like(speed)], 1)
    else:
        speed = field_at(run.trained, view, t, places)
    return {"t": t}, [("speed", speed.float().numpy())]


def _encode_point(lab: Lab, run: LabRun, view: View, point: list[float]) -> Reply:
    """The way of a point to its noise."""
    trained = run.trained
    if len(point) != trained.shape[-1]:
        raise InputError(f"point must have {trained.shape[-1]} numbers, one for each column; got {len(point)}.")
    times, places = encoded(trained, view, torch.tensor(point, dtype=torch.float32))
    return {"times": times}, [("way", places.float().numpy())]


def _sweep(lab: Lab, run: LabRun, view: View) -> Reply:
    """Images by guidance weight and class."""
    _is_of(run, "images")
    weights, classes, found = images.swept(run.trained, view)
    return {"weights": weights, "classes": classes}, [("images", found)]


def _inpaint(lab: Lab, run: LabRun, view: View, index: int, known: list[int]) -> Reply:
    """A sample whose painted pixels are drawn again."""
    _is_of(run, "images")
    trained = run.trained
    height, width = trained.shape[1:]
    if len(known) != height * width:
        raise InputError(f"known must have {height * width} entries, one for each pixel; got {len(known)}.")
    mask = torch.tensor(known, dtype=torch.bool).reshape(1, height, width).expand(trained.shape)
    one, ways = images.refilled(trained, view, index, mask)
    return {"index": index}, [("image", one), ("ways", ways)]


def _interpolate(lab: Lab, run: LabRun, view: View, pair: list[int]) -> Reply:
    """Images between two samples."""
    _is_of(run, "images")
    return {"pair": pair}, [("images", images.between(run.trained, view, pair))]


def _fan(lab: Lab, run: LabRun, view: View, place: int) -> Reply:
    """A policy's chunks for a moment."""
    _is_of(run, "robots")
    return policies.fan_at(run.trained, view, min(place, policies.episode_steps(run.trained) - 1))


def _is_of(run: LabRun, kind: str) -> None:
    if run.trained.recipe.kind != kind:
        raise InputError(f"{run.name} is no run on {kind}.")


def _quote(lab: Lab, run: LabRun, view: View, place: int | None = None) -> Reply:
    """The view as code and as a command."""
    moment = place if run.trained.recipe.kind == "robots" else None
    return {"code": as_code(run, view, moment), "command": as_command(run, view)}, []


def _train(
    lab: Lab, methods: list[str], data: str, points: list[list[float]] | None, steps: int, conditional: bool
) -> Reply:
    """Begin to train methods side by side; what learned before and wasn't kept is forgotten."""
    if points is None:
        _named(lab, data)
    own = None if points is None else torch.tensor(points, dtype=torch.float32).reshape(-1, 2)
    kind = "points" if points is not None or not data else recipe_type(data).kind
    for name in methods:
        pick(recipes_for(kind).values(), name, "A method")
    with lab.lock:
        if lab.ended:
            raise InputError("The lab has ended.")
        lab.begun += len(methods)
        learners = begun_with(methods, data, own, steps, conditional, lab.begun)
        lab.forget()
        lab.learners = learners
        for learner in learners:
            what = "painted points" if own is not None else data
            lab.runs[learner.key] = LabRun(learner.key, f"{learner.name}, {what}", learner=learner)
            learner.go()
    return lab.about(), []


def _pause(lab: Lab) -> Reply:
    """Let all that learns wait."""
    for learner in lab.learners:
        learner.pause()
    return {"learners": lab.learning()}, []


def _proceed(lab: Lab) -> Reply:
    """Let all that waits go on."""
    for learner in lab.learners:
        learner.go()
    return {"learners": lab.learning()}, []


def _keep(lab: Lab, key: str, folder: str) -> Reply:
    """Copy a run that learned here to a folder."""
    learners = {one.key: one for one in lab.learners}
    learner = learners[pick(learners, key, "method that learns")]
    if not re.fullmatch(r"[\w.-][\w. -]*(/[\w.-][\w. -]*)*", folder) or ".." in Path(folder).parts:
        raise InputError("folder must be a path below the working directory, of letters, digits and - _ . /.")
    with lab.lock:
        return {"kept": str(learner.keep(Path(folder)))} | lab.about(), []


def _about(lab: Lab) -> Reply:
    """All that a page starts from."""
    return lab.about(), []


_FRAME = {"frame": a_list(2, 2, a_list(2, 2, _FAR)), "sides": a_list(2, 2, a_whole(1, LATTICE))}
_POINTS: Check = lambda what, value: None if value is None else a_list(0, MOST_PAINTED, a_list(2, 2, _FAR))(what, value)
ACTIONS: dict[str, Action] = {
    "about": Action(_about, views=False),
    "sample": Action(_sample),
    "data": Action(_data, {"data": a_text(4000)}, views=False),
    "judge": Action(_judge),
    "real": Action(_shown, {"run": a_text(80), "columns": _VIEW["columns"]}, views=False),
    "field": Action(_field_of, {"t": a_number(0, 1), **_FRAME}),
    "encode": Action(_encode_point, {"point": _PLACE}),
    "sweep": Action(_sweep),
    "inpaint": Action(_inpaint, {"index": a_whole(0, 10_000), "known": a_list(1, 2**16, a_whole(0, 1))}),
    "between": Action(_interpolate, {"pair": a_list(2, 2, a_whole(0, 10_000))}),
    "fan": Action(_fan, {"place": a_whole(0, 10**7)}),
    "quote": Action(_quote, {"place": a_whole(0, 10**7)}, optional={"place": None}),
    "train": Action(
        _train,
        {
            "methods": a_list(1, 2, a_text(40)), "data": a_text(4000), "points": _POINTS, "steps": a_whole(1, 100_000),
            "conditional": a_truth,
        },
        views=False,
        optional={"data": "", "points": None, "conditional": False},
    ),
    "pause": Action(_pause, views=False),
    "go": Action(_proceed, views=False),
    "keep": Action(_keep, {"key": a_text(80), "folder": a_text(200)}, views=False),
}  # fmt: skip


def answer(lab: Lab, message: str | bytes) -> bytes:
    """The answer to a message, whatever it holds. lab: which answers."""
    number: Any = None
    try:
        asked = parsed(message)
        number = asked.pop("id", None)
        number = number if type(number) is int and abs(number) < 2**53 else None
        name = asked.pop("do", None)
        row = ACTIONS[pick(ACTIONS, str(name)[:40], "do")]
        given = _checked(lab, row, asked)
        with given["run"].lock if "run" in given else nullcontext():
            header, arrays = row.do(lab, **given)
        return packed({"id": number, "do": name, **header}, arrays)
    except EbbtideError as error:
        return packed({"id": number, "error": str(error)})
    except Exception as error:  # a page outlives whatever we didn't foresee
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return packed({"id": number, "error": f"That can't be done, and shouldn't have happened: {told.rstrip('.')}."})


def is_light(message: str | bytes) -> bool:
    """True if a message asks for nothing that takes long, such as a pause: it then needn't wait for samples."""
    try:
        row = ACTIONS.get(str(parsed(message).get("do"))) if len(message) < 1000 else None
    except InputError:
        return True
    return row is not None and not row.views


def _checked(lab: Lab, row: Action, asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an action; InputError for a field that is missing, foreign or out of its range."""
    fields = dict(row.fields) | (_VIEW | {"run": a_text(80)} if row.views else {})
    optional = dict(row.optional) | (dict.fromkeys(_VIEW) if row.views else {})
    if foreign := [name for name in asked if name not in fields]:
        raise InputError(f"There is no field {foreign[0][:60]!r}; it takes {listed(fields)}.")
    if missing := [name for name in fields if name not in asked and name not in optional]:
        raise InputError(f"The field {missing[0]!r} is missing.")
    found = {name: check(name, asked[name]) for name, check in fields.items() if name in asked}
    if "run" in found:
        found["run"] = lab.run(found["run"])
    if row.views:
        own = {name: found.pop(name) for name in _VIEW if name in found}
        own = own | ({"columns": tuple(own["columns"])} if "columns" in own else {})
        found["view"] = View(**own)
    return dict(row.optional) | found
