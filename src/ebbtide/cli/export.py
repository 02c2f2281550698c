"""ebbtide export RUN: a folder to share, or an upload to the Hugging Face hub."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError
from .arguments import Flag, Weights, hint, opened, parse, tell

__all__ = ["Export", "run"]


@dataclass(frozen=True)
class Export:
    """Write weights, config, model card and manifest: what `ebbtide sample FOLDER` and from_pretrained read."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    built: tyro.conf.OmitArgPrefixes[Weights] = field(default_factory=Weights)
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("none")] = ""
    """Folder to write."""
    push: Annotated[str, hint("nowhere")] = ""
    """Also upload to this hub repository, user/name; log in with `hf auth login` first."""
    license: Annotated[str, hint("none")] = ""
    """The weights' licence, for the model card; as the hub writes it: apache-2.0, cc-by-4.0, …"""
    private: Flag = False
    """Make the repository private."""
    overwrite: Flag = False
    """Replace the folder if it exists."""


def run(argv: Sequence[str]) -> None:
    """Parse, write, upload."""
    args = parse(Export, argv, "export")
    if not (args.out or args.push):
        raise InputError("Say where to: --out FOLDER, --push user/name, or both.")
    if args.private and not args.push:
        raise InputError("--private is for the repository that --push names.")
    trained = opened(args.run, **vars(args.built))
    from ..interop.hub import push_to_hub

    if args.out:
        tell(trained.save_pretrained(args.out, overwrite=args.overwrite, license=args.license), file=sys.stdout)
    if args.push:
        tell(push_to_hub(trained, args.push, private=args.private, license=args.license), file=sys.stdout)
