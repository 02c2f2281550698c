"""Rows of which some columns are known: the law of the masks, and the distributions that the loss then teaches."""

import math

import pytest
import torch
from torch import nn

from ebbtide.codecs import Groups, groups
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import Known
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.times import stratified_draws
from ebbtide.data.partly import PartlyKnown, known_numbers
from ebbtide.samplers import sample
from problems import SIGMAS, ConditionalNetwork

NAN = float("nan")
MIXTURE = {
    "weights": [0.3, 0.7],
    "means": [[-1.0, 0.5, 0.2], [0.8, -0.6, 0.0]],
    "roots": [[[0.6, 0, 0], [0.3, 0.4, 0], [-0.2, 0.1, 0.5]], [[0.5, 0, 0], [-0.3, 0.3, 0], [0.1, 0.4, 0.3]]],
}
GAUSSIAN = {"weights": [1.0], "means": [[0.3, -0.2, 0.1]], "roots": [[[0.9, 0, 0], [0.7, 0.5, 0], [-0.4, 0.3, 0.6]]]}


class Beside(nn.Module):
    """What a network returned, with a share of one of these directions beside it."""

    def __init__(self, blind, at_once):
        super().__init__()
        self.blind, self.at_once = blind, at_once
        self.own = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # whose dtype is the network's

    def turn(self, direction, share):
        self.direction, self.share = direction, share
        return self

    def forward(self, x, t, given):
        exact, blind = self.at_once
        z, m = given.nan_to_num(0.0), given.isnan().to(x)
        beside = {
            "constant": torch.ones_like(x),
            "known in turn": z.roll(1, 1),
            "known by t": (t[:, None] * z.sum(1, keepdim=True)).expand_as(x),
            "unknown": x * m,
            "mask": m.roll(2, 1),
            "of what isn't known alone": exact - blind,
        }
        return (blind if self.blind else exact) + self.share * beside[self.direction]


def slopes(network, data, blind, directions):
    """z of the slope of the loss along each direction, at a network, or at the one that is blind to what is known."""
    draw = torch.Generator().manual_seed(1)
    batch = data.take(torch.arange(len(data)), draw)
    noise = torch.randn(batch["x0"].shape, generator=draw, dtype=torch.float64)
    t = stratified_draws(len(data), draw).double()[torch.randperm(len(data), generator=draw)]
    x_t = (1 - t[:, None]) * batch["x0"] + t[:, None] * noise
    beside, found = Beside(blind, (network(x_t, t, batch["given"]), network(x_t, t))), {}
    denoiser = Denoiser(beside, Linear())
    for name in directions:  # the loss is quadratic in the share, so the difference is its slope
        up, down = (
            beside.turn(name, share) and denoiser.loss(noise=noise, t=t, **batch).detach() for share in (1.0, -1.0)
        )
        slope = up - down
        found[name] = float(slope.mean() / slope.std() * math.sqrt(len(slope)))
    return found


DIRECTIONS = ("constant", "known in turn", "known by t", "unknown", "mask", "of what isn't known alone")


