"""Performance profiles: exact areas, exact ties."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zobench.report.profiles import MOST, Profile, profiles

COST = st.one_of(st.integers(0, 50).map(float), st.just(math.inf))


@given(st.lists(st.one_of(st.floats(1, 6), st.just(math.inf)), min_size=1, max_size=6))
def test_the_score_is_the_area_under_the_profile(ratios: list[float]) -> None:
    """The area of the steps between their corners, and of a fine grid, is the score."""
    profile = Profile("a", tuple(ratios))
    corners = profile.steps()
    area = sum((x1 - x0) * y0 for (x0, y0), (x1, _) in pairwise(corners))
    assert profile.score == pytest.approx(area / (MOST - 1))
    grid = np.linspace(1, MOST, 3001)
    shares = [profile.share(float(tau)) for tau in grid]
    assert profile.score == pytest.approx(np.mean(shares), abs=1e-3)
    assert corners[0][0] == 1.0 and corners[-1][0] == MOST


@given(st.lists(st.lists(COST, min_size=3, max_size=3), min_size=1, max_size=5))
def test_scores_are_shares(costs: list[list[float]]) -> None:
    """They lie between 0 and 1, highest first; a row that is best everywhere has 1."""
    found = profiles({f"row{n}": mine for n, mine in enumerate(costs)})
    scores = [profile.score for profile in found]
    assert scores == sorted(scores, reverse=True) and all(0 <= s <= 1 for s in scores)
    lowest = [min(column) for column in zip(*costs, strict=True)]
    if all(map(math.isfinite, lowest)) and lowest in costs:
        assert scores[0] == 1.0


def test_a_worked_example() -> None:
    """Ratios 1 and 1, 2 and 4, beyond 4 and never: 1, (2 + 0) / 6, 0."""
    found = profiles({"slow": [200, 400], "fast": [100, 100], "late": [401, math.inf]})
    assert [(one.row, one.score) for one in found] == [("fast", 1), ("slow", 1 / 3), ("late", 0)]
    assert found[1].ratios == (2.0, 4.0) and found[1].steps() == [
        (1.0, 0.0), (2.0, 0.0), (2.0, 0.5), (4.0, 0.5), (4.0, 1.0), (4.0, 1.0),
    ]  # fmt: skip


def test_nobody_wins_a_workload_that_nobody_finishes() -> None:
    """It is a share that all rows lack; a target met at no cost is a tie."""
    found = profiles({"a": [math.inf, 0.0, 0.0], "b": [math.inf, 0.0, 5.0]})
    assert [one.score for one in found] == [2 / 3, 1 / 3]
