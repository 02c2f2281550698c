"""Losses of flow maps on exact maps: zero there, on every path, and not beside them; where gradients run."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.losses import flow_map
from ebbtide.losses.flow_map import Leap, arrive, consistency, known_ends, lagrangian, mean_flow, mean_slope, shortcut
from ebbtide.networks.mlp import MLP
from problems import MEAN, PATHS, STD, GaussianNetwork, exact, exact_flow, fill, float64, noise_like, oracle

N = 48
PLAIN = {"power": 0.0}
EXACT = PLAIN | {"derivative": "jvp"}
paths = each("path", PATHS.values(), ids=PATHS.keys())
losses = each(
    ["loss", "options"],
    [(known_ends, PLAIN), (shortcut, PLAIN), (mean_flow, EXACT), (lagrangian, EXACT), (consistency, PLAIN)],
    ids=["trajectory", "shortcut", "mean_flow", "lagrangian", "consistency"],
)


def leaps(path, dim=2, n=N):
    """Points of the exact flow and times to lead to, a quarter of them t itself, with all that is known of both."""
    draw = torch.Generator().manual_seed(5)
    last = path.along([1.0])[0].tau
    tau = last * (0.02 + 0.96 * torch.rand(n, generator=draw, dtype=torch.float64))
    toward = tau * torch.rand(n, generator=draw, dtype=torch.float64)
    x = torch.empty(n, dim, dtype=torch.float64)
    t, to = (path.at(path.time_at(each), x) for each in (tau, toward))
    x_t = t.alpha * (MEAN + STD * noise_like(n, dim, seed=1)) + t.sigma * noise_like(n, dim, seed=2)
    ends = [exact_flow(path, row, float(now), float(then)) for row, now, then in zip(x_t, t.t, to.t, strict=True)]
    return Leap(x_t, t, to, mean_slope(oracle(path, dim), x_t, t), torch.stack(ends))


class Beside:
    """The exact map but for 0.01 (τ_t - τ_s) z of its mean slope."""

    gaussian_end = spans = True

    def __init__(self, denoiser):
        self.denoiser, self.path = denoiser, denoiser.path

    def __call__(self, x, t, /, *, to=None, **cond):
        found = self.denoiser(x, t, to=to)
        if to is None:
            return found
        c, end = self.path.at(t, x), self.path.at(to, x)
        u = found.mix(-1.0, 1.0) + 0.01 * (c.tau - end.tau) * x / c.size
        x0 = x / c.size - c.tau * u
        return Estimate(x0, x0 + u)


@paths
@losses
def test_every_loss_is_zero_on_the_exact_map_alone(path, loss, options):
    leap, truth = leaps(path), oracle(path, 2)
    assert float(loss(truth, leap, **options).max()) < 1e-13
    assert float(loss(Beside(truth), leap, **options).mean()) > 1e-6


@paths
@losses
def test_every_loss_is_zero_on_an_exact_network(path, loss, options):
    """The same through a Denoiser, whose network is given the way from t to s in the flow clock."""
    if loss is consistency and path is PATHS["ve"]:
        return  # at t = 1 its α/σ is 1/10: below, on all paths alike
    for target in ("noise", "x0", "velocity", "v", "score"):
        assert float(loss(exact(path, target), leaps(path, 1), **options).max()) < 1e-13, target


@paths
@each("loss", [mean_flow, lagrangian])
def test_the_difference_is_the_derivative(path, loss):
    """Central, with h = 1e-3: beside the exact map both give the same loss to 1e-3 of it."""
    leap, wrong = leaps(path), Beside(oracle(path, 2))
    by_difference, by_jvp = (loss(wrong, leap, derivative=how, **PLAIN) for how in ("difference", "jvp"))
    torch.testing.assert_close(by_difference, by_jvp, rtol=1e-3, atol=1e-7)


class Quick(nn.Module):
    """A network of two times with a feature of a period p; `states` it, as networks of ours do, or not."""

    spans = True

    def __init__(self, period, states):
        super().__init__()
        self.rate = 2 * torch.pi / period
        if states:
            self.shortest_period = period

    def forward(self, x, t, span=None):
        turn = torch.sin(self.rate * t)[:, None]
        return (
            x + 0.1 * turn
            if span is None
            else x + (0.1 * turn + span[:, None] * torch.cos(self.rate * (t - span))[:, None])
        )


@each("loss", [mean_flow, lagrangian])
def test_the_step_of_a_difference_follows_from_the_shortest_period(loss):
    """π0's is 0.004: a step of 0.001 is a quarter of it, and its difference is no derivative; ours errs by 1 %."""
    leap = leaps(Linear())
    losses = {
        states: [loss(Denoiser(Quick(4e-3, states), Linear()), leap, derivative=how, **PLAIN).sqrt() for how in
                 ("difference", "jvp")]
        for states in (True, False)
    }  # fmt: skip
    errors = {states: float((a - b).norm() / b.norm()) for states, (a, b) in losses.items()}
    assert errors[True] < 0.01
    assert errors[False] > 0.3


