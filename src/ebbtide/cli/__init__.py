"""The `ebbtide` command: one module per command, imported only when it is called, so that --help needs no torch."""

import functools
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import EbbtideError, InputError, StorageError, printable
from ..signals import Interrupted, handled, stop
from ..version import __version__

__all__ = ["COMMANDS", "HELP", "main"]

# name: (module, what it does); the module's `run(argv)` does it.
COMMANDS = {
    "train": ("train", "train a recipe: ebbtide train flow --data two_moons --out runs/moons"),
    "resume": ("resume", "continue an interrupted run: ebbtide resume runs/moons"),
    "sample": ("sample", "draw from a run: ebbtide sample runs/moons --n 1000"),
    "evaluate": ("evaluate", "measure a run's samples against real data, each metric beside its floor"),
    "likelihood": ("likelihood", "log-density of data under a run, with error bars: ebbtide likelihood runs/moons"),
    "certify": ("certify", "measure what samplers promise, on exact answers: ebbtide certify heun"),
    "demos": ("demos", "record scripted demonstrations in a simulator: ebbtide demos aloha-transfer"),
    "rollout": ("rollout", "drive a simulator with a policy, and film it: ebbtide rollout runs/policy"),
    "distill": ("distill", "make a student that samples in one step: ebbtide distill runs/moons --out runs/fast"),
    "compare": ("compare", "the main job: diffusion, flow matching and other methods side by side, with a report"),
    "plot": ("plot", "draw what a run learned: samples, trajectories, fields, losses, animations"),
    "show": ("show", "draw a path (the forward process) or a data set: ebbtide show path"),
    "lab": ("lab", "watch methods learn and sample, in the browser: ebbtide lab runs/moons"),
    "tune": ("tune", "find the best sampler and grid for a run: ebbtide tune runs/moons --evaluations 10"),
    "export": ("export", "write a run as a folder to share, or push it to the Hugging Face hub"),
    "list": ("listing", "list recipes, data sets, paths, targets, samplers, grids, metrics"),
    "completion": ("completion", 'print a script for your shell: eval "$(ebbtide completion bash)"'),
    "cache": ("cache", "list or remove what can be made again: decoded images, latents, trajectories"),
    "cite": ("cite", "print the BibTeX of the paper behind a recipe: ebbtide cite flow"),
}

HELP = f"""usage: ebbtide COMMAND [OPTIONS]

Diffusion and flow matching in one piece: any sampler on any checkpoint.

commands:
{chr(10).join(f"  {name:11}{about}" for name, (_, about) in COMMANDS.items())}

options:
  -h, --help     show this help; `ebbtide COMMAND --help` shows a command's
  --version      show the version

exit codes: 0 done; 1 unexpected error; 2 bad input; 3 training diverged; 4 disk full or read-only; 5 not certified;
            129, 130, 143 stopped by a signal
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is the return value. Errors are one sentence on stderr."""
    args = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ² or σ shows ? instead
    try:
        with handled(stop), warnings.catch_warnings():
            said = functools.cache(_note)  # data is read several times, and what there is to say of it is said once
            of_ours = (action for action, _, category, *_ in warnings.filters if issubclass(UserWarning, category))
            if next(of_ours, "") == "error":  # -W error is for code, not for notices
                warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: said(str(message))
            return _main(args)
    except BaseException as error:  # Python 3.11 turns what is raised while a class is made into a RuntimeError
        stopped = next((one for one in (error, error.__cause__) if isinstance(one, KeyboardInterrupt)), None)
        if stopped is None:
            raise
        told = stopped if isinstance(stopped, Interrupted) else Interrupted()
        _say(told)
        return told.exit_code


def _main(args: list[str]) -> int:
    try:
        if not args or args[0] in ("-h", "--help"):
            print(HELP, end="", flush=True)
            return 0
        if args[0] == "--version":
            print(f"ebbtide {__version__}")
            return 0
        for arg in args:
            if not arg.isascii() and arg.encode(errors="replace").decode() != arg:
                raise InputError(f"{arg!r} is not UTF-8 text.")
        from ..specs import pick

        module, _ = COMMANDS[pick(COMMANDS, args[0], "command")]
        importlib.import_module(f".{module}", __name__).run(args[1:])
        sys.stdout.flush()  # what is held back would be written when Python ends, where a broken pipe is an error
    except EbbtideError as error:
        _say(error)
        return error.exit_code
    except SystemExit as shown:
        if shown.code in (None, 0, 2):  # tyro has shown a command's help
            return shown.code or 0
        _say(f"A function outside ebbtide ended the command by sys.exit({shown.code!r}).")
        return EbbtideError.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from ..files import near, refused

        missing = isinstance(error, FileNotFoundError) and isinstance(error.filename, str)
        guess = near(Path(error.filename)) if missing else ""
        _say(f"Can't use {error.filename}: {error.strerror}{guess}." if error.filename else f"{error}.")
        return StorageError.exit_code if refused(error) else InputError.exit_code
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _NO_MEMORY):
            raise
        _say("Not enough memory for this; ask for less at once: fewer points, samples or steps, a smaller network.")
        return InputError.exit_code
    return 0


_NO_MEMORY = ("allocate memory", "out of memory", "Storage size calculation overflowed")  # what torch says


def _note(what: str) -> None:
    """A warning, which every process has, and the first one says."""
    from ..progress import leads

    if leads():
        _say(what)


def _say(what: object) -> None:
    """One line on stderr."""
    text = printable(what)
    print("ebbtide:", text if len(text) <= 1000 else f"{text[:600]} … {text[-300:]}", file=sys.stderr)
