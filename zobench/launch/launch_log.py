"""What one command launches, noted as it happens: `<runs_root>/.launches/<when>-<who>.jsonl`.

The first line is the plan: suite, command line, number of runs, process. Then a line per run that
begins and that ends, by whichever process or machine it is launched.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zobench.errors import UserError
from zobench.launch.job import described

VARIABLE = "ZOBENCH_LAUNCH"  # environment variable: the file, for the processes of one command
FOLDER = ".launches"


class Counts(NamedTuple):
    """How far a launch is: runs planned, how many ended in which way, how many are under way.

    left_s: seconds until the end if the rest goes on as it did, once something says so.
    """

    planned: int
    ended: dict[str, int]
    running: int
    left_s: float | None

    @property
    def waiting(self) -> int:
        """Runs that have not begun."""
        return max(0, self.planned - sum(self.ended.values()) - self.running)

    def __str__(self) -> str:
        parts = [f"{count} {status}" for status, count in self.ended.items()]
        parts += [f"{self.running} running"] if self.running else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        left = f"; about {duration(self.left_s)} left" if self.waiting and self.left_s else ""
        return f"{self.planned} runs: {', '.join(parts)}{left}"


def begin(runs_root: str, suite: str, command: Sequence[str], runs: int) -> None:
    """Note the plan of this process's command; the processes that it starts find it, too.

    Where the disk does not take it, the first run's note says so.
    """
    folder = Path(runs_root).resolve() / FOLDER
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{platform.node()}-{os.getpid()}.jsonl"
    os.environ[VARIABLE] = str(path)
    plan = {"suite": suite, "command": list(command), "runs": runs}
    with contextlib.suppress(OSError, UserError):
        folder.mkdir(parents=True, exist_ok=True)
        note({**plan, "pid": os.getpid(), "host": platform.node()})


def note(row: dict[str, Any]) -> None:
    """Append a line, where this process belongs to a launch.

    Raises UserError where the disk does not take it: the launch ends, since it would lose count.
    """
    if path := os.environ.get(VARIABLE):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), **row}) + "\n")
        except OSError as error:
            raise UserError(f"runs_root: {described(error)[1]}") from error


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file, the plan first; none where there is none."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return list(_whole(lines))


def _whole(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # half a line, of a process that was killed or a disk that was full
        if isinstance(row, dict):
            yield row


def counts(rows: Sequence[dict[str, Any]]) -> Counts:
    """Count a launch's rows; a run that is noted twice is in its last state."""
    plan, *events = rows
    last: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(events):
        last[row["run"] or f"settings {number}"] = row
    ended: dict[str, int] = {}
    for row in last.values():
        if row["status"] != "begun":
            ended[row["status"]] = ended.get(row["status"], 0) + 1
    running = len(last) - sum(ended.values())
    worked = [row["time"] for row in last.values() if row["status"] not in ("begun", "skipped")]
    left = None
    if worked:
        pace = (max(worked) - plan["time"]) / len(worked)
        left = pace * (plan["runs"] - sum(ended.values()))
    return Counts(plan["runs"], ended, running, left)


def end(path: Path) -> None:
    """The command is over: of a sweep the file stays, of anything else there is nothing to tell."""
    plan, *events = rows_of(path) or [{"runs": 0}]
    if plan["runs"] < 2 or not any(row["run"] for row in events):
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                return  # it has other files


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
