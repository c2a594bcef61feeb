"""The runs of a suite by rows and columns: cells, their averages, and facts about each cell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from zobench.errors import UserError
from zobench.report.cells import Cell, fill
from zobench.report.checks import chat_stated, refuse_unequal, what_differs
from zobench.report.curves import curve, forwards_to, read_metrics
from zobench.report.numbers import forwards_key, is_share, order
from zobench.report.predictions import Predictions
from zobench.report.published import published_of
from zobench.report.published_columns import published_columns
from zobench.report.runs import Suite
from zobench.report.significance import Facet, Place, intervals, tests
from zobench.report.sweep_order import arranged, known_order, swept

AVERAGE = "average"


@dataclass(frozen=True)
class View:
    """What a table shows of a suite; rows and columns are keys, target a dev accuracy."""

    rows: str
    columns: str
    metric: str
    select: str = "mean"
    baseline: str | None = None
    target: float | None = None


@dataclass(frozen=True)
class Layout:
    """A suite's cells by row and column, with the order in which a table shows them.

    heads: the columns, without that of the averages. swept: the values that the suite's
    experiment lists for each key. intervals: the 95 % intervals, one of the facets, if any.
    """

    suite: Suite
    view: View
    cells: Mapping[Place, Cell]
    names: Sequence[str]
    heads: Sequence[str]
    averages: Mapping[Place, float]
    swept: Mapping[str, Sequence[str]]
    intervals: Sequence[Facet]
    facets: Sequence[Facet]

    @property
    def title(self) -> str:
        metric = self.view.metric
        chat = chat_stated(self.suite, list(self.cells.values()))
        return f"{self.suite.name}: {metric}{' (%)' if is_share(metric) else ''}{chat}"

    @property
    def all_heads(self) -> list[str]:
        """The columns, the averages last."""
        return [*self.heads, *([AVERAGE] if self.averages else [])]

    def of_row(self, name: str) -> list[Cell]:
        """The row's cells."""
        return [cell for cell in self.cells.values() if cell.row == name]

    def differs(self, names: Mapping[str, str] | None = None) -> str:
        """The settings that make numbers incomparable; names: printed names of rows."""
        axes = f"{self.view.rows},{self.view.columns}"
        return what_differs(self.suite, list(self.cells.values()), axes, names)

    def records(self) -> list[dict[str, object]]:
        """A line of the CSV per cell: its own numbers, then those of its facets."""
        view = self.view
        records = {p: cell.record(view.metric, view.target) for p, cell in self.cells.items()}
        for (row, column), mean in self.averages.items():
            own = {"row": row, "column": column, "metric": view.metric, "mean": mean}
            records[row, column] = own
        differs = self.differs()
        for place, record in records.items():
            for facet in self.facets:
                record |= facet.records.get(place, {})
            record["differs"] = differs
        return list(records.values())


def lay_out(suite: Suite, view: View) -> Layout:
    """The layout of a suite; UserError where keys are unknown or a cell mixes budgets."""
    if view.rows == view.columns:
        raise UserError(
            f"rows and columns are both '{view.rows}'; choose another --rows or --columns"
        )
    if suite.metrics:
        suite.check_metric(view.metric)
    cells = _cells(suite, view)
    published, values = published_of(suite), swept(suite)
    order_of = known_order(values, published)
    names, heads = (
        arranged(dict.fromkeys(place[axis] for place in cells), keys, order_of)
        for axis, keys in enumerate((view.rows, view.columns))
    )
    averages = _averages(cells, heads) if view.columns == "task" else {}
    predictions = Predictions(suite.path)
    spans = intervals(cells, predictions, view.metric)
    facets = [
        *spans,
        *tests(cells, predictions, view.metric, view.baseline),
        *published_columns(suite, cells, averages, published, view.metric),
    ]
    return Layout(
        suite,
        view,
        cells,
        names,
        heads,
        averages,
        values,
        spans,
        [facet for facet in facets if facet.texts or facet.notes],
    )


def _cells(suite: Suite, view: View) -> dict[Place, Cell]:
    """The cells, sorted by row and column."""
    frame = suite.frame
    if view.metric not in frame:
        frame = frame.assign(**{view.metric: math.nan})
    if view.target is not None:
        frame = frame.assign(**{forwards_key(view.target): _until(suite, frame, view.target)})
    places = frame.groupby([suite.labels(view.rows), suite.labels(view.columns)])
    groups = {(str(name), str(head)): group for (name, head), group in places}
    for place, runs in groups.items():
        refuse_unequal(suite, runs, place)
    keys = sorted(groups, key=lambda place: (order(place[0]), order(place[1])))
    return {key: fill(suite, *key, groups[key], view.metric, view.select) for key in keys}


def _until(suite: Suite, frame: pd.DataFrame, target: float) -> list[float]:
    """Forwards of each finished run until dev/accuracy reached the target, else NaN."""
    return [
        forwards_to(
            curve(read_metrics(suite.path / folder), "cost/forwards", "dev/accuracy"), target
        )
        if status == "done"
        else math.nan
        for folder, status in zip(frame["folder"], frame["status"], strict=True)
    ]


def _averages(cells: Mapping[Place, Cell], heads: Sequence[str]) -> dict[Place, float]:
    """The mean over several columns, of each row that has a number in all of them."""
    found = {}
    for name in dict.fromkeys(name for name, _ in cells):
        means = [cells[name, head].values.mean() for head in heads if (name, head) in cells]
        if 1 < len(heads) == len(means) and not any(map(math.isnan, means)):
            found[name, AVERAGE] = sum(means) / len(means)
    return found
