"""The notes under the scores of a suite: rules, targets, what is missing, and what was counted."""

import math

from zobench.names import lower_is_better
from zobench.report.checks import what_differs
from zobench.report.numbers import is_share, number
from zobench.report.profiles import MOST
from zobench.report.scoring import IMPROVEMENT, Scores
from zobench.report.statistics import RESAMPLES
from zobench.report.workloads import COSTS, Workload


def notes(scores: Scores) -> list[str]:
    """One note per fact, those that hold for all workloads first."""
    rules, count = scores.rules, len(scores.workloads)
    several = f"{count} workloads" if count > 1 else "1 workload"
    found = [
        f"score: integral of the performance profile over tau from 1 to {MOST:g}, divided by"
        f" {MOST - 1:g}; the profile is the share of {several} in which the cost is at most tau"
        " times the lowest",
        f"cost: {unit(scores)} until the first evaluation with {rules.metric} at the target or"
        " better; median over runs (how many got there), where a run that did not get there,"
        " diverged, failed or is not finished counts as infinite",
        _tuning(scores),
        *(target(scores, workload) for workload in scores.workloads),
    ]
    for workload in scores.workloads:
        cells = [entry.cell for entry in workload.entries.values()]
        # `target` names the budgets
        if differs := what_differs(scores.suite, cells, f"{rules.rows},{rules.workloads},budget."):
            found.append(f"{workload.name}: these runs differ in: {differs}")
        missing = [row for row in scores.rows if row not in workload.entries]
        if missing:
            found.append(
                f"{workload.name}: no run of {', '.join(missing)}, which counts as infinite"
            )
        lowest = min(workload.cost(row) for row in scores.rows if row not in scores.untrained)
        if math.isinf(lowest):
            found.append(f"{workload.name}: no row reached the target")
        elif lowest == 0:
            found.append(
                f"{workload.name}: the target is met before the first step, so that it counts as"
                " reached by every row that ends; choose another with --target-of or --target"
            )
    if scores.untrained:
        found.append(f"without a score, as they take no step: {', '.join(scores.untrained)}")
    return [*found, *_selected(scores), *_aggregates(scores)]


def unit(scores: Scores) -> str:
    """What a cost is, in words."""
    return "seconds of training" if scores.rules.cost == "seconds" else "forwards"


def target(scores: Scores, workload: Workload) -> str:
    """The target and the cap of a workload, and the rules that they follow."""
    rules, key = scores.rules, COSTS[scores.rules.cost]
    sign = "<=" if lower_is_better(rules.metric) else ">="
    percent = " %" if is_share(rules.metric) else ""
    goal = f"{rules.metric} {sign} {number(rules.metric, workload.target)}{percent}"
    cap = f"{number(key, workload.cap)} {unit(scores)}"
    rule = "the largest budget of a run" if rules.cap is None else "as typed"
    spent = {
        row: number(key, entry.spent)
        for row, entry in workload.entries.items()
        if row not in scores.untrained and not math.isnan(entry.spent)
    }
    listed = ", ".join(f"{row} {cost}" for row, cost in spent.items())
    apart = f"; budgets differ: {listed}" if len(set(spent.values())) > 1 else ""
    return f"{workload.name}: target {goal} ({rules.target.text}); cap {cap} ({rule}){apart}"


def _tuning(scores: Scores) -> str:
    if scores.search is None:
        return "tuning: not included in the costs"
    without = [
        f"{row} {workload.name}"
        for workload in scores.workloads
        for row, entry in workload.entries.items()
        if not entry.searched and row not in scores.untrained
    ]
    lacking = f"; none there, and so 0, for {', '.join(without)}" if without else ""
    return (
        f"tuning: included, the {unit(scores)} of all runs of {scores.search.name} with the same"
        f" row and workload, of a held-out variant those of its task (a run of that suite that is"
        f" scored here counts once){lacking}"
    )


def _selected(scores: Scores) -> list[str]:
    """Where settings competed, and what dev could not decide."""
    entries = [(w.name, row, e) for w in scores.workloads for row, e in w.entries.items()]
    rivals = [f"{row} {name} ({e.cell.rivals})" for name, row, e in entries if e.cell.rivals > 1]
    if not rivals:
        return []
    return [f"settings competed, and dev selected as in `zobench table`: {', '.join(rivals)}"]


def _aggregates(scores: Scores) -> list[str]:
    rules = scores.rules
    without = [row for row in scores.rows if row not in scores.aggregates]
    if not scores.aggregates:
        return [f"no aggregates: no row has {rules.test} in every workload"]
    found = [
        f"{rules.test}: mean and median over workloads of the mean over seeds, IQM: mean of the"
        f" middle half of all runs; 95 % interval: bootstrap over seeds within workloads"
        f" ({RESAMPLES} resamples), where each has two or more"
    ]
    if any(IMPROVEMENT in mine for mine in scores.aggregates.values()):
        found.append(
            f"P(better than {rules.baseline}): the probability that a run is better than one of it,"
            f" by {rules.test}, ties counted half, the mean over workloads"
        )
    shown = scores.suite.presets("table", "metric")
    if len(shown) > 1:
        found.append(
            f"the tables of these suites show different metrics ({', '.join(shown)}): the"
            f" aggregates are of {rules.test}, of which means over tasks say little"
        )
    sizes = {len(w.entries[row].cell.values) for row in scores.aggregates for w in scores.workloads}
    if len(sizes) > 1:
        found.append(f"the number of seeds differs: {min(sizes)} to {max(sizes)}")
    if without:
        found.append(f"no aggregates, as a workload has no {rules.test}: {', '.join(without)}")
    return found
