"""Performance profiles (Dolan and More, Mathematical Programming 91, 2002) and their score.

The profile of a row is rho(tau): the share of workloads in which its cost is at most tau times the
lowest cost there. Its score is the integral of rho from 1 to `MOST`, divided by `MOST` - 1. With
`MOST` = 4 this is the score of AlgoPerf (Dahl et al., arXiv 2306.07179).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zobench.report.numbers import order

MOST = 4.0


@dataclass(frozen=True)
class Profile:
    """The profile of a row. ratios: its cost over the lowest, by workload; may be infinite."""

    row: str
    ratios: tuple[float, ...]

    def share(self, tau: float) -> float:
        """The share of workloads whose ratio is at most tau."""
        return sum(ratio <= tau for ratio in self.ratios) / len(self.ratios)

    @property
    def score(self) -> float:
        """Between 0 and 1; exact, since a ratio r adds MOST - r to the integral."""
        inside = sum(max(0.0, MOST - ratio) for ratio in self.ratios)
        return inside / (len(self.ratios) * (MOST - 1.0))

    def steps(self) -> list[tuple[float, float]]:
        """The corners of the profile from tau = 1 to tau = MOST."""
        corners = [(1.0, self.share(1.0))]
        for tau in sorted({ratio for ratio in self.ratios if 1.0 < ratio <= MOST}):
            corners += [(tau, corners[-1][1]), (tau, self.share(tau))]
        return [*corners, (MOST, corners[-1][1])]


def profiles(costs: Mapping[str, Sequence[float]]) -> list[Profile]:
    """The profile of every row, the highest score first, equal scores by name.

    Args:
        costs: per row a cost for each workload, in one order; infinite where it has none.
    """
    lowest = [min(column) for column in zip(*costs.values(), strict=True)]
    found = [
        Profile(row, tuple(ratio(cost, low) for cost, low in zip(mine, lowest, strict=True)))
        for row, mine in costs.items()
    ]
    return sorted(found, key=lambda profile: (-profile.score, order(profile.row)))


def ratio(cost: float, lowest: float) -> float:
    """The cost over the lowest: 1 where both are 0, infinite for an infinite cost."""
    if math.isinf(cost):
        return math.inf
    if cost == lowest:
        return 1.0
    return cost / lowest if lowest > 0 else math.inf
