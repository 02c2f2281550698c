"""ebbtide certify [SAMPLER …]: measure whether a sampler, or a run of two times, keeps its promises."""

import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import CertificationError, InputError, printable
from ..specs import add_row, pick
from .arguments import MOST, Computing, Flag, Named, given, hint, opened, parse, tell, within

if TYPE_CHECKING:
    from ..exact.certify import Check
    from ..interop.certified import Certificate
    from ..samplers import Facts, Stepper

__all__ = ["Certify", "run"]


@dataclass(frozen=True)
class OfRun(Named):
    """Options of runs."""

    path: tyro.conf.Suppress[str] = ""
    n: int = 512
    """Number of starts."""
    seed: int = 0
    """Seed of the starts."""


@dataclass(frozen=True)
class Certify:
    """Measure samplers on problems with exact answers, on every path: order of convergence on even and uneven grids,
    errors by number of evaluations, moments and distances beside their floors, agreement with their equivalents. Of a
    run whose network spans two times: whether its jumps lead where its own flow does."""

    samplers: Annotated[tyro.conf.Positional[tuple[str, ...]], hint("every sampler")] = ()
    """Samplers as in heun or exponential:order=3, or your own as module:function; folders of runs; other libraries'
    solvers, as in diffusers:DPMSolverMultistepScheduler:solver_order=3, or all of one, as in azula."""
    path: Annotated[tuple[str, ...], hint("all")] = ()
    """On these paths only; rows of `ebbtide list paths`, or your own as module:function, as also of a run."""
    order: int = 0
    """The order that your own function promises; 0 skips this check."""
    stochastic: Flag = False
    """Declare that your own function draws noise."""
    json: Annotated[str, hint("none")] = ""
    """Also write every check to this file."""
    out: Annotated[str, hint("none")] = ""
    """Of other libraries' solvers: also write an HTML page to this file."""
    verbose: Flag = False
    """Print every check, not only those that failed or don't apply."""

    of_run: tyro.conf.OmitArgPrefixes[OfRun] = field(default_factory=OfRun)
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)

    def __post_init__(self) -> None:
        within(self, order=(0, 20))
        within(self.of_run, n=(1, 10**6), seed=(0, MOST))


def run(argv: Sequence[str]) -> None:
    """Parse, certify, print a row a sampler and path; CertificationError where a promise isn't kept."""
    args = parse(Certify, argv, "certify")
    out = Path(args.json)
    if args.json and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--json must be a file in a folder that exists; got {args.json!r}.")
    import torch
    from tqdm import tqdm

    from ..core.paths import PATHS
    from ..exact.certify import SPECS, certify, checks_to_json
    from ..progress import progress_bar

    torch.set_num_threads(1)
    if any(Path(spec).is_dir() for spec in args.samplers):
        _runs(args, out)
        return
    if idle := [*given(args.of_run), *given(args.computing)]:
        raise InputError(
            f"{idle[0]} is for runs; name the folder of one. Samplers are measured on the CPU, in float64."
        )
    from ..interop.certified import is_foreign

    if any(map(is_foreign, args.samplers)):
        _foreign(args, out)
        return
    if args.out:
        raise InputError("--out is a page of other libraries' solvers; name one, as in diffusers:DDIMScheduler.")
    wanted = [(spec, *_named(spec, args)) for spec in args.samplers or SPECS]
    if (idle := given(args, "order", "stochastic")) and all(promised is None for *_, promised in wanted):
        raise InputError(f"{idle[0]} declares what a function of your own promises; name one as module:function.")
    for path in args.path:
        add_row(PATHS, path)
    paths, failed = [pick(PATHS, path, "--path") for path in args.path] or list(PATHS), 0
    results: dict[str, list[Check]] = {}
    print(_HEAD)
    with progress_bar(len(wanted) * len(paths), "certifying", "path", leave=False) as bar:
        for spec, sampler, promised in wanted:
            results[spec] = []
            for path in paths:
                bar.set_description(f"{printable(spec)} on {path}")
                checks = list(certify(sampler, (path,), promised))
                results[spec] += checks
                failed += any(check.passed is False for check in checks)
                with tqdm.external_write_mode(file=sys.stdout):
                    tell(_line(spec, path, checks), file=sys.stdout)
                    for check in checks:
                        if args.verbose or check.passed is False or check.name in ("refused", "runs"):
                            tell(f"    {_verdict(check)}", file=sys.stdout)
                bar.update()
    if args.json:
        from ..files import write_file

        write_file(out, (checks_to_json(results) + "\n").encode())
    if failed:
        raise CertificationError(f"{failed} of {len(wanted) * len(paths)} certificates failed; see the lines above.")
    for spec, checks in results.items():
        refusals = [check.why for check in checks if check.name == "refused"]
        if refusals and all(check.passed is None for check in checks):
            raise InputError(f"There is nothing to certify in {spec}, which refuses: {refusals[0]}")
    pairs = len(wanted) * len(paths)
    judged = sum(check.passed is not None for checks in results.values() for check in checks)
    print(f"{pairs} certificate{'s'[: pairs > 1]}, {judged} checks: all kept.")


