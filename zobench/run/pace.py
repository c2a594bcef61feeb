"""How far a run is through its budget, which is a number of steps or of seconds of training."""

from collections.abc import Mapping
from typing import Any, Protocol


class Clock(Protocol):
    """As a Meter."""

    def seconds(self, phase: str, /) -> float: ...


class Pace:
    """budget: `steps`, or where that is null `seconds` of the meter's phase `train`."""

    def __init__(self, budget: Mapping[str, Any], meter: Clock) -> None:
        self.steps: int | None = budget["steps"]
        self.total: float = budget["seconds"] if self.steps is None else self.steps
        self._meter = meter

    def spent(self, step: int) -> float:
        """Steps or seconds spent when `step` steps are done."""
        return self._meter.seconds("train") if self.steps is None else step

    def over(self, step: int) -> bool:
        """Whether the budget is spent when `step` steps are done."""
        return self.spent(step) >= self.total

    def share(self, step: int) -> float:
        """Where `step`, counted from 0, lies between the first step (0) and the last (1)."""
        if self.steps is not None:
            return step / max(1, self.steps - 1)
        return min(1.0, self.spent(step) / self.total)

    def within(self, step: int) -> int:
        """The step, or the last one of a budget in steps."""
        return step if self.steps is None else min(step, self.steps)

    def shown(self, step: int) -> str:
        """`step 12/600`, or `step 12, 3/60 s`."""
        if self.steps is not None:
            return f"step {step}/{self.steps}"
        return f"step {step}, {self.spent(step):.0f}/{self.total:g} s"
