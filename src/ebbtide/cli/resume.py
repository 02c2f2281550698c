"""ebbtide resume RUN: continue an interrupted run exactly where it was saved."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import InputError
from ..recipes import Recipe
from .arguments import Rows, hint, parse, rows_of_run
from .train import Running, train

if TYPE_CHECKING:
    from ..data.prepared import Prepared

__all__ = ["Resume", "Training", "run"]


@dataclass(frozen=True)
class Training(Rows):
    """Functions of the user's own that only training needs too."""

    times: Annotated[str, hint("the run's")] = ""
    """The run's training times, if they are a function of your own; as module:function."""
    weight: Annotated[str, hint("the run's")] = ""
    """The run's loss weight, if it is a function of your own; as module:function."""
    coupling: Annotated[str, hint("the run's")] = ""
    """The run's coupling, if it is a function of your own; as module:function."""


@dataclass(frozen=True)
class Resume:
    """Continue a run; on a CPU the result is the same, bit for bit, as without the interruption.

    It opens the data that the run names: resume only a run that you would train yourself.
    It continues as it began: precision, checkpoints, snapshots and so on are stored with it; options given here
    replace the stored ones.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    data: Annotated[str, hint("the run's")] = ""
    """For a run on data in memory; a file that holds the same rows."""
    rows: tyro.conf.OmitArgPrefixes[Training] = field(default_factory=Training)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)


def run(argv: Sequence[str]) -> None:
    """Parse `RUN [OPTIONS]` and continue training."""
    args = parse(Resume, argv, "resume")
    from ..training.begun import begun, recipe_of, stored
    from ..training.build import add_own

    if (where := begun(args.run)) is None:
        raise InputError(f"{args.run} is not the folder of a run.")
    args = parse(Resume, argv, "resume", Resume(args.run, running=Running(**stored(where))))
    add_own(vars(args.rows))
    recipe = recipe_of(where)
    rows_of_run(args.run, recipe, vars(args.rows))
    command = shlex.join(["ebbtide", "resume", *argv])
    train(recipe, args.run, args.running, command=command, resume=True, given=_given(recipe, args, where))


def _given(recipe: Recipe, args: Resume, where: Path) -> "Callable[[Recipe], Prepared] | None":
    """The file that stands for data in memory, ready for a recipe to train on; None for a run on a file or set."""
    from ..kinds import kind_of
    from ..kinds.runs import from_pretrained, on_its_data
    from ..training.storage import unnamed

    if not recipe.in_memory:
        if args.data:
            raise InputError(f"--data is for runs on data in memory; {args.run} was trained on {recipe.data}.")
        return None
    if not args.data:
        raise InputError(unnamed("data", recipe.data))
    trained = on_its_data(from_pretrained(where, data=args.data), args.data, args.run)
    named = {name: value for name, value in vars(trained.reading()).items() if value != getattr(trained.recipe, name)}

    def prepared(own: Recipe) -> "Prepared":
        return kind_of(own).prepare(replace(own, **named), trained.codec)._replace(columns=trained.columns)

    return prepared
