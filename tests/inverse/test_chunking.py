"""Real-time chunking against Gaussians, where what follows from a committed prefix is a matter of linear algebra."""

import math

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Cosine, Linear
from ebbtide.errors import InputError
from ebbtide.exact.oracle import gaussian
from ebbtide.inverse.chunking import Previous, real_time, soft_mask
from ebbtide.inverse.posterior import PiGDM, masked
from ebbtide.samplers import walk
from problems import float64, last, noise_like

H, CORRELATION = 8, 0.9
COVARIANCE = CORRELATION ** (torch.arange(H)[:, None] - torch.arange(H)).abs().double()
TIMES = [1e-3, 0.3, 0.95, 1.0, float64(0.2, 0.7, 1.0)]


def smooth(path=None):
    """Chunks of 8 actions, each correlated by 0.9 with the next."""
    return gaussian(path or Linear(), torch.zeros(H, 1), COVARIANCE)


def committed(values, n=3, weights=None):
    """`values` for the first actions of n chunks."""
    actions = torch.zeros(n, H, 1, dtype=torch.float64)
    actions[:, : len(values), 0] = float64(*values)
    firm = float64(*[1.0] * len(values), *[0.0] * (H - len(values))) if weights is None else weights
    return Previous(actions, firm.expand(n, H))


def expected(values):
    """E[free actions | prefix], C_fp C_pp⁻¹ y."""
    d = len(values)
    return COVARIANCE[d:, :d] @ torch.linalg.inv(COVARIANCE[:d, :d]) @ float64(*values)


def mean_and_std(denoiser, previous, steps, **options):
    """What Euler, affine in its start, makes of N(0, I)."""
    start = torch.cat([torch.zeros(1, H), torch.eye(H)]).double()[..., None]
    previous = Previous(previous.actions[:1].expand(H + 1, H, 1), previous.weights[:1].expand(H + 1, H))
    end = last(
        walk("euler", real_time(denoiser, previous, **options), start, torch.linspace(1, 0, steps + 1).double())
    )[..., 0]
    return end[0], (end[1:] - end[:1]).square().sum(0).sqrt()


# the soft mask


def test_soft_mask_by_hand():
    """H = 5, d = 1, s = 2: c = 2/3, 1/3 in between, c (e^c - 1)/(e - 1) = 0.3677, 0.0767."""
    torch.testing.assert_close(soft_mask(5, 1, 2), torch.tensor([1, 0.36771, 0.07675, 0, 0]), rtol=0, atol=1e-5)


def test_soft_mask_without_anything_left_or_decaying():
    assert soft_mask(4, 0, 4).tolist() == [0, 0, 0, 0]
    assert soft_mask(4, 2, 2).tolist() == [1, 1, 0, 0]
    assert soft_mask(4, 4, 0).tolist() == [1, 1, 1, 1]
    with pytest.raises(InputError, match=r"within the horizon, 4; got 3 \+ 2"):
        soft_mask(4, 3, 2)


# one estimate


def test_one_estimate_by_hand():
    """Two actions that correlate by ½, t = ½, x_t = 0, the first committed to be 1.

    J = α C (α² C + σ² I)⁻¹ = 2 C (C + I)⁻¹ = [[14, 4], [4, 14]]/15, and min(β σ, (α² + σ²)/α) = 1: δ = (14, 4)/15. The
    identity in J's place would leave the second action at 0.
    """
    denoiser = gaussian(Linear(), torch.zeros(2, 1), float64(1, 0.5, 0.5, 1).reshape(2, 2))
    previous = Previous(float64(1, 0).reshape(1, 2, 1), float64(1, 0).reshape(1, 2))
    found = real_time(denoiser, previous)(torch.zeros(1, 2, 1).double(), 0.5)
    torch.testing.assert_close(found.x0.flatten(), float64(14 / 15, 4 / 15))
    clipped = real_time(denoiser, previous, beta=0.5)(torch.zeros(1, 2, 1).double(), 0.5)  # β σ = ¼
    torch.testing.assert_close(clipped.x0.flatten(), float64(14 / 60, 4 / 60))


