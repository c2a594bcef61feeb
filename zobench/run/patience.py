"""When to give up: dev does not get better any more, or the training loss has run away."""

import math

from zobench.run.journal import Journal, value_of
from zobench.zo.engine import Diverged


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


def check_rise(loss: float, most: float | None, journal: Journal) -> None:
    """Raise Diverged where a line's training loss is above `most` times the first line's.

    Where that is negative, so far above it that its size would fit in `most` - 1 times.
    """
    if most is None:
        return
    first = value_of(journal.about("train")[0]["train/loss"])
    if first and loss > first + (most - 1.0) * abs(first):
        raise Diverged(
            f"the training loss is {loss:.4g}, above train.diverged_above={most:g} times the"
            f" {first:.4g} of the first line"
        )
