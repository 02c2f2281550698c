import json
import math
import time

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.errors import InputError
from ebbtide.metrics import measure, table, to_json
from metrics.clouds import MEANS, STD, three_gaussians

pytestmark = pytest.mark.unchecked


def log_density(x):
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3)),
        torch.distributions.Independent(torch.distributions.Normal(MEANS, STD), 1),
    )
    return mixture.log_prob(x)


def two_lines(n, seed):
    """Class 0 on y = 0 and class 1 on y = 1, each point 0.4 wide of its line: they overlap a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    place = torch.stack([torch.rand(n, generator=generator) * 5, labels.float()], 1)
    return place + 0.25 * torch.randn(n, 2, generator=generator), labels


def by_name(rows):
    return {row.name: row for row in rows}


@pytest.fixture(scope="module")
def good():
    """10 000 samples of the truth itself, everything known: must take ≤ 6 CPU-seconds, and takes 3 to 4."""
    samples = three_gaussians(10_000, 99)
    start = time.process_time()
    rows = measure(samples, three_gaussians, means=MEANS, std=STD, log_density=log_density)
    assert time.process_time() - start < 8
    return by_name(rows)


def test_every_metric_stands_beside_its_floor(good):
    assert set(good) == {
        "non-finite",
        "within-mode sliced W2",
        "outliers beyond 4 σ",
        "mean log-density",
        "fraction in mode 0",
        "fraction in mode 1",
        "fraction in mode 2",
        "MMD²",
        "energy distance",
        "sliced W2",
        "exact W2",
    }
    for row in good.values():
        assert row.low <= row.value <= row.high
        assert row.floor_low <= row.floor <= row.floor_high


def test_truth_is_at_its_floor(good):
    """Seeded, so it either always passes or never does; with other seeds each row would fail at most once in 20."""
    assert all(row.at_floor for row in good.values())
    assert 0.0078 < good["within-mode sliced W2"].floor < 0.0112
    assert good["mean log-density"].floor == pytest.approx(-math.log(3 * 2 * math.pi * STD**2) - 1, abs=0.02)
    assert 0.05 < good["sliced W2"].floor < 0.25
    assert good["fraction in mode 1"].floor == pytest.approx(1 / 3, abs=0.02)


def test_a_std_ten_percent_off_is_seen_where_it_should_be():
    """10 000 samples with std 0.33: within modes 0.033 against 0.009 ± 0.001, log-density 0.21 ± 0.011 below."""
    only = ["within-mode sliced W2", "mean log-density", "fraction in mode", "sliced W2"]
    known = {"means": MEANS, "std": STD, "log_density": log_density, "only": only}
    rows = by_name(measure(three_gaussians(10_000, 98, 0.33), three_gaussians, **known))
    assert not rows["within-mode sliced W2"].at_floor
    assert not rows["mean log-density"].at_floor
    assert rows["fraction in mode 0"].at_floor
    assert rows["sliced W2"].at_floor  # blind, as its note says


def test_outliers_are_seen():
    """Truth has exp(−8) = 3.35 of 10 000 beyond 4 · 0.3. Samples with 13 are no truth, as 3 are."""
    known = {"means": MEANS, "std": STD, "only": ["outliers beyond 4 σ"]}
    samples = three_gaussians(10_000, 97)
    near = (samples[:, None] - MEANS).norm(dim=2).min(1).values < 3 * STD
    samples = samples[near][:9000].repeat(2, 1)[:10_000]
    for outliers, p in ((3, 0.65), (8, 0.023), (13, 5e-5)):
        samples[:outliers] = 10.0
        _, row = measure(samples, three_gaussians, **known)
        assert row.value == outliers / 10_000
        assert row.floor == pytest.approx(math.exp(-8))
        assert row.p == pytest.approx(p, rel=0.1)
        assert row.at_floor == (outliers < 13)


def test_sets_held_against_one_reference_share_its_floors():
    good, bad = three_gaussians(300, 1), three_gaussians(300, 2, 0.5)
    draws, floors = [], {}

    def reference(n, seed):
        draws.append(seed)
        return three_gaussians(n, seed)

    measure(good, reference, means=MEANS, std=STD, floors=floors)
    before = len(draws)
    shared = measure(bad, reference, means=MEANS, std=STD, floors=floors)
    assert len(draws) == before + 2  # the real points that bad itself is held against
    assert to_json(shared) == to_json(measure(bad, reference, means=MEANS, std=STD))


def test_missing_mode_is_seen():
    samples = three_gaussians(1200, 5)
    samples = samples[samples[:, 1] > 0]
    rows = by_name(measure(samples, three_gaussians, means=MEANS, std=STD))
    for name in ("MMD²", "energy distance", "sliced W2", "exact W2", "fraction in mode 2", "fraction in mode 0"):
        assert not rows[name].at_floor, name
    assert rows["fraction in mode 2"].value == 0
    assert rows["within-mode sliced W2"].at_floor


def test_labels():
    samples, asked = two_lines(600, 1)
    rows = by_name(measure(samples, two_lines, labels=asked))
    assert rows["asked label nearest"].at_floor
    assert rows["sliced W2 of label 0"].at_floor
    wrong = by_name(measure(samples, two_lines, labels=1 - asked))
    assert wrong["asked label nearest"].value == pytest.approx(1 - rows["asked label nearest"].value)
    assert not wrong["asked label nearest"].at_floor
    assert not wrong["sliced W2 of label 1"].at_floor


def test_labels_have_their_names():
    samples, asked = two_lines(600, 1)
    rows = by_name(measure(samples, two_lines, labels=asked, classes=("Spaß", "Ernst")))
    numbered = by_name(measure(samples, two_lines, labels=asked))
    for name, number in (("Spaß", 0), ("Ernst", 1)):
        assert rows[f"sliced W2 of label {name}"].value == numbered[f"sliced W2 of label {number}"].value
        assert f"sliced W2 of label {number}" not in rows


def test_numbers_are_points_of_one_dimension():
    x = torch.randn(400, generator=torch.Generator().manual_seed(0))
    labels = (x > 0).long()
    for options in (
        {},
        {"train": torch.randn(500, generator=torch.Generator().manual_seed(1))},
        {"own": {"mine": gap}},
    ):
        rows, wide = (
            measure(of(x), of(x), **{key: of(value) if key == "train" else value for key, value in options.items()})
            for of in (lambda x: x, lambda x: x[:, None])
        )
        assert to_json(rows) == to_json(wide)
        assert len(rows) >= 5
    assert to_json(measure(x, (x, labels), labels=labels)) == to_json(
        measure(x[:, None], (x[:, None], labels), labels=labels)
    )
    with pytest.raises(InputError, match=r"samples must be a tensor or array of shape \(n, …\)"):
        measure(torch.tensor(1.0), x)


def gap(samples, real):
    return float(samples.mean() - real.mean())


def test_an_array_of_real_points_is_split_into_halves():
    rows = by_name(measure(three_gaussians(900, 1), three_gaussians(1000, 2), means=MEANS, std=STD))
    assert rows["sliced W2"].note.startswith("On 500 of the 900 samples.")
    assert rows["within-mode sliced W2"].at_floor
    labelled = measure(*[two_lines(400, 3)[0], two_lines(500, 4)], labels=two_lines(400, 3)[1], repeats=2)
    assert "asked label nearest" in by_name(labelled)


def test_non_finite_samples_are_counted_and_left_out():
    samples = three_gaussians(1000, 0)
    only = ["within-mode sliced W2", "outliers beyond 4 σ", "fraction in mode"]
    known = {"means": MEANS, "std": STD, "repeats": 1, "only": only}
    clean = by_name(measure(samples[100:], three_gaussians, **known))
    samples[:60], samples[60:100, 1] = float("nan"), float("inf")
    rows = by_name(measure(samples, three_gaussians, **known))
    assert rows["non-finite"].value == 0.1
    assert not rows["non-finite"].at_floor
    assert "100 of 1000" in rows["non-finite"].note
    for name in ("within-mode sliced W2", "outliers beyond 4 σ", "fraction in mode 1"):
        assert rows[name].value == pytest.approx(clean[name].value)


def test_nothing_finite_is_one_row():
    (row,) = measure(torch.full((5, 2), float("nan")), three_gaussians)
    assert (row.name, row.value) == ("non-finite", 1)


def test_a_point_mass_and_a_diverged_sample_do_not_crash():
    point = lambda n, seed: torch.full((n, 1), 4.0)
    rows = by_name(measure(torch.full((200, 1), 4.0), point, repeats=1))
    assert rows["sliced W2"].value == rows["energy distance"].value == 0
    samples = three_gaussians(300, 0, 0.2)
    samples[0] = 1e30
    rows = by_name(measure(samples, three_gaussians, means=MEANS, std=STD, repeats=1))
    assert rows["outliers beyond 4 σ"].value == pytest.approx(1 / 300)
    assert all(math.isfinite(row.value) for row in rows.values())


def test_outside_the_support_the_log_density_is_minus_infinity():
    square = lambda x: torch.where((x.abs() < 1).all(1), -math.log(4), -math.inf)
    uniform = lambda n, seed: 2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) - 1
    rows = measure(1.1 * uniform(500, 9), uniform, log_density=square, repeats=1)
    row = by_name(rows)["mean log-density"]
    assert row.value == -math.inf
    assert not row.at_floor
    assert json.loads(to_json([row]))[0]["value"] is None


def test_same_seed_same_report():
    samples = three_gaussians(200, 0)
    once, again, other = (to_json(measure(samples, three_gaussians, seed=seed, repeats=2)) for seed in (0, 0, 1))
    assert once == again != other


# Output


def test_table_is_aligned_and_says_what_plain_distances_measure(good):
    text = table(list(good.values()))
    lines = text.splitlines()
    assert all(lines[0].index("better") == line.index(good[name].better) for name, line in zip(good, lines[2:]))
    assert "sliced W2, exact W2: On a mixture, plain SW2 and W2 measure mode-count noise" in text
    assert text.count("mode-count noise") == 1
    assert "exact W2: On 1000 of the 10000 samples." in text
    assert not any(line.endswith(" ") for line in lines)


def test_json_holds_every_field(good):
    records = json.loads(to_json(list(good.values())))
    assert [record["name"] for record in records] == list(good)
    assert all(record["floor_low"] <= record["floor"] <= record["floor_high"] for record in records)
    assert all(record["at_floor"] for record in records)


# What it refuses


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"only": ["MMD"]}, "did you mean 'MMD²'"),
        ({"labels": torch.zeros(4, dtype=torch.long)}, "one label; got 4 for 5"),
        ({"labels": torch.zeros(5, dtype=torch.long)}, "must give \\(points, labels\\)"),
        ({"reference": torch.zeros(3, 2)}, "at least 4 points"),
        ({"reference": torch.zeros(8, 3)}, "same dimension"),
        ({"reference": (torch.zeros(8, 2), torch.ones(8)), "labels": torch.zeros(5, dtype=torch.long)}, "label 0"),
        ({"means": torch.zeros(1, 3), "std": 1.0}, "same dimension"),
        ({"means": MEANS, "std": 0.0}, "std must be"),
        ({"samples": torch.zeros(0, 2)}, "no samples"),
        ({"samples": [[0.0, 1.0]]}, "samples must be a tensor; got"),
        ({"reference": [[0.0, 1.0]]}, "Real points must be a tensor; got"),
        ({"labels": [0] * 5}, "labels must be a tensor or None; got"),
        ({"repeats": 2.0}, "repeats must be a whole number"),
        ({"means": MEANS, "std": "0.3"}, "std must be a number"),
    ],
)
def test_bad_input_is_one_sentence(options, words):
    arguments = {"samples": torch.zeros(5, 2), "reference": three_gaussians} | options
    with pytest.raises(InputError, match=words) as error:
        measure(arguments.pop("samples"), arguments.pop("reference"), **arguments)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@given(n=st.integers(2, 12), shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_any_shape(n, shape, seed):
    draw = lambda n, seed: torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
    assert len(measure(draw(n, seed), draw, repeats=1)) == 5
