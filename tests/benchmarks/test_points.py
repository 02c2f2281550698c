"""The benchmark on points runs: ebbtide's own rows always, a peer's where it is installed."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import points
from ebbtide.errors import InputError
from ebbtide.kinds.runs import begin as prepare

TINY = points.Plan(("ebbtide, flow",), rounds=2, block=2, seeds=(0, 1), ladder=(2, 3), samples=50, sets=2)


@pytest.mark.parametrize("name", points.CONTENDERS)
def test_a_contender_trains_under_both_schedules_and_can_be_sampled(name: str) -> None:
    if points.missing([name]):
        pytest.skip(f"{name} is not installed; `make bench` installs what we compare with")
    _, data = prepare(points.RECIPE)
    for mode in points.modes(name):
        run = points.CONTENDERS[name](data, 0, points.Schedule(3) if mode == "ours" else None)
        untrained = points.draw(TINY, run, 0)
        points.advance(run, 3)
        samples = points.draw(TINY, run, 0)
        assert samples.shape == (100, 2)
        assert samples.isfinite().all()
        assert not torch.equal(samples, untrained)


def test_every_contender_has_the_same_network() -> None:
    """1 + 3 layers: 18·128 + 128, twice 128·128 + 128, 128·2 + 2."""
    assert sum(p.numel() for p in points.Network().parameters()) == 35_714


def test_two_rows_are_measured_and_reported() -> None:
    plan = dataclasses.replace(TINY, contenders=("ebbtide, flow", "ebbtide, DDPM"))
    results = points.measure(plan)
    assert results.ratio["ebbtide, flow"] == 1
    assert all(ms > 0 for kinds in results.milliseconds.values() for ms in kinds.values())
    assert set(results.distances) == set(plan.contenders)
    assert list(results.distances["ebbtide, DDPM"]["ours"]) == [2, 3]
    json.dumps(dataclasses.asdict(results))
    text = points.report(results, "command")
    assert "ebbtide, DDPM" in text
    assert "nan" not in text


def test_the_shortest_training_that_is_good_enough_counts() -> None:
    curve = {250: (0.2, 0.2, 0.2), 500: (0.05, 0.06, 0.07), 1000: (0.05, 0.05, 0.05)}
    results = points.Results(TINY, (0, 0, 0), {"a": {"ours": 2.0}}, {"a": 1.0}, {"a": {"ours": curve}})
    assert results.steps_to("a", "ours", 0.06) == 500
    assert results.seconds_to("a", "ours", 0.055) == 2.0
    assert results.seconds_to("a", "ours", 0.04) is None


def test_a_row_is_trained_to_the_end_of_its_ladder_however_good_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the best of a row that is good early is one of short trainings, held against another's long ones."""
    monkeypatch.setattr(points, "THRESHOLDS", (math.inf,))
    start, data = prepare(points.RECIPE)
    plan = dataclasses.replace(TINY, seeds=(0,), ladder=(1, 2, 3), constant=(1, 2), samples=20, sampling_steps=2)
    for curve, lengths in ((points.schedule_curve, [1, 2, 3]), (points.constant_curve, [1, 2])):
        assert list(curve(plan, "ebbtide, flow", data, start.to_data)) == lengths


def test_a_sample_that_is_not_finite_is_infinitely_far_and_one_seed_no_median() -> None:
    samples = points.real_points(TINY, 1)
    samples[7] = math.nan
    assert points.distance(TINY, samples, 2) == math.inf
    assert points.spread([0.3, math.inf, 0.1]) == (0.1, 0.3, math.inf)


def test_the_area_is_the_mean_over_the_logarithm_of_the_steps() -> None:
    """0.4 falling to 0.2 over the first of three octaves, then 0.2: (0.3 + 0.2 + 0.2) / 3."""
    curve = {steps: (0.0, value, 1.0) for steps, value in {250: 0.4, 500: 0.2, 2000: 0.2, 9000: 9.0}.items()}
    results = points.Results(TINY, (0, 0, 0), {}, {}, {"a": {"ours": curve}})
    assert results.area("a", "ours", (250, 500, 2000)) == pytest.approx(0.7 / 3)
    assert results.best("a", "ours") == (0.0, 0.2, 1.0)


