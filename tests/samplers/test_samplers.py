"""Every path × target × sampler gives the data's distribution; a sample is its own; walks are lazy and clean."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2, norm
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import ClassifierFree
from ebbtide.core.paths import DDPM, VE, Cosine, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import TARGETS, Estimate
from ebbtide.core.times import GRIDS, grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments
from ebbtide.exact.oracle import gaussian
from ebbtide.networks import MLP
from ebbtide.samplers import SAMPLERS, facts, sample, trajectory, walk
from ebbtide.specs import bind
from problems import FALSE_POSITIVE, MEAN, PATHS, STD, exact, float64, last, noise_like, oracle, std_at

SPECS = ["ddpm", "ddpm:variance=beta", "ddim", "ddim:eta=0.5", "ddim:eta=1.0", "euler", "heun"]


class Knows:
    """Knows the data: x̂₀ = x0 whatever it sees, and the ε̂ that goes with it."""

    gaussian_end = True

    def __init__(self, path, x0):
        self.path, self.x0 = path, x0.float()

    def __call__(self, x, t, /, **cond):
        c = self.path.at(t, x)
        return Estimate(self.x0.expand_as(x), (x - c.alpha * self.x0) / c.sigma)


def from_the_end(path, n):
    """n starts spread evenly over the exact marginal at t = 1, so that only draws and steps add error."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return float(path.scales(float64(1)).alpha) * MEAN + std_at(path, 1.0) * torch.special.ndtri(u)[:, None]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", PATHS)
def test_every_sampler_on_every_path_has_the_right_moments(name, spec):
    """From t = 1 to N(0.7, 0.25), steps even in log-SNR: 2 m(120) - m(60) is the limit of a method of order 1 up to h².

    Worked out, not sampled: no false alarm, and a variance 3 % off is always seen.
    """
    path, sampler = PATHS[name], bind(SAMPLERS, spec, "sampler")
    law, network = oracle(path), exact(path, "v")
    few, many = (exact_moments(sampler, network, grid_times("log_snr", steps, path), law) for steps in (60, 120))
    mean, std = (2 * m - f for f, m in zip(few, many, strict=True))
    assert abs(mean - MEAN) < 0.005
    assert abs(std**2 / STD**2 - 1) < 0.03
    assert abs(many[1] ** 2 / STD**2 - 1) < max(abs(few[1] ** 2 / STD**2 - 1) / 1.8, 0.001)


@pytest.mark.slow
@each("spec", SPECS)
@each("target", TARGETS)
@each("name", PATHS)
def test_every_target_gives_the_oracles_samples(name, target, spec):
    """The same starts and draws through every path × target × sampler, from t = 1 to t = 0.

    Daily, test_all compares their moments. Where α(1) = 0 a noise or score says nothing of x₀ at t = 1 and is asked at
    σ/α = 200, hence 1/200 off.
    """
    path, n = PATHS[name], 50
    options = {"draws": Draws.first(n, seed=1), "sampler": spec, "grid": "log_snr", "steps": 8}
    options["start"] = from_the_end(path, n)
    found, truth = (sample(denoiser, (1,), **options) for denoiser in (exact(path, target), oracle(path)))
    lost = target in ("noise", "score") and name in ("linear", "cosine", "bridge")
    torch.testing.assert_close(found, truth, rtol=0, atol=0.02 if lost else 1e-6)


@pytest.mark.parametrize("spec", dict.fromkeys((*SPECS, *(spec for spec in SAMPLERS if facts(spec).noise))))
def test_real_draws_have_the_moments_that_are_worked_out(spec):
    """From the prior by draws, in 10 steps on the path whose end is pure noise: each end is an affine map of normal
    numbers, so √n (m̄ - m)/s is standard normal and Σ (x - m)²/s² is χ² with n degrees, for any number of steps.

    Level FALSE_POSITIVE each. n = 20 000 see a variance 10 % off with power 0.999, a mean 0.05 s off with 0.87.
    """
    path, n, sampler = Linear(), 20_000, bind(SAMPLERS, spec, "sampler")
    times, network = grid_times("flow_power", 10, path), exact(path, "velocity")
    mean, std = exact_moments(sampler, network, times, oracle(path))
    draws = Draws.first(n, seed=2)
    start = path.prior(draws(-1, torch.empty(n, 1, dtype=torch.float64)))
    with torch.no_grad():
        z = (last(walk(spec, network, start, times, draws=draws)) - mean) / std
    assert 2 * norm.sf(abs(float(z.mean())) * math.sqrt(n)) > FALSE_POSITIVE
    assert 2 * min(f(float(z.square().sum()), n) for f in (chi2.cdf, chi2.sf)) > FALSE_POSITIVE


