"""Specs: `name` or `name:key=value,key=value`, the one way a command or config names a row of a table.

`ddpm:betas=scaled_linear,steps=500` is the row "ddpm" of PATHS with two options. Names are looked up in closed
tables (never resolved as dotted paths), so a config can't make ebbtide run code. Only what a user types on the command
line may be `module:function`: an `Own`, or a row that `add_row` puts into the table under that name.
"""

import csv
import functools
import importlib
import inspect
import io
import math
import numbers
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .errors import InputError, meant

__all__ = [
    "LARGEST", "Own", "accept", "add_row", "as_list", "bind", "calling", "expect", "fits_float", "importing_from",
    "is_own", "listed", "named_list", "named_ranges", "named_values", "options", "parse", "pick", "require", "shaped",
    "typed", "with_option", "words",
]  # fmt: skip

LARGEST = 1e18  # number an option may be: its square is still a float32


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Split a spec into its name and options: "vp:beta_max=10" → ("vp", {"beta_max": 10})."""
    name, given = words(spec)
    return name, {key: _literal(value) for key, value in given.items()}


def words(spec: str) -> tuple[str, dict[str, str]]:
    """The same with the options as they are written; of "module:function:key=value" the first two are the name."""
    name, colon, rest = spec.strip().partition(":")
    if function := re.match(r"([^\W\d]\w*)(:|$)", rest):
        name, colon, rest = f"{name}:{function[1]}", function[2], rest[function.end() :]
    if colon and not rest.strip(" ,"):
        raise InputError(f"In {spec!r}, no option follows the colon; write {name} or {name}:key=value.")
    given: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise InputError(f"In {spec!r}, {item!r} is not an option; write name:key=value,key=value.")
        if key in given:
            raise InputError(f"In {spec!r}, {key} is given twice.")
        given[key] = value
    return name, given


def is_own(spec: str) -> bool:
    """True for a user's own row, "module:function", which is in a table only where it was added."""
    return ":" in words(spec)[0]


def with_option(spec: str, key: str, value: str) -> str:
    """The spec with this option too: with_option("mlp:width=8", "spans", "true") → "mlp:width=8,spans=true".

    key, value: the option's.
    """
    name, given = words(spec)
    return f"{name}:{','.join(f'{one}={text}' for one, text in (given | {key: value}).items())}"


def pick(table: Iterable[str], name: str, what: str) -> str:
    """`name` if the table has it; otherwise an error that lists the choices and guesses what was meant."""
    names = list(table)
    if name in names:
        return name
    if not names:
        raise InputError(f"There is no {what} to choose; got {name!r}.")
    raise InputError(f"{what} must be one of {', '.join(names)}; got {name!r}{meant(str(name), names)}.")


def listed(names: Iterable[str], most: int = 12) -> str:
    """The first names, quoted, and how many more there are; "none" for none. most: how many names at most."""
    shown = [repr(name) for name in names]
    return (", ".join(shown[:most]) or "none") + (f" and {len(shown) - most} more" if shown[most:] else "")


def named_list(text: str) -> tuple[str, ...]:
    """The parts of a text between commas; one with a comma in it stands in quotes."""
    return tuple(part.strip() for part in next(csv.reader([text], skipinitialspace=True), []) if part.strip())


def as_list(parts: Iterable[str]) -> str:
    """The text that `named_list` reads as these parts."""
    csv.writer(text := io.StringIO(), lineterminator="").writerow(list(parts))
    return text.getvalue()


