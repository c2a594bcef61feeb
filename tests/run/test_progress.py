"""Budgets of steps and of seconds, seen from the loop."""

import pytest
import torch

from zobench.run.meter import Meter
from zobench.run.progress import BudgetClock
from zobench.settings import Budget


class RunClock(Meter):
    """A meter whose seconds of training are set by hand."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.trained = 0.0

    def seconds(self, name: str) -> float:
        return self.trained if name == "train" else 0.0


def test_steps_are_counted_and_seconds_are_measured() -> None:
    """A budget is over when, and not before, it is spent; both go from share 0 to share 1."""
    clock = RunClock()
    steps = BudgetClock(Budget(steps=5), clock)
    assert [steps.over(n) for n in range(6)] == [False] * 5 + [True]
    assert (steps.share(0), steps.share(4), steps.within(9)) == (0.0, 1.0, 5)
    timed = BudgetClock(Budget(seconds=8.0), clock)
    assert not timed.over(10**6)
    assert timed.within(9) == 9
    for clock.trained, share in ((0.0, 0.0), (2.0, 0.25), (8.0, 1.0), (9.0, 1.0)):
        assert timed.share(3) == pytest.approx(share)
    assert timed.over(3)
