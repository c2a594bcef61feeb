"""Workloads, and what each row of a suite needed until it reached their targets."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from zobench.errors import UserError
from zobench.names import lower_is_better, searched
from zobench.report.cells import Cell, fill, spoken
from zobench.report.checks import refuse_unequal
from zobench.report.curves import Row, curve, read_metrics
from zobench.report.numbers import number, order
from zobench.report.runs import STATUSES, Suite, read_suite
from zobench.report.targets import TargetRule

COSTS = {"forwards": "cost/forwards", "seconds": "time/train_s"}


@dataclass(frozen=True)
class Rules:
    """How a suite is scored.

    rows, workloads: keys joined by commas; workloads may be empty, for a single one. metric: of
    dev; test: the metric of the aggregates. cost: a key of COSTS. cap: None is the largest budget.
    """

    rows: str
    workloads: str
    select: str
    baseline: str | None
    metric: str
    test: str
    cost: str
    target: TargetRule
    cap: float | None = None


@dataclass(frozen=True)
class Entry:
    """A row in a workload.

    costs: of each run until it reached the target, infinite if it did not. tuning: the cost of the
    row's search, by `searched` runs. spent: the largest cost of a finished run, NaN without one.
    """

    cell: Cell
    costs: tuple[float, ...]
    spent: float
    tuning: float = 0.0
    searched: int = 0

    @property
    def cost(self) -> float:
        """The median over runs, infinite ones counted, and the cost of tuning."""
        return statistics.median(self.costs) + self.tuning

    @property
    def reached(self) -> int:
        """The number of runs that reached the target."""
        return sum(map(math.isfinite, self.costs))

    def text(self, key: str) -> str:
        """For example `400 (3)`, or `inf (1 of 3; 1 diverged)`. key: the metric of the cost."""
        runs = len(self.costs)
        facts = [f"{runs}" if self.reached == runs else f"{self.reached} of {runs}"]
        lost = Counter(self.cell.runs["status"])
        facts += [f"{lost[status]} {spoken(status)}" for status in STATUSES[1:] if lost[status]]
        return f"{number(key, self.cost)} ({'; '.join(facts)})"


@dataclass(frozen=True)
class Workload:
    """A workload: its target, its cap, and an entry for each row that has runs."""

    name: str
    target: float
    cap: float
    entries: dict[str, Entry]

    @property
    def folders(self) -> set[str]:
        """The folders of its runs."""
        return {folder for entry in self.entries.values() for folder in entry.cell.runs["folder"]}

    def cost(self, row: str) -> float:
        """The row's cost, infinite where it has no run."""
        return self.entries[row].cost if row in self.entries else math.inf


def read_suites(root: Path, names: Sequence[str]) -> Suite:
    """One suite, or several as one, with each run once: a finished copy before one that is not."""
    suites = [read_suite(root, name) for name in dict.fromkeys(names)]
    if len(suites) == 1:
        return suites[0]
    records = [
        record | {"folder": f"{suite.name}/{record['folder']}"}
        for suite in suites
        for record in suite.frame.to_dict("records")
    ]
    records.sort(key=lambda record: STATUSES.index(record["status"]))
    frame = pd.DataFrame(records).drop_duplicates("id")
    choices = sorted({choice for suite in suites for choice in suite.choices})
    for choice in choices:
        frame[choice] = frame[choice].fillna("-")
    return Suite(
        " + ".join(suite.name for suite in suites),
        root,
        frame.sort_values(["setting", "seed"], ignore_index=True),
        {run: config for suite in suites for run, config in suite.configs.items()},
        tuple(choices),
        tuple(sorted({metric for suite in suites for metric in suite.metrics})),
    )


def workloads_of(suite: Suite, rules: Rules, search: Suite | None = None) -> list[Workload]:
    """The workloads of a suite in the order of their names.

    Args:
        search: runs whose costs count as the tuning of the row and workload that they share.

    Raises:
        UserError: keys are unknown, a cell mixes budgets, or a workload has no target.
    """
    x, lower = COSTS[rules.cost], lower_is_better(rules.metric)

    @cache
    def rows_of(folder: str) -> list[Row]:
        return read_metrics(suite.path / folder)

    def best(cell: Cell, forwards: float) -> list[float]:
        found = []
        for folder in cell.done["folder"]:
            points = curve(rows_of(folder), COSTS["forwards"], rules.metric)
            values = points["y"][points["x"] <= forwards].dropna()
            found += [float(values.min() if lower else values.max())] if len(values) else []
        return found

    cells = _cells(suite, rules)
    done = [folder for cell in cells.values() for folder in cell.done["folder"]]
    curves = {folder: curve(rows_of(folder), x, rules.metric) for folder in done}
    if all(points.empty for points in curves.values()):
        raise UserError(
            f"no finished run of suite '{suite.name}' has {rules.metric} against {x} in its"
            " metrics.jsonl; choose another --metric or --cost"
        )
    names = sorted({name for _, name in cells}, key=order)
    rules.target.check(names)
    tuning = _tuning(suite, rules, search) if search is not None else {}
    found = []
    for name in names:
        here = {row: cell for (row, where), cell in cells.items() if where == name}
        goal = rules.target.value(name, _by_row(here, best))
        ends = {row: _end(cell, curves) for row, cell in here.items()}
        largest = max((end for end in ends.values() if not math.isnan(end)), default=0.0)
        cap = largest if rules.cap is None else rules.cap
        entries = {}
        for row, cell in here.items():
            costs = _costs(cell, curves, goal, cap, lower)
            # Where a suite is its own search, its selected runs are counted by `costs`.
            own = {suite.path / folder for folder in cell.runs["folder"]}
            added = [cost for path, cost in tuning.get((row, name), []) if path not in own]
            entries[row] = Entry(cell, costs, ends[row], sum(added), len(added))
        found.append(Workload(name, goal, cap, entries))
    return found