def named_values(text: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs in a text such as cut=Ideal,carat=1.0, "" for what lacks.

    names: what may stand before the equals sign; one that holds such a sign itself is found among them.
    """
    known, pairs = sorted(names, key=len), []
    for part in named_list(text):
        name = next((one for one in reversed(known) if part.startswith(f"{one}=")), part.partition("=")[0])
        pairs.append((name.strip(), part[len(name) + 1 :].strip()))
    return pairs


def named_ranges(what: str, text: str) -> dict[str, str]:
    """The ranges by name in a text such as age=0:100,smile=0:1: a range holds no equals sign, but a name may.

    InputError, which names `what`, where a name comes twice.
    """
    ranges: dict[str, str] = {}
    for part in named_list(text):
        name, _, ends = part.rpartition("=") if "=" in part else (part, "", "")
        if name.strip() in ranges:
            raise InputError(f"{what} must name {name.strip()!r} once; got {text!r}.")
        ranges[name.strip()] = ends
    return ranges


def bind(table: Mapping[str, Callable[..., Any]], spec: str, what: str) -> functools.partial[Any]:
    """The table's row with the spec's options bound: bind(PATHS, "vp:beta_max=10", "path")() → VP(beta_max=10)."""
    name, given = parse(spec)
    module, _, function = name.partition(":")
    if function and name not in table:
        if module in table:
            raise InputError(f"In {spec!r}, {function!r} is not an option; write name:key=value,key=value.")
        raise InputError(
            f"{what} {name!r} is a function outside ebbtide, so it runs only if you name it: by --{what} {name}, or in "
            "Python by adding a row of that name to its table."
        )
    row = table[pick(table, name, what)]
    if not callable(row):
        raise InputError(f"{what} {name!r}: the row of its table must be a function or a class; got {_shown(row)}.")
    own = options(row)
    texts = {key: text for key, text in words(spec)[1].items() if key in own and own[key].annotation is str}
    return functools.partial(row, **_checked(f"{what} {name!r}", row, given | texts))


def _checked(row_name: str, row: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options given to a row; InputError for those that it doesn't have, or of another type."""
    allowed, checked = options(row), dict(given)
    for key, value in given.items():
        if key not in allowed:
            takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise InputError(f"{row_name} has no option {key!r}; {takes}.")
        kind = allowed[key].annotation
        if not isinstance(value, _KINDS[kind]) or (kind is not bool and isinstance(value, bool)):
            raise InputError(f"{row_name}: {key} must be {kind.__name__}; got {value!r}.")
        if kind in (int, float) and LARGEST < abs(given[key]) < math.inf:
            raise InputError(f"{row_name}: {key} must be at most {LARGEST:g} in size; got {repr(value)[:40]}.")
        if kind is float:
            checked[key] = float(given[key])
    return checked


@dataclass(frozen=True)
class Own:
    """A user's function, by its spec `module:function:key=value`; to other processes it travels as that text."""

    name: str

    def __post_init__(self) -> None:
        self.given  # noqa: B018 - it is loaded here, so that what is wrong is said at once

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself; its module is also looked for in the working directory."""
        return _loaded(words(self.name)[0], os.getcwd())

    @property
    def given(self) -> dict[str, Any]:
        """The options that the spec sets."""
        name, given = parse(self.name)
        return _checked(f"function {name!r}", self.function, given)

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self.function(*given, **self.given | options)

    def __str__(self) -> str:
        return self.name


def typed(table: Iterable[str], spec: str) -> str | Own:
    """A spec as the user typed it: for a row of the table as it is, and an Own for `module:function`.

    It runs that module: never for what a recipe, config or checkpoint holds.
    """
    module, colon, rest = spec.partition(":")
    theirs = colon and module.strip() not in table and "=" not in rest.partition(":")[0]
    return Own(spec.strip()) if theirs else spec


def add_row(table: MutableMapping[str, Any], spec: str, row: Callable[[Any], Any] = lambda function: function) -> None:
    """Put the `module:function` that the user typed into a table, under that name; a row's name is left alone.

    It runs that module: never for what a recipe, config or checkpoint holds. row: makes the table's row of it.
    """
    name, _ = words(spec)
    if isinstance(own := typed(table, name), Own):
        table[name] = row(own.function)


@contextmanager
def importing_from(folder: str) -> Iterator[None]:
    """While it lasts, modules are looked for in this folder first; only for what the user typed."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _loaded(name: str, here: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        with importing_from(here):
            found = getattr(importlib.import_module(module), function)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's module raises
        why = "its module exits" if isinstance(error, SystemExit) else error
        raise InputError(f"{name} can't be loaded: {why}.") from error
    if not callable(found):
        raise InputError(f"{name} is not a function.")
    return found


@functools.cache
def options(row: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a row that a spec may set: those with a default that is a number, a string or a bool.

    Where a row has keyword-only parameters, those alone; what comes before them is the caller's. A row that holds its
    function, with facts beside it, has that function's options.
    """
    try:
        parameters = inspect.signature(getattr(row, "function", row)).parameters
    except (TypeError, ValueError):  # as of some built-in types
        return {}
    alone = any(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    found = {}
    for name, parameter in parameters.items():
        kind = _NAMED.get(parameter.annotation, parameter.annotation)
        given = parameter.default is not parameter.empty and kind in _KINDS
        if given and (parameter.kind is parameter.KEYWORD_ONLY or not alone):
            found[name] = parameter.replace(annotation=kind)
    return found


def require(
    what: str,
    value: Any,
    low: float | int | None = None,
    high: float | int | None = None,
    *,
    above: float | int | None = None,
    below: float | int | None = None,
    whole: bool = False,
) -> None:
    """Raise InputError unless `value` is a number (whole: an integer) in the range; `low` and `high` belong to it.

    what: the argument's name, as the user typed it. above, below: ends that don't belong to the range.
    """
    right = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if (
        right
        and (whole or fits_float(value))
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    ):
        return
    ends = {"at least": low, "above": above, "at most": high, "below": below}
    limits = [f"{word} {_end(end)}" for word, end in ends.items() if end is not None]
    if not whole and high is None and below is None:
        limits.append("finite")
    kinds = (
        [] if right else ["a whole number"] if whole else ["a finite number" if limits == ["finite"] else "a number"]
    )
    limits = [] if limits == ["finite"] and not right else limits
    raise InputError(
        f"{what} must be {', '.join([*kinds, *[' and '.join(limits)] * bool(limits)])}; got {_shown(value)}."
    )


@contextmanager
def calling(what: str, spec: str, must: str) -> Iterator[None]:
    """Make one InputError sentence of whatever a row, which may be a user's own function, ends in.

    what: the field. must: the rest of the sentence "path 'mine:Bent' must …".
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{what} {spec!r} must {must}; got {type(error).__name__}: {reason.rstrip('.')}.") from error


def expect(what: str, value: Any, *kinds: Any) -> None:
    """Raise InputError unless `value` is of one of these types, as in expect("x", x, Tensor, None).

    what: the argument's name, as the user typed it. kinds: types, None and Callable too. Numbers are for `require`.
    """
    if not isinstance(value, tuple(type(None) if kind is None else kind for kind in kinds)):
        names = ["None" if kind is None else _a(kind.__name__) for kind in kinds]
        raise InputError(f"{what} must be {' or '.join(names)}; got {_shown(value)}.")


def accept(what: str, given: Iterable[str], names: Iterable[str], noun: str = "argument") -> None:
    """Raise InputError unless each keyword `given` to a call that takes any is one of `names`.

    what: the call, as the user wrote it. noun: what the names are of it.
    """
    taken = list(names)
    for name in given:
        if name not in taken:
            raise InputError(
                f"{what} has no {noun} {name}{meant(name, taken, str)}; it takes {', '.join(taken) or 'none'}."
            )


def shaped(what: str, value: Any, *sides: Any) -> None:
    """Raise InputError unless `value` is a tensor or array of this shape: shaped("x", x, "n", 2).

    sides: a number is that length, a name any length; `...` at the end any further sides.
    """
    found, longer = getattr(value, "shape", None), sides[-1:] == (...,)
    given = sides[:-1] if longer else sides
    if (
        found is None
        or len(found) < len(given)
        or (len(found) > len(given) and not longer)
        or any(isinstance(side, int) and side != length for side, length in zip(given, found))
    ):
        names = ", ".join([*map(str, given), *["…"] * longer]) + "," * (len(given) == 1 and not longer)
        raise InputError(f"{what} must be a tensor or array of shape ({names}); got {_shown(value)}.")


_KINDS: dict[Any, tuple[type, ...]] = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}
_NAMED: dict[Any, type] = {kind.__name__: kind for kind in _KINDS}  # as `from __future__ import annotations` has them
_TYPES = {
    "str": "a text", "bool": "True or False", "Callable": "a function", "Tensor": "a tensor", "ndarray": "an array",
    "Module": "a torch module", "DenoiserLike": "a denoiser", "list": "a list", "tuple": "a tuple", "dict": "a dict",
}  # fmt: skip


def _a(name: str) -> str:
    return _TYPES.get(name) or f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _end(end: float | int) -> str:
    """The end of a range: short, where that is the same number."""
    short = f"{end:.15g}"
    return short if float(short) == end or isinstance(end, float) else str(end)


def fits_float(value: Any) -> bool:
    """True for a number that a float can hold. value: an integer or a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _shown(value: Any) -> str:
    """A value in one short line: an array by its shape, a module by its class."""
    if (shape := getattr(value, "shape", None)) and not isinstance(value, type):
        return f"{_a(type(value).__name__)} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{_a(type(value).__name__)}, {text[:40]}…"


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)
