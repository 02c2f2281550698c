"""ebbtide lab: a page in the browser where methods learn, and runs sample."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError
from .arguments import Flag, Weights, given, hint, opened, parse, tell, within

__all__ = ["Lab", "run"]


@dataclass(frozen=True)
class Lab:
    """Watch methods learn, see runs sample, and compare them, on a page in the browser; Ctrl-C ends it."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders of runs to sample, or names on the hub; the first two are shown side by side."""
    data: Annotated[str, hint("chosen on the page")] = ""
    """Data to learn, as in `ebbtide train`; with runs, the data that they were trained on."""
    built: tyro.conf.OmitArgPrefixes[Weights] = field(default_factory=Weights)
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's opens the lab to its network."""
    port: Annotated[int, hint("a free one")] = 0
    """Port to listen on."""
    open: bool = True
    """Open the page in a browser."""
    export: Annotated[str, hint("none")] = ""
    """Write the run as one page that needs no server; a .html file, and nothing is served."""
    overwrite: Flag = False
    """Replace the page of --export if it exists."""

    def __post_init__(self) -> None:
        within(self, port=(0, 65535))
        if self.export and len(self.runs) != 1:
            raise InputError(f"--export writes one run; got {len(self.runs)}.")
        if self.export and (idle := given(self, "host", "port")):
            raise InputError(f"--export serves nothing, so leave {idle[0]} out.")
        if self.overwrite and not self.export:
            raise InputError("--overwrite is for the page of --export; give that too.")


def run(argv: Sequence[str]) -> None:
    """Parse, then write a page or serve one."""
    args = parse(Lab, argv, "lab")
    named = vars(args.built) | {"data": args.data}
    if args.export:
        out = Path(args.export)
        if out.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--export must end in .html; got {args.export!r}.")
        trained = opened(args.runs[0], **named)
        from ..lab.page import export

        export(trained, out, overwrite=args.overwrite)
        tell(out, file=sys.stdout)
        return
    from ..lab.sampling import LabRun
    from ..lab.server import LOOPBACK, serve
    from ..lab.session import learnable

    if args.data and not args.runs:
        learnable(args.data)
    names = [Path(where).name for where in args.runs]
    runs = [
        LabRun(f"run-{k}", name if names.count(name) == 1 else where, where, opened(where, **named))
        for k, (name, where) in enumerate(zip(names, args.runs, strict=True), 1)
    ]
    if args.host not in LOOPBACK:
        tell(f"--host {args.host} lets its network open the lab: whoever has the address can train, and keep runs.")
    serve(runs, "" if args.runs else args.data, args.host, args.port, _told, args.open)


def _told(address: str) -> None:
    tell(f"The lab is open at {address}", file=sys.stdout)
    sys.stdout.flush()
    tell("Ctrl-C ends it.")
