"""ebbtide cite RECIPE: BibTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from ..recipes import CITATIONS
from ..specs import pick
from .arguments import parse


@dataclass(frozen=True)
class Cite:
    """Print the BibTeX entries of the papers behind a recipe."""

    recipe: tyro.conf.Positional[str]
    """The recipe; ddpm, flow, edm, bridge, ot-flow, ddpm-images, flow-images, edm-images, flow-policy, pi0,
    flow-policy-pusht, diffusion-policy-pusht, pi0-pusht, flow-policy-aloha-transfer, flow-policy-aloha-insertion,
    pi0-aloha-transfer or pi0-aloha-insertion."""


def run(argv: Sequence[str]) -> None:
    """Parse and print."""
    print(CITATIONS[pick(CITATIONS, parse(Cite, argv, "cite").recipe, "recipe")])
