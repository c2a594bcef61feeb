"""Which numbers of a column are best, and which differ from the best by no more than noise."""

import math
from collections.abc import Mapping

from zobench.names import lower_is_better

Span = tuple[float, float]  # a 95 % interval; NaN where there is none


def best_and_close(
    metric: str, numbers: Mapping[str, float], spans: Mapping[str, Span]
) -> tuple[set[str], set[str]]:
    """The best rows of a column, and the others whose interval overlaps that of a best one.

    Both are empty below two numbers that differ, and for a metric that is neither a score nor a
    cost.

    Args:
        numbers: row -> the number shown; NaN is none.
        spans: row -> its interval.
    """
    known = {row: value for row, value in numbers.items() if not math.isnan(value)}
    sign = _sign(metric)
    if len(set(known.values())) < 2 or sign == 0:
        return set(), set()
    top = max(sign * value for value in known.values())
    best = {row for row, value in known.items() if sign * value == top}
    low = min((spans[row][0] for row in best if row in spans), default=math.nan)
    high = max((spans[row][1] for row in best if row in spans), default=math.nan)
    close = {
        row
        for row in known.keys() - best
        if row in spans and spans[row][0] <= high and low <= spans[row][1]
    }
    return best, close


def _sign(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is known."""
    if lower_is_better(metric) or metric.startswith(("cost/", "memory/", "time/")):
        return -1
    return 1 if metric.startswith(("dev/", "test/")) else 0
