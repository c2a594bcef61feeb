"""Curves of a sweep that is still running: rows without a finished run as they stand."""

import math
from dataclasses import replace

import pandas as pd

from zobench.report.curves import Row, read_metrics
from zobench.report.runs import Suite


def as_it_stands(suite: Suite, x: str, y: str, by: str) -> tuple[Suite, list[str]]:
    """The suite with runs that count as finished, and the rows, by label, that have only those.

    They are the unfinished runs that have logged x and y, of rows and tasks without a finished run;
    their best dev score so far selects between settings.
    """
    frame = suite.frame.copy()
    if not (frame["status"] == "unfinished").any() or by == "setting":
        return suite, []
    tasks = frame["task"] if "task" in suite.choices else pd.Series("", index=frame.index)
    shown = []
    for (label, task), runs in frame.groupby([suite.labels(by), tasks]):
        if (runs["status"] == "done").any():
            continue
        for place in runs.index[runs["status"] == "unfinished"]:
            rows = read_metrics(suite.path / str(frame.at[place, "folder"]))
            if any(x in row for row in rows) and any(y in row for row in rows):
                frame.at[place, "status"] = "done"
                frame.at[place, "dev/accuracy"], frame.at[place, "dev/loss"] = _dev(rows)
                shown.append(", ".join(filter(None, (str(label), str(task)))))
    return replace(suite, frame=frame), list(dict.fromkeys(shown))


def _dev(rows: list[Row]) -> tuple[float, float]:
    """The best dev accuracy so far with its loss, or the lowest loss where there is no accuracy."""
    pairs = [
        (row.get("dev/accuracy", math.nan), row.get("dev/loss", math.nan))
        for row in rows
        if "dev/accuracy" in row or "dev/loss" in row
    ]
    missing = (math.nan, math.nan)
    scored = [pair for pair in pairs if not math.isnan(pair[0])]
    if scored:
        return max(scored, key=lambda pair: pair[0])
    lost = [pair for pair in pairs if not math.isnan(pair[1])]
    return min(lost, key=lambda pair: pair[1], default=missing)
