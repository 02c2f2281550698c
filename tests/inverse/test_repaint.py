"""RePaint against the posterior of a correlated pair, by exact moments; against Algorithm 1 written out."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, Cosine, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.oracle import gaussian
from ebbtide.inverse.repaint import repaint
from ebbtide.samplers import walk
from problems import PATHS, float64, last, noise_like, oracle

CORRELATION = 0.9
PAIR = float64(1, CORRELATION, CORRELATION, 1).reshape(2, 2)
KNOWN, MASK = float64(1.0, 0.0)[None], torch.tensor([True, False])
TRUTH = (CORRELATION, 1 - CORRELATION**2)  # mean and variance of the second, the first being 1


class Impulses(Draws):
    """Noise that is 0, but for one number of one draw in each sample after the first three."""

    def __call__(self, step, x):
        order = self.__dict__.setdefault("order", {})
        first = 3 + 2 * order.setdefault(step, len(order))
        z = torch.zeros_like(x)
        if first < len(x):
            z[first, 0] = z[first + 1, 1] = 1
        return z


def moments(path=None, steps=10, grid="log_snr", **options):
    """Exact mean and covariance of the samples: the walk is affine in its start and in every number drawn.

    Sample 0 has no noise at all, 1 and 2 one number of the start each, and every other one number drawn on the way.
    """
    path = path or Linear()
    times = grid_times(grid, steps, path)
    most = 3 + 2 * 3 * steps * options.get("resamplings", 10)
    start = torch.zeros(most, 2, dtype=torch.float64)
    start[1, 0] = start[2, 1] = 1
    pair, draws = gaussian(path, torch.zeros(2).double(), PAIR), Impulses(0, torch.arange(most))
    end = last(walk(repaint, pair, start, times, draws=draws, known=KNOWN, mask=MASK, **options))
    moved = end[1:] - end[:1]
    return end[0], moved.T @ moved


def off(resamplings, **options):
    """How far mean and variance of the unknown element are from the posterior's."""
    mean, covariance = moments(resamplings=resamplings, **options)
    assert float(mean[0]) == 1
    assert float(covariance[0].abs().max()) == 0
    return abs(float(mean[1]) - TRUTH[0]), abs(float(covariance[1, 1]) - TRUTH[1])


@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_it_converges_to_the_posterior_as_resamplings_grow(path):
    """Mean and variance come nearer with every 4 times as many, and end within 0.01 of N(0.9, 0.19)."""
    errors = [off(u, path=path) for u in (1, 4, 16, 64)]
    for worse, better in pairwise(errors):
        assert better[0] < worse[0] / 2
        assert better[1] < worse[1] / 2
    assert errors[-1][0] < 0.01
    assert errors[-1][1] < 0.01


def test_without_resampling_it_is_biased_on_any_grid():
    """The mean stays below 0.65 where 0.9 is right; the variance above 0.3 where 0.19 is."""
    for steps in (10, 40, 160):
        mean, covariance = moments(steps=steps, resamplings=1)
        assert 0.4 < float(mean[1]) < 0.65
        assert float(covariance[1, 1]) > 0.3


def test_the_docstrings_numbers():
    found = [moments(resamplings=u) for u in (1, 4, 16, 64)]
    assert [round(float(mean[1]), 2) for mean, _ in found] == [0.46, 0.75, 0.86, 0.89]
    assert [round(float(covariance[1, 1]), 2) for _, covariance in found] == [0.52, 0.26, 0.2, 0.19]
    assert round(float(moments(resamplings=64, variance="posterior")[1][1, 1]), 2) == 0.11


def test_the_moments_are_those_of_real_draws():
    """20 000 samples: mean within 6 standard errors, variance within 6 √(2/n); false-positive rate 4e-9."""
    n, path, draws = 20_000, Linear(), Draws.first(20_000, 3)
    times = grid_times("log_snr", 5, path)
    pair = gaussian(path, torch.zeros(2).double(), PAIR)
    x = noise_like(n, 2)
    end = last(walk(repaint, pair, x, times, draws=draws, known=KNOWN, mask=MASK, resamplings=3))
    mean, covariance = moments(steps=5, resamplings=3)
    variance = float(covariance[1, 1])
    assert abs(float(end[:, 1].mean() - mean[1])) < 6 * math.sqrt(variance / n)
    assert abs(float(end[:, 1].var()) / variance - 1) < 6 * math.sqrt(2 / n)


def test_going_back_further_mixes_too():
    """jump = 5 of 20 steps: nearer with resamplings, and yields as many steps as ever."""
    few, many = (off(u, steps=20, jump=5) for u in (1, 16))
    assert many[0] < few[0] / 2
    walked = walk(
        repaint,
        oracle(Linear(), 2),
        noise_like(3, 2),
        torch.linspace(1, 0, 8).double(),
        draws=Draws.first(3, 0),
        jump=3,
    )
    assert len(list(walked)) == 7


