"""ebbtide train RECIPE: train and leave a run folder."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from ..progress import leads
from ..recipes import RECIPES, PointRecipe, Recipe, RobotRecipe
from ..specs import pick
from . import config
from .arguments import MOST, Flag, Tracker, hint, parse, said, tell, threads, within

if TYPE_CHECKING:
    from torch import nn

    from ..data.prepared import Prepared

__all__ = ["Running", "Train", "again", "run", "train"]


@dataclass(frozen=True)
class Running:
    """Training options that don't belong to the recipe."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Stop where a loss or gradient isn't finite, or skip that step; stopping is exit code 3."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Mixed precision; auto is bf16 for convolutions if a trial on this machine is faster."""
    device: str = "auto"
    """Device to train on; cpu, cuda, cuda:1, mps, or auto for the first accelerator."""
    compile: bool = False
    """Run the network through torch.compile; a minute or more at the start, then faster steps."""
    track: Annotated[tuple[Tracker, ...], hint("none")] = ()
    """Also log to these, where installed; metrics.jsonl is always written."""
    checkpoints: int = 5
    """Number of checkpoints to save over the run."""
    keep: int = 2
    """Number of checkpoints to keep."""
    accumulate: int = 1
    """Number of parts of a batch; more parts need less memory, with the same result."""
    data_on: Literal["auto", "device", "host", "disk"] = "auto"
    """Place of the data; auto is the first of device, memory and disk that holds them."""
    engine: Literal["replicated", "fsdp"] = "replicated"
    """Place of the weights; fsdp shares them out among torchrun's processes."""
    snapshots: int = 24
    """Number of sample sets to save for the run's animation; 0 for none."""
    solvers: Annotated[bool, tyro.conf.arg(name="fit")] = True
    """Fit solvers to the run at its end; for at most 5 % of training."""
    evaluations: Annotated[str, hint("5,10,20; 1,2,4 for a student")] = ""
    """Numbers of evaluations to fit solvers for."""
    threads: int = 0
    """Threads of torch; 0 picks one for a small network."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
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
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("runs/RECIPE-DATA, or RUN-again")] = ""
    """Folder of the run."""
    config: Annotated[str, hint("none")] = ""
    """TOML file of these options, which others replace; its paths begin in the working directory, as here."""
    like: Annotated[str, tyro.conf.arg(name="from"), hint("none")] = ""
    """Run to train the same again, or longer with --steps; in place of RECIPE."""
    print_config: Flag = False
    """Print the run as a file for --config, and train nothing."""
    resume: Flag = False
    """Continue the run in that folder."""
    restartable: Flag = False
    """Continue the run in that folder, or begin it; for jobs that are restarted."""
    overwrite: Flag = False
    """Replace the run in that folder."""
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)


def _help() -> str:
    """Usage, the recipes and some examples."""
    rows = "\n".join(f"  {name:28}{(recipe.__doc__ or '').splitlines()[0]}" for name, recipe in RECIPES.items())
    return f"""usage: ebbtide train RECIPE [OPTIONS]
       ebbtide train --config run.toml [OPTIONS]
       ebbtide train --from RUN [OPTIONS]

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
  ebbtide train flow --data two_moons --steps 900 --print-config > run.toml
  ebbtide train --from runs/moons --steps 9000 --out runs/longer
"""


def run(argv: Sequence[str]) -> None:
    """Parse `RECIPE [OPTIONS]`, with the recipe perhaps from a file or a run, and train."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(), end="")
        return
    name, typed = ("", argv) if argv[0].startswith("-") else (argv[0], argv[1:])
    file, like = said(typed, "--config"), said(typed, "--from")
    name, base, how, words = _described(name, typed, file, like)

    def parsed(words: Sequence[str], how: Running) -> Train:
        return parse(Train, words, f"train {name}".strip(), Train(_started(base, words), running=how))

    try:
        args = parsed(words, how)
    except InputError as error:
        if file is not None:  # which one of the two is it about?
            with config.named(file):
                parsed(words[: len(words) - len(typed)], how)
        raise error
    out = Path(args.out or (f"{like.rstrip('/')}-again" if like else f"runs/{name}-{Path(args.recipe.data).stem}"))
    if file is not None:
        config.found(file, args.recipe)
    if args.print_config:
        print(config.as_text(args), end="")
        return
    from ..training.build import add_own

    if args.resume:
        from ..training.begun import begun, stored

        args = parsed(words, replace(how, **stored(begun(out) or out)))
    add_own({field: spec for field in base.rows if (spec := said(typed, f"--{field}")) is not None})
    note = ""
    if (
        isinstance(args.recipe, PointRecipe)
        and args.recipe.outside()
        and not args.recipe.validation
        and not args.resume
        and like is None
    ):
        note = f"All {args.recipe.steps:,} steps are trained for; without --steps training stops by held-out loss."
    train(
        args.recipe, out, args.running, command=shlex.join(["ebbtide", "train", *argv]), resume=args.resume,
        overwrite=args.overwrite, restartable=args.restartable, note=note,
    )  # fmt: skip