@pytest.mark.parametrize("t", TIMES[1:-2])
def test_it_is_the_papers_equation_2_in_our_clock(t):
    """Their v + min(β, (1 - τ)/(τ r²)) (Y - Â)ᵀ diag(W) ∂Â/∂A, Â = A + (1 - τ) v, r² = (1 - τ)²/(τ² + (1 - τ)²)."""
    x, weights, tau = noise_like(3, H, 1), torch.linspace(1, 0, H).double(), 1 - t
    previous = Previous(noise_like(3, H, 1, seed=1), weights.expand(3, H))
    v = lambda a: smooth()(a, t).mix(1, -1)
    guess, pull = torch.func.vjp(lambda a: a + (1 - tau) * v(a), x)
    r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    theirs = v(x) + min(5, (1 - tau) / (tau * r2)) * pull(weights[:, None] * (previous.actions - guess))[0]
    torch.testing.assert_close(real_time(smooth(), previous)(x, t).mix(1, -1), theirs)


@pytest.mark.parametrize("t", [1e-3, 0.3, 0.95])
@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_a_hard_mask_without_clipping_is_pigdm(path, t):
    x, previous = noise_like(3, H, 1), committed([1.0, 0.5])
    known = masked(previous.actions[:1], (previous.weights[0] == 1)[:, None])
    one, other = real_time(smooth(path), previous, beta=math.inf)(x, t), PiGDM(smooth(path), known)(x, t)
    torch.testing.assert_close(one.x0, other.x0)
    torch.testing.assert_close(one.noise, other.noise)


@pytest.mark.parametrize("solve", [0, 3])
@pytest.mark.parametrize("t", [*TIMES, 0.0])
def test_estimates_still_add_up_to_x_t(t, solve):
    x, previous = noise_like(3, H, 1), committed([1.0, 0.5], weights=soft_mask(H, 2, 3).double())
    c = Linear().at(t, x)
    found = real_time(smooth(), previous, solve=solve)(x, t)
    torch.testing.assert_close(found.mix(c.alpha, c.sigma), x)


@pytest.mark.parametrize("solve", [0, 3])
def test_without_weight_nothing_changes(solve):
    x, previous = noise_like(3, H, 1), committed([1.0], weights=torch.zeros(H).double())
    found = real_time(smooth(), previous, solve=solve)(x, 0.4)
    torch.testing.assert_close(found.x0, smooth()(x, 0.4).x0)


@pytest.mark.parametrize("solve", [0, 3])
def test_samples_do_not_mix(solve):
    """A sample without a previous chunk, beside one with: each is as alone."""
    x = noise_like(2, H, 1)
    previous = Previous(noise_like(2, H, 1, seed=1), torch.stack([soft_mask(H, 2, 3), torch.zeros(H)]).double())
    both = real_time(smooth(), previous, solve=solve)(x, 0.4).x0
    alone = real_time(smooth(), Previous(*(part[:1] for part in previous)), solve=solve)(x[:1], 0.4).x0
    torch.testing.assert_close(both[:1], alone)
    torch.testing.assert_close(both[1:], smooth()(x[1:], 0.4).x0)


# chunks


@pytest.mark.parametrize("values", [[1.0], [1.0, 0.5, -0.5]])
def test_solved_chunks_are_what_follows_from_the_prefix(values):
    """To 0.001 in 5 steps of Euler, with as many conjugate gradient steps as there are committed actions."""
    mean, std = mean_and_std(smooth(), committed(values), 5, solve=len(values))
    torch.testing.assert_close(mean, torch.cat([float64(*values), expected(values)]), rtol=0, atol=1e-3)
    assert float(std[: len(values)].max()) < 1e-3


def test_one_conjugate_gradient_step_is_near_for_a_smooth_prefix():
    mean, _ = mean_and_std(smooth(), committed([1.0, 1.0, 1.0]), 5, solve=1)
    torch.testing.assert_close(mean[3:], expected([1.0, 1.0, 1.0]), rtol=0, atol=0.02)


def test_the_papers_chunks_come_near():
    """As measured, given that the first is 1: 0.95 ± 0.06 for itself, 0.66 instead of 0.90 for the second."""
    mean, std = mean_and_std(smooth(), committed([1.0]), 5)
    assert (float(mean[0]), float(std[0])) == pytest.approx((0.951, 0.055), abs=1e-2)
    assert float(mean[1]) == pytest.approx(0.66, abs=0.01)
    assert float(expected([1.0])[0]) == pytest.approx(0.9)


