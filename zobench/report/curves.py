"""Curves out of metrics.jsonl: one run's, their mean over seeds, and the cost of a target."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from zobench.errors import UserError
from zobench.report.numbers import numbers_in

Row = dict[str, float]


def read_metrics(folder: Path) -> list[Row]:
    """The numbers of each line of a run's metrics.jsonl, NaN for a null; none without the file.

    `time/train_s`, the seconds that the steps so far took, is added where `time/step_s` is known.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a run may be writing the last line
        lines = [json.loads(line).items() for line in whole.splitlines()]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {path}: {error}; repair or remove the folder") from error
    rows = [numbers_in({k: math.nan if v is None else v for k, v in line}) for line in lines]
    for row in rows:
        add_seconds(row)
    return rows


def add_seconds(row: Row) -> None:
    """Add the seconds of a row's steps, where an older run has their mean only."""
    if {"step", "time/step_s"} <= row.keys():
        row.setdefault("time/train_s", row["step"] * row["time/step_s"])


def curve(rows: Sequence[Row], x: str, y: str) -> pd.DataFrame:
    """Columns x and y, a row per line that has y, with the last x known by then.

    Where several lines have the same x the last counts. UserError when x decreases: it cannot be an
    axis.
    """
    known = math.nan
    points: dict[float, float] = {}
    for row in rows:
        if not math.isnan(row.get(x, math.nan)):
            known = row[x]
        if y not in row or math.isnan(known):
            continue
        if points and known < next(reversed(points)):
            raise UserError(
                f"{x} decreases during a run, so nothing can be drawn against it; "
                "choose step, cost/forwards, cost/tokens or time/train_s"
            )
        points[known] = row[y]
    return pd.DataFrame({"x": points.keys(), "y": points.values()}, dtype=float)


def mean_curve(curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Columns x, mean, std (sample, NaN for one curve) and n, over the range all curves share.

    The points are those of any curve; the others are interpolated linearly there. A value that is
    no number leaves a gap. UserError when the curves have no x in common.
    """
    first = max(c["x"].min() for c in curves)
    last = min(c["x"].max() for c in curves)
    if first > last:
        raise UserError(f"the curves of the seeds have no x in common: {first:g} is after {last:g}")
    grid = np.unique(np.concatenate([c["x"] for c in curves]))
    grid = grid[(first <= grid) & (grid <= last)]
    values = pd.DataFrame([np.interp(grid, c["x"], c["y"]) for c in curves])
    mean, std = values.mean(skipna=False), values.std(skipna=False)
    return pd.DataFrame({"x": grid, "mean": mean, "std": std, "n": len(curves)})


def forwards_to(accuracy: pd.DataFrame, target: float) -> float:
    """x of the first point whose y is at least the target, NaN if there is none.

    accuracy: a curve of dev/accuracy against cost/forwards.
    """
    reached = accuracy["x"][accuracy["y"] >= target]
    return float(reached.iloc[0]) if len(reached) else math.nan