def test_rows_alone_have_a_section_and_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"rounds": 1, "block": 1, "ladder": (2, 3, 9), "constant": (2, 9), "samples": 20, "sets": 1}
    monkeypatch.setattr(points, "Plan", lambda rows, **more: dataclasses.replace(TINY, contenders=rows, **tiny | more))
    (tmp_path / "RESULTS.md").write_text("<!-- points -->\nothers\n<!-- /points -->\n")
    points.main(["--only", "ebbtide", "--seeds", "1", "--longest", "3", "--out", str(tmp_path)])
    page = (tmp_path / "RESULTS.md").read_text()
    assert "others" in page
    assert "# Points: ebbtide alone" in page
    assert "Each with its own defaults" not in page
    found = json.loads((tmp_path / "points-ebbtide.json").read_text())
    assert {tuple(modes["ours"]) for modes in found["distances"].values()} == {("2", "3")}
    for option, wrong, least in (("--longest", "1", 2), ("--seeds", "0", 1)):
        with pytest.raises(InputError, match=f"{option} must be at least {least}; got {wrong}"):
            points.main(["--only", "ebbtide", option, wrong, "--out", str(tmp_path)])


@pytest.mark.slow
def test_all_libraries_are_measured_end_to_end(tmp_path: Path) -> None:
    """The smallest run that has every row under both schedules: some minutes."""
    if absent := points.missing(tuple(points.CONTENDERS)):
        pytest.skip(f"not installed: {', '.join(absent)}; `make bench` installs what we compare with")
    points.main(["--quick", "--longest", "500", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "points.json").read_text())
    for name, measured in found["distances"].items():
        for mode in points.modes(name):
            assert all(0 < low <= mean <= high < 1 for low, mean, high in measured[mode].values()), name
            assert 0 < found["milliseconds"][name][mode] < 1000, name
    assert set(found["distances"]) == set(points.CONTENDERS)
    page = (tmp_path / "RESULTS.md").read_text()
    assert all(f"| {name} | " in page for name in points.CONTENDERS)


def test_the_summary_is_beside_the_fastest_peer() -> None:
    plan = dataclasses.replace(TINY, contenders=("ebbtide, flow", "azula", "torchcfm"))
    good, bad = (0.05, 0.05, 0.05), (0.2, 0.2, 0.2)
    results = points.Results(
        plan,
        floor=(0, 0, 0),
        milliseconds={
            "ebbtide, flow": {"ours": 2.0},
            "azula": {"own": 3.0, "ours": 3.0},
            "torchcfm": {"own": 1.0, "ours": 1.0},
        },
        ratio={"ebbtide, flow": 1.0, "azula": 1.5, "torchcfm": 0.5},
        distances={
            "ebbtide, flow": {"ours": {100: good}},
            "azula": {"own": {1000: bad}, "ours": {200: good}},
            "torchcfm": {"own": {1000: bad}, "ours": {1000: good}},
        },
    )
    text = points.summary(results)
    assert "costs 2.00 × the fastest peer's, torchcfm" in text
    assert "takes 3.0 × its time under the same schedule" in text
    assert "own defaults" not in text
    late = dataclasses.replace(
        results, distances=results.distances | {"azula": {"own": {1000: bad}, "ours": {200: bad}}}
    )
    assert "takes 5.0 × its time" in points.summary(late)
    never = {"torchcfm": {"own": {9000: good}, "ours": {3000: bad}}}
    assert "takes more than 3.0 × its time" in points.summary(
        dataclasses.replace(late, distances=late.distances | never)
    )


def test_the_real_points_are_at_their_floor() -> None:
    """Truth against truth, with fixed seeds: 0.037 on average, standard deviation 0.011."""
    plan = dataclasses.replace(TINY, samples=points.SAMPLES)
    assert points.distance(plan, points.real_points(plan, 1), 2) < 0.09


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "missing", lambda contenders: ["azula"])
    with pytest.raises(InputError, match="azula"):
        points.main(["--quick"])
