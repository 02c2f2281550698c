"""Code shared by the commands: parsing with tyro, and its errors as one sentence."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro

from ..errors import InputError, meant, printable
from ..specs import require

if TYPE_CHECKING:
    from torch import nn

    from ..recipes import Recipe
    from ..training.trained import Trained

__all__ = [
    "ITS_OWN", "MOST", "Computing", "Figures", "Flag", "Named", "Rows", "Tracker", "Weights", "flag_only", "given",
    "hint", "if_given", "is_folder", "is_switch", "number_or_auto", "opened", "options", "parse", "rows_of_run", "said",
    "takes_several", "tell", "threads", "within", "writable",
]  # fmt: skip

T = TypeVar("T")
MOST = 2**63 - 1
ITS_OWN = -(2**63)  # stands for a number that isn't given: no option is None, which tyro's help and errors would show
_STYLE = (tyro.conf.PositionalMetavarFromFieldName,)
Tracker = Literal["tensorboard", "wandb", "trackio"]
Flag = tyro.conf.FlagCreatePairsOff[bool]  # --overwrite, without a --no-overwrite


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Fill a dataclass from the command line; what tyro would print in a box becomes one sentence.

    kind: the dataclass. argv: the words to parse. prog: the command, for messages. default: what options start from.
    """
    try:  # not public yet: a version without it prints its own box and exits with 2
        from tyro._errors import on_parse_error
    except ImportError:
        on_parse_error = nullcontext  # type: ignore[assignment]

    see = f"see ebbtide {prog} --help."

    def refuse(event: Any) -> None:
        raise InputError(_sentence(event, see, known))

    known = [f"--{name}" for name in options(kind, default)]
    positional = [one.name.upper() for one in fields(kind) if tyro.conf.Positional in get_args(one.type)[1:]]  # type: ignore[arg-type]
    for word in argv:
        typed = word.partition("=")[0]
        if typed.startswith("--") and (ours := meant_by(typed, known, positional)):
            raise InputError(f"{typed} is {ours} here; {see}")

    given: dict[str, Any] = {} if default is None else {"default": default}
    with on_parse_error(refuse):
        return tyro.cli(kind, args=list(argv), prog=f"ebbtide {prog}", config=_STYLE, **given)


def said(argv: Sequence[str], option: str) -> str | None:
    """The value of an option, needed before argv can be parsed: the last one typed; None if it isn't given."""
    found = None
    for word, value in zip_longest(argv, argv[1:], fillvalue=""):
        if word == option or word.startswith(f"{option}="):
            found = value if word == option else word.removeprefix(f"{option}=")
    return found


def hint(text: str) -> Any:
    """The text that --help shows as the default of an argument whose real default is computed later."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True)
class Computing:
    """The place where a run's network computes."""

    device: str = "cpu"
    """Device of the network; cpu, cuda, cuda:1, mps, or auto for the first accelerator."""
    threads: int = 0
    """Threads of torch; 0 picks one for a small network."""

    def __post_init__(self) -> None:
        within(self, threads=(0, 1024))

    def place(self, trained: "Trained") -> None:
        """Put a run's network there, and set torch's threads."""
        from ..training.devices import device_of, lend

        device = device_of(self.device)
        if device.type != "cpu" and trained.reconstructs:
            raise InputError(f"--device {self.device} is for networks that sample, and this run is an autoencoder.")
        lend(trained.denoiser, device)
        threads(self.threads, trained.denoiser)


@dataclass(frozen=True)
class Figures:
    """The format of figures that don't move."""

    svg: Flag = False
    """Write figures as .svg instead of .png."""
    dpi: Annotated[int, hint("144")] = ITS_OWN
    """Pixels an inch of figures; 300 for print."""

    def __post_init__(self) -> None:
        if self.dpi != ITS_OWN:
            within(self, dpi=(20, 1200))
        if self.svg and self.dpi != ITS_OWN:
            raise InputError("--dpi is for figures of pixels, and --svg has none; give one of them.")

    @property
    def ending(self) -> str:
        """The ending of their files."""
        return ".svg" if self.svg else ".png"

    def saving(self) -> AbstractContextManager[None]:
        """Have figures written so."""
        from ..plots.style import saving

        return saving(self.ending, if_given(self.dpi))