@each("spec", SPECS)
@each("grid", GRIDS)
def test_any_sampler_walks_any_grid_on_any_path(spec, grid):
    for path in PATHS.values():
        walk = list(trajectory(exact(path), (2,), draws=Draws.first(3, seed=0), sampler=spec, grid=grid, steps=7))
        assert len(walk) == 8
        assert walk[0][0] == 1
        assert walk[-1][0] == 0
        assert all(t > s for (t, _), (s, _) in pairwise(walk))
        assert all(x.shape == (3, 2) and bool(x.isfinite().all()) for _, x in walk)


@each("name", PATHS)
@each("spec", ["ddpm", "ddpm:variance=beta", "ddim", "ddim:eta=1.0"])
@each("steps", [1, 5])
def test_the_last_step_is_exact(name, spec, steps):
    """Who knows x₀ arrives there exactly: nothing is left of the noise, and none is added."""
    x0 = float64(3, -2)
    x = sample(Knows(PATHS[name], x0), (2,), draws=Draws.first(4, seed=0), sampler=spec, steps=steps)
    torch.testing.assert_close(x, x0.float().expand(4, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "ve"])
@pytest.mark.parametrize("spec", ["euler", "heun"])
def test_the_last_step_of_an_ode_is_exact_where_the_path_is_straight(name, spec):
    x0 = float64(3, -2)
    for steps in (1, 5):
        x = sample(Knows(PATHS[name], x0), (2,), draws=Draws.first(4, seed=0), sampler=spec, steps=steps)
        torch.testing.assert_close(x, x0.float().expand(4, 2), rtol=1e-5, atol=1e-5)


def trained(classes=0):
    """A network with weights that matter, as its last layer starts at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(2, classes, width=16, depth=2)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("spec", SPECS)
def test_sample_i_is_the_same_alone_in_a_batch_and_split(spec):
    denoiser = Denoiser(trained(), Cosine(), "v")
    walk = lambda draws: sample(denoiser, (2,), draws=draws, sampler=spec, steps=6)
    together = walk(Draws.first(10, seed=5))
    halves = torch.cat([walk(Draws.first(4, seed=5)), walk(Draws.first(6, seed=5, start=4))])
    alone = walk(Draws(5, torch.tensor([7])))
    torch.testing.assert_close(halves, together, rtol=1e-5, atol=1e-5)  # matrix products sum in another order
    torch.testing.assert_close(alone[0], together[7], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("spec", SPECS)
def test_the_seed_is_all_that_matters(spec):
    denoiser = Denoiser(trained(), Cosine(), "v")
    walk = lambda seed: sample(denoiser, (2,), draws=Draws.first(4, seed=seed), sampler=spec, steps=5)
    first = walk(1)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(walk(1), first)
    assert not torch.allclose(walk(2), first)


def test_two_threads_do_not_disturb_each_other():
    denoiser = Denoiser(trained(), DDPM(), "noise")

    def walk(seed, spec):
        return sample(denoiser, (2,), draws=Draws.first(8, seed=seed), sampler=spec, steps=25)

    jobs = [(seed, spec) for seed in range(3) for spec in ("ddpm", "heun", "ddim:eta=0.5")]
    expected = [walk(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: walk(*job), jobs))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_two_interleaved_walks_do_not_disturb_each_other():
    denoiser = exact(Linear())
    start = lambda: trajectory(denoiser, (1,), draws=Draws.first(3, seed=1), sampler="ddpm", steps=6)
    alone = list(start())
    for one, other, expected in zip(start(), start(), alone, strict=True):
        assert one[0] == other[0] == expected[0]
        assert torch.equal(one[1], expected[1])
        assert torch.equal(other[1], expected[1])


def test_walks_are_lazy():
    denoiser = exact(Linear())
    walk = trajectory(denoiser, (1,), draws=Draws.first(2, seed=0), sampler="euler", steps=10)
    assert denoiser.network.calls == 0
    next(walk)  # the start, which costs nothing
    assert denoiser.network.calls == 0
    next(walk)
    next(walk)
    assert denoiser.network.calls == 2


def test_what_was_yielded_stays_as_it_was():
    """Steps aren't written in place, so a plot may keep them all."""
    for spec in SPECS:
        kept = []
        for _, x in trajectory(exact(Linear()), (1,), draws=Draws.first(2, seed=0), sampler=spec, steps=5):
            kept.append((x, x.clone()))
        assert all(torch.equal(x, copy) for x, copy in kept)


