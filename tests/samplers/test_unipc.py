"""UniPC: predictor and corrector of order 2 from their linear system by hand, in both variants; refusals."""

import math

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.samplers import walk
from problems import PATHS, exact, float64, last, noise_like, oracle

LAMBDAS = (-1.5, -0.9, 0.2, 0.7)
H = (0.6, 1.1, 0.5)


class Script:
    """Says x̂₀ = the next of a list, whatever it sees."""

    gaussian_end = True

    def __init__(self, path, *says):
        self.path, self.says = path, list(says)

    def __call__(self, x, t, /, **cond):
        return Estimate(torch.full_like(x, self.says.pop(0)), x)


def phi(k, z):
    """φ_k(z) = Σ z^j / (j + k)!."""
    return sum(z**j / math.factorial(j + k) for j in range(40))


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("name", PATHS)
def test_order_2_by_hand(name, variant):
    """x̂₀ = 3, 5, 4 at λ = -1.5, -0.9, 0.2; a step is (σ_s/σ_t) x + α_s (1 - e^{-h}) x̂₀ - α_s B Σ ρ D/r.

    Predictor: ρ = ½. Corrector of the first step: ρ = ½, of the second: ρ₁ + ρ₂ = -h φ₂(-h)/B and r₁ρ₁ + r₂ρ₂ =
    -2h φ₃(-h)/B with r = -h₀/h₁ for the estimate before and 1 for the one at the end, by Cramer's rule.
    """
    path = PATHS[name]
    times = path.time_of((-float64(*LAMBDAS)).exp())
    scales = [(c.alpha, c.sigma) for c in path.along(times)]
    big = lambda h: -h if variant == "bh1" else math.exp(-h) - 1

    def stepped(i, x, x0, *terms):
        """terms: ρ, D, r."""
        alpha, sigma = scales[i + 1]
        linear = sigma / scales[i][1] * x + alpha * (1 - math.exp(-H[i])) * x0
        return linear - alpha * big(H[i]) * sum(rho * d / r for rho, d, r in terms)

    found = list(map(float, walk("unipc", Script(path, 3, 5, 4), float64(2)[None], times, variant=variant)))
    first = stepped(0, 2, 3)
    assert found[0] == pytest.approx(first, rel=1e-8)
    corrected = stepped(0, 2, 3, (0.5, 5 - 3, 1))
    back = -H[0] / H[1]
    second = stepped(1, corrected, 5, (0.5, 3 - 5, back))
    assert found[1] == pytest.approx(second, rel=1e-8)
    b1 = -H[1] * phi(2, -H[1]) / big(H[1])
    b2 = -H[1] * 2 * phi(3, -H[1]) / big(H[1])
    end, before = (b2 - back * b1) / (1 - back), (b1 - b2) / (1 - back)
    corrected = stepped(1, corrected, 5, (before, 3 - 5, back), (end, 4 - 5, 1))
    back = -H[1] / H[2]
    assert found[2] == pytest.approx(stepped(2, corrected, 4, (0.5, 5 - 4, back)), rel=1e-7)


def test_the_variants_differ():
    x, times = noise_like(3, 2), float64(1, 0.7, 0.4, 0.1)
    one, other = (last(walk("unipc", oracle(Linear(), 2), x, times, variant=v)) for v in ("bh1", "bh2"))
    assert float((one - other).abs().max()) > 1e-4


@pytest.mark.parametrize("order", [3, 4])
@pytest.mark.parametrize("name", PATHS)
def test_from_order_3_on_full_steps_are_exponential_adams(name, order):
    """Where three unknowns are solved for, the polynomial is the same: the rows of both agree. Both variants, too.

    The ramp's rows of one or two unknowns are set to ½ and differ, so the walk is compared as a linear map: its last
    steps on the same history.
    """
    from ebbtide.samplers.exponential import adams
    from ebbtide.samplers.unipc import unipc_row

    path = PATHS[name]
    grid = path.along(path.time_of((-torch.linspace(-2, 1.5, 7, dtype=torch.float64)).exp()))
    plan = adams(path, grid, order, "x0", "log_snr", True)
    for variant in ("bh1", "bh2"):
        past = grid[5 - order : 5][::-1]
        ours = unipc_row(grid[4], grid[5], past, variant)
        assert ours.keep == pytest.approx(plan.predict[4].keep)
        assert ours.weights == pytest.approx(plan.predict[4].weights, rel=1e-5, abs=1e-7)
        corrected = unipc_row(grid[4], grid[5], [grid[5], *past], variant)
        assert corrected.weights == pytest.approx(plan.correct[4].weights, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", PATHS)
def test_a_step_is_ddims_where_only_one_estimate_is_known(name):
    """The first predictor, and the step to σ = 0."""
    x, times = PATHS[name].prior(noise_like(3, 2)), float64(1, 0.4)
    one, other = (
        last(walk(sampler, oracle(PATHS[name], 2), x, times, order=1)) for sampler in ("unipc", "exponential")
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    whole = list(walk("unipc", Script(PATHS[name], 3, 5, 4), float64(2)[None], float64(1, 0.5, 0.2, 0)))
    assert float(whole[-1]) == pytest.approx(4, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_one_evaluation_a_step(order):
    denoiser = exact(Linear())
    last(walk("unipc", denoiser, noise_like(2, 1), torch.linspace(1, 0, 9).double(), order=order))
    assert denoiser.network.calls == 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": 0}, r"^exponential: order must be at least 1 and at most 4; got 0\.$"),
        ({"order": 5}, r"^exponential: order must be at least 1 and at most 4; got 5\.$"),
        ({"variant": "bh3"}, r"^exponential: variant must be one of adams, bh1, bh2; got 'bh3'"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(InputError, match=says):
        next(walk("unipc", oracle(Linear()), noise_like(1, 1), float64(1, 0), **options))


def test_two_sample_sets_are_refused():
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^exponential:[^ ]*variant=bh2 needs a path from Gaussian noise: "):
        next(walk("unipc", between, noise_like(1, 1), float64(1, 0)))
