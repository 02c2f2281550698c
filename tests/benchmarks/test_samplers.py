"""The benchmark of samplers runs: our part always, a peer's where it is installed."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from benchmarks.samplers import Errors
from tqdm import tqdm

from benchmarks import flows, samplers, solvers
from ebbtide.errors import InputError
from ebbtide.exact.oracle import mixture
from ebbtide.kinds.runs import begin as prepare
from ebbtide.recipes import ddpm, flow

TINY = samplers.Plan(
    ("four corners",), ("grid of 25",), (), (), (4, 5), starts=6, tuned=("four corners",), tuning=8, reference=40,
    seeds=2, repeats=1,
)  # fmt: skip
DDIM = ("ddim", "uniform")


@pytest.mark.parametrize("problem", flows.PROBLEMS)
@pytest.mark.parametrize("path", flows.PATHS)
def test_the_short_denoiser_is_the_oracle(problem: str, path: str) -> None:
    model = flows.exact(problem, path)
    x, oracle = samplers.starts(model.dim, 5, seed=3), mixture(model.path, *model.modes)
    for t in (0.0, 0.2, 0.7, 1.0, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])):
        torch.testing.assert_close(model(x, t).x0, oracle(x, t).x0)
        torch.testing.assert_close(model(x, t).noise, oracle(x, t).noise)
    assert (model.calls, model.asked) == (10, 50)
    assert model(x.float(), 0.5).x0.dtype == torch.float32


@pytest.mark.parametrize("problem", [*flows.FRESH, "three Gaussians", "ring of 12", "24 modes in 48-D", "spiral"])
def test_a_problem_has_mean_zero_and_unit_variance(problem: str) -> None:
    means, stds, weights = flows.PROBLEMS[problem]()
    torch.testing.assert_close(weights @ means, torch.zeros(means.shape[1], dtype=torch.float64))
    variance = (weights @ means.square()).mean() + weights @ stds.square()
    assert float(variance) == pytest.approx(1)
    assert float(weights.sum()) == pytest.approx(1)


def test_no_problem_is_called_fresh_that_was_developed_on() -> None:
    assert not set(flows.FRESH) & set(flows.DEVELOPED)
    fresh = [
        name for name, recipe in flows.NETWORKS.items() if recipe.options["data"] in ("three_gaussians", "two_moons")
    ]
    assert fresh == []


@pytest.mark.parametrize("recipe", [flow(), ddpm()])
def test_a_network_answers_alike_in_every_convention(recipe) -> None:
    """On its own path as its Denoiser, and as x = x₀ + σ ε or on another path where σ/α is the same."""
    trained, _ = prepare(dataclasses.replace(recipe, data="pinwheel", points=50))
    trained.denoiser.double()
    own = trained.denoiser.path
    name = "pinwheel, flow"
    x, c = samplers.starts(2, 5, seed=0), own.along([0.4])[0]
    want = trained.denoiser.eval()(x, c)
    learned = flows.Learned(name, trained, own)
    exploding = learned.at(x / c.alpha, 1.0, c.sigma / c.alpha)
    size = c.alpha + c.sigma
    linear = learned.linear()(x / size, c.sigma / size)
    for found in (learned(x, c), exploding, linear):
        torch.testing.assert_close(found.x0, want.x0, atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(found.noise, want.noise, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize(
    ("sampler", "evaluations", "steps"),
    [("ddim", 5, 5), ("midpoint", 5, 2), ("heun", 5, 3), ("rk4", 19, 5), ("rk4", 22, 5), ("rk4", 23, 6)],
)
def test_the_steps_are_what_the_evaluations_pay_for(sampler: str, evaluations: int, steps: int) -> None:
    model = flows.exact("four corners", "linear")
    row = solvers.ours(sampler, "uniform")
    assert samplers.steps_within(row, evaluations) == steps
    row.run(model, samplers.starts(2, 2, seed=0), steps)
    assert model.calls <= evaluations


def test_the_error_is_that_of_the_solver_alone() -> None:
    """Against a reference that is the same method on the same grid it is zero; DDIM of one step is far off."""
    model, noise = flows.exact("four corners", "linear"), samplers.starts(2, 8, seed=0)
    references = samplers.References(model, 100)
    fine = samplers.errors(solvers.ours("rk4:clock=flow", "power:exponent=1.5"), model, noise, references, 399)
    coarse = samplers.errors(solvers.ours(*DDIM), model, noise, references, 1)
    assert fine is not None
    assert coarse is not None
    assert fine.rms < 1e-12
    assert coarse.rms > 0.3
    assert samplers.errors(solvers.ours("rk4", "uniform"), model, noise, references, 2) is None
    assert len(references.known) == 1


def test_an_end_that_is_not_finite_is_infinitely_far() -> None:
    end = torch.tensor([[math.nan, 0.0]])
    assert Errors.of(end, torch.zeros(1, 2)) == Errors(math.inf, math.inf)


def test_nothing_is_chosen_on_the_noise_that_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a fit of any seed nor tune sees a start of it; and both are one choice for both measures."""
    seen, judged = [], samplers.starts(2, TINY.starts, seed=1)

    def fit(model, start, counts, **how):
        seen.append(start)
        return ()

    def tune(model, start, count, **how):
        seen.append(start)
        assert "aim" not in how
        return samplers.Tuned(count, *DDIM, count, 0.0, 0.0, 0.0, 0.0)

    monkeypatch.setattr(samplers, "fit_solver", fit)
    monkeypatch.setattr(samplers, "tune", tune)
    for seed in range(3):
        samplers.fitted(flows.exact("four corners", "linear"), TINY, seed, torch.float64)
    choices = samplers.tuned(TINY, tqdm(disable=True))
    assert choices == {"four corners, linear": {4: DDIM, 5: DDIM}}
    assert len(seen) == 5
    for start in seen:
        assert not torch.isin(start[:, 0], judged[:, 0]).any()


