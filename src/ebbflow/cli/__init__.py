"""The `ebbflow` command: one module per command, imported only when it is called, so that --help needs no torch."""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import EbbflowError

# name: (module, what it does); the module's `run(argv)` does it.
COMMANDS = {
    "train": ("train", "train a recipe: ebbflow train flow --data two_moons --out runs/moons"),
    "resume": ("resume", "continue an interrupted run: ebbflow resume runs/moons"),
    "sample": ("sample", "draw from a run: ebbflow sample runs/moons --n 1000"),
    "evaluate": ("evaluate", "measure a run's samples against real data, each metric beside its floor"),
    "compare": ("compare", "the main job: diffusion and flow matching side by side, with a report"),
    "plot": ("plot", "draw what a run learned: samples, trajectories, fields, losses, animations"),
    "show": ("show", "draw a path (the forward process) or a data set: ebbflow show path"),
    "export": ("export", "write a run as a folder to share, or push it to the Hugging Face hub"),
    "list": ("listing", "list recipes, data sets, paths, targets, samplers, grids, metrics"),
    "cite": ("cite", "print the BibTeX of the paper behind a recipe: ebbflow cite flow"),
}

HELP = f"""usage: ebbflow COMMAND [OPTIONS]

Diffusion and flow matching in one piece: any sampler on any checkpoint.

commands:
{chr(10).join(f"  {name:10}{about}" for name, (_, about) in COMMANDS.items())}

options:
  -h, --help     show this help; `ebbflow COMMAND --help` shows a command's
  --version      show the version

exit codes: 0 done; 1 unexpected error; 2 bad input; 3 training diverged; 4 disk full; 130, 143 stopped by a signal
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is the return value. Errors are one sentence on stderr."""
    args = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = lambda message, *_, **__: print(f"ebbflow: {message}", file=sys.stderr)
    try:
        if not args or args[0] in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if args[0] == "--version":
            print(f"ebbflow {__version__}")
            return 0
        from ..specs import pick

        module, _ = COMMANDS[pick(COMMANDS, args[0], "command")]
        importlib.import_module(f".{module}", __name__).run(args[1:])
    except EbbflowError as error:
        print(f"ebbflow: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ebbflow: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
