"""ebbtide cite RECIPE: BibTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from ..errors import InputError
from ..recipes import RECIPES, cited
from ..specs import pick
from .arguments import parse

__all__ = ["Cite", "run"]


@dataclass(frozen=True)
class Cite:
    """Print the BibTeX entries of the papers behind a recipe."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=f"The recipe; one of {', '.join(RECIPES)}.")]


def run(argv: Sequence[str]) -> None:
    """Parse and print."""
    name = pick(RECIPES, parse(Cite, argv, "cite").recipe, "recipe")
    if not (text := cited(RECIPES[name])):
        raise InputError(f"The recipe {name!r} names no paper: its docstring has no arXiv id.")
    print(text)
