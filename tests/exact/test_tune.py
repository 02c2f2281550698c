"""Tuning finds what is better, says how much, and what it stores comes back."""

import re

import pytest
import torch

from ebbtide.core.paths import DDPM, Linear
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import modes, starts
from ebbtide.exact.tune import FAMILIES, FIT, TIME_FAMILIES, evaluations, reference, steps_within, tune
from ebbtide.exact.tuned import Tuned, read_tuned, write_tuned
from ebbtide.samplers import SAMPLERS, walk
from ebbtide.specs import bind
from problems import last, noise_like, oracle

pytestmark = pytest.mark.unchecked

FEW = {"reference_steps": 100}  # whose error is far below those that are compared
ONE = Tuned(8, "heun", "uniform", 4, 0.1, 0.01, 1e-6, 0.2)


@pytest.mark.parametrize(
    ("spec", "steps", "count"),
    [("ddim", 7, 7), ("heun", 4, 7), ("rk4", 3, 11), ("midpoint", 3, 6), ("unipc", 9, 9), ("edm", 8, 14)],
)
def test_evaluations_are_counted(spec, steps, count):
    sampler = bind(SAMPLERS, spec, "sampler")
    assert evaluations(sampler, DDPM(), grid_times("uniform", steps, DDPM())) == count
    assert steps_within(sampler, DDPM(), count) == steps
    assert steps_within(sampler, DDPM(), count - 1) < steps


def test_no_step_fits():
    assert steps_within(bind(SAMPLERS, "rk4", "sampler"), Linear(), 2) == 0


def test_the_reference_is_the_exact_flow():
    denoiser = oracle(Linear())
    x = torch.linspace(-2, 2, 9).double()[:, None]
    end, error = reference(denoiser, x, 200, {})
    torch.testing.assert_close(end, denoiser.flow(x, 1.0, 0.0), rtol=0, atol=1e-7)
    assert error < 1e-6


@pytest.mark.slow
def test_the_winner_is_better_than_the_usual():
    """On three modes with 4 evaluations, judged on starts of its own."""
    denoiser, stages = modes(Linear()), []
    solvers = ("ddim", "heun", "exponential:order=2,corrector=true")
    found = tune(denoiser, starts(denoiser, 80), 4, solvers=solvers, progress=lambda stage, share: stages.append(share))
    assert found.rms < found.usual
    assert found.median < found.usual
    assert found.evaluations == 4
    assert stages == sorted(stages)
    assert stages[-1] == 1
    fresh = starts(denoiser, 300)
    truth, _ = reference(denoiser, fresh, 400, {})
    for x in walk(found.sampler, denoiser, fresh, grid_times(found.grid, found.steps, Linear())):
        end = x
    assert float((end - truth).norm(dim=1).median()) < 3 * found.median


def test_what_is_reported_is_of_the_starts_that_judge():
    denoiser, start = modes(Linear()), starts(modes(Linear()), 24)
    given = {"depth": "grids", "reference_steps": 40, "solvers": ("heun:clock=flow",)}
    found = tune(denoiser, start, 5, **given)
    truth, _ = reference(denoiser, start, 40, {})
    times = grid_times(found.grid, found.steps, Linear())
    *_, end = walk(found.sampler, denoiser, start, times)
    off = (end - truth).norm(dim=1)
    assert found.rms == pytest.approx(float(off[3::4].square().mean().sqrt()), rel=1e-9)
    assert found.median == pytest.approx(float(off[3::4].median()), rel=1e-9)
    for others in (off[0::2], off[1::4]):  # that were fitted, and that chose
        assert found.rms != pytest.approx(float(others.square().mean().sqrt()), rel=1e-2)


def errors(found, denoiser, start):
    """RMS and median over the starts that were fitted."""
    truth, _ = reference(denoiser, start, 100, {})
    walked = walk(found.sampler, denoiser, start, grid_times(found.grid, found.steps, Linear()))
    off = (last(walked) - truth).norm(dim=1)[FIT]
    return {"rms": float(off.square().mean().sqrt()), "median": float(off.median())}


