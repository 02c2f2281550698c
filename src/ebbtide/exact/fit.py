"""A solver fitted to a run: nodes and weights for its denoiser's flow, in closed form, for N evaluations.

In the flow's clock τ = σ/(α + σ), y = x/(α + σ), every path is the linear one, so the fit is the same on all of them.
The nodes are τ_i = τ_0 k v / (1 + (k - 1) v), v = (1 - i/N)^e, for a dozen shapes (e, k). Step i of
`samplers.bespoke` ends at A_i y_0 + g_i Σ_{j<i} w_ij x̂₀(y_j), linear in its weights once the estimates before it are
known; so row after row is a least-squares fit to the finely solved flow at τ_i, of the solver's own estimates. Duan et
al. 2023, arXiv:2305.14677 (Optimal Linear Subspace Search) fit so; there the estimates are the fine solver's.

Each (e, k) is fitted twice: plainly, which favours the root mean square, and with the starts reweighted by 1/error²,
which favours the typical error. Starts that were not fitted select the best, by RMS × geometric mean. For N(m, C) with
r different variances N = r + 1 evaluations are exact: every x̂₀ is a polynomial in C applied to y_0, one degree more a
step, and r of them, beside m, which the first evaluation gives, span all that C can make of y_0 (Krylov).
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.mixtures import stored_tables
from ..core.paths import Path, Scales
from ..core.times import from_flow, shifted_power
from ..errors import DivergedError
from ..samplers import SAMPLERS, walk
from ..samplers.bespoke import format_weights
from ..specs import bind, require
from .encoding import require_batch
from .plans import CHECKED, COUNTS, JOINT, PLANS, FitPlan
from .tuned import Tuned
from .unroll import unrolled

__all__ = ["CLASSIC", "SHAPES", "fit_solver"]

EQUATIONS = 4096  # of a row's fit: a part of a large sample's numbers are enough
RCOND = 1e-5  # directions of the estimates weaker than this are left out
NEGLIGIBLE = 0.3  # of the median error: what is less counts no more in reweighing
BATCH = 2**16  # numbers that go through the network together,
CONDITIONS = 2**22  # of what it is told with them,
HELD = 2**23  # and that a group of walks holds
CLASSIC = "exponential:order=4,corrector=true"
EXPONENTS, SHIFTS = (1.3, 1.6, 1.0, 2.0), (0.8, 1.5, 0.4)
# Those that win most often first, for plans that try few.
SHAPES = [(e, k) for e, k in sorted(product(EXPONENTS, SHIFTS), key=lambda s: (SHIFTS.index(s[1]) // 2, s))]


def fit_solver(
    denoiser: DenoiserLike,
    start: Float[Tensor, " n *d"],
    counts: Sequence[int] = COUNTS,
    *,
    plan: FitPlan = PLANS[0],
    joint: int = 0,
    progress: Callable[[float], None] = lambda share: None,
    cond: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Tuned, ...]:
    """A solver for each count of evaluations; `start` is x at t = 1, and its conditions, for plan.pool starts.

    joint: gradient steps for counts up to JOINT. progress: called with the finished share of the work.
    rms, median of the result: over the half of the starts that selected it. usual: the best unfitted solver there.
    """
    require_batch("start", start)
    require("The number of starts of a fit", len(start), 8)
    for count in counts:
        require("Each of a fit's counts of evaluations", count, 1, whole=True)
    flow = _Flow(denoiser, start, cond)
    if plan.border and len(start) > plan.starts:
        flow = flow.near_borders(plan)
    progress(0.1)
    fine, error = flow.reference(plan.reference)
    made = []
    for done, count in enumerate(counts):
        progress(0.3 + 0.7 * sum(counts[:done]) / sum(counts))
        made.append(_fitted(flow, fine, error, count, plan.shapes, joint if count <= JOINT else 0))
    progress(1.0)
    return tuple(made)


def _fitted(flow: "_Flow", fine: "_Reference", error: float, count: int, shapes: int, joint: int) -> Tuned:
    """The best of all shapes, plain and reweighed, and of two unfitted tables; then moved by gradients."""
    found = [pair for group in flow.groups(count, SHAPES[:shapes]) for pair in flow.tables(fine, *group)]
    others = [flow.classic(count), *([flow.known(count)] if count in stored_tables() else [])]
    found += [(table, flow.end(table)) for table in others]
    score, table, end = min(((flow.judge(end, fine), table, end) for table, end in found), key=lambda row: row[0])
    if not math.isfinite(score):
        raise DivergedError(f"No solver of {count} evaluations stays finite, so there is none to keep.")
    if joint:
        table = flow.polish(table, fine, joint)
        end = flow.end(table)
    rms, median = flow.errors(end, fine)
    grid = ",".join(f"{t:.12g}" for t in from_flow(table.nodes / flow.first, flow.path).tolist())
    weights = f"bespoke:weights={format_weights(table.rows)}" if count > 1 else "bespoke"
    usual = min(flow.errors(end, fine)[0] for _, end in found[-len(others) :])
    return Tuned(count, weights, grid, count, rms, median, error, usual)


class _Table(NamedTuple):
    """Nodes τ_0 … τ_N = 0 and rows of weights that sum to 1."""

    nodes: Tensor
    rows: Sequence[Sequence[float]] | list[Any]  # of tensors, where gradients are wanted


class _Reference(NamedTuple):
    """Points of the flow at falling τ, and its slope dy/dτ there; the slope at τ = 0 is unknown."""

    clock: Float[Tensor, " m"]
    y: Float[Tensor, " m n d"]
    slope: Float[Tensor, " m n d"]

    def at(self, tau: Float[Tensor, " c"]) -> Float[Tensor, " c n d"]:
        """Hermite's cubic between two of them; before τ = 0 the parabola."""
        i = ((self.clock > tau[:, None]).sum(1) - 1).clamp(0, len(self.clock) - 2)
        h = (self.clock[i + 1] - self.clock[i])[:, None, None]
        s = (tau - self.clock[i])[:, None, None] / h
        last = (i == len(self.clock) - 2)[:, None, None]
        towards = torch.where(last, s * s, s * s * (3 - 2 * s))
        out = torch.where(last, s * (1 - s), s * (1 - s) ** 2) * h
        into = torch.where(last, 0.0, s * s * (s - 1)) * h
        after = (i + 1).clamp(max=len(self.slope) - 1)
        return self.y[i] * (1 - towards) + self.y[i + 1] * towards + self.slope[i] * out + self.slope[after] * into