def test_gradients_are_off_inside_a_walk_and_untouched_outside():
    denoiser = Denoiser(trained(), Linear())
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            for _, x in trajectory(denoiser, (2,), draws=Draws.first(2, seed=0), steps=4):
                assert torch.is_grad_enabled() is enabled
                assert not x.requires_grad
            assert torch.is_grad_enabled() is enabled
    walk = trajectory(denoiser, (2,), draws=Draws.first(2, seed=0), steps=4)
    next(walk)
    next(walk)
    walk.close()
    assert torch.is_grad_enabled()


def test_the_start_is_the_prior_or_what_is_given():
    walk = lambda path, **start: next(trajectory(exact(path), (2,), draws=Draws.first(3, seed=0), **start))[1]
    prior = Draws.first(3, seed=0)(-1, torch.empty(3, 2))
    assert torch.equal(walk(Linear()), prior)
    torch.testing.assert_close(walk(VE(10.0)), 10 * prior)
    given = torch.ones(3, 2)
    assert walk(Linear(), start=given) is given


def test_between_two_sets_a_start_must_be_given():
    denoiser = Denoiser(trained(), Linear(), gaussian_end=False)
    with pytest.raises(InputError, match=r"^Between two sample sets, .* give them as start\.$"):
        sample(denoiser, (2,), draws=Draws.first(3, seed=0))
    assert sample(denoiser, (2,), draws=Draws.first(3, seed=0), start=torch.ones(3, 2)).shape == (3, 2)


def test_conditions_reach_the_network_and_its_guidance():
    denoiser = Denoiser(trained(classes=2), Linear())
    draws, label = Draws.first(3, seed=0), torch.tensor([0, 1, 0])
    plain = sample(denoiser, (2,), draws=draws, label=label, steps=4)
    assert not torch.allclose(plain, sample(denoiser, (2,), draws=draws, label=1 - label, steps=4))
    off, on = (sample(ClassifierFree(denoiser, w, 2), (2,), draws=draws, label=label, steps=4) for w in (1.0, 3.0))
    assert torch.equal(off, plain)
    assert not torch.allclose(on, plain)


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps):
    for run in (sample, lambda *args, **options: list(trajectory(*args, **options))):
        with pytest.raises(InputError, match=rf"^steps must be at least 1 and at most 1000000; got {steps}\.$"):
            run(exact(Linear()), (1,), draws=Draws.first(2, seed=0), steps=steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "heum"}, "sampler must be one of euler, heun, midpoint, rk4"),
        ({"sampler": "ddim:eta=lots"}, "sampler 'ddim': eta must be float; got 'lots'."),
        ({"sampler": "ddim:eta=2.0"}, "ddim: eta must be at least 0 and at most 1; got 2.0."),
        ({"grid": "even"}, "grid must be one of uniform"),
        (
            {"grid": "trailing", "steps": 1001},
            "each an entry of its table, must be at least 1 and at most 1000; got 1001.",
        ),
    ],
)
def test_unknown_names_and_bad_options_are_one_sentence(options, words):
    with pytest.raises(InputError) as caught:
        sample(exact(Linear()), (1,), draws=Draws.first(2, seed=0), **options)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_precision_follows_the_start():
    for dtype in (torch.float32, torch.float64):
        for spec in SPECS:
            start = noise_like(3, 1).to(dtype)
            x = last(trajectory(exact(Linear()), (1,), draws=Draws.first(3, 0), sampler=spec, start=start, steps=3))[1]
            assert x.dtype == dtype


