"""Certificates of flow maps: exact ones keep them, others don't, and a jump that isn't one is found out."""

import pytest
import torch

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.exact.certify import certify
from ebbtide.exact.maps import certify_map
from ebbtide.networks.mlp import MLP
from ebbtide.samplers import Facts
from losses.test_flow_map import Beside
from problems import PATHS, exact, noise_like, oracle


def failed(checks):
    return [check.name for check in checks if check.passed is False]


@each("spec", ["jump", "jump:renew=0.5", "jump:renew=1.0"])
def test_jumps_are_certified_on_every_path(spec):
    for path in PATHS:
        checks = list(certify(spec, (path,)))
        assert not failed(checks)
        names = [check.name for check in checks]
        assert names[0] == "u(x, t, t) = v"
        if spec == "jump":
            alone = ["1 jump beside the flow", "2 jumps beside the flow", "5 jumps beside the flow"]
            assert names[1:] == [*alone, "2 jumps where one leads", "5 jumps where one leads"]
        else:
            assert len(names) == 7


def overshooting(walk):
    """A jump with σ_t where σ_s belongs."""
    x = walk.x
    for now, then in walk.steps:
        x = walk.estimate(x, now, to=then).mix(then.alpha, 0.99 * then.sigma)
        yield x


def test_a_wrong_jump_is_found_out():
    promised = Facts(spans=True)
    assert failed(certify(overshooting, ("linear",), promised)) == [
        f"{count} jumps {where}" for where in ("beside the flow", "where one leads") for count in (2, 5)
    ]


@each("path", PATHS.values(), ids=PATHS.keys())
def test_an_exact_map_keeps_its_promises(path):
    start = path.prior(noise_like(20, 1))
    assert not failed(certify_map(exact(path), start, tolerance=1e-3))
    assert [check.passed for check in certify_map(oracle(path), start, tolerance=1e-3)] == [True] * 6


def test_only_what_must_hold_exactly_passes_or_fails_unasked():
    """The rest is measured: of a map whose longest jump ends at half of what its own flow does, by how much."""
    first, *others = certify_map(Halving(Linear()), noise_like(400, 1))
    assert first.found < 1e-12
    assert (first.passed, first.promised) == (True, "below 1e-10")
    assert {check.passed for check in others} == {None}
    apart = {check.name: check.found for check in others}
    assert apart["1 jump beside its own flow"] == pytest.approx(0.5, abs=1e-3)
    assert apart["1 jump beside 2"] == apart["1 jump beside 4"] == pytest.approx(0.5)
    assert apart["4 jumps beside its own flow"] < 1e-3


class Halving:
    """The exact map, but for the jump from noise to data, which ends half as far from 0."""

    gaussian_end = spans = True

    def __init__(self, path):
        self.path, self.exact = path, oracle(path)

    def __call__(self, x, t, /, *, to=None, **cond):
        pair, c = self.exact(x, t, to=to), self.path.at(t, x)
        if to is None or c.alpha or self.path.at(to, x).sigma:
            return pair
        x0 = pair.x0 / 2
        return Estimate(x0, (x - c.alpha * x0) / c.sigma)


def test_a_map_beside_the_exact_one_does_not():
    """Its jumps part from its flow by 0.01 z / 2, which a tolerance of 1e-3 sees and one of 0.1 doesn't."""
    start = noise_like(20, 2)
    assert failed(certify_map(Beside(oracle(Linear(), 2)), start, tolerance=1e-3))
    assert not failed(certify_map(Beside(oracle(Linear(), 2)), start, tolerance=0.1))


def test_a_network_that_heeds_a_span_of_nothing_is_no_flow_map():
    class Heeding(MLP):
        def forward(self, x, t, label=None, span=None):
            return super().forward(x, t, label, None if span is None else span + 0.1)

    torch.manual_seed(0)
    network = Heeding(2, width=8, depth=1, spans=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    found = failed(certify_map(Denoiser(network, Linear()), torch.randn(10, 2)))
    assert found == ["u(x, t, t) = v"]


def test_a_denoiser_of_a_single_time_is_none():
    with pytest.raises(InputError, match="spans a single time"):
        list(certify_map(Denoiser(MLP(2, width=8, depth=1), Linear()), torch.randn(3, 2)))
