"""Ranks: each column of numbers by its own distribution function, to N(0, 1) and back to the values it had."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..memory import room
from ..specs import expect, shaped
from .codec import Batches, Shape
from .groups import Groups

__all__ = ["DISTINCT", "KNOTS", "Cells", "Ranks", "fit_ranks", "normal_scores", "read_ranks"]

KNOTS = 1000  # of a column, at most
DISTINCT, REPEATED = 12, 4  # values have cells if they are so few, or if each is repeated so often
OUTERMOST = 6.0  # one of a billion of N(0, 1) lies beyond
EDGE = 2.0**-10  # of a cell's width stays empty at its ends, so that float32 can't round a z into the next cell


class Cells:
    """A codec whose z of one x isn't a number but an interval of them: where in it z lies is drawn anew at every step.

    z = Φ⁻¹(low + V width), V ~ U(0, 1) where the width isn't 0, so that ties are spread as N(0, 1) is. `encode` takes
    V = 1/2 and has no randomness; training passes V to `encode_with`, or takes `cells` once and `drawn` at every step.
    """

    linear: ClassVar[bool] = False

    def cells(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k 2"]:
        """Low and width of each z, in float64; of one that isn't a rank (see `direct`) z itself and 0."""
        raise NotImplementedError

    @property
    def direct(self) -> Bool[Tensor, " k"] | None:
        """Of each z whether its cell holds z itself; None if that is true of none."""
        return None

    @property
    def has_unit_vectors(self) -> bool:
        """True if it has a number per level, of which a row has no density."""
        return self.direct is not None and bool(self.direct.any())

    def groups(self, columns: int) -> Groups:
        """The numbers of z that belong to each column."""
        return Groups.single(columns)

    def ends(self) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """The least and the greatest that each z can be: an estimate E[z | z_t] beyond them is a network's slip."""
        raise NotImplementedError

    def beyond(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """True for a row with a number outside of those that were learned, whose z is that of the nearest one."""
        return torch.zeros(len(x), dtype=torch.bool)

    def drawn(self, cells: Float[Tensor, "n k 2"], v: Float[Tensor, "n k"] | float) -> Float[Tensor, "n k"]:
        """z of these cells, for V, in float32."""
        low, width = _doubled(cells).unbind(-1)
        v = _doubled(v) if isinstance(v, Tensor) else v
        z = normal_scores(low + (EDGE + (1 - 2 * EDGE) * v) * width)
        z = z if self.direct is None else torch.where(self.direct.to(z.device), low, z)
        return z.float().to(cells.device)

    def encode_with(self, x: Float[Tensor, "*b d"], v: Float[Tensor, "*b k"] | float) -> Float[Tensor, "*b k"]:
        """Data → what the network sees, for V in 0..1 of each z."""
        expect("The data", x, Tensor)
        flat = x.reshape(-1, x.shape[-1])
        own = v.reshape(len(flat), -1) if isinstance(v, Tensor) else v
        z = self.drawn(self.cells(flat), own)
        return z.reshape(*x.shape[:-1], z.shape[-1])

    def encode(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        """Data → what the network sees, each in the middle of its cell."""
        return self.encode_with(x, 0.5)

    def log_volume(self, data: Shape) -> float | None:
        """None: the density of ranks over that of values isn't one number, and values that repeat have none."""
        return None

    def mirror(self, z: Tensor) -> Tensor | None:
        """None: columns have no left and right."""
        return None


@dataclass(frozen=True, eq=False)
class Ranks(Cells):
    """u = F(x−) + V P(x), z = Φ⁻¹(u), column by column; F is linear between `values`, with a step at those that repeat.

    low, high: F(x−) and F(x) at each value, equal where there is no step. Undone, z is a value that repeats
    if u lies in its step, else one in between, with the column's decimals; never beyond its bounds, and a value beyond
    them has the nearest one's z. A column's last value is repeated where others have more.
    """

    about: ClassVar[str] = "ranks, as a normal distribution; undone on sampling"

    values: Float[Tensor, "d k"]
    low: Float[Tensor, "d k"]
    high: Float[Tensor, "d k"]
    decimals: tuple[int, ...]
    """Digits behind the point of each column; -1 for any number of them."""

    def __post_init__(self) -> None:
        shaped("ranks: values", self.values, "d", "k")
        d, k = self.values.shape
        shaped("ranks: low", self.low, d, k)
        shaped("ranks: high", self.high, d, k)
        if any(part.dtype != torch.float64 or not bool(part.isfinite().all()) for part in self.weights().values()):
            raise InputError("ranks: values, low and high must be finite numbers in float64.")
        rising = all(bool((part.diff(dim=1) >= 0).all()) for part in self.weights().values())
        if (
            not d
            or not k
            or not rising
            or not bool((self.low >= 0).all() & (self.low <= self.high).all() & (self.high <= 1).all())
        ):
            raise InputError("ranks: values, low and high must rise, and low ≤ high lie in 0 to 1.")
        if len(self.decimals) != d or not all(type(one) is int and -1 <= one <= 40 for one in self.decimals):
            raise InputError(f"ranks: decimals must be {d} whole numbers, at least -1 and at most 40.")

    @classmethod
    def fit(cls, x: Float[Tensor, "n d"], stepped: tuple[bool, ...] = ()) -> "Ranks":
        """The distribution functions of columns, NaN left out; stepped: columns whose values all have steps."""
        expect("x", x, Tensor)
        shaped("x", x, "n", "d")
        n, d = x.shape
        if not n or not d:
            raise InputError(f"x must have at least one row and one column; got shape {tuple(x.shape)}.")
        room(8 * 3 * 3 * d * min(n, KNOTS), f"ranks of {d:,} columns")
        table = x.detach().cpu().double().numpy()
        if np.isinf(table).any():
            raise InputError("x must hold finite numbers.")
        steps = stepped or (False,) * d
        columns = [_knots(table[~np.isnan(table[:, k]), k], steps[k]) for k in range(d)]
        most = max(len(column[0]) for column in columns)
        parts = [
            torch.tensor(np.stack([np.pad(c[i], (0, most - len(c[i])), "edge") for c in columns])) for i in range(3)
        ]
        values, low, high = parts
        return cls(values, low, high, tuple(_decimals(column[0]) for column in columns))

    def ends(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        far = torch.full((len(self.values),), OUTERMOST)
        return -far, far

    def beyond(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        rounding = 1e-6 * self.values.abs().amax(1)
        found = _doubled(x).cpu()
        return ((found < self.values[:, 0] - rounding) | (found > self.values[:, -1] + rounding)).any(1)

    def shape(self, data: Shape) -> Shape:
        """The data's."""
        if data[-1:] != (len(self.values),):
            raise InputError(f"The codec expects {len(self.values)} columns; got data of shape {data}.")
        return data

    def cells(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d 2"]:
        self.shape(tuple(x.shape))
        values, low, high = self._like(x)
        found = _doubled(x).T.contiguous()
        at = torch.minimum(torch.maximum(found, values[:, :1]), values[:, -1:])  # beyond them F has no slope
        i = (torch.searchsorted(values, at, right=True) - 1).clamp(min=0)
        j = (i + 1).clamp(max=values.shape[1] - 1)
        v, w, start, end, after = (
            part.gather(1, k) for part, k in ((values, i), (values, j), (low, i), (high, i), (low, j))
        )
        share = ((at - v) / (w - v).where(w > v, 1.0)).clamp(0, 1)
        exact = at == v
        lows = torch.where(exact, start, torch.where(w > v, end + share * (after - end), end))
        lows = lows.masked_fill(~found.isfinite(), torch.nan)
        return torch.stack([lows, torch.where(exact, end - start, 0.0)], -1).transpose(0, 1)

    def decode(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The network's output → data."""
        expect("The data", z, Tensor)
        self.shape(tuple(z.shape))
        values, low, high = self._like(z)
        u = torch.special.ndtr(_doubled(z)).reshape(-1, z.shape[-1]).T.contiguous()
        i = (torch.searchsorted(low, u, right=True) - 1).clamp(min=0)
        j = (i + 1).clamp(max=values.shape[1] - 1)
        v, w, end, after = (part.gather(1, k) for part, k in ((values, i), (values, j), (high, i), (low, j)))
        share = ((u - end) / (after - end).where(after > end, 1.0)).clamp(0, 1)
        x = v + torch.where(after > end, share, 0.0) * (w - v)
        ten = torch.tensor(
            [10.0**places if places >= 0 else 0.0 for places in self.decimals], dtype=x.dtype, device=x.device
        )[:, None]
        x = torch.where(ten > 0, (x * ten).round() / ten.where(ten > 0, 1.0), x)
        x = x.masked_fill(u.isnan(), torch.inf)  # NaN would be a missing cell
        return x.T.reshape(z.shape).to(z)

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        device = _doubled(x[:0]).device
        return self.values.to(device), self.low.to(device), self.high.to(device)

    def to_config(self) -> dict[str, Any]:
        return {"name": "ranks", "decimals": list(self.decimals)}

    def weights(self) -> dict[str, Tensor]:
        return {"values": self.values, "low": self.low, "high": self.high}


def fit_ranks(batches: Batches) -> Ranks:
    """Columns of numbers by their ranks, to N(0, 1)."""
    return Ranks.fit(torch.cat([*batches()]))


def read_ranks(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Ranks:
    """The codec whose `to_config` and `weights` these are; anything else is an InputError."""
    if set(config) != {"name", "decimals"} or set(weights) != {"values", "low", "high"}:
        raise InputError(f"ranks must have decimals, and tensors values, low and high; got {', '.join(weights)}.")
    if not isinstance(config["decimals"], list | tuple):
        raise InputError(f"ranks: decimals must be a list; got {config['decimals']!r}.")
    return Ranks(weights["values"], weights["low"], weights["high"], tuple(config["decimals"]))


def normal_scores(u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Φ⁻¹(u) in float64, finite at 0 and 1, too."""
    return torch.special.ndtri(u.clamp(2.0**-53, 1 - 2.0**-53))


def _doubled(x: Tensor) -> Tensor:
    """x in float64, on the CPU where the accelerator has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _knots(column: np.ndarray, stepped: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of a column, at most KNOTS, with F(x−) and F(x); of none 0, a constant."""
    if not len(column):
        column = np.zeros(1)
    values, counts = np.unique(column, return_counts=True)
    n = len(column)
    after = np.cumsum(counts)
    low, high = (after - counts) / n, after / n
    repeated = stepped or len(values) <= DISTINCT or n >= REPEATED * len(values)
    steps = np.full(len(values), True) if repeated and len(values) <= KNOTS else (counts > 1) & (counts > n / 1000)
    middle = (low + high) / 2
    low, high = np.where(steps, low, middle), np.where(steps, high, middle)
    if stepped and len(values) > KNOTS:
        raise InputError(f"A column has {len(values):,} levels; at most {KNOTS:,} are learned.")
    if len(values) > KNOTS:  # all steps, the ends, and others evenly among what is left
        kept = steps.copy()
        kept[[0, -1]] = True
        others = np.flatnonzero(~kept)
        kept[others[np.linspace(0, len(others) - 1, KNOTS - int(kept.sum())).round().astype(int)]] = True
        values, low, high = values[kept], low[kept], high[kept]
    return values, low, high


def _decimals(values: np.ndarray) -> int:
    """The decimals that suffice for all of a column's values in float32; -1 if more than seven are needed."""
    near = values.astype(np.float32)
    return next((k for k in range(8) if (np.round(values, k).astype(np.float32) == near).all()), -1)
