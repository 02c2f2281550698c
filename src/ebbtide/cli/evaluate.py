"""ebbtide evaluate RUN: measure its samples."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError
from ..specs import Own
from .arguments import ITS_OWN, MOST, Flag, Named, Tracker, given, hint, opened, parse, tell, within
from .drawing import Drawing, Pieces, draw, every_class
from .policy import Driving

if TYPE_CHECKING:
    from torch import Tensor

    from ..kinds.kind import Judge, Judgement
    from ..metrics import Measurement
    from ..training.trained import Trained

__all__ = ["Evaluate", "run"]

PIECE = 2**25  # bytes of samples that are in memory together


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's samples against its data: each metric beside its floor (real against real data) and interval.

    Of a table from a file copies of its rows come first, then what trees tell apart, columns, and what is learned from
    samples. A policy's actions are compared with recorded ones, and it is run in its simulator.
    """

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    names: tyro.conf.OmitArgPrefixes[Named] = field(default_factory=Named)
    driving: tyro.conf.OmitArgPrefixes[Driving] = field(default_factory=Driving)
    episodes: int = 100
    """For a policy: episodes to run in the simulator; 0 for none."""
    blind: Flag = False
    """For a policy: replace its images by black ones; results are written beside those with images."""
    workers: Annotated[int, hint("one for each processor")] = 0
    """For a policy: processes that run the simulator."""
    predict: Annotated[str, hint("the label, if it is learned")] = ""
    """Column of a table that trees learn; once from samples, once from real rows."""
    metric: Annotated[str, hint("none")] = ""
    """A metric of your own, as module:function; it takes samples and real data and returns a number."""
    track: Annotated[tuple[Tracker, ...], hint("none")] = ()
    """Also log the metrics to these, where installed; as evaluation/… at the checkpoint's step."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        within(self, episodes=(0, MOST), workers=(0, 1024))


def run(argv: Sequence[str]) -> None:
    """Parse, sample, measure; a conditional run draws classes as often as its data, a policy runs in its simulator."""
    args = parse(Evaluate, argv, "evaluate")
    if args.track and not _kept(args):
        raise InputError(f"--track is for the folder of a run, where it was trained; {args.run} is none.")
    from ..training.devices import leaving_group

    trained = opened(args.run, **vars(args.names))
    with leaving_group():
        _run(args, trained)


def _run(args: Evaluate, trained: "Trained") -> None:
    from ..kinds import kind_of
    from ..memory import room
    from ..metrics import table, to_json
    from ..training.devices import process_number

    own, drawing = kind_of(trained.recipe), args.drawing
    if drawing.n == ITS_OWN:
        drawing = replace(drawing, n=own.n_evaluate)
    if process_number()[1] > 1 and (trained.reconstructs or trained.observation is not None):
        raise InputError(
            f"torchrun's processes share the samples of points and images, and {args.run} has none of them."
        )
    if trained.reconstructs:
        return _restored(args, trained)
    every = trained.recipe.learns_labels and (not drawing.label or every_class(trained, drawing))
    if every:
        drawing = replace(drawing, label="all")
    if args.predict and own.judged is None:
        raise InputError(f"--predict is for tables; {args.run} has {trained.recipe.kind}.")
    judgement, shown = None, None
    if trained.observation is None:
        if idle := [*given(args, "episodes", "blind", "workers"), *given(args.driving)]:
            raise InputError(f"{idle[0]} is for policies; {args.run} has {trained.recipe.kind}.")
        own.real(trained.reading(), 2, drawing.seed)  # if there is nothing to compare with, say so at once
        how = _how(trained, drawing) | {name: getattr(drawing, name) for name in _LABELLED}
        labels = None
        room(64 * drawing.n, f"--n {drawing.n}")
        if every:
            if not trained.frequencies:  # a run of an older version
                trained = replace(trained, frequencies=own.prepare(trained.reading()).frequencies)
            labels = trained.in_proportion(drawing.n)
        own_metric = {args.metric: Own(args.metric)} if args.metric else {}
        shown, rows, judgement = _compared(trained, drawing, own_metric, args.predict, labels=labels)
        judged = [] if judgement is None else judgement.rows
        rows = [row for row in rows if row.name not in {one.name for one in judged}]
    else:
        shown, rows, how = _policy(args, trained, drawing)
        judged = []
    how = {"checkpoint": trained.step, "n": drawing.n} | how
    records = [row | {"how": how} for row in json.loads(to_json([*judged, *rows]))]
    text = json.dumps(records, indent=2, ensure_ascii=False, default=str)
    if args.json:  # what a terminal must not see is escaped as JSON does
        print(text if all(map(str.isprintable, text.split("\n"))) else json.dumps(records, indent=2, default=str))
    else:
        if judgement is not None:
            print(f"{judgement}\n\nDistances between the sets, rows of all columns at once")
        print(table(rows))
    _keep(args, "evaluation.json", text + "\n")
    if args.track:
        from ..training.history import track_evaluation

        values = {row.name: float(row.value) for row in [*judged, *rows]}
        track_evaluation(Path(args.run), args.track, trained.step, values)
    if judgement is not None and _kept(args):
        for path in judgement.draw(trained, Path(args.run)):
            tell("figure:", path)
    if own.draw_evaluation and shown is not None and _kept(args) and not args.blind:
        for path in own.draw_evaluation(trained, shown, Path(args.run)):
            tell("figure:", path)


def _restored(args: Evaluate, trained: "Trained") -> None:
    """Of an autoencoder: how well it gives held-out data back."""
    from ..kinds import kind_of
    from ..metrics import table, to_json

    own = given(args, "episodes", "blind", "workers", "metric", "predict", "track")
    if idle := [*own, *given(args.driving), *given(args.drawing)]:
        raise InputError(f"{idle[0]} is for samples, and {args.run} is an autoencoder.")
    lost = kind_of(trained.recipe).lost
    assert lost is not None
    rows = lost(trained, args.drawing.seed)
    print(to_json(rows) if args.json else table(rows))
    _keep(args, "evaluation.json", to_json(rows) + "\n")


_LABELLED = ("label", "guidance", "interval")  # what a policy has not


def _how(trained: "Trained", drawing: Drawing) -> dict[str, Any]:
    """Sampling options, completed from the recipe."""
    bound = trained.recipe.bound if drawing.bound == -1 else drawing.bound
    return {"seed": drawing.seed, **drawing.chosen(trained)._asdict(), "bound": bound}


def _compared(
    trained: "Trained", drawing: Drawing, metric: dict[str, Own], target: str, **options: Any
) -> "tuple[Any, list[Measurement], Judgement | None]":
    """Contents of a figure of the samples, their metrics, with the user's own, and of a table the report on it.

    The processes that torchrun started share the work; the others end here.
    """
    from ..kinds import kind_of

    own = kind_of(trained.recipe)
    judgement: Judgement | None = None
    if own.judge is not None:
        shown, rows = _in_pieces(trained, drawing, metric, own.judge, **options)
    else:
        shown, labels = draw(trained, drawing, more=own.more, share=True, **options)
        print("measuring …", file=sys.stderr)
        judgement = own.judged and own.judged(trained, shown, labels, target=target, seed=drawing.seed)
        rows = own.evaluate(trained.reading(), shown, labels, seed=drawing.seed, own=metric)
    if own.lost and trained.codec is not None and trained.codec.weights():
        rows += own.lost(trained, drawing.seed)
    return shown, rows, judgement


def _in_pieces(
    trained: "Trained", drawing: Drawing, metric: dict[str, Own], judge: "Callable[..., Judge]", **options: Any
) -> "tuple[Any, list[Measurement]]":
    """The same of samples of which a piece is in memory at a time."""
    from ..training.devices import gathered, together

    pieces = Pieces(trained, drawing, share=True, size=PIECE, **options)
    judges: list[Judge] = []

    def begin(turn: bool) -> None:
        if turn:
            judges.append(judge(trained.reading(), pieces.n, pieces.labels, drawing.seed, metric))

    for first in (True, False):  # the others find in the cache what judges learn
        together(partial(begin, (not pieces.rank) == first), pieces.count)
    [judging] = judges
    for start, x in pieces:
        judging.look(start, x)
    if not pieces.rank:
        print("measuring …", file=sys.stderr)
    every = gathered((judging.seen(pieces.rank, pieces.count), pieces.fine))
    if not every:
        raise SystemExit(0)
    pieces.fine = sum(fine for _, fine in every)
    pieces.check(pieces.n)
    rows, shown = judging.judged([seen for seen, _ in every])
    return shown, rows


def _policy(
    args: Evaluate, trained: "Trained", drawing: Drawing
) -> "tuple[Tensor | None, list[Measurement], dict[str, Any]]":
    """Results of a policy in its simulator and against recorded actions, as far as available; and the options."""
    from ..kinds.robots import data, driving

    recipe = data.policy_recipe(trained)
    ignored = [
        *given(drawing, *_LABELLED),
        *["--precision bf16"] * (drawing.precision == "bf16"),
        *given(args, "metric"),
    ]
    if ignored:
        raise InputError(f"{ignored[0]} is not for policies, and {args.run} is one.")
    if args.blind and not recipe.cameras:
        raise InputError(f"--blind is for policies that see images; {args.run} has no cameras.")
    place = args.driving.place or recipe.simulator
    if place:
        driving.Place.of(trained, place)
    how = _how(trained, drawing) | args.driving.how(recipe)
    driving.policy(trained, **how)
    told = {"simulator": place, "blind": args.blind, "episodes": args.episodes}
    drawing.place(trained)
    rows = []
    if place and args.episodes:  # before anything takes long: it says what doesn't fit
        rows.append(driving.chunk_time(trained, simulator=place, **how))
    elif args.episodes:
        print("ebbtide: The recipe names no simulator (--simulator does): only actions are compared.", file=sys.stderr)
    x = None
    try:
        data.real(data.reading(trained), 2, drawing.seed)
    except InputError as missing:
        if not rows:
            raise
        tell(f"ebbtide: {missing} So the policy is only tried out.")
    else:
        data.same_recording(trained)
        x, compared = _drawn(trained, drawing, args.blind)
        rows += compared
    if place and args.episodes:
        rows = _tried(args, trained, how, told) + rows
    return x, rows, how | told


def _drawn(trained: "Trained", drawing: Drawing, blind: bool) -> "tuple[Tensor, list[Measurement]]":
    """Several chunks for each of `drawing.n` recorded steps, and their errors against the recorded actions."""
    import torch

    from ..kinds.robots import kind
    from ..kinds.robots.data import observations, reading

    recipe = reading(trained)
    seen = observations(recipe, drawing.n, drawing.seed, 0)
    if blind:
        seen["images"] = 0 * seen["images"]
    exact = replace(drawing, precision="no")  # as precise as when tried out
    more = kind.ROBOTS.more
    draws = [draw(trained, exact, more=more, seen=seen, first=k * drawing.n)[0] for k in range(kind.DRAWS)]
    x = torch.stack(draws, 1)
    return x, kind.evaluate(recipe, x, seed=drawing.seed)


def _tried(args: Evaluate, trained: "Trained", how: dict[str, Any], told: dict[str, Any]) -> "list[Measurement]":
    """A policy in its simulator; every episode is kept in RUN/episodes.jsonl, each line with its options."""
    from ..kinds.robots.driving import episodes, outcome

    first = (how["seed"] + 1) * 1_000_000  # far from those of demonstrations, which a policy has seen
    seeds, beside = range(first, first + args.episodes), min(args.driving.environments, args.episodes)
    workers = args.workers or (1 if beside else os.cpu_count() or 1)
    options = {"simulator": told["simulator"], "blind": args.blind, "workers": workers, "environments": beside}
    tried = episodes(trained, seeds, **options, **how)
    made = {"checkpoint": trained.step} | how | told
    kept = [{name: part for name, part in asdict(one).items() if name != "recording"} | {"how": made} for one in tried]
    _keep(args, "episodes.jsonl", "".join(json.dumps(one, default=str) + "\n" for one in kept))
    return outcome(tried)


def _kept(args: Evaluate) -> bool:
    """True if results are stored: in a run's folder, but not in one that was exported."""
    return (Path(args.run) / "checkpoints").is_dir()


def _keep(args: Evaluate, name: str, text: str) -> None:
    """Write a file into the run's folder; that of a blind policy beside the other."""
    from ..files import write_file

    path = Path(args.run) / name
    if _kept(args):
        write_file(path.with_stem(f"{path.stem}-blind") if args.blind else path, text.encode())
