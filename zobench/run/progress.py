"""Progress of a run: a bar on a terminal, lines elsewhere."""

import os
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zobench.run.notes import LIVE
from zobench.settings import Budget


class Clock(Protocol):
    """A Meter, or the time that ranks agree on."""

    def seconds(self, phase: str, /) -> float: ...


class BudgetClock:
    """How much of a budget is used: of its steps or, if they are null, of seconds of training."""

    def __init__(self, budget: Budget, meter: Clock) -> None:
        self.steps = budget.steps
        self.total: float = (budget.seconds or 0.0) if budget.steps is None else budget.steps
        self._meter = meter

    def used(self, step: int) -> float:
        """Steps or seconds used after `step` steps."""
        return self._meter.seconds("train") if self.steps is None else step

    def over(self, step: int) -> bool:
        """Whether the budget is used up after `step` steps."""
        return self.used(step) >= self.total

    def share(self, step: int) -> float:
        """The position of `step`, counted from 0, between the first step (0) and the last (1)."""
        if self.steps is not None:
            return step / max(1, self.steps - 1)
        return min(1.0, self.used(step) / self.total)

    def within(self, step: int) -> int:
        """The step, at most the last one of a budget in steps."""
        return step if self.steps is None else min(step, self.steps)

    def shown(self, step: int) -> str:
        """`step 12/600`, or `step 12, 3/60 s`."""
        if self.steps is not None:
            return f"step {step}/{self.steps}"
        return f"step {step}, {self.used(step):.0f}/{self.total:g} s"


class RunProgress:
    """Shows steps, training loss, dev accuracy and time left; a context manager.

    It shows nothing where the command shows all its runs together.

    lines: print lines even on a terminal, which can show one bar at a time.
    """

    def __init__(self, name: str, clock: BudgetClock, *, lines: bool = False) -> None:
        self._name, self._budget = name, clock
        self._console = Console()
        self._lines = lines or not self._console.is_terminal
        self._quiet = LIVE in os.environ
        self._start = time.perf_counter()
        self._dev = ""
        columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._bar.add_task("", total=clock.total, shown="")

    def update(self, step: int, loss: float) -> None:
        shown = f"loss {loss:.4f} {self._dev}"
        self._bar.update(self._task, completed=self._budget.used(step), shown=shown)

    def evaluated(self, step: int, dev: dict[str, float]) -> None:
        """Show an evaluation of dev; without a bar, print a line."""
        name = "accuracy" if "accuracy" in dev else "loss"
        self._dev = f"dev {100 * dev[name]:.1f} %" if name == "accuracy" else f"dev {dev[name]:.4g}"
        self._bar.update(self._task, completed=self._budget.used(step))
        if self._lines and step and not self._quiet:
            seconds = time.perf_counter() - self._start
            used = self._budget.used(step)
            left = seconds / used * max(0.0, self._budget.total - used)
            text = f"{self._name}: {self._budget.shown(step)}, dev loss {dev['loss']:.4g}"
            shown = f", {self._dev}" if name == "accuracy" else ""
            print(f"{text}{shown}, {left:.0f} s left", flush=True)

    def __enter__(self) -> "RunProgress":
        if not self._lines:
            self._console.print(self._name)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lines:
            self._bar.stop()