@pytest.mark.parametrize("truth", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_the_conditional_expectation_is_where_the_loss_is_least(truth):
    exact = ConditionalNetwork(**truth)
    data = PartlyKnown(exact.draw(12_000), groups=groups(None, 3))
    for name, z in slopes(exact, data, False, DIRECTIONS).items():
        assert abs(z) < SIGMAS, name  # detects a share of 0.06 of any of these
    # One that is right for the half of which nothing is known, and blind to what is known of the others.
    assert slopes(exact, data, True, DIRECTIONS[-1:])[DIRECTIONS[-1]] < -5 * SIGMAS


@pytest.mark.parametrize("truth", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_samples_given_columns_have_the_conditional_distribution(truth):
    exact, n = ConditionalNetwork(**truth), 2000
    denoiser = Denoiser(exact, Linear())
    for known, value in ((torch.tensor([True, False, False]), [0.4]), (torch.tensor([True, False, True]), [-0.5, 0.3])):
        w, means, covariances = exact.conditional(known, torch.tensor([value], dtype=torch.float64))
        mean = (w[0, :, None] * means[0]).sum(0)
        spread = covariances + (means[0] - mean)[:, :, None] * (means[0] - mean)[:, None]
        covariance = (w[0, :, None, None] * spread).sum(0)
        given = torch.full((n, 3), NAN, dtype=torch.float64)
        given[:, known] = torch.tensor(value, dtype=torch.float64)
        draws = Draws.first(n, 3)
        x = sample(Known(denoiser), (3,), sampler="heun", steps=12, draws=draws, grid="quadratic", given=given)
        assert torch.allclose(x[:, known], given[:, known].to(x), atol=1e-6)
        std = covariance.diag().sqrt()
        z = (x[:, ~known].mean(0) - mean) / std * math.sqrt(n)
        assert bool((z.abs() < SIGMAS).all()), z  # detects a mean off by 0.2 std
        # var of a sample variance: (kurtosis - 1)/n, below 4/n here
        z = (x[:, ~known].var(0) / covariance.diag() - 1) * math.sqrt(n / 4)
        assert bool((z.abs() < SIGMAS).all()), z


# --- the law of the masks -------------------------------------------------------------------------------------


def test_every_other_row_has_from_one_to_all_but_one_column_known_evenly():
    n, d = 12_000, 4
    of = Groups(torch.tensor([0, 1, 1, 2, 3, 3]), torch.zeros(6, dtype=torch.bool))
    known, unknown = known_numbers(n, of, torch.Generator().manual_seed(0))
    assert not known[::2].any()
    assert torch.equal(known[:, 1], known[:, 2])
    assert torch.equal(known[:, 4], known[:, 5])
    columns = known[1::2][:, [0, 1, 3, 4]]
    assert torch.equal(unknown, 1 - known[:, [0, 1, 3, 4]].sum(1) / d)
    count = torch.bincount(columns.sum(1), minlength=d + 1)
    assert count[0] == count[d] == 0
    for found, share in [*((one, 1 / 3) for one in count[1:d]), *((one, 0.5) for one in columns.sum(0))]:
        assert abs(int(found) - share * n / 2) < SIGMAS * math.sqrt(n / 2 * share * (1 - share))
    both = float((columns[:, 0] & columns[:, 1]).double().mean())  # Σ k (k - 1) / (d (d - 1)) / 3
    assert abs(both - 2 / 9) < SIGMAS * math.sqrt(2 / 9 * 7 / 9 / (n / 2))


def test_that_there_is_a_cell_may_be_known_of_an_unknown_column():
    of = Groups(torch.tensor([0, 1, 0]), torch.tensor([False, False, True]))
    known, _ = known_numbers(8000, of, torch.Generator().manual_seed(0))
    assert not known[::2].any()
    value, other, tells = known[1::2].T
    assert bool(tells[value].all())
    assert abs(float(tells[~value].double().mean()) - 1 / 2) < 0.06  # of 3000 rows, within 6 σ
    assert abs(float(other[~value].double().mean()) - 1 / 3) < 0.06
    assert bool((~value & ~other & tells).any())


def test_what_is_given_is_the_rows_own_numbers_and_the_rest_counts_the_same_in_every_row():
    x = torch.arange(30.0).reshape(10, 3)
    taken = PartlyKnown(x, torch.arange(10), groups=groups(None, 3)).take(torch.arange(9, -1, -1), torch.Generator())
    assert torch.equal(taken["x0"], x.flip(0))
    assert torch.equal(taken["label"], torch.arange(9, -1, -1))
    known = ~taken["given"].isnan()
    assert torch.equal(known, taken["mask"] == 0)
    assert torch.equal(taken["given"][known], taken["x0"][known])
    assert torch.allclose(taken["mask"].mean(1), torch.ones(10))