def _described(
    name: str, typed: Sequence[str], file: str | None, like: str | None
) -> tuple[str, Recipe, Running, list[str]]:
    """A run by a recipe's name, a file or another run: the name, the recipe and options, and words that change them."""
    if file is not None and like is not None:
        raise InputError("--config and --from each describe a whole run; give one of them.")
    if like is not None:
        if name:
            raise InputError(f"--from {like} has its own recipe; leave {name} out.")
        base, how = again(like, typed)
        return "", base, Running(**how), list(typed)
    lines = {} if file is None else config.read(file)
    if name and lines.get("recipe", name) != name:
        raise InputError(f"{file} is a run of {lines['recipe']}, not of {name}; leave {name} out.")
    if not (name := name or str(lines.get("recipe", ""))):
        where = "" if file is None else f"{file} names none: "
        raise InputError(f'RECIPE is missing; {where}ebbtide train flow, or recipe = "flow" in a file for --config.')
    base = RECIPES[pick(RECIPES, name, "recipe")]()
    return name, base, Running(), [*config.words_of(file or "", lines, Train(base)), *typed]


def again(run: str, typed: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a run and its training options; InputError where it isn't this user's and names more than is typed.

    Trained for other steps, its learning rate falls over all of them.
    """
    from ..kinds.runs import run_files
    from ..training import seal
    from ..training.begun import begun, recipe_in
    from ..training.storage import unnamed

    where, files = run_files(begun(Path(run)) or run)
    recipe, how = recipe_in(where, files)
    if not seal.holds(files, recipe):
        for field, name in recipe.outside().items():
            option = field if field in vars(recipe) else "network"
            if said(typed, f"--{option}") is None:
                raise InputError(unnamed(field, name))
    changed = said(typed, "--steps") is not None and recipe.lr_steps
    return replace(recipe, lr_steps=0) if changed else recipe, how


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
    command: str,
    resume: bool = False,
    overwrite: bool = False,
    restartable: bool = False,
    given: "Callable[[Recipe], Prepared] | None" = None,
    note: str = "",
) -> None:
    """Train in `out`, on the recipe's data or what is given instead, and say where the result is.

    how: the options of training. command: as the user typed it, which config.json stores. restartable: resume if the
    first process finds a run there. note: told once everything has been checked.
    """
    from ..codecs import Cells, Mixed
    from ..kinds import kind_of
    from ..kinds.runs import train_recipe
    from ..training.begun import begun, reached
    from ..training.devices import agreed, leaving_group

    if restartable and (resume or overwrite):
        raise InputError(f"--restartable resumes or begins a run; leave --{'resume' if resume else 'overwrite'} out.")

    def started(denoiser: "nn.Module") -> None:
        if note:
            tell(note)
        threads(how.threads, denoiser)

    with leaving_group():
        resume = resume or (restartable and agreed(begun(out) is not None, how.device))
        before = reached(out) if resume else 0
        trained = train_recipe(
            recipe, out, given=given, started=started, resume=resume, overwrite=overwrite,
            command=command, **how.options(),
        )  # fmt: skip
    if trained.step == before:
        tell(f"The run {out} is finished already: it has been trained for all of its {before} steps")
    else:
        tell(f"Trained {trained.step} steps; the run is {out}")
    if isinstance(trained.codec, Cells):
        seen = trained.codec.about
        tell(f"The network sees {seen if isinstance(trained.codec, Mixed) else f'the columns by {seen}'}")
    if leads() and (finish := kind_of(recipe).finish):
        for figure in finish(out, trained):
            tell("figure:", figure)
    if trained.reconstructs:
        codec = shlex.quote(f"pixels+autoencoder:run={out}")
        tell(f"Train in its latent with: ebbtide train flow-latents --data {shlex.quote(recipe.data)} --codec {codec}")
    else:
        tell(f"Draw from it with: ebbtide sample {shlex.quote(str(out))}")
