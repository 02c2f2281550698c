"""lerobot-ebbtide RUN --out FOLDER: an ebbtide run as a folder that LeRobot's commands take as --policy.path."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ebbtide.errors import InputError
from ebbtide.files import writing_folder

from .modeling_ebbtide import EbbtidePolicy
from .processor_ebbtide import make_ebbtide_pre_post_processors

__all__ = ["convert", "main"]


def convert(run: str, out: str | Path, **settings: object) -> Path:
    """Write the policy of a run, its configuration and its processors; InputError where `out` exists.

    settings: fields of EbbtideConfig.
    """
    folder = Path(out)
    if folder.exists():
        raise InputError(f"{out} exists; choose another folder.")
    policy = EbbtidePolicy.from_run(run, **settings)
    with writing_folder(folder) as temporary:
        policy.save_pretrained(temporary)
        for pipeline in make_ebbtide_pre_post_processors(policy.config):
            pipeline.save_pretrained(temporary)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("lerobot-ebbtide", description=__doc__)
    parser.add_argument("run", help="folder of the run, or user/name on the hub")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--cameras", default="", help="LeRobot's keys of its images, in the run's order, by comma")
    parser.add_argument("--state-names", default="", help="columns of observation.state, by comma")
    given = parser.parse_args(argv)
    settings = {name: list(filter(None, getattr(given, name).split(","))) for name in ("cameras", "state_names")}
    try:
        print(convert(given.run, given.out, **settings))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
