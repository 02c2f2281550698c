"""The certificates themselves: every sampler keeps its promises on every path; and what breaks one is found out."""

import functools
import json
from dataclasses import replace

import pytest
import torch

from cells import each
from ebbtide.core.paths import Linear
from ebbtide.errors import InputError
from ebbtide.exact import certify as certificates
from ebbtide.exact.certify import EQUIVALENTS, SPECS, certify, checks_to_json, distances, interior, moments
from ebbtide.samplers import SAMPLERS, Facts, facts
from ebbtide.samplers.ddim import ddpm
from ebbtide.samplers.dpm_solver import dpmpp_2m
from ebbtide.samplers.ode import euler
from problems import PATHS

pytestmark = pytest.mark.unchecked


def failed(checks):
    return [check for check in checks if check.passed is False]


few_floors = functools.cache(certificates._floors.__wrapped__)  # of fewer samples: not what the others are held to


# Every row is certified at every test on two of three paths, one with a table or one whose noise explodes, in turn; its
# options, the other paths and more samples with the slow ones.
@pytest.mark.parametrize("spec", SAMPLERS)
def test_every_sampler_keeps_its_promises(spec, monkeypatch):
    """With fewer steps, budgets and samples than the slow tests have.

    A quarter of the samples double the floor of distances, measured on one path: a variance 25 % off is detected (in
    200 of 200 sets; 20 % off in 173), and one 5 % off by the exact moments, on each of the three.
    """
    monkeypatch.setattr(certificates, "STEP_COUNTS", (80, 160))
    monkeypatch.setattr(certificates, "BUDGETS", (10, 100))
    monkeypatch.setattr(certificates, "SAMPLES", 2000)
    monkeypatch.setattr(certificates, "_floors", few_floors)
    measured = certificates.distances
    monkeypatch.setattr(certificates, "distances", lambda *job: measured(*job) if job[2] == "ddpm" else ())
    for path in ("linear", ("ddpm", "ve")[list(SAMPLERS).index(spec) % 2]):
        checks = list(certify(spec, (path,)))
        assert not failed(checks)
        assert any(check.passed for check in checks)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "path"), [(spec, path) for spec in SPECS for path in PATHS])
def test_every_sampler_keeps_its_promises_on_every_path(spec, path):
    assert not failed(certify(spec, (path,)))


def wrong_sigma(walk):
    """DDIM with σ_t where σ_s belongs."""
    x = walk.x
    for now, then in walk.steps:
        x = walk.estimate(x, now).mix(then.alpha, now.sigma)
        yield x


def too_noisy(walk):
    """DDPM that adds a little more noise after each step."""
    x = walk.x
    for i, (now, then) in enumerate(walk.steps):
        (x,) = ddpm(replace(walk, x=x, grid=[now, then]))
        x = walk.noised(x, 0.05 * float(then.t > 0), 1000 + i)
        yield x


def a_tenth_too_wide(walk):
    """DDPM whose last step stretches its samples to a variance of 1.1 times what it should be."""
    for end in ddpm(walk):
        yield end
    yield 1.1**0.5 * end


def test_a_variance_a_tenth_off_is_seen_by_moments_and_by_distance():
    """As DDPM's own isn't: moments and distances each see it."""
    path, promised = Linear(), Facts(1, noise=True)
    for sampler, kept in ((ddpm, True), (a_tenth_too_wide, False)):
        std = [check for check in moments(sampler, path, "linear", promised) if "std at 200" in check.name]
        assert [check.passed for check in (*std, *distances(sampler, path, "linear"))] == [kept, kept]


def test_a_wrong_sampler_is_found_out():
    assert failed(certify(wrong_sigma, ("linear",), Facts(1)))
    assert failed(certify(euler, ("linear",), Facts(2)))
    assert failed(certify(too_noisy, ("linear",), Facts(1, noise=True)))
    assert not failed(certify(dpmpp_2m, ("linear",), Facts(2)))


def test_a_sampler_that_breaks_is_a_failed_check():
    def broken(walk):
        yield walk.x + torch.ones(7)

    (check,) = failed(certify(broken, ("linear",), Facts(1)))
    assert check.name == "runs"


def test_a_function_in_the_table_without_facts_is_certified_as_a_user_s(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "bare", euler)
    monkeypatch.setattr(certificates, "BUDGETS", (5,))
    found = {check.name: check for check in certify("bare", ("linear",))}
    assert found["RMS at 5"].passed
    assert found["order, even grid"].passed is None


def test_what_is_no_sampler_and_no_path_is_one_sentence():
    with pytest.raises(InputError, match=r"^A sampler must be a spec or a function of a Walk; got int\.$"):
        list(certify(3))
    with pytest.raises(InputError, match=r"^path must be one of"):
        list(certify("ddim", ("linnear",)))
    with pytest.raises(InputError, match=r"^paths must be a list of names, such as \['linear'\]; got 'linear'\.$"):
        list(certify("euler", "linear"))


@each("uneven", [False, True])
@each("name", PATHS)
def test_the_grids_of_orders_are_the_same_noise_on_every_path(name, uneven):
    path = PATHS[name]
    ratios = torch.tensor([c.ratio for c in path.along(interior(path, 40, uneven))])
    expected = torch.tensor([c.ratio for c in Linear().along(interior(Linear(), 40, uneven))])
    torch.testing.assert_close(ratios, expected, rtol=1e-5, atol=0)
    assert float(ratios[0]) == pytest.approx(9, rel=1e-5)
    steps = ratios.log().diff()
    assert uneven == (float(steps.max() / steps.min()) == pytest.approx(0.5, rel=1e-4))


def test_every_row_is_certified_and_every_equivalent_exists():
    assert set(SAMPLERS) <= {spec.partition(":")[0] for spec in SPECS}
    for one, other, _ in EQUIVALENTS:
        facts(one), facts(other)


def test_json_has_every_check():
    checks = list(certify("ddim", ("linear",)))
    rows = json.loads(checks_to_json({"ddim": checks}))["ddim"]
    assert [row["name"] for row in rows] == [check.name for check in checks]
