"""Intervals cover, tests are uniform under the null, and both are the same every time."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from zobench.report.statistics import (
    RESAMPLES,
    interval,
    seed_interval,
    sign_flip,
    student_half_width,
)


def scores(
    generator: np.random.Generator, seeds: int, examples: int, spread: float, difficulty: float
) -> tuple[np.ndarray, float]:
    """Right or wrong (S, N) of seeds and examples that differ, and the accuracy behind it."""
    skill = 1.0 + spread * generator.standard_normal((seeds, 1))
    ease = difficulty * generator.standard_normal((1, examples))
    right = skill + ease + generator.standard_normal((seeds, examples)) > 0
    return right.astype(float), NormalDist().cdf(1 / math.sqrt(1 + spread**2 + difficulty**2))


@pytest.mark.parametrize(
    ("seeds", "spread", "difficulty"),
    [(1, 0.0, 1.0), (5, 0.05, 2.0), (5, 0.3, 2.0), (5, 0.3, 0.5)],
)
def test_the_interval_covers(seeds: int, spread: float, difficulty: float) -> None:
    """Of 150 suites on the same examples about 95 % of the intervals hold the truth."""
    generator = np.random.default_rng(1)
    held = []
    for _ in range(150):
        right, truth = scores(generator, seeds, 200, spread, difficulty)
        low, high = interval(list(right), shared=True)
        held.append(low <= truth <= high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_examples_that_seeds_share_are_not_counted_for_each_seed() -> None:
    """Seeds that answer alike are as sure as one of them, not as five times the examples."""
    right = (np.random.default_rng(0).random(400) < 0.8).astype(float)
    low, high = interval([right] * 5, shared=True)
    alone = interval([right], shared=True)
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.1)
    apart = interval([right] * 5, shared=False)
    assert apart[1] - apart[0] < 0.8 * (high - low)


def test_seeds_of_other_examples_may_have_other_numbers_of_them() -> None:
    """Test splits of different sizes are resampled one by one."""
    low, high = interval([np.array([0.0, 1.0] * 50), np.array([0.0, 1.0] * 20)], shared=False)
    assert 0.3 < low < 0.5 < high < 0.7


def test_one_example_kind_or_one_seed() -> None:
    """Equal scores leave nothing to resample, and one mean has no interval over seeds."""
    assert interval([np.ones(10)] * 3, shared=True) == (1.0, 1.0)
    assert all(map(math.isnan, seed_interval(np.array([0.5]))))
    assert math.isnan(student_half_width(np.array([0.5])))


def test_the_interval_over_seeds_has_the_variance_of_their_mean() -> None:
    """A bootstrap of S values is narrower than their standard error; this one is not."""
    means = np.random.default_rng(2).standard_normal(12)
    low, high = seed_interval(means)
    expected = 2 * 1.96 * means.std(ddof=1) / math.sqrt(12)
    assert high - low == pytest.approx(expected, rel=0.1)
    assert (low + high) / 2 == pytest.approx(means.mean(), abs=0.1)


def test_p_is_uniform_under_the_null() -> None:
    """Of two methods that are alike, a share of about alpha of the p is below alpha."""
    generator = np.random.default_rng(3)
    found = []
    for _ in range(250):
        right = generator.random((2, 3, 300)) < 0.7 + 0.2 * generator.standard_normal((1, 1, 300))
        found.append(sign_flip(np.diff(right.astype(float).mean(axis=1), axis=0)[0]))
    assert min(found) > 0
    for alpha in (0.05, 0.2, 0.5, 0.8):
        share = np.mean(np.array(found) <= alpha)
        assert abs(share - alpha) < 3.5 * math.sqrt(alpha * (1 - alpha) / 250)


def test_p_sees_a_difference_and_not_its_sign() -> None:
    """Eight of ten flips of equal size are 2 * 56 / 1024 likely by chance, to either side."""
    differences = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 90)
    chance = 2 * (45 + 10 + 1) / 1024
    assert sign_flip(differences) == pytest.approx(chance, abs=0.01)
    assert sign_flip(-differences) == pytest.approx(chance, abs=0.01)
    assert sign_flip(np.zeros(20)) == 1.0
    assert sign_flip(np.full(200, 0.1)) == pytest.approx(1 / 10_001)


def test_p_of_a_mean_of_seeds_is_not_moved_by_how_it_was_rounded() -> None:
    """Thirds that differ in the last bit are one size, in whatever order they come."""
    thirds = np.array([1 / 3, -(1 - 2 / 3), 0.1 + 0.2 - 0.3 + 1 / 3, -1 / 3] * 5)
    assert sign_flip(thirds) == sign_flip(thirds[::-1].copy()) == 1.0


def test_the_same_scores_give_the_same_answer() -> None:
    """Nothing is drawn from a generator that another call has moved."""
    right, _ = scores(np.random.default_rng(4), 3, 100, 0.3, 1.0)
    assert interval(list(right), shared=True) == interval(list(right), shared=True)
    assert sign_flip(right[0] - right[1]) == sign_flip(right[0] - right[1])
    assert RESAMPLES == 2000