def test_rows_are_chosen_for_all_flows_at_once_or_for_each_cell_after_the_fact() -> None:
    one, two = (samplers.Panel(name, "linear", "fresh") for name in "ab")
    one.rows = {"azula a": {5: Errors(0.3, 0.1)}, "azula b": {5: Errors(0.2, 0.2)}, "diffusers c": {5: Errors(1, 1)}}
    two.rows = {"azula a": {5: Errors(0.2, 0.1)}, "azula b": {5: Errors(0.1, 0.3)}, "ebbtide d": {5: Errors(0, 0)}}
    assert one.after(samplers.PEERS, 5, "rms") == (0.2, "azula b")
    assert one.after(samplers.PEERS, 5, "median") == (0.1, "azula a")
    assert two.after(["diffusers"], 5, "rms") == (math.inf, "none")
    assert samplers.best_rows([one, two], "linear", ["azula"], 5) == ["azula a", "azula b"]
    assert samplers.best_rows([one, two], "linear", ["diffusers"], 5) == []  # it didn't walk on both
    assert samplers.best_rows([one, two], "VP", ["azula"], 5) == []
    listed = samplers.shortlist([one, two], "linear", 5, ["azula"])
    assert {"azula a", "azula b", "azula DDIM, Rectified, σ ≥ 0.001"} < listed
    assert "ebbtide heun on quadratic" in listed


def test_a_bar_is_missed_by_what_falls_short_of_it() -> None:
    cell = {"large": False, "count": 10, "fit": [0.1, 0.1], "any peer": {"best": [(0.149, "a"), (0.26, "b")]}}
    assert samplers.short(cell, 0)
    assert not samplers.short(cell, 1)
    assert not samplers.short(cell | {"large": True}, 0)
    assert not samplers.short(cell | {"count": 5}, 0)


