"""Ends a run early: its loss is not finite or grows too large, or dev does not improve."""

import math

from zobench.run.metrics_log import MetricsLog, value_of
from zobench.zo.engine import Diverged

MOST_IN_A_ROW = 20  # skipped steps; the next one ends the run


class Skips:
    """Counts skipped steps. policy: `train.nonfinite`; all but `skip` end the run at the first."""

    def __init__(self, policy: str | None) -> None:
        self.allowed = policy == "skip"
        self.count = 0
        self.in_a_row = 0

    def skip(self, error: Diverged) -> None:
        """Count a step that raised; raises Diverged if the run has to end."""
        if not self.allowed:
            raise error
        if self.in_a_row == MOST_IN_A_ROW:
            raise Diverged(f"{error}, after {MOST_IN_A_ROW} skipped steps in a row")
        self.count += 1
        self.in_a_row += 1

    def taken(self) -> None:
        """Note a step that was taken."""
        self.in_a_row = 0

    def metrics(self) -> dict[str, float]:
        """For metrics.jsonl."""
        return {"train/skipped": self.count} if self.allowed else {}

    def result(self) -> dict[str, int]:
        """For result.json."""
        return {"skipped_steps": self.count} if self.allowed else {}

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count, self.in_a_row = state["count"], state["in_a_row"]


class Patience:
    """Counts evaluations of dev since the lowest loss. most: the limit; None: no limit."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.lowest = math.inf
        self.since = 0

    def evaluated(self, loss: float) -> None:
        """Count a loss on dev; NaN is not lower."""
        better = loss < self.lowest
        self.lowest = loss if better else self.lowest
        self.since = 0 if better else self.since + 1

    @property
    def over(self) -> bool:
        return self.most is not None and self.since >= self.most

    def result(self) -> dict[str, bool]:
        """For result.json."""
        return {} if self.most is None else {"stopped_early": self.over}


def check_rise(loss: float, most: float | None, metrics_log: MetricsLog) -> None:
    """Raise Diverged if a line's training loss is above `most` times the first line's.

    For a negative first loss the limit is first + (most - 1) * |first|.
    """
    if most is None:
        return
    first = value_of(metrics_log.about("train")[0]["train/loss"])
    if first and loss > first + (most - 1.0) * abs(first):
        raise Diverged(
            f"the training loss is {loss:.4g}, above train.diverged_above={most:g} times the"
            f" {first:.4g} of the first line"
        )
