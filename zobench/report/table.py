"""`zobench table SUITE`: run folders to a table of mean and spread over seeds.

Settings are never averaged together, and where several compete for a cell the dev split chooses.
"""

import math
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from zobench.errors import UserError
from zobench.report.curves import curve, forwards_to, read_metrics
from zobench.report.formats import (
    EXTRAS,
    FORMATS,
    Cell,
    Sheet,
    counts,
    forwards_key,
    is_share,
    number,
)
from zobench.report.runs import Suite, flatten, read_suite, suite_parser

DEFAULTS = {"rows": "optimizer", "columns": "task", "metric": "test/accuracy"}


def table(
    root: Path,
    suite: str,
    *,
    rows: str | None = None,
    columns: str | None = None,
    metric: str | None = None,
    target: str | None = None,
    format: str = "text",
) -> str:
    """The table of one suite; what is not said comes from the suite's `table:` key."""
    if format not in FORMATS:
        raise UserError(f"unknown format '{format}'; choose one of {', '.join(FORMATS)}")
    runs = read_suite(root, suite)
    given = {"rows": rows, "columns": columns, "metric": metric}
    wanted = {
        key: value or runs.preset("table", key) or DEFAULTS[key] for key, value in given.items()
    }
    share = _share(target or runs.preset("table", "target"))
    return FORMATS[format](_sheet(runs, **wanted, target=share))


def choose(runs: pd.DataFrame) -> str | None:
    """The setting to show: best mean dev accuracy, then dev loss, at the most finished seeds.

    A tie in both goes to the smaller id. None when no run is finished, or when several settings
    have the most seeds and none of them has dev numbers.
    """
    done = runs[runs["status"] == "done"]
    seeds = Counter(done["setting"])
    full = [setting for setting, count in seeds.items() if count == max(seeds.values())]
    if len(full) < 2:
        return full[0] if full else None
    means = {setting: _dev(done[done["setting"] == setting]) for setting in full}
    best = max(means.values())
    winners = [setting for setting, mean in means.items() if mean == best]
    return min(winners) if best > (-math.inf, -math.inf) else None


def _dev(runs: pd.DataFrame) -> tuple[float, float]:
    """Mean dev accuracy and minus the mean dev loss; -inf where a run has none."""
    means = (runs["dev/accuracy"].mean(skipna=False), -runs["dev/loss"].mean(skipna=False))
    # Rounded, so that the same numbers tie in whatever order they were summed.
    accuracy, loss = (-math.inf if math.isnan(mean) else round(mean, 12) for mean in means)
    return accuracy, loss


def _share(text: str | None) -> float | None:
    """The target as a number; UserError unless it is an accuracy."""
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = math.nan
    if value is not None and not 0 < value <= 1:
        raise UserError(f"target {text}: must be a dev accuracy as a fraction, such as 0.9")
    return value


def _until(suite: Suite, frame: pd.DataFrame, target: float) -> list[float]:
    """Forwards that each finished run spent until dev/accuracy reached the target, else NaN."""
    return [
        forwards_to(
            curve(read_metrics(suite.path / folder), "cost/forwards", "dev/accuracy"), target
        )
        if status == "done"
        else math.nan
        for folder, status in zip(frame["folder"], frame["status"], strict=True)
    ]


def _sheet(suite: Suite, rows: str, columns: str, metric: str, target: float | None) -> Sheet:
    """Group the runs into cells and lay them out."""
    if rows == columns:
        raise UserError(f"rows and columns are both '{rows}'; choose another --rows or --columns")
    frame = suite.frame
    if suite.metrics:
        suite.check_metric(metric)
    if metric not in frame:
        frame = frame.assign(**{metric: math.nan})
    if target is not None:
        frame = frame.assign(**{forwards_key(target): _until(suite, frame, target)})
    places = frame.groupby([suite.labels(rows), suite.labels(columns)])
    groups = {(str(name), str(head)): group for (name, head), group in places}
    names, heads = (sorted({key[axis] for key in groups}, key=order) for axis in (0, 1))
    keys = [(name, head) for name in names for head in heads if (name, head) in groups]
    cells = {key: fill(suite, *key, groups[key], metric) for key in keys}
    noted = [key for key in keys if cells[key].notes]
    marks = {key: f" [{count}]" for count, key in enumerate(noted, start=1)}
    until = [] if target is None else [f"forwards to {100 * target:g} %"]
    body = []
    for name in names:
        here = [(name, head) for head in heads]
        line = [cells[k].text(metric, marks.get(k, "")) if k in cells else "-" for k in here]
        if len(heads) == 1:
            only = cells[here[0]]
            line += [number(key, only.done[key].mean()) for key in EXTRAS.values()]
            line += [] if target is None else [only.forwards_to(target)]
        body.append([name, *line])
    notes = [
        f"{marks[key].strip()} {', '.join(key)}: {n}" for key in noted for n in cells[key].notes
    ]
    return Sheet(
        title=f"{suite.name}: {metric}{' (%)' if is_share(metric) else ''}",
        header=[rows, *heads, *([*EXTRAS, *until] if len(heads) == 1 else ())],
        body=body,
        notes=[*_footer(suite, list(cells.values()), metric, target), *notes],
        records=[cell.record(metric, target) for cell in cells.values()],
    )


