"""What a person sees of a running run: a bar on a terminal, lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zobench.run.pace import Pace


class RunProgress:
    """Shows steps, training loss, dev accuracy and time left; a context manager.

    lines: no bar, even on a terminal, which can show one at a time.
    """

    def __init__(self, name: str, pace: Pace, *, lines: bool = False) -> None:
        self._name, self._pace = name, pace
        self._console = Console()
        self._lines = lines or not self._console.is_terminal
        self._start = time.perf_counter()
        self._dev = ""
        columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._bar.add_task("", total=pace.total, shown="")

    def update(self, step: int, loss: float) -> None:
        shown = f"loss {loss:.4f} {self._dev}"
        self._bar.update(self._task, completed=self._pace.spent(step), shown=shown)

    def evaluated(self, step: int, dev: dict[str, float]) -> None:
        """Show an evaluation of dev; off a terminal this is the line that gets printed."""
        name = "accuracy" if "accuracy" in dev else "loss"
        self._dev = f"dev {100 * dev[name]:.1f} %" if name == "accuracy" else f"dev {dev[name]:.4g}"
        self._bar.update(self._task, completed=self._pace.spent(step))
        if self._lines and step:
            seconds = time.perf_counter() - self._start
            spent = self._pace.spent(step)
            left = seconds / spent * max(0.0, self._pace.total - spent)
            text = f"{self._name}: {self._pace.shown(step)}, dev loss {dev['loss']:.4g}"
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
