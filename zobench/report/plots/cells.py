"""The runs of a line, a bar or a point of a figure: the cells of the corresponding table."""

import math
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from zobench.errors import UserError
from zobench.report.cells import Cell, fill
from zobench.report.numbers import order
from zobench.report.runs import STATUSES, Suite


def grouping(suite: Suite, by: str, *shown: str) -> tuple[pd.Series, pd.Series]:
    """The panel and the row of each run: a panel per task, a row per value of `by`.

    by: choices or config keys joined by commas, or `setting`. shown: keys that the axes show; the
    task among them needs no panels. UserError for unknown keys, or when nothing is finished.
    """
    frame = suite.frame
    if not (frame["status"] == "done").any():
        lost = Counter(frame["status"])
        counts = ", ".join(f"{lost[status]} {status}" for status in STATUSES if lost[status])
        raise UserError(f"suite '{suite.name}' has no finished run to plot: {counts}")
    keys = [key.strip() for key in by.split(",")]
    if both := set(keys) & set(shown):
        raise UserError(f"x and lines are both '{both.pop()}'; choose another --x or --lines")
    panels = pd.Series("", index=frame.index)
    if "task" in suite.choices and "task" not in (*shown, *keys) and frame["task"].nunique() > 1:
        panels = suite.labels("task")  # dev selects, and the dev splits of tasks do not compare
    return panels, _settings(suite, panels) if keys == ["setting"] else suite.labels(by)


def _settings(suite: Suite, panels: pd.Series) -> pd.Series:
    """Each run's optimizer, where there are several, and the differences of its setting.

    Optimizers differ in many keys, so only settings of the same optimizer are compared by keys.
    """
    optimizers = suite.labels("optimizer")
    apart = suite.apart([panels, optimizers])
    if optimizers.nunique() == 1:
        return apart.where(apart != "", optimizers)
    return optimizers + apart.where(apart == "", ", " + apart)


def pick(suite: Suite, row: str, column: str, runs: pd.DataFrame, metric: str) -> Cell:
    """The cell that the suite's table would have for these runs."""
    return fill(suite, row, column, runs, metric, suite.preset("table", "select") or "mean")


def cells(suite: Suite, by: str, metric: str) -> list[Cell]:
    """A cell per row and panel (its column), at the setting that dev selects, in their order."""
    panels, labels = grouping(suite, by)
    frame = suite.frame if metric in suite.frame else suite.frame.assign(**{metric: math.nan})
    found = [
        pick(suite, str(label), str(panel), runs, metric)
        for (panel, label), runs in frame.groupby([panels, labels])
    ]
    return sorted(found, key=lambda cell: (order(cell.column), order(cell.row)))


def place(cell: Cell) -> str:
    """The cell by name: its row and, where there are several, its panel."""
    return ", ".join(filter(None, (cell.row, cell.column)))


def missing(shown: Iterable[Cell]) -> str:
    """The statuses of the runs that have no number, such as `1 diverged, 2 failed`."""
    lost: Counter[str] = Counter()
    for cell in shown:
        lost.update(cell.lost)
        lost["undecided"] += not cell.setting and cell.rivals > 1
    return ", ".join(f"{count} {what}" for what, count in lost.items() if count)


def selected(shown: Iterable[Cell]) -> str:
    """What a caption adds where dev had to select between settings."""
    competed = any(cell.rivals > 1 and cell.setting for cell in shown)
    return "; dev selected between settings" if competed else ""


def notes(shown: Iterable[Cell]) -> list[str]:
    """The settings that competed with the shown ones, and the names of missing runs."""
    return [f"{place(cell)}: {note}" for cell in shown for note in cell.notes]
