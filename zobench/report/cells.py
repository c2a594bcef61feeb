"""One cell of a table, or one line of a figure: the runs it shows, and those without a number."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from zobench.report.numbers import counts, forwards_key, number, spread
from zobench.report.runs import STATUSES, Suite
from zobench.report.selection import rivals, selected

EXTRAS = {"forwards": "cost/forwards", "peak GiB": "memory/peak_gib", "s/step": "time/step_s"}


@dataclass(frozen=True)
class Cell:
    """One cell: the runs of the setting it shows (of all, if none could be chosen), and notes."""

    row: str
    column: str
    setting: str
    rivals: int
    runs: pd.DataFrame
    values: pd.Series
    notes: list[str]

    @cached_property
    def done(self) -> pd.DataFrame:
        """The finished runs, whose numbers count."""
        return self.runs[self.runs["status"] == "done"] if self.setting else self.runs[:0]

    @property
    def lost(self) -> dict[str, int]:
        """The number of runs without a number to show, by status."""
        counts = Counter(self.runs["status"])
        counts["without a number"] = len(self.done) - len(self.values)
        return {what: counts[what] for what in (*STATUSES[1:], "without a number") if counts[what]}

    @property
    def hours(self) -> float:
        """Of the device, all finished runs together, from start to end; NaN if one is unknown."""
        total = self.done["time/total_s"].sum(skipna=False) if len(self.done) else math.nan
        return float(total) / 3600

    def text(self, metric: str, mark: str) -> str:
        """For example `91.2 +- 1.0 (2; 1 diverged) [1]`: mean, std, runs, what is missing, note."""
        lost = [f"{count} {spoken(what)}" for what, count in self.lost.items()]
        if self.rivals > 1 and not self.setting:
            lost.append(f"{self.rivals} settings")
        missing = f"; {', '.join(lost)}" if lost else ""
        return f"{spread(metric, self.values)} ({len(self.values)}{missing}){mark}"

    def forwards_to(self, target: float) -> str:
        """For example `1200 +- 100 (2 of 3)`: the runs that reached the target, if not all did."""
        reached = self.done[forwards_key(target)].dropna()
        some = f" ({len(reached)} of {len(self.done)})" if 0 < len(reached) < len(self.done) else ""
        return spread("cost/forwards", reached) + some

    def record(self, metric: str, target: float | None = None) -> dict[str, Any]:
        """The numbers behind the cell; with a target also the forwards until it was reached."""
        counts = Counter(self.runs["status"])
        until: dict[str, Any] = {}
        if target is not None:
            key, reached = forwards_key(target), self.done[forwards_key(target)].dropna()
            until = {key: reached.mean(), f"{key}_std": reached.std(), f"{key}_n": len(reached)}
        return {
            "row": self.row,
            "column": self.column,
            "metric": metric,
            "mean": self.values.mean(),
            "std": self.values.std(),
            "n": len(self.values),
            **{status: counts[status] for status in STATUSES},
            "setting": self.setting,
            "settings": self.rivals,
            "seeds": " ".join(map(str, self.done["seed"])),
            **{name.split("/")[1]: self.done[name].mean() for name in EXTRAS.values()},
            "hours": self.hours,
            **until,
            "note": " | ".join(self.notes),
        }


def fill(
    suite: Suite, row: str, column: str, runs: pd.DataFrame, metric: str, select: str = "mean"
) -> Cell:
    """Choose the setting that the cell shows (`seed`: of each seed) and note the others."""
    labels = suite.differences(runs)
    setting, shown = selected(runs, select)
    done = shown[shown["status"] == "done"] if setting else shown[:0]
    finite = done[metric].abs() < math.inf
    notes = [rivals(runs, labels, setting, select)] if len(labels) > 1 else []
    for (status, reason), group in runs[runs["status"] != "done"].groupby(["status", "reason"]):
        why = f" ({reason})" if reason else ""
        notes.append(f"{spoken(str(status))}{why}: {', '.join(group['folder'])}")
    if not finite.all():
        notes.append(f"done, but without a finite {metric}: {', '.join(done['folder'][~finite])}")
    return Cell(row, column, setting, len(labels), shown, done[metric][finite], notes)


def costs(cells: Sequence[Cell]) -> list[str]:
    """Forwards, device hours, peak GiB and s/step of a row, as the columns are headed.

    Means over the runs of a cell, but hours are their sum. Of several cells: from the smallest to
    the largest, the hours of all, and the highest peak.
    """
    forwards, peak, pace = (
        pd.Series([cell.done[key].mean() for cell in cells]) for key in EXTRAS.values()
    )
    hours = pd.Series([cell.hours for cell in cells]).sum(min_count=1)
    return [counts(forwards), number("", hours), number("", peak.max()), counts(pace)]


def costs_header(cells: Sequence[Cell]) -> list[str]:
    """What `costs` are; the hours by the kind of device."""
    devices = {device for cell in cells for device in cell.done["device"]}
    kind = "GPU-hours" if devices else "device hours"
    if devices & {"cpu", "None"}:
        kind = "CPU-hours" if devices == {"cpu"} else "device hours"
    forwards, peak, pace = EXTRAS
    return [forwards, kind, peak, pace]


def spoken(status: str) -> str:
    """A status in words: a run without a result may still be running."""
    return "running or stopped" if status == "unfinished" else status
