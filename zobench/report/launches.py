"""How many runs of a suite its latest launch has planned and not begun."""

import contextlib
import json
from pathlib import Path
from typing import Any

_FOLDER = ".launches"  # in the folder of runs; a file per launch: the plan, then a line per event


def waiting(root: Path, suite: str) -> int:
    """Runs of the suite's latest launch that have not begun; 0 where there is no log of one."""
    latest: list[dict[str, Any]] = []
    for path in sorted((root / _FOLDER).glob("*.jsonl")):
        rows = _rows(path)
        if rows and rows[0].get("suite") == suite:
            latest = rows
    plan, *events = latest or [{}]
    begun = {event.get("run") or number for number, event in enumerate(events)}
    return max(0, int(plan.get("runs", 0)) - len(begun))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The complete lines of the file."""
    rows = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # a killed process leaves half a line
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) else []
    return rows