@dataclass(frozen=True)
class Rows:
    """Functions of the user's own that a run is made of: they run because the user names them again."""

    network: Annotated[str, hint("the run's")] = ""
    """The run's network, if it is a function of your own; as module:function."""
    path: Annotated[str, hint("the run's")] = ""
    """The run's path, if it is a function of your own; as module:function."""
    target: Annotated[str, hint("the run's")] = ""
    """The run's target, if it is a function of your own; as module:function."""


@dataclass(frozen=True)
class Weights(Rows):
    """Base weights of a run's network too: opened because the user names them, here or when training."""

    weights: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The folder or hub repository that the network was built on; needed if trained elsewhere."""
    tokenizer: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The folder or hub repository of its tokenizer; needed in the same cases."""


@dataclass(frozen=True)
class Named(Weights):
    """Base weights and data of a run, opened under the same condition."""

    data: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The data that the run was trained on; needed if it was trained elsewhere, or the data was moved."""
    source: Annotated[str, hint("the run's, if you trained it here")] = ""
    """The second set, from which the run starts; needed in the same cases."""


def opened(run: str | Path, **named: str) -> "Trained":
    """A run with what the user named for it; InputError if it was trained on other data, or made of other rows."""
    from ..kinds.runs import from_pretrained, on_its_data
    from ..training.build import add_own

    rows = {one.name: named.pop(one.name) for one in fields(Rows) if one.name in named}
    add_own(rows)
    trained = from_pretrained(run, **{field: name for field, name in named.items() if name})
    rows_of_run(run, trained.recipe, rows)
    return on_its_data(trained, data, run) if (data := named.get("data")) else trained


def rows_of_run(run: str | Path, recipe: "Recipe", rows: Mapping[str, str]) -> None:
    """Refuse rows, by field of the recipe, that aren't those the run was trained with; "" is no row."""
    from ..training.build import contradicts

    for field, name in rows.items():
        if name and contradicts(field, name, its := getattr(recipe, field)):
            raise InputError(f"{name} is not the {field} that {run} was trained with, which is {its}.")


def tell(*what: object, file: Any = None) -> None:
    """Print `what` as a line for people, on stderr or `file`; unprintable characters, as in names, are escaped.

    Of the processes that torchrun started, the first one prints.
    """
    from ..progress import leads

    if leads():
        print(printable(" ".join(map(str, what))), file=file or sys.stderr)


