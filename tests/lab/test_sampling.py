"""Walks, fields, encodings and distances as a page shows them: against a velocity that is known, and the library."""

import math

import pytest
import torch

from ebbtide import InputError
from ebbtide.kinds.runs import begin
from ebbtide.lab import sampling
from ebbtide.lab.sampling import LabRun, View, encoded, field_at, solver_error, walk_of
from ebbtide.recipes import RECIPES

SPEED = torch.tensor([0.5, -0.25])


def test_a_walk_is_the_trajectory_of_the_library(lab):
    trained, view = lab.run("moons").trained, View(n=50, seed=3, sampler="heun", grid="quadratic", steps=7)
    found = walk_of(trained, view)
    want = list(trained.trajectory(50, seed=3, sampler="heun", grid="quadratic", steps=7))
    assert found.times == [t for t, _ in want]
    for x, (_, y) in zip(found.frames, want, strict=True):
        torch.testing.assert_close(x, y)
    assert (found.evaluations, found.steps) == (13, 7)  # Heun's last step, to σ = 0, is Euler's


def test_frames_are_thinned_but_not_the_walk(lab):
    found = walk_of(lab.run("noisy").trained, View(n=8, sampler="ddpm", steps=200))
    assert len(found.frames) == sampling.FRAMES
    assert (found.times[0], found.times[-1], found.evaluations, found.steps) == (1.0, 0.0, 200, 200)


def test_a_steady_flow_is_straight_and_solved_by_a_single_step(steady):
    found = walk_of(steady, View(n=20, sampler="euler", grid="uniform", steps=4))
    assert found.straightness == pytest.approx(1)
    moved = steady.to_network(found.frames[0]) - steady.to_network(found.frames[-1])
    torch.testing.assert_close(moved, SPEED.expand(20, 2))
    run = LabRun("steady", "steady", "", steady)
    assert solver_error(run, steady, View(n=20, sampler="euler", grid="uniform", steps=1)) == pytest.approx(0, abs=1e-5)


def test_a_solver_s_error_shrinks_with_its_order_and_is_none_for_noise(lab):
    run = lab.run("moons")
    with torch.no_grad():
        run.trained.denoiser.network.out.weight.mul_(20)  # so that routes bend
    errors = [
        solver_error(run, run.trained, View(n=200, sampler="euler", grid="uniform", steps=k)) for k in (8, 16, 32)
    ]
    assert errors[0] > 1.5 * errors[1] > 2.2 * errors[2] > 0
    assert solver_error(run, run.trained, View(sampler="ddpm", steps=8, n=10)) is None


def test_what_is_expected_of_the_data_comes_to_it(lab):
    """At t = 0 x̂₀ is the sample; before, it is the steered denoiser's."""
    trained, view = lab.run("spirals").trained, View(n=12, label="first", guidance=2.0, sampler="euler", steps=5)
    found = walk_of(trained, view)
    torch.testing.assert_close(found.guesses[-1], found.frames[-1])
    z = trained.to_network(found.frames[1])
    x0 = trained.steered(guidance=2.0)(z, found.times[1], label=torch.zeros(12, dtype=torch.int64)).x0
    torch.testing.assert_close(found.guesses[1], trained.to_data(x0), atol=1e-4, rtol=1e-4)
    assert found.evaluations == 10  # two where guidance acts


def test_a_field_and_an_encoding_follow_the_velocity(steady):
    view, std = View(), steady.codec.decode(torch.ones(1, 2)) - steady.codec.decode(torch.zeros(1, 2))
    places = torch.tensor([[0.0, 0.0], [2.0, -1.0]])
    torch.testing.assert_close(field_at(steady, view, 0.4, places), (SPEED * std).expand(2, 2))
    times, way = encoded(steady, view, torch.tensor([1.0, 0.5]))
    assert (times[0], times[-1]) == (1.0, 0.0)
    torch.testing.assert_close(way[-1], torch.tensor([1.0, 0.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(way[0] - way[-1], (SPEED * std)[0], atol=1e-4, rtol=0)


def test_exploding_noise_is_drawn_in_the_flow_clock():
    trained, _ = begin(RECIPES["edm"](data="two_moons", points=300, steps=5))
    found = walk_of(trained, View(n=200, steps=6))
    assert found.times[0] == pytest.approx(80 / 81)
    assert 0.5 < trained.to_network(found.frames[0]).std() < 1.5
    assert field_at(trained, View(), 0.9, torch.zeros(3, 2)).isfinite().all()


def test_too_much_work_is_a_sentence(lab):
    trained = lab.run("moons").trained
    with pytest.raises(InputError, match=r"n × steps must be at most 4,000,000 here; got 20,000 × 1,000"):
        walk_of(trained, View(n=20_000, steps=1000))


def test_eta_reaches_the_sampler(lab):
    trained = lab.run("moons").trained
    plain, noisy = (walk_of(trained, View(n=30, sampler="ddim", steps=5, eta=eta)) for eta in (None, 0.7))
    torch.testing.assert_close(noisy.frames[-1], trained.sample(30, sampler="ddim:eta=0.7", steps=5))
    assert not torch.allclose(plain.frames[-1], noisy.frames[-1], atol=1e-3)
    assert [sampling.takes_eta(name) for name in ("ddim", "dpmpp_2m:eta=1", "heun", "nothing")] == [1, 1, 0, 0]


def test_distances_stand_beside_those_of_real_data(lab):
    run = lab.run("moons")
    (row,) = sampling.distances_of(run, run.trained, View(n=300, steps=4))
    assert row["name"] == "energy distance"
    assert row["value"] > 10 * abs(row["floor"])  # six steps of training are none
    assert math.isfinite(row["p"])


def test_columns_that_are_not_there_are_a_sentence():
    with pytest.raises(InputError, match="a column must be at least 0 and at most 1; got 5"):
        sampling.as_columns_of(torch.zeros(3, 2), (0, 5))
    with pytest.raises(InputError, match="The data has one column"):
        sampling.as_columns_of(torch.zeros(3, 1), (1,))
    assert sampling.as_columns_of(torch.zeros(3, 1), (0, 1)).shape == (3, 1)
