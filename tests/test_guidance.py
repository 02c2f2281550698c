"""Classifier-free guidance: off at 1, unconditional at 0, linear between and beyond, one batch for both estimates."""

import pytest
import torch
from torch import nn

from ebbflow.denoiser import Denoiser
from ebbflow.errors import InputError
from ebbflow.guidance import ClassifierFree
from ebbflow.paths import Cosine, Linear
from ebbflow.samplers import euler
from problems import exact, float64, last, noise_like

NULL = 3


class Labelled(nn.Module):
    """Says label + ½ x + t: depends on everything, differently on each."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x, t, label, extra=None):
        self.batches.append(len(x))
        says = label.to(x)[:, None] + x / 2 + t[:, None]
        return says if extra is None else says + extra


def guided(weight, path=None, **options):
    network = Labelled()
    denoiser = Denoiser(network, path or Cosine())
    return ClassifierFree(denoiser, weight, NULL, **options), denoiser, network


X, T, LABEL = noise_like(4, 2), float64(0.3), torch.tensor([0, 1, 2, 1])


def by_hand(denoiser, weight, t=T):
    """x̂_∅ + w (x̂_label - x̂_∅), by two evaluations."""
    conditional, unconditional = denoiser(X, t, label=LABEL), denoiser(X, t, label=torch.full_like(LABEL, NULL))
    return [free + weight * (told - free) for told, free in zip(conditional, unconditional, strict=True)]


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_weight_one_is_the_conditional_denoiser_at_its_cost():
    wrapped, denoiser, network = guided(1.0)
    found = wrapped(X, T, label=LABEL)
    assert network.batches == [4]
    for one, other in zip(found, denoiser(X, T, label=LABEL), strict=True):
        assert torch.equal(one, other)


def test_weight_zero_is_unconditional():
    wrapped, denoiser, _ = guided(0.0)
    close(wrapped(X, T, label=LABEL), denoiser(X, T, label=torch.full_like(LABEL, NULL)))


@pytest.mark.parametrize("weight", [-1.0, 0.4, 1.5, 3.0, 7.5])
@pytest.mark.parametrize("t", [float64(0.3), float64(0.1, 0.4, 0.7, 0.9)], ids=["one time", "a time each"])
def test_both_estimates_are_one_batch_and_extrapolated(weight, t):
    wrapped, denoiser, network = guided(weight)
    found = wrapped(X, t, label=LABEL)
    assert network.batches == [8]
    close(found, by_hand(denoiser, weight, t))


def test_estimates_are_linear_in_the_weight():
    zero, one, three = (guided(weight)[0](X, T, label=LABEL) for weight in (0.0, 1.0, 3.0))
    close(three, [free + 3 * (told - free) for told, free in zip(one, zero, strict=True)])


def test_guidance_by_hand():
    """Linear, x_t = 0, t = ½, velocity = label: x̂₀ = -label/2; label 1, null 3, w = 2: -3/2 + 2 (-1/2 + 3/2) = ½."""

    class Says(nn.Module):
        def forward(self, x, t, label):
            return label.to(x)[:, None].expand_as(x)

    wrapped = ClassifierFree(Denoiser(Says(), Linear()), 2.0, NULL)
    estimate = wrapped(torch.zeros(1, 1), float64(0.5), label=torch.tensor([1]))
    assert float(estimate.x0) == pytest.approx(0.5)
    assert float(estimate.noise) == pytest.approx(-0.5)


@pytest.mark.parametrize(("t", "acts"), [(0.2, False), (0.2001, True), (0.5, True), (0.8, True), (0.8001, False)])
def test_interval_is_open_below_and_closed_above(t, acts):
    wrapped, denoiser, network = guided(3.0, interval=(0.2, 0.8))
    found = wrapped(X, float64(t), label=LABEL)
    assert network.batches == ([8] if acts else [4])
    close(found, by_hand(denoiser, 3.0 if acts else 1.0, float64(t)))


def test_interval_holds_sample_by_sample():
    wrapped, denoiser, _ = guided(3.0, interval=(0.2, 0.8))
    t = float64(0.1, 0.5, 0.8, 0.9)
    weight = float64(1, 3, 3, 1)[:, None]
    close(wrapped(X, t, label=LABEL), by_hand(denoiser, weight, t))


def test_guidance_acts_at_pure_noise():
    wrapped, denoiser, _ = guided(3.0)
    close(wrapped(X, float64(1), label=LABEL), by_hand(denoiser, 3.0, float64(1)))


def test_it_passes_for_a_denoiser():
    wrapped, denoiser, _ = guided(2.0)
    assert wrapped.path is denoiser.path
    assert wrapped.gaussian_end is True
    between = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
    assert ClassifierFree(between, 2.0, NULL).gaussian_end is False
    walk = euler(wrapped, X, float64(1, 0.5, 0), label=LABEL)
    assert bool(last(walk).isfinite().all())


def test_other_conditions_are_passed_on():
    wrapped, _, _ = guided(1.0)
    plain, moved = (wrapped(X, T, label=LABEL, extra=extra) for extra in (None, 1.0))
    assert not torch.allclose(plain.x0, moved.x0)


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_bad_intervals_are_one_sentence(interval):
    with pytest.raises(InputError, match=r"^The guidance interval must satisfy 0 ≤ low < high ≤ 1; got \("):
        guided(2.0, interval=interval)


def test_a_missing_label_is_one_sentence():
    with pytest.raises(InputError, match=r"^Classifier-free guidance needs a label for each sample\.$"):
        ClassifierFree(exact(Linear()), 2.0, NULL)(X, T)
