"""One row of a report: a value beside its floor, with an interval and p; and rows as a table or as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import printable
from ..files import without_nan
from ..tables import aligned
from .floor import LEVEL, TINY, Better

__all__ = ["Measurement", "table", "to_json"]


@dataclass(frozen=True)
class Measurement:
    """One row: the value, its 95 % interval, the floor (mean and range over the repeats), the standard error of
    value − floor, and p: the probability that real data score as far off. NaN: there is no such number."""

    name: str
    value: float
    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float
    better: Better
    note: str = ""
    error: float = math.nan
    p: float = math.nan
    in_summary: bool = field(default=False, repr=False)
    in_curve: bool = field(default=False, repr=False)

    @property
    def difference(self) -> float:
        """value − floor."""
        return self.value - self.floor

    @property
    def at_floor(self) -> bool:
        """p ≥ LEVEL: this many samples show no fault."""
        return self.p >= LEVEL

    def record(self) -> dict[str, Any]:
        """Every number of the row, for files."""
        numbers = {name: part for name, part in asdict(self).items() if not name.startswith("in_")}
        return numbers | {"difference": self.difference, "at_floor": self.at_floor}


def table(rows: Sequence[Measurement]) -> str:
    """The rows as aligned text, each beside its floor, with the notes underneath.

    value − floor has the standard error of both; the last line defines p.
    """
    span = lambda low, high: "-" if math.isnan(low) else f"{low:.4g} to {high:.4g}"
    cells = [("metric", "value", "95 % interval", "floor", "value − floor", "p", "better", "")]
    for row in rows:
        verdict = "at the floor" if row.at_floor else ""
        floor = "-" if math.isnan(row.floor) else f"{row.floor:.4g}"
        apart = "-" if math.isnan(row.error) else f"{row.difference:+.2g} ± {row.error:.1g}"
        cells.append(
            (row.name, f"{row.value:.4g}", span(row.low, row.high), floor, apart, _chance(row.p), row.better, verdict)
        )
    lines, width = aligned(cells)
    lines.insert(1, "─" * width)
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in row.note.splitlines():
            notes.setdefault(note, []).append(row.name)
    for note, names in notes.items():
        others = [row.name for row in rows if row.name not in names]
        most = f"every row{f' but {others[0]}' if others else ''}"
        of = most if len(others) < 2 < len(names) else ", ".join(names)
        lines.append(f"{of}: {note}")
    if not all(math.isnan(row.p) for row in rows):
        lines.append(f"p: the probability that real data score as far off, or worse; at the floor: p ≥ {LEVEL}")
    return "\n".join(map(printable, lines))


def _chance(p: float) -> str:
    return "-" if math.isnan(p) else f"< {TINY:.0e}" if p < TINY else f"{p:.2g}"


def to_json(rows: Sequence[Measurement]) -> str:
    """The rows as a JSON list; a number that is not finite becomes null."""
    return json.dumps(without_nan([row.record() for row in rows]), indent=2, ensure_ascii=False)