@dataclass(frozen=True)
class _Flow:
    """A denoiser seen in the flow's clock, and the starts to fit on: every other one is fitted, the rest choose."""

    denoiser: DenoiserLike
    start: Tensor
    cond: Mapping[str, Any]
    shares: Tensor | None = None  # of all starts that each stands for; None: the same

    @property
    def path(self) -> Path:
        return self.denoiser.path

    @functools.cached_property
    def first(self) -> float:
        """τ at t = 1."""
        last = self.path.along([1.0])[0]
        return last.tau

    @functools.cached_property
    def y(self) -> Float[Tensor, " n d"]:
        last = self.path.along([1.0])[0]
        return self.start.detach().double().flatten(1).cpu() / last.size

    @functools.cached_property
    def weight(self) -> Float[Tensor, " n"]:
        return torch.ones(len(self.start), dtype=torch.float64) if self.shares is None else self.shares

    def known(self, count: int) -> _Table:
        """The stored table of mixtures, from this path's first τ."""
        nodes, rows = stored_tables()[count]
        return _Table(self.first * torch.tensor(nodes, dtype=torch.float64), rows)

    def classic(self, count: int) -> _Table:
        """The best unfitted solver, as a table; a fit to few starts has to beat it."""
        sampler = bind(SAMPLERS, CLASSIC, "sampler")
        asked, rows = unrolled(sampler, self.path, from_flow(shifted_power(count, 2.0, 1.0), self.path), count)
        c = self.path.scales(asked)
        return _Table(c.tau, rows)

    def x0(self, y: Float[Tensor, "c n d"], c: Scales) -> Float[Tensor, "c n d"]:
        """x̂₀ of y, all starts at each of c times, some at a time."""
        n = len(self.start)
        size = max(1, min(BATCH // y.shape[2], CONDITIONS // max(1, _numbers(self.cond, n) // n)))
        each = torch.arange(n).repeat(len(y))
        x = (y * c.size[:, None, None]).to(self.start).reshape(-1, *self.start.shape[1:])
        found = []
        for i in range(0, len(x), size):
            t = c.t.repeat_interleave(n)[i : i + size]
            own = _rows(self.cond, each[i : i + size].to(x.device), n)
            found.append(self.denoiser(x[i : i + size], t.to(x.device), **own).x0)
        return torch.cat(found).double().cpu().reshape(y.shape)

    def walk(self, table: _Table, scales: Scales | None = None) -> Iterator[Tensor]:
        """y after each step."""
        y, estimates = self.y[None], []
        c = scales or self.path.scales(from_flow(table.nodes / self.first, self.path))
        for i, (tau, row) in enumerate(zip(table.nodes[1:], table.rows, strict=True)):
            estimates.append(self.x0(y, Scales(*(value[i : i + 1] for value in c))))
            keep, gain = self.linear(tau)
            y = keep * self.y + gain * sum(w * x0 for w, x0 in zip(row, estimates, strict=True))
            yield y[0]

    def linear(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """A and g of a step's end A y_0 + g Σ w x̂₀."""
        keep = tau / self.first
        return keep, 1 - tau - keep * (1 - self.first)

    def end(self, table: _Table) -> Tensor:
        """End points of a table's walk."""
        with torch.no_grad():
            *_, y = self.walk(table)
        return y

    def near_borders(self, plan: FitPlan) -> "_Flow":
        """A subset of the starts, most of them near a border between modes, where the largest errors occur."""
        ends = [self.end(self.known(count)) for count in COUNTS[:2]]
        order = (ends[0] - ends[1]).norm(dim=1).argsort(descending=True, stable=True)
        near, far = order[: plan.border], order[plan.border :]
        kept = far.sort().values[torch.linspace(0, len(far) - 1, plan.others).round().long()]
        shares = torch.cat([torch.full((plan.others,), len(far) / plan.others), torch.ones(plan.border)]).double()
        places = torch.cat([kept, near])
        here = places.to(self.start.device)
        return _Flow(self.denoiser, self.start[here], _rows(self.cond, here, len(self.start)), shares)

    def reference(self, steps: int) -> tuple[_Reference, float]:
        """The flow by RK4, and the RMS distance of its end to that of half as many steps, of some starts."""
        recorded, some = _Recorded(self.denoiser), slice(None, None, CHECKED)
        own = _rows(self.cond, some, len(self.start))
        with torch.no_grad():
            *_, end = walk("rk4:clock=flow", recorded, self.start, self._fine(steps), cond=self.cond)
            half = walk("rk4:clock=flow", _Recorded(self.denoiser), self.start[some], self._fine(steps // 2), cond=own)
            *_, coarse = half
        clock = torch.tensor([*recorded.clock, 0.0], dtype=torch.float64)
        y, slope = torch.stack([*recorded.y, end.flatten(1).double().cpu()]), torch.stack(recorded.slope)
        error = float((end[some] - coarse).flatten(1).square().sum(1).mean().sqrt())
        if not math.isfinite(error):
            raise DivergedError("The reference is not finite, so there is nothing to fit a solver to.")
        return _Reference(clock, y, slope), error

    def _fine(self, steps: int) -> Tensor:
        return from_flow(shifted_power(steps, 1.5, 4.0), self.path)

    def groups(self, count: int, shapes: Sequence[tuple[float, float]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Nodes of every shape twice, and a mask of those to reweight, in groups that fit the memory budget."""
        nodes = self.first * torch.stack([shifted_power(count, e, k) for e, k in shapes]).repeat(2, 1)
        reweighed = torch.arange(len(nodes)) >= len(shapes)
        size = max(1, HELD // (count * self.y.numel()))
        return zip(nodes.split(size), reweighed.split(size), strict=True)

    def tables(
        self, fine: _Reference, nodes: Float[Tensor, "c n_plus_1"], reweighed: Bool[Tensor, " c"]
    ) -> list[tuple[_Table, Tensor]]:
        """Tables fitted row by row, by least squares on the solver's estimates of every other start; and their ends."""
        fitted, share = slice(0, None, 2), self.weight[0::2]
        n, dim = self.y[fitted].shape
        some = torch.randperm(dim, generator=torch.Generator().manual_seed(0))[: max(1, EQUATIONS // n)]
        t = torch.stack([from_flow(row / self.first, self.path) for row in nodes])
        c = self.path.scales(t)
        made: list[Tensor] = []
        y, estimates = self.y.expand(len(nodes), *self.y.shape), []
        with torch.no_grad():
            for i in range(nodes.shape[1] - 1):
                estimates.append(self.x0(y, Scales(*(value[:, i] for value in c))))
                keep, gain = (value[:, None, None] for value in self.linear(nodes[:, i + 1]))
                known = torch.stack([x0[:, fitted][..., some] for x0 in estimates], 3)
                want = ((fine.at(nodes[:, i + 1]) - keep * self.y) / gain)[:, fitted][..., some] - known[..., -1]
                basis = known[..., :-1] - known[..., -1:]
                free = _least_squares(basis, want, share.expand(len(nodes), n))
                for _ in range(3 if i and bool(reweighed.any()) else 0):
                    error = (want - (basis @ free[:, None, :, None])[..., 0]).square().sum(2)[reweighed]
                    typical = NEGLIGIBLE**2 * error.median(1, keepdim=True).values + 1e-300
                    free[reweighed] = _least_squares(basis[reweighed], want[reweighed], share / (error + typical))
                made.append(torch.cat([free, 1 - free.sum(1, keepdim=True)], 1))
                weights = made[-1][:, :, None, None]
                y = keep * self.y + gain * sum(weights[:, j] * x0 for j, x0 in enumerate(estimates))
        return [(_Table(nodes[k], [row[k].tolist() for row in made]), y[k]) for k in range(len(nodes))]

    def judge(self, end: Float[Tensor, "n d"], fine: _Reference) -> float:
        """log (RMS × geometric mean) of the distance to the flow's end, over the starts that were not fitted."""
        return float(_score(self._squares(end, fine)[1::2], self.weight[1::2]))

    def errors(self, end: Float[Tensor, "n d"], fine: _Reference) -> tuple[float, float]:
        """RMS and median distance there."""
        squares, share = self._squares(end, fine)[1::2], self.weight[1::2]
        ordered, order = squares.sort()
        middle = int(torch.searchsorted(share[order].cumsum(0), share.sum() / 2))
        return float(_mean(squares, share).sqrt()), float(ordered[middle].sqrt())

    def _squares(self, end: Tensor, fine: _Reference) -> Tensor:
        return (end - fine.y[-1]).square().sum(1)

    def polish(self, table: _Table, fine: _Reference, steps: int, rate: float = 0.02) -> _Table:
        """Nodes and weights optimised together by Adam, as long as the error on unfitted starts falls."""
        inner = len(table.nodes) - 2
        moved = torch.cat(
            [table.nodes[1:-1].logit(), torch.tensor([w for row in table.rows for w in row[:-1]]).double()]
        )
        mean, square = torch.zeros_like(moved), torch.zeros_like(moved)
        best = self.judge(self.end(table), fine), table
        for step in range(steps):
            with torch.enable_grad():
                free = moved.clone().requires_grad_()
                nodes = torch.cat([table.nodes[:1], free[:inner].sigmoid(), table.nodes[-1:]])
                rows = [
                    torch.cat([w, 1 - w.sum(0, keepdim=True)]) for w in free[inner:].split([*range(len(table.rows))])
                ]
                *_, y = self.walk(_Table(nodes, rows), self._smooth(nodes))
                squares = self._squares(y, fine)
                loss = _score(squares[0::2] + 0.01 * squares[0::2].median().detach(), self.weight[0::2])
            now = float(_score(squares.detach()[1::2], self.weight[1::2]))
            if now < best[0]:
                best = now, _Table(nodes.detach(), [row.tolist() for row in rows])
            if not bool(loss.isfinite()):
                break
            # Adam; torch.optim's would import the compiler, which takes longer than a fit.
            (gradient,) = torch.autograd.grad(loss, free)
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.001)
            now_rate = rate * (1 + math.cos(math.pi * step / steps)) / 2 * math.sqrt(1 - 0.999 ** (step + 1))
            moved -= now_rate / (1 - 0.9 ** (step + 1)) * mean / (square.sqrt() + 1e-8)
        return best[1]

    def _smooth(self, nodes: Tensor) -> Scales:
        """Scales at each node with the gradient that bisection for its time would lose."""
        t = from_flow(nodes.detach() / self.first, self.path)
        c = self.path.scales(t)
        rate = (c.sigma_dot * c.alpha - c.sigma * c.alpha_dot) / c.size**2  # dτ/dt
        inner = torch.zeros_like(t, dtype=torch.bool)
        inner[1:-1] = True
        return self.path.scales(t + torch.where(inner, (nodes - nodes.detach()) / rate.where(inner, 1.0), 0.0))


class _Recorded:
    """A denoiser that records the place of the first stage of each RK4 step, and the slope there."""

    gaussian_end = True  # in the flow's clock x̂₀ and ε̂ are coordinates of the velocity, and need mean no more

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser, self.path, self.calls = denoiser, denoiser.path, 0
        self.clock: list[float] = []
        self.y: list[Tensor] = []
        self.slope: list[Tensor] = []

    def __call__(self, x: Tensor, c: Any, /, **cond: Any) -> Any:
        estimate = self.denoiser(x, c, **cond)
        if self.calls % 4 == 0:
            self.clock.append(c.tau)
            self.y.append(x.flatten(1).double().cpu() / c.size)
            self.slope.append(estimate.mix(-1.0, 1.0).flatten(1).double().cpu())
        self.calls += 1
        return estimate


def _rows(cond: Any, places: Any, n: int) -> Any:
    """The conditions of some of n samples, through nested dicts, lists and tuples."""
    if isinstance(cond, Mapping):
        return {name: _rows(part, places, n) for name, part in cond.items()}
    if isinstance(cond, list | tuple):
        return type(cond)(_rows(part, places, n) for part in cond)
    return cond[places] if isinstance(cond, Tensor) and cond.ndim and len(cond) == n else cond


def _numbers(cond: Any, n: int) -> int:
    """Count of numbers in the conditions of n samples."""
    if isinstance(cond, Mapping | list | tuple):
        return sum(_numbers(part, n) for part in (cond.values() if isinstance(cond, Mapping) else cond))
    return cond.numel() if isinstance(cond, Tensor) and cond.ndim and len(cond) == n else 0


def _least_squares(
    basis: Float[Tensor, "c n d j"], want: Float[Tensor, "c n d"], share: Float[Tensor, "c n"]
) -> Float[Tensor, "c j"]:
    """Weights that bring basis @ w nearest to want, each start weighted by its share; weak directions are left out."""
    root = (share / share.mean(1, keepdim=True)).sqrt()[..., None]
    u, s, v = torch.linalg.svd((basis * root[..., None]).flatten(1, 2), full_matrices=False)
    inverse = torch.where(s > RCOND * s[:, :1], 1 / s, 0.0)[..., None]
    return (v.mT @ (inverse * (u.mT @ (want * root).flatten(1)[..., None])))[..., 0]


def _mean(values: Tensor, share: Tensor) -> Tensor:
    return (values * share).sum() / share.sum()


def _score(squares: Tensor, share: Tensor) -> Tensor:
    """log (RMS × geometric mean); infinite where it is not a number."""
    score = (_mean(squares, share).log() + _mean((squares + 1e-300).log(), share)) / 2
    return torch.where(score.isnan(), torch.inf, score)