def test_a_teacher_tells_the_lagrangian_loss_the_velocity():
    """A denoiser that is consistent with itself, but of another flow, is zero by itself and not beside the teacher."""
    path = Linear()
    other = Denoiser(GaussianNetwork(path, "velocity", mean=MEAN + 0.2), path)
    leap = leaps(path, 1)
    alone = Leap(leap.x_t, leap.t, leap.to)
    assert float(lagrangian(other, alone, **EXACT).max()) < 1e-13
    assert float(lagrangian(other, alone, teacher=oracle(path), **EXACT).mean()) > 1e-2


@each("loss", [shortcut, consistency])
def test_the_average_makes_the_targets(loss):
    """An exact map isn't zero beside another's targets, nor is another map beside the exact one's."""
    leap, truth = leaps(Linear()), oracle(Linear(), 2)
    for denoiser, average in ((truth, Beside(truth)), (Beside(truth), truth)):
        assert float(loss(denoiser, leap, average=average, **PLAIN).mean()) > 1e-7


@paths
def test_mean_flow_may_take_the_averages_velocity_for_the_slope(path):
    """Then the slope of a pair counts where s = t alone, and an average that is wrong makes targets that are."""
    leap, truth = leaps(path), oracle(path, 2)
    spread = replace(leap, slope=leap.slope + noise_like(N, 2, seed=8))
    assert float(mean_flow(truth, spread, average=truth, own=True, **EXACT).max()) < 1e-13
    assert float(mean_flow(truth, spread, average=Beside(truth), own=True, **EXACT).mean()) > 1e-6
    assert float(mean_flow(truth, spread, average=truth, **EXACT).mean()) > 1e-2
    assert float(mean_flow(truth, leap, average=Beside(truth), **EXACT).max()) < 1e-13
    here = replace(spread, to=spread.t)
    expected = (leap.slope - spread.slope).square().mean(1)
    torch.testing.assert_close(mean_flow(truth, here, average=truth, own=True, **PLAIN), expected)


def test_examples_that_stay_ask_for_no_target():
    """Their halves and derivatives aren't evaluated: only the rows that lead to another time are."""
    leap, seen = leaps(Linear()), []
    mixed = replace(leap, to=Linear().at(torch.where(torch.arange(N) % 4 == 0, leap.t.t, leap.to.t), leap.x_t))
    rows, part = mixed.apart()
    assert rows.tolist() == [i for i in range(N) if i % 4]
    assert torch.equal(part.x_t, leap.x_t[rows])
    assert torch.equal(part.to.tau, mixed.to.tau[rows])

    class Counting(Beside):
        def __call__(self, x, t, /, **given):
            seen.append(len(x))
            return super().__call__(x, t, **given)

    for loss in (shortcut, mean_flow):
        seen.clear()
        loss(Counting(oracle(Linear(), 2)), mixed, **PLAIN)
        assert sorted(seen) == [len(rows), len(rows), N]
    assert mixed.apart()[1].given("slope").shape == (len(rows), 2)


