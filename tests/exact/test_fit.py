"""A run's own solver: exact where theory says so, the same on every path, honest about whose it is, and whole."""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import ebbtide
from ebbtide import cache
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import ClassifierFree
from ebbtide.core.paths import Linear
from ebbtide.core.times import from_flow, grid_times
from ebbtide.errors import InputError
from ebbtide.exact import fit as solver
from ebbtide.exact.fit import fit_solver
from ebbtide.exact.oracle import gaussian, mixture
from ebbtide.exact.plans import COUNTS, FitPlan
from ebbtide.exact.tune import reference
from ebbtide.exact.tuned import read_tuned, write_tuned
from ebbtide.kinds.runs import from_pretrained, train_recipe as train
from ebbtide.recipes import ddpm, flow
from ebbtide.samplers import walk
from ebbtide.samplers.bespoke import parse_weights
from ebbtide.training import solver as own_solver
from ebbtide.training.solver import for_run, kept_solver
from problems import PATHS, last, noise_like

pytestmark = pytest.mark.unchecked

FINE = FitPlan(64, 0, 64, 400, 4)  # a reference that is exact to 1e-10
MODES = mixture(Linear(), noise_like(5, 2, seed=3), 0.2)
SHORT = FitPlan(64, 0, 64, 24, 3)


def walked(tuned, denoiser, start):
    times = grid_times(tuned.grid, tuned.steps, denoiser.path)
    with torch.no_grad():
        return last(walk(tuned.sampler, denoiser, start, times))


def rows_of(tuned):
    return parse_weights(tuned.sampler.partition("weights=")[2], tuned.steps)


def nodes_of(tuned, path):
    c = path.scales(grid_times(tuned.grid, tuned.steps, path))
    return c.sigma / (c.alpha + c.sigma)


@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_a_gaussian_with_r_variances_takes_r_plus_1_evaluations(kinds):
    """Krylov: N(m, C) with r different variances is hit to 1e-8 from N = r + 1 on, and missed by 1e-3 before."""
    basis = torch.linalg.qr(noise_like(6, 6, seed=kinds))[0]
    variances = torch.tensor([[0.3, 1.5, 0.05][i % kinds] for i in range(6)], dtype=torch.float64)
    oracle = gaussian(Linear(), noise_like(6, seed=9), basis @ torch.diag(variances) @ basis.T)
    fresh = noise_like(100, 6, seed=5)
    truth = oracle.flow(fresh, 1.0, 0.0)
    for tuned in fit_solver(oracle, noise_like(64, 6), range(1, kinds + 4), plan=FINE):
        error = float((walked(tuned, oracle, fresh) - truth).abs().max())
        assert (error < 1e-8) == (tuned.evaluations > kinds), (tuned.evaluations, error)
        assert error < 1e-8 or error > 1e-3


def test_rows_sum_to_1_and_nodes_fall():
    """So that where x̂₀ is known, every step is exact."""
    for tuned in fit_solver(MODES, noise_like(64, 2), (1, 3, 8), plan=SHORT):
        assert tuned.steps == tuned.evaluations
        assert bool((grid_times(tuned.grid, tuned.steps, Linear()).diff() < 0).all())
        if tuned.steps > 1:
            assert all(sum(row) == pytest.approx(1, abs=1e-12) for row in rows_of(tuned))
    point = mixture(Linear(), torch.tensor([[0.3, -2.0]], dtype=torch.float64))
    torch.testing.assert_close(walked(tuned, point, noise_like(4, 2)), point.means.expand(4, 2), rtol=0, atol=1e-9)


class Exact(torch.nn.Module):
    """The network that predicts MODES' x0 exactly, on a path."""

    def __init__(self, path):
        super().__init__()
        self.oracle = replace(MODES, path=path)

    def forward(self, x, t):
        return self.oracle(x, t).x0


class Clipped(Linear):
    """The linear path from τ = share on."""

    share = 1.0

    def scales(self, t):
        c = Linear().scales(t * self.share)
        return c._replace(t=t, alpha_dot=c.alpha_dot * self.share, sigma_dot=c.sigma_dot * self.share)

    def time_of(self, ratio):
        return Linear().time_of(ratio) / self.share


