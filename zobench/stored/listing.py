"""`zobench list [SUITE]`: the suites on disk, or the runs of one."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zobench.errors import UserError
from zobench.launch.launch_log import duration
from zobench.report.runs import add_runs, suites
from zobench.stored.folders import STATUSES, measured, runs_in, shown_size, status_of, stored


def main(arguments: Sequence[str]) -> int:
    """Print a line for each suite, or for each run of a suite."""
    parser = argparse.ArgumentParser(
        prog="zobench list",
        description="List the suites with their runs by status, size on disk and last change; with"
        " SUITE, its runs.",
        epilog="example: zobench list quickstart",
    )
    parser.add_argument("suite", metavar="SUITE", nargs="?", help="list the runs of this suite")
    add_runs(parser)
    given = parser.parse_args(arguments)
    names = suites(given.runs)
    if given.suite is None:
        lines = [suite_line(given.runs / name) for name in names]
        head = ("suite", "runs", "", "size", "changed")
    else:
        if given.suite not in names:
            there = ", ".join(names) or "none yet"
            raise UserError(f"no suite '{given.suite}' in {given.runs}; there are {there}")
        lines = [run_line(run) for run in runs_in(given.runs / given.suite)]
        head = ("run", "status", "", "size", "changed")
    print("\n".join(aligned([head, *lines])) if lines else f"{given.runs}: no runs yet")
    return 0


def suite_line(suite: Path) -> tuple[str, ...]:
    """Name, number of runs, runs by status, size and age of a suite."""
    runs = runs_in(suite)
    counts = Counter(map(status_of, runs))
    parts = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    size, changed = measured(suite)
    return suite.name, str(len(runs)), parts, shown_size(size), _ago(changed)


def run_line(path: Path) -> tuple[str, ...]:
    """Name, status, size and age of a run."""
    run = stored(path)
    return path.name, run.status, "", shown_size(run.size), _ago(run.changed)


def _ago(changed: float) -> str:
    return f"{duration(max(0.0, time.time() - changed))} ago"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines with columns of equal width; empty columns are left out."""
    kept = [i for i in range(len(lines[0])) if any(line[i] for line in lines)]
    widths = {i: max(len(line[i]) for line in lines) for i in kept}
    return ["  ".join(f"{line[i]:<{widths[i]}}" for i in kept).rstrip() for line in lines]