# Our options by the names that users of other libraries type; the first that a command has is meant.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "RUN": ("model", "checkpoint", "ckpt", "ckpt-path", "model-path", "pretrained-model-name-or-path", "policy-path",
            "run", "run-dir"),
    "batch": ("batch-size", "train-batch-size", "per-device-train-batch-size", "bs"),
    "lr": ("learning-rate", "optimizer-lr", "lr-rate"),
    "sample-steps": ("num-inference-steps", "inference-steps", "sampling-steps", "num-sampling-steps"),
    "steps": ("num-inference-steps", "inference-steps", "sampling-steps", "num-sampling-steps", "num-steps",
              "max-steps", "train-steps", "num-train-steps", "max-train-steps", "training-steps", "num-iterations"),
    "steps, a number of batches,": ("epochs", "num-epochs", "num-train-epochs", "max-epochs"),
    "n": ("num-samples", "n-samples", "num-images", "samples", "count"),
    "out": ("output-dir", "output", "output-path", "out-dir", "outdir", "save-dir", "logdir", "log-dir"),
    "video": ("output-dir", "output", "output-path", "out-dir"),
    "seed": ("random-seed", "seed-everything", "rng-seed", "random-state"),
    "data": ("dataset", "dataset-name", "dataset-repo-id", "train-data-dir", "data-dir", "data-path"),
    "label": ("class", "class-label", "label-column", "target-column"),
    "guidance": ("guidance-scale", "cfg", "cfg-scale"),
    "sampler": ("scheduler", "solver", "noise-scheduler"),
    "network": ("model", "arch", "architecture", "policy-type"),
    "precision": ("mixed-precision", "dtype", "fp16", "bf16", "amp"),
    "device": ("gpu", "cuda", "policy-device", "accelerator"),
    "size": ("resolution", "image-size", "img-size"),
    "warmup, a share of the steps,": ("warmup-steps", "lr-warmup-steps", "warmup-ratio"),
    "accumulate": ("gradient-accumulation-steps", "accumulate-grad-batches"),
    "clip": ("max-grad-norm", "grad-clip", "gradient-clip-val", "grad-clip-norm"),
    "ema": ("ema-decay", "ema-power"),
    "track": ("report-to", "logger", "wandb", "wandb-enable"),
    "resume": ("resume-from-checkpoint", "resume-from"),
    "checkpoints, how many in all,": ("checkpointing-steps", "save-steps", "save-freq", "save-every"),
    "init": ("pretrained", "pretrained-model-name-or-path", "finetune-from", "init-from", "policy-path"),
    "config": ("config-file", "config-path", "cfg-file"),
    "workers": ("num-workers", "jobs", "num-processes"),
    "episodes": ("num-episodes", "n-episodes", "eval-n-episodes"),
    "overwrite": ("force", "overwrite-output-dir"),
    "evaluations": ("nfe", "num-function-evaluations"),
}  # fmt: skip


def meant_by(typed: str, options: Sequence[str], positional: Sequence[str] = ()) -> str:
    """The option, or the argument such as RUN, that a synonym stands for among those of a command; "" for none."""
    name = typed.lstrip("-").replace("_", "-")
    for ours, synonyms in SYNONYMS.items():
        option = f"--{ours}"
        if name in synonyms and f"--{name}" not in options:
            if option.partition(",")[0] in options:
                return option
            if ours in positional:
                return ours
    return ""


def _sentence(event: Any, see: str, options: Sequence[str]) -> str:
    """The sentence for an event that tyro's parser reports."""
    name = event.argument.display_name() if getattr(event, "argument", None) is not None else ""
    name = name.rpartition("/")[2] if name.startswith("-") else name  # -n/--n
    match type(event).__name__:
        case "MissingArgs":
            missing = event.missing_arguments[0].arg
            return f"{missing.lowered.metavar or missing.display_name()} is missing ({_help(missing)}); {see}"
        case "BadValue":
            count = event.argument.lowered.nargs
            return f"{name} needs {'a value' if count == 1 else f'{count} values'}; {see}"
        case "InvalidChoice":
            hint = meant(str(event.value), map(str, event.choices))
            return f"{name} must be one of {', '.join(map(repr, event.choices))}; got {event.value!r}{hint}."
        case "UnrecognizedArgs":
            item = next((token for token in event.tokens if token.startswith("-")), event.tokens[0])
            if not item.startswith("-"):
                return f"There is no place for {item!r}; {see}"
            item = item.partition("=")[0]
            return f"There is no option {item}{meant(item, options, str)}; {see}"
        case "InstantiationFailure" if not name:
            return str(event.message)  # our own sentence
        case "InstantiationFailure":
            return _unparsed(name, event.message)
    return f"The arguments can't be used; {see}"


def _unparsed(name: str, message: str) -> str:
    """A value that Python could not make a number of."""
    if "Exceeds the limit" in message:
        return f"{name} must be a whole number of fewer than 4300 digits."
    for text, wanted in (("int()", "a whole number"), ("to float", "a number"), ("into tuple", "numbers")):
        if text in message:
            value = re.fullmatch(r".*?(?:: |arguments )(.*?)(?: into tuple.*)?", message)
            return f"{name} must be {wanted}; got {value[1] if value else message}."
    return message


