"""ebbtide list: every row of every table."""

import functools
import inspect
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from ..cache import unchanged
from ..specs import parse as spec
from .arguments import Flag, parse

__all__ = ["Kind", "List", "run", "tables"]

_OPTIONS = "options: "
Kind = Literal[
    "all", "recipes", "data", "paths", "targets", "losses", "weights", "times", "spans", "grids", "couplings",
    "codecs", "networks", "samplers", "simulators", "demonstrations", "metrics",
]  # fmt: skip


@dataclass(frozen=True)
class List:
    """List the names that commands accept, each with its options and their defaults."""

    kind: tyro.conf.Positional[Kind] = "all"
    """Table to list; recipes, data, paths, targets, losses, weights, times, spans, grids, couplings, codecs,
    networks, samplers, simulators, demonstrations, metrics, or all."""
    json: Flag = False
    """Print JSON; each row's description, and its options with their defaults."""


def run(argv: Sequence[str]) -> None:
    """Parse and print."""
    args = parse(List, argv, "list")
    shown = {title: rows for title, rows in unchanged("tables", tables).items() if args.kind in ("all", title)}
    if args.json:
        described = {title: {name: _described(texts) for name, texts in rows.items()} for title, rows in shown.items()}
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    for title, rows in shown.items():
        if rows:
            print(f"{title}:")
            column = max(map(len, rows)) + 4
            for name, texts in rows.items():
                first, *rest = [line for text in texts for line in _wrapped(text, max(20, width - column))]
                print(f"  {name:{column - 2}}{first}", *(" " * column + line for line in rest), sep="\n")


def tables() -> dict[str, dict[str, list[str]]]:
    """Table → row → its description and options."""
    from ..codecs import CODECS
    from ..core.couplings import COUPLINGS
    from ..core.paths import PATHS
    from ..core.targets import TARGETS
    from ..core.times import GRIDS, SPANS, TIMES
    from ..data import DATASETS
    from ..losses import LOSSES
    from ..losses.denoise import WEIGHTS
    from ..metrics import IMAGE_METRICS, METRICS
    from ..networks import NETWORKS
    from ..recipes import RECIPES
    from ..robots.demonstrations import SCRIPTS
    from ..robots.simulators import SIMULATORS
    from ..samplers import SAMPLERS

    described: dict[str, Mapping[str, Any]] = {
        "recipes": RECIPES,
        "paths": PATHS,
        "targets": TARGETS,
        "losses": LOSSES,
        "weights": WEIGHTS,
        "times": TIMES,
        "spans": SPANS,
        "grids": GRIDS,
        "couplings": COUPLINGS,
        "codecs": CODECS,
        "networks": NETWORKS,
        "samplers": SAMPLERS,
        "demonstrations": SCRIPTS,
    }
    rows = {title: {name: _about(name, row) for name, row in table.items()} for title, table in described.items()}
    rows["data"] = {name: [points.about] for name, points in DATASETS.items()}
    rows["data"]["digits"] = ["handwritten digits of 8 × 8 pixels; for other images see train flow-images --help"]
    near = {"lower": "lower is better", "higher": "higher is better", "equal": "the nearer its floor, the better"}
    rows["simulators"] = {name: [simulator.task] for name, simulator in SIMULATORS.items()}
    rows["metrics"] = {name: [near[metric.better]] for name, metric in METRICS.items()}
    rows["metrics"] |= {name: [f"images: {near[metric.better]}"] for name, metric in IMAGE_METRICS.items()}
    return rows


def _described(texts: list[str]) -> dict[str, Any]:
    """A row's description and options, from the lines that are printed of it."""
    given = [text.removeprefix(_OPTIONS) for text in texts if text.startswith(_OPTIONS)]
    about = " ".join(text for text in texts if not text.startswith(_OPTIONS))
    return {"about": about, "options": spec(given[0])[1] if given else {}}


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; options break only after commas."""
    if not text.startswith(_OPTIONS):
        return textwrap.wrap(text, width)
    lines = textwrap.wrap(text.replace(",", ", "), width, break_on_hyphens=False)
    return [line.replace(", ", ",") for line in lines]


def _about(name: str, row: Callable[..., Any]) -> list[str]:
    """The first line of a row's docstring, and its options as they are written, with their defaults."""
    from ..specs import options

    row = getattr(row, "function", row)
    if isinstance(row, functools.partial):  # a row with options bound to another row
        first = f"{row.func.__name__} with {', '.join(f'{option}={value}' for option, value in row.keywords.items())}."
    else:
        first = (inspect.getdoc(row) or name).split("\n")[0]
    given = ",".join(f"{option}={p.default}" for option, p in options(row).items())
    return [first, f"{_OPTIONS}{name}:{given}"] if given else [first]