def test_ours_alone_is_measured_reported_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [solvers.ours("heun", "quadratic"), solvers.ours(*DDIM)]
    monkeypatch.setattr(samplers, "unfitted", lambda: rows)
    monkeypatch.setattr(samplers, "JOINT", 1)
    monkeypatch.setattr(samplers.plans, "PLANS", [samplers.plans.FitPlan(64, 0, 64, 24, 2)])
    results = samplers.measure(TINY, tmp_path, {"four corners, linear": dict.fromkeys((4, 5), DDIM)})
    text = samplers.report(results, "command")
    assert [(cell["problem"], cell["path"], cell["kind"]) for cell in results.cells[::2]] == [
        ("four corners", "linear", "developed"),
        ("grid of 25", "VP", "fresh"),
        ("grid of 25", "linear", "fresh"),
        ("grid of 25", "linear", "float32"),
    ]
    corners = results.cells[1]
    assert corners["count"] == 5
    assert corners["fit"][0] == pytest.approx(math.sqrt(corners["seeds"][0][0] * corners["seeds"][1][0]))
    assert corners["fit"][0] < corners["table"][0][0] / 2
    assert corners["fit"][0] < corners["tune"][0][0] / 2  # which is DDIM here
    assert "## grid of 25, linear, float32" in text
    assert "nan" not in text
    (tmp_path / "RESULTS.md").write_text("# Points\n")
    samplers.write(results, text, tmp_path, tmp_path / "samplers.png")
    assert (tmp_path / "samplers.png").stat().st_size > 1000
    assert samplers.stored_choices(tmp_path / "samplers.json") == results.choices
    assert samplers.report(samplers.stored_results(tmp_path / "samplers.json"), "command") == text
    again = samplers.refitted(results, tmp_path)
    assert again.cells == [
        dict(cell, seconds=new["seconds"]) for cell, new in zip(results.cells, again.cells, strict=True)
    ]
    first = (tmp_path / "RESULTS.md").read_text()
    assert first.startswith("# Points\n\n<!-- samplers -->")
    samplers.write(results, text, tmp_path, tmp_path / "samplers.png")
    assert (tmp_path / "RESULTS.md").read_text() == first


def test_the_pages_have_every_ratio_that_was_measured() -> None:
    """RESULTS.md of all flows and docs/results.md of those that are judged, also where ours falls short."""
    results = samplers.stored_results(samplers.HERE / "samplers.json")
    assert {cell["kind"] for cell in results.cells} == set(samplers.KINDS)
    root = samplers.HERE.parent
    page, judged = (root / "benchmarks/RESULTS.md").read_text(), (root / "docs/results.md").read_text()
    assert "\n".join(samplers.summary(results)) in page
    assert "\n".join(samplers.summary(results, samplers.JUDGED)) in judged
    missed = [samplers.short(cell, i) for cell in results.cells if cell["kind"] in samplers.JUDGED for i in range(2)]
    assert judged.count("†") == sum(missed) + 1  # and what it means
    assert len(missed) == 2 * 3 * (2 * len(flows.FRESH) + len(flows.NETWORKS))


@pytest.mark.parametrize("library", solvers.LIBRARIES)
@pytest.mark.parametrize("path", solvers.PATHS)
def test_a_peer_comes_nearer_with_more_evaluations(library: str, path: str) -> None:
    if samplers.missing([library]):
        pytest.skip(f"{library} is not installed; `make bench-samplers` installs what we compare with")
    model, noise = flows.exact("four corners", path), samplers.starts(2, 8, seed=0)
    references = samplers.References(model, 60)
    rows = {row.name: row for row in solvers.LIBRARIES[library]() if path in row.paths}
    for name in (next(iter(rows)), solvers.DEFAULTS[library][path]):
        few, many = (samplers.errors(rows[name], model, noise, references, count) for count in (6, 40))
        assert few is not None
        assert many is not None
        assert many.median < few.median / 2


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "missing", lambda libraries: ["azula"])
    with pytest.raises(InputError, match="azula"):
        samplers.main(["--quick"])


@pytest.mark.slow
def test_all_libraries_are_measured_end_to_end(tmp_path: Path) -> None:
    """The smallest run with every library: a minute or two."""
    if absent := samplers.missing(samplers.PEERS):
        pytest.skip(f"not installed: {', '.join(absent)}; `make bench-samplers` installs what we compare with")
    samplers.main(["--quick", "--out", str(tmp_path)])
    page, found = ((tmp_path / name).read_text() for name in ("RESULTS.md", "samplers.json"))
    assert all(f'"{name}"' in found for name in (samplers.OURS, *samplers.PEERS))
    assert page.startswith("<!-- samplers -->")
    assert "nan" not in page
