"""Aggregates are what their definitions say, and what rliable computes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from zobench.report.aggregates import (
    aggregates,
    improvement,
    improvement_over,
    interquartile_mean,
    mean,
    median,
)

NUMBERS = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=6)
SCORES = st.lists(NUMBERS, min_size=1, max_size=5)


@given(SCORES)
def test_aggregates_follow_their_definitions(lists: list[list[float]]) -> None:
    """Mean and median are over workloads; the IQM is scipy's trimmed mean of all runs."""
    scores = [np.array(one) for one in lists]
    means = [float(np.mean(one)) for one in lists]
    assert float(mean(scores)) == pytest.approx(np.mean(means))
    assert float(median(scores)) == pytest.approx(np.median(means))
    runs = [score for one in lists for score in one]
    assert float(interquartile_mean(scores)) == pytest.approx(stats.trim_mean(runs, 0.25))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_improvement_counts_pairs(pairs: list[tuple[list[float], list[float]]]) -> None:
    """In each workload the share of pairs that are better, ties counted half; then the mean."""
    shares = []
    for mine, theirs in pairs:
        wins = 0.0
        for x in mine:
            for y in theirs:
                wins += 1.0 if x > y else 0.5 if x == y else 0.0
        shares.append(wins / (len(mine) * len(theirs)))
    scores, others = ([np.array(pair[n]) for pair in pairs] for n in (0, 1))
    assert float(improvement(scores, others)) == pytest.approx(np.mean(shares))
    assert float(improvement(others, scores)) == pytest.approx(1 - np.mean(shares))


def test_seeds_are_drawn_within_their_workload() -> None:
    """Workloads far apart whose seeds agree leave no doubt: nothing is drawn across them."""
    scores = [np.full(3, level) for level in (0.1, 0.5, 0.9)]
    for estimate in aggregates(scores).values():
        assert estimate.low == pytest.approx(estimate.value) == pytest.approx(estimate.high)
    better = [one + 0.01 for one in scores]
    assert improvement_over(better, scores) == (1.0, 1.0, 1.0)


def test_a_single_seed_has_no_interval() -> None:
    """One workload with one seed is enough to leave the interval out; the number stays."""
    scores = [np.array([0.4, 0.6]), np.array([0.5])]
    found = aggregates(scores)["mean"]
    assert found.value == pytest.approx(0.5) and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(improvement_over(scores, scores).low)


def test_intervals_cover() -> None:
    """Of 200 suites of 4 workloads with 10 seeds about 95 % of the intervals hold the truth."""
    generator = np.random.default_rng(0)
    levels = np.array([0.2, 0.4, 0.7, 0.9])
    held = []
    for _ in range(200):
        scores = [level + 0.1 * generator.standard_normal(10) for level in levels]
        estimate = aggregates(scores)["mean"]
        held.append(estimate.low <= levels.mean() <= estimate.high)
    assert 0.88 <= np.mean(held) <= 0.98


def test_rliable_has_the_same_numbers() -> None:
    """Five seeds of four workloads; intervals of rliable 1.2.0 with arch 7.2.0, 20,000 resamples.

    It is no dependency: arch below 8 needs a pandas below 3.
    """
    scores = [
        np.array([0.35, 0.32, 0.32, 0.36, 0.27]),
        np.array([0.67, 0.59, 0.61, 0.59, 0.62]),
        np.array([0.73, 0.75, 0.78, 0.75, 0.64]),
        np.array([0.9, 1.03, 0.97, 0.99, 0.87]),
    ]
    others = [
        np.array([0.19, 0.31, 0.3, 0.24, 0.3]),
        np.array([0.59, 0.59, 0.61, 0.55, 0.65]),
        np.array([0.62, 0.55, 0.61, 0.76, 0.66]),
        np.array([0.92, 0.87, 0.87, 0.85, 0.89]),
    ]
    theirs = {
        "mean": (0.6555, 0.636, 0.674),
        "median": (0.673, 0.647, 0.696),
        "IQM": (0.673, 0.648, 0.696),
    }
    found = aggregates(scores)
    for name, (value, low, high) in theirs.items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low == pytest.approx(low, abs=0.004)
        assert found[name].high == pytest.approx(high, abs=0.004)
    better = improvement_over(scores, others)
    assert better.value == pytest.approx(0.795)
    assert better.low == pytest.approx(0.64, abs=0.02)
    assert better.high == pytest.approx(0.925, abs=0.02)