def test_no_gradient_runs_through_targets():
    """In known_ends it runs through the slope alone, so that ∂/∂θ is that of a regression on a number."""
    torch.manual_seed(0)
    network = fill(MLP(2, width=8, depth=1, spans=True)).double()
    denoiser, leap = Denoiser(network, Linear()), leaps(Linear(), n=8)
    for loss in (known_ends, shortcut, mean_flow, consistency):
        found = loss(denoiser, leap, **PLAIN).sum()
        gradient = torch.autograd.grad(found, list(network.parameters()))
        target = {
            known_ends: lambda: (leap.x_to - leap.x_t) / (leap.to.tau - leap.t.tau),
            shortcut: lambda: _halves(denoiser, leap),
            mean_flow: lambda: _euler(denoiser, leap),
            consistency: None,
        }[loss]
        if target is None:
            end = Linear().at(torch.zeros(8).double(), leap.x_t)
            with torch.no_grad():
                held = arrive(leap.x_to, leap.to, end, mean_slope(denoiser, leap.x_to, leap.to, end))
            own = (
                (arrive(leap.x_t, leap.t, end, mean_slope(denoiser, leap.x_t, leap.t, end)) - held)
                .square()
                .mean(1)
                .sum()
            )
        else:
            with torch.no_grad():
                held = target()
            own = (mean_slope(denoiser, leap.x_t, leap.t, leap.to) - held).square().mean(1).sum()
        for mine, theirs in zip(gradient, torch.autograd.grad(own, list(network.parameters())), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


def _halves(denoiser, leap):
    half = Linear().at((leap.t.t + leap.to.t) / 2, leap.x_t)
    first = denoiser(leap.x_t, leap.t, to=half)
    x = first.mix(half.alpha, half.sigma)
    second = denoiser(x, half, to=leap.to)
    return (first.mix(-1.0, 1.0) + second.mix(-1.0, 1.0)) / 2


def _euler(denoiser, leap, h=1e-3):
    """v - (t - s) [u(x + h v, t + h) - u(x - h v, t - h)] / 2h, on the linear path."""
    sides = [
        mean_slope(denoiser, leap.x_t + way * leap.slope, Linear().at(leap.t.t + way, leap.x_t), leap.to)
        for way in (h, -h)
    ]
    return leap.slope - (leap.t.tau - leap.to.tau) * (sides[0] - sides[1]) / (2 * h)


def test_the_gradient_of_the_lagrangian_loss_runs_through_the_derivative():
    network = fill(MLP(2, width=8, depth=1, spans=True)).double()
    denoiser, leap = Denoiser(network, Linear()), leaps(Linear(), n=8)
    parameters = list(network.parameters())
    by = {
        how: torch.autograd.grad(lagrangian(denoiser, leap, derivative=how, **PLAIN).sum(), parameters)
        for how in ("difference", "jvp")
    }
    for mine, theirs in zip(by["difference"], by["jvp"], strict=True):
        assert float((mine - theirs).norm()) < 5e-3 * float(theirs.norm())


def test_where_s_is_t_the_known_slope_is_learned():
    """There all but known_ends and consistency are the flow-matching loss."""
    leap, other = leaps(Linear()), noise_like(N, 2, seed=9)
    here = Leap(leap.x_t, leap.t, leap.t, other)
    expected = (mean_slope(oracle(Linear(), 2), leap.x_t, leap.t) - other).square().mean(1)
    for loss in (shortcut, mean_flow, lagrangian):
        torch.testing.assert_close(loss(oracle(Linear(), 2), here, **PLAIN), expected, rtol=1e-6, atol=1e-6)


def test_robust_by_hand():
    """Errors (3, 4): a mean square of 12.5; over (12.5 + 0.5)^p, and its gradient is that of the square over that."""
    error = torch.tensor([[3.0, 4.0]], requires_grad=True)
    assert float(flow_map.robust(error, 0.0, 0.5)) == pytest.approx(12.5)
    half = flow_map.robust(error, 0.5, 0.5)
    assert float(half) == pytest.approx(12.5 / 13**0.5)
    half.sum().backward()
    torch.testing.assert_close(error.grad, torch.tensor([[3.0, 4.0]]) / 13**0.5)


def test_a_robust_loss_that_cannot_be_is_refused():
    leap = leaps(Linear(), n=4)
    with pytest.raises(InputError, match="power"):
        known_ends(oracle(Linear(), 2), leap, power=-1.0)
    with pytest.raises(InputError, match="floor"):
        known_ends(oracle(Linear(), 2), leap, floor=0.0)
    with pytest.raises(InputError, match="derivative"):
        mean_flow(oracle(Linear(), 2), leap, derivative="magic")


def test_a_network_of_a_single_time_leads_nowhere():
    denoiser = Denoiser(nn.Identity(), Linear())
    with pytest.raises(InputError, match="spans a single time"):
        denoiser(float64(1.0)[None], 0.5, to=0.2)
