"""The benchmark of samplers runs: our part always, a peer's where it is installed."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from benchmarks import samplers, solvers
from ebbflow.errors import InputError
from ebbflow.oracle import mixture
from ebbflow.tune import tune

TINY = samplers.Plan(("four corners",), ("linear",), (), (4, 5), starts=6, tuning=6, reference=40, repeats=1)
DDIM = ("ddim", "uniform")


@pytest.mark.parametrize("problem", solvers.PROBLEMS)
@pytest.mark.parametrize("path", solvers.PATHS)
def test_the_short_denoiser_is_the_oracle(problem: str, path: str) -> None:
    model, x = solvers.exact(problem, path), samplers.starts(problem, 5, seed=3)
    oracle = mixture(model.path, model.means, model.std)
    for c in model.path.along([0.0, 0.2, 0.7, 1.0]):
        torch.testing.assert_close(model(x, c).x0, oracle(x, c).x0)
        torch.testing.assert_close(model(x, c).noise, oracle(x, c).noise)
    assert model.calls == 8


def test_three_gaussians_have_mean_zero_and_unit_variance() -> None:
    means, std = solvers.three_gaussians()
    torch.testing.assert_close(means.sum(0), torch.zeros(2, dtype=torch.float64))
    assert float(means.square().mean()) + std**2 == pytest.approx(1)


@pytest.mark.parametrize(
    ("sampler", "evaluations", "steps"),
    [("ddim", 5, 5), ("midpoint", 5, 2), ("heun", 5, 3), ("rk4", 19, 5), ("rk4", 22, 5), ("rk4", 23, 6)],
)
def test_the_steps_are_what_the_evaluations_pay_for(sampler: str, evaluations: int, steps: int) -> None:
    model = solvers.exact("four corners", "linear")
    row = solvers.ours(sampler, "uniform")
    assert samplers.steps_within(row, model, evaluations) == steps
    model.calls = 0
    row.run(model, samplers.starts("four corners", 2, seed=0), steps)
    assert model.calls <= evaluations


def test_the_error_is_that_of_the_solver_alone() -> None:
    """Against a reference that is the same method on the same grid it is zero; DDIM of one step is far off."""
    model, noise = solvers.exact("four corners", "linear"), samplers.starts("four corners", 8, seed=0)
    references = samplers.References("four corners", 100)
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
    assert samplers.Errors.of(end, torch.zeros(1, 2)) == samplers.Errors(math.inf, math.inf)


def test_a_choice_is_made_for_each_measure_and_beats_ddim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "tune", functools.partial(tune, solvers=("exponential:order=2,corrector=true",)))
    plan, kept = dataclasses.replace(TINY, counts=(4,), tuning=64), []
    choices = samplers.tuned(plan, tqdm(disable=True), lambda made: kept.append(str(made)))
    assert set(choices["four corners, linear"][4]) == {"rms", "median"}
    assert len(kept) == 1
    model, noise = solvers.exact("four corners", "linear"), samplers.starts("four corners", 64, seed=1)
    references = samplers.References("four corners", 60)
    plain = samplers.errors(solvers.ours(*DDIM), model, noise, references, 4)
    for measure, row in choices["four corners, linear"][4].items():
        found = samplers.errors(solvers.ours(*row), model, noise, references, 4)
        assert getattr(found, measure) < getattr(plain, measure) / 2


def test_times_of_a_path_are_spelled_as_those_of_the_linear_one() -> None:
    path = solvers.PATHS["VP"]
    times = solvers.grid_times("flow_power", 5, path)
    spelled = solvers.as_linear(times, path)
    again = solvers.moved(solvers.grid_times(spelled, 5, path), path)
    torch.testing.assert_close(again, times, rtol=0, atol=1e-8)


def test_ours_alone_is_measured_reported_and_drawn(tmp_path: Path) -> None:
    results = samplers.measure(
        TINY, {"four corners, linear": {count: {"rms": DDIM, "median": DDIM} for count in (4, 5)}}
    )
    text = samplers.report(results, "command")
    assert "ddim on uniform" in results.panels[0].best["ebbflow"][4]["rms"][1]
    assert "| 5 | rms | `ddim` | `uniform` |" in text
    assert "nan" not in text
    (tmp_path / "RESULTS.md").write_text("# Points\n")
    samplers.write(results, text, tmp_path, tmp_path / "samplers.png")
    assert (tmp_path / "samplers.png").stat().st_size > 1000
    assert samplers.stored_choices(tmp_path / "samplers.json") == results.choices
    json.dumps(dataclasses.asdict(results))
    first = (tmp_path / "RESULTS.md").read_text()
    assert first.startswith("# Points\n\n<!-- samplers -->")
    samplers.write(results, text, tmp_path, tmp_path / "samplers.png")
    assert (tmp_path / "RESULTS.md").read_text() == first


def test_the_best_peer_of_a_cell_is_the_least_error() -> None:
    panel = samplers.Panel("four corners", "linear")
    panel.add("ebbflow", 5, "mine", samplers.Errors(0.01, 0.01))
    panel.add("azula", 5, "azula a", samplers.Errors(0.3, 0.1))
    panel.add("azula", 5, "azula b", samplers.Errors(0.2, 0.2))
    panel.add("diffusers, tuned", 5, "diffusers c", samplers.Errors(0.1, 0.3))
    assert panel.peer(5, "rms") == (0.1, "diffusers c")
    assert panel.peer(5, "rms", tuned=False) == (0.2, "azula b")
    assert panel.peer(5, "median") == (0.1, "azula a")


@pytest.mark.parametrize("library", solvers.LIBRARIES)
@pytest.mark.parametrize("path", solvers.PATHS)
def test_a_peer_comes_nearer_with_more_evaluations(library: str, path: str) -> None:
    if samplers.missing([library]):
        pytest.skip(f"{library} is not installed; `make bench-samplers` installs what we compare with")
    model, noise = solvers.exact("four corners", path), samplers.starts("four corners", 8, seed=0)
    references = samplers.References("four corners", 60)
    row = next(solver for solver in solvers.LIBRARIES[library]() if path in solver.paths)
    few, many = (samplers.errors(row, model, noise, references, count) for count in (6, 40))
    assert few is not None
    assert many is not None
    assert many.median < few.median / 2


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "missing", lambda libraries: ["azula"])
    with pytest.raises(InputError, match="azula"):
        samplers.main(["--quick"])


@pytest.mark.slow
def test_all_libraries_are_measured_end_to_end(tmp_path: Path) -> None:
    """The smallest run with every library, our choices searched for: some minutes."""
    if absent := samplers.missing(samplers.PEERS):
        pytest.skip(f"not installed: {', '.join(absent)}; `make bench-samplers` installs what we compare with")
    samplers.main(["--quick", "--out", str(tmp_path)])
    page, found = ((tmp_path / name).read_text() for name in ("RESULTS.md", "samplers.json"))
    assert all(f'"{name}"' in found for name in (samplers.OURS, *samplers.PEERS))
    assert page.startswith("<!-- samplers -->")
    assert "nan" not in page
