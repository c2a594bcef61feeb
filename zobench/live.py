"""One view of runs that go at the same time, on a terminal: a line for each, and the whole sweep.

Each run is in a process of its own. What they print goes through a pipe to the launching command,
which shows it above the view; how far they are is read from the launch log and metrics.jsonl.
"""

import json
import os
import re
import select
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zobench.launch import launch_log
from zobench.launch.launch_log import duration
from zobench.run.notes import LIVE

_TAIL = 4096  # bytes at the end of metrics.jsonl that are read
_LINES = 20  # runs shown
_BETWEEN = re.compile(r"(?<!\de)(?<!=)-")  # hyphens of a run's name, but not those of 1e-4 and =-1


class Reached(NamedTuple):
    """How far a run is: its last step, the steps of its budget, its last losses and metrics."""

    step: int
    steps: int | None
    values: dict[str, float]


class LiveView:
    """The view of one command; between `start` and `stop` it has the terminal."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def start(self) -> None:
        """Show the view; what this process and those it starts print goes above it."""
        sys.stdout.flush()
        self._before = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        self._terminal = os.fdopen(os.dup(1), "w")
        self._pipe, other_end = os.pipe()
        for number in self._before:
            os.dup2(other_end, number)
        os.close(other_end)
        os.environ[LIVE] = "1"
        console = Console(file=self._terminal)
        options: dict[str, Any] = {"transient": True, "refresh_per_second": 2}
        options |= {"redirect_stdout": False, "redirect_stderr": False}
        self._live = Live(console=console, get_renderable=_drawn, **options)
        self._live.start()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Remove the view; all that was printed stays, and the counts of the launch."""
        sys.stdout.flush()
        for number, before in self._before.items():
            os.dup2(before, number)
            os.close(before)
        del os.environ[LIVE]
        self._ended.set()  # workers that wait for more runs still have the pipe
        self._reader.join()
        self._live.stop()
        if rows := launch_log.own():
            print(launch_log.counts(rows), file=self._terminal)
        self._terminal.close()
        os.close(self._pipe)

    def _read(self) -> None:
        """Print complete lines from the pipe above the view."""
        data = b""
        while True:
            ended = self._ended.is_set()
            if select.select([self._pipe], [], [], 0.1)[0]:
                data += os.read(self._pipe, 1 << 16)
                *lines, data = data.split(b"\n")
                for line in lines:
                    self._live.console.out(line.decode(errors="replace"), highlight=False)
            elif ended:
                return


_view: LiveView | None = None


def begin(launcher: str, runs: int) -> None:
    """Start the view if the launcher has several runs at once, and stdout is a terminal."""
    global _view
    if _view is None and launcher.endswith(".JoblibLauncher") and runs > 1 and os.isatty(1):
        _view = LiveView()
        _view.start()


def end() -> None:
    """Stop the view, if there is one."""
    global _view
    if _view is not None:
        _view.stop()
        _view = None


def _drawn() -> RenderableType:
    root = Path(os.environ.get(launch_log.VARIABLE, "none")).parent.parent
    return drawn(rows, root, time.time()) if (rows := launch_log.own()) else ""


def drawn(rows: Sequence[dict[str, Any]], root: Path, now: float) -> RenderableType:
    """A line for each running run, and the counts of the launch.

    Args:
        rows: of the launch log.
        root: the folder of all runs.
        now: seconds since 1970.
    """
    plan, *events = rows
    last = {row["run"]: row for row in events if row["run"]}
    running = [row for row in last.values() if row["status"] == "begun"]
    names = short(list(last))
    table = Table.grid(padding=(0, 1))
    for no_wrap in (True, True, True, False, True):  # what wraps gives way on a narrow terminal
        table.add_column(no_wrap=no_wrap)
    for row in running[:_LINES]:
        line = _line(row, root / plan["suite"] / row["run"], now)
        table.add_row(Text(names[row["run"]], overflow="ellipsis"), *line)
    hidden = len(running) - _LINES
    more = [Text(f"and {hidden} more")] if hidden > 0 else []
    return Group(table, *more, Text(str(launch_log.counts(rows))))


def short(names: Sequence[str]) -> dict[str, str]:
    """Name -> its parts from the first that differs among the names, without the id if it can."""
    parts = [_BETWEEN.split(name) for name in names]
    same = len(list(takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))))
    ends = ["-".join(each[same if len(names) > 1 else 0 :]) for each in parts]
    brief = [end.rpartition("-")[0] or end for end in ends]
    return dict(zip(names, brief if len(set(brief)) == len(brief) else ends, strict=True))


def _line(row: dict[str, Any], folder: Path, now: float) -> list[RenderableType]:
    """What follows the run's name: a bar, the step, losses and metrics, the time left."""
    reached = reached_by(folder)
    if reached is None:
        return ["", Text("starts"), "", ""]
    shown = [f"{key} {value:.4g}" for key, value in reached.values.items()]
    if not reached.steps:
        return ["", Text(f"step {reached.step}"), Text(", ".join(shown)), ""]
    left = (now - row["time"]) / max(1, reached.step) * (reached.steps - reached.step)
    bar = ProgressBar(total=reached.steps, completed=reached.step, width=12)
    rest = f"{duration(left)} left" if reached.step else ""
    values = Text(", ".join(shown), no_wrap=True, overflow="ellipsis")
    return [bar, Text(f"{reached.step}/{reached.steps}"), values, Text(rest)]


def reached_by(folder: Path) -> Reached | None:
    """How far the run of a folder is; None before its first row of metrics."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().splitlines()
        steps = _steps_of(folder / "config.yaml")
    except OSError:
        return None
    step, values = 0, {}
    for line in lines:
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):  # the first line read, or one being written
            continue
        for key in ("train/loss", "dev/loss", "dev/accuracy"):
            if isinstance(row.get(key), int | float):
                values[key] = row[key]
    return Reached(step, steps, values) if values else None


@cache
def _steps_of(config: Path) -> int | None:
    """The budget in steps of a run's settings; None if it is in seconds or cannot be read."""
    try:
        steps = yaml.safe_load(config.read_text())["budget"]["steps"]
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None