def _runs(args: Certify, out: Path) -> None:
    """Print a table for each run; CertificationError where one isn't an estimate toward its own time."""
    from ..exact.certify import checks_to_json
    from ..exact.maps import certify_map
    from ..tables import aligned

    if idle := given(args, "order", "stochastic"):
        raise InputError(f"{idle[0]} is for samplers, and a run is none.")
    if len(args.path) > 1:
        raise InputError(f"--path must be the run's, if it is a function of your own; got {', '.join(args.path)}.")
    named = {**vars(args.of_run), "path": "".join(args.path)}
    n, seed = named.pop("n"), named.pop("seed")
    results: dict[str, list[Check]] = {}
    for run in args.samplers:
        trained = opened(run, **named)
        if not trained.denoiser.spans:
            raise InputError(f"{run} has a network that spans a single time, so there are no jumps to certify.")
        args.computing.place(trained)
        cond = trained.context(n, seed, 0, None)
        if (labels := trained.labels(trained.in_proportion(n), n)) is not None:
            cond |= {"label": labels}
        start = trained.to_network(next(trained.trajectory(n, seed=seed))[1])
        results[run] = checks = list(certify_map(trained.denoiser.eval(), start, cond=cond))
        cells = [(run, "found", "promised", "")]
        for check in checks:
            verdict = "" if check.passed is None else "kept" if check.passed else "FAILED"
            cells.append((check.name, f"{check.found:.3g}", check.promised or check.why, verdict))
        for line in aligned(cells)[0]:
            tell(line, file=sys.stdout)
    print(_FOUND)
    if args.json:
        from ..files import write_file

        write_file(out, (checks_to_json(results) + "\n").encode())
    if failed := [run for run, checks in results.items() if any(check.passed is False for check in checks)]:
        raise CertificationError(f"{', '.join(failed)}: toward its own time an estimate isn't the estimate.")


def _foreign(args: Certify, out: Path) -> None:
    """Print a table of other libraries' solvers, and write it as a page; CertificationError for a broken promise."""
    from importlib.metadata import PackageNotFoundError, version

    from ..files import write_file
    from ..interop.certified import FOREIGN, HEADS, certificates, is_foreign, page, solvers_of, table_cells, verdict_of

    if ours := [spec for spec in args.samplers if not is_foreign(spec)]:
        raise InputError(f"{ours[0]} is of none of {', '.join(FOREIGN)}; certify it by itself.")
    if idle := given(args, "path", "order", "stochastic"):
        raise InputError(f"{idle[0]} is for samplers of ebbtide; a library's have their own.")
    if args.out and (Path(args.out).is_dir() or not Path(args.out).parent.is_dir()):
        raise InputError(f"--out must be a file in a folder that exists; got {args.out!r}.")
    found: list[Certificate] = []
    form = "{:58} {:20} {:22} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  {}"
    for spec in dict.fromkeys(one for each in args.samplers for one in solvers_of(each)):
        for one in certificates(spec):
            if not found:
                print(form.format(*HEADS))
            found.append(one)
            tell(form.format(*table_cells(one)), file=sys.stdout)
    refused = [one.refused for one in found if one.refused]
    if len(refused) == len(found):
        raise InputError(f"There is nothing to certify in {', '.join(args.samplers)}, which refuses: {refused[0]}.")
    versions: dict[str, str] = {}
    for name in dict.fromkeys(spec.partition(":")[0] for spec in args.samplers):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "of an unknown version"
    if args.out:
        written = page(found, versions, f"ebbtide certify {' '.join(map(shlex.quote, args.samplers))}")
        write_file(Path(args.out), written.encode())
    if args.json:
        rows = [{key: _finite(value) for key, value in one._asdict().items()} for one in found]
        write_file(out, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())
    if failed := sum(bool(one.failed) for one in found):
        raise CertificationError(f"{failed} of {len(found)} certificates failed; see the lines above.")
    print(verdict_of(found))


def _finite(value: Any) -> Any:
    """A value for JSON, which has no other numbers than finite ones: None for those."""
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_FOUND = "found: the largest difference of u and v; beside others, √ mean |a - b|² over √ mean |b|² of where they lead"


def _named(spec: str, args: Certify) -> tuple["Stepper | str", "Facts | None"]:
    """A row of SAMPLERS, or a function of the user's own, there or outside, with what it declares."""
    from ..samplers import SAMPLERS, Facts, Sampler
    from ..specs import Own, bind, typed

    own = typed(SAMPLERS, spec)
    function = own.function if isinstance(own, Own) else bind(SAMPLERS, own, "sampler").func
    if isinstance(function, Sampler):
        return spec, None
    return own, Facts(args.order or int(getattr(function, "order", 0)), noise=args.stochastic)


_HEAD = (
    f"{'sampler':44} {'path':7} {'order':>11} {'RMS at 10':>10} {'at 20':>8} {'at 50':>8} {'at 100':>8} "
    f"{'std bias':>9} {'SW₂':>7}  kept"
)


def _line(spec: str, path: str, checks: list["Check"]) -> str:
    """One row: what was found, then how many of the checks that apply were kept."""
    found = {check.name: check.found for check in checks}

    def show(name: str, form: str) -> str:
        value = found.get(name, float("nan"))
        return "-" if value != value else f"{value:{form}}"

    order = "/".join(show(f"order, {kind} grid", ".2f") for kind in ("even", "uneven"))
    errors = [show(f"RMS at {budget}", ".1e") for budget in (10, 20, 50, 100)]
    judged = [check.passed for check in checks if check.passed is not None]
    return (
        f"{spec:44} {path:7} {'-' if order == '-/-' else order:>11} {errors[0]:>10} "
        + " ".join(f"{error:>8}" for error in errors[1:])
        + f" {show('bias of the std at 200 steps', '.1e'):>9} {show('sliced W₂ at 200 steps', '.4f'):>7}"
        + f"  {sum(judged)}/{len(judged)}"
    )


def _verdict(check: "Check") -> str:
    """One check in words."""
    word = {True: "kept", False: "FAILED", None: "does not apply"}[check.passed]
    found = "" if check.found != check.found else f": {check.found:.3g}, promised {check.promised}"
    return f"{word}: {check.name}{found}{f' ({check.why})' if check.why else ''}"
