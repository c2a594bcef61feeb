"""The data of the report page about a suite, as plain JSON values."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from zobench.errors import UserError
from zobench.report.numbers import is_share, order
from zobench.report.page.curves import AXES, columns, rounded
from zobench.report.page.labels import group_keys, labels
from zobench.report.runs import Suite, flatten
from zobench.report.selection import selected
from zobench.report.statistics import T95
from zobench.report.table import DEFAULTS

LOG_CHARACTERS = 4000  # of the end of a log
POINTS = (100, 400)  # fewest and most that a run keeps of a metric
ALL_POINTS = 40_000  # of a metric of all runs, where that leaves the fewest: the page stays small
_IDENTITY = ("id", "setting", "name", "suite", "seed", "choices")


def page_data(suite: Suite) -> dict[str, Any]:
    """Runs with their numbers, curves, settings and logs; common entries are given once."""
    settings, configs = shared([suite.flat[run] for run in suite.frame["id"]])
    abouts = [_about(suite.path / folder) for folder in suite.frame["folder"]]
    environment, own = shared(abouts)
    named = labels(suite)
    chosen, view = _chosen(suite), view_of(suite)
    rows, best = _rows(suite, view["rows"]), _best(suite)
    limit = min(max(ALL_POINTS // len(suite.frame), POINTS[0]), POINTS[1])
    runs = []
    for place, row in enumerate(suite.frame.to_dict("records")):
        folder = suite.path / str(row["folder"])
        x, y = columns(folder / "metrics.jsonl", limit)
        numbers = {key: rounded(row.get(key)) for key in suite.metrics}
        run = {key: row[key] for key in ("folder", "id", "setting", "seed", "status", "reason")}
        run |= {
            "label": named[row["id"]],
            "row": rows[row["id"]],
            "selected": row["id"] in chosen,
            "best": row["id"] in best,
            "choices": {key: row[key] for key in suite.choices},
            "numbers": {key: value for key, value in numbers.items() if value is not None},
            "config": configs[place],
            "environment": own[place],
            "begun": _written(folder, "meta.json"),
            "ended": _written(folder, "result.json", "failure.json", "metrics.jsonl"),
            "log": "" if row["status"] == "done" else tail(folder / "stderr.log"),
            "x": x,
            "y": y,
        }
        runs.append(run)
    runs.sort(key=lambda run: (order(run["label"]), run["seed"]))
    metrics = sorted({key for run in runs for key in run["y"]})
    shares = [key for key in {*metrics, *suite.metrics} if is_share(key)]
    return {
        "suite": suite.name,
        "axes": [key for key in AXES if any(key in run["x"] for run in runs)],
        "metrics": metrics,
        "shares": sorted(shares),
        "groups": group_keys(suite),
        "first": {key: _preset(suite, "plot", key) for key in ("x", "y")},
        "table": view | {"baseline": _preset(suite, "table", "baseline")},
        "t95": T95,
        "settings": settings,
        "environment": environment,
        "runs": runs,
    }


def shared(
    mappings: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The entries that all of them have, and the other entries of each."""
    first, *rest = mappings
    common = {k: v for k, v in first.items() if all(k in m and m[k] == v for m in rest)}
    own = [{k: v for k, v in mapping.items() if k not in common} for mapping in mappings]
    return common, own


def tail(path: Path) -> str:
    """The end of a text file, whole lines where it has any; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4 * LOG_CHARACTERS))  # a character takes four bytes at most
            text = file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
    if len(text) <= LOG_CHARACTERS:
        return text
    text = text[-LOG_CHARACTERS:]
    return "[...]\n" + text.partition("\n")[2] if "\n" in text else text


def _chosen(suite: Suite) -> set[str]:
    """The runs, by id, that the cells of the table show: of the settings that dev selects.

    Where nothing can be selected all of a cell's runs are there.
    """
    view = view_of(suite)
    try:
        rows, heads = (suite.labels(view[key]) for key in ("rows", "columns"))
    except UserError:  # the table reports it, too
        return set(suite.frame["id"])
    cells = suite.frame.groupby([rows, heads])
    return {run for _, cell in cells for run in selected(cell, view["select"])[1]["id"]}


def _rows(suite: Suite, keys: str) -> dict[str, str]:
    """The row of the table that each run, by id, is in; empty for keys that no run has."""
    try:
        labels = list(suite.labels(keys))
    except UserError:  # the table reports it, too
        labels = [""] * len(suite.frame)
    return dict(zip(suite.frame["id"], labels, strict=True))


def _best(suite: Suite) -> set[str]:
    """The finished runs, by id, of the best dev accuracy of their task, then of dev loss."""
    done = suite.frame[suite.frame["status"] == "done"]
    best = set()
    tasks = done["task"] if "task" in suite.choices else pd.Series("", index=done.index)
    for _, runs in done.groupby(tasks):
        pairs = (-runs["dev/accuracy"].fillna(-1.0), runs["dev/loss"].fillna(math.inf))
        keys = list(zip(*pairs, strict=True))
        if any(key != (1.0, math.inf) for key in keys):
            best |= {run for run, key in zip(runs["id"], keys, strict=True) if key == min(keys)}
    return best


def view_of(suite: Suite) -> dict[str, str]:
    """What the suite's table shows: its own settings, defaults where the runs disagree."""
    return {key: _preset(suite, "table", key) or DEFAULTS[key] for key in DEFAULTS}


def _preset(suite: Suite, part: str, key: str) -> str | None:
    try:
        return suite.preset(part, key)
    except UserError:  # the runs disagree
        return None


def _about(folder: Path) -> dict[str, Any]:
    """Commit, device, versions and the other entries of meta.json but the run's identity."""
    content = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return flatten({k: v for k, v in content.items() if k not in _IDENTITY})


def _written(folder: Path, *names: str) -> str:
    """When the first of the files that is there was written, in UTC, to the minute."""
    for name in names:
        if (path := folder / name).is_file():
            when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            return when.strftime("%Y-%m-%d %H:%M")
    return ""
