"""The table of promises: a row for every sampler, and what it says of noise is what the sampler does."""

import pytest
import torch

from ebbtide.core.paths import VP
from ebbtide.errors import InputError
from ebbtide.exact.certify import SPECS
from ebbtide.samplers import SAMPLERS
from ebbtide.samplers.facts import FACTS, Facts, facts
from ebbtide.specs import bind
from problems import float64, last, noise_like, oracle


def test_every_sampler_has_its_row():
    assert set(FACTS) == set(SAMPLERS)
    assert set(SAMPLERS) <= set(SPECS)
    assert len(set(SPECS)) == len(SPECS)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_certified_parses_and_is_stochastic_where_it_says(spec):
    """A stochastic sampler refuses to go without draws; the others do without, and so come out alike twice."""
    promised = facts(spec)
    assert promised.order in (range(0, 1) if spec == "dopri5" else range(1, 6))
    walk = lambda: last(bind(SAMPLERS, spec, "sampler")(oracle(VP(), 2), noise_like(2, 2), float64(1, 0.6, 0.2, 0)))
    if promised.stochastic:
        with pytest.raises(InputError, match="is stochastic and needs draws="):
            walk()
    else:
        assert torch.equal(walk(), walk())


@pytest.mark.parametrize(
    ("spec", "promised"),
    [
        ("euler", Facts(1, smooth=True)),
        ("rk4:clock=flow", Facts(4)),
        ("dopri5:rtol=1e-3", Facts(0)),
        ("ddim", Facts(1)),
        ("ddim:eta=0.5", Facts(1, stochastic=True)),
        ("edm", Facts(2)),
        ("edm:churn=10", Facts(1, stochastic=True)),
        ("unipc", Facts(3)),
        ("unipc:order=1", Facts(2)),
        ("unipc:order=3", Facts(3, at_least=True)),
        ("exponential:order=1", Facts(1)),
        ("exponential", Facts(2, at_least=True)),
        ("exponential:corrector=true", Facts(3, at_least=True)),
        ("exponential:order=4,corrector=true,start=runge_kutta", Facts(5)),
        ("exponential:order=2,clock=time", Facts(2, smooth=True)),
        ("lms", Facts(2, at_least=True)),
        ("restart", Facts(2, stochastic=True)),
    ],
)
def test_promises_by_hand(spec, promised):
    assert facts(spec) == promised