def _by_row(
    cells: Mapping[str, Cell], best: Callable[[Cell, float], list[float]]
) -> Callable[[str, float], list[float]]:
    """`best` by a row's name; nothing for a row without a cell."""
    return lambda row, forwards: best(cells[row], forwards) if row in cells else []


def _cells(suite: Suite, rules: Rules) -> dict[tuple[str, str], Cell]:
    """A cell per row and workload, at the setting that dev selects."""
    frame = suite.frame
    if rules.test not in frame:
        frame = frame.assign(**{rules.test: math.nan})
    found = {}
    for (row, name), runs in frame.groupby([suite.labels(rules.rows), _names(suite, rules)]):
        refuse_unequal(suite, runs, (str(row), str(name)))
        cell = fill(suite, str(row), str(name), runs, rules.test, rules.select)
        found[str(row), str(name)] = cell
    return dict(sorted(found.items(), key=lambda item: order(item[0][0])))


def _names(suite: Suite, rules: Rules) -> pd.Series:
    """The workload of each run: the values of the keys that tell workloads apart."""
    if not rules.workloads:
        return pd.Series(suite.name, index=suite.frame.index)
    return suite.labels(",".join(_telling(suite, rules)))


def _telling(suite: Suite, rules: Rules) -> list[str]:
    """The keys without those whose values follow from the keys before them; at least one."""
    keys = rules.workloads.split(",")
    kept, count = keys[:0], 1
    for key in keys:
        apart = suite.labels(",".join([*kept, key])).nunique()
        if apart > count:
            kept, count = [*kept, key], apart
    return kept or keys[:1]


def _tuning(
    suite: Suite, rules: Rules, search: Suite
) -> dict[tuple[str, str], list[tuple[Path, float]]]:
    """The folder and cost of each run of the search, by row and workload of the suite."""
    # Matched by all keys: those that do not differ in the suite may differ in the search. The
    # search of a task is that of its held-out variants, too.
    rows, names = suite.labels(rules.rows), _names(suite, rules)
    every, theirs = names, pd.Series(suite.name, index=search.frame.index)
    if rules.workloads:
        every, theirs = suite.labels(rules.workloads), search.labels(rules.workloads)
    sought: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row, full, name in zip(rows, every, names, strict=True):
        for label in {(row, full), (searched(row), searched(full))}:
            sought.setdefault(label, set()).add((row, name))
    found: dict[tuple[str, str], list[tuple[Path, float]]] = {}
    runs = zip(search.frame["folder"], search.labels(rules.rows), theirs, strict=True)
    for folder, row, full in runs:
        path = search.path / folder
        cost = spent(path, COSTS[rules.cost])
        for cell in sought.get((row, full), ()):
            found.setdefault(cell, []).append((path, cost))
    return found


def spent(folder: Path, key: str) -> float:
    """The cost of a run of any status, up to the last line that it has written."""
    known = [row[key] for row in read_metrics(folder) if key in row]
    return max((cost for cost in known if not math.isnan(cost)), default=0.0)


def _end(cell: Cell, curves: Mapping[str, pd.DataFrame]) -> float:
    """The largest cost at an evaluation of a finished run, NaN without one."""
    ends = [curves[folder]["x"].max() for folder in cell.done["folder"]]
    return max((float(end) for end in ends if not math.isnan(end)), default=math.nan)


def _costs(
    cell: Cell, curves: Mapping[str, pd.DataFrame], goal: float, cap: float, lower: bool
) -> tuple[float, ...]:
    """Of each run of the cell; of one that is not finished, or not selected, it is infinite."""
    finished = set(cell.done["folder"])
    return tuple(
        _first(curves[folder], goal, cap, lower) if folder in finished else math.inf
        for folder in cell.runs["folder"]
    )


def _first(points: pd.DataFrame, goal: float, cap: float, lower: bool) -> float:
    """x of the first evaluation at the goal or better, infinite if there is none up to the cap."""
    there = points["y"] <= goal if lower else points["y"] >= goal
    x = points["x"][there & (points["x"] <= cap)]
    return float(x.iloc[0]) if len(x) else math.inf
