"""A walk: its steps, one evaluation with its conditions, noise by address, and what is missing said in one sentence."""

import pytest
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import VP, Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.exact.certify import SPECS, certify
from ebbtide.samplers import SAMPLERS, Facts, Sampler, Walk, facts, sample, slope, walk
from problems import PATHS, Told, float64, last, noise_like, oracle

BETWEEN = Denoiser(nn.Identity(), Linear(), gaussian_end=False)
TIMES = float64(1, 0.6, 0.1)


def made(denoiser, **more):
    return Walk(denoiser, noise_like(2, 3), denoiser.path.along(TIMES), **more)


def test_its_steps_are_the_grids():
    steps = made(oracle(Linear())).steps
    assert [(now.t, then.t) for now, then in steps] == [(1, 0.6), (0.6, 0.1)]


@pytest.mark.parametrize("name", PATHS)
def test_an_estimate_and_a_slope_are_the_denoisers_with_its_conditions(name):
    label = torch.tensor([1, 2])
    told = Told(oracle(PATHS[name], 3))
    own = made(told, cond={"label": label})
    for one, other in zip(own.estimate(own.x, 0.6), told.denoiser(own.x, 0.6), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(own.slope(own.x, 0.6), slope(told.denoiser, own.x, 0.6))
    assert told.always(label)
    assert len(told.told) == 2


def test_noise_is_the_addresss_times_its_standard_deviation():
    draws = Draws.first(2, 5)
    own = made(oracle(Linear(), 3), draws=draws)
    torch.testing.assert_close(own.noised(own.x, 0.25, 7), own.x + 0.25 * draws(7, own.x))
    assert own.noised(own.x, 0.0, 7) is own.x


def test_a_sampler_of_ones_own_that_adds_noise_needs_draws():
    with pytest.raises(InputError, match=r"^A sampler that adds noise needs draws=Draws\.first\(n, seed\)\.$"):
        made(oracle(Linear())).noised(noise_like(2, 3), 0.1, 0)


def test_a_function_of_a_walk_is_walked_as_a_row_is():
    def half(walk, *, share=0.5):
        for now, _ in walk.steps:
            yield share * walk.estimate(walk.x, now).x0

    denoiser, x = oracle(Linear(), 3), noise_like(2, 3)
    found = list(walk(half, denoiser, x, TIMES, share=0.25))
    torch.testing.assert_close(found, [denoiser(x, t).x0 / 4 for t in (1.0, 0.6)])


def test_a_rows_facts_follow_its_options():
    def own(walk, *, eta: float = 0.0, deep: bool = False):
        return iter(())

    row = Sampler(own, lambda eta, deep: Facts(1 + deep, noise=eta > 0))
    assert row.facts() == Facts(1)
    assert row.facts(eta=0.1, deep=True) == Facts(2, noise=True)
    assert SAMPLERS["deis"].facts() == SAMPLERS["exponential"].facts(order=3, form="noise", clock="log_snr")


def test_what_a_row_needs_is_there():
    for gaussian_end in (False, True):
        made(oracle(Linear()), draws=Draws.first(2, 0)).require("this", gaussian_end=gaussian_end, draws=True)
    made(BETWEEN).require("this", gaussian_end=False)


def test_two_sample_sets_are_refused():
    says = (
        r"^this needs a path from Gaussian noise: between two sample sets there is only a velocity; "
        r"use an ODE sampler such as euler or heun\.$"
    )
    with pytest.raises(InputError, match=says):
        made(BETWEEN).require("this")
    with pytest.raises(InputError, match=r"^heun:clock=flow needs a path from Gaussian noise"):
        walk("heun:clock=flow", BETWEEN, noise_like(2, 3), TIMES)


@pytest.mark.unchecked
@each(
    ("given", "says"),
    [
        ({"draws": 4}, "draws must be a Draws; got 4."),
        ({"draws": None}, "draws must be a Draws; got None."),
        ({"shape": 2}, "shape must be a tuple or a list; got 2."),
        ({"shape": (2.0,)}, "shape must be a whole number, at least 0; got 2.0."),
        ({"steps": True}, "steps must be a whole number, at least 1 and at most 1000000; got True."),
        ({"steps": 1.5}, "steps must be a whole number, at least 1 and at most 1000000; got 1.5."),
        ({"steps": 10**12}, "steps must be at least 1 and at most 1000000; got 1000000000000."),
        ({"sampler": 3}, "sampler must be a text or a function; got 3."),
        ({"sampler": lambda walk: walk.x}, "the sampler's result must be an Iterator; got a tensor of shape (4, 2)."),
        ({"sampler": lambda walk: iter([1])}, "A sampler must yield x after every step, of shape (4, 2); "),
        ({"sampler": "dddim"}, "sampler must be one of "),
        ({"grid": 3}, "A grid is a name, or times such as 1,0.7,0.3,0; got 3."),
        ({"grid": [1, None, 0]}, "A grid is a name, or times such as 1,0.7,0.3,0; got [1, None, 0]."),
        ({"start": [[1.0, 2.0]] * 4}, "start must be a tensor or None; got [["),
        (
            {"start": torch.zeros(3, 2)},
            "start must be a tensor or array of shape (4, 2); got a tensor of shape (3, 2).",
        ),
        ({"start": torch.zeros(4, 2, dtype=torch.long)}, "start must hold finite floating-point numbers."),
        ({"start": torch.full((4, 2), torch.nan)}, "start must hold finite floating-point numbers."),
        ({"denoiser": torch.nn.Linear(2, 2)}, "denoiser must be a denoiser; got Linear(in_features=2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_are_one_sentence(given, says):
    with pytest.raises(InputError) as caught:
        sample(**{"denoiser": oracle(Linear()), "shape": (2,), "draws": Draws.first(4, 0), "steps": 2} | given)
    assert str(caught.value).startswith(says)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.unchecked
@each(
    ("given", "says"),
    [
        ({"x": [1.0]}, "x must be a tensor; got [1.0]."),
        ({"draws": 3}, "draws must be a function or None; got 3."),
        ({"draws": Draws.first(3, 0)}, "x must be a tensor or array of shape (3, …); got a tensor of shape (4, 2)."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_of_a_walk_are_one_sentence(given, says):
    with pytest.raises(InputError) as caught:
        walk(**{"sampler": "ddim", "denoiser": oracle(Linear()), "x": noise_like(4, 2), "times": float64(1, 0)} | given)
    assert str(caught.value) == says


def test_a_plain_function_is_a_row_without_promises(monkeypatch):
    def steady(walk, *, share: float = 1.0):
        x = walk.x
        for now, then in walk.steps:
            x = walk.estimate(x, now).mix(then.alpha, share * then.sigma)
            yield x

    monkeypatch.setitem(SAMPLERS, "new", steady)
    ends = [
        sample(oracle(Linear(), 2), (2,), draws=Draws.first(4, 0), steps=5, sampler=name) for name in ("new", "ddim")
    ]
    assert torch.equal(*ends)
    assert facts("new:share=0.9") == Facts()
    assert all(check.passed is not False for check in certify("new", ("linear",)))


def test_no_draws_are_refused():
    with pytest.raises(InputError, match=r"^this is stochastic and needs draws=Draws\.first\(n, seed\)\.$"):
        made(oracle(Linear())).require("this", draws=True)
    with pytest.raises(InputError, match=r"^dpmpp_2m:eta=1\.0 is stochastic and needs draws="):
        walk("dpmpp_2m_sde", oracle(Linear()), noise_like(2, 3), TIMES)


# --- the rows' facts --------------------------------------------------------------------------------------------------


def test_every_sampler_has_its_row():
    assert set(SAMPLERS) <= set(SPECS)
    assert len(set(SPECS)) == len(SPECS)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_certified_parses_and_is_stochastic_where_it_says(spec):
    """A stochastic sampler refuses to go without draws; the others do without, and so come out alike twice."""
    promised = facts(spec)
    assert promised.order in (range(0, 1) if spec in ("dopri5", "jump") else range(1, 6))
    walked = lambda: last(walk(spec, oracle(VP(), 2), noise_like(2, 2), float64(1, 0.6, 0.2, 0)))
    if promised.noise:
        with pytest.raises(InputError, match="is stochastic and needs draws="):
            walked()
    else:
        assert torch.equal(walked(), walked())


@pytest.mark.parametrize(
    ("spec", "promised"),
    [
        ("euler", Facts(1, smooth=True)),
        ("rk4", Facts(4, smooth=True)),
        ("rk4:clock=flow", Facts(4, gaussian_end=True)),
        ("dopri5:rtol=1e-3", Facts(0)),
        ("ddim", Facts(1)),
        ("ddim:eta=0.5", Facts(1, noise=True)),
        ("edm", Facts(2, gaussian_end=True)),
        ("edm:churn=10", Facts(1, noise=True)),
        ("unipc", Facts(3, gaussian_end=True)),
        ("unipc:order=1", Facts(2, gaussian_end=True)),
        ("unipc:order=3", Facts(3, at_least=True, gaussian_end=True)),
        ("exponential:order=1", Facts(1, gaussian_end=True)),
        ("exponential", Facts(2, at_least=True, gaussian_end=True)),
        ("exponential:corrector=true", Facts(3, at_least=True, gaussian_end=True)),
        ("exponential:order=4,corrector=true,start=runge_kutta", Facts(5, gaussian_end=True)),
        ("exponential:order=2,clock=time", Facts(2, smooth=True, gaussian_end=True)),
        ("lms", Facts(2, at_least=True, gaussian_end=True)),
        ("exponential_sde", Facts(1, noise=True)),
        ("exponential_sde:eta=0.0", Facts(1, gaussian_end=True)),
        ("dpmpp_2m_sde", Facts(1, noise=True)),
        ("restart", Facts(2, noise=True)),
    ],
)
def test_promises_by_hand(spec, promised):
    assert facts(spec) == promised
