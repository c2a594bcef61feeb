"""The scores of a suite: profiles over its workloads, and aggregates of its test metric."""

import math
from dataclasses import dataclass

from zobench.errors import UserError
from zobench.names import lower_is_better
from zobench.report.aggregates import Estimate, aggregates, improvement_over
from zobench.report.numbers import is_share, order
from zobench.report.profiles import Profile, profiles
from zobench.report.runs import Suite
from zobench.report.selection import SELECTS
from zobench.report.statistics import Numbers
from zobench.report.table import DEFAULTS
from zobench.report.targets import Typed, target_rule
from zobench.report.workloads import COSTS, Rules, Workload, workloads_of

WORKLOADS = ("task", "model", "tuning")
BASELINE = "mezo"
METRIC = "dev/loss"
COMMON = "test/loss"  # the metric of the aggregates where suites show different ones
IMPROVEMENT = "P(better)"


@dataclass(frozen=True)
class Scores:
    """The scores of a suite.

    profiles: the highest score first. untrained: rows whose runs take no step, which have no
    profile. aggregates: by row and name; a row that lacks a workload's test metric has none.
    search: the suite whose runs are the tuning, if it is included.
    """

    suite: Suite
    rules: Rules
    workloads: list[Workload]
    profiles: list[Profile]
    untrained: list[str]
    aggregates: dict[str, dict[str, Estimate]]
    search: Suite | None

    @property
    def rows(self) -> list[str]:
        """All rows, in the order of the table."""
        return [*(profile.row for profile in self.profiles), *self.untrained]


def rules_of(
    suite: Suite,
    *,
    rows: str | None = None,
    workloads: str | None = None,
    baseline: str | None = None,
    metric: str | None = None,
    test: str | None = None,
    target: str | None = None,
    target_of: str | None = None,
    cost: str | None = None,
    cap: str | None = None,
    select: str | None = None,
) -> Rules:
    """The rules by these options; defaults are in the suite's `table:` key.

    Raises:
        UserError: an option is unknown, contradicts another, or names what no run has.
    """
    metric, cost = metric or METRIC, cost or "forwards"
    if not metric.startswith("dev/"):
        raise UserError(f"--metric {metric}: targets are on dev, as in {METRIC}; test only reports")
    suite.check_metric(metric)
    if cost not in COSTS:
        raise UserError(f"--cost {cost}: choose one of {', '.join(COSTS)}")
    select = select or suite.preset("table", "select") or DEFAULTS["select"]
    if select not in SELECTS:
        raise UserError(f"--select {select}: choose one of {', '.join(SELECTS)}")
    if baseline is None and rows is None:  # the suite's own baseline is one of its own rows
        baseline = suite.preset("table", "baseline")
    rows = rows or suite.preset("table", "rows") or DEFAULTS["rows"]
    there = sorted(set(suite.labels(rows)), key=order)
    if baseline is None:
        baseline = BASELINE if BASELINE in there else None
    rule = target_rule(target, target_of, baseline, lower_is_better(metric))
    if (
        isinstance(rule, Typed)
        and is_share(metric)
        and not all(0 <= value <= 1 for value in rule.values.values())
    ):
        raise UserError(f"--target {target}: {metric} is a fraction, such as 0.9")
    for option, row in (("--baseline", baseline), ("--target-of", rule.row)):
        if row is not None and row not in there:
            raise UserError(f"{option} {row}: no such row; there are {', '.join(there)}")
    if workloads is None:
        known = (key for key in WORKLOADS if key in suite.choices)
        workloads = ",".join(key for key in known if key not in _keys(rows))
    return Rules(
        rows=rows,
        workloads=",".join(_keys(workloads)),
        select=select,
        baseline=baseline,
        metric=metric,
        test=_test_metric(suite, test),
        cost=cost,
        target=rule,
        cap=None if cap is None else _cap(cap),
    )


def scored(suite: Suite, rules: Rules, search: Suite | None = None) -> Scores:
    """The scores of a suite. search: the suite whose runs count as tuning; None leaves it out."""
    workloads = workloads_of(suite, rules, search)
    rows = sorted({row for workload in workloads for row in workload.entries}, key=order)
    untrained = [row for row in rows if _untrained(row, workloads)]
    costs = {
        row: [workload.cost(row) for workload in workloads] for row in rows if row not in untrained
    }
    if not costs:
        raise UserError(f"no row of suite '{suite.name}' trains, so there is nothing to score")
    return Scores(
        suite,
        rules,
        workloads,
        profiles(costs),
        untrained,
        _aggregates(rows, workloads, rules),
        search,
    )


def _aggregates(
    rows: list[str], workloads: list[Workload], rules: Rules
) -> dict[str, dict[str, Estimate]]:
    """The aggregates of each row that has a number in every workload."""
    numbers: dict[str, list[Numbers]] = {}
    for row in rows:
        cells = [w.entries[row].cell for w in workloads if row in w.entries]
        values = [cell.values.to_numpy(dtype=float) for cell in cells if len(cell.values)]
        if len(values) == len(workloads):
            numbers[row] = values
    found = {row: aggregates(values) for row, values in numbers.items()}
    sign = -1.0 if lower_is_better(rules.test) else 1.0
    if rules.baseline in numbers:
        others = [sign * values for values in numbers[rules.baseline]]
        for row, values in numbers.items():
            if row != rules.baseline:
                mine = [sign * one for one in values]
                found[row][IMPROVEMENT] = improvement_over(mine, others)
    return found


def _untrained(row: str, workloads: list[Workload]) -> bool:
    """Whether the row has finished runs, none of which took a step."""
    spent = [w.entries[row].spent for w in workloads if row in w.entries]
    known = [cost for cost in spent if not math.isnan(cost)]
    return bool(known) and max(known) == 0


def _test_metric(suite: Suite, given: str | None) -> str:
    if given is not None:
        if not given.startswith("test/"):
            raise UserError(f"--test {given}: must be a test metric, as in test/accuracy")
        suite.check_metric(given)
        return given
    presets = suite.presets("table", "metric") or [DEFAULTS["metric"]]
    if len(presets) > 1:  # every task has a loss
        return COMMON
    return presets[0] if presets[0].startswith("test/") else DEFAULTS["metric"]


def _keys(text: str) -> list[str]:
    return [key.strip() for key in text.split(",") if key.strip()]


def _cap(text: str) -> float:
    try:
        cap = float(text)
    except ValueError:
        cap = math.nan
    if not cap > 0:
        raise UserError(f"--cap {text}: must be a number of forwards or seconds above 0")
    return cap