def test_it_is_algorithm_1():
    """With the paper's β_i and ᾱ_i, and noise handed out in the order it is asked for; σ_t² = β_t."""
    table, repeats = (0.02, 0.1, 0.3, 0.6, 0.9), 3
    path, handed = DDPM(table=table), noise_like(100, 2, 2, seed=3)
    bars = [math.prod(1 - beta for beta in table[:i]) for i in range(6)]
    network, x, theirs = gaussian(path, float64(0.3, -0.2), PAIR), noise_like(2, 2), []
    asked: list[int] = []

    class InOrder(Draws):
        def __call__(self, step, x):
            asked.append(step)
            return handed[len(asked) - 1]

    draws = InOrder(0, torch.arange(2))
    times = torch.arange(5, -1, -1, dtype=torch.float64) / 5
    ours = list(walk(repaint, network, x, times, draws=draws, known=KNOWN, mask=MASK, resamplings=repeats))
    z = iter(handed)
    for i in range(5, 0, -1):
        for again in range(repeats if i > 1 else 1):
            beta = table[i - 1]
            noise = network(x, i / 5).noise
            unknown = (x - beta / math.sqrt(1 - bars[i]) * noise) / math.sqrt(1 - beta)
            known = math.sqrt(bars[i - 1]) * KNOWN
            if i > 1:
                unknown = unknown + math.sqrt(beta) * next(z)
                known = known + math.sqrt(1 - bars[i - 1]) * next(z)
            x = MASK * known + ~MASK * unknown
            if again < repeats - 1 and i > 1:
                x = math.sqrt(1 - beta) * x + math.sqrt(beta) * next(z)
        theirs.append(x)
    assert len(set(asked)) == len(asked)  # no number is used twice
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_without_resampling_or_mask_it_is_ddpm(name):
    """With draws that forget the address, which alone differs."""
    path, x, z = PATHS[name], noise_like(3, 2), noise_like(3, 2, seed=1)

    class Same(Draws):
        def __call__(self, step, x):
            return z

    times, draws = float64(1, 0.8, 0.3, 0.05, 0), Same(0, torch.arange(3))
    for variance in ("posterior", "beta"):
        walked = walk(repaint, oracle(path, 2), x, times, draws=draws, resamplings=1, variance=variance)
        for one, other in zip(
            walked, walk("ddpm", oracle(path, 2), x, times, draws=draws, variance=variance), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_images_labels_and_float32():
    class Network(nn.Module):
        def forward(self, x, t, label):
            return x / 2 + label.to(x)[:, None, None]

    x, known = noise_like(3, 2, 2).float(), noise_like(3, 2, 2, seed=2).float()
    mask = torch.tensor([[True, False], [False, True]])
    options = {"draws": Draws.first(3, 0), "known": known, "mask": mask, "cond": {"label": torch.tensor([0, 1, 2])}}
    end = last(walk(repaint, Denoiser(Network(), Cosine()), x, float64(1, 0.5, 0.1, 0), **options))
    assert end.dtype == torch.float32
    assert torch.equal(end[:, mask], known[:, mask])
    options["cond"] = {"label": torch.tensor([2, 1, 0])}
    other = last(walk(repaint, Denoiser(Network(), Cosine()), x, float64(1, 0.5, 0.1, 0), **options))
    assert not torch.allclose(end[0], other[0])


def test_a_sample_does_not_depend_on_its_batch():
    pair, times = gaussian(Linear(), torch.zeros(2).double(), PAIR), float64(1, 0.6, 0.2, 0)
    x = noise_like(4, 2)
    whole = last(walk(repaint, pair, x, times, draws=Draws.first(4, 0), known=KNOWN, mask=MASK))
    alone = last(walk(repaint, pair, x[2:3], times, draws=Draws.first(1, 0, start=2), known=KNOWN, mask=MASK))
    torch.testing.assert_close(whole[2:3], alone)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resamplings": 0}, r"^repaint: resamplings must be at least 1 and at most 1000000; got 0\.$"),
        ({"jump": 0}, r"^repaint: jump must be at least 1 and at most 1000000; got 0\.$"),
        ({"variance": "both"}, r"^repaint: variance must be one of beta, posterior; got 'both'\.$"),
        ({"mask": MASK}, r"^repaint: known and mask go together; give both or none\.$"),
        ({"known": KNOWN}, r"^repaint: known and mask go together; give both or none\.$"),
        ({"known": [[0.0]], "mask": MASK}, r"^repaint: known must be a tensor or None; got \[\[0\.0\]\]\.$"),
        ({"known": KNOWN, "mask": MASK[:1]}, r"^repaint: known \(1, 2\) and mask \(1,\) must fit samples \(2, 2\)\.$"),
        ({"known": KNOWN[:, :1], "mask": MASK[:1]}, r"^repaint: known \(1, 1\) and mask \(1,\) must fit samples"),
        ({"known": KNOWN.expand(3, 2), "mask": MASK}, r"^repaint: known \(3, 2\) .* must fit samples \(2, 2\)\.$"),
        ({"draws": None}, r"^repaint is stochastic and needs draws=Draws\.first\(n, seed\)\.$"),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence(options, says):
    options = {"draws": Draws.first(2, 0)} | options
    with pytest.raises(InputError, match=says):
        next(walk(repaint, oracle(Linear(), 2), noise_like(2, 2), float64(1, 0.5, 0), **options))


def test_two_sample_sets_are_refused():
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^repaint needs a path from Gaussian noise: "):
        next(walk(repaint, between, noise_like(2, 2), float64(1, 0), draws=Draws.first(2, 0)))