def test_a_map_is_tuned_to_jump():
    """Of an exact map jumps end where the flow does, and no solver of its velocity comes near in two evaluations."""
    how = {"depth": "times", "reference_steps": 100}
    found = tune(oracle(Linear(), 2), noise_like(64, 2), 2, **how)
    assert (found.sampler, found.steps, found.evaluations) == ("jump", 2, 2)
    assert found.rms < 1e-6
    assert tune(oracle(Linear(), 2), noise_like(64, 2), 2, solvers=("ddim", "heun:clock=flow"), **how).rms > 1e-3


def test_what_is_known_and_better_wins():
    denoiser, start = modes(Linear()), starts(modes(Linear()), 24)
    given = {"depth": "grids", "reference_steps": 40, "solvers": ("euler",)}
    rival = ("exponential:order=3", "flow_power:exponent=1.4", 60)
    assert tune(denoiser, start, 6, **given).sampler == "euler"
    found = tune(denoiser, start, 6, rivals=[rival], **given)
    assert (found.sampler, found.grid, found.steps) == rival


@pytest.mark.parametrize("aim", ["rms", pytest.param("median", marks=pytest.mark.slow)])
def test_each_depth_is_better_on_the_starts_that_are_fitted(aim):
    """Grids, then times, then weights: each fit starts from the one before it."""
    denoiser, start = modes(Linear()), starts(modes(Linear()), 32)
    found = [
        tune(denoiser, start, 4, aim=aim, depth=depth, solvers=("exponential:order=2,corrector=true",), **FEW)
        for depth in ("grids", "times", "weights")
    ]
    grids, times, weights = (errors(one, denoiser, start)[aim] for one in found)
    assert times <= grids
    assert weights < 0.95 * times
    assert found[2].sampler.startswith("bespoke:weights=")
    assert found[2].evaluations == found[2].steps == 4


def test_the_aim_decides():
    denoiser, start = modes(Linear()), starts(modes(Linear()), 100)
    far, typical = (
        errors(
            tune(denoiser, start, 6, aim=aim, depth="times", solvers=("exponential:order=2",), **FEW), denoiser, start
        )
        for aim in ("rms", "median")
    )
    assert far["rms"] < typical["rms"]
    assert typical["median"] < far["median"]


@pytest.mark.parametrize("family", [*FAMILIES, *TIME_FAMILIES], ids=lambda family: family.name)
def test_every_family_is_a_grid(family):
    for values in family.first:
        assert len(grid_times(family.spec(values), 5, Linear())) == 6


def test_what_is_stored_comes_back():
    assert read_tuned(write_tuned([ONE]), "tuned.json") == (ONE,)


@pytest.mark.parametrize(
    "data",
    [
        b"{}", b"[1]", b'[{"steps": 3}]', b"not json", b"[" * 100_000, write_tuned([ONE]).replace(b'"heun"', b"7"),
        re.sub(rb'"steps": \d+', b'"steps": 1000000000000', write_tuned([ONE])),
        re.sub(rb'"rms": [^,]+', b'"rms": NaN', write_tuned([ONE])),
    ],
    ids=range(8),
)  # fmt: skip
def test_damaged_files_are_one_sentence(data):
    with pytest.raises(InputError, match=r"tuned\.json"):
        read_tuned(data, "tuned.json")


def test_too_little_is_refused():
    denoiser = modes(Linear())
    with pytest.raises(InputError, match=r"evaluations must be at least 1|starts must be at least 4"):
        tune(denoiser, starts(denoiser, 3), 5)
    with pytest.raises(InputError, match="evaluations must be a whole number"):
        tune(denoiser, starts(denoiser, 8), 5.0)
    with pytest.raises(InputError, match="start must be a tensor; got"):
        tune(denoiser, [[0.0, 1.0]] * 8, 5)
    for wrong in ({"aim": "mean"}, {"depth": "all"}):
        with pytest.raises(InputError, match="must be one of"):
            tune(denoiser, starts(denoiser, 8), 5, **wrong)
    with pytest.raises(InputError, match="No solver takes a step within 2 evaluations"):
        tune(denoiser, starts(denoiser, 8), 2, solvers=("rk4",), reference_steps=20)
