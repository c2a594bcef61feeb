"""The numbers of a figure: lines over a metric of the runs, or over one of their settings.

A cell of the table and a line, or a point of a line, hold the same runs: `cells.fill` picks both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from zobench.errors import UserError
from zobench.report.cells import Cell
from zobench.report.curves import Row, curve, mean_curve, read_metrics
from zobench.report.numbers import order
from zobench.report.plots.cells import grouping, missing, pick
from zobench.report.runs import Suite


@dataclass(frozen=True)
class Line:
    """One line: `points` has x, mean, std (sample, over seeds) and n; `cells` are its sources.

    x is text where it names categories. A level has one point and no x: a run without training, or
    one without the setting on the x axis.
    """

    panel: str
    label: str
    points: pd.DataFrame
    cells: list[Cell]
    level: bool = False

    @property
    def place(self) -> str:
        """The line by name: its label and, where there are several, its panel."""
        return ", ".join(filter(None, (self.label, self.panel)))

    def legend(self) -> str:
        """For example `mezo (2; 1 diverged)`: the runs of a point, and those with no number."""
        sizes = sorted(set(self.points["n"])) or [0]
        runs = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        lost = missing(self.cells)
        return f"{self.label} ({runs}{lost and '; '}{lost})"


@dataclass(frozen=True)
class Chart:
    """A figure before it is drawn; `curves` if x is a metric, `categories` if x is text."""

    suite: str
    x: str
    y: str
    by: str
    lines: list[Line]
    curves: bool
    categories: tuple[str, ...] = ()


def chart(suite: Suite, x: str, y: str, by: str) -> Chart:
    """The lines of y against x: one per value of `by`, and one panel per task.

    x: a key of metrics.jsonl, or a choice or config key of the runs. by: choices or config keys
    joined by commas, or `setting`. UserError for unknown keys, or when nothing is finished.
    """
    panels, labels = grouping(suite, by, x)
    done = suite.frame[suite.frame["status"] == "done"]
    rows = {
        run: read_metrics(suite.path / folder)
        for run, folder in zip(done["id"], done["folder"], strict=True)
    }
    metrics = {key for lines in rows.values() for row in lines for key in row}
    if x in metrics:
        if y not in metrics:
            known = ", ".join(sorted(metrics))
            raise UserError(f"no metrics.jsonl of suite '{suite.name}' has '{y}'; known: {known}")
        return Chart(suite.name, x, y, by, _curves(suite, x, y, panels, labels, rows), True)
    try:
        places = suite.labels(x)
    except UserError as error:
        known = ", ".join(sorted(metrics)) or "none"
        raise UserError(f"{error}; the metrics that curves can be drawn against: {known}") from None
    if y not in suite.metrics:
        known = ", ".join(suite.metrics)
        raise UserError(f"no run of suite '{suite.name}' has the result '{y}'; known: {known}")
    lines = _points(suite, y, panels, labels, places)
    if (numbers := _numeric(lines)) is not None:
        return Chart(suite.name, x, y, by, numbers, False)
    return Chart(suite.name, x, y, by, lines, False, tuple(sorted(set(places), key=order)))


def _curves(
    suite: Suite,
    x: str,
    y: str,
    panels: pd.Series,
    labels: pd.Series,
    rows: Mapping[str, list[Row]],
) -> list[Line]:
    """A line per panel and label: the mean of the curves of the setting that dev selects."""
    found = {run: curve(lines, x, y) for run, lines in rows.items()}
    ends = {run: one["y"].dropna() for run, one in found.items()}
    finite = [ends[run].iloc[-1] if len(ends.get(run, ())) else math.nan for run in suite.frame.id]
    # Under a name of its own: y may be the dev accuracy, by which the settings are selected.
    name = f"{y} against {x}"
    frame = suite.frame.assign(**{name: finite})
    lines = []
    for (panel, label), runs in frame.groupby([panels, labels]):
        cell = pick(suite, str(label), str(panel), runs, name)
        shown = [found[run] for run in cell.done.loc[cell.values.index, "id"]]
        points = mean_curve(shown) if shown else _frame([])
        level = len(points) == 1 and points["x"].iloc[0] == 0
        lines.append(Line(str(panel), str(label), points, [cell], level))
    lines.sort(key=lambda line: (order(line.panel), order(line.label)))
    if all(line.level for line in lines if len(line.points)):  # nothing to be a level of
        return [replace(line, level=False) for line in lines]
    return lines


def _points(
    suite: Suite, y: str, panels: pd.Series, labels: pd.Series, places: pd.Series
) -> list[Line]:
    """A line per panel and label, with a point per place: dev selects for each point."""
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for (panel, label, place), runs in suite.frame.groupby([panels, labels, places]):
        where = ", ".join(filter(None, (str(panel), str(place))))
        line = cells.setdefault((str(panel), str(label)), {})
        line[str(place)] = pick(suite, str(label), where, runs, y)
    lines = []
    for panel, label in sorted(cells, key=lambda key: (order(key[0]), order(key[1]))):
        line = dict(sorted(cells[panel, label].items(), key=lambda item: order(item[0])))
        points = [
            (place, cell.values.mean(), cell.values.std(), len(cell.values))
            for place, cell in line.items()
            if len(cell.values)
        ]
        lines.append(Line(panel, label, _frame(points), list(line.values())))
    return lines


def _numeric(lines: list[Line]) -> list[Line] | None:
    """The lines with x as numbers, None if they are none; without the key (`-`) it is a level."""
    numbers = []
    for line in lines:
        without = list(line.points["x"]) == ["-"]
        try:
            x = [math.nan] if without else [float(place) for place in line.points["x"]]
        except ValueError:
            return None
        numbers.append(replace(line, points=line.points.assign(x=x), level=without))
    if any(abs(x) == math.inf for line in numbers for x in line.points["x"]):
        return None
    return None if all(line.level for line in numbers if len(line.points)) else numbers


def _frame(points: list[tuple[str, float, float, int]]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["x", "mean", "std", "n"])
