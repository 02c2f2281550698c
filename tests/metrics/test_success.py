"""Intervals against numbers from elsewhere, and what they are for: covering the truth 95 times in 100."""

import math

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from ebbtide.errors import InputError
from ebbtide.metrics import table
from ebbtide.metrics.success import mean_score, score_interval, success_rate, wilson_interval


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (97, 100, 0.9155, 0.9897)],
)
def test_wilsons_interval_by_hand(count, n, low, high):
    assert wilson_interval(count / n, n) == pytest.approx((low, high), abs=6e-5)


def test_wilsons_interval_ends_exactly_where_rates_do():
    for n in range(1, 200):
        assert wilson_interval(0.0, n)[0] == 0.0
        assert wilson_interval(1.0, n)[1] == 1.0


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
def test_wilsons_interval_covers_the_true_rate(rate):
    """Exactly, by summing over all outcomes of 100 episodes: 0.93 to 0.97 here."""
    inside = [low <= rate <= high for low, high in (wilson_interval(k / 100, 100) for k in range(101))]
    assert 0.92 < binom.pmf(np.arange(101), 100, rate) @ inside < 0.98


def test_a_rate_in_the_report():
    row = success_rate([True] * 9 + [False], expert=0.95)
    assert (row.name, row.value, row.better, row.note) == ("success rate", 0.9, "higher", "Over 10 episodes.")
    assert row.at_floor
    assert not success_rate([False] * 10, expert=0.95).at_floor
    assert "0.9 " in table([row])


def test_episodes_played_by_several_count_once():
    """Shares of 1, 1/2, 0 and 1/2: Student's, mean 1/2 ± 3.182 √(1/6) / 2; all or none, as if played once: Wilson's."""
    row = success_rate([1.0, 0.5, 0.0, 0.5])
    assert (row.value, row.note) == (0.5, "Over 4 episodes.")
    assert (row.low, row.high) == (0.0, 1.0)
    many = success_rate([1.0, 0.5, 0.0, 0.5] * 10)  # s² = 5/39, t of 39 degrees 2.0227: √(s²/40) t
    assert (many.low, many.high) == pytest.approx((0.5 - 0.11451, 0.5 + 0.11451), abs=1e-5)
    assert success_rate([1.0, 0.0] * 5) == success_rate([True, False] * 5)
    assert success_rate([True, False] * 5).low == pytest.approx(0.2366, abs=1e-4)


def test_students_interval_is_scipys():
    scores = [0.2, 0.9, 0.7, 0.65]
    expected = ttest_1samp(scores, 0).confidence_interval(0.95)
    row = mean_score(scores)
    assert row.value == pytest.approx(0.6125)
    assert (row.low, row.high) == pytest.approx((expected.low, min(1.0, expected.high)))
    assert row.high == 1.0  # 1.08 is no score


def test_scores_all_alike_are_not_certain():
    assert score_interval([1.0] * 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert score_interval([0.5]) == pytest.approx(wilson_interval(0.5, 1))


def test_students_interval_covers_the_mean_of_skewed_scores():
    """Scores such as Push-T's, mostly near 1 with a long tail: 0.95 to within what 4000 repeats leave (6 σ: 0.02)."""
    scores = 1 - np.random.default_rng(0).beta(0.3, 2.0, (4000, 100))
    truth = 1 - 0.3 / 2.3
    inside = np.mean([low <= truth <= high for low, high in map(score_interval, scores.tolist())])
    assert 0.92 < inside < 0.97


@pytest.mark.unchecked
@pytest.mark.parametrize("bad", [[], [0.5, math.nan], [1.2], [-0.1], ["1"]])
def test_scores_out_of_range(bad):
    with pytest.raises(InputError, match=r"^A score must be|^The number of episodes must be at least 1"):
        mean_score(bad)


def test_no_episodes():
    with pytest.raises(InputError, match="number of episodes must be at least 1"):
        success_rate([])
