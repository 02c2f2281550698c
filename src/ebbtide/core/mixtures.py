"""A solver for a denoiser that none was fitted to: for each number of evaluations a table fitted to many mixtures.

Grid and sampler are named after what they were fitted to, `mixtures` and `bespoke:weights=mixtures`; a fit to the
denoiser itself (solver.py) is several times closer. benchmarks/mixtures.py makes the file.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from ..specs import require

__all__ = ["Table", "stored_tables", "table_of"]


class Table(NamedTuple):
    """nodes: shares of the first τ = σ/(α + σ), from 1 to 0. rows: row i has the i + 1 weights of step i's end."""

    nodes: Sequence[float]
    rows: Sequence[Sequence[float]]


@cache
def stored_tables() -> dict[int, Table]:
    """All tables, by their number of steps."""
    tables = json.loads((files(__package__) / "mixtures.json").read_text(encoding="utf-8"))
    return {int(steps): Table(**table_of) for steps, table_of in tables.items()}


def table_of(steps: int) -> Table:
    """The table for this number of steps; InputError where there is none."""
    tables = stored_tables()
    require("mixtures: steps", steps, min(tables), max(tables), whole=True)
    return tables[steps]
