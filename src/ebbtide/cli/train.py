"""ebbtide train RECIPE: train and leave a run folder."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..recipes import RECIPES, PointRecipe, Recipe, RobotRecipe
from ..specs import pick
from .arguments import MOST, Flag, hint, parse, said, tell, threads, within

if TYPE_CHECKING:
    from ..data.prepared import Prepared

__all__ = ["Running", "Train", "run", "train"]


@dataclass(frozen=True)
class Running:
    """Training options that don't belong to the recipe."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Stop where a loss or gradient isn't finite, or skip that step; stopping is exit code 3."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Mixed precision; auto is bf16 for convolutions if a trial on this machine is faster."""
    compile: Flag = False
    """Run the network through torch.compile; a minute or more at the start, then faster steps."""
    track: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], hint("none")] = ()
    """Also log to these, where installed; metrics.jsonl is always written."""
    checkpoints: int = 5
    """Number of checkpoints to save over the run."""
    keep: int = 2
    """Number of checkpoints to keep."""
    accumulate: int = 1
    """Number of parts of a batch; more parts need less memory, with the same result."""
    snapshots: int = 24
    """Number of sample sets to save for the run's animation; 0 for none."""
    solvers: Annotated[bool, tyro.conf.arg(name="fit")] = True
    """Fit solvers to the run at its end; for at most 5 % of training."""
    evaluations: Annotated[str, hint("5,10,20; 1,2,4 for a student")] = ""
    """Numbers of evaluations to fit solvers for."""
    threads: int = 0
    """Threads of torch; 0 picks one for a small network."""
    quiet: Flag = False
    """No progress bar."""

    def options(self) -> dict[str, Any]:
        """As `training.run.train` takes them."""
        options = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "quiet"}
        return options | {"progress": not self.quiet}

    def __post_init__(self) -> None:
        within(
            self, accumulate=(1, MOST), checkpoints=(1, MOST), keep=(1, MOST), snapshots=(0, MOST), threads=(0, 1024)
        )


@dataclass(frozen=True)
class Train:
    """Train a recipe. Ctrl-C saves the run and prints how to resume it."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe]
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("runs/RECIPE-DATA")] = ""
    """Folder of the run."""
    resume: Flag = False
    """Continue the run in that folder."""
    overwrite: Flag = False
    """Replace the run in that folder."""
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)


def _help() -> str:
    """Usage, the recipes and some examples."""
    rows = "\n".join(f"  {name:28}{(recipe.__doc__ or '').splitlines()[0]}" for name, recipe in RECIPES.items())
    return f"""usage: ebbtide train RECIPE [OPTIONS]

Train a recipe and leave a run folder: checkpoints, metrics.jsonl, and samples of stages of the training.

recipes (`ebbtide train RECIPE --help` shows the options, with the recipe's defaults):
{rows}

examples:
  ebbtide train flow --data two_moons --out runs/moons
  ebbtide train ddpm --data points.csv --label kind --conditional
  ebbtide train flow --data eight_gaussians --path cosine --target v --network mlp:width=128,depth=3
  ebbtide train flow-images --data digits --conditional
  ebbtide train ddpm-images --data photos/ --size 64 --flip --network unet-small
  ebbtide train flow-latents --data photos/ --size 64 --flip --codec pixels+patches:size=8,keep=24
  ebbtide train pi0-aloha-transfer --data demos.npz --objective diffusion
"""


def run(argv: Sequence[str]) -> None:
    """Parse `RECIPE [OPTIONS]` and train."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(), end="")
        return
    name = pick(RECIPES, argv[0], "recipe")
    args = parse(Train, argv[1:], f"train {name}", Train(_started(RECIPES[name](), argv[1:])))
    out = Path(args.out or f"runs/{name}-{Path(args.recipe.data).stem}")
    from ..training.build import add_own

    if args.resume:
        from ..training.begun import begun, stored

        how = Running(**stored(begun(out) or out))
        args = parse(Train, argv[1:], f"train {name}", Train(_started(RECIPES[name](), argv[1:]), running=how))
    add_own(vars(args.recipe))
    if (
        isinstance(args.recipe, PointRecipe)
        and args.recipe.outside()
        and not args.recipe.validation
        and not args.resume
    ):
        tell(f"All {args.recipe.steps:,} steps are trained for; without --steps training stops by held-out loss.")
    train(args.recipe, out, args.running, resume=args.resume, overwrite=args.overwrite)


def _started(recipe: Recipe, argv: Sequence[str]) -> Recipe:
    """The recipe with all that --objective or --steps decides, which the other options then change."""
    objective = said(argv, "--objective")
    if isinstance(recipe, PointRecipe):
        trains = said(argv, "--steps") is not None or (said(argv, "--validation") or "1").strip("0.") == ""
        return recipe.having({"validation": 0.0}) if trains else recipe
    return recipe if objective is None or not isinstance(recipe, RobotRecipe) else recipe.with_objective(objective)


def train(
    recipe: Recipe,
    out: Path,
    how: Running,
    *,
    resume: bool = False,
    overwrite: bool = False,
    given: "Callable[[Recipe], Prepared] | None" = None,
) -> None:
    """Train in `out`, on the recipe's data or what is given instead, and say where the result is."""
    from ..codecs import Cells
    from ..kinds import kind_of
    from ..kinds.runs import train_recipe
    from ..training.begun import reached
    from ..training.devices import leaving_group

    before = reached(out) if resume else 0
    with leaving_group():
        trained = train_recipe(
            recipe, out, given=given, started=partial(threads, how.threads), resume=resume, overwrite=overwrite,
            **how.options(),
        )  # fmt: skip
    if trained.step == before:
        tell(f"The run {out} is finished already: it has been trained for all of its {before} steps")
    else:
        tell(f"Trained {trained.step} steps; the run is {out}")
    if isinstance(trained.codec, Cells):
        tell(f"The network sees the columns by {trained.codec.about}")
    if finish := kind_of(recipe).finish:
        for figure in finish(out):
            tell("figure:", figure)
    if trained.reconstructs:
        codec = shlex.quote(f"pixels+autoencoder:run={out}")
        tell(f"Train in its latent with: ebbtide train flow-latents --data {shlex.quote(recipe.data)} --codec {codec}")
    else:
        tell(f"Draw from it with: ebbtide sample {shlex.quote(str(out))}")
