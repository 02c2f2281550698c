"""ebbflow list: every row of every table."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from .arguments import parse

Kind = Literal["all", "recipes", "data", "paths", "targets", "times", "grids", "couplings", "networks", "samplers", "weights", "metrics"]  # noqa: E501  # fmt: skip


@dataclass(frozen=True)
class List:
    """List what can be named on the command line, with the options each takes."""

    kind: tyro.conf.Positional[Kind] = "all"
    """Which table."""


def run(argv: Sequence[str]) -> None:
    """Parse and print."""
    kind = parse(List, argv, "list").kind
    for title, rows in tables().items():
        if kind in ("all", title):
            print(f"{title}:")
            width = max(map(len, rows))
            print(*(f"  {name:{width}}  {about}" for name, about in rows.items()), sep="\n")


def tables() -> dict[str, dict[str, str]]:
    """Table → row → what it is."""
    from ..couplings import COUPLINGS
    from ..data import DATASETS
    from ..denoiser import WEIGHTS
    from ..metrics import METRICS
    from ..networks import NETWORKS
    from ..paths import PATHS
    from ..recipes import RECIPES
    from ..samplers import SAMPLERS
    from ..targets import TARGETS
    from ..times import GRIDS, TIMES

    described: dict[str, Mapping[str, Any]] = {
        "recipes": RECIPES,
        "paths": PATHS,
        "targets": TARGETS,
        "weights": WEIGHTS,
        "times": TIMES,
        "grids": GRIDS,
        "couplings": COUPLINGS,
        "networks": NETWORKS,
        "samplers": SAMPLERS,
    }
    rows = {title: {name: _about(row) for name, row in table.items()} for title, table in described.items()}
    rows["data"] = {name: points.about for name, points in DATASETS.items()}
    rows["metrics"] = {name: f"{metric.better} is better" for name, metric in METRICS.items()}
    return rows


def _about(row: Callable[..., Any] | None) -> str:
    """The first line of a row's docstring, and the options it takes with their defaults."""
    from ..specs import options

    if row is None:
        return "every error of the target alike"
    first = (inspect.getdoc(row) or "").split("\n")[0]
    given = ", ".join(f"{name}={p.default}" for name, p in options(row).items())
    return f"{first}  [{given}]" if given else first
