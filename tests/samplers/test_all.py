"""What every row of SAMPLERS owes: a sample is its own, threads don't meet, steps are exact where x₀ is known, and the
network is asked as often as promised and never twice the same."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, VE, VP, Cosine, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import TARGETS
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.certify import exact_moments, smooth
from ebbtide.exact.oracle import gaussian
from ebbtide.exact.tune import evaluations, steps_within
from ebbtide.networks import MLP
from ebbtide.samplers import SAMPLERS, facts, sample, trajectory, walk
from ebbtide.specs import bind
from problems import MEAN, PATHS, STD, TABLES, GaussianNetwork, Told, exact, float64, last, noise_like, oracle

# Evaluations of 10 steps of t = 1, 0.9, … 0 on the linear path, where α(1) = 0, and on VP, where it isn't.
EVALUATIONS = {
    "euler": (10, 10),
    "heun": (19, 19),
    "midpoint": (20, 20),
    "rk4": (39, 39),
    "ddim": (10, 10),
    "edm": (18, 19),
    "dpmpp_2m": (10, 10),
    "dpmpp_2s": (18, 19),
    "dpmpp_3m": (10, 10),
    "unipc": (10, 10),
    "deis": (10, 10),
    "lms": (10, 10),
    "exponential": (10, 10),
    "bespoke": (10, 10),
    "ddpm": (10, 10),
    "dpmpp_2m_sde": (10, 10),
    "exponential_sde": (10, 10),
    "euler_maruyama": (10, 10),
    "predictor_corrector": (19, 19),
    "restart": (34, 27),  # two passes more of 4 steps (t = 0.5 to 0.1), on VP of 2 (t = 0.3 to 0.1)
}
STOCHASTIC = ("ddpm", "dpmpp_2m_sde", "exponential_sde", "euler_maruyama", "predictor_corrector", "restart")
# In the clock t a velocity is not constant where x₀ is known, but on straight paths.
IN_TIME = ("euler", "heun", "midpoint", "rk4")

# Those that walk on any denoiser; a jump needs one that spans two times: test_jump.
WALKS = [name for name in SAMPLERS if not facts(name).spans]
every = pytest.mark.parametrize("spec", WALKS)
share = pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["third", "whole"])


def cells(rows, columns, share, first):
    """Pairs of a row and a column: with share 1 all, with share 3 a third, where each row and each column has its own.

    first: where it begins, as another number of another sampler or path: three in turn have all.
    """
    pairs = product(enumerate(rows), enumerate(columns))
    return [(row, column) for (i, row), (k, column) in pairs if (i + k + first) % share == 0]


def loose(spec):
    """dopri5 at tolerances that it keeps in few steps; any other as it is."""
    return "dopri5:rtol=0.01,atol=0.01" if spec == "dopri5" else spec


def test_every_row_is_here():
    assert set(WALKS) <= {*EVALUATIONS, "dopri5"}
    assert set(STOCHASTIC) <= set(SAMPLERS)


def walks(spec, denoiser, draws, steps=5):
    """x at the end and on the way, from the prior by the same draws."""
    start = denoiser.path.prior(draws(-1, torch.empty(len(draws.ids), 2, dtype=torch.float64)))
    times = grid_times("flow_power", steps, denoiser.path)
    with torch.no_grad():
        return torch.stack(list(walk(spec, denoiser, start, times, draws=draws)), 1)


@pytest.mark.parametrize("path", [Linear(), VE(10.0)], ids=["linear", "ve"])
@every
def test_a_sample_is_its_own_alone_in_a_batch_and_in_another_order(spec, path):
    """The same (seed, id) in whatever company, at every step: the denoiser works sample by sample, so up to 1e-6."""
    denoiser = smooth(path)
    together = walks(spec, denoiser, Draws.first(6, 5))
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    torch.testing.assert_close(walks(spec, denoiser, Draws(5, order)), together[order], rtol=0, atol=1e-6)
    for i in (0, 3):
        alone = walks(spec, denoiser, Draws(5, torch.tensor([i])))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-6)
    assert float(torch.pdist(together[:, -1]).min()) > 1e-3
    assert not torch.allclose(walks(spec, denoiser, Draws.first(6, 6)), together)


@pytest.mark.checked
@every
def test_the_network_is_told_the_label_at_every_evaluation(spec):
    """Also in a second stage, a correction, or a step that is taken again."""
    told, label, draws = Told(smooth(VP())), torch.tensor([2, 0, 1]), Draws.first(3, 0)
    last(walk(spec, told, noise_like(3, 2), grid_times("uniform", 10, VP()), draws=draws, cond={"label": label}))
    assert told.always(label)
    assert len(told.told) == EVALUATIONS.get(spec, (0, len(told.told)))[1]


def trained(path, target="velocity"):
    """A network with weights that matter, as its last layer starts at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(2, width=16, depth=1)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    return Denoiser(network, path, target)


