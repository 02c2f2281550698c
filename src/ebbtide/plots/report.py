"""Reports: every figure as a file, and one HTML page that holds them all.

The page of `ebbtide compare` is report.html beside this file, that of a table's evaluation table.html; Jinja fills both
in, with every text escaped.
"""

import base64
import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from matplotlib.figure import Figure

from ..files import located, storage, write_file
from ..metrics import Measurement
from ..metrics.floor import LEVEL, TINY
from ..metrics.tables import Part
from . import curves, style
from .study import Comparison, Sampling

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Picture", "clear_best", "every", "in_words", "losses", "merit", "still", "write_report", "write_table_page"]

_PACKAGES = ("ebbtide", "torch", "numpy", "matplotlib")
_EACH = re.compile(r"^(.*?) (\d+)$")  # "fraction in mode 2": one row for each mode or label
_BETTER = {"lower": "lower is better", "higher": "higher is better", "equal": "closer to truth is better"}
_NARROW = ("losses.png", "trajectories.png")
# The methods' colours as text on a light page and on a dark one.
_TEXT = {
    style.DIFFUSION: ("#b84f00", "#ff9a4d"), style.FLOW: ("#0068a3", "#6cbdf0"), style.INKS[0]: ("#2b7a37", "#7fd48b"),
    style.INKS[1]: ("#a02f6e", "#f08fc2"), style.INKS[2]: ("#332288", "#b5a9ff"), style.INKS[3]: ("#661100", "#dfa58c"),
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One figure of the report: its file and what to see in it."""

    file: str
    heading: str
    sentence: str
    draw: Callable[[Path], Path]
    moving: bool = False


@dataclass(frozen=True)
class _Column:
    """One metric of the table: its measurement by row, its floor, and the row that is best beyond doubt."""

    name: str
    better: str
    rows: Sequence[Measurement | None]
    best: int | None
    floor: float
    floor_low: float
    floor_high: float


def write_report(comparison: Comparison, folder: str | Path, figures: Iterable[Picture]) -> Path:
    """Write every figure and report.html into `folder`, which is made if need be; returns the page's path.

    comparison: what is reported. figures: to show, in this order.
    """
    folder = located("folder", folder)
    shown = _drawn(folder, figures)
    page = folder / "report.html"
    write_file(page, _page(comparison, shown).encode())
    return page


def write_table_page(
    page: Path, title: str, lead: Sequence[str], parts: Sequence[Part], figures: Iterable[Picture]
) -> list[Path]:
    """Write the figures of a table's evaluation beside `page`, and the page; returns the paths of all.

    lead: the first sentences. parts: what stands before the figures.
    """
    figures = [*figures]
    shown = _drawn(page.parent, figures)
    filled = _template("table.html").render(
        title=title, lead=lead, parts=parts, figures=shown, versions=_versions(), number=_number, span=_span
    )
    write_file(page, filled.encode())
    return [*(page.parent / figure.file for figure in figures), page]


def _drawn(folder: Path, figures: Iterable[Picture]) -> list[dict[str, Any]]:
    """Each figure, written into the folder, as its page takes it."""
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for figure in figures:
        figure.draw(folder / figure.file)
        shown.append(_figure(figure, (folder / figure.file).read_bytes()))
    return shown


def still(make: Callable[[], Figure]) -> Callable[[Path], Path]:
    """The function that draws a still figure. make: draws the figure."""
    return lambda path: style.save(make(), path)


def losses(c: Comparison) -> Iterator[Picture]:
    """The losses of the methods, where they were written down."""
    methods = [method for method in c.methods if len(method.losses)]
    if len(methods) == 1:
        sentence = "Look at whether the curve has levelled off, not at how low it is: its floor is not 0."
    else:
        networks, none = ("the two", "neither floor") if len(methods) == 2 else ("the", "no floor")
        sentence = (
            f"Look at whether each curve has levelled off, not at which is lower: {networks} networks predict "
            f"different things, so their losses have different floors, and {none} is 0."
        )
    if methods:
        yield Picture("losses.png", "Training losses", sentence, still(lambda: curves.losses(methods)))


def every(c: Comparison) -> str:
    """ "both methods", or "all methods"."""
    return "both methods" if len(c.methods) == 2 else "all methods"


def in_words(parts: Sequence[str]) -> str:
    """a, b and c. parts: the words to join."""
    return " and ".join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + f" and {parts[-1]}"


def merit(row: Measurement) -> float:
    """Higher is better, for all three kinds of metric. row: the measurement."""
    if not math.isfinite(row.value):
        return -math.inf
    return {"lower": -row.value, "higher": row.value, "equal": -abs(row.value - row.floor)}[row.better]


def clear_best(rows: Sequence[Measurement]) -> int | None:
    """The row that is best beyond doubt: none is at the floor, and its interval is apart from every other's."""
    if len(rows) < 2 or any(row.at_floor for row in rows):
        return None
    best = max(range(len(rows)), key=lambda i: merit(rows[i]))
    apart = all(rows[best].high < row.low or row.high < rows[best].low for i, row in enumerate(rows) if i != best)
    return best if apart else None


def _columns(c: Comparison) -> tuple[list[_Column], list[_Column]]:
    """The metrics that were measured, and those with one column for each mode or label."""
    by_name = [{m.name: m for m in s.measurements} for s in c.samplings]
    names = list(dict.fromkeys(m.name for s in c.samplings for m in s.measurements))
    broken = any(m.name == "non-finite" and m.value > 0 for s in c.samplings for m in s.measurements)
    columns = [_column(name, [rows.get(name) for rows in by_name]) for name in names if name != "non-finite" or broken]
    one, each = ([col for col in columns if bool(_EACH.match(col.name)) is many] for many in (False, True))
    return one, each


def _column(name: str, rows: Sequence[Measurement | None]) -> _Column:
    having = [i for i, row in enumerate(rows) if row is not None]
    measured = [row for row in rows if row is not None]
    winner, first = clear_best(measured), measured[0]
    best = None if winner is None else having[winner]
    return _Column(name, _BETTER[first.better], rows, best, first.floor, first.floor_low, first.floor_high)


def _notes(c: Comparison) -> dict[str, list[str]]:
    """Notes of the measurements, and their metrics."""
    notes: dict[str, list[str]] = {}
    for m in (m for s in c.samplings for m in s.measurements):
        for note in m.note.splitlines():
            if m.name not in notes.setdefault(note, []):
                notes[note].append(m.name)
    return notes


def _figure(figure: Picture, content: bytes) -> dict[str, Any]:
    kind = "gif" if figure.file.endswith(".gif") else "png"
    return {
        "heading": figure.heading,
        "sentence": figure.sentence,
        "moving": figure.moving,
        "wide": not figure.moving and figure.file not in _NARROW,
        "source": f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}",
    }


