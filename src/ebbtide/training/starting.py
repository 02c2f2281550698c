"""Starting points of a run's samples: noise, points of a second set, or data that is noised to a middle time."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..codecs import Cells, Codec
from ..core.denoiser import Denoiser
from ..core.randomness import Draws
from ..data.frames import frame_columns, is_frame, listed_cells
from ..errors import InputError
from ..recipes import Recipe
from ..specs import expect, listed, require, shaped
from .asked import tensor_of
from .completing import Completing

__all__ = ["Starting"]


class Starting(Completing):
    """The part of a `Trained` that makes the starting points of its samples."""

    denoiser: Denoiser
    starts: Callable[[Any, int, int, int], Tensor | None] | None
    latent_shape: Any
    reading: Callable[[str], Recipe]
    codec: Codec | None
    to_network: Callable[[Tensor], Tensor]

    @property
    def from_second_set(self) -> bool:
        """True if t = 1 is a second sample set instead of noise."""
        return getattr(self.recipe, "source", "noise") != "noise"

    def start(self, n: int, seed: int, first: int, draws: Draws) -> Tensor:
        """x₁, the same for sample i whatever n and first: noise, or examples of a second sample set."""
        start = None if self.starts is None else self.starts(self.reading("source"), n, seed, first)
        if start is None and not self.denoiser.gaussian_end and self.from_second_set:
            raise InputError("This run starts from a second sample set: load it with ebbtide.from_pretrained.")
        if start is None:
            return self.denoiser.path.prior(self.noise(draws))
        return self.to_network(start).to(draws.ids.device)

    def noise(self, draws: Draws) -> Tensor:
        """The noise ε that each sample starts from, or that its data is noised with."""
        return draws(-1, torch.empty(len(draws.ids), *self.latent_shape, device=draws.ids.device))

    def own_start(self, start: Any, at: float, n: int | None) -> tuple[Float[Tensor, " n *d"] | None, int]:
        """The user's own starting points in data units, from `trajectory`'s arguments, and the number of samples.

        One row may be the start of all n samples.
        InputError for what this run can't start from. at: the time that they are noised to, in (0, 1].
        """
        require("at", at, above=0, high=1)
        if start is None:
            if at < 1:
                raise InputError(f"at is the time to which start is noised, and there is no start; got at {at:g}.")
            if n is None:
                raise InputError("n, the number of samples, must be given, or start, a row for each.")
            require("n", n, 1, whole=True)
            return None, int(n)
        if self.from_second_set and at < 1:
            raise InputError(f"This run starts from points of its second set, at t = 1, so at must be 1; got {at:g}.")
        if not self.from_second_set and at == 1:
            raise InputError("This run starts from noise, so start is data, noised to a time below 1: give at, as 0.6.")
        if not self.from_second_set and not self.denoiser.gaussian_end:
            raise InputError(
                "This run learned coupled pairs, whose data can't be noised; at a middle time nothing starts."
            )
        x = self._rows(start)
        if n is None:
            return x, len(x)
        require("n", n, 1, whole=True)
        if len(x) not in (1, n):
            raise InputError(f"n must be the number of rows of start, {len(x)}, or be left out; got {n!r}.")
        return x.expand(n, *x.shape[1:]), int(n)

    def begun(self, start: Tensor | None, at: float, draws: Draws) -> Tensor | None:
        """x at t = at, in the network's units, of the user's own starting points; None without.

        start: as `own_start` returns it, in data units.
        """
        if start is None:
            return None
        if isinstance(self.codec, Cells) and (count := int(self.codec.beyond(start).sum())):
            warnings.warn(
                f"{count} of {len(start)} rows of start lie outside of what this run learned: they begin at its edge.",
                stacklevel=3,
            )
        z = self.to_network(start.to(draws.ids.device))
        if at == 1:
            return z
        c = self.denoiser.path.at(at, z)
        return c.alpha * z + c.sigma * self.noise(draws)

    def _rows(self, start: Any) -> Float[Tensor, " n *d"]:
        """Starting points as a tensor in data units: rows as they are, or columns by their names."""
        if is_frame(start):
            start = frame_columns("start", start)
        if isinstance(start, Mapping):
            return self.whole_rows("start", {str(name): listed_cells(cells) for name, cells in start.items()})
        expect("start", start, Tensor, np.ndarray)
        x = tensor_of("start", start)
        shaped("start", x, "n", *self.shape)
        if not len(x) or x.is_complex() or not bool(x.isfinite().all()):
            raise InputError("start must hold a finite number for each part of a sample, and one row or more.")
        return x if x.is_floating_point() else x.float()

    def whole_rows(self, where: str, columns: Mapping[str, Any], **how: Any) -> Float[Tensor, "n d"]:
        """Cells by column as rows without a gap; how: the rest of `known_rows`' arguments."""
        if lacks := [name for name in self.learned_columns if name not in columns]:
            raise InputError(f"{where} must have the columns {listed(self.learned_columns)}; it lacks {lacks[0]!r}.")
        if len({len(cells) for cells in columns.values()}) > 1:
            raise InputError(f"{where} must have as many cells in each column.")
        rows, _ = self.known_rows(where, columns, **how)
        if bool((gaps := rows.isnan()).any()):
            row, k = gaps.nonzero()[0].tolist()
            raise InputError(f"{where} must have no missing cell; row {row + 1} lacks {[*self.learned_columns][k]!r}.")
        if not len(rows):
            raise InputError(f"{where} must have a row or more; it has none.")
        return rows
