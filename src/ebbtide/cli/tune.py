"""ebbtide tune RUN: find the best sampler, grid and order for a run and a number of evaluations."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..errors import InputError
from .arguments import MOST, Computing, Rows, given, hint, opened, parse, tell, within

if TYPE_CHECKING:
    from ..core.denoiser import DenoiserLike
    from ..exact.tuned import Tuned

__all__ = ["Searched", "Tune", "describe", "run", "shorten"]


@dataclass(frozen=True)
class Searched(Rows):
    """The same of a run; of the oracle its path."""

    path: Annotated[str, hint("linear, or the run's")] = ""
    """The oracle's path; of a run only its own, as module:function, if it is a function of yours."""


@dataclass(frozen=True)
class Tune:
    """Search solvers, their orders, grids and their parameters for those that come closest to the run's own finely
    integrated flow with N evaluations of its network; `ebbtide sample RUN --steps auto` then uses the winner."""

    run: tyro.conf.Positional[str]
    """Folder of the run; or oracle, an exact denoiser of three modes, whose winner is printed only."""
    evaluations: int = 10
    """Network evaluations per sample."""
    aim: Literal["both", "rms", "median"] = "both"
    """Error to minimise; rms is dominated by the few samples near borders between modes."""
    depth: Literal["grids", "times", "weights"] = "weights"
    """Extent of the fit; the grids' parameters, then the times themselves, then (up to 20 evaluations) every weight of
    every step, which takes longest."""
    n: int = 512
    """Number of starts; half are for fitting, a quarter for selection, a quarter for judging."""
    seed: int = 0
    """Seed of the starts."""
    rows: tyro.conf.OmitArgPrefixes[Searched] = field(default_factory=Searched)
    source: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The file from which the run starts; needed if it was trained elsewhere."""
    reference: int = 400
    """Runge-Kutta steps of the reference."""
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)

    def __post_init__(self) -> None:
        within(self, evaluations=(1, 1000), n=(4, 10**6), seed=(0, MOST), reference=(10, 10**6))


def run(argv: Sequence[str]) -> None:
    """Parse, search, store the winner in the run."""
    args = parse(Tune, argv, "tune")
    import torch

    from ..core.paths import PATHS
    from ..core.randomness import Draws
    from ..exact.tune import tune
    from ..exact.tuned import TUNED, write_tuned
    from ..progress import percent_bar
    from ..specs import add_row, bind

    trained, cond, rivals = None, {}, []
    denoiser: DenoiserLike
    if args.run == "oracle" and not Path("oracle").is_dir():
        from ..exact.certify import modes

        if said := [*given(args, "source"), *given(args.rows, "network", "target")]:
            raise InputError(f"{said[0]} is for runs; the oracle is no network, and starts from noise.")
        if args.computing.device not in ("cpu", "auto"):
            raise InputError(f"--device {args.computing.device} is for networks, and the oracle is none.")
        torch.set_num_threads(args.computing.threads or 1)
        add_row(PATHS, spec := args.rows.path or "linear")
        denoiser = modes(bind(PATHS, spec, "path")())
        start = denoiser.path.prior(Draws.first(args.n, args.seed)(-1, torch.empty(args.n, 2, dtype=torch.float64)))
    else:
        if not Path(args.run).is_dir():
            raise InputError(f"{args.run} is not a folder, and the winner is stored in the run's own.")
        if not (Path(args.run) / "checkpoints").is_dir():
            raise InputError(f"{args.run} is no run; tune the run that it came from, and export it again.")
        trained = opened(args.run, source=args.source, **vars(args.rows))
        if trained.observation is not None:
            raise InputError(f"A sampler is tuned for runs without observations; {args.run} is a policy.")
        args.computing.place(trained)
        denoiser, (_, start) = trained.denoiser, next(trained.trajectory(args.n, seed=args.seed))
        start, labels = trained.to_network(start), trained.labels(None, args.n, Draws.first(args.n, args.seed))
        cond = {} if labels is None else {"label": labels}
        known = [one for one in trained.tuned if one.weights and one.evaluations == args.evaluations]
        rivals = [(one.sampler, one.grid, one.steps) for one in known]
    with percent_bar("tuning") as moved:
        found = tune(
            denoiser, start, args.evaluations, aim=args.aim, depth=args.depth, reference_steps=args.reference,
            progress=lambda stage, share: moved(share, f"tuning: {stage}"), cond=cond, rivals=rivals,
        )  # fmt: skip
    print(describe(found))
    if trained is not None:
        from ..files import write_file

        path = Path(args.run) / TUNED
        others = [one for one in trained.tuned if one.evaluations != found.evaluations]
        write_file(path, write_tuned([*others, replace(found, weights=trained.fingerprint())]))
        tell(f"stored in {path}; ebbtide sample {shlex.quote(str(args.run))} --steps auto uses it")


def shorten(text: str, most: int) -> str:
    """The text, or where it has more than `most` characters its beginning; tuned.json has the rest."""
    return text if len(text) <= most else f"{text[:most]} …"


def describe(found: "Tuned") -> str:
    """The solver that was found, in words."""
    return (
        f"{found.evaluations} evaluations: {found.steps} steps of {shorten(found.sampler, 200)}\n"
        f"on the grid {shorten(found.grid, 200)}\n"
        f"RMS {found.rms:.2g}, median {found.median:.2g} from the flow's own end, which is known to {found.error:.1g}; "
        f"the best of the usual solvers on the uniform grid comes to RMS {found.usual:.2g}"
    )
