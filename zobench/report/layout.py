"""The runs of a suite as a sheet: cells in rows and columns, with intervals, tests and published
numbers.

Of a single column the intervals, tests and published numbers are columns; of several they are
lines under each row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from zobench.errors import UserError
from zobench.report.cells import Cell, costs, costs_header, fill
from zobench.report.checks import refuse_unequal, what_differs
from zobench.report.curves import curve, forwards_to, read_metrics
from zobench.report.footer import footer
from zobench.report.numbers import forwards_key, is_share, number, order
from zobench.report.predictions import Predictions
from zobench.report.published import published_of
from zobench.report.published_columns import published_columns
from zobench.report.runs import Suite
from zobench.report.sheet import UNDER, Sheet
from zobench.report.significance import Facet, Place, intervals, tests

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


def lay_out(suite: Suite, view: View) -> Sheet:
    """The sheet of a suite; UserError where keys are unknown or a cell mixes budgets."""
    if view.rows == view.columns:
        raise UserError(
            f"rows and columns are both '{view.rows}'; choose another --rows or --columns"
        )
    if suite.metrics:
        suite.check_metric(view.metric)
    cells = _cells(suite, view)
    names, heads = (list(dict.fromkeys(key[axis] for key in cells)) for axis in (0, 1))
    heads.sort(key=order)
    predictions = Predictions(suite.path)
    averages = _averages(cells, heads) if view.columns == "task" else {}
    facets = [
        *intervals(cells, predictions, view.metric),
        *tests(cells, predictions, view.metric, view.baseline),
        *published_columns(suite, cells, averages, published_of(suite), view.metric),
    ]
    # An average mixes metrics of several tasks: shown where a paper has one to compare with.
    if any(place in facet.texts for facet in facets for place in averages):
        heads.append(AVERAGE)
    facets = [facet for facet in facets if facet.texts or facet.notes]
    shown = [facet for facet in facets if facet.texts]
    noted = [key for key in cells if cells[key].notes]
    marks = {key: f" [{count}]" for count, key in enumerate(noted, start=1)}
    numbers = {key: cell.text(view.metric, marks.get(key, "")) for key, cell in cells.items()}
    numbers |= {key: number(view.metric, mean) for key, mean in averages.items()}
    single = len(heads) == 1
    until = [f"forwards to {100 * view.target:g} %"] if view.target is not None and single else []
    header = [view.rows, *heads, *([facet.title for facet in shown] if single else [])]
    body = []
    for name in names:
        mine = [cell for cell in cells.values() if cell.row == name]
        ends = costs(mine)
        if view.target is not None and single:
            ends.append(mine[0].forwards_to(view.target))
        here = [(name, head) for head in heads]
        beside = [facet.texts.get(here[0], "-") for facet in shown] if single else []
        body.append([name, *[numbers.get(place, "-") for place in here], *beside, *ends])
        body += [] if single else _under(shown, here, len(ends))
    listed = [f"{marks[k].strip()} {', '.join(k)}: {n}" for k in noted for n in cells[k].notes]
    facts = footer(suite, list(cells.values()), view.metric, view.target)
    facts += [note for facet in facets for note in facet.notes]
    differs = what_differs(suite, list(cells.values()), f"{view.rows},{view.columns}")
    return Sheet(
        title=f"{suite.name}: {view.metric}{' (%)' if is_share(view.metric) else ''}",
        header=[*header, *costs_header(list(cells.values())), *until],
        body=body,
        notes=[*facts, *listed],
        records=_records(cells, averages if AVERAGE in heads else {}, facets, view, differs),
        differs=differs,
    )


def _cells(suite: Suite, view: View) -> dict[Place, Cell]:
    """The cells in the order of rows and columns."""
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


def _under(facets: Sequence[Facet], places: Sequence[Place], costs: int) -> list[list[str]]:
    """A line per facet that has texts for the row."""
    return [
        [UNDER + facet.title, *[facet.texts.get(place, "-") for place in places], *[""] * costs]
        for facet in facets
        if any(place in facet.texts for place in places)
    ]


def _records(
    cells: Mapping[Place, Cell],
    averages: Mapping[Place, float],
    facets: Sequence[Facet],
    view: View,
    differs: str,
) -> list[dict[str, object]]:
    """A line of the CSV per cell: its own numbers, then those of its facets."""
    records = {place: cell.record(view.metric, view.target) for place, cell in cells.items()}
    for (row, column), mean in averages.items():
        records[row, column] = {"row": row, "column": column, "metric": view.metric, "mean": mean}
    for place, record in records.items():
        for facet in facets:
            record |= facet.records.get(place, {})
        record["differs"] = differs
    return list(records.values())
