"""The notes under a table: metric, seeds, budget, machine."""

import pandas as pd

from zobench.report.cells import Cell
from zobench.report.numbers import counts, is_share, order
from zobench.report.runs import Suite

_MOST = 8  # notes of rows


def footer(suite: Suite, cells: list[Cell], metric: str, target: float | None) -> list[str]:
    """One note per fact, those that hold for the whole table first."""
    unit = " in percent" if is_share(metric) else ""
    notes = [f"{metric}{unit}: mean +- sample standard deviation over seeds (number of runs)"]
    done = pd.concat([cell.done for cell in cells])
    if done.empty:
        return [*notes, "no run is finished"]
    places: dict[str, list[str]] = {}
    for cell in cells:
        if len(cell.done):
            seeds = ", ".join(map(str, cell.done["seed"]))
            places.setdefault(seeds, []).append(f"{cell.row} {cell.column}")
    listed = "; ".join(f"{seeds} ({', '.join(where)})" for seeds, where in places.items())
    notes.append(f"seeds differ: {listed}" if len(places) > 1 else f"seeds: {next(iter(places))}")
    steps = {str(suite.flat[run].get("budget.steps", "-")) for run in done["id"]}
    notes.append(
        f"budget: budget.steps {', '.join(sorted(steps, key=order))}; "
        f"forwards {counts(done['cost/forwards'])}"
    )
    means = pd.DataFrame([cell.record(metric) for cell in cells])[["column", "forwards"]]
    if (means.groupby("column")["forwards"].nunique() > 1).any():
        parts = []
        for row in dict.fromkeys(cell.row for cell in cells):
            own = [cell.done["cost/forwards"] for cell in cells if cell.row == row]
            parts.append(f"{row} {counts(pd.concat(own))}")
        notes.append(f"rows used different numbers of forwards: {'; '.join(parts)}")
    if len(set(means["column"])) > 1:
        notes.append("costs of a row: least to most of its columns, hours of all, highest peak")
    if target is not None:
        place = "" if len(set(means["column"])) == 1 else ", shown where there is one column"
        notes.append(
            f"forwards to {100 * target:g} %: cost/forwards at the first evaluation with at least "
            f"that dev/accuracy, over the finished runs that had one{place}"
        )
    for key in ("commit", "device"):
        if done[key].nunique() > 1:
            notes.append(f"the runs differ in {key}: {', '.join(sorted(set(done[key])))}")
    return notes + _of_rows(done)


def _of_rows(done: pd.DataFrame) -> list[str]:
    """The runs' notes on their data rows, each text once, at most `_MOST`."""
    tasks = done["task"] if "task" in done else ["task"] * len(done)
    pairs = zip(tasks, done["notes"], strict=True)
    found = [f"{task}: {note}" for task, of in pairs if isinstance(of, list) for note in of]
    each = list(dict.fromkeys(found))
    more = [f"and {len(each) - _MOST} notes of rows like these"] if len(each) > _MOST else []
    return each[:_MOST] + more
