"""A table as in papers: one line per method, the best of each column marked, few notes.

Costs are columns where there is a single column of numbers. What the table leaves out is in
`zobench.report.detailed`; what has no number is listed.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from zobench.report.best import Span, best_and_close
from zobench.report.cells import Cell, costs, costs_header, spoken
from zobench.report.layout import Layout
from zobench.report.method_names import heading, readable
from zobench.report.numbers import counts, is_share, number, order, spread
from zobench.report.runs import STATUSES
from zobench.report.sheet import Sheet
from zobench.report.significance import Place

LISTED = "--details lists them"


def brief(made: Layout) -> Sheet:
    """The sheet of a layout without facets; --details has them."""
    metric, target, heads = made.view.metric, made.view.target, made.all_heads
    names = readable(made.view.rows, made.names)
    titles = readable(made.view.columns, made.heads)
    found = [cell for cell in made.cells.values() if len(cell.values)]
    uneven = len({len(cell.values) for cell in found}) > 1
    numbers = {place: number(metric, mean) for place, mean in made.averages.items()}
    for place, cell in made.cells.items():
        count = f" ({len(cell.values)})" if uneven and len(cell.values) else ""
        numbers[place] = spread(metric, cell.values) + count
    single = len(heads) == 1
    until = [f"forwards to {100 * target:g} %"] if target is not None and single else []
    body = []
    for name in made.names:
        mine = made.of_row(name)
        ends = costs(mine) if single else []
        if until and target is not None:
            ends.append(mine[0].forwards_to(target))
        body.append([names[name], *[numbers.get((name, head), "-") for head in heads], *ends])
    ends = [*costs_header(list(made.cells.values())), *until] if single else []
    best, close = _marks(made)
    return Sheet(
        title=made.title,
        header=[heading(made.view.rows), *[titles.get(head, head) for head in heads], *ends],
        body=body,
        notes=[
            *_facts(made, names, found, uneven),
            *_missing(made, names, titles),
            *_elsewhere(made),
        ],
        records=made.records(),
        differs=made.differs(names),
        best=best,
        close=close,
    )


def _marks(made: Layout) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    """The best of each column, and those within noise of it, as indices of line and column."""
    means = {place: float(cell.values.mean()) for place, cell in made.cells.items()}
    means |= made.averages
    spans = _spans(made)
    best, close = set(), set()
    for column, head in enumerate(made.all_heads, start=1):
        own = {name: means[name, head] for name in made.names if (name, head) in means}
        intervals = {name: spans[name, head] for name in own if (name, head) in spans}
        first, near = best_and_close(made.view.metric, own, intervals)
        best |= {(made.names.index(name), column) for name in first}
        close |= {(made.names.index(name), column) for name in near}
    return frozenset(best), frozenset(close)


def _spans(made: Layout) -> dict[Place, Span]:
    found = {}
    for facet in made.intervals:
        for place, record in facet.records.items():
            span = (float(record["interval_low"]), float(record["interval_high"]))
            if not any(map(math.isnan, span)):
                found[place] = span
    return found


def _facts(
    made: Layout, names: Mapping[str, str], found: Sequence[Cell], uneven: bool
) -> list[str]:
    """What a number is, over which seeds, and at which budget."""
    metric = made.view.metric
    unit = ", in percent" if is_share(metric) else ""
    if not found:
        return [f"{metric}{unit}: no run has a number yet"]
    runs = [cell.done.loc[cell.values.index] for cell in found]
    seeds = sorted({str(seed) for done in runs for seed in done["seed"]}, key=order)
    if len(seeds) == 1:
        what = f"one run, seed {seeds[0]}"
    else:
        what = f"mean +- sample standard deviation over seeds {', '.join(seeds)}"
        what += ", as many as stand in parentheses" if uneven else ""
    ids = [run for done in runs for run in done["id"]]
    steps = sorted({str(made.suite.flat[run].get("budget.steps", "-")) for run in ids}, key=order)
    budget = [f"{', '.join(steps)} step{'s' * (steps != ['1'])}"] if steps != ["-"] else []
    rows: dict[str, list[pd.Series]] = {names[cell.row]: [] for cell in found}
    for cell in found:
        rows[names[cell.row]].append(cell.done["cost/forwards"])
    spent = {name: counts(pd.concat(forwards)) for name, forwards in rows.items()}
    if len(set(spent.values())) == 1:
        budget.append(f"{next(iter(spent.values()))} forwards")
    elif len(made.all_heads) > 1:  # else there is a column
        budget.append(f"forwards: {', '.join(f'{name} {n}' for name, n in spent.items())}")
    return ["; ".join([f"{metric}{unit}: {what}", *budget])]


def _missing(made: Layout, names: Mapping[str, str], titles: Mapping[str, str]) -> list[str]:
    """The cells without a number and why, what else is not in a mean, and what has no run."""
    empty: dict[str, dict[str, list[str]]] = {}
    fewer: dict[str, dict[str, list[str]]] = {}
    for name in made.names:
        for head in made.heads:
            cell = made.cells.get((name, head))
            lost = _lost(cell) if cell else "no run"
            if lost:
                group = empty if cell is None or cell.values.empty else fewer
                group.setdefault(lost, {}).setdefault(names[name], []).append(titles[head])
    single = len(made.heads) == 1
    notes = [f"-: {_listed(empty, single)}"] if empty else []
    notes += [f"not in the mean: {_listed(fewer, single)}"] if fewer else []
    keys = [key.strip() for key in f"{made.view.rows},{made.view.columns}".split(",")]
    for key in keys:
        there = set(made.suite.labels(key))
        if absent := [value for value in made.swept.get(key, []) if value not in there]:
            notes.append(f"no run of {key} {', '.join(absent)}, which the experiment has, too")
    return notes


def _lost(cell: Cell) -> str:
    """Why a cell has no number, or runs that do not count, such as `1 diverged, 2 failed`.

    All of one kind are that kind without a count, as the same may be true of several cells.
    """
    if cell.rivals > 1 and not cell.setting and "done" in set(cell.runs["status"]):
        return f"{cell.rivals} settings that dev could not tell apart"
    lost = cell.lost
    if len(lost) == 1 and sum(lost.values()) == len(cell.runs):
        return spoken(next(iter(lost)))
    return ", ".join(f"{count} {spoken(what)}" for what, count in lost.items())


def _listed(groups: Mapping[str, Mapping[str, Sequence[str]]], single: bool) -> str:
    """For example `no run: MeZO squad, drop; Zero-shot drop`."""
    parts = []
    for why, rows in groups.items():
        where = [name if single else f"{name} {', '.join(heads)}" for name, heads in rows.items()]
        parts.append(f"{why}: {(', ' if single else '; ').join(where)}")
    return "; ".join(parts)


def _elsewhere(made: Layout) -> list[str]:
    """What --details explains."""
    rivals = [cell.rivals for cell in made.cells.values() if cell.rivals > 1]
    parts = []
    if rivals:
        parts.append(f"dev selected, among up to {max(rivals)} settings a cell")
    remarks = {
        str(note)
        for cell in made.cells.values()
        for notes in cell.done["notes"]
        if isinstance(notes, list)
        for note in notes
    }
    statuses = made.suite.frame["status"]
    lost = {status: int((statuses == status).sum()) for status in STATUSES[1:]}
    if any(lost.values()):
        shown = [f"{count} {spoken(status)}" for status, count in lost.items() if count]
        parts.append(f"of {len(statuses)} runs {', '.join(shown)}")
    if remarks:
        parts.append(f"{len(remarks)} note{'s' if len(remarks) > 1 else ''} on the data's rows")
    return [f"{'; '.join(parts)} ({LISTED})"] if parts else []
