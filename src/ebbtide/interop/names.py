"""Names of weights in other libraries, and ours."""

import re
from collections.abc import Iterable

__all__ = ["renamed"]


def renamed(name: str, steps: Iterable[tuple[str, str]]) -> str:
    """A name after each substitution in turn.

    steps: (regular expression, what stands in place of its matches), as in re.sub.
    """
    for pattern, into in steps:
        name = re.sub(pattern, into, name)
    return name