@pytest.mark.parametrize("name", PATHS)
def test_an_exact_network_has_one_solver_through_every_path(name, monkeypatch):
    """Same nodes in σ/(α + σ), same rows: as on the linear path from the same first node."""
    path = PATHS[name]
    end = path.along([1.0])[0]
    monkeypatch.setattr(Clipped, "share", end.sigma / (end.alpha + end.sigma))
    start, found = noise_like(64, 2, seed=2) * Clipped.share, []
    for way, x in ((path, start * (end.alpha + end.sigma)), (Clipped(), start)):
        denoiser = Denoiser(Exact(way), way, "x0")
        (one,) = fit_solver(denoiser, x, (4,), plan=SHORT, joint=5)
        found.append((nodes_of(one, way), np.concatenate(rows_of(one))))
        truth, _ = reference(denoiser, x, 100, {})
        off = (walked(one, denoiser, x) - truth).norm(dim=1)[1::2]  # of the starts that chose
        assert float(off.square().mean().sqrt()) == pytest.approx(one.rms, rel=0.02)
    (nodes, rows), (others, same) = found
    torch.testing.assert_close(nodes, others, rtol=0, atol=1e-7)
    np.testing.assert_allclose(rows, same, rtol=0, atol=1e-5)


def test_it_beats_every_usual_solver_and_generalises():
    """On starts that it never saw, against ten times as many Heun steps' own kind; also the table of mixtures."""
    start, fresh = noise_like(1024, 2), noise_like(500, 2, seed=7)
    truth, _ = reference(MODES, fresh, 200, {})
    for tuned in fit_solver(MODES, start):
        found = (walked(tuned, MODES, fresh) - truth).norm(dim=1)
        n = tuned.evaluations
        for sampler, grid, steps in (("unipc", "flow_power", n), ("heun", "quadratic", n // 2), ("ddim", "uniform", n)):
            times = grid_times(grid, steps, Linear())
            usual = (last(walk(sampler, MODES, fresh, times)) - truth).norm(dim=1)
            assert found.median() < usual.median() / 4, (n, sampler)
        assert float(found.median()) < 10 * tuned.median
        assert tuned.rms < tuned.usual  # the table of mixtures


def test_reweighing_serves_the_typical_start():
    """Of the same nodes, fitted plainly and reweighed: the median falls."""
    flow = solver._Flow(MODES, noise_like(128, 2), {})
    fine, _ = flow.reference(38)
    for count in (5, 10):
        (group,) = flow.groups(count, [(1.3, 0.8)])
        plain, reweighed = (flow.errors(end, fine)[1] for _, end in flow.tables(fine, *group))
        assert reweighed < 0.9 * plain


def test_gradients_help_where_evaluations_are_few():
    plain, polished = (fit_solver(MODES, noise_like(64, 2), (4,), plan=SHORT, joint=joint)[0] for joint in (0, 40))
    assert polished.rms < 0.95 * plain.rms


def test_the_starts_that_choose_were_not_fitted(monkeypatch):
    """Every other start alone makes the rows: the rest can be anything."""
    start = noise_like(64, 2)
    flow, other = (solver._Flow(MODES, x, {}) for x in (start, start + torch.tensor([[0.0], [1.0]] * 32)))
    made = []
    for one in (flow, other):
        fine, _ = one.reference(24)
        (group,) = one.groups(4, [(1.3, 0.8)])
        made.append([table.rows for table, _ in one.tables(fine, *group)])
    for a, b in zip(*made, strict=True):
        np.testing.assert_allclose(np.concatenate(a), np.concatenate(b), rtol=1e-9)
    fine, _ = flow.reference(24)
    end = fine.y[-1].clone()
    end[0::2] += 100  # wrong on all that were fitted
    assert flow.judge(end, fine) < -100


def test_near_borders_are_the_starts_that_two_walks_part_on():
    oracle = mixture(Linear(), torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.05)
    start = noise_like(512, 1)
    few = solver._Flow(oracle, start, {"row": torch.arange(512)}).near_borders(FitPlan(512, 16, 48, 8, 1))
    assert len(few.start) == 64
    assert float(few.start[48:].abs().max()) < float(start.abs().median()) / 2
    assert float(few.weight.sum()) == pytest.approx(512)
    assert few.weight[-1] == 1
    assert torch.equal(start[few.cond["row"]], few.start)


def test_a_solver_between_two_sets():
    """x̂₀ is a coordinate of the velocity there, and serves as well: straight lines take one step."""

    class Straight(torch.nn.Module):
        def forward(self, x, t):
            return torch.ones_like(x) * torch.tensor([2.0, -1.0], dtype=x.dtype)  # x₁ - x₀

    denoiser = Denoiser(Straight(), Linear(), "velocity", gaussian_end=False).double()
    start = noise_like(64, 2)
    for tuned in fit_solver(denoiser, start, (2, 4), plan=SHORT):
        expected = start - torch.tensor([2.0, -1.0])
        torch.testing.assert_close(walked(tuned, denoiser, start), expected, rtol=0, atol=1e-7)


# --- of runs

LITTLE = {"network": "mlp:width=16,depth=2", "steps": 60, "batch": 256, "points": 2000}
RECIPE = replace(flow(), data="two_moons", **(LITTLE | {"steps": 600}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run just long enough to be fitted solvers."""
    folder = tmp_path_factory.mktemp("solver") / "run"
    train(RECIPE, folder, snapshots=0, checkpoints=1, progress=False)
    return folder


def test_training_ends_with_solvers_that_are_then_used(run):
    trained = from_pretrained(run)
    assert [one.evaluations for one in trained.tuned] == list(COUNTS)
    assert {one.weights for one in trained.tuned} == {trained.fingerprint()}
    one = trained.tuned[-1]
    assert trained.choice() == (one.sampler, one.grid, 20)
    by_hand = trained.sample(9, seed=3, sampler=one.sampler, grid=one.grid, steps=20)
    assert torch.equal(trained.sample(9, seed=3), by_hand)
    assert torch.equal(trained.sample(9, seed=3, steps="auto"), by_hand)
    # sample i depends on (seed, i) alone
    torch.testing.assert_close(trained.sample(4, seed=3, first=5), by_hand[5:], rtol=0, atol=1e-5)
    # whoever asks for a sampler, a grid or steps of his own gets the recipe's rest
    assert trained.choice("ddim") == ("ddim", trained.recipe.grid, trained.recipe.sample_steps)
    assert trained.choice(steps=7) == (trained.recipe.sampler, trained.recipe.grid, 7)
    assert trained.choice(steps="auto:5")[2] == 5


def test_ancestral_runs_and_policies_keep_the_recipe_s(run):
    trained = from_pretrained(run)
    for changed in ({"sampler": "ddpm:variance=beta"}, {"sampler": "ddim:eta=1"}):
        other = replace(trained, recipe=replace(trained.recipe, **changed))
        assert other.choice()[0] == changed["sampler"]
        assert other.choice(steps="auto:10")[0].startswith("bespoke:weights=")
    assert trained.choice(bound=trained.recipe.bound, guidance=1.0) == trained.choice()
    # Clipped or guided, it is another denoiser, with another solver.
    assert trained.choice(bound=1.0)[0] == trained.recipe.sampler
    assert trained.choice(steps="auto:5", bound=1.0)[0] != trained.choice(steps="auto:5")[0]


def test_no_fit_and_too_short_a_run_have_none(tmp_path):
    for name, options in (("short", {}), ("off", {"solvers": False})):
        recipe = replace(flow(), data="two_moons", **LITTLE)
        train(recipe, tmp_path / name, snapshots=0, checkpoints=1, progress=False, **options)
        assert not (tmp_path / name / "tuned.json").exists()
        trained = from_pretrained(tmp_path / name)
        assert trained.choice() == (recipe.sampler, recipe.grid, recipe.sample_steps)


def test_the_first_use_fits_and_keeps(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    trained = replace(from_pretrained(run), tuned=())
    first = trained.choice(steps="auto:6")
    assert len(list(tmp_path.glob("solver-*"))) == 1

    def never(*_, **__):
        raise AssertionError("it was fitted again")

    with monkeypatch.context() as patched:
        patched.setattr(own_solver, "fit_solver", never)
        assert trained.choice(steps="auto:6") == first
        with pytest.raises(AssertionError):
            trained.choice(steps="auto:7")
    # Other weights, or another path for the same ones, are another denoiser.
    changed = replace(trained, recipe=replace(trained.recipe, path="cosine"))
    assert changed.fingerprint() != trained.fingerprint()
    with torch.no_grad():
        bias = list(trained.denoiser.parameters())[-1]
        kept_bias = bias.clone()
        bias += 1
        other = trained.fingerprint()
        bias.copy_(kept_bias)
    assert other != trained.fingerprint()
    # A file of the cache that holds another's is as good as none.
    (file,) = tmp_path.glob("solver-*")
    name = file.name.removesuffix(".safetensors")
    cache.store(name, {}, tuned=write_tuned([replace(kept_solver(trained, 6), weights="0" * 64, steps=3)]).decode())
    assert trained.choice(steps="auto:6") == first


def test_solvers_of_other_weights_are_refused(run, tmp_path):
    trained = from_pretrained(run)
    exported = trained.save_pretrained(tmp_path / "export")
    assert from_pretrained(exported).choice() == trained.choice()
    rows = json.loads((run / "tuned.json").read_bytes())
    foreign = write_tuned(read_tuned(json.dumps([{**row, "weights": "f" * 64} for row in rows]).encode(), "x"))
    with pytest.warns(
        UserWarning, match=r"its solvers for 5, 10, 20 evaluations are of other weights, so they are not"
    ):
        other = trained.with_tuned(foreign, "x/tuned.json")
    assert other.tuned == ()
    assert other.choice()[0] == trained.recipe.sampler


def test_killed_while_it_fits_the_run_is_whole_and_fits_next_time(run, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    folder = shutil.copytree(run, tmp_path / "run", symlinks=True)
    (folder / "tuned.json").unlink()
    again = {"resume": True, "snapshots": 0, "checkpoints": 1, "progress": False}
    with monkeypatch.context() as patched:
        patched.setattr(own_solver, "fit_solver", killed)
        with pytest.raises(KeyboardInterrupt, match="while a solver was fitted, after the last step; the run is whole"):
            train(RECIPE, folder, **again)
    trained = from_pretrained(folder)
    assert trained.step == RECIPE.steps
    assert trained.tuned == ()
    assert trained.choice(steps="auto:5")[2] == 5
    assert [one.evaluations for one in train(RECIPE, folder, **again).tuned] == list(COUNTS)


def test_a_new_run_in_the_folder_leaves_no_solver_of_the_old(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run", symlinks=True)
    train(replace(flow(), data="two_moons", **LITTLE), folder, overwrite=True, snapshots=0, progress=False)
    assert not (folder / "tuned.json").exists()


def test_labels_guidance_and_bounds_are_fitted_with(monkeypatch, tmp_path):
    """The denoiser that is fitted is the one that is sampled, with labels as frequent as in the data."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    recipe = replace(ddpm(), data="two_spirals", conditional=True, **LITTLE)
    trained = train(recipe, tmp_path / "run", snapshots=0, checkpoints=1, progress=False)
    seen = {}

    def spy(denoiser, start, counts, *, cond, **_):
        seen.update(denoiser=denoiser, label=cond["label"])
        return (
            fit_solver(denoiser, start, counts, plan=SHORT, cond={"label": cond["label"]}) if len(start) == 64 else ()
        )

    monkeypatch.setattr(own_solver, "fit_solver", spy)
    for_run(trained, (5,), guidance=2.0, interval=(0.1, 0.9), bound=3.0)
    assert seen["denoiser"].bound == 3
    guided = seen["denoiser"].denoiser
    assert isinstance(guided, ClassifierFree)
    assert (guided.weight, guided.interval) == (2, (0.1, 0.9))
    assert seen["label"].bincount().tolist() == [384, 384]
    for_run(trained, (5,))  # without guidance also for what is drawn without a label
    assert seen["label"].bincount().tolist() == [288, 288, 192]
    names = [f"{kept_solver.__name__}"]  # each way of asking has a place of its own in the cache
    monkeypatch.undo()
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    label = torch.zeros(4, dtype=torch.int64)
    for guidance in (1.0, 2.0):
        trained.sample(4, label=label, guidance=guidance, steps="auto:3")
        names.append(guidance)
    assert len(list(tmp_path.glob("solver-*"))) == 2


@pytest.mark.parametrize(("start", "counts"), [(noise_like(7, 2), (5,)), (noise_like(64, 2), (5, 0))])
def test_too_little_to_fit(start, counts):
    with pytest.raises(InputError, match=r"starts of a fit must be at least 8|evaluations must be at least 1"):
        fit_solver(MODES, start, counts, plan=SHORT)


@pytest.mark.parametrize("steps", ["auto:0", "auto:21", "auto:100"])
def test_more_evaluations_than_a_table_is_for(run, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"is fitted for 1 to 20 evaluations; got"):
            ebbtide.from_pretrained(run).sample(2, steps=steps)
    assert from_flow(torch.tensor([1.0, 0.5, 0.0]), Linear()).tolist() == [1, 0.5, 0]