def _page(c: Comparison, figures: Sequence[dict[str, Any]]) -> str:
    columns, each = _columns(c)
    return _template("report.html").render(
        c=c,
        columns=columns,
        each=each,
        methods={method.key: (method.name, f"m{k}") for k, method in enumerate(c.methods)},
        inks=[_TEXT.get(method.colour, (method.colour, "#c8c8c8")) for method in c.methods],
        notes=_notes(c),
        figures=figures,
        level=LEVEL,
        versions=_versions(),
        number=_number,
        span=_span,
        chance=_chance,
        sampler=_sampler,
    )


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment

    page = (files(__package__) / name).read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(page)


def _sampler(s: Sampling) -> str:
    return s.label if s.sampler.lower() in s.label.lower() else f"{s.label} ({s.sampler})"


def _chance(p: float) -> Markup:
    return Markup("") if math.isnan(p) else Markup("p {} {}").format("<" if p < TINY else "=", _number(max(p, TINY)))


def _number(value: float) -> Markup:
    """A number as readers write it."""
    if not math.isfinite(value):
        return Markup("–" if math.isnan(value) else ("∞" if value > 0 else "−∞"))
    if value and abs(value) < 1e-4:
        digits, exponent = f"{value:.1e}".split("e")
        return Markup(f"{digits}&nbsp;·&nbsp;10<sup>{int(exponent)}</sup>".replace("-", "−"))
    return Markup((f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−"))


def _span(low: float, high: float) -> Markup:
    return Markup("") if math.isnan(low) or math.isnan(high) else Markup("{} to {}").format(_number(low), _number(high))


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"]) + "."