HALF = """
import sys
import torch
from ebbtide import Draws, Linear, sample
from ebbtide.exact.certify import smooth
from ebbtide.samplers import SAMPLERS

torch.set_num_threads(1)
draws = Draws.first(4, seed=3, start=int(sys.argv[1]))
ends = {name: sample(smooth(Linear()), (2,), draws=draws, steps=5, sampler=name) for name in SAMPLERS if name != "jump"}
torch.save(ends, sys.argv[2])
"""


def test_two_processes_draw_what_one_does(tmp_path):
    """Samples 4 to 7 in another process and 0 to 3 in this one, by every sampler: those of a single batch of eight."""
    done = subprocess.run([sys.executable, "-c", HALF, "4", str(tmp_path / "second.pt")], timeout=120)
    assert done.returncode == 0
    theirs = torch.load(tmp_path / "second.pt")
    for name in WALKS:
        first, whole = (
            sample(smooth(Linear()), (2,), draws=Draws.first(n, seed=3), steps=5, sampler=name) for n in (4, 8)
        )
        parts = torch.cat([first, theirs[name]])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_threads_on_one_denoiser_get_what_each_gets_alone():
    """Every row with two seeds, four threads at a time; DDPM's path keeps tables by precision, made on demand."""
    path = DDPM()
    denoiser = trained(path, "v")

    def walked(job):
        spec, seed = job
        options = {
            "draws": Draws.first(8, seed),
            "sampler": loose(spec),
            "grid": "flow_power",
            "steps": 5,
        }
        return last(trajectory(denoiser, (2,), **options))[1]

    jobs = [(spec, seed) for seed in range(2) for spec in WALKS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(walked, jobs))
    for job, x in zip(jobs, found, strict=True):
        assert torch.equal(x, walked(job)), job


@pytest.mark.checked
@every
def test_the_consumers_gradient_mode_is_untouched(spec):
    """While a walk runs, between its steps, when it is left half-way, and when its denoiser raises."""
    denoiser = trained(Cosine(), "v")
    options = {"draws": Draws.first(2, 0), "sampler": spec, "grid": "flow_power", "steps": 4}
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            walk = trajectory(denoiser, (2,), **options)
            for i, (_, x) in enumerate(walk):
                assert torch.is_grad_enabled() is enabled
                assert not x.requires_grad
                if i == 2:
                    break
            walk.close()
            assert torch.is_grad_enabled() is enabled
            broken = trajectory(trained(Cosine(), "v"), (3,), **options)  # points of 3 for a network of 2
            next(broken)
            with pytest.raises(Exception):  # noqa: B017 - torch's, or the type checker's before it
                next(broken)
            assert torch.is_grad_enabled() is enabled
    assert all(parameter.grad is None for parameter in denoiser.parameters())


@pytest.mark.parametrize("name", PATHS)
@every
def test_where_x0_is_known_every_step_is_exact(spec, name):
    """x̂₀ = μ and ε̂ = (x - α μ)/σ, as for a Gaussian of no width: from N(α μ, σ²) at t to just that at s, be it by one
    ε all the way or by fresh noise, and to μ and nothing else at t = 0. Without sampling.

    Euler-Maruyama has a discretisation error on the way, and a solver in the clock t has one on a curved path.
    """
    path, straight = PATHS[name], name in ("linear", "ve")
    knows, rest = gaussian(path, float64(0.7), 0.0), 1e-4 if spec == "dopri5" else 1e-7
    if spec != "euler_maruyama" and (spec not in IN_TIME or straight):
        for times in ((1, 0.6), (1, 0.6, 0.3, 0.12)):
            c = path.along(times[-1:])[0]
            mean, std = exact_moments(SAMPLERS[spec], knows, float64(*times))
            assert mean == pytest.approx(0.7 * c.alpha, abs=1e-6)
            assert std == pytest.approx(c.sigma, rel=rest)
    if spec not in IN_TIME or straight or (spec, name) == ("dopri5", "vp"):
        sampler = bind(
            SAMPLERS, spec if spec != "dopri5" or straight else "dopri5:rtol=0.01,atol=0.01,end=0.01", "sampler"
        )
        mean, std = exact_moments(sampler, knows, float64(1, 0.5, 0.2, 0))
        assert mean == pytest.approx(0.7, abs=1e-9)
        assert std < 1e-6