def test_soft_actions_are_followed_the_less_the_softer():
    """One action, of variance 1 and known to be 1 with weight W: the noise of a soft action pulls half as far at W = ½.

    With solve, (V + r² (1 - W)/W) u = y - x̂₀ for V = r², so δ = W (y - x̂₀).
    """
    denoiser = gaussian(Linear(), torch.zeros(1, 1), 1.0)
    previous = Previous(torch.ones(3, 1, 1).double(), float64(1.0, 0.5, 0.25)[:, None])
    found = real_time(denoiser, previous, solve=1)(torch.zeros(3, 1, 1).double(), 0.4)
    torch.testing.assert_close(found.x0.flatten(), float64(1.0, 0.5, 0.25))


@pytest.fixture(scope="module")
def fine():
    denoiser = real_time(smooth(), committed([1.0, 0.5], 1), solve=2)
    return last(walk("rk4", denoiser, noise_like(1, H, 1), torch.linspace(1, 0, 41).double()))


@pytest.mark.parametrize("sampler", ["euler", "heun", "midpoint", "rk4", "ddim", "dpmpp_2m", "unipc", "dopri5"])
def test_every_ode_sampler_takes_it(sampler, fine):
    """They all keep the prefix, and agree with a fine walk on the rest."""
    denoiser = real_time(smooth(), committed([1.0, 0.5], 1), solve=2)
    found = last(walk(sampler, denoiser, noise_like(1, H, 1), torch.linspace(1, 0, 21).double()))
    torch.testing.assert_close(found, fine, rtol=0, atol=0.1 if sampler in ("euler", "ddim") else 0.01)
    torch.testing.assert_close(found[0, :2, 0], float64(1.0, 0.5), rtol=0, atol=1e-3)


def test_a_network_is_asked_with_gradients_though_sampling_has_none():
    """Float32, conditioned, on a batch of its own previous chunks; weights get no gradient."""

    class Follows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(H, H)

        def forward(self, x, t, *, shift):
            return self.layer(x[..., 0])[..., None] + shift

    denoiser = Denoiser(Follows(), Linear())
    previous = Previous(torch.ones(2, H, 1), soft_mask(H, 2, 3).expand(2, H))
    walked = walk(
        "euler", real_time(denoiser, previous), torch.zeros(2, H, 1), torch.linspace(1, 0, 6), cond={"shift": 1.0}
    )
    with torch.no_grad():
        end = last(walked)
    assert end.dtype == torch.float32
    assert not end.requires_grad
    assert denoiser.network.layer.weight.grad is None


def test_refusals():
    with pytest.raises(InputError, match=r"beta must be above 0"):
        real_time(smooth(), committed([1.0]), beta=0.0)
    with pytest.raises(InputError, match=r"solve must be at least 0"):
        real_time(smooth(), committed([1.0]), solve=-1)
    with pytest.raises(InputError, match=r"weights, one for each action, must be .* \(3, 8\); got .* \(2, 8\)"):
        real_time(smooth(), Previous(torch.zeros(3, H, 1), torch.zeros(2, H)))
    with pytest.raises(InputError, match=r"shape"):
        real_time(smooth(), committed([1.0], n=2))(noise_like(3, H, 1), 0.5)


@pytest.mark.unchecked  # else the check of types refuses them first
def test_a_previous_chunk_of_wrong_types_is_one_sentence():
    for previous, says in (
        ((torch.zeros(1, H, 1), torch.zeros(1, H)), "previous must be a Previous; got "),
        (Previous([[[0.0]]], torch.zeros(1, 1)), r"actions must be a tensor; got \[\[\[0\.0\]\]\]\.$"),
        (
            Previous(torch.zeros(1, H), torch.zeros(1, H)),
            r"actions must be .* \(b, h, a\); got .* \(1, 8\)\.$",
        ),
        (Previous(torch.zeros(1, 1, 1), [[1.0]]), r"weights must be a tensor; got \[\[1\.0\]\]\.$"),
    ):
        with pytest.raises(InputError, match=f"^Real-time chunking: {says}"):
            real_time(smooth(), previous)