@pytest.mark.unchecked
def test_a_function_that_does_not_yield_x_after_every_step_is_refused():
    def few(walk):
        yield walk.x

    def many(walk):
        for _ in range(9):
            yield walk.x

    def narrow(walk):
        for _ in walk.steps:
            yield walk.x[:, :1]

    denoiser = gaussian(Linear(), torch.zeros(2), 1.0)
    for function, words in ((few, "after every step, of shape (3, 2)"), (narrow, "(3, 2)"), (many, "goes on after")):
        with pytest.raises(InputError, match=re.escape(words)):
            sample(denoiser, (2,), sampler=function, steps=4, draws=Draws.first(3, seed=0))


# --- gradients ------------------------------------------------------------------------------------------------------


def slightly(target="velocity"):
    """A small network with weights that matter, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = MLP(2, width=8, depth=1).double()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    return Denoiser(network, Linear(), target, alpha_min=1 / 200)


@pytest.mark.parametrize("spec", [name for name in SAMPLERS if name not in ("jump", "dopri5")])
def test_the_gradient_through_a_sampler_is_its_difference_quotient(spec):
    """d/dh of Σ sin(x), along one direction of all weights and of the start: central differences, h = 1e-5.

    dopri5 isn't continuous in its weights: it chooses its steps.
    """
    denoiser, start = slightly(), noise_like(3, 2).double().requires_grad_()
    options = {"draws": Draws.first(3, 0), "sampler": spec, "steps": 5, "start": start}
    of = [*denoiser.parameters(), start]
    way = [noise_like(*part.shape, seed=7).double() for part in of]
    total = lambda **more: sample(denoiser, (2,), **options, **more).sin().sum()
    gradients = torch.autograd.grad(total(gradient=True), of)
    found = sum(float((gradient * step).sum()) for gradient, step in zip(gradients, way))

    def moved(h):
        with torch.no_grad():
            for part, step in zip(of, way):
                part.add_(step, alpha=h)
            value = float(total())
            for part, step in zip(of, way):
                part.sub_(step, alpha=h)
        return value

    assert abs(found) > 1e-3
    assert found == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=1e-5)


def kept_bytes(steps, **options):
    """Bytes that a walk keeps for its gradient, each storage counted once."""
    held = {}

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # alive, so that no address returns
        return tensor

    denoiser = Denoiser(MLP(2, width=64, depth=4), Linear())
    own = {part.untyped_storage().data_ptr() for part in denoiser.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = sample(denoiser, (2,), draws=Draws.first(512, 0), steps=steps, sampler="euler", **options)
    assert x.requires_grad
    return sum(storage.nbytes() for place, storage in held.items() if place not in own)


def test_a_gradients_memory_grows_by_states_not_by_activations():
    """A state is 512 × 2 floats, 4 KiB; the activations of an evaluation are 512 × 64 in each of many layers."""
    few, many = kept_bytes(10, gradient=True), kept_bytes(50, gradient=True)
    assert (many - few) / 40 <= 4 * 4096


def test_samples_are_the_same_with_their_gradient_and_have_none_without():
    denoiser = slightly()
    options = {"draws": Draws.first(3, 0), "sampler": "ddpm", "steps": 4}
    with_it, without = (sample(denoiser, (2,), gradient=flag, **options) for flag in (True, False))
    assert with_it.requires_grad
    assert not without.requires_grad
    assert torch.equal(with_it, without)
    with torch.no_grad():
        assert not sample(denoiser, (2,), gradient=True, **options).requires_grad


def test_a_walk_from_a_middle_time_is_the_end_of_a_whole_one():
    """Heun's steps have no memory: from the state at 0.4 the rest of the grid leads to the same end."""
    denoiser, options = slightly(), {"draws": Draws.first(3, 0), "steps": 10, "sampler": "heun"}
    whole = list(trajectory(denoiser, (2,), **options))
    at, middle = whole[6]
    rest = list(trajectory(denoiser, (2,), start=middle, at=at, **options))
    assert [t for t, _ in rest] == [t for t, _ in whole[6:]]
    assert torch.equal(rest[-1][1], whole[-1][1])
    with pytest.raises(InputError, match=r"^From t = 0\.4, sampling starts from noised data: give it as start\.$"):
        last(trajectory(denoiser, (2,), at=0.4, **options))
