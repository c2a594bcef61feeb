"""One run's metrics.jsonl as short columns for the report page: merged by step, thinned, rounded.

A line that cannot be read is left out: the run may still be writing it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from zobench.report.curves import add_seconds
from zobench.report.numbers import numbers_in

AXES = ("step", "cost/forwards", "cost/tokens", "time/train_s")
_NO_CURVES = ("cost/", "memory/", "test/", "time/eval_s")

Column = list[float | None]


def columns(path: Path, limit: int) -> tuple[dict[str, Column], dict[str, Column]]:
    """Axes and metrics of a metrics.jsonl, each a list with an entry per kept row.

    limit: points to keep of each metric; the kept rows are those of all metrics but `time/...`.
    None stands where a metric has no finite number. A file that is not there has no columns.
    """
    rows = _rows(path)
    known = {key: pd.Series([row.get(key) for row in rows], dtype=float).ffill() for key in AXES}
    axes = {  # without those that ever fall
        key: column.tolist()
        for key, column in known.items()
        if column.notna().any() and column.dropna().is_monotonic_increasing
    }
    names = sorted({k for row in rows for k in row if k not in AXES})
    names = [name for name in names if not name.startswith(_NO_CURVES)]
    metrics = {name: [row.get(name) for row in rows] for name in names}
    # Clocks are in every row, and theirs are not the extremes that matter.
    leading = [name for name in names if not name.startswith("time/")] or names
    keep = sorted({i for name in leading for i in thin(metrics[name], limit)})
    return (
        {key: [rounded(column[i]) for i in keep] for key, column in axes.items()},
        {
            name: [rounded(column[i]) for i in keep]
            for name, column in metrics.items()
            if any(value is not None for value in column)
        },
    )


def thin(values: Sequence[float | None], limit: int) -> list[int]:
    """Indices of at most `limit` numbers: first, last, and the extremes of equal stretches."""
    known = [(value, i) for i, value in enumerate(values) if value is not None]
    if len(known) <= limit:
        return [i for _, i in known]
    keep = {known[0][1], known[-1][1]}
    stretches = max(1, (limit - 2) // 2)
    for n in range(stretches):
        part = known[n * len(known) // stretches : (n + 1) * len(known) // stretches]
        keep |= {min(part)[1], max(part)[1]}
    return sorted(keep)


def rounded(value: float | None) -> float | None:
    """Six significant digits; whole numbers such as counts stay as they are."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _rows(path: Path) -> list[dict[str, float]]:
    """The finite numbers of each step, what is logged later first in line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows: list[dict[str, float]] = []
    for line in lines:
        if (row := _row(line)) is None:
            continue
        if rows and "step" in row and rows[-1].get("step") == row["step"]:
            rows[-1] |= row
        else:
            rows.append(row)
    return rows


def _row(line: str) -> dict[str, float] | None:
    try:
        content: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    row = {key: value for key, value in numbers_in(content).items() if math.isfinite(value)}
    add_seconds(row)
    return row