def options(kind: Any, default: Any = None) -> dict[str, Field[Any]]:
    """The options of a dataclass, and of those that are its parts, without their dashes.

    kind: the dataclass, or one that is filled. default: holds the parts; the fields' own defaults without.
    """
    found: dict[str, Field[Any]] = {}
    for one in fields(kind):
        part = getattr(default or kind, one.name, None if one.default_factory is MISSING else one.default_factory)
        marks = get_args(one.type)[1:]
        if is_dataclass(part):
            found |= options(part)
        elif tyro.conf.Positional not in marks and tyro.conf.Suppress not in marks:
            named = next((mark.name for mark in marks if getattr(mark, "name", None)), one.name)
            found[named.replace("_", "-")] = one
    return found


def if_given(number: int) -> int | None:
    """The number of an option whose default is ITS_OWN; None where it isn't given."""
    return None if number == ITS_OWN else number


def is_switch(field: "Field[Any]") -> bool:
    """True if the option of a field takes no value: it is on or off."""
    return bool in (field.type, *get_args(field.type)[:1])


def takes_several(field: "Field[Any]") -> bool:
    """True if the option of a field takes any number of values: --track tensorboard wandb."""
    return any(get_origin(kind) is tuple for kind in (field.type, *get_args(field.type)[:1]))


def flag_only(field: "Field[Any]") -> bool:
    """True if the option of a field is `Flag`, without a --no- form."""
    return tyro.conf.FlagCreatePairsOff in get_args(field.type)[1:]


def _help(argument: Any) -> str:
    text = argument.field.helptext
    return " ".join(str(text() if callable(text) else text or "").split()).rstrip(".")


def is_folder(out: str | Path) -> bool:
    """True if --out names a folder, for files of the usual names: one that exists, or a name without an ending."""
    return Path(out).is_dir() or str(out).endswith(("/", os.sep)) or not Path(out).suffix


def writable(file: Path, overwrite: bool, made: bool = False) -> None:
    """InputError if a file of --out can't be written, or is there already; made: its folder will be made."""
    if not made and not file.parent.is_dir():
        raise InputError(f"{file} can't be written: there is no folder {file.parent}.")
    above = next(place for place in file.parents if place.exists())
    if not above.is_dir():
        raise InputError(f"{file} can't be written: {above} is a file, not a folder.")
    if file.exists() and not overwrite:
        raise InputError(f"{file} exists; pass --overwrite to replace it.")


def within(arguments: object, **bounds: tuple[int, int]) -> None:
    """Refuse one of `arguments`, a dataclass, out of its bounds: within(self, n=(1, MOST), seed=(0, MOST))."""
    for name, (low, high) in bounds.items():
        value = getattr(arguments, name)
        require(f"--{name.replace('_', '-')}", value, low, None if high == MOST and value < low else high, whole=True)


def number_or_auto(steps: str) -> int | str | None:
    """--steps as `Trained.choice` takes it; None where it isn't given."""
    if not steps or steps.startswith("auto"):
        return steps or None
    if not steps.isascii() or not steps.isdigit():
        raise InputError(f"--steps must be a whole number or auto; got {steps!r}.")
    if not 1 <= int(steps[:9]) <= 10**6:
        raise InputError(f"--steps must be at least 1 and at most 1000000; got {steps}.")
    return int(steps)


def given(arguments: object, *names: str) -> list[str]:
    """Options of `arguments`, a dataclass, that are not at their default: all of them, or those of these names."""
    return [
        f"--{one.name.replace('_', '-')}"
        for one in fields(arguments)  # type: ignore[arg-type]
        if (not names or one.name in names) and getattr(arguments, one.name) != one.default
    ]


def threads(count: int, network: "nn.Module") -> None:
    """Set torch's threads: `count`, or one for a small network, which a second thread hardly speeds up."""
    import torch

    if count:
        torch.set_num_threads(count)
    elif sum(p.numel() for p in network.parameters()) < 1_000_000:
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # AdamW's moments of dead units decay into denormals, which are slow