@pytest.mark.unchecked
@share
@pytest.mark.parametrize("name", PATHS)
def test_a_network_of_every_target_is_walked_to_the_data_by_every_sampler(name, share):
    """Every row of SAMPLERS × every row of TARGETS, through a Denoiser whose network is exact for N(0.7, 0.25).

    The end's mean and std after 10 steps, without sampling: the oracle's to rounding (to 0.01 where α(1) = 0 leaves a
    noise or score to be asked at σ/α = 200 instead), and the data's to what a method of its order leaves.
    """
    path, law = PATHS[name], oracle(PATHS[name])
    asked = cells(WALKS, TARGETS, share, list(PATHS).index(name))
    for spec in WALKS:
        steps = 2 if spec == "dopri5" else 10  # whose steps are its own affair
        sampler, times = bind(SAMPLERS, loose(spec), "sampler"), grid_times("flow_power:exponent=1.3", steps, path)
        known, rest = exact_moments(sampler, law, times), 0.15 if facts(spec).order == 1 else 0.03
        for target in (target for row, target in asked if row == spec):
            found, cell = exact_moments(sampler, exact(path, target), times, law), (spec, name, target)
            assert found == pytest.approx((MEAN, STD), abs=rest), cell
            moved = target in ("noise", "score") and exact(path, target).t_max < 1
            assert found == pytest.approx(known, abs=0.01 if moved else 1e-6), cell


def test_between_two_sample_sets_every_sampler_walks_or_refuses_in_one_sentence():
    """Only the velocity has a meaning there: what needs x̂₀ or ε̂ refuses on every path, the rest walks as ever."""
    x = float64(-1.3, 0.2, 0.9)[:, None]
    for name, path in PATHS.items():
        network, times = GaussianNetwork(path, "velocity"), grid_times("flow_power", 5, path)
        between = Denoiser(network, path, gaussian_end=False)
        for spec in WALKS:
            if spec in (*IN_TIME, "ddim", "dopri5", "bespoke"):
                ends = [last(walk(spec, each, x, times)) for each in (between, Denoiser(network, path))]
                assert float((ends[0] - ends[1]).abs().max()) <= 1e-3 * (spec == "dopri5"), (spec, name)
                network.calls = 0
                continue
            with pytest.raises(InputError, match=r"^\S+ needs a path from Gaussian noise: [^.]+\.$"):
                last(walk(spec, between, x, times, draws=Draws.first(3, 0)))
            assert (spec, name, network.calls) == (spec, name, 0)
            if spec in STOCHASTIC:
                with pytest.raises(InputError, match=r"^\S+ is stochastic and needs draws=Draws\.first\(n, seed\)\.$"):
                    last(walk(spec, exact(path), x, times))
        for target in TARGETS:
            if target != "velocity":
                with pytest.raises(InputError, match=r"^Between two sample sets only the velocity [^.]+\.$"):
                    Denoiser(network, path, target, gaussian_end=False)


class Addressed(Draws):
    """Keeps the address of every draw."""

    asked: tuple = ()

    def __call__(self, step, x):
        object.__setattr__(self, "asked", (*self.asked, step))
        return super().__call__(step, x)


@every
def test_every_draw_has_an_address_of_its_own(spec):
    """None twice, and none that the start has (-1); without noise none at all."""
    draws, path = Addressed(0, torch.arange(2)), Linear()
    x = Draws.first(2, 0)(-1, torch.empty(2, 2, dtype=torch.float64))
    last(walk(spec, smooth(path), x, torch.linspace(1, 0, 11).double(), draws=draws))
    assert len(set(draws.asked)) == len(draws.asked)
    assert bool(draws.asked) == (spec in STOCHASTIC)
    assert all(step >= 0 for step in draws.asked)


class Watched:
    """Remembers where it was asked."""

    gaussian_end = True

    def __init__(self, denoiser):
        self.denoiser, self.path, self.seen = denoiser, denoiser.path, []

    def __call__(self, x, t, /, **cond):
        c = self.path.at(t, x)
        self.seen.append((float(c.t), tuple(x.flatten().tolist())))
        return self.denoiser(x, t)


