"""Tables as text."""

from collections.abc import Sequence

__all__ = ["aligned"]


def aligned(cells: Sequence[Sequence[str]]) -> tuple[list[str], int]:
    """The rows of a table as lines, their columns two spaces apart, and its width. cells: a row's texts each."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    return lines, sum(widths) + 2 * len(widths) - 2
