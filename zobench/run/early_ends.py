"""When a run ends early: its loss is not finite, dev does not get better, or the loss runs away."""

import math

from zobench.run.metrics_log import MetricsLog, value_of
from zobench.zo.engine import Diverged

MOST_IN_A_ROW = 20  # skipped; the next one ends the run


class Skips:
    """Decides on the steps that could not be taken, and counts those that were skipped.

    policy: `skip`; anything else ends the run at the first.
    """

    def __init__(self, policy: str | None) -> None:
        self.allowed = policy == "skip"
        self.count = 0
        self.in_a_row = 0

    def skip(self, error: Diverged) -> None:
        """Count a step that raised; raises Diverged where the run must not go on."""
        if not self.allowed:
            raise error
        if self.in_a_row == MOST_IN_A_ROW:
            raise Diverged(
                f"{error}, and {MOST_IN_A_ROW} steps in a row before it were skipped for the same"
            )
        self.count += 1
        self.in_a_row += 1

    def taken(self) -> None:
        """A step went well."""
        self.in_a_row = 0

    def metrics(self) -> dict[str, float]:
        """Beside a line's training loss, which is the mean over the steps that were taken."""
        return {"train/skipped": self.count} if self.allowed else {}

    def result(self) -> dict[str, int]:
        """For result.json."""
        return {"skipped_steps": self.count} if self.allowed else {}

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count, self.in_a_row = state["count"], state["in_a_row"]


class Patience:
    """Counts evaluations of dev since the lowest loss. most: None is any number of them."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.lowest = math.inf
        self.since = 0

    def evaluated(self, loss: float) -> None:
        """Take note of a loss on dev; one that is not a number is not better."""
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
    """Raise Diverged where a line's training loss is above `most` times the first line's.

    Where that is negative, so far above it that its size would fit in `most` - 1 times.
    """
    if most is None:
        return
    first = value_of(metrics_log.about("train")[0]["train/loss"])
    if first and loss > first + (most - 1.0) * abs(first):
        raise Diverged(
            f"the training loss is {loss:.4g}, above train.diverged_above={most:g} times the"
            f" {first:.4g} of the first line"
        )
