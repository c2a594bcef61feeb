"""The log of one command's launches: `<runs_root>/.launches/<time>-<host>-<pid>.jsonl`.

The first line is the plan: suite, command line, number of runs, process. All processes of the
command then append a line when a run begins and when it ends.
"""

import contextlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zobench.errors import UserError
from zobench.launch.run_lock import lives

VARIABLE = "ZOBENCH_LAUNCH"  # environment variable: the file, for all processes of the command
FOLDER = ".launches"
KEPT = 30.0  # days that the log of an ended sweep is kept


class Counts(NamedTuple):
    """Progress of a launch: runs planned, ended by status, and running.

    left_s: estimated seconds to the end; None if unknown.
    """

    planned: int
    ended: dict[str, int]
    running: int
    left_s: float | None

    @property
    def waiting(self) -> int:
        return max(0, self.planned - sum(self.ended.values()) - self.running)

    def __str__(self) -> str:
        parts = [f"{count} {status}" for status, count in self.ended.items()]
        parts += [f"{self.running} running"] if self.running else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        left = f"; about {duration(self.left_s)} left" if self.waiting and self.left_s else ""
        return f"{self.planned} runs: {', '.join(parts)}{left}"


def begin(
    runs_root: str, suite: str, command: Sequence[str], runs: int, stop_at_failure: bool = False
) -> None:
    """Start the log of this command. A full disk is reported by the first run's `note`."""
    folder = Path(runs_root).resolve() / FOLDER
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{platform.node()}-{os.getpid()}.jsonl"
    os.environ[VARIABLE] = str(path)
    plan = {"suite": suite, "command": list(command), "runs": runs}
    plan |= {"stop_at_failure": True} if stop_at_failure else {}
    with contextlib.suppress(OSError, UserError):
        folder.mkdir(parents=True, exist_ok=True)
        _expire(folder)
        note({**plan, "pid": os.getpid(), "host": platform.node()})


def _expire(folder: Path) -> None:
    """Remove the logs of commands that ended long ago."""
    oldest = time.time() - KEPT * 86_400
    for path in folder.glob("*.jsonl"):
        if path.stat().st_mtime < oldest and not living(rows_of(path)):
            path.unlink(missing_ok=True)


def living(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the command of a log is a living process of this machine."""
    return bool(rows) and rows[0].get("host") == platform.node() and lives(rows[0]["pid"])


def note(row: dict[str, Any]) -> None:
    """Append a line if this process belongs to a launch; UserError if the disk is full."""
    if path := os.environ.get(VARIABLE):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), **row}) + "\n")
        except OSError as error:
            from zobench.launch.job import described  # imports torch

            raise UserError(f"runs_root: {described(error)[1]}") from error


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The complete lines of the file, the plan first; empty if there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = []
    for line in lines:
        with contextlib.suppress(ValueError):  # a killed process or a full disk leaves half a line
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) else []
    return rows


def counts(rows: Sequence[dict[str, Any]]) -> Counts:
    """Count a launch's rows; the last row of a run counts."""
    plan, *events = rows
    last = {row["run"] or f"settings {number}": row for number, row in enumerate(events)}
    ended = Counter(row["status"] for row in last.values() if row["status"] != "begun")
    running = len(last) - ended.total()
    worked = [row["time"] for row in last.values() if row["status"] not in ("begun", "skipped")]
    left = None
    if worked:
        pace = (max(worked) - plan["time"]) / len(worked)
        left = pace * (plan["runs"] - ended.total())
    return Counts(plan["runs"], ended, running, left)


def stops(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a run has failed in a launch with `stop_at_failure`, so that none begins any more."""
    asked = bool(rows) and rows[0].get("stop_at_failure", False)
    return asked and any(row["status"] == "failed" for row in rows[1:])


def own() -> list[dict[str, Any]]:
    """The rows of the launch that this process belongs to; empty if there is none."""
    return rows_of(Path(os.environ.get(VARIABLE, "none")))


def end(path: Path) -> None:
    """Remove the log at the end of the command, unless it was a sweep."""
    plan, *events = rows_of(path) or [{"runs": 0}]
    if plan["runs"] < 2 or not any(row["run"] for row in events):
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                return  # not empty


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `4 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