@pytest.mark.parametrize("path", [Linear(), VP()], ids=["linear", "vp"])
@every
def test_the_network_is_asked_as_often_as_promised_and_never_twice_the_same(spec, path):
    """With one evaluation a step they are at the grid's own times, each once, and never at t = 0."""
    watched, times = Watched(smooth(path)), torch.linspace(1, 0, 11).double()
    start = path.prior(Draws.first(1, 3)(-1, torch.empty(1, 2, dtype=torch.float64)))
    with torch.no_grad():
        last(walk(spec, watched, start, times, draws=Draws.first(1, 3)))
    assert len(set(watched.seen)) == len(watched.seen)
    asked = [t for t, _ in watched.seen]
    assert min(asked) > 0
    assert max(asked) == 1
    if spec == "dopri5":
        assert (len(asked) - 2) % 6 == 0  # one to begin, one for the first step's length, six a step
        return
    expected = EVALUATIONS[spec][isinstance(path, VP)]
    assert len(asked) == expected
    assert evaluations(SAMPLERS[spec], path, times) == expected
    if expected == 10:
        assert asked == times[:-1].tolist()
    else:
        assert set(times[:-1].tolist()) <= set(asked)


@pytest.mark.unchecked
@share
@every
def test_a_network_that_is_exact_is_as_good_as_the_oracle_whatever_the_table_ends_with(spec, share):
    """A noise and a score of exact networks, which say x₀ where α is tiny as well as anywhere: the oracle's walk."""
    for name, grid in cells(TABLES, ("uniform", "log_snr", "trailing"), share, WALKS.index(spec)):
        path, ends = TABLES[name], {}
        for target in ("oracle", "noise", "score"):
            denoiser = oracle(path) if target == "oracle" else exact(path, target)
            draws = Draws.first(4, 5)
            start = path.prior(draws(-1, torch.empty(4, 1, dtype=torch.float64)))
            walk = {"sampler": loose(spec), "grid": grid, "steps": 10}
            ends[target] = sample(denoiser, (1,), draws=draws, start=start, **walk)
        for target in ("noise", "score"):
            torch.testing.assert_close(
                ends[target],
                ends["oracle"],
                rtol=1e-5,
                atol=1e-5,
                msg=lambda m, w=(name, grid, target): f"{w}: {m}",
            )


class Erring(nn.Module):
    """A network that is off by a hundredth, this way and that."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t):
        return self.network(x, t) + 0.01 * (50 * x).sin()


@pytest.mark.unchecked
@share
@every
def test_the_error_of_a_network_is_not_magnified_where_a_table_ends(spec, share):
    """A noise off by 0.01 is x₀ off by 2 at σ/α = 200, of which 1/10 is in x_s: below 0.5, not 1e3, at the end."""
    for name, grid in cells(TABLES, ("uniform", "log_snr", "quadratic"), share, WALKS.index(spec)):
        walk = {"sampler": loose(spec), "steps": 16, "grid": grid}
        network = exact(TABLES[name], "noise").network
        ends = [
            sample(Denoiser(own, TABLES[name], "noise", alpha_min=1 / 200), (1,), draws=Draws.first(64, 5), **walk)
            for own in (network, Erring(network))
        ]
        assert float((ends[0] - ends[1]).abs().max()) < 0.5, (name, grid)


@pytest.mark.unchecked
@share
@every
def test_a_sample_at_its_own_time_is_the_same_in_any_batch(spec, share):
    """Every path, table and target: of four at once the first or the last, the least or the largest, is as alone."""
    paths = PATHS | TABLES
    for count, (name, target) in enumerate(cells(paths, TARGETS, share, WALKS.index(spec))):
        path, i = paths[name], 3 * (count % 2)
        denoiser = exact(path, target)
        walk = {"sampler": loose(spec), "steps": 2 if spec == "dopri5" else 5, "grid": "quadratic"}
        draws, start = Draws.first(4, 5), path.prior(float64(-1.3, 0.2, 0.9, 2.1)[:, None])
        together = sample(denoiser, (1,), draws=draws, start=start, **walk)
        alone = sample(denoiser, (1,), draws=Draws.first(1, 5, i), start=start[i : i + 1], **walk)
        torch.testing.assert_close(
            together[[i]], alone, rtol=1e-9, atol=1e-9, msg=lambda m, w=(name, target): f"{w}: {m}"
        )


@every
def test_the_steps_within_a_budget_are_the_most(spec):
    """On VP's own times: never more evaluations than allowed, and one step more would be too many."""
    if spec in ("dopri5", "restart"):
        return
    sampler, path = SAMPLERS[spec], VP()
    for budget in (1, 7):
        steps = steps_within(sampler, path, budget)
        count = lambda n: evaluations(sampler, path, grid_times("uniform", n, path))
        assert steps == 0 or count(steps) <= budget
        assert count(steps + 1) > budget
