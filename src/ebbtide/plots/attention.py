"""The figure of an attention mask: which token attends to which."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..errors import InputError
from . import style
from .style import Array

__all__ = ["attention"]


def attention(
    mask: Bool[Array, "n n"],
    blocks: Sequence[tuple[str, int]],
    *,
    padded: Bool[Array, " n"] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Attention: row i, column j is coloured where token i attends to token j. blocks: (name, tokens), in order.

    padded: tokens that stand for nothing, whose rows and columns are drawn grey.
    mask: true where i may attend to j.
    """
    n = len(mask)
    if mask.shape != (n, n) or sum(size for _, size in blocks) != n or any(size < 1 for _, size in blocks):
        raise InputError(f"blocks must have at least one token each and {n} of the mask in all; got {list(blocks)}.")
    padded = np.zeros(n, bool) if padded is None else padded
    if padded.shape != (n,):
        raise InputError(f"padded must have one value for each of {n} tokens; got shape {padded.shape}.")
    cell = float(np.clip(3.6 / n, 0.012, 0.32))
    names = [name for name, _ in blocks]
    edges = np.cumsum([0, *(size for _, size in blocks)])
    middles = (edges[1:] + edges[:-1]) / 2
    lean = any(len(name) * style.SMALL * style.EM > size * cell for name, size in blocks)
    longest = max(map(len, names)) * style.SMALL * style.EM
    grid = style.axes_grid(
        1,
        1,
        panel=(n * cell, n * cell),
        margin=(0.4 + longest, 0.25 + (0.7 * longest if lean else 0), 0.12 + (0.75 * longest if lean else 0.14), 0.12),
        title=title or "Who sees whom",
        note=note
        or "A row is a token that looks, a column one that is looked at; white is hidden."
        + (" Grey tokens are padding." if padded.any() else ""),
    )
    ax = grid.axes[0, 0]
    owner = np.repeat(np.arange(len(blocks)), np.diff(edges))
    tints = np.array([to_rgb(_block_colour(k)) for k in range(len(blocks))])
    picture = np.where(mask[..., None], tints[owner][None], 1.0)
    picture[padded] = picture[:, padded] = to_rgb("#DADADA")
    ax.imshow(picture, extent=(0, n, n, 0), interpolation="nearest", aspect="auto")
    if cell > 0.09:
        ax.hlines(range(1, n), 0, n, color="#E6E6E6", lw=0.6)
        ax.vlines(range(1, n), 0, n, color="#E6E6E6", lw=0.6)
    # A line would hide a block that is hardly wider.
    wide = np.diff(edges) * cell > 0.06
    between = edges[1:-1][wide[1:] & wide[:-1]]
    ax.hlines(between, 0, n, color=style.INK, lw=0.9)
    ax.vlines(between, 0, n, color=style.INK, lw=0.9)
    ax.set(xlim=(0, n), ylim=(n, 0))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(NullLocator())
    for spine in ax.spines.values():
        spine.set(color=style.INK, linewidth=0.9)
    gap = {"textcoords": "offset points", "size": style.SMALL, "color": style.INK, "annotation_clip": False}
    angle: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if lean else {"ha": "center"}
    for name, middle in zip(names, middles.tolist(), strict=True):
        ax.annotate(name, (0, middle), (-5, 0), ha="right", va="center", **gap)
        ax.annotate(name, (middle, 0), (0, 4), va="bottom", **angle, **gap)
    return grid.figure


def _block_colour(index: int) -> str:
    """Sky blue, green, orange, pink: the classes' colours without black, no method's own."""
    return ["#56B4E9", "#009E73", "#E69F00", "#CC79A7"][index % 4]
