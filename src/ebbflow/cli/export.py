"""ebbflow export RUN: a folder to share, or an upload to the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError
from .arguments import Flag, hint, parse


@dataclass(frozen=True)
class Export:
    """Write weights, config, model card and manifest: what `ebbflow sample FOLDER` and from_pretrained read."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("none")] = ""
    """Folder to write."""
    push: Annotated[str, hint("nowhere")] = ""
    """Also upload to this hub repository, user/name (log in with `hf auth login` first)."""
    private: Flag = False
    """Make the repository private."""
    overwrite: Flag = False
    """Replace the folder if it exists."""


def run(argv: Sequence[str]) -> None:
    """Parse, write, upload."""
    args = parse(Export, argv, "export")
    if not (args.out or args.push):
        raise InputError("Say where to: --out FOLDER, --push user/name, or both.")
    from ..trained import Trained

    trained = Trained.from_pretrained(args.run)
    if args.out:
        print(trained.save_pretrained(args.out, overwrite=args.overwrite))
    if args.push:
        print(trained.push_to_hub(args.push, private=args.private))