def order(label: str) -> list[tuple[int, float, str]]:
    """Numbers by size, then words by letter, in every part of `a, b` and `key=a, other=b`."""

    def place(part: str) -> tuple[int, float, str]:
        try:
            return 0, float(part), part
        except ValueError:
            return 1, 0.0, part

    return [place(part) for part in re.split(", |=", label)]


def fill(suite: Suite, row: str, column: str, runs: pd.DataFrame, metric: str) -> Cell:
    """Choose the setting the cell shows and say what else there was."""
    labels = suite.differences(runs)
    setting = choose(runs) or ("" if len(labels) > 1 else next(iter(labels)))
    shown = runs[runs["setting"] == setting] if setting else runs
    done = shown[shown["status"] == "done"] if setting else shown[:0]
    finite = done[metric].abs() < math.inf
    notes = _rivals(runs, labels, setting) if len(labels) > 1 else []
    for (status, reason), group in runs[runs["status"] != "done"].groupby(["status", "reason"]):
        why = f" ({reason})" if reason else ""
        notes.append(f"{status}{why}: {', '.join(group['folder'])}")
    if not finite.all():
        notes.append(f"done, but without a finite {metric}: {', '.join(done['folder'][~finite])}")
    return Cell(row, column, setting, len(labels), shown, done[metric][finite], notes)


def _rivals(runs: pd.DataFrame, labels: dict[str, str], setting: str) -> list[str]:
    """Which settings competed for a cell, in what they differ, and which of them is shown."""
    finished = Counter(runs["setting"][runs["status"] == "done"])
    lines = {}
    for name, label in sorted(labels.items(), key=lambda item: item[1]):
        mine = runs[runs["setting"] == name]
        done = mine[mine["status"] == "done"]
        dev = {key: done[key].mean(skipna=False) for key in ("dev/accuracy", "dev/loss")}
        facts = [f"{key} {number(key, mean)}" for key, mean in dev.items() if not math.isnan(mean)]
        lines[name] = f"{label} ({'; '.join([*facts, f'{len(done)} of {len(mine)} runs done'])})"
        if finished[name] < finished[setting]:
            lines[name] += " left out for fewer finished seeds"
    rule = f"best on dev among those with the most finished seeds ({max(finished.values() or [0])})"
    chosen = lines.pop(setting, "none, as nothing is finished or no dev numbers tell them apart")
    verdict = f"{len(labels)} settings competed; shown, {rule}: {chosen}"
    return [f"{verdict}; not shown: {'; '.join(lines.values())}"]


def _footer(suite: Suite, cells: list[Cell], metric: str, target: float | None) -> list[str]:
    """What every number of the table rests on: metric, seeds, budget, machine."""
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
    steps = {str(flatten(suite.configs[run]).get("budget.steps", "-")) for run in done["id"]}
    notes.append(
        f"budget: budget.steps {', '.join(sorted(steps, key=order))}; "
        f"forwards {counts(done['cost/forwards'])}"
    )
    means = pd.DataFrame([cell.record(metric) for cell in cells])[["column", "forwards"]]
    if (means.groupby("column")["forwards"].nunique() > 1).any():
        spent = []
        for row in dict.fromkeys(cell.row for cell in cells):
            parts = [cell.done["cost/forwards"] for cell in cells if cell.row == row]
            spent.append(f"{row} {counts(pd.concat(parts))}")
        notes.append(f"rows spent different numbers of forwards: {'; '.join(spent)}")
    if target is not None:
        place = "" if len(set(means["column"])) == 1 else ", shown where there is one column"
        notes.append(
            f"forwards to {100 * target:g} %: cost/forwards at the first evaluation with at least "
            f"that dev/accuracy, over the finished runs that had one{place}"
        )
    for key in ("commit", "device"):
        if done[key].nunique() > 1:
            notes.append(f"the runs differ in {key}: {', '.join(sorted(set(done[key])))}")
    return notes


def main(argv: list[str]) -> int:
    """Command line of `zobench table`."""
    parser = suite_parser(
        "table",
        "Mean and sample standard deviation over seeds, from the run folders of a suite. "
        "Where several settings compete for a cell, the dev split chooses and a note says so.",
        "zobench table quickstart --rows optimizer --columns task --format latex",
    )
    keys = "choices (optimizer, task, ...) or config keys (optimizer.lr), joined by commas"
    parser.add_argument("--rows", help=f"{keys}; default: the suite's, or optimizer")
    parser.add_argument("--columns", help=f"{keys}; default: the suite's, or task")
    parser.add_argument("--metric", help="a number of the results; default: test/accuracy")
    parser.add_argument("--target", help="also show the forwards to this dev accuracy, as in 0.9")
    parser.add_argument("--format", default="text", help=f"{', '.join(FORMATS)} (default: text)")
    options = vars(parser.parse_args(argv))
    print(table(options.pop("runs"), options.pop("suite"), **options), end="")
    return 0
